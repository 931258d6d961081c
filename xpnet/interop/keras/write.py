"""Layers as Keras describes them: the class's name, the configuration, the arrays.

What Keras has no argument for becomes a layer of its own: a padding by numbers, the slope of a leaky ReLU.
Maps are channels_last throughout, whatever the model's data_format.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ... import activations as A
from ... import layers as L
from ...layers.conv import resolve_padding
from .arrays import Orders, is_depthwise, orders, rows_columns_channels, slots, turned

Described = list[tuple[str, dict[str, Any]]]  # layers that run one after another

PLAIN = ("linear", "relu", "sigmoid", "tanh", "softmax", "softplus", "silu", "gelu")  # as Keras computes them
WITH_WEIGHTS = (
    "Dense", "Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "BatchNormalization", "LayerNormalization",
    "GroupNormalization", "Normalization",
)  # fmt: skip


class Entry(NamedTuple):
    """A layer of Keras.  kind: its class's name.  where: what errors call it."""

    kind: str
    config: dict[str, Any]
    arrays: list[np.ndarray]
    where: str


class Join(NamedTuple):
    """Branches that all see one input, and the kind of layer that joins their outputs."""

    kind: str
    name: str
    branches: list[list[Entry | Join]]


def entries(model) -> list[Entry | Join]:
    """The model's layers as Keras's."""
    state = {(slot.layer, slot.name): name for name, slot in model._named_slots()}
    arrays = model.state_dict()
    names: set[str] = set()
    around = orders(model.layers)

    def unique(name: str) -> str:
        name, number = name.replace("/", "_"), 0
        while (one := f"{name}_{number}" if number else name) in names:
            number += 1
        names.add(one)
        return one

    def chain(layers) -> Iterator[Entry | Join]:
        for layer in layers:
            if type(layer) not in _layer.registry:
                _fail(layer, repr(layer), "layers of xpnet.layers")
            if isinstance(layer, (L.Residual, L.Concatenate)):
                kind = "Add" if isinstance(layer, L.Residual) else "Concatenate"
                branches = [list(chain(branch)) for branch in layer.children().values()]
                yield Join(kind, unique(layer.label), branches)
            described = [*_layer(layer, around[layer]), *_behind(layer)]
            for kind, config in described:
                own = slots(layer) if kind in WITH_WEIGHTS else []
                held = [turned(layer, slot, arrays[state[layer, slot.name]], around[layer]) for slot in own]
                if kind == "Normalization":
                    held.append(np.zeros((), np.int32))  # samples seen, of which Keras makes nothing any more
                alone = own or kind == type(layer).__name__ or len(described) == 1
                name = unique(layer.label if alone else f"{layer.label}_{_short(kind)}")
                given = {"name": name, "dtype": model.dtype.name}
                if not layer.is_trainable and own:
                    given["trainable"] = False
                yield Entry(kind, given | config, held, layer.where)

    lifted = [("Reshape", {"target_shape": [*model.input_shape, 1]})] if model._without_channel else []
    front = [
        Entry(kind, {"name": unique("with_channel")} | config, [], "the input") for kind, config in lifted
    ]
    return [*front, *chain(model.layers)]


def _short(kind: str) -> str:
    return {"ZeroPadding2D": "padding", "Permute": "order"}.get(kind, kind.lower())


def _fail(layer: L.Layer, received: str, expected: str) -> NoReturn:
    raise TypeError(f"{layer.where}: Keras has no layer for it. Received: {received}. Expected: {expected}")


# -- activations ---------------------------------------------------------------------------------------------


def _fused(layer) -> str:
    """The word for a layer's activation; those that need a layer of their own come from `_behind`."""
    f = layer.activation
    return f.name if f.name in PLAIN and not (isinstance(f, A.GELU) and f.approximate) else "linear"


