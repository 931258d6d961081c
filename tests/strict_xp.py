"""A strict fake of the CuPy module: NumPy's values and CuPy's refusals, for GPU code paths without a GPU.

`xp` has only what CuPy has, with CuPy's signatures (what 13.6 and 14.2 share).  Where CuPy waits for the
device or copies between it and the host, `syncs` counts, and raises inside `no_syncs()`.  Stricter than CuPy
where that is slow or wrong: NumPy functions on a device array, NumPy arrays and lists as indices or values,
iteration, as_strided beyond the buffer, and indices out of bounds (CuPy wraps them around) are errors.
"""

from __future__ import annotations

import builtins
import contextlib
import inspect
import operator
import re
from types import ModuleType, SimpleNamespace

import numpy as np

POISON = True  # fill xp.empty with NaN (integers: half the largest), so that reading unwritten memory shows


class HostSync(RuntimeError):
    """The host waited for the device, or copied, inside no_syncs()."""


class Syncs:
    """Counts how often the host waited for the device (`count`), and the copies each way."""

    def __init__(self):
        self.forbidden = 0
        self.watch = None  # called with what waits and the stream it waits for (None: the current one)
        self.reset()

    def reset(self):
        self.count = self.copies_to_device = self.copies_to_host = 0

    def note(self, what, *, to_device=0, to_host=0, stream=None):
        if self.watch is not None:
            self.watch(what, stream)
        if self.forbidden:
            raise HostSync(f"{what} inside no_syncs(): it waits for the device, or copies from or to it")
        self.count += not to_device
        self.copies_to_device += to_device
        self.copies_to_host += to_host

    @contextlib.contextmanager
    def no_syncs(self):
        self.forbidden += 1
        try:
            yield self
        finally:
            self.forbidden -= 1


syncs = Syncs()
no_syncs = syncs.no_syncs


# -- between device arrays and the NumPy arrays inside them ------------------------------------------------


def _unwrap(x, seen):
    """x with the NumPy arrays inside its device arrays, which are appended to seen."""
    if isinstance(x, StrictArray):
        seen.append(x)
        return x._a
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}: a host array met the device; did you call asarray?")
    if isinstance(x, list | tuple):
        return (list if isinstance(x, list) else tuple)(_unwrap(v, seen) for v in x)
    return x


def _wrap(r, seen, kind):
    """r as device arrays: the very one that was handed in, if it is one; scalars as 0-d, as CuPy has them."""
    if isinstance(r, list | tuple):
        return (list if isinstance(r, list) else tuple)(_wrap(v, seen, kind) for v in r)
    if r is None or isinstance(r, StrictArray):
        return r
    for s in seen:
        if s._a is r:
            return s
    return kind(np.asarray(r))


def _call(kind, f, *args, **kwargs):
    """f of NumPy arrays, over device arrays; kind: their class, where there are none among the arguments."""
    seen = []
    args, kwargs = _unwrap(args, seen), {k: _unwrap(v, seen) for k, v in kwargs.items()}
    kind = type(seen[0]) if seen else kind
    return _wrap(kind._do(f, *args, **kwargs), seen, kind)


def _operands(*values):
    """Refuse what a CuPy operator or ufunc refuses: all but its arrays, NumPy scalars and Python scalars."""
    for v in values:
        if not isinstance(v, StrictArray | np.generic | bool | int | float | complex):
            raise TypeError(f"Unsupported type {type(v)}: an operand is a device array or a scalar")


def _index(key):
    """-> (key for NumPy, whether it has index arrays)"""
    parts, arrays = [], False
    for k in key if isinstance(key, tuple) else (key,):
        if isinstance(k, StrictArray):
            arrays = True
            if k.dtype == bool:
                syncs.note("indexing with a boolean mask")  # CuPy reads the number of True elements
        elif not isinstance(k, slice | int | np.integer | type(None) | type(...)) or isinstance(k, bool):
            raise TypeError(f"Unsupported index type {type(k)}: CuPy copies such an index from the host")
        parts.append(k._a if isinstance(k, StrictArray) else k)
    if not arrays and not any(k is ... for k in parts):
        parts.append(...)  # so that a[i] of a vector is a 0-d view, as in CuPy, not a scalar
    return tuple(parts), arrays


