"""Images side by side: samples, kernels, and the feature maps that kernels make of samples."""

from __future__ import annotations

import math

import numpy as np

from ..data.arrays import as_array
from ..errors import ShapeError
from ..training.inputs import whole
from .style import DIVERGING, GREY, SEQUENTIAL, figure, style

CELL = 1.45  # inches of an image
ROW = 8  # images side by side, at most, unless columns says otherwise or they are very many
MANY = 64  # above, the grid grows in both directions
WIDEST = 16  # inches of a figure; the images of a wider one are drawn smaller
ENLARGED = 4  # pixels a side that a number fills, where images are put together
LEGIBLE = 0.8  # inches that an image needs for a title


@style()
def plot_images(images, titles=None, columns: int | None = None, fig=None) -> np.ndarray:
    """Images in rows; their Axes, (N,).

    images: (N, H, W) or (N, 1, H, W) in grey, (N, 3, H, W) in colour; one scale of brightness for all.
    titles: one for each.  columns: how many in a row.  Raises ValueError for another shape.
    """
    a = images_of(images)
    a = a[:, 0] if a.shape[1] == 1 else a.transpose(0, 2, 3, 1)
    low, high = extremes(a)
    if a.ndim == 4 and a.dtype != np.uint8:
        low, high = min(low, 0.0), max(high, 1.0)  # as it is where it lies in [0, 1]
        a = np.nan_to_num((a - low) / (high - low), nan=0.5)
    elif low == high:
        low, high = min(low, 0.0), max(high, 1.0)
    axes, _ = _grid(list(a), titles, columns, fig, GREY, low, high)
    return axes


@style()
def plot_kernels(layer_or_weights, titles=None, columns: int | None = None, fig=None) -> np.ndarray:
    """The kernels of a convolution, red above 0 and blue below; an Axes for each filter, (F,).

    layer_or_weights: a Conv2D of a built model, or weights (F, C, KH, KW) as `state_dict` has them.  A
    filter's C kernels stand beside one another.  One colour scale for all.  titles: one for each filter.
    columns: how many in a row.
    """
    w = _kernels(layer_or_weights)
    titles = [f"kernel {f}" for f in range(len(w))] if titles is None else titles
    limit = largest(w)
    axes, image = _grid([tiles(kernels) for kernels in w], titles, columns, fig, DIVERGING, -limit, limit)
    colour_bar(image, axes, "weight")
    return axes


@style()
def plot_feature_maps(
    maps, titles=None, columns: int | None = None, fig=None, *, x=None, layer=None
) -> np.ndarray:
    """The channels of one sample's feature map; an Axes for each, (C,).

        plot_feature_maps(maps)                        (C, H, W) or (1, C, H, W)
        plot_feature_maps(model, x=image, layer=name)  what a layer makes of one sample

    x: in the model's input shape, with or without the batch's axis in front.  layer: its name, its place in
    `model.layers`, or itself; by default the first that yields maps.  One colour scale for all: from 0 up
    where nothing is negative, else red above 0 and blue below.  titles: one for each.  columns: how many in a
    row.

    Raises ValueError where maps are not those of one sample, TypeError where x comes without a model.
    """
    name = None
    if hasattr(maps, "layer_outputs"):
        maps, name = _maps_of(maps, x, layer)
    elif x is not None or layer is not None:
        raise TypeError(
            f"x and layer go with a model. Received: {type(maps).__name__} before them. Expected: "
            "plot_feature_maps(model, x=image, layer=name), or the maps alone"
        )
    a = np.asarray(maps, dtype=float)
    if a.ndim == 4 and len(a) == 1:
        a = a[0]
    if a.ndim != 3 or not a.size:
        raise ValueError(f"maps must be those of one sample, (C, H, W). Received: {a.shape}")
    titles = [f"map {c}" for c in range(len(a))] if titles is None else titles
    low, high, colors = scale_of(a)
    axes, image = _grid(list(a), titles, columns, fig, colors, low, high)
    colour_bar(image, axes, "value")
    if name is not None:
        axes[0].figure.suptitle(f"{name}: {' x '.join(map(str, a.shape))}")
    return axes


def images_of(x, data_format: str | None = None) -> np.ndarray:
    """Samples as images (N, C, H, W), C 1 or 3: (N, H, W) gets its channel axis; vectors (N, D) of a model
    become squares, where D is one.
    """
    a = as_array(x, "the images")
    if a.ndim == 2 and math.isqrt(a.shape[1]) ** 2 == a.shape[1] and data_format is not None:
        a = a.reshape(len(a), math.isqrt(a.shape[1]), -1)
    if a.ndim == 3:
        a = a[:, None]
    elif a.ndim == 4 and data_format == "channels_last":
        a = a.transpose(0, 3, 1, 2)
    if a.ndim != 4 or a.shape[1] not in (1, 3) or not a.size or a.dtype.kind not in "biuf":
        raise ShapeError(
            f"images must be (N, H, W), (N, 1, H, W) or (N, 3, H, W). Received: {np.shape(x)}, dtype "
            f"{a.dtype}. plot_feature_maps shows any number of channels"
        )
    return a if a.dtype.kind != "b" else a.astype(np.uint8)


def one_sample(model, x):
    """x as a batch of one sample, where it is one."""
    shape = model.input_shape
    x = np.asarray(x)
    x = x[None] if x.shape == shape else x
    if x.shape[1:] == shape and len(x) != 1:
        raise ShapeError(f"one sample can be shown at a time. Received: {len(x)}. Expected: x[:1], say")
    return x


