"""Models and weights carried to Keras and back: predictions agree, and nothing wrong is half loaded."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
from cases import CASES, randomise

import xpnet
from xpnet import ModelFileError, Sequential, ShapeError, activations
from xpnet import layers as L

# Keras 3.15 on NumPy 2
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'xpnet[keras]'")

from xpnet.interop import keras as exchange  # noqa: E402


@pytest.fixture(scope="module")
def keras():
    """Keras, on PyTorch where nothing else is asked for."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("Keras is not installed")
    if "KERAS_BACKEND" not in os.environ:
        pytest.importorskip("torch", reason="Keras needs a backend")
        os.environ["KERAS_BACKEND"] = "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its own imports warn of
        import keras
    return keras


def of_keras(model, x):
    """What a Keras model predicts for a few samples (without the bookkeeping of its `predict`)."""
    import keras

    y = model(keras.ops.convert_to_tensor(x, dtype=str(x.dtype)), training=False)
    return keras.ops.convert_to_numpy(y)


def last(a):
    return a.transpose(0, 2, 3, 1) if a.ndim == 4 else a


def agree(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


def blank(model):
    """The same layers with other weights."""
    state = {name: a * 0 + 0.5 for name, a in model.state_dict().items()}
    other = Sequential(
        anew(model.layers),
        input_shape=model.input_shape,
        data_format=model.data_format,
        precision=model.precision,
    )
    other.load_state_dict(state)
    return other


# -- random networks of xpnet's ------------------------------------------------------------------------------

FUNCTIONS = list(activations.TABLE)


def random_maps(rng, channels, size):
    """A few layers that keep maps maps, for (channels, size, size)."""

    def pick(*options):
        return options[int(rng.integers(len(options)))]

    def function():
        return pick(*FUNCTIONS)

    makers = [
        lambda C: L.Conv2D(4, (3, 2), pick(1, 2), pick("same", "valid", 1, (0, 2)), activation=function()),
        lambda C: L.Conv2D(3, 3, padding="same", dilation_rate=2, use_bias=False, activation=function()),
        lambda C: L.Conv2D(2 * C, 3, padding="same", groups=C, activation=function()),
        lambda C: L.Conv2DTranspose(
            3, (3, 2), pick(1, 2, 3), pick("same", "valid", 1), activation=function()
        ),
        lambda C: L.MaxPooling2D(3, pick(1, 2), "same"),
        lambda C: L.AveragePooling2D(2, padding=pick(0, 1)),
        lambda C: L.UpSampling2D((1, 2), pick("nearest", "bilinear")),
        lambda C: L.BatchNormalization(epsilon=1e-4),
        lambda C: L.LayerNormalization(axis=pick("channels", None)),
        lambda C: L.GroupNormalization(-1),
        lambda C: L.Activation(activations.LeakyReLU(0.1)),
        lambda C: L.SpatialDropout2D(0.2),
        lambda C: L.Normalization(),
        lambda C: L.Rescaling(0.5, 1.0),
        lambda C: L.ZeroPadding2D(((1, 0), (0, 2))),
    ]
    model = Sequential([L.Conv2D(channels, 3, padding="same")], input_shape=(channels, size, size))
    for _ in range(5):
        with contextlib.suppress(ShapeError):  # maps that have become too small for it
            model.add(pick(*makers)(model.layers[-1].out_shape[0]))
    return anew(model.layers)


def anew(layers):
    return xpnet.config.restore(xpnet.config.describe(layers))


def random_net(rng):
    """Layers of all kinds: maps, a border, vectors, sometimes maps again."""
    borders = [L.Flatten(), L.Reshape(-1), L.GlobalAveragePooling2D(), L.GlobalMaxPooling2D()]
    layers = [*random_maps(rng, 3, 8), borders[int(rng.integers(4))]]
    if rng.integers(2):
        layers += [L.BatchNormalization(), L.Dropout(0.3), L.LayerNormalization()]
    layers.append(L.Dense(24, activation=activations.ELU(0.7)))
    if rng.integers(2):
        layers += [
            L.BatchNormalization(),
            L.Reshape((2, 3, 4)),
            L.Conv2DTranspose(3, 3, 2, "same"),
            L.Flatten(),
        ]
    return [*layers, L.Dropout(0.1, scaling="inference"), L.Dense(5, activation="softmax")]


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_predict_the_same_in_keras_and_come_back(keras, seed, tmp_path):
    rng = np.random.default_rng(seed)
    model = Sequential(random_net(rng), input_shape=(3, 8, 8), seed=seed)
    randomise(model, rng)
    x = rng.standard_normal((4, 3, 8, 8)).astype(np.float32)
    y = model.predict(x)
    theirs = exchange.to_keras(model)
    assert isinstance(theirs, keras.Sequential)
    agree(of_keras(theirs, last(x)), y)

    loaded = blank(model)
    exchange.load_weights(loaded, theirs)
    weights = {name: a for name, a in model.state_dict().items() if not name.endswith("batches_tracked")}
    assert same(weights, {name: loaded.state_dict()[name] for name in weights})

    model.save_weights(tmp_path / "w.weights.h5")
    for variable in theirs.weights:
        variable.assign(np.zeros(variable.shape))
    theirs.load_weights(tmp_path / "w.weights.h5")
    agree(of_keras(theirs, last(x)), y)
    theirs.save_weights(tmp_path / "k.weights.h5")
    loaded = blank(model)
    loaded.load_weights(tmp_path / "k.weights.h5")
    assert same(weights, {name: loaded.state_dict()[name] for name in weights})

    exchange.save(model, tmp_path / "m.keras")
    agree(of_keras(keras.saving.load_model(tmp_path / "m.keras"), last(x)), y)
    if any(type(layer).__name__ == "Cropping2D" for layer in theirs.layers):
        with pytest.raises(ModelFileError, match=r"Cropping2D.*has no counterpart"):
            exchange.from_keras(theirs)
    else:
        agree(exchange.from_keras(theirs).predict(last(x)), y)
        agree(exchange.from_keras(tmp_path / "m.keras").predict(last(x)), y)


NOT_IN_KERAS = ("GELU-tanh", "groups-4x5x6", "Transpose-depthwise", "-ceil", "pad-apart", "MaxPooling2D-pair")
PADS_OTHERWISE = (
    "AveragePooling2D-same"  # Keras on PyTorch repeats the edge, on TensorFlow and JAX it does not
)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("case", [case for case in CASES if PADS_OTHERWISE not in str(case)], ids=str)
def test_every_layer_predicts_the_same_in_keras_or_is_refused(keras, case, data_format):
    shape = case.shape
    if data_format == "channels_last" and len(shape) == 3:
        shape = (*shape[1:], shape[0])
    try:
        model = Sequential([case.make()], input_shape=shape, data_format=data_format, seed=1)
    except ValueError:
        pytest.skip("a Reshape that has this meaning in channels_first alone")
    randomise(model, np.random.default_rng(2))
    x = np.random.default_rng(3).standard_normal((3, *shape)).astype(np.float32)
    y = model.predict(x)
    if data_format == "channels_first":
        y = last(y)
    layer = model.layers[0]
    alike = not any(word in str(case) for word in NOT_IN_KERAS) or isinstance(layer, L.Conv2D)
    alike = alike or (getattr(layer, "ceil_mode", False) and layer.window.padding == layer.margin)
    if alike:
        agree(of_keras(exchange.to_keras(model), last(x) if data_format == "channels_first" else x), y)
    else:
        with pytest.raises(TypeError, match=r"Keras has no layer for it. Received: .*Expected: "):
            exchange.to_keras(model)


# -- random networks of Keras's ------------------------------------------------------------------------------


def random_of_keras(keras, rng, functional):
    K = keras.layers
    pick = lambda *options: options[int(rng.integers(len(options)))]  # noqa: E731
    word = lambda: pick("relu", "tanh", "gelu", "silu", "elu", "leaky_relu", "softplus", "sigmoid", "linear")  # noqa: E731
    maps = [
        lambda: K.Conv2D(4, pick(1, 3, (2, 3)), pick(1, 2), pick("same", "valid"), activation=word()),
        lambda: K.Conv2D(4, 3, padding="same", dilation_rate=2, use_bias=False, activation=word()),
        lambda: K.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation=word()),
        lambda: K.SeparableConv2D(5, 3, padding="same", depth_multiplier=pick(1, 2), activation=word()),
        lambda: K.Conv2DTranspose(3, pick(2, 3), pick(1, 2), pick("same", "valid"), activation=word()),
        lambda: K.MaxPooling2D(pick(2, 3), pick(1, 2), pick("same", "valid")),
        lambda: K.AveragePooling2D(2, pick(1, 2)),
        lambda: K.ZeroPadding2D(pick(1, (1, 2), ((1, 0), (0, 2)))),
        lambda: K.UpSampling2D(2, interpolation=pick("nearest", "bilinear")),
        lambda: K.BatchNormalization(center=pick(True, False), scale=pick(True, False), axis=pick(-1, 3)),
        lambda: K.LayerNormalization(axis=pick(-1, 3, (1, 2, 3)), center=pick(True, False)),
        lambda: K.GroupNormalization(1, scale=pick(True, False)),
        lambda: K.SpatialDropout2D(0.2),
        lambda: K.Softmax(),
        lambda: K.Normalization(),
        lambda: K.Rescaling(0.5, offset=-1),
        lambda: K.ReLU(negative_slope=pick(0.0, 0.2)),
    ]
    vectors = [
        lambda: K.BatchNormalization(axis=pick(1, -1)),
        lambda: K.LayerNormalization(),
        lambda: K.Dropout(0.5),
        lambda: K.LeakyReLU(0.1),
        lambda: K.ELU(0.5),
        lambda: K.Activation(word()),
        lambda: K.Identity(),
        lambda: K.Normalization(mean=3.0, variance=2.0),
    ]
    layers = [pick(*maps)() for _ in range(5)]
    layers.append(pick(K.Flatten, lambda: K.Reshape((-1,)), K.GlobalAveragePooling2D, K.GlobalMaxPooling2D)())
    layers += [pick(*vectors)() for _ in range(3)]
    layers.append(K.Dense(24, activation=word()))
    if rng.integers(2):
        layers += [K.Reshape((2, 3, 4)), K.Conv2D(3, 2, activation=word()), K.Flatten()]
    layers += [keras.Sequential([K.Dense(6, activation="relu"), K.Dense(4)]), K.Softmax()]
    inputs = keras.Input((9, 8, 3))
    if not functional:
        return keras.Sequential([inputs, *layers])
    x = inputs
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def random_weights(model, rng):
    """Weights that hide no mistake: none is 0 or 1 throughout, variances are positive."""
    for variable in model.weights:
        value = 0.5 * rng.standard_normal(variable.shape)
        positive = "variance" in variable.path or "count" in variable.path
        variable.assign(0.5 + np.abs(value) if positive else value + ("gamma" in variable.path))
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