def _behind(layer: L.Layer) -> Described:
    f = layer.activation
    fused = isinstance(layer, (L.Dense, L.Conv2D, L.Conv2DTranspose)) and _fused(layer) == f.name
    return [] if fused or isinstance(f, A.Linear) else _function(layer, f)


def _function(layer: L.Layer, f: A.ActivationFunction) -> Described:
    """A layer that is the activation f."""
    if f.name not in A.TABLE:
        _fail(layer, repr(f), f"one of {', '.join(A.TABLE)}")
    match f:
        case A.LeakyReLU():
            return [("LeakyReLU", {"negative_slope": f.negative_slope})]
        case A.ELU():
            return [("ELU", {"alpha": f.alpha})]
        case A.GELU() if f.approximate:
            _fail(layer, repr(f), "GELU(approximate=False), which Keras's layers have")
    return [("Activation", {"activation": f.name})]


# -- layers --------------------------------------------------------------------------------------------------


@singledispatch
def _layer(layer: Any, order: Orders) -> Described:
    """What Keras makes of a layer, its activation apart."""
    raise NotImplementedError(f"{type(layer).__name__} is not in the table")


@_layer.register(L.Residual)
@_layer.register(L.Concatenate)
def _(layer, order):
    return []  # their branches are entries of their own


@_layer.register
def _(layer: L.Activation, order):
    return _function(layer, layer.function)


@_layer.register
def _(layer: L.Dense, order):
    return [("Dense", {"units": layer.units, "activation": _fused(layer), "use_bias": layer.use_bias})]


@_layer.register
def _(layer: L.Conv2D, order):
    padding, before = _padding(layer)
    config = {
        "kernel_size": layer.kernel_size,
        "strides": layer.strides,
        "padding": padding,
        "dilation_rate": layer.dilation_rate,
        "activation": _fused(layer),
        "use_bias": layer.use_bias,
        "data_format": "channels_last",
    }
    if is_depthwise(layer):
        many = layer.filters // layer.in_shape[0]
        return [*before, ("DepthwiseConv2D", {"depth_multiplier": many} | config)]
    return [*before, ("Conv2D", {"filters": layer.filters, "groups": layer.groups} | config)]


@_layer.register
def _(layer: L.Conv2DTranspose, order):
    if layer.groups > 1:
        _fail(layer, f"groups={layer.groups}", "groups=1")
    config = {
        "filters": layer.filters,
        "kernel_size": layer.kernel_size,
        "strides": layer.strides,
        "dilation_rate": layer.dilation_rate,
        "activation": _fused(layer),
        "use_bias": layer.use_bias,
        "data_format": "channels_last",
    }
    if isinstance(layer.padding, str):
        return [
            ("Conv2DTranspose", config | {"padding": layer.padding, "output_padding": layer.output_padding})
        ]
    sides = []
    for axis in (0, 1):
        extent, stride = layer.window.extent[axis], layer.strides[axis]
        whole = (layer.in_shape[1 + axis] - 1) * stride + max(extent, stride)
        first = layer.padding[axis]
        sides.append((first, whole - first - layer.out_shape[1 + axis]))
    if min(last for _, last in sides) < 0:
        _fail(layer, f"output_padding={layer.output_padding}", "an output_padding of at most padding")
    cropped: Described = [("Cropping2D", {"cropping": sides})] if any(map(any, sides)) else []
    return [("Conv2DTranspose", config | {"padding": "valid"}), *cropped]


def _padding(layer) -> tuple[str, Described]:
    """The word for a layer's padding, and a border of zeros before it where there is none."""
    sides, (_, H, W) = layer.window.padding, layer.in_shape
    for word in ("valid", "same"):
        if sides == resolve_padding(word, layer.window, H, W):
            return word, []
    return "valid", [("ZeroPadding2D", {"padding": sides, "data_format": "channels_last"})]


