"""What of a model gets into a page, and in how many bits.

A page stays below a size that any phone opens.  Weights that do not fit are kept in fewer bits, the largest
first ("rounded"), then not at all ("stored").  Of such layers, and of those that the page cannot compute, it
gets the exact results for the samples.  What is too large for that is left out ("unsupported").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import tensors
from .graph import Node, Seen, is_known, nodes_of, observe
from .reasons import reason

LARGEST_MAP = 1 << 20  # elements of a layer's output that a page holds
LARGEST_WORK = 1 << 31  # multiplications of a layer that a page does
STORED_SHARE = 1 / 3  # of the room: what is stored of samples may take so much before some are left out
STORED_FORM = "int16"  # a scale a channel: exact to 2e-5 of its largest number
INPUT_SIZE, RESULT_SIZE = 2, 2.7  # characters of the page that a number of a sample takes, about
GONE = "gone"  # the form of weights that are not there
FORMS = (*tensors.FLOATS, *tensors.ROUNDED, GONE)


@dataclass
class Part:
    """One layer's part of the page.  forms: of its parameters, where they are not float32."""

    node: Node
    status: str = "live"
    reason: dict[str, str] | None = None
    forms: dict[str, str] = field(default_factory=dict)

    @property
    def is_rounded(self) -> bool:
        return any(form in tensors.ROUNDED for form in self.forms.values())

    @property
    def is_stored(self) -> bool:
        """Whether the page gets its results for the samples."""
        return self.status == "stored" or (self.status == "live" and self.is_rounded)


