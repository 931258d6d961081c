"""LivePlot, where training is watched: in a terminal, in a notebook, in a file."""

import io
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

from xpnet import Sequential, callbacks
from xpnet.layers import Dense

pytest.importorskip("plotext", reason="curves of characters need plotext")

SCRIPT = """
import sys, numpy as np
from xpnet import Sequential, callbacks, layers
y = np.random.default_rng(0).integers(0, 3, 60)
x = np.eye(3, 5)[y] + np.random.default_rng(1).standard_normal((60, 5))
model = Sequential([layers.Dense(3)], input_shape=(5,), seed=1, device="cpu")
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
def fail(epoch, logs):
    if epoch == {fails}:
        raise RuntimeError("in the middle")
def write(epoch, logs):
    sys.stdout.write(("wait" + " " * 60 + "\\r") * 2 + f"of mine {{epoch}}\\n")
    print("." * 130)
    print("\\x1b[31m" + "," * 98 + "\\x1b[0m")
print("before")
try:
    model.fit(x, y, epochs={epochs}, verbose={verbose}, validation_data=(x, y), callbacks=[
        callbacks.LearningRateScheduler(lambda epoch: 0.01, verbose=1), callbacks.LivePlot({height}),
        callbacks.LambdaCallback(on_epoch_end=write),
        callbacks.LambdaCallback(on_epoch_end=fail)])
except RuntimeError as error:
    print(error)
print("after", sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__)
"""


class Screen:
    """What a terminal shows of a text: lines, those that have left at the top included."""

    def __init__(self, text, rows, columns):
        self.lines, self.rows, self.columns, self.row, self.column = [""], rows, columns, 0, 0
        for found in re.finditer(r"\x1b\[([0-9;?]*)([A-Za-z])|[\s\S]", text):
            if found[2] is not None:
                self.command(found[1], found[2])
            elif found[0] == "\r":
                self.column = 0
            elif found[0] == "\n":
                self.down()
            else:
                self.put(found[0])

    def command(self, number, letter):
        top = max(0, len(self.lines) - self.rows)
        if letter in "AF":
            self.row = max(top, self.row - int(number or 1))
            self.column = 0 if letter == "F" else self.column
        elif letter == "J":
            assert number in ("", "0")
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif letter == "K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        else:
            assert letter == "m", f"an escape that this screen does not know: {number}{letter}"

    def down(self):
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    def put(self, sign):
        if self.column == self.columns:
            self.column = 0
            self.down()
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + sign + line[self.column + 1 :]
        self.column += 1

    def text(self):
        return "\n".join(line.rstrip() for line in self.lines)


def in_terminal(tmp_path, rows=50, columns=100, epochs=4, verbose=1, height=12, fails=-1, **environment):
    """The screen after the script has run in a terminal of this size."""
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
    import fcntl
    import struct
    import termios

    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(epochs=epochs, verbose=verbose, height=height, fails=fails))
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    known = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(script)], stdin=side, stdout=side, stderr=side,
        env=known | {"TERM": "xterm-256color"} | environment, close_fds=True,
    )  # fmt: skip
    os.close(side)
    parts = []
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # how Linux says that the other side has gone
            break
        if not part:
            break
        parts.append(part)
    os.close(main)
    assert process.wait(timeout=60) == 0, b"".join(parts).decode()
    text = b"".join(parts).decode()
    return Screen(text, rows, columns).text(), text


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_the_plot_stays_below_what_is_printed_and_is_there_once(tmp_path, verbose):
    shown, _ = in_terminal(tmp_path, verbose=verbose)
    lines = shown.splitlines()
    assert shown.count("▚ loss") == shown.count("▚ accuracy") == shown.count("┌") / 2 == 1
    for epoch in range(4):
        assert lines.count(f"of mine {epoch}") == 1
        assert sum(line.startswith(f"Epoch {epoch + 1}: LearningRateScheduler") for line in lines) == 1
        assert sum(line.startswith(f"epoch {epoch + 1}/4") for line in lines) == (verbose > 0)
    plot = next(number for number, line in enumerate(lines) if "▚ loss" in line)
    below = [line for line in lines[plot + 12 :] if line]
    assert below == ["of mine 3", "." * 100, "." * 30, "," * 98, "after True True"], "after the last plot"
    assert lines.count("." * 100) == lines.count("." * 30) == lines.count("," * 98) == 4
    assert "before" in lines[:plot] and len([x for x in lines[:plot] if x.startswith("Epoch")]) == 4
    assert "loss=" in shown or not verbose


def test_the_plot_holds_the_curves_of_all_epochs(tmp_path):
    shown, _ = in_terminal(tmp_path, epochs=6)
    ticks = re.search(r"^ +1 +2 +3 +4 +5 +6 +1 +2 +3 +4 +5 +6$", shown, re.M)
    assert ticks, shown
    for sign in ("▚ loss", "⠪ val_loss", "▚ accuracy", "⠪ val_accuracy"):
        assert sign in shown
    axis = [float(value) for value in re.findall(r"([0-9.]+)┤", shown)]
    assert len(axis) > 6 and max(axis) < 3


def test_a_plot_as_high_as_the_terminal_is_made_lower_and_a_tiny_terminal_gets_none(tmp_path):
    shown, _ = in_terminal(tmp_path, rows=14, height=40)
    assert shown.count("after True True") == 1 and "▚ loss" in shown
    shown, _ = in_terminal(tmp_path, columns=20)
    assert "┌" not in shown and "of mine 3" in shown
    shown, _ = in_terminal(tmp_path, rows=6)
    assert "┌" not in shown and "of mine 3" in shown


