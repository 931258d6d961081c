"""What a model gets wrong."""

from __future__ import annotations

import numpy as np

from ..errors import ShapeError
from .answers import class_numbers, names_of, probabilities_of, short
from .grids import images_of, plot_images
from .style import figure, style


@style()
def plot_mistakes(
    model, x, y, labels=None, count: int = 16, columns: int | None = None, fig=None
) -> np.ndarray:
    """The most confidently wrong of the images x, with what they are and what they are taken for; their Axes.

    model: a Sequential, a classifier with predict_proba, or probabilities (N, K), of which the largest is the
    answer.  x: (N, H, W), (N, 1, H, W) or (N, 3, H, W), channels last where the model has them there.  y:
    classes (N,), or one-hot (N, K).  labels: names of the classes.  count: how many mistakes at most, the
    worst first.  columns: how many in a row.  Where there are none, one Axes says so.  Raises ShapeError
    where numbers of samples differ, ValueError for a count below 1.
    """
    p, classes = probabilities_of(model, x)
    true, names = class_numbers(y, classes), names_of(labels, classes)
    if not len(true) == len(p) == len(x):
        raise ShapeError(
            f"numbers of samples differ. Received: {len(x)} in x, {len(true)} in y, {len(p)} answers"
        )
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"count must be a whole number of at least 1. Received: {count!r}")
    answer, sure = p.argmax(axis=1), p.max(axis=1)
    wrong = np.flatnonzero(answer != true)
    images = images_of(x, getattr(model, "data_format", "channels_first"))
    if not len(wrong):
        return _none_of(len(p), fig)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:count]
    titles = [
        f"{short(names[true[i]])}\ntaken for {short(names[answer[i]])}\n{sure[i]:.1%} sure" for i in worst
    ]
    axes = plot_images(images[worst], titles, columns, fig)
    heading = f"{len(wrong)} of {len(p)} are wrong"
    axes[0].figure.suptitle(heading if len(worst) == len(wrong) else f"{heading}; the worst {len(worst)}")
    return axes


def _none_of(count: int, fig) -> np.ndarray:
    axes = np.empty(1, dtype=object)
    axes[0] = ax = (figure(4.0, 2.0) if fig is None else fig).add_subplot()
    ax.text(0.5, 0.5, f"No mistakes: all {count} are right", ha="center", va="center")
    ax.set_axis_off()
    return axes
