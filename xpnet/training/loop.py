"""fit and evaluate: epochs over batches, and nothing in them that is proportional to the data set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..data.arrays import Arrays
from ..ops import memory, threads
from .callbacks import Callback, History, LazyLogs, ProgressBar
from .step import Head, TrainStep, head_of, metric_sums

BLOCK = (
    256  # samples that inference takes through the network together: bounded memory for any number of them
)


class Totals:
    """The figures of an epoch so far: sums that stay on the device until somebody looks."""

    def __init__(self, model):
        self.model = model
        self.loss: Any = 0.0
        self.weight = 0.0
        self.sums: list[Any] = [0.0 for _ in model.metrics]

    def add(self, loss, sums, weight: float) -> None:
        """loss: the mean over samples of a batch, or the batch's sum where the loss reduces so."""
        self.loss = self.loss + (loss * weight if self.model.loss.reduction == "mean" else loss)
        self.weight += weight
        self.sums = [a + b for a, b in zip(self.sums, sums)]

    def logs(self, prefix: str = "") -> dict[str, Any]:
        """Loss, the mean over samples, and the metrics."""
        ops = self.model.ops
        out = {f"{prefix}loss": float(ops.to_host(self.loss)) / (self.weight or 1.0)}
        for (label, metric), total in zip(self.model.metrics, self.sums):
            out[prefix + label] = metric.result(np.asarray(ops.to_host(total), dtype=np.float64))
        return out


def batches(order: np.ndarray, batch_size: int):
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


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
    step: TrainStep = model.train_step()
    logs: dict[str, Any] = {}
    for listener in listeners:
        listener.on_train_begin({})
    try:
        with threads.blas_threads(step.blas_threads(min(batch_size, len(data)))):
            for epoch in range(initial_epoch, epochs):
                for listener in listeners:
                    listener.on_epoch_begin(epoch, {})
                step = model.train_step()  # a callback may have changed what is trained, or how
                totals = _run_epoch(model, step, data, batch_size, epoch, shuffle, before, after)
                model.epochs_trained += 1
                logs = totals.logs()
                if validation is not None:
                    logs |= evaluate(model, validation, batch_size).logs("val_")
                for listener in listeners:
                    listener.on_epoch_end(epoch, logs)
                if model.stop_training:
                    break
    finally:
        for listener in listeners:
            listener.on_train_end(logs)
        memory.pool.clear()
    return history


def _run_epoch(model, step, data, batch_size, epoch, shuffle, before, after) -> Totals:
    order = model.shuffled(len(data)) if shuffle else np.arange(len(data))
    totals, in_host_memory, good = Totals(model), model.ops.in_host_memory, []
    for batch, index in enumerate(batches(order, batch_size)):
        for hook in before:
            hook(batch, {})
        result = step(data, index)
        if not in_host_memory:
            good.append(result.ok)  # read once an epoch
        elif not result.ok:
            step.fail(data, index, result.loss, epoch + 1, batch + 1)
        totals.add(result.loss, result.sums, data.weight(index))
        if after:
            logs = LazyLogs(totals.logs)
            for hook in after:
                hook(batch, logs)
        if model.stop_training:
            break
    if good:
        flags = model.ops.to_host(model.ops.xp.stack(good))
        if not flags.all():
            batch = int(np.argmin(flags))
            step.update.reset(skipped=len(flags) - batch)
            index = order[batch * batch_size : (batch + 1) * batch_size]
            step.fail(data, index, math.nan, epoch + 1, batch + 1)
    return totals


def _overrides(callback: Callback, hook: str) -> bool:
    return getattr(type(callback), hook) is not getattr(Callback, hook)


def in_blocks(model, count: int, size: int, work) -> list:
    """[work(block) for each slice of count samples], side by side on the CPU's threads, in order."""
    blocks = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    crew = min(threads.num_threads(), len(blocks)) if model.ops.in_host_memory else 1
    if crew <= 1:
        return [work(block) for block in blocks]
    edges = [len(blocks) * k // crew for k in range(crew + 1)]
    shares = [blocks[a:b] for a, b in zip(edges, edges[1:])]
    with threads.blas_threads(1):
        done = threads.crew.run(lambda share: [work(block) for block in share], shares)
    return [value for share in done for value in share]


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
    for loss, sums, weight in in_blocks(model, len(data), batch_size or BLOCK, work):
        totals.add(loss, sums, weight)
    return totals
