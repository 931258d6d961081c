"""ONNX's operators as layers: how a node with one data input is read, by its operator.

A reader appends what the node computes to a Flow.  https://onnx.ai/onnx/operators
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from ... import activations
from ...layers import (
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    GroupNormalization,
    LayerNormalization,
    MaxPooling2D,
    UpSampling2D,
    ZeroPadding2D,
)  # fmt: skip
from .flow import Flow, ordered
from .graph import Node, OnnxError
from .windows import Windows, transposed_windows, windows

Reader = Callable[[Flow, Node], None]
READERS: dict[str, Reader] = {}
LEAST = np.finfo(np.float32).min  # the border of a maximum may be this, too


def reads(*operators: str):
    """Decorator: the function reads nodes of these operators."""

    def register(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(operators, reader))
        return reader

    return register


def read(flow: Flow, node: Node) -> None:
    """Append what the node computes to the flow."""
    try:
        READERS[node.op](flow, node)
    except OnnxError:
        raise
    except ValueError as error:  # what a layer does not take
        node.fail(f"cannot be a layer: {error}", "numbers in the layer's range")


# -- affine maps ---------------------------------------------------------------------------------------------


@reads("Gemm")
def gemm(flow: Flow, node: Node) -> None:
    """alpha A' B' + beta C, where A or B is the data, and A' may be A transposed, B' likewise."""
    side = _data_side(node)
    turned = node.get("transA", 0), node.get("transB", 0)
    W = _times(node.constant(1 - side, "matrix"), node.get("alpha", 1.0))
    W = W if turned[1 - side] == 1 - side else W.T
    bias = None
    if len(node.inputs) > 2 and node.proto.input[2]:
        bias = _without_samples(node, _times(node.constant(2, "bias"), node.get("beta", 1.0)), 2, side)
    _dense(flow, node, W, bias, side, flow.axis ^ turned[side])


@reads("MatMul")
def matmul(flow: Flow, node: Node) -> None:
    side = _data_side(node)
    W = node.constant(1 - side, "matrix")
    if W.ndim != 2:
        node.fail(f"multiplies by an array of {W.shape}", "a matrix")
    _dense(flow, node, W if side else W.T, None, side, flow.axis)


def _dense(flow: Flow, node: Node, W, bias, side: int, axis: int) -> None:
    """W (O, I) applied to vectors, rows (N, I) on the left side or columns (I, N) on the right, or to the
    pixels of images (N, H, W, I).
    """
    O, I = W.shape
    bias = None if bias is None else np.broadcast_to(bias, O).copy()
    last = flow.index.shape[-1] if flow.index.ndim else 1
    if axis == side and flow.index.size == I == last:
        flow.as_vector()
        weight = W
        if not ordered(flow.index):
            weight = np.empty_like(W)
            weight[:, flow.index.ravel()] = W
        flow.axis = side
        flow.add(node, Dense(O, use_bias=bias is not None), weight=weight, bias=bias)
    elif axis == side == 0 and flow.index.ndim == 3 and last == I and flow.feature_axis(3):
        back = _to_map(flow, node)
        flow.add(node, Conv2D(O, 1, use_bias=bias is not None), weight=W[:, :, None, None], bias=bias)
        flow.index = np.arange(flow.index.size).reshape(flow.shape).transpose(back)
    else:
        node.fail(
            f"does not fit its input. Received: {node.in_sizes} and a matrix for {I} features",
            "vectors (N, D) of as many features as the matrix has; for images a Flatten before it",
        )


@reads("Conv")
def conv(flow: Flow, node: Node) -> None:
    flow.as_map(node)
    W, bias = node.constant(1, "weight"), _optional(node, 2)
    groups = node.get("group", 1)
    if W.ndim != len(node.in_sizes) or W.shape[1] * groups != flow.shape[0]:
        node.fail(
            f"the weight {W.shape} with group={groups} does not fit an input {node.in_sizes}",
            f"a weight (F, {flow.shape[0]} / group, kernel ...)",
        )
    place = windows(node, W.shape[2:], node.in_sizes[2:]).in_plane()
    W = W.reshape(*W.shape[:2], *place.kernel)
    place = _with_border(flow, place)

    def layer(padding):
        given = len(W), place.kernel, place.strides, padding, place.dilations, groups
        return Conv2D(*given, use_bias=bias is not None)

    made = _padded(flow, node, place, layer)
    if made is None:
        flow.keep(ZeroPadding2D(place.padding))
        flow.shape = _bordered(flow.shape, place.padding)
        made = layer("valid")
    flow.add(node, made, weight=W, bias=bias)


@reads("ConvTranspose")
def conv_transpose(flow: Flow, node: Node) -> None:
    flow.as_map(node)
    W, bias = node.constant(1, "weight"), _optional(node, 2)
    groups = node.get("group", 1)
    if W.ndim != len(node.in_sizes) or W.shape[0] != flow.shape[0]:
        node.fail(
            f"the weight {W.shape} does not fit an input {node.in_sizes}",
            f"a weight ({flow.shape[0]}, F / group, kernel ...)",
        )
    place = transposed_windows(node, W.shape[2:], node.in_sizes[2:]).in_plane()
    W = W.reshape(*W.shape[:2], *place.kernel)
    extra = tuple(first - last for first, last in place.padding)

    def layer(padding):
        more = extra if isinstance(padding, tuple) and any(extra) else None
        given = {"dilation_rate": place.dilations, "groups": groups, "use_bias": bias is not None}
        return Conv2DTranspose(W.shape[1] * groups, place.kernel, place.strides, padding, more, **given)

    made = _padded(flow, node, place, layer)
    if made is None:
        node.fail(
            f"cuts {place.padding} off its output (negative: adds)",
            "as much at the beginning and the end of an axis, but for output_padding below the strides",
        )
    flow.add(node, made, weight=W, bias=bias)


# -- windows -------------------------------------------------------------------------------------------------


@reads("MaxPool", "AveragePool")
def pool(flow: Flow, node: Node) -> None:
    """A pooling with the same first windows and as many of them, and of a mean the same divisors."""
    flow.as_map(node)
    place = windows(node, node.get("kernel_shape"), node.in_sizes[2:]).in_plane()
    if max(place.dilations) > 1:
        node.fail(f"has dilations {place.dilations}", "a pooling without; a Conv may be dilated")
    if flow.border is not None:
        place, flow.border = _widened(place, flow.border), None
    mean = node.op == "AveragePool"
    counted = bool(node.get("count_include_pad", 0))
    wanted = 1 / divisors(place, flow.shape[1:], counted) if mean else None

    def layer(padding, ceil_mode):
        given = {"count_include_pad": counted} if mean and any(map(any, place.padding)) else {}
        kind: Any = AveragePooling2D if mean else MaxPooling2D
        return kind(place.kernel, place.strides, padding, ceil_mode, **given)

    ceil = bool(node.get("ceil_mode", 0))
    for mode in (ceil, not ceil):
        made = _padded(flow, node, place, functools.partial(layer, ceil_mode=mode))
        if made is not None and (wanted is None or np.allclose(_shares(made), wanted)):
            break
    else:
        if wanted is None or not counted:
            node.fail(
                f"pads by {place.padding} around windows {place.kernel}",
                "as much on both sides, at most half the window, or auto_pad=SAME_UPPER, or ceil_mode",
            )
        flow.keep(ZeroPadding2D(place.padding))
        flow.shape, made = _bordered(flow.shape, place.padding), layer("valid", ceil)
    flow.add(node, made)


def _padded(flow: Flow, node: Node, place: Windows, make: Callable[[Any], Any]) -> Any:
    """The layer, made with the padding that puts its windows in this place; None where none does."""
    before = tuple(first for first, _ in place.padding)
    same = node.get("auto_pad", "NOTSET") == "SAME_UPPER"
    for padding in ("same", before) if same else ("valid", before, "same"):
        try:
            layer = make(padding)
            out_shape = flow.built(node, layer)
        except ValueError:
            continue
        if out_shape[1:] == place.out and tuple(first for first, _ in layer.window.padding) == before:
            return layer
    return None


def _shares(pooling: AveragePooling2D) -> np.ndarray:
    """What one element of each window weighs: a number, or (OH, OW) of them."""
    share = np.asarray(pooling.share)
    return share[:, 0, :, 0] if share.ndim else share


def _with_border(flow: Flow, place: Windows) -> Windows:
    """The windows with the zeros that the layer before puts around the map as padding of their own; that
    layer goes.
    """
    if not flow.layers or not isinstance(flow.layers[-1], ZeroPadding2D):
        return place
    sides = flow.layers.pop().sides  # type: ignore[attr-defined]
    flow.shape = _bordered(flow.shape, [(-before, -after) for before, after in sides])
    return _widened(place, sides)


def _widened(place: Windows, sides) -> Windows:
    """The windows with a border as padding of their own."""
    return place._replace(padding=tuple((a + c, b + d) for (a, b), (c, d) in zip(place.padding, sides)))


def _bordered(shape, sides):
    (top, bottom), (left, right) = sides
    return shape[0], top + shape[1] + bottom, left + shape[2] + right


def divisors(place: Windows, sizes, counted: bool) -> np.ndarray:
    """How many elements each window's mean is of, an array of shape place.out; counted: padding too."""
    along = []
    for size, kernel, stride, step, (before, after), out in zip(sizes, *place):
        elements = np.arange(out)[:, None] * stride + np.arange(kernel) * step - before
        low, high = (-before, size + after) if counted else (0, size)
        along.append(((elements >= low) & (elements < high)).sum(axis=1))
    return functools.reduce(np.multiply.outer, along)


