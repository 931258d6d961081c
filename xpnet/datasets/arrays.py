"""The form in which every data set is handed out."""

from __future__ import annotations

import numpy as np

Split = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""((x, y), (xt, yt)): training samples and labels, test samples and labels."""


def unit_range(images: np.ndarray, full: int = 255) -> np.ndarray:
    """images of any shape, integers 0..full -> float32 in [0, 1]; a new array."""
    return np.divide(images, np.float32(full), dtype=np.float32)


def image_split(split: Split, raw: bool) -> Split:
    """Images uint8 (N, C, H, W) -> float32 in [0, 1] unless raw; labels (N,) of any integer type -> int64."""
    (x, y), (xt, yt) = split
    if not raw:
        x, xt = unit_range(x), unit_range(xt)
    return (x, y.astype(np.int64)), (xt, yt.astype(np.int64))