class Plan:
    """Which layers a page computes, of which it stores results, and for how many samples.

    model: in host memory.  samples: x as (1, ...) and targets as (1, ...), or None, for `observe`.  At first
    all that the page can compute is whole; `fit` makes it smaller.
    """

    def __init__(self, model, head, samples: list[tuple[np.ndarray, Any]]):
        self.model, self.head, self.samples = model, head, samples
        self.parts = [Part(node) for node in nodes_of(model)]
        self.values = model.state_dict()
        self.count = len(samples)
        self._seen: dict[tuple[int, bool], dict[int, Seen]] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        self._finite = [slot for part, slot in self._slots() if np.isfinite(self.array(part, slot)).all()]
        for part in self.parts:
            part.status, part.reason = _first_status(part.node)
        self._follow()

    def fit(self, room: int) -> None:
        """Give up what costs most until all takes at most `room` characters; then take as many samples as
        there is room for.
        """
        while self._size() > room and self._shrink(room):
            pass
        while self.count < len(self.samples):
            self.count += 1
            if self._size() > room:
                self.count -= 1
                break

    def told(self, part: Part) -> tuple[str, dict[str, str] | None]:
        """What the page says of a layer: its status, and why."""
        if part.status == "live" and part.is_rounded:
            return "rounded", self._rounded(part)
        return part.status, part.reason

    def array(self, part: Part, slot) -> np.ndarray:
        """The values of a parameter."""
        return self.values[f"{part.node.key}.{slot.name}"]

    def seen(self, sample: int, train: bool) -> dict[int, Seen]:
        """What every layer made of a sample, by the layer's id."""
        if (sample, train) not in self._seen:
            x, target = self.samples[sample]
            self._seen[sample, train] = observe(self.model, self.head, x, target, train)
        return self._seen[sample, train]

    # -- what there is room for ------------------------------------------------------------------------------

    def _follow(self) -> None:
        """A layer that reads what is not in the page cannot be computed there."""
        for part in self.parts:
            sources = [self.parts[i] for i in part.node.inputs if i >= 0]
            if part.status == "live" and any(source.status == "unsupported" for source in sources):
                part.status, part.reason = "stored", reason("behind")

    def _size(self) -> int:
        """About how many characters of the page it all takes."""
        weights = sum(self._slot_size(part, slot, _form(part, slot)) for part, slot in self._slots())
        sample = INPUT_SIZE * math.prod(self.model.chain.in_shape)
        return weights + self.count * (sample + self._stored_size())

    def _stored_size(self) -> int:
        return sum(_results_size(part) for part in self.parts if part.is_stored)

    def _slots(self) -> list[tuple[Part, Any]]:
        """The parameters that may be kept in fewer bits: matrices and kernels that the page computes with."""
        known = (part for part in self.parts if is_known(part.node.layer))
        slots = ((part, slot) for part in known for slot in part.node.layer.slots)
        return [(part, slot) for part, slot in slots if slot.name == "weight" and len(slot.shape) in (2, 4)]

    def _slot_size(self, part: Part, slot, form: str) -> int:
        if form == GONE:
            return 0
        key = (f"{part.node.key}.{slot.name}", form)
        if key not in self._sizes:
            self._sizes[key] = tensors.packed_size(self.values[key[0]], form)
        return self._sizes[key]

    def _shrink(self, room: int) -> bool:
        """Give up what costs most; False where nothing is left to give up."""
        if self.count > 1 and self.count * self._stored_size() > room * STORED_SHARE:
            self.count -= 1
            return True
        forms = ((part, slot, self._next_form(part, slot)) for part, slot in self._slots())
        choices = [(part, slot, form) for part, slot, form in forms if form is not None]
        if choices:
            part, slot, form = max(choices, key=lambda c: self._slot_size(c[0], c[1], _form(c[0], c[1])))
            part.forms[slot.name] = form
            if form == GONE and part.status == "live":
                part.status, part.reason = "stored", reason("weights", count=slot.size)
            return True
        if self.count > 1:
            self.count -= 1
            return True
        stored = max((part for part in self.parts if part.is_stored), key=_results_size, default=None)
        if stored is None or not self.count:
            return False
        stored.status, stored.reason = "unsupported", reason("room")
        self._follow()
        return True

    def _next_form(self, part: Part, slot) -> str | None:
        """The next rougher form that makes the page smaller, results that would be stored included."""
        now = _form(part, slot)
        for form in FORMS[FORMS.index(now) + 1 :]:
            if form in tensors.ROUNDED and slot not in self._finite:
                continue
            results = form not in tensors.FLOATS and not part.is_stored and part.status == "live"
            more = self.count * _results_size(part) if results else 0
            if self._slot_size(part, slot, now) > self._slot_size(part, slot, form) + more:
                return form
        return None

    # -- how far off rounded weights are ---------------------------------------------------------------------

    def _rounded(self, part: Part) -> dict[str, str]:
        slot = next(slot for slot in part.node.layer.slots if part.forms.get(slot.name) in tensors.ROUNDED)
        form = part.forms[slot.name]
        twin = part.node.layer.without_activation()
        about = tensors.decode(self.array(part, slot), form).astype(self.model.dtype)
        setattr(twin, slot.name, np.ascontiguousarray(about.transpose(slot.order)))
        (source,) = part.node.inputs
        worst = 0.0
        for index in range(self.count):
            seen = self.seen(index, False)
            x = self._read(index, source, seen)
            z, exact = twin.forward(x, train=False)[0], seen[id(part.node.layer)].pre
            z = z[..., 0].transpose(1, 0, 2) if z.ndim == 4 else z[0]
            largest = float(np.abs(exact).max()) or 1.0
            worst = max(worst, float(np.abs(z - exact).max()) / largest)
        bits = int(form.removeprefix("int"))
        return reason("rounded", count=slot.size, bits=bits, error=worst)

    def _read(self, index: int, source: int, seen: dict[int, Seen]):
        """What a layer behind `source` reads: (H, C, W, 1) or (1, D)."""
        if source < 0:
            return self.model.enter(self.samples[index][0], self.model.ops)
        a = seen[id(self.parts[source].node.layer)].output
        return np.ascontiguousarray(a.transpose(1, 0, 2))[..., None] if a.ndim == 3 else a[None]


def _form(part: Part, slot) -> str:
    return part.forms.get(slot.name, "float32")


def _results_size(part: Part) -> int:
    """About the characters that a layer's results for one sample take: z and dL/dx, in two modes."""
    layer = part.node.layer
    return math.ceil(2 * RESULT_SIZE * (math.prod(layer.out_shape) + math.prod(layer.in_shape)))


def _first_status(node: Node) -> tuple[str, dict[str, str] | None]:
    """Before there is a question of room."""
    layer = node.layer
    count = math.prod(layer.out_shape)
    if count > LARGEST_MAP:
        return "unsupported", reason("map", count=count)
    if not is_known(layer):
        return "stored", reason("class", kind=type(layer).__name__)
    work = 0 if node.children else layer.multiply_adds()
    if work > LARGEST_WORK:
        return "stored", reason("work", count=work)
    return "live", None
