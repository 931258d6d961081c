"""Every operation, over every set of operations, against one that is written out in the plainest way."""

import math
import threading

import numpy as np
import pytest
from cases import assert_close

from xpnet import activations
from xpnet.ops import convolution, memory
from xpnet.ops.geometry import Window
from xpnet.ops.numpy_ops import NumpyOps
from xpnet.ops.reference import Ops, philox_bits

ROUNDING = {"float32": 5e-6, "float64": 1e-13}


def host(a):
    return a.get() if hasattr(a, "get") else np.asarray(a)


@pytest.fixture(params=["whole", "small-blocks"])
def blocks(request, monkeypatch):
    """NumpyOps as it is, and made to work in blocks of one or two rows even on small maps."""
    if request.param == "small-blocks":
        monkeypatch.setattr(convolution, "CACHE", 3000)


# -- convolution ---------------------------------------------------------------------------------------------


class Convolution:
    """One random geometry, its arrays and the values that a loop over everything gives for them."""

    def __init__(self, seed, precision):
        rng = np.random.default_rng(seed)
        thick = seed % 3 == 0  # enough channels for the routes that read a map in place

        def pair(low, high):
            return tuple(int(v) for v in rng.integers(low, high + 1, 2))

        kernel, strides, dilation = pair(1, 5), pair(1, 3), pair(1, 3)
        if thick:
            strides, dilation = (1, 1) if seed % 2 else strides, (1, 1)
        elif seed % 4 == 1:
            strides = dilation = (1, 1)
        padding = (pair(0, 3), pair(0, 3)) if seed % 2 else ((0, 0), (0, 0))
        self.window = Window(kernel, strides, dilation, padding)
        self.groups = int(rng.choice([1, 1, 1, 2, 3]))
        inner = int(rng.choice([70, 33])) if thick else int(rng.integers(1, 5))  # channels of a group
        if seed % 7 == 3:
            self.groups, inner = 5, 1  # depthwise
        C, F = self.groups * inner, self.groups * int(rng.integers(1, 4))
        N = int(rng.choice([1, 7]))
        EH, EW = self.window.extent
        (top, bottom), (left, right) = padding
        H = max(1, EH - top - bottom) + int(rng.integers(0, 5))
        W = max(1, EW - left - right) + int(rng.integers(0, 5))
        self.OH, self.OW = self.window.out_size(H, W)
        self.shape = H, C, W, N
        x = rng.standard_normal(self.shape)
        w = rng.standard_normal((kernel[1], F, kernel[0], inner))
        dz = rng.standard_normal((self.OH, F, self.OW, N))
        self.x, self.w, self.dz = (a.astype(precision) for a in (x, w, dz))
        self.padded = np.pad(self.x, (padding[0], (0, 0), padding[1], (0, 0)))

    def elements(self):
        """Each group and kernel element, its part of the padded map, and the group's output channels."""
        (SH, SW), (DH, DW), (KH, KW) = self.window.strides, self.window.dilation, self.window.kernel
        F, inner = self.w.shape[1] // self.groups, self.w.shape[3]
        for g in range(self.groups):
            for i in range(KH):
                for j in range(KW):
                    rows = i * DH + SH * np.arange(self.OH)
                    columns = j * DW + SW * np.arange(self.OW)
                    channels = np.arange(g * inner, (g + 1) * inner)
                    yield g, i, j, np.ix_(rows, channels, columns), slice(g * F, (g + 1) * F)

    def expected(self):
        """y, dw, dx in float64, from the definition of the convolution."""
        x, w, dz = (a.astype(np.float64) for a in (self.padded, self.w, self.dz))
        y, dw, dpadded = np.zeros(dz.shape), np.zeros(w.shape), np.zeros(x.shape)
        for _, i, j, patch, out in self.elements():
            y[:, out] += np.einsum("fc,hcwn->hfwn", w[j, out, i], x[patch])
            dw[j, out, i] = np.einsum("hfwn,hcwn->fc", dz[:, out], x[patch])
            dpadded[patch] += np.einsum("fc,hfwn->hcwn", w[j, out, i], dz[:, out])
        (top, _), (left, _) = self.window.padding
        return y, dw, dpadded[top : top + self.shape[0], :, left : left + self.shape[2]]


