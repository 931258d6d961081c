"""Training curves that are drawn anew after each epoch, wherever training is watched."""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import sys
from typing import Any

from .callbacks import Callback, History, is_number

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOURS = (12, 10, 9, 14, 13, 11)  # of a terminal: blue, green, red, cyan, magenta, yellow
LEAST_WIDTH, LEAST_HEIGHT, MOST_WIDTH = 30, 8, 120  # characters of a plot


class LivePlot(Callback):
    """Curves of loss (left) and metrics (right) by epoch, the validation's beside the training's.

    In a notebook one picture, by matplotlib, that changes in place; in a terminal characters, by plotext,
    that stay below what is printed and above the progress bar; where the output is no terminal, such as a
    file, characters once, when training ends.  Needs pip install 'xpnet[plot]', but no display.

    height: rows of characters.
    """

    def __init__(self, height: int = 16):
        if isinstance(height, bool) or not isinstance(height, int) or height < LEAST_HEIGHT:
            raise ValueError(f"height must be a number of rows from {LEAST_HEIGHT}. Received: {height!r}")
        self.height = height
        self._screen: Any = None

    def on_train_begin(self, logs=None):
        self._history = History()
        if _in_notebook():
            self._screen = _Notebook()
        else:
            self._screen = (_Terminal if _is_terminal(sys.stdout) else _Paper)(self.height)

    def on_epoch_end(self, epoch, logs=None):
        figures = {n: float(v) for n, v in (logs or {}).items() if is_number(v) and n != "learning_rate"}
        self._history.on_epoch_end(epoch, figures)
        self._screen.draw(self._history)

    def on_train_end(self, logs=None):
        if self._screen is not None:
            self._screen.close(self._history)
            self._screen = None


class _Notebook:
    """A picture among a notebook's output."""

    def __init__(self) -> None:
        from ..viz import figure

        figure()  # which says what to install
        self._handle: Any = None

    def draw(self, history: History) -> None:
        from IPython.display import Image, display

        file = io.BytesIO()
        history.plot().figure.savefig(file, format="png", dpi=150)
        picture = Image(file.getvalue(), width=640)
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def close(self, history: History) -> None:
        """The picture stays."""


class _Paper:
    """Output that cannot be taken back: one plot, at the end."""

    def __init__(self, height: int):
        self.height = height
        _plotext()

    def draw(self, history: History) -> None:
        """Not yet."""

    def close(self, history: History) -> None:
        if history.epoch:
            print(_plotext().uncolorize(_characters(history, 80, self.height)), flush=True)


class _Terminal:
    """A plot at the lower end of a terminal.

    What others print meanwhile is noted, so that it can be printed again above the plot when that moves.
    """

    def __init__(self, height: int):
        self.height = height
        self._plotext = _plotext()
        self._rows = 0  # of the plot on the screen
        self._lines: list[str] = []  # printed below it
        self._line = ""  # and the last one, which may go on
        self._streams = {
            name: getattr(sys, name) for name in ("stdout", "stderr") if _is_terminal(getattr(sys, name))
        }
        self._out = sys.stdout
        for name, stream in self._streams.items():
            setattr(sys, name, _Noted(stream, self._note))

    def _note(self, text: str) -> None:
        *done, rest = (self._line + text).split("\n")
        self._lines += [line.rpartition("\r")[2] for line in done]
        self._line = rest.rpartition("\r")[2]

    def draw(self, history: History) -> None:
        columns, rows = shutil.get_terminal_size()
        below, text = [*self._lines, *([self._line] if self._line else [])], ""
        if self._line:
            text += "\n"
        up = self._rows + sum(max(1, -(-len(ANSI.sub("", line)) // columns)) for line in below)
        if self._rows and up < rows:
            text += f"\x1b[{up}F\x1b[J" + "".join(f"{line}\n" for line in below)
        width, height = min(columns - 1, MOST_WIDTH), min(self.height, rows - 3)
        plot = ""
        if width >= LEAST_WIDTH and height >= LEAST_HEIGHT:
            plot = _characters(history, width, height)
            if "NO_COLOR" in os.environ:
                plot = self._plotext.uncolorize(plot)
            plot += "\n"
        self._out.write(text + plot)
        self._out.flush()
        self._rows, self._lines, self._line = plot.count("\n"), [], ""

    def close(self, history: History) -> None:
        for name, stream in self._streams.items():
            setattr(sys, name, stream)


class _Noted:
    """A stream whose text is noted on its way."""

    def __init__(self, stream, note):
        self._stream, self._note = stream, note

    def write(self, text: str) -> int:
        self._note(text)
        return self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def _characters(history: History, width: int, height: int) -> str:
    """The curves as lines of coloured characters."""
    plotext = _plotext()
    names = list(dict.fromkeys(name.removeprefix("val_") for name in history.history))
    losses = [name for name in names if name.endswith("loss")] or names
    panels = [part for part in (losses, [name for name in names if name not in losses]) if part]
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, height)
    figure.subplots(1, len(panels))
    figure.theme("simple")
    for number, part in enumerate(panels, 1):
        panel, shown, colour = figure.subplot(1, number), [], iter(COLOURS * len(names))
        for name in part:
            for key, marker, sign in ((name, "hd", "▚"), (f"val_{name}", "braille", "⠪")):
                points = [
                    (e + 1, v)
                    for e, v in zip(history.measured.get(key, []), history.history.get(key, []))
                    if math.isfinite(v)
                ]
                if points:
                    pixel = next(colour)
                    curve = panel.signal(*zip(*points), marker=plotext.marker(marker, pixel)).lines()
                    panel.draw(curve)
                    shown.append((f" {sign} {key} ", pixel))
        if shown:
            panel.title(_title(plotext, shown, width // len(panels) - 2))
        panel.label("epoch", "x")
        panel.ruler("x").ticks(_ticks(history.epoch))
    text = figure.build().string().rstrip("\n")
    figure.clear()
    return text


def _title(plotext, shown: list[tuple[str, int]], room: int):
    """The curves' names in their colours, as many as there is room for."""
    title, used = plotext.colorize(*shown[0]), len(shown[0][0])
    for text, pixel in shown[1:]:
        used += len(text)
        if used > room:
            return title + plotext.colorize(" …")
        title = title + plotext.colorize(text, pixel)
    return title


def _ticks(epochs: list[int]) -> list[int]:
    """Up to six of the epochs, from 1."""
    first, last = epochs[0] + 1, epochs[-1] + 1
    step = max(1, -(-(last - first) // 5))
    return list(range(first, last + 1, step))


def _plotext():
    try:
        import plotext
    except ModuleNotFoundError as error:
        if error.name != "plotext":
            raise
        raise ImportError(
            "LivePlot needs plotext in a terminal, which is not installed. Install it: "
            "pip install 'xpnet[plot]'"
        ) from None
    return plotext


def _is_terminal(stream) -> bool:
    return bool(getattr(stream, "isatty", bool)())


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
