"""The optimizer's kernels: against NumPy, the CPU's Update, and what a step that is not finite leaves."""

import kernel_cases
import numpy as np
import pytest

import xpnet
from xpnet import optimizers
from xpnet.layers import Dense
from xpnet.ops.kernels import CONTROL, update
from xpnet.optimizers import TINY

gpu = kernel_cases.gpu

COUNTS = [1, 7, 31, 33, 4096, 1000003]
SGD = "__device__ inline void formula(T &p, T &g, double lr, double t, double norm) { p -= (T)lr * g; }"
ADAM = """
__device__ inline void formula(T &p, T &g, T &m, T &v, double lr, double t, double norm) {
    m = m * (T)0.9 + (T)(1 - 0.9) * g;
    v = v * (T)0.999 + (T)(1 - 0.999) * (g * g);
    double unbias = sqrt(1 - pow(0.999, t));
    p -= m / (sqrt(v) + (T)(1e-7 * unbias)) * (T)(lr * unbias / (1 - pow(0.9, t)));
}
"""


def new_control(gpu, **fields):
    control = gpu.to_device(np.zeros(CONTROL.itemsize, np.uint8))
    update.write_control(gpu.kernels, control, **{"good": 1, **fields})
    return control


def read(gpu, control):
    return update.read_control(gpu.kernels, control)


def scalar(gpu, value, dtype):
    return gpu.to_device(np.array(value, dtype))


def close(got, want, precision, rounding=4):
    """rounding: how often, in units of float32's or float64's precision."""
    rtol = rounding * np.finfo(precision).eps
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


# -- control -------------------------------------------------------------------------------------------------

FIELDS = {
    "step": 1 << 63,
    "iterations": 5,
    "rate": 0.1,
    "norm": 2.5,
    "cursor": 1 << 40,
    "skipped": 3,
    "ok": 1,
    "good": 1,
}


def test_any_fields_can_be_written(gpu):
    control = gpu.to_device(np.full(CONTROL.itemsize, 0xFF, np.uint8))
    update.write_control(gpu.kernels, control, **FIELDS, x=None, y=None, w=None, order=None)
    known = read(gpu, control)
    assert known == {**FIELDS, "x": 0, "y": 0, "w": 0, "order": 0}
    arrays = {name: gpu.to_device(np.zeros(3, np.int64)) for name in ("x", "y", "w", "order")}
    for name, value in {**dict.fromkeys(FIELDS, 7), **arrays}.items():
        update.write_control(gpu.kernels, control, **{name: value})
        address = value.__array_interface__["data"][0] if isinstance(value, np.ndarray) else None
        if not isinstance(value, int):
            value = address or value.data.ptr
        known[name] = value
        assert read(gpu, control) == known, name
    update.write_control(gpu.kernels, control, w=None, rate=0.5)
    assert read(gpu, control) == {**known, "w": 0, "rate": 0.5}


def test_wrong_fields_are_refused(gpu):
    control = new_control(gpu)
    with pytest.raises(TypeError, match=r"no field 'lr'.*rate"):
        update.write_control(gpu.kernels, control, lr=0.1)
    with pytest.raises(TypeError, match=r"order must be int64\. Received: int32"):
        update.write_control(gpu.kernels, control, order=gpu.to_device(np.zeros(3, np.int32)))


# -- judge ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_judge_takes_the_norm_and_counts(count, clip, precision, gpu, rng):
    g = rng.normal(size=count).astype(precision)
    grads, control = gpu.to_device(g), new_control(gpu, step=10, iterations=4, cursor=100)
    update.judge(gpu.kernels, control, grads, [(0, count)], scalar(gpu, 1.5, precision), clip, 32)
    clipped = g if clip is None else np.clip(g, -clip, clip)
    np.testing.assert_array_equal(gpu.to_host(grads), clipped)
    found = read(gpu, control)
    assert found.pop("norm") == pytest.approx(np.linalg.norm(clipped.astype(np.float64)), rel=1e-12)
    assert {name: found[name] for name in ("ok", "good", "step", "iterations", "skipped", "cursor")} == {
        "ok": 1, "good": 1, "step": 11, "iterations": 5, "skipped": 0, "cursor": 132,
    }  # fmt: skip


