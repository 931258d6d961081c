"""What every layer promises, over every set of operations."""

import itertools

import numpy as np
import pytest
import strict_xp
from cases import CASES, Case, assert_close, gradients
from conftest import cuda_ops

import xpnet
from xpnet import layers as L
from xpnet.ops import threads
from xpnet.training import host as training_step

every_layer = pytest.mark.parametrize("case", CASES, ids=str)
N = 4


def test_every_layer_stands_in_the_table():
    used = {type(layer) for case in CASES for layer in case.model().all_layers()}
    public = [getattr(L, name) for name in L.__all__]
    assert used == {one for one in public if isinstance(one, type) and issubclass(one, L.Layer)} - {L.Layer}


def forward_backward(model, x, dy=None, *, train=True):
    """y, dx and the parameters' gradients; dy by default of ones' size but random."""
    y, caches = model.forward(x, train=train)
    if dy is None:
        dy = np.random.default_rng(len(x)).standard_normal(y.shape).astype(y.dtype)
    dx = model.backward(dy, caches)
    return y, dx, gradients(model)


def on_host(a):
    return a.get() if hasattr(a, "get") else np.asarray(a)


def inputs(case, rng, n=N, dtype=np.float64):
    return rng.standard_normal((n, *case.shape)).astype(dtype)


@every_layer
def test_backward_is_the_derivative_of_forward(case, ops, rng):
    model = case.model(ops=ops)
    x = inputs(case, rng)
    y, caches = model.forward(x, train=True)
    v = rng.standard_normal(y.shape)
    dx = model.backward(v, caches)
    grads, eps = gradients(model), 1e-6

    def difference(set_to, at, direction):
        sides = []
        for sign in (1, -1):
            moved = set_to(at + sign * eps * direction)
            sides.append((model.forward(moved, train=True)[0] * v).sum())
        set_to(at)
        return (sides[0] - sides[1]) / (2 * eps)

    def check(what, gradient, at, set_to):
        direction = rng.standard_normal(at.shape)
        numerical, backward = difference(set_to, at, direction), (gradient * direction).sum()
        scale = np.sqrt((gradient**2).sum() * (direction**2).sum())
        assert abs(numerical - backward) <= 1e-6 * max(scale, 1e-2), (
            f"{what}: backward {backward:.9g}, numerical {numerical:.9g}"
        )

    check("dx", dx, x, lambda moved: moved)
    for name, value in model.state_dict().items():
        if name not in grads:
            continue

        def set_to(moved, name=name):
            model.load_state_dict({name: moved}, strict=False)
            return x

        check(name, grads[name], value, set_to)


@every_layer
def test_a_sample_alone_gives_what_it_gives_in_a_batch(case, ops, rng):
    model = case.model(ops=ops)
    x = inputs(case, rng)
    together = model.forward(x)[0]
    alone = np.concatenate([model.forward(x[i : i + 1])[0] for i in range(N)])
    assert_close(alone, together, 1e-12)


@every_layer
def test_two_forwards_may_be_outstanding(case, ops, rng):
    model = case.model(ops=ops)
    xs = [inputs(case, rng), inputs(case, rng, 3)]
    apart = [forward_backward(model, x) for x in xs]
    for order in ((0, 1), (1, 0)):
        forwards = [model.forward(x, train=True) for x in xs]
        for k in order:
            y, caches = forwards[k]
            dy = np.random.default_rng(len(y)).standard_normal(y.shape)
            dx, grads = model.backward(dy, caches), gradients(model)
            np.testing.assert_array_equal(y, apart[k][0])
            np.testing.assert_array_equal(dx, apart[k][1])
            for name, g in apart[k][2].items():
                np.testing.assert_array_equal(grads[name], g, err_msg=name)


@every_layer
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_what_the_user_hands_in_is_never_written(case, ops, rng, train):
    model = case.model(ops=ops)
    x = inputs(case, rng)
    x.flags.writeable = False
    before = x.copy()
    y, caches = model.forward(x, train=train)
    dy = rng.standard_normal(y.shape)
    dy.flags.writeable = False
    dy_before, y_before = dy.copy(), y.copy()
    model.backward(dy, caches)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(dy, dy_before)
    np.testing.assert_array_equal(y, y_before)


