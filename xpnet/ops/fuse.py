"""The library's plain formulas as C: functions of one element, for CUDA kernels to call.

    def backward(self, ops, dy, y):         __device__ inline T slope(T dy, T kept) {
        dy *= y * (1 - y)                       dy *= kept * (T(1) - kept);
        return dy                               return dy;

A formula is called with NumPy itself and with stand-ins for its arrays.  NumPy leaves what is done to a
stand-in to it (`__array_ufunc__`, `__array_function__`); each operation becomes a line of C, of the types
that NumPy says it has.  Python's own steps (helper functions, branches on hyperparameters) just run.

Not by `cupy.fuse`: it makes a kernel of its own over whole arrays and keeps the text, so a formula could
neither be the last step of a convolution's kernel nor wait for `Control.ok`.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .reference import Ops


class NotTraceable(TypeError):
    """A formula is not element-wise, or asks for what only the device knows."""


# of an optimizer: its text does not depend on them
GIVEN = ("learning_rate", "iterations", "owner", "gradient_accumulation_steps", "gathered")

T = np.dtype(np.float32)  # stands for the type of the arrays, float or double: the macro T of the kernels
DOUBLE, BOOL = np.dtype(np.float64), np.dtype(bool)
C_TYPES = {T: "T", DOUBLE: "double", BOOL: "bool", np.dtype(np.int64): "i64"}

# -- NumPy's functions in C ----------------------------------------------------------------------------------

# NumPy's name, C's, and for which of floats, integers, bools that is so; or a name for both, for floats
OPERATORS = """
add + fi, subtract - fi, multiply * fib, divide / f, negative - fi, absolute fabs f, power pow f,
less < fib, less_equal <= fib, greater > fib, greater_equal >= fib, equal == fib, not_equal != fib,
bitwise_and && b, bitwise_or || b"""  # Python has these for its numbers too
FUNCTIONS = """
invert ! b, logical_not ! fib, logical_and && fib, logical_or || fib, arctan atan f, sqrt, cbrt,
exp, exp2, expm1, log, log2, log10, log1p, sin, cos, tan, sinh, cosh, tanh, floor, ceil, trunc, rint, fabs,
fmin, fmax, hypot, copysign, isnan, isfinite"""
BINDING = ["? :", "||", "&&", "== !=", "< <= > >=", "+ -", "* /"]  # ever more tightly, from 1
LEVELS = {symbol: level for level, symbols in enumerate(BINDING, 1) for symbol in symbols.split()}
UNARY, ATOM = 8, 9


class Form(NamedTuple):
    """A piece of C.  An operand that binds less tightly than its place demands goes into parentheses."""

    template: str
    level: int
    places: tuple[int, ...]
    sorts: str = "fib"


def _forms(table: str) -> dict[np.ufunc, Form]:
    forms = {}
    for name, *rest in map(str.split, table.split(",")):
        ufunc, (symbol, sorts) = getattr(np, name), rest or (name, "f")
        if symbol.isalnum():
            blanks = ", ".join(["{}"] * ufunc.nin)
            forms[ufunc] = Form(f"{symbol}({blanks})", ATOM, (0,) * ufunc.nin, sorts)
        elif ufunc.nin == 1:
            forms[ufunc] = Form(symbol + "{}", UNARY, (ATOM,), sorts)
        else:
            level = LEVELS[symbol]
            forms[ufunc] = Form(f"{{}} {symbol} {{}}", level, (level, level + 1), sorts)
    return forms


OPERATIONS = _forms(OPERATORS)
FORMS = OPERATIONS | _forms(FUNCTIONS)
IN_PLACE = {
    ufunc: Form(FORMS[ufunc].template.replace(" {", "= {"), 0, (0, 0))
    for ufunc in (np.add, np.subtract, np.multiply, np.divide)
}
COPY = Form("{}", 0, (0,))  # 0: it binds as its operand does
CHOICE = Form("{} ? {} : {}", 1, (2, 2, 2))
ERF = Form("erf({})", ATOM, (0,))


def _extreme(beats: Callable) -> Callable:
    """np.maximum or np.minimum, where NaN wins; C's fmax and fmin pass it over."""

    def extreme(a, b):
        if not isinstance(a, Value):
            a, b = b, a
        wins = beats(b, a)
        return np.where(wins | (b != b) if isinstance(b, Value) else wins, b, a)

    return extreme


