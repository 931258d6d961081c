"""What a user may get wrong, and the words that put it right."""

import re

import numpy as np
import pytest

from xpnet import (
    NotCompiledError,
    Sequential,
    ShapeError,
    activations,
    datasets,
    initializers,
    losses,
    metrics,
    optimizers,
    schedules,
    utils,
)
from xpnet.layers import (
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    Layer,
    LayerNormalization,
    MaxPooling2D,
    Reshape,
    Residual,
    ZeroPadding2D,
)

X = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
Y = np.arange(12) % 3


def mlp(loss="sparse_categorical_crossentropy", stack=None, **kwargs):
    model = Sequential(stack or [Dense(4), Dense(3)], input_shape=(5,), seed=0, **kwargs)
    model.compile("adam", loss)
    return model


def cnn(**kwargs):
    shape = (8, 8, 1) if kwargs.get("data_format") == "channels_last" else (1, 8, 8)
    model = Sequential([Conv2D(2, 3), Flatten(), Dense(3)], input_shape=shape, seed=0, **kwargs)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def changed(a, index, value):
    a = np.array(a, dtype=float)
    a[index] = value
    return a


# -- data that does not fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((12, 4), "x does not fit the model. Received: (12, 4). Expected: (N, 5)"),
        ((12,), "Received: (12,). Expected: (N, 5)"),
        ((5,), "a single sample is a batch of one, x[None]"),
        ((12, 1, 5), "x.reshape(len(x), -1) makes vectors of images, or let the model begin with Flatten()"),
    ],
)
def test_vectors_of_the_wrong_shape(shape, words):
    model = mlp()
    for call in (model.predict, model.forward, lambda x: model.fit(x, np.zeros(len(x), int), verbose=0)):
        with pytest.raises(ShapeError, match=re.escape(words)):
            call(np.ones(shape))


