"""The fake CuPy: pools, limits, streams, and graphs that show what a real one would do wrong."""

import contextlib
import gc

import blas_twin
import device_memory
import fake_cupy
import host_cuda
import numpy as np
import pytest
from fake_cupy import CUDARuntimeError, Machine, OutOfMemoryError, cupy
from strict_xp import HostSync, no_syncs, syncs

HOST = np.arange(-6, 6, dtype=np.float32).reshape(3, 4) / 4

KERNEL = """
extern "C" __global__ void twice(const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2 * x[i];
}
extern "C" __global__ void beyond(float *y, int n) { y[n] = 1; }
"""

needs_gpp = pytest.mark.skipif(not host_cuda.available(), reason="no g++ to run kernels on the CPU with")


@pytest.fixture
def stream():
    """A stream that is current; not left capturing, whatever happens."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        yield stream
        with contextlib.suppress(CUDARuntimeError):
            stream.end_capture()


@pytest.fixture
def pool():
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        yield pool


def capture(stream, work):
    stream.begin_capture()
    result = work()
    return stream.end_capture(), result


# -- graphs ------------------------------------------------------------------------------------------------


def step(x, i, out):
    """A bit of everything that may be recorded."""
    h = cupy.exp(x) + x * 2
    h[1:, ::2] -= 1
    h[0] = 3
    h = h.T.reshape(2, 6)
    parts = cupy.split(h, 2, axis=1)
    h = cupy.concatenate([parts[1], parts[0]]) + cupy.full((4, 3), 0.5, np.float32)
    h = cupy.maximum(h, cupy.zeros_like(h)).astype(np.float64)
    h = h[i] * cupy.arange(3) + cupy.where(h[:2] > 1, h[:2], cupy.array(-1.0))
    cupy.sum(h, 0, None, out)
    np.testing.assert_equal(out.ndim, 1)
    out *= 2
    cupy.add(out, 1, out)
    out.clip(0, 100, out)
    return cupy.sqrt(out)


def test_a_replay_computes_what_the_eager_calls_do(stream, pool):
    x, i, out = cupy.asarray(HOST), cupy.asarray(np.array([2, 0])), cupy.empty(3)
    expected = step(x, i, out).get()
    graph, result = capture(stream, lambda: step(x, i, out))
    for change in (0, 1, -0.5):
        x.set(HOST + np.float32(change))
        graph.launch()
        again, again_out = result.get(), out.get()
        np.testing.assert_array_equal(step(x, i, out).get(), again)
        np.testing.assert_array_equal(out.get(), again_out)
        assert np.isfinite(again).all() and (again == expected).all() == (change == 0)
    assert graph.launches == 3


def test_a_capture_changes_nothing_that_was_there(stream, pool):
    x = cupy.asarray(HOST)

    def work():
        x[...] = x + 1
        cupy.copyto(x, 0)
        x.fill(7)
        return x * 2

    graph, y = capture(stream, work)
    np.testing.assert_array_equal(x.get(), HOST)
    assert np.isnan(y.get()).all()  # nobody has written it yet
    graph.launch()
    np.testing.assert_array_equal(x.get(), np.full_like(HOST, 7))
    np.testing.assert_array_equal(y.get(), np.full_like(HOST, 14))


def test_numbers_are_frozen_and_arrays_are_not(stream, pool):
    rate, x, number = cupy.array(2.0), cupy.ones(2), 3.0
    graph, y = capture(stream, lambda: x * rate + number)
    number = 100.0
    rate[...] = 10
    graph.launch()
    assert y.get().tolist() == [13, 13]


@needs_gpp
def test_kernels_and_products_are_recorded(stream, pool):
    module, twin = cupy.RawModule(code=KERNEL, options=("--std=c++17",)), fake_cupy.Twin()
    twice = module.get_function("twice")
    x, y, z = cupy.asarray(HOST), cupy.zeros((3, 4), np.float32), cupy.zeros((3, 3), np.float32)

    def work():
        temporary = cupy.empty_like(x)
        twice((1,), (32,), (x, temporary, np.int32(12)))
        cupy.add(temporary, 1, out=y)
        twin.matmul(x, y.T, z, "float32")

    graph, _ = capture(stream, work)
    assert not y.get().any() and not z.get().any()
    for _ in range(2):
        x.set(x.get() + 1)
        graph.launch()
        np.testing.assert_array_equal(y.get(), 2 * x.get() + 1)
        np.testing.assert_allclose(z.get(), x.get() @ (2 * x.get() + 1).T, rtol=1e-6)


@needs_gpp
def test_products_are_bounded_by_what_lived_when_they_were_recorded(stream, pool):
    twin, z = fake_cupy.Twin(), cupy.zeros((3, 3), np.float32)

    def work():
        parts = cupy.ones((5, 4), np.float32)  # gone when the graph runs, though its memory is not
        twin.matmul(parts[1:4], parts[2:5].T, z, "float32")

    graph, _ = capture(stream, work)
    graph.launch()
    assert (z.get() == 4).all()
    dead = cupy.ones((3, 3), np.float32).data.ptr
    with pytest.raises(blas_twin.BadCall):
        twin.gemm("float32", 0, 0, 3, 3, 3, dead, 3, dead, 3, 0, z.data.ptr, 3)


WAITS = ["x.get()", "float(x[0, 0])", "bool(x[0, 0])", "x.set(h)", "cupy.asarray(h)", "cupy.array([1, 2])",
         "x[x > 0]", "stream.synchronize()", "cupy.cuda.Device().synchronize()", "cupy.asnumpy(x)",
         "cupy.nonzero(x)", "cupy.cuda.runtime.deviceSynchronize()",
         "stream.record().synchronize()"]  # fmt: skip
REFUSED = ["x @ x.T", "cupy.matmul(x, x.T)", "x.dot(x.T)", "cupy.einsum('ij->i', x)", "cupy.sort(x)"]


@pytest.mark.parametrize("expression", WAITS + REFUSED)
def test_what_a_graph_cannot_hold_raises_and_spoils_the_capture(stream, pool, expression):
    names = {"cupy": cupy, "x": cupy.asarray(HOST), "h": HOST, "stream": stream}
    eval(expression, names)
    stream.begin_capture()
    with pytest.raises(NotImplementedError if expression in REFUSED else CUDARuntimeError):
        eval(expression, names)
    names["x"] += 1
    for call in (stream.is_capturing, stream.end_capture):
        with pytest.raises(CUDARuntimeError, match="Invalidated"):
            call()
    assert not stream.is_capturing()
    eval(expression, names)  # the stream can be used again
    np.testing.assert_array_equal(names["x"].get(), HOST)
    assert capture(stream, lambda: None)[0] is not None


def test_only_the_capturing_stream_works_during_a_capture(stream, pool):
    x, other = cupy.ones(2), cupy.cuda.Stream(non_blocking=True)
    before = other.record()
    stream.begin_capture()
    with pytest.raises(CUDARuntimeError, match="Implicit"), cupy.cuda.Stream.null:
        x + 1
    with pytest.raises(CUDARuntimeError, match="Isolation"):
        stream.wait_event(before)
    with pytest.raises(CUDARuntimeError):
        stream.begin_capture()
    other.synchronize()
    stream.wait_event(stream.record())
    with pytest.raises(CUDARuntimeError):
        stream.end_capture()
    with pytest.raises(CUDARuntimeError):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="default"):
        cupy.cuda.Stream.null.begin_capture()


# -- memory that a graph has lost --------------------------------------------------------------------------


def test_a_graph_does_not_keep_its_inputs(stream, pool):
    x = cupy.ones(4)
    with cupy.cuda.using_allocator(fake_cupy._default_pool.malloc):
        lost = [cupy.ones(4)]
    graph, y = capture(stream, lambda: x + lost[0])
    graph.launch()
    assert y.get().tolist() == [2] * 4
    lost.clear()
    graph.launch()
    assert np.isnan(y.get()).all()


def test_temporaries_share_memory_in_the_order_of_the_graph(stream, pool):
    addresses = []

    def work():
        x = cupy.ones(4)
        for _ in range(3):
            temporary = x * 2
            addresses.append(temporary.data.ptr)
            x = cupy.add(temporary, 1)
            del temporary
        return x

    graph, y = capture(stream, work)
    assert len(set(addresses)) < 3
    for _ in range(2):
        graph.launch()
        assert y.get().tolist() == [15] * 4


def test_use_after_free_within_a_graph_reads_nan(stream, pool):
    def work():
        x = cupy.ones(4)
        view = cupy.ndarray(device_memory.alias(x._a))  # an address that keeps nothing alive
        del x
        return view + 1

    with pytest.raises(CUDARuntimeError, match="outlived"):
        work()
    kept = cupy.ones(4)
    stale = cupy.ndarray(device_memory.alias(kept._a))
    graph, y = capture(stream, lambda: stale + 1)
    del kept
    graph.launch()
    assert np.isnan(y.get()).all()


def test_memory_that_others_were_handed_is_overwritten_by_a_graph(stream, pool):
    graph, _ = capture(stream, lambda: cupy.full(4, 5.0) * 2)  # its memory is free in the pool it shares
    owned = cupy.zeros(4)
    graph.launch()
    assert owned.get().any()


@pytest.mark.parametrize("how", ["pool dies", "blocks are released"])
def test_a_graph_needs_its_pool(stream, how):
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        graph, _ = capture(stream, lambda: (cupy.ones(4) * 2).shape)
    graph.launch()
    if how == "pool dies":
        del pool
        gc.collect()
    else:
        pool.free_all_blocks()
    with pytest.raises(CUDARuntimeError, match="given back"):
        graph.launch()


def test_an_array_must_not_outlive_its_pool():
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        a = cupy.ones(4)
    assert (a + 1).get().all()
    del pool
    gc.collect()
    for use in (lambda: a + 1, a.get, lambda: float(a[0]), lambda: cupy.exp(a)):
        with pytest.raises(CUDARuntimeError, match="outlived"):
            use()


# -- pools and devices -------------------------------------------------------------------------------------


def test_a_pool_hands_blocks_out_again_on_their_stream(pool):
    a = cupy.ones(100)
    address = a.data.ptr
    assert (pool.used_bytes(), pool.total_bytes(), fake_cupy.allocation(address)) == (
        1024,
        1024,
        (address, 800),
    )
    view = a[3:]
    del a
    assert pool.used_bytes() == 1024 and view.get().all()
    del view
    assert (pool.used_bytes(), pool.free_bytes(), pool.n_free_blocks()) == (0, 1024, 1)
    assert fake_cupy.allocation(address) is None
    with cupy.cuda.Stream(non_blocking=True):
        assert cupy.empty(100).data.ptr != address
    b = cupy.empty(100, np.int32)
    assert b.data.ptr != address
    c = cupy.empty(90)
    assert c.data.ptr == address and np.isnan(c.get()).all()
    del c
    pool.free_all_blocks()
    assert pool.total_bytes() == 512


def test_a_limit_ends_in_out_of_memory(pool):
    pool.set_limit(size=4096)
    assert pool.get_limit() == 4096
    kept = cupy.ones(256)
    with pytest.raises(OutOfMemoryError, match=r"allocating 4,096 bytes \(allocated so far: 2,048") as error:
        cupy.ones(512)
    assert (error.value._size, error.value._total, error.value._limit) == (4096, 2048, 4096)
    assert isinstance(error.value, MemoryError) and cupy.cuda.memory.OutOfMemoryError is OutOfMemoryError
    kept *= 2  # and go on
    pool.set_limit()
    cupy.ones(512)


def test_a_device_ends_in_out_of_memory(pool, monkeypatch):
    gc.collect()
    free, total = cupy.cuda.Device().mem_info
    monkeypatch.setattr(Machine, "memory", total - free + 4096)
    a = cupy.ones(256)
    del a
    b = cupy.ones(512)  # what the pool held free goes back first
    with pytest.raises(OutOfMemoryError):
        cupy.ones(1)
    assert cupy.cuda.Device().mem_info == (0, total - free + 4096) and b.get().all()


def test_each_device_has_its_own_arrays_and_streams(monkeypatch):
    monkeypatch.setattr(Machine, "devices", 2)
    a = cupy.ones(2)
    with cupy.cuda.Device(1) as device:
        assert device.compute_capability == "90" and cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
        with pytest.raises(ValueError, match="device 0 used on device 1"):
            a + 1
        b = cupy.ones(2) + 1
        stream = cupy.cuda.Stream(non_blocking=True)
    assert (a.device.id, b.device.id, stream.device_id) == (0, 1, 1)
    with pytest.raises(RuntimeError, match="does not match"):
        stream.use()
    with pytest.raises(CUDARuntimeError, match="ordinal"):
        cupy.cuda.Device(2).use()


def test_streams_wait_and_are_counted(stream):
    assert cupy.cuda.get_current_stream() is stream
    syncs.reset()
    event = stream.record()
    cupy.cuda.Stream.null.wait_event(event)
    event.synchronize()
    assert syncs.count == 0
    stream.synchronize()
    assert syncs.count == 1
    with no_syncs(), pytest.raises(HostSync):
        stream.synchronize()


def test_pinned_memory_is_host_memory():
    pinned = cupy.cuda.alloc_pinned_memory(64)
    host = np.frombuffer(pinned, np.float32, 12).reshape(3, 4)
    host[...] = HOST
    a = cupy.empty((3, 4), np.float32)
    a.set(host, stream=cupy.cuda.Stream(non_blocking=True))
    np.testing.assert_array_equal(a.get(), HOST)


@needs_gpp
def test_kernels_take_device_arrays_and_are_guarded():
    module = cupy.RawModule(code=KERNEL)
    x, y = cupy.asarray(HOST), cupy.empty((3, 4), np.float32)
    module.get_function("twice")((2,), (8,), (x, y, np.int32(12)))
    np.testing.assert_array_equal(y.get(), 2 * HOST)
    with pytest.raises(device_memory.OutOfBounds, match="0 bytes after the end"):
        module.get_function("beyond")((1,), (1,), (y, np.int32(12)))
    with pytest.raises(TypeError, match="Unsupported type"):
        module.get_function("twice")((1,), (1,), (HOST, y, np.int32(12)))
    with pytest.raises(host_cuda.KernelError, match="points to f4"):
        module.get_function("twice")((1,), (1,), (x.astype(np.float64), y, np.int32(12)))


def test_it_is_as_strict_as_the_strict_fake():
    a = cupy.asarray(HOST)
    for wrong in (
        lambda: a + HOST,
        lambda: np.asarray(a),
        lambda: np.exp(a),
        lambda: a[[0]],
        lambda: cupy.errstate,
    ):
        with pytest.raises((TypeError, AttributeError)):
            wrong()
    assert type(a[0] + 1) is cupy.ndarray
    assert cupy.get_array_module(a) is cupy and cupy.get_array_module(HOST) is np