@reads("GlobalAveragePool", "GlobalMaxPool")
def global_pool(flow: Flow, node: Node) -> None:
    flow.as_map(node)
    flow.add(node, GlobalAveragePooling2D() if node.op == "GlobalAveragePool" else GlobalMaxPooling2D())


@reads("ReduceMean", "ReduceMax")
def reduce(flow: Flow, node: Node) -> None:
    """A global pooling, written as the mean or the maximum over rows and columns."""
    rank = len(node.in_sizes)
    axes = node.get("axes", position=1)
    over = set() if axes is None else {int(axis) % rank for axis in np.ravel(axes)}
    kept = [axis for axis in range(1, rank) if axis not in over]
    if flow.axis or 0 in over or len(kept) != 1 or rank < 3:
        node.fail(
            f"reduces axes {sorted(over) or 'all'} of {node.in_sizes}",
            "the rows and columns of images, as GlobalAveragePool does",
        )
    flow.index = np.moveaxis(flow.index, kept[0] - 1, 0)
    flow.as_map(node)
    flow.add(node, GlobalAveragePooling2D() if node.op == "ReduceMean" else GlobalMaxPooling2D())


@reads("Pad")
def pad(flow: Flow, node: Node) -> None:
    pads, rank = np.ravel(node.get("pads", position=1)).tolist(), len(node.in_sizes)
    axes = node.get("axes", range(rank), position=3)
    sides = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        sides[int(axis) % rank] = (int(pads[i]), int(pads[i + len(pads) // 2]))
    value = node.get("value", 0.0, position=2)
    if not any(map(any, sides)):
        return
    mode = node.get("mode", "constant")
    unseen = mode == "edge" or (mode == "constant" and np.all(value <= LEAST))  # by a MaxPool
    if (not unseen and (mode != "constant" or np.any(value))) or min(map(min, sides)) < 0:
        node.fail(f"pads by {sides} in mode {mode!r}, value {value}", "a border of zeros")
    back = _to_map(flow, node)
    samples, *sides = sides if rank == 4 else [*sides[:2], (0, 0), *sides[2:]]
    sides = [sides[axis] for axis in np.argsort(back)] if rank == 4 else sides
    if any(samples) or any(sides[0]):
        node.fail(
            f"pads the samples by {samples}, the channels by {sides[0]}", "a border of rows and columns"
        )
    if unseen:
        flow.border = tuple(sides[1:])
        return
    shape = _bordered(flow.shape, sides[1:])
    flow.keep(ZeroPadding2D(tuple(sides[1:])))
    flow.shape = shape
    flow.index = np.arange(np.prod(shape)).reshape(shape).transpose(back).reshape(node.out_sizes[1:])


@reads("Resize", "Upsample")
def resize(flow: Flow, node: Node) -> None:
    flow.as_map(node)
    times = [o / i for o, i in zip(node.out_sizes[1:], flow.shape)]
    mode, place = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.get("nearest_mode", "round_prefer_floor")
    if node.op == "Upsample":
        place, rounding = "asymmetric", "floor"
    repeats = {
        "nearest": (place in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round"))
        or (place in ("asymmetric", "tf_half_pixel_for_nn") and rounding == "floor"),
        "linear": place in ("half_pixel", "pytorch_half_pixel"),
    }
    if not repeats.get(mode) or len(times) != 3 or times[0] != 1 or any(t != int(t) or t < 1 for t in times):
        node.fail(
            f"resizes {node.in_sizes} to {node.out_sizes} by mode={mode!r}, coordinate_transformation_mode="
            f"{place!r}, nearest_mode={rounding!r}",
            "rows and columns a whole number of times as many, nearest or linear between pixel centres",
        )
    size = int(times[1]), int(times[2])
    flow.add(node, UpSampling2D(size, "bilinear" if mode == "linear" else "nearest"))


# -- normalization -------------------------------------------------------------------------------------------


@reads("BatchNormalization")
def batch_normalization(flow: Flow, node: Node) -> None:
    if node.get("training_mode", 0) or (node.opset < 14 and len(node.outputs) > 1):
        node.fail("is in training mode", "a graph exported for inference")
    names = ("weight", "bias", "running_mean", "running_var")
    given = dict(zip(names, (node.constant(i, name) for i, name in enumerate(names, 1))))
    weights = {name: _by_channel(flow, node, a, name) for name, a in given.items()}
    momentum, epsilon = number(node.get("momentum", 0.9)), number(node.get("epsilon", 1e-5))
    flow.hold(node, BatchNormalization(momentum, epsilon), **weights)


@reads("InstanceNormalization", "GroupNormalization")
def group_normalization(flow: Flow, node: Node) -> None:
    """Groups of channels; instance normalization has one a channel, also where an exporter wrote groups as
    its channels.
    """
    weight, bias = node.constant(1, "scale"), node.constant(2, "bias")
    C = flow.shape[0]
    groups = node.get("num_groups", node.in_sizes[1])
    fits = C % groups == 0 and weight.shape == bias.shape and weight.shape in ((C,), (groups,))
    if flow.axis or flow.index.ndim < 2 or not fits or not ordered(flow.index):
        node.fail(
            f"does not fit {node.in_sizes}: {groups} groups, a scale {weight.shape} and a bias {bias.shape}",
            "images (N, C, H, W), a divisor of C, and numbers for every channel (or group)",
        )
    given = {name: np.repeat(a, C // len(a)) for name, a in (("weight", weight), ("bias", bias))}
    epsilon = number(node.get("epsilon", 1e-5))
    flow.hold(node, GroupNormalization(-1 if groups == C else groups, epsilon), **given)


@reads("LayerNormalization")
def layer_normalization(flow: Flow, node: Node) -> None:
    rank = len(node.in_sizes)
    first = node.get("axis", -1) % rank
    if flow.axis or first == 0:
        node.fail(f"normalises {node.in_sizes} from axis {first}", "axes behind the samples")
    weight, bias = node.constant(1, "scale"), _optional(node, 2)
    bias = np.zeros_like(weight) if bias is None else bias
    epsilon = number(node.get("epsilon", 1e-5))
    if first == 1:
        given = {"weight": _everywhere(flow, weight), "bias": _everywhere(flow, bias)}
        flow.hold(node, LayerNormalization(epsilon), **given)
    elif first == rank - 1 and flow.feature_axis(first):
        features = {"weight": flow.by_feature(weight), "bias": flow.by_feature(bias)}
        flow.hold(node, LayerNormalization(epsilon, axis="channels"), **features)
    else:
        node.fail(f"normalises {node.in_sizes} from axis {first}", "all axes but the samples', or channels")


def _everywhere(flow: Flow, values) -> np.ndarray:
    """Numbers for the value's elements as those of the layers' output."""
    flat = np.empty(flow.index.size, values.dtype)
    flat[flow.index.ravel()] = np.broadcast_to(values, flow.index.shape).ravel()
    return flat.reshape(flow.shape)


def _by_channel(flow: Flow, node: Node, values, what: str) -> np.ndarray:
    """Numbers for ONNX's channels, axis 1, as those of the layers' features or channels."""
    C = node.in_sizes[1] if len(node.in_sizes) > 1 else 0
    if values.shape != (C,) or not flow.feature_axis(1):
        node.fail(f"{what} {values.shape} does not fit {node.in_sizes}", f"({C},), and channels on axis 1")
    found = flow.by_feature(values.reshape(-1, *(1,) * (flow.index.ndim - 1)))
    assert found is not None  # the axis runs over the channels
    return found.astype(values.dtype)


# -- activations ---------------------------------------------------------------------------------------------


PLAIN = {
    "Relu": activations.ReLU, "Sigmoid": activations.Sigmoid, "Tanh": activations.Tanh,
    "Softplus": activations.Softplus,
}  # fmt: skip


def activation(node: Node) -> activations.ActivationFunction | None:
    """The element-wise activation function that a node is, or None."""
    if node.op in PLAIN:
        return PLAIN[node.op]()
    if node.op == "LeakyRelu" and 0 <= (slope := number(node.get("alpha", 0.01))) < 1:
        return activations.LeakyReLU(slope) if slope else activations.ReLU()
    if node.op == "Elu" and (alpha := number(node.get("alpha", 1.0))) > 0:
        return activations.ELU(alpha)
    if node.op == "Gelu":
        return activations.GELU(node.get("approximate", "none") == "tanh")
    if node.op == "Swish" and node.get("alpha", 1.0) == 1:
        return activations.SiLU()
    return None


@reads(*PLAIN, "LeakyRelu", "Elu", "Gelu", "Swish")
def activate(flow: Flow, node: Node) -> None:
    function = activation(node)
    if function is None:
        node.fail(
            f"has alpha={node.get('alpha')}", "from 0 to below 1 for LeakyRelu, above 0 for Elu, 1 for Swish"
        )
    flow.activate(function)


@reads("PRelu")
def prelu(flow: Flow, node: Node) -> None:
    slope = np.unique(node.constant(1, "slope"))
    if len(slope) != 1 or not 0 < slope[0] < 1:
        node.fail(f"has slopes {slope[:4].tolist()}", "one slope between 0 and 1, as LeakyRelu has")
    flow.activate(activations.LeakyReLU(number(slope[0])))


@reads("Clip")
def clip(flow: Flow, node: Node) -> None:
    low, high = node.get("min", -np.inf, position=1), node.get("max", np.inf, position=2)
    _bound(flow, node, float(low), float(high))


@reads("HardSigmoid")
def hard_sigmoid(flow: Flow, node: Node) -> None:
    flow.scale(node, node.get("alpha", 0.2), node.get("beta", 0.5))
    _bound(flow, node, 0.0, 1.0)


@reads("Max", "Min")
def bound(flow: Flow, node: Node) -> None:
    """The larger, or the smaller, of the data and a number."""
    numbers = [c for c in node.constants if c is not None]
    if any(c.size != 1 for c in numbers):
        node.fail("has bounds that differ from element to element", "one number")
    if numbers and node.op == "Max":
        _bound(flow, node, max(c.item() for c in numbers), np.inf)
    elif numbers:
        _bound(flow, node, -np.inf, min(c.item() for c in numbers))


def _bound(flow: Flow, node: Node, low: float, high: float) -> None:
    """By ReLU: at least low, low + relu(x - low), and at most high, high - relu(high - x)."""
    shift = 0.0
    if low > -np.inf:
        flow.scale(node, 1.0, -low)
        flow.activate(activations.ReLU())
        shift = low
    if high < np.inf:
        flow.scale(node, -1.0, high - shift)
        flow.activate(activations.ReLU())
        flow.scale(node, -1.0, high)
    else:
        flow.scale(node, 1.0, shift)


@reads("Selu", "Celu")
def scaled_elu(flow: Flow, node: Node) -> None:
    """gamma elu(x), and alpha elu(x / alpha)."""
    if node.op == "Selu":
        alpha, gamma = node.get("alpha", 1.6732632), node.get("gamma", 1.050701)
        flow.activate(activations.ELU(alpha))
        flow.scale(node, gamma, 0.0)
    else:
        alpha = node.get("alpha", 1.0)
        flow.scale(node, 1 / alpha, 0.0)
        flow.activate(activations.ELU())
        flow.scale(node, alpha, 0.0)


@reads("Softmax", "LogSoftmax")
def softmax(flow: Flow, node: Node) -> None:
    axis = node.get("axis", -1 if node.opset >= 13 else 1) % len(node.in_sizes)
    old = node.opset < 13 and flow.index.shape[axis - 1] != flow.index.size  # over all axes behind, too
    if old or not flow.feature_axis(axis):
        node.fail(f"is over axis {axis} of {node.in_sizes}", "the features of vectors or channels of images")
    flow.activate(activations.Softmax() if node.op == "Softmax" else activations.LogSoftmax())


@reads("Dropout")
def dropout(flow: Flow, node: Node) -> None:
    if np.any(node.get("training_mode", False, position=2)):
        node.fail("is in training mode", "a graph exported for inference")
    flow.keep(Dropout(number(node.get("ratio", 0.5, position=1))))


# -- numbers and places --------------------------------------------------------------------------------------


@reads("Add", "Sub", "Mul", "Div", "Neg")
def arithmetic(flow: Flow, node: Node) -> None:
    """With constants: a bias, or another scale."""
    if node.op == "Neg":
        return flow.scale(node, -1.0, 0.0)
    side = _data_side(node)
    if node.opset < 7 and node.get("broadcast", 0):
        node.fail("broadcasts as before opset 7", "a newer opset; onnx.version_converter may help")
    c = _without_samples(node, node.constant(1 - side, "other operand"), len(node.in_sizes), flow.axis)
    c = c.astype(np.float64)
    if np.broadcast_shapes(c.shape, flow.index.shape) != flow.index.shape:
        node.fail(f"spreads {node.in_sizes} over {c.shape}", "a constant no larger than one sample")
    if node.op == "Add":
        flow.scale(node, 1.0, c)
    elif node.op == "Mul":
        flow.scale(node, c, 0.0)
    elif node.op == "Sub":
        flow.scale(node, *((-1.0, c) if side else (1.0, -c)))
    elif side or not c.all():
        node.fail("divides by the data, or by zero", "a division by numbers")
    else:
        flow.scale(node, 1 / c, 0.0)


@reads("Sum", "Concat", "Mean")
def alone(flow: Flow, node: Node) -> None:
    """Of one value it is that value."""
    if len(node.inputs) > 1:
        node.fail("joins the data with a constant", "the data alone, or Add with a constant")


@reads("Cast")
def cast(flow: Flow, node: Node) -> None:
    if node.get("to") not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
        kind = onnx.helper.tensor_dtype_to_string(node.get("to")).removeprefix("TensorProto.")
        node.fail(f"turns the data into {kind}", "floating-point numbers throughout")


@reads("Transpose")
def transpose(flow: Flow, node: Node) -> None:
    perm = list(node.get("perm", range(len(node.in_sizes))[::-1]))
    index = np.expand_dims(flow.index, flow.axis).transpose(perm)
    flow.axis = perm.index(flow.axis)
    flow.index = index.squeeze(flow.axis)


@reads("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(flow: Flow, node: Node) -> None:
    sizes = node.out_sizes
    axes = node.get("axes", position=1) if node.op in ("Squeeze", "Unsqueeze") else None
    first = axes is not None and 0 in np.ravel(axes) % max(len(sizes), len(node.in_sizes))
    if not sizes or flow.axis or first or sizes[0] != node.in_sizes[0]:
        node.fail(
            f"does not keep the samples apart. Received: {node.in_sizes} to {sizes or 'an unknown shape'}",
            "the number of samples as the first axis of both",
        )
    flow.index = flow.index.reshape(sizes[1:])


def _to_map(flow: Flow, node: Node) -> tuple[int, ...]:
    """See that the layers yield a map; how its axes (C, H, W) stand in the value, where they may be in any
    order.
    """
    if flow.index.ndim == 3:
        for perm in itertools.permutations(range(3)):
            moved = flow.index.transpose(perm)
            if moved.shape == flow.shape and ordered(moved):
                return tuple(np.argsort(perm))
    flow.as_map(node)
    return (0, 1, 2)


# -- arguments -----------------------------------------------------------------------------------------------


def number(value) -> float:
    """A float32 attribute as the shortest decimal that it is: 0.2, not 0.20000000298023224."""
    return float(str(np.float32(value)))


def _times(a: np.ndarray, factor: float) -> np.ndarray:
    return a if factor == 1 else a * factor


def _data_side(node: Node) -> int:
    """Which of two operands is the data."""
    sides = [i for i in (0, 1) if node.inputs[i] is not None]
    if len(sides) != 1:
        node.fail("joins two values of the data", "a constant operand; only Add and Concat join branches")
    return sides[0]


def _optional(node: Node, position: int) -> np.ndarray | None:
    if position < len(node.proto.input) and node.proto.input[position]:
        return node.constant(position, node.proto.input[position])
    return None


def _without_samples(node: Node, array: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """A constant that meets a value of this rank, without the samples' axis, along which it is alike."""
    array = array.reshape((1,) * (rank - array.ndim) + array.shape)
    if array.ndim > rank or array.shape[axis] != 1:
        node.fail(f"has a constant {array.shape} with numbers for every sample", "the same for all samples")
    return array.squeeze(axis)
