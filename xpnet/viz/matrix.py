"""Which classes are taken for which."""

from __future__ import annotations

import numpy as np

from ..data.arrays import as_array
from ..errors import ShapeError
from .answers import class_numbers, names_of, probabilities_of
from .style import axes_of, style

WRITTEN = 20  # with more classes than this the counts would not be legible
NAMED = 60  # nor, with more than this, the classes


@style()
def plot_confusion_matrix(*of, labels=None, ax=None):
    """How often class i (row) was called class j (column); the Axes.

        plot_confusion_matrix(counts)           (K, K), as metrics.ConfusionMatrix yields them
        plot_confusion_matrix(y_true, y_pred)   classes, as in scikit-learn; or rows, whose largest counts
        plot_confusion_matrix(model, x, y)      what a model, or a classifier of scikit-learn, makes of x

    labels: names of the classes; by default the classes themselves, or 0 .. K-1.  The shade is the share of
    the row, so that rare classes show as well as frequent ones.  Raises ValueError for other shapes, and for
    classes that the model does not know.
    """
    counts, classes = _counted(of, labels)
    K = len(counts)
    names = names_of(labels, classes)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)

    side = min(2.8 + 0.45 * K, 12)
    ax = axes_of(ax, side + 0.8, side)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.spines[:].set_visible(False)
    if K <= WRITTEN:
        for i, j in np.ndindex(K, K):
            color = "white" if shares[i, j] > 0.5 else "black" if counts[i, j] else "#BBBBBB"
            ax.text(j, i, f"{counts[i, j]:g}", ha="center", va="center", color=color, fontsize=9)
    if K <= NAMED:
        size = 10 if K <= WRITTEN else 7
        slanted = max(map(len, names)) > 3
        ax.set_xticks(
            range(K), names, rotation=45 if slanted else 0, ha="right" if slanted else "center",
            rotation_mode="anchor" if slanted else "default", fontsize=size,
        )  # fmt: skip
        ax.set_yticks(range(K), names, fontsize=size)
    right = np.trace(counts) / counts.sum() if counts.sum() else 0.0
    ax.set_title(f"Confusion matrix: {right:.2%} right")
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    ax.figure.colorbar(image, ax=ax, label="share of the row", shrink=0.8, aspect=16 if K > 3 else 10)
    return ax


def _counted(of: tuple, labels) -> tuple[np.ndarray, np.ndarray]:
    """Counts (K, K) and the classes, from one of the three ways to tell them."""
    if len(of) == 1:
        return _checked(of[0])
    if len(of) == 2:
        true, predicted = (_called(answers) for answers in of)
        classes = _classes(true, predicted, labels)
        true, predicted = class_numbers(true, classes), class_numbers(predicted, classes)
    elif len(of) == 3:
        model, x, y = of
        p, classes = probabilities_of(model, x)
        true, predicted = class_numbers(y, classes), p.argmax(axis=1)
    else:
        raise TypeError(
            f"plot_confusion_matrix takes counts, or y_true and y_pred, or model, x and y. Received: "
            f"{len(of)} of them; labels and ax go by name"
        )
    if len(true) != len(predicted) or not len(true):
        raise ShapeError(
            f"each sample needs its class and its answer. Received: {len(true)} classes, {len(predicted)} "
            "answers. Expected: as many of both, and at least one"
        )
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (true, predicted), 1)
    return counts, classes


def _checked(counts) -> tuple[np.ndarray, np.ndarray]:
    counts = as_array(counts, "the counts").astype(float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(
            f"a confusion matrix is square. Received: shape {counts.shape}. Expected: (K, K); or y_true and "
            "y_pred, or model, x and y"
        )
    if not (np.isfinite(counts).all() and counts.min() >= 0):
        raise ValueError("counts must be finite and not negative. Received: others among them")
    return counts, np.arange(len(counts))


def _called(answers) -> np.ndarray:
    """Classes (N,), from classes or from a row of shares for each sample."""
    a = as_array(answers, "the classes")
    return a.argmax(axis=1) if a.ndim == 2 and a.shape[1] > 1 else a.reshape(-1)


def _classes(true: np.ndarray, predicted: np.ndarray, labels) -> np.ndarray:
    """All classes that were met, and those that labels name beside them."""
    words = [a.dtype.kind not in "biuf" for a in (true, predicted)]
    if words[0] != words[1]:
        raise ValueError(
            f"y_true and y_pred must name classes alike. Received: dtype {true.dtype} and {predicted.dtype}. "
            "Expected: numbers both, or words both; names of classes go to labels="
        )
    met = np.unique(np.concatenate([true, predicted]))
    if words[0] or not len(met):
        return met
    if (met != np.floor(met)).any():
        raise ValueError(
            f"y_true and y_pred must be classes. Received: {met[met != np.floor(met)][0]:g} among them. "
            "Expected: whole numbers; p > 0.5 makes them of probabilities of the second of two classes"
        )
    met = met.astype(int)
    named = 0 if labels is None else len(labels)
    return np.arange(named) if met[0] >= 0 and met[-1] < named else met
