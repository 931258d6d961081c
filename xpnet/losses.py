"""What training makes small.  A loss sees outputs p (N, K), or maps (N, K, H, W), and targets y.

`per_sample(ops, p, y)` gives one loss a sample (the mean over pixels, for maps) and its derivative by p.
Reduction "mean" divides the weighted sum by the weights' sum (the number of samples, where there are none);
"sum" does not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .activations import Sigmoid
from .config import Configurable
from .errors import ShapeError, unknown


class Loss(Configurable):
    """Base.  p (N, K) or (N, K, H, W), y of the same shape.

    Called with host arrays, loss(y, p, sample_weight), it is a number.  reduction: "mean" or "sum" over the
    batch.
    """

    from_logits: bool | None = False
    folds: str | None = None  # the activation whose inputs are this loss's logits

    def __init__(self, reduction="mean"):
        if reduction not in ("mean", "sum"):
            raise unknown("reduction", reduction, ("mean", "sum"))
        self.reduction = reduction

    @property
    def name(self) -> str:
        """What it goes by in `compile`, in logs and in files."""
        return next((name for name, cls in TABLE.items() if cls is type(self)), type(self).__name__)

    def per_sample(self, ops, p, y) -> tuple[Any, Any]:
        """Losses (N,), and their derivatives by p, a new array of p's shape; y as `check_targets` left it."""
        raise NotImplementedError(f"{type(self).__name__} has no per_sample")

    def soft(self) -> Loss:
        """The same loss for targets that are shares of several classes, as mixed samples have."""
        return self

    def value_and_grad(self, ops, p, y, weight, divisor) -> tuple[Any, Any]:
        """The reduced loss and dL/dp.  weight: (N,) or None; divisor: what "mean" divides the sum by."""
        losses, dp = self.per_sample(ops, p, y)
        if weight is not None:
            losses = losses * weight
            dp *= weight.reshape((-1,) + (1,) * (dp.ndim - 1))
        total = losses.sum()
        if self.reduction == "mean":
            total = total / divisor
            dp *= 1 / divisor
        return total, dp

    def check_targets(self, y: np.ndarray, out_shape: tuple[int, ...], dtype) -> np.ndarray:
        """y as this loss wants it, in dtype, for outputs of out_shape, (K,) or (K, H, W).

        Raises ShapeError for another shape, ValueError for values that cannot be targets.
        """
        if y.dtype.kind not in "bifu":
            raise ValueError(
                f"{self.name}: targets must be numbers. Received: dtype {y.dtype}. Expected: {dtype}"
            )
        if out_shape[0] == 1 and y.shape[1:] == out_shape[1:]:
            y = y[:, None]  # one output, or maps of one channel
        if y.shape[1:] != out_shape:
            raise ShapeError(
                f"{self.name}: targets do not fit the model's output. Received: y of shape {y.shape}. "
                f"Expected: (N, {', '.join(map(str, out_shape))})"
            )
        with np.errstate(over="ignore"):
            y = y.astype(dtype, copy=False)
        _check_finite(self.name, y)
        return y

    def __call__(self, y_true, y_pred, sample_weight=None) -> float:
        """The loss of host arrays y_true and y_pred (N, K), as a number."""
        from .ops.reference import Ops

        p = np.asarray(y_pred)
        if p.dtype.kind != "f":
            p = p.astype(np.float32)
        if p.ndim == 1:
            p = p[:, None]
        y = self.check_targets(np.asarray(y_true), p.shape[1:], p.dtype)
        if len(y) != len(p):
            raise ShapeError(
                f"{self.name}: lengths differ. Received: {len(y)} targets and {len(p)} predictions"
            )
        w = None if sample_weight is None else np.asarray(sample_weight, p.dtype)
        return float(self.value_and_grad(Ops(), p, y, w, total_weight(len(p), w))[0])


def total_weight(n: int, weight) -> float:
    """What a mean over a batch of n divides by: the sum of weight (N,), or n where weight is None; 1 where
    the sum is zero, so that the mean is zero too.
    """
    return float(n) if weight is None else float(weight.sum()) or 1.0


def _check_finite(name: str, y: np.ndarray) -> None:
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = int(np.argmin(np.isfinite(y).reshape(len(y), -1).all(axis=1)))
        raise ValueError(
            f"{name}: targets must be finite. Received: NaN or infinity in sample {row}. Expected: "
            "numbers; leave such samples out"
        )


def _check_smoothing(label_smoothing) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be at least 0 and below 1. Received: {label_smoothing!r}")


def _rows(a):
    """Sum over all axes but the first."""
    return a.sum(axis=tuple(range(1, a.ndim)))


