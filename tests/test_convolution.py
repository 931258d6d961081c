"""The CPU's ways of reading a map, each against the plain operation."""

from typing import NamedTuple

import numpy as np
import pytest

from xpnet.ops import convolution
from xpnet.ops.geometry import Window
from xpnet.ops.numpy_ops import NumpyOps
from xpnet.ops.reference import Ops


class Case(NamedTuple):
    shape: tuple  # H, C, W, N of the map without its border
    F: int
    window: Window
    groups: int = 1


CASES = {
    "a 1x1 kernel": Case((5, 4, 6, 3), 7, Window((1, 1))),
    "a 1x1 kernel with strides": Case((5, 4, 8, 3), 7, Window((1, 1), (2, 3))),
    "a 1x1 kernel with strides that end at the edge": Case((5, 4, 7, 2), 3, Window((1, 1), (2, 2))),
    "a 1x1 kernel with strides and groups": Case((6, 4, 7, 2), 6, Window((1, 1), (2, 2)), 2),
    "a 1x1 kernel with strides and a border": Case(
        (5, 2, 5, 2), 3, Window((1, 1), (2, 2), (1, 1), ((1, 1), (1, 0)))
    ),
    "a row": Case((5, 3, 6, 2), 4, Window((1, 3), padding=((0, 0), (1, 1)))),
    "a column": Case((6, 3, 5, 2), 4, Window((3, 1), padding=((1, 1), (0, 0)))),
    "same": Case((6, 3, 7, 2), 4, Window((3, 3), padding=((1, 1), (1, 1)))),
    "same with an even kernel": Case((6, 3, 7, 2), 4, Window((4, 2), padding=((1, 2), (0, 1)))),
    "a border wider than the kernel": Case((4, 2, 4, 3), 3, Window((3, 3), padding=((4, 3), (3, 5)))),
    "rows with strides": Case((9, 2, 6, 2), 3, Window((3, 3), (2, 1), padding=((1, 1), (1, 1)))),
    "columns with strides": Case((6, 2, 9, 2), 3, Window((3, 3), (1, 2), padding=((1, 1), (1, 1)))),
    "a 4x4 kernel with strides": Case((8, 3, 8, 2), 4, Window((4, 4), (2, 2), padding=((1, 1), (1, 1)))),
    "a kernel shorter than its strides": Case((7, 3, 9, 2), 4, Window((2, 1), (3, 2))),
    "strides that leave a rest": Case((9, 2, 10, 2), 3, Window((3, 4), (4, 3))),
    "a border wider than a strided kernel": Case(
        (4, 2, 5, 3), 3, Window((3, 2), (2, 3), padding=((4, 3), (3, 5)))
    ),
    "long strides and a border": Case((9, 2, 11, 2), 3, Window((4, 5), (3, 3), padding=((1, 2), (2, 0)))),
    "strides longer than the map": Case((2, 3, 2, 5), 4, Window((3, 3), (3, 3), padding=((1, 0), (1, 0)))),
    "groups with strides": Case((7, 4, 6, 2), 6, Window((3, 3), (2, 2), padding=((1, 0), (0, 1))), 2),
    "strides, columns apart": Case((6, 2, 9, 2), 3, Window((3, 3), (2, 1), (1, 2))),
    "columns apart": Case((6, 2, 9, 2), 3, Window((3, 3), (1, 1), (1, 2))),
    "rows apart": Case((9, 2, 6, 2), 3, Window((3, 3), (1, 1), (2, 1))),
    "many filters, few channels": Case((5, 1, 5, 2), 40, Window((3, 3))),
    "short rows of a wide layer": Case((4, 12, 3, 1), 24, Window((3, 2))),
    "depthwise": Case((6, 5, 7, 2), 5, Window((3, 3), padding=((1, 1), (1, 1))), 5),
    "depthwise with strides, apart": Case(
        (9, 4, 8, 3), 4, Window((3, 2), (2, 3), (2, 1), ((1, 0), (2, 1))), 4
    ),
    "one channel in one group": Case((5, 1, 5, 2), 1, Window((3, 3)), 1),
}


@pytest.fixture(
    params=["as it is", "large", "in place", "in pieces", "tiny blocks"],
)
def way(request, monkeypatch):
    """What is decided by sizes, decided otherwise: these maps are all small."""
    changes = {
        "large": {"SMALL": 0, "LARGE": 0, "RUN": 0},
        "in place": {"LONG": 1, "LONGER": 1},
        "in pieces": {"UNPACKED": 60, "LEAST_COLUMNS": 1},
        "tiny blocks": {"CACHE": 1, "SMALL": 0},
    }
    for name, value in changes.get(request.param, {}).items():
        monkeypatch.setattr(convolution, name, value)
    convolution._pieces.cache_clear()
    yield request.param
    convolution._pieces.cache_clear()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("way")
