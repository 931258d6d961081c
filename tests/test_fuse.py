"""Formulas as C: NumPy's values, text that reads like the formula, and a reason where there can be none."""

import contextlib
import functools
import math
import re
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import host_cuda
import kernel_cases
import numpy as np
import pytest

from xpnet import activations, optimizers
from xpnet.activations import ELU, GELU, ActivationFunction, LeakyReLU, Sigmoid, SiLU, Softmax, Softplus
from xpnet.ops import fuse
from xpnet.ops.kernels import C_TYPES, _text
from xpnet.ops.numpy_ops import NumpyOps
from xpnet.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop

gpu = kernel_cases.gpu


class Kernel(NamedTuple):
    """Calls a traced function for each element."""

    trace: Callable[[], str]
    arrays: list[str]
    scalars: list[str]
    call: str

    def text(self, name):
        parameters = ", ".join([f"T *{a}" for a in self.arrays] + [f"double {s}" for s in self.scalars])
        return f"""
namespace {name}_ {{
{self.trace()}
}}
extern "C" __global__ void {name}({parameters}, i64 n) {{
    using namespace {name}_;
    i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x;
    if (i < n) {self.call};
}}
"""


KERNELS: dict[str, Kernel] = {}  # of all tests, compiled as one text


def kernel(name, trace, arrays, scalars=(), call="f"):
    if "[" not in call:
        call = f"{call}({', '.join([f'{a}[i]' for a in arrays] + list(scalars))})"
    KERNELS[name] = Kernel(trace, list(arrays), list(scalars), call)


@functools.cache
def library():
    def text(name):
        with contextlib.suppress(fuse.NotTraceable):  # fails the test of this one alone
            return KERNELS[name].text(name)

    return "".join(filter(None, map(text, KERNELS)))


