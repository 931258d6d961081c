"""What stands in the report, section by section, for its template."""

from __future__ import annotations

import datetime
import platform
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from ... import __version__
from ...training.callbacks import History
from .. import notebook
from ..notebook.curves import charts, figures
from ..notebook.markup import figure_text
from . import findings, insides, pictures, plots
from .findings import Classes

MISTAKES, SHOWN, LOOKED_AT = 12, 10, 4  # samples in the sections of mistakes, of predictions, of saliency
TOP = 3  # classes told of a sample
WRITTEN = 20  # classes, up to which the confusion matrix is a table of numbers
MATRIX = 560  # pixels of a larger one's picture
ROWS = 400  # epochs that the table of the history holds


class Run(NamedTuple):
    """What the report is told of the training, as `report` explains it."""

    title: str
    data: str
    seconds: float | None
    command: str
    settings: dict[str, Any]
    next_steps: tuple[tuple[str, str], ...]
    history: History | None


def environment():
    """Jinja2 with the report's templates; it escapes what it is given."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        if error.name != "jinja2":
            raise
        raise ImportError(
            "a report needs Jinja2, which is not installed. Install it: pip install 'xpnet[plot]'"
        ) from None
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    made.filters |= {"percent": percent, "figure": figure_text, "thousands": "{:,}".format}
    return made


def history_of(given) -> History | None:
    """A History, or a dict of lists as one."""
    if given is None or isinstance(given, History):
        return given
    if not isinstance(given, dict) or not all(isinstance(one, (list, tuple)) for one in given.values()):
        raise TypeError(
            "history must be what fit returned, or a dict of lists. Received: "
            + (repr(given)[:60] if isinstance(given, dict) else type(given).__name__)
        )
    made = History()
    made.history = {str(name): list(values) for name, values in given.items()}
    made.epoch = list(range(max(map(len, made.history.values()), default=0)))
    return made


def contents(model, x, y, labels, run: Run) -> dict[str, Any]:
    """The template's variables."""
    from markupsafe import Markup

    task = findings.task_of(model, y)
    parts = {"classes": _classes, "labels": _labels, "numbers": _numbers, "maps": _maps}[task](
        model, x, y, labels
    )
    style = files(__package__) / "templates" / "report.css"
    looked = parts.pop("look_at", 0)  # the sample to follow through the layers
    sample = x[looked : looked + 1]
    return parts | {
        "task": task,
        "run": run,
        "css": Markup(style.read_text(encoding="utf-8") + notebook.css()),
        "facts": _facts(model, run),
        "count": len(x),
        "curves": _curves(run.history),
        "network": Markup(notebook.text(notebook.network(model))),
        "weights": insides.first_weights(model),
        "sample": pictures.samples(model, sample, [f"sample {looked}"], 2 * pictures.SAMPLE)[0],
        "layers": insides.layer_views(model, sample),
        "settings": _settings(model, run),
        "version": __version__,
        "date": datetime.date.today().isoformat(),
    }


# -- what the model does -------------------------------------------------------------------------------------


