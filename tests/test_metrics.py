"""Metrics beside scikit-learn's, alone, summed over batches, and within training."""

import numpy as np
import pytest
from sklearn import metrics as sk

import xpnet
from xpnet import layers as L
from xpnet import metrics
from xpnet.ops.reference import Ops

N, K = 60, 4
RNG = np.random.default_rng(5)
Y = RNG.integers(0, K, N)
P = RNG.standard_normal((N, K)) + 1.5 * np.eye(K)[Y] * (RNG.random((N, 1)) < 0.7)
CALLED = P.argmax(axis=1)
W = RNG.uniform(0, 2, N)
ONE_HOT = np.eye(K)[Y]
YES, SURE = RNG.integers(0, 2, N), RNG.random(N)  # a yes-or-no answer and its probability
MANY, SURE_MANY = RNG.integers(0, 2, (N, K)), RNG.random((N, K))  # K of them
T, R = RNG.standard_normal((N, 3)), RNG.standard_normal((N, 3))  # numbers

weighted = pytest.mark.parametrize("w", [None, W], ids=["", "weighted"])


@weighted
def test_accuracy(w):
    expected = sk.accuracy_score(Y, CALLED, sample_weight=w)
    for y in (Y, ONE_HOT, Y[:, None], Y.astype(np.uint8), Y.astype(float)):
        assert metrics.Accuracy()(y, P, w) == pytest.approx(expected)
    expected = sk.accuracy_score(YES, SURE > 0.5, sample_weight=w)
    for p in (SURE, SURE[:, None]):
        assert metrics.Accuracy()(YES, p, w) == pytest.approx(expected)


@weighted
@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k(w, k):
    expected = sk.top_k_accuracy_score(Y, P, k=k, sample_weight=w, labels=range(K))
    for y in (Y, ONE_HOT, Y[:, None]):
        assert metrics.TopKCategoricalAccuracy(k)(y, P, w) == pytest.approx(expected)


def test_ties_count_against_top_k():
    """A model that says the same of every class knows nothing."""
    assert metrics.TopKCategoricalAccuracy(2)([0, 1], np.zeros((2, 3))) == 0.0


COUNTED = {
    "precision": (metrics.Precision, sk.precision_score),
    "recall": (metrics.Recall, sk.recall_score),
    "f1": (metrics.F1Score, sk.f1_score),
}
counted = pytest.mark.parametrize("name", COUNTED)


@weighted
@counted
@pytest.mark.parametrize("average", ["macro", "micro", None])
def test_precision_recall_and_f1(name, average, w):
    ours, theirs = COUNTED[name]
    expected = theirs(Y, CALLED, average=average, sample_weight=w)
    for y in (Y, ONE_HOT):
        assert ours(average)(y, P, w) == pytest.approx(expected)


@weighted
@counted
def test_precision_recall_and_f1_of_a_yes(name, w):
    ours, theirs = COUNTED[name]
    assert ours()(YES, SURE, w) == pytest.approx(theirs(YES, SURE > 0.5, sample_weight=w))


@weighted
@counted
@pytest.mark.parametrize("average", ["macro", "micro", None])
def test_precision_recall_and_f1_of_many_answers(name, average, w):
    ours, theirs = COUNTED[name]
    metric = ours(average)
    metric.multilabel = True
    expected = theirs(MANY, SURE_MANY > 0.5, average=average, sample_weight=w)
    assert metric(MANY, SURE_MANY, w) == pytest.approx(expected)


@counted
def test_a_class_that_never_occurs_counts_as_zero(name):
    ours, theirs = COUNTED[name]
    y, p = np.array([0, 0, 1]), np.eye(3)[[0, 1, 1]]
    expected = theirs(y, [0, 1, 1], labels=[0, 1, 2], average=None, zero_division=0)
    assert ours(None)(y, p) == pytest.approx(expected)
    assert ours()(y, p) == pytest.approx(expected.mean())


