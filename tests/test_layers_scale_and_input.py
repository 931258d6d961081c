"""Layers that measure or rescale samples, and Input: what they keep, and what they say of bad input."""

import copy
import pickle

import numpy as np
import pytest
from cases import assert_close

import xpnet
from xpnet import Sequential, ShapeError
from xpnet import layers as L


def images(rng, n=9, shape=(3, 4, 5)):
    scale = np.arange(1, shape[0] + 1).reshape(-1, 1, 1)
    return (scale * rng.standard_normal((n, *shape)) + 10 * scale).astype(np.float32)


def model_of(*layers, shape=(3, 4, 5), **more):
    return Sequential([*layers], input_shape=shape, device="cpu", seed=0, **more)


# -- Normalization -------------------------------------------------------------------------------------------


def test_adapting_before_and_after_the_model_is_built_is_the_same(ops, rng):
    x = images(rng)
    early, late = L.Normalization(), L.Normalization()
    early.adapt(x)
    before, after = (
        Sequential([layer, L.Flatten()], input_shape=x.shape[1:], device=ops) for layer in (early, late)
    )
    late.adapt(x)
    y = before.predict(x)
    np.testing.assert_array_equal(y, after.predict(x))
    assert_close(y.reshape(x.shape).mean((0, 2, 3)), np.zeros(3), 1e-5, least=1)
    assert_close(y.reshape(x.shape).std((0, 2, 3)), np.ones(3), 1e-5)


def test_training_neither_moves_the_statistics_nor_counts_them_as_parameters(ops, rng):
    x = images(rng)
    norm = L.Normalization()
    model = Sequential([norm, L.Flatten(), L.Dense(2)], input_shape=x.shape[1:], device=ops)
    norm.adapt(x)
    model.compile("sgd", "mse")
    before = model.state_dict()
    assert model.count_params() == 60 * 2 + 2
    model.fit(x, np.zeros((9, 2), np.float32), epochs=2, batch_size=4, verbose=0)
    after = model.state_dict()
    for name in ("0.running_mean", "0.running_var"):
        np.testing.assert_array_equal(after[name], before[name])
    assert (after["2.weight"] != before["2.weight"]).any()


def test_adapting_again_reaches_a_model_whose_steps_and_predictions_are_recorded(rng):
    """Recordings hold the memory of the statistics, into which new ones are written."""
    x = images(rng)
    norm = L.Normalization()
    norm.adapt(x)
    model = model_of(norm, L.Flatten(), L.Dense(2))
    model.compile("sgd", "mse")
    for _ in range(8):
        model.predict(x)
        model.train_on_batch(x, np.zeros((9, 2), np.float32))
    norm.adapt(2 * x + 1)
    fresh = model_of(L.Normalization(mean=norm.mean, variance=norm.variance), L.Flatten(), L.Dense(2))
    fresh.load_state_dict({k: v for k, v in model.state_dict().items() if k[0] == "2"}, strict=False)
    np.testing.assert_array_equal(model.predict(x), fresh.predict(x))
    for one in (model, fresh):
        one.compile("sgd", "mse")
        one.train_on_batch(x, np.zeros((9, 2), np.float32))
    np.testing.assert_array_equal(model.predict(x), fresh.predict(x))


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_statistics_are_saved_and_copied_with_the_model(when, tmp_path, rng):
    x = images(rng)
    norm = L.Normalization()
    if when == "before":
        norm.adapt(x)
    model = model_of(norm)
    norm.adapt(x)
    model.save(tmp_path / "m.safetensors")
    expected = model.predict(x)
    for other in (
        xpnet.load_model(tmp_path / "m.safetensors", device="cpu"),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ):
        np.testing.assert_array_equal(other.predict(x), expected)
    other = model_of(L.Normalization())
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.predict(x), expected)


