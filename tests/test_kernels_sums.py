"""Kernels that sum by features, and that add the bias and the activation, against NumPy."""

import re
from pathlib import Path

import host_cuda
import kernel_cases
import numpy as np
import pytest

from xpnet.ops.kernels import sums

gpu = kernel_cases.gpu

SHAPES = [
    (1, 1),
    (1, 7),
    (7, 1),
    (31, 33),
    (2, 1200),
    (1003, 70),  # several blocks to a feature
    (5003, 1),
    (1, 1, 1, 1),
    (1, 33, 1, 1),
    (7, 5, 1, 3),  # rows of a map far shorter than a block
    (8, 10, 8, 8),
    (3, 2, 31, 129),  # blocks share out H and the row
    (1, 2, 7, 1003),  # only the row
    (67, 3, 2, 33),  # mostly H
]
LAYOUTS = {
    "rows": lambda a: a,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "part": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
}
CASES = [(s, layout) for s in SHAPES for layout in (LAYOUTS if len(s) == 2 else ["rows"])]
every_case = pytest.mark.parametrize(("shape", "layout"), CASES, ids=lambda v: str(v).replace(" ", ""))

SQUASH = "__device__ inline T activate(T z) { return z > 0 ? z : z / 2; }"
BEND = "__device__ inline T slope(T dy, T kept) { return dy * (kept > 0 ? 1 : (T)0.5); }"


def axes(a):
    return 0 if a.ndim == 2 else (0, 2, 3)


def spread(bias, a):
    return bias if a.ndim == 2 else bias[:, None, None]


def put(gpu, a, layout):
    """a on the device with its memory in this layout."""
    if layout == "rows":
        return gpu.to_device(a)
    if layout == "transposed":
        return gpu.to_device(np.ascontiguousarray(a.T)).T
    return gpu.to_device(np.repeat(a, 2, axis=1))[:, ::2]


def assert_sums(got, a, precision):
    """Of the size of the summands, rounded a few times."""
    eps = np.finfo(precision).eps
    wide = a.astype(np.longdouble)
    assert (abs(got - wide.sum(axis=axes(a))) <= 8 * eps * abs(wide).sum(axis=axes(a))).all()


@every_case
def test_feature_sum(shape, layout, precision, gpu, rng):
    a = rng.normal(0.3, size=shape).astype(precision)
    out = gpu.kernels.empty(shape[1], precision)
    sums.feature_sum(gpu.kernels, put(gpu, a, layout), out)
    assert_sums(gpu.to_host(out), a, precision)


@every_case
def test_finish_adds_the_bias_and_activates(shape, layout, precision, gpu, rng):
    z, bias = rng.normal(size=shape).astype(precision), rng.normal(size=shape[1]).astype(precision)
    for given, code in [(bias, SQUASH), (None, SQUASH), (bias, "")]:
        want = z if given is None else z + spread(bias, z)
        want = np.where(want > 0, want, want / 2) if code else want
        device = put(gpu, z, layout)
        sums.finish(gpu.kernels, device, None if given is None else gpu.to_device(bias), code)
        np.testing.assert_array_equal(gpu.to_host(device), want)


@every_case
def test_finish_into_other_memory_leaves_what_went_into_the_activation(shape, layout, precision, gpu, rng):
    z, bias = rng.normal(size=shape).astype(precision), rng.normal(size=shape[1]).astype(precision)
    for given, code, of_out in [(bias, SQUASH, layout), (None, SQUASH, "rows"), (bias, "", "rows")]:
        before = z if given is None else z + spread(bias, z)
        want = np.where(before > 0, before, before / 2) if code else before
        device, out = put(gpu, z, layout), put(gpu, np.full_like(z, np.nan), of_out)
        sums.finish(gpu.kernels, device, None if given is None else gpu.to_device(bias), code, out=out)
        np.testing.assert_array_equal(gpu.to_host(out), want)
        np.testing.assert_array_equal(gpu.to_host(device), before)


@every_case
def test_finish_backward_multiplies_by_the_slope_and_sums(shape, layout, precision, gpu, rng):
    dy, kept = (rng.normal(size=shape).astype(precision) for _ in range(2))
    for of_kept in LAYOUTS if len(shape) == 2 else ["rows"]:  # whose layout may be another
        device, dbias = put(gpu, dy, layout), gpu.kernels.empty(shape[1], precision)
        sums.finish_backward(gpu.kernels, device, put(gpu, kept, of_kept), dbias, BEND)
        want = np.where(kept > 0, dy, dy / 2)
        np.testing.assert_array_equal(gpu.to_host(device), want)
        assert_sums(gpu.to_host(dbias), want, precision)


