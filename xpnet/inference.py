"""Predictions on the CPU: samples in blocks that suit the caches, spread over the cores, and recorded."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np

from .ops import threads
from .replay import Buffers, Repeated, parts_of
from .training.step import clone

BLOCK = 4 << 20  # bytes of the largest map of a block's samples: 16 to 32 samples of mnist-cnn or cifar-vgg
LEAST_ROWS = 48  # a thread's matmuls have so many rows: samples times the positions that share a weight,
LEAST_WORK = 1 << 22  # and its share so many multiply-adds


class Inference:
    """How a model in host memory predicts, as long as its layers and parameters stay the same."""

    def __init__(self, model):
        self.params, self.layers = model.params, list(model.layers)
        sizes = [math.prod(shape) for one in model.all_layers() for shape in (one.in_shape, one.out_shape)]
        fitting = BLOCK // (max(sizes) * model.dtype.itemsize)
        self.block = min(max(1 << fitting.bit_length(), 16), model.ops.inference_block)
        self.work = sum(layer.multiply_adds() for layer in self.layers)
        self.least = max(LEAST_ROWS * model.params.count(), LEAST_WORK)  # multiply-adds of a thread's share
        layers, its = self.layers, weakref.ref(model)  # whose memory shall go when nobody else holds it

        def make(buffers, view):
            model: Any = its()
            twins = [clone(layer, model.ops, buffers.grads) for layer in layers]
            buffers.bind(twins, view)

            def work(x):
                model: Any = its()
                y = model.leave(model.infer(model.enter(x, model.ops), layers=twins))
                return (y.transpose(0, 2, 3, 1) if y.ndim == 4 and model._last else y,)

            return work

        params = model.params
        buffers = Buffers(params.values, params.grads, params.state, params.pending)
        self._repeated = Repeated(make, buffers, lambda: parts_of(layers))

    def again(self, x) -> np.ndarray | None:
        """The prediction for x from a recording, in memory of its own; None where there is none."""
        with np.errstate(all="ignore"):
            answer = self._repeated(x)
        return None if answer is None else answer[0]

    def fits(self, model) -> bool:
        """Whether this is still the model's layers and parameters."""
        return self.params is model.params and self.layers == model.layers

    def blocks(self, count: int, size: int | None) -> list[list[slice]]:
        """Slices of so many samples, or of what suits the caches, in a list for each thread."""
        crew = threads.num_threads() if threads.blas_can_be_limited() else 1
        if size is None:
            crew = max(1, min(crew, count * self.work // self.least))
            rounds = -(-count // (crew * self.block))
            size = -(-count // (crew * rounds))
        blocks = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        crew = max(1, min(crew, len(blocks)))
        edges = [len(blocks) * k // crew for k in range(crew + 1)]
        return [blocks[a:b] for a, b in zip(edges, edges[1:])]
