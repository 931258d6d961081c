# ruff: noqa: F811 - a fixture's name is an argument's
"""The binding of cuBLAS: what is called, on which handle and stream, and what products come out."""

import ctypes
import itertools
import threading
from types import SimpleNamespace

import device_memory
import numpy as np
import pytest
from blas_twin import BadCall, BlasTwin, bits, blas, numbers  # noqa: F401 - blas is a fixture

from xpnet.ops import cublas
from xpnet.ops.cublas import MATHS, Cublas, CublasError

MATH_NAMES = sorted(MATHS)
ERROR = {
    "float32": 1e-5,
    "tf32": 2e-3,
    "bfloat16": 1e-5,
    "float64": 1e-13,
}  # of a sum, per root of its length


# -- products ----------------------------------------------------------------------------------------------


def place(blas, a, how):
    """a device array of a's values that lies as `how` says."""
    rows, columns = a.shape
    if how == "rows":
        return blas.to_device(a)
    if how == "columns":
        return blas.to_device(np.ascontiguousarray(a.T)).T
    wide = np.full((rows + 2, columns + 5), 7, a.dtype)
    if how == "part of rows":
        wide[1 : 1 + rows, 3 : 3 + columns] = a
        return blas.to_device(wide)[1 : 1 + rows, 3 : 3 + columns]
    wide = np.full((columns + 3, rows + 1), 7, a.dtype)
    wide[2 : 2 + columns, 1:] = a.T
    return blas.to_device(wide)[2 : 2 + columns, 1:].T


WAYS = ["rows", "columns", "part of rows", "part of columns"]


def check_product(blas, rng, M, K, N, math, ways):
    a, b = rng.standard_normal((M, K)), rng.standard_normal((K, N))
    a, b = (bits(v) if math == "bfloat16" else v.astype(MATHS[math].operand) for v in (a, b))
    out = place(blas, np.full((M, N), np.nan, MATHS[math].out), ways[2])
    got = blas.calls.matmul(place(blas, a, ways[0]), place(blas, b, ways[1]), out, math)
    assert got is out
    a, b = (numbers(v, "bfloat16" if math == "bfloat16" else "float64").astype(float) for v in (a, b))
    atol = 3 * ERROR[math] * max(K, 1) ** 0.5
    np.testing.assert_allclose(blas.to_host(out), a @ b, rtol=0, atol=atol, err_msg=str(ways))


@pytest.mark.parametrize("math", MATH_NAMES)
def test_matmul_takes_rows_columns_and_parts_of_them(blas, rng, math):
    for ways in itertools.product(WAYS, repeat=3):
        check_product(blas, rng, 5, 7, 3, math, ways)


@pytest.mark.parametrize(
    "shape", [(1, 4, 3), (4, 1, 3), (4, 3, 1), (1, 1, 1), (1, 5, 1), (6, 1, 1), (1, 1, 6)]
)
def test_matmul_of_a_single_row_or_column(blas, rng, shape):
    for way in WAYS:
        check_product(blas, rng, *shape, "float32", (way, way, way))


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 4, 0), (0, 0, 0)])
def test_an_empty_product_does_nothing(blas, rng, shape):
    check_product(blas, rng, *shape, "float32", ("rows", "rows", "rows"))


def test_a_sum_of_nothing_is_zero(blas, rng):
    check_product(blas, rng, 3, 0, 4, "float32", ("rows", "columns", "part of rows"))


@pytest.mark.parametrize("lengths", [(64, 300, 40), (130, 77, 129)])
@pytest.mark.parametrize("math", MATH_NAMES)
def test_larger_products_keep_the_precision_of_their_name(blas, rng, math, lengths):
    check_product(blas, rng, *lengths, math, ("rows", "columns", "rows"))


def test_float32_is_more_exact_than_tf32(blas, rng):
    """So that no tf32 gets into float32 unseen: its error is a thousand times smaller."""
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 512), (512, 64)))
    want = a.astype(float) @ b
    errors = {}
    for math in ("float32", "tf32"):
        out = blas.empty((64, 64), np.float32)
        blas.calls.matmul(blas.to_device(a), blas.to_device(b), out, math)
        errors[math] = np.abs(blas.to_host(out) - want).max()
    assert errors["float32"] < 1e-4 < 3e-3 < errors["tf32"] < 0.3


