"""ONNX's operators on arrays of any rank and type, for what no layer holds: volumes, integers, training.

Each is a function of Ops, the Node and its inputs, arrays of that Ops or None, and yields the outputs.  All
of an operator is here, as https://onnx.ai/onnx/operators has it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import activations
from .graph import Node, evaluate
from .readers import activation, divisors
from .windows import Sizes, Windows, transposed_windows, windows

Result = Any
NODES: dict[str, Callable[..., Result]] = {}


def computes(*operators: str):
    """Decorator: the function computes nodes of these operators."""

    def register(function: Callable[..., Result]) -> Callable[..., Result]:
        NODES.update(dict.fromkeys(operators, function))
        return function

    return register


# -- affine maps ---------------------------------------------------------------------------------------------


@computes("MatMul")
def matmul(ops, node: Node, a, b):
    return ops.xp.matmul(a, b)


@computes("Gemm")
def gemm(ops, node: Node, a, b, c=None):
    a, b = (a.T if node.get("transA", 0) else a), (b.T if node.get("transB", 0) else b)
    y = ops.xp.matmul(a, b) * _like(a, node.get("alpha", 1.0))
    return y if c is None else y + c * _like(c, node.get("beta", 1.0))


@computes("Conv")
def conv(ops, node: Node, x, W, bias=None):
    """x (N, C, sizes...), W (F, C/G, kernel...) -> y (N, F, out...): a matmul for every kernel element."""
    place, G = windows(node, W.shape[2:], x.shape[2:]), node.get("group", 1)
    N, F = len(x), len(W)
    seen, y = _bordered(ops, x, place, 0), 0
    for at, view in _views(seen, place):
        w = W[(..., *at)].reshape(G, F // G, -1)
        y = y + ops.xp.matmul(w, view.reshape(N, G, w.shape[2], -1))
    return _biased(y.reshape(N, F, *place.out), bias)  # type: ignore[attr-defined]


@computes("ConvTranspose")
def conv_transpose(ops, node: Node, x, W, bias=None):
    """x (N, C, sizes...), W (C, F/G, kernel...) -> y (N, F, out...): the adjoint of a convolution."""
    place, G = transposed_windows(node, W.shape[2:], x.shape[2:]), node.get("group", 1)
    N, F, sizes = len(x), W.shape[1] * G, x.shape[2:]
    full = [(n - 1) * s + e for n, s, e in zip(sizes, place.strides, place.extent)]
    y = ops.xp.zeros((N, F, *full), x.dtype)
    columns = x.reshape(N, G, x.shape[1] // G, -1)
    for at, view in _views(y, place._replace(out=sizes)):
        w = W[(..., *at)].reshape(G, -1, F // G)
        view += ops.xp.matmul(w.swapaxes(1, 2), columns).reshape(view.shape)
    cut = [(-before, -after) for before, after in place.padding]
    return _biased(_pad(ops.xp, y, [(0, 0), (0, 0), *cut], "constant", 0), bias)


def _biased(y, bias):
    return y if bias is None else y + bias.reshape(-1, *(1,) * (y.ndim - 2))


# -- windows -------------------------------------------------------------------------------------------------


@computes("MaxPool")
def max_pool(ops, node: Node, x):
    """The largest elements and, where asked for, their numbers in x, by rows or by columns of an image."""
    xp, sizes = ops.xp, x.shape[2:]
    place = windows(node, node.get("kernel_shape"), sizes)
    order = sizes[::-1] if node.get("storage_order", 0) else sizes
    numbers = xp.arange(math.prod(sizes)).reshape(order)
    numbers = numbers.T if node.get("storage_order", 0) else numbers
    places = _views(_bordered(ops, numbers[None, None], place, -1), place)
    best: Any = None
    number: Any = None
    for (_, view), (_, where) in zip(_views(_bordered(ops, x, place, _least(x.dtype)), place), places):
        if best is None:
            best, number = view, xp.broadcast_to(where, view.shape)
        else:
            larger = (view > best) | (number < 0)
            best, number = xp.where(larger, view, best), xp.where(larger, where, number)
    maps = xp.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(sizes))
    return best, number + maps * math.prod(sizes)


@computes("AveragePool")
def average_pool(ops, node: Node, x):
    place = windows(node, node.get("kernel_shape"), x.shape[2:])
    total = functools.reduce(ops.xp.add, (view for _, view in _views(_bordered(ops, x, place, 0), place)))
    counts = divisors(place, x.shape[2:], bool(node.get("count_include_pad", 0)))
    return total / ops.asarray(counts, x.dtype)


@computes("GlobalAveragePool", "GlobalMaxPool")
def global_pool(ops, node: Node, x):
    over = tuple(range(2, x.ndim))
    return (x.mean if node.op == "GlobalAveragePool" else x.max)(axis=over, keepdims=True)


def _bordered(ops, x, place: Windows, value):
    """x (N, C, sizes...) with a border of value wherever a window may look."""
    sides = []
    for n, (before, _), s, e, out in zip(x.shape[2:], place.padding, place.strides, place.extent, place.out):
        sides.append((before, max((out - 1) * s + e - before - n, 0)))
    return _pad(ops.xp, x, [(0, 0), (0, 0), *sides], "constant", value)


def _views(x, place: Windows) -> Iterator[tuple[Sizes, Any]]:
    """For each kernel element what of x (N, C, sizes...) lies under it: (N, C, out...)."""
    for at in np.ndindex(*place.kernel):
        steps = zip(at, place.dilations, place.strides, place.out)
        yield at, x[(..., *(slice(i * d, i * d + (out - 1) * s + 1, s) for i, d, s, out in steps))]


# -- normalization -------------------------------------------------------------------------------------------


@computes("BatchNormalization")
def batch_normalization(ops, node: Node, x, scale, bias, mean, var):
    """In training mode also the running statistics, momentum running + (1 - momentum) batch."""
    xp, epsilon, spread = ops.xp, node.get("epsilon", 1e-5), (slice(None), *(None,) * (x.ndim - 2))
    if not node.get("training_mode", 0):
        factor = scale / xp.sqrt(var + _like(var, epsilon))
        return x * factor[spread] + (bias - mean * factor)[spread]
    packed = ops.pack(x.reshape(*x.shape[:2], -1, 1), x.dtype)
    y, batch_mean, batch_var, _, _ = ops.batch_norm(packed, scale, bias, epsilon)
    keep = _like(x, node.get("momentum", 0.9))
    statistics = (keep * old + (1 - keep) * new for old, new in ((mean, batch_mean), (var, batch_var)))
    return (ops.unpack(y).reshape(x.shape), *statistics)


@computes("InstanceNormalization", "GroupNormalization")
def group_normalization(ops, node: Node, x, scale, bias):
    groups = node.get("num_groups", x.shape[1])
    y, _, _ = _normal(ops.xp, x.reshape(len(x), groups, -1), 2, node.get("epsilon", 1e-5))
    shape = (-1, *(1,) * (x.ndim - 2))
    scale, bias = (a.repeat(x.shape[1] // len(a)).reshape(shape) for a in (scale, bias))
    return y.reshape(x.shape) * scale + bias


@computes("LayerNormalization")
def layer_normalization(ops, node: Node, x, scale, bias=None):
    axes = tuple(range(node.get("axis", -1) % x.ndim, x.ndim))
    y, mean, slope = _normal(ops.xp, x, axes, node.get("epsilon", 1e-5))
    return (y * scale if bias is None else y * scale + bias), mean, slope


def _normal(xp, x, axes, epsilon):
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    slope = 1 / xp.sqrt((centred * centred).mean(axis=axes, keepdims=True) + _like(x, epsilon))
    return centred * slope, mean, slope


@computes("Dropout")
def dropout(ops, node: Node, x, ratio=None, training=None):
    """The mask is drawn as ONNX's reference draws it."""
    rate = node.get("ratio", 0.5) if ratio is None else float(ops.to_host(ratio))
    if training is None or not bool(ops.to_host(training)) or rate == 0:
        return x, ops.xp.ones(x.shape, bool)
    drawn = np.random.RandomState(node.get("seed")).uniform(0, 1.0, x.shape)
    mask = ops.asarray(drawn >= rate)
    return x * mask * _like(x, 1 / (1 - rate)), mask