@every_layer
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_a_layer_never_writes_its_input(case, ops, rng, train):
    """Nor does backward write to it by way of the cache: the layer before may need it for its own slope."""
    model = case.model(ops=ops)
    (layer,) = model.layers
    x = model.enter(inputs(case, rng), ops)
    before = on_host(x).copy()
    if isinstance(x, np.ndarray):
        x.flags.writeable = False
    y, cache = layer.forward(x, train=train)
    dy = ops.like(y)
    dy[...] = 1.0
    layer.backward(dy, cache)
    np.testing.assert_array_equal(on_host(x), before)


@every_layer
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_the_model_s_dtype_is_kept(case, ops, precision, rng, train):
    model = case.model(ops=ops, precision=precision)
    dtype = np.dtype(precision)
    (layer,) = model.layers
    y, cache = layer.forward(model.enter(inputs(case, rng), ops), train=train)
    dy = ops.like(y)
    dy[...] = 1.0
    arrays = [y, *floats_in(cache)]
    dx = layer.backward(dy, cache)
    arrays += [dx, model.params.values, model.params.grads, model.params.state, model.params.pending]
    assert {a.dtype for a in arrays} == {dtype}
    y, dx, grads = forward_backward(model, inputs(case, rng), train=train)
    assert {a.dtype for a in (y, dx, *grads.values())} == {dtype}


def floats_in(cache):
    """Every array of floats in the nested tuples and lists of a cache."""
    if isinstance(cache, (tuple, list)):
        return [a for part in cache for a in floats_in(part)]
    return [cache] if hasattr(cache, "dtype") and cache.dtype.kind == "f" else []


@every_layer
def test_maps_and_vectors_have_the_promised_shape(case, ops, rng):
    """out_shape is what comes out, for a batch of one too, and inference and training agree on it."""
    model = case.model(ops=ops)
    for n, train in itertools.product((1, 3), (False, True)):
        if train and n == 1 and any(getattr(layer, "least", 1) > 1 for layer in model.all_layers()):
            continue
        assert model.forward(inputs(case, rng, n), train=train)[0].shape == (n, *model.output_shape)


@every_layer
def test_other_operations_compute_what_numpy_computes(case, other_ops, precision, rng):
    x = inputs(case, rng, 3, precision)
    for train in (True, False):
        results = [
            forward_backward(case.model(ops=o, precision=precision), x, train=train)
            for o in ("cpu", other_ops)
        ]
        (y, dx, grads), (other_y, other_dx, other_grads) = results
        rtol = 2e-5 if precision == "float32" else 1e-12
        assert_close(other_y, y, rtol, "y")
        assert_close(other_dx, dx, rtol, "dx")
        for name, g in grads.items():  # that of a bias before a normalisation is zero but for rounding
            assert_close(other_grads[name], g, rtol, name, least=0.1)


@every_layer
def test_gradients_are_written_not_added(case, ops, rng):
    model = case.model(ops=ops)
    x = inputs(case, rng)
    _, _, first = forward_backward(model, x)
    _, _, second = forward_backward(model, x)
    for name, g in first.items():
        np.testing.assert_array_equal(second[name], g, err_msg=name)


# -- within a training step ----------------------------------------------------------------------------------