@pytest.mark.parametrize("seed", range(48))
def test_convolution_and_both_gradients(ops, precision, blocks, seed):
    c = Convolution(seed, precision)
    y, dw, dx = c.expected()
    rtol = ROUNDING[precision]
    x, w, dz = ops.asarray(c.padded), ops.asarray(c.w), ops.asarray(c.dz)
    received = ops.conv2d(x, w, c.window.bare, c.groups)
    assert received.dtype == precision and received.flags.c_contiguous
    assert_close(host(received), y, rtol, "y")
    out = ops.empty(w.shape, w.dtype)
    ops.conv2d_weight_grad(x, dz, out, c.window.bare, c.groups)
    assert_close(host(out), dw, rtol, "dw")
    received = ops.conv2d_input_grad(dz, w, c.shape, c.window, c.groups)
    assert received.dtype == precision and received.flags.c_contiguous
    assert_close(host(received), dx, rtol, "dx")


@pytest.mark.parametrize("seed", range(12))
def test_bias_and_activation_reach_every_row_once(ops, blocks, seed, rng):
    c = Convolution(seed, "float64")
    x, w = ops.asarray(c.padded), ops.asarray(c.w)
    plain, bias = host(ops.conv2d(x, w, c.window.bare, c.groups)), rng.standard_normal(c.w.shape[1])
    want = plain + bias[:, None, None]
    assert_close(host(ops.conv2d(x, w, c.window.bare, c.groups, ops.asarray(bias))), want, 1e-12)
    y = ops.conv2d(x, w, c.window.bare, c.groups, ops.asarray(bias), activations.get("elu"))
    assert_close(host(y), np.where(want > 0, want, np.expm1(want)), 1e-12)


@pytest.mark.parametrize("seed", range(24))
def test_col2im_is_the_adjoint_of_im2col(ops, seed):
    """<im2col x, c> = <x, col2im c> for every x and c."""
    c = Convolution(seed, "float64")
    window, rng = c.window._replace(padding=((0, 0), (0, 0))), np.random.default_rng(seed)
    cols = ops.im2col(ops.asarray(c.padded), window, c.groups)
    other = rng.standard_normal(cols.shape)
    back = ops.col2im(ops.asarray(other), ops.asarray(np.zeros(c.padded.shape)), window)
    assert (host(cols) * other).sum() == pytest.approx((c.padded * host(back)).sum(), rel=1e-12)


@pytest.mark.parametrize("seed", range(24))
def test_im2col_lays_patches_in_the_order_of_the_weight(ops, seed):
    c = Convolution(seed, "float64")
    window, (KH, KW), inner = c.window._replace(padding=((0, 0), (0, 0))), c.window.kernel, c.w.shape[3]
    cols = host(ops.im2col(ops.asarray(c.padded), window, c.groups))
    assert cols.shape == (c.OH, c.groups, KW * KH * inner, c.OW * c.shape[3])
    cols = cols.reshape(c.OH, c.groups, KW, KH, inner, c.OW, c.shape[3])
    for g, i, j, patch, _ in c.elements():
        np.testing.assert_array_equal(cols[:, g, j, i], c.padded[patch])
    matrix = host(ops.weight_matrix(ops.asarray(c.w), c.groups)).reshape(c.groups, -1, KW, KH, inner)
    for g, i, j, _, out in c.elements():
        np.testing.assert_array_equal(matrix[g, :, j, i], c.w[j, out, i])


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 3), (2, 0)), ((0, 0), (1, 0)), ((2, 0), (0, 0))])
@pytest.mark.parametrize("value", [0.0, -np.inf])
def test_pad(ops, precision, padding, value, rng):
    x = rng.standard_normal((3, 2, 4, 5)).astype(precision)
    out = ops.pad(ops.asarray(x), padding, value)
    expected = np.pad(x, (padding[0], (0, 0), padding[1], (0, 0)), constant_values=value)
    assert out.dtype == precision
    np.testing.assert_array_equal(host(out), expected)