class CategoricalCrossentropy(Loss):
    """-sum over classes of t log q, q = softmax(p) where from_logits, else p.  y = t (N, K), one-hot or
    probabilities, or (N, K, H, W).

    from_logits: whether p are logits.  label_smoothing: by s, t becomes (1 - s) t + s / K.  Szegedy et al.,
    2016, section 7.
    """

    folds = "softmax"

    def __init__(self, from_logits=False, label_smoothing=0.0, reduction="mean"):
        super().__init__(reduction)
        _check_smoothing(label_smoothing)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def check_targets(self, y, out_shape, dtype):
        if y.ndim == len(out_shape) or (y.ndim == 2 and y.shape[1] == 1 and out_shape != (1,)):
            raise ShapeError(
                f"{self.name}: targets do not fit the model's output. Received: y of shape {y.shape}, which "
                f"looks like class indices. Expected: one row of {out_shape[0]} for each sample; use "
                "loss='sparse_categorical_crossentropy', or xpnet.utils.to_categorical(y)"
            )
        y = super().check_targets(y, out_shape, dtype)
        if len(y) and (y.min() < 0 or y.max() > 1 + 1e-6):
            raise ValueError(
                f"{self.name}: targets must be probabilities. Received: values from {y.min():g} to "
                f"{y.max():g}. Expected: 0 to 1, as to_categorical makes them"
            )
        return y

    def value_and_grad(self, ops, p, y, weight, divisor):
        fused = None
        if self.from_logits and p.ndim == 2:
            mean = self.reduction == "mean"
            fused = ops.crossentropy(p, y, weight, divisor, self.label_smoothing, mean)
        return fused or super().value_and_grad(ops, p, y, weight, divisor)

    def per_sample(self, ops, p, y):
        return self._from_targets(ops, p, y, y.sum(axis=1, keepdims=True))

    def _from_targets(self, ops, p, t, mass):
        """mass: the sum of each sample's targets t."""
        xp, K = ops.xp, p.shape[1]
        if self.label_smoothing:
            t = t * (1 - self.label_smoothing) + self.label_smoothing / K
            mass = mass * (1 - self.label_smoothing) + self.label_smoothing
        pixels = math.prod(p.shape[2:])
        if self.from_logits:
            z = p - p.max(axis=1, keepdims=True)
            q = xp.exp(z)
            total = q.sum(axis=1, keepdims=True)
            z -= xp.log(total)
            losses = -_rows(t * z)
            q *= mass / total
            dp = xp.subtract(q, t, out=q)
        else:
            q = xp.maximum(p, _tiny(p))
            losses = -_rows(t * xp.log(q))
            dp = -t / q
        if pixels > 1:
            losses = losses / pixels
            dp /= pixels
        return losses, dp


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """-log of the true class's probability.  y class indices 0 .. K-1, (N,) or (N, 1), or (N, H, W) for maps.

    from_logits, label_smoothing: as in `CategoricalCrossentropy`.
    """

    def check_targets(self, y, out_shape, dtype):
        K, pixels = out_shape[0], out_shape[1:]
        if y.shape[1:] == (1, *pixels):
            y = y.reshape(len(y), *pixels)
        if y.shape[1:] != pixels:
            fix = (
                "; for one-hot targets use loss='categorical_crossentropy'"
                if y.shape[1:] == out_shape
                else ""
            )
            raise ShapeError(
                f"{self.name}: targets must be class indices. Received: y of shape {y.shape}. "
                f"Expected: {('N', *pixels)}".replace("'", "")
                + fix
            )
        if y.dtype.kind not in "bifu":
            raise ValueError(
                f"{self.name}: targets must be class indices. Received: dtype {y.dtype}. Expected: whole "
                "numbers from 0; np.unique(y, return_inverse=True) turns names into them"
            )
        if y.dtype.kind == "f":
            _check_finite(self.name, y)
            if (y != np.floor(y)).any():
                raise ValueError(
                    f"{self.name}: targets must be whole numbers. Received: "
                    f"{y[y != np.floor(y)].reshape(-1)[0]}"
                )
        if y.size and not (y.min() >= 0 and y.max() < K):
            raise ValueError(
                f"{self.name}: a class index is out of range. Received: labels from {y.min()} to {y.max()}. "
                f"Expected: 0 to {K - 1}, since the model has {K} outputs; number the classes from 0, or "
                "give the last layer more units"
            )
        return y.astype(np.int64, copy=False)

    def soft(self):
        return CategoricalCrossentropy(self.from_logits, self.label_smoothing, self.reduction)

    def per_sample(self, ops, p, y):
        return self._from_targets(ops, p, one_hot(ops, y, p.shape[1], p.dtype), 1)


def one_hot(ops, y, K: int, dtype):
    """Class indices y (N,) or (N, H, W) as rows (N, K) or maps (N, K, H, W) of zeros and a one, of dtype."""
    classes = ops.xp.arange(K).reshape((1, -1) + (1,) * (y.ndim - 1))
    return (y[:, None] == classes).astype(dtype)


