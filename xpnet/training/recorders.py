"""Callbacks that write figures down: a table for people and scripts, events for TensorBoard."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .callbacks import Callback, is_number


class CSVLogger(Callback):
    """A line of figures for each epoch in a CSV file, as Keras writes it; epochs count from 0.

    filename: its folder is made.  separator: between figures, one character.  append: go on with a file that
    is there, which must have the same columns.  The columns are the figures of the first epoch; a figure that
    an epoch lacks is NA.  Raises ValueError where a later epoch has others.
    """

    def __init__(self, filename, separator: str = ",", append: bool = False):
        if not isinstance(separator, str) or len(separator) != 1:
            raise ValueError(f"separator must be one character. Received: {separator!r}")
        self.filename, self.separator, self.append = Path(filename), separator, append
        self._file: Any = None
        self._columns: list[str] | None = None
        self._first = True

    def on_train_begin(self, logs=None):
        self._close()
        self.filename.parent.mkdir(parents=True, exist_ok=True)
        self._columns, self._first = self._found() if self.append else None, True
        self._file = self.filename.open("a" if self.append else "w", newline="")

    def _found(self) -> list[str] | None:
        """The columns of the file that is there."""
        if not self.filename.exists():
            return None
        with open(self.filename, newline="") as file:
            columns = next(csv.reader(file, delimiter=self.separator), None)
        if columns is not None and columns[:1] != ["epoch"]:
            raise ValueError(
                f"{self.filename} is no log to go on with. Received: columns {', '.join(columns)}. Expected: "
                f"'epoch' first, separated by {self.separator!r}"
            )
        return columns

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        begun = self._columns is not None
        if self._columns is None:
            self._columns = ["epoch", *_columns(logs)]
        elif self._first and (missing := [name for name in logs if name not in self._columns]):
            raise ValueError(
                f"{self.filename} has other columns. Received: {', '.join(missing)}. Expected: "
                f"{', '.join(self._columns[1:])}; or append=False, which begins the file anew"
            )
        writer = csv.DictWriter(
            self._file, self._columns, restval="NA", extrasaction="ignore", delimiter=self.separator
        )
        if not begun:
            writer.writeheader()
        writer.writerow({"epoch": epoch} | {name: _cell(value) for name, value in logs.items()})
        self._file.flush()
        self._first = False

    def on_train_end(self, logs=None):
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _columns(logs) -> list[str]:
    names = sorted(logs)
    validated = any(name.startswith("val_") for name in names)
    return names if validated else names + [f"val_{name}" for name in names]  # which may come later


def _cell(value):
    if isinstance(value, str) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        return value
    return f'"[{", ".join(map(str, value))}]"'


class TensorBoard(Callback):
    """Events for TensorBoard, in log_dir/train and log_dir/validation, under the names that Keras gives them.

    "epoch_" + name: each epoch's figures and learning rate, and the validation's by updates made; with
    update_freq a number of batches (or "batch") also "batch_" + name of the epoch so far, by batches trained.
    histogram_freq: epochs between histograms of the weights (0: none); write_images: with them, the weights
    as pictures in grey.  write_graph: the model's summary, as text.  write_steps_per_second: with each epoch,
    too.  profile_batch, embeddings_freq, embeddings_metadata: there is no profile and no embedding, so
    anything but the defaults is a ValueError.

    Written by tensorboardX (pip install 'xpnet[tensorboard]'), because it needs neither TensorFlow nor
    PyTorch; to look at them, pip install tensorboard.
    """

    def __init__(
        self,
        log_dir="logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: int = 0,
        embeddings_freq: int = 0,
        embeddings_metadata=None,
    ):
        if profile_batch or embeddings_freq or embeddings_metadata:
            raise ValueError(
                f"there is no profile and no embedding to write. Received: profile_batch={profile_batch!r}, "
                f"embeddings_freq={embeddings_freq!r}, embeddings_metadata={embeddings_metadata!r}. "
                "Expected: 0, 0 and None"
            )
        every = 1 if update_freq == "batch" else update_freq
        if every != "epoch" and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise ValueError(
                f"update_freq must be 'epoch', 'batch' or a number of batches. Received: {update_freq!r}"
            )
        if not histogram_freq >= 0:
            raise ValueError(f"histogram_freq must not be negative. Received: {histogram_freq!r}")
        self.log_dir, self.histogram_freq = Path(log_dir), histogram_freq
        self.update_freq: Any = every
        self.write_graph, self.write_images = write_graph, write_images
        self.write_steps_per_second = write_steps_per_second
        self._writers: dict[str, Any] = {}
        self._batch = 0

    def on_train_begin(self, logs=None):
        self._batch = 0
        writer = self._writer("train")
        if self.write_graph:
            lines: list[str] = []
            self.model.summary(print_fn=lines.append)
            writer.add_text("model", "\n".join(f"    {line}" for line in lines))

    def on_epoch_begin(self, epoch, logs=None):
        self._began, self._batches = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        self._batch += 1
        self._batches += 1
        if self.update_freq != "epoch" and self._batch % self.update_freq == 0:
            self._write("train", "batch_", logs or {}, self._batch)

    def on_test_end(self, logs=None):
        figures = {f"{name}_vs_iterations": value for name, value in (logs or {}).items()}
        self._write("validation", "evaluation_", figures, self.model.optimizer.iterations)

    def on_epoch_end(self, epoch, logs=None):
        logs = dict(logs or {})
        validation = {name[4:]: logs.pop(name) for name in list(logs) if name.startswith("val_")}
        logs["learning_rate"] = self.model.optimizer.rate()
        if self.write_steps_per_second:
            logs["steps_per_second"] = self._batches / (time.perf_counter() - self._began)
        self._write("train", "epoch_", logs, epoch)
        self._write("validation", "epoch_", validation, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _write(self, part: str, prefix: str, figures, step: int) -> None:
        for name, value in figures.items():
            if is_number(value):
                self._writer(part).add_scalar(prefix + name, value, step)

    def _write_weights(self, epoch: int) -> None:
        writer = self._writer("train")
        for name, value in self.model.state_dict().items():
            writer.add_histogram(f"{name}/histogram", value.reshape(-1), epoch)
            if self.write_images:
                writer.add_image(f"{name}/image", _picture(value), epoch, dataformats="HW")

    def _writer(self, part: str):
        if part not in self._writers:
            self._writers[part] = _tensorboardx().SummaryWriter(str(self.log_dir / part))
        return self._writers[part]


def _picture(weight: np.ndarray) -> np.ndarray:
    """A weight as a picture (H, W) from 0 to 1, wider than high, of which kernels are the tiles."""
    if weight.ndim == 4:
        F, C, KH, KW = weight.shape
        weight = weight.transpose(0, 2, 1, 3).reshape(F * KH, C * KW)
    picture = np.atleast_2d(weight).astype(np.float64)
    picture = picture.T if picture.shape[0] > picture.shape[1] else picture
    low, high = picture.min(), picture.max()
    return (picture - low) / (high - low or 1.0)


def _tensorboardx():
    try:
        import tensorboardX
    except ModuleNotFoundError as error:
        if error.name != "tensorboardX":
            raise
        raise ImportError(
            "TensorBoard needs tensorboardX, which is not installed. Install it: "
            "pip install 'xpnet[tensorboard]'"
        ) from None
    return tensorboardX
