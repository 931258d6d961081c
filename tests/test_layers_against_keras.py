"""Layers whose words and shapes are Keras's, against Keras itself, where it is installed."""

import itertools
import os
import re
import warnings

import numpy as np
import pytest
from cases import assert_close, gradients, randomise

import xpnet
from xpnet import layers as L

pytest.importorskip("torch", reason="PyTorch, on which Keras runs here, is not installed")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="Keras is not installed")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation")]
SINGLE = 1e-6  # of what Keras computes in float32 on the way


def built(layer, shape):
    """A model that takes (N, H, W, C), as Keras's layers do."""
    model = xpnet.Sequential(
        [layer], input_shape=shape, device="cpu", precision="float64", data_format="channels_last", seed=1
    )
    randomise(model, np.random.default_rng(1))
    return model


def outputs(layer, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns that its backends differ
        return keras.ops.convert_to_numpy(layer(x))


TRANSPOSES = [
    (kernel, strides, padding, extra)
    for kernel, strides, padding in itertools.product(range(1, 6), range(1, 5), ("valid", "same"))
    for extra in (None, *range(strides))
]


@pytest.mark.parametrize(("kernel", "strides", "padding", "extra"), TRANSPOSES)
def test_transposed_convolutions(kernel, strides, padding, extra, rng):
    """The sizes, and which rows are cut off, for every combination of the words."""
    shape = (3, 4, 2)
    theirs = keras.layers.Conv2DTranspose(
        3, kernel, strides, padding, extra, dtype="float64", data_format="channels_last"
    )
    model = built(L.Conv2DTranspose(3, kernel, strides, padding, extra), shape)
    theirs.build((None, *shape))
    assert model.output_shape == tuple(theirs.compute_output_shape((None, *shape))[1:])
    state = model.state_dict()
    theirs.set_weights([state["0.weight"].transpose(2, 3, 1, 0), state["0.bias"]])
    x = rng.standard_normal((2, *shape))
    assert_close(model.predict(x), outputs(theirs, x), 1e-12)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_dilated_transposed_convolutions(padding, rng):
    shape = (5, 4, 2)
    theirs = keras.layers.Conv2DTranspose(3, 3, 1, padding, dilation_rate=2, dtype="float64")
    model = built(L.Conv2DTranspose(3, 3, 1, padding, dilation_rate=2), shape)
    theirs.build((None, *shape))
    state = model.state_dict()
    theirs.set_weights([state["0.weight"].transpose(2, 3, 1, 0), state["0.bias"]])
    x = rng.standard_normal((2, *shape))
    assert_close(model.predict(x), outputs(theirs, x), 1e-12)


@pytest.mark.parametrize("initializer", ["glorot_uniform", "he_normal", "lecun_uniform"])
def test_initial_weights_of_a_transposed_convolution_have_keras_s_spread(initializer):
    """Fan in and fan out are counted as Keras counts them."""
    shape = (2, 2, 24)
    theirs = keras.layers.Conv2DTranspose(60, 5, kernel_initializer=initializer)
    theirs.build((None, *shape))
    layer = L.Conv2DTranspose(60, 5, kernel_initializer=initializer)
    xpnet.Sequential([layer], input_shape=(24, 2, 2), device="cpu", seed=0)
    assert layer.weight.std() == pytest.approx(theirs.get_weights()[0].std(), rel=0.03)


@pytest.mark.parametrize("size", [2, 3, (2, 1), (4, 5)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_up_sampling(size, interpolation, rng):
    shape = (3, 4, 2)
    x = rng.standard_normal((2, *shape))
    theirs = keras.layers.UpSampling2D(
        size, data_format="channels_last", interpolation=interpolation, dtype="float64"
    )
    assert_close(
        built(L.UpSampling2D(size, interpolation), shape).predict(x),
        outputs(theirs, x),
        SINGLE if interpolation == "bilinear" else 1e-12,
    )


@pytest.mark.parametrize(
    ("groups", "shape"), [*((g, (3, 4, 6)) for g in (1, 2, 6, -1)), (1, (6,)), (2, (6,))], ids=str
)
def test_group_normalization(groups, shape, rng):
    theirs = keras.layers.GroupNormalization(groups, dtype="float64")
    model = built(L.GroupNormalization(groups), shape)
    theirs.build((None, *shape))
    theirs.set_weights([model.state_dict()[f"0.{name}"] for name in ("weight", "bias")])
    x = rng.standard_normal((4, *shape))
    assert_close(model.predict(x), outputs(theirs, x), SINGLE)


@pytest.mark.parametrize("shape", [(7,), (5, 4, 3)], ids=str)
@pytest.mark.parametrize("axis", [-1, None])
def test_normalization_adapts_as_keras_s(shape, axis, rng):
    """Also to a feature that is constant."""
    x = 5 * rng.standard_normal((20, *shape)) + 3
    x[..., 0] = 2.0
    theirs = keras.layers.Normalization(axis, dtype="float64")
    theirs.adapt(x)
    ours = L.Normalization(axis)
    ours.adapt(x, data_format="channels_last")
    assert_close(np.squeeze(ours.mean), np.squeeze(theirs.mean), SINGLE)
    assert_close(np.squeeze(ours.variance), np.squeeze(theirs.variance), SINGLE)
    assert_close(_model(ours, shape).predict(x), outputs(theirs, x), SINGLE)


def _model(layer, shape):
    return xpnet.Sequential(
        [layer], input_shape=shape, device="cpu", precision="float64", data_format="channels_last"
    )


def test_rescaling(rng):
    x = rng.integers(0, 256, (4, 3, 5, 2))
    theirs = keras.layers.Rescaling(1 / 127.5, -1, dtype="float64")
    assert_close(_model(L.Rescaling(1 / 127.5, -1), (3, 5, 2)).predict(x), outputs(theirs, x), 1e-12)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("ReLU", {}),
        ("ReLU", {"negative_slope": 0.1}),
        ("LeakyReLU", {}),
        ("LeakyReLU", {"negative_slope": 0.01}),
        ("ELU", {}),
        ("ELU", {"alpha": 0.5}),
        ("Softmax", {}),
    ],
)
@pytest.mark.parametrize("shape", [(6,), (3, 2, 4)], ids=str)
def test_activation_layers_by_keras_s_names(name, given, shape, rng):
    x = 3 * rng.standard_normal((5, *shape))
    theirs = getattr(keras.layers, name)(**given, dtype="float64")
    assert_close(_model(getattr(L, name)(**given), shape).predict(x), outputs(theirs, x), 1e-12)


def test_keras_2_s_word_for_the_slope_is_taken():
    assert L.LeakyReLU(alpha=0.1).function.negative_slope == 0.1


def test_spatial_dropout_scales_as_keras_s(rng):
    """The masks are others; what a mask is made of is not."""
    x = np.ones((40, 3, 4, 50))
    theirs = keras.layers.SpatialDropout2D(0.3, data_format="channels_last", dtype="float64", seed=0)
    kept = keras.ops.convert_to_numpy(theirs(x, training=True))
    ours = _model(L.SpatialDropout2D(0.3), (3, 4, 50)).forward(x, train=True)[0]
    for y in (ours, kept):
        assert (y == y[:, :1, :1]).all()
        assert_close(np.unique(y), [0, 1 / 0.7], 1e-6)
        assert (y == 0).mean() == pytest.approx(0.3, abs=0.04)


def test_all_names_are_keras_s():
    """Every layer here goes by the name of one in Keras, but for the containers."""
    assert {name for name in L.__all__ if not hasattr(keras.layers, name)} == {"Residual"}
    for short, name in (("MaxPool2D", "MaxPooling2D"), ("AvgPool2D", "AveragePooling2D")):
        assert getattr(L, short) is getattr(L, name)
        assert getattr(L, f"Global{short}") is getattr(L, f"Global{name}")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("Conv2D", (4, 3)),
        ("Conv2DTranspose", (4, 3)),
        ("MaxPooling2D", ()),
        ("GlobalAveragePooling2D", ()),
        ("UpSampling2D", ()),
        ("SpatialDropout2D", (0.5,)),
        ("GroupNormalization", (2,)),
        ("BatchNormalization", ()),
    ],
)
def test_layers_are_called_as_in_keras(name, given):
    layer = getattr(L, name)(*given)
    _model(layer, (6, 6, 2))
    theirs = getattr(keras.layers, name)(*given).name
    assert layer.label == re.sub(r"_\d+$", "", theirs)


