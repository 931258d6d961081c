"""Where optimizers go on a surface of two numbers, which the eye can follow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import optimizers as families
from ..errors import unknown
from ..layers.base import Layer
from ..ops.numpy_ops import NumpyOps
from ..params import Params
from ..testing import numerical_gradient
from ..training.inputs import whole
from ..training.update import Update
from .animation import animate
from .regions import corners
from .style import MARKERS, PALETTE, axes_of, figure, style

LEVELS = 24  # contours, between which there is as much of the plane
FRAMES = 60  # of an animation, at most


class Surface(NamedTuple):
    """A loss of two numbers, f(x, y); where to begin, what to look at, and its lowest point, if any."""

    f: Callable
    start: tuple[float, float]
    extent: tuple[float, ...]
    minimum: tuple[float, float] | None


SURFACES = {
    # Beale, 1958
    "beale": Surface(
        lambda x, y: (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2,
        (1.0, 1.5), (-1, 4, -2, 2), (3, 0.5),
    ),
    # a long valley, narrow and curved: Rosenbrock, 1960
    "rosenbrock": Surface(
        lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2, (-1.5, 2.0), (-2, 2, -1, 3), (1, 1)
    ),
    # flat in the middle, where the slope is nothing and the loss not the least
    "saddle": Surface(lambda x, y: x**2 - y**2, (1.5, 0.01), (-2, 2, -2, 2), None),
    # a bowl twenty times as steep one way: Saito, "Deep Learning from Scratch", section 6.1
    "ravine": Surface(lambda x, y: x**2 / 20 + y**2, (-7.0, 2.0), (-8, 3, -3, 3), (0, 0)),
}  # fmt: skip


def optimizer_path(surface, optimizer, start=None, steps: int = 100, gradient=None) -> np.ndarray:
    """The points (steps + 1, 2) that an optimizer takes on its way down, from start; fewer where the loss or
    its gradient is no longer finite.

    surface: a function f(x, y) of two numbers, or "beale", "rosenbrock", "ravine", "saddle", which know a
    start.  optimizer: a name or an object, which stays as it is; a copy makes the very updates of `fit`, with
    clipping, decay and schedules, in float64.  gradient: a function of x and y that yields df/dx and df/dy;
    without it, by `xpnet.numerical_gradient`.
    """
    surface, start = _known(surface, start)
    steps = whole("steps", steps, 1)
    optimizer = copy.copy(families.get(optimizer))
    optimizer.iterations = optimizer.gathered = 0

    params = Params(0, NumpyOps(), np.float64)
    layer: Any = Layer()
    layer.ops = params.ops
    params.reserve(layer, "weight", (2,), "zeros")
    params.allocate()
    state = {name: np.full_like(params.values, optimizer.initial(name)) for name in optimizer.kept}
    update = Update(params, optimizer, state, 1)

    layer.weight[...] = start
    points = [np.array(start, float)]
    with np.errstate(all="ignore"):
        for _ in range(steps):
            layer.dweight[...] = _slope(surface.f, gradient, layer.weight)
            if not update([params.grads], _value(surface.f, *layer.weight)):
                break
            points.append(layer.weight.copy())
    path = np.array(points)
    return path[np.isfinite(path).all(axis=1)]


@style()
def plot_optimizer_paths(
    surface,
    optimizers,
    start=None,
    steps: int = 100,
    gradient=None,
    extent=None,
    resolution: int = 100,
    ax=None,
):
    """Contours of a loss of two numbers, and the paths of optimizers over it, from the start (a circle) to
    their ends; the Axes.

    surface, start, steps, gradient: as in `optimizer_path`.  optimizers: one, several, or {name: optimizer};
    names or objects.  extent: (low, high) of both axes, or (x low, x high, y low, y high); by default what
    the surface's name stands for, or what holds the paths.  resolution: points of the contours along each
    side.  The legend tells the loss at each end.
    """
    surface, paths, extent = _walked(surface, optimizers, start, steps, gradient, extent)
    ax = axes_of(ax, 7.2, 4.8)
    _contours(ax, surface, extent, resolution)
    pens = [_pen(ax, number) for number in range(len(paths))]
    for pen, path in zip(pens, paths.values()):
        _draw(pen, path)
    names = [f"{name}: {_ending(surface, path, steps)}" for name, path in paths.items()]
    _finish(ax, surface, pens, names, next(iter(paths.values()))[0])
    ax.set_title(f"Loss after {steps} step{'s' * (steps > 1)}")
    return ax


@style()
def animate_optimizer_paths(
    surface,
    optimizers,
    path,
    start=None,
    steps: int = 100,
    gradient=None,
    extent=None,
    resolution: int = 100,
    fps: int = 12,
) -> Path:
    """A GIF of the paths as they grow; its path.  fps: steps a second.  The other arguments are those
    of `plot_optimizer_paths`."""
    surface, paths, extent = _walked(surface, optimizers, start, steps, gradient, extent)
    fig = figure(7.2, 4.8)
    ax = fig.add_subplot()
    _contours(ax, surface, extent, resolution)
    pens = [_pen(ax, number) for number in range(len(paths))]
    _finish(ax, surface, pens, list(paths), next(iter(paths.values()))[0])

    def draw(step: int) -> None:
        ax.set_title(f"Step {step}")
        for pen, way in zip(pens, paths.values()):
            _draw(pen, way[: step + 1])

    moments = np.unique(np.linspace(0, steps, min(FRAMES, steps + 1)).round().astype(int))
    return animate(fig, draw, moments, path, fps)


def _known(surface, start) -> tuple[Surface, np.ndarray]:
    """The surface, and a start on it."""
    if isinstance(surface, str):
        if surface.lower() not in SURFACES:
            raise unknown("surface", surface, SURFACES)
        surface = SURFACES[surface.lower()]
    elif callable(surface):
        surface = Surface(surface, (np.nan, np.nan), (), None)
    elif not isinstance(surface, Surface):
        raise TypeError(
            f"surface must be a function of two numbers, or its name. Received: {surface!r}. Expected: "
            f"lambda x, y: x**2 + y**2, for instance, or one of {', '.join(SURFACES)}"
        )
    if start is None and not surface.extent:
        raise ValueError("a function of your own needs a start. Received: None. Expected: start=(x, y)")
    point = np.array(surface.start if start is None else start, dtype=float)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise ValueError(f"start must be two finite numbers. Received: {start!r}. Expected: (x, y)")
    if not np.isfinite(_value(surface.f, *point)):
        raise ValueError(
            f"the loss at the start is not finite. Received: {_value(surface.f, *point)} at {tuple(point)}. "
            "Expected: another start"
        )
    return surface, point


def _value(f, x, y) -> float:
    value = np.asarray(f(x, y))
    if value.size != 1 or value.dtype.kind not in "biuf":
        raise ValueError(
            "the surface must yield one number for x and y. Received: "
            + (f"shape {value.shape}" if value.size != 1 else repr(value.item()))
        )
    return float(value.reshape(()))


def _slope(f, gradient, point: np.ndarray) -> np.ndarray:
    if gradient is None:
        eps = 1e-4 * max(1.0, np.abs(point).max())  # which far away would be lost in rounding
        return numerical_gradient(lambda p: _value(f, *p), point.copy(), eps)
    slope = np.asarray(gradient(*point), dtype=float)
    if slope.shape != (2,):
        raise ValueError(
            f"gradient must yield df/dx and df/dy. Received: shape {slope.shape}. Expected: (2,)"
        )
    return slope


def _walked(surface, optimizers, start, steps, gradient, extent):
    """The surface, the paths by their names, and what of the plane is to be seen."""
    surface, start = _known(surface, start)
    paths = {
        name: optimizer_path(surface, one, start, steps, gradient) for name, one in _named(optimizers).items()
    }
    if extent is None:
        extent = surface.extent or _around(paths, steps)
    return surface, paths, corners(extent)


def _named(optimizers) -> dict[str, Any]:
    """Optimizers by what the legend calls them."""
    if isinstance(optimizers, dict):
        named = dict(optimizers)
    else:
        several = list(optimizers) if isinstance(optimizers, (list, tuple)) else [optimizers]
        named = {str(one).replace("learning_rate=", ""): one for one in several}
    if not named:
        raise ValueError("there is no optimizer to follow. Received: none. Expected: ['sgd', 'adam'], say")
    return named


def _around(paths: dict[str, np.ndarray], steps: int) -> tuple[float, ...]:
    """What holds the paths that came to an end, or else the starts, and something around them."""
    ended = [path for path in paths.values() if len(path) == steps + 1] or [
        path[:1] for path in paths.values()
    ]
    points = np.concatenate(ended)
    low, high = points.min(axis=0), points.max(axis=0)
    room = 0.25 * np.maximum(high - low, 0.2 * (high - low).max() or 1.0)
    (x0, y0), (x1, y1) = low - room, high + room
    return x0, x1, y0, y1


def _contours(ax, surface: Surface, extent, resolution: int) -> None:
    """The surface, seen from above."""
    resolution = whole("resolution", resolution, 2)
    x0, x1, y0, y1 = extent
    x, y = np.linspace(x0, x1, resolution), np.linspace(y0, y1, resolution)
    with np.errstate(all="ignore"):
        z = np.array([[_value(surface.f, a, b) for a in x] for b in y])
    draw_levels(ax, x, y, z)
    ax.set_xlim(x0, x1)
    ax.set_ylim(y0, y1)
    ax.set_xlabel("x")
    ax.set_ylabel("y")


def draw_levels(ax, x, y, z):
    """Shades and lines of equal z (rows y, columns x), LEVELS of them with as much of the plane between each;
    the shades, or None where z is the same everywhere.
    """
    from matplotlib.colors import BoundaryNorm

    finite = z[np.isfinite(z)]
    levels = np.unique(np.quantile(finite, np.linspace(0, 1, LEVELS + 1))) if finite.size else finite
    if len(levels) < 2:
        return None
    colors = {"cmap": "Blues_r", "norm": BoundaryNorm(levels, 256), "alpha": 0.6}
    masked = np.ma.masked_invalid(z)
    ax.contour(x, y, masked, levels=levels[1:-1], colors="#7788AA", linewidths=0.5, alpha=0.6)
    return ax.contourf(x, y, masked, levels=levels, **colors)


def _pen(ax, number: int):
    """A line for a path and a mark for its end."""
    color = PALETTE[number % len(PALETTE)]
    (line,) = ax.plot([], [], color=color, marker=".", markersize=3, linewidth=1.3)
    (end,) = ax.plot(
        [], [], color=color, marker=MARKERS[number % len(MARKERS)], markersize=8, markeredgecolor="white",
        linestyle="none", zorder=4,
    )  # fmt: skip
    return line, end


def _draw(pen, path: np.ndarray) -> None:
    line, end = pen
    line.set_data(*path.T)
    end.set_data(*path[-1:].T)


def _ending(surface: Surface, path: np.ndarray, steps: int) -> str:
    loss = _value(surface.f, *path[-1])
    return f"{loss:.3g}" if len(path) == steps + 1 else f"diverged after {len(path) - 1} steps"


def _finish(ax, surface: Surface, pens, names, start) -> None:
    """Start, lowest point and legend."""
    from matplotlib.legend_handler import HandlerTuple

    (begin,) = ax.plot(*start, "o", markersize=9, markerfacecolor="none", markeredgecolor="black", zorder=5)
    handles, labels = [begin, *pens], ["start", *names]
    if surface.minimum is not None:
        (lowest,) = ax.plot(*surface.minimum, "*", color="black", markersize=11, linestyle="none", zorder=3)
        handles, labels = [begin, lowest, *pens], ["start", "minimum", *names]
    ax.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), handler_map={tuple: HandlerTuple(None)}
    )
