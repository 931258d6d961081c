"""Learning rates that callbacks set between epochs."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from ..optimizers import check_rate
from .callbacks import Callback, say


def rate_of(callback: Callback) -> float:
    """The learning rate of the callback's model; TypeError where a schedule decides on it."""
    rate = callback.model.optimizer.learning_rate
    if callable(rate):
        raise TypeError(
            f"{type(callback).__name__} sets the learning rate, which the optimizer takes from a schedule. "
            f"Received: learning_rate={rate!r}. Expected: a number, "
            f"{type(callback.model.optimizer).__name__}(learning_rate=0.001); or the schedule without the "
            "callback"
        )
    return float(rate)


def set_rate(callback: Callback, rate, what: str) -> float:
    """Give the optimizer another learning rate from the next step on."""
    check_rate(f"{what} must be", rate)
    callback.model.optimizer.learning_rate = float(rate)
    return float(rate)


class LearningRateScheduler(Callback):
    """Set the learning rate at the beginning of each epoch.

    schedule: called with the epoch, from 0, and the rate so far, or with the epoch alone where that is all it
    takes.  verbose: print it.  The rate goes into the logs as "learning_rate".  An optimizer that follows a
    schedule of its own is an error.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0):
        if not callable(schedule):
            raise TypeError(
                f"schedule must be a function of the epoch and the learning rate. Received: {schedule!r}"
            )
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch, logs=None):
        known = (epoch, rate_of(self))
        asked = self.schedule(*known[: _places(self.schedule)])
        rate = set_rate(self, asked, f"the schedule's rate for epoch {epoch} (from 0)")
        if self.verbose:
            say(f"Epoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate:.6g}.")

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["learning_rate"] = rate_of(self)


def _places(function) -> int:
    """How many of two positional arguments the function takes."""
    try:
        inspect.signature(function).bind(0, 0.0)
    except TypeError:
        return 1
    except ValueError:  # written in C, without a signature
        return 2
    return 2
