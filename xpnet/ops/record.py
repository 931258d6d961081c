"""Small work again without Python's overhead: the calls that layers make on NumPy arrays, noted and repeated.

What a CUDA graph is on a GPU.  A function runs once on `Traced` arrays.  Each operation on them is carried
out and noted with the very arrays it read and wrote.  To repeat the work is to put other numbers into its
inputs and to make the noted calls again: no layer, no shape, no view, no allocation; a view is no call at
all.  And since it is known when each array is needed for the last time, the arrays lie close together.

Whatever would freeze a value fails as NotRecordable: a number taken out of an array, memory that was not
traced, a function that is not known here.  What slips through (np.asarray yields a plain view, say) shows
when a recording is asked for another input than its first, which is for the caller to try: `replay.py`.
"""

from __future__ import annotations

import bisect
import math
import mmap
import operator
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

LIMIT = 24 << 20  # bytes of all the arrays that a recording makes, which are held while it is made
LINE = 64  # bytes


class NotRecordable(TypeError):
    """The work looks at values, or does what is not noted."""


class _Now(threading.local):
    tape: Tape | None = None  # on which this thread notes


now = _Now()


class Call(NamedTuple):
    """A function and what it was given: plain arrays among it."""

    function: Callable
    args: tuple
    options: dict[str, Any]


class Tape:
    """The calls noted so far and the memory they write to."""

    def __init__(self, limit: int):
        self.calls: list[Call] = []
        self.kept: list[np.ndarray] = []
        self.lasting: list[np.ndarray] = []  # those that hold something before the first call
        self.left = limit

    def keep(self, a: np.ndarray, lasting: bool = False) -> Traced:
        """a, whose memory is new, as an array of the recording."""
        self.left -= a.nbytes
        if self.left < 0:
            raise NotRecordable("the work is too large to be worth a recording")
        (self.lasting if lasting else self.kept).append(a)
        return a.view(Traced)

    def note(self, function, *args, **options) -> None:
        self.calls.append(Call(function, args, options))

    def made(self, function, args, options) -> Traced:
        """The result of a function that cannot write into an array, noted so that it does."""
        result = np.array(function(*args, **options))
        self.note(_renew, result, function, *args, **options)
        return self.keep(result)

    def copied(self, result: np.ndarray, place: np.ndarray, source) -> Traced:
        """result, of which place is a view, filled from source."""
        self.note(operator.setitem, place, ..., _plain(source))
        return self.keep(result)


class Recording:
    """Work that can be done again on other numbers."""

    def __init__(self, calls, inputs, results, size: int):
        self.calls, self.inputs, self.results, self.size = calls, inputs, results, size

    def __call__(self, *arrays) -> tuple[np.ndarray, ...]:
        """The results for these inputs, in memory that the next call overwrites."""
        for place, a in zip(self.inputs, arrays):
            place[...] = a
        self.launch()
        return self.results

    def launch(self) -> None:
        """Do again what was done, on what the inputs hold."""
        for call in self.calls:
            call()


def record(work, *arrays, limit: int = LIMIT) -> Recording:
    """work(*arrays), which yields a tuple of arrays, done on traced copies of the arrays and noted.

    NotRecordable where that cannot be had, or where work makes arrays of more than limit bytes in all.
    """
    if now.tape is not None:
        raise NotRecordable("a recording is under way in this thread")
    now.tape = tape = Tape(limit)
    try:
        inputs = [tape.keep(np.array(a, order="C"), lasting=True) for a in arrays]
        results = work(*inputs)
        for a in results:
            if not isinstance(a, Traced):
                raise NotRecordable(f"a result was not traced. Received: {type(a).__name__}")
    finally:
        now.tape = None
    return _packed(tape, [_plain(a) for a in inputs], [_plain(a) for a in results])