def test_batches_follow_strides_and_add_to_what_is_there(blas, rng):
    m, n, k, batch = 3, 4, 5, 3
    a, b = rng.standard_normal(40).astype(np.float32), rng.standard_normal((n, k)).astype(np.float32)
    c = rng.standard_normal((batch, n, m + 1)).astype(np.float32)
    da, db, dc = map(blas.to_device, (a, b, c))
    operands = "float32", False, False, m, n, k, da.data.ptr, 6, 2, db.data.ptr, k, 0
    blas.calls.gemm_batched(*operands, 1, dc.data.ptr, m + 1, n * (m + 1), batch)
    for i in range(batch):  # overlapping, as the rows of a convolution are
        A = np.ndarray((m, k), np.float32, a[2 * i :], 0, (4, 24))
        c[i, :, :m] += (A @ b.T).T
    np.testing.assert_allclose(blas.to_host(dc), c, rtol=1e-5, atol=1e-5)


def view(shape, strides, start=0, dtype=np.float32):
    return np.ndarray(shape, dtype, np.zeros(4096, np.uint8), start, strides)


@pytest.mark.parametrize(
    ("a", "layout"),
    [
        (view((3, 5), (20, 4)), (True, 5)),
        (view((3, 5), (4, 12)), (False, 3)),
        (view((3, 5), (32, 4)), (True, 8)),
        (view((3, 5), (4, 32)), (False, 8)),
        (view((3, 1), (4, 4)), (True, 1)),
        (view((3, 1), (24, 999)), (True, 6)),
        (view((1, 5), (999, 4)), (True, 5)),
        (view((1, 5), (4, 24)), (False, 6)),
        (view((1, 1), (0, 0)), (True, 1)),
        (view((3, 5), (40, 8)), "every other column"),
        (view((3, 5), (-20, 4), 60), "backwards"),
        (view((3, 5), (8, 4)), "rows that overlap"),
        (view((3, 5), (4, 8)), "columns that overlap"),
        (view((3, 5), (0, 4)), "a row for all"),
        (view((3, 5), (4, 0)), "a column for all"),
        (view((3, 5), (22, 4)), "rows at odd addresses"),
        (view((3, 5), (4, 14)), "columns at odd addresses"),
        (view((3, 1), (0, 4)), "an element for all"),
    ],
)
def test_a_layout_is_told_from_strides(a, layout):
    if isinstance(layout, tuple):
        assert cublas._layout(a, "a") == layout
        return
    with pytest.raises(ValueError, match=r"b must lie row by row or column by column.*contiguous"):
        cublas._layout(a, "b")


def test_matmul_refuses_what_lies_in_no_order(blas):
    a = blas.to_device(np.ones((6, 6), np.float32))
    with pytest.raises(ValueError, match=r"a must lie row by row or column by column.*contiguous"):
        blas.calls.matmul(a[::2, ::2], a[:3], a[:3], "float32")


def test_matmul_refuses_other_shapes_and_types(blas):
    a, b = (blas.to_device(np.ones(shape, np.float32)) for shape in ((2, 3), (3, 4)))
    with pytest.raises(ValueError, match=r"shapes do not fit.*\(2, 3\) @ \(3, 4\) -> \(2, 3\)"):
        blas.calls.matmul(a, b, a, "float32")
    with pytest.raises(ValueError, match=r"bfloat16 takes uint16 into float32.*float32, float32, float32"):
        blas.calls.matmul(a, b, blas.empty((2, 4), np.float32), "bfloat16")


def test_sizes_beyond_an_int_are_refused():
    blas, _ = make()
    with pytest.raises(OverflowError, match="4294967297"):
        blas.gemm("float32", 0, 0, 2, 2, 2**32 + 1, 0, 2, 0, 2, 0, 0, 2)
    with pytest.raises(OverflowError):
        blas.gemm_batched("float32", 0, 0, 2, 2, 2, 0, 2**31, 0, 0, 2, 0, 0, 0, 2, 0, 1)
    with pytest.raises(OverflowError):
        blas.gemm_batched("float32", 0, 0, 2, 2, 2, 0, 2, 0, 0, 2, 0, 0, 0, 2, 0, 2**31)