def _maps_of(model, x, layer) -> tuple[np.ndarray, str]:
    """A layer's maps (C, H, W) of one sample, and the layer's name."""
    if x is None:
        raise TypeError("plot_feature_maps(model) needs the sample to show: x=image")
    found = layer_with_maps(model, layer, "the first layer that yields maps")
    maps = model.layer_outputs(one_sample(model, x))[found.label][0]
    return maps.transpose(2, 0, 1) if model.data_format == "channels_last" else maps, found.label


def layer_with_maps(model, layer, default: str, pick=lambda found: found[0]):
    """A layer of the model that yields maps: the one named, placed or given, or what pick takes of all."""
    found = [one for one in model._need_built().layers if len(one.out_shape) == 3]
    expected = ", ".join(repr(one.label) for one in found)
    if not found:
        raise ShapeError(
            f"no layer of this model yields maps. Received: {model!r}. Expected: one with a convolution, say"
        )
    if layer is None:
        return pick(found)
    if isinstance(layer, str):
        layer = model.get_layer(layer)
    elif isinstance(layer, (int, np.integer)) and not isinstance(layer, bool):
        layer = model.get_layer(index=int(layer))
    if not any(layer is one for one in found):
        inside = any(layer is one for one in model.all_layers()) and layer not in model.layers
        raise ShapeError(
            f"layer {getattr(layer, 'label', layer)!r} "
            + ("stands inside another" if inside else "yields no maps of this model's")
            + f". Received: {layer!r}. Expected: one of {expected}; or none, for {default}"
        )
    return layer


def _kernels(layer_or_weights) -> np.ndarray:
    """Weights in their conventional shape (F, C, KH, KW), on the host."""
    w, slots = layer_or_weights, getattr(layer_or_weights, "slots", None)
    if slots is not None:
        found = [slot for slot in slots if slot.name == "weight"]
        if not found:
            raise ValueError(
                f"the layer has no weights to show. Received: {w!r}. Expected: a Conv2D of a built model"
            )
        w = np.transpose(w.ops.to_host(w.weight), np.argsort(found[0].order))
    w = np.asarray(w, dtype=float)
    if w.ndim != 4 or not w.size:
        raise ValueError(f"kernels must be (F, C, KH, KW). Received: {w.shape}. Expected: those of a Conv2D")
    return w


def extremes(a) -> tuple[float, float]:
    """The smallest and the largest number of a; 0 and 1 where there is none."""
    a = np.asarray(a)
    numbers = a[np.isfinite(a)]
    return (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)


def largest(a) -> float:
    """The largest magnitude in a; 1 where there is none."""
    return max(map(abs, extremes(a))) or 1.0


def scale_of(a) -> tuple[float, float, str]:
    """The ends of a colour scale for values, and its colours: from 0 up, or either side of it."""
    signed, limit = extremes(a)[0] < 0, largest(a)
    return (-limit, limit, DIVERGING) if signed else (0.0, limit, SEQUENTIAL)


def colour_bar(image, axes, label: str) -> None:
    figure = np.ravel(axes)[0].figure
    figure.colorbar(image, ax=list(np.ravel(axes)), label=label, fraction=0.05, aspect=12)


def tiles(a: np.ndarray, columns: int | None = None) -> np.ndarray:
    """(C, H, W) -> one image with the C about in a square, or so many a row, thin blank lines between them.

    Each number fills ENLARGED x ENLARGED pixels, so that a line is thinner than a pixel of a.
    """
    C, H, W = a.shape
    columns = columns or math.ceil(math.sqrt(C))
    height, width = H * ENLARGED + 1, W * ENLARGED + 1
    out = np.full((math.ceil(C / columns) * height - 1, columns * width - 1), np.nan)
    for c, one in enumerate(a.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)):
        top, left = c // columns * height, c % columns * width
        out[top : top + height - 1, left : left + width - 1] = one
    return out


def bare(ax) -> None:
    """An image's Axes: a frame, and no ticks."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)


def colours(name: str):
    """matplotlib's colours of that name, with grey for what is no number."""
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad="#D0D0D0")


def _grid(images, titles, columns, fig, cmap, low, high):
    """Axes (N,), one for each image, without ticks; and an image, for the colour bar."""
    N = len(images)
    if titles is not None and len(titles) != N:
        raise ValueError(f"each image needs one title. Received: {len(titles)} titles for {N} images")
    if columns is None:
        columns = math.ceil(N / math.ceil(N / ROW)) if N <= MANY else math.ceil(math.sqrt(N))
    columns = min(whole("columns", columns, 1), N)
    rows = math.ceil(N / columns)
    cell = min(CELL, WIDEST / columns)
    if titles is not None and cell < LEGIBLE:
        titles = None
    if fig is None:
        H, W = images[0].shape[:2]
        lines = 0 if titles is None else 1 + max(str(title).count("\n") for title in titles)
        height = cell * min(max(H / W, 0.3), 3) + 0.12 + 0.18 * lines
        fig = figure(columns * cell + 1.0, rows * height + 0.4)
    axes = np.empty(N, dtype=object)
    for i, image in enumerate(images):
        axes[i] = ax = fig.add_subplot(rows, columns, i + 1)
        masked = image if image.ndim == 3 else np.ma.masked_invalid(image)
        drawn = ax.imshow(masked, cmap=colours(cmap), vmin=low, vmax=high, interpolation="nearest")
        bare(ax)
        if titles is not None:
            ax.set_title(titles[i], loc="center", fontsize=9, fontweight="normal")
    return axes, drawn
