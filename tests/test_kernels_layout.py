"""The kernels that bring arrays into another order or type, against NumPy."""

import ctypes
import mmap
import sys

import kernel_cases
import numpy as np
import pytest

from xpnet.ops.kernels import CONTROL, cast, layout
from xpnet.ops.reference import Ops

gpu = kernel_cases.gpu

SHAPES = [
    (1, 1, 1, 1),
    (5, 3, 4, 6),
    (1, 2, 40, 7),  # one sample, more positions than a tile has
    (1000, 1, 2, 3),  # many samples, few positions
    (33, 3, 9, 5),  # ragged in both directions
    (4, 1, 8, 8),
    (64, 6, 11, 3),
    (3, 300, 1, 1),
]
DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float32",
    "float64",
]
VIEWS = {
    "channels last": lambda a: a.transpose(0, 3, 1, 2),
    "samples last": lambda a: a.transpose(3, 0, 1, 2),
    "every second sample": lambda a: a[::2],
    "samples reversed": lambda a: a[::-1],
    "flipped columns": lambda a: a[:, :, :, ::-1],
    "flipped rows of a part": lambda a: a[1:, :, ::-1, 1::2],
    "one channel": lambda a: a[:, 1:2],
}


def numbers(rng, shape, dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def uninitialised(gpu, shape, dtype):
    return gpu.kernels.empty(shape, dtype)


def control_of(gpu, **fields):
    control = np.zeros((), CONTROL)
    for name, value in fields.items():
        control[name] = value
    return gpu.to_device(np.frombuffer(control.tobytes(), np.uint8))


def address(a):
    return a.data.ptr if hasattr(a.data, "ptr") else a.ctypes.data


def packed(x, dtype):
    return np.ascontiguousarray(x.transpose(2, 1, 3, 0).astype(dtype))


@pytest.mark.parametrize("shape", SHAPES)
def test_pack_transposes_every_shape(gpu, rng, shape, precision):
    x = numbers(rng, shape, precision)
    out = uninitialised(gpu, shape[2:3] + shape[1:2] + shape[3:] + shape[:1], precision)
    layout.pack(gpu.kernels, gpu.to_device(x), out)
    np.testing.assert_array_equal(gpu.to_host(out), packed(x, precision))


@pytest.mark.parametrize("dtype", DTYPES)
def test_pack_converts_every_type_as_numpy_does(gpu, rng, dtype):
    x = numbers(rng, (9, 3, 5, 4), dtype)
    for precision in ("float32", "float64"):
        out = uninitialised(gpu, (5, 3, 4, 9), precision)
        layout.pack(gpu.kernels, gpu.to_device(x), out)
        np.testing.assert_array_equal(gpu.to_host(out), packed(x, precision))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_pack_reads_views_where_they_stand(gpu, rng, view, dtype):
    x = numbers(rng, (6, 5, 7, 8), dtype)
    out = uninitialised(gpu, packed(VIEWS[view](x), "float32").shape, "float32")
    layout.pack(gpu.kernels, VIEWS[view](gpu.to_device(x)), out)
    np.testing.assert_array_equal(gpu.to_host(out), packed(VIEWS[view](x), "float32"))


def test_pack_of_no_samples_does_nothing(gpu):
    layout.pack(
        gpu.kernels, gpu.to_device(np.zeros((0, 2, 3, 4), np.uint8)), uninitialised(gpu, (3, 2, 4, 0), "f4")
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_unpack_undoes_pack(gpu, rng, shape, precision):
    x = numbers(rng, shape, precision)
    out = uninitialised(gpu, shape, precision)
    layout.unpack(gpu.kernels, gpu.to_device(packed(x, precision)), out)
    np.testing.assert_array_equal(gpu.to_host(out), x)


@pytest.mark.parametrize("N", [1, 2, 4, 7, 100, 128])
@pytest.mark.parametrize("padding", [((1, 2), (0, 3)), ((0, 0), (2, 1)), ((3, 0), (0, 0)), ((0, 0), (0, 0))])
def test_pad_writes_border_and_middle(gpu, rng, N, padding, precision):
    x = numbers(rng, (3, 2, 4, N), precision)
    (top, bottom), (left, right) = padding
    for value in (0.0, -np.inf):
        out = uninitialised(gpu, (3 + top + bottom, 2, 4 + left + right, N), precision)
        layout.pad(gpu.kernels, gpu.to_device(x), out, padding, value)
        np.testing.assert_array_equal(gpu.to_host(out), Ops().pad(x, padding, value))


def test_pad_of_memory_that_is_not_aligned(gpu, rng):
    x = numbers(rng, (3, 2, 4, 8), "float32")
    memory = gpu.to_device(np.concatenate([np.zeros(1, "f4"), x.reshape(-1)]))
    out = uninitialised(gpu, (4, 2, 5, 8), "float32")
    layout.pad(gpu.kernels, memory[1:].reshape(x.shape), out, ((1, 0), (0, 1)), 2.0)
    np.testing.assert_array_equal(gpu.to_host(out), Ops().pad(x, ((1, 0), (0, 1)), 2.0))


def test_pad_into_memory_that_is_not_aligned(gpu, rng):
    x = numbers(rng, (3, 2, 4, 8), "float32")
    memory = uninitialised(gpu, 1 + 4 * 2 * 5 * 8, "float32")
    out = memory[1:].reshape(4, 2, 5, 8)
    layout.pad(gpu.kernels, gpu.to_device(x), out, ((1, 0), (0, 1)), 2.0)
    np.testing.assert_array_equal(gpu.to_host(out), Ops().pad(x, ((1, 0), (0, 1)), 2.0))


class Edge:
    """An array of the CPU right behind memory that may not be read (first), or right before such (last)."""

    def __init__(self, a):
        page = mmap.PAGESIZE
        size = -(-a.nbytes // page) * page
        self.memory = mmap.mmap(-1, size + 2 * page)
        start = np.frombuffer(self.memory, np.uint8).ctypes.data
        libc = ctypes.CDLL(None, use_errno=True)
        for at in (start, start + page + size):
            assert not libc.mprotect(ctypes.c_void_p(at), page, 0)
        room = np.frombuffer(self.memory, np.uint8)[page : page + size]
        self.first = room[: a.nbytes].view(a.dtype).reshape(a.shape)
        self.last = room[size - a.nbytes :].view(a.dtype).reshape(a.shape)


def test_nothing_is_read_before_or_behind_the_samples(gpu, rng):
    """Though the threads of a tile are more than its samples and positions."""
    if not isinstance(gpu.kernels.empty(1, "f4"), np.ndarray):
        pytest.skip("memory is protected on the CPU")
    if sys.platform != "linux":
        pytest.skip("protects memory as Linux does")
    for shape in [(5, 2, 3, 3), (1, 3, 7, 5), (37, 1, 4, 4)]:
        x = numbers(rng, shape, "float32")
        edge = Edge(x)
        for placed in (edge.first, edge.last):
            placed[...] = x
            out = uninitialised(gpu, (shape[2], shape[1], shape[3], shape[0]), "float32")
            layout.pack(gpu.kernels, placed, out)
            np.testing.assert_array_equal(out, packed(x, "float32"))
            whole = packed(x, "float32")
            room = placed.reshape(whole.shape)
            room[...] = whole
            back = uninitialised(gpu, shape, "float32")
            layout.unpack(gpu.kernels, room, back)
            np.testing.assert_array_equal(back, x)


def test_samples_beyond_32_bits_are_found(gpu):
    """Sample number times the size of a sample passes 2^31 in data sets of a few gigabytes."""
    if not isinstance(gpu.kernels.empty(1, "f4"), np.ndarray):
        pytest.skip("memory that is never touched costs nothing on the CPU alone")
    x = np.zeros((3 << 20, 1024), np.uint8)  # only the pages that are read exist
    x[-1] = np.arange(1024) % 251
    order = gpu.to_device(np.array([0, len(x) - 1]))
    control = control_of(gpu, x=address(x), order=address(order))
    rows = uninitialised(gpu, (2, 1024), "float32")
    layout.gather_rows(gpu.kernels, control, "x", "uint8", rows)
    np.testing.assert_array_equal(rows, x[[0, -1]])
    maps = uninitialised(gpu, (32, 1, 32, 2), "float32")
    layout.gather_map(gpu.kernels, control, np.dtype("uint8"), (1024, 1024, 32, 1), maps)
    np.testing.assert_array_equal(maps, packed(x[[0, -1]].reshape(2, 1, 32, 32), "float32"))


def test_maps_beyond_32_bits_are_numbered_with_64(gpu, rng, monkeypatch):
    monkeypatch.setattr(layout, "LARGE", 1)
    launch, used = gpu.kernels.launch, []
    monkeypatch.setattr(
        gpu.kernels, "launch", lambda *a, **types: (used.append(types["I"]), launch(*a, **types))
    )
    x, padding = numbers(rng, (3, 2, 4, 6), "float32"), ((1, 2), (2, 1))
    out = uninitialised(gpu, (6, 2, 7, 6), "float32")
    layout.pad(gpu.kernels, gpu.to_device(x), out, padding)
    np.testing.assert_array_equal(gpu.to_host(out), Ops().pad(x, padding))
    data, order = gpu.to_device(x), gpu.to_device(np.array([2, 0]))
    out = uninitialised(gpu, (2, 2, 4, 6), "float32")
    layout.gather_rows(
        gpu.kernels, control_of(gpu, x=address(data), order=address(order)), "x", "float32", out
    )
    np.testing.assert_array_equal(gpu.to_host(out), x[[2, 0]])
    assert used == ["uint64", "uint64"]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
@pytest.mark.parametrize("N", [1, 8, 37])
def test_gather_map_packs_the_samples_whose_turn_it_is(gpu, rng, N, dtype, channels_last, precision):
    shape = (50, 6, 7, 3) if channels_last else (50, 3, 6, 7)
    x, order = numbers(rng, shape, dtype), rng.permutation(50)
    data, numbers_ = gpu.to_device(x), gpu.to_device(order)
    control = control_of(gpu, x=address(data), order=address(numbers_), cursor=11)
    axes = (0, 3, 1, 2) if channels_last else (0, 1, 2, 3)
    strides = tuple(s // x.itemsize for s in x.transpose(axes).strides)
    out = uninitialised(gpu, (6, 3, 7, N), precision)
    layout.gather_map(gpu.kernels, control, np.dtype(dtype), strides, out)
    np.testing.assert_array_equal(gpu.to_host(out), packed(x.transpose(axes)[order[11 : 11 + N]], precision))


@pytest.mark.parametrize("which", "xyw")
@pytest.mark.parametrize(
    "shape, dtype, wanted",
    [
        ((40, 5), "uint8", "float32"),
        ((40, 700), "float32", "float32"),
        ((40,), "int64", "int64"),
        ((40,), "float64", "float64"),
        ((40, 2, 3), "bool", "float32"),
    ],
)
@pytest.mark.parametrize("N", [1, 17])
def test_gather_rows_takes_the_rows_whose_turn_it_is(gpu, rng, which, shape, dtype, wanted, N):
    a, order = numbers(rng, shape, dtype), rng.permutation(40)
    data, numbers_ = gpu.to_device(a), gpu.to_device(order)
    control = control_of(gpu, **{which: address(data), "order": address(numbers_), "cursor": 23})
    out = uninitialised(gpu, (N, *shape[1:]), wanted)
    layout.gather_rows(gpu.kernels, control, which, dtype, out)
    np.testing.assert_array_equal(gpu.to_host(out), a[order[23 : 23 + N]].astype(wanted))


# -- bfloat16 --------------------------------------------------------------------------------------------

EDGES = np.array(
    [0x00000000, 0x80000000, 0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F800000,
     0xFF800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800001, 0xFFFFFFFF, 0x7FC00000, 0x00000001, 0x00008000,
     0x00018000, 0x807FFFFF],
    np.uint32,
).view(np.float32)  # fmt: skip


def nearest_bfloat16(x):
    """By the definition: of the two neighbours the nearer, of equally near ones the even one."""
    bits = x.view(np.uint32)
    low = (bits >> 16).astype(np.uint32)
    with np.errstate(all="ignore"):
        below, above = ((b << 16).astype(np.uint32).view(np.float32).astype(float) for b in (low, low + 1))
    above = np.where(
        np.isinf(above), np.copysign(2.0**128, above), above
    )  # where overflow begins to round up
    wide = x.astype(float)
    with np.errstate(all="ignore"):
        up, down = np.abs(above - wide), np.abs(wide - below)
    return np.where((up < down) | ((up == down) & (low % 2 == 1)), low + 1, low).astype(np.uint16)


@pytest.mark.parametrize("size", [1, 3, 4, 1021, 5000])
def test_bfloat16_is_the_nearest_and_ties_go_to_even(gpu, rng, size):
    x = np.resize(
        np.concatenate([EDGES, numbers(rng, 5000, "uint32").view(np.float32)]), max(size, len(EDGES))
    )
    x = x[-size:] if size < len(EDGES) else x
    out = uninitialised(gpu, len(x), np.uint16)
    cast.to_bfloat16(gpu.kernels, gpu.to_device(x), out)
    got, real = gpu.to_host(out), np.isfinite(x)
    np.testing.assert_array_equal(got[real], nearest_bfloat16(x[real]))
    np.testing.assert_array_equal(got[np.isinf(x)], (x[np.isinf(x)].view(np.uint32) >> 16).astype(np.uint16))
    nan = got[np.isnan(x)]
    assert ((nan & 0x7F80) == 0x7F80).all() and (nan & 0x7F).all(), "a NaN did not stay one"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1022, 1023])
def test_bfloat16_leaves_what_lies_behind_alone(gpu, rng, size):
    """Guards of NaN would not show it: a NaN is what NaN is rounded to."""
    x, out = gpu.to_device(np.arange(size + 8, dtype="f4")), gpu.to_device(np.full(size + 8, 7, np.uint16))
    cast.to_bfloat16(gpu.kernels, x[:size], out[:size])
    got = gpu.to_host(out)
    np.testing.assert_array_equal(got[:size], nearest_bfloat16(np.arange(size, dtype="f4")))
    assert (got[size:] == 7).all()


def test_bfloat16_of_memory_that_is_not_aligned(gpu, rng):
    x = rng.normal(size=42).astype("f4")
    out = uninitialised(gpu, 43, np.uint16)
    cast.to_bfloat16(gpu.kernels, gpu.to_device(x)[1:], out[2:])
    np.testing.assert_array_equal(gpu.to_host(out)[2:], nearest_bfloat16(x[1:]))


def test_bfloat16_comes_back_exactly(gpu, precision):
    bits = np.arange(65536, dtype=np.uint16)
    out = uninitialised(gpu, 65536, precision)
    cast.from_bfloat16(gpu.kernels, gpu.to_device(bits), out)
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = (bits.astype(np.uint32) << 16).view(np.float32).astype(precision)
    np.testing.assert_array_equal(gpu.to_host(out), expected)


@pytest.mark.torch
def test_bfloat16_as_torch_rounds(gpu, rng):
    torch = pytest.importorskip("torch")
    x = np.concatenate([EDGES[~np.isnan(EDGES)], rng.normal(size=999).astype("f4")])
    out = uninitialised(gpu, x.shape, np.uint16)
    cast.to_bfloat16(gpu.kernels, gpu.to_device(x), out)
    expected = torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(gpu.to_host(out), expected)
