"""Layers' work repeated from recordings: whose work, from when on, and until when.

A recording (`ops/record.py`) makes the calls that the layers made and asks no layer again.  So it is made for
the library's own layers only, since a user's may look at values; once the same shapes have come a few times;
after a trial on other numbers; and it goes as soon as a setting changes.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from inspect import isfunction
from typing import Any, NamedTuple

import numpy as np

from .config import Configurable
from .layers.base import Layer
from .ops import threads
from .ops.memory import Room, now, pool
from .ops.record import NotRecordable, Recording, record, traced

USES = 4  # times that shapes are met before they are recorded: a recording costs a few runs
MOST = 4  # shapes of which a thread keeps recordings
SHAPES = 1000  # whose uses are counted
AGAIN = 60  # uses, besides, before one that gave way to another is recorded anew
NEVER = -1 << 60  # uses of shapes that cannot be recorded
LARGE = 16 << 20  # bytes of a recording that is not kept once training is over
_making = threading.Lock()  # one recording at a time: a trial needs copies of the parameters
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


class _Worker:
    """Recordings of which one is repeated at a time, and the room that they share."""

    def __init__(self) -> None:
        self.room = Room()
        self.recordings: dict[tuple, Recording] = {}  # by shapes and types of the inputs


class Repeated:
    """Work on arrays that is recorded where that pays.

    make(buffers, view): a function of the arrays that yields a tuple of arrays, over layers bound to the
    buffers.  parts: a function that lists all that it follows, layers, activations, losses and metrics.
    proved: shapes that need no trial any more, shared by those who do the same work on other samples.
    """

    def __init__(
        self,
        make: Callable,
        buffers: Buffers,
        parts: Callable[[], list[Any]],
        proved: set[tuple] | None = None,
    ):
        self.make, self.buffers, self.parts = make, buffers, parts
        self.proved = set() if proved is None else proved
        self._look()

    def _look(self) -> None:
        """Begin anew with the settings as they are now."""
        parts = self.parts()
        self.possible = all(map(_own, parts)) and self.buffers.hold(parts)
        self._live = [part.__dict__ for part in parts]
        self._settings = [fields.copy() for fields in self._live]
        self.proved.clear()
        self._uses: Counter[tuple] = Counter()
        self._idle: list[_Worker] = []  # one that is at work is not in it
        self._workers = 0

    def recordings(self) -> list[Recording]:
        """Those that could be repeated now."""
        return [one for worker in self._idle for one in worker.recordings.values()]

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...] | None:
        """What the work yields, in memory of its own; None where there is no recording, and the work is to be
        done as it stands.
        """
        if self._changed():
            self._look()
        if not self.possible:
            return None
        key = tuple([x for a in arrays for x in (a.shape, a.dtype.char)])
        if (uses := self._uses[key]) < USES:
            if len(self._uses) > SHAPES:
                self._uses.clear()
            self._uses[key] = uses + 1
            return None
        worker = self._take()
        if worker is None:
            return None
        try:
            recording = worker.recordings.get(key) or self._record(worker, key, arrays)
            if recording is None:
                return None
            return tuple([np.array(a, order="C") for a in recording(*arrays)])
        finally:
            self._idle.append(worker)

    def _take(self) -> _Worker | None:
        """A worker that is idle, or a new one; None where there are as many as threads."""
        try:
            return self._idle.pop()
        except IndexError:
            if self._workers >= threads.num_threads():
                return None
            self._workers += 1
            return _Worker()

    def forget(self) -> None:
        """Give back the memory of recordings, where it is much."""
        self._idle = [worker for worker in self._idle if worker.room.size < LARGE]
        self._workers = len(self._idle)

    def _changed(self) -> bool:
        try:
            return self._live != self._settings
        except ValueError:  # an array stands where another stood
            return True

    def _record(self, worker: _Worker, key: tuple, arrays) -> Recording | None:
        """A recording that has proved right on other inputs and other weights."""
        with _making:
            pool.clear()  # of what the work took without a recording
            now.alone = True
            try:
                with np.errstate(all="ignore"):
                    if key not in self.proved:
                        self._try(arrays)
                        self.proved.add(key)
                    recording = record(self.make(self.buffers, traced), *arrays, room=worker.room)
            except Exception:  # NotRecordable, or what traced arrays cannot do; the layers can, or say why
                self._uses[key] = NEVER
                return None
            finally:
                now.alone = False
        while len(worker.recordings) >= MOST:
            oldest = next(iter(worker.recordings))
            del worker.recordings[oldest]
            self._uses[oldest] = -AGAIN
        worker.recordings[key] = recording
        return recording

    def _try(self, arrays) -> None:
        """NotRecordable where a recording, on other weights and inputs, answers otherwise than the layers."""
        room, aside = Room(), Room()  # what lies aside is not overwritten by repetitions

        def copied(a):
            copy = aside.empty(a.shape, a.dtype)
            copy[...] = a
            return copy

        trial = Buffers(*map(copied, self.buffers))
        recording = record(self.make(trial, traced), *arrays, room=room)
        rng = np.random.default_rng(0)
        noise = rng.uniform(0.5, 1.5, 4096).astype(trial.values.dtype)
        for flat in (trial.values, trial.state):
            for start in range(0, len(flat), len(noise)):
                part = flat[start : start + len(noise)]
                part *= noise[: len(part)]
        others = [_others(a, rng) for a in arrays]

        def answers(work):
            trial.grads[...] = trial.pending[...] = 0
            return [*work(*others), trial.grads, trial.pending]

        now.room = room
        try:
            expected = list(map(copied, answers(self.make(trial, _as_it_is))))
        finally:
            now.room = None
        if not all(map(_alike, expected, answers(recording))):
            raise NotRecordable("repeated, the work yields other numbers than the layers do")


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
