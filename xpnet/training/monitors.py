"""Callbacks that watch one figure: is it still getting better?"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from ..errors import unknown
from .callbacks import Callback, say
from .rates import rate_of, set_rate


class Monitor(Callback):
    """Base: a figure of `logs`, and whether it is better than another.

    mode: "min" or "max", which is better; "auto" knows it of the loss and of xpnet's metrics.  min_delta: a
    difference that is no larger does not count.
    """

    kept: tuple[str, ...] = ("best",)

    def __init__(self, monitor: str = "val_loss", mode: str = "auto", min_delta: float = 0.0):
        if mode not in ("auto", "min", "max"):
            raise unknown("mode", mode, ("auto", "min", "max"))
        check_number("min_delta", min_delta)
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)
        self.best: float | None = None
        self._falls = mode == "min"

    def on_train_begin(self, logs=None):
        if self.mode == "auto":
            self._falls = self._direction() == "min"

    def _direction(self) -> str:
        known = {"loss": "min"} | {label: metric.better for label, metric in self.model.metrics}
        direction = known.get(self.monitor.removeprefix("val_"))
        if direction is None:
            raise ValueError(
                f"{type(self).__name__} cannot tell whether its figure should rise or fall. Received: "
                f"monitor={self.monitor!r}. Expected: one of {', '.join(n for n, d in known.items() if d)}, "
                "or any of them after 'val_'; for a figure of your own give mode='min' or mode='max'"
            )
        return direction

    def watched(self, logs) -> float | None:
        """The figure; None in an epoch without validation, which has none.

        Raises ValueError where logs have no such figure, or one that is no number.
        """
        value = (logs or {}).get(self.monitor)
        name = self.monitor.removeprefix("val_")
        if value is None:
            measured = {"loss"} | {label for label, _ in self.model.metrics}
            if name != self.monitor and name in measured and self.params.get("validation"):
                return None
            raise ValueError(
                f"{type(self).__name__} watches a figure that is not there. Received: "
                f"monitor={self.monitor!r}. Expected: one of {', '.join(logs or ())}"
                + (
                    "; fit got no validation_data and no validation_split"
                    if name != self.monitor and not self.params.get("validation")
                    else ""
                )
            )
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ValueError(
                f"{type(self).__name__} needs a figure that is one number. Received: {self.monitor} of "
                f"{value!r}"
            )
        return float(value)

    def better(self, value: float, than: float | None) -> bool:
        """Whether value is better than the other, by more than min_delta; NaN never is."""
        if than is None:
            return not math.isnan(value)
        return value + self.min_delta < than if self._falls else value - self.min_delta > than


def check_number(name: str, value, least: float = -math.inf) -> None:
    """ValueError where value is no number, or less than `least`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= least:
        limit = "" if least == -math.inf else f" of at least {least:g}"
        raise ValueError(f"{name} must be a number{limit}. Received: {value!r}")


class EarlyStopping(Monitor):
    """Stop when the figure has not got better for `patience` epochs.  Prechelt, 1998.

    Arguments and behaviour are Keras's.  monitor: the figure, by its name in logs.  min_delta: a gain that is
    no larger does not count.  verbose: say so.  mode: "min", "max", or "auto", which knows it of the loss and
    of xpnet's metrics.  baseline: what must be beaten for an epoch to count as better.  restore_best_weights:
    training ends, also when it was not stopped, with the weights of its best epoch (and with its last ones
    after an error).  start_from_epoch: epochs before it are not looked at.  A figure that is not there is an
    error.
    """

    kept = ("best", "best_epoch", "best_weights", "wait")

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta)
        check_number("patience", patience, 0)
        check_number("start_from_epoch", start_from_epoch, 0)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best_weights: dict[str, Any] | None = None

    def on_train_begin(self, logs=None):
        super().on_train_begin()
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = self.best_weights = None

    def on_epoch_end(self, epoch, logs=None):
        current = self.watched(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        better = self.better(current, self.best)
        if self.restore_best_weights and (better or self.best_weights is None):
            self.best_weights, self.best_epoch = self.model.state_dict(), epoch
        self.wait += 1
        if better:
            self.best, self.best_epoch = current, epoch
            if self.baseline is None or self.better(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.stopped_epoch and self.verbose:
            say(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                say(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
            self.model.load_state_dict(self.best_weights)

    def on_train_error(self, error, logs=None):
        """The weights stay as they are."""


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rate by `factor` when the figure has not got better for `patience` epochs.

    Arguments and behaviour are Keras's.  monitor, min_delta, verbose, mode: as in `EarlyStopping`.  cooldown:
    epochs after a reduction in which none is counted.  min_lr: the rate never falls below it.  The rate goes
    into the logs as "learning_rate".  An optimizer that follows a schedule is an error.
    """

    kept = ("best", "wait", "cooldown_counter")

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, mode, min_delta)
        for name, value in (
            ("factor", factor), ("patience", patience), ("cooldown", cooldown), ("min_lr", min_lr),
        ):  # fmt: skip
            check_number(name, value, 0)
        if factor >= 1:
            raise ValueError(f"factor must be below 1. Received: {factor!r}")
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr
        self.wait = self.cooldown_counter = 0

    def on_train_begin(self, logs=None):
        super().on_train_begin()
        rate_of(self)
        self.best, self.wait, self.cooldown_counter = None, 0, 0

    def in_cooldown(self) -> bool:
        """Whether the last reduction is too fresh for another."""
        return self.cooldown_counter > 0

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["learning_rate"] = rate_of(self)
        current = self.watched(logs)
        if current is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
        if self.better(current, self.best):
            self.best, self.wait = current, 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        old = rate_of(self)
        if old <= self.min_lr:
            return
        new = set_rate(self, max(old * self.factor, self.min_lr), "the reduced rate")
        self.cooldown_counter, self.wait = self.cooldown, 0
        if self.verbose:
            say(f"Epoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {new:.6g}.")
