"""A report of a trained model: one HTML file to keep beside it, to open without a network, to print.

findings   what the answers to the test samples say: figures, confusions, mistakes
insides    what the network holds and makes: weights, feature maps, saliency
plots      decision regions, a regression's errors, a large confusion matrix
pictures   samples and arrays as small pictures within the page
page       what stands in templates/, which Jinja2 fills; it escapes what it is given
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from pathlib import Path

import numpy as np

from ...data.arrays import as_array
from ...errors import NotBuiltError
from ..style import style, whole_file
from . import page
from .findings import targets


@style()
def report(
    model,
    path,
    x,
    y,
    *,
    labels=None,
    history=None,
    title: str | None = None,
    data: str = "",
    seconds: float | None = None,
    command: str = "",
    settings=None,
    next_steps=(),
) -> Path:
    """Write a report of a trained model as one HTML file; its path.

    x (N, ...), y: samples to judge it by, best such as it was not trained on, as `evaluate` takes them.
    labels: names of the classes.  history: what `fit` returned; by default the model's own.  title: by
    default the model's name.  data, seconds: what it was trained on, and how long.  command: how to run it
    again.  settings: more figures of the run, by name.  next_steps: pairs (command, what it does).

    A classifier gets its accuracy, confusions, mistakes and figures by class, a regression its errors, a
    model that yields maps some of them, and each its layers, kernels, feature maps and curves.  The file is
    written whole or not at all.  Raises ImportError where matplotlib or Jinja2 is missing, TypeError for what
    is no model, NotBuiltError for one without weights, ValueError where path does not end in .html.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is an HTML file. Received: {path}. Expected: a name that ends in .html")
    if not hasattr(model, "layer_outputs"):
        raise TypeError(
            f"a report is of an xpnet model. Received: {type(model).__name__}. Expected: a Sequential; of a "
            "NetClassifier or NetRegressor its model_"
        )
    if not model.built:
        raise NotBuiltError("the model has no weights yet. Expected: a model that has been trained or loaded")
    template = page.environment().get_template("report.html.j2")
    x, y = np.asarray(as_array(x, "x")), targets(y)
    _check_words(seconds, settings, next_steps)
    run = page.Run(
        title or model.name, data, seconds, command, dict(settings or {}), tuple(next_steps),
        page.history_of(history if history is not None else model.history),
    )  # fmt: skip
    with whole_file(path) as temporary:  # entered first: no work is done for a folder that is not there
        text = template.render(page.contents(model, x, y, labels, run))
        temporary.write_bytes(text.encode("utf-8", "replace"))
    return path


def _check_words(seconds, settings, next_steps) -> None:
    """What the report is told of the run, as its template takes it."""
    if seconds is not None and not isinstance(seconds, Real):
        raise TypeError(f"seconds must be a number. Received: {seconds!r}")
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f"settings must be a dict, names to values. Received: {type(settings).__name__}")
    pairs = [one for one in next_steps if isinstance(one, (tuple, list)) and len(one) == 2]
    if isinstance(next_steps, str) or len(pairs) < len(next_steps):
        raise TypeError(f"next_steps must be pairs (command, what it does). Received: {next_steps!r}")