# -- activations ---------------------------------------------------------------------------------------------


@computes("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "Softplus", "Gelu", "Swish")
def activate(ops, node: Node, x):
    function = activation(node)
    if function is not None:
        return ops.activate(x, function)[0]
    xp, alpha = ops.xp, _like(x, node.get("alpha"))  # of any size
    if node.op == "Swish":
        return x / (1 + xp.exp(-alpha * x))
    return xp.where(x < 0, alpha * (x if node.op == "LeakyRelu" else xp.expm1(x)), x)


@computes("Clip")
def clip(ops, node: Node, x, low=None, high=None):
    """Between the attributes min and max, or the inputs in their place; max where they cross."""
    low, high = node.get("min", low), node.get("max", high)
    x = x if low is None else ops.xp.maximum(x, _like(x, low))
    return x if high is None else ops.xp.minimum(x, _like(x, high))


@computes("HardSigmoid", "HardSwish")
def hard(ops, node: Node, x):
    alpha, beta = node.get("alpha", 0.2 if node.op == "HardSigmoid" else 1 / 6), node.get("beta", 0.5)
    y = (_like(x, alpha) * x + _like(x, beta)).clip(0, 1)
    return y if node.op == "HardSigmoid" else x * y


@computes("Selu", "Celu")
def scaled_elu(ops, node: Node, x):
    alpha, gamma = node.get("alpha", 1.6732632), node.get("gamma", 1.050701)
    if node.op == "Celu":
        alpha = gamma = node.get("alpha", 1.0)
        x = x / _like(x, alpha)
    y, _ = ops.activate(x, activations.ELU(alpha if node.op == "Selu" else 1.0))
    return y * _like(x, gamma)


@computes("Mish")
def mish(ops, node: Node, x):
    return x * ops.xp.tanh(ops.activate(x, activations.Softplus())[0])


@computes("Softsign")
def softsign(ops, node: Node, x):
    return x / (1 + ops.xp.abs(x))


@computes("ThresholdedRelu")
def thresholded_relu(ops, node: Node, x):
    return ops.xp.where(x > _like(x, node.get("alpha", 1.0)), x, _like(x, 0))


@computes("PRelu")
def prelu(ops, node: Node, x, slope):
    return ops.xp.where(x < 0, slope * x, x)


@computes("Softmax", "LogSoftmax")
def softmax(ops, node: Node, x):
    """Over one axis; before opset 13 over all axes from there on."""
    axis = node.get("axis", -1 if node.opset >= 13 else 1) % x.ndim
    stop = axis + 1 if node.opset >= 13 else x.ndim
    z = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:stop]), -1)
    function = activations.Softmax() if node.op == "Softmax" else activations.LogSoftmax()
    return ops.activate(z, function)[0].reshape(x.shape)


