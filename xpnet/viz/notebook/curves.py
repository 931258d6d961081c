"""How training went: small charts, and a table of the last and the best figures."""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple
from xml.etree.ElementTree import Element

from ... import metrics
from .chart import DASHES, TRAINING, VALIDATION, Curve, chart, legend
from .markup import el, figure_text


class Figure(NamedTuple):
    """A loss or metric: values[i] was measured in epochs[i], counted from 1."""

    name: str
    epochs: list[int]
    values: list[float]

    @property
    def base(self) -> str:
        return self.name.removeprefix("val_")

    @property
    def validation(self) -> bool:
        return self.name != self.base

    def best(self) -> tuple[int, float] | None:
        """The epoch and value of the best; None where nobody knows what is better, or none is finite."""
        direction, finite = better(self.base), [(e, v) for e, v in zip(self.epochs, self.values) if v == v]
        if direction is None or not finite:
            return None
        return (min if direction == "min" else max)(finite, key=lambda pair: pair[1])


def figures(history) -> list[Figure]:
    """The numbers of a History, in their order; confusion matrices and the like are left out."""
    found = []
    for name, values in history.history.items():
        epochs = [epoch + 1 for epoch in history.measured.get(name, range(len(values)))]
        if values and all(isinstance(value, Real) for value in values):
            found.append(Figure(name, epochs, [float(value) for value in values]))
    return found


def better(name: str) -> str | None:
    """ "min" or "max" for a loss or one of xpnet's metrics; None for a figure of somebody's own."""
    if name.endswith("loss"):
        return "min"
    try:
        return metrics.get(name).better
    except ValueError:
        return None


def training(history) -> Element:
    """The charts and the table of a History."""
    count = len(history.epoch)
    headline = el(
        "header", el("strong", "History"), " ",
        el("span", f"{count} epoch{'s' * (count != 1)}", class_="quiet"),
    )  # fmt: skip
    found = figures(history)
    if not found:
        return el("section", headline, el("p", "Nothing has been measured."))
    return el("section", headline, charts(found), _table(found))


def charts(found: list[Figure]) -> Element:
    """A chart for each figure, with its validation dashed."""
    panels = []
    for base in dict.fromkeys(figure.base for figure in found):
        curves = [
            Curve(
                "validation" if one.validation else "training", one.epochs, one.values,
                VALIDATION if one.validation else TRAINING, DASHES if one.validation else None,
            )
            for one in found if one.base == base
        ]  # fmt: skip
        panels.append(chart(base, curves, x_title="epoch"))
    entries = [("training", TRAINING, None), ("validation", VALIDATION, DASHES)]
    shown = [
        entry for entry, there in zip(entries, (False, True)) if any(f.validation is there for f in found)
    ]
    return el("div", legend(shown), el("div", *panels, class_="charts"))


def _table(found: list[Figure]) -> Element:
    rows = []
    for one in found:
        best = one.best()
        cells = (figure_text(one.values[-1]), figure_text(best[1]) if best else "", best[0] if best else "")
        rows.append(el("tr", el("th", one.name, scope="row"), *(el("td", cell) for cell in cells)))
    titles = ("figure", "last", "best", "in epoch")
    head = el("thead", el("tr", *(el("th", title, scope="col") for title in titles)))
    return el("table", head, el("tbody", *rows), class_="figures")


def rates(curve) -> Element:
    """A learning-rate test: the loss of each batch by its rate, and the rate that is suggested."""
    grey = "#888888"
    curves = [
        Curve("of each batch", curve.rates, curve.losses, grey, width=1.0),
        Curve("smoothed", curve.rates, curve.smoothed),
    ]
    most = 2 * max(curve.smoothed) - min(curve.smoothed)  # a batch that diverged would flatten all the rest
    curves = [one._replace(y=[y if y <= most else math.nan for y in one.y]) for one in curves]
    told = f"suggested {curve.suggestion:.2g}, steepest {curve.steepest:.2g}, lowest loss {curve.lowest:.2g}"
    headline = el("header", el("strong", "Learning-rate test"), " ", el("span", told, class_="quiet"))
    entries = [(one.name, one.color, one.dashes) for one in curves] + [("suggested", VALIDATION, DASHES)]
    picture = chart("loss", curves, x_title="learning rate", x_log=True, line=curve.suggestion)
    return el("section", headline, legend(entries), el("div", picture, class_="charts"))
