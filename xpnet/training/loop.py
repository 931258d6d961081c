"""fit and evaluate: epochs over batches, and nothing in them that is proportional to the data set."""

from __future__ import annotations

import math
import traceback
from typing import Any

import numpy as np

from ..data.arrays import Arrays
from ..ops import memory, threads
from .callbacks import Callback, History, LazyLogs, ProgressBar
from .step import Head, Step, Totals, head_of, metric_sums


def fit(
    model,
    data: Arrays,
    validation: Arrays | None,
    batch_size: int,
    epochs: int,
    initial_epoch: int,
    callbacks: list[Callback],
    verbose: int,
    shuffle: bool,
) -> History:
    """Train; what `Sequential.fit` does after it has checked its arguments."""
    history = History()
    listeners: list[Callback] = [*([ProgressBar(verbose)] if verbose else []), *callbacks, history]
    steps = math.ceil(len(data) / batch_size)
    for listener in listeners:
        listener.set_model(model)
        listener.set_params({"epochs": epochs, "steps": steps, "verbose": verbose})
    before = [c.on_train_batch_begin for c in listeners if _overrides(c, "on_train_batch_begin")]
    after = [c.on_train_batch_end for c in listeners if _overrides(c, "on_train_batch_end")]
    model.stop_training, model.history = False, history
    step: Step = model.train_step()
    logs: dict[str, Any] = {}
    for listener in listeners:
        listener.on_train_begin({})
    try:
        with threads.blas_threads(step.blas_threads(min(batch_size, len(data)))):
            for epoch in range(initial_epoch, epochs):
                for listener in listeners:
                    listener.on_epoch_begin(epoch, {})
                step = model.train_step()  # a callback may have changed what is trained, or how
                logs = _run_epoch(model, step, data, batch_size, epoch, shuffle, before, after).logs()
                model.epochs_trained += 1
                if validation is not None:
                    logs |= evaluate(model, validation, batch_size).logs("val_")
                for listener in listeners:
                    listener.on_epoch_end(epoch, logs)
                if model.stop_training:
                    break
    finally:
        for listener in listeners:
            listener.on_train_end(logs)
        step.rest()
        memory.pool.clear()
    return history


def _run_epoch(model, step: Step, data, batch_size, number, shuffle, before, after):
    order = model.shuffled(len(data)) if shuffle else np.arange(len(data))
    epoch = step.epoch(data, order, batch_size, number)
    try:
        for batch in range(math.ceil(len(data) / batch_size)):
            for hook in before:
                hook(batch, {})
            epoch.step(batch)
            if after:
                logs = LazyLogs(epoch.logs)
                for hook in after:
                    hook(batch, logs)
            if model.params is not step.params:
                raise RuntimeError(
                    "a callback moved or rebuilt the model (to, add, pop) within an epoch, whose steps go on "
                    "with the old parameters. Expected: that in on_epoch_begin or on_epoch_end"
                )
            if model.stop_training:
                break
    except BaseException:
        epoch.abandon()
        raise
    epoch.finish()
    return epoch


def _overrides(callback: Callback, hook: str) -> bool:
    return getattr(type(callback), hook) is not getattr(Callback, hook)


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
