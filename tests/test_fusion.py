"""Layers in another order than the user's: bias and activation after max pooling, with the same results."""

import numpy as np
import pytest
from cases import assert_close, gradients, randomise

import xpnet
from xpnet import NonFiniteError, activations
from xpnet import layers as L
from xpnet.layers.containers import Chain
from xpnet.layers.pools_first import Finish, pools_first
from xpnet.ops.numpy_ops import NumpyOps
from xpnet.ops.reference import Ops
from xpnet.training.step import Replica


class InOrder(NumpyOps):
    """The CPU's operations, for layers as the user gave them."""

    pools_first = False


class OwnConv2D(L.Conv2D):
    pass


class OwnPooling(L.MaxPooling2D):
    pass


class OwnReLU(activations.ReLU):
    pass


SHAPE = (2, 7, 9)  # odd: a pooling by 2 leaves the last row and column out

MOVED = {
    "fused": lambda: [L.Conv2D(3, 3, activation="relu"), L.MaxPooling2D(2)],
    "linear": lambda: [L.Conv2D(3, 3), L.MaxPooling2D(2)],
    "leaky": lambda: [L.Conv2D(3, 2, activation="leaky_relu"), L.MaxPooling2D(2)],
    "same": lambda: [L.Conv2D(3, 3, padding="same", activation="relu"), L.MaxPooling2D(2, padding="same")],
    "overlapping": lambda: [L.Conv2D(3, 2, activation="relu"), L.MaxPooling2D(3, 2)],
    "padded": lambda: [L.Conv2D(3, 2, activation="relu"), L.MaxPooling2D(3, 2, padding=1)],
    "ceil": lambda: [L.Conv2D(3, 1, activation="relu"), L.MaxPooling2D(2, ceil_mode=True)],
    "gaps": lambda: [L.Conv2D(3, 1, activation="relu"), L.MaxPooling2D(2, 3)],
    "rectangle": lambda: [L.Conv2D(3, 1, activation="relu"), L.MaxPooling2D((2, 3))],
    "no bias": lambda: [L.Conv2D(3, 3, activation="relu", use_bias=False), L.MaxPooling2D(2)],
    "apart": lambda: [L.Conv2D(3, 3), L.Activation("relu"), L.MaxPooling2D(2)],
    "apart, no bias": lambda: [L.Conv2D(3, 3, use_bias=False), L.Activation("relu"), L.MaxPooling2D(2)],
    "twice": lambda: [L.Conv2D(3, 3, activation="leaky_relu"), L.Activation("relu"), L.MaxPooling2D(2)],
    "normalised": lambda: [L.Conv2D(3, 3), L.BatchNormalization(), L.Activation("relu"), L.MaxPooling2D(2)],
    "global": lambda: [L.Conv2D(3, 3, activation="relu"), L.GlobalMaxPooling2D()],
    "groups": lambda: [L.Conv2D(4, 3, groups=2, activation="relu"), L.MaxPooling2D(2)],
    "frozen": lambda: [
        L.Conv2D(3, 2, activation="relu"),
        L.Conv2D(3, 2, activation="relu", trainable=False),
        L.MaxPooling2D(2),
    ],
    "in a row": lambda: [
        L.Conv2D(3, 2, activation="relu"),
        L.MaxPooling2D(2),
        L.Conv2D(4, 2, activation="relu"),
        L.MaxPooling2D((1, 2)),
    ],
    "residual": lambda: [
        L.Residual(
            [L.Conv2D(3, 3, 1, "same", activation="relu"), L.MaxPooling2D(2)],
            shortcut=[L.MaxPooling2D(2), L.Conv2D(3, 1)],
            activation="relu",
        )
    ],
    "branches": lambda: [
        L.Concatenate(
            [
                [L.Conv2D(3, 1, activation="relu"), L.MaxPooling2D(2)],
                L.Conv2D(2, 2, 2),
                [L.Residual([L.Conv2D(2, 1, activation="relu"), L.MaxPooling2D(1)]), L.MaxPooling2D(2)],
            ]
        )
    ],
}  # fmt: skip