@pytest.mark.parametrize("functional", [False, True], ids=["Sequential", "functional"])
@pytest.mark.parametrize("seed", range(16))
def test_random_networks_of_keras_predict_the_same_here(keras, seed, functional, tmp_path):
    rng = np.random.default_rng([seed, functional])
    theirs = random_of_keras(keras, rng, functional)
    random_weights(theirs, rng)
    x = rng.standard_normal((4, 9, 8, 3)).astype(np.float32)
    y = of_keras(theirs, x)
    model = exchange.from_keras(theirs, seed=5)
    assert (model.data_format, model.input_shape, model.seed) == ("channels_last", (9, 8, 3), 5)
    agree(model.predict(x), y)
    theirs.save(tmp_path / "m.keras")
    loaded = xpnet.load_model(tmp_path / "m.keras")
    assert same(loaded.state_dict(), model.state_dict()) and repr(loaded) == repr(model)
    agree(of_keras(exchange.to_keras(model), x), y)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, np.arange(4), epochs=1, verbose=0)
    exchange.load_weights(model, theirs)
    agree(model.predict(x), y)


def test_blocks_with_short_cuts_go_and_come(keras, tmp_path):
    model = Sequential(
        [
            L.Conv2D(4, 3, padding=1),
            L.Residual(
                [
                    L.Conv2D(8, 3, 2, 1, use_bias=False),
                    L.BatchNormalization(),
                    L.Activation("relu"),
                    L.Conv2D(8, 3, 1, 1),
                ],
                [L.Conv2D(8, 1, strides=2)],
                activation="relu",
            ),
            L.Residual([L.Activation("tanh"), L.Residual([L.Conv2D(8, 3, padding=1)]), L.Conv2D(8, 1)]),
            L.Concatenate([[L.Conv2D(2, 1)], [], [L.MaxPooling2D(3, 1, "same"), L.Activation("tanh")]]),
            L.Flatten(),
            L.Dense(5, activation="relu"),
            L.Residual([L.Dense(5)]),
            L.Dense(3),
        ],
        input_shape=(3, 9, 8),
        seed=0,
    )
    randomise(model, np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((4, 3, 9, 8)).astype(np.float32)
    theirs = exchange.to_keras(model)
    agree(of_keras(theirs, last(x)), model.predict(x))
    loaded = blank(model)
    exchange.load_weights(loaded, theirs)
    agree(loaded.predict(x), model.predict(x))
    theirs.save(tmp_path / "m.keras")
    for source in (theirs, tmp_path / "m.keras"):
        back = exchange.from_keras(source)
        agree(back.predict(last(x)), model.predict(x))
        assert [type(layer).__name__ for layer in back.layers].count("Residual") == 3
    with pytest.raises(TypeError, match=r"has branches.*to_keras\(model\).save\(path\)"):
        exchange.save_weights(model, tmp_path / "w.weights.h5")


def test_a_resnet_block_as_keras_writes_it_comes_over(keras):
    K = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = K.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = K.ReLU()(K.BatchNormalization()(x))
    shortcut = K.BatchNormalization()(K.Conv2D(6, 1, strides=2)(x))
    y = K.ReLU()(K.BatchNormalization()(K.Conv2D(6, 3, strides=2, padding="same")(x)))
    y = K.BatchNormalization()(K.Conv2D(6, 3, padding="same")(y))
    x = K.Activation("relu")(K.Add()([shortcut, y]))
    x = K.Concatenate()([x, K.Conv2D(2, 1)(x)])
    theirs = keras.Model(inputs, K.Dense(4, activation="softmax")(K.GlobalAveragePooling2D()(x)))
    random_weights(theirs, np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((3, 8, 8, 3)).astype(np.float32)
    agree(exchange.from_keras(theirs).predict(x), of_keras(theirs, x))


def test_images_without_a_channel_axis(keras):
    theirs = keras.Sequential([keras.Input((6, 5)), keras.layers.Flatten(), keras.layers.Dense(3)])
    x = np.random.default_rng(0).random((4, 6, 5)).astype(np.float32)
    model = exchange.from_keras(theirs)
    agree(model.predict(x), of_keras(theirs, x))
    agree(of_keras(exchange.to_keras(model), x), model.predict(x))
    conv = Sequential([L.Conv2D(3, 3), L.Flatten(), L.Dense(2)], input_shape=(6, 5))
    agree(of_keras(exchange.to_keras(conv), x), conv.predict(x))
    agree(exchange.from_keras(exchange.to_keras(conv)).predict(x), conv.predict(x))


def test_float64_stays_float64(keras):
    model = Sequential([L.Dense(4, "tanh"), L.Dense(2)], input_shape=(3,), precision="float64")
    x = np.random.default_rng(0).standard_normal((5, 3))
    theirs = exchange.to_keras(model)
    agree(of_keras(theirs, x), model.predict(x))
    back = exchange.from_keras(theirs)
    assert back.dtype == np.float64 and same(back.state_dict(), model.state_dict())


def test_what_is_frozen_stays_frozen(keras):
    frozen = [L.Dense(3, trainable=False), L.BatchNormalization(trainable=False)]
    theirs = exchange.to_keras(Sequential([*frozen, L.Dense(2)], input_shape=(4,)))
    assert [layer.trainable for layer in theirs.layers] == [False, False, True]
    assert [layer.trainable for layer in exchange.from_keras(theirs).layers] == [False, False, True]


def test_names_are_kept_and_stay_apart(keras):
    model = Sequential([L.Dense(3, name="a/b"), L.Dense(3, name="a_b"), L.Dense(2)], input_shape=(4,))
    assert [layer.name for layer in exchange.to_keras(model).layers] == ["a_b", "a_b_1", "dense_2"]


def test_weights_go_as_the_lists_of_keras(keras):
    K = keras.layers
    layers = [
        K.Conv2D(4, (2, 3)),
        K.BatchNormalization(),
        K.Flatten(),
        K.Dense(6),
        K.LayerNormalization(),
        K.Dense(3),
    ]
    theirs = keras.Sequential([keras.Input((5, 6, 2)), *layers])
    random_weights(theirs, np.random.default_rng(0))
    model = blank(exchange.from_keras(theirs))
    exchange.set_weights(model, theirs.get_weights())
    x = np.random.default_rng(1).standard_normal((3, 5, 6, 2)).astype(np.float32)
    agree(model.predict(x), of_keras(theirs, x))
    for ours, one in zip(exchange.get_weights(model), theirs.get_weights(), strict=True):
        assert np.array_equal(ours, one)
    dense = exchange.get_weights(model, model.layers[3])
    assert [a.shape for a in dense] == [(64, 6), (6,)] and np.array_equal(
        dense[0], layers[3].get_weights()[0]
    )
    exchange.set_weights(model, [a * 2 for a in dense], model.layers[3])
    assert np.array_equal(exchange.get_weights(model, model.layers[3])[1], dense[1] * 2)


def test_lists_of_another_model_are_refused():
    model = conv_net()
    before, held = model.state_dict(), exchange.get_weights(model)
    with pytest.raises(
        ShapeError, match=r"of another model. Received: 3 arrays. Expected: 4, 0.weight, 0.bias, 3.we"
    ):
        exchange.set_weights(model, held[:3])
    with pytest.raises(
        ShapeError, match=r"layer 2 'dense': weight does not fit. Received: \(5, 64\). Expected: \(64, 5\)"
    ):
        exchange.set_weights(model, [held[0] + 1, held[1], held[2].T, held[3]])
    assert same(model.state_dict(), before)
    inside = Sequential([L.Residual([L.Dense(4), L.Dense(3)], [L.Dense(3)])], input_shape=(2,))
    assert len(exchange.get_weights(inside, inside.layers[0])) == 6


# -- model.save and load_model -------------------------------------------------------------------------------


def compiled():
    model = Sequential(
        [L.Flatten(), L.Dense(4, "relu"), L.BatchNormalization(), L.Dense(3)], input_shape=(2, 3, 3), seed=0
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def data():
    return np.random.default_rng(0).standard_normal((12, 2, 3, 3)).astype(np.float32), np.arange(12) % 3


def test_a_keras_file_of_model_save_is_keras_s_and_brings_everything_back(keras, tmp_path):
    x, y = data()
    model, whole = compiled(), compiled()
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "m.keras", training=True)
    agree(of_keras(keras.saving.load_model(tmp_path / "m.keras"), last(x)), model.predict(x))
    loaded = xpnet.load_model(tmp_path / "m.keras")
    assert same(loaded.state_dict(), model.state_dict()) and loaded.data_format == "channels_first"
    loaded.fit(x, y, epochs=4, initial_epoch=2, verbose=0)
    whole.fit(x, y, epochs=4, verbose=0)
    assert same(loaded.state_dict(), whole.state_dict())
    other = blank(compiled())
    other.load_weights(tmp_path / "m.keras")
    agree(other.predict(x), model.predict(x))


def without(*modules):
    """A line of Python that makes them look as if they were not installed."""
    return f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"


def run(script, tmp_path):
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_without_h5py_a_keras_file_is_safetensors_and_the_extra_is_named(tmp_path):
    shown = run(
        without("h5py", "keras")
        + """
import xpnet
from xpnet.layers import Dense
model = xpnet.Sequential([Dense(2)], input_shape=(3,))
model.save("m.keras")
assert (xpnet.load_model("m.keras").state_dict()["0.weight"] == model.state_dict()["0.weight"]).all()
for use in (lambda: model.save_weights("w.weights.h5"), lambda: xpnet.interop.keras.to_keras(model)):
    try:
        use()
    except ImportError as error:
        print(error)
""",
        tmp_path,
    )
    assert (
        "UserWarning: m.keras is a safetensors file, which xpnet.load_model reads and Keras does not" in shown
    )
    assert shown.count("pip install 'xpnet[keras]'") == 2 and "to_keras needs Keras" in shown
    assert sorted(os.listdir(tmp_path)) == ["m.keras", "script.py"]


def test_keras_files_need_no_keras(tmp_path):
    run(
        without("keras", "torch", "tensorflow")
        + """
import numpy, xpnet
from xpnet.layers import *
model = xpnet.Sequential([Conv2D(3, 2), Flatten(), Dense(2)], input_shape=(2, 4, 4), seed=0)
model.save("m.keras"); model.save_weights("m.weights.h5")
for path in ("m.keras", "m.weights.h5"):
    other = xpnet.Sequential([Conv2D(3, 2), Flatten(), Dense(2)], input_shape=(2, 4, 4), seed=1)
    other.load_weights(path)
    assert all((a == model.state_dict()[k]).all() for k, a in other.state_dict().items())
made = xpnet.interop.keras.from_keras("m.keras")
x = numpy.random.default_rng(0).random((3, 2, 4, 4))
assert abs(made.predict(x.transpose(0, 2, 3, 1)) - model.predict(x)).max() < 1e-6
""",
        tmp_path,
    )


# -- wrong weights -------------------------------------------------------------------------------------------


def conv_net(filters=4, units=5, extra=(), use_bias=True):
    layers = [L.Conv2D(filters, 3, activation="relu"), L.Flatten(), L.Dense(units, use_bias=use_bias), *extra]
    return Sequential(layers, input_shape=(2, 6, 6))


@pytest.mark.parametrize("form", ["w.weights.h5", "w.keras"])
@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (
            lambda: conv_net(filters=6),
            r"layer 0 'conv2d': weight does not fit. Received: \(3, 3, 2, 6\) of .*conv2d.*\(3, 3, 2, 4\)",
        ),
        (lambda: conv_net(units=7), r"layer 2 'dense': weight does not fit. Received: \(64, 7\).*\(64, 5\)"),
        (lambda: conv_net(extra=[L.Dense(2)]), "no place for weights. Received: .*dense_1"),
        (
            lambda: conv_net(use_bias=False),
            r"layer 2 'dense': Keras's layer has other arrays. Received: 1 of .*dense.*: weight, bias",
        ),
    ],
)
def test_wrong_weights_name_the_first_mismatch_and_change_nothing(form, theirs, message, tmp_path):
    source = theirs()
    exchange.save(source, tmp_path / form) if form.endswith("keras") else source.save_weights(tmp_path / form)
    model = conv_net()
    before = model.state_dict()
    with pytest.raises(ShapeError, match=message):
        model.load_weights(tmp_path / form)
    assert same(model.state_dict(), before)


