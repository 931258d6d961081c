"""PyTorch's modules as layers."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NoReturn

import torch
from torch import nn

from ... import activations as A
from ... import layers as L
from ...errors import ShapeError
from . import modules as M
from .write import PLAIN


class Parts:
    """The modules of a net, with what each is given, and which layer got whose weights.

    shapes: module -> the shape of one sample on its way in, for each time that it runs.
    source: layer -> module.
    """

    def __init__(self, net: nn.Module, input_shape: tuple[int, ...]):
        self.source: dict[L.Layer, nn.Module] = {}
        self.shapes: dict[nn.Module, list[tuple[int, ...]]] = {one: [] for one in net.modules()}
        self.shape: tuple[int, ...] = input_shape  # of the module that `layers` is at
        self.names = {one: name for name, one in net.named_modules()}
        self.check(net)

        def note(one, given, _):
            self.shapes[one].append(tuple(given[0].shape[1:]))

        hooks = [one.register_forward_hook(note) for one in net.modules()]
        training = {one: one.training for one in net.modules()}
        like = next(net.parameters(), torch.zeros(()))
        try:
            with torch.no_grad():
                y = net.eval()(torch.zeros(2, *input_shape, dtype=like.dtype, device=like.device))
        except (RuntimeError, ValueError) as error:
            raise ShapeError(
                f"the net does not take samples of input_shape={input_shape}. PyTorch says: {error}"
            ) from None
        finally:
            for hook in hooks:
                hook.remove()
            for one, state in training.items():
                one.training = state
        self.out_shape = tuple(y.shape[1:])

    def check(self, one) -> None:
        """TypeError, before anything runs, for a module of a chain that xpnet does not have."""
        if is_chain(one):
            for part in one:
                self.check(part)
        elif type(one) not in _layer.registry:
            known = sorted(kind.__name__ for kind in _layer.registry if kind is not object)
            self.refuse(one, repr(one), f"one of {', '.join(known)}")

    def layers(self, chain) -> list[L.Layer]:
        """The layers of a chain of modules."""
        found: list[L.Layer] = []
        for one in chain:
            if is_chain(one):
                found += self.layers(one)
                continue
            self.check(one)
            if one.state_dict() and one in self.source.values():
                self.refuse(one, "a second place in the net", "a module with weights of its own for each")
            self.shape = self.shapes[one].pop(0)
            try:
                layer = _layer(one, self)
            except ValueError as error:
                self.refuse(one, repr(one), f"what xpnet can do: {error}")
            self.source[layer] = one
            found.append(layer)
        return found

    def refuse(self, one: nn.Module, received: str, expected: str) -> NoReturn:
        raise TypeError(
            f"module {self.names[one]!r} ({type(one).__name__}) has no counterpart in xpnet. Received: "
            f"{received}. Expected: {expected}"
        )


def is_chain(one: nn.Module) -> bool:
    return isinstance(one, nn.Sequential) and type(one).forward is nn.Sequential.forward


def _pair(value) -> tuple[int, int]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


@singledispatch
def _layer(one: Any, parts: Parts) -> L.Layer:
    """The layer of a module."""
    raise NotImplementedError(f"{type(one).__name__} is not in the table")


@_layer.register
def _(one: nn.Linear, parts):
    return L.Dense(one.out_features, use_bias=one.bias is not None)


@_layer.register(nn.Conv2d)
@_layer.register(M.PaddedConv2d)
def _(one, parts):
    if one.padding_mode != "zeros":
        parts.refuse(one, f"padding_mode={one.padding_mode!r}", "zeros")
    padding = "same" if isinstance(one, M.PaddedConv2d) else one.padding
    return L.Conv2D(
        one.out_channels, one.kernel_size, one.stride, padding, one.dilation, one.groups,
        use_bias=one.bias is not None,
    )  # fmt: skip


@_layer.register(nn.ConvTranspose2d)
@_layer.register(M.CutConvTranspose2d)
def _(one, parts):
    given = one.given if isinstance(one, M.CutConvTranspose2d) else (one.padding, one.output_padding)
    return L.Conv2DTranspose(
        one.out_channels, one.kernel_size, one.stride, *given, dilation_rate=one.dilation, groups=one.groups,
        use_bias=one.bias is not None,
    )  # fmt: skip


@_layer.register(nn.MaxPool2d)
@_layer.register(M.PaddedMaxPool2d)
def _(one, parts):
    if _pair(one.dilation) != (1, 1) or one.return_indices:
        parts.refuse(one, f"dilation={one.dilation}, return_indices={one.return_indices}", "1 and False")
    padding = "same" if isinstance(one, M.PaddedMaxPool2d) else _pair(one.padding)
    return L.MaxPooling2D(_pair(one.kernel_size), _pair(one.stride), padding, one.ceil_mode)


@_layer.register(nn.AvgPool2d)
@_layer.register(M.PaddedAvgPool2d)
def _(one, parts):
    if one.divisor_override is not None:
        parts.refuse(one, f"divisor_override={one.divisor_override}", "None")
    size, strides = _pair(one.kernel_size), _pair(one.stride)
    if isinstance(one, M.PaddedAvgPool2d):
        return L.AveragePooling2D(size, strides, "same", one.ceil_mode)
    return L.AveragePooling2D(size, strides, _pair(one.padding), one.ceil_mode, one.count_include_pad)


@_layer.register(nn.AdaptiveAvgPool2d)
@_layer.register(nn.AdaptiveMaxPool2d)
def _(one, parts):
    C, *size = parts.shape
    out = [have if want is None else want for have, want in zip(size, _pair(one.output_size))]
    if any(have % want for have, want in zip(size, out)):
        parts.refuse(one, f"maps of {size} to {out}", "output sizes that divide them")
    window = tuple(have // want for have, want in zip(size, out))
    return (L.AveragePooling2D if isinstance(one, nn.AdaptiveAvgPool2d) else L.MaxPooling2D)(window)


@_layer.register(nn.ZeroPad2d)
@_layer.register(nn.ConstantPad2d)
def _(one, parts):
    if isinstance(one, nn.ConstantPad2d) and one.value != 0:
        parts.refuse(one, f"value={one.value}", "zeros")
    left, right, top, bottom = one.padding
    return L.ZeroPadding2D(((top, bottom), (left, right)))


@_layer.register
def _(one: nn.Upsample, parts):
    times = _pair(one.scale_factor)
    if one.size is not None:
        times = tuple(want / have for want, have in zip(_pair(one.size), parts.shape[1:]))
    if one.mode not in ("nearest", "bilinear") or one.align_corners or any(t != int(t) for t in times):
        parts.refuse(one, repr(one), "nearest or bilinear by whole factors, align_corners=False")
    return L.UpSampling2D(tuple(map(int, times)), one.mode)


@_layer.register
def _(one: nn.Flatten, parts):
    if one.start_dim != 1 or one.end_dim not in (-1, len(parts.shape)):
        parts.refuse(one, repr(one), "Flatten(1)")
    return L.Flatten()


@_layer.register
def _(one: nn.Unflatten, parts):
    if one.dim not in (1, -1) or len(parts.shape) != 1 or len(one.unflattened_size) != 3:
        parts.refuse(one, repr(one), "Unflatten(1, (C, H, W)) of vectors")
    return L.Reshape(tuple(one.unflattened_size))


@_layer.register(nn.Dropout)
@_layer.register(M.ScaledDropout)
def _(one, parts):
    return L.Dropout(one.p, scaling="inference" if isinstance(one, M.ScaledDropout) else "train")


@_layer.register(nn.Dropout2d)
@_layer.register(M.ScaledDropout2d)
def _(one, parts):
    return L.SpatialDropout2D(one.p, scaling="inference" if isinstance(one, M.ScaledDropout2d) else "train")


@_layer.register(nn.BatchNorm1d)
@_layer.register(nn.BatchNorm2d)
def _(one, parts):
    if one.momentum is None or not one.track_running_stats:
        parts.refuse(one, repr(one), "a momentum and track_running_stats=True")
    return L.BatchNormalization(1 - one.momentum, one.eps)


@_layer.register(nn.LayerNorm)
@_layer.register(M.ChannelNorm)
def _(one, parts):
    if isinstance(one, M.ChannelNorm):
        return L.LayerNormalization(one.eps, axis="channels")
    if tuple(one.normalized_shape) != parts.shape:
        parts.refuse(one, f"{one} of {parts.shape}", "all features of a sample")
    return L.LayerNormalization(one.eps)


@_layer.register
def _(one: nn.GroupNorm, parts):
    return L.GroupNormalization(one.num_groups, one.eps)


@_layer.register
def _(one: M.ChannelsFirst, parts):
    parts.refuse(one, "maps read from vectors in H, W, C order", "Unflatten(1, (C, H, W)) alone")


@_layer.register
def _(one: M.Normalization, parts):
    return L.Normalization()


@_layer.register
def _(one: M.Rescaling, parts):
    return L.Rescaling(one.scale, one.offset)


@_layer.register
def _(one: M.Residual, parts):
    return L.Residual(parts.layers(one.body), parts.layers(one.shortcut) or None)


@_layer.register
def _(one: M.Concatenate, parts):
    return L.Concatenate([parts.layers(branch) for branch in one.branches])


@_layer.register(nn.Identity)
@_layer.register(nn.ReLU)
@_layer.register(nn.Sigmoid)
@_layer.register(nn.Tanh)
@_layer.register(nn.SiLU)
def _(one, parts):
    return L.Activation(next(name for name, kind in PLAIN.items() if isinstance(one, kind)))


@_layer.register
def _(one: nn.Softplus, parts):
    if one.beta != 1 or one.threshold < 20:
        parts.refuse(one, repr(one), "beta=1, threshold=20")
    return L.Activation("softplus")


@_layer.register
def _(one: nn.LeakyReLU, parts):
    return L.Activation(A.LeakyReLU(one.negative_slope))


@_layer.register
def _(one: nn.ELU, parts):
    return L.Activation(A.ELU(one.alpha))


@_layer.register
def _(one: nn.GELU, parts):
    return L.Activation(A.GELU(one.approximate == "tanh"))


@_layer.register
def _(one: nn.Softmax, parts):
    if one.dim not in (1, -len(parts.shape)):
        parts.refuse(one, repr(one), "dim=1, the features or channels")
    return L.Activation("softmax")