def _classes(model, x, y, labels) -> dict[str, Any]:
    found = findings.classes(model, x, y, labels)
    shown = _of_each_class(found)
    worst = found.wrong[:MISTAKES]
    seen = np.array([*dict.fromkeys([*worst[: LOOKED_AT // 2], *shown])][:LOOKED_AT])
    weakest = sorted((row for row in found.rows if row.support), key=lambda row: row.f1)
    return {
        "found": found,
        "mistakes": _predictions(model, x, found, worst),
        "predictions": _predictions(model, x, found, shown),
        "attention": _attention(model, x, found, seen) if x.ndim > 2 else [],
        "regions": plots.regions(model, x, found.true, found.names) if x.shape[1:] == (2,) else None,
        "confusions": _confusions(found),
        "weakest": weakest[:WRITTEN] if len(found.rows) > WRITTEN else [],
        "look_at": int(shown[0]),
        "outcome": _predictions(model, x, found, shown[:1])[0],
    }


class Prediction(NamedTuple):
    """A sample and the answer to it.  likely: (class, probability) of the likeliest classes."""

    number: int
    sample: pictures.Sample
    true: str
    answer: str
    right: bool
    likely: list[tuple[str, float]]


def _predictions(model, x, found: Classes, places, size: int = pictures.SAMPLE) -> list[Prediction]:
    alts = [f"sample {i}, class {found.names[found.true[i]]}" for i in places]
    drawn = pictures.samples(model, x[places], alts, size)
    likely = np.argsort(-found.p[places], axis=1, kind="stable")[:, :TOP]
    return [
        Prediction(
            int(i), one, found.names[found.true[i]], found.names[found.answer[i]],
            bool(found.true[i] == found.answer[i]),
            [(found.names[k], float(found.p[i, k])) for k in best],
        )
        for i, one, best in zip(places, drawn, likely)
    ]  # fmt: skip


def _of_each_class(found: Classes) -> np.ndarray:
    """The first sample of each class, or of as many classes, evenly chosen, as there is room for."""
    there, first = np.unique(found.true, return_index=True)
    chosen = np.linspace(0, len(there) - 1, min(SHOWN, len(there))).round().astype(int)
    return first[chosen]


def _attention(model, x, found: Classes, places) -> list:
    """(prediction, pictures of what speaks for its answer) of a few samples."""
    made = insides.attention(model, x[places], found.answer[places])
    return list(zip(_predictions(model, x, found, places, pictures.LOOK), made))


def _confusions(found: Classes) -> dict[str, Any]:
    """The matrix as rows of (count, share of the row), or as a picture where it is large; neither where it is
    too large for that.
    """
    if found.matrix is None:
        return {"picture": None, "rows": []}
    totals = found.matrix.sum(axis=1, keepdims=True)
    shares = found.matrix / np.maximum(totals, 1)
    if len(found.names) > WRITTEN:
        drawn = plots.shares(shares, MATRIX, "confusion matrix")
        return {"picture": drawn, "rows": []}
    return {"picture": None, "rows": [list(zip(*row)) for row in zip(found.matrix.tolist(), shares.tolist())]}


def _labels(model, x, y, labels) -> dict[str, Any]:
    return {"found": findings.labels_of(model, x, y, labels), "weakest": []}


def _numbers(model, x, y, labels) -> dict[str, Any]:
    found = findings.numbers(model, x, y)
    worst = found.worst[:MISTAKES]
    drawn = pictures.samples(model, x[worst], [f"sample {i}" for i in worst])
    rows = [
        (int(i), one, _values(found.true[i]), _values(found.predicted[i])) for i, one in zip(worst, drawn)
    ]
    pair = plots.against_truth(found.predicted, found.true)
    return {"found": found, "worst": rows, "plots": pair, "look_at": int(worst[0])}


def _values(row: np.ndarray) -> str:
    shown = ", ".join(f"{value:.4g}" for value in row[:4])
    return shown + (", …" if len(row) > 4 else "")


def _maps(model, x, y, labels) -> dict[str, Any]:
    """Inputs, targets and outputs of a few samples; where targets are a class a pixel, outputs as classes."""
    shown = slice(0, LOOKED_AT)
    answers = pictures.channels_first(model, findings.answers(model, x[shown]))
    logs = {} if model.loss is None else model.evaluate(x, y, return_dict=True)
    target, classes = y[shown], None
    if answers.shape[1] > 1 and y.shape[1:] == answers.shape[2:]:
        answers, classes = answers.argmax(axis=1), answers.shape[1]
    else:
        target = pictures.channels_first(model, target.reshape(len(answers), *model.output_shape))
    columns = (
        [one.picture for one in pictures.samples(model, x[shown], ["input"] * LOOKED_AT, pictures.LOOK)],
        pictures.maps(target, classes, "target"),
        pictures.maps(answers, classes, "output"),
    )
    found = {name: value for name, value in logs.items() if isinstance(value, float)}
    return {"found": found, "answers": list(zip(*columns))}


# -- the run -------------------------------------------------------------------------------------------------


def _curves(history: History | None) -> dict[str, Any] | None:
    """The charts of the history, and its table, with every so many epochs left out where there are many."""
    from markupsafe import Markup

    found = figures(history) if history is not None else []
    if not found or history is None:
        return None
    by_epoch = [dict(zip(one.epochs, one.values)) for one in found]
    epochs = sorted({epoch for one in found for epoch in one.epochs})
    every = -(-len(epochs) // ROWS)
    kept = sorted({*epochs[::every], epochs[-1]})
    return {
        "charts": Markup(notebook.text(charts(found))),
        "names": [one.name for one in found],
        "rows": [(epoch, [one.get(epoch) for one in by_epoch]) for epoch in kept],
        "every": every,
    }


def _facts(model, run: Run) -> list[tuple[str, str]]:
    """What stands below the headline."""
    epochs = len(run.history.epoch) if run.history is not None else 0
    took = [] if run.seconds is None else [f"{run.seconds:.1f} s"]
    if epochs:
        took.append(f"{epochs} epoch{'s' * (epochs > 1)}")
    size = f"{model.count_params():,} parameters in {len(model.all_layers())} layers"
    facts = {"data": run.data, "model": size, "training": ", ".join(took)}
    facts["device"] = f"{model.device}, {model.precision_meaning}"
    return [(name, text) for name, text in facts.items() if text]


def _settings(model, run: Run) -> list[tuple[str, str]]:
    """How the model was made and trained, and by which versions."""
    told = {"input": f"{model.input_shape}, {model.data_format}", "seed": model.seed}
    if model.optimizer is not None:
        told |= {"optimizer": repr(model.optimizer), "loss": repr(model.loss)}
    told |= {"device": f"{model.device} ({model.device_reason})", "precision": model.precision_meaning}
    told |= run.settings
    told |= {
        "versions": f"xpnet {__version__}, NumPy {np.__version__}, Python {platform.python_version()}",
        "machine": platform.platform(),
    }
    return [(name, str(value)) for name, value in told.items()]


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, never rounded to all or nothing."""
    if 0 < share < 1:
        least = 0.1**digits / 2
        if 100 * share < least:
            return f"<{10.0**-digits:.{digits}f}%"
        if 100 * (1 - share) < least:
            return f">{100 - 10.0**-digits:.{digits}f}%"
    return f"{100 * share:.{digits}f}%"