class BinaryCrossentropy(Loss):
    """-(t log q + (1 - t) log(1 - q)), the mean over the outputs; q = sigmoid(p) where from_logits, else p.
    y = t (N, K), from 0 to 1; (N,) for one output.

    from_logits: whether p are logits.  label_smoothing: by s, t becomes (1 - s) t + s / 2.
    """

    folds = "sigmoid"

    def __init__(self, from_logits=False, label_smoothing=0.0, reduction="mean"):
        super().__init__(reduction)
        _check_smoothing(label_smoothing)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def check_targets(self, y, out_shape, dtype):
        y = super().check_targets(y, out_shape, dtype)
        if len(y) and (y.min() < 0 or y.max() > 1):
            raise ValueError(
                f"{self.name}: targets must lie between 0 and 1. Received: values from {y.min():g} to "
                f"{y.max():g}"
            )
        return y

    def per_sample(self, ops, p, y):
        xp = ops.xp
        outputs = math.prod(p.shape[1:])
        t = y * (1 - self.label_smoothing) + 0.5 * self.label_smoothing if self.label_smoothing else y
        if self.from_logits:
            losses = xp.maximum(p, 0) - p * t + xp.log1p(xp.exp(-xp.abs(p)))
            dp = ops.like(p)
            Sigmoid().forward(ops, p, dp)
            dp -= t
        else:
            tiny = _tiny(p)
            q = xp.minimum(xp.maximum(p, tiny), 1 - tiny)
            losses = -(t * xp.log(q) + (1 - t) * xp.log1p(-q))
            dp = (q - t) / (q * (1 - q))
        dp /= outputs
        return _rows(losses) / outputs, dp


def _tiny(p) -> float:
    """The smallest probability whose logarithm a loss takes: Keras's epsilon, or one that float64 can
    afford.
    """
    return 1e-7 if p.dtype.itemsize <= 4 else 1e-15


class MeanSquaredError(Loss):
    """(p - y)^2, the mean over the outputs.  p, y (N, K); (N,) for one output."""

    def per_sample(self, ops, p, y):
        d = p - y
        outputs = math.prod(p.shape[1:])
        return _rows(d * d) / outputs, d * (2 / outputs)


class HalfSquaredError(Loss):
    """(p - y)^2 / 2, the mean over the outputs: what scikit-learn calls the squared error.  p, y (N, K)."""

    def per_sample(self, ops, p, y):
        d = p - y
        outputs = math.prod(p.shape[1:])
        return _rows(d * d) * (0.5 / outputs), d / outputs


class SumSquaredError(Loss):
    """(p - y)^2, summed over the outputs.  p, y (N, K)."""

    def per_sample(self, ops, p, y):
        d = p - y
        return _rows(d * d), 2 * d


class MeanAbsoluteError(Loss):
    """|p - y|, the mean over the outputs; slope 0 where they are equal.  p, y (N, K)."""

    def per_sample(self, ops, p, y):
        d = p - y
        outputs = math.prod(p.shape[1:])
        return _rows(ops.xp.abs(d)) / outputs, ops.xp.sign(d) / outputs


class Huber(Loss):
    """d^2 / 2 where |d| = |p - y| is at most delta, delta (|d| - delta / 2) beyond; the mean over the
    outputs.  p, y (N, K).

    delta: positive.  Huber, 1964, "Robust estimation of a location parameter".
    """

    def __init__(self, delta=1.0, reduction="mean"):
        super().__init__(reduction)
        if not delta > 0:
            raise ValueError(f"delta must be positive. Received: {delta!r}")
        self.delta = delta

    def per_sample(self, ops, p, y):
        d = p - y
        outputs = math.prod(p.shape[1:])
        near = ops.xp.clip(d, -self.delta, self.delta)
        return _rows(near * (d - 0.5 * near)) / outputs, near / outputs


TABLE: dict[str, type[Loss]] = {
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "binary_crossentropy": BinaryCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "squared_error": HalfSquaredError,
    "sum_squared_error": SumSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "huber": Huber,
}
ALIASES = {"mse": "mean_squared_error", "mae": "mean_absolute_error", "sse": "sum_squared_error"}


def get(loss: str | Loss) -> Loss:
    """The loss of that name, which takes logits or probabilities by what the model ends in, or the one given.

    Raises ValueError for an unknown name.
    """
    if isinstance(loss, Loss):
        return loss
    name = ALIASES.get(str(loss).lower(), str(loss).lower())
    if not isinstance(loss, str) or name not in TABLE:
        raise unknown("loss", loss, [*TABLE, *ALIASES])
    made = TABLE[name]()
    if made.folds:
        made.from_logits = None
    return made
