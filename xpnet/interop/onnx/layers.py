"""Every layer in ONNX's operators, as it computes in inference.  Maps are (N, C, H, W), vectors (N, D).

https://onnx.ai/onnx/operators
"""

from __future__ import annotations

import math

import numpy as np

from ... import activations as A
from ... import layers as L
from ...layers.scale import EPSILON
from .writer import Writer, register_exporter


@register_exporter(L.Dense)
def dense(layer, x: str, to: Writer) -> str:
    return to.node("Gemm", x, *_weight_and_bias(to), transB=1)


@register_exporter(L.Conv2D)
def conv(layer, x: str, to: Writer) -> str:
    window = layer.window
    return to.node(
        "Conv",
        x,
        *_weight_and_bias(to),
        kernel_shape=window.kernel,
        strides=window.strides,
        dilations=window.dilation,
        pads=_pads(window.padding),
        group=layer.groups,
    )


@register_exporter(L.Conv2DTranspose)
def conv_transpose(layer, x: str, to: Writer) -> str:
    """A cut that is smaller at the end than at the beginning is written as output_padding, as in PyTorch."""
    window, sides, more = layer.window, [], []
    for size, out, extent, stride, (first, _) in zip(
        layer.in_shape[1:], layer.out_shape[1:], window.extent, window.strides, window.padding
    ):
        last = (size - 1) * stride + extent - first - out
        longer = first - last if 0 < first - last < stride else 0
        sides.append((first, last + longer))
        more.append(longer)
    return to.node(
        "ConvTranspose",
        x,
        *_weight_and_bias(to),
        kernel_shape=window.kernel,
        strides=window.strides,
        dilations=window.dilation,
        pads=_pads(sides),
        output_padding=more,
        group=layer.groups,
    )


