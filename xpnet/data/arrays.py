"""Checking what users hand in, once, so that a training step need not.

Images stay as they are (uint8 in particular: a quarter of the memory) until a batch of them is packed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError

CHUNK = 1 << 20  # elements that a check for NaN looks at together


class Arrays:
    """Samples by index: x, and targets y and weights w where there are any, each with the samples along axis
    0.
    """

    def __init__(self, x, y=None, w=None):
        self.x, self.y, self.w = x, y, w
        self._on: tuple[Any, Arrays] | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.x, self.y, self.w) if a is not None)

    def part(self, rows: np.ndarray) -> Part:
        """The samples at rows, without a copy."""
        return Part(self, rows)

    def places(self, order: np.ndarray) -> np.ndarray:
        """Where the samples numbered so lie in x, y and w."""
        return order

    def take(self, index) -> tuple[Any, Any, Any]:
        """x, y and w of the samples at index, a slice or whole numbers."""
        return (
            self.x[index],
            None if self.y is None else self.y[index],
            None if self.w is None else self.w[index],
        )

    def on(self, ops, room: float) -> Arrays | None:
        """These arrays on ops's device, copied there once; None where they take more than room bytes."""
        if self._on is None or self._on[0] is not ops:
            arrays = [a for a in (self.x, self.y, self.w) if a is not None]
            if sum(a.size * storable(a.dtype).itemsize for a in arrays if not ops.owns(a)) > room:
                return None
            self._on = (
                ops,
                Arrays(*(None if a is None else _laid_out(a, ops) for a in (self.x, self.y, self.w))),
            )
        return self._on[1]

    def weight(self, index) -> float:
        """The sum of the weights of the samples at index: what a mean over them divides by, unless 0."""
        if self.w is None:
            return float(index.stop - index.start if isinstance(index, slice) else len(index))
        return float(self.w[index].sum())


class Part(Arrays):
    """Some of the samples of other arrays."""

    def __init__(self, whole: Arrays, rows: np.ndarray):
        super().__init__(whole.x, whole.y, whole.w)
        self.whole, self.rows = whole, rows

    def __len__(self) -> int:
        return len(self.rows)

    def places(self, order):
        return self.whole.places(self.rows[order])

    def take(self, index):
        return self.whole.take(self.rows[index])

    def on(self, ops, room):
        return self.whole.on(ops, room)

    def weight(self, index):
        return self.whole.weight(self.rows[index])


def storable(dtype) -> np.dtype:
    """The type in which a device keeps samples of dtype: no float but float32 and float64."""
    dtype = np.dtype(dtype).newbyteorder("=")
    return dtype if dtype.kind != "f" or dtype.itemsize in (4, 8) else np.dtype(np.float32)


def _laid_out(a, ops):
    """a on the device, C-contiguous and in a type that it keeps."""
    if ops.owns(a):
        return ops.xp.ascontiguousarray(a.astype(storable(a.dtype), copy=False))
    return ops.asarray(np.ascontiguousarray(a, storable(a.dtype)))


def as_array(a, what: str, ops=None):
    """a as a NumPy array; arrays of ops's own device stay there."""
    if isinstance(a, np.ndarray):
        return a
    if ops is not None and not ops.in_host_memory and ops.owns(a):
        return a
    if hasattr(a, "detach"):  # a PyTorch tensor that requires a gradient does not convert by itself
        a = a.detach()
    if hasattr(a, "__dlpack__") and hasattr(a, "__dlpack_device__"):
        kind = int(a.__dlpack_device__()[0])
        if kind == 2 and ops is not None and not ops.in_host_memory:  # kDLCUDA
            a = ops.xp.from_dlpack(a)
            if ops.owns(a):  # and not another GPU
                return a
        if kind == 2 and hasattr(a, "cpu"):
            a = a.cpu()
        if kind == 1:  # kDLCPU
            try:
                return np.from_dlpack(a)
            except (BufferError, RuntimeError):  # a type that NumPy lacks, as bfloat16; asarray says so
                pass
        if hasattr(a, "get"):
            return a.get()
    try:
        return np.asarray(a)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{what} cannot be read as one array ({error}). Received: {type(a).__name__}. Expected: numbers "
            "in rows of equal length, as an array"
        ) from None