# -- the twin finds wrong calls ----------------------------------------------------------------------------

RIGHT = {
    "ta": False, "tb": True, "m": 4, "n": 3, "k": 5, "lda": 6, "stride_a": 30, "ldb": 3, "stride_b": 15,
    "beta": 0, "ldc": 4, "stride_c": 12, "batch": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"lda": 7}, "A .* reaches 1[0-9] bytes out"),
        ({"lda": 3}, "A .*INVALID_VALUE"),
        ({"stride_a": 33}, "A .* out of its array"),
        ({"stride_b": 16}, "B .* reaches 4 bytes out"),
        ({"stride_b": -1}, "B .* reaches 4 bytes out"),
        ({"tb": False}, "B .*INVALID_VALUE"),
        ({"ta": True, "lda": 5}, None),
        ({"ta": True, "lda": 10}, "A .* out of its array"),
        ({"batch": 3}, "A .* out of its array"),
        ({"ldc": 5}, "C .* out of its array"),
        ({"ldc": 3}, "C .*INVALID_VALUE"),
        ({"stride_c": 0}, "matrices of C overlap"),
        ({"stride_c": 11}, "matrices of C overlap"),
        ({"stride_c": 13}, "C .* reaches 4 bytes out"),
        ({"beta": 0.5}, "beta"),
        ({"m": 0}, "nothing to do"),
        ({}, None),
    ],
)
def test_the_twin_finds_a_wrong_size_or_stride(wrong, words):
    a, b, c = (device_memory.copy(np.ones(size, np.float32)) for size in (58, 30, 24))
    call = {**RIGHT, **wrong, "a": a.ctypes.data, "b": b.ctypes.data, "c": c.ctypes.data, "math": "float32"}
    if words is None:
        BlasTwin().gemm_batched(**call)
        assert (c == 5).all()
        return
    with pytest.raises(BadCall, match=words):
        BlasTwin().gemm_batched(**call)


def test_the_twin_finds_memory_that_is_gone_or_shared():
    a, b = (device_memory.copy(np.ones((2, 2), np.float32)) for _ in "ab")
    pa, pb = a.ctypes.data, b.ctypes.data
    with pytest.raises(BadCall, match="C overlaps"):
        BlasTwin().gemm("float32", 0, 0, 2, 2, 2, pa, 2, pb, 2, 0, pb, 2)
    del b
    with pytest.raises(BadCall, match="no live allocation"):
        BlasTwin().gemm("float32", 0, 0, 2, 2, 2, pa, 2, pb, 2, 0, pa, 2)


def test_the_twin_rounds_as_the_precisions_do():
    a = np.array([1 + 2**-11, 1 + 2**-12, -(1 + 2**-10), 3e38], np.float32)
    assert numbers(a, "tf32").tolist() == [1 + 2**-10, 1, -(1 + 2**-10), numbers(a, "tf32")[3]]
    assert numbers(bits(np.array([1 + 2**-8, 1 + 3 * 2**-8, -2], np.float32)), "bfloat16").tolist() == [
        1,
        1 + 2**-6,
        -2,
    ]


# -- handles, streams and threads, over a library that writes down what it is asked ------------------------


