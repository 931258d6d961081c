"""What a network answers at every point of a plane."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .animation import animate, titled
from .answers import literal
from .style import MARKERS, PALETTE, axes_of, figure, style

STRENGTH = 0.65  # opacity of a region of certainty, so that the points on it stand out


def decision_regions(predict, extent=(-15, 15), resolution: int = 100) -> np.ndarray:
    """Class probabilities on a grid, (resolution, resolution, K): rows are y and columns x, both ascending.

    predict: a function of points (N, 2) that returns probabilities (N, K), or (N, 1) of the second of two
    classes, such as model.predict; called once with all points.  extent: (low, high) of both axes, or (x low,
    x high, y low, y high).  resolution: points along each side.  Raises TypeError where predict is no
    function, ValueError where what it returns is no such thing.
    """
    if not callable(predict) or hasattr(predict, "predict"):  # a model or an estimator itself
        raise TypeError(
            f"predict must be a function. Received: {predict!r}. Expected: model.predict, for instance"
        )
    x0, x1, y0, y1 = corners(extent)
    x, y = np.meshgrid(np.linspace(x0, x1, resolution), np.linspace(y0, y1, resolution))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    p = np.asarray(predict(points))
    if p.ndim == 1 and len(p) == len(points):
        p = p[:, None]
    if p.ndim != 2 or len(p) != len(points):
        raise ValueError(
            f"predict must give each point its probabilities. Received: shape {p.shape} for "
            f"{len(points)} points. Expected: (N, K)"
        )
    if p.shape[1] == 1:
        p = np.concatenate([1 - p, p], axis=1)
    if not (p.min() >= -1e-4 and np.abs(p.sum(axis=1) - 1).max() < 1e-3):
        sums = p.sum(axis=1)
        raise ValueError(
            f"predict must return probabilities. Received: values from {p.min():g} to {p.max():g}, rows that "
            f"sum to {sums.min():g} to {sums.max():g}. Expected: rows that sum to 1; end with a softmax"
        )
    return p.reshape(resolution, resolution, -1)


@style()
def plot_decision_regions(predict, extent=(-15, 15), resolution: int = 100, labels=None, ax=None):
    """The plane in the colours of the classes it would be given, the more opaque the surer; the Axes.

    predict: as in `decision_regions`, or what that returned.  An answer no better than chance is white.
    labels: names of the classes; "class 0" and so on by default.
    """
    from matplotlib.patches import Patch

    p = _grid(predict, extent, resolution)
    ax = axes_of(ax, 6.0, 5.0)
    _paint(ax, p, extent)
    ax.set_title("Decision regions")
    if ax.get_legend() is None:  # points that are there already have the better one
        patches = [Patch(color=_color(k), alpha=STRENGTH, label=_name(k, labels)) for k in range(p.shape[2])]
        _legend_beside(ax, patches)
    return ax


@style()
def plot_points(x, y, labels=None, ax=None):
    """A scatter of points x (N, 2) with a colour and a mark for each of their classes y (N,); the Axes.

    labels: names of the classes; "class 0" and so on by default.  Raises ValueError for other shapes.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"points must be x (N, 2) with classes y (N,). Received: {x.shape} and {y.shape}")
    ax = axes_of(ax, 6.0, 5.0)
    for k in np.unique(y).astype(int):
        ax.scatter(
            *x[y == k].T, s=18, color=_color(k), marker=MARKERS[k % len(MARKERS)],
            edgecolors="white", linewidths=0.5, label=_name(k, labels),
        )  # fmt: skip
    ax.set_aspect("equal")
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    _legend_beside(ax)
    return ax


@style()
def animate_decision_regions(
    frames: Iterable, path, extent=(-15, 15), *, points=None, titles=None, fps: int = 10
) -> Path:
    """A GIF of decision regions as they change; its path.

    frames: what `decision_regions` returned at different times, with the same extent.  points: x (N, 2) and y
    (N,) to scatter on top.  titles: one for each frame.  fps: frames a second.  The last frame stays for two
    seconds.  The file is written whole or not at all.  Raises ValueError for a frame that is nothing of the
    kind.
    """
    frames = list(frames)
    for frame in frames:
        if callable(frame) or np.ndim(frame) != 3:
            got = f"{frame!r}"[:80] if callable(frame) else f"an array of shape {np.shape(frame)}"
            raise ValueError(
                f"a frame is what decision_regions returned. Received: {got}. Expected: (R, R, K), such as "
                "decision_regions(model.predict, extent), kept at each moment of the training"
            )
    frames = [np.asarray(frame) for frame in frames]
    titles = titled(titles, len(frames))
    fig = figure(6.0, 5.0)
    ax = fig.add_subplot()
    if points is not None:
        plot_points(points[0], points[1], ax=ax)
    image = _paint(ax, frames[0], extent)

    def draw(frame):
        p, title = frame
        image.set_data(_colors(p))
        ax.set_title(title)

    return animate(fig, draw, zip(frames, titles), path, fps)


def _grid(predict, extent, resolution: int) -> np.ndarray:
    """Probabilities (R, R, K): those given, or predict's."""
    if callable(predict) or np.ndim(predict) != 3:
        return decision_regions(predict, extent, resolution)
    return np.asarray(predict)


def _paint(ax, p: np.ndarray, extent):
    """Draw probabilities p (R, R, K) under whatever is in ax; the image."""
    x0, x1, y0, y1 = corners(extent)
    dx, dy = (x1 - x0) / (p.shape[1] - 1) / 2, (y1 - y0) / (p.shape[0] - 1) / 2
    # each pixel's middle lies on its point of the grid, so the outer ones reach half a pixel further
    image = ax.imshow(
        _colors(p),
        extent=(x0 - dx, x1 + dx, y0 - dy, y1 + dy),
        origin="lower",
        interpolation="nearest",
        zorder=0,
    )
    ax.set_xlim(x0, x1)
    ax.set_ylim(y0, y1)
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    return image


def _colors(p: np.ndarray) -> np.ndarray:
    """Probabilities (..., K) -> RGBA (..., 4): the likeliest class's colour, clear at mere chance."""
    from matplotlib.colors import to_rgba_array

    K = p.shape[-1]
    colors = to_rgba_array([_color(k) for k in range(K)])[p.argmax(axis=-1)]
    chance = 1 / K if K > 1 else 0.0
    colors[..., 3] = STRENGTH * np.clip((p.max(axis=-1) - chance) / (1 - chance), 0, 1)
    return colors


def _color(k: int) -> str:
    return PALETTE[k % len(PALETTE)]


def _name(k: int, labels) -> str:
    return f"class {k}" if labels is None else literal(labels[k])


def _legend_beside(ax, handles=None) -> None:
    """A legend to the right of the picture, where it hides nothing."""
    more = {} if handles is None else {"handles": handles}
    ax.legend(**more, loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.4)


def corners(extent) -> tuple[float, ...]:
    corners = tuple(float(value) for value in extent)
    if len(corners) == 2:
        corners *= 2
    if len(corners) != 4 or not (
        all(map(math.isfinite, corners)) and corners[0] < corners[1] and corners[2] < corners[3]
    ):
        raise ValueError(
            f"extent must be (low, high) or (x low, x high, y low, y high). Received: {extent!r}"
        )
    return corners
