"""A run that is killed goes on where it was, to the bit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from ..interop import files
from ..interop.saving import STATE, weights_of
from .averaging import weights_in_training
from .callbacks import Callback

NAME, MORE = "epoch-{}.safetensors", "epoch-{}.callbacks.safetensors"  # after so many epochs


class BackupAndRestore(Callback):
    """Back the run up at the end of each epoch; where there is a backup when training begins, go on from it.

    backup_dir: a folder for this run alone, which is made.  Weights, optimizer, learning rate, shuffles and
    dropout masks go on to the bit, and so do the other callbacks' counts, best weights and averages: list
    this one last.  `fit` is called as before, with the whole number of epochs.  delete_checkpoint: training
    that has ended, but not in an error, leaves no backup.

    save_freq, double_checkpoint: Keras's; within an epoch there is no place to go on from, and a backup is
    there whole before the one before it goes.

    Raises ValueError where another callback follows it.
    """

    def __init__(
        self,
        backup_dir,
        save_freq: str = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ):
        if save_freq != "epoch":
            raise ValueError(f"a run can go on from an epoch's end only. Received: save_freq={save_freq!r}")
        self.backup_dir, self.save_freq = Path(backup_dir), save_freq
        self.double_checkpoint, self.delete_checkpoint = double_checkpoint, delete_checkpoint
        self._of_callbacks: tuple[list, dict] | None = None

    def on_train_begin(self, logs=None):
        others = self.params["callbacks"]
        later = [one for one in others[others.index(self) + 1 :] if one.kept]
        if later:
            raise ValueError(
                "BackupAndRestore must come last: what follows would be backed up as it was an epoch before. "
                f"Received: {type(later[0]).__name__} after it"
            )
        self.backup_dir.mkdir(parents=True, exist_ok=True)
        self._of_callbacks = None
        if done := self._epochs():
            self._restore(max(done))
            self.params["initial_epoch"] = max(done)

    def on_epoch_begin(self, epoch, logs=None):
        if self._of_callbacks is not None:  # now that they have begun
            states, arrays = self._of_callbacks
            for number, state in enumerate(states):
                _load(self.params["callbacks"][number], state, f"{number}.", arrays)
            self._of_callbacks = None

    def on_epoch_end(self, epoch, logs=None):
        before, done = self._epochs(), epoch + 1
        arrays: dict[str, Any] = {}
        states = [_state(one, f"{number}.", arrays) for number, one in enumerate(self.params["callbacks"])]
        rate = self.model.optimizer.learning_rate
        note = {"callbacks": states, "learning_rate": None if callable(rate) else float(rate)}
        files.write(self.backup_dir / MORE.format(done), arrays, {"backup": json.dumps(note)})
        with weights_in_training(self.model):
            self.model.save(self.backup_dir / NAME.format(done), training=True)
        for old in before:
            if old != done:
                self._delete(old)

    def on_train_end(self, logs=None):
        if self.delete_checkpoint:
            for done in self._epochs():
                self._delete(done)
            if not any(self.backup_dir.iterdir()):
                self.backup_dir.rmdir()

    def on_train_error(self, error, logs=None):
        """The backup stays."""

    def _epochs(self) -> list[int]:
        """Epochs after which there is a backup."""
        found = [re.fullmatch(NAME.format(r"(\d+)"), path.name) for path in self.backup_dir.iterdir()]
        return [int(one[1]) for one in found if one]

    def _delete(self, done: int) -> None:
        for name in (NAME, MORE):
            (self.backup_dir / name.format(done)).unlink(missing_ok=True)

    def _restore(self, done: int) -> None:
        model, path = self.model, self.backup_dir / NAME.format(done)
        tensors, notes = files.read(path)
        weights = weights_of(tensors)
        state = {name.removeprefix(STATE): a for name, a in tensors.items() if name.startswith(STATE)}
        ours = model._snapshot()
        for kind, received, expected in (
            ("weights", weights, ours["weights"]),
            ("optimizer", state, ours["optimizer"]),
        ):
            wrong = [
                name
                for name in expected | received
                if getattr(expected.get(name), "shape", None) != getattr(received.get(name), "shape", None)
            ]
            if wrong:
                raise ModelFileError(
                    f"{path} is the backup of another run: its {kind} do not fit, first {wrong[0]}. "
                    "Expected: the same model and optimizer; or another backup_dir"
                )
        model._load_snapshot({"weights": weights, "optimizer": state, **json.loads(notes["training"])})
        arrays, more = files.read(self.backup_dir / MORE.format(done))
        note = json.loads(more["backup"])
        if note["learning_rate"] is not None:
            model.optimizer.learning_rate = note["learning_rate"]
        kinds = [type(one).__name__ for one in self.params["callbacks"]]
        if [state["class"] for state in note["callbacks"]] != kinds:
            raise ModelFileError(
                f"{path} is the backup of a run with other callbacks. Received: {', '.join(kinds)}. "
                f"Expected: {', '.join(state['class'] for state in note['callbacks'])}; or another backup_dir"
            )
        self._of_callbacks = note["callbacks"], arrays


def _state(callback: Callback, prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """What the callback keeps, as JSON; its arrays go into arrays."""
    state: dict[str, Any] = {"class": type(callback).__name__}
    for name in callback.kept:
        value = getattr(callback, name)
        if isinstance(value, dict):
            arrays |= {f"{prefix}{name}.{key}": a for key, a in value.items()}
        else:
            state[name] = value
    return state


def _load(callback: Callback, state: dict[str, Any], prefix: str, arrays: dict[str, Any]) -> None:
    for name in callback.kept:
        start = f"{prefix}{name}."
        found = {key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)}
        setattr(callback, name, found or state.get(name))