@weighted
def test_confusion_matrix(w):
    expected = sk.confusion_matrix(Y, CALLED, sample_weight=w)
    for y in (Y, ONE_HOT):
        np.testing.assert_allclose(metrics.ConfusionMatrix()(y, P, w), expected)
    expected = sk.confusion_matrix(YES, SURE > 0.5, sample_weight=w)
    np.testing.assert_allclose(metrics.ConfusionMatrix()(YES, SURE, w), expected)


def test_confusion_matrix_has_a_row_for_classes_that_do_not_occur():
    assert metrics.ConfusionMatrix()([0, 2], np.eye(4)[[0, 1]]) == [
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]


@weighted
@pytest.mark.parametrize("columns", [1, 3])
def test_errors_and_r2(columns, w):
    t, r = T[:, :columns], R[:, :columns]
    for ours, theirs in [
        (metrics.MeanSquaredError, sk.mean_squared_error),
        (metrics.MeanAbsoluteError, sk.mean_absolute_error),
        (metrics.R2Score, sk.r2_score),
    ]:
        assert ours()(t, r, w) == pytest.approx(theirs(t, r, sample_weight=w), rel=1e-9)
    if columns == 1:
        assert metrics.R2Score()(t[:, 0], r[:, 0], w) == pytest.approx(sk.r2_score(t, r, sample_weight=w))


def test_r2_far_from_zero():
    """The moments are summed in float64: a large offset costs no accuracy that shows."""
    t, r = T + 1000, T + 1000 + 0.1 * R
    assert metrics.R2Score()(t, r) == pytest.approx(sk.r2_score(t, r), rel=1e-6)


def test_r2_of_constant_targets():
    assert metrics.R2Score()(np.ones(5), np.arange(5.0)) == 0.0


def test_accuracy_of_many_answers():
    """The share of all answers that are right, as Keras's binary_accuracy."""
    metric = metrics.Accuracy()
    metric.multilabel = True
    assert metric(MANY, SURE_MANY) == pytest.approx(((SURE_MANY > 0.5) == MANY).mean())


def test_maps_count_by_pixel():
    p, y = RNG.standard_normal((5, 3, 4, 2)), RNG.integers(0, 3, (5, 4, 2))
    w = RNG.uniform(0.5, 2, 5)
    weights = np.repeat(w, 8)
    called = p.argmax(axis=1).reshape(-1)
    assert metrics.Accuracy()(y, p, w) == pytest.approx(
        sk.accuracy_score(y.reshape(-1), called, sample_weight=weights)
    )
    np.testing.assert_allclose(
        metrics.ConfusionMatrix()(y, p), sk.confusion_matrix(y.reshape(-1), called) / 8
    )
    assert metrics.F1Score()(y, p, w) == pytest.approx(
        sk.f1_score(y.reshape(-1), called, average="macro", sample_weight=weights)
    )


EVERY = [
    (metrics.Accuracy(), P, Y),
    (metrics.Accuracy(), SURE[:, None], YES[:, None].astype(float)),
    (metrics.TopKCategoricalAccuracy(2), P, Y),
    (metrics.Precision(), P, Y),
    (metrics.Recall(None), P, ONE_HOT),
    (metrics.F1Score("micro"), P, Y),
    (metrics.ConfusionMatrix(), P, Y),
    (metrics.MeanSquaredError(), R, T),
    (metrics.MeanAbsoluteError(), R, T),
    (metrics.R2Score(), R, T),
]
each = pytest.mark.parametrize(
    "metric, p, y", EVERY, ids=lambda v: repr(v) if isinstance(v, metrics.Metric) else ""
)


def test_every_metric_is_tried():
    assert {type(metric) for metric, _, _ in EVERY} == set(metrics.TABLE.values())