def _picked(a, key):
    """a[key] with index arrays, a copy even if it is a single element."""
    return np.array(a[key])


class Flags(SimpleNamespace):
    """c_contiguous, f_contiguous, owndata: all that CuPy has, also by flags["C_CONTIGUOUS"]."""

    def __getitem__(self, name):
        return getattr(self, name.lower())


class StrictArray:
    """Behaves like cupy.ndarray.  `_a`, the NumPy array inside, is this module's alone."""

    __slots__ = ("_a",)
    __array_ufunc__ = None  # NumPy's ufuncs refuse it; NumPy's operators leave the work to the methods below
    __hash__ = None

    def __init__(self, a):
        self._a = a

    @classmethod
    def _do(cls, f, *args, **kwargs):
        """Whatever is computed or written: f of NumPy arrays.  -> its result"""
        with np.errstate(all="ignore"):  # a GPU raises no floating-point warnings
            return f(*args, **kwargs)

    # refused

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, func, types, args, kwargs):
        raise TypeError(f"numpy.{func.__name__} called on a device array; call xp.{func.__name__}")

    def __iter__(self):
        raise TypeError("iteration over a device array launches a kernel per element; refused")

    # layout

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    nbytes = property(lambda self: self._a.nbytes)
    itemsize = property(lambda self: self._a.itemsize)
    strides = property(lambda self: self._a.strides)
    T = property(lambda self: self if self.ndim < 2 else type(self)(self._a.T))
    base = property(lambda self: None if self._a.base is None else type(self)(_root(self._a)))
    data = property(lambda self: SimpleNamespace(ptr=self._a.ctypes.data))

    @property
    def flags(self):
        f = self._a.flags
        return Flags(c_contiguous=f.c_contiguous, f_contiguous=f.f_contiguous, owndata=f.owndata)

    def __len__(self):
        return len(self._a)

    def __repr__(self):  # not counted, unlike CuPy's: pytest calls it when an assertion fails
        return f"Strict{self._a!r}"

    # indexing

    def __getitem__(self, key):
        key, arrays = _index(key)
        return type(self)(self._do(_picked if arrays else operator.getitem, self._a, key))

    def __setitem__(self, key, value):
        _operands(value)
        self._do(operator.setitem, self._a, _index(key)[0], getattr(value, "_a", value))

    # between device and host

    def get(self, stream=None, order="C", out=None, blocking=True):
        syncs.note(".get()", to_host=1, stream=stream)
        if out is None:
            return np.array(self._a, order=order)
        if (out.dtype, out.shape) != (self.dtype, self.shape):
            raise TypeError(f"{out.dtype} {out.shape} cannot be obtained from {self.dtype} {self.shape}")
        out[...] = self._a
        return out

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        syncs.note(".set()", to_device=1, stream=stream)
        self._a[...] = arr

    def _read(self, what, f):
        syncs.note(what, to_host=1)
        return f(self._a)

    def tolist(self):
        return self._read("tolist()", np.ndarray.tolist)

    def __format__(self, spec):
        return self._read("format()", lambda a: format(a[()], spec))

    def __reduce__(self):
        return (_array, (self._read("pickling", np.array),))

    def __copy__(self):
        return type(self)(self._do(np.ndarray.copy, self._a))

    def __deepcopy__(self, memo):
        return type(self)(self._do(np.ndarray.copy, self._a))


# -- what CuPy's arrays and module have ---------------------------------------------------------------------