# -- arithmetic ----------------------------------------------------------------------------------------------


FOLDS = {
    "Add": "add", "Sum": "add", "Sub": "subtract", "Mul": "multiply", "Max": "maximum", "Min": "minimum",
}  # fmt: skip


@computes(*FOLDS)
def fold(ops, node: Node, *arrays):
    return functools.reduce(getattr(ops.xp, FOLDS[node.op]), arrays)


@computes("Div")
def divide(ops, node: Node, a, b):
    if a.dtype.kind == "f":
        return a / b
    towards_zero = ops.xp.abs(a) // ops.xp.abs(b) * (ops.xp.sign(a) * ops.xp.sign(b))
    return towards_zero.astype(a.dtype)


@computes("Neg")
def negate(ops, node: Node, x):
    return -x


@computes("Mean")
def mean(ops, node: Node, *arrays):
    return functools.reduce(ops.xp.add, arrays) / _like(arrays[0], len(arrays))


@computes("ReduceMean", "ReduceSum", "ReduceMax")
def reduce(ops, node: Node, x, axes=None):
    axes = node.get("axes", (), position=1)
    if not len(axes) and node.get("noop_with_empty_axes", 0):
        return x
    kept = bool(node.get("keepdims", 1))
    over = tuple(int(axis) % x.ndim for axis in axes) or tuple(range(x.ndim))
    if node.op != "ReduceMax":
        return (x.mean if node.op == "ReduceMean" else x.sum)(axis=over, keepdims=kept)
    if not x.size:  # the maximum of nothing
        x = _pad(ops.xp, x, [(0, int(axis in over)) for axis in range(x.ndim)], "constant", _least(x.dtype))
    return x.max(axis=over, keepdims=kept)


