"""Small pictures for a page: arrays as PNG or JPEG data in `data:` addresses, scaled by the browser."""

from __future__ import annotations

import base64
import io
import math
from typing import NamedTuple

import numpy as np

from ...layers.conv import Convolution
from ..answers import probabilities_of
from ..attribution import grad_cam, saliency
from ..grids import colours, extremes, images_of, largest, scale_of, tiles
from ..regions import plot_decision_regions, plot_points
from ..style import DIVERGING, PALETTE, SEQUENTIAL, figure, style

SAMPLE, LOOK, MAP, KERNEL = 72, 64, 56, 48  # pixels of a page that the longer side takes
SHARP = 2  # stored pixels a shown one, at most
PALETTE_PAYS = 512  # pixels, from which on a palette and a byte for each take less than three bytes for each
FEW = 24  # numbers that a vector is written out in; more are drawn
STRIP, CELL = 32, 10  # values of a layer's vector side by side, and the pixels of each
CHANNELS, KERNELS = 12, 32  # shown of a layer
IN_A_ROW = 4  # channels of a kernel; more stand in a square
POINTS = 600  # scattered over decision regions and beside the diagonal
DPI = 120  # of matplotlib's figures
BINS = 40  # of the histogram of differences
MARGIN = 0.08  # of the plane around the points


class Picture(NamedTuple):
    """src: a data: address.  width, height: pixels of the page.  alt: what is seen.  coarse: square pixels."""

    src: str
    width: int
    height: int
    alt: str
    coarse: bool


class Sample(NamedTuple):
    """A sample as a picture, or as text where it is a few numbers."""

    picture: Picture | None
    text: str


class LayerView(NamedTuple):
    """What a layer makes of one sample.  hidden: channels that are not shown.  low, high: of the values.

    pictures: none where the layer passes on what it got, as a dropout does in inference.
    """

    name: str
    settings: str
    shape: str
    pictures: list[Picture]
    hidden: int
    low: float
    high: float


def picture(a: np.ndarray, size: int, alt: str) -> Picture:
    """a (H, W) grey or (H, W, 3) in colour, uint8; its longer side as long as size."""
    from PIL import Image

    return _stored(Image.fromarray(np.ascontiguousarray(a)), size, alt)


def coloured(a: np.ndarray, size: int, alt: str, low: float, high: float, colors: str) -> Picture:
    """Values a (H, W) in a colour scale from low to high; nothing where there are no numbers."""
    from PIL import Image

    a, scale = np.asarray(a, float), colours(colors)
    unit, gaps = ((a - low) / ((high - low) or 1.0)).clip(0, 1), np.isnan(a)
    if gaps.any() or a.size < PALETTE_PAYS:
        drawn = scale(unit, bytes=True)
        drawn[gaps] = 0
        return _stored(
            Image.fromarray(drawn if gaps.any() else np.ascontiguousarray(drawn[..., :3])), size, alt
        )
    numbers = Image.fromarray((unit * 255).round().astype(np.uint8))
    return _stored(numbers, size, alt, scale(np.arange(256), bytes=True)[:, :3].tobytes())


def _stored(image, size: int, alt: str, palette: bytes | None = None) -> Picture:
    """A picture of Pillow's, made smaller where the page has no use for its pixels: then it is a photograph or
    as smooth as one, which JPEG stores in a fifth of the bytes, unless it has a palette.
    """
    from PIL import Image

    W, H = image.size
    scale = size / max(H, W)
    width, height = max(1, round(W * scale)), max(1, round(H * scale))
    small = max(H, W) > SHARP * size
    if small:
        image = image.resize((SHARP * width, SHARP * height), Image.Resampling.BOX)
    if palette is not None:
        image.putpalette(palette)
    kind = "jpeg" if small and image.mode in ("L", "RGB") else "png"
    file = io.BytesIO()
    image.save(file, kind, optimize=True)
    return Picture(_address(file.getvalue(), kind), width, height, alt, scale > 1)


