"""conv.cu agrees with the reference convolution at any size, stride, padding, dilation and grouping."""

import device_memory
import host_cuda
import numpy as np
import pytest
from kernel_cases import Gpu, gpu

from xpnet.ops.geometry import Window
from xpnet.ops.kernels import conv
from xpnet.ops.reference import Ops

__all__ = ["gpu"]  # a fixture
REFERENCE = Ops(np)
SAME = ((1, 1), (1, 1))

# (C, H, W, N), F, window, groups
CASES = {
    "digits": ((10, 8, 8, 8), 10, Window((3, 3), padding=SAME), 1),
    "first layer": ((1, 12, 12, 16), 6, Window((5, 5), padding=((2, 2), (2, 2))), 1),
    "lenet": ((6, 7, 9, 12), 16, Window((5, 5)), 1),
    "batch of one": ((3, 9, 7, 1), 5, Window((3, 3), padding=SAME), 1),
    "odd batch": ((3, 5, 6, 7), 20, Window((3, 3)), 1),
    "pairs of samples": ((2, 5, 4, 6), 3, Window((3, 3)), 1),
    "one of each": ((1, 1, 1, 1), 1, Window((1, 1)), 1),
    "one filter": ((4, 5, 5, 4), 1, Window((3, 3), padding=SAME), 1),
    "1x1": ((9, 4, 5, 8), 33, Window((1, 1)), 1),
    "strides": ((3, 9, 10, 4), 4, Window((3, 3), (2, 2), padding=SAME), 1),
    "strides apart": ((2, 8, 11, 3), 3, Window((2, 1), (3, 4)), 1),
    "dilation": ((2, 8, 9, 4), 5, Window((3, 2), (1, 1), (2, 3), ((2, 1), (0, 3))), 1),
    "strides with dilation": ((2, 13, 12, 4), 3, Window((3, 3), (4, 2), (2, 3), ((3, 0), (1, 2))), 1),
    "stride that skips rows of dilation": ((2, 12, 11, 2), 3, Window((3, 2), (3, 2), (3, 2)), 1),
    "groups": ((6, 5, 5, 4), 4, Window((3, 3), padding=SAME), 2),
    "depthwise": ((5, 6, 5, 4), 5, Window((3, 3), padding=SAME), 5),
    "depthwise, twice the filters, strides": ((3, 7, 7, 5), 6, Window((3, 3), (2, 2), padding=SAME), 3),
    "long rows of the kernel": ((2, 3, 20, 4), 3, Window((1, 13)), 1),
    "much padding": ((2, 2, 3, 4), 3, Window((3, 3), padding=((4, 0), (1, 5))), 1),
    "rows not reached": ((2, 8, 9, 4), 3, Window((3, 3), (3, 4)), 1),
    "more than a tile of rows": ((66, 3, 3, 8), 70, Window((3, 3), padding=SAME), 1),
}


class Case:
    """Random arrays of a case, and what the reference makes of them in float64."""

    def __init__(self, name, dtype):
        (C, H, W, N), F, self.window, self.groups = CASES[name]
        (KH, KW), (OH, OW) = self.window.kernel, self.window.out_size(H, W)
        rng = np.random.default_rng(7)
        self.shape, self.dtype = (H, C, W, N), np.dtype(dtype)
        draw = lambda *shape: rng.uniform(-1, 1, shape).astype(dtype)  # noqa: E731
        self.x, self.w, self.bias = draw(*self.shape), draw(KW, F, KH, C // self.groups), draw(F)
        self.padded = REFERENCE.pad(self.x, self.window.padding)
        self.dz = draw(OH, F, OW, N)

    def wide(self, a):
        return a.astype(np.float64)

    def forward(self):
        return REFERENCE.conv2d(self.wide(self.padded), self.wide(self.w), self.window.bare, self.groups)

    def input_grad(self):
        return REFERENCE.conv2d_input_grad(
            self.wide(self.dz), self.wide(self.w), self.shape, self.window, self.groups
        )

    def weight_grad(self):
        dw = np.empty(self.w.shape)
        REFERENCE.conv2d_weight_grad(
            self.wide(self.padded), self.wide(self.dz), dw, self.window.bare, self.groups
        )
        return dw

    def check(self, got, want, terms):
        """terms: how many products of at most 1 a sum has; a partial sum is rounded by its own size."""
        assert got.dtype == self.dtype
        eps = np.finfo(self.dtype).eps
        np.testing.assert_allclose(got, want, rtol=8 * eps, atol=8 * eps * (1 + terms) ** 0.5)


def poisoned(gpu, shape, dtype):
    return gpu.to_device(np.full(shape, np.nan, dtype))


def run_forward(gpu, case, bias=None, activate=""):
    y = poisoned(gpu, case.dz.shape, case.dtype)
    arrays = [None if a is None else gpu.to_device(a) for a in (case.padded, case.w, bias)]
    conv.forward(gpu.kernels, *arrays, y, case.window, case.groups, activate)
    return gpu.to_host(y)


def run_input_grad(gpu, case):
    dx = poisoned(gpu, case.shape, case.dtype)
    arrays = map(gpu.to_device, (case.dz, case.w))
    conv.input_grad(gpu.kernels, *arrays, dx, case.window, case.groups)
    return gpu.to_host(dx)


def run_weight_grad(gpu, case):
    dw = poisoned(gpu, case.w.shape, case.dtype)
    arrays = map(gpu.to_device, (case.padded, case.dz))
    conv.weight_grad(gpu.kernels, *arrays, dw, case.window, case.groups)
    return gpu.to_host(dw)


every_case = pytest.mark.parametrize("name", CASES)
both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])


