"""Learning rates that change as training goes on.  A schedule is called with the number of steps taken so
far.
"""

from __future__ import annotations

import math

from .config import Configurable


class Schedule(Configurable):
    """Base of schedules, which are called with a step and return its learning rate."""

    def __call__(self, step: int) -> float:
        """The rate at this step, from 0."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__")


def _steps(kind: str, name: str, value) -> None:
    if not value >= 1:
        raise ValueError(f"{kind}: {name} must be at least 1. Received: {value!r}")


class Constant(Schedule):
    """The same learning_rate for ever."""

    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def __call__(self, step):
        return self.learning_rate


class StepDecay(Schedule):
    """initial_learning_rate, times factor once in every `every` steps."""

    def __init__(self, initial_learning_rate, every, factor=0.1):
        _steps("StepDecay", "every", every)
        self.initial_learning_rate, self.every, self.factor = initial_learning_rate, every, factor

    def __call__(self, step):
        return self.initial_learning_rate * self.factor ** (step // self.every)


class PiecewiseConstantDecay(Schedule):
    """values[i] up to and including step boundaries[i], the last value beyond, as in Keras."""

    def __init__(self, boundaries, values):
        if len(values) != len(boundaries) + 1 or list(boundaries) != sorted(boundaries):
            raise ValueError(
                "PiecewiseConstantDecay: expected rising boundaries and one more value than boundaries. "
                f"Received: boundaries={boundaries!r}, values={values!r}"
            )
        self.boundaries, self.values = list(boundaries), list(values)

    def __call__(self, step):
        return self.values[sum(step > boundary for boundary in self.boundaries)]


class ExponentialDecay(Schedule):
    """initial_learning_rate decay_rate^(step / decay_steps); with staircase, only whole multiples of
    decay_steps count.
    """

    def __init__(self, initial_learning_rate, decay_steps, decay_rate, staircase=False):
        _steps("ExponentialDecay", "decay_steps", decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.decay_rate, self.staircase = decay_rate, staircase

    def __call__(self, step):
        times = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate**times


class CosineDecay(Schedule):
    """Down half a cosine over decay_steps to alpha times the rate it starts from.  Loshchilov & Hutter, 2017,
    eq. 5.

    With warmup_target, first a line from initial_learning_rate up to it over warmup_steps, as in Keras.
    """

    def __init__(self, initial_learning_rate, decay_steps, alpha=0.0, warmup_target=None, warmup_steps=0):
        _steps("CosineDecay", "decay_steps", decay_steps)
        self.initial_learning_rate, self.decay_steps, self.alpha = initial_learning_rate, decay_steps, alpha
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

    def __call__(self, step):
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return top + (self.warmup_target - top) * step / self.warmup_steps
            top, step = self.warmup_target, step - self.warmup_steps
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / self.decay_steps, 1)))
        return top * ((1 - self.alpha) * cosine + self.alpha)


class WarmUp(Schedule):
    """A line from 0 up to the rate that follows; then the schedule, from its step 0.

    schedule: an object, or a rate.  steps: of the line.
    """

    def __init__(self, schedule, steps):
        _steps("WarmUp", "steps", steps)
        self.schedule, self.steps = schedule, steps

    def __call__(self, step):
        after = self.schedule if callable(self.schedule) else Constant(self.schedule)
        return after(0) * (step + 1) / (self.steps + 1) if step < self.steps else after(step - self.steps)