OPERATORS = """
add add, sub subtract, mul multiply, truediv true_divide, floordiv floor_divide, mod remainder, pow power,
lshift left_shift, rshift right_shift, and bitwise_and, or bitwise_or, xor bitwise_xor, matmul matmul
"""
COMPARISONS = "lt less, le less_equal, gt greater, ge greater_equal, eq equal, ne not_equal"
UNARY = "neg negative, pos positive, abs absolute, invert invert"
READS = "__float__ float, __int__ int, __complex__ complex, __bool__ bool, __str__ str, item item"

# names: the parameters of CuPy's; a, b and condition must be device arrays, and tup a sequence of them
FUNCTIONS = """
empty zeros ones: shape, dtype=float, order="C"; full: shape, fill_value, dtype=None, order="C"
empty_like zeros_like ones_like: a, dtype=None, order="K", *, shape=None
full_like: a, fill_value, dtype=None, order="K", *, shape=None; arange: start, stop=None, step=1, dtype=None
linspace: start, stop, num=50, endpoint=True, *, dtype=None, axis=0
eye: N, M=None, k=0, dtype=float, order="C"
ascontiguousarray asfortranarray: a, dtype=None; copy: a, order="K"
copyto: a, src, casting="same_kind", where=None
all any max min amax amin: a, axis=None, out=None, keepdims=False
sum mean prod: a, axis=None, dtype=None, out=None, keepdims=False
var std: a, axis=None, dtype=None, out=None, ddof=0, keepdims=False
argmax argmin: a, axis=None, *, out=None, keepdims=False; cumsum cumprod: a, axis=None, dtype=None, out=None
argsort sort: a, axis=-1, kind=None; argpartition partition: a, kth, axis=-1; count_nonzero: a, axis=None
nonzero flatnonzero argwhere: a; bincount: a, weights=None, minlength=0
unique: a, return_index=False, return_inverse=False, return_counts=False, axis=None
searchsorted: a, b, side="left", sorter=None; where: condition, x=None, y=None
clip: a, a_min, a_max, out=None; nan_to_num: a, copy=True, nan=0.0, posinf=None, neginf=None
round: a, decimals=0, out=None; allclose isclose: a, b, rtol=1e-5, atol=1e-8, equal_nan=False
array_equal: a, b, equal_nan=False; shares_memory: a, b
matmul: a, b, /, *, out=None, casting="same_kind", dtype=None; dot outer: a, b, out=None; vdot inner: a, b
tensordot: a, b, axes=2; einsum: subscripts, *tup, dtype=None, optimize=False
linalg.norm: a, ord=None, axis=None, keepdims=False
concatenate stack: tup, axis=0, out=None, *, dtype=None, casting="same_kind"
hstack vstack: tup, *, dtype=None, casting="same_kind"; split: a, indices_or_sections, axis=0
broadcast_to: a, shape; broadcast_arrays: *tup; expand_dims: a, axis; squeeze flip: a, axis=None
moveaxis: a, source, destination; swapaxes: a, axis1, axis2; transpose: a, axes=None
reshape: a, newshape, order="C"; ravel: a, order="C"; pad: a, pad_width, mode="constant", **kwargs
roll: a, shift, axis=None; repeat: a, repeats, axis=None; tile: a, reps
diagonal: a, offset=0, axis1=0, axis2=1; diag tril triu: a, k=0; take: a, indices, axis=None, out=None
take_along_axis: a, b, axis
lib.stride_tricks.as_strided: a, shape=None, strides=None
lib.stride_tricks.sliding_window_view: a, window_shape, axis=None
"""

SAME_METHODS = """
all any max min sum mean prod var std argmax argmin cumsum cumprod argsort argpartition nonzero dot round
squeeze swapaxes ravel repeat diagonal take
"""
METHODS = """
astype: a, dtype, order="K", *, copy=True; clip: a, min=None, max=None, out=None; copy flatten: a, order="C"
fill: a, value; reshape: a, *shape, order="C"; sort: a, axis=-1; transpose: a, *axes
view: a, dtype=None
"""

SYNCING = {"argwhere", "bincount", "flatnonzero", "nonzero", "shares_memory", "sliding_window_view", "unique"}