def _packed(tape: Tape, inputs: list, results: list) -> Recording:
    """The recording, its arrays moved close together: two that are not needed at the same time lie in the
    same place, so that all of them stay in the cache.
    """
    kept = sorted(tape.kept, key=_address)
    starts = [_address(a) for a in kept]

    def number(a) -> int | None:
        """Which of the kept arrays a is a view of."""
        k = bisect.bisect(starts, _address(a)) - 1
        return k if k >= 0 and _address(a) < starts[k] + kept[k].nbytes else None

    spans: dict[int, list[int]] = {}  # first and last call that touches an array
    for position, call in enumerate([*tape.calls, Call(print, tuple(results), {})]):
        for a in _arrays(call):
            if a.size and (k := number(a)) is not None:
                spans.setdefault(k, [position, position])[1] = position
    places: dict[int, int] = {}
    for k in sorted(spans, key=lambda k: -kept[k].nbytes):
        (first, last), size, place = spans[k], _lines(kept[k].nbytes), 0
        met = [m for m in places if spans[m][0] <= last and first <= spans[m][1]]
        for m in sorted(met, key=places.__getitem__):
            if place + size <= places[m]:
                break
            place = max(place, places[m] + _lines(kept[m].nbytes))
        places[k] = place
    total = max((places[k] + _lines(kept[k].nbytes) for k in places), default=0)
    memory = np.empty(total + LINE, np.uint8)
    begin = -_address(memory) % LINE

    def moved(a):
        if isinstance(a, (list, tuple)):
            return type(a)(map(moved, a))
        k = number(a) if isinstance(a, np.ndarray) and a.size else None
        if k is None:
            return a
        offset = begin + places[k] + _address(a) - starts[k]
        return np.ndarray(a.shape, a.dtype, memory, offset, a.strides)

    calls = [
        partial(call.function, *map(moved, call.args), **{k: moved(v) for k, v in call.options.items()})
        for call in tape.calls
    ]
    made = Recording(calls, inputs, tuple(map(moved, results)), total)
    kept.clear()  # now, and not when the collector finds that `moved` refers to itself
    return made


def _arrays(call: Call):
    """The arrays that a call reads and writes."""
    for value in (*call.args, *call.options.values()):
        several = value if isinstance(value, (list, tuple)) else (value,)
        yield from (a for a in several if isinstance(a, np.ndarray))


