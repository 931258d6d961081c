"""Optimizers, clipping, schedules: formulas, 50-step paths beside PyTorch's, and what no step may touch."""

import math

import numpy as np
import pytest
from cases import assert_close, tolerance

import xpnet
from xpnet import layers as L
from xpnet import schedules
from xpnet.optimizers import SGD, TABLE, Adagrad, Adam, AdamW, RMSprop, get

SHAPES = {"0.weight": (7, 5), "0.bias": (7,), "2.weight": (3, 7), "2.bias": (3,)}


def model_with(optimizer, ops="cpu", precision="float64", layers=None):
    layers = layers or [L.Dense(7, activation="tanh"), L.Dense(3)]
    model = xpnet.Sequential(layers, input_shape=(5,), device=ops, precision=precision, seed=4)
    model.compile(optimizer, "mse")
    return model


def apply(model, grads, loss=0.0):
    """One update of the model by the gradients given by name, through the training step's own update."""
    params, ops = model.params, model.ops
    for name, slot in model._named_slots():
        if name in grads:
            params.write(params.grads, slot, grads[name])
    step, loss = model.train_step(), ops.asarray(np.array([loss], model.dtype)).sum()
    if ops.in_host_memory:
        return step.update([params.grads], loss)
    step.prepare()
    step.update(loss)
    step.control.advance(0)
    params.step += 1
    model.optimizer.iterations += 1
    skipped = step.control.read()
    params.step -= skipped
    model.optimizer.iterations -= skipped
    return not skipped


def random_gradients(steps, precision, shapes=SHAPES):
    """Gradients of changing size and sign, as training has them."""
    rng = np.random.default_rng(11)
    return [
        {
            name: (rng.standard_normal(s) * 10 ** rng.uniform(-2, 1)).astype(precision)
            for name, s in shapes.items()
        }
        for _ in range(steps)
    ]


# -- paths beside PyTorch's ----------------------------------------------------------------------------------

PATHS = {
    "SGD": (lambda: SGD(0.1), lambda o, p: o.SGD(p, 0.1)),
    "momentum": (lambda: SGD(0.05, momentum=0.9), lambda o, p: o.SGD(p, 0.05, momentum=0.9)),
    "Nesterov": (
        lambda: SGD(0.05, momentum=0.8, nesterov=True),
        lambda o, p: o.SGD(p, 0.05, momentum=0.8, nesterov=True),
    ),
    "Adagrad": (
        lambda: Adagrad(0.1, initial_accumulator_value=0.3, epsilon=1e-5),
        lambda o, p: o.Adagrad(p, 0.1, initial_accumulator_value=0.3, eps=1e-5),
    ),
    "Adagrad of the tutorial": (
        lambda: Adagrad(0.01, initial_accumulator_value=1e-8, epsilon=0),
        lambda o, p: o.Adagrad(p, 0.01, initial_accumulator_value=1e-8, eps=0),
    ),
    "Adagrad from 0": (
        lambda: Adagrad(0.1, initial_accumulator_value=0, epsilon=0),
        lambda o, p: o.Adagrad(p, 0.1, initial_accumulator_value=0, eps=0),
    ),
    "RMSprop": (lambda: RMSprop(0.01, rho=0.95), lambda o, p: o.RMSprop(p, 0.01, alpha=0.95, eps=1e-7)),
    "RMSprop centered": (
        lambda: RMSprop(0.01, centered=True, epsilon=1e-3),
        lambda o, p: o.RMSprop(p, 0.01, alpha=0.9, centered=True, eps=1e-3),
    ),
    "RMSprop momentum": (
        lambda: RMSprop(0.01, momentum=0.7, epsilon=1e-4),
        lambda o, p: o.RMSprop(p, 0.01, alpha=0.9, momentum=0.7, eps=1e-4),
    ),
    "RMSprop all": (
        lambda: RMSprop(0.01, rho=0.8, momentum=0.7, epsilon=1e-2, centered=True),
        lambda o, p: o.RMSprop(p, 0.01, alpha=0.8, momentum=0.7, eps=1e-2, centered=True),
    ),
    "Adam": (lambda: Adam(0.01), lambda o, p: o.Adam(p, 0.01, eps=1e-7)),
    "Adam other": (
        lambda: Adam(0.02, 0.8, 0.95, 1e-3),
        lambda o, p: o.Adam(p, 0.02, betas=(0.8, 0.95), eps=1e-3),
    ),
    "Adam without epsilon": (lambda: Adam(0.01, epsilon=0), lambda o, p: o.Adam(p, 0.01, eps=0)),
    "AdamW": (lambda: AdamW(0.01), lambda o, p: o.AdamW(p, 0.01, eps=1e-7, weight_decay=0.004)),
    "AdamW strong": (
        lambda: AdamW(0.01, 0.3),
        lambda o, p: o.AdamW(p, 0.01, eps=1e-7, weight_decay=0.3),
    ),
}