@both_types
@every_case
def test_forward_is_the_reference(gpu, name, dtype):
    case = Case(name, dtype)
    case.check(run_forward(gpu, case), case.forward(), case.w[:, 0].size)


@both_types
@every_case
def test_input_gradient_is_the_reference(gpu, name, dtype):
    case = Case(name, dtype)
    case.check(run_input_grad(gpu, case), case.input_grad(), case.w.size // case.shape[1])


@both_types
@every_case
def test_weight_gradient_is_the_reference(gpu, name, dtype):
    case = Case(name, dtype)
    case.check(run_weight_grad(gpu, case), case.weight_grad(), case.dz[:, 0].size)


GELU_LIKE = "__device__ inline T activate(T z) { return z > T(0) ? z * z : T(0.125) * z; }"


def gelu_like(z):
    return np.where(z > 0, z * z, 0.125 * z)


@pytest.mark.parametrize("name", ["digits", "odd batch", "groups", "one of each"])
def test_bias_and_then_the_activation_finish_the_forward_pass(gpu, name):
    case = Case(name, "float32")
    want = case.forward() + case.bias[:, None, None]
    case.check(run_forward(gpu, case, case.bias), want, case.w[:, 0].size)
    want, most = gelu_like(want), 2 * np.abs(want).max()  # its slope
    got = run_forward(gpu, case, case.bias, GELU_LIKE)
    case.check(got, want, most**2 * case.w[:, 0].size)
    case.check(
        run_forward(gpu, case, None, GELU_LIKE), gelu_like(case.forward()), most**2 * case.w[:, 0].size
    )


def run_all(gpu, case):
    return run_forward(gpu, case), run_input_grad(gpu, case), run_weight_grad(gpu, case)


@pytest.mark.parametrize("name", ["digits", "strides with dilation", "groups"])
def test_maps_beyond_the_range_of_int_give_the_same_bits(gpu, name, monkeypatch):
    case = Case(name, "float32")
    want = run_all(gpu, case)
    monkeypatch.setattr(conv, "LARGEST", 0)  # all offsets are 64 bits wide
    for got, of_int in zip(run_all(gpu, case), want):
        np.testing.assert_array_equal(got, of_int)


@pytest.mark.parametrize("name", ["first layer", "strides with dilation", "depthwise", "groups"])
def test_groups_phases_and_parts_beyond_a_grid_s_depth_take_a_further_launch(gpu, name, monkeypatch):
    case = Case(name, "float32")
    want = run_all(gpu, case)
    monkeypatch.setattr(conv, "DEPTH", 3)
    for got, of_one in zip(run_all(gpu, case), want):
        np.testing.assert_array_equal(got, of_one)


def test_no_grid_is_deeper_than_cuda_allows():
    launched = []

    class Launches:
        def launch(self, file, entry, grid, block, args, *rest, **types):
            launched.append((args[-1], grid[2]))

    pixel, weight = np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    conv.input_grad(Launches(), pixel, weight, pixel.copy(), Window((1, 1), (300, 500)))
    assert launched == [(0, 65535), (65535, 65535), (131070, 150_000 - 131_070)]


@pytest.mark.parametrize("blocks", [1, 10**6])
@pytest.mark.parametrize("rows", [1, 3, 8, 16, 32, 64, 70])
def test_every_tile_gives_the_reference(gpu, rows, blocks, monkeypatch):
    """Large tiles, which large maps have, and the smallest."""
    monkeypatch.setattr(conv, "BLOCKS", blocks)
    monkeypatch.setitem(CASES, "of rows", ((rows, 4, 5, 8), rows, Window((3, 2), padding=SAME), 1))
    case = Case("of rows", "float32")
    case.check(run_forward(gpu, case), case.forward(), 6 * rows)
    case.check(run_input_grad(gpu, case), case.input_grad(), 6 * rows)
    case.check(run_weight_grad(gpu, case), case.weight_grad(), case.dz[:, 0].size)


def test_tiles_fit_the_memory_and_threads_of_a_block():
    tiles = set()
    for itemsize in (4, 8):
        for rows in (1, 2, 3, 6, 10, 16, 30, 64, 100, 512):
            for columns in (1, 9, 27, 200, 3_000, 100_000, 10**7):
                tiles |= {
                    (conv.map_tile(rows, columns, depth, itemsize), itemsize, 4, 0) for depth in (1, 64)
                }
                tiles.add((conv.weight_tile(rows, columns, itemsize), itemsize, 0, 4))
    for tile, itemsize, of_side, of_k in tiles:
        assert 64 <= tile.threads <= 256 and tile.chunk <= tile.threads, tile
        assert tile.chunk % (4 * tile.slices) == 0, tile
        elements = sum((side + of_side) * (tile.chunk + of_k) for side in tile[:2])  # an upper bound
        elements = max(2 * elements, tile.threads * tile.tr * tile.tc)
        assert elements * itemsize + (tile.columns + 2 * tile.chunk) * 32 <= 48 << 10, tile
    assert {tile.rows for tile, *_ in tiles} == {1, 2, 4, 8, 16, 32, 64}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count, shape", [(1, (3,)), (2, (4, 8)), (8, (31,)), (29, (3, 5, 7)), (300, (1,))])
def test_parts_are_summed(gpu, count, shape, dtype):
    parts = np.random.default_rng(1).uniform(-1, 1, (count, *shape)).astype(dtype)
    out = poisoned(gpu, shape, dtype)
    conv.sum_parts(gpu.kernels, gpu.to_device(parts), out)
    eps, want = np.finfo(dtype).eps, parts.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(gpu.to_host(out), want, rtol=eps, atol=count * np.finfo(np.float64).eps)


def test_weight_gradient_of_many_parts_repeats_to_the_bit(gpu):
    case = Case("first layer", "float32")  # 36 parts
    first = run_weight_grad(gpu, case)
    np.testing.assert_array_equal(run_weight_grad(gpu, case), first)


def test_order_of_threads_does_not_change_a_bit(monkeypatch):
    if not host_cuda.available():
        pytest.skip("no g++ to run kernels on the CPU with")
    runs = []
    for reverse in (False, True):
        monkeypatch.setattr(host_cuda, "reverse", reverse)
        host = Gpu(host_cuda.kernels(), device_memory.copy, np.array)
        runs.append([run_all(host, Case(name, "float32")) for name in ("digits", "depthwise", "strides")])
    for first, second in zip(*runs):
        for a, b in zip(first, second):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["digits", "odd batch", "strides", "1x1", "depthwise"])
