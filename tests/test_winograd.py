"""Winograd's way of 3x3 convolution, against the plain operation."""

import numpy as np
import pytest

from xpnet.ops import convolution, winograd
from xpnet.ops.geometry import Window
from xpnet.ops.numpy_ops import NumpyOps
from xpnet.ops.reference import Ops

# (H, W) of the map and ((top, bottom), (left, right)) of zeros around it
MAPS = {
    "exact": ((10, 10), ((0, 0), (0, 0))),
    "same": ((8, 8), ((1, 1), (1, 1))),
    "odd": ((7, 9), ((1, 1), (1, 1))),
    "lopsided": ((6, 11), ((0, 2), (2, 1))),
    "tiny": ((3, 3), ((0, 0), (0, 0))),
    "one row": ((1, 13), ((1, 1), (0, 0))),
}
# the largest error relative to the largest value: what is promised of each form in float32
PROMISED = {np.float64: {2: 1e-13, 4: 1e-12}, np.float32: {2: 1e-5, 4: 1e-4}}


@pytest.fixture(params=["one block", "many blocks"])
def size_of_blocks(request, monkeypatch):
    """Blocks of everything, or of so few tiles that a tile row is cut in parts that are not alike."""
    if request.param == "many blocks":
        monkeypatch.setattr(winograd, "LEAST", 1)
        monkeypatch.setattr(winograd, "MOST", 6)


def sample(shape, padding, C, F, N, dtype):
    """x without its border, x within it, w, dz and the window."""
    rng = np.random.default_rng(7)
    (H, W), window = shape, Window((3, 3), padding=padding)
    x = rng.standard_normal((H, C, W, N)).astype(dtype)
    w = rng.standard_normal((3, F, 3, C)).astype(dtype)
    OH, OW = window.out_size(H, W)
    dz = rng.standard_normal((OH, F, OW, N)).astype(dtype)
    return x, Ops().pad(x, padding), w, dz, window


def close(got, expected, m):
    error = abs(got - expected).max() / abs(expected).max()
    assert got.dtype == expected.dtype
    assert error < PROMISED[got.dtype.type][m], f"relative error {error:.1e}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.usefixtures("size_of_blocks")
def test_all_three_directions(m, name, N, dtype):
    x, padded, w, dz, window = sample(*MAPS[name], 3, 5, N, dtype)
    (top, _), (left, _) = window.padding
    plain = Ops()

    y = np.full(dz.shape, np.nan, dtype)
    winograd.convolve(m, x, w, y, origin=(-top, -left))
    close(y, plain.conv2d(padded, w, window.bare), m)

    dw, expected = np.full_like(w, np.nan), np.empty_like(w)
    winograd.weight_gradient(m, x, dz, dw, origin=(-top, -left))
    plain.conv2d_weight_grad(padded, dz, expected, window.bare)
    close(dw, expected, m)

    dx = np.full_like(x, np.nan)
    winograd.convolve(m, dz, w, dx, origin=(top - 2, left - 2), turned=True)
    close(dx, plain.conv2d_input_grad(dz, w, x.shape, window), m)


@pytest.mark.parametrize("m", [2, 4])
def test_a_padded_map_and_zeros_beyond_the_map_are_the_same(m):
    x, padded, w, dz, _ = sample(*MAPS["lopsided"], 4, 3, 2, np.float64)
    there, beyond = np.empty_like(dz), np.empty_like(dz)
    winograd.convolve(m, padded, w, there)
    winograd.convolve(m, x, w, beyond, origin=(0, -2))
    np.testing.assert_array_equal(there, beyond)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.usefixtures("size_of_blocks")
def test_finish_gets_every_row_once_and_whole(m):
    _, padded, w, dz, window = sample(*MAPS["odd"], 2, 3, 2, np.float64)
    y = np.full(dz.shape, np.nan)
    times = np.zeros(len(y))

    def finish(rows):
        assert not np.isnan(rows).any()
        first = (rows.ctypes.data - y.ctypes.data) // y.strides[0]
        times[first : first + len(rows)] += 1
        rows += 1000

    winograd.convolve(m, padded, w, y, finish=finish)
    np.testing.assert_array_equal(times, 1)
    np.testing.assert_allclose(y, Ops().conv2d(padded, w, window.bare) + 1000, rtol=1e-12)