@register_exporter(L.UpSampling2D)
def up_sampling(layer, x: str, to: Writer) -> str:
    scales = to.constant("scales", np.array([1, 1, *layer.size], np.float32))
    if layer.interpolation == "bilinear":
        return to.node("Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
    asymmetric = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return to.node("Resize", x, "", scales, mode="nearest", **asymmetric)


@register_exporter(L.ZeroPadding2D)
def zero_padding(layer, x: str, to: Writer) -> str:
    return _pad(x, layer.sides, to)


@register_exporter(L.MaxPooling2D)
def max_pooling(layer, x: str, to: Writer) -> str:
    return to.node(
        "MaxPool",
        x,
        kernel_shape=layer.window.kernel,
        strides=layer.window.strides,
        pads=_pads(layer.window.padding),
    )


@register_exporter(L.AveragePooling2D)
def average_pooling(layer, x: str, to: Writer) -> str:
    """Padding that counts and padding that does not are apart: what ceil_mode adds never counts, and comes as
    padding at the end, since runtimes disagree on ceil_mode itself.
    """
    sides, counts = layer.window.padding, layer.counts_padding
    if counts and sides != layer.margin:
        x = _pad(x, layer.margin, to)
        sides = [(0, after - margin) for (_, after), (_, margin) in zip(sides, layer.margin)]
        counts = False
    return to.node(
        "AveragePool",
        x,
        kernel_shape=layer.window.kernel,
        strides=layer.window.strides,
        pads=_pads(sides),
        count_include_pad=int(counts),
    )


@register_exporter(L.GlobalAveragePooling2D, L.GlobalMaxPooling2D)
def global_pooling(layer, x: str, to: Writer) -> str:
    op = "GlobalMaxPool" if isinstance(layer, L.GlobalMaxPooling2D) else "GlobalAveragePool"
    return to.node("Flatten", to.node(op, x))


@register_exporter(L.BatchNormalization)
def batch_normalization(layer, x: str, to: Writer) -> str:
    weights = map(to.weight, ("weight", "bias", "running_mean", "running_var"))
    return to.node("BatchNormalization", x, *weights, epsilon=layer.epsilon)


@register_exporter(L.LayerNormalization)
def layer_normalization(layer, x: str, to: Writer) -> str:
    weights = to.weight("weight"), to.weight("bias")
    if layer.axis != "channels" or len(layer.in_shape) == 1:
        return to.node("LayerNormalization", x, *weights, axis=1, epsilon=layer.epsilon)
    last = to.node("Transpose", x, perm=(0, 2, 3, 1))
    y = to.node("LayerNormalization", last, *weights, axis=-1, epsilon=layer.epsilon)
    return to.node("Transpose", y, perm=(0, 3, 1, 2))


@register_exporter(L.GroupNormalization)
def group_normalization(layer, x: str, to: Writer) -> str:
    """As PyTorch writes it: ONNX defines GroupNormalization by E[x^2] - E[x]^2, which loses digits."""
    G, weight, bias = layer.count, to.weight("weight"), to.weight("bias")
    if len(layer.in_shape) == 3 and layer.in_shape[0] == G:
        return to.node("InstanceNormalization", x, weight, bias, epsilon=layer.epsilon)
    groups = to.node("Reshape", x, to.constant("groups", [0, G, -1]))
    ones, zeros = to.constant("ones", np.ones(G)), to.constant("zeros", np.zeros(G))
    xhat = to.node("InstanceNormalization", groups, ones, zeros, epsilon=layer.epsilon)
    scaled = to.node("Mul", _reshape(xhat, layer.in_shape, to), _spread(weight, layer.in_shape, to))
    return to.node("Add", scaled, _spread(bias, layer.in_shape, to))


@register_exporter(L.Normalization)
def normalization(layer, x: str, to: Writer) -> str:
    """Subtracted first: as a BatchNormalization, which multiplies first, it would lose digits."""
    spread = (-1, *(1,) * (len(layer.in_shape) - 1))
    mean = to.value("running_mean").reshape(spread)
    deviation = np.maximum(np.sqrt(to.value("running_var")), EPSILON).reshape(spread)
    centred = to.node("Sub", x, to.constant("mean", mean))
    return to.node("Div", centred, to.constant("deviation", deviation))


@register_exporter(L.Dropout)
def dropout(layer, x: str, to: Writer) -> str:
    if layer.scaling == "train" or layer.rate == 0:
        return x
    return to.node("Mul", x, to.constant("kept", 1.0 - layer.rate))


@register_exporter(L.Rescaling)
def rescaling(layer, x: str, to: Writer) -> str:
    y = to.node("Mul", x, to.constant("scale", layer.scale))
    return to.node("Add", y, to.constant("offset", layer.offset)) if layer.offset else y


@register_exporter(L.Flatten)
def flatten(layer, x: str, to: Writer) -> str:
    return x if len(layer.in_shape) == 1 else to.node("Flatten", x)


@register_exporter(L.Reshape)
def reshape(layer, x: str, to: Writer) -> str:
    if layer.in_shape == layer.out_shape:
        return x
    if layer.last and len(layer.in_shape) == 1:  # a vector is read in the user's order, (H, W, C)
        C, H, W = layer.out_shape
        return to.node("Transpose", _reshape(x, (H, W, C), to), perm=(0, 3, 1, 2))
    return _reshape(x, layer.out_shape, to)


@register_exporter(L.Activation)
def activation(layer, x: str, to: Writer) -> str:
    return to.export(layer.function, x)


@register_exporter(L.Residual)
def residual(layer, x: str, to: Writer) -> str:
    return to.node("Add", *_branches(layer, x, to))


@register_exporter(L.Concatenate)
def concatenate(layer, x: str, to: Writer) -> str:
    return to.node("Concat", *_branches(layer, x, to), axis=1)


# -- activations ---------------------------------------------------------------------------------------------


@register_exporter(A.Linear)
def linear(function, z: str, to: Writer) -> str:
    return z


SAME = {A.ReLU: "Relu", A.Sigmoid: "Sigmoid", A.Tanh: "Tanh", A.Softplus: "Softplus"}


@register_exporter(*SAME)
def plain(function, z: str, to: Writer) -> str:
    return to.node(next(op for kind, op in SAME.items() if isinstance(function, kind)), z)


@register_exporter(A.LeakyReLU)
def leaky_relu(function, z: str, to: Writer) -> str:
    return to.node("LeakyRelu", z, alpha=float(function.negative_slope))


@register_exporter(A.ELU)
def elu(function, z: str, to: Writer) -> str:
    return to.node("Elu", z, alpha=float(function.alpha))


@register_exporter(A.Softmax, A.LogSoftmax)
def softmax(function, z: str, to: Writer) -> str:
    return to.node("Softmax" if isinstance(function, A.Softmax) else "LogSoftmax", z, axis=1)


@register_exporter(A.GELU)
def gelu(function, z: str, to: Writer) -> str:
    if to.opset >= 20:
        return to.node("Gelu", z, approximate="tanh" if function.approximate else "none")
    if function.approximate:
        cube = to.node("Mul", z, to.node("Mul", z, z))
        inner = to.node("Add", z, to.node("Mul", cube, to.constant("c", 0.044715)))
        Phi2 = to.node("Tanh", to.node("Mul", inner, to.constant("a", math.sqrt(2 / math.pi))))
    else:
        Phi2 = to.node("Erf", to.node("Mul", z, to.constant("a", math.sqrt(0.5))))
    Phi = to.node("Mul", to.node("Add", Phi2, to.constant("one", 1.0)), to.constant("half", 0.5))
    return to.node("Mul", z, Phi)


@register_exporter(A.SiLU)
def silu(function, z: str, to: Writer) -> str:
    return to.node("Mul", z, to.node("Sigmoid", z))


# -- parts ---------------------------------------------------------------------------------------------------


def _weight_and_bias(to: Writer) -> list[str]:
    return [to.weight(name) for name in ("weight", "bias") if to.has(name)]


def _branches(layer, x: str, to: Writer) -> list[str]:
    return [to.chain(inner, x, branch) for branch, inner in layer.children().items()]


def _pads(sides) -> list[int]:
    """((top, bottom), (left, right)) in ONNX's order: where each axis begins, then where each ends."""
    (top, bottom), (left, right) = sides
    return [top, left, bottom, right]


def _pad(x: str, sides, to: Writer) -> str:
    """x in a border of zeros.  Without `axes` ONNX Runtime makes it the border of a pooling behind it, which
    holds no zeros; and it moves transpositions as if all axes were given.
    """
    top, left, bottom, right = _pads(sides)
    pads = to.constant("pads", [0, 0, top, left, 0, 0, bottom, right])
    return to.node("Pad", x, pads, "", to.constant("axes", [0, 1, 2, 3]))


def _spread(weight: str, shape, to: Writer) -> str:
    """A weight (C,), to meet (N, C, H, W) or (N, D)."""
    axes = [*range(1, len(shape))]
    return to.node("Unsqueeze", weight, to.constant("axes", axes)) if axes else weight


def _reshape(x: str, shape, to: Writer) -> str:
    """x with another shape but for the batch, which the 0 stands for."""
    return to.node("Reshape", x, to.constant("shape", [0, *shape]))