def test_batches_add_up_to_the_whole(rng):
    x = images(rng, 50) + 1000  # far from 0, where sums of squares would lose their digits
    whole, batches, pairs = L.Normalization(), L.Normalization(), L.Normalization()
    whole.adapt(x)
    batches.adapt(x[start : start + 7] for start in range(0, 50, 7))
    pairs.adapt([(x[:13], np.zeros(13)), (x[13:], np.zeros(37))])
    wide = x.astype(np.float64)
    for one in (whole, batches, pairs):
        np.testing.assert_allclose(one.mean, wide.mean((0, 2, 3)), rtol=1e-13)
        np.testing.assert_allclose(one.variance, wide.var((0, 2, 3)), rtol=1e-11)


def test_what_predict_takes_can_be_adapted_to(rng):
    """Lists of rows, tensors, data frames."""
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    x = rng.random((6, 2))
    for data in (x.tolist(), pandas.DataFrame(x), torch.from_numpy(x)):
        norm = L.Normalization()
        norm.adapt(data)
        np.testing.assert_allclose(norm.mean, x.mean(0), rtol=1e-14)


def test_an_array_that_is_looked_at_in_parts_gives_the_same(monkeypatch, rng):
    from xpnet.layers import scale

    x = images(rng)
    whole, parts = L.Normalization(), L.Normalization()
    whole.adapt(x)
    monkeypatch.setattr(scale, "CHUNK", 130)  # two samples
    parts.adapt(x)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(parts.variance, whole.variance, rtol=1e-13)


def test_images_without_a_channel_axis_and_channels_last(rng):
    x = images(rng)
    first, last, plain = L.Normalization(), L.Normalization(), L.Normalization()
    first.adapt(x)
    model = model_of(last, shape=(4, 5, 3), data_format="channels_last")
    last.adapt(x.transpose(0, 2, 3, 1))  # whose order the model knows
    np.testing.assert_allclose(last.mean, first.mean, rtol=1e-14)
    assert_close(model.predict(x.transpose(0, 2, 3, 1)).mean((0, 1, 2)), np.zeros(3), 1e-5, least=1)
    for order in ("channels_first", "channels_last"):
        plain.adapt(x[:, 0], data_format=order)
        np.testing.assert_allclose(plain.mean, first.mean[:1], rtol=1e-14)


def test_one_mean_for_all(rng):
    x = rng.random((30, 4))
    norm = L.Normalization(axis=None)
    norm.adapt(x)
    assert (norm.mean, norm.variance) == pytest.approx((x.mean(), x.var()))
    model = model_of(norm, shape=(4,), precision="float64")
    assert_close(model.predict(x), (x - x.mean()) / x.std(), 1e-9)


def test_a_constant_feature_becomes_zero(rng):
    x = rng.random((20, 2)).astype(np.float32)
    x[:, 1] = 0.1
    norm = L.Normalization()
    norm.adapt(x.astype(np.float64))
    y = model_of(norm, shape=(2,), precision="float64").predict(x)
    assert np.isfinite(y).all() and (np.abs(y[:, 1]) < 1e-6).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda rng: np.array([[1.0, np.nan]]), ["NaN", "finite"]),
        (lambda rng: np.zeros((0, 3)), ["no data"]),
        (lambda rng: [], ["no data"]),
        (lambda rng: rng.random(5), ["(5,)", "(N, D)"]),
        (lambda rng: np.array([["a"]]), ["numbers", "<U1"]),
        (lambda rng: [rng.random((2, 3)), rng.random((2, 4))], ["(2, 4)", "one shape"]),
    ],
    ids=["nan", "no rows", "no batches", "a vector", "text", "ragged batches"],
)
def test_data_that_cannot_be_adapted_to_are_named(data, words, rng):
    norm = L.Normalization()
    with pytest.raises(ValueError) as error:
        norm.adapt(data(rng))
    for word in words:
        assert word in str(error.value)
    assert norm.mean is None, "what failed leaves the layer as it was"


