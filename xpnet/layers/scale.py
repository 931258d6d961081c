"""Samples on another scale: by numbers one gives, or by those measured on data."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from ..errors import ShapeError, unknown
from ..ops.reference import feature_axis
from .base import Layer

EPSILON = 1e-7  # the least deviation that is divided by, as in Keras
CHUNK = 1 << 22  # elements that are looked at together


class Rescaling(Layer):
    """y = scale x + offset, x of any shape: images of 0 .. 255 to 0 .. 1 by Rescaling(1 / 255).

    scale, offset: numbers.
    """

    def __init__(self, scale, offset=0.0, **layer):
        super().__init__(**layer)
        self.scale = _numbers("Rescaling", "scale", scale)
        self.offset = _numbers("Rescaling", "offset", offset)

    def forward(self, x, *, train):
        y = self.ops.xp.multiply(x, self.scale, out=self.ops.like(x))
        if self.offset:
            y += self.offset
        return y, None

    def backward(self, dy, cache):
        dy *= self.scale
        return dy


class Normalization(Layer):
    """Each feature or channel by statistics of the data.  x (N, D) or (H, C, W, N) -> y of the same shape.

        y = (x - mean) / max(sqrt(variance), 1e-7)

    mean, variance: numbers, or one a feature or channel; without them `adapt` measures them, in any case
    before the training, which leaves them as they are.  axis: -1 for statistics of each feature or channel,
    None for one mean and variance of all.

    They are kept with the model's state, as running_mean and running_var, (D,) or (C,), as in
    torch.nn.BatchNorm2d(C, eps=0, affine=False) in inference.
    """

    running_mean: Any
    running_var: Any

    def __init__(self, axis=-1, mean=None, variance=None, **layer):
        super().__init__(**layer)
        if axis not in (-1, None):
            raise ValueError(
                f"Normalization: axis must be -1, each feature or channel, or None. Received: {axis!r}"
            )
        if (mean is None) != (variance is None):
            raise ValueError(
                "Normalization: mean and variance go together. Received: "
                f"mean={mean!r}, variance={variance!r}"
            )
        self.axis, self.mean, self.variance = axis, mean, variance
        if mean is not None:
            axes = 0 if axis is None else 1
            self.mean = _numbers("Normalization", "mean", mean, axes)
            self.variance = _numbers("Normalization", "variance", variance, axes)
            if np.min(self.variance) < 0 or np.shape(self.mean) != np.shape(self.variance):
                raise ValueError(
                    "Normalization: variance must be as many numbers as mean, none below 0. Received: "
                    f"mean={mean!r}, variance={variance!r}"
                )

    def build(self, in_shape, params):
        features = in_shape[:1]
        self.data_format = params.data_format
        mean, variance = (0.0, 1.0) if self.mean is None else (self.mean, self.variance)
        if np.ndim(mean) and np.shape(mean) != features:
            self.fail(
                f"the statistics are of other data. Received: {np.size(mean)} means for {in_shape}. "
                f"Expected: {features[0]}; images (N, H, W, C) are adapted to by "
                "adapt(x, data_format='channels_last')"
            )
        params.reserve_state(self, "running_mean", features, mean)
        params.reserve_state(self, "running_var", features, variance)
        return in_shape

    def adapt(self, data, data_format: str | None = None) -> None:
        """Measure mean and variance.

        data: an array (N, D) or of images, or an iterable of such batches, each perhaps with more behind it,
        (x, y).  data_format: of images, the model's where it stands in one that is built, otherwise by
        default "channels_first".

        Raises ShapeError for data of another shape, ValueError where there are none or they are not finite.
        """
        formats = ("channels_first", "channels_last")
        order = data_format or getattr(self, "data_format", formats[0])
        if order not in formats:
            raise unknown("data_format", data_format, formats)
        mean, variance = _statistics(data, order == formats[1], self.axis is None)
        if self.state_slots:
            if np.ndim(mean) and mean.shape != self.running_mean.shape:
                self.fail(
                    f"the data are of another shape. Received: {len(mean)} features or channels. Expected: "
                    f"{self.in_shape[0]}, in {order}"
                )
            with self.ops.running():
                for held, value in (self.running_mean, mean), (self.running_var, variance):
                    held[...] = self.ops.asarray(np.broadcast_to(value, held.shape).astype(held.dtype))
        self.mean, self.variance = mean.tolist(), variance.tolist()

    def forward(self, x, *, train):
        xp, spread = self.ops.xp, feature_axis(x)
        scale = 1 / xp.maximum(xp.sqrt(self.running_var), EPSILON)
        y = xp.subtract(x, self.running_mean[spread], out=self.ops.like(x))
        y *= scale[spread]
        return y, scale

    def backward(self, dy, scale):
        dy *= scale[feature_axis(dy)]
        return dy


def _statistics(data, last: bool, together: bool):
    """Mean and variance of the features or channels of data, or of all, in float64, by one pass.

    Parts are joined as in T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm
    for computing sample variances, 1979.
    """
    count, mean, squares = 0, np.zeros(()), np.zeros(())
    shape: tuple | None = None
    for part in _parts(data):
        if shape not in (None, part.shape[1:]):
            raise ShapeError(
                f"Normalization: the batches differ. Received: {part.shape} after (N, {str(shape)[1:]}. "
                "Expected: samples of one shape"
            )
        shape = part.shape[1:]
        if part.ndim == 3:  # images without a channel axis
            part = part[:, None]
        features = part.ndim - 1 if last and len(shape) == 3 else 1
        axes = tuple(axis for axis in range(part.ndim) if together or axis != features)
        wide = part.astype(np.float64)
        n, part_mean, part_var = wide.size // wide.mean(axes).size, wide.mean(axes), wide.var(axes)
        if not np.isfinite(part_mean).all():
            raise ValueError(
                "Normalization: the data hold NaN or infinity. Expected: finite numbers; look for missing "
                "values"
            )
        step, total = part_mean - mean, count + n
        squares = squares + n * part_var + step * step * (count * n / total)
        mean, count = mean + step * (n / total), total
    if not count:
        raise ValueError("Normalization: there are no data to adapt to. Expected: at least one sample")
    return mean, squares / count


def _parts(data):
    """Arrays (n, ...) of numbers that make up the data."""
    from ..data.arrays import as_array

    what, leaf = "the data of adapt", data
    while isinstance(leaf, (list, tuple)) and leaf:
        leaf = leaf[0]
    if isinstance(leaf, Real):  # rows of numbers, as lists
        data = as_array(data, what)
    for batch in [data] if hasattr(data, "shape") else data:
        x = as_array(batch[0] if isinstance(batch, (tuple, list)) else batch, what)
        if x.ndim not in (2, 3, 4) or x.dtype.kind not in "bifu":
            raise ShapeError(
                f"Normalization: adapt takes numbers (N, D) or images. Received: {x.shape}, {x.dtype}. "
                "Expected: an array, or an iterable of batches that are arrays"
            )
        rows = max(1, CHUNK // max(1, x[:1].size))
        yield from (x[start : start + rows] for start in range(0, len(x), rows))


def _numbers(layer: str, argument: str, value, axes: int = 0):
    """value as a finite number, or up to so many axes of them as a list."""
    try:
        a = np.asarray(value.tolist() if hasattr(value, "tolist") else value, dtype=np.float64)
    except (TypeError, ValueError):
        a = np.full((), np.nan)
    if a.ndim > axes or not a.size or not np.isfinite(a).all() or isinstance(value, (bool, str)):
        what = "a finite number" + " or a list of them" * axes
        raise ValueError(f"{layer}: {argument} must be {what}. Received: {value!r}")
    return a.tolist()