def run(gpu, precision, name, arrays, scalars=()):
    """The arrays after a kernel went over their elements."""
    KERNELS[name].trace()
    text = f"#define T {C_TYPES[precision]}\n{_text('common.cuh')}\n{library()}"
    function = gpu.kernels.cupy.RawModule(code=text, options=("--std=c++17",)).get_function(name)
    arrays = [gpu.to_device(a) for a in arrays]
    function(
        (-(-arrays[0].size // 64),), (64,), (*arrays, *map(np.float64, scalars), np.int64(arrays[0].size))
    )
    return [gpu.to_host(a) for a in arrays]


def agree(gpu, got, want, name):
    """Equal to the bit where C and NumPy round alike, else to some units in the last place."""
    others = re.search(r"\b(erf|tanh|exp\w*|log\w*|pow)\(", KERNELS[name].trace().replace("pow(0.", "("))
    if not others and gpu.kernels.cupy is host_cuda.NUMPY:  # a GPU makes one operation of a * b + c
        np.testing.assert_array_equal(got, want, strict=True)
    else:
        eps = np.finfo(want.dtype).eps
        np.testing.assert_allclose(got, want, rtol=16 * eps, atol=64 * eps)


# -- activations ---------------------------------------------------------------------------------------------


class Mish(ActivationFunction):
    """z tanh(log(1 + exp(beta z))), written as a user would."""

    keeps_input = True

    def __init__(self, beta=1.0):
        self.beta = beta

    def forward(self, ops, z, out):
        out[...] = z * ops.xp.tanh(ops.xp.log1p(ops.xp.exp(self.beta * z)))
        return z

    def backward(self, ops, dy, z):
        t = ops.xp.tanh(ops.xp.log1p(ops.xp.exp(self.beta * z)))
        return dy * (t + z * (1 - t**2) * self.beta / (1 + ops.xp.exp(-self.beta * z)))


class HardSigmoid(ActivationFunction):
    """min(max(z / 6 + 1 / 2, 0), 1), with whole numbers."""

    def forward(self, ops, z, out):
        out[...] = ops.xp.clip(z / 6 + 0.5, 0, 1)
        return out

    def backward(self, ops, dy, y):
        dy *= ops.xp.where((y > 0) & (y < 1), 1, 0) / 6
        return dy


ACTIVATIONS = {name: cls() for name, cls in activations.TABLE.items() if cls is not Softmax}
ACTIVATIONS |= {
    "leaky_relu_small": LeakyReLU(0.01),
    "elu_large": ELU(1.7),
    "gelu_tanh": GELU(approximate=True),
}
ACTIVATIONS |= {"mish": Mish(0.7), "hard_sigmoid": HardSigmoid()}

for name, function in ACTIVATIONS.items():
    kernel(f"{name}_forward", functools.partial(fuse.activate, function), ["z"], call="z[i] = activate(z[i])")
    backward = "dy[i] = slope(dy[i], kept[i])"
    kernel(f"{name}_backward", functools.partial(fuse.slope, function), ["dy", "kept"], call=backward)


@pytest.mark.parametrize("name", ACTIVATIONS)
@np.errstate(all="ignore")
def test_activations_are_their_formulas(gpu, precision, rng, name):
    extremes = [0.0, -0.0, np.nan, np.inf, -np.inf, 100.0, -100.0, 20.0, -20.0, 1e-30, -1e-30, 3e38, -3e38]
    z = np.concatenate([extremes, np.linspace(-12, 12, 700), rng.normal(size=300)]).astype(precision)
    dy, function = rng.normal(size=z.size).astype(precision), ACTIVATIONS[name]
    y, kept = function(NumpyOps(), z.copy())
    (got,) = run(gpu, precision, f"{name}_forward", [z])
    agree(gpu, got, y, f"{name}_forward")
    kept = np.full_like(z, np.nan) if kept is None else kept
    got, _ = run(gpu, precision, f"{name}_backward", [dy, kept])
    agree(gpu, got, function.backward(NumpyOps(), dy, kept), f"{name}_backward")


def test_every_activation_but_softmax_is_traced():
    assert {type(f) for f in ACTIVATIONS.values()} | {Softmax} == {
        *activations.TABLE.values(),
        Mish,
        HardSigmoid,
    }
    for trace in (fuse.activate, fuse.slope):
        with pytest.raises(fuse.NotTraceable, match=r"\.(max|sum) is not known of one element"):
            trace(Softmax())


def test_forward_must_keep_what_a_kernel_keeps():
    class KeepsHalf(SiLU):
        def forward(self, ops, z, out):
            super().forward(ops, z, out)
            return z / 2

    class KeepsOutput(SiLU):
        def forward(self, ops, z, out):
            super().forward(ops, z, out)
            return out

    for cls in (KeepsHalf, KeepsOutput):
        for trace in (fuse.activate, fuse.slope):
            with pytest.raises(fuse.NotTraceable, match=f"{cls.__name__}.forward returns what a kernel"):
                trace(cls())


def test_what_forward_does_not_keep_is_none_for_backward():
    class Half(ActivationFunction):
        def forward(self, ops, z, out):
            out *= 0.5

        def backward(self, ops, dy, kept):
            assert kept is None
            return dy * 0.5

    assert "return dy * T(0.5);" in fuse.slope(Half())


# -- optimizers ----------------------------------------------------------------------------------------------


class Lion(optimizers.Optimizer):
    """Chen et al., 2023, as a user would write it, with names that C++ has taken."""

    state = ("long", "t")

    def update(self, xp, p, g, state, lr, t):
        m, count = state
        p -= lr * xp.sign(0.9 * m + (1 - 0.9) * g)
        m *= 0.99
        m += (1 - 0.99) * g
        count += 1 / t


OPTIMIZERS = [
    SGD(),
    SGD(0.1, weight_decay=0.02),
    SGD(0.1, momentum=0.9),
    SGD(0.1, momentum=0.8, nesterov=True, weight_decay=0.1, clipvalue=0.7),
    SGD(0.1, momentum=0.9, global_clipnorm=2.0),
    SGD(0.1, global_clipnorm=2.0, clipvalue=1.5),
    Adagrad(),
    Adagrad(0.1, initial_accumulator_value=0, epsilon=0),
    RMSprop(),
    RMSprop(rho=0.8, epsilon=0),
    RMSprop(centered=True),
    RMSprop(momentum=0.7, epsilon=1e-3),
    RMSprop(momentum=0.7, centered=True, weight_decay=0.1, global_clipnorm=1.0),
    Adam(),
    Adam(0.02, 0.8, 0.95, 1e-3, clipvalue=0.5),
    Adam(epsilon=0),
    Adam(beta_1=0, beta_2=0),
    Adam(global_clipnorm=3.0),
    AdamW(),
    AdamW(0.01, 0.3, global_clipnorm=0.5),
    Lion(0.1, weight_decay=0.1, global_clipnorm=1.0),
]

for k, optimizer in enumerate(OPTIMIZERS):
    arrays = [f"a{n}" for n in range(2 + len(optimizer.state))]
    trace = functools.partial(fuse.update, optimizer)
    kernel(f"optimizer_{k}", trace, arrays, ["lr", "t", "norm"], call="formula")


@pytest.mark.parametrize("k", range(len(OPTIMIZERS)), ids=lambda k: repr(OPTIMIZERS[k]))
def test_optimizers_are_their_formulas(gpu, precision, rng, k):
    """Over five steps, with rates and norms that change, and gaps between parameters."""
    optimizer = OPTIMIZERS[k]
    p = np.concatenate([np.zeros(5), rng.normal(size=200)]).astype(precision)
    state = [np.full_like(p, optimizer.initial(name)) for name in optimizer.state]
    for t in range(1, 6):
        g = (rng.normal(size=p.size) * 10.0 ** rng.integers(-3, 2, p.size)).astype(precision)
        g[:5] = 0
        lr, norm = 0.1 / t, 10.0 ** (2 - t)
        got = run(gpu, precision, f"optimizer_{k}", [p, g, *state], [lr, t, norm])
        optimizer.step(np, p, g, state, lr, t, norm)
        assert np.isfinite(p).all()
        for a, b in zip(got, [p, g, *state], strict=True):
            agree(gpu, a, b, f"optimizer_{k}")


def test_every_optimizer_is_traced():
    assert {type(optimizer) for optimizer in OPTIMIZERS} == {*optimizers.TABLE.values(), Lion}


def test_the_text_depends_on_hyperparameters_alone():
    optimizer = Adam(0.1, epsilon=1e-3)
    text = fuse.update(optimizer)
    optimizer.iterations, optimizer.learning_rate = 7, 0.3
    assert fuse.update(optimizer) == fuse.update(Adam(epsilon=1e-3)) == text != fuse.update(Adam())
    assert fuse.slope(ELU()) == fuse.slope(ELU()) != fuse.slope(ELU(2.0))


def test_names_of_state_are_names_in_c():
    class Odd(Lion):
        state = ("größe", "m")

    assert "(T &p, T &g, T &long_, T &t_, double lr, double t, double norm)" in fuse.update(Lion())
    with pytest.raises(fuse.NotTraceable, match="'größe' is no name in C"):
        fuse.update(Odd())


# -- the text ------------------------------------------------------------------------------------------------

TEXTS = [
    (
        lambda: fuse.slope(Sigmoid()),
        """\
__device__ inline T slope(T dy, T kept) {
    dy *= kept * (T(1) - kept);
    return dy;
}
""",
    ),
    (
        lambda: fuse.activate(Softplus()),
        """\
__device__ inline T activate(T z) {
    T t1 = log1p(exp(-fabs(z)));
    z = z < T(0) ? T(0) : z;
    z += t1;
    return z;
}
""",
    ),
    (
        lambda: fuse.activate(GELU()),
        """\
__device__ inline T activate(T z) {
    return z * (T(0.5) * (T(1) + erf(z * T(0.7071067811865476))));
}
""",
    ),
    (
        lambda: fuse.update(SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
        """\
__device__ inline void formula(T &p, T &g, T &velocity_, double lr, double t, double norm) {
    p *= T(1.0 - lr * 0.01);
    velocity_ *= T(0.9);
    velocity_ += g;
    p -= T(lr) * (g + T(0.9) * velocity_);
}
""",
    ),
    (
        lambda: fuse.update(Adam()),
        """\
__device__ inline void formula(T &p, T &g, T &m, T &v, double lr, double t, double norm) {
    m *= T(0.9);
    m += T(0.09999999999999998) * g;
    v *= T(0.999);
    v += T(0.0010000000000000009) * (g * g);
    double t1 = sqrt(1.0 - pow(0.999, t));
    T t2 = sqrt(v);
    t2 += T(1e-07 * t1);
    t2 = m / t2;
    t2 *= T(lr * t1 / (1.0 - pow(0.9, t)));
    p -= t2;
}
""",
    ),
]


@pytest.mark.parametrize("trace, text", TEXTS)
def test_the_text_reads_like_the_formula(trace, text):
    assert trace() == text


@pytest.mark.skipif(not host_cuda.available(), reason="no g++")
def test_nothing_becomes_double_by_chance(tmp_path):
    """A literal without T(...) would draw the arithmetic of float32 into double."""
    spaces = "".join(f"namespace {name}_ {{\n{kernel.trace()}}}\n" for name, kernel in KERNELS.items())
    source = tmp_path / "all.cpp"
    head = "#include <math.h>\n#define T float\n#define __device__\ntypedef long long i64;\n"
    source.write_text(head + spaces)
    warnings = ["-Wunused-variable", "-Wuninitialized", "-Wdouble-promotion", "-Wfloat-conversion"]
    command = [host_cuda.GPP, "-std=c++17", "-fsyntax-only", "-Werror", *warnings, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


# -- any formula ---------------------------------------------------------------------------------------------


def assigned(expression):
    """The formula out[...] = expression."""

    def formula(ops, out, z, w, s):
        out[...] = expression(ops.xp, z, w, s)

    return formula


def changed_after_it_was_read(ops, out, z, w, s):
    t = z * w
    z += w
    out[...] = t - z


def changed_between_two_readings(ops, out, z, w, s):
    t = ops.xp.maximum(z, w) * z
    z *= 2
    w -= t
    out[...] = t + z


def a_copy_keeps_the_old(ops, out, z, w, s):
    old, view = z.copy(), z[...]
    view *= 3
    out[...] = old - z


def numbers_do_not_change(ops, out, z, w, s):
    step = s
    step *= 2
    step **= 2
    out[...] = z * step - s


def memory_of_its_own(ops, out, z, w, s):
    y, hot = ops.like(z), z > w
    ops.xp.multiply(z, w, out=y)
    y /= 3
    hot |= z < -1
    ops.xp.add(y, hot, y)
    out[...] = y


def a_wide_result_in_place(ops, out, z, w, s):
    z *= np.float64(0.1)
    z -= ops.xp.sqrt(s) * w
    out[...] = 0.5


def read_by_one_that_waits(ops, out, z, w, s):
    a = z - w
    b = a * z
    z[...] = w
    c = b + 1
    w[...] = 7
    out[...] = c / z


FORMULAS = {f.__name__: f for f in (
    changed_after_it_was_read, changed_between_two_readings, a_copy_keeps_the_old, numbers_do_not_change,
    memory_of_its_own, a_wide_result_in_place, read_by_one_that_waits,
)} | {name: assigned(eval(f"lambda xp, z, w, s: {name}")) for name in """
0.1 * z - w
np.float64(0.1) * z - w
np.float32(0.1) * z - w
0.3 * (z > 0) * w
z * s / 3 - w
s / 3 * z - w
z - (w - s) - (z - w)
z / (w * s) / 3 * (w / z)
-(-z) - -(z + w) * -w
abs(z - w) + (+w)
(z * z - w) ** 2 + z**2
abs(z) ** 0.5 * s**0.5
xp.sqrt(s) * z - w
xp.multiply(z, w, dtype=None) if False else z
xp.where(z > 0, 0.1, 0.2) * w
xp.where(z > 0, 1, 0) * w
xp.where(z > 0, xp.where(w > 0, z, w), xp.where(w > z, 2, z)) * 3
xp.where(s > 2, z, w) + (s < 2) * z
xp.where(z, w, 1 - w)
xp.where(xp.where(z > 0, w > 0, w < 0), z, w)
(z + w).copy() * z
xp.where(z > w, s, z)
w * ((z > 0) + 2) - (w < 0) * 5
(z > w) * (w > 0.5) * z
~(z > 0) & (w < 0.5) | (z == w)
(z > w) == (w > s)
xp.logical_and(z > 0, w) * z
xp.logical_or(z, w > 0) * xp.logical_not(z)
xp.maximum(z, w) - xp.minimum(w, z) * 2
xp.maximum(0.3, z) + xp.minimum(z, np.float64(0.7))
xp.minimum(1.0, s / 3) * z
xp.minimum(1.0, s / 3).astype(z.dtype) * z
xp.clip(z, -0.7, 0.3) * xp.clip(w, z, None)
xp.sign(z) * w + xp.sign(s)
xp.square(z + w) - xp.reciprocal(w) if False else xp.square(z + w)
xp.fmax(z, w) - xp.fmin(z, w)
xp.floor(z * 3) + xp.rint(w) - xp.ceil(w)
xp.isnan(z) + xp.isfinite(w) * 2.0
xp.copysign(z, w)
z.dtype.type(0.1) * (z > 0) * w
(z * 7).astype(bool) * w
z.astype(np.float64) * 0.1
True * z - False
""".strip().splitlines()}  # fmt: skip


NAMES = {name: f"formula_{k}" for k, name in enumerate(FORMULAS)}

for name, formula in FORMULAS.items():
    trace = functools.partial(fuse.function, "f", formula, ("out", "z", "w"), ("s",))
    kernel(NAMES[name], trace, ["out", "z", "w"], ["s"])


@pytest.mark.parametrize("name", FORMULAS)
@np.errstate(all="ignore")
def test_any_formula_has_the_values_and_types_of_numpy(gpu, precision, name):
    z = np.tile(np.array([np.nan, 0.0, -0.0, np.inf, -0.7, 0.3, 1.1, -2.9], precision), 8)
    w, s = np.sort(z) * np.asarray(1.3, precision), 2.3
    arrays = np.full_like(z, 5), z, w
    got = run(gpu, precision, NAMES[name], arrays, [s])
    FORMULAS[name](NumpyOps(), *arrays, s)
    for a, b in zip(got, arrays, strict=True):
        agree(gpu, a, b, NAMES[name])


CALLS = """exp exp2 expm1 log log2 log10 log1p sqrt cbrt sin cos tan sinh cosh tanh arctan trunc absolute
**3 **-1 **1.7 **2.0 **s **z""".split()  # noqa: SIM905


def called(ops, z, s, name):
    if name[0] == "*":
        z **= {"s": s, "z": z}[name[2:]] if name[2:].isalpha() else float(name[2:])
    else:
        getattr(ops.xp, name)(z, out=z)


for k, name in enumerate(CALLS):
    formula = functools.partial(called, name=name)
    kernel(f"call_{k}", functools.partial(fuse.function, "f", formula, ("z",), ("s",)), ["z"], ["s"])


@pytest.mark.parametrize("k", range(len(CALLS)), ids=CALLS.__getitem__)
def test_functions_and_powers_are_numpy_s(gpu, precision, k):
    z = np.linspace(0.1, 2, 50).astype(precision)
    (got,) = run(gpu, precision, f"call_{k}", [z], [1.3])
    called(NumpyOps(), z, 1.3, CALLS[k])
    np.testing.assert_allclose(got, z, rtol=8 * np.finfo(precision).eps)


# -- what cannot be traced -----------------------------------------------------------------------------------

REASONS = {
    "xp.sum(z)": "sum is not element-wise",
    "z.sum()": r"\.sum is not known of one element",
    "xp.add.reduce(z)": "add, reduce, is not known in C",
    "z @ w": "matmul.* is not known in C",
    "xp.dot(z, w)": "dot is not element-wise",
    "z[0]": "an index",
    "z[z > 0]": "an index",
    "z[:, None]": "an index",
    "z.shape": r"\.shape is not known",
    "len(z)": "asks for a value",
    "list(z)": "asks for a value",
    "z if z > 0 else w": "asks for a value",
    "z * float(s)": "asks for a value",
    "z * int(s)": "asks for a value",
    "z * math.sqrt(s)": "asks for a value",
    "z * min(1.0, s)": "asks for a value",
    "f'{s:.3f}'": "asks for a value",
    "range(s)": "asks for a value",
    "xp.asarray(z)": "__array",
    "xp.spacing(z)": "spacing, __call__, is not known in C",
    "xp.modf(z)": "modf, __call__, is not known in C",
    "xp.exp(z, where=z > 0)": "exp, __call__, is not known in C",
    "z * xp.ones(3)": "a ndarray is neither",
    "z * None": "a NoneType is neither",
    "z * 1j": "a complex is neither",
    "z * math.inf": "inf cannot be written in C",
    "(z > 0) + (w > 0)": "add of bool is not known in C",
    "(z > 0) - (w > 0)": "boolean subtract",
    "xp.exp(z > 0)": "float16 is not calculated with",
    "z * np.longdouble(2)": "longdouble|float128",
    "xp.where(z > 0, 1, 0) & 2": "bitwise_and of int64",
    "z & 1": "bitwise_and",
    "ops.like(z) * 2": "never written",
    "xp.add(z, 1, out=np.ones(3))": "own arrays only",
    "xp.add(z, 1, out=s)": "own arrays only",
    "xp.add(z, 1, out=z > 0)": "does not write float32 to bool",
    "z.astype(np.float32)": "arrays may be float64",
    "z * (np.float32(0.1) * s)": "float32 among numbers",
    "z.dtype == np.float32": "float32 or float64 is not known",
    "np.float32 == z.dtype": "float32 or float64 is not known",
    "xp.finfo(z.dtype)": "ValueError",
    "s.dtype.itemsize": "a number has no dtype",
    "{}['key']": "KeyError",
    "ops.feature_sum(z)": r"\.\w+ is not known",
    "ops.pack(z, z.dtype)": r"\.shape is not known",
    "ops.flat(3, float) + z": "a ndarray is neither",
}


@pytest.mark.parametrize("expression", REASONS)
def test_what_is_not_element_wise_is_refused_with_a_reason(expression):
    def formula(ops, out, z, w, s):
        out[...] = eval(
            expression, {"ops": ops, "xp": ops.xp, "z": z, "w": w, "s": s, "np": np, "math": math}
        )

    with pytest.raises(fuse.NotTraceable, match=REASONS[expression]):
        fuse.function("f", formula, ("out", "z", "w"), ("s",))


def test_a_formula_must_return_what_the_function_returns():
    for result in (None, 1.0, "s", "wide"):
        with pytest.raises(fuse.NotTraceable, match="returns no array of the type of its arguments"):
            fuse.function(
                "f",
                lambda ops, z, s, r=result: {"s": s, "wide": np.float64(2) * z}.get(r, r),
                ("z",),
                ("s",),
                "T",
            )
