"""Summaries of small neighbourhoods: their largest element, or their mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.geometry import Window
from .base import Layer, pair
from .conv import check_padding, resolve_padding


class _Pooling2D(Layer):
    """x (H, C, W, N) -> y (OH, C, OW, N).

    pool_size: of the window, a number or (rows, columns).  strides: how far it slides, by default its own
    size.  padding: "valid", "same" (as Keras pads), a number or (rows, columns), at most half the window.
    ceil_mode: also keep the last windows that reach beyond the edge, as long as they begin inside, as in
    PyTorch.
    """

    def __init__(self, pool_size=2, strides=None, padding="valid", ceil_mode=False, **layer):
        super().__init__(**layer)
        kind = type(self).__name__
        self.pool_size = pair(kind, "pool_size", pool_size)
        self.strides = self.pool_size if strides is None else pair(kind, "strides", strides)
        self.padding, self.ceil_mode = check_padding(kind, padding), bool(ceil_mode)
        if isinstance(self.padding, tuple) and any(2 * p > k for p, k in zip(self.padding, self.pool_size)):
            raise ValueError(
                f"{kind}: padding must be at most half the window. Received: padding={padding}, "
                f"pool_size={pool_size}"
            )

    def build(self, in_shape, params):
        self.need_map(in_shape)
        C, H, W = in_shape
        window = Window(self.pool_size, self.strides)
        window = window._replace(padding=resolve_padding(self.padding, window, H, W))
        self.margin = window.padding  # without what ceil_mode adds
        if self.ceil_mode:
            sides: Any = tuple(
                (before, after + _overhang(size + before + after, before + size, kernel, stride))
                for size, (before, after), kernel, stride in zip(
                    (H, W), window.padding, self.pool_size, self.strides
                )
            )
            window = window._replace(padding=sides)
        self.window = window
        OH, OW = window.out_size(H, W)
        if min(OH, OW) < 1:
            self.fail(
                f"the window is larger than its input. Received: a map {in_shape}, "
                f"pool_size={self.pool_size}, which leave {OH} x {OW}. Expected: an output of at least 1 x "
                "1; use a smaller window, padding='same' or ceil_mode=True"
            )
        return (C, OH, OW)

    def _crop(self, dx, shape):
        """The part of dx that is not padding."""
        if not self.window.padded:
            return dx
        H, _, W, _ = shape
        (top, _), (left, _) = self.window.padding
        return dx[top : top + H, :, left : left + W].copy()


def _overhang(padded: int, begin_before: int, kernel: int, stride: int) -> int:
    """Elements that a last, partial window reaches beyond the padded edge; 0 where there is none to add."""
    out = -(-max(padded - kernel, 0) // stride) + 1
    if (out - 1) * stride >= begin_before:  # it would begin in the padding behind the image
        out -= 1
    return max((out - 1) * stride + kernel - padded, 0)


class MaxPooling2D(_Pooling2D):
    __doc__ = f"Largest element of each window.  {_Pooling2D.__doc__}"

    def forward(self, x, *, train):
        padded = self.ops.pad(x, self.window.padding, -np.inf)
        if not train:
            y = self.ops.max_pool(padded, self.window)
            return y, ((padded, y), x.shape)
        y, kept = self.ops.max_pool_train(padded, self.window)
        return y, (kept, x.shape)

    def backward(self, dy, cache):
        kept, shape = cache
        return self._crop(self.ops.max_pool_train_backward(dy, kept, self.window), shape)


class AveragePooling2D(_Pooling2D):
    __doc__ = f"""Mean of each window.  {_Pooling2D.__doc__}
    count_include_pad: whether the zeros of the padding count as elements; by default as the library that each
    padding comes from does: not for "same" (Keras), yes for numbers (PyTorch).  What ceil_mode adds never
    counts.
    """

    def __init__(
        self, pool_size=2, strides=None, padding="valid", ceil_mode=False, count_include_pad=None, **layer
    ):
        super().__init__(pool_size, strides, padding, ceil_mode, **layer)
        self.count_include_pad = count_include_pad

    def build(self, in_shape, params):
        out_shape = super().build(in_shape, params)
        include = self.padding != "same" if self.count_include_pad is None else self.count_include_pad
        self.counts_padding = include and self.margin != ((0, 0), (0, 0))
        counts = [
            _elements_under(size, before, after if include else 0, before if include else 0, *rest)
            for size, (before, after), *rest in zip(
                in_shape[1:], self.margin, self.pool_size, self.strides, out_shape[1:]
            )
        ]
        share = 1.0 / np.outer(*counts)  # (OH, OW): what one element of a window weighs
        alike = share.min() == share.max()
        self.share = (
            float(share[0, 0]) if alike else params.ops.asarray(share[:, None, :, None], params.dtype)
        )
        return out_shape

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("share", None)  # an array of the device, perhaps; build makes it
        return state

    def forward(self, x, *, train):
        y = self.ops.sum_pool(self.ops.pad(x, self.window.padding), self.window)
        y *= self.share
        return y, x.shape

    def backward(self, dy, shape):
        dy *= self.share
        H, C, W, N = shape
        (top, bottom), (left, right) = self.window.padding
        dx = self.ops.sum_pool_backward(dy, (top + H + bottom, C, left + W + right, N), self.window)
        return self._crop(dx, shape)


def _elements_under(size, before, counted_after, counted_before, kernel, stride, out):
    """How many counted elements lie under each of the out windows along one axis."""
    starts = np.arange(out) * stride - before  # in the image's own coordinates
    return np.minimum(starts + kernel, size + counted_after) - np.maximum(starts, -counted_before)


class GlobalAveragePooling2D(Layer):
    """Mean of each channel.  x (H, C, W, N) -> y (N, C)."""

    def build(self, in_shape, params):
        self.need_map(in_shape)
        return in_shape[:1]

    def forward(self, x, *, train):
        H, C, W, N = x.shape
        y = self.ops.empty((N, C), x.dtype)
        y[...] = x.mean(axis=(0, 2)).T
        return y, x.shape

    def backward(self, dy, shape):
        H, C, W, N = shape
        dx = self.ops.empty(shape, dy.dtype)
        dx[...] = (dy.T / (H * W))[:, None, :]
        return dx


class GlobalMaxPooling2D(Layer):
    """Largest element of each channel.  x (H, C, W, N) -> y (N, C); the gradient goes to the first of those
    that tie.
    """

    def build(self, in_shape, params):
        self.need_map(in_shape)
        self.window = Window(in_shape[1:], in_shape[1:])
        return in_shape[:1]

    def forward(self, x, *, train):
        largest = self.ops.max_pool(x, self.window)  # (1, C, 1, N)
        y = self.ops.empty((x.shape[3], x.shape[1]), x.dtype)
        y[...] = largest[0, :, 0].T
        return y, (x, largest)

    def backward(self, dy, cache):
        x, largest = cache
        dmax = self.ops.empty(largest.shape, dy.dtype)
        dmax[0, :, 0] = dy.T
        return self.ops.max_pool_backward(dmax, x, largest, self.window)
