"""The compiler of kernels for the CPU: it runs them as a GPU would, and finds what would go wrong there."""

import device_memory
import host_cuda
import numpy as np
import pytest
from host_cuda import KernelError

pytestmark = pytest.mark.skipif(not host_cuda.available(), reason="no g++ to run kernels on the CPU with")

SOURCE = """
struct Settings { long long n; float scale; };

__device__ inline float add(float a, float b) { return a + b; }

template <int N> __device__ float block_sum(float v) {
    __shared__ float part[N];
    part[threadIdx.x] = v;
    __syncthreads();
    for (int s = N / 2; s; s /= 2) {
        if (threadIdx.x < s) part[threadIdx.x] = add(part[threadIdx.x], part[threadIdx.x + s]);
        __syncthreads();
    }
    return part[0];
}

// Sums of blocks; the last block to finish adds them up, extern "C" __global__ void commented(int).
extern "C" __global__ void __launch_bounds__(128) total(const float *__restrict__ x, float *out, int n,
                                                        unsigned *counter) {
    __shared__ bool last;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = block_sum<128>(i < n ? x[i] : 0.0f);
    if (threadIdx.x == 0) {
        out[1 + blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(counter, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    if (threadIdx.x == 0) {
        out[0] = 0;
        for (int b = 0; b < gridDim.x; b++) out[0] += out[1 + b];
        *counter = 0;
    }
}

// The neighbour's value: on the left or on the right, with or without the barriers this needs.
extern "C" __global__ void shift(const int *x, int *out, int by, int before, int after) {
    __shared__ int held[64];
    int i = threadIdx.x, from = min(max(i + by, 0), 63);
    for (int round = 0; round < 2; round++) {
        held[i] = x[i] + round;
        if (before) __syncthreads();
        out[64 * round + i] = held[from];
        if (after) __syncthreads();
    }
}

extern "C" __global__ void poison(float *out, int write) {
    __shared__ float held[4];
    if (write) held[threadIdx.x] = 1;
    out[blockIdx.x * 4 + threadIdx.x] = held[threadIdx.x];
}

extern "C" __global__ void where(int *out) {
    int at = ((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * 24;
    out[at + (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x] = at + threadIdx.x
        + 10 * threadIdx.y + 100 * threadIdx.z;
}

extern "C" __global__ void settings(Settings s, double *out, bool flag, short half) {
    out[0] = s.n * s.scale + flag + half;
}

extern "C" __global__ void functions(double *out, float x) {
    out[0] = sizeof(exp(x)) + sizeof(rsqrt(x)) + sizeof(max(x, x));
    out[1] = max(1.5, x) + min(-1, 2) + rsqrtf(4.0f) + __expf(0.0f);
    out[2] = __umul64hi(1ull << 63, 4) + __float_as_uint(1.0f) + isfinite(x / 0.0f) + (x > 0);
    float4 v = make_float4(1, 2, 3, 4);
    out[3] = v.x + v.w + sizeof(v);
}

extern "C" __global__ void wrong(float *out, int kind, int n) {
    __shared__ float held[32];
    if (kind == 0) out[n] = 1;
    if (kind == 1) out[threadIdx.x] = held[n + threadIdx.x];
    if (kind == 2) { if (threadIdx.x > 4) return; __syncthreads(); }
    if (kind == 3) {
        if (threadIdx.x > 4) __syncthreads();
        else
            __syncthreads();
    }
    if (kind == 4) *(float4 *)(out + 1) = make_float4(1, 2, 3, 4);
    if (kind == 5) out[0] = (int)threadIdx.x * n;
    if (kind == 6) ((float *)0)[n] = 1;
    if (kind == 7) out[0] = 1 / n;
    if (kind == 8) out[0] = 1 << n;
}
"""


@pytest.fixture(scope="module")
def module():
    return host_cuda.Module(SOURCE)


@pytest.fixture(params=[False, True], ids=["forward", "reversed"])
def order(request, monkeypatch):
    monkeypatch.setattr(host_cuda, "reverse", request.param)
    return request.param