def test_every_way_of_reading_a_map(name):
    shape, F, window, groups = CASES[name]
    H, C, W, N = shape
    rng = np.random.default_rng(0)
    plain, ops = Ops(), NumpyOps()
    x = rng.standard_normal(shape)
    padded = plain.pad(x, window.padding)
    (KH, KW), (OH, OW) = window.kernel, window.out_size(H, W)
    w = rng.standard_normal((KW, F, KH, C // groups))
    bias, dz = rng.standard_normal(F), rng.standard_normal((OH, F, OW, N))
    kept = [a.copy() for a in (padded, w, bias, dz)]

    expected = plain.conv2d(padded, w, window.bare, groups, bias)
    np.testing.assert_allclose(
        ops.conv2d(padded, w, window.bare, groups, bias), expected, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(ops.conv2d(x, w, window, groups, bias), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(plain.conv2d(x, w, window, groups, bias), expected)
    dw, expected = np.full_like(w, np.nan), np.empty_like(w)
    ops.conv2d_weight_grad(padded, dz, dw, window.bare, groups)
    plain.conv2d_weight_grad(padded, dz, expected, window.bare, groups)
    np.testing.assert_allclose(dw, expected, rtol=1e-12, atol=1e-12)
    expected = plain.conv2d_input_grad(dz, w, shape, window, groups)
    dx = ops.conv2d_input_grad(dz, w, shape, window, groups)
    assert dx.shape == shape and dx.flags.c_contiguous
    np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-12)
    for a, before in zip((padded, w, bias, dz), kept):
        np.testing.assert_array_equal(a, before, "an input was written")


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_map_that_is_a_view(kernel):
    """A user's layer may hand on x[::-1] or a part of a map."""
    rng = np.random.default_rng(0)
    whole, w = rng.standard_normal((8, 3, 7, 4)), rng.standard_normal((kernel, 2, kernel, 3))
    window = Window((kernel, kernel))
    for x in (whole[::-1], whole[1:7, :, 1:6], whole[..., ::2], whole.transpose(2, 1, 0, 3)):
        expected = Ops().conv2d(x, w, window)
        np.testing.assert_allclose(NumpyOps().conv2d(x, w, window), expected, rtol=1e-12, atol=1e-12)
        dz, got = rng.standard_normal(expected.shape), np.empty_like(w)
        wanted = np.empty_like(w)
        Ops().conv2d_weight_grad(x, dz, wanted, window)
        NumpyOps().conv2d_weight_grad(x, dz, got, window)
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_pieces_divide_the_columns_and_stay_below_the_limit():
    for size, columns in ((150 * 16, 640), (9 * 32, 1664), (27 * 64, 1024), (64 * 192, 1024), (10, 7)):
        pieces = convolution._pieces(size, columns)
        assert columns % pieces == 0
        assert pieces == 1 or size * columns // pieces <= convolution.UNPACKED
        assert pieces == 1 or columns // pieces >= convolution.LEAST_COLUMNS
    assert convolution._pieces(150 * 16, 640) == 2
    assert convolution._pieces(10, 7) == 1


@pytest.mark.parametrize("rows", [1, 8, 20, 64, 65])
@pytest.mark.parametrize("columns", [10, 64, 100])
def test_few_rows_by_a_transposed_matrix(rows, columns):
    rng = np.random.default_rng(0)
    a, w = rng.standard_normal((rows, 30)), rng.standard_normal((columns, 30))
    y = NumpyOps().matmul(a, w.T)
    assert y.flags.c_contiguous
    np.testing.assert_allclose(y, a @ w.T, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(NumpyOps().matmul(a, w.T.copy()), a @ w.T, rtol=1e-13, atol=1e-13)


def test_lines_that_would_be_whole_pages_apart_have_a_tail():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((5, 1, 10, 64)), rng.standard_normal((3, 4, 3, 1))  # 8 * 64 * 8 bytes a line
    ops, window = NumpyOps(), Window((3, 3))
    beside = ops.columns_beside(x, window, 8)
    assert beside.strides[1] % convolution.PAGE and beside.shape == (5, 3, 8 * 64 + 8)
    np.testing.assert_array_equal(beside[:, 1, : 8 * 64], x[:, 0, 1:9].reshape(5, -1))
    expected = Ops().conv2d(x, w, window)
    np.testing.assert_allclose(ops.conv2d(x, w, window), expected, rtol=1e-12, atol=1e-12)
    dz, got, wanted = rng.standard_normal(expected.shape), np.empty_like(w), np.empty_like(w)
    ops.conv2d_weight_grad(x, dz, got, window)
    Ops().conv2d_weight_grad(x, dz, wanted, window)
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
    assert ops.columns_beside(x[..., :60].copy(), window, 8).shape == (5, 3, 8 * 60)