def test_padding_by_nothing_is_the_map_itself(ops):
    x = ops.asarray(np.ones((2, 2, 2, 2)))
    assert ops.pad(x, ((0, 0), (0, 0))) is x


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "bool"])
def test_pack_and_unpack(ops, dtype, rng):
    x = rng.integers(0, 2, (7, 3, 5, 4)).astype(dtype)
    packed = ops.pack(ops.asarray(x), np.float32)
    assert packed.dtype == np.float32 and packed.flags.c_contiguous
    np.testing.assert_array_equal(host(packed), x.transpose(2, 1, 3, 0))
    back = ops.unpack(packed)
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(host(back), x)
    packed[...] = 9.0
    assert host(back).max() <= 1 and x.max() <= 1  # both made arrays of their own


# -- pooling -------------------------------------------------------------------------------------------------

WINDOWS = [
    Window((2, 2), (2, 2)),  # tiles the map
    Window((3, 3), (2, 2)),  # overlaps
    Window((3, 2), (1, 1)),  # overlaps everywhere
    Window((2, 2), (3, 3)),  # leaves gaps
    Window((2, 3), (3, 1)),  # gaps between rows, overlap between columns
    Window((1, 1), (2, 1)),
    Window((1, 4), (1, 4)),
    Window((5, 1), (5, 2)),
    Window((6, 8), (1, 1)),  # the whole map
]
each_window = pytest.mark.parametrize("window", WINDOWS, ids=str)
each_map = pytest.mark.parametrize("shape", [(6, 3, 8, 7), (6, 1, 8, 1), (7, 2, 9, 3)], ids=str)


def windows_of(x, window):
    """(OH, C, OW, N, KH*KW): the elements under each window, row-major."""
    (KH, KW), (SH, SW), (OH, OW) = window.kernel, window.strides, window.out_size(x.shape[0], x.shape[2])
    return np.stack(
        [
            x[i : i + (OH - 1) * SH + 1 : SH, :, j : j + (OW - 1) * SW + 1 : SW]
            for i in range(KH)
            for j in range(KW)
        ],
        axis=-1,
    )


