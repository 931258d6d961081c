"""Larger maps without parameters: pixels repeated, or blended into their neighbours."""

from __future__ import annotations

from ..errors import unknown
from ..ops.geometry import Window
from .base import Layer, pair


class UpSampling2D(Layer):
    """Each pixel becomes SH x SW of them.  x (H, C, W, N) -> y (H*SH, C, W*SW, N).

    size: SH and SW, a number or (rows, columns).  interpolation: "nearest" repeats a pixel; "bilinear" weighs
    the two nearest pixel centres of each axis, those of the edge alone beyond it, as Keras does and PyTorch
    with align_corners=False.
    """

    def __init__(self, size=2, interpolation="nearest", **layer):
        super().__init__(**layer)
        self.size, self.interpolation = pair("UpSampling2D", "size", size), interpolation
        if interpolation not in ("nearest", "bilinear"):
            raise unknown("interpolation", interpolation, ("nearest", "bilinear"))

    def build(self, in_shape, params):
        self.need_map(in_shape)
        C, H, W = in_shape
        return (C, H * self.size[0], W * self.size[1])

    def forward(self, x, *, train):
        if self.interpolation == "bilinear":
            for axis, times in zip((0, 2), self.size):
                x = _stretch(self.ops, x, axis, times)
            return x, None
        H, C, W, N = x.shape
        SH, SW = self.size
        y = self.ops.empty((H, SH, C, W, SW, N), x.dtype)
        y[...] = x[:, None, :, :, None]
        return y.reshape(H * SH, C, W * SW, N), None

    def backward(self, dy, cache):
        if self.interpolation == "nearest":
            return self.ops.sum_pool(dy, Window(self.size, self.size))
        for axis, times in zip((2, 0), self.size[::-1]):
            dy = _stretch_backward(self.ops, dy, axis, times)
        return dy


def _stretch(ops, x, axis: int, times: int):
    """x `times` as long along an axis, by linear interpolation: places p = 0 .. times-1 of each pixel."""
    if times == 1:
        return x
    shape = x.shape[:axis] + (x.shape[axis] * times,) + x.shape[axis + 1 :]
    y = ops.empty(shape, x.dtype)
    pixels, places = _in_front(x, axis), _in_front(y, axis, times)
    for p in range(times):
        share, here, there, edge = _neighbour(p, times)
        ops.xp.multiply(pixels, 1 - share, out=places[p])
        if share:
            places[p][here] += share * pixels[there]
            places[p][edge] += share * pixels[edge]
    return y


def _stretch_backward(ops, dy, axis: int, times: int):
    """The adjoint of `_stretch`."""
    if times == 1:
        return dy
    shape = dy.shape[:axis] + (dy.shape[axis] // times,) + dy.shape[axis + 1 :]
    dx = ops.empty(shape, dy.dtype)
    dx[...] = 0
    dpixels, dplaces = _in_front(dx, axis), _in_front(dy, axis, times)
    for p in range(times):
        share, here, there, edge = _neighbour(p, times)
        dpixels += (1 - share) * dplaces[p]
        if share:
            dpixels[there] += share * dplaces[p][here]
            dpixels[edge] += share * dplaces[p][edge]
    return dx


def _in_front(a, axis: int, times: int | None = None):
    """A view of a whose first axis is `axis`, or its places (times, a.shape[axis] / times, ...)."""
    if times is None:
        return a.swapaxes(0, axis)
    split = a.reshape(*a.shape[:axis], a.shape[axis] // times, times, *a.shape[axis + 1 :])
    return split.swapaxes(0, 1) if axis == 0 else split.transpose(3, 2, 1, 0, 4)


def _neighbour(p: int, times: int):
    """For place p of a pixel: the share of its neighbour in the value, the pixels that have one and those
    neighbours, and the pixel at the edge that is its own.
    """
    distance = (p + 0.5) / times - 0.5  # of the place's centre from the pixel's
    first, rest, last = slice(None, -1), slice(1, None), -1
    return (-distance, rest, first, 0) if distance < 0 else (distance, first, rest, last)
