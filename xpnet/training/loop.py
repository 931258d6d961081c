"""fit and evaluate: epochs over batches, and nothing in them that is proportional to the data set."""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..data.arrays import Arrays
from ..data.batches import Stream
from ..ops import memory, threads
from .callbacks import Callback, History, LazyLogs, ProgressBar, listening
from .step import Head, Step, Totals, head_of, metric_sums


class Passes:
    """A model's samples, epoch by epoch."""

    def __init__(self, model, data: Arrays, batch_size: int, steps: int | None, shuffle: bool):
        self.model, self.data, self.batch_size, self.shuffle = model, data, batch_size, shuffle
        self.count = len(data) if steps is None else min(len(data), steps * batch_size)
        self.steps = math.ceil(self.count / batch_size)
        self.largest, self.ended = min(batch_size, len(data)), False
        self.target_shape = data.y.shape[1:]

    def epoch(self, step: Step, number: int) -> Any:
        """The pass of this number, with the step."""
        n = len(self.data)
        order = self.model.shuffled(n) if self.shuffle else np.arange(n)
        return step.epoch(self.data, order[: self.count], self.batch_size, number)


class StreamPasses:
    """Batches as they come, epoch by epoch.

    check: makes Arrays of x, y, w and what errors call them.
    """

    def __init__(self, stream: Stream, check: Callable[..., Arrays]):
        self.stream, self.check = stream, check
        first = check(*stream.first(), "batch 1: ")
        self.largest, self.target_shape = len(first), first.y.shape[1:]

    @property
    def steps(self) -> int | None:
        try:
            return len(self.stream)
        except TypeError:
            return None

    @property
    def ended(self) -> bool:
        """Whether there is no further epoch to be had."""
        return self.stream.ended

    def epoch(self, step: Step, number: int) -> Any:
        return step.stream(self._batches(number), number)

    def _batches(self, number: int) -> Iterator[Arrays]:
        batches = self.stream.epoch()
        for batch in itertools.count(1):
            try:
                one = next(batches, None)
                if one is None:
                    return
                data = self.check(*one, f"epoch {number + 1}, batch {batch}: ")
            except Exception as error:
                error.add_note(f"from the data of epoch {number + 1}, batch {batch}, which changed nothing")
                raise
            yield data


def fit(
    model,
    passes: Passes | StreamPasses,
    validate: Callable[[], Totals] | None,
    epochs: range,
    validation_epochs,
    callbacks: list[Callback],
    verbose: int,
) -> History:
    """Train; what `Sequential.fit` does after it has checked its arguments.

    validate: the figures of the validation data, which are asked for after validation_epochs.
    """
    history = History()
    listeners: list[Callback] = [*([ProgressBar(verbose)] if verbose else []), *callbacks, history]
    params: dict[str, Any] = {
        "epochs": epochs.stop,
        "initial_epoch": epochs.start,  # which a callback may raise when training begins
        "steps": passes.steps,
        "verbose": verbose,
        "validation": validate is not None,
        "callbacks": callbacks,
    }

    def tell(hook: str, *args) -> None:
        for listener in listeners:
            getattr(listener, hook)(*args)

    tell("set_model", model)
    tell("set_params", params)
    before = listening(listeners, "on_train_batch_begin")
    after = listening(listeners, "on_train_batch_end")
    model.stop_training, model.history = False, history
    step: Step = model.train_step()
    logs: dict[str, Any] = {}
    try:
        tell("on_train_begin", {})
        with threads.blas_threads(step.blas_threads(passes.largest)):
            for epoch in range(params["initial_epoch"], epochs.stop):
                tell("on_epoch_begin", epoch, {})
                step = model.train_step()  # a callback may have changed what is trained, or how
                done = _run_epoch(model, step, passes.epoch(step, epoch), before, after)
                if not done:
                    break
                logs = done.logs()
                model.epochs_trained += 1
                if validate is not None and epoch + 1 in validation_epochs:
                    tell("on_test_begin", {})
                    figures = validate().logs()
                    tell("on_test_end", figures)
                    logs |= {f"val_{name}": value for name, value in figures.items()}
                tell("on_epoch_end", epoch, logs)
                if model.stop_training or passes.ended:
                    break
    except BaseException as error:
        if not any(listener.is_an_end(error) for listener in listeners):
            tell("on_train_error", error, logs)
            raise
    finally:
        step.rest()
        memory.pool.clear()
    tell("on_train_end", logs)
    return history


def _run_epoch(model, step: Step, epoch, before, after) -> Any:
    """The epoch, once it is over; None where there was no batch."""
    batch = 0
    try:
        while epoch.more(batch):
            for hook in before:
                hook(batch, {})
            epoch.step(batch)
            if after:
                logs = LazyLogs(epoch)
                for hook in after:
                    hook(batch, logs)
            if model.params is not step.params:
                raise RuntimeError(
                    "a callback moved or rebuilt the model (to, add, pop) within an epoch, whose steps go on "
                    "with the old parameters. Expected: that in on_epoch_begin or on_epoch_end"
                )
            batch += 1
            if model.stop_training:
                break
    except BaseException:
        epoch.abandon()
        raise
    epoch.finish()
    return epoch if batch else None


def in_blocks(model, count: int, size: int | None, work) -> list:
    """[work(block) for each slice of count samples], in order: bounded memory for any number of them.

    size: samples of a block, or None for what suits the device.  On the CPU blocks run side by side on its
    threads; a GPU that has no memory for a block gets smaller ones.
    """
    ops = model.ops
    if not ops.in_host_memory:
        return _in_shrinking_blocks(ops, count, size or ops.inference_block, work)
    shares = model.inference().blocks(count, size)
    if len(shares) == 1:
        return [work(block) for block in shares[0]]
    with threads.blas_threads(1):
        done = threads.crew.run(lambda share: [work(block) for block in share], shares)
    return [value for share in done for value in share]


def _in_shrinking_blocks(ops, count: int, size: int, work) -> list:
    done, start = [], 0
    while start < count:
        try:
            done.append(work(slice(start, min(start + size, count))))
            start += size
        except ops.out_of_memory as error:
            if size == 1:
                raise
            size = (min(size, count - start) + 1) // 2
            traceback.clear_frames(error.__traceback__)  # which hold the arrays of the block that failed
            ops.release_memory()
    return done


def evaluate(model, data: Arrays, batch_size: int | None = None) -> Totals:
    """Loss and metrics over data, in inference."""
    head: Head = head_of(model.layers, model.loss)
    metrics = [metric for _, metric in model.metrics]
    ops = model.ops

    def work(block):
        x, y, w = data.take(block)
        y, w = ops.asarray(y), None if w is None else ops.asarray(w)
        p = model.leave(model.infer(model.enter(x, ops), head.folded))
        weight = data.weight(block)
        with np.errstate(all="ignore"):
            loss, _ = head.loss.value_and_grad(ops, p, y, w, weight or 1.0)
            return loss, metric_sums(metrics, ops, head, p, y, w), weight

    totals = Totals(model)
    for loss, sums, weight in in_blocks(model, len(data), batch_size, work):
        totals.add(loss, sums, weight)
    return totals
