"""Batch normalization on the CPU, in blocks of rows that stay in a core's cache.

The plain operation walks seven times over a map in memory to go forward, and six times back.  Here it is
three times and twice, and x - mean is made again where it is needed instead of being kept: a half to two
thirds of the time forward, three to four fifths back.  A number a channel is spread over a row of the map
before it meets one, since NumPy adds arrays of one shape in half of the time that a column of numbers takes.
Replicas meet once to go forward and once back.
"""

from __future__ import annotations

import numpy as np

from .reference import Ops

BLOCK = 1 << 18  # bytes of a block of rows; a few such share a core's cache
LEAST = 1 << 17  # bytes of a map; smaller ones stay in the cache anyway


class HostNormalization(Ops):
    """Batch normalization of maps (H, C, W, N) on NumPy arrays; vectors and small maps go the plain way."""

    def batch_norm(self, x, weight, bias, epsilon):
        if self._plainly(x):
            return super().batch_norm(x, weight, bias, epsilon)
        own, n = x.size // x.shape[1], self.elements_a_feature(x)
        total = self.feature_sum(x)
        mean = total / own
        squares = np.zeros_like(mean)
        for _, d in self._centred(x, mean):
            squares += self._dots(d, d)
        var = squares / own
        if own != n:
            mean, var = self._of_all(total, squares, own, n)
        slope = 1 / np.sqrt(var + epsilon)
        y = self.like(x)
        centre, scale, shift = (self._row(v, x) for v in (mean, weight * slope, bias))
        for rows in _blocks(x):
            part = np.subtract(x[rows], centre, out=y[rows])
            part *= scale
            part += shift
        return y, mean, var, n, (x, mean, slope, n)

    def batch_norm_backward(self, dy, cache, weight, dweight, dbias, needs_dx=True):
        if self._plainly(dy):
            return super().batch_norm_backward(dy, cache, weight, dweight, dbias, needs_dx)
        x, mean, slope, n = cache
        dweight[...] = 0
        dbias[...] = 0
        for rows, d in self._centred(x, mean):
            dweight += self._dots(dy[rows], d)
            dbias += self.feature_sum(dy[rows])
        dweight *= slope
        total = self.batch_sum(np.stack([dweight, dbias])) / n
        if not needs_dx:
            return None
        # dx = scale dy - by_x x + by_1, the formula's terms in the order that takes the fewest passes
        scale = weight * slope
        by_x = scale * slope * total[0]
        by_1 = by_x * mean - scale * total[1]
        scale, by_x, by_1 = (self._row(v, x) for v in (scale, by_x, by_1))
        room = self._room(x)
        for rows in _blocks(x):
            part = dy[rows]
            part *= scale
            part -= np.multiply(x[rows], by_x, out=room[: len(part)])
            part += by_1
        return dy

    def _plainly(self, x) -> bool:
        """Whether blocks gain nothing: vectors, and small maps of a replica that meets no other."""
        return x.ndim == 2 or (x.nbytes < LEAST and self.elements_a_feature(x) == x.size // x.shape[1])

    def _of_all(self, total, squares, own: int, n: int):
        """Mean and variance over all replicas, who meet once for it: from each one's sum and squares of the
        distance to its own mean.  T. Chan, G. Golub, R. LeVeque, 1979, eq. 2.1, in float64.
        """
        s = total.astype(np.float64)
        sums = self.batch_sum(np.stack([s, s * s / own, squares.astype(np.float64)]))
        mean = sums[0] / n
        var = (sums[2] + (sums[1] - sums[0] * mean)) / n
        return mean.astype(total.dtype), var.astype(total.dtype)

    def _centred(self, x, mean):
        """x - mean, block after block, each in the memory of the one before."""
        room, centre = self._room(x), self._row(mean, x)
        for rows in _blocks(x):
            part = x[rows]
            yield rows, np.subtract(part, centre, out=room[: len(part)])

    def _room(self, x):
        """Memory for a block of x."""
        return self.like(x[_blocks(x)[0]])

    def _row(self, v, x):
        """v (C,) as a row of a map like x."""
        row = self.like(x[:1])
        row[...] = v[:, None, None]
        return row

    def _dots(self, a, b):
        """The sum of a * b for each channel."""
        H, C, W, N = a.shape
        return np.vecdot(a.reshape(H, C, W * N), b.reshape(H, C, W * N)).sum(axis=0)


def _blocks(x) -> list[slice]:
    """Rows of a map, in slices."""
    size = max(1, BLOCK // max(1, x[:1].nbytes))
    return [slice(k, k + size) for k in range(0, len(x), size)]
