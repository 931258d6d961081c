"""Layers in the making, and where the elements of an ONNX value lie in what the layers yield."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from ... import activations
from ...layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Flatten,
    GroupNormalization,
    Layer,
    Normalization,
    Rescaling,
    Reshape,
    Residual,
)  # fmt: skip
from ...layers.base import Shape
from ...layers.containers import Chain
from ...ops.reference import Ops
from ...params import Params
from .graph import Node

BIASED = (Dense, Conv2D, Conv2DTranspose)  # layers that may have a bias
FUSES = (*BIASED, Residual)  # layers with an activation of their own
SCALES = (Dense, Conv2D, BatchNormalization, GroupNormalization)  # layers whose weight has a row a feature
ELEMENTWISE = (Activation, Dropout, Rescaling)


class Flow:
    """The layers that lead to one ONNX value.

    shape: of what they yield, a map (C, H, W) or a vector (D,).  index: of the value's shape without its
    samples; for each of its elements the number of the same element in the layers' output, in C, H, W order.
    So Transpose, Reshape, Flatten and their like are done to the index, and no layer needs to know; where a
    layer wants the elements in their order, `as_map` and `as_vector` see to it.  axis: the value's axis of
    samples.  weights: of every layer that has any, by the names of its slots.  border: what the value has
    around the layers' map that no maximum sees, as Keras pads before a pooling.
    """

    def __init__(self, shape: Shape, index: np.ndarray, data_format: str = "channels_first"):
        self.shape, self.index, self.data_format, self.axis = shape, index, data_format, 0
        self.layers: list[Layer] = []
        self.weights: dict[Layer, dict[str, np.ndarray]] = {}
        self.border: Any = None

    def fork(self) -> Flow:
        """A branch that begins here."""
        branch = copy.copy(self)
        branch.layers = []
        return branch

    # -- layers ----------------------------------------------------------------------------------------------

    def add(self, node: Node, layer: Layer, **weights) -> None:
        """Append a layer that yields the node's output, element by element in order."""
        shape = self.built(node, layer, weights)
        sizes = node.out_sizes[: self.axis] + node.out_sizes[self.axis + 1 :] or shape
        if math.prod(sizes) != math.prod(shape):
            node.fail(f"{layer!r} would yield {shape} and not {sizes}", "a graph whose shapes agree")
        self.shape = shape
        self.index = np.arange(math.prod(sizes)).reshape(sizes)
        self.keep(layer, **weights)

    def keep(self, layer: Layer, **weights) -> None:
        """Append a layer that leaves every element in its place."""
        self.layers.append(layer)
        if given := {name: a for name, a in weights.items() if a is not None}:
            self.weights[layer] = given

    def hold(self, node: Node, layer: Layer, **weights) -> None:
        """Append a layer with weights that leaves every element in its place."""
        self.built(node, layer, weights)
        self.keep(layer, **weights)

    def built(self, node: Node, layer: Layer, weights: dict[str, Any] | None = None) -> Shape:
        """Build the layer for a trial, to see whether its weights fit: the shape that it would yield here."""
        try:
            shape = Chain([layer]).build(self.shape, Params(0, Ops(), np.float32, self.data_format))
        except ValueError as error:
            node.fail(f"cannot be a layer here: {error}", "another form of this node, or of its input")
        for slot in layer.slots + layer.state_slots:
            given = (weights or {}).get(slot.name)
            if given is not None and given.shape != slot.shape:
                node.fail(f"its {slot.name} does not fit. Received: {given.shape}", f"{slot.shape}")
        return shape

    def activate(self, function: activations.ActivationFunction) -> None:
        """Apply an activation, in the last layer where that has room for one."""
        last = self.layers[-1] if self.layers else None
        if isinstance(last, FUSES) and isinstance(last.activation, activations.Linear):
            last.activation = function
        else:
            self.keep(Activation(function))

    def scale(self, node: Node, scale, shift) -> None:
        """scale y + shift, numbers or one for each element of the value, but alike within a channel."""
        a, b = self.by_feature(scale), self.by_feature(shift)
        if a is None or b is None:
            node.fail("varies within a channel", "one number, or one a feature or channel")
        last: Any = self.layers[-1] if self.layers else None
        weights = self.weights.get(last, {})
        linear = bool(weights) and isinstance(last.activation, activations.Linear)
        if linear and isinstance(last, BIASED) and "bias" not in weights and (a == 1).all():
            last.use_bias, weights["bias"] = True, b
        elif (a == 1).all() and (b == 0).all():
            pass
        elif (a == a[0]).all() and (b == b[0]).all():
            if isinstance(last, Rescaling):
                self.layers.pop()
                a, b = a * last.scale, a * last.offset + b
            self.keep(Rescaling(a[0], b[0]))
        elif linear and isinstance(last, SCALES):
            rows = (-1, *(1,) * (weights["weight"].ndim - 1))
            weights["weight"] = weights["weight"] * a.reshape(rows)
            weights["bias"] = weights.get("bias", 0) * a + b
            if isinstance(last, BIASED):
                last.use_bias = True
        elif (a > 0).all():
            if isinstance(last, Normalization):
                self.layers.pop()
                before = 1 / np.sqrt(last.variance)
                b = b - a * before * last.mean
                a = a * before
            self.keep(Normalization(mean=-b / a, variance=1 / a**2))
        else:
            node.fail(
                "scales some channels by numbers that are not positive",
                "that after a convolution or a dense layer, which can take it up; Conv with group=channels",
            )

    # -- places ----------------------------------------------------------------------------------------------

    def by_feature(self, values) -> np.ndarray | None:
        """Numbers for the value's elements, as float64, one a feature or channel of what the layers yield;
        None where those within a channel differ.
        """
        flat = np.empty(self.index.size)
        flat[self.index.ravel()] = np.broadcast_to(values, self.index.shape).ravel()
        table = flat.reshape(self.shape[0], -1)
        return table[:, 0].copy() if (table == table[:, :1]).all() else None

    def feature_axis(self, axis: int) -> bool:
        """Whether this axis of the value, its samples counted, is that of the features or channels."""
        if axis == self.axis:
            return False
        axis -= axis > self.axis
        places = np.arange(self.index.shape[axis]).reshape(-1, *(1,) * (self.index.ndim - 1 - axis))
        found = self.by_feature(places)
        return found is not None and len(found) == places.size and len(set(found)) == len(found)

    def as_map(self, node: Node) -> None:
        """Let the layers yield the value as a map (C, H, W); (C, L) counts as one row."""
        index = self.index[:, None] if self.index.ndim == 2 else self.index
        if self.axis or index.ndim != 3:
            node.fail(
                f"works on a value of shape {node.in_sizes}, which is no image", "(N, C, H, W), or (N, C, L)"
            )
        if self.shape != index.shape or not ordered(index):
            last = self.data_format == "channels_last"
            read = index.transpose(1, 2, 0) if last and len(self.shape) == 1 else index
            if not ordered(read) and not self._permute(read.ravel()):
                node.fail("takes its elements in another order", "images (N, C, H, W), channels first")
            C, H, W = index.shape
            self.keep(Reshape((H, W, C) if last else (C, H, W)))
            self.shape, index = (C, H, W), np.arange(index.size).reshape(C, H, W)
        self.index = index

    def as_vector(self) -> None:
        """Let the layers yield a vector; the value's elements may stand in it in any order."""
        if len(self.shape) == 3:
            self.keep(Flatten())
            self.shape = (math.prod(self.shape),)

    def in_order(self, node: Node) -> None:
        """Let the layers yield the value's elements as a vector in order."""
        self.as_vector()
        if not ordered(self.index):
            if not self._permute(self.index.ravel()):
                node.fail("yields its elements in another order than its layers", "channels before rows")
            self.index = np.arange(self.index.size).reshape(self.index.shape)

    def _permute(self, order: np.ndarray) -> bool:
        """Let the elements of a vector come in another order, by the rows of the Dense that makes them."""
        for layer in reversed(self.layers if len(self.shape) == 1 else []):
            if isinstance(layer, Dense):
                self.weights[layer] = {name: a[order] for name, a in self.weights[layer].items()}
                return True
            if not isinstance(layer, ELEMENTWISE):
                return False
        return False


def ordered(index: np.ndarray) -> bool:
    """Whether elements stand where the layers' output has them."""
    return bool((index.ravel() == np.arange(index.size)).all())
