"""How training went."""

from __future__ import annotations

from .style import PALETTE, axes_of, style

DOTS = 20  # up to so many epochs each is marked, so that a run of one epoch shows at all


@style()
def plot_history(history, ax=None):
    """Loss (left axis) and metrics (right axis) by epoch, the validation's dashed; the Axes of the loss.

    history: what `fit` returned, or {name: [figure of each epoch]}, the validation's under "val_" + name.
    Entries that are no curves, such as confusion matrices, are left out.  Raises ValueError where nothing is
    left, TypeError for another history.
    """
    from matplotlib.ticker import MaxNLocator

    figures = getattr(history, "history", history)
    if not isinstance(figures, dict):
        raise TypeError(
            f"history must be what fit returned, or a dict of lists. Received: {type(figures).__name__}"
        )
    curves = {name: list(values) for name, values in figures.items() if _is_curve(values)}
    if not curves:
        raise ValueError(
            f"there is nothing to plot. Received: {figures!r}. Expected: a history of one epoch or more"
        )
    names = list(dict.fromkeys(name.removeprefix("val_") for name in curves))
    losses = [name for name in names if name.endswith("loss")] or names
    metrics = [name for name in names if name not in losses]

    ax = axes_of(ax, 6.4, 4.0)
    right = ax.twinx() if metrics else None
    handles = []
    for color, name in zip(PALETTE * len(names), losses + metrics):
        for key, part, dashes, fill in (
            (name, "training", "-", color),
            (f"val_{name}", "validation", "--", "white"),
        ):
            if key not in curves:
                continue
            values = curves[key]
            epochs = getattr(history, "measured", {}).get(key, range(len(values)))
            points = [(epoch + 1, value) for epoch, value in zip(epochs, values) if value == value]
            label = f"{name}, {part}" if f"val_{name}" in curves else name
            handles += (right if name in metrics and right else ax).plot(
                [x for x, _ in points], [y for _, y in points], dashes, color=color, label=label,
                marker="o" if len(values) <= DOTS else None, markersize=4, markerfacecolor=fill,
            )  # fmt: skip
    ax.set_title("Training curves")
    ax.set_xlabel("epoch")
    ax.set_ylabel(", ".join(losses))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(axis="y")
    if right is not None:
        right.set_ylabel(", ".join(metrics))
        right.spines["right"].set_visible(True)
    # below the picture, where no curve can run into it
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=min(len(names), 3))
    return ax


def _is_curve(values) -> bool:
    return len(values) > 0 and all(getattr(value, "ndim", 0) == 0 and _is_number(value) for value in values)


def _is_number(value) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str)
