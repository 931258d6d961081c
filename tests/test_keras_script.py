"""Keras scripts run here by their imports alone; those of CNNs state their data_format, too."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import xpnet
from xpnet import Sequential
from xpnet.layers import Dense, Flatten

DIGITS = """
import numpy as np
rng = np.random.default_rng(0)
y_train = rng.integers(0, 10, 400)
x_train = rng.integers(0, 40, (400, 28, 28)).astype("uint8")
x_train[np.arange(400), y_train] += 200                          # a bright row tells the class
x_test, y_test = x_train[:100], y_train[:100]
"""

# each runs under Keras as it stands, and here by its imports alone; at a lone # a CNN states its data_format
SCRIPTS = {
    "mlp": DIGITS
    + """
import keras
from keras.models import Sequential
from keras.layers import Dense, Activation, Dropout
from keras.optimizers import RMSprop
from keras.utils import to_categorical

x_train = x_train.reshape(400, 784).astype("float32") / 255
x_test = x_test.reshape(100, 784).astype("float32") / 255
y_train = to_categorical(y_train, 10)
y_test = to_categorical(y_test, num_classes=10)

model = Sequential()
model.add(Dense(units=200, input_shape=(784,)))
model.add(Activation("relu"))
model.add(Dropout(0.1))
model.add(Dense(10, activation="softmax"))
model.summary()
model.compile(loss="categorical_crossentropy", optimizer=RMSprop(learning_rate=0.002), metrics=["accuracy"])
history = model.fit(x_train, y_train, batch_size=50, epochs=6, verbose=0, validation_data=(x_test, y_test))
score = model.evaluate(x_test, y_test, verbose=0)
print("Test loss:", score[0])
print("Test accuracy:", score[1])
assert score[1] > 0.9
assert sorted(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
assert history.epoch == [0, 1, 2, 3, 4, 5]
p = model.predict(x_test, batch_size=32, verbose=0)
assert np.argmax(p, axis=1).shape == (100,) and np.allclose(p.sum(axis=1), 1, atol=1e-5)
""",
    "convnet": DIGITS
    + """
import keras
from keras import layers

x_train = np.expand_dims(x_train.astype("float32") / 255, -1)
y_train = keras.utils.to_categorical(y_train, 10)

model = keras.Sequential(
    [
        keras.Input(shape=(28, 28, 1)),
        layers.Conv2D(8, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Conv2D(16, kernel_size=(3, 3), padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.8),
        layers.ReLU(),
        layers.MaxPool2D(),
        layers.Flatten(),
        layers.Dropout(0.2),
        layers.Dense(10, activation="softmax", name="probabilities"),
    ],
    #
)
model.compile(
    loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
    optimizer=keras.optimizers.Adam(learning_rate=1e-2),
    metrics=["accuracy"],
)
callbacks = [
    keras.callbacks.EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True),
    keras.callbacks.ModelCheckpoint(
        filepath="best.weights.h5", monitor="val_accuracy", save_best_only=True, save_weights_only=True
    ),
    keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=2, min_lr=1e-5),
    keras.callbacks.CSVLogger("log.csv"),
    keras.callbacks.TerminateOnNaN(),
]
model.fit(x_train, y_train, batch_size=20, epochs=12, validation_split=0.1, callbacks=callbacks, verbose=2)
model.load_weights("best.weights.h5")
scores = model.evaluate(x_train, y_train, verbose=0, return_dict=True)
print("Test accuracy:", scores["accuracy"])
assert sorted(scores) == ["accuracy", "loss"] and scores["accuracy"] > 0.8
model.save("m.keras")
again = keras.models.load_model("m.keras")
assert np.argmax(again.predict(x_train[:50], verbose=0), axis=-1).shape == (50,)
assert again.evaluate(x_train, y_train, verbose=0, return_dict=True)["accuracy"] == scores["accuracy"]
assert open("log.csv").readline().strip().startswith("epoch,accuracy,")
""",
    "autoencoder": """
import numpy as np
import keras
from keras import layers

