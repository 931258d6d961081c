"""The optimizer's side of a step, on the flat buffers: sum over replicas, clip, guard, update."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..ops import threads
from ..params import Params

LEAST_UPDATE = 1 << 17  # parameters; below, a second thread costs more than it saves

TINY = 1e-6  # added to a norm before it divides, as PyTorch does


class Update:
    """`update(grads, loss)` moves the parameters by the sum of grads, in pieces that fit the cache.

    Nothing is changed where the loss or the gradient is not finite.  In host memory that is known at once.
    On a device it is not read back: such a step, and every one after it, leaves all as it was until `reset`.
    """

    def __init__(self, params: Params, optimizer, state: dict[str, Any], thread_count: int):
        self.params, self.ops, self.optimizer = params, params.ops, optimizer
        self.state = [state[name] for name in optimizer.state]
        ranges = params.trainable_ranges()
        pieces = [piece for start, stop in ranges for piece in self.ops.blocks(start, stop)]
        shared = thread_count if self.ops.in_host_memory and params.count() >= LEAST_UPDATE else 1
        edges = [len(pieces) * k // shared for k in range(shared + 1)]
        self.parts = [pieces[a:b] for a, b in zip(edges, edges[1:])]
        self._good: Any = None  # on a device: whether every step so far was made

    def __call__(self, grads: list, loss):
        """Whether the update was made, a 0-d bool of the device."""
        opt, params, ops, xp = self.optimizer, self.params, self.ops, self.ops.xp
        squares = threads.crew.run(lambda part: self._gather(part, grads), self.parts)
        squared = sum(squares[1:], squares[0])
        if ops.in_host_memory and not math.isfinite(squared):
            squared = self._wide_square()
        ok = xp.isfinite(loss) & xp.isfinite(squared)
        if not ops.in_host_memory:
            ok = self._good = ok if self._good is None else ok & self._good
        scale = self._scale(squared)
        lr, t = opt.rate(), opt.iterations + 1

        def change():
            if opt.clipnorm is not None:
                self._clip_each()
            threads.crew.run(lambda part: self._update(part, scale, lr, t), self.parts)
            params.state[...] = params.pending

        ops.guarded(ok, [params.values, params.state, *self.state], change)
        if not ops.in_host_memory or ok:
            opt.iterations += 1
            params.step += 1
        return ok

    def reset(self, skipped: int) -> None:
        """Go on after steps that a device skipped: they do not count."""
        self._good = None
        self.optimizer.iterations -= skipped
        self.params.step -= skipped

    @np.errstate(all="ignore")  # each thread has a setting of its own
    def _gather(self, pieces, grads):
        """Add the replicas' gradients into the first buffer; the sum of squares."""
        clip, first = self.optimizer.clipvalue, self.params.grads
        total: Any = 0.0
        for piece in pieces:
            g = first[piece]
            for other in grads[1:]:
                g += other[piece]
            if clip is not None:
                self.ops.xp.clip(g, -clip, clip, out=g)
            total = total + self.ops.squared_norm(g)
        return total

    @np.errstate(all="ignore")
    def _wide_square(self) -> float:
        """The sum of squares where float32 could not hold it, or the gradient is truly not finite."""
        pieces = [self.params.grads[piece].astype(np.float64) for part in self.parts for piece in part]
        return sum(float(np.dot(g, g)) for g in pieces)

    def _scale(self, squared):
        """What global_clipnorm multiplies the gradient by; None for nothing."""
        limit, xp = self.optimizer.global_clipnorm, self.ops.xp
        if limit is None:
            return None
        if self.ops.in_host_memory:
            norm = math.sqrt(squared) if math.isfinite(squared) else math.inf
            scale = limit / (norm + TINY)
            return scale if scale < 1 else None
        return xp.minimum(1.0, limit / (xp.sqrt(squared) + TINY))

    def _clip_each(self):
        xp, limit = self.ops.xp, self.optimizer.clipnorm
        for slot in self.params.slots:
            g = self.params.grads[slot.start : slot.start + slot.size]
            wide = g.astype(np.float64)  # whose square does not overflow
            g *= xp.minimum(1.0, limit / (xp.sqrt(xp.dot(wide, wide)) + TINY)).astype(g.dtype)

    @np.errstate(all="ignore")
    def _update(self, pieces, scale, lr, t):
        opt, params = self.optimizer, self.params
        for piece in pieces:
            p, g = params.values[piece], params.grads[piece]
            if scale is not None:
                g *= scale
            if opt.weight_decay:
                p *= 1 - lr * opt.weight_decay
            opt.update(self.ops.xp, p, g, [s[piece] for s in self.state], lr, t)