def _address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def _lines(size: int) -> int:
    """size in whole cache lines."""
    return -(-size // LINE) * LINE


def traced(a: np.ndarray) -> np.ndarray:
    """An array whose numbers may change between repetitions, such as a layer's weights."""
    return a.view(Traced)


def empty(shape, dtype) -> np.ndarray:
    """Uninitialised memory from NumPy, or of the recording under way."""
    return np.empty(shape, dtype) if now.tape is None else now.tape.keep(fresh(shape, dtype))


def fresh(shape, dtype) -> np.ndarray:
    """Memory that goes back to the system as soon as it is let go, which malloc's may not."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.ndarray(shape, dtype, mmap.mmap(-1, size)) if size >= mmap.PAGESIZE else np.empty(shape, dtype)


def zeros(shape, dtype) -> np.ndarray:
    """Zeros, of which those that nobody writes stay zeros in a recording too."""
    a = np.zeros(shape, dtype)
    return a if now.tape is None else now.tape.keep(a, lasting=True)


def again(function, *args):
    """function(*args), an array; in a recording the function is asked again at each repetition."""
    return function(*args) if now.tape is None else now.tape.made(function, args, {})


def refuse(what: str) -> None:
    """Say that what follows is not for a recording."""
    if now.tape is not None:
        raise NotRecordable(f"{what} cannot be recorded")


def _plain(a):
    return np.ndarray.view(a, np.ndarray) if isinstance(a, Traced) else a


def _renew(target, function, *args, **options) -> None:
    target[...] = function(*args, **options)


_BASIC = (int, np.integer, slice, type(None), type(...))


def _basic(key) -> bool:
    keys = key if type(key) is tuple else (key,)
    return all(isinstance(k, _BASIC) and not isinstance(k, bool) for k in keys)


def _view(a: np.ndarray, key) -> np.ndarray:
    """a[key], a view also where that is one element."""
    keys = key if type(key) is tuple else (key,)
    return a[keys if ... in keys else (*keys, ...)]


class Traced(np.ndarray):
    """An array whose operations are noted on the tape of the thread."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if method not in ("__call__", "reduce") or ufunc.nout != 1:
            raise NotRecordable(f"numpy.{ufunc.__name__}, {method}, cannot be recorded")
        return _apply(ufunc if method == "__call__" else ufunc.reduce, inputs, options, out and out[0])

    def __array_function__(self, function, types, args, options):
        if function in _FUNCTIONS:
            options = dict(options)
            return _apply(function, args, options, options.pop("out", None))
        if function in (np.empty_like, np.zeros_like, np.ones_like):
            made = function(_plain(args[0]), *args[1:], **options)
            tape = _tape()
            if function is not np.empty_like:
                tape.note(operator.setitem, made, ..., made.flat[0] if made.size else 0)
            return tape.keep(made)
        raise NotRecordable(f"numpy.{function.__name__} cannot be recorded")

    def __getitem__(self, key):
        if _basic(key):
            return _view(np.ndarray.view(self, np.ndarray), key).view(Traced)
        keys = key if type(key) is tuple else (key,)
        if not all(isinstance(k, np.ndarray) and k.dtype.kind in "iu" for k in keys):
            raise NotRecordable("an index whose number of elements may change cannot be recorded")
        return _tape().made(operator.getitem, (_plain(self), tuple(map(_plain, keys))), {})

    def __setitem__(self, key, value):
        if not _basic(key):
            raise NotRecordable("writing to chosen elements cannot be recorded")
        target, value = _view(_plain(self), key), _plain(value)
        if isinstance(value, np.ndarray) and _same(target, value):
            return  # the end of `a[key] += b`
        target[...] = value
        _tape().note(operator.setitem, target, ..., value)

    def reshape(self, *shape, **options):
        result = np.ndarray.reshape(_plain(self), *shape, **options)
        if np.may_share_memory(result, _plain(self)):
            return result.view(Traced)
        if options:
            raise NotRecordable("a copy by reshape in another order cannot be recorded")
        return _tape().copied(result, result.reshape(self.shape), self)

    def view(self, dtype):  # type: ignore[override]
        if isinstance(dtype, type) and issubclass(dtype, np.ndarray):
            raise NotRecordable("a plain view of an array cannot be recorded")
        return np.ndarray.view(_plain(self), dtype).view(Traced)

    def copy(self, order="C"):
        made = _plain(self).copy(order)
        return _tape().copied(made, made, self)

    def astype(self, dtype, order="K", casting="unsafe", subok=True, copy=True):
        if not copy and self.dtype == dtype:
            return self
        made = _plain(self).astype(dtype, order, casting)
        return _tape().copied(made, made, self)

    def argmax(self, axis=None, *, keepdims=False):  # type: ignore[override]
        return _apply(np.argmax, (self, axis), {"keepdims": keepdims}, None)


def _tape() -> Tape:
    if now.tape is None:
        raise NotRecordable("an array of a recording is used after it")
    return now.tape


def _apply(function, args, options, out):
    """function's result, and the call noted with what it wrote to."""
    tape = _tape()
    args = tuple(_plain(a) if not isinstance(a, (list, tuple)) else type(a)(map(_plain, a)) for a in args)
    options = {name: _plain(value) for name, value in options.items()}
    if out is not None:
        if not isinstance(out, Traced):
            raise NotRecordable("a result is written to memory that is not recorded")
        function(*args, out=_plain(out), **options)
        tape.note(function, *args, out=_plain(out), **options)
        return out
    if function in _WITHOUT_OUT:
        return tape.made(function, args, options)
    made = np.asarray(function(*args, **options))
    tape.note(function, *args, out=made, **options)
    return tape.keep(made)


def _same(a, b) -> bool:
    return _address(a) == _address(b) and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype


_WITHOUT_OUT = (np.stack, np.where)
_FUNCTIONS = (np.dot, np.concatenate, np.argmax, np.clip, *_WITHOUT_OUT)  # that are no ufuncs
# methods which end in ufuncs, or yield views
_METHODS = ("all", "any", "clip", "max", "mean", "min", "sum", "squeeze", "swapaxes", "transpose")


def _refused(name: str):
    def refuse(self, *args, **options):
        raise NotRecordable(f"{name} of an array cannot be recorded")

    return refuse


# everything else that an array does would go by unnoticed, or take numbers out of it
_VALUES = ("bool", "int", "float", "complex", "index", "contains", "format", "copy", "deepcopy", "reduce_ex")
for _name in [*(f"__{name}__" for name in _VALUES), *(name for name in dir(np.ndarray) if name[0] != "_")]:
    if not (_name in vars(Traced) or _name in _METHODS) and callable(getattr(np.ndarray, _name, None)):
        setattr(Traced, _name, _refused(_name))
