"""The same network as a torch.nn.Sequential, and back.

    net = interop.torch.module(model)                     # the same state_dict, the same outputs
    model = interop.torch.from_module(net, (3, 32, 32))

A module takes and gives maps as (N, C, H, W), whatever the model's data_format.  What PyTorch has no module for
is one of those below; they carry the names of xpnet's layers.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NoReturn

import numpy as np

from .. import activations as A
from .. import layers as L
from ..errors import ShapeError
from ..model import Sequential

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"xpnet.interop.torch needs PyTorch ({error}): pip install torch") from None


def module(model: Sequential) -> nn.Sequential:
    """The model's layers and weights as a torch.nn.Sequential on the CPU, in evaluation mode.

    Its state_dict has the names and shapes of the model's.
    """
    model._need_built()
    net = nn.Sequential(*_in_torch(model.layers)).to(getattr(torch, model.dtype.name))
    net.load_state_dict({name: torch.from_numpy(a) for name, a in model.state_dict().items()})
    return net.eval()


def from_module(net: nn.Module, input_shape, **model) -> Sequential:
    """A torch.nn.Sequential with its weights as a model; nested ones are unrolled.

    input_shape: of one sample, (C, H, W) or (D,).  model: more arguments of `Sequential`, such as device and
    seed.  Raises TypeError where a module has no counterpart.
    """
    if not _is_chain(net):
        raise TypeError(
            f"from_module takes a chain of modules. Received: {type(net).__name__}. Expected: "
            "torch.nn.Sequential, put together from the parts in the order of its forward, such as "
            "Sequential(net.features, Flatten(), net.classifier); for other graphs torch.onnx.export and "
            "xpnet.interop.onnx.load"
        )
    input_shape = tuple(np.atleast_1d(input_shape).tolist())
    parts = _Parts(net, input_shape)
    wide = any(p.dtype == torch.float64 for p in net.parameters())
    made = Sequential(
        parts.layers(net), input_shape=input_shape, **{"precision": "float64" if wide else "auto"} | model
    )
    state = {
        name: _array(value)
        for name, slot in made._named_slots()
        if (value := getattr(parts.source[slot.layer], slot.name, None)) is not None
    }
    made.load_state_dict(state, strict=False)
    return made


# -- from layers to modules ----------------------------------------------------------------------------------


def _in_torch(layers: list[L.Layer]) -> list[nn.Module]:
    return [one for layer in layers for one in (_bare(layer), *_behind(layer.activation))]


def _behind(activation: A.ActivationFunction) -> list[nn.Module]:
    """The module of an activation that is fused into its layer here."""
    return [] if isinstance(activation, A.Linear) else [_activation(activation)]


def _activation(f: A.ActivationFunction) -> nn.Module:
    match f:
        case A.LeakyReLU():
            return nn.LeakyReLU(f.negative_slope)
        case A.ELU():
            return nn.ELU(f.alpha)
        case A.GELU():
            return nn.GELU("tanh" if f.approximate else "none")
        case A.Softmax():
            return nn.Softmax(dim=1)
    if f.name not in _PLAIN:
        raise TypeError(
            f"the activation {f!r} has no module in PyTorch. Expected: one of {', '.join(A.TABLE)}"
        )
    return _PLAIN[f.name]()


_PLAIN = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
}


@singledispatch
def _bare(layer) -> nn.Module:
    """The module of a layer, without its activation."""
    raise TypeError(
        f"{layer.where}: {type(layer).__name__} has no module in PyTorch. Expected: layers of xpnet.layers; "
        "for one of your own build the module yourself and load model.state_dict()"
    )


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
    conv = (nn.Conv2d if even else PaddedConv2d)(
        layer.in_shape[0], layer.filters, layer.kernel_size, layer.strides, (top, left) if even else 0,
        layer.dilation_rate, layer.groups, layer.use_bias,
    )  # fmt: skip
    if isinstance(conv, PaddedConv2d):
        conv.sides = (left, right, top, bottom)
    return conv


@_bare.register
def _(layer: L.Conv2DTranspose):
    cut = [layer._cut(axis, layer.window.extent[axis], layer.strides[axis]) for axis in (0, 1)]
    more = [first - last for first, last in cut]
    conv = (nn.ConvTranspose2d if min(more) >= 0 else CutConvTranspose2d)(
        layer.in_shape[0], layer.filters, layer.kernel_size, layer.strides, tuple(first for first, _ in cut),
        tuple(max(n, 0) for n in more), layer.groups, layer.use_bias, layer.dilation_rate,
    )  # fmt: skip
    if isinstance(conv, CutConvTranspose2d):
        conv.cut, conv.given = tuple(max(-n, 0) for n in more), (layer.padding, layer.output_padding)
    return conv


@_bare.register
def _(layer: L.MaxPooling2D):
    (top, bottom), (left, right) = layer.margin
    if (top, left) == (bottom, right):
        return nn.MaxPool2d(layer.pool_size, layer.strides, (top, left), ceil_mode=layer.ceil_mode)
    pool = PaddedMaxPool2d(layer.pool_size, layer.strides, ceil_mode=layer.ceil_mode)
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
    pool = PaddedAvgPool2d(size, strides, 0, ceil)
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
        return nn.Sequential(nn.Unflatten(1, (H, W, C)), ChannelsFirst())
    return nn.Sequential(nn.Flatten(), nn.Unflatten(1, layer.out_shape))


@_bare.register
def _(layer: L.Dropout):
    return nn.Dropout(layer.rate) if layer.scaling == "train" else ScaledDropout(layer.rate)


@_bare.register
def _(layer: L.SpatialDropout2D):
    return nn.Dropout2d(layer.rate) if layer.scaling == "train" else ScaledDropout2d(layer.rate)


@_bare.register
def _(layer: L.BatchNormalization):
    norm = nn.BatchNorm1d if len(layer.in_shape) == 1 else nn.BatchNorm2d
    return norm(layer.in_shape[0], layer.epsilon, 1 - layer.momentum)


@_bare.register
def _(layer: L.LayerNormalization):
    if layer.axis == "channels" and len(layer.in_shape) == 3:
        return ChannelNorm(layer.in_shape[0], layer.epsilon)
    return nn.LayerNorm(layer.in_shape, layer.epsilon)


@_bare.register
def _(layer: L.GroupNormalization):
    return nn.GroupNorm(layer.count, layer.in_shape[0], layer.epsilon)


@_bare.register
def _(layer: L.Normalization):
    return Normalization(layer.in_shape[0])


@_bare.register
def _(layer: L.Rescaling):
    return Rescaling(layer.scale, layer.offset)


@_bare.register
def _(layer: L.Residual):
    return Residual(_in_torch(layer.body), _in_torch(layer.shortcut or []))


@_bare.register
def _(layer: L.Concatenate):
    return Concatenate([_in_torch(branch) for branch in layer.branches])


# -- what PyTorch has no module for --------------------------------------------------------------------------


class PaddedConv2d(nn.Conv2d):
    """A convolution of x with a border of zeros, `sides` (left, right, top, bottom): "same" as Keras pads."""

    sides: tuple[int, ...]

    def forward(self, x):
        return super().forward(F.pad(x, self.sides))


class CutConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution without its last rows and columns, `cut` of them.

    given: the padding and output_padding of the layer it stands for.
    """

    cut: tuple[int, ...]
    given: tuple[Any, Any]

    def forward(self, x):
        y = super().forward(x)
        return y[:, :, : y.shape[2] - self.cut[0], : y.shape[3] - self.cut[1]]


