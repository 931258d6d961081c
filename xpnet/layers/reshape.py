"""The border between feature maps (H, C, W, N) and vectors (N, D)."""

from __future__ import annotations

import math
import operator

from .base import Layer


def map_to_vector(ops, x):
    """(H, C, W, N) -> (N, C*H*W), elements in C, H, W order.

    Rows of W*N elements move as they are, and the result is a transposed view of (C*H*W, N), which BLAS reads
    in place.
    """
    H, C, W, N = x.shape
    if H > 1 and C > 1:
        moved = ops.empty((C, H, W, N), x.dtype)
        moved[...] = x.transpose(1, 0, 2, 3)
    else:
        moved = x
    return moved.reshape(C * H * W, N).T


def vector_to_map(ops, x, shape):
    """(N, C*H*W), elements in C, H, W order -> (H, C, W, N)."""
    C, H, W = shape
    out = ops.empty((H, C, W, len(x)), x.dtype)
    out[...] = x.T.reshape(C, H, W, len(x)).transpose(1, 0, 2, 3)
    return out


class Flatten(Layer):
    """A map as a vector.  x (H, C, W, N) -> y (N, C*H*W), elements in C, H, W order, as in PyTorch."""

    def build(self, in_shape, params):
        return (math.prod(in_shape),)

    def forward(self, x, *, train):
        return (x if x.ndim == 2 else map_to_vector(self.ops, x)), None

    def backward(self, dy, cache):
        return dy if len(self.in_shape) == 1 else vector_to_map(self.ops, dy, self.in_shape)


class Reshape(Layer):
    """The same elements in another shape, the batch apart.  target_shape: (D,), (C, H, W), and one -1 for
    what is left.

    In a model with data_format="channels_last" a map is given as (H, W, C), and a vector that becomes a map
    is read in that order, as in Keras; a map that becomes a vector is written in C, H, W order in every
    model, like Flatten.
    """

    def __init__(self, target_shape, **layer):
        super().__init__(**layer)
        try:
            target = (target_shape,) if not isinstance(target_shape, (tuple, list)) else target_shape
            self.target_shape = tuple(operator.index(size) for size in target)
        except TypeError:
            raise ValueError(
                f"Reshape: target_shape must be whole numbers. Received: {target_shape!r}"
            ) from None
        sizes = self.target_shape
        if len(sizes) not in (1, 3) or sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
            raise ValueError(
                "Reshape: target_shape must be (D,) or three sizes of a map, at most one of them -1. "
                f"Received: {target_shape!r}"
            )

    def build(self, in_shape, params):
        have, sizes = math.prod(in_shape), list(self.target_shape)
        if -1 in sizes:
            sizes[sizes.index(-1)] = have // -math.prod(sizes)
        if math.prod(sizes) != have:
            self.fail(
                f"the elements do not fit. Received: {in_shape}, {have} elements, and target_shape="
                f"{self.target_shape}. Expected: {have} elements in both"
            )
        self.last = params.data_format == "channels_last" and len(sizes) == 3
        return (sizes[2], sizes[0], sizes[1]) if self.last else tuple(sizes)

    def forward(self, x, *, train):
        if self.in_shape == self.out_shape:
            return x, None
        if x.ndim == 4:
            x = map_to_vector(self.ops, x)
        elif self.last:
            C, H, W = self.out_shape
            return self.ops.pack(x.reshape(-1, H, W, C).transpose(0, 3, 1, 2), x.dtype), None
        return (x if len(self.out_shape) == 1 else vector_to_map(self.ops, x, self.out_shape)), None

    def backward(self, dy, cache):
        if self.in_shape == self.out_shape:
            return dy
        if dy.ndim == 4:
            if self.last and len(self.in_shape) == 1:
                return self.ops.xp.ascontiguousarray(dy.transpose(3, 0, 2, 1)).reshape(dy.shape[3], -1)
            dy = map_to_vector(self.ops, dy)
        return dy if len(self.in_shape) == 1 else vector_to_map(self.ops, dy, self.in_shape)