@pytest.mark.parametrize(
    ("shape", "data_format", "words"),
    [
        ((12, 8, 8), "channels_first", "images without a channel axis get one by x[:, None]"),
        (
            (12, 8, 8, 1),
            "channels_first",
            "these are channels last: give data_format='channels_last'",
        ),
        ((12, 1, 8, 8), "channels_last", "these are channels first: leave out data_format='channels_last'"),
        ((1, 8, 8), "channels_first", "a single sample is a batch of one, x[None]"),
        ((12, 1, 9, 8), "channels_first", "Received: (12, 1, 9, 8). Expected: (N, 1, 8, 8)"),
        ((12, 64), "channels_first", "Received: (12, 64). Expected: (N, 1, 8, 8)"),
    ],
)
def test_images_of_the_wrong_shape(shape, data_format, words):
    with pytest.raises(ShapeError, match=re.escape(words)):
        cnn(data_format=data_format).predict(np.ones(shape))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ones((12, 8, 8)), "images without a channel axis get one by x[:, None]"),
        (np.ones(12), "a single feature is x[:, None], a single sample x[None]"),
        (np.ones((2, 2, 2, 2, 2)), "Expected: (N, D), or images (N, C, H, W)"),
        (3.0, "Received: ()"),
    ],
)
def test_the_first_data_of_a_model_must_have_a_shape_that_models_take(x, words):
    with pytest.raises(ShapeError, match=re.escape(words)):
        Sequential([Flatten(), Dense(3)]).predict(x)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (
            np.array([["a"] * 5]),
            "x must be numbers. Received: dtype <U1. Expected: float32, or whole numbers",
        ),
        (X.astype(complex), "x must be numbers. Received: dtype complex128"),
        (X.astype(object), "x must be numbers. Received: dtype object"),
        (X.astype("M8[s]"), "x must be numbers. Received: dtype datetime64"),
        ([[1.0, 2], [3]], "x cannot be read as one array"),
        (None, "dtype object"),
    ],
)
def test_data_that_is_no_array_of_numbers(x, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        mlp().predict(x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_in_the_input_name_the_sample(value):
    model, bad = mlp(), changed(X, (7, 2), value)
    words = "x must be finite. Received: NaN or infinity, first in sample 7.*np.nan_to_num, or leave such"
    for call in (
        model.predict,
        model.forward,
        lambda x: model.fit(x, Y, verbose=0),
        lambda x: model.gradients(x, Y),
    ):
        with pytest.raises(ValueError, match=words):
            call(bad)
    with pytest.raises(ValueError, match=r"validation x must be finite.*sample 7"):
        model.fit(X, Y, validation_data=(bad, Y), verbose=0)
    assert model.optimizer.iterations == 0


def test_numbers_beyond_float32_count_as_infinite_unless_the_model_is_float64():
    big = changed(X, (3, 1), 1e300)
    with pytest.raises(ValueError, match=r"first in sample 3. Expected: numbers within float32"):
        mlp().predict(big)
    assert np.isfinite(mlp(precision="float64").predict(big)).all()
    with pytest.raises(ValueError, match=r"mean_squared_error: targets must be finite.*in sample 2"):
        mlp("mse").fit(X, changed(X[:, :3], (2, 1), 1e300), verbose=0)


def test_infinity_far_down_in_a_large_array_is_found():
    x = np.zeros((300_000, 5), np.float32)
    x[299_999, 4] = np.inf
    with pytest.raises(ValueError, match="first in sample 299999"):
        mlp().predict(x)


def test_an_empty_batch():
    model = mlp()
    for call in (model.predict, model.forward):
        with pytest.raises(
            ValueError, match=r"x is empty. Received: \(0, 5\). Expected: at least one sample"
        ):
            call(np.ones((0, 5)))
    for call in (model.fit, model.evaluate, model.train_on_batch, model.gradients):
        with pytest.raises(ValueError, match=r"x is empty. Received: \(0, 5\)"):
            call(np.ones((0, 5)), np.ones(0, int))


def test_mismatched_lengths():
    model = mlp()
    for call in (model.fit, model.evaluate, model.train_on_batch, model.gradients):
        with pytest.raises(
            ShapeError, match=r"numbers of samples differ. Received: 12 in x, 11 in y. Expected: the same"
        ):
            call(X, Y[:11])
    with pytest.raises(ShapeError, match="12 in validation x, 3 in validation y"):
        model.fit(X, Y, validation_data=(X, Y[:3]), verbose=0)


def test_targets_that_are_missing_or_no_array():
    with pytest.raises(ValueError, match=r"fit needs targets. Received: y=None. Expected: fit\(x, y\)"):
        mlp().fit(X)
    with pytest.raises(ValueError, match=r"evaluate needs targets. Received: y=None"):
        mlp().evaluate(X)
    with pytest.raises(ShapeError, match="y must have a row for each sample"):
        mlp().evaluate(X, 3)


# -- labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (
            Y + 1,
            "labels from 1 to 3. Expected: 0 to 2, since the model has 3 outputs; number the classes from 0",
        ),
        (Y - 1, "labels from -1 to 1. Expected: 0 to 2"),
        (Y + 0.5, "targets must be whole numbers. Received: 0.5"),
        (changed(Y, 4, np.nan), "targets must be finite. Received: NaN or infinity in sample 4"),
        (
            np.eye(3)[Y],
            "Received: y of shape (12, 3). Expected: (N,); for one-hot targets use loss='categorical_cross",
        ),
        (
            np.array(["cat", "dog", "cow"])[Y],
            "dtype <U3. Expected: whole numbers from 0; np.unique(y, return_inverse",
        ),
    ],
)
def test_labels_for_sparse_categorical_crossentropy(y, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        mlp().fit(X, y, verbose=0)
    assert "sparse_categorical_crossentropy: " in str(error.value)


@pytest.mark.parametrize("y", [Y.astype(np.uint8), Y.astype(float), Y[:, None], Y.tolist()])
def test_labels_of_any_number_type_are_taken(y):
    mlp().fit(X, y, verbose=0)


def test_targets_for_categorical_crossentropy():
    model = mlp("categorical_crossentropy")
    with pytest.raises(
        ShapeError, match=r"looks like class indices.*sparse_categorical_crossentropy'.*to_categorical"
    ):
        model.fit(X, Y, verbose=0)
    with pytest.raises(ShapeError, match=r"Received: y of shape \(12, 4\). Expected: \(N, 3\)"):
        model.fit(X, np.eye(4)[Y], verbose=0)
    with pytest.raises(
        ValueError, match=r"must be probabilities. Received: values from 0 to 255. Expected: 0 to 1"
    ):
        model.fit(X, 255 * np.eye(3)[Y], verbose=0)


def test_targets_for_other_losses():
    with pytest.raises(ValueError, match=r"must lie between 0 and 1. Received: values from 0 to 2"):
        mlp("binary_crossentropy", [Dense(1)]).fit(X, Y, verbose=0)
    with pytest.raises(ShapeError, match=r"mean_squared_error: .*y of shape \(12,\). Expected: \(N, 3\)"):
        mlp("mse").fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=r"mean_squared_error: targets must be finite.*sample 5"):
        mlp("mse").fit(X, changed(X[:, :3], (5, 0), np.nan), verbose=0)
    with pytest.raises(ValueError, match=r"targets must be numbers. Received: dtype <U1"):
        mlp("mse").fit(X, np.full((12, 3), "a"), verbose=0)


