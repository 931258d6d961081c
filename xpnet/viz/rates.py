"""What a learning-rate range test measured."""

from __future__ import annotations

from .style import PALETTE, axes_of, style


@style()
def plot_rates(curve, ax=None):
    """Loss by learning rate (logarithmic), as measured and smoothed, and the rate suggested; the Axes.

    curve: what `find_learning_rate` returned.
    """
    import numpy as np

    ax = axes_of(ax, 6.4, 4.0)
    ax.plot(curve.rates, curve.losses, color=PALETTE[6], linewidth=1, alpha=0.6, label="of each batch")
    ax.plot(curve.rates, curve.smoothed, color=PALETTE[0], label="smoothed")
    ax.axvline(curve.suggestion, color=PALETTE[1], linestyle="--", label=f"suggested: {curve.suggestion:.2g}")
    ax.set_xscale("log")
    low, high = np.min(curve.losses), np.max(curve.smoothed[: np.argmin(curve.smoothed) + 1])
    room = 0.15 * (high - low) or 1.0
    ax.set_ylim(low - room, high + 3 * room)  # where it diverges it would flatten all the rest
    ax.set_title("Learning-rate range test")
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss")
    ax.grid(axis="y")
    ax.legend(loc="upper left")
    return ax
