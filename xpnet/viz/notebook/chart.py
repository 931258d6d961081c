"""A small line chart as SVG, in the colour of the text around it, so that it suits light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from ..style import PALETTE
from .markup import el, short

WIDTH, HEIGHT = 280, 180
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 8, 34  # around the plot
DOTS = 20  # up to so many points each is marked
POINTS = 240  # of a curve that is drawn; of a longer one the lowest and highest of every stretch
DECADES = 3  # of the values, from which on their axis is logarithmic
TRAINING, VALIDATION = PALETTE[0], PALETTE[1]
DASHES = "5 3"


class Curve(NamedTuple):
    """x, y: numbers of one length; what is not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = TRAINING
    dashes: str | None = None
    width: float = 1.8


class Axis:
    """Numbers low .. high on a line of pixels start .. end, and round ones among them: `most`, and one more.

    log: powers of ten.  whole: whole numbers only.  wide: it reaches to the next round number on both sides.
    """

    def __init__(self, values, start: float, end: float, most: int, *, log=False, whole=False, wide=False):
        self.log, self.start, self.end = log, start, end
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        low, high = (math.log10(low), math.log10(high)) if log else (float(low), float(high))
        if high - low <= 1e-9 * abs(high):
            room = 0.5 if whole or log else abs(low) / 10 or 0.5
            low, high = low - room, high + room
        step = 10.0 ** math.floor(math.log10((high - low) / most))
        step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= most + 1e-9)
        self.step = max(1.0, step) if whole or log else step
        if wide:
            low, high = (self.step * f(v / self.step) for f, v in ((math.floor, low), (math.ceil, high)))
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        """The pixel of a number."""
        return self._pixel(math.log10(value) if self.log else value)

    def _pixel(self, at: float) -> float:
        return self.start + (at - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """(pixel, text) of the round numbers."""
        first, last = math.ceil(self.low / self.step - 1e-6), math.floor(self.high / self.step + 1e-6)
        return [(self._pixel(k * self.step), self._written(k * self.step)) for k in range(first, last + 1)]

    def _written(self, at: float) -> str:
        if self.log:
            return f"{10.0**at:g}"
        if max(abs(self.low), abs(self.high)) >= 1e5 or self.step < 1e-4:
            return f"{at:.3g}"
        return f"{at + 0.0:.{max(0, -math.floor(math.log10(self.step) + 1e-9))}f}"


def chart(title: str, curves: list[Curve], *, x_title: str, x_log: bool = False, line: float | None = None):
    """A figure of the curves over one another.  line: an x to mark by a vertical line."""
    drawn = [(curve, _finite(curve, x_log)) for curve in curves]
    xs = [x for _, runs in drawn for run in runs for x, _ in run]
    ys = [y for _, runs in drawn for run in runs for _, y in run]
    log = bool(ys) and min(ys) > 0 and max(ys) / min(ys) >= 10**DECADES
    across = Axis(xs, LEFT, WIDTH - RIGHT, 6, log=x_log, whole=not x_log)
    up = Axis(ys, HEIGHT - BOTTOM, TOP, 4, log=log, wide=True)
    told = f"{title} by {x_title}" + (", logarithmic" if log else "")
    picture = el(
        "svg", el("title", told), _grid(across, up, x_title, bool(ys)),
        None if line is None or not xs else el("path", d=f"M{short(across(line))} {TOP}V{HEIGHT - BOTTOM}",
                                  stroke=VALIDATION, stroke_dasharray=DASHES),
        [_drawn(curve, runs, across, up, x_title) for curve, runs in drawn],
        None if ys else el("text", "no finite value", x=WIDTH / 2, y=HEIGHT / 2, text_anchor="middle"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
    )  # fmt: skip
    caption = el("figcaption", el("b", title), el("span", " (logarithmic)", class_="quiet") if log else None)
    return el("figure", caption, picture)


def legend(entries: list[tuple[str, str, str | None]]) -> Element:
    """What the lines mean: (name, colour, dashes) of each."""
    samples = [
        el(
            "span",
            el("svg", el("path", d="M0 5H24", stroke=color, stroke_width=2, stroke_dasharray=dashes),
               viewBox="0 0 24 10", aria_hidden="true"),
            f" {name}",
        )
        for name, color, dashes in entries
    ]  # fmt: skip
    return el("p", *samples, class_="legend")


def _finite(curve: Curve, x_log: bool) -> list[list[tuple[float, float]]]:
    """The curve's stretches without a gap, thinned where there are many points."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(curve.x, map(float, curve.y)):
        if abs(y) < 1e300 and (x > 0 or not x_log):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    every = math.ceil(2 * len(curve.x) / POINTS)
    return [_thinned(run, every) for run in runs if run]


def _thinned(run: list[tuple[float, float]], every: int) -> list[tuple[float, float]]:
    """Of each `every` points the lowest and the highest, in their order, and the ends."""
    if every <= 2:
        return run
    kept = {run[0], run[-1]}
    for start in range(0, len(run), every):
        part = sorted(run[start : start + every], key=lambda point: point[1])
        kept |= {part[0], part[-1]}
    return sorted(kept)


def _grid(across: Axis, up: Axis, x_title: str, numbers: bool) -> Element:
    """Lines and numbers of both axes."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    marks = []
    for y, number in up.ticks() if numbers else ():
        marks.append(el("path", d=f"M{LEFT} {short(y)}H{right}", class_="grid"))
        marks.append(el("text", number, x=LEFT - 6, y=y + 4, text_anchor="end"))
    for x, number in across.ticks() if numbers else ():
        marks.append(el("path", d=f"M{short(x)} {bottom}v4", class_="axis"))
        marks.append(el("text", number, x=x, y=bottom + 16, text_anchor="middle"))
    marks.append(el("path", d=f"M{LEFT} {bottom}H{right}", class_="axis"))
    marks.append(el("text", x_title, x=(LEFT + right) / 2, y=HEIGHT - 3, text_anchor="middle"))
    return el("g", *marks)


def _drawn(curve: Curve, runs, across: Axis, up: Axis, x_title: str) -> list[Element]:
    """The line, and dots where it has few points or a single one."""
    parts, few = [], sum(map(len, runs)) <= DOTS
    for run in runs:
        points = [(across(x), up(y)) for x, y in run]
        if len(points) > 1:
            line = "L".join(f"{short(x)} {short(y)}" for x, y in points)
            parts.append(
                el("path", d=f"M{line}", stroke=curve.color, stroke_width=curve.width,
                   stroke_dasharray=curve.dashes, stroke_linejoin="round")
            )  # fmt: skip
        if few or len(points) == 1:
            parts += [
                el("circle", el("title", f"{curve.name}, {x_title} {x:g}: {y:.4g}"),
                   cx=cx, cy=cy, r=2.5, fill=curve.color)
                for (x, y), (cx, cy) in zip(run, points)
            ]  # fmt: skip
    return parts
