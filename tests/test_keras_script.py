"""A Keras script with dense layers runs here by its imports alone."""

import subprocess
import sys

import numpy as np
import pytest

import xpnet
from xpnet import Sequential
from xpnet.layers import Dense, Flatten

SCRIPT = """
import numpy as np
from xpnet.models import Sequential
from xpnet.layers import Dense, Activation, Dropout
from xpnet.optimizers import Adam
from xpnet.utils import to_categorical

rng = np.random.default_rng(0)
y_train = rng.integers(0, 10, 400)
x_train = rng.integers(0, 40, (400, 28, 28)).astype("uint8")
x_train[np.arange(400), y_train] += 200                          # a bright row tells the class
x_test, y_test = x_train[:100], y_train[:100]

x_train = x_train.reshape(400, 784).astype("float32") / 255
x_test = x_test.reshape(100, 784).astype("float32") / 255
y_train = to_categorical(y_train, 10)
y_test = to_categorical(y_test, num_classes=10)

model = Sequential()
model.add(Dense(units=500, input_shape=(784,)))
model.add(Activation("relu"))
model.add(Dense(units=100))
model.add(Activation("relu"))
model.add(Dropout(0.1))
model.add(Dense(units=10))
model.add(Activation("softmax"))
model.compile(loss="categorical_crossentropy", optimizer=Adam(learning_rate=0.002), metrics=["accuracy"])
model.summary()
history = model.fit(x_train, y_train, batch_size=100, epochs=6, verbose=0, validation_data=(x_test, y_test))
score = model.evaluate(x_test, y_test, verbose=0)
print("Test loss:", score[0])
print("Test accuracy:", score[1])
assert sorted(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
assert history.history["val_accuracy"][-1] == score[1]
p = model.predict(x_test, batch_size=32, verbose=0)
assert np.argmax(p, axis=1).shape == (100,) and np.allclose(p.sum(axis=1), 1, atol=1e-5)
"""


def test_a_keras_script_with_dense_layers_runs_by_its_imports_alone(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, "-W", "error", path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Test accuracy:" in done.stdout and "activation_2 (Activation)" in done.stdout
    assert float(done.stdout.split("Test accuracy:")[1]) > 0.9


def test_a_keras_cnn_needs_only_its_data_format():
    from xpnet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
    from xpnet.models import Sequential

    model = Sequential(
        [
            Conv2D(8, kernel_size=(3, 3), activation="relu", input_shape=(12, 12, 1)),
            MaxPooling2D(pool_size=(2, 2)),
            Dropout(0.25),
            Flatten(),
            Dense(10, activation="softmax"),
        ],
        data_format="channels_last",
    )
    model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    x = np.random.default_rng(0).random((30, 12, 12, 1))
    model.fit(x, np.arange(30) % 10, epochs=1, verbose=0)
    assert model.predict(x).shape == (30, 10) and model.layers[0].out_shape == (8, 10, 10)


def test_fit_takes_keras_arguments_by_position():
    from xpnet.layers import Dense
    from xpnet.models import Sequential

    x, y = np.ones((8, 3)), np.zeros((8, 1))
    model = Sequential([Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(x, y, 4, 2, 0, [], 0.0, (x, y), True, None, np.ones(8), 0)
    assert len(history.history["val_loss"]) == 2
    model.evaluate(x, y, 4, 0, np.ones(8), True)


@pytest.mark.parametrize(
    "name",
    [
        "layers.Dense layers.Conv2D layers.MaxPooling2D layers.AveragePooling2D",
        "layers.GlobalAveragePooling2D layers.GlobalMaxPooling2D layers.Flatten layers.Reshape",
        "layers.Dropout layers.BatchNormalization",
        "layers.LayerNormalization layers.Activation layers.ZeroPadding2D layers.Concatenate layers.Layer",
        "optimizers.SGD optimizers.RMSprop optimizers.Adam optimizers.AdamW optimizers.Adagrad",
        "losses.SparseCategoricalCrossentropy losses.CategoricalCrossentropy losses.BinaryCrossentropy",
        "losses.Huber losses.MeanSquaredError losses.MeanAbsoluteError callbacks.Callback callbacks.History",
        "models.Sequential models.load_model utils.to_categorical datasets.mnist.load_data",
        "datasets.fashion_mnist.load_data datasets.cifar10.load_data",
    ],
)
def test_keras_names_are_where_keras_has_them(name):
    import importlib

    for path in name.split():
        module, _, attribute = f"xpnet.{path}".rpartition(".")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_to_categorical_is_keras_one_hot():
    from xpnet.utils import to_categorical

    assert to_categorical([0, 2, 1]).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert to_categorical([0, 2], num_classes=4).shape == (2, 4)
    assert to_categorical(np.array([[1], [0]], np.uint8)).tolist() == [[0, 1], [1, 0]]
    assert to_categorical(np.array([[0, 1], [1, 1]])).shape == (2, 2, 2)
    assert to_categorical([1]).dtype == np.float32


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_images_without_a_channel_axis_are_taken_where_the_input_shape_has_none(data_format, tmp_path):
    """TensorFlow's first example: Flatten(input_shape=(28, 28)) on images (N, 28, 28)."""
    x = np.random.default_rng(0).random((12, 6, 5)).astype(np.float32)
    y = np.arange(12) % 3
    model = Sequential([Flatten(input_shape=(6, 5)), Dense(3)], data_format=data_format, seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=1, verbose=0)
    assert model.input_shape == (6, 5)
    want = x.reshape(12, -1) @ model.layers[1].weight.T + model.layers[1].bias
    np.testing.assert_allclose(model.predict(x), want, rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "m.safetensors")
    assert (xpnet.load_model(tmp_path / "m.safetensors").predict(x) == model.predict(x)).all()
    with pytest.raises(ValueError, match=r"Received: \(12, 5, 6\). Expected: \(N, 6, 5\)"):
        model.predict(x.transpose(0, 2, 1))


def test_input_dim_is_kerass_word_for_vectors():
    assert Sequential([Dense(3, input_dim=7)]).input_shape == (7,)
