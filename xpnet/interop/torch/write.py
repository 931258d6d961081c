"""Layers as PyTorch's modules."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from torch import nn

from ... import activations as A
from ... import layers as L
from . import modules as M


def in_torch(layers: list[L.Layer]) -> list[nn.Module]:
    for layer in layers:
        if type(layer) not in _bare.registry:
            raise TypeError(
                f"{layer.where}: {type(layer).__name__} has no module in PyTorch. Expected: layers of "
                "xpnet.layers; for one of your own build the module yourself and load model.state_dict()"
            )
    return [one for layer in layers for one in (_bare(layer), *_behind(layer.activation))]


def _behind(activation: A.ActivationFunction) -> list[nn.Module]:
    """The module of an activation that is fused into its layer here."""
    return [] if isinstance(activation, A.Linear) else [_activation(activation)]


def _activation(f: A.ActivationFunction) -> nn.Module:
    if f.name not in A.TABLE:
        raise TypeError(f"{f!r} has no module in PyTorch. Expected: one of {', '.join(A.TABLE)}")
    match f:
        case A.LeakyReLU():
            return nn.LeakyReLU(f.negative_slope)
        case A.ELU():
            return nn.ELU(f.alpha)
        case A.GELU():
            return nn.GELU("tanh" if f.approximate else "none")
        case A.Softmax():
            return nn.Softmax(dim=1)
    return PLAIN[f.name]()


PLAIN = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
}


@singledispatch
def _bare(layer: Any) -> nn.Module:
    """The module of a layer, without its activation."""
    raise NotImplementedError(f"{type(layer).__name__} is not in the table")


@_bare.register
def _(layer: L.Activation):
    return _activation(layer.function)


@_bare.register
def _(layer: L.Dense):
    return nn.Linear(layer.in_shape[0], layer.units, layer.use_bias)


@_bare.register
def _(layer: L.Conv2D):
    (top, bottom), (left, right) = layer.window.padding
    even = (top, left) == (bottom, right)
    conv = (nn.Conv2d if even else M.PaddedConv2d)(
        layer.in_shape[0], layer.filters, layer.kernel_size, layer.strides, (top, left) if even else 0,
        layer.dilation_rate, layer.groups, layer.use_bias,
    )  # fmt: skip
    if isinstance(conv, M.PaddedConv2d):
        conv.sides = (left, right, top, bottom)
    return conv


@_bare.register
def _(layer: L.Conv2DTranspose):
    cut = [layer._cut(axis, layer.window.extent[axis], layer.strides[axis]) for axis in (0, 1)]
    more = [first - last for first, last in cut]
    conv = (nn.ConvTranspose2d if min(more) >= 0 else M.CutConvTranspose2d)(
        layer.in_shape[0], layer.filters, layer.kernel_size, layer.strides, (cut[0][0], cut[1][0]),
        (max(more[0], 0), max(more[1], 0)), layer.groups, layer.use_bias, layer.dilation_rate,
    )  # fmt: skip
    if isinstance(conv, M.CutConvTranspose2d):
        conv.cut, conv.given = tuple(max(-n, 0) for n in more), (layer.padding, layer.output_padding)
    return conv


@_bare.register
def _(layer: L.MaxPooling2D):
    (top, bottom), (left, right) = layer.margin
    if (top, left) == (bottom, right):
        return nn.MaxPool2d(layer.pool_size, layer.strides, (top, left), ceil_mode=layer.ceil_mode)
    pool = M.PaddedMaxPool2d(layer.pool_size, layer.strides, ceil_mode=layer.ceil_mode)
    pool.sides = (left, right, top, bottom)
    return pool


@_bare.register
def _(layer: L.AveragePooling2D):
    (top, bottom), (left, right) = layer.margin
    size, strides, ceil = layer.pool_size, layer.strides, layer.ceil_mode
    if (top, left) == (bottom, right):
        return nn.AvgPool2d(size, strides, (top, left), ceil, layer.counts_padding)
    if layer.counts_padding:
        return nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), nn.AvgPool2d(size, strides, 0, ceil))
    pool = M.PaddedAvgPool2d(size, strides, 0, ceil)
    pool.sides = (left, right, top, bottom)
    return pool


@_bare.register
def _(layer: L.GlobalAveragePooling2D):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


@_bare.register
def _(layer: L.GlobalMaxPooling2D):
    return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())


@_bare.register
def _(layer: L.ZeroPadding2D):
    (top, bottom), (left, right) = layer.sides
    return nn.ZeroPad2d((left, right, top, bottom))


@_bare.register
def _(layer: L.UpSampling2D):
    return nn.Upsample(scale_factor=tuple(map(float, layer.size)), mode=layer.interpolation)


@_bare.register
def _(layer: L.Flatten):
    return nn.Flatten()


@_bare.register
def _(layer: L.Reshape):
    if len(layer.out_shape) == 1:
        return nn.Flatten()
    if layer.last and len(layer.in_shape) == 1:
        C, H, W = layer.out_shape
        return nn.Sequential(nn.Unflatten(1, (H, W, C)), M.ChannelsFirst())
    return nn.Sequential(nn.Flatten(), nn.Unflatten(1, layer.out_shape))


@_bare.register
def _(layer: L.Dropout):
    return nn.Dropout(layer.rate) if layer.scaling == "train" else M.ScaledDropout(layer.rate)


@_bare.register
def _(layer: L.SpatialDropout2D):
    return nn.Dropout2d(layer.rate) if layer.scaling == "train" else M.ScaledDropout2d(layer.rate)


@_bare.register
def _(layer: L.BatchNormalization):
    norm = nn.BatchNorm1d if len(layer.in_shape) == 1 else nn.BatchNorm2d
    return norm(layer.in_shape[0], layer.epsilon, 1 - layer.momentum)


@_bare.register
def _(layer: L.LayerNormalization):
    if layer.axis == "channels" and len(layer.in_shape) == 3:
        return M.ChannelNorm(layer.in_shape[0], layer.epsilon)
    return nn.LayerNorm(layer.in_shape, layer.epsilon)


@_bare.register
def _(layer: L.GroupNormalization):
    return nn.GroupNorm(layer.count, layer.in_shape[0], layer.epsilon)


@_bare.register
def _(layer: L.Normalization):
    return M.Normalization(layer.in_shape[0])


@_bare.register
def _(layer: L.Rescaling):
    return M.Rescaling(layer.scale, layer.offset)


@_bare.register
def _(layer: L.Residual):
    return M.Residual(in_torch(layer.body), in_torch(layer.shortcut or []))


@_bare.register
def _(layer: L.Concatenate):
    return M.Concatenate([in_torch(branch) for branch in layer.branches])
