"""The training step on the CPU: the batch is split over replicas, one a core.

Replicas are shallow clones of the layers that share the parameters and have a gradient buffer each.  Their
gradients are added in a fixed order, so that bits repeat for a number of threads.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..data.arrays import Arrays
from ..layers.containers import Chain
from ..ops import threads
from ..replay import Buffers, Repeated, parts_of
from .step import Replica, Step, Totals, clone
from .update import Update

LEAST_SAMPLES = 8  # a replica holds at least so many
# multiply-adds of a replica's forward; below, a second thread costs more than it saves: replicas take turns
# between their short calls
LEAST_WORK = 3 << 22


class HostReplica(Replica):
    """The layers of one share of a batch of n samples, and the recordings of their work."""

    def __init__(self, step: HostStep, ops, grads, share: slice, n: int):
        super().__init__(step.model, ops, grads, step.head, share)
        head, params, metrics, layers = step.head, step.params, step.metrics, self.chain.layers
        plain, its = copy.copy(self), weakref.ref(step.model)  # nothing here leads back to the model or step

        def make(buffers, view):
            twin = copy.copy(plain)
            twin.chain = Chain([clone(layer, ops, buffers.grads) for layer in layers])
            buffers.bind(twin.chain.layers, view)

            def work(x, y):
                model: Any = its()
                loss, sums = twin.work(model.enter(x, ops), y, None, float(n), metrics)
                return (loss, *sums)

            return work

        buffers = Buffers(params.values, grads, params.state, params.pending)
        more = [head.loss, *([head.folded] if head.folded else []), *metrics]
        self.repeated = Repeated(make, buffers, lambda: parts_of(layers) + more, step.proved)


class HostStep(Step):
    """`step(data, index)` trains on the samples at index."""

    def __init__(self, model):
        super().__init__(model)
        self.work = sum(layer.multiply_adds() for layer in model.layers)
        self.threads = threads.num_threads() if threads.blas_can_be_limited() else 1
        self.grads = [self.params.grads]
        self._replicas: dict[int, list[HostReplica]] = {}
        self.proved: set[tuple] = set()
        self.update = Update(self.params, self.optimizer, model.optimizer_state, self.threads)

    def epoch(self, data, order, batch_size, number=None):
        return HostEpoch(self, data, order, batch_size, number)

    def stream(self, batches, number=None):
        return HostStream(self, batches, number)

    def replicas(self, n: int) -> list[HostReplica]:
        """The replicas for a batch of n samples; their number follows from shapes and the thread count
        alone.
        """
        if n not in self._replicas:
            if len(self._replicas) > 16:
                self._replicas.clear()
            count = min(self.threads, n // LEAST_SAMPLES, n * self.work // LEAST_WORK)
            if count <= 1:
                made = [HostReplica(self, self.ops, self.params.grads, slice(0, n), n)]
            else:
                while len(self.grads) < count:
                    self.grads.append(self.ops.flat(len(self.params.grads), self.params.dtype))
                edges = [n * k // count for k in range(count + 1)]
                shares = [slice(a, b) for a, b in zip(edges, edges[1:])]
                made = [
                    HostReplica(self, ops, grads, share, n)
                    for ops, grads, share in zip(self.ops.replicas(shares), self.grads, shares)
                ]
            self._replicas[n] = made
        return self._replicas[n]

    def augmented(self, data, index) -> tuple[Arrays, np.ndarray]:
        """The samples at index as they are trained on, and where they lie."""
        if not self.augment:
            return data, index
        x, y, w = data.take(index)
        if x.ndim == 4 and self.model._last:
            x = x.transpose(0, 3, 1, 2)
        x, y = self.augment(self.ops, x.astype(self.params.dtype, copy=False), y)
        if x.ndim == 4 and self.model._last:
            x = x.transpose(0, 2, 3, 1)
        return Arrays(x, y, w), np.arange(len(index))

    def rest(self) -> None:
        for replica in (one for made in self._replicas.values() for one in made):
            replica.repeated.forget()

    def blas_threads(self, n):
        """All, where one replica has work for them."""
        alone = len(self.replicas(n)) == 1
        return self.threads if alone and n * self.work >= self.threads * LEAST_WORK else 1

    def gradients(self, data, index):
        replicas = self.replicas(len(index))
        divisor = data.weight(index) or 1.0

        def work(replica: HostReplica):
            x, y, w = data.take(index[replica.share])
            again = replica.repeated(x, y) if w is None else None
            if again is not None:
                return again[0][()], list(again[1:])
            return replica.work(self.model.enter(x, replica.ops), y, w, divisor, self.metrics)

        if len(replicas) == 1:
            loss, sums = work(replicas[0])
            return loss, sums, self.grads[:1]

        def share(replica):
            try:
                return work(replica)
            except BaseException:
                replica.ops.abort()
                self._replicas.clear()  # a broken barrier stays broken
                raise

        losses, parts = zip(*threads.crew.run(share, replicas))
        total = [sum(rest, first) for first, *rest in zip(*parts)]
        return sum(losses[1:], losses[0]), total, self.grads[: len(replicas)]

    def __call__(self, data, index) -> tuple[Any, list, bool]:
        """The reduced loss, each metric's sums, and whether the update was made."""
        # a frozen layer, or one whose last step was skipped, has nothing to propose
        self.params.pending[...] = self.params.state
        # a NaN is found by its consequence and reported with its layer, so NumPy need not warn of each
        with np.errstate(all="ignore"):
            loss, sums, grads = self.gradients(data, index)
            return loss, sums, self.update(grads, loss)


class HostEpoch(Totals):
    """A pass over the samples of data in an order."""

    def __init__(self, step: HostStep, data, order, batch_size: int, number: int | None):
        super().__init__(step.model)
        self._step, self.data, self.order, self.size, self.number = step, data, order, batch_size, number

    def more(self, batch: int) -> bool:
        """Whether there is a batch of this number."""
        return batch * self.size < len(self.order)

    def step(self, batch: int) -> None:
        """Train on batch number `batch`; NonFiniteError where that cannot be done."""
        data, index = self._step.augmented(self.data, self._index(batch))
        loss, sums, ok = self._step(data, index)
        if not ok:
            self._step.fail(data, index, self.number, None if self.number is None else batch)
        self.add(loss, sums, data.weight(index))

    def _index(self, batch: int) -> np.ndarray:
        return self.order[batch * self.size : (batch + 1) * self.size]

    def finish(self) -> None:
        """Every step has been checked already."""

    def abandon(self) -> None:
        """Nothing is under way."""


class HostStream(HostEpoch):
    """A pass over batches that come one by one."""

    def __init__(self, step: HostStep, batches: Iterator[Arrays], number: int | None):
        super().__init__(step, None, None, 0, number)
        self.batches = batches

    def more(self, batch):
        self.data = next(self.batches, None)
        return self.data is not None

    def _index(self, batch):
        return np.arange(len(self.data))
