"""Silence random units in training, so that no unit can rely on one other."""

from __future__ import annotations

from numbers import Real

from .base import Layer


class Dropout(Layer):
    """Each element is zeroed with probability rate in training.  x of any shape -> y of the same.

    rate: at least 0, below 1.  scaling: with "train" the survivors are scaled by 1 / (1 - rate), and
    inference is the identity (inverted dropout); with "inference" training only masks, and inference
    multiplies by 1 - rate, as Srivastava et al., 2014, write it.

    The mask compares 16 random bits an element with the rate: an integer comparison, alike on every device.
    It stays the same until the optimizer takes a step.
    """

    def __init__(self, rate, scaling="train", **layer):
        super().__init__(**layer)
        if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) <= 1 - 2**-16:
            raise ValueError(f"Dropout: rate must be at least 0 and below 1. Received: {rate!r}")
        if scaling not in ("train", "inference"):
            raise ValueError(f"Dropout: scaling must be 'train' or 'inference'. Received: {scaling!r}")
        self.rate, self.scaling = float(rate), scaling

    def build(self, in_shape, params):
        self.stream = params.stream()
        return in_shape

    def forward(self, x, *, train):
        if self.rate == 0 or not (train or self.scaling == "inference"):
            return x, None
        if not train:
            return x * (1 - self.rate), 1 - self.rate
        threshold = min(round(self.rate * 65536), 65535)
        kept = 1 / (1 - self.rate) if self.scaling == "train" else 1.0
        return self._drop(x, threshold, kept)

    def _drop(self, x, threshold: int, kept: float):
        """x * mask, and the mask: kept where the bits reach the threshold, 0 elsewhere."""
        return self.ops.dropout(x, self.stream, threshold, kept)

    def backward(self, dy, mask):
        if mask is not None:
            dy *= mask
        return dy


class SpatialDropout2D(Dropout):
    """Each channel of a sample is zeroed as a whole with probability rate.  x (H, C, W, N) -> y of the same
    shape.  Tompson et al., 2015.

    Neighbouring pixels of a map tell nearly the same, so that a network hardly misses single ones.  The rest
    as in Dropout.
    """

    def build(self, in_shape, params):
        self.need_map(in_shape)
        return super().build(in_shape, params)

    def _drop(self, x, threshold, kept):
        _, mask = self.ops.dropout(x[0, :, 0].T, self.stream, threshold, kept)  # bits for (N, C)
        mask = mask.T[:, None]  # (C, 1, N)
        return self.ops.xp.multiply(x, mask, out=self.ops.like(x)), mask