COMPOSED: dict[np.ufunc, Callable] = {
    np.maximum: _extreme(operator.gt),
    np.minimum: _extreme(operator.lt),
    np.sign: lambda x: np.where(x > 0, 1, np.where(x < 0, -1, x)),
    np.square: lambda x: x * x,
    np.positive: lambda x: x.copy(),
}

# -- stand-ins -----------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """target = form of operands, each of them made its type in loop."""

    target: Value
    form: Form
    operands: tuple
    loop: tuple


class Value(np.lib.mixins.NDArrayOperatorsMixin):
    """An element of an array, or a scalar that is read on the device.

    kind: its dtype; or Python's float or bool for a plain number, which takes the type of what it meets.
    """

    __hash__ = object.__hash__  # == is an operation like all others

    def __init__(self, lines: list[Line], kind: Any, array: bool, written: bool = True):
        self._lines, self._kind, self._array, self._written = lines, kind, array, written

    def _note(self, form: Form, operands, loop, kind, out: Value | None = None) -> Value:
        """A line for out, or for a new value of this kind."""
        values = [x for x in operands if isinstance(x, Value)]
        array = any(x._array for x in values)
        if not all(x._written for x in values):
            raise NotTraceable("memory is read that was never written")
        if np.dtype(kind) not in C_TYPES:
            raise NotTraceable(f"{np.dtype(kind)} is not calculated with here")
        if out is None:
            if not array and any(isinstance(x, np.float32) for x in operands):
                raise NotTraceable("a float32 among numbers is not T where arrays are float64")
            out = Value(self._lines, kind, array)
        out._written = True
        self._lines.append(Line(out, form, tuple(operands), tuple(loop)))
        return out

    def _store(self, x, out, casting: Any = "same_kind") -> Value:
        """out, after x was written to it."""
        if not isinstance(out, Value) or not out._array:
            raise NotTraceable("a result can be written to the formula's own arrays only")
        if not np.can_cast(np.dtype(_kind(x)), out._kind, casting):
            raise NotTraceable(f"NumPy does not write {np.dtype(_kind(x))} to {out._kind}")
        return out if x is out else self._note(COPY, (x,), (out._kind,), out._kind, out)

    def __array_ufunc__(self, ufunc, method, *inputs, out=(None,), **options):
        (out,) = out
        if out is inputs[0] and not self._array:
            out = None  # numbers do not change: `lr *= 2` makes a new one
        # `np.float64(1) < z` comes as an array of no dimension
        inputs = tuple(x[()] if isinstance(x, np.ndarray) and not x.ndim else x for x in inputs)
        of_python = ufunc in OPERATIONS
        if ufunc is np.power and type(inputs[1]) in (int, float) and inputs[1] in (2, 0.5):  # as NumPy does
            ufunc, inputs = (np.multiply, inputs[:1] * 2) if inputs[1] == 2 else (np.sqrt, inputs[:1])
        if method != "__call__" or options or ufunc not in FORMS | COMPOSED:
            raise NotTraceable(f"numpy.{ufunc.__name__}, {method}, is not known in C")
        if ufunc in COMPOSED:
            value = COMPOSED[ufunc](*inputs)
            return value if out is None else self._store(value, out)

        form, kinds = FORMS[ufunc], [_kind(x) for x in inputs]
        plain = all(isinstance(kind, type) for kind in kinds)
        given = [np.dtype(kind) if plain or kind is bool else kind for kind in kinds]
        *loop, kind = ufunc.resolve_dtypes((*given, None))
        if loop[0].kind not in form.sorts:
            raise NotTraceable(f"numpy.{ufunc.__name__} of {loop[0]} is not known in C")
        if plain and of_python:
            kind = bool if kind == BOOL else float
        if not isinstance(out, Value) or out._kind != kind:
            value = self._note(form, inputs, loop, kind)
            return value if out is None else self._store(value, out)
        if out is inputs[0]:
            form = IN_PLACE.get(ufunc, form)
        return self._note(form, inputs, loop, kind, out)

    def __array_function__(self, function, types, args, kwargs):
        if function not in ARRAY_FUNCTIONS:
            raise NotTraceable(f"numpy.{function.__name__} is not element-wise")
        return ARRAY_FUNCTIONS[function](self, *args, **kwargs)

    def _where(self, condition, a, b):
        # which number a plain one is does not matter to its type, so 0 may stand for one of the device
        kind = np.result_type(*(k(0) if isinstance(k, type) else k for k in (_kind(a), _kind(b))))
        return self._note(CHOICE, (condition, a, b), (BOOL, kind, kind), kind)

    def _clip(self, a, a_min=None, a_max=None, out=None):
        a = a if a_min is None else np.maximum(a, a_min)
        a = a if a_max is None else np.minimum(a, a_max)
        return a if out is None else self._store(a, out)

    def _empty_like(self, a):
        return Value(self._lines, a._kind, array=True, written=False)

    @property
    def dtype(self):
        if isinstance(self._kind, type):
            raise NotTraceable("a number has no dtype")
        return ArrayType(self) if self._kind == T else self._kind

    def astype(self, dtype):
        kind = T if isinstance(dtype, ArrayType) else np.dtype(dtype)
        if kind == T and not isinstance(dtype, ArrayType):
            raise NotTraceable("arrays may be float64, so that T is not float32. Expected: astype(z.dtype)")
        return self._note(COPY, (self,), (kind,), kind)

    def copy(self):
        return self._note(COPY, (self,), (np.dtype(self._kind),), self._kind)

    def __getitem__(self, key):
        if key is not ...:
            raise NotTraceable("an index asks for certain elements")
        return self

    def __setitem__(self, key, x):
        self._store(x, self[key], casting="unsafe")

    def __getattr__(self, name):
        raise NotTraceable(f".{name} is not known of one element")

    def _unknown(self, *_):
        raise NotTraceable("the formula asks for a value, which only the device knows")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = __len__ = __iter__ = __format__ = _unknown