def test_blocks_with_shared_memory_barriers_and_atomics(module, order, rng):
    x = rng.integers(-99, 99, 1000).astype(np.float32)
    out, counter = np.full(10, np.nan, np.float32), np.zeros(1, np.uint32)
    for _ in range(2):
        # `last` is read after a barrier that all reach; who is not last leaves together
        module.get_function("total")((8,), (128,), (x, out, np.int32(1000), counter))
        assert out[0] == x.sum() and np.isnan(out[9]) and counter[0] == 0


def test_every_index_runs_once(module, order):
    out = np.full(6 * 24, -1, np.int32)
    module.get_function("where")((3, 2, 1), (4, 3, 2), (out,))
    thread = np.add.outer(np.add.outer(np.arange(2) * 100, np.arange(3) * 10), np.arange(4))
    np.testing.assert_array_equal(out.reshape(6, 2, 3, 4), thread + np.arange(6)[:, None, None, None] * 24)


def shifted(module, by, before, after):
    """Whether `shift` gave what it should."""
    x, out = np.arange(64, dtype=np.int32) ** 2, np.zeros(128, np.int32)
    module.get_function("shift")((1,), (64,), (x, out, *map(np.int32, (by, before, after))))
    expected = x[np.clip(np.arange(64) + by, 0, 63)]
    return np.array_equal(out, np.concatenate([expected, expected + 1]))


def test_a_missing_barrier_shows_in_one_of_the_orders(module, monkeypatch):
    right = {}
    for reverse in (False, True):
        monkeypatch.setattr(host_cuda, "reverse", reverse)
        for by in (-1, 1):
            assert shifted(module, by, 1, 1)
            for before, after in ((0, 1), (1, 0)):
                right[before, after, by, reverse] = shifted(module, by, before, after)
    for missing in ((0, 1), (1, 0)):
        for by in (-1, 1):
            assert not all(right[*missing, by, reverse] for reverse in (False, True))


def test_shared_memory_begins_as_nan_in_each_block(module):
    out = np.zeros(8, np.float32)
    module.get_function("poison")((2,), (4,), (out, np.int32(1)))
    assert (out == 1).all()
    module.get_function("poison")((2,), (4,), (out, np.int32(0)))
    assert np.isnan(out).all()


def test_arguments_of_all_kinds(module):
    out = np.zeros(1)
    settings = np.array((3, 0.5), np.dtype([("n", "i8"), ("scale", "f4")], align=True))[()]
    module.get_function("settings")((1,), (1,), (settings, out, np.bool_(True), np.int16(-7)))
    assert out[0] == 3 * 0.5 + 1 - 7
    f = module.get_function("settings")
    assert f.types == ["V16", "*f8", "u1", "i2"]


def test_functions_of_cuda(module):
    out = np.zeros(4)
    module.get_function("functions")((1,), (1,), (out, np.float32(2)))
    assert out.tolist() == [12, 2 - 1 + 0.5 + 1, 2 + 0x3F800000 + 0 + 1, 5 + 16]


WRONG = {  # kind, n: what is said
    (1, 1): r"an index out of its array's bounds at line 76 .*, thread \(31, 0, 0\)",
    (2, 0): r"27 threads of block \(., 0, 0\) ended while 5 wait at the barrier of line",
    (3, 0): r"threads of block \(., 0, 0\) wait at different barriers",
    (4, 0): "misaligned pointer",
    (5, 1 << 30): r"an overflow of \*",
    (6, 0): "a null or misaligned pointer",
    (6, 5000): "an access to address 0x4e20",
    (7, 0): "a division by zero",
    (8, 32): "a shift by a wrong number of bits",
}


@pytest.mark.parametrize(("kind", "n"), WRONG)
def test_what_is_undefined_raises(module, order, kind, n):
    out, f = np.zeros(64, np.float32), module.get_function("wrong")
    with pytest.raises(KernelError, match=WRONG[kind, n]):
        f((2,), (32,), (out, np.int32(kind), np.int32(n)))
    f((1,), (32,), (out, np.int32(9), np.int32(0)))  # and goes on afterwards


