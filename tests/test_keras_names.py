"""What Keras calls things on models and layers, beyond what its scripts in test_keras_script.py use."""

import numpy as np
import pytest

import xpnet
from xpnet import Sequential
from xpnet import layers as L
from xpnet.utils import set_random_seed


def net(**more):
    body = [L.Dense(3, name="inner"), L.Dense(4)]
    return Sequential(
        [L.Dense(4, "relu", name="first"), L.Residual(body), L.Dense(2)], input_shape=(5,), **more
    )


def test_a_layer_is_found_by_its_name_or_its_place():
    model = net()
    assert model.get_layer("first") is model.layers[0] is model.get_layer(index=0)
    assert model.get_layer("inner") is model.layers[1].body[0]
    assert model.get_layer("dense_3") is model.get_layer(index=-1) is model.layers[2]
    with pytest.raises(ValueError, match=r"unknown layer. Received: 'frist'. Did you mean 'first'"):
        model.get_layer("frist")
    with pytest.raises(ValueError, match=r"no layer 3"):
        model.get_layer(index=3)
    for arguments in ({}, {"name": "first", "index": 0}):
        with pytest.raises(ValueError, match="a name or an index"):
            model.get_layer(**arguments)


def test_weights_go_layer_by_layer():
    model, other = net(seed=0), net(seed=1)
    for mine, theirs in zip(model.layers, other.layers):
        theirs.set_weights(mine.get_weights())
    assert all((a == other.state_dict()[name]).all() for name, a in model.state_dict().items())
    assert [layer.count_params() for layer in model.layers] == [24, 31, 10]
    with pytest.raises(xpnet.NotBuiltError, match="stands in a model"):
        L.Dense(3).get_weights()
    with pytest.raises(xpnet.NotBuiltError, match="input shape"):
        Sequential([L.Dense(3)]).get_weights()


def test_batches_and_calls():
    model, x, y = net(), np.random.default_rng(0).random((6, 5)), np.zeros((6, 2))
    model.compile("sgd", "mse")
    assert np.array_equal(model.predict_on_batch(x), model.predict(x))
    assert model.test_on_batch(x, y) == model.evaluate(x, y)
    assert np.array_equal(model(x), model.predict(x))
    dropped = Sequential([L.Dropout(0.5)], input_shape=(50,))
    assert (dropped(np.ones((2, 50)), training=True) == 0).any() and (dropped(np.ones((2, 50))) == 1).all()


def test_set_random_seed_fixes_what_comes_after(monkeypatch):
    monkeypatch.setattr("xpnet.utils._seeds", None)
    drawn = []
    for _ in range(2):
        set_random_seed(7)
        first, second = net(), net()
        assert first.seed != second.seed
        drawn.append((np.random.rand(), first.seed, second.seed))  # noqa: NPY002
    assert drawn[0] == drawn[1] and net(seed=3).seed == 3


def test_words_that_belong_to_the_model_say_so():
    assert L.Dropout(0.5, seed=1).rate == 0.5 and L.Dense(3, kernel_regularizer=None, dtype=None).units == 3
    for make, message in [
        (lambda: L.Dense(3, kernel_regularizer="l2"), "kernel_regularizer is not the layer.*weight_decay="),
        (lambda: L.Conv2D(3, 3, data_format="channels_last"), "data_format= of the model"),
        (lambda: L.Dense(3, dtype="float16"), "precision= of the model"),
    ]:
        with pytest.raises(TypeError, match=message):
            make()
    assert L.BatchNormalization(axis=-1).momentum == 0.99 and L.LayerNormalization(axis=-1).axis == "channels"
    with pytest.raises(ValueError, match="axis is the features"):
        L.BatchNormalization(axis=1)


def test_accuracies_by_kerass_names(tmp_path):
    from xpnet import metrics

    y, p = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    for metric in (
        metrics.SparseCategoricalAccuracy(),
        metrics.CategoricalAccuracy("acc"),
        metrics.BinaryAccuracy(),
    ):
        assert metric(y, p) == pytest.approx(2 / 3)
    assert metrics.SparseTopKCategoricalAccuracy(2)(y, p) == 1
    model = Sequential([L.Dense(2)], input_shape=(2,))
    model.compile("sgd", "sparse_categorical_crossentropy", [metrics.SparseCategoricalAccuracy(name="right")])
    assert "right" in model.evaluate(p, y, return_dict=True)
    model.save(tmp_path / "m.safetensors")
    assert "right" in xpnet.load_model(tmp_path / "m.safetensors").evaluate(p, y, return_dict=True)
    assert xpnet.load_model(tmp_path / "m.safetensors", compile=False).loss is None