def test_no_color_is_respected(tmp_path):
    coloured, plain = in_terminal(tmp_path)[1], in_terminal(tmp_path, NO_COLOR="1")[1]
    assert "\x1b[38;5;" in coloured and "\x1b[38;5;" not in plain and "▚ loss" in plain


def test_after_an_error_the_streams_are_the_terminals_own(tmp_path):
    shown, _ = in_terminal(tmp_path, fails=1)
    assert "in the middle" in shown and shown.endswith("after True True\n")


def test_in_a_file_there_is_one_plot_at_the_end_without_escapes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(epochs=3, verbose=0, height=12, fails=-1))
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    mine, _, rest = done.stdout.rpartition("," * 98 + "\x1b[0m\n")
    assert mine.count("of mine") == 3 and "▚ loss" not in mine
    assert rest.count("▚ loss") == 1 and "\x1b" not in rest and rest.endswith("after True True\n")


# -- in a notebook -------------------------------------------------------------------------------------------


@pytest.fixture
def notebook(monkeypatch):
    """IPython with a kernel, as far as LivePlot knows it: what has been displayed."""
    shown = []

    class Image:
        def __init__(self, data, width=None):
            self.data, self.width = data, width

    class Handle:
        def __init__(self, picture):
            shown.append([picture])
            self.place = len(shown) - 1

        def update(self, picture):
            shown[self.place].append(picture)

    def display(picture, display_id=None):
        assert display_id is True
        return Handle(picture)

    shell = types.SimpleNamespace(kernel=object())
    ipython = types.SimpleNamespace(get_ipython=lambda: shell, version_info=(9, 0))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(Image=Image, display=display))
    return shown


def run(*listeners, epochs=3, **more):
    y = np.random.default_rng(0).integers(0, 3, 60)
    x = np.eye(3, 5)[y] + np.random.default_rng(1).standard_normal((60, 5))
    model = Sequential([Dense(3)], input_shape=(5,), seed=1, device="cpu")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy", "confusion_matrix"])
    return model.fit(
        x, y, epochs=epochs, verbose=0, validation_data=(x, y), callbacks=list(listeners), **more
    )


def test_a_notebook_gets_one_picture_that_changes(notebook, capsys):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from matplotlib.image import imread

    run(callbacks.LivePlot())
    ((first, *later),) = notebook
    assert len(later) == 2 and capsys.readouterr().out == ""
    pictures = [imread(io.BytesIO(one.data)) for one in (first, *later)]
    assert all(picture[..., :3].std() > 0.02 for picture in pictures)
    assert not np.array_equal(pictures[1], pictures[2])


def test_a_notebooks_picture_is_of_the_figures_measured(notebook, monkeypatch):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    drawn = []
    plot = callbacks.History.plot
    monkeypatch.setattr(
        callbacks.History, "plot", lambda self, ax=None: drawn.append(plot(self)) or drawn[-1]
    )
    schedule = callbacks.LearningRateScheduler(lambda epoch: 0.1)
    history = run(schedule, callbacks.LivePlot(), epochs=4, validation_freq=2).history
    curves = {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for ax in drawn[-1].figure.axes
        for line in ax.get_lines()
    }
    assert curves == {
        "loss, training": ([1, 2, 3, 4], history["loss"]),
        "loss, validation": ([2, 4], history["val_loss"]),
        "accuracy, training": ([1, 2, 3, 4], history["accuracy"]),
        "accuracy, validation": ([2, 4], history["val_accuracy"]),
    }


# -- what does not fit ---------------------------------------------------------------------------------------


def test_missing_packages_are_named_with_their_install_line_before_training(monkeypatch, notebook):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'xpnet\[plot\]'"):
        run(callbacks.LivePlot())
    monkeypatch.delitem(sys.modules, "IPython")
    monkeypatch.setitem(sys.modules, "plotext", None)
    before = sys.stdout
    with pytest.raises(ImportError, match=r"plotext.*pip install 'xpnet\[plot\]'"):
        run(callbacks.LivePlot())
    assert sys.stdout is before


@pytest.mark.parametrize("height", [3, 12.5, "high", True])
def test_a_height_that_is_none_is_refused(height):
    with pytest.raises(ValueError, match=f"height.*Received: {height!r}"):
        callbacks.LivePlot(height)


def test_figures_that_are_not_finite_are_left_out(capsys):
    def spoil(epoch, logs):
        logs["own"] = [float("nan"), 1.0, float("inf"), 2.0][epoch]
        logs["gone"] = float("nan")
        logs["val_a_loss"] = 0.5

    run(callbacks.LambdaCallback(on_epoch_end=spoil), callbacks.LivePlot(), epochs=4)
    shown = capsys.readouterr().out
    assert "▚ own" in shown and "gone" not in shown and "⠪ val_a_loss" in shown


def test_more_names_than_there_is_room_for_are_cut(capsys):
    many = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update({f"figure_{k}": k for k in range(9)})
    )
    run(many, callbacks.LivePlot(), epochs=2)
    shown = capsys.readouterr().out
    assert "▚ accuracy" in shown and " …" in shown and "figure_8" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_where_no_figure_is_finite_the_frame_is_there(capsys):
    def spoil(epoch, logs):
        logs.update({name: float("nan") for name in logs})

    run(callbacks.LambdaCallback(on_epoch_end=spoil), callbacks.LivePlot(), epochs=1)
    assert "┌" in capsys.readouterr().out
