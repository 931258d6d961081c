"""The learning-rate range test: which rate to train with, found by trying them all once.

The rate grows from batch to batch, by the same factor each time; the loss first falls, fastest where the rate
is good, and grows where it is too large.  Smith, 2015, "Cyclical learning rates", section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import NonFiniteError
from .callbacks import Callback
from .rates import rate_of, set_rate

SMOOTHING = 0.9  # of the running mean of the losses
DIVERGED = 4.0  # times the best smoothed loss is enough, as fastai has it
LEAST = 10  # batches that a curve is made of


@dataclass(frozen=True)
class RateCurve:
    """What a range test measured: rates (S,), losses (S,) and their running means `smoothed` (S,)."""

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest per decade, once the running mean has settled and before
        the minimum.
        """
        lowest = int(np.argmin(self.smoothed))
        slope = np.gradient(self.smoothed, np.log10(self.rates))
        begin = min(LEAST, lowest)
        return float(self.rates[begin + np.argmin(slope[begin : lowest + 1])])

    @property
    def lowest(self) -> float:
        """The rate of the lowest loss, which is too large already."""
        return float(self.rates[np.argmin(self.smoothed)])

    @property
    def suggestion(self) -> float:
        """A tenth of the rate of the lowest loss: Gugger, 2018, "How do you find a good learning rate".

        In 18 short runs (three nets on digits and MNIST by SGD, momentum and Adam) the loss came within half
        of what the best rate of a grid reached in 14; with the steepest rate in 8.
        """
        return self.lowest / 10

    def plot(self, ax=None):
        """Loss by learning rate, with the suggestion, drawn into ax or a new figure; the Axes.  Needs pip
        install 'xpnet[plot]'.
        """
        from ..viz import plot_rates

        return plot_rates(self, ax=ax)

    def _repr_html_(self) -> str:
        """What a notebook shows: loss by learning rate, and the suggestion."""
        from ..viz import notebook

        return notebook.card(notebook.rates(self))

    def __repr__(self) -> str:
        return (
            f"RateCurve(suggestion={self.suggestion:.2g}, steepest={self.steepest:.2g}, "
            f"lowest={self.lowest:.2g}, {len(self.rates)} batches)"
        )


def find_learning_rate(
    model,
    x,
    y=None,
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    batch_size: int | str | None = None,
    **fit,
) -> RateCurve:
    """Try learning rates from start to end, one a batch, and tell how the loss took them.

    x (N, ...), y, batch_size, and sample_weight, class_weight, shuffle by name: as in `Sequential.fit`.
    steps: batches, over as many epochs as that takes.  It ends early where the loss has grown to four times
    its lowest or is not finite.

    The model, its optimizer and its random numbers are afterwards what they were, to the bit; of an iterator
    that cannot start anew the batches are gone.  Raises NonFiniteError where the first batches fail already,
    ValueError where start, end and steps do not make a range.
    """
    if not 0 < start < end < math.inf:
        raise ValueError(f"expected 0 < start < end. Received: start={start!r}, end={end!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < LEAST:
        raise ValueError(f"steps must be a whole number of at least {LEAST}. Received: {steps!r}")
    test, before = _RangeTest(np.geomspace(start, end, steps)), (model.history, model.stop_training)
    epochs = 1 if hasattr(x, "__next__") else steps  # an iterator cannot start anew
    try:
        model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[test], **fit)
    except NonFiniteError:
        if len(test.losses) < LEAST:
            raise
    finally:
        model.history, model.stop_training = before
    count = len(test.losses)
    if count < LEAST:
        raise ValueError(
            f"too few batches to tell. Received: {count} before the loss had grown to {DIVERGED:g} times its "
            f"lowest. Expected: at least {LEAST}; begin with a smaller rate than start={start!r}"
            if test.diverged
            else f"too few batches to tell. Received: data of {count}. Expected: at least {LEAST}"
        )
    return RateCurve(test.rates[:count], np.array(test.losses), np.array(test.smoothed))


class _RangeTest(Callback):
    """Trains each batch at the next rate, and puts the model back."""

    def __init__(self, rates: np.ndarray):
        self.rates = rates
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.diverged = False
        self._saved: dict[str, Any] | None = None

    def on_train_begin(self, logs=None):
        model = self.model
        rate_of(self)
        self._saved = model._snapshot() | {"rate": model.optimizer.learning_rate}
        self._mean = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._total = self._weight = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        set_rate(self, self.rates[len(self.losses)], "a rate to try")

    def on_train_batch_end(self, batch, logs=None):
        total, weight = logs["loss"] * logs.weight, logs.weight
        loss = (total - self._total) / ((weight - self._weight) or 1.0)
        self._total, self._weight = total, weight
        if not math.isfinite(loss):
            self.diverged = self.model.stop_training = True
            return
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self.losses.append(loss)
        self.smoothed.append(self._mean / (1 - SMOOTHING ** len(self.losses)))  # which began at 0
        best = min(self.smoothed)
        self.diverged = self.smoothed[-1] > best + (DIVERGED - 1) * abs(best)
        self.model.stop_training = self.diverged or len(self.losses) == len(self.rates)

    def on_train_end(self, logs=None):
        saved, model = self._saved, self.model
        if saved is not None:
            model._load_snapshot(saved)
            model.optimizer.learning_rate = saved["rate"]
