"""Callbacks that write the model to files while it is trained."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from .averaging import weights_in_training
from .callbacks import say
from .monitors import Monitor

WHOLE = (".safetensors", ".keras")


class ModelCheckpoint(Monitor):
    """Write the model to filepath at the end of each epoch, or of every save_freq batches.

    filepath: a .safetensors or .keras file, whose folder is made; it may name figures, as in
    "{epoch:02d}-{val_loss:.2f}.safetensors" (epochs and batches from 1).  Each file is written whole or not
    at all.  The arguments up to initial_value_threshold are Keras's.

    verbose: print what is written.  monitor, mode, save_best_only: only where the figure is the best so far,
    or better than initial_value_threshold; a figure that is not there is an error.  save_weights_only: arrays
    without the architecture, for `model.load_weights`; in a file that ends in .h5 as Keras writes them.
    training: what a run needs to go on to the bit, too: see `model.save`; of a model whose weights are
    averaged, the weights in training.  period: at the end of so many epochs.  keep_last: of the files
    written, only so many stay.
    """

    kept = ("best", "_batches")

    def __init__(
        self,
        filepath,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        *,
        training: bool = False,
        period: int = 1,
        keep_last: int | None = None,
    ):
        super().__init__(monitor, mode)
        self.filepath = str(filepath)
        suffix = Path(self.filepath).suffix
        if suffix not in WHOLE and not (save_weights_only and suffix == ".h5"):
            stem = self.filepath.removesuffix(suffix).removesuffix(".weights")
            raise ValueError(
                f"filepath must end in .safetensors or .keras. Received: {self.filepath!r}"
                + (", a format of Keras 2's for whole models" if suffix in (".h5", ".hdf5") else "")
                + f". Expected: {stem + '.safetensors'!r}; or weights alone, save_weights_only=True, in "
                f"{stem + '.weights.h5'!r}"
            )
        if save_freq != "epoch" and not _is_count(save_freq):
            raise ValueError(f"save_freq must be 'epoch' or a number of batches. Received: {save_freq!r}")
        if not _is_count(period):
            raise ValueError(f"period must be a number of epochs. Received: {period!r}")
        if keep_last is not None and not _is_count(keep_last):
            raise ValueError(f"keep_last must be a number of files. Received: {keep_last!r}")
        if training and save_weights_only:
            raise ValueError("training=True writes more than weights. Expected: save_weights_only=False")
        self.best = initial_value_threshold
        self.save_freq: Any = save_freq
        self.verbose, self.period = verbose, period
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.training, self.keep_last = training, keep_last
        self._batches = 0
        self._written: list[Path] = []

    def on_train_begin(self, logs=None):
        if self.save_best_only:
            super().on_train_begin()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq == "epoch":
            return
        self._batches += 1
        if self._batches >= self.save_freq:
            self._batches = 0
            self._save({"batch": batch + 1} | dict(logs or {}))

    def on_epoch_end(self, epoch, logs=None):
        if self.save_freq == "epoch" and (epoch + 1) % self.period == 0:
            self._save(dict(logs or {}))

    def _save(self, logs: dict[str, Any]) -> None:
        path, said = self._path(logs), f"Epoch {self._epoch + 1}: "
        if self.save_best_only:
            current, best = self.watched(logs), self.best
            if current is None:
                return
            before = "None" if best is None else f"{best:.5f}"
            if not self.better(current, best):
                self._say(f"{said}{self.monitor} did not improve from {before}")
                return
            self.best = current
            said += f"{self.monitor} improved from {before} to {current:.5f}, "
        self._say(f"{said}saving model to {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            with weights_in_training(self.model) if self.training else contextlib.nullcontext():
                self.model.save(path, training=self.training)
        self._drop_old(path)

    def _path(self, logs: dict[str, Any]) -> Path:
        try:
            return Path(self.filepath.format(epoch=self._epoch + 1, **logs))
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"filepath cannot be filled in ({type(error).__name__}: {error}). Received: "
                f"{self.filepath!r}. Expected: names among epoch, {', '.join(logs)}"
            ) from None

    def _drop_old(self, path: Path) -> None:
        self._written = [*(old for old in self._written if old != path), path]
        while self.keep_last is not None and len(self._written) > self.keep_last:
            self._written.pop(0).unlink(missing_ok=True)

    def _say(self, text: str) -> None:
        if self.verbose:
            say(text)


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