@pytest.mark.parametrize(
    "ranges", [[], [(0, 0)], [(3, 9)], [(1, 5), (7, 8)], [(0, 40000), (40001, 40001), (50001, 90007)]]
)
def test_judge_looks_at_what_is_trained(ranges, gpu, rng):
    g = np.full(90010, np.nan)
    inside = np.zeros(len(g), bool)
    for start, stop in ranges:
        inside[start:stop] = True
    g[inside] = rng.normal(size=inside.sum())
    control = new_control(gpu)
    update.judge(gpu.kernels, control, gpu.to_device(g), ranges, scalar(gpu, 0, "float64"), None, 1)
    found = read(gpu, control)
    assert found["ok"] and found["norm"] == pytest.approx(np.linalg.norm(g[inside]), rel=1e-12)


def test_gradients_whose_squares_overflow_are_finite(gpu):
    control = new_control(gpu)
    grads = gpu.to_device(np.full(3, 1e25, np.float32))
    update.judge(gpu.kernels, control, grads, [(0, 3)], scalar(gpu, 0, "float32"), None, 1)
    found = read(gpu, control)
    assert found["ok"] and found["norm"] == pytest.approx(3**0.5 * 1e25)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["loss", "first", "last"])
def test_a_step_that_is_not_finite_changes_nothing_until_the_host_looks(bad, where, precision, gpu, rng):
    count = 5003
    p, g, state = (rng.normal(size=count).astype(precision) for _ in range(3))
    values, running, control = gpu.to_device(p), gpu.to_device(state), new_control(gpu, rate=0.5)
    pending = gpu.to_device(state + 1)
    wrong = g.copy()
    wrong[{"first": 0, "last": -1, "loss": 3}[where]] = 2 if where == "loss" else bad
    good, wrong = gpu.to_device(g), gpu.to_device(wrong)

    def step(grads, loss):
        update.judge(gpu.kernels, control, grads, [(0, count)], scalar(gpu, loss, precision), None, 8)
        update.step(gpu.kernels, control, SGD, [values, grads], 0, count)
        update.take_over(gpu.kernels, control, running, pending)

    step(good, 1.0)
    after, taken = p - p.dtype.type(0.5) * g, state + 1
    np.testing.assert_array_equal(gpu.to_host(running), taken)
    close(gpu.to_host(values), after, precision)
    kept = gpu.to_host(values).copy()
    running[...] = 0  # what is not to come back
    step(wrong, bad if where == "loss" else 1.0)
    step(good, 1.0)  # though nothing is wrong with it
    np.testing.assert_array_equal(gpu.to_host(values), kept)
    assert not gpu.to_host(running).any()
    found = read(gpu, control)
    assert [found[k] for k in ("ok", "good", "step", "iterations", "skipped", "cursor")] == [
        0,
        0,
        1,
        1,
        2,
        24,
    ]
    update.write_control(gpu.kernels, control, good=1, skipped=0)
    step(good, 1.0)
    close(gpu.to_host(values), kept - p.dtype.type(0.5) * g, precision)
    np.testing.assert_array_equal(gpu.to_host(running), taken)
    found = read(gpu, control)
    assert [found[k] for k in ("ok", "good", "step", "iterations", "skipped", "cursor")] == [
        1,
        1,
        2,
        2,
        0,
        32,
    ]


def test_clipping_makes_infinite_gradients_finite_but_not_nan(gpu):
    """As np.clip does."""
    for value, ok in [(np.inf, 1), (np.nan, 0)]:
        grads, control = gpu.to_device(np.array([1.0, value, -np.inf])), new_control(gpu)
        update.judge(gpu.kernels, control, grads, [(0, 3)], scalar(gpu, 0, "float64"), 2.0, 1)
        assert read(gpu, control)["ok"] == ok
        np.testing.assert_array_equal(gpu.to_host(grads), np.clip([1.0, value, -np.inf], -2, 2))