x = np.random.rand(64, 16, 16, 1).astype("float32")
noisy = np.clip(x + 0.1 * np.random.randn(*x.shape), 0, 1)
autoencoder = keras.models.Sequential(
    [
        layers.Input((16, 16, 1)),
        layers.Conv2D(8, (3, 3), activation="relu", padding="same"),
        layers.AveragePooling2D((2, 2)),
        layers.Conv2D(4, 3, activation="relu", padding="same"),
        layers.UpSampling2D((2, 2)),
        layers.Conv2DTranspose(8, (3, 3), strides=1, activation="relu", padding="same"),
        layers.Conv2D(1, (3, 3), activation="sigmoid", padding="same"),
    ],
    #
)
autoencoder.compile(optimizer="adam", loss="binary_crossentropy")
autoencoder.fit(x=noisy, y=x, epochs=2, batch_size=16, shuffle=True, validation_data=(noisy, x), verbose=1)
assert autoencoder.predict(noisy).shape == x.shape
assert np.ndim(autoencoder.evaluate(noisy, x, verbose=0)) == 0
""",
    "regression": """
import numpy as np
import keras
from keras import layers

x = np.random.randn(300, 7) * 5 + 3
y = x @ np.random.randn(7, 1) + 1
normalizer = layers.Normalization(axis=-1)
normalizer.adapt(np.array(x))
model = keras.Sequential([normalizer, layers.Dense(64, activation="relu"), layers.Dense(1)])
model.compile(loss="mean_absolute_error", optimizer=keras.optimizers.Adam(0.01), metrics=["mse"])
history = model.fit(x, y, validation_split=0.2, verbose=0, epochs=30)
assert sorted(history.history) == ["loss", "mse", "val_loss", "val_mse"]
assert history.history["loss"][-1] < history.history["loss"][0] / 2
assert model.predict(x, verbose=0).flatten().shape == (300,)


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if logs.get("loss") < 1e9:
            self.model.stop_training = True


assert len(model.fit(x, y, epochs=50, callbacks=[Stop()], verbose=0).epoch) == 1
seen = []
tell = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, *sorted(logs))))
rate = keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.9)
model.fit(x, y, epochs=2, callbacks=[rate, tell], verbose=0)
assert [entry[0] for entry in seen] == [0, 1] and {"loss", "mse"} <= set(seen[0])
""",
    "objects": """
import numpy as np
import keras
from keras import layers