class Library:
    """Stands for libcublas."""

    def __init__(self, version=12, **status):
        self.calls, self.status, self.version, self.handles = [], status, version, 0

    def __getattr__(self, name):
        if not name.startswith("cublas"):
            raise AttributeError(name)

        def function(*args):
            if name == "cublasGetProperty":
                args[1]._obj.value = (self.version, 9, 2)[args[0]]
                return 0
            if name == "cublasGetStatusName":
                return b"CUBLAS_STATUS_" + {3: b"ALLOC_FAILED", 13: b"EXECUTION_FAILED"}[args[0]]
            self.calls.append((name, *args))
            if name == "cublasCreate_v2":
                self.handles += 1
                args[0]._obj.value = 1000 + self.handles
            return self.status.get(name, 0)

        setattr(self, name, function)
        return function

    def asked(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


class Cuda:
    """Stands for cupy.cuda, with a current stream for each thread."""

    def __init__(self, capability="90"):
        self.capability, self.allocated, self.here = capability, [], threading.local()
        self.runtime = SimpleNamespace(runtimeGetVersion=lambda: 12090)
        self.cublas = None

    def get_current_stream(self):
        return getattr(self.here, "stream", SimpleNamespace(ptr=0))

    def Device(self, index=None):
        device = SimpleNamespace(id=index or 0, compute_capability=self.capability)
        return _Context(device)

    def Memory(self, size):
        self.allocated.append(size)
        return SimpleNamespace(ptr=0x7000 + len(self.allocated), size=size)


class _Context(SimpleNamespace):
    def __init__(self, device):
        super().__init__(**vars(device))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def make(capability="90", monkeypatch=None, **status):
    cuda, library = Cuda(capability), Library(**status)
    blas = Cublas(SimpleNamespace(cuda=cuda))
    blas._lib = library
    return blas, library


def on(blas, ptr):
    blas.cupy.cuda.here.stream = SimpleNamespace(ptr=ptr)


def multiply(blas, math="float32"):
    blas.gemm(math, False, True, 2, 3, 4, 0x10, 2, 0x20, 3, 1, 0x30, 2)


def test_nothing_is_loaded_or_created_before_it_is_needed():
    blas, library = make()
    assert not library.calls and not blas.cupy.cuda.allocated


def test_stream_then_workspace_are_set_when_the_stream_changes():
    blas, library = make()
    for stream in (5, 5, 6, 6, 5):
        on(blas, stream)
        multiply(blas)
    sets = [call for call in library.calls if call[0].startswith("cublasSet") and "Math" not in call[0]]
    first, second = 0x7001, 0x7002
    size = 32 << 20
    assert sets == [
        ("cublasSetStream_v2", 1001, 5), ("cublasSetWorkspace_v2", 1001, first, size),
        ("cublasSetStream_v2", 1001, 6), ("cublasSetWorkspace_v2", 1001, second, size),
        ("cublasSetStream_v2", 1001, 5), ("cublasSetWorkspace_v2", 1001, first, size),
    ]  # fmt: skip
    assert len(library.asked("cublasGemmEx")) == 5


@pytest.mark.parametrize(
    ("capability", "mebibytes"), [("80", 4), ("89", 4), ("90", 32), ("100", 32), ("120", 12)]
)
def test_the_workspace_is_what_nvidia_advises(capability, mebibytes):
    blas, library = make(capability)
    multiply(blas)
    assert library.asked("cublasSetWorkspace_v2")[0][2] == mebibytes << 20


def test_a_stream_that_could_not_be_set_is_tried_again():
    blas, library = make(cublasSetWorkspace_v2=13)
    for _ in range(2):
        with pytest.raises(
            CublasError, match=r"cublasSetWorkspace failed: CUBLAS_STATUS_EXECUTION_FAILED \(13\)"
        ):
            multiply(blas)
    assert len(library.asked("cublasSetStream_v2")) == 2 and not library.asked("cublasGemmEx")


def test_a_stream_that_could_not_be_left_is_set_again():
    """A handle whose stream was changed, but whose workspace was not, is on neither."""
    blas, library = make()
    on(blas, 5)
    multiply(blas)
    library.status["cublasSetWorkspace_v2"] = 13
    on(blas, 6)
    with pytest.raises(CublasError):
        multiply(blas)
    library.status.clear()
    on(blas, 5)
    multiply(blas)
    assert [call[1] for call in library.asked("cublasSetStream_v2")] == [5, 6, 5]


def test_each_thread_has_its_own_handle_and_leaves_it_to_the_next():
    blas, library = make()
    multiply(blas)
    meet = threading.Barrier(2)

    def work(stream, wait):
        on(blas, stream)
        if wait:
            blas.use()
            meet.wait(10)
        multiply(blas)

    threads = [threading.Thread(target=work, args=(stream, True)) for stream in (7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = {call[0] for call in library.asked("cublasGemmEx")}
    assert used == {1001, 1002, 1003}
    last = threading.Thread(target=work, args=(9, False))
    last.start()
    last.join()
    assert library.handles == 3 and library.asked("cublasGemmEx")[-1][0] in used
    assert library.calls[-2][0] == "cublasSetWorkspace_v2"  # of stream 9: not what the last thread left
    multiply(blas)
    assert library.asked("cublasGemmEx")[-1][0] == 1001


def test_two_threads_on_one_stream_share_its_workspace_and_not_their_default_streams():
    blas, library = make()

    def work(stream):
        on(blas, stream)
        multiply(blas)

    for stream in (5, 5, 2, 2):
        thread = threading.Thread(target=work, args=(stream,))
        thread.start()
        thread.join()
    on(blas, 2)
    multiply(blas)
    memory = {call[1] for call in library.asked("cublasSetWorkspace_v2")}
    assert 3 <= len(memory) == len(blas.cupy.cuda.allocated)
    assert len([1 for key in blas._workspaces if key[0] == 5]) == 1


def test_close_destroys_every_handle_and_starts_afresh():
    blas, library = make()
    multiply(blas)
    thread = threading.Thread(target=multiply, args=(blas,))
    thread.start()
    thread.join()
    blas.close()
    assert sorted(call[0] for call in library.asked("cublasDestroy_v2")) == [1001, 1002]
    multiply(blas)
    assert library.asked("cublasGemmEx")[-1][0] == 1003 and not blas._free


@pytest.mark.parametrize(
    ("math", "operand", "out", "compute"),
    [("float32", 0, 0, 68), ("tf32", 0, 0, 77), ("bfloat16", 14, 0, 68), ("float64", 1, 1, 70)],
)
def test_the_arguments_of_a_call(math, operand, out, compute):
    """The numbers of library_types.h and cublas_api.h; alpha is 1, and beta as asked."""
    blas, library = make()
    multiply(blas, math)
    ((handle, ta, tb, m, n, k, alpha, a, ta_, lda, b, tb_, ldb, beta, c, tc_, ldc, kind, algorithm),) = (
        library.asked("cublasGemmEx")
    )
    assert (handle, ta, tb, m, n, k) == (1001, 0, 1, 2, 3, 4)
    assert (a, ta_, lda, b, tb_, ldb, c, tc_, ldc) == (0x10, operand, 2, 0x20, operand, 3, 0x30, out, 2)
    assert (kind, algorithm) == (compute, -1)
    number = ctypes.c_double if math == "float64" else ctypes.c_float
    assert number.from_address(alpha).value == number.from_address(beta).value == 1
    blas.gemm_batched(math, 1, 0, 2, 3, 4, 0x10, 4, 11, 0x20, 4, 12, 0, 0x30, 2, 13, 9)
    (call,) = library.asked("cublasGemmStridedBatchedEx")
    assert (call[7:11], call[11:15], call[16:20]) == (
        (0x10, operand, 4, 11), (0x20, operand, 4, 12), (0x30, out, 2, 13),
    )  # fmt: skip
    assert number.from_address(call[6]).value == 1 and number.from_address(call[15]).value == 0
    assert call[20:] == (9, compute, -1)
    blas.gemm_batched(math, 1, 0, 2, 3, 4, 0x10, 4, 11, 0x20, 4, 12, 1, 0x30, 2, 13, 9)
    assert number.from_address(library.asked("cublasGemmStridedBatchedEx")[1][15]).value == 1


@pytest.mark.parametrize("name", cublas.OVERRIDES)
@pytest.mark.parametrize(("value", "pedantic"), [("1", True), ("0", False), ("", False)])
def test_the_environment_cannot_slip_another_precision_in(monkeypatch, name, value, pedantic):
    for other in cublas.OVERRIDES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    blas, library = make()
    for math in ("float32", "float64", "tf32", "bfloat16"):
        multiply(blas, math)
    computed = [call[-2] for call in library.asked("cublasGemmEx")]
    assert computed == ([69, 71, 77, 68] if pedantic else [68, 70, 77, 68])
    assert library.asked("cublasSetMathMode") == [(1001, 0)]


def test_an_error_names_the_call_and_its_sizes():
    blas, _ = make(cublasGemmStridedBatchedEx=13, cublasGemmEx=3)
    with pytest.raises(
        CublasError, match=r"cublasGemmEx failed: CUBLAS_STATUS_ALLOC_FAILED \(3\).*tf32 NT m=2"
    ) as e:
        multiply(blas, "tf32")
    assert e.value.status == 3
    with pytest.raises(
        CublasError, match="TN m=2 n=3 k=4 lda=4 ldb=4 ldc=2 stride_a=11 stride_b=12 stride_c=13 batch=9"
    ):
        blas.gemm_batched("float32", 1, 0, 2, 3, 4, 0x10, 4, 11, 0x20, 4, 12, 0, 0x30, 2, 13, 9)


# -- the library -------------------------------------------------------------------------------------------


def loading(monkeypatch, libraries, pathfinder=None, version=12090):
    """cublas.load where these names can be loaded, and cuda.pathfinder finds that one."""

    def cdll(name):
        if name not in libraries:
            raise OSError(f"{name}: cannot open shared object file")
        return libraries[name]

    def found():
        if pathfinder is None:
            raise ImportError("No module named 'cuda'")
        return pathfinder

    monkeypatch.setattr(cublas.ctypes, "CDLL", cdll)
    monkeypatch.setattr(cublas, "_found", found)
    monkeypatch.setattr(cublas.sys, "platform", "linux")
    cuda = Cuda()
    cuda.runtime.runtimeGetVersion = lambda: version
    return lambda: cublas.load(SimpleNamespace(cuda=cuda))


@pytest.mark.parametrize(("version", "soname"), [(12090, "libcublas.so.12"), (13000, "libcublas.so.13")])
def test_the_library_is_that_of_cupys_version_of_cuda(monkeypatch, version, soname):
    library = Library(version // 1000)
    assert loading(monkeypatch, {soname: library}, version=version)() is library


def test_every_argument_has_its_declared_type(monkeypatch):
    """Undeclared, an address of more than 32 bits would be cut."""
    library = Library()
    loading(monkeypatch, {"libcublas.so.12": library})()
    blas, _ = make()
    blas._lib = library
    multiply(blas)
    blas.gemm_batched("float32", 1, 0, 2, 3, 4, 2**40, 4, 2**40, 0x20, 4, 12, 0, 0x30, 2, 13, 9)
    blas.close()
    assert len({call[0] for call in library.calls}) == 7
    for name, *args in library.calls:
        function = getattr(library, name)
        assert len(function.argtypes) == len(args) and function.restype is ctypes.c_int
        for kind, arg in zip(function.argtypes, args):
            assert not isinstance(arg, int) or kind(arg).value in (arg, arg or None), (name, kind, arg)


def test_pathfinder_comes_first(monkeypatch):
    first, second = Library(), Library()
    assert loading(monkeypatch, {"/there": first, "libcublas.so.12": second}, "/there")() is first


def test_a_library_of_another_version_is_passed_over(monkeypatch):
    other, right = Library(13), Library()
    assert loading(monkeypatch, {"/there": other, "libcublas.so.12": right}, "/there")() is right


def test_the_error_says_what_was_tried(monkeypatch):
    load = loading(monkeypatch, {"/there": Library(13)}, "/there")
    with pytest.raises(CublasError) as error:
        load()
    for words in (
        "CUDA 12 could not be loaded", "pip install nvidia-cublas-cu12", "cuda.pathfinder: version 13",
        "libcublas.so.12: cannot open",
    ):  # fmt: skip
        assert words in str(error.value)


# -- on a GPU ----------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_a_recorded_product_repeats_to_the_bit(rng):
    from xpnet.device import NoDevice, _cuda

    try:
        cupy = _cuda(0).xp
    except NoDevice as reason:
        pytest.skip(f"no GPU: {reason}")
    blas, stream = Cublas(cupy), cupy.cuda.Stream(non_blocking=True)
    assert blas.version[0] == cupy.cuda.runtime.runtimeGetVersion() // 1000
    with stream:
        a, b = (cupy.asarray(rng.standard_normal((256, 256)), cupy.float32) for _ in "ab")
        out = cupy.zeros((256, 256), cupy.float32)
        blas.matmul(a, b, out, "tf32")
        want = out.get()
        out.fill(0)
        stream.begin_capture()
        blas.matmul(a, b, out, "tf32")
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
    assert (out.get() == want).all()
    blas.close()