def spread(taken, shape, window):
    """What windows_of took from an array of that shape, put back where it came from and added up."""
    out = np.zeros(shape)
    (KH, KW), (SH, SW) = window.kernel, window.strides
    for r, c, k in np.ndindex(taken.shape[0], taken.shape[2], KH * KW):
        out[r * SH + k // KW, :, c * SW + k % KW] += taken[r, :, c, :, k]
    return out


@each_window
@each_map
@pytest.mark.parametrize("ties", [False, True])
def test_max_pooling_and_its_gradient(ops, precision, blocks, window, shape, ties, rng):
    """The whole gradient of a window goes to the first of its largest elements, row-major."""
    x = (rng.integers(-1, 2, shape) if ties else rng.standard_normal(shape)).astype(precision)
    under = windows_of(x, window)
    y = ops.max_pool(ops.asarray(x), window)
    np.testing.assert_array_equal(host(y), under.max(axis=-1))
    assert y.dtype == precision
    dy = rng.standard_normal(y.shape).astype(precision)
    first = under.argmax(axis=-1)[..., None] == np.arange(under.shape[-1])
    dx = ops.max_pool_backward(ops.asarray(dy), ops.asarray(x), y, window)
    assert dx.dtype == precision
    assert_close(
        host(dx), spread(first * dy[..., None], shape, window), 1e-6 if precision == "float32" else 1e-14
    )


@each_window
@each_map
@pytest.mark.parametrize("ties", [False, True])
def test_max_pooling_in_training_remembers_the_first_largest(
    ops, precision, blocks, window, shape, ties, rng
):
    x = (rng.integers(-1, 2, shape) if ties else rng.standard_normal(shape)).astype(precision)
    x.flags.writeable = False
    under = windows_of(x, window)
    y, kept = ops.max_pool_train(ops.asarray(x), window)
    np.testing.assert_array_equal(host(y), under.max(axis=-1))
    assert y.dtype == precision
    dy = rng.standard_normal(y.shape).astype(precision)
    first = under.argmax(axis=-1)[..., None] == np.arange(under.shape[-1])
    dx = ops.max_pool_train_backward(ops.asarray(dy.copy()), kept, window)
    assert dx.dtype == precision
    expected = spread(first * dy[..., None], shape, window)
    if window.strides == window.kernel:  # nothing is added up
        np.testing.assert_array_equal(host(dx), expected)
    assert_close(host(dx), expected, 1e-6 if precision == "float32" else 1e-14)


def test_every_pattern_of_ties_in_a_window_of_two_by_two(precision):
    """All orders of four elements, equal ones included: the first of the largest, row-major."""
    patterns = np.array(list(np.ndindex(4, 4, 4, 4)), precision)  # (256, 4): each a window
    x = np.ascontiguousarray(patterns.T.reshape(2, 1, 2, 256))
    window, host_ops = Window((2, 2), (2, 2)), NumpyOps()
    y, kept = host_ops.max_pool_train(x, window)
    dx = host_ops.max_pool_train_backward(np.arange(1, 257, dtype=precision).reshape(y.shape), kept, window)
    received = dx.reshape(4, 256).T
    expected = np.zeros_like(patterns)
    expected[np.arange(256), patterns.argmax(axis=1)] = np.arange(1, 257)
    np.testing.assert_array_equal(received, expected)
    np.testing.assert_array_equal(y.reshape(256), patterns.max(axis=1))


@pytest.mark.parametrize("window", WINDOWS[:2], ids=str)
def test_pooling_reads_views(window, rng):
    """Maps that are parts of larger ones, as a branch hands them on."""
    whole = rng.standard_normal((9, 6, 11, 5))
    x, host_ops, plain = whole[1:8, ::2, 2:10], NumpyOps(), Ops()
    y, kept = host_ops.max_pool_train(x, window)
    np.testing.assert_array_equal(y, plain.max_pool(x, window))
    np.testing.assert_array_equal(host_ops.max_pool(x, window), y)
    assert_close(host_ops.sum_pool(x, window), plain.sum_pool(x, window), 1e-15)
    dy = rng.standard_normal((y.shape[0], 6, *y.shape[2:]))[:, ::2]
    expected = plain.max_pool_backward(dy, x, y, window)
    assert_close(host_ops.max_pool_train_backward(dy, kept, window), expected, 1e-15)
    assert_close(
        host_ops.sum_pool_backward(dy, x.shape, window), plain.sum_pool_backward(dy, x.shape, window), 1e-15
    )


@each_window
@each_map
def test_sum_pooling_and_its_gradient(ops, precision, blocks, window, shape, rng):
    x = rng.standard_normal(shape).astype(precision)
    under = windows_of(x, window)
    y = ops.sum_pool(ops.asarray(x), window)
    rtol = ROUNDING[precision]
    assert y.dtype == precision
    assert_close(host(y), under.sum(axis=-1), rtol)
    dy = rng.standard_normal(y.shape).astype(precision)
    dx = ops.sum_pool_backward(ops.asarray(dy), shape, window)
    assert dx.dtype == precision
    assert_close(host(dx), spread(np.broadcast_to(dy[..., None], under.shape), shape, window), rtol)


# -- sums, bits, functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3), (7, 5), (1, 1), (3, 4, 5, 7), (1, 2, 1, 1)], ids=str)
def test_feature_sum(ops, precision, shape, rng):
    a = rng.standard_normal(shape).astype(precision)
    expected = a.sum(axis=0 if len(shape) == 2 else (0, 2, 3), dtype=np.float64)
    received = ops.feature_sum(ops.asarray(a))
    assert received.dtype == precision
    assert_close(host(received), expected, ROUNDING[precision])
    out = ops.empty(expected.shape, np.dtype(precision))
    ops.feature_sum(ops.asarray(a), out=out)
    assert_close(host(out), expected, ROUNDING[precision])


def test_feature_sum_of_a_transposed_vector_batch(ops, rng):
    """Flatten hands on a transposed view; dz behind it may be one too."""
    a = rng.standard_normal((6, 4))
    assert_close(host(ops.feature_sum(ops.asarray(a).T)), a.sum(axis=1), 1e-13)


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (3, 2, 5, 9)], ids=str)
def test_random_bits_follow_from_key_layer_and_step(ops, key, shape):
    """The stream is Philox4x64-10 at counter (i+1, 0, layer, step): the raw words of NumPy's generator."""
    bits = ops.random_bits(key, 3, 11, shape)
    assert bits.dtype == np.uint16 and bits.shape == shape
    count = math.prod(shape)
    words = np.random.Philox(key=key, counter=[0, 0, 3, 11]).random_raw(-(-count // 4) + 4)
    halves = [int(word) >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    np.testing.assert_array_equal(host(bits).reshape(-1), halves[:count])
    for other in ((key ^ 1, 3, 11), (key, 4, 11), (key, 3, 12)):
        if count > 4:
            assert (host(ops.random_bits(*other, shape)) != host(bits)).any()


@pytest.mark.parametrize("start", [0, 1, 15, 16, 17, 63, 1000])
@pytest.mark.parametrize("count", [1, 16, 37])
def test_a_part_of_a_stream_is_cut_out_of_the_whole(start, count):
    whole = philox_bits(5, 1, 2, 0, 1100)
    np.testing.assert_array_equal(philox_bits(5, 1, 2, start, count), whole[start : start + count])


def shares_of(*edges):
    return [slice(a, b) for a, b in zip(edges, edges[1:])]


@pytest.mark.parametrize("features", [(5,), (3, 2, 4)], ids=str)
def test_replicas_draw_their_share_of_the_whole_batch_s_bits(features):
    def shaped(n):
        return (n, *features) if len(features) == 1 else (*features, n)

    whole = NumpyOps().random_bits(9, 2, 4, shaped(17))
    shares = shares_of(0, 5, 11, 17)
    for ops, share in zip(NumpyOps().replicas(shares), shares):
        bits = ops.random_bits(9, 2, 4, shaped(share.stop - share.start))
        np.testing.assert_array_equal(bits, whole[share] if len(features) == 1 else whole[..., share])


def test_replicas_sum_over_the_whole_batch_in_one_order(rng):
    replicas, parts = NumpyOps().replicas(shares_of(0, 4, 9, 10)), rng.standard_normal((3, 6))
    answers = [None] * 3

    def work(k):
        answers[k] = [replicas[k].batch_sum(parts[k] * scale) for scale in (1.0, 2.0)]

    crew = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(10)
    for answer in answers:
        np.testing.assert_array_equal(answer[0], parts[0] + parts[1] + parts[2])
        np.testing.assert_array_equal(answer[1], 2 * parts[0] + 2 * parts[1] + 2 * parts[2])
    assert [r.batch_size(n) for r, n in zip(replicas, (4, 5, 1))] == [10, 10, 10]
    assert [r.leads for r in replicas] == [True, False, False]


def test_a_replica_that_gives_up_wakes_the_others():
    first, second = NumpyOps().replicas(shares_of(0, 1, 2))
    threading.Timer(0.05, second.abort).start()
    with pytest.raises(threading.BrokenBarrierError):
        first.batch_sum(np.ones(2))


def test_a_lone_model_is_its_own_whole(ops):
    a = ops.asarray(np.arange(3.0))
    assert ops.batch_sum(a) is a and ops.batch_size(5) == 5 and ops.leads


def test_erf(ops, precision):
    x = np.concatenate([np.linspace(-6, 6, 481), [0.0, -0.0, 1e-8, -1e-5, 30.0, -30.0]]).astype(precision)
    expected = np.array([math.erf(v) for v in x.astype(float)])
    received = ops.erf(ops.asarray(x))
    assert received.dtype == precision
    np.testing.assert_allclose(
        host(received), expected, rtol=0, atol=1e-6 if precision == "float32" else 3e-16
    )


@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5, 2)], ids=str)
@pytest.mark.parametrize("in_place", [False, True])
def test_relu(ops, precision, shape, in_place, rng):
    z = rng.standard_normal(shape).astype(precision)
    device = ops.asarray(z.copy())
    out = device if in_place else ops.like(device)
    assert ops.relu(device, out) is out and out.dtype == precision
    np.testing.assert_array_equal(host(out), np.maximum(z, 0))
    if not in_place:
        np.testing.assert_array_equal(host(device), z)


