"""How kernels came about."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import unknown
from ..training.inputs import whole
from .animation import animate
from .grids import CELL, WIDEST, bare, colour_bar, colours, largest, tiles
from .style import DIVERGING, figure, style


@style()
def plot_kernel_evolution(history, layer=None, moments: int = 6, kernels: int = 8, fig=None) -> np.ndarray:
    """Kernels as training went: a row a moment, a column a kernel; their Axes, (moments, kernels).

    history: a `callbacks.WeightHistory` that a fit has filled.  layer: the name of a convolution in it, or of
    its weight in `state_dict`; by default the first.  moments: so many at most, evenly spread from the first
    to the last.  kernels: the first so many.  Red is above 0 and blue below, one scale for all.
    """
    w, name = _kernels_of(history, layer)
    rows = np.unique(
        np.linspace(0, len(w) - 1, min(whole("moments", moments, 2), len(w))).round().astype(int)
    )
    w = w[rows, : whole("kernels", kernels, 1)]
    T, F = w.shape[:2]
    limit = largest(w)
    cell = min(CELL * 0.75, WIDEST / F)
    fig = figure(F * cell + 2.2, T * cell + 0.7) if fig is None else fig
    axes = np.empty((T, F), dtype=object)
    for t, f in np.ndindex(T, F):
        axes[t, f] = ax = fig.add_subplot(T, F, t * F + f + 1)
        image = ax.imshow(tiles(w[t, f]), cmap=colours(DIVERGING), vmin=-limit, vmax=limit)
        bare(ax)
        if t == 0:
            ax.set_title(f"kernel {f}", loc="center", fontsize=9, fontweight="normal")
        if f == 0:
            ax.set_ylabel(history.moments[rows[t]], rotation=0, ha="right", va="center", fontsize=9)
    colour_bar(image, axes, "weight")
    axes[0, 0].figure.suptitle(f"How the kernels of {name} came about")
    return axes


@style()
def animate_kernels(history, path, layer=None, kernels: int = 64, fps: int = 5) -> Path:
    """A GIF of kernels as training went, a frame a moment; its path.

    history, layer, kernels: as in `plot_kernel_evolution`.  fps: moments a second.
    """
    w, name = _kernels_of(history, layer)
    w = w[:, : whole("kernels", kernels, 1)]
    T, F = w.shape[:2]
    columns = int(np.ceil(np.sqrt(F * 1.6)))
    rows = -(-F // columns)
    limit = largest(w)
    fig = figure(min(columns * CELL * 0.75, 9) + 1.4, min(rows * CELL * 0.8, 9) + 0.7)
    images = []
    for f in range(F):
        ax = fig.add_subplot(rows, columns, f + 1)
        images.append(ax.imshow(tiles(w[0, f]), cmap=colours(DIVERGING), vmin=-limit, vmax=limit))
        bare(ax)
    colour_bar(images[0], fig.axes, "weight")

    def draw(t: int) -> None:
        fig.suptitle(f"Kernels of {name}, {history.moments[t]}")
        for f, image in enumerate(images):
            image.set_data(tiles(w[t, f]))

    return animate(fig, draw, range(T), path, fps)


def _kernels_of(history, layer) -> tuple[np.ndarray, str]:
    """Kernels at all moments (T, F, C, KH, KW), and the name of their layer."""
    if not hasattr(history, "moments") or not hasattr(history, "weights"):
        raise TypeError(
            f"history must be a callbacks.WeightHistory. Received: {history!r}. Expected: what "
            "model.fit(..., callbacks=[history]) has filled"
        )
    found = {name: w for name, w in history.weights.items() if w.ndim == 5}
    if not found:
        raise ValueError(
            f"there are no kernels to show. Received: {history!r}. Expected: a history that fit has filled, "
            "of a model with a convolution"
        )
    label = getattr(layer, "label", layer)
    for name, w in found.items():
        if label is None or label in (name, history.layers[name]):
            return w, history.layers[name]
    raise unknown("layer with kernels", label, [history.layers[name] for name in found])