def test_missing_and_other_layers_are_named(tmp_path):
    Sequential([L.Flatten(), L.Dense(5)], input_shape=(2, 6, 6)).save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(ShapeError, match=r"layer 0 'conv2d': its weights are missing.*Received: dense. "):
        conv_net().load_weights(tmp_path / "w.weights.h5")
    exchange.save(Sequential([L.Flatten(), L.Dense(5)], input_shape=(2, 6, 6)), tmp_path / "m.keras")
    with pytest.raises(
        ShapeError, match=r"layer 0 'conv2d': Keras's layer is another.*layer 2 'dense' \(Den"
    ):
        conv_net().load_weights(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="belong to safetensors files"):
        conv_net().load_weights(tmp_path / "m.keras", strict=False)
    with pytest.raises(ValueError, match="names belongs to safetensors files"):
        conv_net().save_weights(tmp_path / "w.weights.h5", names={"0": "conv"})


def test_a_depthwise_convolution_is_one_by_either_name(keras, tmp_path):
    theirs = keras.Sequential([keras.Input((5, 5, 4)), keras.layers.Conv2D(8, 3, groups=4)])
    random_weights(theirs, np.random.default_rng(0))
    theirs.save_weights(tmp_path / "w.weights.h5")
    model = Sequential([L.Conv2D(8, 3, groups=4)], input_shape=(5, 5, 4), data_format="channels_last")
    x = np.random.default_rng(1).standard_normal((2, 5, 5, 4)).astype(np.float32)
    for source in (theirs, tmp_path / "w.weights.h5"):
        model.load_state_dict({name: a * 0 for name, a in model.state_dict().items()})
        exchange.load_weights(model, source)
        agree(model.predict(x), of_keras(theirs, x))


