"""The loss of a model on a plane through its weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..layers import BatchNormalization, GroupNormalization, LayerNormalization
from ..training.inputs import whole
from .answers import network
from .descent import draw_levels
from .style import PALETTE, SEQUENTIAL, axes_of, figure, style

ROOM = 0.2  # of a path's extent, around it
NORMALIZATION = (BatchNormalization, GroupNormalization, LayerNormalization)


@dataclass(frozen=True)
class LossSurface:
    """The losses (len(b), len(a)) at weights w + a d1 + b d2, and the path walked there, (T, 2), if known.

    shares: how much of the way d1 and d2 hold each, of the squared distances from its end; None without a
    path.
    """

    a: np.ndarray
    b: np.ndarray
    losses: np.ndarray
    path: np.ndarray | None = None
    shares: tuple[float, float] | None = None


def loss_surface(
    model,
    x,
    y,
    history=None,
    *,
    span: float = 1.0,
    resolution: int = 21,
    seed: int = 0,
    batch_size: int | None = None,
) -> LossSurface:
    """The loss of (x, y) on a plane through a model's trainable parameters, in inference; the model stays as
    it is.

    Without a history the plane is spanned by two random directions d from the model's weights, each filter
    (or unit) of d as long as that of the weights, biases and normalization left alone: Li et al., 2018,
    section 4.  It reaches from -span to span both ways; seed: of the directions.

    history: a `callbacks.WeightHistory` of all layers, filled by fit.  The plane then goes through its last
    moment along the two main directions of the way there (section 7.2), and reaches around the path.

    x (N, ...), y: as in `Sequential.fit`.  resolution: points along each side, so that the model is evaluated
    resolution^2 times.  batch_size: samples at once.  Running statistics
    of BatchNormalization stay those of the model.

    Raises NotCompiledError before `compile`, ValueError for a span that is not positive and for a model
    without trainable parameters.
    """
    resolution = whole("resolution", resolution, 3)
    if isinstance(span, bool) or not 0 < span < np.inf:
        raise ValueError(f"span must be a positive number. Received: {span!r}")
    network(model)._need_compiled()
    slots = {
        name: slot
        for name, slot in model._named_slots()
        if slot in model.params.slots and slot.layer.is_trainable
    }
    if not slots:
        raise ValueError("the model has no trainable parameters, and so its loss no surface")
    state = model.state_dict()
    if history is None:
        centre = {name: state[name].astype(float) for name in slots}
        rng = np.random.default_rng(seed)
        directions = [_random(centre, slots, rng) for _ in range(2)]
        a = b = np.linspace(-span, span, resolution)
        path = shares = None
    else:
        centre, directions, path, shares = _along(history, slots)
        a, b = (_reach(line, resolution) for line in path.T)
    twin = copy.deepcopy(model)
    losses = np.empty((len(b), len(a)))
    with np.errstate(all="ignore"):
        for row, column in np.ndindex(losses.shape):
            moved = {
                name: w + a[column] * directions[0][name] + b[row] * directions[1][name]
                for name, w in centre.items()
            }
            twin.load_state_dict(moved, strict=False)
            losses[row, column] = twin.evaluate(x, y, batch_size, return_dict=True)["loss"]
    return LossSurface(a, b, losses, path, shares)


@style()
def plot_loss_surface(surface, projection: str | None = None, ax=None):
    """A `loss_surface` as contours, the lowest loss dark, with the path walked, if it is known; the Axes.

    surface: what that returned.  projection: "3d" for a relief instead.  Raises TypeError for another
    surface, ValueError for another projection.
    """
    if not isinstance(surface, LossSurface):
        raise TypeError(
            f"surface must be what loss_surface returned. Received: {type(surface).__name__}. Expected: "
            "viz.plot_loss_surface(viz.loss_surface(model, x, y))"
        )
    if projection not in (None, "3d"):
        raise ValueError(f"projection must be None or '3d'. Received: {projection!r}")
    z = np.where(np.isfinite(surface.losses), surface.losses, np.nan)
    ax = (_contours if projection is None else _relief)(ax, surface, z)
    names = ["direction 1", "direction 2"]
    if surface.shares is not None:
        names = [f"{name}, {share:.0%} of the way" for name, share in zip(names, surface.shares)]
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    ax.set_title("Loss on a plane through the weights")
    return ax


def _contours(ax, surface: LossSurface, z):
    ax = axes_of(ax, 6.4, 4.8)
    shades = draw_levels(ax, surface.a, surface.b, z)
    if shades is not None:
        bar = ax.figure.colorbar(shades, ax=ax, label="loss")
        bar.set_ticks(shades.levels[:: max(1, len(shades.levels) // 8)])
        bar.ax.yaxis.set_major_formatter("{x:.3g}")
        bar.ax.minorticks_off()
    way, end = surface.path, "end"
    if way is None:
        way, end = np.zeros((1, 2)), "the model"
    else:
        ax.plot(*way.T, ".-", color=PALETTE[1], linewidth=1.3, markersize=5, label="the way there")
        ax.plot(*way[0], "o", markersize=9, markerfacecolor="none", markeredgecolor="black", label="start")
    ax.plot(*way[-1], "*", color=PALETTE[1], markersize=13, markeredgecolor="white", label=end)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    return ax


def _relief(ax, surface: LossSurface, z):
    from matplotlib.ticker import MaxNLocator

    ax = figure(6.4, 5.0).add_subplot(projection="3d") if ax is None else ax
    if ax.name != "3d":
        raise ValueError(
            f"a relief needs Axes of three dimensions. Received: {ax.name!r}. Expected: "
            'figure.add_subplot(projection="3d")'
        )
    plane = np.meshgrid(surface.a, surface.b)
    ax.plot_surface(*plane, z, cmap=SEQUENTIAL, linewidth=0.2, edgecolor="#55555555")
    ax.set_zlabel("loss", labelpad=8)
    ax.set_box_aspect(None, zoom=0.9)  # or its labels would be cut
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    return ax


def _random(weights: dict[str, np.ndarray], slots: dict[str, Any], rng) -> dict[str, np.ndarray]:
    """A direction, each of whose filters is as long as that of the weights; none for biases and
    normalization.
    """
    direction = {}
    for name, w in weights.items():
        d, axes = rng.standard_normal(w.shape), tuple(range(1, w.ndim))
        if axes and not isinstance(slots[name].layer, NORMALIZATION):
            direction[name] = d * _length(w, axes) / _length(d, axes)
        else:
            direction[name] = np.zeros(w.shape)
    return direction


def _length(a: np.ndarray, axes) -> np.ndarray:
    return np.sqrt((a * a).sum(axis=axes, keepdims=True))


def _along(history, slots: dict[str, Any]):
    """The last weights of a history, the two main directions of its way there, the way in them (T, 2), and
    how much of it they hold.
    """
    weights = getattr(history, "weights", None)
    if not isinstance(weights, dict) or not hasattr(history, "moments"):
        raise TypeError(f"history must be a callbacks.WeightHistory. Received: {history!r}")
    missing = [name for name, slot in slots.items() if weights.get(name, np.empty(0)).shape[1:] != slot.shape]
    if missing:
        raise ValueError(
            f"the history is not that of all this model's parameters. Received: {history!r}. Expected: "
            f"{', '.join(missing)} too, as WeightHistory() without layer= keeps them"
        )
    T = len(history)
    flat = np.concatenate([weights[name].reshape(T, -1).astype(float) for name in slots], axis=1)
    way = flat - flat[-1]
    _, sizes, lines = np.linalg.svd(way, full_matrices=False)
    if T < 3 or not sizes[1] > 1e-9 * sizes[0]:
        raise ValueError(
            f"two directions need a way that turns. Received: {history!r}. Expected: at least 3 moments at "
            "different weights; a smaller save_freq makes more of them"
        )
    pieces = np.split(lines[:2], np.cumsum([slot.size for slot in slots.values()])[:-1], axis=1)
    directions = [
        {name: piece[i].reshape(slot.shape) for (name, slot), piece in zip(slots.items(), pieces)}
        for i in (0, 1)
    ]
    shares = tuple(float(share) for share in (sizes**2 / (sizes**2).sum())[:2])
    centre = {name: weights[name][-1].astype(float) for name in slots}
    return centre, directions, way @ lines[:2].T, shares


def _reach(line: np.ndarray, resolution: int) -> np.ndarray:
    low, high = line.min(), line.max()
    room = ROOM * (high - low)
    return np.linspace(low - room, high + room, resolution)
