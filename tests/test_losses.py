"""Losses: values by formula, slopes by differences, and what is said of targets that do not fit."""

import numpy as np
import pytest
from cases import assert_close

import xpnet
from xpnet import layers as L
from xpnet import losses

Q = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])  # probabilities
Z = np.array([[1.0, -1.0, 0.5], [0.0, 3.0, -2.0]])  # logits
W = np.array([3.0, 1.0])


def softmax(z):
    e = np.exp(z)
    return e / e.sum(axis=1, keepdims=True)


def test_cross_entropy_by_formula():
    expected = -np.log([0.2, 0.8])
    sparse, dense = losses.SparseCategoricalCrossentropy(), losses.CategoricalCrossentropy()
    assert sparse([1, 2], Q) == pytest.approx(expected.mean())
    assert sparse([[1], [2]], Q) == pytest.approx(expected.mean())
    assert dense([[0, 1, 0], [0, 0, 1]], Q) == pytest.approx(expected.mean())
    assert sparse([1, 2], Q, W) == pytest.approx((expected * W).sum() / 4)
    assert losses.SparseCategoricalCrossentropy(reduction="sum")([1, 2], Q, W) == pytest.approx(
        (expected * W).sum()
    )
    logits = losses.SparseCategoricalCrossentropy(from_logits=True)
    assert logits([1, 2], Z) == pytest.approx(-np.log(softmax(Z)[[0, 1], [1, 2]]).mean())


def test_targets_that_do_not_sum_to_one_weigh_their_sample():
    t = np.array([[0.5, 0.0, 0.0], [1.0, 1.0, 0.0]])
    expected = -(t * np.log(softmax(Z))).sum(axis=1).mean()
    assert losses.CategoricalCrossentropy(from_logits=True)(t, Z) == pytest.approx(expected)
    assert losses.CategoricalCrossentropy()(t, softmax(Z)) == pytest.approx(expected)


def test_label_smoothing_by_formula():
    smooth = np.full((2, 3), 0.1)
    smooth[[0, 1], [1, 2]] += 0.7
    expected = -(smooth * np.log(Q)).sum(axis=1).mean()
    assert losses.SparseCategoricalCrossentropy(label_smoothing=0.3)([1, 2], Q) == pytest.approx(expected)
    t, q = np.array([1.0, 0.0]), np.array([0.9, 0.4])
    expected = -(0.9 * np.log([0.9, 0.6]) + 0.1 * np.log([0.1, 0.4])).mean()
    assert losses.BinaryCrossentropy(label_smoothing=0.2)(t, q) == pytest.approx(expected)


def test_other_losses_by_formula():
    y, p = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[1.5, 2.0], [-2.0, 0.0]])
    assert losses.MeanSquaredError()(y, p) == pytest.approx((0.25 + 4 + 1) / 4)
    assert losses.HalfSquaredError()(y, p) == pytest.approx((0.25 + 4 + 1) / 8)
    assert losses.SumSquaredError()(y, p) == pytest.approx((0.25 + 4 + 1) / 2)
    assert losses.SumSquaredError("sum")(y, p) == pytest.approx(0.25 + 4 + 1)
    assert losses.MeanAbsoluteError()(y, p) == pytest.approx(3.5 / 4)
    assert losses.MeanAbsoluteError()(y, p, W) == pytest.approx((3 * 0.25 + 1.5) / 4)
    assert losses.Huber(0.8)(y, p) == pytest.approx((0.125 + 0.8 * (2 - 0.4) + 0.8 * (1 - 0.4)) / 4)
    assert losses.BinaryCrossentropy()([1, 0], [0.25, 0.25]) == pytest.approx(-np.log([0.25, 0.75]).mean())


def test_weights_of_zero_leave_a_mean_of_zero():
    assert losses.MeanSquaredError()([[1.0], [2.0]], [[3.0], [4.0]], [0.0, 0.0]) == 0.0


@pytest.mark.parametrize("p", [np.eye(3), 1 - np.eye(3)], ids=["right", "wrong"])
def test_probabilities_of_zero_and_one_give_finite_losses(p, ops, precision):
    p = p.astype(precision)
    for loss, y in [
        (losses.SparseCategoricalCrossentropy(), np.arange(3)),
        (losses.CategoricalCrossentropy(), np.eye(3, dtype=precision)),
        (losses.BinaryCrossentropy(), np.eye(3, dtype=precision)),
    ]:
        value, dp = loss.value_and_grad(ops, ops.asarray(p), ops.asarray(y), None, 3.0)
        assert np.isfinite(ops.to_host(value)) and np.isfinite(ops.to_host(dp)).all()
        assert 0 <= float(ops.to_host(value)) < 40