def test_every_optimizer_is_compared():
    assert {type(make()) for make, _ in PATHS.values()} == set(TABLE.values())


def torch_parameters(torch, model):
    return {name: torch.nn.Parameter(torch.from_numpy(v)) for name, v in model.state_dict().items()}


@pytest.mark.torch
@pytest.mark.parametrize("name", PATHS)
def test_fifty_steps_end_where_torch_s_do(name, ops, precision):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ours, theirs = PATHS[name]
    model = model_with(ours(), ops, precision)
    parameters = torch_parameters(torch, model)
    optimizer = theirs(torch.optim, list(parameters.values()))
    for step, grads in enumerate(random_gradients(50, precision), 1):
        apply(model, grads)
        for key, p in parameters.items():
            p.grad = torch.from_numpy(grads[key])
        optimizer.step()
        if step in (1, 2, 50):
            for key, value in model.state_dict().items():
                assert_close(
                    value, parameters[key].detach().numpy(), tolerance(precision), f"{key}, step {step}"
                )
    assert model.optimizer.iterations == 50


@pytest.mark.torch
@pytest.mark.parametrize("name", ["momentum", "Adam", "Adagrad of the tutorial"])
def test_large_models_are_updated_in_blocks_and_threads_all_over(name, precision, monkeypatch):
    """More parameters than a block of the cache, shared out to two threads."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from xpnet.ops import threads

    monkeypatch.setattr(threads, "_chosen", 2)
    ours, theirs = PATHS[name]
    model = xpnet.Sequential(
        [L.Dense(300), L.Dense(211)], input_shape=(257,), device="cpu", precision=precision, seed=4
    )
    model.compile(ours(), "mse")
    assert len(model.train_step().update.parts) == 2
    parameters = torch_parameters(torch, model)
    optimizer = theirs(torch.optim, list(parameters.values()))
    shapes = {key: v.shape for key, v in model.state_dict().items()}
    for grads in random_gradients(3, precision, shapes):
        apply(model, grads)
        for key, p in parameters.items():
            p.grad = torch.from_numpy(grads[key])
        optimizer.step()
    for key, value in model.state_dict().items():
        assert_close(value, parameters[key].detach().numpy(), tolerance(precision), key)


CLIPS = ["clipnorm", "global_clipnorm", "clipvalue"]


@pytest.mark.torch
@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("limit", [0.05, 2.0, 1e6])
def test_clipping_is_torch_s(kind, limit, ops, precision):
    """With its 1e-6 added to the norm; small limits clip every step, the middle one some, the last none."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = model_with(SGD(0.1, momentum=0.5, **{kind: limit}), ops, precision)
    parameters = torch_parameters(torch, model)
    optimizer = torch.optim.SGD(list(parameters.values()), 0.1, momentum=0.5)
    utils = torch.nn.utils
    for grads in random_gradients(20, precision):
        apply(model, grads)
        for key, p in parameters.items():
            p.grad = torch.from_numpy(grads[key].copy())
            if kind == "clipnorm":
                utils.clip_grad_norm_([p], limit)
        if kind == "global_clipnorm":
            utils.clip_grad_norm_(list(parameters.values()), limit)
        elif kind == "clipvalue":
            utils.clip_grad_value_(list(parameters.values()), limit)
        optimizer.step()
    rtol = max(tolerance(precision), 1e-9)
    for key, value in model.state_dict().items():
        assert_close(value, parameters[key].detach().numpy(), rtol, key)