def test_gradients_of_a_decoder_agree(rng):
    """Through a transposed convolution and an up-sampling with a normalisation between them."""
    import torch

    shape = (3, 4, 2)
    theirs = keras.Sequential(
        [
            keras.layers.Conv2DTranspose(4, 3, 2, "same", activation="tanh", dtype="float64"),
            keras.layers.GroupNormalization(2, dtype="float64"),
            keras.layers.UpSampling2D(2, dtype="float64"),
        ]
    )
    theirs.build((None, *shape))
    model = xpnet.Sequential(
        [
            L.Conv2DTranspose(4, 3, 2, "same", activation="tanh"),
            L.GroupNormalization(2),
            L.UpSampling2D(2),
        ],
        input_shape=shape,
        device="cpu",
        precision="float64",
        data_format="channels_last",
    )
    randomise(model, rng)
    state = model.state_dict()
    theirs.set_weights(
        [state["0.weight"].transpose(2, 3, 1, 0), state["0.bias"], state["2.weight"], state["2.bias"]]
    )
    x = rng.standard_normal((2, *shape))
    t = torch.tensor(x, requires_grad=True)
    expected = theirs(t)
    y, caches = model.forward(x, train=True)
    dy = rng.standard_normal(y.shape)
    dx = model.backward(dy, caches)
    expected.backward(torch.tensor(dy))
    assert_close(dx, t.grad.numpy(), SINGLE)
    received = gradients(model)
    kernel, *others = (v.value.grad.numpy() for v in theirs.trainable_variables)
    assert_close(received["0.weight"], kernel.transpose(3, 2, 0, 1), SINGLE)
    for name, g in zip(("0.bias", "2.weight", "2.bias"), others):
        assert_close(received[name], g, SINGLE, name)