@pytest.mark.parametrize("size", [100.0, 1000.0, 1e30])
def test_large_logits_overflow_nothing(size, ops):
    p = np.float32(size) * np.array([[1, -1], [-1, 1]], np.float32)
    cases = [
        (losses.SparseCategoricalCrossentropy(from_logits=True), np.array([0, 0]), size),
        (losses.CategoricalCrossentropy(from_logits=True), np.eye(2, dtype=np.float32)[[0, 0]], size),
        (losses.BinaryCrossentropy(from_logits=True), np.array([[1, 0], [1, 0]], np.float32), size / 2),
    ]
    for loss, y, expected in cases:
        value, dp = loss.value_and_grad(ops, ops.asarray(p), ops.asarray(y), None, 2.0)
        assert float(ops.to_host(value)) == pytest.approx(expected, rel=1e-5)
        assert np.isfinite(ops.to_host(dp)).all() and np.abs(ops.to_host(dp)).max() <= 0.5


EVERY = [
    (losses.SparseCategoricalCrossentropy(), softmax(Z), np.array([1, 2])),
    (losses.SparseCategoricalCrossentropy(True, 0.1), Z, np.array([0, 2])),
    (losses.CategoricalCrossentropy(label_smoothing=0.2), softmax(Z), np.eye(3)[[0, 1]]),
    (losses.CategoricalCrossentropy(True), Z, softmax(-Z)),
    (losses.BinaryCrossentropy(label_smoothing=0.1), Q, np.eye(3)[[0, 1]]),
    (losses.BinaryCrossentropy(True), Z, Q),
    (losses.MeanSquaredError(), Z, Q),
    (losses.HalfSquaredError(), Z, Q),
    (losses.SumSquaredError(), Z, Q),
    (losses.MeanAbsoluteError(), Z, Q),
    (losses.Huber(0.5), Z, Q),
]
each = pytest.mark.parametrize(
    "loss, p, y", EVERY, ids=lambda v: repr(v) if isinstance(v, losses.Loss) else ""
)


def test_every_loss_is_tried():
    assert {type(loss) for loss, _, _ in EVERY} == set(losses.TABLE.values())


@each
@pytest.mark.parametrize("weighted", [False, True])
def test_the_slope_is_the_derivative(loss, p, y, weighted, ops):
    w = W if weighted else None
    device_w = ops.asarray(W) if weighted else None
    _, dp = loss.value_and_grad(ops, ops.asarray(p), ops.asarray(y), device_w, 4.0 if weighted else 2.0)
    numerical = xpnet.numerical_gradient(lambda at: loss(y, at, w), p.copy(), eps=1e-6)
    assert_close(ops.to_host(dp), numerical, 1e-6)


@each
def test_neither_outputs_nor_targets_are_written(loss, p, y, ops, precision):
    p = p.astype(precision)
    device_p, device_y = ops.asarray(p.copy()), ops.asarray(y.copy())
    value, dp = loss.value_and_grad(ops, device_p, device_y, ops.asarray(W.astype(precision)), 4.0)
    np.testing.assert_array_equal(ops.to_host(device_p), p)
    np.testing.assert_array_equal(ops.to_host(device_y), y)
    if y.dtype.kind != "f":  # targets of float64 are made the model's type before a step
        assert value.dtype == dp.dtype == precision


@each
def test_a_loss_comes_back_from_its_configuration(loss, p, y):
    twin = type(loss)(**loss.get_config())
    assert twin(y, p) == loss(y, p) and repr(twin) == repr(loss)


# -- targets that do not fit ---------------------------------------------------------------------------------