class PaddedMaxPool2d(nn.MaxPool2d):
    """A max pooling with a border, `sides` (left, right, top, bottom), that never wins."""

    sides: tuple[int, ...]

    def forward(self, x):
        return super().forward(F.pad(x, self.sides, value=-torch.inf))


class PaddedAvgPool2d(nn.AvgPool2d):
    """An average pooling with a border, `sides` (left, right, top, bottom), that does not count."""

    sides: tuple[int, ...]

    def forward(self, x):
        inside = F.pad(torch.ones_like(x[:1, :1]), self.sides)
        return super().forward(F.pad(x, self.sides)) / super().forward(inside)


class ChannelsFirst(nn.Module):
    """(N, H, W, C) -> (N, C, H, W)."""

    def forward(self, x):
        return x.permute(0, 3, 1, 2)


class ScaledDropout(nn.Dropout):
    """A mask alone in training, a factor of 1 - p in evaluation: Srivastava et al., 2014."""

    def forward(self, x):
        return super().forward(x) * (1 - self.p)


class ScaledDropout2d(nn.Dropout2d):
    """ScaledDropout of whole channels."""

    def forward(self, x):
        return super().forward(x) * (1 - self.p)


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels at each pixel."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Normalization(nn.Module):
    """(x - running_mean) / max(sqrt(running_var), 1e-7), by feature or channel, in training too."""

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x):
        mean, var = (a.reshape(-1, *(1,) * (x.ndim - 2)) for a in (self.running_mean, self.running_var))
        return (x - mean) / var.sqrt().clamp(min=1e-7)


