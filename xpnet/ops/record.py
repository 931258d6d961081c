"""Small work again without Python's overhead: the calls that layers make on NumPy arrays, noted and repeated.

What a CUDA graph is on a GPU.  A function runs once on `Traced` arrays.  Each operation on them is carried
out and noted with the very arrays it read and wrote.  To repeat the work is to put other numbers into its
inputs and to make the noted calls again: no layer, no shape, no view, no allocation; a view is no call at
all.

Whatever would freeze a value fails as NotRecordable: a number taken out of an array, memory that was not
traced, a function that is not known here.  What slips through (np.asarray yields a plain view, say) shows
when a recording is asked for another input than its first, which is for the caller to try: `replay.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial

import numpy as np

from .memory import Room, address, now


class NotRecordable(TypeError):
    """The work looks at values, or does what is not noted."""


class Tape:
    """The calls noted so far, and the room in which they work.

    An array's place is free for others as soon as nobody holds the array, as it is without a recording.  A
    repetition makes the same calls in the same order, so it finds every array as it was.  Hence recordings
    take no more memory than the work itself, and those that never run at the same time may share a room.
    """

    def __init__(self, room: Room):
        self.room = room
        self.calls: list[Callable[[], object]] = []

    def empty(self, shape, dtype, strides=None) -> Traced:
        """Uninitialised memory."""
        return self.room.empty(shape, dtype, strides).view(Traced)

    def keep(self, a: np.ndarray) -> Traced:
        """a in the recording's own memory."""
        kept = self.empty(a.shape, a.dtype, a.strides)
        _plain(kept)[...] = a
        return kept

    def note(self, function, *args, **options) -> None:
        """Let each repetition call function on these very arrays."""
        given = {name: self.bare(value) for name, value in options.items()}
        self.calls.append(partial(function, *map(self.bare, args), **given))

    def bare(self, value):
        """What a call is given: of arrays the memory, but not the hold on it."""
        if type(value) in (list, tuple):
            return type(value)(map(self.bare, value))
        return self.room.bare(_plain(value)) if isinstance(value, np.ndarray) else value

    def made(self, function, args, options) -> Traced:
        """The result of a function that cannot write into an array, noted so that it does."""
        result = self.keep(np.array(function(*args, **options)))
        self.note(_renew, result, function, *args, **options)
        return result

    def copied(self, result: np.ndarray, source) -> Traced:
        """result, new memory that holds the elements of source, noted to be filled from it."""
        kept = self.keep(result)
        self.note(operator.setitem, _plain(kept).reshape(source.shape), ..., source)
        return kept


class Recording:
    """Work that can be done again on other numbers."""

    def __init__(self, calls, inputs, results):
        self.calls, self.inputs, self.results = calls, inputs, results

    def __call__(self, *arrays) -> tuple[np.ndarray, ...]:
        """The results for these inputs, in memory that the next call overwrites, of this recording or of
        another in its room.
        """
        for place, a in zip(self.inputs, arrays):
            place[...] = a
        self.launch()
        return self.results

    def launch(self) -> None:
        """Do again what was done, on what the inputs hold."""
        for call in self.calls:
            call()


def record(work, *arrays, room: Room | None = None) -> Recording:
    """work(*arrays), which yields a tuple of arrays, done on traced copies of the arrays and noted.

    NotRecordable where that cannot be had.
    """
    if now.tape is not None:
        raise NotRecordable("a recording is under way in this thread")
    now.tape = tape = Tape(room or Room())
    try:
        inputs = [tape.keep(np.array(a, order="C")) for a in arrays]
        places = [tape.bare(a) for a in inputs]
        results = work(*inputs)
        for a in results:
            if not isinstance(a, Traced):
                raise NotRecordable(f"a result was not traced. Received: {type(a).__name__}")
        return Recording(tape.calls, places, tuple([tape.bare(a) for a in results]))
    finally:
        now.tape = None


def traced(a: np.ndarray) -> np.ndarray:
    """An array whose numbers may change between repetitions, such as a layer's weights."""
    return a.view(Traced)


def empty(shape, dtype) -> np.ndarray:
    """Uninitialised memory from NumPy, or of the recording under way."""
    return np.empty(shape, dtype) if now.tape is None else now.tape.empty(shape, dtype)


def zeros(shape, dtype) -> np.ndarray:
    """Zeros, of which those that nobody writes stay zeros in a recording too."""
    a = np.zeros(shape, dtype)
    return a if now.tape is None else a.view(Traced)  # with a place of its own, for good


def again(function, *args):
    """function(*args), an array; in a recording the function is asked again at each repetition."""
    return function(*args) if now.tape is None else now.tape.made(function, args, {})


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
            tape, made = _tape(), function(_plain(args[0]), *args[1:], **options)
            kept = tape.keep(made)
            if function is not np.empty_like:
                tape.note(operator.setitem, kept, ..., made.flat[0] if made.size else 0)
            return kept
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
        if not target.size or (isinstance(value, np.ndarray) and _same(target, value)):
            return  # nothing, or the end of `a[key] += b`
        target[...] = value
        _tape().note(operator.setitem, target, ..., value)

    def reshape(self, *shape, **options):
        result = np.ndarray.reshape(_plain(self), *shape, **options)
        if np.may_share_memory(result, _plain(self)):
            return result.view(Traced)
        if options:
            raise NotRecordable("a copy by reshape in another order cannot be recorded")
        return _tape().copied(result, self)

    def view(self, dtype):  # type: ignore[override]
        if isinstance(dtype, type) and issubclass(dtype, np.ndarray):
            raise NotRecordable("a plain view of an array cannot be recorded")
        return np.ndarray.view(_plain(self), dtype).view(Traced)

    def copy(self, order="C"):
        made = _plain(self).copy(order)
        return _tape().copied(made, self)

    def astype(self, dtype, order="K", casting="unsafe", subok=True, copy=True):
        if not copy and self.dtype == dtype:
            return self
        made = _plain(self).astype(dtype, order, casting)
        return _tape().copied(made, self)

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
    kept = tape.keep(np.asarray(function(*args, **options)))
    tape.note(function, *args, out=kept, **options)
    return kept


def _same(a, b) -> bool:
    return address(a) == address(b) and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype


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