def test_the_loss_may_be_of_another_type(gpu):
    grads = gpu.to_device(np.ones(3, np.float32))
    for loss, ok in [(1e300, 1), (np.nan, 0)]:
        control = new_control(gpu)
        update.judge(gpu.kernels, control, grads, [(0, 3)], scalar(gpu, loss, "float64"), None, 1)
        assert read(gpu, control)["ok"] == ok


# -- step ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", COUNTS)
def test_step_is_the_formula_between_start_and_stop(count, precision, gpu, rng):
    p, g, m, v = (abs(rng.normal(size=count + 5)).astype(precision) for _ in range(4))
    arrays = [gpu.to_device(a) for a in (p, g, m, v)]
    control = new_control(gpu, ok=1, rate=0.02, iterations=3)
    update.step(gpu.kernels, control, ADAM, arrays, 2, count + 2)
    before = [a.copy() for a in (p, g, m, v)]
    part = slice(2, count + 2)
    optimizers.Adam(0.02).update(np, p[part], g[part], [m[part], v[part]], 0.02, 3)
    for got, want, old in zip(arrays, (p, g, m, v), before):
        got = gpu.to_host(got)
        close(got, want, precision, 16)
        for border in (slice(2), slice(-3, None)):
            np.testing.assert_array_equal(got[border], old[border])


def test_the_formula_is_given_rate_number_and_norm(gpu):
    code = """__device__ inline void formula(T &a, T &b, T &c, double lr, double t, double norm) {
        a = lr; b = t; c = norm;
    }"""
    arrays = [gpu.to_device(np.zeros(3)) for _ in range(3)]
    control = new_control(gpu, ok=1, rate=0.25, iterations=7, norm=1.5)
    update.step(gpu.kernels, control, code, arrays, 0, 2)
    assert [gpu.to_host(a).tolist() for a in arrays] == [[0.25, 0.25, 0], [7, 7, 0], [1.5, 1.5, 0]]


def test_a_range_beyond_the_arrays_is_refused(gpu):
    arrays = [gpu.to_device(np.zeros(3)) for _ in range(2)]
    with pytest.raises(ValueError, match=r"\[1, 4\) is not within"):
        update.step(gpu.kernels, new_control(gpu), SGD, arrays, 1, 4)


CLIPS = {
    "none": {},
    "each": {"clipnorm": 0.4},
    "global": {"global_clipnorm": 0.4},
    "value": {"clipvalue": 0.1},
    "value and each": {"clipvalue": 0.1, "clipnorm": 0.4},
}


@pytest.mark.parametrize("clip", CLIPS)
def test_ten_steps_end_where_the_cpu_s_update_does(clip, precision, gpu, rng):
    """SGD with momentum and weight decay; clipping in the CPU's order; a layer that is frozen."""
    from xpnet.training.update import Update

    layers = [Dense(70), Dense(5, trainable=False), Dense(33), Dense(2)]
    model = xpnet.Sequential(layers, input_shape=(90,), device="cpu", precision=precision, seed=1)
    params = model.params
    opt = optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01, **CLIPS[clip])
    velocity = np.zeros_like(params.values)
    cpu = Update(params, opt, {"velocity": velocity}, 1)

    limit = opt.global_clipnorm or 1e300
    code = f"""__device__ inline void formula(T &p, T &g, T &v, double lr, double t, double norm) {{
        double scale = {limit} / (norm + {TINY});
        if (scale < 1) g *= (T)scale;
        p *= (T)(1 - lr * 0.01);
        v = v * (T)0.9 + g;
        p -= (T)lr * v;
    }}"""
    values, state = gpu.to_device(params.values), gpu.to_device(velocity)
    control = new_control(gpu, rate=0.1)
    starts, sizes = (
        gpu.to_device(np.array([getattr(s, name) for s in params.slots])) for name in ("start", "size")
    )
    assert len(params.trainable_ranges()) == 2
    for _ in range(10):
        for slot in params.slots:
            slot.view(params.grads)[...] = rng.normal(size=slot.view(params.grads).shape) * rng.uniform(
                0, 0.2
            )
        grads = gpu.to_device(params.grads)
        assert cpu([params.grads], 1.0)
        update.judge(
            gpu.kernels,
            control,
            grads,
            params.trainable_ranges(),
            scalar(gpu, 1, precision),
            opt.clipvalue,
            1,
        )
        if opt.clipnorm:
            update.clip_slots(gpu.kernels, grads, starts, sizes, opt.clipnorm)
        for start, stop in params.trainable_ranges():
            update.step(gpu.kernels, control, code, [values, grads, state], start, stop)
    close(gpu.to_host(values), params.values, precision, 64)
    close(gpu.to_host(state), velocity, precision, 64)
    assert read(gpu, control)["iterations"] == opt.iterations == 10