# -- shapes --------------------------------------------------------------------------------------------------


@computes("Identity")
def identity(ops, node: Node, x):
    return x


@computes("Constant")
def constant(ops, node: Node):
    """Any of the attributes in which a constant may stand."""
    (array,) = evaluate(node.proto, {}, {"": node.opset})
    return ops.asarray(array)


@computes("Concat")
def concat(ops, node: Node, *arrays):
    return ops.xp.concatenate(arrays, axis=node.get("axis"))


@computes("Flatten")
def flatten(ops, node: Node, x):
    axis = node.get("axis", 1)
    axis += x.ndim * (axis < 0)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@computes("Reshape")
def reshape(ops, node: Node, x, shape=None):
    """A 0 keeps the size that x has there, unless allowzero."""
    target = [int(n) for n in node.get("shape", position=1)]
    if not node.get("allowzero", 0):
        target = [n or x.shape[i] for i, n in enumerate(target)]
    return x.reshape(target)


@computes("Squeeze")
def squeeze(ops, node: Node, x, axes=None):
    axes = node.get("axes", position=1)
    return x.squeeze() if axes is None else x.squeeze(tuple(int(axis) for axis in axes))


@computes("Unsqueeze")
def unsqueeze(ops, node: Node, x, axes=None):
    axes = [int(axis) for axis in node.get("axes", position=1)]
    rank = x.ndim + len(axes)
    added = {axis % rank for axis in axes}
    sizes = iter(x.shape)
    return x.reshape([1 if axis in added else next(sizes) for axis in range(rank)])


@computes("Transpose")
def transpose(ops, node: Node, x):
    return x.transpose(node.get("perm"))


@computes("Pad")
def pad(ops, node: Node, x, pads=None, value=None, axes=None):
    pads = np.ravel(node.get("pads", position=1)).tolist()
    sides = [(0, 0)] * x.ndim
    for i, axis in enumerate(node.get("axes", range(x.ndim), position=3)):
        sides[int(axis)] = (int(pads[i]), int(pads[i + len(pads) // 2]))
    value = np.ravel(node.get("value", 0, position=2))[0]
    return _pad(ops.xp, x, sides, node.get("mode", "constant"), value)


def _pad(xp, x, sides, mode: str, value):
    """x with (before, after) elements more along each axis, or fewer where these are negative."""
    kept = tuple(slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape, sides))
    added = [(max(before, 0), max(after, 0)) for before, after in sides]
    given = {"constant_values": value} if mode == "constant" else {}
    return xp.pad(x[kept], added, mode=mode, **given)


def _like(a, value):
    """A number of a's type, so that float32 stays that."""
    return a.dtype.type(value)


def _least(dtype) -> Any:
    """The smallest number of a type."""
    if dtype.kind == "f":
        return -math.inf
    return False if dtype.kind == "b" else np.iinfo(dtype).min
