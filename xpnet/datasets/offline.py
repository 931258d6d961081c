"""Data sets that need no file: scikit-learn's digits, and blobs drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import Split, unit_range


def load_digits(*, raw: bool = False, test_size: float = 0.25, seed: int = 0) -> Split:
    """((x, y), (xt, yt)): 1797 handwritten digits, split 1347/450 unless told otherwise.

    Images (N, 1, 8, 8), float32 in [0, 1], or uint8 0..16 as stored if raw; labels int64 (N,), ten classes.

    test_size: fraction or number of samples.  seed: the split is that of train_test_split(random_state=seed).
    """
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    digits = load()
    images, labels = digits.images[:, None].astype(np.uint8), digits.target.astype(np.int64)
    x, xt, y, yt = train_test_split(images, labels, test_size=test_size, random_state=seed)
    return ((x, y), (xt, yt)) if raw else ((unit_range(x, 16), y), (unit_range(xt, 16), yt))


def load_blobs(
    n_samples: int = 1000,
    centers: int | Sequence[Sequence[float]] = 5,
    n_features: int = 2,
    *,
    cluster_std: float | Sequence[float] = 1.0,
    center_box: tuple[float, float] = (-10.0, 10.0),
    test_size: float = 0.2,
    seed: int = 0,
) -> Split:
    """((x, y), (xt, yt)): Gaussian clouds around `centers` points, one class each.

    x float32 (N, D) with D = n_features, y int64 (N,).

    n_samples: training and test samples together.  centers: how many, drawn uniformly from center_box in each
    coordinate, or their coordinates.  cluster_std: standard deviation of the clouds, one for all or one each.
    test_size: fraction or number of samples.  seed: draws the samples (scikit-learn's make_blobs) and splits
    them.
    """
    from sklearn.datasets import make_blobs
    from sklearn.model_selection import train_test_split

    samples, labels = make_blobs(
        n_samples,
        n_features,
        centers=centers,
        cluster_std=cluster_std,
        center_box=center_box,
        random_state=seed,
    )
    x, xt, y, yt = train_test_split(
        samples.astype(np.float32), labels.astype(np.int64), test_size=test_size, random_state=seed
    )
    return (x, y), (xt, yt)