def check_x(x, in_shape: tuple[int, ...] | None, ops, what: str = "x", dtype=np.float32):
    """x (N, *in_shape) of numbers finite in dtype; in_shape None: any shape a model can be built for."""
    x = as_array(x, what, ops)
    if x.dtype.kind not in "bifu":
        raise ValueError(
            f"{what} must be numbers. Received: dtype {x.dtype}. Expected: float32, or whole numbers such "
            "as uint8"
        )
    if in_shape is None:
        if x.ndim not in (2, 4):
            raise ShapeError(
                f"{what} has a shape that no model takes. Received: {x.shape}. Expected: (N, D), or images "
                "(N, C, H, W)"
                + ("; images without a channel axis get one by x[:, None]" if x.ndim == 3 else "")
                + ("; a single feature is x[:, None], a single sample x[None]" if x.ndim == 1 else "")
            )
    elif x.shape[1:] != in_shape:
        expected = ", ".join(map(str, in_shape))
        fix = ""
        if x.shape == in_shape:
            fix = "; a single sample is a batch of one, x[None]"
        elif len(in_shape) == 3 and x.ndim == 3 and 1 in in_shape:
            fix = "; images without a channel axis get one by x[:, None] (x[..., None] for channels_last)"
        elif len(in_shape) == 3 and x.ndim == 4 and (x.shape[2:] + x.shape[1:2]) == in_shape:
            fix = (
                "; these are channels first: leave out data_format='channels_last', or transpose(0, 2, 3, 1)"
            )
        elif len(in_shape) == 3 and x.ndim == 4 and (x.shape[3:] + x.shape[1:3]) == in_shape:
            fix = "; these are channels last: give data_format='channels_last', or x.transpose(0, 3, 1, 2)"
        elif len(in_shape) == 1 and x.ndim > 2:
            fix = "; x.reshape(len(x), -1) makes vectors of images, or let the model begin with Flatten()"
        raise ShapeError(
            f"{what} does not fit the model. Received: {x.shape}. Expected: (N, {expected}){fix}"
        )
    if not len(x):
        raise ValueError(f"{what} is empty. Received: {x.shape}. Expected: at least one sample")
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        _check_finite(x, what, np.dtype(dtype))
    return x


def _check_finite(x: np.ndarray, what: str, dtype: np.dtype) -> None:
    rows = max(1, CHUNK // max(1, x[0].size))
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        if dtype.itemsize < part.dtype.itemsize:
            with np.errstate(all="ignore"):
                part = part.astype(dtype)
        if not np.isfinite(part).all():
            row = start + int(np.argmin(np.isfinite(part).reshape(len(part), -1).all(axis=1)))
            raise ValueError(
                f"{what} must be finite. Received: NaN or infinity, first in sample {row}. Expected: numbers "
                f"within {dtype}; np.nan_to_num, or leave such samples out"
            )


def check_weights(w, n: int, dtype) -> np.ndarray | None:
    """Sample weights (N,), not negative, not all zero."""
    if w is None:
        return None
    w = as_array(w, "sample_weight")
    if w.shape != (n,):
        raise ShapeError(
            f"sample_weight does not fit. Received: {w.shape}. Expected: ({n},), one weight a sample"
        )
    if w.dtype.kind not in "bifu" or not (np.abs(w) < 1e30).all() or w.min() < 0 or not w.any():
        raise ValueError(
            "sample_weight must be finite, not negative and not zero throughout. "
            f"Received: dtype {w.dtype}"
            + (f", values from {w.min()} to {w.max()}" if w.dtype.kind in "bifu" else "")
        )
    return w.astype(dtype)


def class_weights(class_weight, y: np.ndarray, dtype) -> np.ndarray:
    """A weight a sample from {class: weight}, or "balanced": N / (K * samples of the class), as in
    scikit-learn.
    """
    y = as_array(y, "y")
    labels = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(len(y), -1)[:, 0]
    several = y.ndim == 2 and y.shape[1] > 1 and (y.sum(axis=1) != 1).any()
    if y.ndim > 2 or several or (labels != np.floor(labels)).any() or labels.min() < 0:
        raise ValueError(
            f"class_weight needs targets that are one class a sample. Received: y of shape {y.shape}, dtype "
            f"{y.dtype}. Expected: class indices or one-hot rows; for others use sample_weight"
        )
    labels = np.asarray(labels).astype(int)
    if class_weight == "balanced":
        counts = np.bincount(labels)
        table = {k: len(y) / (np.count_nonzero(counts) * c) for k, c in enumerate(counts) if c}
    elif isinstance(class_weight, dict):
        table = class_weight
    else:
        raise ValueError(f"class_weight must be a dict or 'balanced'. Received: {class_weight!r}")
    weights = np.ones(int(labels.max()) + 1)
    for label, weight in table.items():
        if not all(isinstance(v, (int, float, np.number)) for v in (label, weight)) or not (
            0 <= weight < np.inf and label >= 0 and int(label) == label
        ):
            raise ValueError(
                f"class_weight must map class indices to weights of at least 0. Received: {label!r}: "
                f"{weight!r}"
            )
        if label < len(weights):
            weights[int(label)] = weight
    return weights[labels].astype(dtype)


def check_lengths(**arrays) -> None:
    """All arrays that are given have the same number of samples."""
    for name, a in arrays.items():
        if not a.ndim:
            raise ShapeError(f"{name} must have a row for each sample. Received: {a!r}. Expected: an array")
    lengths = {name: len(a) for name, a in arrays.items()}
    if len(set(lengths.values())) > 1:
        received = ", ".join(f"{n} in {name}" for name, n in lengths.items())
        raise ShapeError(f"numbers of samples differ. Received: {received}. Expected: the same in each")
