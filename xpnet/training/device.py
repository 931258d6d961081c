"""The training step on a device: recorded once, then repeated; the host only says "again".

All that changes from one step to the next, the place in the epoch's order, the learning rate, the number of
the step, lies on the device in a `Control` that the step itself advances.  The samples lie there too where
they fit; otherwise pieces of the epoch are copied over while the piece before is trained on.  Figures add up
on the device and are read when somebody looks.  A step that is not finite changes nothing, and neither does
any after it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..data.arrays import Arrays, as_array, storable
from ..errors import DeviceMemoryError
from ..ops.fuse import GIVEN
from ..optimizers import GATHERED, Optimizer
from .step import Replica, Step, figures

RESIDENT = 0.5  # of the free memory: data that take less are kept on the device
PIECE = 64 << 20  # bytes of a piece of the epoch, where they are not
KEPT = 64  # batches of a stream between two looks at how their steps went
MOST_RECORDINGS = 16  # sizes of batches that are recorded


class DeviceStep(Step):
    """Steps of one model on its device."""

    def __init__(self, model):
        super().__init__(model)
        self.control = self.params.control
        self.state = [model.optimizer_state[name] for name in self.optimizer.state]
        self.ranges = self.params.trainable_ranges()
        self.replica = Replica(model, self.ops, self.params.grads, self.head, slice(None))
        self.totals: Any = None  # of the epoch: the loss and each metric's sums, one after another
        self.sizes: list[int] = []
        functions = [
            getattr(layer, name, None) for layer in model.all_layers() for name in ("activation", "function")
        ]
        self._formulas = [self.optimizer, self.head.loss, *(f for f in functions if f is not None)]
        if self.augment:
            self._formulas += self.augment.chain
        self.gathered = model.optimizer_state.get(GATHERED)
        self._settings = self._frozen()
        self.recorder = self.ops.recorder()
        self._recorded: dict[tuple, Any] = {}  # by batch: a recording, or None after the first run

    def epoch(self, data, order, batch_size, number=None):
        return DeviceEpoch(self, data, order, batch_size, number)

    def stream(self, batches, number=None):
        return DeviceStream(self, batches, number)

    def gradients(self, data, index):
        x, y, w = data.take(index)
        ops = self.ops
        h, y, w = self.model.enter(x, ops), ops.asarray(y), None if w is None else ops.asarray(w)
        loss, sums = self.replica.work(h, y, w, data.weight(index) or 1.0, self.metrics)
        return loss, sums, [self.params.grads]

    def __call__(self, n: int, kind: tuple) -> None:
        """Train on the next n samples that the control points at; kind: what else a recording depends on."""
        key = (n, self.last, *kind)
        settings = self._frozen()
        if settings != self._settings:  # which are numbers in the recordings' kernels
            self.ops.synchronize()
            self._recorded.clear()
            self._settings = settings
        self.prepare()
        if self._recorded.get(key) is not None:
            self._recorded[key].launch()
        elif key not in self._recorded or not self._record(key):
            # the first time as it is, too: kernels are compiled, memory is found
            self._run(n)
            self._recorded.setdefault(key, None)
        self.control.advance(n)
        self.count(1)

    @property
    def last(self) -> bool:
        """Whether the next batch is the one with which an update is made."""
        return self.optimizer.gathered + 1 == self.optimizer.every

    def count(self, batches: int) -> None:
        """So many batches more have been trained on, or fewer."""
        self.params.step += batches
        self.optimizer.count(batches)

    def _run(self, n: int) -> None:
        try:
            self.recorder.run(lambda: self.work(n))
        except self.ops.out_of_memory as error:
            traceback.clear_frames(error.__traceback__)
            self._recorded.clear()  # what other batch sizes were recorded in is memory, too
            self.recorder.release()
            self.control.say()
            self.recorder.run(lambda: self.work(n))

    def _record(self, key: tuple) -> bool:
        """Record and launch the step for batches like this, if it can be recorded."""
        if len(self._recorded) > MOST_RECORDINGS:
            return False
        recording = self.recorder.record(lambda: self.work(key[0]))
        if recording is None:
            return False
        self._recorded[key] = recording
        recording.launch()
        return True

    def _frozen(self) -> list[str]:
        """The settings of the formulas that a recording has for good."""
        return [
            f"{name}={value!r}"
            for formula in self._formulas
            for name, value in vars(formula).items()
            if name not in GIVEN
        ]

    def prepare(self) -> None:
        """Tell the device what only the host knows."""
        opt = self.optimizer
        self.control.set(step=self.params.step, iterations=opt.iterations, rate=opt.rate())

    def work(self, n: int) -> None:
        """One step: device work alone, without a look at its results."""
        ops, params, control = self.ops, self.params, self.control
        if len(params.state):
            params.pending[...] = params.state  # a frozen layer has nothing to propose
        h, y, w = ops.gather(control, n, params.dtype, self.model._last)
        h, y = self._augmented(h, y)
        divisor = float(n) if w is None else ops.weight_sum(w)
        loss, sums = self.replica.work(h, y, w, divisor, self.metrics)
        self.update(loss, n)
        self._add(loss, divisor if self.head.loss.reduction == "mean" else 1.0, sums)

    def update(self, loss, n: int = 0) -> None:
        """Move the parameters by the gradient, or keep it for later, unless the loss or the gradient is not
        finite.
        """
        ops, params, control, opt = self.ops, self.params, self.control, self.optimizer
        last, total = self.last, self.gathered
        if total is not None:
            params.grads *= 1 / opt.every
            if last:
                params.grads += total
        ops.judge(control, params.grads, self.ranges, loss, opt.clipvalue if last else None, n)
        if last:
            if opt.clipnorm is not None:
                ops.limit_norms(params.grads, params.slots, opt.clipnorm)
            ops.optimizer_step(control, opt, params.values, params.grads, self.state, self.ranges)
        if total is not None:
            ops.optimizer_step(control, CLEAR if last else ADD, total, params.grads, [], self.ranges)
        if len(params.state):
            ops.take_over(control, params.state, params.pending)

    def enter(self, x, y):
        return self._augmented(self.model.enter(x, self.ops), y)

    def _augmented(self, h, y):
        """The samples h, as layers want them, and their targets as they are trained on."""
        if not self.augment:
            return h, y
        if h.ndim == 2:
            return self.augment(self.ops, h, y)
        x, y = self.augment(self.ops, h.transpose(3, 1, 0, 2), y)
        h = x.transpose(2, 1, 3, 0)
        return (h if h.flags.c_contiguous else self.ops.pack(x, h.dtype)), y

    def _add(self, loss, factor, sums) -> None:
        if self.totals is None:
            self.sizes = [1, *(s.size for s in sums)]
            self.totals = self.ops.flat(sum(self.sizes), np.dtype(np.float64))
        start = 0
        for size, values, scale in zip(self.sizes, (loss, *sums), (factor, *(1.0 for _ in sums))):
            self.ops.accumulate(self.totals[start : start + size], values, scale)
            start += size

    def explain_memory(self, error: BaseException, data, index) -> DeviceMemoryError:
        """What was asked for and by which layer, and a batch that would fit."""
        traceback.clear_frames(error.__traceback__)  # which hold the arrays of the step that failed
        self._recorded.clear()
        where, fits = self._where_memory_ends(data, index), 0
        n = len(index) // 2
        while n and not fits:
            if self._where_memory_ends(data, index[:n]) is None:
                fits = n
            n //= 2
        return DeviceMemoryError(
            f"{where or 'the training step'}: out of memory on {self.ops.device} at a batch of {len(index)}. "
            f"{self.ops.shortage(error)}. "
            + (
                f"A batch_size of {fits} fits"
                if fits
                else "No batch of this model fits; make the model smaller, or raise the memory limit"
            )
        )

    def _where_memory_ends(self, data, index) -> str | None:
        """The layer at which a step on the samples at index finds no memory."""
        where = None
        self.recorder.release()
        try:
            for layer, _ in self.walk(data, index):
                where = layer.where if layer is not None else "the loss"
            return None
        except self.ops.out_of_memory:
            return where or "the input"


class _Add(Optimizer):
    """What waits for the next update grows by g."""

    def update(self, xp, p, g, state, lr, t):
        p += g


class _Clear(Optimizer):
    """Nothing waits any more."""

    def update(self, xp, p, g, state, lr, t):
        p *= 0


ADD, CLEAR = _Add(), _Clear()


class DeviceEpoch:
    """A pass over the samples of data in an order."""

    def __init__(self, step: DeviceStep, data: Arrays, order, batch_size: int, number: int | None):
        self._step, self.data, self.order, self.size, self.number = step, data, order, batch_size, number
        self.weight, self.done, self._sums = 0.0, 0, None
        self._outer = {name: getattr(step.control, name) for name in ("x", "y", "w", "order", "cursor")}
        with step.ops.running():
            self._outer_totals = None if step.totals is None else step.totals.copy()
            self.feed = self._feed()
            if step.totals is not None:
                step.totals[...] = 0

    def _feed(self) -> Any:
        return feed(self._step.ops, self._step.control, self.data, self.order, self.size)

    def more(self, batch: int) -> bool:
        """Whether there is a batch of this number."""
        return batch * self.size < len(self.order)

    def step(self, batch: int) -> None:
        """Train on batch number `batch`; whether that could be done shows in `finish`."""
        index = self._index(batch)
        try:
            self.feed.before(batch)
            self._step(len(index), self.feed.kind)
        except self._step.ops.out_of_memory as error:
            raise self._step.explain_memory(error, self.data, index) from error
        self.feed.behind(batch)
        self.weight += self.data.weight(index)
        self.done = batch + 1

    def _index(self, batch: int):
        return self.order[batch * self.size : (batch + 1) * self.size]

    def logs(self, prefix: str = "") -> dict[str, Any]:
        """Loss, the mean over samples so far, and the metrics; waits for the device."""
        step = self._step
        host = self._read() if self._sums is None else self._sums
        sums, start = [], 0
        for size in step.sizes:
            sums.append(host[start : start + size])
            start += size
        return figures(step.model, sums[0][0], self.weight, sums[1:], prefix)

    def abandon(self) -> None:
        """Wait for the device, so that the memory of what is under way can go."""
        self._settle()

    def _read(self):
        with self._step.ops.running():
            return np.array(self._step.ops.to_host(self._step.totals))  # the next epoch writes them

    def _settle(self) -> int:
        """Wait for the device and leave it as it was found; how many steps were not made."""
        step = self._step
        step.ops.synchronize()
        self.feed.abandon()  # a piece that nobody will train on may be on its way
        skipped = self._look()
        step.control.set(**self._outer)  # let go of the samples; or go on with the epoch around this one
        return skipped

    def _look(self) -> int:
        """How many steps were not made since the last look."""
        skipped = self._step.control.read()
        self._step.count(-skipped)
        return skipped

    def finish(self) -> None:
        """Wait for the device; NonFiniteError where a step was not made."""
        step = self._step
        skipped = self._settle()
        self._sums = self._read()
        if self._outer_totals is not None:
            with step.ops.running():
                step.totals[...] = self._outer_totals
        self._tell_of(skipped)

    def _tell_of(self, skipped: int) -> None:
        """NonFiniteError where steps were not made."""
        if skipped:
            batch = self.done - skipped
            data, index = self._samples(batch)
            self._step.fail(data, index, self.number, None if self.number is None else batch)

    def _samples(self, batch: int) -> tuple[Arrays, np.ndarray]:
        """The samples of a batch that was trained on."""
        return self.data, self._index(batch)


class DeviceStream(DeviceEpoch):
    """A pass over batches that come one by one.  The latest of them are kept, to tell which one went wrong:
    steps do not wait to be asked.
    """

    def __init__(self, step: DeviceStep, batches: Iterator[Arrays], number: int | None):
        self.batches = batches
        self.kept: list[Arrays] = []
        super().__init__(step, Arrays(np.empty(0)), np.arange(0), 0, number)

    def _feed(self):
        return OneByOne(self._step.ops, self._step.control)

    def more(self, batch):
        data = next(self.batches, None)
        if data is None:
            return False
        self.data = data
        if sum(one.nbytes for one in self.kept) > PIECE or len(self.kept) == KEPT:
            self._look_back()
        self.kept.append(data)
        with self._step.ops.running():
            self.feed.put(batch, data)
        return True

    def _look_back(self) -> None:
        """NonFiniteError where one of the kept batches was not trained on."""
        self._tell_of(self._look())
        self.kept.clear()

    def _index(self, batch):
        return np.arange(len(self.data))

    def _samples(self, batch):
        data = self.kept[batch - self.done]
        return data, np.arange(len(data))


def feed(ops, control, data: Arrays, order, batch_size: int) -> Any:
    """The samples on the device: all of them where they fit, else a piece of the epoch at a time."""
    try:
        on_device = data.on(ops, RESIDENT * ops.free_memory())
    except ops.out_of_memory:  # somebody else was quicker
        on_device = None
    if on_device is not None:
        return Resident(ops, control, on_device, data.places(order))
    return Pieces(ops, control, data, order, batch_size)


class Resident:
    """All samples lie on the device; the order of the epoch is all that is copied."""

    def __init__(self, ops, control, data: Arrays, order):
        self.kind = kind_of(data)
        control.set(x=data.x, y=data.y, w=data.w, order=ops.asarray(np.asarray(order, np.int64)), cursor=0)

    def before(self, batch: int) -> None:
        pass

    behind = before

    def abandon(self) -> None:
        pass


class Sides:
    """Room for samples on the device, twice: while one side is trained on, the other is copied."""

    kind: tuple = ()

    def __init__(self, ops, control):
        self.ops, self.control = ops, control
        self.copied: list[Any] = [None, None]  # events: the copy to this side has ended

    def make(self, arrays: tuple, size: int) -> None:
        """Room for size samples like those of arrays x, y and w, on either side."""
        ops, self.size = self.ops, size

        def both(make):
            shapes = [None if a is None else ((size, *a.shape[1:]), storable(a.dtype)) for a in arrays]
            return [[None if one is None else make(*one) for one in shapes] for _ in range(2)]

        self.abandon()
        self.staged, self.held = both(ops.staging), both(ops.empty)
        self.used: list[Any] = [ops.mark()] * 2  # events: the steps that read this side have ended
        self.straight = ops.asarray(np.arange(size))
        self.kind = kind_of(Arrays(*self.held[0]))

    def send(self, side: int, arrays: tuple) -> None:
        """Copy arrays to a side of the device, behind what still reads it."""
        ops = self.ops
        ops.wait(self.copied[side])  # the host's memory is free again
        for a, staged, out in zip(arrays, self.staged[side], self.held[side]):
            if a is not None and ops.owns(a):
                out[: len(a)] = a
            elif a is not None:
                staged[: len(a)] = as_array(a, "data")
                self.copied[side] = ops.upload(staged[: len(a)], out[: len(a)], self.used[side])

    def turn_to(self, side: int) -> None:
        """The next steps train on this side."""
        self.ops.after(self.copied[side])
        x, y, w = self.held[side]
        self.control.set(x=x, y=y, w=w, order=self.straight, cursor=0)

    def abandon(self) -> None:
        for event in self.copied:
            self.ops.wait(event)


class Pieces(Sides):
    """Pieces of an epoch, of some batches each."""

    def __init__(self, ops, control, data: Arrays, order, batch_size: int):
        super().__init__(ops, control)
        self.data, self.order = data, order
        sample = sum(a[:1].nbytes for a in (data.x, data.y, data.w) if a is not None)
        self.batches = max(1, min(PIECE // (sample * batch_size), -(-len(order) // batch_size)))
        self.make((data.x, data.y, data.w), self.batches * batch_size)
        self._gather(0)

    def _gather(self, piece: int) -> None:
        """Gather a piece in the host's memory and send it."""
        index = self.order[piece * self.size : (piece + 1) * self.size]
        if len(index):
            self.send(piece % 2, self.data.take(index))

    def before(self, batch: int) -> None:
        piece, within = divmod(batch, self.batches)
        if within == 0:
            self.turn_to(piece % 2)

    def behind(self, batch: int) -> None:
        piece, within = divmod(batch, self.batches)
        if within == self.batches - 1:  # the device is busy with this piece: time for the next
            self.used[piece % 2] = self.ops.mark()
            self._gather(piece + 1)


class OneByOne(Sides):
    """Batches as they come."""

    like: Any = None  # shapes and types of the samples that there is room for
    size = 0

    def put(self, batch: int, data: Arrays) -> None:
        """Send the batch of this number."""
        arrays = (data.x, data.y, data.w)
        like = [None if a is None else (a.shape[1:], a.dtype) for a in arrays]
        if like != self.like or len(data) > self.size:
            self.make(arrays, len(data))
            self.like = like
        self.send(batch % 2, arrays)

    def before(self, batch: int) -> None:
        self.turn_to(batch % 2)

    def behind(self, batch: int) -> None:
        self.used[batch % 2] = self.ops.mark()


def kind_of(data: Arrays) -> tuple:
    """What a recorded gather depends on: types, sizes and strides of the samples."""
    return tuple(
        None if a is None else (a.dtype.str, a.shape[1:], a.strides) for a in (data.x, data.y, data.w)
    )