# -- what has no counterpart ---------------------------------------------------------------------------------

REFUSED = {
    "another layer": (lambda K: [K.PReLU()], (4,), r"layer 1 .*\(PReLU\) has no counterpart in xpnet."),
    "augmentation": (lambda K: [K.RandomFlip()], (4, 4, 3), "RandomFlip.*pictures are varied by xpnet.data"),
    "activation": (lambda K: [K.Dense(3, activation="mish")], (4,), r"activation='mish'.*one of: elu"),
    "relu6": (lambda K: [K.ReLU(6.0)], (4,), r"max_value=6.0. Expected: max_value=None"),
    "flattened last": (lambda K: [K.Flatten()], (4, 4, 3), r"unrolls a map in H, W, C order.*no Dense"),
    "another axis": (lambda K: [K.BatchNormalization(axis=1)], (4, 4, 3), r"axis=1. Expected: axis=-1"),
    "channels first": (
        lambda K: [K.MaxPooling2D(data_format="channels_first")], (4, 4, 3), "data_format='channels_first'",
    ),
    "dense on maps": (lambda K: [K.Dense(3)], (4, 4, 3), r"works on vectors.*put a Flatten"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_layers_without_a_counterpart_are_named(keras, case):
    make, shape, message = REFUSED[case]
    theirs = keras.Sequential([keras.Input(shape), *make(keras.layers)])
    with pytest.raises(ValueError, match=message):
        exchange.from_keras(theirs)


def test_other_graphs_are_refused(keras):
    K = keras.layers
    a, b = keras.Input((4,)), keras.Input((4,))
    x = K.Dense(4)(a)
    for graph, message in [
        (keras.Model([a, b], K.Add()([a, b])), "are inputs side by side"),
        (keras.Model(a, [x, K.Dense(2)(x)]), "is not the output"),
        (
            keras.Model(a, K.Multiply()([K.Dense(4)(x), K.Dense(4)(x)])),
            "another way than Add and Concatenate",
        ),
        (keras.Model(a, K.Add()([x, K.Dense(4)(x), K.Dense(4)(x)])), "adds up more branches.*Received: 3"),
        (
            keras.Model(a, K.Add()([K.Dense(4)(K.Add()([K.Dense(4)(x), a])), x])),
            "do not all join in one layer",
        ),
    ]:
        with pytest.raises(ModelFileError, match=message):
            exchange.from_keras(graph)
    shared = K.Dense(4)
    with pytest.raises(ModelFileError, match="is used more than once"):
        exchange.from_keras(keras.Model(a, shared(shared(a))))


def test_a_regularizer_is_left_out_with_a_warning(keras):
    theirs = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer="l2")])
    with pytest.warns(UserWarning, match=r"layer 1 'dense.*kernel_regularizer is left out"):
        exchange.from_keras(theirs)


