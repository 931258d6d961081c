"""check_gradients finds a wrong backward and passes right ones; numerical_gradient is the textbook's."""

import numpy as np
import pytest

import xpnet
from xpnet import GradientError, Sequential, losses
from xpnet.layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LayerNormalization,
    MaxPooling2D,
    Residual,
)
from xpnet.testing import as_float64


def data(n=12):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 5)), rng.integers(0, 3, n)


def mlp(*stack, loss="sparse_categorical_crossentropy"):
    model = Sequential(list(stack), input_shape=(5,), seed=0)
    model.compile("adam", loss)
    return model


class Affine(Layer):
    """y = w x + b, element by element, with slips to be chosen."""

    def __init__(self, slip=None, **layer):
        super().__init__(**layer)
        self.slip = slip

    def build(self, in_shape, params):
        params.reserve(self, "weight", in_shape, lambda rng, shape: rng.uniform(0.5, 1.5, shape))
        params.reserve(self, "bias", in_shape, lambda rng, shape: rng.uniform(0.5, 1.5, shape))
        return in_shape

    def forward(self, x, *, train):
        return x * self.weight + self.bias, x

    def backward(self, dy, x):
        (dy * x).sum(axis=0, out=self.dweight)
        dy.sum(axis=0, out=self.dbias)
        if self.slip == "adds":
            self.dbias *= 2
        if self.slip == "sign":
            self.dweight *= -1
        if self.slip == "one element":
            self.dweight[2] *= 1.01
        if self.slip == "zero":
            self.dweight[...] = 0
        return dy * (1 if self.slip == "dx" else self.weight)


def test_right_layers_pass_and_their_errors_are_tiny():
    x, y = data()
    model = mlp(
        Dense(8, activation="tanh"),
        BatchNormalization(),
        Dropout(0.3),
        Residual([Dense(8, activation="gelu"), LayerNormalization()]),
        Affine(),
        Dense(3, activation="softmax"),
    )
    errors = xpnet.check_gradients(model, x, y)
    assert list(errors) == list(model.gradients(x, y)) and max(errors.values()) < 1e-6


def test_a_bias_before_batch_normalization_whose_gradient_is_zero_passes():
    x, y = data()
    for seed in range(5):
        model = Sequential([Dense(4), BatchNormalization(), Dense(3)], input_shape=(5,), seed=seed)
        model.compile("adam", "sparse_categorical_crossentropy")
        xpnet.check_gradients(model, x, y)


def test_convolutions_pass():
    rng = np.random.default_rng(0)
    model = Sequential(
        [Conv2D(3, 3, activation="elu"), MaxPooling2D(2), Flatten(), Dense(2)], input_shape=(2, 6, 6)
    )
    model.compile("adam", "mse")
    errors = xpnet.check_gradients(model, rng.standard_normal((3, 2, 6, 6)), rng.standard_normal((3, 2)))
    assert max(errors.values()) < 1e-6


@pytest.mark.parametrize(
    ("slip", "name"),
    [
        ("adds", "1.bias"),
        ("sign", "1.weight"),
        ("one element", "1.weight"),
        ("zero", "1.weight"),
        ("dx", "0.weight"),
    ],
)
def test_a_wrong_backward_is_found_and_named(slip, name):
    x, y = data()
    with pytest.raises(
        GradientError, match=rf"gradient of {name} is wrong.*Backward: .*Numerical: .*tolerance 1e-05"
    ):
        xpnet.check_gradients(mlp(Dense(4), Affine(slip), Dense(3)), x, y)


def test_a_wrong_loss_is_found():
    class Slip(losses.MeanSquaredError):
        def per_sample(self, ops, p, y):
            value, dp = super().per_sample(ops, p, y)
            return value, dp / 2

    x, _ = data()
    with pytest.raises(GradientError, match=r"gradient of 0.weight is wrong"):
        xpnet.check_gradients(mlp(Dense(3), loss=Slip()), x, x[:, :3])


def test_sample_weights_take_part():
    x, y = data()
    assert max(xpnet.check_gradients(mlp(Dense(3)), x, y, sample_weight=np.arange(12.0)).values()) < 1e-6


def test_the_model_itself_stays_as_it_was():
    x, y = data()
    model = mlp(Dense(4, use_bias=False), BatchNormalization(), Dropout(0.2), Dense(3))
    model.fit(x, y, verbose=0)
    before = model._snapshot()
    xpnet.check_gradients(model, x, y)
    after = model._snapshot()
    assert model.precision == "auto" and model.dtype == np.float32
    for part in ("weights", "optimizer"):
        assert all(np.array_equal(before[part][k], after[part][k]) for k in before[part])
    assert after["step"] == before["step"] and after["iterations"] == before["iterations"]


def test_the_float64_copy_has_the_weights_and_masks_of_the_model():
    x, y = data()
    model = mlp(Dense(4), Dropout(0.5), Dense(3))
    model.fit(x, y, verbose=0)
    twin = as_float64(model)
    assert twin.dtype == np.float64 and np.allclose(twin.predict(x), model.predict(x), atol=1e-6)
    a, b = twin.forward(x, train=True)[0], model.forward(x, train=True)[0]
    assert a.dtype == np.float64 and np.allclose(a, b, atol=1e-6)


def test_an_uncompiled_model_cannot_be_checked():
    with pytest.raises(xpnet.NotCompiledError):
        xpnet.check_gradients(Sequential([Dense(3)], input_shape=(5,)), *data())


def test_numerical_gradient_of_a_known_function():
    a = np.random.default_rng(0).standard_normal((3, 4))
    kept = a.copy()
    gradient = xpnet.numerical_gradient(lambda v: (v**3).sum(), a)
    assert gradient.shape == a.shape and np.allclose(gradient, 3 * a**2, atol=1e-6)
    assert np.array_equal(a, kept), "a must be put back"
    assert np.allclose(xpnet.numerical_gradient(lambda v: np.sin(v[0]), np.array([0.3])), np.cos(0.3))


def test_numerical_gradient_serves_functions_that_look_at_the_array_themselves():
    a = np.array([1.0, 2.0])
    assert np.allclose(xpnet.numerical_gradient(lambda _: float(a @ a), a), 2 * a)


def test_numerical_gradient_agrees_with_backpropagation():
    x, y = data()
    model = Sequential(
        [Dense(4, activation="sigmoid"), Activation("tanh"), Dense(3)], input_shape=(5,), precision="float64"
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    weight = model.layers[0].weight
    numerical = xpnet.numerical_gradient(lambda _: model.evaluate(x, y), weight)
    assert np.allclose(numerical, model.gradients(x, y)["0.weight"], atol=1e-8)


@pytest.mark.parametrize("a", [np.arange(3), [1.0, 2.0], 3.0])
def test_numerical_gradient_needs_a_float_array(a):
    with pytest.raises(TypeError, match=r"needs a float array. Received: "):
        xpnet.numerical_gradient(np.sum, a)
