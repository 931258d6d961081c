"""A model's arrays as Keras orders their axes and features.

Kernels are (KH, KW, C, F) in Keras and (F, C, KH, KW) here; those of dense layers (I, O) and (O, I).  A map
that becomes a vector is written in H, W, C order there and in C, H, W order here, so the features between
such a border and the next dense layer are the same in another order: that layer's weights are permuted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LayerNormalization,
    Normalization,
    Rescaling,
    Reshape,
)
from ...params import Slot

KEEPS_ORDER = (
    Activation, BatchNormalization, Dropout, Flatten, LayerNormalization, Normalization, Rescaling, Reshape,
)  # fmt: skip


class Orders(NamedTuple):
    """Which of our features stands at each of Keras's places before and behind a layer; None: the same."""

    before: np.ndarray | None
    after: np.ndarray | None


def rows_columns_channels(shape: tuple[int, ...]) -> np.ndarray | None:
    """Our index of each feature of a map (C, H, W) that is unrolled in H, W, C order; None where it is the
    same.
    """
    C, H, W = shape
    if C == 1 or H * W == 1:
        return None
    return np.arange(C * H * W).reshape(shape).transpose(1, 2, 0).ravel()


def orders(layers: list[Layer]) -> dict[Layer, Orders]:
    """The order of the features around each layer of a built chain, and of the chains inside it."""
    found: dict[Layer, Orders] = {}
    order = None
    for index, layer in enumerate(layers):
        before, border = order, _border(layers[index + 1 :])
        if len(layer.out_shape) == 3:
            order = None
        elif len(layer.in_shape) == 3 and isinstance(layer, (Flatten, Reshape)):
            order = rows_columns_channels(layer.in_shape) if isinstance(border, Dense) else None
        elif isinstance(layer, Dense):
            unrolled = isinstance(border, Reshape) and not border.last
            order = rows_columns_channels(border.out_shape) if border and unrolled else None
        elif not isinstance(layer, KEEPS_ORDER):
            order = None
        found[layer] = Orders(before, order)
        for branch in layer.children().values():
            found |= orders(branch)
    return found


def _border(rest: list[Layer]) -> Layer | None:
    """The first layer that cares in which order the features of a vector come."""
    for layer in rest:
        if not isinstance(layer, KEEPS_ORDER) or len(layer.out_shape) == 3:
            return layer
    return None


def is_depthwise(layer: Layer) -> bool:
    """Whether Keras has a DepthwiseConv2D for it."""
    return (
        isinstance(layer, Conv2D)
        and layer.groups == layer.in_shape[0] > 1
        and layer.strides[0] == layer.strides[1]
    )


def slots(layer: Layer) -> list[Slot]:
    """The layer's arrays that Keras has too, in Keras's order."""
    return [slot for slot in layer.slots + layer.state_slots if not slot.integer]


def turned(layer: Layer, slot: Slot, a: np.ndarray, order: Orders) -> np.ndarray:
    """An array of the slot's conventional shape, as Keras has it."""
    if isinstance(layer, Dense):
        a = a if order.after is None else a[order.after]
        return a if slot.name == "bias" else (a if order.before is None else a[:, order.before]).T
    if isinstance(layer, (Conv2D, Conv2DTranspose)):
        if slot.name == "bias":
            return a
        if is_depthwise(layer):
            C = layer.in_shape[0]
            return a.reshape(C, a.shape[0] // C, *a.shape[2:]).transpose(2, 3, 0, 1)
        return a.transpose(2, 3, 1, 0)
    if a.ndim == 3:  # of a LayerNormalization over a whole map
        return a.transpose(1, 2, 0)
    return a if order.after is None else a[order.after]


def turned_back(layer: Layer, slot: Slot, a: np.ndarray, order: Orders) -> np.ndarray:
    """The array that `turned` makes a of."""
    places = turned(layer, slot, np.arange(slot.size).reshape(slot.shape), order)
    out = np.empty(slot.size, a.dtype)
    out[places.ravel()] = a.ravel()
    return out.reshape(slot.shape)


def turned_shape(layer: Layer, slot: Slot, order: Orders) -> tuple[int, ...]:
    """The shape that Keras has the slot's array in."""
    return turned(layer, slot, np.empty(slot.shape, np.bool_), order).shape
