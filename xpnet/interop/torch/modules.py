"""What PyTorch has no module for, under the names of xpnet's layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


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

    def forward(self, x, output_size=None):
        y = super().forward(x, output_size)
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

    running_mean: torch.Tensor
    running_var: torch.Tensor

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
