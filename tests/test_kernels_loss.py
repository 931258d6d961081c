"""Cross-entropy and accuracy in a kernel each, against the library's own formulas and PyTorch."""

import kernel_cases
import numpy as np
import pytest

from xpnet import losses, metrics
from xpnet.ops.kernels import loss as kernel
from xpnet.ops.reference import Ops

gpu = kernel_cases.gpu

SHAPES = [(1, 1), (1, 2), (8, 10), (65, 4), (64, 5), (3, 33), (1000, 3), (1, 1000), (5, 1000), (300, 17)]


def run(gpu, p, y, w=None, divisor=1.0, smoothing=0.0, mean=True, transposed=False):
    def logits(a):
        return gpu.to_device(np.asfortranarray(a) if transposed else a)

    value, dp = gpu.to_device(np.full((), np.nan, p.dtype)), logits(np.full_like(p, np.nan))
    given = None if w is None else gpu.to_device(w)
    kernel.crossentropy(gpu.kernels, logits(p), gpu.to_device(y), given, divisor, smoothing, mean, value, dp)
    return gpu.to_host(value)[()], gpu.to_host(dp)


def targets(rng, kind, N, K, dtype):
    if kind == "labels":
        return rng.integers(K, size=N)
    t = rng.random((N, K)).astype(dtype)
    return t if kind == "masses" else t / t.sum(axis=1, keepdims=True)


def formula(p, y, w, divisor, smoothing, mean):
    cls = losses.SparseCategoricalCrossentropy if y.ndim == 1 else losses.CategoricalCrossentropy
    made = cls(from_logits=True, label_smoothing=smoothing, reduction="mean" if mean else "sum")
    return losses.Loss.value_and_grad(made, Ops(), p, y, w, divisor)


def agree(got, want, dtype):
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got[0], want[0], rtol=20 * eps, atol=20 * eps)
    scale = np.abs(want[1]).max()
    np.testing.assert_allclose(got[1], want[1], rtol=100 * eps, atol=20 * eps * max(scale, eps))
    assert got[1].dtype == got[0].dtype == dtype


@pytest.mark.parametrize("kind", ["labels", "probabilities", "masses"])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_derivative_follow_the_formula(gpu, rng, shape, kind, precision):
    p, y = (3 * rng.normal(size=shape)).astype(precision), targets(rng, kind, *shape, precision)
    agree(run(gpu, p, y, divisor=float(len(p))), formula(p, y, None, float(len(p)), 0.0, True), precision)


@pytest.mark.parametrize("kind", ["labels", "masses"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("shape", [(37, 10), (6, 700)])
def test_weights_smoothing_and_reduction(gpu, rng, shape, kind, smoothing, mean, precision):
    p, y = (3 * rng.normal(size=shape)).astype(precision), targets(rng, kind, *shape, precision)
    w = rng.random(shape[0]).astype(precision)
    w[1] = 0
    divisor = float(w.sum())
    agree(run(gpu, p, y, w, divisor, smoothing, mean), formula(p, y, w, divisor, smoothing, mean), precision)


@pytest.mark.parametrize("of", ["float32", "float64"])
def test_divisor_may_lie_in_device_memory(gpu, rng, of, precision):
    p, y = rng.normal(size=(20, 6)).astype(precision), targets(rng, "labels", 20, 6, precision)
    got = run(gpu, p, y, divisor=gpu.to_device(np.array(12.5, of)))
    agree(got, formula(p, y, None, 12.5, 0.0, True), precision)


def test_mean_over_no_weight_is_zero(gpu, rng):
    p, y, w = rng.normal(size=(4, 3)).astype("f4"), np.zeros(4, int), np.zeros(4, "f4")
    value, dp = run(gpu, p, y, w, gpu.to_device(np.zeros((), "f4")))
    assert value == 0 and not dp.any()


@pytest.mark.parametrize("shape", [(50, 10), (3, 600)])
def test_logits_with_transposed_memory(gpu, rng, shape, precision):
    p, y = rng.normal(size=shape).astype(precision), targets(rng, "labels", *shape, precision)
    agree(run(gpu, p, y, divisor=7.0, transposed=True), formula(p, y, None, 7.0, 0.0, True), precision)


@pytest.mark.parametrize("of_p", ["C", "F"])
def test_logits_and_their_derivative_may_lie_differently(gpu, rng, of_p, precision):
    p, y = rng.normal(size=(50, 10)).astype(precision), targets(rng, "labels", 50, 10, precision)
    value = gpu.to_device(np.full((), np.nan, precision))
    dp = gpu.to_device(np.full_like(p, np.nan, order="F" if of_p == "C" else "C"))
    given = gpu.to_device(np.asarray(p, order=of_p))
    kernel.crossentropy(gpu.kernels, given, gpu.to_device(y), None, 7.0, 0.0, True, value, dp)
    got = gpu.to_host(value)[()], gpu.to_host(dp)
    agree(got, formula(p, y, None, 7.0, 0.0, True), precision)


@pytest.mark.parametrize("K", [4, 10, 1000])
def test_large_logits_stay_exact(gpu, K):
    p = np.zeros((3, K), np.float32)
    p[0, 1], p[1, 2], p[2] = 1e38, -1e38, 1e38
    value, dp = run(gpu, p, np.array([1, 2, 0]), divisor=1.0)
    assert value == pytest.approx(1e38, rel=1e-6)  # the second row's; the others' are 0 and log K
    q = np.full((3, K), 1 / K)
    q[0], q[1] = np.arange(K) == 1, (np.arange(K) != 2) / (K - 1)
    np.testing.assert_allclose(dp, q - np.eye(K)[[1, 2, 0]], atol=1e-7)


@pytest.mark.parametrize("kind", ["labels", "one-hot"])
def test_an_impossible_class_costs_nothing_unless_it_is_the_answer(gpu, kind):
    p = np.array([[0, 1, -np.inf, 2]], np.float32)
    y = np.array([1]) if kind == "labels" else np.eye(4, dtype="f4")[[1]]
    value, dp = run(gpu, p, y)
    q = np.exp([0, 1, -np.inf, 2]) / np.exp([0, 1, -np.inf, 2]).sum()
    assert value == pytest.approx(-np.log(q[1]), rel=1e-6)
    np.testing.assert_allclose(dp, [q - np.eye(4)[1]], atol=1e-7)
    asked = np.array([2]) if kind == "labels" else np.eye(4, dtype="f4")[[2]]
    assert run(gpu, p, asked)[0] == np.inf


@pytest.mark.parametrize("kind", ["labels", "probabilities", "nothing"])
@pytest.mark.parametrize("K", [3, 10, 600])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 1, -1])
def test_logits_that_are_not_finite_make_a_loss_that_is_not(gpu, rng, kind, K, bad, where):
    p = rng.normal(size=(5, K)).astype("f4")
    p[2, where] = bad
    y = np.zeros((5, K), "f4") if kind == "nothing" else targets(rng, kind, 5, K, "f4")
    value, dp = run(gpu, p, y)
    assert not np.isfinite(value)
    assert np.isfinite(dp).all(axis=1).tolist() == [True, True, False, True, True]