# -- weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (np.ones(11), "sample_weight does not fit. Received: (11,). Expected: (12,), one weight a sample"),
        (np.ones((12, 1)), "Received: (12, 1). Expected: (12,)"),
        (-np.ones(12), "values from -1.0 to -1.0"),
        (np.zeros(12), "not zero throughout"),
        (changed(np.ones(12), 3, np.nan), "must be finite"),
        (np.full(12, "a"), "Received: dtype <U1"),
    ],
)
def test_sample_weights(weight, words):
    model = mlp()
    for call in (model.fit, model.evaluate, model.train_on_batch, model.gradients):
        with pytest.raises(ValueError, match=re.escape(words)):
            call(X, Y, sample_weight=weight)


@pytest.mark.parametrize("table", [{0: -1.0}, {"cat": 1.0}, {0: "much"}, {0.5: 1.0}, {0: np.nan}, {-1: 1.0}])
def test_class_weights_that_are_no_weights(table):
    with pytest.raises(ValueError, match=r"must map class indices to weights of at least 0. Received: "):
        mlp().fit(X, Y, class_weight=table, verbose=0)


def test_class_weights_where_they_cannot_be():
    with pytest.raises(ValueError, match=r"class_weight must be a dict or 'balanced'. Received: 'even'"):
        mlp().fit(X, Y, class_weight="even", verbose=0)
    with pytest.raises(
        ValueError, match=r"class_weight needs targets that are one class a sample.*use sample_weight"
    ):
        mlp("mse", [Dense(1)]).fit(X, X[:, 0], class_weight={0: 2.0}, verbose=0)
    model = Sequential([Conv2D(3, 1)], input_shape=(1, 4, 4))
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"class_weight needs .* Received: y of shape \(2, 4, 4\)"):
        model.fit(np.ones((2, 1, 4, 4)), np.ones((2, 4, 4), int), class_weight={0: 2.0}, verbose=0)


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind", "suggestion"),
    [
        (lambda: Dense(3, activation="rellu"), "activation", "relu"),
        (lambda: Activation("sofmax"), "activation", "softmax"),
        (lambda: Dense(3, kernel_initializer="glorot_unifrom"), "initializer", "glorot_uniform"),
        (lambda: mlp("sparse_categorical_crossentrop"), "loss", "sparse_categorical_crossentropy"),
        (lambda: mlp().compile("adan", "mse"), "optimizer", "adam"),
        (lambda: mlp().compile("ADAMM", "mse"), "optimizer", "adam"),
        (lambda: mlp().compile("adam", "mse", metrics=["acuracy"]), "metric", "accuracy"),
        (lambda: Sequential(data_format="channel_last"), "data_format", "channels_last"),
        (lambda: Sequential(precision="float23"), "precision", "float32"),
        (lambda: Sequential(device="cudda"), "device", "cuda"),
        (lambda: Conv2D(2, 3, padding="sane"), "padding", "same"),
        (lambda: MaxPooling2D(padding="vald"), "padding", "valid"),
        (lambda: losses.MeanSquaredError("maen"), "reduction", "mean"),
        (lambda: metrics.F1Score(average="marco"), "average", "macro"),
        (lambda: initializers.VarianceScaling(mode="fan_inn"), "mode", "fan_in"),
    ],
)
def test_unknown_names_come_with_a_suggestion_and_the_list(make, kind, suggestion):
    with pytest.raises(ValueError, match=f"unknown {kind}. Received: .*Did you mean '{suggestion}'") as error:
        make()
    assert "Expected one of: " in str(error.value)


@pytest.mark.parametrize("value", [3, object(), ["relu"]])
def test_things_that_are_no_names_at_all(value):
    for get in (activations.get, losses.get, metrics.get, optimizers.get, initializers.get):
        with pytest.raises(ValueError, match=r"unknown .* Received: .* Expected"):
            get(value)