UFUNCS = """
abs absolute add bitwise_and bitwise_not bitwise_or bitwise_xor ceil copysign cos cosh divide equal exp exp2
expm1 fabs floor floor_divide fmax fmin greater greater_equal hypot invert isfinite isinf isnan left_shift
less less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor maximum minimum
mod multiply negative not_equal positive power reciprocal remainder right_shift rint sign signbit sin sinh
sqrt square subtract tan tanh true_divide trunc
"""

SAME_AS_NUMPY = """
bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128 intp
newaxis pi e inf nan dtype generic number integer signedinteger unsignedinteger inexact floating finfo iinfo
can_cast promote_types issubdtype isscalar broadcast_shapes
"""


def _root(a):
    """The array that owns the memory a views."""
    while (base := getattr(a, "base", None)) is not None and not isinstance(base, memoryview):
        a = base
    return a


def _as_strided(a, shape=None, strides=None):
    view = np.lib.stride_tricks.as_strided(a, shape, strides)
    (lo, hi), (first, last) = (np.lib.array_utils.byte_bounds(v) for v in (_root(a), view))
    if view.size and not lo <= first <= last <= hi:
        raise ValueError(f"as_strided{shape} reaches bytes {first - lo} to {last - lo} of {hi - lo}")
    return view


def _empty(make):
    def empty(*args, **kwargs):
        a = make(*args, **kwargs)
        if POISON:
            kind = a.dtype.kind
            a.fill(np.nan if kind in "fc" else kind == "b" or np.iinfo(a.dtype).max // 2)
        return a

    return empty


def _checked(name, parameters, f, kind):
    """f over device arrays, refusing arguments that CuPy's function of this name does not take."""
    signature = inspect.signature(eval(f"lambda {parameters}: None"))

    def function(*args, **kwargs):
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"CuPy has {name}({parameters}): {error}") from None
        arrays = [given[k] for k in ("a", "b", "condition", "out") if given.get(k) is not None]
        arrays += [v for v in (given.get("indices"),) if isinstance(v, list | tuple)]  # a hidden copy
        for v in (*arrays, *given.get("tup", ())):
            if not isinstance(v, StrictArray):
                raise TypeError(f"Unsupported type {type(v)}: {name} takes device arrays")
        by_array = isinstance(given.get("repeats"), StrictArray)
        if name in SYNCING or by_array or (name == "where" and "x" not in given):
            syncs.note(f"{name}()")
        return _call(kind, f, *args, **kwargs)

    return function


def _ufunc(name):
    f = getattr(np, name)

    def ufunc(*args, out=None, dtype=None, casting="same_kind", **kwargs):
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}: CuPy's {name} takes out, dtype and casting")
        outs = args[f.nin :] + (out if isinstance(out, tuple) else (out,))
        if not all(o is None or isinstance(o, StrictArray) for o in outs):
            raise TypeError(f"Unsupported type: out of {name} must be a device array. Received: {outs}")
        _operands(*args[: f.nin])
        return _call(
            StrictArray, f, *args, dtype=dtype, casting=casting, **({} if out is None else {"out": out})
        )

    return ufunc


def _table(text):
    """-> (name, parameters) of each name in a table above"""
    for entry in re.split(r"[;\n]+", text.strip()):
        names, _, parameters = entry.partition(":")
        yield from ((name, parameters.strip()) for name in names.split())


def _operator(name, *, reverse=False, inplace=False, unary=False):
    f = getattr(np, name)

    def operate(self, other):
        _operands(other)
        first, second = (other, self) if reverse else (self, other)
        return _call(StrictArray, f, first, second, out=self if inplace else None)

    return (lambda self: _call(StrictArray, f, self)) if unary else operate