# -- the optimizer's side ------------------------------------------------------------------------------------


@pytest.mark.parametrize("start, stop", [(0, 0), (0, 1), (16, 16), (5, 40000), (0, 1 << 15)])
def test_blocks_cover_a_range_once_and_in_order(ops, start, stop):
    covered = [i for piece in ops.blocks(start, stop) for i in range(piece.start, piece.stop)]
    assert covered == list(range(start, stop))


def test_squared_norm(ops, precision, rng):
    g = rng.standard_normal(1000).astype(precision)
    assert float(host(ops.squared_norm(ops.asarray(g)))) == pytest.approx(
        float((g.astype(float) ** 2).sum()), rel=1e-5
    )


@pytest.mark.parametrize("count", [0, 1, 100, 100000])
def test_a_flat_buffer_is_zero(ops, precision, count):
    flat = ops.flat(count, np.dtype(precision))
    assert flat.shape == (count,) and flat.dtype == precision
    assert not host(flat).any()


def test_a_flat_buffer_of_the_cpu_starts_on_a_cache_line():
    for count in (1, 3, 17, 1000):
        assert NumpyOps().flat(count, np.dtype("float32")).ctypes.data % 64 == 0


@pytest.mark.parametrize("large", [False, True])
def test_like_keeps_shape_type_and_axis_order(ops, precision, large):
    a = ops.asarray(np.zeros((300, 200) if large else (3, 2), precision))
    for given in (a, a.T, a[::2, ::2]):
        made = ops.like(given)
        assert made.shape == given.shape and made.dtype == given.dtype
        assert made.flags.c_contiguous == given.flags.c_contiguous or not given.flags.f_contiguous