def test_finish_backward_without_bias_or_slope(precision, gpu, rng):
    dy, kept = (rng.normal(size=(33, 70)).astype(precision) for _ in range(2))
    device = gpu.to_device(dy)
    sums.finish_backward(gpu.kernels, device, gpu.to_device(kept), None, BEND)
    np.testing.assert_array_equal(gpu.to_host(device), np.where(kept > 0, dy, dy / 2))
    device, dbias = gpu.to_device(dy), gpu.kernels.empty(70, precision)
    sums.finish_backward(gpu.kernels, device, None, dbias, "")
    np.testing.assert_array_equal(gpu.to_host(device), dy)
    assert_sums(gpu.to_host(dbias), dy, precision)


def test_the_sum_of_nothing_is_zero(gpu):
    vectors, maps = (gpu.to_device(np.ones(shape, np.float32)) for shape in [(1, 5), (3, 5, 2, 1)])
    for nothing in (vectors[:0], maps[..., :0]):
        out = gpu.kernels.empty(5, np.float32)
        sums.feature_sum(gpu.kernels, nothing, out)
        assert not gpu.to_host(out).any()


def test_bits_do_not_depend_on_the_order_of_blocks(monkeypatch, rng):
    if not host_cuda.available():
        pytest.skip("no g++ to run kernels on the CPU with")
    for shape in [(3001, 40), (9, 3, 50, 33)]:
        a, found = rng.normal(size=shape).astype(np.float32), []
        assert np.prod(sums.walk(a).grid[1:]) > 1
        for reverse in (False, True, False):
            monkeypatch.setattr(host_cuda, "reverse", reverse)
            out = np.empty(shape[1], np.float32)
            sums.feature_sum(host_cuda.kernels(), a, out)
            found.append(out.tobytes())
        assert len(set(found)) == 1


class Layout:
    """As much of an array as `walk` looks at."""

    def __init__(self, *shape):
        self.shape, self.ndim, self.size, self.itemsize = shape, len(shape), int(np.prod(shape)), 4
        self.strides = tuple(4 * int(np.prod(shape[k + 1 :])) for k in range(len(shape)))
        self.flags = type("Flags", (), {"c_contiguous": True})

    def __len__(self):
        return self.shape[0]


@pytest.mark.parametrize(
    "shape",
    [(32, 64, 32, 64), (32, 64, 32, 512), (4, 512, 4, 512), (28, 1, 28, 1024), (65536, 10), (1000, 4096)],
)
def test_large_arrays_fill_the_card(shape):
    grid = sums.walk(Layout(*shape)).grid
    assert 264 <= np.prod(grid) <= 2112, grid  # 2 to 16 blocks for each of 132 multiprocessors


@pytest.mark.parametrize("shape", [(8, 10), (128, 10), (8, 1, 8, 8), (4, 1, 1, 1)])
def test_tiny_arrays_take_one_block(shape):
    assert sums.walk(Layout(*shape)).grid == (1, 1, 1)


def test_maps_that_are_not_contiguous_are_refused(gpu):
    a = gpu.to_device(np.zeros((4, 3, 2, 5), np.float32))
    with pytest.raises(ValueError, match="C-contiguous"):
        sums.feature_sum(gpu.kernels, a[:, :, :, ::2], gpu.kernels.empty(3, np.float32))
    with pytest.raises(ValueError, match=r"one shape.*\(4, 3, 2, 5\)"):
        sums.finish_backward(gpu.kernels, a, a[1:], None, BEND)


SOURCES = sorted(p for p in Path(sums.__file__).parent.iterdir() if p.suffix in (".cu", ".cuh"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_what_blocks_leave_for_the_last_is_fenced_off_on_both_sides(path):
    """On the CPU every write is seen at once; on a GPU a block's partial sums may become visible after its
    count, and the last block may have read them before.
    """
    text = re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))
    for function in re.split(r"\n}\n", text):
        if "atomicAdd" in function:
            before, after = function.split("atomicAdd")
            assert "__threadfence();" in before and "__threadfence();" in after
    assert "atomicAdd" in text or path.name not in ("reduce.cuh", "loss.cu")