def test_a_row_of_minus_infinity_is_not_finite(gpu):
    assert np.isnan(run(gpu, np.full((2, 3), -np.inf, "f4"), np.zeros(2, int))[0])


@pytest.mark.parametrize("label", [-1, 10, 2**40, -(2**62)])
def test_a_label_that_is_no_class_makes_the_loss_nan(gpu, rng, label):
    y = rng.integers(10, size=30)
    y[17] = label
    value, dp = run(gpu, rng.normal(size=(30, 10)).astype("f4"), y)
    assert np.isnan(value) and np.isnan(dp[17]).all() and np.isfinite(np.delete(dp, 17, 0)).all()


def test_the_loss_of_many_blocks_repeats_to_the_bit(gpu, rng):
    p, y = rng.normal(size=(1000, 100)).astype("f4"), rng.integers(100, size=1000)
    first, second = (run(gpu, p, y, divisor=1000.0) for _ in range(2))
    assert first[0] == second[0] and (first[1] == second[1]).all()
    wide = formula(p.astype(float), y, None, 1000.0, 0.0, True)[0]
    assert abs(first[0] - wide) < 1e-6 * wide


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(30, 10), (4, 1000)])
def test_values_are_pytorchs(gpu, rng, shape, kind, smoothing, precision):
    torch = pytest.importorskip("torch")
    p, y = (4 * rng.normal(size=shape)).astype(precision), targets(rng, kind, *shape, precision)
    t = torch.tensor(p, requires_grad=True)
    value = torch.nn.functional.cross_entropy(t, torch.tensor(y), label_smoothing=smoothing)
    value.backward()
    got, dp = run(gpu, p, y, divisor=float(shape[0]), smoothing=smoothing)
    eps = np.finfo(precision).eps
    np.testing.assert_allclose(got, value.item(), rtol=30 * eps)
    np.testing.assert_allclose(dp, t.grad.numpy(), rtol=100 * eps, atol=30 * eps / shape[0])


# -- accuracy --------------------------------------------------------------------------------------------


def count(gpu, p, y, w=None, out_type=np.float64, transposed=False):
    out = gpu.kernels.empty(2, out_type)
    given = None if w is None else gpu.to_device(w)
    p = gpu.to_device(np.asfortranarray(p) if transposed else p)
    kernel.count_right(gpu.kernels, p, gpu.to_device(y), given, out)
    return gpu.to_host(out)


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES)
def test_right_answers_are_those_of_the_metric(gpu, rng, shape, kind, precision):
    p = rng.integers(-2, 3, shape).astype(precision)  # many ties: the first of equals counts
    y = targets(rng, kind, *shape, precision)
    if kind == "probabilities":
        y = np.round(y * shape[1])  # ties here too
    w = rng.random(shape[0]).astype(precision)
    for weight in (None, w):
        ones = np.ones(len(p)) if weight is None else w.astype(float)
        want = metrics.Accuracy().sums(Ops(), p, y[:, None] if shape[1] == 1 and y.ndim == 1 else y, ones)
        for out_type in (np.float64, precision):
            got = count(gpu, p, y, weight, out_type, transposed=weight is not None)
            np.testing.assert_allclose(got, want, rtol=1e-6 if out_type == "float32" else 1e-12)


def test_counts_of_a_large_batch_are_exact(gpu, rng):
    p, y = rng.normal(size=(5000, 40)).astype("f4"), rng.integers(40, size=5000)
    assert count(gpu, p, y).tolist() == [(p.argmax(1) == y).sum(), 5000]


@pytest.mark.parametrize("K", [3, 9, 700])
def test_argmax_takes_the_first_nan_as_numpy_does(gpu, K):
    p = np.arange(4 * K, dtype="f4").reshape(4, K)
    p[1, 1], p[2, 2], p[3, [0, K - 1]] = np.nan, np.inf, np.nan
    p[0] = -np.inf
    assert count(gpu, p, p.argmax(1)).tolist() == [4, 4]


def test_a_label_that_is_no_class_is_never_right(gpu):
    assert count(gpu, np.zeros((3, 4), "f4"), np.array([-1, 4, 0])).tolist() == [1, 3]
