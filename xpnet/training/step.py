"""One training step: forward, loss, backward, update.  Here what is the same everywhere; `host.py` splits a
batch over the CPU's cores, `device.py` keeps a GPU busy.
"""

from __future__ import annotations

import copy
import itertools
import math
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import activations
from ..data.arrays import Arrays
from ..errors import NonFiniteError
from ..layers import Activation
from ..layers.base import Layer
from ..layers.containers import Chain, with_branch
from ..layers.pools_first import pools_first
from ..losses import one_hot
from ..params import Stream

STREAMS = 1 << 32  # where the numbers of random streams for samples begin; layers have those from 0


class Head(NamedTuple):
    """How a model's output meets its loss.

    folded: the model's last activation, which training leaves out because the loss takes it in: softmax and
    cross-entropy together have the stable derivative q - t.
    """

    loss: Any
    folded: activations.ActivationFunction | None


def head_of(layers: list[Layer], loss) -> Head:
    """Fold the last activation into the loss where the two belong together."""
    last = layers[-1]
    function = last.function if isinstance(last, Activation) else last.activation
    if not loss.folds or loss.from_logits is True:
        return Head(loss, None)
    ends = isinstance(function, activations.TABLE[loss.folds])
    if loss.from_logits is False and not ends:
        return Head(loss, None)
    meant = copy.copy(loss)
    # softmax and sigmoid yield probabilities, also where they are not this loss's own activation
    meant.from_logits = ends or not isinstance(function, (activations.Softmax, activations.Sigmoid))
    return Head(meant, function if ends else None)


def clone(layer: Layer, ops, grads) -> Layer:
    """A shallow copy that shares the parameters, works with other ops and writes its gradients to other
    memory.
    """
    twin = layer.twin()
    twin.ops = ops
    for slot in layer.slots:
        setattr(twin, "d" + slot.name, slot.view(grads))
    for branch, inner in layer.children().items():
        if inner:
            twin = with_branch(twin, branch, [clone(child, ops, grads) for child in inner])
    return twin


def training_chain(layers: list[Layer], ops, grads, head: Head) -> Chain:
    """Clones of the layers for a step: the folded activation left out, and no dL/dx where nothing further in
    learns.
    """
    twins = [clone(layer, ops, grads) for layer in layers]
    if head.folded is not None:
        twins[-1] = twins[-1].without_activation()
    _skip_dx(twins)
    return Chain(twins)


def _skip_dx(layers: list[Layer]) -> bool:
    """Mark the layers before which nothing has parameters; True once one with parameters has been met."""
    for layer in layers:
        layer.needs_dx = False
        inside = [_skip_dx(branch) for branch in layer.children().values()]
        if layer.slots or any(inside):
            return True
    return False


class Replica:
    """The layers of one share of a batch."""

    def __init__(self, model, ops, grads, head: Head, share: slice):
        self.ops, self.head, self.share = ops, head, share
        self.chain = training_chain(model.layers, ops, grads, head)
        if ops.pools_first:
            self.chain = Chain(pools_first(self.chain.layers))

    @np.errstate(all="ignore")  # each thread has a setting of its own
    def work(self, h, y, w, divisor, metrics) -> tuple[Any, list]:
        """Forward, loss, metrics and backward of this share; the gradients stay in the replica's buffer.

        h: the samples as the first layer wants them.  y, w: targets and weights of this device, or None.
        """
        out, caches = self.chain.forward(h, train=True)
        p = self.ops.unpack(out) if out.ndim == 4 else out
        loss, dp = self.head.loss.value_and_grad(self.ops, p, y, w, divisor)
        sums = metric_sums(metrics, self.ops, self.head, p, y, w)
        self.chain.backward(self.ops.pack(dp, dp.dtype) if out.ndim == 4 else dp, caches)
        return loss, sums


def metric_sums(metrics, ops, head: Head, p, y, w) -> list:
    """Each metric's sums; p are logits where an activation is folded, which only ranks can be read from."""
    if not metrics:
        return []
    w = ops.ones(len(p), p.dtype) if w is None else w
    q = p
    if head.folded is not None and not (
        p.shape[1] > 1 and all(m.ranks_only and not m.multilabel for m in metrics)
    ):
        q = ops.like(p)
        head.folded.forward(ops, p, q)
    answers = q
    if head.folded is None and head.loss.folds == "sigmoid" and head.loss.from_logits:
        answers = ops.like(p)  # yes or no is read from a probability, also where the model yields logits
        activations.Sigmoid().forward(ops, p, answers)
    return [metric.sums(ops, answers if metric.ranks_only else q, y, w) for metric in metrics]


class Totals:
    """The figures of an epoch so far."""

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

    def join(self, other: Totals) -> None:
        """Add what others add up to."""
        self.loss, self.weight = self.loss + other.loss, self.weight + other.weight
        self.sums = [a + b for a, b in zip(self.sums, other.sums)]

    def logs(self, prefix: str = "") -> dict[str, Any]:
        """Loss, the mean over samples, and the metrics; waits for the device."""
        host = self.model.ops.to_host
        return figures(self.model, host(self.loss), self.weight, [host(s) for s in self.sums], prefix)


