"""Bring activations to zero mean and unit variance, then let the network choose its own scale and shift."""

from __future__ import annotations

from typing import Any

from ..ops.reference import feature_axis
from .base import Layer, positive


def _check(kind: str, epsilon, momentum=0.0) -> None:
    if not epsilon > 0:
        raise ValueError(f"{kind}: epsilon must be positive. Received: {epsilon!r}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"{kind}: momentum must lie between 0 and 1. Received: {momentum!r}")


class BatchNormalization(Layer):
    """Each feature or channel over the batch (and the map).  x (N, D) or (H, C, W, N) -> y of the same shape.

        y = gamma (x - mean) / sqrt(var + epsilon) + beta              Ioffe & Szegedy, 2015, algorithm 1

    In training mean and var are the whole batch's, also when the batch is split over replicas; otherwise they
    are the running ones:  running = momentum running + (1 - momentum) batch,  Keras's momentum (PyTorch's is
    1 - momentum) with the unbiased variance, as in PyTorch.  trainable=False freezes the running statistics
    too.

    momentum: of the running statistics.  epsilon: added to the variance.

    weight (gamma), bias (beta), running_mean, running_var: (D,) or (C,), as in torch.nn.BatchNorm2d.
    """

    weight: Any
    bias: Any
    dweight: Any
    dbias: Any
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any
    next_running_mean: Any
    next_running_var: Any
    next_num_batches_tracked: Any

    def __init__(self, momentum=0.99, epsilon=1e-3, **layer):
        if layer.pop("axis", -1) != -1:  # Keras's word, of channels_last
            raise ValueError("BatchNormalization: axis is the features' or channels' in every model, -1")
        super().__init__(**layer)
        _check("BatchNormalization", epsilon, momentum)
        self.momentum, self.epsilon = momentum, epsilon

    def build(self, in_shape, params):
        features = in_shape[:1]
        self.spread = (slice(None),) + (None,) * (
            len(in_shape) - 1
        )  # (C,) -> (C, 1, 1), to meet (H, C, W, N)
        self.least = (
            2 if len(in_shape) == 1 or in_shape[1:] == (1, 1) else 1
        )  # samples, so that there is a variance
        params.reserve(self, "weight", features, "ones")
        params.reserve(self, "bias", features, "zeros")
        params.reserve_state(self, "running_mean", features, 0.0)
        params.reserve_state(self, "running_var", features, 1.0)
        params.reserve_state(self, "num_batches_tracked", (), 0.0, integer=True)
        return in_shape

    def forward(self, x, *, train):
        xp, ops, spread = self.ops.xp, self.ops, self.spread
        if not (train and self.is_trainable):
            scale = self.weight / xp.sqrt(self.running_var + self.epsilon)
            y = xp.multiply(x, scale[spread], out=ops.like(x))
            y += (self.bias - self.running_mean * scale)[spread]
            return y, (None, x, scale)
        if ops.elements_a_feature(x) < 2:
            self.fail(
                "cannot normalise a batch of one sample: it has no variance. Received: a batch of 1. "
                "Expected: at least 2; use a larger batch_size, one that leaves no single sample over, or "
                "LayerNormalization"
            )
        y, mean, var, n, kept = ops.batch_norm(x, self.weight, self.bias, self.epsilon)
        if ops.leads:
            running = self.running_mean, self.running_var, self.num_batches_tracked
            out = self.next_running_mean, self.next_running_var, self.next_num_batches_tracked
            ops.running_statistics(mean, var, n, self.momentum, running, out)
        return y, (kept, None, None)

    def backward(self, dy, cache):
        kept, x, scale = cache
        ops, spread = self.ops, self.spread
        if kept is not None:
            return ops.batch_norm_backward(dy, kept, self.weight, self.dweight, self.dbias, self.needs_dx)
        # the running statistics are constants
        xhat = (x - self.running_mean[spread]) / ops.xp.sqrt(self.running_var + self.epsilon)[spread]
        ops.feature_sum(ops.xp.multiply(dy, xhat, out=xhat), out=self.dweight)
        ops.feature_sum(dy, out=self.dbias)
        dy *= scale[spread]
        return dy


class LayerNormalization(Layer):
    """Each sample over its own features.  x (N, D) or (H, C, W, N) -> y of the same shape.

        y = gamma (x - mean) / sqrt(var + epsilon) + beta              Ba, Kiros & Hinton, 2016, eq. 3

    axis: with None over all features of a sample, weight and bias (D,) or (C, H, W), as in
    torch.nn.LayerNorm(x.shape[1:]); with "channels" over the channels at each pixel, as Keras does with
    channels_last, weight and bias (C,).  epsilon: added to the variance.
    """

    weight: Any
    bias: Any
    dweight: Any
    dbias: Any
    axes: Any  # what is normalised
    over: Any  # what shares a weight
    spread: Any  # how a weight's axes meet x's

    def __init__(self, epsilon=1e-3, axis=None, **layer):
        super().__init__(**layer)
        _check("LayerNormalization", epsilon)
        axis = "channels" if axis == -1 else axis  # Keras's word, of channels_last
        if axis not in (None, "channels"):
            raise ValueError(f"LayerNormalization: axis must be None or 'channels'. Received: {axis!r}")
        self.epsilon, self.axis = epsilon, axis

    def build(self, in_shape, params):
        vector = len(in_shape) == 1
        if vector or self.axis == "channels":
            shape, order = in_shape[:1], None
            self.axes, self.over = 1, 0 if vector else (0, 2, 3)
            self.spread = slice(None) if vector else (slice(None), None, None)
        else:
            shape, order = in_shape, (1, 0, 2)  # (C, H, W), held as (H, C, W)
            self.axes, self.over, self.spread = (0, 1, 2), 3, (..., None)
        params.reserve(self, "weight", shape, "ones", order)
        params.reserve(self, "bias", shape, "zeros", order)
        return in_shape

    def forward(self, x, *, train):
        xhat = x - x.mean(axis=self.axes, keepdims=True)
        var = (xhat * xhat).mean(axis=self.axes, keepdims=True)
        slope = 1 / self.ops.xp.sqrt(var + self.epsilon)
        xhat *= slope
        y = xhat * self.weight[self.spread]
        y += self.bias[self.spread]
        return y, (xhat, slope)

    def backward(self, dy, cache):
        """dx = slope (g - mean(g) - xhat mean(g xhat)) with g = gamma dy, the means over each sample's
        features.
        """
        xhat, slope = cache
        (dy * xhat).sum(axis=self.over, out=self.dweight)
        dy.sum(axis=self.over, out=self.dbias)
        if not self.needs_dx:
            return None
        dy *= self.weight[self.spread]
        inner = (dy * xhat).mean(axis=self.axes, keepdims=True)
        dy -= dy.mean(axis=self.axes, keepdims=True)
        xhat *= inner
        dy -= xhat
        dy *= slope
        return dy


class GroupNormalization(Layer):
    """Each sample over groups of its channels.  x (N, D) or (H, C, W, N) -> y of the same shape.

        y = gamma (x - mean) / sqrt(var + epsilon) + beta              Wu & He, 2018, eq. 1 and 3

    mean and var are those of a group of C/G channels at all pixels.  groups: G, or -1 for a group a channel
    (instance normalization).  epsilon: added to the variance.  weight (gamma) and bias (beta) are (C,), as in
    torch.nn.GroupNorm.
    """

    weight: Any
    bias: Any
    dweight: Any
    dbias: Any

    def __init__(self, groups=32, epsilon=1e-3, **layer):
        super().__init__(**layer)
        _check("GroupNormalization", epsilon)
        self.groups = -1 if groups == -1 else positive("GroupNormalization", "groups", groups)
        self.epsilon = epsilon

    def build(self, in_shape, params):
        C = in_shape[0]
        self.count = C if self.groups == -1 else self.groups
        if C % self.count:
            self.fail(
                f"groups must divide the channels. Received: {C} channels, groups={self.groups}. Expected: "
                "a divisor of the channels; -1 makes a group of each"
            )
        params.reserve(self, "weight", (C,), "ones")
        params.reserve(self, "bias", (C,), "zeros")
        return in_shape

    def forward(self, x, *, train):
        xp, spread, axes = self.ops.xp, feature_axis(x), self._axes(x)
        groups = self._grouped(x)
        xhat = self.ops.like(x)
        y = self.ops.like(x)
        centred, squares = self._grouped(xhat), self._grouped(y)
        xp.subtract(groups, groups.mean(axis=axes, keepdims=True), out=centred)
        xp.multiply(centred, centred, out=squares)
        slope = 1 / xp.sqrt(squares.mean(axis=axes, keepdims=True) + self.epsilon)
        centred *= slope
        xp.multiply(xhat, self.weight[spread], out=y)
        y += self.bias[spread]
        return y, (xhat, slope)

    def backward(self, dy, cache):
        """dx = slope (g - mean(g) - xhat mean(g xhat)) with g = gamma dy, the means over each group."""
        xhat, slope = cache
        xp, ops, axes = self.ops.xp, self.ops, self._axes(dy)
        product = ops.like(dy)
        ops.feature_sum(xp.multiply(dy, xhat, out=product), out=self.dweight)
        ops.feature_sum(dy, out=self.dbias)
        if not self.needs_dx:
            return None
        spread = self.weight[feature_axis(dy)]
        dy *= spread
        product *= spread
        g, centred = self._grouped(dy), self._grouped(xhat)
        g -= g.mean(axis=axes, keepdims=True)
        centred *= self._grouped(product).mean(axis=axes, keepdims=True)
        g -= centred
        g *= slope
        return dy

    def _grouped(self, a):
        """A view of a (N, D) as (N, G, D/G), of a (H, C, W, N) as (H, G, C/G, W, N)."""
        G = self.count
        return a.reshape(a.shape[0], G, a.shape[1] // G, *a.shape[2:])

    @staticmethod
    def _axes(a):
        """What of `_grouped` is one group."""
        return 2 if a.ndim == 2 else (0, 2, 3)