STAY = {
    "dropout": lambda: [L.Conv2D(3, 3, activation="relu"), L.Dropout(0.5), L.MaxPooling2D(2)],
    "normalised": lambda: [L.Conv2D(3, 3, activation="relu"), L.BatchNormalization(), L.MaxPooling2D(2)],
    "average": lambda: [L.Conv2D(3, 3, activation="relu"), L.AveragePooling2D(2)],
    "sigmoid": lambda: [L.Conv2D(3, 3, activation="sigmoid"), L.MaxPooling2D(2)],
    "gelu": lambda: [L.Conv2D(3, 3), L.Activation("gelu"), L.MaxPooling2D(2)],
    "own convolution": lambda: [OwnConv2D(3, 3, activation="relu"), L.MaxPooling2D(2)],
    "own pooling": lambda: [L.Conv2D(3, 3, activation="relu"), OwnPooling(2)],
    "own activation": lambda: [L.Conv2D(3, 3, activation=OwnReLU()), L.MaxPooling2D(2)],
    "own activation apart": lambda: [L.Conv2D(3, 3), L.Activation(OwnReLU()), OwnPooling(2)],
    "nothing to move": lambda: [L.Conv2D(3, 3, use_bias=False), L.MaxPooling2D(2)],
    "the other way round": lambda: [L.MaxPooling2D(2), L.Conv2D(3, 3, activation="relu")],
    "containers": lambda: [L.Residual([L.Conv2D(2, 3, 1, "same")]), L.Concatenate([[], []])],
}


def model_of(make, ops, precision="float64", values=None):
    """Compiled, with a head where the layers leave a map; whole numbers as weights for values="whole"."""
    layers = make()
    ends = [] if isinstance(layers[-1], L.GlobalMaxPooling2D) else [L.Flatten()]
    model = xpnet.Sequential(
        [*layers, *ends, L.Dense(4)], input_shape=SHAPE, device=ops, precision=precision, seed=0
    )
    rng = np.random.default_rng(1)
    randomise(model, rng)
    if values == "whole":
        state = model.state_dict()
        model.load_state_dict(
            {name: rng.integers(-2, 3, a.shape).astype(a.dtype) for name, a in state.items()}
        )
    model.compile("sgd", "mse")
    return model


def data(n, precision, rng, values=None):
    x = rng.integers(-1, 2, (n, *SHAPE)) if values == "whole" else rng.standard_normal((n, *SHAPE))
    return x.astype(precision), rng.integers(-2, 3, (n, 4)).astype(precision)


def names(layers):
    return [type(layer).__name__ for layer in layers]


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("name", MOVED)
def test_results_are_those_of_the_users_order(name, n, precision, rng):
    x, y = data(n, precision, rng)
    moved, plain = (model_of(MOVED[name], ops, precision) for ops in (NumpyOps(), InOrder()))
    assert pools_first(moved.layers) is not moved.layers
    given, taken = Chain(moved.layers), Chain(pools_first(moved.layers))
    h = moved.enter(x, moved.ops)
    np.testing.assert_array_equal(taken.forward(h, train=False)[0], given.forward(h, train=False)[0])
    rtol = 1e-5 if precision == "float32" else 1e-13
    found, expected = moved.gradients(x, y), plain.gradients(x, y)
    assert list(found) == list(expected)
    for key, gradient in found.items():
        assert gradient.dtype == precision
        assert_close(gradient, expected[key], rtol, key)


@pytest.mark.parametrize("name", [name for name in MOVED if name != "normalised"])
def test_of_equal_elements_the_same_one_gets_the_gradient(name, rng):
    """Among whole numbers many are alike, and every sum is exact."""
    x, y = data(6, "float64", rng, "whole")
    moved, plain = (model_of(MOVED[name], ops, values="whole") for ops in (NumpyOps(), InOrder()))
    y *= 6 * 4 / 2  # so that the mean's divisor leaves whole numbers
    expected = plain.gradients(x, y)
    assert any(np.abs(gradient).max() > 0 for gradient in expected.values())
    for key, gradient in moved.gradients(x, y).items():
        assert_close(gradient, expected[key], 1e-15, key)


@pytest.mark.parametrize("name", MOVED)
def test_training_steps_agree_and_frozen_layers_stay(name, rng):
    x, y = data(9, "float64", rng)
    moved, plain = (model_of(MOVED[name], ops) for ops in (NumpyOps(), InOrder()))
    before = moved.state_dict()
    for _ in range(3):
        assert moved.train_on_batch(x, y) == pytest.approx(plain.train_on_batch(x, y), rel=1e-12)
    after = moved.state_dict()
    for key, expected in plain.state_dict().items():
        assert_close(after[key], expected, 1e-12, key)
    stayed = {key for key in after if np.array_equal(after[key], before[key])}
    # a bias whose mean is taken away again learns nothing
    assert stayed == {"frozen": {"2.weight", "2.bias"}, "normalised": {"0.bias"}}.get(name, set())


@pytest.mark.parametrize("name", STAY)
def test_what_does_not_commute_stays(name):
    model = model_of(STAY[name], NumpyOps())
    assert pools_first(model.layers) is model.layers