@style()
def plotted(drawn, alt: str) -> Picture:
    """A figure of matplotlib's."""
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=DPI)
    width, height = (round(side * 96) for side in drawn.get_size_inches())
    return Picture(_address(file.getvalue(), "png"), width, height, alt, False)


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


# -- samples -------------------------------------------------------------------------------------------------


def samples(model, x: np.ndarray, alts: list[str], size: int = SAMPLE) -> list[Sample]:
    """The samples x (N, ...) as one sees them, on one scale of brightness."""
    if not len(x):
        return []
    if x.ndim == 2 and x.shape[1] <= FEW:
        return [Sample(None, ", ".join(f"{value:.3g}" for value in row)) for row in x]
    if x.ndim == 2 and math.isqrt(x.shape[1]) ** 2 != x.shape[1]:
        low, high, colors = scale_of(x)
        return [Sample(coloured(grid(row), size, alt, low, high, colors), "") for row, alt in zip(x, alts)]
    grey = in_grey(channels_first(model, x) if x.ndim == 4 else images_of(x, ""))
    return [Sample(picture(image, size, alt), "") for image, alt in zip(grey, alts)]


def channels_first(model, x: np.ndarray) -> np.ndarray:
    """Maps in the order (N, C, H, W), whatever the model's is."""
    if x.ndim != 4:
        return x
    return x.transpose(0, 3, 1, 2) if model.data_format == "channels_last" else x


def in_grey(images: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) for the eye, uint8: (N, H, W, 3) where C is 3, else the channels' mean (N, H, W)."""
    a = images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images.mean(axis=1)
    low, high = extremes(a)
    if images.dtype == np.uint8:
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    unit = (np.nan_to_num(a, nan=low) - low) / ((high - low) or 1.0)
    return (unit.clip(0, 1) * 255).round().astype(np.uint8)


def maps(a: np.ndarray, classes: int | None, alt: str) -> list[Picture]:
    """Maps (N, C, H, W) as images; of so many classes (N, H, W), where it is these, in the classes' colours."""
    if classes is None:
        return [picture(image, LOOK, alt) for image in in_grey(a)]
    return [coloured(one, LOOK, alt, 0, classes - 1, SEQUENTIAL) for one in a]


