"""What MLPClassifier does between epochs: keep the losses, stop where they stand still, keep the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..callbacks import Callback
from .solvers import penalty

LEAST_RATE = 1e-6  # below it, learning_rate="adaptive" stops instead of going on more slowly


class Progress(Callback):
    """Stops training once the loss, or the score on held-out samples, has not improved by tol for more than
    `patience` epochs.

    score: a function of the model; the weights with the best score are the ones that stay.  schedule:
    "adaptive" divides the learning rate by 5 where training would stop; "invscaling" divides the first rate
    by (samples seen)^power_t after each epoch.  seen: samples trained on before.
    """

    def __init__(
        self,
        tol: float,
        patience: float,
        score: Callable[[Any], float] | None = None,
        schedule: str = "constant",
        power_t: float = 0.5,
        samples: int = 0,
        seen: int = 0,
    ):
        self.tol, self.patience, self.score = tol, patience, score
        self.schedule, self.power_t, self.samples, self.seen = schedule, power_t, samples, seen
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.stopped = False  # by what is seen here

    def on_train_begin(self, logs=None):
        self.best, self.still, self.weights = -math.inf, 0, None
        self.first_rate = self.model.optimizer.learning_rate

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["loss"] + penalty(self.model))
        value = -self.losses[-1]
        if self.score is not None:
            value = logs["val_score"] = self.score(self.model)
            self.scores.append(value)
        self.still = self.still + 1 if value < self.best + self.tol else 0
        if value > self.best:
            self.best = value
            if self.score is not None:
                self.weights = self.model.state_dict()
        self.seen += self.samples
        optimizer = self.model.optimizer
        if self.schedule == "invscaling":
            self._set_rate(self.first_rate / (self.seen + 1) ** self.power_t)
        if self.still > self.patience:
            if self.schedule == "adaptive" and optimizer.learning_rate > LEAST_RATE:
                self._set_rate(optimizer.learning_rate / 5)
                self.still = 0
            else:
                self.stopped = self.model.stop_training = True

    def _set_rate(self, rate: float) -> None:
        """Another learning rate for SGD, whose velocity keeps its pace, as scikit-learn's does."""
        model = self.model
        if "velocity" in model.optimizer_state:
            with model.ops.running():
                model.optimizer_state["velocity"] *= model.optimizer.learning_rate / rate
        model.optimizer.learning_rate = rate

    def on_train_end(self, logs=None):
        if self.weights is not None:
            self.model.load_state_dict(self.weights)