def test_a_value_that_is_not_finite_reaches_only_its_own_sums(gpu, name):
    """What pads a tile is zero times zero, not zero times something of the map."""
    case = Case(name, "float32")
    case.x[0, 0, 0, 0] = np.inf
    case.x[-1, -1, -1, -1] = np.nan
    case.padded = REFERENCE.pad(case.x, case.window.padding)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(np.isfinite(run_forward(gpu, case)), np.isfinite(case.forward()))
        np.testing.assert_array_equal(
            np.isfinite(run_weight_grad(gpu, case)), np.isfinite(case.weight_grad())
        )
    case.dz[0, 0, 0, 0], case.dz[-1, -1, -1, -1] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(np.isfinite(run_input_grad(gpu, case)), np.isfinite(case.input_grad()))


def test_maps_that_begin_between_runs_give_the_same_sums(gpu):
    """Loads of 16 bytes need such an address: maps of every other address go element by element."""
    case = Case("digits", "float32")

    def shifted(a):
        return gpu.to_device(np.append(np.float32(np.nan), a))[1:].reshape(a.shape)

    y = shifted(case.dz)
    conv.forward(gpu.kernels, shifted(case.padded), gpu.to_device(case.w), None, y, case.window)
    case.check(gpu.to_host(y), case.forward(), 90)
    dx = shifted(case.x)
    conv.input_grad(gpu.kernels, shifted(case.dz), gpu.to_device(case.w), dx, case.window)
    case.check(gpu.to_host(dx), case.input_grad(), 90)