@pytest.mark.parametrize("m", [2, 4])
def test_the_transforms_are_the_minimal_algorithm(m):
    """For one tile of one channel: what Lavin & Gray's formula says, with numbers that need no rounding."""
    f = winograd.form(m, np.dtype(np.float64))
    t = m + 2
    assert (
        f.kernel.shape == (t * t, 9) and f.input.shape == (t * t, t * t) and f.output.shape == (m * m, t * t)
    )
    rng = np.random.default_rng(0)
    d, g = rng.integers(-9, 9, (t, t)).astype(float), rng.integers(-9, 9, (3, 3)).astype(float)
    y = f.output @ ((f.kernel @ g.ravel()) * (f.input @ d.ravel()))
    expected = [(d[i : i + 3, j : j + 3] * g).sum() for i in range(m) for j in range(m)]
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    ("m", "shape", "C"), [(4, (24, 64, 24, 64), 32), (2, (5, 3, 7, 1), 2), (4, (8, 256, 8, 32), 256)]
)
def test_blocks_cover_the_output_once(m, shape, C):
    OH, F, OW, N = shape
    covered = np.zeros((OH + m, OW + m), int)
    for tiles in winograd.blocks(m, shape, C):
        covered[tiles.top : tiles.bottom, tiles.left : tiles.right] += 1
        assert tiles.columns == tiles.rows * tiles.cols * N
        assert tiles.columns <= max(winograd.MOST, N)
    assert (covered[:OH, :OW] == 1).all()


def test_large_errors_do_not_hide_in_wide_layers():
    """256 channels in float32, against float64: errors of the 4x4 form stay within what is promised."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((10, 256, 10, 4)).astype(np.float32)
    w = (rng.standard_normal((3, 64, 3, 256)) / 48).astype(np.float32)
    y = np.empty((8, 64, 8, 4), np.float32)
    winograd.convolve(4, x, w, y)
    exact = Ops().conv2d(x.astype(np.float64), w.astype(np.float64), Window((3, 3)))
    assert abs(y - exact).max() / abs(exact).max() < 1e-4


# -- which way is taken -------------------------------------------------------------------------------------


def test_only_plain_3x3_windows_go_by_tiles():
    kernel, y = (3, 128, 3, 128), (16, 128, 16, 32)
    assert convolution.tile(kernel, y, Window((3, 3)), 1) == 4
    assert convolution.tile(kernel, y, Window((3, 3)), 2) == 0
    assert convolution.tile(kernel, y, Window((3, 3), strides=(1, 2)), 1) == 0
    assert convolution.tile(kernel, y, Window((3, 3), dilation=(2, 1)), 1) == 0
    assert convolution.tile((5, 128, 5, 128), y, Window((5, 5)), 1) == 0
    assert convolution.tile((3, 4, 3, 4), y, Window((3, 3)), 1) == 0, "transforms cost more than they save"


@pytest.mark.parametrize("padding", ["exact", "same", "lopsided"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_ops_take_the_route_in_every_direction(padding, dtype, monkeypatch):
    shape, zeros = MAPS[padding]
    C, F, N = 48, 40, 5
    x, padded, w, dz, window = sample(shape, zeros, C, F, N, dtype)
    ways = []
    monkeypatch.setattr(convolution, "tile", lambda *shapes: ways.append(shapes) or 4)
    ops, plain = NumpyOps(), Ops()
    bias = np.linspace(-1, 1, F).astype(dtype)
    close(ops.conv2d(x, w, window, bias=bias), plain.conv2d(padded, w, window.bare, bias=bias), 4)
    got, expected = np.empty_like(w), np.empty_like(w)
    ops.conv2d_weight_grad(x, dz, got, window)
    plain.conv2d_weight_grad(padded, dz, expected, window.bare)
    close(got, expected, 4)
    got = ops.conv2d_input_grad(dz, w, x.shape, window)
    close(got, plain.conv2d_input_grad(dz, w, x.shape, window), 4)
    assert len(ways) == 5  # of which two ask for the border