@pytest.mark.parametrize("kind", CLIPS)
def test_clipping_by_its_formula(kind, ops):
    model = model_with(SGD(1.0, **{kind: 0.7}), ops)
    before, (grads,) = model.state_dict(), random_gradients(1, "float64")
    norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
    apply(model, grads)
    for key, value in model.state_dict().items():
        g = grads[key]
        if kind == "clipvalue":
            g = np.clip(g, -0.7, 0.7)
        else:
            g = g * min(1, 0.7 / ((norm if kind == "global_clipnorm" else np.linalg.norm(g)) + 1e-6))
        assert_close(value, before[key] - g, 1e-12, key)


@pytest.mark.parametrize("kind", ["clipnorm", "global_clipnorm"])
def test_elements_are_limited_before_norms_are_taken(kind, ops):
    """The other way round the norms would be those of what is no longer the gradient."""
    model = model_with(SGD(1.0, clipvalue=0.5, **{kind: 0.8}), ops)
    before, (grads,) = model.state_dict(), random_gradients(1, "float64")
    limited = {key: np.clip(g, -0.5, 0.5) for key, g in grads.items()}
    assert any((limited[key] != g).any() for key, g in grads.items())
    apply(model, grads)
    whole = math.sqrt(sum((g**2).sum() for g in limited.values()))
    for key, value in model.state_dict().items():
        g = limited[key]
        norm = np.linalg.norm(g) if kind == "clipnorm" else whole
        assert_close(value, before[key] - g * min(1, 0.8 / (norm + 1e-6)), 1e-12, key)


def test_clipping_a_gradient_of_zero_changes_nothing(ops):
    for kind in CLIPS:
        model = model_with(SGD(1.0, **{kind: 0.5}), ops)
        before = model.state_dict()
        apply(model, {key: np.zeros(s) for key, s in SHAPES.items()})
        for key, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("make", [SGD, Adagrad, RMSprop, Adam, AdamW])
def test_weight_decay_is_decoupled(make, ops):
    """p shrinks by lr weight_decay p, and the gradient that the optimizer sees does not change."""
    with_decay, without = (
        model_with(make(0.1, weight_decay=0.2), ops),
        model_with(make(0.1, weight_decay=0), ops),
    )
    p = with_decay.state_dict()
    for grads in random_gradients(5, "float64"):
        for model in (with_decay, without):
            before = model.state_dict()
            apply(model, grads)
            change = {key: v - before[key] for key, v in model.state_dict().items()}
            if model is without:
                p = {key: p[key] * (1 - 0.1 * 0.2) + change[key] for key in p}
    for key, value in with_decay.state_dict().items():
        assert_close(value, p[key], 1e-12, key)


# -- the edges -----------------------------------------------------------------------------------------------

WITHOUT_EPSILON = [
    lambda: Adagrad(0.1, initial_accumulator_value=0, epsilon=0),
    lambda: RMSprop(0.1, epsilon=0),
    lambda: RMSprop(0.1, epsilon=0, centered=True, momentum=0.5),
    lambda: Adam(0.1, epsilon=0),
    lambda: AdamW(0.1, 0.0, epsilon=0),
]


@pytest.mark.parametrize("make", WITHOUT_EPSILON, ids=lambda make: repr(make()))
def test_zero_by_zero_is_an_update_of_zero(make, ops, precision):
    model = model_with(make(), ops, precision)
    before = model.state_dict()
    for _ in range(3):
        apply(model, {key: np.zeros(s) for key, s in SHAPES.items()})
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    apply(model, random_gradients(1, precision)[0])
    assert all(np.isfinite(value).all() for value in model.state_dict().values())


EVERY = [
    *WITHOUT_EPSILON,
    lambda: SGD(0.1, weight_decay=0.1),
    lambda: SGD(0.1, momentum=0.9, global_clipnorm=0.1),
    lambda: SGD(0.1, momentum=0.9, nesterov=True, clipnorm=0.1),
    lambda: Adagrad(0.1, clipvalue=0.01),
    lambda: RMSprop(0.1, weight_decay=0.1),
    lambda: Adam(0.1),
    lambda: AdamW(0.1, 0.5),
]
every_optimizer = pytest.mark.parametrize("make", EVERY, ids=lambda make: repr(make()))


def host(a):
    return a.get() if hasattr(a, "get") else np.asarray(a)