SPARSE, DENSE, BINARY = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"
nan = np.array([0.0, np.nan])
BAD = {
    "label too large": (SPARSE, 3, [0, 3], ValueError, "labels from 0 to 3. Expected: 0 to 2.*3 outputs"),
    "label below zero": (SPARSE, 3, [-1, 2], ValueError, "labels from -1 to 2"),
    "label between": (SPARSE, 3, [0.0, 1.5], ValueError, "whole numbers. Received: 1.5"),
    "label NaN": (SPARSE, 3, nan, ValueError, "NaN or infinity in sample 1"),
    "label a word": (
        SPARSE,
        3,
        np.array(["cat", "dog"]),
        ValueError,
        "class indices. Received: dtype <U3.*np.unique",
    ),
    "one-hot for sparse": (SPARSE, 3, np.eye(3)[:2], xpnet.ShapeError, "use loss='categorical_crossentropy'"),
    "two columns": (SPARSE, 3, np.zeros((2, 2), int), xpnet.ShapeError, r"y of shape \(2, 2\)"),
    "index for one-hot": (
        DENSE,
        3,
        [0, 1],
        xpnet.ShapeError,
        "class indices.*sparse_categorical_crossentropy.*to_categorical",
    ),
    "column for one-hot": (DENSE, 3, [[0], [1]], xpnet.ShapeError, "looks like class indices"),
    "too few columns": (
        DENSE,
        3,
        np.eye(2),
        xpnet.ShapeError,
        r"Received: y of shape \(2, 2\). Expected: \(N, 3\)",
    ),
    "no probability": (
        DENSE,
        3,
        2 * np.eye(3)[:2],
        ValueError,
        "probabilities. Received: values from 0 to 2",
    ),
    "negative probability": (DENSE, 3, [[-1, 0, 1], [0, 0, 1]], ValueError, "values from -1 to 1"),
    "one-hot NaN": (DENSE, 3, np.full((2, 3), np.nan), ValueError, "NaN or infinity in sample 0"),
    "binary range": (BINARY, 1, [0, 2], ValueError, "between 0 and 1. Received: values from 0 to 2"),
    "binary signs": (BINARY, 1, [-1, 1], ValueError, "between 0 and 1. Received: values from -1 to 1"),
    "binary shape": (BINARY, 2, [0, 1], xpnet.ShapeError, r"y of shape \(2,\). Expected: \(N, 2\)"),
    "numbers of another shape": ("mse", 3, np.zeros((2, 2)), xpnet.ShapeError, r"Expected: \(N, 3\)"),
    "numbers NaN": ("mse", 1, nan, ValueError, "NaN or infinity in sample 1"),
    "numbers infinite": ("mae", 1, [np.inf, 0], ValueError, "NaN or infinity in sample 0"),
    "words": ("huber", 1, np.array(["a", "b"]), ValueError, "targets must be numbers. Received: dtype <U1"),
    "objects": ("mse", 1, np.array([None, 1]), ValueError, "targets must be numbers. Received: dtype object"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_targets_are_named_for_what_they_are(name):
    loss, units, y, error, words = BAD[name]
    model = xpnet.Sequential([L.Dense(units)], input_shape=(4,), device="cpu", seed=0)
    model.compile("sgd", loss)
    x = np.zeros((2, 4), np.float32)
    for use in (model.train_on_batch, model.evaluate, model.gradients, model.fit):
        with pytest.raises(error, match=words):
            use(x, y)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "float32", "bool"])
def test_labels_may_be_of_any_number_s_type(dtype):
    y = np.array([0, 1, 1]).astype(dtype)
    p = softmax(np.array([[1.0, 2.0], [0.0, 1.0], [2.0, 2.0]]))
    expected = -np.log(p[[0, 1, 2], [0, 1, 1]]).mean()
    assert losses.SparseCategoricalCrossentropy()(y, p) == pytest.approx(expected)


def test_arguments_are_checked():
    for kind in (losses.CategoricalCrossentropy, losses.BinaryCrossentropy):
        for wrong in (-0.1, 1.0, float("nan")):
            with pytest.raises(ValueError, match="label_smoothing must be at least 0 and below 1"):
                kind(label_smoothing=wrong)
    with pytest.raises(ValueError, match=r"delta must be positive. Received: 0"):
        losses.Huber(0)
    with pytest.raises(ValueError, match=r"unknown reduction.*maen.*mean"):
        losses.MeanSquaredError("maen")
    with pytest.raises(ValueError, match=r"unknown loss.*mean_square_error.*mean_squared_error"):
        losses.get("mean_square_error")
    with pytest.raises(xpnet.ShapeError, match="2 targets and 3 predictions"):
        losses.MeanSquaredError()([[1.0], [2.0]], np.zeros((3, 1)))


def test_a_name_takes_logits_unless_the_model_ends_in_the_loss_s_activation():
    x, y = np.ones((2, 4), np.float32), np.array([0, 2])
    values = []
    for last, loss in [
        (None, SPARSE),
        ("softmax", SPARSE),
        ("softmax", losses.SparseCategoricalCrossentropy()),
        (None, losses.SparseCategoricalCrossentropy(from_logits=True)),
    ]:
        model = xpnet.Sequential([L.Dense(3, activation=last)], input_shape=(4,), device="cpu", seed=0)
        model.compile("sgd", loss)
        values.append(model.evaluate(x, y))
    assert values == pytest.approx([values[0]] * 4, rel=1e-6)
    model = xpnet.Sequential([L.Dense(3, activation="softmax")], input_shape=(4,), device="cpu", seed=0)
    model.compile(
        "sgd", losses.SparseCategoricalCrossentropy(from_logits=True)
    )  # of the probabilities, as asked
    assert model.evaluate(x, y) != pytest.approx(values[0], rel=1e-3)
