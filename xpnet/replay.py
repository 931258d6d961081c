"""Layers' work repeated from recordings: whose work, from when on, and until when.

A recording (`ops/record.py`) makes the calls that the layers made and asks no layer again.  So it is made for
small work of the library's own layers only, since a user's may look at values; once the same shapes have come
a few times; after a trial on other numbers; and it goes as soon as a setting changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from inspect import isfunction
from typing import Any, NamedTuple

import numpy as np

from .config import Configurable
from .layers.base import Layer
from .ops import threads
from .ops.record import Recording, record, traced

USES = 4  # times that shapes are met before they are recorded: a recording costs about ten runs
MOST = 4  # shapes that are kept
LARGE = 16 << 20  # bytes of a recording that is not kept once training is over
_making = threading.Lock()  # one recording at a time: all that the work makes is held meanwhile
_HERE = __name__.partition(".")[0] + "."


class Buffers(NamedTuple):
    """The flat arrays that layers' parameters, gradients and statistics are views of."""

    values: np.ndarray
    grads: np.ndarray
    state: np.ndarray
    pending: np.ndarray

    def bind(self, layers: list[Layer], view: Callable = traced) -> None:
        """Give layers, and those inside them, their views."""
        for layer in layers:
            for slot in layer.slots:
                setattr(layer, slot.name, view(slot.view(self.values)))
                setattr(layer, "d" + slot.name, view(slot.view(self.grads)))
            for slot in layer.state_slots:
                setattr(layer, slot.name, view(slot.view(self.state)))
                setattr(layer, "next_" + slot.name, view(slot.view(self.pending)))
            for branch in layer.children().values():
                self.bind(branch, view)

    def hold(self, parts: list[Any]) -> bool:
        """Whether the layers among these still have the views that they were given."""
        return all(
            np.may_share_memory(getattr(layer, slot.name), flat)
            for layer in parts
            if isinstance(layer, Layer)
            for slots, flat in ((layer.slots, self.values), (layer.state_slots, self.state))
            for slot in slots
        )


class _Shapes:
    """What is known of inputs of these shapes and types."""

    def __init__(self) -> None:
        self.uses = self.made = 0
        self.idle: list[Recording] = []  # a recording at work is not in it


class Repeated:
    """Work on arrays that is recorded where that pays.

    make(buffers, view): a function of the arrays that yields a tuple of arrays, over layers bound to the
    buffers.  parts: a function that lists all that it follows, layers, activations, losses and metrics.
    """

    def __init__(self, make: Callable, buffers: Buffers, parts: Callable[[], list[Any]]):
        self.make, self.buffers, self.parts = make, buffers, parts
        self._look()

    def _look(self) -> None:
        """Begin anew with the settings as they are now."""
        parts = self.parts()
        self.possible = all(map(_own, parts)) and self.buffers.hold(parts)
        self._live = [part.__dict__ for part in parts]
        self._settings = [fields.copy() for fields in self._live]
        self._known: dict[tuple, _Shapes] = {}

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...] | None:
        """What the work yields, in memory of its own; None where there is no recording, and the work is to be
        done as it stands.
        """
        if self._changed():
            self._look()
        if not self.possible:
            return None
        key = tuple([x for a in arrays for x in (a.shape, a.dtype.char)])
        shapes = self._known.get(key)
        if shapes is None:
            shapes = self._known[key] = _Shapes()
            if len(self._known) > MOST:
                self._known.pop(next(iter(self._known)), None)
        try:
            recording = shapes.idle.pop()
        except IndexError:
            shapes.uses += 1
            if shapes.uses <= USES or shapes.made >= threads.num_threads():
                return None
            shapes.made += 1
            made = self._record(arrays)
            if made is None:
                shapes.made = 1 << 30  # for ever
                return None
            recording = made
        results = recording(*arrays)
        answer = tuple([np.array(a, order="C") for a in results])
        shapes.idle.append(recording)
        return answer

    def forget(self) -> None:
        """Give back the memory of all recordings that take much."""
        self._known = {
            key: shapes
            for key, shapes in self._known.items()
            if all(recording.size < LARGE for recording in shapes.idle)
        }

    def _changed(self) -> bool:
        try:
            return self._live != self._settings
        except ValueError:  # an array stands where another stood
            return True

    def _record(self, arrays) -> Recording | None:
        """A recording that has proved right on other inputs and other weights."""
        try:
            with _making, np.errstate(all="ignore"):
                trial = Buffers(*(flat.copy() for flat in self.buffers))
                recording = record(self.make(trial, traced), *arrays)
                rng = np.random.default_rng(0)
                for flat in (trial.values, trial.state):
                    flat *= rng.uniform(0.5, 1.5, flat.shape).astype(flat.dtype)
                others = [_others(a, rng) for a in arrays]
                answers = []
                for work in (self.make(trial, _as_it_is), recording):
                    trial.grads[...] = trial.pending[...] = 0
                    made = [*work(*others), trial.grads, trial.pending]
                    answers.append([np.array(a) for a in made])
                if not all(map(_alike, *answers)):
                    return None
                return record(self.make(self.buffers, traced), *arrays)
        except Exception:  # NotRecordable, or what else traced arrays cannot do; the layers can, or say why
            return None


def _as_it_is(a):
    return a


def _alike(a, b) -> bool:
    """Whether two arrays hold the same numbers; NaN is NaN."""
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _others(a: np.ndarray, rng) -> np.ndarray:
    """Other numbers like those of a."""
    mixed = rng.permutation(a.reshape(-1)).reshape(a.shape)
    return mixed if a.dtype.kind != "f" else (mixed * 0.5 + rng.random(a.shape)).astype(a.dtype)


def _own(part) -> bool:
    """Whether a part is one of the library's own, as the library made it."""
    if not isinstance(part, Configurable) or not type(part).__module__.startswith(_HERE):
        return False
    return not any(isfunction(getattr(type(part), name, None)) for name in vars(part))


def parts_of(layers: list[Layer]) -> list[Any]:
    """Layers, those inside them, and their activations."""
    found: list[Any] = []
    for layer in layers:
        found.append(layer)
        found += [vars(layer)[name] for name in ("activation", "function") if name in vars(layer)]
        for branch in layer.children().values():
            found += parts_of(branch)
    return found
