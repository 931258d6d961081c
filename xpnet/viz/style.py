"""The house style: what all pictures share, and how they get into a file."""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Seven colours of Paul Tol's "bright" scheme and three of his "muted" one, told apart with any colour vision.
PALETTE = (
    "#4477AA", "#EE6677", "#CCBB44", "#228833", "#AA3377",
    "#66CCEE", "#999999", "#332288", "#882255", "#999933",
)  # fmt: skip
MARKERS = "osD^vPX<>p"  # a shape besides the colour, for whoever prints in grey
SEQUENTIAL, DIVERGING, GREY = "viridis", "RdBu_r", "gray"  # from 0 up; either side of 0; photographs

# Fonts with Japanese, Chinese and Korean signs, for names of classes; the first that is there is asked for
# what the usual font lacks.
EASTERN = (
    "Noto Sans CJK JP", "Noto Sans JP", "Hiragino Sans", "Yu Gothic", "Meiryo", "IPAexGothic", "TakaoGothic",
    "MS Gothic", "Arial Unicode MS",
)  # fmt: skip

RC: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.prop_cycle": f"cycler('color', {list(PALETTE)})",
    "axes.edgecolor": "#555555",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "savefig.dpi": 150,
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "xtick.color": "#555555",
    "xtick.labelcolor": "black",
    "ytick.color": "#555555",
    "ytick.labelcolor": "black",
}


@contextmanager
def style() -> Iterator[None]:
    """The house style for what is drawn inside: `with viz.style(): ...`, or `@viz.style()` before a function.

    Japanese and Chinese names are drawn where the machine has a font for them, such as Noto Sans CJK.
    Raises ImportError, with the line that installs it, where there is no matplotlib.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise ImportError(
            "pictures need matplotlib, which is not installed. Install it: pip install 'xpnet[plot]'"
        ) from None
    fonts = dict.fromkeys([*matplotlib.rcParams["font.family"], *_eastern()])
    with matplotlib.rc_context(RC | {"font.family": list(fonts)}):
        yield


@functools.cache
def _eastern() -> list[str]:
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    return [name for name in EASTERN if name in there][:1]


@style()
def figure(width: float = 6.0, height: float = 4.0):
    """An empty Figure that arranges its Axes so that no labels collide.  Not pyplot's.

    width, height: in inches.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def axes_of(ax, width: float, height: float):
    """ax, or the Axes of a new figure."""
    return figure(width, height).add_subplot() if ax is None else ax


@style()
def save(drawn, path) -> Path:
    """Write a picture; its kind follows from the ending of path.

    drawn: a Figure, or Axes, of which the figure they stand in.

    Written whole or not at all.  Raises FileNotFoundError where path's folder is missing, ValueError for an
    ending that matplotlib has no format for.
    """
    while not hasattr(drawn, "savefig"):  # Axes, or several of them, or a part of a figure
        drawn = np.ravel(drawn)[0].figure
    with whole_file(path) as temporary:
        drawn.savefig(temporary)
    return Path(path)


@contextmanager
def whole_file(path) -> Iterator[Path]:
    """A path to write to: it takes path's place at the end of the block, and vanishes after an error."""
    path = Path(path)
    if not path.suffix:
        raise ValueError(f"a picture's path ends in its format. Received: {path}. Expected: {path}.png")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