class ArrayType:
    """z.dtype, which is float32 or float64: a formula cannot ask which."""

    def __init__(self, value: Value):
        self._value = value

    def type(self, x):
        return self._value._note(COPY, (x,), (T,), T)

    def __eq__(self, other):
        raise NotTraceable("whether arrays are float32 or float64 is not known")


ARRAY_FUNCTIONS: dict[Any, Callable] = {
    np.where: Value._where,
    np.clip: Value._clip,
    np.empty_like: Value._empty_like,
}


class ElementOps(Ops):
    """The plain operations, of which stand-ins go through those that are element-wise."""

    def erf(self, x):
        return x._note(ERF, (x,), (np.dtype(x._kind),), x._kind)


def _kind(x) -> Any:
    """By what NumPy chooses types: the dtype of an array or of a number of its own, the type of Python's."""
    if isinstance(x, Value):
        return x._kind
    if isinstance(x, np.generic):
        return x.dtype
    if type(x) in (bool, int, float):
        return type(x)
    raise NotTraceable(f"a {type(x).__name__} is neither one of the formula's arrays nor a number")


# -- the text ------------------------------------------------------------------------------------------------


def function(
    name: str,
    formula: Callable,
    arrays: tuple[str, ...] = ("z",),
    scalars: tuple[str, ...] = (),
    returns: str | None = None,
) -> str:
    """The text of formula(ops, *arrays, *scalars) for one element.

    returns="T": `T name(T z, ..., double lr, ...)` for what the formula returns.  Otherwise `void name(T &z,
    ..., double lr, ...)` for what it writes to its arrays.  Names must be good in C, and none a t1, t2, ...
    """
    lines: list[Line] = []
    names = {Value(lines, T, array=True): a for a in arrays}
    names |= {Value(lines, float, array=False): s for s in scalars}
    try:
        result = formula(ElementOps(), *names)
    except NotTraceable:
        raise
    except Exception as error:  # if this is the formula's own fault, running it plainly will tell
        raise NotTraceable(f"{type(error).__name__}: {error}") from error
    if returns and not (isinstance(result, Value) and result._kind == T):
        raise NotTraceable("the formula returns no array of the type of its arguments")
    parameters = [f"T {'' if returns else '&'}{a}" for a in arrays] + [f"double {s}" for s in scalars]
    body = "".join(f"    {line};\n" for line in _body(lines, names, result if returns else None))
    return f"__device__ inline {returns or 'void'} {name}({', '.join(parameters)}) {{\n{body}}}\n"