@_layer.register(L.MaxPooling2D)
@_layer.register(L.AveragePooling2D)
def _(layer, order):
    kind = type(layer).__name__
    if layer.window.padding != layer.margin:
        _fail(layer, "ceil_mode=True, which reaches beyond the edge", "ceil_mode=False, or padding='same'")
    padding, before = _padding(layer)
    if kind == "AveragePooling2D" and padding == "same" and layer.counts_padding:
        border = {"padding": layer.margin, "data_format": "channels_last"}
        padding, before = "valid", [("ZeroPadding2D", border)]
    if before and (kind == "MaxPooling2D" or not layer.counts_padding):
        _fail(layer, f"padding={layer.padding}, whose border does not take part", "'valid' or 'same'")
    config = {"pool_size": layer.pool_size, "strides": layer.strides, "padding": padding}
    return [*before, (kind, config | {"data_format": "channels_last"})]


@_layer.register(L.GlobalAveragePooling2D)
@_layer.register(L.GlobalMaxPooling2D)
def _(layer, order):
    return [(type(layer).__name__, {"data_format": "channels_last"})]


@_layer.register
def _(layer: L.ZeroPadding2D, order):
    return [("ZeroPadding2D", {"padding": layer.sides, "data_format": "channels_last"})]


@_layer.register
def _(layer: L.UpSampling2D, order):
    config = {"size": layer.size, "interpolation": layer.interpolation, "data_format": "channels_last"}
    return [("UpSampling2D", config)]


TO_CHANNELS_FIRST = ("Permute", {"dims": (3, 1, 2)})
TO_CHANNELS_LAST = ("Permute", {"dims": (2, 3, 1)})


@_layer.register
def _(layer: L.Flatten, order):
    return [*_in_our_order(layer, order), ("Flatten", {"data_format": "channels_last"})]


@_layer.register
def _(layer: L.Reshape, order):
    if len(layer.out_shape) == 1:
        return [*_in_our_order(layer, order), ("Reshape", {"target_shape": layer.out_shape})]
    C, H, W = layer.out_shape
    known = order.before is not None or rows_columns_channels(layer.out_shape) is None
    if layer.in_shape == layer.out_shape or (len(layer.in_shape) == 1 and (layer.last or known)):
        return [("Reshape", {"target_shape": (H, W, C)})]
    return [*_in_our_order(layer, order), ("Reshape", {"target_shape": layer.out_shape}), TO_CHANNELS_LAST]


def _in_our_order(layer: L.Layer, order: Orders) -> Described:
    """The axes of a map put first that come first here, where no dense layer can make up for it."""
    if len(layer.in_shape) == 1 or order.after is not None or rows_columns_channels(layer.in_shape) is None:
        return []
    return [TO_CHANNELS_FIRST]


@_layer.register(L.Dropout)
@_layer.register(L.SpatialDropout2D)
def _(layer, order):
    # masks alone in training and a factor in inference: Keras's layer and the factor in both
    scaled: Described = (
        [("Rescaling", {"scale": 1 - layer.rate, "offset": 0.0})] if layer.scaling == "inference" else []
    )
    return [(type(layer).__name__, {"rate": layer.rate}), *scaled]


@_layer.register
def _(layer: L.BatchNormalization, order):
    return [("BatchNormalization", {"axis": -1, "momentum": layer.momentum, "epsilon": layer.epsilon})]


@_layer.register
def _(layer: L.LayerNormalization, order):
    whole = len(layer.in_shape) == 3 and layer.axis is None
    return [("LayerNormalization", {"axis": [-3, -2, -1] if whole else [-1], "epsilon": layer.epsilon})]


@_layer.register
def _(layer: L.GroupNormalization, order):
    return [("GroupNormalization", {"groups": layer.count, "axis": -1, "epsilon": layer.epsilon})]


@_layer.register
def _(layer: L.Normalization, order):
    return [("Normalization", {"axis": [-1]})]


@_layer.register
def _(layer: L.Rescaling, order):
    return [("Rescaling", {"scale": layer.scale, "offset": layer.offset})]
