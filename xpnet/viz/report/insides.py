"""What the network holds and makes: first weights, a sample's way through the layers, what it looks at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..attribution import convolves, grad_cam, saliency
from ..grids import extremes, largest, scale_of, tiles
from ..style import DIVERGING, SEQUENTIAL
from .pictures import FEW, LOOK, SAMPLE, Picture, channels_first, coloured, grid

MAP, KERNEL = 56, 44  # pixels of a page that the longer side takes
STRIP, CELL = 32, 10  # values of a layer's vector side by side, and the pixels of each
UNITS, CHANNELS = 32, 12  # of a layer's weights and of its maps that are shown, at most
DEPTH = 16  # channels of a kernel that are shown, at most
IN_A_ROW = 4  # channels of a kernel; more stand in a square
MAPS = 144  # pictures of maps in all, unless that would be fewer than two a layer


class Weights(NamedTuple):
    """The weights of a layer.  kernels: of a convolution, else of units.  hidden: how many are not shown.

    channels: how many of a kernel's are shown, where it is not all of them, else "".
    """

    layer: str
    kernels: bool
    pictures: list[Picture]
    hidden: int
    channels: str


class LayerView(NamedTuple):
    """What a layer makes of one sample.  hidden: channels that are not shown.  low, high: of the values.

    pictures: none where the layer passes on what it got, as a dropout does in inference.
    """

    name: str
    kind: str
    shape: str
    pictures: list[Picture]
    hidden: int
    low: float
    high: float


def first_weights(model) -> Weights | None:
    """The kernels of the first layer with weights, or its units' weights; None where there is nothing to see
    in them.
    """
    named = [(name, slot) for name, slot in model._named_slots() if slot.name == "weight"]
    name, slot = next(((name, slot) for name, slot in named if len(slot.shape) in (2, 4)), (None, None))
    if slot is None:
        return None
    w, in_shape = model.state_dict()[name], model.chain.in_shape
    if w.ndim == 2:
        w = _as_samples(w, in_shape)
        if w is None:
            return None
    limit, C = largest(w), w.shape[1] if w.ndim == 4 else 0
    size = KERNEL * C if 1 <= C <= IN_A_ROW else SAMPLE
    drawn = [_beside(one[:DEPTH]) if one.ndim == 3 else one for one in w[:UNITS]]
    return Weights(
        slot.layer.label,
        len(slot.shape) == 4,
        [coloured(one, size, f"weights {k}", -limit, limit, DIVERGING) for k, one in enumerate(drawn)],
        len(w) - len(drawn),
        f"{DEPTH} of {C}" if C > DEPTH else "",
    )


def _as_samples(w: np.ndarray, in_shape) -> np.ndarray | None:
    """Units' weights (O, I) laid out as the samples are, where they lie over whole samples: (O, H, W)."""
    if len(in_shape) == 3 and in_shape[0] == 1 and w.shape[1] == in_shape[1] * in_shape[2]:
        return w.reshape(-1, *in_shape[1:])
    if len(in_shape) == 1 and w.shape[1:] == in_shape and in_shape[0] > FEW:
        return np.stack([grid(one) for one in w])
    return None


def _beside(kernels: np.ndarray) -> np.ndarray:
    """A filter's kernels (C, KH, KW) beside one another."""
    C = len(kernels)
    return kernels[0] if C == 1 else tiles(kernels, C if C <= IN_A_ROW else None)


def layer_views(model, x: np.ndarray) -> list[LayerView]:
    """What each layer makes of one sample x (1, ...)."""
    views: list[LayerView] = []
    before, room = channels_first(model, x), max(2, MAPS // len(model.layers))
    for layer, (name, y) in zip(model.layers, model.layer_outputs(x).items()):
        y = channels_first(model, y)
        same, before = y.shape == before.shape and bool((y == before).all()), y
        drawn = [] if same else _drawn(name, y[0], min(CHANNELS, room))
        hidden = y.shape[1] - len(drawn) if drawn and y.ndim == 4 else 0
        shape = " × ".join(map(str, y.shape[1:]))
        views.append(LayerView(name, type(layer).__name__, shape, drawn, hidden, *extremes(y)))
    return views


def _drawn(name: str, values: np.ndarray, most: int) -> list[Picture]:
    """The first channels of maps (C, H, W), or all values of a vector (D,), on one scale of colours."""
    scale = scale_of(values)
    if values.ndim == 3:
        shown = enumerate(values[:most])
        return [coloured(one, MAP, f"{name}, channel {c}", *scale, sharp=1) for c, one in shown]
    strip = grid(values, min(STRIP, len(values)))
    return [coloured(strip, CELL * max(strip.shape), f"{name}, all values", *scale)]


def attention(model, x: np.ndarray, target: np.ndarray) -> list[list[Picture]]:
    """For each of a few images x what speaks for its class `target`: the slopes of its score by the pixels,
    and Grad-CAM where there is a convolution.
    """
    slopes = np.abs(channels_first(model, saliency(model, x, target)))
    slopes = slopes.max(axis=1) if slopes.ndim == 4 else slopes
    found = [[coloured(one, LOOK, "saliency", 0.0, largest(one), SEQUENTIAL)] for one in slopes]
    if any(len(layer.out_shape) == 3 and convolves(layer) for layer in model.layers):
        for pictures, one in zip(found, grad_cam(model, x, target)):
            pictures.append(coloured(one, LOOK, "Grad-CAM", 0.0, largest(one), SEQUENTIAL))
    return found