class Rescaling(nn.Module):
    """scale x + offset."""

    def __init__(self, scale: float, offset: float):
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x):
        return self.scale * x + self.offset


class Residual(nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: list[nn.Module], shortcut: list[nn.Module]):
        super().__init__()
        self.body, self.shortcut = nn.Sequential(*body), nn.Sequential(*shortcut)

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


class Concatenate(nn.Module):
    """The branches' outputs side by side along the features or channels."""

    def __init__(self, branches: list[list[nn.Module]]):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


# -- from modules to layers ----------------------------------------------------------------------------------


class _Parts:
    """The modules of a net, with what each is given, and which layer got whose weights.

    shapes: module -> the shape of one sample on its way in, for each time that it runs.
    source: layer -> module.
    """

    def __init__(self, net: nn.Module, input_shape: tuple[int, ...]):
        self.source: dict[L.Layer, nn.Module] = {}
        self.shapes: dict[nn.Module, list[tuple[int, ...]]] = {one: [] for one in net.modules()}
        self.shape: tuple[int, ...] = input_shape  # of the module that `layers` is at
        self.names = {one: name for name, one in net.named_modules()}

        def note(one, given, _):
            self.shapes[one].append(tuple(given[0].shape[1:]))

        hooks = [one.register_forward_hook(note) for one in net.modules()]
        training = {one: one.training for one in net.modules()}
        like = next(net.parameters(), torch.zeros(()))
        try:
            with torch.no_grad():
                net.eval()(torch.zeros(2, *input_shape, dtype=like.dtype, device=like.device))
        except (RuntimeError, ValueError) as error:
            raise ShapeError(
                f"the net does not take samples of input_shape={input_shape}. PyTorch says: {error}"
            ) from None
        finally:
            for hook in hooks:
                hook.remove()
            for one, state in training.items():
                one.training = state

    def layers(self, chain) -> list[L.Layer]:
        """The layers of a chain of modules."""
        found: list[L.Layer] = []
        for one in chain:
            if _is_chain(one):
                found += self.layers(one)
                continue
            if type(one) not in _layer.registry:
                known = sorted(kind.__name__ for kind in _layer.registry if kind is not object)
                self.refuse(one, repr(one), f"one of {', '.join(known)}")
            if one.state_dict() and one in self.source.values():
                self.refuse(one, "a second place in the net", "a module with weights of its own for each")
            self.shape = self.shapes[one].pop(0)
            layer = _layer(one, self)
            self.source[layer] = one
            found.append(layer)
        return found

    def refuse(self, one: nn.Module, received: str, expected: str) -> NoReturn:
        raise TypeError(
            f"module {self.names[one]!r} ({type(one).__name__}) has no counterpart in xpnet. Received: "
            f"{received}. Expected: {expected}"
        )


def _is_chain(one: nn.Module) -> bool:
    return isinstance(one, nn.Sequential) and type(one).forward is nn.Sequential.forward


def _pair(value) -> tuple[int, int]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


@singledispatch
def _layer(one: Any, parts: _Parts) -> L.Layer:
    """The layer of a module."""
    raise NotImplementedError(f"{type(one).__name__} is not in the table")


@_layer.register
def _(one: nn.Linear, parts):
    return L.Dense(one.out_features, use_bias=one.bias is not None)


@_layer.register(nn.Conv2d)
@_layer.register(PaddedConv2d)
def _(one, parts):
    if one.padding_mode != "zeros":
        parts.refuse(one, f"padding_mode={one.padding_mode!r}", "zeros")
    padding = "same" if isinstance(one, PaddedConv2d) else one.padding
    return L.Conv2D(
        one.out_channels, one.kernel_size, one.stride, padding, one.dilation, one.groups,
        use_bias=one.bias is not None,
    )  # fmt: skip