@pytest.mark.parametrize("cls", [Dense, Flatten, Conv2D, MaxPooling2D, BatchNormalization, Dropout])
def test_unknown_arguments_of_layers_come_with_a_suggestion(cls):
    first = {Dense: (3,), Conv2D: (3, 3), Dropout: (0.5,)}.get(cls, ())
    with pytest.raises(
        TypeError, match=f"{cls.__name__}: unknown argument. Received: 'trainabel'. Did you mean 'train"
    ):
        cls(*first, trainabel=True)


# -- arguments of layers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dense(0), "Dense: units must be a whole number of at least 1. Received: 0"),
        (lambda: Dense(2.5), "Dense: units must be a whole number of at least 1. Received: 2.5"),
        (lambda: Dense(True), "Dense: units must be"),
        (lambda: Conv2D(0, 3), "Conv2D: filters must be"),
        (
            lambda: Conv2D(4, 0),
            "Conv2D: kernel_size must be a whole number of at least 1, or a pair (rows, columns)",
        ),
        (lambda: Conv2D(4, (3, 3, 3)), "Conv2D: kernel_size must be .* Received: (3, 3, 3)"),
        (lambda: Conv2D(4, 3, strides=-1), "Conv2D: strides must be"),
        (lambda: Conv2D(4, 3, dilation_rate=0), "Conv2D: dilation_rate must be"),
        (lambda: Conv2D(4, 3, padding=-1), "Conv2D: padding must be a whole number of at least 0"),
        (lambda: Conv2D(4, 3, groups=3), "Conv2D: groups must divide filters. Received: filters=4, groups=3"),
        (lambda: MaxPooling2D(0), "MaxPooling2D: pool_size must be"),
        (lambda: AveragePooling2D(2, padding=2), "AveragePooling2D: padding must be at most half the window"),
        (lambda: ZeroPadding2D(-1), "ZeroPadding2D: padding must be"),
        (lambda: Dropout(1.0), "Dropout: rate must be at least 0 and below 1. Received: 1.0"),
        (lambda: Dropout(-0.1), "Dropout: rate must be"),
        (
            lambda: Dropout(0.5, scaling="test"),
            "Dropout: scaling must be 'train' or 'inference'. Received: 'test'",
        ),
        (
            lambda: BatchNormalization(momentum=2),
            "BatchNormalization: momentum must lie between 0 and 1. Received: 2",
        ),
        (lambda: LayerNormalization(epsilon=0), "LayerNormalization: epsilon must be positive"),
        (
            lambda: LayerNormalization(axis=1),
            "LayerNormalization: axis must be None or 'channels'. Received: 1",
        ),
        (lambda: Reshape((2, 2)), "Reshape: target_shape must be (D,) or three sizes of a map"),
        (lambda: Reshape((-1, -1, 2)), "Reshape: target_shape must be"),
        (lambda: Reshape("abc"), "Reshape: target_shape must be"),
        (lambda: Residual("relu"), "Residual: body must be a layer or a list of layers. Received: 'relu'"),
        (lambda: Concatenate([]), "Concatenate: branches must be a list of lists of layers. Received: []"),
        (
            lambda: optimizers.SGD(-1),
            "learning_rate must be a schedule or a finite number of at least 0. Received: -1",
        ),
        (lambda: optimizers.Adam(beta_1=1.0), "Adam: beta_1 must be at least 0 and below 1. Received: 1.0"),
        (lambda: optimizers.Adam(epsilon=-1), "Adam: epsilon must not be negative. Received: -1"),
        (lambda: optimizers.SGD(nesterov=True), "SGD: nesterov needs a momentum"),
        (lambda: optimizers.SGD(clipnorm=0), "clipnorm must be positive. Received: 0"),
        (
            lambda: optimizers.SGD(clipnorm=1, global_clipnorm=1),
            "clipnorm and global_clipnorm exclude each other",
        ),
        (lambda: optimizers.SGD(weight_decay=-1), "weight_decay must not be negative. Received: -1"),
        (lambda: schedules.CosineDecay(0.1, 0), "CosineDecay: decay_steps must be at least 1. Received: 0"),
        (lambda: losses.Huber(0), "delta must be positive. Received: 0"),
        (
            lambda: losses.CategoricalCrossentropy(label_smoothing=1),
            "label_smoothing must be at least 0 and below 1",
        ),
        (lambda: metrics.TopKCategoricalAccuracy(0), "k must be at least 1. Received: 0"),
        (lambda: initializers.RandomNormal(stddev=-1), "stddev must not be negative. Received: -1"),
        (lambda: utils.to_categorical([0, 3], num_classes=3), "out of range. Received: 3 with num_classes=3"),
        (lambda: utils.to_categorical([-1, 3]), "to_categorical needs whole numbers from 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(make, words):
    with pytest.raises((ValueError, TypeError), match=re.escape(words).replace(r"\.\*", ".*")):
        make()


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"input_shape": (0,)}, r"input_shape must be .*Received: \(0,\)"),
        (
            {"input_shape": (2, 3, 4, 5)},
            r"input_shape must be \(D,\) for vectors or \(C, H, W\) for images. Received: \(2, 3, 4, 5\)",
        ),
        ({"input_shape": (2.5,)}, "input_shape must be"),
        ({"input_shape": (2, 3, 4, 5), "data_format": "channels_last"}, r"or \(H, W, C\) for images"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\^64 - 1. Received: -1"),
        ({"seed": 1.5}, "seed must be"),
        ({"seed": "a"}, "seed must be"),
    ],
)
def test_arguments_of_the_model(kwargs, words):
    with pytest.raises(ValueError, match=words):
        Sequential([Dense(2)], **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"batch_size": 0}, r"batch_size must be a whole number of at least 1 \(or 'full'\). Received: 0"),
        ({"batch_size": 2.5}, "batch_size must be .* Received: 2.5"),
        ({"batch_size": "all"}, "batch_size must be .* Received: 'all'"),
        ({"epochs": -1}, "epochs must be a whole number of at least 0. Received: -1"),
        ({"epochs": 1.5}, "epochs must be"),
        ({"initial_epoch": -1}, "initial_epoch must be"),
        ({"verbose": 3}, "verbose must be 0, 1, 2 or 'auto'. Received: 3"),
        ({"validation_split": 1.0}, "validation_split must lie between 0 and 1. Received: 1.0"),
        ({"validation_split": -0.1}, "validation_split must lie between 0 and 1. Received: -0.1"),
        ({"validation_data": X}, r"validation_data must be \(x, y\), .* Received: ndarray"),
        ({"validation_data": (X,)}, "validation_data must be .* Received: tuple of 1"),
        (
            {"validation_data": (X, Y), "validation_split": 0.1},
            "validation_data or validation_split, not both",
        ),
    ],
)
def test_arguments_of_fit_are_checked_before_the_first_step(kwargs, words):
    model = mlp()
    with pytest.raises(ValueError, match=words):
        model.fit(X, Y, **{"verbose": 0, **kwargs})
    assert model.optimizer.iterations == 0


