"""Sparse samples, made dense as they are needed.

A network's first layer works on dense rows, so samples in CSR form are unpacked: at once where the whole of
them is small, else a batch at a time.  The numbers are the same either way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

SMALL = 1 << 28  # bytes of dense samples that are kept


def is_sparse(X) -> bool:
    return sparse.issparse(X)


def unpacked(X):
    """X dense where that is small, else as it is."""
    return X.toarray() if is_sparse(X) and X.shape[0] * X.shape[1] * X.dtype.itemsize <= SMALL else X


class Batches:
    """Batches (x, y, w) of sparse X (N, D), anew each time they are gone through.

    model: gives the order where they are shuffled, and the shape of x.
    """

    def __init__(self, X, y, w, size: int, model, shuffle: bool):
        self.X, self.y, self.w, self.size, self.model, self.shuffle = X, y, w, size, model, shuffle

    def __len__(self) -> int:
        return -(-self.X.shape[0] // self.size)

    def __iter__(self) -> Iterator[tuple]:
        n = self.X.shape[0]
        order = self.model.shuffled(n) if self.shuffle else np.arange(n)
        for start in range(0, n, self.size):
            rows = order[start : start + self.size]
            x = self.X[rows].toarray().reshape(len(rows), *self.model.input_shape)
            yield x, self.y[rows], None if self.w is None else self.w[rows]