@pytest.mark.parametrize(("n", "message"), [(64, "0 bytes after the end"), (-1, "4 bytes before the start")])
def test_writing_outside_of_an_array_is_found(module, n, message):
    out = device_memory.empty(64, np.float32)
    module.get_function("wrong")((1,), (1,), (out, np.int32(0), np.int32(n)))
    with pytest.raises(device_memory.OutOfBounds, match=message):
        device_memory.check("wrong")
    device_memory.check("wrong")  # once


def test_reading_outside_of_an_array_gives_nan(module):
    x, out = device_memory.copy(np.ones(5, np.float32)), np.zeros(9, np.float32)
    module.get_function("total")((1,), (128,), (x, out, np.int32(6), np.zeros(1, np.uint32)))
    assert np.isnan(out[0])


GOOD = (np.zeros(64, np.float32), np.int32(9), np.int32(0))
MISUSE = {
    "has 3 parameters": ((1,), (1,), GOOD[:2]),
    "parameter 0 points to f4. Received: an array of float64": ((1,), (1,), (np.zeros(4), *GOOD[1:])),
    "parameter 0 points to f4. Received: an array of int32": ((1,), (1,), (np.zeros(4, np.int32), *GOOD[1:])),
    "parameter 0 is a pointer": ((1,), (1,), (1.5, *GOOD[1:])),
    "parameter 1 is i4.*int64": ((1,), (1,), (GOOD[0], 9, GOOD[2])),
    "parameter 1 is i4.*float32": ((1,), (1,), (GOOD[0], np.float32(9), GOOD[2])),
    "parameter 1 is i4.*uint32": ((1,), (1,), (GOOD[0], np.uint32(9), GOOD[2])),
    "no GPU takes this size.*2048": ((1,), (2048,), GOOD),
    "no GPU takes this size.*65536": ((1, 65536), (1,), GOOD),
    "no GPU takes this size.*grid .0": ((0,), (1,), GOOD),
}


@pytest.mark.parametrize("message", MISUSE)
def test_wrong_launches_are_refused(module, message):
    with pytest.raises(KernelError, match=message):
        module.get_function("wrong")(*MISUSE[message])


def test_a_read_only_array_is_not_written(module):
    x = np.zeros(64, np.int32)
    x.flags.writeable = False
    flags = [np.int32(1)] * 3
    module.get_function("shift")((1,), (64,), (x, np.zeros(128, np.int32), *flags))
    with pytest.raises(KernelError, match="parameter 1 points to what the kernel writes"):
        module.get_function("shift")((1,), (64,), (np.zeros(64, np.int32), x, *flags))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__global__ void f( {", "expected"),
        (
            'extern "C" __global__ void f(float *p) { atomicAdd(p, 1.0f); }',
            "deleted",
        ),  # differs from run to run
        ('extern "C" __global__ void f(float *p) { *p = INFINITY; }', "INFINITY"),  # NVRTC has no headers
    ],
)
def test_what_a_gpu_s_compiler_refuses(text, message):
    with pytest.raises(KernelError, match=message):
        host_cuda.Module(text)


def test_unknown_kernels_are_named(module):
    with pytest.raises(KernelError, match=r"no kernel 'commented'.*'total', 'shift'"):
        module.get_function("commented")


def test_kernels_begin_with_counters_of_zero_and_guard_their_arrays():
    gpu = host_cuda.kernels()
    assert gpu.counters.dtype == np.int32 and not gpu.counters.any()
    assert np.isnan(gpu.empty((2, 3), np.float32)).all() and device_memory.find(gpu.counters.ctypes.data)


def test_addresses_are_known_as_long_as_their_memory_lives():
    a = device_memory.empty((4, 4))
    start = a.ctypes.data
    assert device_memory.find(start + 8) == (start, 128) == device_memory.find(start + 128)
    assert device_memory.find(start - 1) != (start, 128)
    row = a[1]
    del a
    assert device_memory.find(start) == (start, 128)
    del row
    assert device_memory.find(start) is None
