"""One sample on its way through all layers of a model."""

from __future__ import annotations

import numpy as np

from ..training.inputs import whole
from .answers import names_of, network
from .grids import bare, colours, extremes, images_of, one_sample, scale_of, tiles
from .style import GREY, PALETTE, figure, style

BARS = 40  # up to so many numbers of a vector are bars, more are a strip of colours


@style()
def plot_layers(model, x, labels=None, maps: int = 8, fig=None) -> np.ndarray:
    """What every layer makes of one sample, from top to bottom; the Axes, the sample's first, (1 + layers,).

    x: in the model's input shape, with or without the batch's axis in front.  labels: names of what the last
    layer's outputs stand for.  maps: so many of each layer's, at most.  Maps stand side by side on a scale of
    their layer's own, grey lines between them; vectors are bars, or a strip of colours where they are long.
    """
    maps = whole("maps", maps, 1)
    x = one_sample(network(model), x)
    last = model.data_format == "channels_last"
    stages = [("x", x[0]), *((name, a[0]) for name, a in model.layer_outputs(x).items())]
    arrays = [
        a.transpose(2, 0, 1) if a.ndim == 3 and last else a[None] if a.ndim == 2 else a for _, a in stages
    ]
    heights = [1.15 if a.ndim == 3 else 0.35 if len(a) > BARS else 0.8 for a in arrays]
    if fig is None:
        fig = figure(8.0, sum(heights) + 0.42 * len(arrays) + 0.3)
    grid = fig.add_gridspec(len(arrays), 1, height_ratios=heights)
    axes = np.empty(len(arrays), dtype=object)
    for i, ((name, _), a) in enumerate(zip(stages, arrays)):
        axes[i] = ax = fig.add_subplot(grid[i])
        if i == 0 and a.ndim == 3 and len(a) in (1, 3):
            _image(ax, a)
        elif a.ndim == 3:
            _maps(ax, a[:maps])
        elif len(a) > BARS:
            _strip(ax, a)
        else:
            _bars(ax, a, labels if i == len(arrays) - 1 else None)
        ax.set_title(_title(name, a, maps if i else None), loc="left", fontsize=9, fontweight="normal")
    axes[0].figure.suptitle("One sample on its way through the layers")
    return axes


def _image(ax, a: np.ndarray) -> None:
    low, high = extremes(a)
    shown = images_of(a[None])[0]
    shown = (
        shown[0] if len(shown) == 1 else np.clip((shown - low) / ((high - low) or 1), 0, 1).transpose(1, 2, 0)
    )
    ax.imshow(shown, cmap=GREY, vmin=low, vmax=high if high > low else low + 1)
    ax.set_anchor("W")
    bare(ax)


def _maps(ax, a: np.ndarray) -> None:
    low, high, name = scale_of(a)
    ax.imshow(tiles(a, len(a)), cmap=colours(name), vmin=low, vmax=high, interpolation="nearest")
    ax.set_anchor("W")
    bare(ax)


def _strip(ax, a: np.ndarray) -> None:
    low, high, name = scale_of(a)
    ax.imshow(np.ma.masked_invalid(a[None]), cmap=colours(name), vmin=low, vmax=high, aspect="auto")
    bare(ax)


def _bars(ax, a: np.ndarray, labels) -> None:
    ax.bar(range(len(a)), np.where(np.isfinite(a), a, 0), color=[PALETTE[int(v < 0)] for v in a])
    ax.axhline(0, color="#555555", linewidth=0.8)
    ax.margins(x=0.01)
    if labels is not None:
        names = names_of(labels, range(len(a)))
        slanted = max(map(len, names)) * len(names) > 60
        ax.set_xticks(
            range(len(a)),
            names,
            fontsize=8,
            rotation=30 if slanted else 0,
            ha="right" if slanted else "center",
        )
    elif len(a) <= BARS // 2:
        ax.set_xticks(range(len(a)))
    ax.tick_params(labelsize=8)


def _title(name: str, a: np.ndarray, maps: int | None) -> str:
    """The layer, the shape of its output, and the range of its numbers."""
    low, high = extremes(a)
    shown = f", {maps} of them shown" if a.ndim == 3 and maps is not None and len(a) > maps else ""
    return f"{name}   {' x '.join(map(str, a.shape))}{shown}, from {low:.3g} to {high:.3g}"
