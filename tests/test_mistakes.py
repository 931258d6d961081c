"""Mistakes that are easily made, and what is said of each."""

import copy

import numpy as np
import pytest

import xpnet
from xpnet import Sequential, metrics, optimizers
from xpnet.layers import BatchNormalization, Conv2D, Dense, Layer


def data(n=40, features=8):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, features)).astype(np.float32), rng.integers(0, 3, n)


def compiled(layers=None, loss="sparse_categorical_crossentropy", **kwargs):
    model = Sequential(layers or [Dense(3, activation="softmax")], seed=0, **kwargs)
    model.compile("adam", loss)
    return model


class Plain(Layer):
    """A layer as a reader writes a first one: no super().__init__, an initialiser by name."""

    def __init__(self, units):
        self.units = units

    def build(self, in_shape, params):
        params.reserve(self, "weight", (self.units, in_shape[0]), "glorot_uniform")
        params.reserve(self, "bias", (self.units,), "zeros")
        return (self.units,)

    def forward(self, x, *, train):
        return x @ self.weight.T + self.bias, x

    def backward(self, dy, x):
        self.dweight[...] = dy.T @ x
        self.dbias[...] = dy.sum(axis=0)
        return dy @ self.weight


def test_a_first_layer_of_ones_own_trains_saves_and_passes_the_gradient_check(tmp_path):
    x, y = data()
    model = compiled([Plain(5), Dense(3)])
    before = model.fit(x, y, epochs=1, verbose=0).history["loss"][0]
    assert model.fit(x, y, epochs=5, verbose=0).history["loss"][-1] < before
    assert max(xpnet.check_gradients(model, x, y).values()) < 1e-5
    model.save(tmp_path / "m.safetensors")
    again = xpnet.load_model(tmp_path / "m.safetensors", custom_objects={"Plain": Plain})
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_a_layer_whose_build_returns_nothing_is_named():
    class Forgets(Plain):
        def build(self, in_shape, params):
            super().build(in_shape, params)

    with pytest.raises(xpnet.ShapeError, match=r"layer 1 'forgets': build must return.*Received: None"):
        Sequential([Dense(4), Forgets(3)], input_shape=(2,))


def test_an_argument_kept_under_another_name_is_named_when_it_is_missed(tmp_path):
    class Scale(Layer):
        def __init__(self, k):
            self.factor = k

        def forward(self, x, *, train):
            return x * self.factor, None

    assert repr(Scale(2)) == "Scale()"
    with pytest.raises(TypeError, match=r"argument 'k' kept as self\.k"):
        Sequential([Scale(2)], input_shape=(3,)).save(tmp_path / "m.safetensors")


def test_metrics_take_predicted_class_indices():
    true, predicted = [0, 1, 2, 2], [0, 1, 1, 2]
    assert metrics.Accuracy()(true, predicted) == 0.75
    assert metrics.ConfusionMatrix()(true, predicted) == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert metrics.Accuracy()([0, 1, 1], [0.2, 0.9, 0.4]) == pytest.approx(2 / 3)  # probabilities of "yes"


@pytest.mark.parametrize("name", ["mse", "mae", "r2"])
def test_a_metric_of_numbers_refuses_class_indices(name):
    x, y = data()
    model = Sequential([Dense(3)], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", [name])
    for n in (3, 40):  # with as many samples as classes the shapes would broadcast
        with pytest.raises(xpnet.ShapeError, match="class indices for targets"):
            model.evaluate(x[:n], y[:n])


def test_top_k_goes_by_the_name_it_reports():
    assert metrics.get("top_3_accuracy").k == 3 == metrics.get(metrics.TopKCategoricalAccuracy(3).name).k


def test_targets_that_do_not_fit_name_the_layer_the_part_and_the_users_order():
    x, y = data()
    model = compiled([Dense(4), Dense(3)])
    with pytest.raises(ValueError, match=r"layer 1 'dense_1': validation .*out of range"):
        model.fit(x, y, validation_data=(x, y + 3), verbose=0)
    images = np.zeros((9, 6, 5, 2), np.float32)
    maps = compiled([Conv2D(4, 3, padding="same")], "mse", input_shape=(6, 5, 2), data_format="channels_last")
    with pytest.raises(xpnet.ShapeError, match=r"the model yields \(N, \*\(6, 5, 4\)\)"):
        maps.fit(images, np.zeros((9, 6, 5, 3)), verbose=0)


@pytest.mark.parametrize("last", [True, False])
def test_targets_of_one_channel_may_leave_it_out(last):
    form = {"data_format": "channels_last", "input_shape": (6, 5, 2)} if last else {"input_shape": (2, 6, 5)}
    model = compiled([Conv2D(1, 3, padding="same", activation="sigmoid")], "binary_crossentropy", **form)
    x, y = np.ones((4, *model.input_shape), np.float32), np.ones((4, 6, 5))
    whole = y[..., None] if last else y[:, None]
    assert model.evaluate(x, y) == model.evaluate(x, whole)


def test_learning_rates_that_are_none_are_refused():
    for rate in (float("inf"), float("nan"), 5e38, "0.1", None):
        with pytest.raises(ValueError, match="learning_rate must be"):
            optimizers.SGD(rate)
    x, y = data()
    model = Sequential([Dense(3)], seed=0)
    model.compile(optimizers.SGD(lambda step: float("nan")), "sparse_categorical_crossentropy")
    model.build((8,))
    before = model.state_dict()
    with pytest.raises(ValueError, match="the schedule's rate at step 0 must be"):
        model.train_on_batch(x, y)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_unknown_arguments_of_an_optimizer_suggest_the_known_one():
    with pytest.raises(TypeError, match=r"Adam: unknown argument 'lr'. Expected: learning_rate"):
        optimizers.Adam(lr=1)
    with pytest.raises(TypeError, match=r"SGD: .*Did you mean 'momentum'"):
        optimizers.SGD(momentun=0.9)


def test_the_layer_that_cannot_normalise_one_sample_is_the_one_that_trains():
    x, y = data(33)
    model = compiled([BatchNormalization(trainable=False), Dense(4), BatchNormalization(), Dense(3)])
    with pytest.raises(xpnet.ShapeError, match="layer 2 'batch_normalization_1'"):
        model.fit(x, y, verbose=0)


def test_a_copy_keeps_what_the_user_hung_on_the_model():
    model = compiled(input_shape=(8,))
    model.note = "mine"
    assert copy.deepcopy(model).note == "mine"


def test_class_weights_of_several_answers_a_sample_are_refused():
    x, _ = data(4)
    model = compiled([Dense(3, activation="sigmoid")], "binary_crossentropy")
    with pytest.raises(ValueError, match="one class a sample"):
        model.fit(x, [[1, 1, 0]] * 4, class_weight={0: 2.0}, verbose=0)
