"""Plots of the report: a large confusion matrix, decision regions, a regression's errors."""

from __future__ import annotations

import io

import numpy as np

from ..answers import probabilities_of
from ..regions import plot_decision_regions, plot_points
from ..style import PALETTE, figure, style
from .pictures import Picture, address, stored

POINTS = 600  # scattered over decision regions and beside the diagonal
DPI = 120  # of matplotlib's figures
BINS = 40  # of the histogram of differences
MARGIN = 0.08  # of the plane around the points


@style()
def plotted(drawn, alt: str) -> Picture:
    """A figure of matplotlib's."""
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=DPI)
    width, height = (round(side * 96) for side in drawn.get_size_inches())
    return Picture(address(file.getvalue(), "png"), width, height, alt, False)


def shares(matrix: np.ndarray, size: int, alt: str) -> Picture:
    """Shares (K, K) as opacity, for light and dark pages, by their square roots, so that small ones show."""
    from PIL import Image
    from PIL.ImageColor import getrgb

    drawn = np.empty((*matrix.shape, 4), np.uint8)
    drawn[..., :3], drawn[..., 3] = getrgb(PALETTE[0]), (np.sqrt(matrix) * 255).round()
    return stored(Image.fromarray(drawn), size, alt)


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
