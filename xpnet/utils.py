"""Small helpers with the names that Keras gives them."""

from __future__ import annotations

import random

import numpy as np

_seeds: np.random.Generator | None = None


def set_random_seed(seed: int) -> None:
    """Fix what is drawn from here on: by Python's random, by NumPy's, and for models made without a seed.

    seed: a whole number.
    """
    global _seeds
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - scripts may draw their data from it
    _seeds = np.random.default_rng(seed)


def fresh_seed() -> int:
    """A seed for a model that is given none."""
    if _seeds is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint32)[0])
    return int(_seeds.integers(1 << 32))


def normalize(x, axis: int = -1, order: int = 2) -> np.ndarray:
    """x of any shape divided by its norm of that order along an axis; what is zero throughout stays zero."""
    x = np.asarray(x)
    norm = np.atleast_1d(np.linalg.norm(x, order, axis, keepdims=True))
    return x / np.where(norm == 0, 1, norm).astype(x.dtype if x.dtype.kind == "f" else np.float64)


def to_categorical(x, num_classes: int | None = None) -> np.ndarray:
    """Class indices x (...,) or (..., 1) as one-hot rows (..., K), float32.

    num_classes: K, by default the largest index + 1.  Raises ValueError for an index that is no whole number
    from 0 to K - 1.
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