@pytest.mark.parametrize("size", [0, -1, 1.5, "many"])
def test_the_batch_size_of_predict_and_evaluate(size):
    for call in (lambda: mlp().predict(X, batch_size=size), lambda: mlp().evaluate(X, Y, batch_size=size)):
        with pytest.raises(ValueError, match=r"batch_size must be a whole number of at least 1. Received: "):
            call()


def test_a_model_that_was_not_compiled():
    model = Sequential([Dense(3)], input_shape=(5,))
    with pytest.raises(
        NotCompiledError, match=r"no loss yet: call model.compile\(optimizer=..., loss=...\) first"
    ):
        model.fit(X, Y)
    with pytest.raises(ValueError, match=r"compile needs a loss. Expected one of: .*huber"):
        model.compile("adam")


# -- layers that do not fit together -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stack", "shape", "words"),
    [
        (
            [Conv2D(2, 3), Dense(3)],
            (1, 8, 8),
            "layer 1 'dense': works on vectors. Received: a map (2, 6, 6). Expected: (D,); put a Flatten()",
        ),
        (
            [Dense(4), Conv2D(2, 3)],
            (5,),
            "layer 1 'conv2d': works on feature maps. Received: (4,). Expected: (C, H, W); give the model",
        ),
        (
            [Dense(4), MaxPooling2D(name="pool")],
            (5,),
            "layer 1 'pool': works on feature maps. Received: (4,)",
        ),
        ([GlobalAveragePooling2D()], (5,), "layer 0 'global_average_pooling2d': works on feature maps"),
        ([ZeroPadding2D()], (5,), "layer 0 'zero_padding2d': works on feature maps"),
        (
            [Conv2D(2, 3), Conv2D(2, 9)],
            (1, 8, 8),
            "layer 1 'conv2d_1': the kernel is larger than its input. Received: a map (2, 6, 6), kernel",
        ),
        (
            [Conv2D(2, 3), MaxPooling2D(4), MaxPooling2D(2)],
            (1, 8, 8),
            "layer 2 'max_pooling2d_1': the window is larger than its input. Received: a map (2, 1, 1)",
        ),
        (
            [AveragePooling2D(9)],
            (1, 8, 8),
            "which leave 0 x 0. Expected: an output of at least 1 x 1; use a smaller window, padding='same'",
        ),
        (
            [Conv2D(4, 3, groups=2)],
            (3, 8, 8),
            "layer 0 'conv2d': groups must divide the channels. Received: 3 channels",
        ),
        (
            [Reshape((2, 2, 2))],
            (5,),
            "layer 0 'reshape': the elements do not fit. Received: (5,), 5 elements, and target_shape=(",
        ),
        (
            [Residual([Dense(4)])],
            (5,),
            "layer 0 'residual': the branches do not fit together. Received: body yields (4,), shortcut (5,)",
        ),
        (
            [Concatenate([[Conv2D(2, 3)], [Conv2D(2, 5)]])],
            (1, 8, 8),
            "layer 0 'concatenate': the branches do not fit together. Received: outputs [(2, 6, 6), (2,",
        ),
        (
            [Dense(5), Residual([Dense(5), Conv2D(2, 3)])],
            (5,),
            "layer 1 'residual' > body 1 'conv2d': works on feature maps. Received: (5,)",
        ),
    ],
)
def test_shapes_that_do_not_fit_name_the_layer_what_came_what_was_wanted_and_the_fix(stack, shape, words):
    with pytest.raises(ShapeError, match=re.escape(words)) as error:
        Sequential(stack, input_shape=shape)
    assert "Expected: " in str(error.value) or "must divide" in str(error.value)


