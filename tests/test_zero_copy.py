# ruff: noqa: F811 - a fixture's name is an argument's
"""Convolution as products on the map in place, against the reference: values, bounds, and what is covered.

On the CPU cuBLAS is its twin, to which every element out of an array is an error and uninitialised memory is
NaN.
"""

import device_memory
import numpy as np
import pytest
from blas_twin import BadCall, BlasTwin, bits, blas, numbers  # noqa: F401 - blas is a fixture
from strict_xp import StrictArray

from xpnet.ops import zero_copy
from xpnet.ops.cublas import MATHS
from xpnet.ops.geometry import Window
from xpnet.ops.reference import Ops

REFERENCE = Ops(np)
ERROR = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 1e-5, "float64": 1e-12}

# (C, H, W, F, N), window; every letter another number, so that none can stand for another
CASES = {
    "3x3": ((3, 8, 7, 5, 4), Window((3, 3))),
    "same": ((3, 8, 7, 5, 4), Window((3, 3), padding=((1, 1), (1, 1)))),
    "padded unevenly": ((2, 6, 5, 3, 4), Window((3, 4), padding=((2, 0), (1, 3)))),
    "kernel 2x5": ((3, 6, 9, 4, 2), Window((2, 5))),
    "kernel 5x1": ((3, 9, 4, 2, 3), Window((5, 1))),
    "1x1": ((6, 4, 5, 7, 3), Window((1, 1))),
    "the whole map": ((3, 4, 5, 6, 2), Window((4, 5))),
    "one of each": ((1, 3, 3, 1, 1), Window((3, 3))),
    "one row": ((4, 1, 13, 3, 2), Window((1, 3), padding=((0, 0), (1, 1)))),
    "one column": ((4, 12, 1, 3, 2), Window((3, 1))),
    "rows strided": ((3, 9, 7, 5, 2), Window((3, 3), strides=(2, 1))),
    "rows strided past the kernel": (
        (3, 11, 6, 4, 2),
        Window((2, 3), strides=(4, 1), padding=((1, 0), (0, 0))),
    ),
    "columns dilated": ((3, 7, 11, 4, 2), Window((3, 3), dilation=(1, 3))),
    "rows dilated": ((3, 10, 6, 4, 2), Window((3, 2), dilation=(3, 1), padding=((3, 3), (0, 0)))),
    "dilated and strided": ((3, 11, 9, 4, 2), Window((3, 3), strides=(2, 1), dilation=(2, 2))),
    "one row of a dilated kernel": ((3, 5, 6, 4, 2), Window((1, 3), dilation=(2, 1))),
}


@pytest.fixture(params=list(CASES))
def case(request):
    """x (H, C, W, N), padded, w, window, and the shape of x before it was padded."""
    return CASES[request.param]


@pytest.fixture(params=sorted(MATHS))
def math(request):
    return request.param


def draw(rng, case, math):
    """(x, w, dz) as NumPy arrays: operands in math, and the same as float64."""
    (C, H, W, F, N), window = case
    KH, KW = window.kernel
    OH, OW = window.out_size(H, W)
    x = REFERENCE.pad(rng.standard_normal((H, C, W, N)), window.padding)
    drawn = x, rng.standard_normal((KW, F, KH, C)), rng.standard_normal((OH, F, OW, N))
    operands = [bits(a) if math == "bfloat16" else a.astype(MATHS[math].operand) for a in drawn]
    exact = [numbers(a, "bfloat16" if math == "bfloat16" else "float64").astype(float) for a in operands]
    return operands, exact


def agree(got, want, math, terms, what=""):
    np.testing.assert_allclose(got, want, rtol=0, atol=3 * ERROR[math] * terms**0.5, err_msg=what)


def sum_parts(parts, out):
    out[...] = parts.sum(axis=0)


def padder(blas):
    """`Ops.pad` on device arrays."""

    def pad(x, padding):
        return blas.to_device(REFERENCE.pad(blas.to_host(x), padding))

    return pad


# -- values ------------------------------------------------------------------------------------------------


