"""Layers made of layers: one after another, beside a short cut, side by side."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from .. import activations
from .base import Layer, Shape


class Chain:
    """Layers that run one after another: the body of a model and of every branch."""

    in_shape: Shape
    out_shape: Shape

    def __init__(self, layers: list[Layer]):
        self.layers = layers

    def build(self, in_shape: Shape, params, where: str = "layer") -> Shape:
        """Build each layer for what the one before it yields; where: how errors call a layer here."""
        self.in_shape = in_shape
        for index, layer in enumerate(self.layers):
            layer.where = f"{where} {index} {layer.label!r}"
            layer.slots, layer.state_slots = [], []
            layer.ops, layer.in_shape = params.ops, in_shape
            out_shape = layer.build(in_shape, params)
            if not isinstance(out_shape, (tuple, list)) or not all(
                isinstance(n, Integral) for n in out_shape
            ):
                layer.fail(
                    f"build must return the shape of the outputs. Received: {out_shape!r}. Expected: a tuple"
                )
            in_shape = layer.out_shape = tuple(out_shape)
        self.out_shape = in_shape
        return in_shape

    def forward(self, x, *, train: bool) -> tuple[Any, list]:
        """y, and the caches in the order of the layers."""
        caches = []
        for layer in self.layers:
            x, cache = layer.forward(x, train=train)
            caches.append(cache)
        return x, caches

    def backward(self, dy, caches: list):
        """dL/dx; each cache is dropped as it is used.  None once no layer further in needs a gradient."""
        for layer in reversed(self.layers):
            if dy is None:
                break
            dy = layer.backward(dy, caches.pop())
        return dy


def _layers(kind: str, branch: str, value) -> list[Layer]:
    layers = [value] if isinstance(value, Layer) else value
    if not isinstance(layers, (list, tuple)) or not all(isinstance(layer, Layer) for layer in layers):
        raise TypeError(f"{kind}: {branch} must be a layer or a list of layers. Received: {value!r}")
    return list(layers)


def with_branch(layer: Layer, branch: str, layers: list[Layer]) -> Layer:
    """A twin of a container with other layers in a branch, named as `children` names it."""
    twin = layer.twin()
    owner, _, index = branch.partition(".")
    if index:
        branches = list(getattr(twin, owner))
        branches[int(index)] = layers
        layers = branches
    setattr(twin, owner, layers)
    return twin


class _Container(Layer):
    def multiply_adds(self):
        return sum(layer.multiply_adds() for branch in self.children().values() for layer in branch)

    def _build(self, branch: str, in_shape, params) -> Shape:
        chain = Chain(self.children()[branch])
        for layer in chain.layers:
            layer.parent = self
        return chain.build(in_shape, params, f"{self.where} > {branch}")


class Residual(_Container):
    """y = f(body(x) + shortcut(x)).  x (N, D) or (H, C, W, N).  He et al., 2016, eq. 1 and 2.

    body: layers.  shortcut: layers that bring x to the body's output shape (a 1x1 convolution, say), or None
    where x has it already.  activation: f, linear by default.
    """

    def __init__(self, body, shortcut=None, activation=None, **layer):
        super().__init__(**layer)
        self.body = _layers("Residual", "body", body)
        self.shortcut = None if shortcut is None else _layers("Residual", "shortcut", shortcut)
        self.activation = activations.get(activation)

    def children(self):
        return {"body": self.body, "shortcut": self.shortcut or []}

    def build(self, in_shape, params):
        out_shape, short = self._build("body", in_shape, params), self._build("shortcut", in_shape, params)
        if out_shape != short:
            self.fail(
                f"the branches do not fit together. Received: body yields {out_shape}, shortcut {short}. "
                "Expected: the same shape; give a shortcut such as [Conv2D(filters, 1, strides=...)]"
            )
        return out_shape

    def forward(self, x, *, train):
        a, body = Chain(self.body).forward(x, train=train)
        b, short = Chain(self.shortcut or []).forward(x, train=train)
        y = self.ops.like(a)
        self.ops.xp.add(a, b, out=y)
        y, kept = self.ops.finish(y, None, self.activation)
        return y, (body, short, kept)

    def backward(self, dy, cache):
        body, short, kept = cache
        dy = self.ops.finish_backward(dy, kept, self.activation)
        d = self.ops.like(dy)  # both branches may overwrite theirs
        d[...] = dy
        dx, other = Chain(self.body).backward(dy, body), Chain(self.shortcut or []).backward(d, short)
        if dx is None or other is None:
            return None
        dx += other
        return dx


class Concatenate(_Container):
    """The outputs of several branches side by side, along the features or channels.  x (N, D) -> y (N, sum of
    the branches' D), or x (H, C, W, N) -> y (OH, sum of the branches' F, OW, N).

    branches: a list of lists of layers that all see x; an empty list passes x on (as in DenseNet).
    """

    def __init__(self, branches, **layer):
        super().__init__(**layer)
        if not isinstance(branches, (list, tuple)) or len(branches) < 1:
            raise TypeError(
                f"Concatenate: branches must be a list of lists of layers. Received: {branches!r}"
            )
        self.branches = [_layers("Concatenate", f"branch {i}", branch) for i, branch in enumerate(branches)]

    def children(self):
        return {f"branches.{i}": branch for i, branch in enumerate(self.branches)}

    def build(self, in_shape, params):
        shapes = [self._build(name, in_shape, params) for name in self.children()]
        if (
            len({shape[1:] for shape in shapes} | {shapes[0][1:]}) > 1
            or len({len(shape) for shape in shapes}) > 1
        ):
            self.fail(
                f"the branches do not fit together. Received: outputs {shapes}. Expected: the same H and W "
                "in all"
            )
        self.widths = [shape[0] for shape in shapes]
        return (sum(self.widths), *shapes[0][1:])

    def forward(self, x, *, train):
        parts, caches = zip(*(Chain(branch).forward(x, train=train) for branch in self.branches))
        y = self.ops.empty(parts[0].shape[:1] + (sum(self.widths),) + parts[0].shape[2:], x.dtype)
        for part, columns in zip(parts, self._columns()):
            y[:, columns] = part
        return y, caches

    def backward(self, dy, caches):
        total, needed = None, True
        for branch, cache, columns in zip(self.branches, caches, self._columns()):
            part = dy[:, columns]
            d = self.ops.empty(part.shape, dy.dtype)
            d[...] = part
            dx = Chain(branch).backward(d, cache)
            if dx is None:
                needed = False
            elif total is None:
                total = dx
            else:
                total += dx
        return total if needed else None

    def _columns(self):
        start = 0
        for width in self.widths:
            yield slice(start, start + width)
            start += width