@_layer.register(nn.ConvTranspose2d)
@_layer.register(CutConvTranspose2d)
def _(one, parts):
    given = one.given if isinstance(one, CutConvTranspose2d) else (one.padding, one.output_padding)
    return L.Conv2DTranspose(
        one.out_channels, one.kernel_size, one.stride, *given, dilation_rate=one.dilation, groups=one.groups,
        use_bias=one.bias is not None,
    )  # fmt: skip


@_layer.register(nn.MaxPool2d)
@_layer.register(PaddedMaxPool2d)
def _(one, parts):
    if _pair(one.dilation) != (1, 1) or one.return_indices:
        parts.refuse(one, f"dilation={one.dilation}, return_indices={one.return_indices}", "1 and False")
    padding = "same" if isinstance(one, PaddedMaxPool2d) else _pair(one.padding)
    return L.MaxPooling2D(_pair(one.kernel_size), _pair(one.stride), padding, one.ceil_mode)


@_layer.register(nn.AvgPool2d)
@_layer.register(PaddedAvgPool2d)
def _(one, parts):
    if one.divisor_override is not None:
        parts.refuse(one, f"divisor_override={one.divisor_override}", "None")
    size, strides = _pair(one.kernel_size), _pair(one.stride)
    if isinstance(one, PaddedAvgPool2d):
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
    factor = one.scale_factor
    if one.size is not None:
        factor = [want / have for want, have in zip(_pair(one.size), parts.shape[1:])]
    factor = _pair(factor)
    if one.mode not in ("nearest", "bilinear") or one.align_corners or any(f != int(f) for f in factor):
        parts.refuse(one, repr(one), "nearest or bilinear by whole factors, align_corners=False")
    return L.UpSampling2D(tuple(map(int, factor)), one.mode)


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
@_layer.register(ScaledDropout)
def _(one, parts):
    return L.Dropout(one.p, scaling="inference" if isinstance(one, ScaledDropout) else "train")


@_layer.register(nn.Dropout2d)
@_layer.register(ScaledDropout2d)
def _(one, parts):
    return L.SpatialDropout2D(one.p, scaling="inference" if isinstance(one, ScaledDropout2d) else "train")


@_layer.register(nn.BatchNorm1d)
@_layer.register(nn.BatchNorm2d)
def _(one, parts):
    if one.momentum is None or not one.track_running_stats:
        parts.refuse(one, repr(one), "a momentum and track_running_stats=True")
    return L.BatchNormalization(1 - one.momentum, one.eps)


@_layer.register(nn.LayerNorm)
@_layer.register(ChannelNorm)
def _(one, parts):
    if isinstance(one, ChannelNorm):
        return L.LayerNormalization(one.eps, axis="channels")
    if tuple(one.normalized_shape) != parts.shape:
        parts.refuse(one, f"{one} of {parts.shape}", "all features of a sample")
    return L.LayerNormalization(one.eps)


@_layer.register
def _(one: nn.GroupNorm, parts):
    return L.GroupNormalization(one.num_groups, one.eps)


@_layer.register
def _(one: ChannelsFirst, parts):
    parts.refuse(one, "maps read from vectors in H, W, C order", "Unflatten(1, (C, H, W)) alone")


@_layer.register
def _(one: Normalization, parts):
    return L.Normalization()


@_layer.register
def _(one: Rescaling, parts):
    return L.Rescaling(one.scale, one.offset)


@_layer.register
def _(one: Residual, parts):
    return L.Residual(parts.layers(one.body), parts.layers(one.shortcut) or None)


@_layer.register
def _(one: Concatenate, parts):
    return L.Concatenate([parts.layers(branch) for branch in one.branches])


@_layer.register(nn.Identity)
@_layer.register(nn.ReLU)
@_layer.register(nn.Sigmoid)
@_layer.register(nn.Tanh)
@_layer.register(nn.SiLU)
def _(one, parts):
    return L.Activation(next(name for name, kind in _PLAIN.items() if isinstance(one, kind)))


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


def _array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (
        tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor
    ).numpy()