@each
def test_sums_add_up_over_batches(metric, p, y, ops):
    """Batches of any sizes, on any device, in float32 too, give the figure of the whole."""
    expected = metric(y, p, W)
    total = 0.0
    for part in (slice(0, 1), slice(1, 20), slice(20, 60)):
        sums = metric.sums(
            ops,
            ops.asarray(p[part].astype(np.float32)),
            ops.asarray(y[part] if y.dtype.kind == "i" else y[part].astype(np.float32)),
            ops.asarray(W[part].astype(np.float32)),
        )
        assert sums.ndim == 1
        total = total + ops.to_host(sums)
    np.testing.assert_allclose(metric.result(np.asarray(total, np.float64)), expected, rtol=1e-5, atol=1e-6)


@each
def test_a_metric_comes_back_from_its_configuration(metric, p, y):
    twin = type(metric)(**metric.get_config())
    np.testing.assert_array_equal(twin(y, p), metric(y, p))
    assert twin.name == metric.name


def test_nothing_at_all_gives_zero():
    assert metrics.Accuracy().result(np.zeros(2)) == 0.0


def test_lengths_must_agree():
    with pytest.raises(xpnet.ShapeError, match="3 targets and 2 predictions"):
        metrics.Accuracy()([0, 1, 1], np.zeros((2, 3)))


def test_names():
    for name, cls in metrics.TABLE.items():
        assert type(metrics.get(name)) is cls
    assert metrics.get("TOP_5_accuracy").k == 5
    for alias, name in metrics.ALIASES.items():
        assert type(metrics.get(alias)) is metrics.TABLE[name]
    with pytest.raises(ValueError, match=r"unknown metric.*acuracy.*accuracy"):
        metrics.get("acuracy")
    with pytest.raises(ValueError, match="average"):
        metrics.F1Score("weighted")
    with pytest.raises(ValueError, match=r"k must be at least 1. Received: 0"):
        metrics.TopKCategoricalAccuracy(0)


@pytest.mark.parametrize("last", [None, "softmax"])
def test_in_evaluate_and_in_a_step(last, ops):
    """Also where the loss has folded the softmax: the figures are those of the predictions."""
    model = xpnet.Sequential([L.Dense(K, activation=last)], input_shape=(5,), device=ops, seed=0)
    names = ["accuracy", "f1", "confusion_matrix", "mae"]
    model.compile("sgd", "categorical_crossentropy", names)
    x = RNG.standard_normal((N, 5)).astype(np.float32)
    p, y = model.predict(x), ONE_HOT
    expected = [metrics.get(name)(y, p) for name in names]
    for figures in (model.evaluate(x, y, batch_size=17), model.train_on_batch(x, y)):
        for received, want in zip(figures[1:], expected, strict=True):
            np.testing.assert_allclose(received, want, rtol=1e-5)


@pytest.mark.parametrize("last", [None, "sigmoid"])
def test_yes_or_no_models_threshold_probabilities(last):
    """A loss that takes logits leaves outputs that are no probabilities; with a sigmoid they are."""
    model = xpnet.Sequential([L.Dense(K, activation=last)], input_shape=(5,), device="cpu", seed=0)
    model.compile("sgd", "binary_crossentropy", ["accuracy", "precision"])
    x = RNG.standard_normal((N, 5)).astype(np.float32)
    p = model.predict(x) if last else 1 / (1 + np.exp(-model.predict(x)))
    figures = model.evaluate(x, MANY)
    assert figures[1] == pytest.approx(((p > 0.5) == MANY).mean())
    assert figures[2] == pytest.approx(sk.precision_score(MANY, p > 0.5, average="macro", zero_division=0))
    assert model.train_on_batch(x, MANY)[1:] == pytest.approx(figures[1:])


def test_reference_ops_are_the_default():
    assert metrics.Accuracy()(Y, P) == metrics.Accuracy().result(
        metrics.Accuracy().sums(Ops(), P, Y, np.ones(N))
    )
