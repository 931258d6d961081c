"""Which classes are taken for which."""

from __future__ import annotations

import numpy as np

from .style import axes_of, style

WRITTEN = 20  # with more classes than this the counts would not be legible


@style()
def plot_confusion_matrix(matrix, labels=None, ax=None):
    """How often class i (row) was called class j (column); the Axes.

    matrix: (K, K) counts, as metrics.ConfusionMatrix yields them.  labels: K names; 0 .. K-1 by default.  The
    shade is the share of the row, so that rare classes show as well as frequent ones.  Raises ValueError for
    another shape.
    """
    counts = np.asarray(matrix, dtype=float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(f"a confusion matrix is square. Received: shape {counts.shape}. Expected: (K, K)")
    K = len(counts)
    labels = list(range(K)) if labels is None else list(labels)
    if len(labels) != K:
        raise ValueError(f"each class needs one label. Received: {len(labels)} labels for {K} classes")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)

    side = min(2.2 + 0.45 * K, 10)
    ax = axes_of(ax, side + 0.6, side)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.spines[:].set_visible(False)
    if K <= WRITTEN:
        for i, j in np.ndindex(K, K):
            color = "white" if shares[i, j] > 0.5 else "black" if counts[i, j] else "#BBBBBB"
            ax.text(j, i, f"{counts[i, j]:g}", ha="center", va="center", color=color, fontsize=9)
        slanted = max(len(str(label)) for label in labels) > 3
        ax.set_xticks(range(K), labels, rotation=45 if slanted else 0, ha="right" if slanted else "center")
        ax.set_yticks(range(K), labels)
    right = np.trace(counts) / counts.sum() if counts.sum() else 0.0
    ax.set_title(f"Confusion matrix: {right:.2%} right")
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    ax.figure.colorbar(image, ax=ax, label="share of the row", shrink=0.8)
    return ax
