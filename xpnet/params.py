"""All parameters of a model in one flat buffer, all gradients in a second, all running statistics in a third.

Layers reserve slots while the model is built and then hold views into the buffers.  So an optimizer step, a
gradient norm, a sum over replicas and a checkpoint are each one operation on one array.

A slot has two shapes.  Files, `state_dict` and initialisers know the conventional one, (out, in) or (F, C,
KH, KW), as in PyTorch; memory holds it with its axes in the order that the layer's kernel wants.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import initializers
from .ops.record import again

if TYPE_CHECKING:
    from .layers.base import Layer
    from .ops.reference import Ops

LINE = 64  # bytes; slots start on cache lines, and the gaps between them hold zeros for ever


class Slot:
    """One parameter or statistic of one layer: where it lies in its flat buffer."""

    def __init__(
        self, layer: Layer, name: str, shape: tuple[int, ...], order: tuple[int, ...] | None, draw: Callable
    ):
        self._layer = weakref.ref(layer)  # which holds the slot
        self.name, self.shape, self.draw = name, tuple(shape), draw
        self.order = order or tuple(range(len(self.shape)))
        self.size = math.prod(self.shape)
        self.start = 0
        self.integer = False

    @property
    def layer(self) -> Any:
        return self._layer()

    def view(self, flat):
        """The slot's part of a flat buffer, in memory order."""
        part = flat[self.start : self.start + self.size]
        return part.reshape(tuple(self.shape[axis] for axis in self.order))


class Stream:
    """A source of random bits for one layer: the same bits for the same seed, layer number and step."""

    def __init__(self, params: Params, number: int):
        self._params, self.number = params, number
        self.seed, self.control = params.seed, params.control

    @property
    def step(self) -> int:
        """Optimizer steps taken: within one, the bits stay the same however often they are asked for."""
        return self._params.step

    def bits(self, ops: Ops, shape: tuple[int, ...]):
        """uint16 array of the current step's bits."""
        return again(self._bits, ops, shape)

    def _bits(self, ops: Ops, shape: tuple[int, ...]):
        return ops.random_bits(self.seed, self.number, self.step, shape)


class Params:
    """The slots of a model and, once allocated, its flat buffers.

    values, grads: parameters and their gradients.  state: running statistics; pending: what a forward in
    training proposes for them, taken over by the optimizer step (so a step that is skipped leaves them
    alone).  step: the number of optimizer steps taken, which the dropout masks follow.
    """

    def __init__(self, seed: int, ops: Ops, dtype, data_format: str = "channels_first"):
        self.seed, self.ops, self.dtype, self.data_format = seed, ops, np.dtype(dtype), data_format
        self.step = 0
        self.control = ops.control()
        self.slots: list[Slot] = []
        self.state_slots: list[Slot] = []
        self._streams = 0
        self.values: Any = None
        self.grads: Any = None
        self.state: Any = None
        self.pending: Any = None

    def reserve(self, layer: Layer, name: str, shape, initializer, order=None) -> None:
        """A trainable parameter: layer.<name> and its gradient layer.d<name>, views in memory order.

        shape: conventional.  order: the conventional axes in the order memory holds them.
        """
        if any(size < 1 for size in shape):
            layer.fail(
                f"a parameter would be empty. Received: {name} of shape {tuple(shape)}. Expected: sizes of "
                "at least 1"
            )
        slot = Slot(layer, name, shape, order, initializers.get(initializer))
        self.slots.append(slot)
        layer.slots.append(slot)

    def reserve_state(self, layer: Layer, name: str, shape, value: float, integer: bool = False) -> None:
        """A statistic that is not trained: layer.<name>, and layer.next_<name> for what training proposes."""
        slot = Slot(layer, name, shape, None, lambda rng, shape: np.full(shape, value))
        slot.integer = integer
        self.state_slots.append(slot)
        layer.state_slots.append(slot)

    def stream(self) -> Stream:
        """A stream of random bits of the layer's own."""
        self._streams += 1
        return Stream(self, self._streams - 1)

    def allocate(self) -> None:
        """Lay the slots out, make the buffers and draw the initial values (on the host, so on every device
        alike).
        """
        with self.ops.running():
            self._allocate()

    def _allocate(self) -> None:
        ops, dtype = self.ops, self.dtype
        self.values = ops.flat(self._lay_out(self.slots, dtype), dtype)
        self.grads = ops.flat(len(self.values), dtype)
        self.state = ops.flat(self._lay_out(self.state_slots, dtype), dtype)
        self.pending = ops.flat(len(self.state), dtype)
        for number, slot in enumerate(self.slots):
            drawn = np.asarray(slot.draw(np.random.default_rng([self.seed, number]), slot.shape))
            if drawn.shape not in ((), slot.shape):
                slot.layer.fail(
                    f"the initializer of {slot.name} made the wrong shape. Received: {drawn.shape}. "
                    f"Expected: {slot.shape}"
                )
            self.write(self.values, slot, np.broadcast_to(drawn, slot.shape))
        for slot in self.state_slots:
            self.write(self.state, slot, slot.draw(None, slot.shape))
        self.pending[...] = self.state
        self.bind(self.slots + self.state_slots)

    def bind(self, slots: Iterable[Slot]) -> None:
        """Give the layers their views."""
        for slot in slots:
            if slot in slot.layer.slots:
                setattr(slot.layer, slot.name, slot.view(self.values))
                setattr(slot.layer, "d" + slot.name, slot.view(self.grads))
            else:
                setattr(slot.layer, slot.name, slot.view(self.state))
                setattr(slot.layer, "next_" + slot.name, slot.view(self.pending))

    def write(self, flat, slot: Slot, values) -> None:
        """Copy conventional values, of the host, into the slot."""
        values = np.asarray(np.asarray(values).transpose(slot.order), dtype=flat.dtype, order="C")
        with self.ops.running():
            slot.view(flat)[...] = self.ops.asarray(values)

    def read(self, flat, slot: Slot) -> np.ndarray:
        """The slot's conventional values, copied to the host."""
        with self.ops.running():
            values = self.ops.to_host(slot.view(flat))
        return np.array(values.transpose(np.argsort(slot.order)), order="C")

    def trainable_ranges(self) -> list[tuple[int, int]]:
        """[start, stop) of the buffer that updates touch: neighbouring trainable slots, with the gaps between
        them.
        """
        ranges: list[tuple[int, int]] = []
        joined = False
        for slot in self.slots:
            if slot.layer.is_trainable:
                if joined:
                    ranges[-1] = (ranges[-1][0], slot.start + slot.size)
                else:
                    ranges.append((slot.start, slot.start + slot.size))
            joined = slot.layer.is_trainable
        return ranges

    def count(self, trainable: bool | None = None) -> int:
        """Parameters in all, or only those that are (or are not) trained; gaps do not count."""
        return sum(s.size for s in self.slots if trainable is None or s.layer.is_trainable == trainable)

    @staticmethod
    def _lay_out(slots: list[Slot], dtype) -> int:
        line = LINE // np.dtype(dtype).itemsize
        end = 0
        for slot in slots:
            slot.start = -(-end // line) * line
            end = slot.start + slot.size
        return end