# -- the others ----------------------------------------------------------------------------------------------


def test_clip_slots_limits_each_slot_by_itself(precision, gpu, rng):
    sizes = np.array([1, 7, 40003, 33, 300, 5])
    starts = np.concatenate([[0], np.cumsum(sizes + 3)[:-1]])  # with gaps
    g = rng.normal(size=starts[-1] + sizes[-1] + 3).astype(precision)
    g[starts[3] : starts[3] + 33] *= 0.001  # within the limit
    g[starts[5] : starts[5] + 5] = 0
    grads = gpu.to_device(g)
    update.clip_slots(gpu.kernels, grads, gpu.to_device(starts), gpu.to_device(sizes), 0.5)
    want = g.copy()
    for start, size in zip(starts, sizes):
        part = want[start : start + size]
        norm = np.linalg.norm(part.astype(np.float64))
        part *= part.dtype.type(min(1.0, 0.5 / (norm + TINY)))
    np.testing.assert_allclose(gpu.to_host(grads), want, rtol=2 * np.finfo(precision).eps)
    np.testing.assert_array_equal(want[starts[3] : starts[3] + 33], g[starts[3] : starts[3] + 33])


def test_clip_slots_holds_where_float32_would_overflow(gpu):
    grads, one = gpu.to_device(np.full(4, 1e25, np.float32)), np.array([0])
    update.clip_slots(gpu.kernels, grads, gpu.to_device(one), gpu.to_device(one + 4), 1.0)
    np.testing.assert_allclose(gpu.to_host(grads), 0.5, rtol=1e-6)


@pytest.mark.parametrize("count", COUNTS)
def test_take_over(count, precision, gpu, rng):
    state, pending = (rng.normal(size=count).astype(precision) for _ in range(2))
    device = gpu.to_device(state)
    for ok, want in [(0, state), (1, pending)]:
        update.take_over(gpu.kernels, new_control(gpu, ok=ok), device, gpu.to_device(pending))
        np.testing.assert_array_equal(gpu.to_host(device), want)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("count", [1, 7, 33, 5003])
@pytest.mark.parametrize("factor", [1.0, 0.3, "float32", "float64"])
def test_accumulate(factor, count, dtype, gpu, rng):
    """In float64, whatever is added; factor may lie on the device."""
    total, values = rng.normal(size=count), (10 * rng.normal(size=count)).astype(dtype)
    device = gpu.to_device(total)
    given = scalar(gpu, 0.7, factor) if isinstance(factor, str) else factor
    update.accumulate(gpu.kernels, device, gpu.to_device(values), given)
    by = float(np.array(0.7, factor)) if isinstance(factor, str) else factor
    np.testing.assert_allclose(
        gpu.to_host(device), total + values.astype(np.float64) * by, rtol=1e-14, atol=1e-14
    )


def test_accumulate_takes_scalars_and_refuses_other_sizes(gpu):
    total = gpu.to_device(np.zeros(2))
    update.accumulate(gpu.kernels, total[1:], scalar(gpu, 2.5, "float32"), 2)
    assert gpu.to_host(total).tolist() == [0, 5]
    with pytest.raises(ValueError, match=r"float64 of 1 elements.*\(2,\)"):
        update.accumulate(gpu.kernels, total, scalar(gpu, 2.5, "float32"), 2)


def test_bits_repeat(gpu, rng):
    g = gpu.to_device(rng.normal(size=100003).astype(np.float32))
    norms = set()
    for _ in range(3):
        control = new_control(gpu)
        update.judge(gpu.kernels, control, g, [(5, 100003)], scalar(gpu, 0, "float32"), None, 1)
        norms.add(read(gpu, control)["norm"])
    assert len(norms) == 1