def test_what_is_no_keras_model_says_so(keras, tmp_path):
    with pytest.raises(TypeError, match=r"no Keras model. Received: dict"):
        exchange.from_keras({})
    with pytest.raises(ModelFileError, match="no weights yet"):
        exchange.from_keras(keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(FileNotFoundError, match="no Keras file"):
        exchange.from_keras(tmp_path / "m.keras")
    with pytest.raises(ModelFileError, match="holds weights alone"):
        conv_net().save_weights(tmp_path / "w.weights.h5")
        exchange.from_keras(tmp_path / "w.weights.h5")
    with pytest.raises(ValueError, match="data_format='channels_last'"):
        exchange.from_keras(keras.Sequential([keras.Input((3,))]), data_format="channels_first")

    class Own(keras.Model):
        def call(self, x):
            return x

    own = Own()
    own.build((None, 3))
    with pytest.raises(ModelFileError, match=r"does not tell its layers. Received: Own"):
        exchange.from_keras(own)


# -- files that are wrong ------------------------------------------------------------------------------------


def tampered(tmp_path, change):
    conv_net().save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name != "xpnet.safetensors"}
    change(held)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    return tmp_path / "m.keras"


def with_config(change):
    def apply(held):
        config = json.loads(held["config.json"])
        change(config)
        held["config.json"] = json.dumps(config)

    return apply


