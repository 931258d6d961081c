"""A running average of the weights, which often does better than the weights themselves."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from .callbacks import Callback

_averages: weakref.WeakKeyDictionary[Any, WeightAverage] = weakref.WeakKeyDictionary()


class WeightAverage(Callback):
    """Exponential moving average of the weights: a = decay a + (1 - decay) w after each update.  Polyak &
    Juditsky, 1992; Tarvainen & Valpola, 2017, eq. 1.

    decay: at least 0, below 1; it averages over about 1 / (1 - decay) updates.  warm_up: begin with less, by
    min(decay, (1 + t) / (10 + t)) after t updates, as TensorFlow does, so that short runs forget their start.
    start_from_epoch: epochs before it do not count.  The average begins as the weights after the first update
    that counts, as in Keras.

    The model holds the average from the validation until the next epoch begins, so what is measured is what
    ModelCheckpoint writes and EarlyStopping keeps; without validation data, list this callback before them.
    keep_average: the model holds it at the end, too.  After an error it holds the weights of its last step.

    The running statistics of BatchNormalization are averages already and stay as they are, as in Keras:
    averaged once more they lag behind, which on digits gave the same accuracy or a lower one.

    Raises ValueError where a model is to hold two averages.
    """

    kept = ("updates", "average")

    def __init__(
        self,
        decay: float = 0.999,
        warm_up: bool = True,
        start_from_epoch: int = 0,
        keep_average: bool = True,
    ):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1. Received: {decay!r}")
        self.decay, self.warm_up = decay, warm_up
        self.start_from_epoch, self.keep_average = start_from_epoch, keep_average
        self.updates = 0
        self._forget()

    def _forget(self) -> None:
        self._params: Any = None
        self._average: Any = None  # as params.values; while the model holds it, what training goes on with
        self.held = False

    @property
    def average(self) -> dict[str, np.ndarray]:
        """The averages by the parameters' names in `state_dict`, on the host, while training goes on."""
        flat = self._params.values if self.held else self._average
        return {name: self._params.read(flat, slot) for name, slot in self._slots()}

    @average.setter
    def average(self, arrays: dict[str, np.ndarray]) -> None:
        for name, slot in self._slots():
            self._params.write(self._params.values if self.held else self._average, slot, arrays[name])

    def _slots(self):
        return [(name, slot) for name, slot in self.model._named_slots() if slot in self._params.slots]

    def on_train_begin(self, logs=None):
        if sum(isinstance(one, WeightAverage) for one in self.params["callbacks"]) > 1:
            raise ValueError("the model can hold one average. Expected: WeightAverage once among callbacks")
        self._params, self.updates, self.held = self.model.params, 0, False
        with self.model.ops.running():
            self._average = self.model.params.values.copy()
        _averages[self.model] = self

    def on_epoch_begin(self, epoch, logs=None):
        self._counts, self._steps = epoch >= self.start_from_epoch, self.model.optimizer.iterations
        self._hold(False)

    def on_train_batch_end(self, batch, logs=None):
        steps = self.model.optimizer.iterations
        if steps != self._steps:  # gradients that are gathered move nothing
            self._steps = steps
            if self._counts:
                self._update()

    def _update(self) -> None:
        """a += (1 - decay) (w - a), in place and without memory of its own."""
        t = self.updates
        decay = min(self.decay, (1 + t) / (10 + t)) if self.warm_up else self.decay
        values, average = self._params.values, self._average
        with self._params.ops.running():
            for piece in self._params.ops.blocks(0, len(values)):
                w, a = values[piece], average[piece]
                a -= w
                a *= decay if t else 0.0
                a += w
        self.updates += 1

    def on_test_begin(self, logs=None):
        self._hold(True)

    def on_epoch_end(self, epoch, logs=None):
        self._hold(True)

    def on_train_end(self, logs=None):
        self._hold(self.keep_average)
        self._end()

    def on_train_error(self, error, logs=None):
        self._hold(False)
        self._end()

    def _end(self) -> None:
        _averages.pop(self.model, None)
        self._forget()

    def _hold(self, wanted: bool) -> None:
        """Let the model hold the average, if there is one, or the weights that training goes on with."""
        if self._average is None or wanted == self.held or not self.updates:
            return
        if self.model.params is not self._params:
            raise RuntimeError(
                "the model was moved or rebuilt (to, add, pop) while its weights are averaged. Expected: "
                "that before fit"
            )
        values = self._params.values
        with self._params.ops.running():
            other = values.copy()
            values[...] = self._average  # the array stays the same one: recordings and layers hold it
            self._average[...] = other
        self.held = wanted


@contextlib.contextmanager
def weights_in_training(model) -> Iterator[None]:
    """The block finds the weights that training goes on with, also while the model holds their average."""
    average = _averages.get(model)
    if average is None or not average.held:
        yield
        return
    average._hold(False)
    try:
        yield
    finally:
        average._hold(True)