keras.utils.set_random_seed(0)
x = np.random.rand(200, 20).astype("float32")
y = (x.sum(axis=1) > 10).astype("int32")
model = keras.Sequential(name="clf")
model.add(keras.Input(shape=(20,)))
model.add(layers.Dense(32, name="hidden", kernel_initializer="he_normal"))
model.add(layers.LeakyReLU(negative_slope=0.1))
model.add(layers.Dense(1, activation="sigmoid", name="out"))
model.compile(
    optimizer=keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 100, 0.9), momentum=0.9),
    loss=keras.losses.BinaryCrossentropy(from_logits=False),
    metrics=[keras.metrics.BinaryAccuracy(name="acc")],
)
best = keras.callbacks.ModelCheckpoint("best.keras", monitor="val_loss", save_best_only=True)
h = model.fit(x, y, epochs=30, batch_size=16, validation_split=0.2, callbacks=[best], verbose=0)
assert sorted(h.history) == ["acc", "loss", "val_acc", "val_loss"]
assert model.evaluate(x, y, return_dict=True, verbose=0)["acc"] > 0.7
hidden = model.get_layer("hidden")
w, b = hidden.get_weights()
assert (w.shape, b.shape) == ((20, 32), (32,)) and hidden.count_params() == 672
hidden.set_weights([w * 0, b])
assert not hidden.get_weights()[0].any()
hidden.set_weights([w, b])
weights = model.get_weights()
assert [a.shape for a in weights] == [(20, 32), (32,), (32, 1), (1,)]
p = model.predict_on_batch(x[:3])
model.set_weights([a * 0 for a in weights])
assert np.allclose(model.predict(x[:3], verbose=0), 0.5)
model.set_weights(weights)
assert np.allclose(model.predict(x[:3], verbose=0), p, atol=1e-6)
assert model.get_layer(index=0) is hidden and model.layers[-1].name == "out" and model.name == "clf"
again = keras.models.load_model("best.keras", compile=False)
assert again.predict(x, verbose=0).shape == (200, 1)
loss, acc = model.test_on_batch(x, y)
assert model(x[:2], training=False).shape == (2, 1)
""",
}


def moved(script):
    """The script with its imports changed, and the data_format that a CNN states here."""
    script = re.sub(r"^import keras$", "import xpnet as keras", script, flags=re.M)
    script = re.sub(r"^from keras", "from xpnet", script, flags=re.M)
    return re.sub(r"^    #$", '    data_format="channels_last",', script, flags=re.M)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_keras_script_runs_by_its_imports_alone(name, tmp_path):
    if ".keras" in SCRIPTS[name] or "h5" in SCRIPTS[name]:
        pytest.importorskip("h5py", reason="Keras's files: pip install 'xpnet[keras]'")
    (tmp_path / "script.py").write_text(moved(SCRIPTS[name]))
    command = [sys.executable, "-W", "error", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_scripts_are_keras_s_own(tmp_path):
    """All of them under Keras as they stand, in one process."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("Keras is not installed")
    if "KERAS_BACKEND" not in os.environ:
        pytest.importorskip("torch", reason="Keras needs a backend")
    pytest.importorskip("h5py", reason="Keras writes its files by h5py")
    lines = [f"exec(compile({script!r}, {name!r}, 'exec'), {{}})" for name, script in SCRIPTS.items()]
    (tmp_path / "all.py").write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "all.py"],
        cwd=tmp_path,
        env={"KERAS_BACKEND": "torch"} | dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


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
    model.evaluate(x, y, 4, 0, np.ones(8), None, return_dict=True)


@pytest.mark.parametrize(
    "name",
    [
        "layers.Dense layers.Conv2D layers.MaxPooling2D layers.AveragePooling2D",
        "layers.GlobalAveragePooling2D layers.GlobalMaxPooling2D layers.Flatten layers.Reshape",
        "layers.Dropout layers.BatchNormalization layers.SpatialDropout2D layers.GroupNormalization",
        "layers.Conv2DTranspose layers.UpSampling2D layers.Normalization layers.Rescaling layers.Input",
        "layers.ReLU layers.LeakyReLU layers.ELU layers.Softmax layers.MaxPool2D layers.AvgPool2D",
        "layers.LayerNormalization layers.Activation layers.ZeroPadding2D layers.Concatenate layers.Layer",
        "optimizers.SGD optimizers.RMSprop optimizers.Adam optimizers.AdamW optimizers.Adagrad",
        "losses.SparseCategoricalCrossentropy losses.CategoricalCrossentropy losses.BinaryCrossentropy",
        "losses.Huber losses.MeanSquaredError losses.MeanAbsoluteError",
        "callbacks.EarlyStopping callbacks.ModelCheckpoint callbacks.ReduceLROnPlateau callbacks.CSVLogger",
        "callbacks.LearningRateScheduler callbacks.LambdaCallback callbacks.TensorBoard",
        "callbacks.Callback callbacks.History callbacks.TerminateOnNaN",
        "models.Sequential models.load_model utils.to_categorical utils.normalize datasets.mnist.load_data",
        "datasets.fashion_mnist.load_data datasets.cifar10.load_data",
    ],
)
def test_keras_names_are_where_keras_has_them(name):
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


def test_normalize_divides_by_the_norm():
    from xpnet.utils import normalize

    a = np.array([[3.0, 4.0], [0.0, 0.0]])
    assert np.allclose(normalize(a), [[0.6, 0.8], [0, 0]])
    assert np.allclose(normalize(a, axis=0, order=1), [[1, 1], [0, 0]])
    assert normalize(a.astype(np.float32)).dtype == np.float32 and normalize([[1, 1]]).dtype == np.float64


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
