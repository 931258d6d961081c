"""Images side by side: samples, kernels, and the feature maps that kernels make of samples."""

from __future__ import annotations

import math

import numpy as np

from .style import DIVERGING, GREY, SEQUENTIAL, figure, style

CELL = 1.45  # inches of an image
ROW = 8  # images side by side, at most, unless columns says otherwise


@style()
def plot_images(images, titles=None, columns: int | None = None, fig=None) -> np.ndarray:
    """Images in rows; their Axes, (N,).

    images: (N, H, W) or (N, 1, H, W) in grey, (N, 3, H, W) in colour; one scale of brightness for all.
    titles: one for each.  columns: how many in a row.  Raises ValueError for another shape.
    """
    a = np.asarray(images)
    if a.ndim not in (3, 4) or (a.ndim == 4 and a.shape[1] not in (1, 3)) or not a.size:
        raise ValueError(
            f"images must be (N, H, W), (N, 1, H, W) or (N, 3, H, W). Received: {a.shape}. "
            "plot_feature_maps shows any number of channels"
        )
    if a.ndim == 4:
        a = a[:, 0] if a.shape[1] == 1 else a.transpose(0, 2, 3, 1)
    if a.ndim == 4 and a.dtype != np.uint8:
        low, high = min(float(a.min()), 0.0), max(float(a.max()), 1.0)  # as it is where it lies in [0, 1]
        a = (a - low) / (high - low)
    axes, _ = _grid(list(a), titles, columns, fig, GREY, a.min(), a.max())
    return axes


@style()
def plot_kernels(layer_or_weights, titles=None, columns: int | None = None, fig=None) -> np.ndarray:
    """The kernels of a convolution, red above 0 and blue below; an Axes for each filter, (F,).

    layer_or_weights: a Conv2D of a built model, or weights (F, C, KH, KW) as `state_dict` has them.  A
    filter's C kernels stand beside one another.  One colour scale for all.
    """
    w = _kernels(layer_or_weights)
    titles = [f"kernel {f}" for f in range(len(w))] if titles is None else titles
    limit = float(np.nanmax(np.abs(w))) or 1.0
    axes, image = _grid([_tiles(kernels) for kernels in w], titles, columns, fig, DIVERGING, -limit, limit)
    axes[0].figure.colorbar(image, ax=list(axes), label="weight", fraction=0.05, aspect=12)
    return axes


@style()
def plot_feature_maps(maps, titles=None, columns: int | None = None, fig=None) -> np.ndarray:
    """The channels of one sample's feature map; an Axes for each, (C,).

    maps: (C, H, W) or (1, C, H, W).  One colour scale for all: from 0 up where nothing is negative, else red
    above 0 and blue below.
    """
    a = np.asarray(maps, dtype=float)
    if a.ndim == 4 and len(a) == 1:
        a = a[0]
    if a.ndim != 3 or not a.size:
        raise ValueError(f"maps must be those of one sample, (C, H, W). Received: {a.shape}")
    titles = [f"map {c}" for c in range(len(a))] if titles is None else titles
    limit = float(np.nanmax(np.abs(a))) or 1.0
    signed = bool((a < 0).any())
    axes, image = _grid(
        list(a), titles, columns, fig, DIVERGING if signed else SEQUENTIAL, -limit if signed else 0.0, limit
    )
    axes[0].figure.colorbar(image, ax=list(axes), label="value", fraction=0.05, aspect=12)
    return axes


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


def _tiles(a: np.ndarray) -> np.ndarray:
    """(C, H, W) -> one image with the C about in a square, and blank lines between them."""
    C, H, W = a.shape
    columns = math.ceil(math.sqrt(C))
    rows = math.ceil(C / columns)
    out = np.full((rows * (H + 1) - 1, columns * (W + 1) - 1), np.nan)
    for c in range(C):
        top, left = c // columns * (H + 1), c % columns * (W + 1)
        out[top : top + H, left : left + W] = a[c]
    return out


def _grid(images, titles, columns, fig, cmap, low, high):
    """Axes (N,), one for each image, without ticks; and an image, for the colour bar."""
    import matplotlib

    N = len(images)
    if titles is not None and len(titles) != N:
        raise ValueError(f"each image needs one title. Received: {len(titles)} titles for {N} images")
    if columns is None:
        columns = math.ceil(N / math.ceil(N / ROW))  # rows of even length
    rows = math.ceil(N / columns)
    if fig is None:
        H, W = images[0].shape[:2]
        fig = figure(columns * CELL + 1.0, rows * (CELL * min(max(H / W, 0.3), 3) + 0.3) + 0.2)
    colors = matplotlib.colormaps[cmap].with_extremes(bad="#D0D0D0")
    axes = np.empty(N, dtype=object)
    for i, image in enumerate(images):
        axes[i] = ax = fig.add_subplot(rows, columns, i + 1)
        drawn = ax.imshow(image, cmap=colors, vmin=low, vmax=high, interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(True)
        if titles is not None:
            ax.set_title(titles[i], loc="center", fontsize=9, fontweight="normal")
    return axes, drawn