@every_optimizer
def test_the_gaps_between_parameters_stay_zero(make, ops, precision):
    model = model_with(make(), ops, precision)
    for _ in range(4):
        model.train_on_batch(np.ones((6, 5)), np.zeros((6, 3)))
    params = model.params
    gaps = np.ones(len(params.values), bool)
    for slot in params.slots:
        gaps[slot.start : slot.start + slot.size] = False
    assert gaps.any()
    assert not host(params.values)[gaps].any()
    assert not host(params.grads)[gaps].any()
    assert all(np.isfinite(host(flat)).all() for flat in model.optimizer_state.values())


@every_optimizer
def test_a_frozen_layer_keeps_its_bits(make, ops, precision):
    layers = [
        L.Dense(4),
        L.Dense(7, activation="tanh", trainable=False),
        L.BatchNormalization(trainable=False),
        L.Dense(5),
        L.Dense(3, trainable=False),
    ]
    model = model_with(make(), ops, precision, layers)
    before, rng = model.state_dict(), np.random.default_rng(0)
    for _ in range(4):
        model.train_on_batch(rng.standard_normal((6, 5)), rng.standard_normal((6, 3)))
    frozen = ("1.", "3.", "5.")
    for key, value in model.state_dict().items():
        if key.startswith(frozen):
            assert value.tobytes() == before[key].tobytes(), key
        else:
            assert (value != before[key]).any(), key
    model.layers[1].trainable = True  # from the next step on
    model.train_on_batch(rng.standard_normal((6, 5)), rng.standard_normal((6, 3)))
    assert (model.state_dict()["1.weight"] != before["1.weight"]).any()


def test_a_frozen_container_freezes_what_is_inside(ops):
    model = model_with(SGD(0.1), ops, layers=[L.Residual([L.Dense(5)], trainable=False), L.Dense(3)])
    before = model.state_dict()
    model.train_on_batch(np.ones((6, 5)), np.zeros((6, 3)))
    after = model.state_dict()
    assert (after["0.body.0.weight"] == before["0.body.0.weight"]).all()
    assert (after["1.weight"] != before["1.weight"]).any()


@every_optimizer
@pytest.mark.parametrize("what", ["gradient", "loss"])
def test_a_step_that_is_not_finite_changes_nothing(make, what, ops):
    layers = [L.Dense(7), L.BatchNormalization(), L.Dense(3)]
    model = model_with(make(), ops, layers=layers)
    rng = np.random.default_rng(0)
    model.train_on_batch(rng.standard_normal((6, 5)), rng.standard_normal((6, 3)))
    model.forward(rng.standard_normal((6, 5)), train=True)  # proposes running statistics
    before = model.state_dict()
    state = {name: host(flat).copy() for name, flat in model.optimizer_state.items()}
    grads = {key: np.ones_like(v) for key, v in before.items() if key.endswith(("weight", "bias"))}
    if what == "gradient":
        grads["0.weight"][1, 2] = np.nan
    with np.errstate(all="ignore"):
        ok = apply(model, grads, np.inf if what == "loss" else 0.0)
    assert not host(ok)
    for key, value in model.state_dict().items():
        assert value.tobytes() == before[key].tobytes(), key
    for name, flat in model.optimizer_state.items():
        np.testing.assert_array_equal(host(flat), state[name])


def test_a_gradient_too_large_to_square_in_float32_is_still_finite():
    model = model_with(SGD(1e-25), precision="float32")
    grads = {key: np.full(s, 1e25) for key, s in SHAPES.items()}
    before = model.state_dict()
    with np.errstate(over="ignore"):
        assert apply(model, grads)
    assert (model.state_dict()["0.bias"] == before["0.bias"] - 1).all()


@pytest.mark.parametrize("make", [SGD, Adagrad, RMSprop, Adam, AdamW])
def test_arguments_are_checked(make):
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=f"learning_rate.*Received: {wrong}"):
            make(wrong)
    for name in CLIPS:
        with pytest.raises(ValueError, match=f"{name} must be positive. Received: 0"):
            make(**{name: 0})
    with pytest.raises(ValueError, match="weight_decay must not be negative"):
        make(weight_decay=-1)
    with pytest.raises(ValueError, match="exclude each other"):
        make(clipnorm=1, global_clipnorm=1)
    with pytest.raises(TypeError, match="lerning_rate"):
        make(lerning_rate=0.1)