def test_an_initializer_of_the_wrong_shape_names_the_layer():
    with pytest.raises(
        ValueError, match=r"Constant does not fit the weight. Received: \(2,\). Expected: \(3, 5\)"
    ):
        Sequential([Dense(3, kernel_initializer=initializers.Constant([1.0, 2.0]))], input_shape=(5,))
    with pytest.raises(
        ShapeError, match=r"layer 0 'dense': the initializer of weight made the wrong shape. Received: \(2,\)"
    ):
        Sequential([Dense(3, kernel_initializer=lambda rng, shape: np.ones(2))], input_shape=(5,))


@pytest.mark.parametrize("kwargs", [{"batch_size": 1}, {"batch_size": 11}])
def test_a_batch_norm_batch_of_one_is_refused_before_training(kwargs):
    model = mlp(stack=[Dense(4), BatchNormalization(), Dense(3)])
    words = r"layer 1 'batch_normalization': cannot normalise a batch of one sample.*Received: 12 samples in "
    with pytest.raises(
        ShapeError, match=words + "batches of .* leave a last batch of 1. Expected: at least 2 in every batch"
    ):
        model.fit(X, Y, verbose=0, **kwargs)
    assert model.optimizer.iterations == 0
    with pytest.raises(
        ShapeError, match=r"layer 1 'batch_normalization'.*Received: a batch of 1. Expected: at least 2"
    ):
        model.train_on_batch(X[:1], Y[:1])
    model.layers[1].trainable = False
    model.fit(X, Y, verbose=0, **kwargs)


def test_batch_norm_on_maps_takes_a_batch_of_one():
    model = Sequential([Conv2D(2, 3), BatchNormalization(), Flatten(), Dense(3)], input_shape=(1, 8, 8))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.random.default_rng(0).standard_normal((3, 1, 8, 8)), [0, 1, 2], batch_size=1, verbose=0)


def test_a_layer_without_its_methods_says_which_is_missing():
    class Half(Layer):
        def forward(self, x, *, train):
            return x, None

    with pytest.raises(NotImplementedError, match="Layer has no forward"):
        Sequential([Layer()], input_shape=(5,)).predict(X)
    with pytest.raises(NotImplementedError, match="Half has no backward"):
        mlp(stack=[Dense(3), Half()]).train_on_batch(X, Y)


def test_an_unknown_name_in_the_package_is_an_attribute_error():
    import xpnet

    with pytest.raises(AttributeError, match="module 'xpnet' has no attribute 'Sequental'"):
        xpnet.Sequental  # noqa: B018
    assert datasets is xpnet.datasets