def test_the_reference_and_the_cpu_have_the_same_operations():
    """An override without its plain form would have no oracle."""

    def names(cls):
        return {n for n in vars(cls) if not n.startswith("_")}

    helpers = {"columns_beside", "replicas"}
    assert names(NumpyOps) - helpers <= names(Ops)


# -- host memory ---------------------------------------------------------------------------------------------

LARGE = (1 << 14, 8)  # float64: 1 MiB, well above what malloc serves


def test_memory_in_use_is_never_handed_out():
    pool = memory.Pool()
    live = [pool.empty(LARGE, np.float64) for _ in range(6)]
    for k, a in enumerate(live):
        a[...] = k
    assert [float(a.min()) for a in live] == [float(a.max()) for a in live] == [0, 1, 2, 3, 4, 5]
    assert not any(np.may_share_memory(a, b) for a in live for b in live if a is not b)


def test_freed_memory_is_handed_out_again():
    pool = memory.Pool()
    a = pool.empty(LARGE, np.float64)
    where = a.ctypes.data
    del a
    assert pool.unused > 0
    assert pool.empty(LARGE, np.float64).ctypes.data == where
    as_bytes = pool.empty((8 * LARGE[0] * LARGE[1],), np.uint8)  # as many by another type and shape
    assert as_bytes.ctypes.data == where