def figures(model, loss, weight: float, sums, prefix: str = "") -> dict[str, Any]:
    """What people read, from sums on the host."""
    out = {f"{prefix}loss": float(loss) / (weight or 1.0)}
    for (label, metric), total in zip(model.metrics, sums):
        out[prefix + label] = metric.result(np.asarray(total, dtype=np.float64))
    return out


class Augment:
    """What changes a model's training samples, in order, and the random numbers for it.

    The numbers follow from the model's seed and the step, so they are alike on every device.
    """

    def __init__(self, model):
        self.chain, self.params = model.augmentation, model.params
        self.mixes = any(one.needs_one_hot for one in self.chain)
        self.classes = model.chain.out_shape[0]

    def __call__(self, ops, x, y) -> tuple[Any, Any]:
        """Samples x (N, C, H, W) or (N, D) and their targets, changed."""
        numbers = itertools.count(STREAMS)

        def draw(*shape: int):
            return ops.uniform(Stream(self.params, next(numbers)), shape)

        if self.mixes and y.dtype.kind != "f":
            y = one_hot(ops, y, self.classes, x.dtype)
        for one in self.chain:
            x, y = one(ops, x, y, draw)
        return x, y


class Step:
    """The step of a compiled model: `epoch(data, order, batch_size)` is a pass over samples in an order."""

    def __init__(self, model):
        self._model = weakref.ref(model)  # whose memory shall go when nobody else holds it
        self.ops, self.params = model.ops, model.params
        self.optimizer, self.metrics = model.optimizer, [metric for _, metric in model.metrics]
        self.head = head_of(model.layers, model.loss)
        self.augment = Augment(model) if model.augmentation else None
        if self.augment and self.augment.mixes:
            self.head = self.head._replace(loss=self.head.loss.soft())

    @property
    def model(self) -> Any:
        return self._model()

    def epoch(self, data, order, batch_size: int, number: int | None = None) -> Any:
        """A pass over the samples of data at order: an object of `more(batch)`, whether there is a batch of
        that number, `step(batch)`, which trains on it, `logs()`, and `finish()`.  number: what an error calls
        the epoch, from 0.
        """
        raise NotImplementedError

    def stream(self, batches: Iterator[Arrays], number: int | None = None) -> Any:
        """A pass over batches as they come: such an object too, whose more(batch) fetches the batch."""
        raise NotImplementedError

    def gradients(self, data, index) -> tuple[Any, list, list]:
        """Loss, metric sums and the gradient buffers that add up to the gradient."""
        raise NotImplementedError

    def rest(self) -> None:
        """Training is over: give back memory that only more of it would need."""

    def blas_threads(self, n: int) -> int:
        """Threads for BLAS while batches of n run."""
        return 1

    def enter(self, x, y) -> tuple[Any, Any]:
        """Samples as the first layer wants them, and their targets."""
        return self.model.enter(x, self.ops), y

    def walk(self, data, index):
        """The step on the samples at index, slowly and without its update: yields (layer, None) before a
        layer works, and (layer, arrays) with what it made; the loss has no layer.
        """
        x, y, w = data.take(index)
        ops, chain = self.ops, training_chain(self.model.layers, self.ops, self.params.grads, self.head)
        y, w = ops.asarray(y), None if w is None else ops.asarray(w)
        h, y = self.enter(x, y)
        caches = []
        for layer in chain.layers:
            yield layer, None
            h, cache = layer.forward(h, train=True)
            caches.append(cache)
            yield layer, [h]
        p = ops.unpack(h) if h.ndim == 4 else h
        loss, dy = self.head.loss.value_and_grad(ops, p, y, w, data.weight(index) or 1.0)
        yield None, [loss]
        dy = ops.pack(dy, dy.dtype) if h.ndim == 4 else dy
        for layer in reversed(chain.layers):
            yield layer, None
            dy = layer.backward(dy, caches.pop())
            grads = [getattr(layer, "d" + slot.name) for slot in layer.slots]
            yield layer, [a for a in (*grads, dy) if a is not None]
            if dy is None:
                break

    @np.errstate(all="ignore")
    def fail(self, data, index, epoch: int | None = None, batch: int | None = None):
        """Raise the NonFiniteError of a step that was skipped: what is wrong, and in which layer first."""
        value: float | None = None
        where = None
        for layer, made in self.walk(data, index):
            if layer is None:
                value = float(self.ops.to_host(made[0]))
            elif made is not None and where is None and not all(_finite(self.ops, a) for a in made):
                where = layer.where
            if where is not None and value is not None:
                break
        assert value is not None
        place = ""
        if epoch is not None and batch is not None:
            place = f"epoch {epoch + 1}, batch {batch + 1}: "
        what = f"the loss is {value}" if not math.isfinite(value) else "the gradient is not finite"
        first = f"; the first layer whose output or gradient is not finite is {where}" if where else ""
        raise NonFiniteError(
            f"{place}{what}{first}. Training stopped; the weights are those from before this batch. Try a "
            "smaller learning_rate, global_clipnorm=1.0, inputs scaled to about 1, or loss targets within "
            "range",
            None if epoch is None else epoch + 1,
            None if batch is None else batch + 1,
            where,
        )


def _finite(ops, a) -> bool:
    return bool(ops.to_host(ops.xp.isfinite(ops.xp.asarray(a)).all()))