def test_the_order_that_runs():
    def order(name):
        return names(pools_first(model_of(MOVED[name], NumpyOps()).layers))[:-1]

    assert order("fused") == ["Conv2D", "MaxPooling2D", "Finish", "Flatten"]
    assert order("apart") == ["Conv2D", "MaxPooling2D", "Finish", "Activation", "Flatten"]
    assert order("apart, no bias") == ["Conv2D", "MaxPooling2D", "Activation", "Flatten"]
    assert order("twice") == ["Conv2D", "MaxPooling2D", "Finish", "Activation", "Flatten"]
    slopes = [L.Activation(activations.LeakyReLU(slope)) for slope in (0.1, 0.2, 0.3)]
    behind = pools_first([*slopes, L.MaxPooling2D(2)])[1:]
    assert all(a is b for a, b in zip(behind, slopes, strict=True))
    assert order("normalised") == ["Conv2D", "BatchNormalization", "MaxPooling2D", "Activation", "Flatten"]
    assert order("global") == ["Conv2D", "GlobalMaxPooling2D", "Finish"]
    (block,) = pools_first(model_of(MOVED["branches"], NumpyOps()).layers)[:1]
    first, _, (residual, _) = block.branches
    assert names(first) == ["Conv2D", "MaxPooling2D", "Finish"]
    assert names(residual.body) == ["Conv2D", "MaxPooling2D", "Finish"] and residual.shortcut is None


def test_only_operations_that_gain_by_it_take_the_order():
    for ops, expected in ((NumpyOps(), True), (InOrder(), False), (Ops(), False)):
        model = model_of(MOVED["fused"], ops)
        replica = Replica(model, model.ops, model.params.grads, model.train_step().head, slice(None))
        assert ("Finish" in names(replica.chain.layers)) == expected == ops.pools_first


@pytest.mark.parametrize("name", ["fused", "apart", "branches"])
def test_the_model_shows_what_the_user_gave(name, rng):
    model = model_of(MOVED[name], NumpyOps())
    given, text = list(model.layers), []
    kept = [(layer, dict(vars(layer))) for layer in model.all_layers()]
    x, y = data(5, "float64", rng)
    model.gradients(x, y)
    model.predict(x)
    assert model.layers == given
    for layer, attributes in kept:
        assert vars(layer).keys() == attributes.keys()
        assert all(vars(layer)[key] is value for key, value in attributes.items())
    model.summary(text.append)
    assert not any("finish" in line.lower() for line in text)
    out, caches = model.forward(x, train=True)
    assert len(caches) == len(given)
    dp = rng.standard_normal(out.shape)
    model.backward(dp, caches)
    plain = model_of(MOVED[name], InOrder())
    _, caches = plain.forward(x, train=True)
    plain.backward(dp, caches)
    for key, gradient in gradients(model).items():
        np.testing.assert_array_equal(gradient, gradients(plain)[key])


def test_reports_name_the_users_layers(rng):
    x, y = data(8, "float64", rng)
    model = model_of(MOVED["apart"], NumpyOps())
    model.layers[0].bias[1] = np.nan
    with pytest.raises(NonFiniteError, match=r"is not finite is layer 0 'conv2d'"):
        model.fit(x, y, epochs=1, verbose=0)
    model = model_of(MOVED["fused"], NumpyOps())
    model.layers[-1].weight[...] = np.inf
    with pytest.raises(NonFiniteError, match=r"is not finite is layer 3 'dense'"):
        model.fit(x, y, epochs=1, verbose=0)


def test_training_keeps_no_map_as_large_as_the_convolutions(rng):
    """Three bytes for each window of 2x2 in place of its four elements."""
    model = model_of(MOVED["fused"], NumpyOps(), "float32")
    replica = Replica(model, model.ops, model.params.grads, model.train_step().head, slice(None))
    x, _ = data(16, "float32", rng)
    _, caches = replica.chain.forward(model.enter(x, model.ops), train=True)
    (*_, kept), (winners, shape), *_ = caches
    assert kept is None
    assert shape == (5, 3, 7, 16)
    assert winners.upper.nbytes + winners.left.nbytes == 3 * (2 * 3 * 3 * 16)


@pytest.mark.parametrize(("n", "expected"), [(2, 0), (600, 1)])
def test_inference_on_large_maps_takes_the_order(n, expected, monkeypatch, rng):
    model, calls, forward = model_of(MOVED["fused"], NumpyOps()), [], Finish.forward

    def counted(self, x, *, train):
        calls.append(train)
        return forward(self, x, train=train)

    monkeypatch.setattr(Finish, "forward", counted)
    x, _ = data(n, "float64", rng)
    found = model.infer(model.enter(x, model.ops))
    assert calls == [False] * expected
    np.testing.assert_array_equal(found, model.chain.forward(model.enter(x, model.ops), train=False)[0])
    model.layers[0].bias[...] += 1  # a change counts at once
    assert not np.array_equal(model.infer(model.enter(x, model.ops)), found)
