"""The optimizer's side of a step on flat arrays, as in training/update.py, but decided on the device.

control: CONTROL.itemsize bytes (uint8) on the device, a struct Control.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np

from ...optimizers import TINY
from . import CONTROL, _text
from .sums import FILL, THREADS

EACH = 8  # elements a thread takes before there are more blocks


def _blocks(count: int) -> int:
    return max(1, min(FILL, -(-count // (THREADS * EACH))))


def _launch(gpu, entry: str, slots: int, blocks: int, args: tuple[Any, ...], code: str = "", **types) -> None:
    gpu.launch(
        "update", entry, (slots, blocks, 1), (THREADS, 1, 1), args, code or _text("reduce.cuh"), **types
    )


def _reduction(gpu, slots: int, blocks: int):
    """(workspace, counters) for sums of slots that `blocks` blocks share."""
    return (None, None) if blocks == 1 else (gpu.empty(slots * blocks, np.float64), gpu.counters)


def judge(gpu, control, grads, ranges, loss, clipvalue, n: int) -> None:
    """Decide whether this step is made: all before were, since `good` was set, and loss and gradient are
    finite.

    ranges: [(start, stop), ...], what of grads is trained; they do not overlap.  clipvalue: None, or what
    each of their elements is limited to, in place, before the norm is taken.  loss: 0-d.  control gets ok,
    good and norm, and counts: step and iterations, or skipped; cursor goes on by n samples.
    """
    clip, T = np.float64(0 if clipvalue is None else clipvalue), str(grads.dtype)
    *others, (start, stop) = ranges or [(0, 0)]
    known: Any = gpu.empty(len(others), np.float64) if others else None
    for k, (a, b) in enumerate(others):
        blocks = _blocks(b - a)
        args: tuple[Any, ...] = grads, np.int64(a), np.int64(b), clip, *_reduction(gpu, 1, blocks)
        _launch(gpu, "square", 1, blocks, (*args, known[k : k + 1]), T=T)
    blocks = _blocks(stop - start)
    args = control, grads, np.int64(start), np.int64(stop), known, len(others), loss, clip, np.int64(n)
    other = {} if loss.dtype == grads.dtype else {"S": str(loss.dtype)}  # one text for most kernels
    _launch(gpu, "judge", 1, blocks, (*args, *_reduction(gpu, 1, blocks)), T=T, **other)


# Inlined, pow's branches would keep all that is made of it inside the loop over elements.
POWER = """__device__ __noinline__ double power(double x, double y) { return pow(x, y); }
__device__ inline float power(float x, float y) { return pow(x, y); }
#define pow power
"""


@functools.cache
def _step_code(formula: str, count: int) -> str:
    # __restrict__: the arrays are distinct, so all of an element's loads may be issued before its first store
    parameters = ", ".join(f"T *__restrict__ a{k}" for k in range(count))
    each = [(f"(e)[{k}]", f"a{k}[i]") for k in range(count)]
    names = re.findall(r"\bT &(\w+)", formula)
    written = [
        f"{a} = {e}" for name, (e, a) in zip(names, each) if re.search(rf"\b{name} *[-+*/]?=[^=]", formula)
    ]
    defines = (
        f"#define PARAMETERS {parameters}\n#define COUNT {count}\n"
        f"#define LOAD(e, i) ({', '.join(f'{e} = {a}' for e, a in each)})\n"
        f"#define STORE(e, i) ({', '.join(written)})\n"
        f"#define ELEMENTS(e) {', '.join(e for e, _ in each)}\n"
    )
    defines += POWER
    return f"{_text('reduce.cuh')}\n{defines}{formula}"


def step(gpu, control, code: str, arrays, start: int, stop: int) -> None:
    """If judge found the step good, formula(a0[i], a1[i], ..., lr, t, norm) for start <= i < stop.

    arrays: distinct flat arrays (values, grads, *state) of one dtype.  code: source of `__device__ inline
    void formula(T &a0, T &a1, ..., double lr, double t, double norm)`; t counts steps from 1.
    """
    if stop <= start:
        return
    if not 0 <= start < stop <= min(a.size for a in arrays):
        raise ValueError(f"[{start}, {stop}) is not within arrays of {[a.size for a in arrays]} elements")
    args = control, np.int64(start), np.int64(stop), *arrays
    blocks = min(FILL // 2, -(-(stop - start) // (THREADS * 4)))
    _launch(gpu, "step", 1, blocks, args, _step_code(code, len(arrays)), T=str(arrays[0].dtype))


def take_over(gpu, control, state, pending) -> None:
    """state = pending, if judge found the step good."""
    if state.size:
        args = control, state, pending, np.int64(state.size)
        _launch(gpu, "take_over", 1, _blocks(state.size), args, T=str(state.dtype))


def clip_slots(gpu, grads, starts, sizes, limit: float) -> None:
    """Multiply each slot of grads whose norm is above limit by limit / (norm + TINY).

    starts, sizes: device int64 arrays, one element a slot.
    """
    slots = len(starts)
    if not slots:
        return
    blocks = max(1, min(64, -(-_blocks(grads.size) // slots) * 2))  # twice the mean, as slots differ in size
    if slots > len(gpu.counters):
        blocks = 1
    scales, T = gpu.empty(slots, grads.dtype), str(grads.dtype)
    args = grads, starts, sizes, np.float64(limit), np.float64(TINY), *_reduction(gpu, slots, blocks), scales
    _launch(gpu, "slot_scales", slots, blocks, args, T=T)
    _launch(gpu, "scale_slots", slots, blocks, (grads, starts, sizes, scales), T=T)


_SCALARS = {name: CONTROL[name].type for name in CONTROL.names[:8]}  # type: ignore[index]
_POINTERS = CONTROL.names[8:]  # type: ignore[index]


def write_control(gpu, control, **fields) -> None:
    """Set these fields of control and leave the others.

    step, iterations, rate, norm, cursor, skipped, ok, good: numbers.  x, y, w, order: arrays, which the
    caller keeps alive, or None.
    """
    for name in fields.keys() - set(CONTROL.names or ()):
        raise TypeError(f"control has no field {name!r}. Expected: one of {', '.join(CONTROL.names or ())}")
    order = fields.get("order")
    if order is not None and order.dtype != np.int64:
        raise TypeError(f"order must be int64. Received: {order.dtype}")
    given = sum(1 << k for k, name in enumerate(CONTROL.names or ()) if name in fields)
    scalars = [kind(fields.get(name, 0)) for name, kind in _SCALARS.items()]
    args = control, given, *scalars, *(fields.get(name) for name in _POINTERS)
    gpu.launch("update", "write_control", (1, 1, 1), (1, 1, 1), args, _text("reduce.cuh"), T="float32")


def read_control(gpu, control) -> dict[str, int | float]:
    """All fields, copied to the host; arrays as addresses."""
    raw = control.get() if hasattr(control, "get") else np.asarray(control)
    record = np.frombuffer(raw.tobytes(), CONTROL)[0]
    return {name: record[name].item() for name in CONTROL.names or ()}


def accumulate(gpu, total, values, factor) -> None:
    """total += values * factor.

    total: float64, contiguous, as large as values; factor: a number or a 0-d device array.
    """
    if total.size != values.size or total.dtype != np.float64:
        raise ValueError(
            f"total must be float64 of {values.size} elements. Received: {total.dtype}, shape {total.shape}"
        )
    array = hasattr(factor, "dtype") and not isinstance(factor, np.generic)
    by = np.float64(0 if array else factor)
    args = total, values, factor if array else None, by, values.size
    types = {"R": str(factor.dtype)} if array else {}
    _launch(gpu, "accumulate", 1, _blocks(values.size), args, T=str(values.dtype), **types)
