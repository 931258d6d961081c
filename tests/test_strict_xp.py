"""The fake refuses what CuPy refuses, counts what CuPy waits for, and otherwise agrees with NumPy."""

import copy
import pickle

import numpy as np
import pytest
import strict_xp
from strict_xp import HostSync, StrictArray, no_syncs, syncs, xp

HOST = np.arange(-6, 6, dtype=np.float32).reshape(3, 4) / 4
COUNTS = np.arange(12).reshape(3, 4)


@pytest.fixture
def a():
    """A device array; the counters start at zero after it was made."""
    array = xp.asarray(HOST)
    syncs.reset()
    return array


def same(result, expected):
    """result is on the device and is expected, type included."""
    if isinstance(expected, tuple | list):
        assert type(result) is type(expected) and len(result) == len(expected)
        for r, e in zip(result, expected):
            same(r, e)
        return
    expected = np.asarray(expected)
    assert isinstance(result, StrictArray)
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(result.get(), expected)


# -- values ------------------------------------------------------------------------------------------------

EXPRESSIONS = [
    "a + a, a - 1, 2 * a, a / 3.0, a // 0.5, a % 0.5, a**2, 2.0**a, -a, +a, abs(a), a @ a.T",
    "a < 0, a <= 0, a > 0.5, a >= a, a == 0, a != 0, (a < 0) & (a > -1), (a < 0) | (a > 1), ~(a < 0)",
    "i << 2, i >> 1, i ^ 3, i & 1, i // 5, i % 5, i / 2, i * 1.5, i + True, i * xp.float32(2), a * i",
    "xp.float32(3) * a, xp.float64(3) * a, a * xp.float64(3), a + xp.float32(1), 1.0 + a.sum()",
    "a[0], a[1:, ::2], a[None, ..., 1], a[2, 3], a[-1, 1:], a[:, xp.array([2, 0])], a[xp.array(1)], a[a > 0]",
    "a[xp.array(1), xp.array(2)], a[xp.array([0, 2]), xp.array([1, 1])], a[1][:, None]",
    "a.sum(), a.sum(0), a.mean(axis=1, keepdims=True), a.max(), a.min(1), a.argmax(1), a.prod(0), a.var(0)",
    "a.std(), a.any(), a.all(0), a.cumsum(1), i.sum(), i.mean(), (a > 0).sum(), a.sum(dtype=xp.float64)",
    "a.T, a.reshape(2, 6), a.reshape((4, -1)), a.transpose(1, 0), a.swapaxes(0, 1), a.ravel(), a.squeeze()",
    "a.astype(xp.int32), a.astype('f8'), a.copy(), a.view(xp.int32), a.clip(-1, 1), a.take(i[0], axis=1)",
    "a.dot(a.T), a.flatten(), a.repeat(2, axis=0), a.round(1), a.argsort(1), a.diagonal(), i.nonzero()",
    "xp.exp(a), xp.expm1(a), xp.log1p(a), xp.sqrt(abs(a)), xp.tanh(a), xp.sign(a), xp.square(a), xp.floor(a)",
    "xp.maximum(a, 0), xp.minimum(a, a[0]), xp.isfinite(a), xp.logical_not(a), xp.power(a, 2), xp.exp(i)",
    "xp.where(a > 0, a, 0), xp.clip(a, None, 1), xp.count_nonzero(a), xp.argmax(a), xp.array_equal(a, a)",
    "xp.concatenate([a, a], axis=1), xp.stack((a, a)), xp.split(a, 2, axis=1), xp.tile(a, (2, 1))",
    "xp.broadcast_to(a[0], (2, 4)), xp.expand_dims(a, 0), xp.moveaxis(a, 0, 1), xp.pad(a, 1), xp.roll(a, 1)",
    "xp.matmul(a, a.T), xp.tensordot(a, a, axes=([1], [1])), xp.einsum('ij,kj->ik', a, a), xp.linalg.norm(a)",
    "xp.take_along_axis(a, i % 3, axis=0), xp.bincount(i[0], minlength=9), xp.unique(i), xp.sort(a, axis=0)",
    "xp.zeros((2, 3)), xp.ones(2, dtype='f4'), xp.full((2,), 7), xp.full_like(a, 2), xp.eye(3), xp.flip(a)",
    "xp.arange(5), xp.arange(1, 2, 0.25), xp.linspace(0, 1, 5), xp.array([[1, 2], [3, 4]]), xp.array(2.5)",
    "xp.nan_to_num(a / 0), xp.log(a), xp.exp(a * 1e9), xp.reciprocal(a), xp.ascontiguousarray(a.T)",
    "xp.lib.stride_tricks.as_strided(a, (2, 2), (16, 4)), xp.lib.stride_tricks.sliding_window_view(a, 2, 1)",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_values_and_types_agree_with_numpy(a, expression):
    on_device = eval(f"({expression})", {"xp": xp, "a": a, "i": xp.asarray(COUNTS)})
    with np.errstate(all="ignore"):
        on_host = eval(f"({expression})", {"xp": np, "a": HOST, "i": COUNTS})
    for result, expected in zip(on_device, on_host, strict=True):
        same(result, expected)


@pytest.mark.parametrize(
    "statement",
    ["a += 1", "a -= a[0]", "a *= 2.0", "a /= 3", "a **= 2", "a[0] = 5", "a[:, 1] += 1",
     "a[...] = a[::-1].copy()", "a[a < 0] = 0", "a[xp.array([0, 2])] = 9", "a.fill(3)", "xp.copyto(a, 2.0)",
     "xp.exp(a, out=a)", "xp.add(a, 1, a)", "a.sum(axis=0, out=a[1])", "xp.matmul(a[:, :3], a.copy(), out=a)",
     "a.sort(axis=0)", "a[1, 1] *= 4",
     "a[0][1] = 8"],
)  # fmt: skip
def test_statements_agree_with_numpy(a, statement):
    host = {"xp": np, "a": HOST.copy()}
    device = {"xp": xp, "a": a}
    exec(statement, device)
    exec(statement, host)
    same(device["a"], host["a"])
    assert device["a"] is a


def test_matmul_has_no_in_place_operator(a):
    b = a
    b @= xp.ones((4, 2), a.dtype)  # b = b @ ..., as in CuPy; NumPy raises
    assert b.shape == (3, 2)
    same(a, HOST)


def test_a_result_that_is_an_argument_is_that_very_object(a):
    before, out = a, xp.empty_like(a)
    assert xp.asarray(a) is a and xp.ascontiguousarray(a) is a and a.astype(a.dtype, copy=False) is a
    assert xp.exp(a, out=out) is out and xp.matmul(a, a.T, out=xp.empty((3, 3), a.dtype)) is not a
    row = a[0]
    assert row.T is row and a.T is not a
    a += 1
    assert a is before


def test_an_element_is_a_view(a):
    a[1, 2][...] = 100
    assert float(a[1, 2]) == 100 and a[1, 2].ndim == 0
    for picked in (a[xp.array(1)], a[xp.array(1), xp.array(2)]):
        picked[...] = -1  # an index array, 0-d ones too, copies
        assert float(a[1, 2]) == 100 and (picked.get() == -1).all()


def test_layout(a):
    assert (a.shape, a.ndim, a.size, a.nbytes, a.itemsize, a.strides) == ((3, 4), 2, 12, 48, 4, (16, 4))
    assert a.flags.c_contiguous and not a.flags["F_CONTIGUOUS"] and a.T.flags.f_contiguous and len(a) == 3
    assert a[1].data.ptr == a.data.ptr + 16
    assert a.base is None and a[1].base.data.ptr == a.data.ptr
    assert xp.may_share_memory(a, a[1]) and xp.result_type(a, xp.float64) == np.float64
    assert xp.empty((2, 3), "f4", order="F").flags.f_contiguous
    assert xp.empty_like(a.T).strides == a.T.strides


def test_a_host_array_of_another_axis_order_arrives_c_contiguous():
    assert xp.asarray(np.zeros((2, 3, 4)).transpose(1, 0, 2)).flags.c_contiguous
    assert xp.asarray(np.zeros((2, 3)).T).flags.f_contiguous


# -- refusals ----------------------------------------------------------------------------------------------

REFUSED = {
    "np.asarray(a)": "Implicit conversion to a NumPy array is not allowed",
    "np.array([a, a])": "Implicit conversion",
    "xp.array([a, 1])": "Implicit conversion",
    "np.add(a, a)": "does not support ufuncs",
    "np.exp(a)": "does not support ufuncs",
    "np.sum(a)": "numpy.sum called on a device array",
    "np.concatenate([a, a])": "numpy.concatenate called",
    "np.matmul(a, h.T)": "does not support ufuncs",
    "a + h": "Unsupported type .*numpy.ndarray",
    "h + a": "Unsupported type .*numpy.ndarray",
    "a @ h.T": "Unsupported type",
    "h @ a.T": "Unsupported type",
    "a == h": "Unsupported type",
    "a == None": "Unsupported type",
    "a * [1, 2, 3, 4]": "Unsupported type .*list",
    "a.__iadd__(h)": "Unsupported type",
    "h.__iadd__(a)": "does not support ufuncs",
    "a.__setitem__(..., h)": "Unsupported type",
    "a.__setitem__(0, [1, 2, 3, 4])": "Unsupported type",
    "h.__setitem__(..., a)": "Implicit conversion",
    "a[np.array([0, 1])]": "index type",
    "a[[0, 1]]": "index type",
    "a[True]": "index type",
    "a[xp.array(0):]": "slice indices must be integers",
    "h[xp.array(0)]": "Implicit conversion|only integers",
    "range(xp.array(3))": "cannot be interpreted as an integer",
    "list(a)": "iteration",
    "hash(a)": "unhashable",
    "xp.maximum(a, h)": "Unsupported type",
    "xp.maximum(a, [0])": "Unsupported type",
    "xp.exp(a, out=h)": "out of exp must be a device array",
    "xp.exp(a, where=a > 0)": "Wrong arguments",
    "xp.exp(h)": "Unsupported type",
    "xp.sum(h)": "sum takes device arrays",
    "xp.sum([1, 2])": "sum takes device arrays",
    "xp.sum(a, where=a > 0)": "CuPy has sum",
    "xp.max(a, initial=0)": "CuPy has max",
    "a.sum(initial=0)": "CuPy has sum",
    "a.sum(0, out=h[0])": "sum takes device arrays",
    "a.astype('i4', casting='unsafe')": "CuPy has astype",
    "xp.where(True, a, 0)": "where takes device arrays",
    "xp.where(a > 0, a, h)": "Unsupported type",
    "xp.concatenate([a, h])": "concatenate takes device arrays",
    "xp.stack([1.0, a[0, 0]])": "stack takes device arrays",
    "xp.einsum('ij->i', a, out=a[:, 0])": "CuPy has einsum",
    "xp.einsum('ij,ij->i', a, h)": "einsum takes device arrays",
    "xp.take(a, [0, 1])": "take takes device arrays",
    "xp.take(a, xp.array([0]), mode='clip')": "CuPy has take",
    "xp.take_along_axis(a, xp.array([[0]]))": "missing a required argument: 'axis'",
    "xp.lib.stride_tricks.as_strided(a, (1,), (4,), writeable=False)": "CuPy has as_strided",
    "xp.ascontiguousarray(h)": "takes device arrays",
    "xp.copyto(a, h)": "Unsupported type",
    "xp.copyto(a.astype('i4'), a)": "[Cc]annot cast",
    "i.__iadd__(a)": "[Cc]annot cast",
    "xp.add(a, a, out=i)": "[Cc]annot cast",
    "xp.add(a, a, dtype='i4')": "[Cc]annot cast",
    "a.set([[1]])": "Only numpy.ndarray can be set",
    "a.set(h.astype('f8'))": "float64 array cannot be set to float32",
    "a.get(out=np.empty((3, 4)))": "cannot be obtained",
    "copy.deepcopy(xp)": "pickle",
}


@pytest.mark.parametrize("expression", REFUSED)
def test_refused_with_type_error(a, expression):
    names = {"xp": xp, "np": np, "a": a, "h": HOST.copy(), "i": xp.asarray(COUNTS), "copy": copy}
    with pytest.raises((TypeError, IndexError), match=REFUSED[expression]):
        eval(expression, names)
    same(a, HOST)


@pytest.mark.parametrize("name", ["errstate", "vecdot", "random_name", "linalg.inverse", "lib.recfunctions"])
def test_a_name_that_cupy_lacks_says_so(name):
    module = xp
    with pytest.raises(AttributeError, match=f"CuPy has no '{name.split('.')[-1]}'"):
        for part in name.split("."):
            module = getattr(module, part)


@pytest.mark.parametrize("method", ["reduce", "at", "outer"])
def test_ufuncs_have_no_methods(method):
    with pytest.raises(AttributeError):
        getattr(xp.maximum, method)


def test_other_errors_are_those_of_cupy(a):
    with pytest.raises(ValueError, match="Shape mismatch"):
        a.set(HOST.T)
    with pytest.raises(RuntimeError, match="non-contiguous"):
        a[:, ::2].set(HOST[:, ::2])
    with pytest.raises(ValueError, match="Unsupported dtype"):
        xp.asarray(["a"])
    with pytest.raises(ValueError, match="truth value"):
        bool(a)


@pytest.mark.parametrize(("shape", "strides"), [((4, 4), (16, 4)), ((2,), (-4,)), ((13,), (4,))])
def test_as_strided_is_held_to_the_buffer(a, shape, strides):
    with pytest.raises(ValueError, match="reaches bytes"):
        xp.lib.stride_tricks.as_strided(a, shape, strides)
    same(xp.lib.stride_tricks.as_strided(a[1:], (1,), (4,)), HOST[1, :1])


def test_as_strided_writes_to_its_array(a):
    xp.lib.stride_tricks.as_strided(a, (3,), (20,))[...] = 0
    expected = HOST.copy()
    np.fill_diagonal(expected, 0)
    same(a, expected)


# -- waiting and copying -----------------------------------------------------------------------------------

READS = ["float(a[0, 0])", "int(a[0, 0])", "complex(a[0, 0])", "bool(a[0, 0])", "str(a)", "f'{a[0, 0]:.3f}'",
         "a.get()", "a[0, 0].item()", "a.tolist()", "xp.asnumpy(a)", "pickle.dumps(a)",
         "0 in [a[0, 0]]", "max(a[0, 0], a[0, 1])"]  # fmt: skip
WAITS = ["a[a > 0]", "a.__setitem__(a > 0, 0)", "a.nonzero()", "xp.nonzero(a)", "xp.argwhere(a)",
         "xp.unique(a)", "xp.where(a)", "xp.bincount(i)", "xp.repeat(i, i)", "xp.shares_memory(a, a[0])",
         "xp.lib.stride_tricks.sliding_window_view(a, 2, 1)"]  # fmt: skip
SENDS = ["xp.asarray(h)", "xp.array(h)", "xp.array([1, 2])", "xp.asarray([h, h])", "a.set(h)"]
FREE = ["a + 1", "xp.asarray(a)", "xp.array(1.0)", "xp.full((2,), 3)", "a[0, 0] * 2",
        "xp.where(a > 0, a, 0)", "copy.deepcopy(a)", "a.sum()", "xp.count_nonzero(a)", "repr(a)",
        "a.__setitem__((0, 0), 1)", "xp.allclose(a, a)", "xp.array([a, a])", "xp.asnumpy(h)", "a[i]",
        "xp.may_share_memory(a, a)"]  # fmt: skip


@pytest.mark.parametrize("expression", READS + WAITS + SENDS + FREE)
def test_syncs_are_counted_and_forbidden_on_demand(a, expression):
    names = {"xp": xp, "a": a, "h": HOST, "i": xp.array([1, 0]), "pickle": pickle, "copy": copy}
    syncs.reset()
    eval(expression, names)
    assert syncs.count == (expression in READS + WAITS)
    assert syncs.copies_to_host == (expression in READS)
    assert syncs.copies_to_device == (expression in SENDS)
    with no_syncs():
        if expression in FREE:
            eval(expression, names)
        else:
            with pytest.raises(HostSync, match=r"inside no_syncs\(\)"):
                eval(expression, names)
    eval(expression, names)  # allowed again


def test_no_syncs_nests_and_ends_after_an_error(a):
    with pytest.raises(HostSync), no_syncs(), syncs.no_syncs():
        a.get()
    assert a.get().shape == (3, 4) and syncs.count == 1


def test_copies_do_not_share_memory(a):
    host = HOST.copy()
    device = xp.asarray(host)
    host[...] = 0
    device.get()[...] = 0
    same(device, HOST)
    out = np.empty_like(HOST)
    assert device.get(out=out) is out
    same(pickle.loads(pickle.dumps(device)), HOST)
    twin = copy.copy(device)
    twin[...] = 1
    same(device, HOST)


# -- poison, and Ops ---------------------------------------------------------------------------------------


def test_unwritten_memory_is_poisoned(a, monkeypatch):
    assert np.isnan(xp.empty(3, "f4").get()).all() and np.isnan(xp.empty_like(a).get()).all()
    assert (xp.empty(2, "i8").get() == 2**62 - 1).all() and (xp.empty(2, "u1").get() == 127).all()
    assert xp.empty(2, bool).get().all()
    monkeypatch.setattr(strict_xp, "POISON", False)
    assert xp.empty(2, "f4").shape == (2,)


def test_strict_ops_is_the_reference_over_the_fake():
    pytest.importorskip("xpnet.ops.reference")
    ops = strict_xp.strict_ops()
    assert ops.xp is xp and isinstance(ops.asarray(HOST), StrictArray)
    np.testing.assert_array_equal(ops.to_host(ops.asarray(HOST)), HOST)