def test_data_of_another_shape_than_the_model_s_are_refused(rng):
    norm = L.Normalization()
    norm.adapt(rng.random((6, 4, 5, 3)))
    with pytest.raises(ShapeError, match=r"'normalization': .*4 means.*channels_last"):
        model_of(norm, shape=(3, 4, 5))
    norm = L.Normalization()
    model = model_of(norm, shape=(3, 4, 5))
    before = model.state_dict()
    with pytest.raises(ShapeError, match=r"Received: 4 features or channels. Expected: 3"):
        norm.adapt(rng.random((6, 4, 5, 3)))
    np.testing.assert_array_equal(model.state_dict()["0.running_mean"], before["0.running_mean"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mean": 1.0}, "go together"),
        ({"mean": [1, 2], "variance": 1.0}, "as many"),
        ({"mean": 0.0, "variance": -1.0}, "none below 0"),
        ({"mean": "a", "variance": 1.0}, "mean must be a finite number"),
        ({"mean": np.inf, "variance": 1.0}, "mean must be a finite number"),
        ({"mean": [[1.0]], "variance": [[1.0]]}, "mean must be"),
        ({"mean": [1.0], "variance": [1.0], "axis": None}, "mean must be a finite number. Received"),
        ({"axis": 2}, "axis must be -1"),
    ],
)
def test_statistics_that_make_no_sense_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        L.Normalization(**given)


@pytest.mark.parametrize("scale", ["a", None, np.nan, [1.0, 2.0], True])
def test_a_scale_is_one_number(scale):
    with pytest.raises(ValueError, match="scale must be a finite number"):
        L.Rescaling(scale)


# -- Input ---------------------------------------------------------------------------------------------------


def test_input_stands_in_for_input_shape(rng):
    layers = [L.Conv2D(4, 3), L.Flatten(), L.Dense(2)]
    model = Sequential([L.Input(shape=(1, 8, 8)), *layers], device="cpu", seed=0)
    assert model.built and model.layers == layers and model.input_shape == (1, 8, 8)
    assert next(iter(model.state_dict())) == "0.weight"
    grown = Sequential(device="cpu", seed=0)
    grown.add(L.InputLayer((1, 8, 8)))
    for layer in (L.Conv2D(4, 3), L.Flatten(), L.Dense(2)):
        grown.add(layer)
    x = rng.random((3, 1, 8, 8), dtype=np.float32)
    np.testing.assert_array_equal(grown.predict(x), model.predict(x))


def test_input_is_in_the_model_s_order_of_channels():
    given = {"device": "cpu", "data_format": "channels_last"}
    model = Sequential([L.Input((8, 6, 3)), L.Conv2D(4, 3)], **given)
    assert model.input_shape == (8, 6, 3) and model.layers[0].in_shape == (3, 8, 6)
    assert Sequential([L.Input(batch_shape=(None, 8, 6, 3)), L.Conv2D(4, 3)], **given).output_shape == (
        6,
        4,
        4,
    )
    assert Sequential([L.Input((28, 28)), L.Flatten(), L.Dense(3)], device="cpu").input_shape == (28, 28)
    assert Sequential([L.Input(5), L.Dense(3)], device="cpu").input_shape == (5,)


def test_input_with_the_same_shape_twice_is_no_contradiction():
    assert Sequential([L.Input((4,)), L.Dense(2)], input_shape=(4,), device="cpu").input_shape == (4,)
    with pytest.raises(ValueError, match=r"Input\(\(5,\)\) and \(4,\)"):
        Sequential([L.Input((5,)), L.Dense(2)], input_shape=(4,), device="cpu")


def test_input_comes_first():
    with pytest.raises(ValueError, match=r"before the first layer.*behind a layer"):
        Sequential([L.Dense(2), L.Input((4,))], device="cpu")
    model = Sequential([L.Input((4,)), L.Dense(2)], device="cpu")
    with pytest.raises(ValueError, match="before the first layer"):
        model.add(L.Input((4,)))
    assert len(model.layers) == 1 and model.predict(np.ones((1, 4))).shape == (1, 2)