def test_other_arguments_are_checked():
    for wrong in (1.0, -0.1):
        with pytest.raises(ValueError, match="SGD: momentum"):
            SGD(momentum=wrong)
        with pytest.raises(ValueError, match="RMSprop: rho"):
            RMSprop(rho=wrong)
        with pytest.raises(ValueError, match="Adam: beta_2"):
            Adam(beta_2=wrong)
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        SGD(nesterov=True)
    with pytest.raises(ValueError, match="epsilon must not be negative"):
        Adagrad(epsilon=-1e-9)
    with pytest.raises(ValueError, match="initial_accumulator_value must not be negative"):
        Adagrad(initial_accumulator_value=-1)


def test_names():
    assert type(get("Adam")) is Adam and get("momentum").momentum == 0.9
    with pytest.raises(ValueError, match=r"adem.*adam"):
        get("adem")


# -- schedules -----------------------------------------------------------------------------------------------


def test_constant():
    assert [schedules.Constant(0.3)(t) for t in (0, 10, 10**6)] == [0.3] * 3


def test_step_decay():
    s = schedules.StepDecay(0.8, 3, 0.5)
    assert [s(t) for t in range(8)] == pytest.approx([0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2])


def test_piecewise_constant_decay_takes_the_boundary_to_what_comes_before():
    s = schedules.PiecewiseConstantDecay([2, 4], [1.0, 0.5, 0.1])
    assert [s(t) for t in range(6)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.1]
    with pytest.raises(ValueError, match="one more value"):
        schedules.PiecewiseConstantDecay([2, 4], [1.0, 0.5])


def test_exponential_decay():
    s = schedules.ExponentialDecay(0.5, 10, 0.9)
    assert [s(t) for t in (0, 5, 20)] == pytest.approx([0.5, 0.5 * 0.9**0.5, 0.5 * 0.81])
    s = schedules.ExponentialDecay(0.5, 10, 0.9, staircase=True)
    assert [s(t) for t in (0, 9, 10, 29)] == pytest.approx([0.5, 0.5, 0.45, 0.405])


def test_cosine_decay():
    s = schedules.CosineDecay(0.4, 8, alpha=0.25)
    assert [s(t) for t in (0, 4, 8, 100)] == pytest.approx([0.4, 0.25, 0.1, 0.1])
    s = schedules.CosineDecay(0.1, 8, warmup_target=0.4, warmup_steps=3)
    assert [s(t) for t in (0, 1, 2, 3, 7, 11)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.2, 0.0], abs=1e-12)


def test_warm_up():
    s = schedules.WarmUp(0.4, 3)
    assert [s(t) for t in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    s = schedules.WarmUp(schedules.ExponentialDecay(0.4, 1, 0.5), 1)
    assert [s(t) for t in range(4)] == pytest.approx([0.2, 0.4, 0.2, 0.1])


@pytest.mark.torch
@pytest.mark.parametrize(
    "make, theirs",
    [
        (lambda s: s.StepDecay(0.3, 4, 0.2), lambda t, o: t.StepLR(o, 4, 0.2)),
        (lambda s: s.ExponentialDecay(0.3, 1, 0.9), lambda t, o: t.ExponentialLR(o, 0.9)),
        (lambda s: s.CosineDecay(0.3, 20, 0.1), lambda t, o: t.CosineAnnealingLR(o, 20, eta_min=0.03)),
        (lambda s: s.CosineDecay(0.3, 20), lambda t, o: t.CosineAnnealingLR(o, 20)),
        (lambda s: s.WarmUp(0.3, 4), lambda t, o: t.LinearLR(o, 1 / 5, 1.0, 4)),
    ],
    ids=["step", "exponential", "cosine to alpha", "cosine", "warm-up"],
)
def test_schedules_beside_torch_s(make, theirs):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.3)
    scheduler, ours = theirs(torch.optim.lr_scheduler, optimizer), make(schedules)
    for step in range(20):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step
        optimizer.step()
        scheduler.step()


def test_the_optimizer_follows_its_schedule(ops):
    model = model_with(SGD(schedules.StepDecay(0.5, 2, 0.1)), ops)
    rates = []
    for _ in range(5):
        before = model.state_dict()["2.bias"]
        apply(model, {key: np.ones(s) for key, s in SHAPES.items()})
        rates.append(float((before - model.state_dict()["2.bias"])[0]))
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])