def test_forward(blas, rng, case, math):
    window = case[1]
    (x, w, dz), (x64, w64, _) = draw(rng, case, math)
    x, w, want = blas.to_device(x), blas.to_device(w), REFERENCE.conv2d(x64, w64, window.bare)
    for rows in (None, 1, 2, 3, 100):  # to a block
        y = blas.empty(dz.shape, MATHS[math].out)
        zero_copy.forward(blas.calls, math, x, w, y, window, rows)
        agree(blas.to_host(y), want, math, w.size // w.shape[1])


def test_rows_are_finished_once_each_and_when_their_sums_are_whole(blas, rng, case):
    """Bias and activation are added in place: twice, or to half a sum, would be wrong."""
    window = case[1]
    (x, w, dz), (x64, w64, _) = draw(rng, case, "float64")
    x, w, want = blas.to_device(x), blas.to_device(w), REFERENCE.conv2d(x64, w64, window.bare)
    for rows in (None, 1, 2, 3, 100):
        y, finished = blas.empty(dz.shape, np.float64), []

        def finish(block, y=y, finished=finished):
            assert block.data.ptr == y.data.ptr + sum(finished) * y.strides[0]
            finished.append(len(block))
            block += 1
            block *= 2

        zero_copy.forward(blas.calls, "float64", x, w, y, window, rows, finish)
        agree(blas.to_host(y), 2 * (want + 1), "float64", w.size // w.shape[1])
        assert sum(finished) == len(want)


SPLITS = {
    "as it is": {},
    "one part": {"TILES": 1},
    "two parts": {"TILES": 2},
    "three parts": {"TILES": 3},
    "little memory": {"PARTS": 1500},
    "stripes of one column": {"LONG": 1},
    "stripes": {"LONG": 5},
}


def test_weight_grad(blas, rng, case, math, monkeypatch):
    window = case[1]
    (x, w, dz), (x64, w64, dz64) = draw(rng, case, math)
    x, dz, want = blas.to_device(x), blas.to_device(dz), np.empty_like(w64)
    REFERENCE.conv2d_weight_grad(x64, dz64, want, window.bare)
    for name, limits in SPLITS.items():
        with monkeypatch.context() as patch:
            for limit, value in limits.items():
                patch.setattr(zero_copy, limit, value)
            dw = blas.empty(w.shape, MATHS[math].out)
            zero_copy.weight_grad(blas.calls, math, x, dz, dw, window, blas.empty, sum_parts)
            agree(blas.to_host(dw), want, math, dz64[:, 0].size, name)


def test_every_way_to_split_is_taken(monkeypatch):
    """By the cases and limits of the test above."""
    ways = set()
    for (C, H, W, F, N), window in CASES.values():
        OH, OW = window.out_size(H, W)
        for limits in SPLITS.values():
            with monkeypatch.context() as patch:
                for limit, value in limits.items():
                    patch.setattr(zero_copy, limit, value)
                P, columns = zero_copy.split(window, C, F, OH, OW, N, 4)
            by_rows = (
                "one" if P == 1 else "all rows" if P == OH else "some rows" + " and a rest" * (OH % P > 0)
            )
            ways.add(by_rows if columns == OW else "stripes" + " and a rest" * (OW % columns > 0))
    assert ways == {"one", "all rows", "some rows", "some rows and a rest", "stripes", "stripes and a rest"}


def test_input_grad(blas, rng, case, math):
    (C, H, W, F, N), window = case
    if window.strides != (1, 1):
        assert not zero_copy.covers_input_grad(window, 1, 64, 64, 64, math)
        return
    (_, w, dz), (_, w64, dz64) = draw(rng, case, math)
    dx = blas.empty((H, C, W, N), MATHS[math].out)
    dz, w = blas.to_device(dz), blas.to_device(w)
    zero_copy.input_grad(blas.calls, math, dz, w, dx, window, blas.empty, padder(blas))
    want = REFERENCE.conv2d_input_grad(dz64, w64, (H, C, W, N), window)
    agree(blas.to_host(dx), want, math, w.size // C)


def test_random_shapes(blas, rng):
    for _ in range(60):
        C, F, N, KH, KW, SH, DH, DW = rng.integers(1, [7, 8, 9, 5, 5, 4, 4, 4]).tolist()
        top, bottom = rng.integers(0, (KH - 1) * DH + 1, 2).tolist()
        left, right = rng.integers(0, (KW - 1) * DW + 1, 2).tolist()
        window = Window((KH, KW), (SH, 1), (DH, DW), ((top, bottom), (left, right)))
        H, W = (int(e + rng.integers(0, 6)) for e in window.extent)
        case = (C, H, W, F, N), window
        (x, w, dz), (x64, w64, dz64) = draw(rng, case, "float64")
        x, dw, y = blas.to_device(x), blas.empty(w.shape, float), blas.empty(dz.shape, float)
        zero_copy.forward(blas.calls, "float64", x, blas.to_device(w), y, window, int(rng.integers(1, 9)))
        agree(blas.to_host(y), REFERENCE.conv2d(x64, w64, window.bare), "float64", w.size)
        dz, want = blas.to_device(dz), np.empty_like(w64)
        zero_copy.weight_grad(blas.calls, "float64", x, dz, dw, window, blas.empty, sum_parts)
        REFERENCE.conv2d_weight_grad(x64, dz64, want, window.bare)
        agree(blas.to_host(dw), want, "float64", dz64.size)
        if SH == 1:
            dx = blas.empty((H, C, W, N), float)
            w = blas.to_device(w)
            zero_copy.input_grad(blas.calls, "float64", dz, w, dx, window, blas.empty, padder(blas))
            want = REFERENCE.conv2d_input_grad(dz64, w64, dx.shape, window)
            agree(blas.to_host(dx), want, "float64", w64.size)


def test_an_empty_batch(blas, rng):
    case = (3, 6, 6, 4, 0), Window((3, 3))
    (x, w, dz), _ = draw(rng, case, "float32")
    x, w, dz = map(blas.to_device, (x, w, dz))
    y, dw, dx = (blas.empty(shape, np.float32) for shape in (dz.shape, w.shape, (6, 3, 6, 0)))
    zero_copy.forward(blas.calls, "float32", x, w, y, case[1])
    zero_copy.weight_grad(blas.calls, "float32", x, dz, dw, case[1], blas.empty, sum_parts)
    zero_copy.input_grad(blas.calls, "float32", dz, w, dx, case[1], blas.empty, padder(blas))
    assert not blas.to_host(dw).any()


def test_results_repeat_to_the_bit(blas, rng, math):
    case = (16, 12, 12, 32, 8), Window((3, 3), padding=((1, 1), (1, 1)))
    (x, w, dz), _ = draw(rng, case, math)
    x, w, dz = map(blas.to_device, (x, w, dz))
    results = []
    for _ in range(2):
        y, dw, dx = (blas.empty(shape, MATHS[math].out) for shape in (dz.shape, w.shape, (12, 16, 12, 8)))
        zero_copy.forward(blas.calls, math, x, w, y, case[1])
        zero_copy.weight_grad(blas.calls, math, x, dz, dw, case[1], blas.empty, sum_parts)
        zero_copy.input_grad(blas.calls, math, dz, w, dx, case[1], blas.empty, padder(blas))
        results.append([blas.to_host(a) for a in (y, dw, dx)])
    for first, second in zip(*results):
        np.testing.assert_array_equal(first, second)


# -- how it is done ----------------------------------------------------------------------------------------


def counted(blas, rng, case, call):
    """Products that one call of zero_copy takes."""
    (x, w, dz), _ = draw(rng, case, "float32")
    before = blas.calls.calls
    x, w, y = blas.to_device(x), blas.to_device(w), blas.to_device(dz)
    if call == "forward":
        zero_copy.forward(blas.calls, "float32", x, w, y, case[1])
    else:
        zero_copy.weight_grad(blas.calls, "float32", x, y, w, case[1], blas.empty, sum_parts)
    return blas.calls.calls - before


@pytest.fixture
def twin(request, blas):
    if not hasattr(blas.calls, "calls"):
        pytest.skip("counts the twin's calls")
    return blas


def test_a_small_convolution_is_one_call_for_each_kernel_column(twin, rng):
    case = CASES["same"]
    assert counted(twin, rng, case, "forward") == counted(twin, rng, case, "weight_grad") == 3


def test_rows_go_in_blocks_of_equal_size_for_the_cache(twin, rng, monkeypatch):
    case = (3, 9, 7, 5, 4), Window((3, 3))  # y has 7 rows of 5 * 5 * 4 floats
    for rows, blocks in ((7, 1), (6, 2), (3, 3), (2, 4), (1, 7), (0.5, 7)):
        monkeypatch.setattr(zero_copy, "BLOCK", int(rows * 400))
        assert counted(twin, rng, case, "forward") == 3 * blocks


@pytest.mark.parametrize(
    ("shape", "want"),
    [
        ((64, 64, 32, 32, 512), (32, 32)),  # the layers of cifar-vgg: a part for each row
        ((256, 256, 8, 8, 64), (8, 8)),
        ((512, 512, 14, 14, 32), (7, 14)),  # 48 tiles are filled by 11 rows; two passes of 7
        ((64, 64, 224, 224, 64), (224, 224)),
        ((128, 128, 224, 224, 64), (112, 224)),  # 113 parts are 64 MiB
        ((1024, 1024, 7, 7, 32), (1, 7)),  # 36 MiB for a part
        ((64, 64, 1, 1000, 64), (31, 33)),  # a sequence: stripes of 33 columns
        ((64, 64, 4, 1000, 64), (31, 33)),
        ((64, 64, 16, 1000, 64), (16, 1000)),
        ((64, 64, 1, 1, 64), (1, 1)),
    ],
)
def test_a_weight_gradient_is_split_to_fill_a_card_within_bounds(shape, want):
    C, F, OH, OW, N = shape
    P, columns = zero_copy.split(Window((3, 3)), C, F, OH, OW, N, 4)
    assert (P, columns) == want
    assert P == 1 or P * 9 * F * C * 4 <= zero_copy.PARTS


def test_nothing_waits_for_the_device(twin, rng):
    from strict_xp import no_syncs

    case = CASES["same"]
    (x, w, dz), _ = draw(rng, case, "float32")
    x, w, dz = map(twin.to_device, (x, w, dz))
    y, dw, dx = (twin.empty(shape, np.float32) for shape in (dz.shape, w.shape, (8, 3, 7, 4)))
    with no_syncs():
        zero_copy.forward(twin.calls, "float32", x, w, y, case[1])
        zero_copy.weight_grad(twin.calls, "float32", x, dz, dw, case[1], twin.empty, sum_parts)
        zero_copy.input_grad(twin.calls, "float32", dz, w, dx, case[1], twin.empty, padder(twin))


# -- what is covered ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("covered", "change"),
    [
        (True, {}),
        (True, {"window": Window((3, 3), strides=(2, 1))}),
        (False, {"window": Window((3, 3), strides=(1, 2))}),
        (True, {"window": Window((3, 3), dilation=(1, 2))}),
        (True, {"window": Window((1, 1))}),
        (False, {"groups": 2}),
        (False, {"C": 10}),
        (True, {"C": 11}),
        (False, {"C": 31, "window": Window((3, 3), dilation=(2, 1))}),
        (True, {"C": 32, "window": Window((3, 3), dilation=(2, 1))}),
        (False, {"F": 31}),
        (False, {"N": 1}),
        (False, {"N": 7}),
        (False, {"N": 12, "math": "bfloat16"}),
        (True, {"N": 12}),
        (True, {"N": 16, "math": "bfloat16"}),
        (True, {"N": 2, "math": "float64"}),
    ],
)
def test_what_is_covered(covered, change):
    wanted = {"window": Window((3, 3)), "groups": 1, "C": 64, "F": 64, "N": 64, "math": "tf32", **change}
    assert zero_copy.covers(**wanted) is covered


@pytest.mark.parametrize(
    ("covered", "change"),
    [
        (True, {}),
        (False, {"window": Window((3, 3), strides=(2, 1))}),
        (True, {"window": Window((3, 3), padding=((2, 2), (2, 2)))}),
        (False, {"window": Window((3, 3), padding=((1, 3), (1, 1)))}),
        (True, {"window": Window((3, 3), dilation=(2, 2), padding=((4, 4), (4, 4)))}),
        (False, {"C": 31}),
        (True, {"F": 11}),
        (False, {"F": 10}),
    ],
)
def test_what_is_covered_on_the_way_back(covered, change):
    """Channels and filters change places."""
    wanted = {"window": Window((3, 3)), "groups": 1, "C": 64, "F": 64, "N": 64, "math": "tf32", **change}
    assert zero_copy.covers_input_grad(**wanted) is covered


# -- planted mistakes --------------------------------------------------------------------------------------


class Mistaken:
    """Passes calls on with one argument changed."""

    def __init__(self, blas, name, change):
        self.blas, self.name, self.change = blas, name, change

    def gemm_batched(
        self, math, ta, tb, m, n, k, a, lda, stride_a, b, ldb, stride_b, beta, c, ldc, stride_c, batch
    ):
        call = {
            "math": math, "ta": ta, "tb": tb, "m": m, "n": n, "k": k, "a": a, "lda": lda,
            "stride_a": stride_a, "b": b, "ldb": ldb, "stride_b": stride_b, "beta": beta, "c": c, "ldc": ldc,
            "stride_c": stride_c, "batch": batch,
        }  # fmt: skip
        call[self.name] = self.change(call[self.name])
        self.blas.gemm_batched(**call)


CHANGES = {
    "lda": [lambda v: v + 4, lambda v: v - 4],
    "stride_a": [lambda v: v + 4, lambda v: v - 4, lambda v: 0],
    "ldb": [lambda v: v + 1, lambda v: v - 1],
    "stride_b": [lambda v: v + 1, lambda v: v - 1],
    "ldc": [lambda v: v + 1, lambda v: v - 1],
    "stride_c": [lambda v: v + 4, lambda v: v - 4],
    "a": [lambda v: v + 16, lambda v: v - 16],
    "b": [lambda v: v + 4, lambda v: v - 4],
    "c": [lambda v: v + 4, lambda v: v - 4],
    "m": [lambda v: v - 1, lambda v: v + 1],
    "n": [lambda v: v - 1, lambda v: v + 1],
    "k": [lambda v: v - 1, lambda v: v + 1],
    "batch": [lambda v: v + 1, lambda v: v - 1],
    "beta": [lambda v: 1, lambda v: 0],
}


@pytest.mark.parametrize("which", ["forward", "weight_grad"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_argument_would_be_found(rng, monkeypatch, which, name):
    """Any one argument changed makes a call out of bounds or a wrong result: the tests above could not
    pass."""
    monkeypatch.setattr(zero_copy, "TILES", 3)  # parts of two and three rows, added up
    case = (3, 7, 8, 5, 4), Window((3, 3))
    (x, w, dz), (x64, w64, dz64) = draw(rng, case, "float32")
    x, w, dz = (StrictArray(device_memory.copy(a)) for a in (x, w, dz))
    want = {"forward": REFERENCE.conv2d(x64, w64, case[1].bare), "weight_grad": np.empty_like(w64)}
    REFERENCE.conv2d_weight_grad(x64, dz64, want["weight_grad"], case[1].bare)
    for change in [lambda v: v, *CHANGES[name]]:
        calls, out = Mistaken(BlasTwin(), name, change), empty(want[which].shape, np.float32)
        right = calls.change(12) == 12
        try:
            if which == "forward":
                zero_copy.forward(calls, "float32", x, w, out, case[1])
            else:
                zero_copy.weight_grad(calls, "float32", x, dz, out, case[1], empty, sum_parts)
        except BadCall:
            assert not right
        else:
            assert np.allclose(out._a, want[which], rtol=1e-3, atol=1e-3) == right


def empty(shape, dtype):
    return StrictArray(device_memory.empty(shape, dtype))