@pytest.mark.parametrize("given", [{}, {"shape": (3,), "batch_shape": (None, 3)}])
def test_input_needs_one_shape(given):
    with pytest.raises(ValueError, match=r"Input needs the shape.*Input\(shape="):
        L.Input(**given)


def test_a_shape_that_no_model_takes_is_refused_as_ever():
    with pytest.raises(ShapeError, match="input_shape must be"):
        Sequential([L.Input((3, 4, 5, 6)), L.Dense(2)], device="cpu")


# -- what else the new layers say ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (lambda: L.Conv2DTranspose(3, 3), (5,), "works on feature maps"),
        (lambda: L.Conv2DTranspose(4, 3, groups=2), (3, 4, 4), "groups must divide the channels"),
        (lambda: L.Conv2DTranspose(2, 2, padding=3), (3, 4, 4), "padding leaves nothing.*-1 x -1"),
        (lambda: L.UpSampling2D(), (5,), "works on feature maps"),
        (lambda: L.SpatialDropout2D(0.5), (5,), "works on feature maps"),
        (lambda: L.GroupNormalization(), (48, 2, 2), "groups must divide the channels.*48.*groups=32"),
        (lambda: L.GroupNormalization(4), (6,), "groups must divide"),
    ],
)
def test_shapes_that_do_not_suit_are_refused_by_the_layer(make, shape, words):
    with pytest.raises(ShapeError, match=rf"layer 0 '\w+': .*{words}"):
        model_of(make(), shape=shape)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: L.Conv2DTranspose(3, 3, 2, output_padding=2), "output_padding must be smaller than strides"),
        (lambda: L.Conv2DTranspose(3, 3, 2, output_padding=-1), "output_padding must be"),
        (lambda: L.Conv2DTranspose(3, 3, groups=2), "Conv2DTranspose: groups must divide filters"),
        (lambda: L.Conv2DTranspose(3, 3, padding="full"), "Conv2DTranspose: unknown padding"),
        (lambda: L.Conv2DTranspose(3, 3, stride=2), "Did you mean 'strides'"),
        (lambda: L.UpSampling2D(0), "UpSampling2D: size must be"),
        (lambda: L.UpSampling2D(2, "bicubic"), "unknown interpolation.*'bicubic'"),
        (lambda: L.GroupNormalization(0), "groups must be a whole number"),
        (lambda: L.GroupNormalization(epsilon=0), "epsilon must be positive"),
        (lambda: L.SpatialDropout2D(1.0), "rate must be at least 0 and below 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_spatial_dropout_drops_whole_channels_of_single_samples(ops):
    model = Sequential([L.SpatialDropout2D(0.5)], input_shape=(200, 3, 4), device=ops, seed=2)
    y = model.forward(np.ones((10, 200, 3, 4), np.float32), train=True)[0]
    assert (y == y[:, :, :1, :1]).all()
    assert set(np.unique(y)) == {np.float32(0), np.float32(2)}
    assert (y[:, :, 0, 0] == 0).mean() == pytest.approx(0.5, abs=0.04)
    assert (y[0] != y[1]).any()


def test_spatial_dropout_s_mask_is_dropout_s_for_a_vector_of_the_channels(ops):
    """One scheme of random bits for both, so that it is the same on every device and in replicas."""
    maps = Sequential([L.SpatialDropout2D(0.3)], input_shape=(50, 2, 2), device=ops, seed=4)
    vectors = Sequential([L.Dropout(0.3)], input_shape=(50,), device=ops, seed=4)
    mask = vectors.forward(np.ones((6, 50)), train=True)[0]
    np.testing.assert_array_equal(maps.forward(np.ones((6, 50, 2, 2)), train=True)[0][:, :, 0, 0], mask)