def without_shape(config):
    del config["config"]["layers"][0], config["config"]["build_input_shape"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.pop("model.weights.h5"), "not a readable Keras file"),
        (lambda held: held.update({"model.weights.h5": b"nothing"}), "not a readable Keras file"),
        (lambda held: held.update({"config.json": b"{"}), "not a readable Keras file"),
        (with_config(lambda c: c.pop("class_name")), "no counterpart|does not tell|m.keras|None"),
        (with_config(lambda c: c["config"].pop("layers")), "does not tell its layers"),
        (with_config(lambda c: c["config"]["layers"][1].pop("config")), "description cannot be read.*config"),
        (with_config(lambda c: c["config"]["layers"].insert(1, 3)), "description cannot be read"),
        (
            with_config(lambda c: c["config"]["layers"][1]["config"].pop("filters")),
            "a description without 'filters'",
        ),
        (
            with_config(lambda c: c["config"]["layers"][1]["config"].update(filters=-1)),
            "filters must be a whole",
        ),
        (with_config(lambda c: c["config"]["layers"][1].update(class_name="Lambda")), "Received: Lambda"),
        (with_config(without_shape), "leaves the shape"),
    ],
)
def test_a_keras_file_that_was_tampered_with_is_refused(change, message, tmp_path):
    path = tampered(tmp_path, change)
    if message.endswith("None"):
        assert xpnet.load_model(path).built  # the class's name of a Sequential is not needed
        return
    with pytest.raises(ModelFileError, match=message):
        xpnet.load_model(path)