def _furnish(xp):
    """Give StrictArray its operators and methods."""

    def pairs(text, name="__{}__"):
        return ((name.format(op), f) for op, f in (pair.split() for pair in text.split(",")))

    def method(name):
        return lambda a, *args, **kwargs: getattr(a, name)(*args, **kwargs)

    def read(what):
        f = getattr(np.ndarray, what, None) or getattr(builtins, what)
        return lambda self: self._read(f"{what}()", f)

    members = {op: _operator(f) for op, f in pairs(f"{OPERATORS}, {COMPARISONS}")}
    members |= {op: _operator(f, reverse=True) for op, f in pairs(OPERATORS, "__r{}__")}
    members |= {op: _operator(f, inplace=True) for op, f in pairs(OPERATORS, "__i{}__")}
    del members["__imatmul__"]  # CuPy has none: a @= b makes a new array
    members |= {op: _operator(f, unary=True) for op, f in pairs(UNARY)}
    members |= {name: read(what) for name, what in pairs(READS, "{}")}
    members |= {name: getattr(xp, name) for name in SAME_METHODS.split()}
    members |= {
        name: _checked(name, parameters, method(name), StrictArray) for name, parameters in _table(METHODS)
    }
    for name, f in members.items():
        setattr(StrictArray, name, f)


def _leaves(obj):
    return [leaf for v in obj for leaf in _leaves(v)] if isinstance(obj, list | tuple) else [obj]


def _array(obj, dtype=None, copy=True, order="K", *, ndmin=0, kind=StrictArray):
    on_device = [isinstance(v, StrictArray) for v in _leaves(obj)]
    if any(on_device):
        if not all(on_device):
            raise TypeError("Implicit conversion to a NumPy array is not allowed: a list of both kinds")
        return _call(kind, np.array, obj, dtype, copy=copy, order=order or "K", ndmin=ndmin)
    if order in (None, "K", "A"):  # CuPy keeps no other axis order of a host array
        order = "F" if isinstance(obj, np.ndarray) and obj.flags.f_contiguous else "C"
    host = np.array(obj, dtype, order=order, ndmin=ndmin)
    if host.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    if np.ndim(obj):  # a scalar goes as an argument of a kernel
        syncs.note("a copy from the host", to_device=1)
    return kind(kind._do(lambda: host.copy("K")))


def _asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(stream, order, out) if isinstance(a, StrictArray) else np.asarray(a, order=order)


class StrictModule(ModuleType):
    """A module whose missing names say what is wrong."""

    def __getattr__(self, name):
        raise AttributeError(f"CuPy has no {name!r} (if it has, add it to the tables of tests/strict_xp.py)")


def _module(kind=StrictArray):
    """The module whose functions make arrays of a kind."""
    xp = StrictModule("strict_xp.xp")
    xp.linalg, xp.lib = StrictModule("linalg"), StrictModule("lib")
    xp.lib.stride_tricks = StrictModule("stride_tricks")
    here = {"as_strided": _as_strided, "empty": _empty(np.empty), "empty_like": _empty(np.empty_like)}
    for name in SAME_AS_NUMPY.split():
        setattr(xp, name, getattr(np, name))
    for name in UFUNCS.split():
        setattr(xp, name, _ufunc(name))
    for path, parameters in _table(FUNCTIONS):
        folder, _, name = path.rpartition(".")
        f = here.get(name) or operator.attrgetter(path)(np)
        setattr(operator.attrgetter(folder)(xp) if folder else xp, name, _checked(name, parameters, f, kind))
    xp.ndarray, xp.asnumpy = kind, _asnumpy

    def array(obj, dtype=None, copy=True, order="K", *, ndmin=0):
        return _array(obj, dtype, copy, order, ndmin=ndmin, kind=kind)

    xp.array = array
    xp.asarray = lambda a, dtype=None, order=None: array(a, dtype, None, order)
    xp.may_share_memory = lambda a, b: np.may_share_memory(a._a, b._a)
    xp.result_type = lambda *a: np.result_type(*(v.dtype if isinstance(v, StrictArray) else v for v in a))
    return xp


xp = _module()
_furnish(xp)


def strict_ops(device="strict"):
    """The reference Ops over the strict fake."""
    from xpnet.ops.reference import Ops

    return Ops(xp, device)