def step_model(case, ops="cpu", **more):
    """The layer between one that learns, so that a gradient must pass through it, and a loss."""
    vector = len(case.shape) == 1
    before = L.Dense(case.shape[0]) if vector else L.Conv2D(case.shape[0], 1)
    model = case.model(before, ops=ops, **more)
    model.compile(xpnet.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


@every_layer
@pytest.mark.parametrize("count", [2, 3])
def test_replicas_give_the_gradient_of_one(case, count, monkeypatch, rng):
    monkeypatch.setattr(training_step, "LEAST_WORK", 1)
    monkeypatch.setattr(training_step, "LEAST_SAMPLES", 1)
    model = step_model(case)
    n = 17  # no multiple of 2 or 3
    x, y = inputs(case, rng, n), rng.standard_normal((n, *model.output_shape))
    w = rng.uniform(0.5, 2, n)
    monkeypatch.setattr(threads, "_chosen", 1)
    alone, loss = model.gradients(x, y, w), model.evaluate(x, y)
    assert len(model.train_step().replicas(n)) == 1
    pending = on_host(model.params.pending).copy()
    monkeypatch.setattr(threads, "_chosen", count)
    assert len(model.train_step().replicas(n)) == count
    for name, g in model.gradients(x, y, w).items():
        assert_close(g, alone[name], 1e-9, name)
    assert_close(on_host(model.params.pending), pending, 1e-12, "running statistics")
    assert model.evaluate(x, y) == pytest.approx(loss, rel=1e-12)


@every_layer
def test_a_step_s_gradient_is_that_of_backward(case, ops, rng):
    """The step leaves out dx where nobody needs it; the parameters' gradients must not notice."""
    model = step_model(case, ops)
    x, y = inputs(case, rng), rng.standard_normal((N, *model.output_shape))
    p, caches = model.forward(x, train=True)
    model.backward(2 * (p - y) / p.size, caches)
    expected = gradients(model)
    for name, g in model.gradients(x, y).items():
        assert_close(g, expected[name], 1e-9, name)


@pytest.fixture(params=["strict", "cuda-host"])
def device_ops(request):
    """Operations whose syncs are counted: the plain ones, and those of the GPU with its recorded steps."""
    if request.param == "strict":
        return strict_xp.strict_ops()
    return cuda_ops("host")


def second_step(model, data):
    """Train on a batch of all samples of data, and again while syncs are counted; the recorded second step,
    or None where these operations record none.
    """
    epoch = model.train_step().epoch(data, np.tile(np.arange(len(data)), 2), len(data))
    epoch.step(0)
    strict_xp.syncs.reset()
    epoch.step(1)
    counted = strict_xp.syncs.count, strict_xp.syncs.copies_to_host, strict_xp.syncs.copies_to_device
    epoch.finish()
    assert np.isfinite(on_host(model.params.values)).all()
    (recording,) = model.train_step()._recorded.values()
    return counted, recording


@every_layer
def test_a_step_never_waits_for_the_device(case, device_ops, rng):
    """On the device: no read-back, and no copy but that of a dropout mask's bits, which a GPU draws."""
    model = step_model(case, device_ops, precision="float32")
    x, y = inputs(case, rng, N, "float32"), rng.standard_normal((N, *model.output_shape)).astype("float32")
    (waits, to_host, to_device), recording = second_step(model, model._data(x, y, np.ones(N)))
    on_gpu = device_ops.name == "cupy"
    masks = sum(isinstance(layer, L.Dropout) and layer.rate > 0 for layer in model.all_layers())
    assert waits == to_host == 0
    assert to_device <= (0 if on_gpu else masks)
    assert (recording is not None) == on_gpu, "what asks the host for something cannot be recorded"


LOSSES = {
    "sparse_categorical_crossentropy": np.arange(N) % 3,
    "categorical_crossentropy": np.eye(3)[np.arange(N) % 3],
    "binary_crossentropy": np.eye(3)[np.arange(N) % 3],
    "mse": np.ones((N, 3)),
    "sse": np.ones((N, 3)),
    "mae": np.ones((N, 3)),
    "huber": np.ones((N, 3)),
}
HEADS = [(loss, last) for loss in LOSSES for last in {None: 0, xpnet.losses.get(loss).folds: 0}]
"""Each loss behind logits, and behind the activation that is folded into it."""
OPTIMIZERS = [
    lambda o: o.SGD(momentum=0.9, nesterov=True, clipnorm=0.1),
    lambda o: o.Adagrad(epsilon=0, clipvalue=0.1),
    lambda o: o.RMSprop(centered=True, momentum=0.5, global_clipnorm=0.1),
    lambda o: o.Adam(xpnet.schedules.ExponentialDecay(0.1, 2, 0.5)),
    lambda o: o.AdamW(),
]


@pytest.mark.parametrize(("loss", "last"), HEADS)
@pytest.mark.parametrize("optimizer", range(len(OPTIMIZERS)))
def test_neither_losses_nor_metrics_nor_optimizers_wait_for_the_device(
    loss, last, optimizer, device_ops, rng
):
    made = OPTIMIZERS[optimizer](xpnet.optimizers)
    layers = [L.Dense(5, activation="relu"), L.BatchNormalization(), L.Dense(3, activation=last)]
    model = xpnet.Sequential(layers, input_shape=(4,), device=device_ops, seed=0)
    metrics = ["mse", "mae"] if len(LOSSES[loss].shape) == 2 else []
    if loss.endswith("crossentropy"):
        metrics += ["accuracy", "top_5_accuracy", "precision", "recall", "f1", "confusion_matrix"]
    else:
        metrics += ["r2"]
    model.compile(made, loss, metrics)
    data = model._data(rng.standard_normal((N, 4)), LOSSES[loss], np.ones(N))
    counted, recording = second_step(model, data)
    assert counted == (0, 0, 0)
    assert (recording is not None) == (device_ops.name == "cupy")


@every_layer
def test_steps_on_other_operations_follow_numpy_s(case, other_ops, rng):
    models = [step_model(case, o) for o in ("cpu", other_ops)]
    y = rng.standard_normal((N, *models[0].output_shape))
    for _ in range(3):
        x = inputs(case, rng)
        first, second = (model.train_on_batch(x, y) for model in models)
        assert second == pytest.approx(first, rel=1e-9)
    expected = models[0].state_dict()
    for name, value in models[1].state_dict().items():
        assert_close(value, expected[name], 1e-9, name)


def test_a_gradient_that_nobody_needs_is_not_computed(rng):
    """That of a first layer's input, which costs as much as the gradient of its weights."""
    skipped = set()
    for case in CASES:
        model = case.model()
        (layer,) = model.layers
        if not layer.slots or not layer.is_trainable:
            continue
        layer.needs_dx = False
        y, cache = layer.forward(model.enter(inputs(case, rng), model.ops), train=True)
        assert layer.backward(y.copy(), cache) is None, case
        skipped.add(type(layer))
    assert {L.Dense, L.Conv2D, L.Conv2DTranspose, L.BatchNormalization, L.GroupNormalization} <= skipped


def test_a_transposed_convolution_is_as_much_work_as_its_adjoint():
    """By which it is decided what is worth a second thread."""
    given = {"kernel_size": 3, "strides": 2, "padding": 1}
    down = xpnet.Sequential([L.Conv2D(6, **given)], input_shape=(4, 9, 7), device="cpu")
    up = xpnet.Sequential([L.Conv2DTranspose(4, **given)], input_shape=down.output_shape, device="cpu")
    assert up.output_shape == down.input_shape
    weights, positions = 6 * 4 * 9, 5 * 4
    assert up.layers[0].multiply_adds() == (weights + 4) * positions
    assert down.layers[0].multiply_adds() == (weights + 6) * positions


# -- single layers' own promises -----------------------------------------------------------------------------


def test_dropout_keeps_its_mask_until_the_optimizer_steps(ops):
    model = xpnet.Sequential([L.Dense(64), L.Dropout(0.5)], input_shape=(3,), device=ops, seed=3)
    model.compile("sgd", "mse")
    x, y = np.ones((8, 3), np.float32), np.zeros((8, 64), np.float32)
    masks = [model.forward(x, train=True)[0] == 0 for _ in range(2)]
    np.testing.assert_array_equal(*masks)
    model.gradients(x, y)
    np.testing.assert_array_equal(model.forward(x, train=True)[0] == 0, masks[0])
    model.train_on_batch(x, y)
    assert (model.forward(x, train=True)[0] == 0).tolist() != masks[0].tolist()


@pytest.mark.parametrize("scaling", ["train", "inference"])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_the_rate(ops, rate, scaling):
    model = xpnet.Sequential([L.Dropout(rate, scaling)], input_shape=(5000,), device=ops, seed=1)
    x = np.ones((20, 5000), np.float32)
    trained, inferred = model.forward(x, train=True)[0], model.forward(x)[0]
    assert (trained == 0).mean() == pytest.approx(rate, abs=0.01)
    survivors = set(np.unique(trained)) - {0}
    assert survivors == {np.float32(1 / (1 - rate)) if scaling == "train" else np.float32(1)}
    assert set(np.unique(inferred)) == {np.float32(1) if scaling == "train" else np.float32(1 - rate)}
    assert trained.mean() == pytest.approx(inferred.mean(), abs=0.02 / (1 - rate))


def test_two_dropouts_have_masks_of_their_own(ops):
    model = xpnet.Sequential([L.Dropout(0.5), L.Dropout(0.5)], input_shape=(4000,), device=ops, seed=1)
    y = model.forward(np.ones((2, 4000), np.float32), train=True)[0]
    assert (y != 0).mean() == pytest.approx(0.25, abs=0.03)
    assert (y[0] != y[1]).any()


def test_batch_normalization_of_one_sample_is_refused_with_the_layer_s_name(ops):
    model = xpnet.Sequential([L.Dense(3), L.BatchNormalization()], input_shape=(2,), device=ops)
    with pytest.raises(
        xpnet.ShapeError, match=r"layer 1 'batch_normalization': cannot normalise a batch of one"
    ):
        model.forward(np.ones((1, 2)), train=True)


def test_running_statistics_wait_for_the_optimizer(ops):
    """A forward in training proposes them; only a step that is taken takes them over."""
    model = xpnet.Sequential([L.BatchNormalization()], input_shape=(2,), device=ops, precision="float64")
    model.compile(xpnet.optimizers.SGD(0.0), "mse")
    x = np.array([[1.0, 2.0], [3.0, 6.0]])
    before = model.state_dict()
    model.forward(x, train=True)
    model.gradients(x, x)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    model.train_on_batch(x, x)
    after = model.state_dict()
    np.testing.assert_allclose(after["0.running_mean"], 0.01 * np.array([2.0, 4.0]))
    np.testing.assert_allclose(after["0.running_var"], 0.99 + 0.01 * np.array([2.0, 8.0]))
    assert after["0.num_batches_tracked"] == 1


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a container"])
def test_a_frozen_normalisation_keeps_its_running_statistics(ops, inside):
    """Also those that a forward proposed before it was frozen."""
    norm = L.BatchNormalization()
    frozen = L.Residual([norm]) if inside else norm
    model = xpnet.Sequential([L.Dense(4), frozen], input_shape=(2,), device=ops, precision="float64")
    model.compile("sgd", "mse")
    x, y = np.array([[1.0, 2.0], [3.0, 6.0]]), np.zeros((2, 4))
    model.train_on_batch(x, y)
    before = model.state_dict()
    model.gradients(2 * x, y)
    frozen.trainable = False
    model.train_on_batch(x, y)
    after = model.state_dict()
    assert (after["0.weight"] != before["0.weight"]).any()
    for name in before:
        if name.startswith("1."):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_a_layer_can_stand_in_a_model_only_once():
    dense = L.Dense(2)
    with pytest.raises(ValueError, match="once"):
        xpnet.Sequential([dense, dense])
    with pytest.raises(ValueError, match="once"):
        xpnet.Sequential([dense, L.Residual([dense])])


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
def test_both_orders_of_channels_compute_the_same(ops, order, rng):
    case = Case("", lambda: L.Conv2D(4, 3, padding="same", activation="relu"), (2, 5, 6))
    x = inputs(case, rng)
    expected, expected_dx, _ = forward_backward(case.model(ops=ops), x)
    if order == "channels_last":
        model = xpnet.Sequential(
            [case.make()], input_shape=(5, 6, 2), device=ops, precision="float64", data_format=order
        )
        model.load_state_dict(case.model().state_dict())
        y, caches = model.forward(x.transpose(0, 2, 3, 1), train=True)
        dy = np.random.default_rng(N).standard_normal(expected.shape)
        dx = model.backward(dy.transpose(0, 2, 3, 1), caches)
        assert_close(y.transpose(0, 3, 1, 2), expected, 1e-12)
        assert_close(dx.transpose(0, 3, 1, 2), expected_dx, 1e-12)


def test_a_vector_becomes_a_channels_last_map_and_back(ops, rng):
    model = xpnet.Sequential(
        [L.Reshape((3, 2, 4))],
        input_shape=(24,),
        device=ops,
        precision="float64",
        data_format="channels_last",
    )
    x, dy = rng.standard_normal((N, 24)), rng.standard_normal((N, 3, 2, 4))
    y, caches = model.forward(x, train=True)
    np.testing.assert_array_equal(y, x.reshape(N, 3, 2, 4))
    np.testing.assert_array_equal(model.backward(dy, caches), dy.reshape(N, 24))