VIEWS = {
    "slice": lambda a: a[10:],
    "element": lambda a: a[5, 3:4],
    "transpose": lambda a: a.T,
    "reshape": lambda a: a.reshape(-1, 4),
    "retype": lambda a: a.view(np.int64),
    "view of a view": lambda a: a.T[2:].T[::3],
    "new axis": lambda a: a[None, :, 0],
    "np.ndarray over it": lambda a: np.ndarray((5, 7), a.dtype, a, 64, (8, 8)),
    "memoryview": lambda a: np.asarray(memoryview(a)),
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_keeps_the_memory_it_looks_at(name):
    pool = memory.Pool()
    a = pool.empty(LARGE, np.float64)
    a[...] = 1.0
    view = VIEWS[name](a)
    before = view.copy()
    del a
    assert pool.unused == 0
    pool.empty(LARGE, np.float64)[...] = 2.0
    np.testing.assert_array_equal(view, before)
    del view
    assert pool.unused > 0


def test_pool_memory_is_aligned_contiguous_and_writable():
    pool = memory.Pool()
    for shape in [(1,), (1000,), LARGE, (333, 777), (3, 5, 7, 11, 129)]:
        for dtype in (np.float32, np.float64, np.uint16, bool):
            a = pool.empty(shape, dtype)
            assert a.shape == shape and a.dtype == dtype and a.flags.c_contiguous and a.flags.writeable
            assert a.nbytes < memory.SMALL or a.ctypes.data % 64 == 0
            a[...] = 1


def test_the_pool_keeps_no_more_than_it_may():
    pool = memory.Pool(keep=3 << 20)
    held = [pool.empty(LARGE, np.float64) for _ in range(8)]
    assert pool.size >= 8 << 20
    del held
    assert pool.unused <= 3 << 20 and pool.size == pool.unused
    pool.clear()
    assert pool.unused == pool.size == 0
    one = pool.empty(LARGE, np.float64)  # and goes on
    pool.clear()
    assert pool.size >= one.nbytes, "what is in use stays"


def test_neighbours_that_come_back_become_one():
    pool = memory.Pool()
    held = [pool.empty(LARGE, np.float64) for _ in range(12)]
    size = pool.size
    order = np.random.default_rng(0).permutation(12)
    for k in order:
        held[k] = None
    for number, chunk in enumerate(pool._chunks):
        assert pool.unused == size and pool._free[number] == [(0, chunk.nbytes)]


def test_the_first_place_that_is_large_enough_is_taken():
    pool, quarter = memory.Pool(), memory.CHUNK // 4
    held = [pool.empty((quarter,), np.uint8) for _ in range(4)]
    where = [a.ctypes.data for a in held]
    assert pool.size == memory.CHUNK and where == sorted(where)
    held[1] = held[3] = None
    half = pool.empty((2 * quarter,), np.uint8)  # no gap is so wide
    small = [pool.empty((quarter // 2,), np.uint8).ctypes.data for _ in range(2)]
    assert half.ctypes.data not in where
    assert small == [where[1], where[1]], "each went before the next came"


def test_the_pool_under_many_threads():
    """No thread ever sees another's writing in memory that it holds."""
    pool, wrong = memory.Pool(), []

    def work(k):
        rng, held = np.random.default_rng(k), []
        for turn in range(300):
            mark = 1000.0 * k + turn
            a = pool.empty((int(rng.integers(1, 4)) * 20000,), np.float32)
            a[...] = mark
            held.append((a, mark))
            if len(held) > 3:
                a, mark = held.pop(int(rng.integers(4)))
                if a.min() != mark or a.max() != mark:
                    wrong.append((k, turn))

    crew = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(60)
    assert not any(thread.is_alive() for thread in crew) and not wrong


def test_a_prediction_pins_no_memory_of_the_pool():
    import xpnet

    model = xpnet.Sequential(
        [xpnet.layers.Conv2D(8, 3, padding="same")], input_shape=(3, 32, 32), device="cpu", seed=0
    )
    p = model.predict(np.zeros((40, 3, 32, 32), np.float32))
    y, _ = model.forward(np.zeros((40, 3, 32, 32), np.float32))
    for a in (p, y):
        assert p.nbytes > memory.SMALL
        while a is not None:
            assert not isinstance(a, memory._Place)
            a = a.base