def test_hdf5_that_points_elsewhere_is_not_followed(tmp_path):
    conv_net().save_weights(tmp_path / "secret.weights.h5")
    for link in (
        h5py.ExternalLink(str(tmp_path / "secret.weights.h5"), "/layers/dense"),
        h5py.SoftLink("/layers/conv2d"),
    ):
        with h5py.File(tmp_path / "w.weights.h5", "w") as held:
            held.create_group("layers/conv2d/vars")
            held["layers/dense"] = link
        model = Sequential([L.Dense(5)], input_shape=(64,))
        with pytest.raises(ModelFileError, match="dense is no group of its own"):
            model.load_weights(tmp_path / "w.weights.h5")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda held: held.create_group("model_weights"), "as Keras 2 wrote.*give the model"),
        (lambda held: held.create_group("other"), "HDF5 in another form. Received: groups other"),
        (lambda held: held.create_group("layers/dense/vars/0"), "something other than arrays"),
    ],
)
def test_hdf5_of_another_form_is_named(fill, message, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as held:
        fill(held)
    with pytest.raises(ModelFileError, match=message):
        Sequential([L.Dense(5)], input_shape=(4,)).load_weights(tmp_path / "w.h5")


def test_a_keras_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    model = conv_net()
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "w.weights.h5")
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def refuse(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    for use in (
        lambda: model.save(tmp_path / "m.keras"),
        lambda: model.save_weights(tmp_path / "w.weights.h5"),
    ):
        with pytest.raises(OSError, match="no space left"):
            use()
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
