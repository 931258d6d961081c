"""Small helpers with the names that Keras gives them."""

from __future__ import annotations

import numpy as np


def normalize(x, axis: int = -1, order: int = 2) -> np.ndarray:
    """x divided by its norm of that order along an axis; what is zero throughout stays zero."""
    x = np.asarray(x)
    norm = np.atleast_1d(np.linalg.norm(x, order, axis, keepdims=True))
    return x / np.where(norm == 0, 1, norm).astype(x.dtype if x.dtype.kind == "f" else np.float64)


def to_categorical(x, num_classes: int | None = None) -> np.ndarray:
    """Class indices (...,) as one-hot rows (..., K), float32.  num_classes: K, by default the largest index +
    1.
    """
    x = np.asarray(x)
    if x.ndim > 1 and x.shape[-1] == 1:
        x = x[..., 0]
    if x.dtype.kind not in "bifu" or (x.size and (x < 0).any()) or (x != np.floor(x)).any():
        raise ValueError(
            f"to_categorical needs whole numbers from 0. Received: dtype {x.dtype}, {x.ravel()[:5]}..."
        )
    x = x.astype(np.int64)
    if num_classes is None:
        num_classes = int(x.max()) + 1 if x.size else 0
    elif x.size and x.max() >= num_classes:
        raise ValueError(f"a class index is out of range. Received: {x.max()} with num_classes={num_classes}")
    return np.eye(num_classes, dtype=np.float32)[x]