def grid(values: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Numbers (D,) row by row, in a square or so many a row; NaN where there are none left."""
    columns = columns or math.ceil(math.sqrt(len(values)))
    rows = math.ceil(len(values) / columns)
    out = np.full(rows * columns, np.nan)
    out[: len(values)] = values
    return out.reshape(rows, columns)


# -- what the network holds and makes ------------------------------------------------------------------------


def first_weights(model) -> tuple[str, list[Picture], int] | None:
    """The first layer's kernels, or its units' weights where inputs are long vectors: the layer's name,
    pictures, and how many more there are.
    """
    state = model.state_dict()
    for name, slot in model._named_slots():
        if slot.name != "weight" or len(slot.shape) not in (2, 4):
            continue
        w = state[name]
        if w.ndim == 2 and (len(model.input_shape) != 1 or w.shape[1] <= FEW):
            return None
        limit, side_by_side = largest(w), w.shape[1] if w.ndim == 4 and w.shape[1] <= IN_A_ROW else None
        drawn = [tiles(one, side_by_side) if w.ndim == 4 else grid(one) for one in w[:KERNELS]]
        pictures = [
            coloured(
                one,
                KERNEL if w.shape[1] == 1 else SAMPLE,
                f"weights {k} of {slot.layer.label}",
                -limit,
                limit,
                DIVERGING,
            )
            for k, one in enumerate(drawn)
        ]
        return slot.layer.label, pictures, len(w) - len(pictures)
    return None


def layer_views(model, x: np.ndarray) -> list[LayerView]:
    """What each layer makes of one sample x (1, ...)."""
    views: list[LayerView] = []
    before = channels_first(model, x)
    for layer, (name, y) in zip(model.layers, model.layer_outputs(x).items()):
        y = channels_first(model, y)
        same, before = y.shape == before.shape and bool((y == before).all()), y
        drawn = [] if same else _drawn(name, y[0])
        hidden = y.shape[1] - len(drawn) if drawn and y.ndim == 4 else 0
        shape = " × ".join(map(str, y.shape[1:]))
        views.append(LayerView(name, type(layer).__name__, shape, drawn, hidden, *extremes(y)))
    return views


def _drawn(name: str, values: np.ndarray) -> list[Picture]:
    """Some channels of maps (C, H, W), or all values of a vector (D,), on one scale of colours."""
    scale = scale_of(values)
    if values.ndim == 3:
        return [coloured(one, MAP, f"{name}, channel {c}", *scale) for c, one in enumerate(values[:CHANNELS])]
    strip = grid(values, min(STRIP, len(values)))
    return [coloured(strip, CELL * max(strip.shape), f"{name}, all values", *scale)]


def attention(model, x: np.ndarray, target: np.ndarray) -> list[list[Picture]]:
    """For each of a few images x what speaks for its class `target`: the slopes of its score by the pixels,
    and Grad-CAM where there is a convolution.
    """
    slopes = np.abs(channels_first(model, saliency(model, x, target)))
    slopes = slopes.max(axis=1) if slopes.ndim == 4 else slopes
    found = [[coloured(one, LOOK, "saliency", 0.0, largest(one), SEQUENTIAL)] for one in slopes]
    if any(isinstance(layer, Convolution) for layer in model.all_layers()):
        for pictures, one in zip(found, grad_cam(model, x, target)):
            pictures.append(coloured(one, LOOK, "Grad-CAM", 0.0, largest(one), SEQUENTIAL))
    return found


def shares(matrix: np.ndarray, size: int, alt: str) -> Picture:
    """Shares (K, K) as opacity, by their square roots, so that small ones show: fit for light and dark pages."""
    from PIL import Image
    from PIL.ImageColor import getrgb

    drawn = np.empty((*matrix.shape, 4), np.uint8)
    drawn[..., :3], drawn[..., 3] = getrgb(PALETTE[0]), (np.sqrt(matrix) * 255).round()
    return _stored(Image.fromarray(drawn), size, alt)


# -- plots ---------------------------------------------------------------------------------------------------


def regions(model, x: np.ndarray, true: np.ndarray, names: list[str]) -> Picture:
    """The plane in the classes' colours, with the samples x (N, 2) on it."""
    shown, classes = x[:POINTS], true[:POINTS]
    low, high = shown.min(axis=0), shown.max(axis=0)
    room = MARGIN * np.maximum(high - low, 1e-6)
    (x0, y0), (x1, y1) = low - room, high + room
    ax = figure(6.0, 4.6).add_subplot()
    plot_points(shown, classes, labels=names, ax=ax)
    plot_decision_regions(lambda points: probabilities_of(model, points)[0], (x0, x1, y0, y1), ax=ax)
    ax.set_aspect("auto")
    ax.set_title("")
    return plotted(ax.figure, "decision regions of the classes, with test samples")


@style()
def against_truth(predicted: np.ndarray, true: np.ndarray) -> list[Picture]:
    """Predictions over targets, (N, D) both, and how their differences are spread."""
    ax = figure(4.4, 3.6).add_subplot()
    every = max(1, len(true) // POINTS)
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    ax.plot(ends, ends, color="#999999", linewidth=1)
    for k in range(true.shape[1]):
        label = f"output {k}" if true.shape[1] > 1 else None
        ax.scatter(true[::every, k], predicted[::every, k], s=8, alpha=0.6, linewidths=0, label=label)
    if 1 < true.shape[1] <= len(PALETTE):
        ax.legend(loc="upper left")
    ax.set(xlabel="true", ylabel="predicted", title="Predicted by true")
    spread = figure(4.4, 3.6).add_subplot()
    spread.hist((predicted - true).reshape(-1), bins=BINS)
    spread.axvline(0, color="#999999", linewidth=1)
    spread.set(xlabel="predicted minus true", ylabel="samples", title="Differences")
    told = "predicted by true targets", "how often which difference occurs"
    return [plotted(one.figure, alt) for one, alt in zip((ax, spread), told)]