def _body(lines: list[Line], parameters: dict[Value, str], result: Value | None) -> list[str]:
    """The lines as statements, without those that nothing depends on.

    A value that is read once stands where it is read, unless something that it is made of changes before.
    """
    reads = Counter([v for v in parameters if v._array] if result is None else [result])
    kept: list[Line] = []
    for line in reversed(lines):
        if line.target in reads:
            kept.insert(0, line)
            reads.update(x for x in line.operands if isinstance(x, Value))
    names, text = dict(parameters), []
    waiting: dict[Value, tuple[str, int, set[Value]]] = {}  # expression, its level, what it is made of

    def declare(value, expression):
        names[value] = f"t{len(names) - len(parameters) + 1}"
        text.append(f"{C_TYPES[np.dtype(value._kind)]} {names[value]} = {expression}")

    def read(x, dtype):
        if not isinstance(x, Value):
            return _number(x, dtype), ATOM, set()
        expression, level, made_of = waiting.pop(x) if x in waiting else (names[x], ATOM, {x})
        if np.dtype(x._kind) != dtype:
            expression, level = f"{C_TYPES[dtype]}({expression})", ATOM
        return expression, level, made_of

    for target, form, operands, loop in kept:
        parts, made_of = [], set()
        for x, dtype, place in zip(operands, loop, form.places):
            part, level, of = read(x, dtype)
            parts.append(part if level >= place else f"({part})")
            made_of |= of
        expression = form.template.format(*parts)
        if target not in parameters and reads[target] == 1:  # a += would read once more
            waiting[target] = expression, form.level or level, made_of
            continue
        for value in [v for v, (_, _, of) in waiting.items() if target in of]:
            declare(value, waiting.pop(value)[0])
        if target not in names:
            declare(target, expression)
        else:
            text.append(expression if form in IN_PLACE.values() else f"{names[target]} = {expression}")
    return text if result is None else [*text, f"return {read(result, T)[0]}"]


def _number(x, dtype) -> str:
    if not math.isfinite(x):
        raise NotTraceable(f"{x} cannot be written in C")
    if dtype == BOOL:
        return "true" if x else "false"
    text = repr(float(x) if dtype.kind == "f" else int(x))
    return text if dtype == DOUBLE else f"{C_TYPES[dtype]}({text.removesuffix('.0')})"


# -- what kernels call ---------------------------------------------------------------------------------------


def activate(activation) -> str:
    """`T activate(T z)`: the forward of an activation."""
    return function("activate", lambda ops, z: _forward(activation, ops, z)[0], returns="T")


def slope(activation) -> str:
    """`T slope(T dy, T kept)`: its backward.  kept: z where it keeps its input, else y."""

    def formula(ops, dy, kept):
        _, needed = _forward(activation, ops, kept.copy())  # of which no line will be left
        return activation.backward(ops, dy, None if needed is None else kept)

    return function("slope", formula, ("dy", "kept"), returns="T")


def _forward(activation, ops, z):
    """(y, what backward needs), which must be what a kernel can keep."""
    y, kept = activation(ops, z)
    if kept is not None and kept is not z:  # which is y where it was overwritten
        raise NotTraceable(f"{type(activation).__name__}.forward returns what a kernel does not keep")
    return y, kept


def update(optimizer) -> str:
    """`void formula(T &p, T &g, T &state..., double lr, double t, double norm)`: an optimizer's step."""

    def formula(ops, p, g, *others):
        *state, lr, t, norm = others
        optimizer.step(ops.xp, p, g, state, lr, t, norm)

    return function("formula", formula, ("p", "g", *map(_name, optimizer.state)), ("lr", "t", "norm"))


def _name(state: str) -> str:
    """A state's name in C: with a _ behind it, it is no word of the language and no other name here."""
    if not (state.isascii() and state.isidentifier()):
        raise NotTraceable(f"{state!r} is no name in C")
    return state if len(state) == 1 and state.islower() and state not in "pgt" else state + "_"
