"""One training step: forward, loss, backward, update.

On the CPU the batch is split over replicas, one a core: shallow clones of the layers that share the
parameters and have a gradient buffer each.  Their gradients are added in a fixed order, so that bits repeat
for a number of threads.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np

from .. import activations
from ..errors import NonFiniteError
from ..layers import Activation
from ..layers.base import Layer
from ..layers.containers import Chain
from ..ops import threads
from .update import Update

LEAST_SAMPLES = 16  # a replica holds at least so many
LEAST_WORK = 1 << 21  # multiply-adds of a replica's forward; below, a second thread costs more than it saves


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
        twins = [clone(child, ops, grads) for child in inner]
        owner, _, index = branch.partition(".")
        if index:
            branches = list(getattr(twin, owner))
            branches[int(index)] = twins
            setattr(twin, owner, branches)
        elif inner:
            setattr(twin, owner, twins)
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
        self.model, self.ops, self.head, self.share = model, ops, head, share
        self.chain = training_chain(model.layers, ops, grads, head)

    @np.errstate(all="ignore")  # each thread has a setting of its own
    def work(self, data, index, divisor, metrics) -> tuple[Any, list]:
        """Forward, loss, metrics and backward of this share; the gradients stay in the replica's buffer."""
        x, y, w = data.take(index[self.share])
        y, w = self.ops.asarray(y), None if w is None else self.ops.asarray(w)
        out, caches = self.chain.forward(self.model.enter(x, self.ops), train=True)
        p = self.ops.unpack(out) if out.ndim == 4 else out
        loss, dp = self.head.loss.value_and_grad(self.ops, p, y, w, divisor)
        sums = metric_sums(metrics, self.ops, self.head, p, y, w)
        self.chain.backward(self.ops.pack(dp, dp.dtype) if out.ndim == 4 else dp, caches)
        return loss, sums


def metric_sums(metrics, ops, head: Head, p, y, w) -> list:
    """Each metric's sums; p are logits where an activation is folded, which only ranks can be read from."""
    if not metrics:
        return []
    w = ops.xp.ones(len(p), p.dtype) if w is None else w
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


class Result(NamedTuple):
    """What a step yields: the reduced loss, each metric's sums, and whether the update was made (on the
    device).
    """

    loss: Any
    sums: list
    ok: Any


class TrainStep:
    """The step of a compiled model: `step(data, index)` trains on the samples at index."""

    def __init__(self, model):
        self.model, self.ops, self.params = model, model.ops, model.params
        self.optimizer, self.metrics = model.optimizer, [metric for _, metric in model.metrics]
        self.head = head_of(model.layers, model.loss)
        self.work = sum(layer.multiply_adds() for layer in model.layers)
        self.threads = (
            threads.num_threads() if self.ops.in_host_memory and threads.blas_can_be_limited() else 1
        )
        self.grads = [self.params.grads]
        self._replicas: dict[int, list[Replica]] = {}
        self.update = Update(self.params, self.optimizer, model.optimizer_state, self.threads)

    def replicas(self, n: int) -> list[Replica]:
        """The replicas for a batch of n samples; their number follows from shapes and the thread count
        alone.
        """
        if n not in self._replicas:
            if len(self._replicas) > 16:
                self._replicas.clear()
            count = min(self.threads, n // LEAST_SAMPLES, n * self.work // LEAST_WORK)
            if count <= 1:
                made = [Replica(self.model, self.ops, self.params.grads, self.head, slice(0, n))]
            else:
                while len(self.grads) < count:
                    self.grads.append(self.ops.flat(len(self.params.grads), self.params.dtype))
                edges = [n * k // count for k in range(count + 1)]
                shares = [slice(a, b) for a, b in zip(edges, edges[1:])]
                made = [
                    Replica(self.model, ops, grads, self.head, share)
                    for ops, grads, share in zip(self.ops.replicas(shares), self.grads, shares)
                ]
            self._replicas[n] = made
        return self._replicas[n]

    def blas_threads(self, n: int) -> int:
        """Threads for BLAS while batches of n run: all, where one replica has work for them."""
        alone = len(self.replicas(n)) == 1
        return self.threads if alone and n * self.work >= self.threads * LEAST_WORK else 1

    def gradients(self, data, index) -> tuple[Any, list, list]:
        """Loss, metric sums and the gradient buffers that add up to the gradient."""
        replicas = self.replicas(len(index))
        divisor = data.weight(index) or 1.0
        if len(replicas) == 1:
            loss, sums = replicas[0].work(data, index, divisor, self.metrics)
            return loss, sums, self.grads[:1]

        def work(replica):
            try:
                return replica.work(data, index, divisor, self.metrics)
            except BaseException:
                replica.ops.abort()
                self._replicas.clear()  # a broken barrier stays broken
                raise

        losses, parts = zip(*threads.crew.run(work, replicas))
        total = [sum(rest, first) for first, *rest in zip(*parts)]
        return sum(losses[1:], losses[0]), total, self.grads[: len(replicas)]

    def __call__(self, data, index) -> Result:
        # a frozen layer, or one whose last step was skipped, has nothing to propose
        self.params.pending[...] = self.params.state
        # a NaN is found by its consequence and reported with its layer, so NumPy need not warn of each
        with np.errstate(all="ignore"):
            loss, sums, grads = self.gradients(data, index)
            ok = self.update(grads, loss)
        return Result(loss, sums, ok)

    def diagnose(self, data, index) -> str | None:
        """Where the batch at index first goes wrong: "layer 3 'dense_1'", or what else is not finite."""
        with np.errstate(all="ignore"):
            x, y, w = data.take(index)
            ops, chain = self.ops, training_chain(self.model.layers, self.ops, self.params.grads, self.head)
            y, w = ops.asarray(y), None if w is None else ops.asarray(w)
            h, caches = self.model.enter(x, ops), []
            for layer in chain.layers:
                h, cache = layer.forward(h, train=True)
                caches.append(cache)
                if not _finite(ops, h):
                    return layer.where
            p = ops.unpack(h) if h.ndim == 4 else h
            loss, dy = self.head.loss.value_and_grad(ops, p, y, w, data.weight(index) or 1.0)
            if not _finite(ops, loss):
                return None
            dy = ops.pack(dy, dy.dtype) if h.ndim == 4 else dy
            for layer in reversed(chain.layers):
                dy = layer.backward(dy, caches.pop())
                grads = [getattr(layer, "d" + slot.name) for slot in layer.slots]
                if not all(_finite(ops, g) for g in grads if g is not None) or (
                    dy is not None and not _finite(ops, dy)
                ):
                    return layer.where
                if dy is None:
                    break
        return None

    def fail(self, data, index, loss, epoch: int | None = None, batch: int | None = None):
        """Raise the NonFiniteError of a step that was skipped."""
        where = self.diagnose(data, index)
        value = float(loss)
        place = f"epoch {epoch}, batch {batch}: " if epoch is not None else ""
        what = f"the loss is {value}" if not math.isfinite(value) else "the gradient is not finite"
        first = f"; the first layer whose output or gradient is not finite is {where}" if where else ""
        raise NonFiniteError(
            f"{place}{what}{first}. Training stopped; the weights are those from before this batch. Try a "
            "smaller learning_rate, global_clipnorm=1.0, inputs scaled to about 1, or loss targets within "
            "range",
            epoch,
            batch,
            where,
        )


def _finite(ops, a) -> bool:
    return bool(ops.to_host(ops.xp.isfinite(ops.xp.asarray(a)).all()))
