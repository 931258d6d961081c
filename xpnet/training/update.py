"""The optimizer's side of a step on the CPU, on the flat buffers: sum over replicas, clip, guard, update."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..ops import threads
from ..optimizers import GATHERED, TINY
from ..params import Params

LEAST_UPDATE = 1 << 17  # parameters; below, a second thread costs more than it saves


class Update:
    """`update(grads, loss)` moves the parameters by the sum of grads, in pieces that fit the cache.

    Nothing is changed where the loss or the gradient is not finite.
    """

    def __init__(self, params: Params, optimizer, state: dict[str, Any], thread_count: int):
        self.params, self.ops, self.optimizer = params, params.ops, optimizer
        self.state = [state[name] for name in optimizer.state]
        self.gathered = state.get(GATHERED)
        ranges = params.trainable_ranges()
        pieces = [piece for start, stop in ranges for piece in self.ops.blocks(start, stop)]
        shared = thread_count if params.count() >= LEAST_UPDATE else 1
        edges = [len(pieces) * k // shared for k in range(shared + 1)]
        self.parts = [pieces[a:b] for a, b in zip(edges, edges[1:])]

    def __call__(self, grads: list, loss) -> bool:
        """Whether the update was made, or, of an optimizer that waits for more batches, prepared."""
        opt, params = self.optimizer, self.params
        last = opt.gathered + 1 == opt.every
        squared = sum(threads.crew.run(lambda part: self._gather(part, grads, last), self.parts))
        if not math.isfinite(squared):
            squared = self._wide_square()
        if not (math.isfinite(loss) and math.isfinite(squared)):
            return False
        if not last:
            self.gathered += params.grads
            return self._done()
        if opt.clipnorm is not None:
            self.ops.limit_norms(params.grads, params.slots, opt.clipnorm)
        scale = self._scale(squared)
        lr, t = opt.rate(), opt.iterations + 1
        threads.crew.run(lambda part: self._update(part, scale, lr, t), self.parts)
        if self.gathered is not None:
            self.gathered[...] = 0
        return self._done()

    def _done(self) -> bool:
        """The batch has been made use of."""
        self.params.state[...] = self.params.pending
        self.optimizer.count()
        self.params.step += 1
        return True

    @np.errstate(all="ignore")  # each thread has a setting of its own
    def _gather(self, pieces, grads, last):
        """Add the replicas' gradients, and with the last batch those that wait, into the first buffer; the
        sum of squares.
        """
        clip, first = self.optimizer.clipvalue if last else None, self.params.grads
        total = 0.0
        for piece in pieces:
            g = first[piece]
            for other in grads[1:]:
                g += other[piece]
            if self.gathered is not None:
                g *= 1 / self.optimizer.every
                if last:
                    g += self.gathered[piece]
            if clip is not None:
                np.clip(g, -clip, clip, out=g)
            total += self.ops.squared_norm(g)
        return total

    @np.errstate(all="ignore")
    def _wide_square(self) -> float:
        """The sum of squares where float32 could not hold it, or the gradient is truly not finite."""
        pieces = [self.params.grads[piece].astype(np.float64) for part in self.parts for piece in part]
        return sum(float(np.dot(g, g)) for g in pieces)

    def _scale(self, squared: float) -> float | None:
        """What global_clipnorm multiplies the gradient by; None for nothing."""
        limit = self.optimizer.global_clipnorm
        scale = 1.0 if limit is None else limit / (math.sqrt(squared) + TINY)
        return scale if scale < 1 else None

    @np.errstate(all="ignore")
    def _update(self, pieces, scale, lr, t):
        opt, params = self.optimizer, self.params
        for piece in pieces:
            p, g = params.values[piece], params.grads[piece]
            if scale is not None:
                g *= scale
            if opt.weight_decay:
                p *= 1 - lr * opt.weight_decay
            opt.update(np, p, g, [s[piece] for s in self.state], lr, t)
