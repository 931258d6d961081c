"""NetClassifier and NetRegressor: networks, weights, stopping, going on, and what they share with MLP*."""

import copy
import gc
import pickle
import warnings
import weakref
from functools import partial

import joblib
import numpy as np
import pytest
from conftest import cuda_ops
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, make_classification, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from strict_xp import strict_ops

from xpnet import Sequential, losses, networks, optimizers, schedules
from xpnet import layers as L
from xpnet import sklearn as xsk
from xpnet.callbacks import Callback, EarlyStopping, LambdaCallback, ReduceLROnPlateau, WeightAverage
from xpnet.errors import NonFiniteError, ShapeError
from xpnet.sklearn import NetClassifier, NetRegressor, solvers
from xpnet.sklearn import sparse as sparse_samples
from xpnet.sklearn.progress import Progress

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

NetClassifier = partial(NetClassifier, device="cpu", random_state=0)
NetRegressor = partial(NetRegressor, device="cpu", random_state=0)
few = {"max_iter": 3, "n_iter_no_change": None}


@pytest.fixture(scope="module")
def digits():
    """Rows (300, 64) from 0 to 1, and ten classes."""
    x, y = load_digits(return_X_y=True)
    return x[:300] / 16, y[:300]


@pytest.fixture(scope="module")
def three():
    """90 samples of 6 features, three classes."""
    return make_classification(90, 6, n_informative=4, n_classes=3, random_state=0)


def cnn(input_shape, outputs):
    return [
        L.Conv2D(4, 3, padding="same", activation="relu"),
        L.MaxPooling2D(2),
        L.Flatten(),
        L.Dropout(0.2),
        L.Dense(outputs),
    ]


def bits(net):
    return {name: value.tobytes() for name, value in net.model_.state_dict().items()}


# -- architectures -------------------------------------------------------------------------------------------


def test_hidden_layers_have_their_widths_activation_and_dropout(three):
    net = NetClassifier(hidden=(8, 5), activation="tanh", dropout=0.25, **few).fit(*three)
    assert [type(layer).__name__ for layer in net.model_.layers] == [
        "Dense", "Dropout", "Dense", "Dropout", "Dense",
    ]  # fmt: skip
    assert [layer.units for layer in net.model_.layers[::2]] == [8, 5, 3]
    assert net.model_.layers[0].activation.name == "tanh" and net.model_.layers[1].rate == 0.25


@pytest.mark.parametrize("words", [{}, {"hidden_layer_sizes": 100}, {"layers": (100,)}, {"hidden": [100]}])
def test_widths_by_any_word_are_the_same_network(three, words):
    assert bits(NetClassifier(**words, **few).fit(*three)) == bits(
        NetClassifier(hidden=100, **few).fit(*three)
    )


def test_no_hidden_layer_is_a_linear_model(three):
    net = NetClassifier(hidden=(), **few).fit(*three)
    assert [layer.units for layer in net.model_.layers] == [3] and net.n_layers_ == 2


def test_the_users_layers_stay_unbuilt_and_serve_any_number_of_fits(three):
    layers = [L.Dense(8, activation="relu"), L.Dense(3)]
    before = copy.deepcopy([vars(layer) for layer in layers])
    net = NetClassifier(layers=layers, **few)
    first = bits(net.fit(*three))
    assert net.layers is layers and not any(layer.slots for layer in layers)
    assert [sorted(vars(layer)) for layer in layers] == [sorted(one) for one in before]
    assert net.model_.layers[0] is not layers[0]
    assert bits(net.fit(*three)) == first == bits(clone(net).fit(*three))


@pytest.mark.parametrize("last", [False, True])
def test_a_function_is_told_the_shape_and_the_number_of_classes(digits, last):
    x, y = digits
    told = []

    def layers(shape, outputs):
        told.append((shape, outputs))
        return [L.Flatten(), L.Dense(outputs)]

    shape, order = ((4, 8, 2), "channels_last") if last else ((2, 4, 8), "channels_first")
    NetClassifier(layers=layers, input_shape=shape, data_format=order, **few).fit(x, y)
    assert told == [((2, 4, 8), 10)]


def test_a_function_is_told_the_features_and_the_targets():
    told = []

    def layers(*arguments):
        told.append(arguments)
        return [L.Dense(arguments[1])]

    x = np.random.default_rng(0).random((20, 5))
    NetRegressor(layers=layers, **few).fit(x, x[:, :3])
    NetClassifier(layers=layers, **few).fit(x, x[:, 0] > 0.5)
    assert told == [((5,), 3), ((5,), 2)]


def test_ready_networks_by_function_and_by_name(digits):
    x, y = digits
    x = np.kron(x[:60].reshape(-1, 8, 8), np.ones((2, 2))).reshape(60, -1)
    one = NetClassifier(layers=networks.lenet, input_shape=(1, 16, 16), **few).fit(x, y[:60])
    other = NetClassifier(layers="lenet", input_shape=(1, 16, 16), **few).fit(x, y[:60])
    assert bits(one) == bits(other)
    assert one.model_.layers[0].filters == 6


def test_rows_and_images_are_the_same_samples(digits):
    x, y = digits
    net = NetClassifier(layers=cnn, input_shape=(1, 8, 8), **few).fit(x, y)
    images = x.reshape(-1, 1, 8, 8)
    told_by_data = NetClassifier(layers=cnn, **few).fit(images, y)
    assert bits(net) == bits(told_by_data)
    np.testing.assert_array_equal(net.predict_proba(x), told_by_data.predict_proba(images))
    np.testing.assert_array_equal(net.predict_proba(images), told_by_data.predict_proba(x))
    assert net.n_features_in_ == 64


def test_images_without_a_channel_axis_and_channels_last(digits):
    x, y = digits
    first = NetClassifier(layers=cnn, input_shape=(8, 8), **few).fit(x, y)
    assert bits(first) == bits(NetClassifier(layers=cnn, **few).fit(x.reshape(-1, 8, 8), y))
    last = NetClassifier(layers=cnn, input_shape=(8, 8, 1), data_format="channels_last", **few).fit(x, y)
    np.testing.assert_allclose(first.predict_proba(x), last.predict_proba(x), atol=1e-9)


def test_a_first_layer_that_knows_its_input_shape_is_enough(digits):
    layers = [L.Conv2D(2, 3, input_shape=(1, 8, 8)), L.Flatten(), L.Dense(10)]
    assert NetClassifier(layers=layers, **few).fit(*digits).model_.input_shape == (1, 8, 8)
    assert NetClassifier(layers=[L.Input((1, 8, 8)), *layers[1:]], **few).fit(*digits).model_.input_shape == (
        1,
        8,
        8,
    )


@pytest.mark.parametrize(
    "last", [L.Dense(10, activation="relu"), L.Dense(7, activation="sigmoid"), L.Flatten(), L.Dropout(0.1)]
)
def test_a_network_without_its_output_layer_gets_one(digits, last):
    x, y = digits
    layers = [L.Conv2D(2, 3, activation="relu"), L.Flatten(), L.Dense(12, activation="tanh"), last]
    net = NetClassifier(layers=layers, input_shape=(1, 8, 8), **few).fit(x, y)
    *rest, added = net.model_.layers
    assert [type(layer) for layer in rest] == [type(layer) for layer in layers]
    assert isinstance(added, L.Dense) and added.units == 10 and added.activation.name == "linear"
    by_shape = NetClassifier(layers=lambda shape: layers, input_shape=(1, 8, 8), **few)
    assert bits(by_shape.fit(x, y)) == bits(by_shape.fit(x, y)) == bits(net)
    two = NetRegressor(layers=layers, input_shape=(1, 8, 8), **few).fit(x, np.stack([y, y], axis=1))
    assert two.model_.layers[-1].units == 2


def test_a_network_that_has_its_output_layer_gets_none(digits):
    x, y = digits
    pooled = [L.Conv2D(10, 3), L.GlobalAveragePooling2D()]
    assert len(NetClassifier(layers=pooled, input_shape=(1, 8, 8), **few).fit(x, y).model_.layers) == 2
    positive = [L.Dense(1, activation="softplus")]
    assert len(NetRegressor(layers=positive, **few).fit(x, y).model_.layers) == 1
    with pytest.raises(ValueError, match="outputs for y of 2 classes cannot be softmax"):
        NetClassifier(layers=[L.Dense(1, activation="softmax")]).fit(x, y > 4)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"layers": [L.Dense(9)]}, r"must end in 10 outputs, for y of 10 classes. Received: 9.*Dense\(10\)"),
        ({"layers": [L.Dense(9, activation="softmax")]}, "must end in 10 outputs"),
        ({"layers": [L.Conv2D(10, 3)], "input_shape": (1, 8, 8)}, r"Flatten\(\) and Dense\(10\)"),
        ({"layers": cnn}, r"become images by input_shape=\(C, H, W\)"),
        ({"layers": networks.lenet}, r"become images by input_shape=\(C, H, W\)"),
        ({"layers": cnn, "input_shape": (1, 28, 28)}, "784 numbers, and X with 64 features"),
        ({"layers": [L.Flatten(input_shape=(1, 9, 9)), L.Dense(10)]}, r"layers for \(1, 9, 9\)"),
        ({"layers": [L.Dense(10)], "hidden": (3,)}, "more than once. Received: layers and hidden"),
        ({"layers": [L.Dense(10)], "dropout": 0.5}, "dropout=0.5 beside layers"),
        ({"hidden": (8, 0)}, r"Received: \(8, 0\)"),
        ({"hidden": "many"}, "widths of hidden layers"),
        ({"layers": L.Dense(10)}, "a list of layers of xpnet.layers"),
        ({"layers": "lenett"}, "Did you mean 'lenet'"),
        ({"layers": lambda: []}, "must take the shape of a sample, and may take the number of outputs"),
        ({"layers": lambda shape, k: L.Dense(k)}, "must return layers"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_suit_says_what_would(digits, arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        NetClassifier(**arguments).fit(*digits)


# -- outputs -------------------------------------------------------------------------------------------------


def test_labels_of_any_kind_come_back(three):
    x, y = three
    names = np.array(["ant", "bee", "cat"])[y]
    net = NetClassifier(max_iter=30).fit(x, names)
    assert list(net.classes_) == ["ant", "bee", "cat"]
    same = NetClassifier(max_iter=30).fit(x, y)
    np.testing.assert_array_equal(net.predict(x), net.classes_[same.predict(x)])
    p = net.predict_proba(x)
    np.testing.assert_array_equal(net.classes_[p.argmax(axis=1)], net.predict(x))
    assert net.score(x, names) == accuracy_score(names, net.predict(x))


def heads(K):
    """The same network with every ending that says the same."""
    hidden = L.Dense(8, activation="tanh")
    if K == "labels":
        return [[hidden, L.Dense(4)], [hidden, L.Dense(4, activation="sigmoid")]]
    if K == 2:
        return [[hidden, L.Dense(1)], [hidden, L.Dense(1), L.Activation("sigmoid")]]
    return [[hidden, L.Dense(3)], [hidden, L.Dense(3, activation="softmax")]]


@pytest.mark.parametrize("K", [2, 3, "labels"])
def test_logits_and_probabilities_at_the_end_are_the_same_classifier(three, K):
    x, y = three
    if K == "labels":
        x, y = make_multilabel_classification(80, 6, n_classes=4, random_state=0)
    else:
        x, y = x[y < K], y[y < K]
    one, other = (NetClassifier(layers=layers, max_iter=20).fit(x, y) for layers in heads(K))
    assert one.out_activation_ == other.out_activation_ == ("softmax" if K == 3 else "logistic")
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        a, b = getattr(one, method)(x), getattr(other, method)(x)
        if method == "decision_function" and K == 3:  # up to a number for each sample
            a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(one.predict_proba(x), np.exp(one.predict_log_proba(x)))
    if K != "labels":
        np.testing.assert_array_equal(one.predict_proba(x).argmax(axis=1), one.predict(x))


def test_two_classes_may_have_two_outputs(three):
    x, y = three
    x, y = x[y < 2], y[y < 2]
    net = NetClassifier(layers=[L.Dense(2)], max_iter=30).fit(x, y)
    assert net.n_outputs_ == 2 and net.out_activation_ == "softmax"
    assert net.decision_function(x).shape == (len(x),)
    np.testing.assert_array_equal(net.decision_function(x) > 0, net.predict(x) == 1)
    np.testing.assert_allclose(
        net.decision_function(x), np.diff(np.log(net.predict_proba(x)), axis=1)[:, 0], rtol=1e-6
    )


@pytest.mark.parametrize("K", [2, 3])
def test_logarithms_are_finite_where_probabilities_are_not(three, K):
    x, y = three
    x, y = x[y < K], y[y < K]
    net = NetClassifier(hidden=(), max_iter=50, learning_rate=1.0).fit(x, y)
    far = x * 1e3
    assert (net.predict_proba(far) == 0).any()
    assert np.isfinite(net.predict_log_proba(far)).all()


def test_several_labels(three):
    x, y = make_multilabel_classification(200, 10, n_classes=4, random_state=0)
    x = StandardScaler().fit_transform(x)
    net = NetClassifier(hidden=(64,), learning_rate=0.02).fit(x, y)
    assert net.predict(x).shape == y.shape and set(np.unique(net.predict(x))) == {0, 1}
    assert net.score(x, y) > 0.9 and isinstance(net.model_.loss, losses.BinaryCrossentropy)
    np.testing.assert_array_equal(net.predict_proba(x) > 0.5, net.predict(x) == 1)
    np.testing.assert_array_equal(NetClassifier(**few).fit(x, sparse.csr_array(y)).classes_, np.arange(4))


def test_several_targets():
    x, _ = load_diabetes(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    y = np.stack([x[:, 0] + x[:, 1], x[:, 2] - x[:, 3]], axis=1)
    net = NetRegressor(max_iter=200, learning_rate=0.01).fit(x, y)
    assert net.predict(x).shape == y.shape and net.n_outputs_ == 2
    assert net.score(x, y) > 0.95


def test_one_class_is_learned_without_ado(three):
    x = three[0]
    net = NetClassifier(**few).fit(x, ["only"] * len(x))
    assert set(net.predict(x)) == {"only"} and (net.predict_proba(x) == 1).all()


@pytest.mark.parametrize("y", [np.tile([[0, 1, 2]], (90, 1)), np.linspace(0, 1, 90)])
def test_targets_that_are_no_classes(three, y):
    with pytest.raises(ValueError, match=r"Unknown label type: continuous|MultiOutputClassifier"):
        NetClassifier().fit(three[0], y)


class Focal(losses.Loss):
    """(1 - q)^2 times the cross-entropy, of softmax outputs."""

    def per_sample(self, ops, p, y):
        xp = ops.xp
        q = xp.exp(p - p.max(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
        true = (q * y).sum(axis=1, keepdims=True)
        slope = 2 * (1 - true) * xp.log(true) * true - (1 - true) ** 2
        return -((1 - true[:, 0]) ** 2) * xp.log(true[:, 0]), slope * (y - q)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize(
    "loss", [Focal(), "mse", "categorical_crossentropy", "sparse_categorical_crossentropy"]
)
def test_losses_of_ones_own_get_rows_or_indices(three, loss, K):
    x, y = three
    x, y = x[y < K], y[y < K]
    net = NetClassifier(loss=loss, learning_rate=0.02, max_iter=200, hidden=(32,)).fit(x, y)
    assert net.score(x, y) > 0.9 and net.n_outputs_ == K
    assert net.loss is loss and net.model_.loss is not loss
    np.testing.assert_allclose(net.predict_proba(x).sum(axis=1), 1)


def test_a_regressors_loss(three):
    x, y = three
    assert isinstance(NetRegressor(loss="huber", **few).fit(x, y).model_.loss, losses.Huber)
    half, whole = (NetRegressor(loss=loss, max_iter=1).fit(x, y).loss_ for loss in (None, "mse"))
    assert half == pytest.approx(whole / 2)


# -- beside MLPClassifier and MLPRegressor -------------------------------------------------------------------

SOLVERS = [
    {"solver": "sgd", "learning_rate_init": 0.05},
    {"solver": "sgd", "momentum": 0.0, "nesterovs_momentum": False, "learning_rate_init": 0.1},
    {"solver": "sgd", "nesterovs_momentum": False},
    {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.2, "power_t": 0.1},
    {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.3, "n_iter_no_change": 1}
    | {"tol": 0.1},
    {"solver": "adam", "alpha": 0.5},
    {"solver": "adam", "beta_1": 0.5, "beta_2": 0.9, "learning_rate": "adaptive", "batch_size": 17},
    {"solver": "sgd", "alpha": 3.0, "activation": "tanh", "hidden_layer_sizes": (7, 5)},
    {"solver": "sgd", "alpha": 1.0, "activation": "logistic", "weighted": True, "batch_size": 90},
]  # fmt: skip


@pytest.mark.parametrize("words", SOLVERS)
@pytest.mark.parametrize("kind", ["three classes", "two classes", "one target"])
def test_training_follows_sklearns_from_the_same_weights(three, kind, words):
    """After an epoch ours gets sklearn's weights; both go on, without shuffling, and stay together."""
    x, y = three
    if kind == "two classes":
        y = y % 2
    ours, theirs = (NetRegressor, MLPRegressor) if kind == "one target" else (NetClassifier, MLPClassifier)
    words = {"hidden_layer_sizes": (9,), "batch_size": 30, "alpha": 0.0, **words}
    fit = {"sample_weight": 0.5 + np.arange(len(x)) % 3} if words.pop("weighted", False) else {}
    common = dict(words, shuffle=False, warm_start=True)
    mlp = theirs(**common, max_iter=1, random_state=0).fit(x, y, **fit)
    net = ours(**common, max_iter=1).fit(x, y, **fit)
    arrays = [a for pair in zip((w.T for w in mlp.coefs_), mlp.intercepts_) for a in pair]
    net.model_.load_state_dict(dict(zip(net.model_.state_dict(), arrays)))
    mlp._no_improvement_count, mlp.best_loss_ = 0, np.inf
    mlp.set_params(max_iter=12).fit(x, y, **fit)
    net.set_params(max_iter=12).fit(x, y, **fit)
    assert net.n_iter_ == mlp.n_iter_ and net.t_ == mlp.t_ and net.n_layers_ == mlp.n_layers_
    assert net.out_activation_ == mlp.out_activation_ and net.n_outputs_ == mlp.n_outputs_
    for a, b in zip(net.coefs_ + net.intercepts_, mlp.coefs_ + mlp.intercepts_):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # sklearn adds the penalty of the weights before each step, xpnet of those at the epoch's end
    tolerance = 1e-5 if not words["alpha"] else 0.1
    np.testing.assert_allclose(net.loss_curve_[1:], mlp.loss_curve_[1:], rtol=tolerance)
    np.testing.assert_allclose(net.predict(x), mlp.predict(x), rtol=1e-4)


@pytest.mark.parametrize("kind", ["three classes", "two classes", "one target"])
@pytest.mark.parametrize("weighted", [False, True])
def test_lbfgs_follows_sklearns_from_the_same_weights(three, kind, weighted):
    x, y = three
    if kind == "two classes":
        y = y % 2
    ours, theirs = (NetRegressor, MLPRegressor) if kind == "one target" else (NetClassifier, MLPClassifier)
    fit = {"sample_weight": 0.5 + np.arange(len(x)) % 3} if weighted else {}
    words = {"solver": "lbfgs", "hidden_layer_sizes": 6, "activation": "tanh", "alpha": 0.5}
    words["warm_start"] = True
    mlp, net = theirs(**words, max_iter=1).fit(x, y, **fit), ours(**words, max_iter=1).fit(x, y, **fit)
    arrays = [a for pair in zip((w.T for w in mlp.coefs_), mlp.intercepts_) for a in pair]
    net.model_.load_state_dict(dict(zip(net.model_.state_dict(), arrays)))
    mlp.set_params(max_iter=10).fit(x, y, **fit)
    net.set_params(max_iter=10).fit(x, y, **fit)
    assert net.n_iter_ == mlp.n_iter_ == 10 and net.loss_ == pytest.approx(mlp.loss_, rel=1e-5)
    for a, b in zip(net.coefs_ + net.intercepts_, mlp.coefs_ + mlp.intercepts_):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_lbfgs_learns_scikit_learns_first_example():
    x, y = [[0.0, 0.0], [1.0, 1.0]], [0, 1]
    clf = NetClassifier(solver="lbfgs", alpha=1e-5, hidden_layer_sizes=(5, 2)).set_params(random_state=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(clf.fit(x, y).predict([[2.0, 2.0], [-1.0, -2.0]])) == [1, 0]
    assert clf.loss_ < 0.01 and clf.loss_curve_[-1] == clf.loss_ and clf.n_iter_ < 200


def test_lbfgs_takes_images_and_sparse_samples_and_says_what_it_cannot(digits, monkeypatch):
    x, y = digits
    plain = [layer for layer in cnn(None, 10) if not isinstance(layer, L.Dropout)]
    net = NetClassifier(layers=plain, input_shape=(1, 8, 8), solver="lbfgs", max_iter=40)
    with pytest.warns(ConvergenceWarning, match="lbfgs ended after 40 iterations"):
        assert net.fit(x, y).score(x, y) > 0.95
    monkeypatch.setattr(sparse_samples, "SMALL", 0)
    assert bits(clone(net).fit(sparse.csr_array(x), y)) == bits(net)
    assert not hasattr(net, "partial_fit")
    for words, message in [
        ({"dropout": 0.5}, "chance has no part in. Received: layer 1 'dropout'"),
        ({"callbacks": Callback()}, "has no epochs. Received: callbacks"),
        ({"max_fun": 0}, "max_fun must be a whole number"),
    ]:
        with pytest.raises(ValueError, match=message):
            NetClassifier(solver="lbfgs", **words).fit(x, y)


def test_hidden_layers_start_as_sklearns(three):
    x, y = three
    for activation in ("relu", "logistic"):
        words = {"hidden_layer_sizes": (300, 200), "activation": activation, "solver": "sgd", "max_iter": 1}
        mlp = MLPClassifier(**words, learning_rate_init=1e-12, random_state=0).fit(x, y)
        net = NetClassifier(**words, learning_rate_init=1e-12).fit(x, y)
        for a, b in zip(net.coefs_ + net.intercepts_[:2], mlp.coefs_ + mlp.intercepts_[:2]):
            assert abs(a).max() == pytest.approx(abs(b).max(), rel=0.05)
            assert a.std() == pytest.approx(b.std(), rel=0.15) and abs(a.mean()) < 0.2 * a.std()


@pytest.mark.parametrize("kind", ["theirs", "ours"])
def test_a_script_for_mlpclassifier_runs_by_its_import(kind):
    if kind == "theirs":
        from sklearn.neural_network import MLPClassifier
    else:
        from xpnet.sklearn import NetClassifier as MLPClassifier

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    mlp = MLPClassifier(
        hidden_layer_sizes=(100,),
        activation="relu",
        solver="adam",
        alpha=1e-4,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        max_iter=60,
        random_state=1,
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=10,
        verbose=False,
    )
    pipeline = make_pipeline(StandardScaler(), mlp).fit(X_train, y_train)
    assert pipeline.score(X_test, y_test) > 0.94
    mlp = pipeline[-1]
    assert [coef.shape for coef in mlp.coefs_] == [(64, 100), (100, 10)]
    assert [bias.shape for bias in mlp.intercepts_] == [(100,), (10,)]
    assert mlp.n_layers_ == 3 and mlp.n_outputs_ == 10 and mlp.out_activation_ == "softmax"
    assert len(mlp.loss_curve_) == mlp.n_iter_ == len(mlp.validation_scores_) <= 60
    assert mlp.best_validation_score_ == max(mlp.validation_scores_) and mlp.best_loss_ is None
    search = GridSearchCV(
        make_pipeline(StandardScaler(), MLPClassifier(max_iter=20, learning_rate_init=0.01, random_state=0)),
        {
            f"{type(mlp).__name__.lower()}__{name}": values
            for name, values in {"alpha": [1e-4, 1e-2], "hidden_layer_sizes": [(20,), (20, 20)]}.items()
        },
        cv=2,
    )
    assert search.fit(X_train[:300], y_train[:300]).best_score_ > 0.75


def test_words_for_optimizers(three):
    def made(**words):
        return NetClassifier(**words, **few).fit(*three).model_.optimizer

    adam = made()
    assert type(adam) is optimizers.Adam and (adam.learning_rate, adam.epsilon) == (0.001, 1e-8)
    assert type(made(optimizer="adam")) is optimizers.Adam and made(optimizer="adam").epsilon == 1e-7
    sgd = made(optimizer="sgd", learning_rate=0.5)
    assert (sgd.learning_rate, sgd.momentum) == (0.5, 0.0)
    assert made(solver="sgd").nesterov is True and made(solver="sgd", momentum=0).nesterov is False
    mine = optimizers.RMSprop(0.02, rho=0.8)
    used = made(optimizer=mine)
    assert used is not mine and used.rho == 0.8 and mine.owner is None and mine.iterations == 0
    assert made(optimizer=mine, learning_rate_init=0.03).learning_rate == 0.03 and mine.learning_rate == 0.02
    decay = schedules.ExponentialDecay(0.1, 10, 0.5)
    assert made(learning_rate=decay).rate() == pytest.approx(decay(3))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"optimizer": "adam", "solver": "adam"}, "optimizer or solver, not both"),
        ({"optimizer": "adamm"}, "Did you mean 'adam'"),
        ({"solver": "rmsprop"}, "unknown solver.*Expected one of: adam, lbfgs, sgd"),
        ({"learning_rate": 0.1, "learning_rate_init": 0.1}, "given twice"),
        ({"learning_rate": "fast"}, "unknown learning_rate"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"optimizer": "sgd", "learning_rate": "adaptive"}, "belongs to solver='sgd'"),
        ({"alpha": -1}, "alpha must be a number of at least 0. Received: -1"),
        ({"max_iter": 0}, "max_iter must be a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"tol": "small"}, "tol must be a number"),
        ({"n_iter_no_change": 0}, "n_iter_no_change"),
        ({"validation_fraction": 1.0}, "validation_fraction must be a number from 0 to below 1"),
        ({"random_state": "seed"}, "cannot be used to seed"),
        ({"class_weight": {"x": 2}}, r"labels that are not in y. Received: \['x'\]"),
        ({"class_weight": {0: -1}}, "weights of at least 0"),
        ({"class_weight": "even"}, "'balanced' or None"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, "all weights are zero"),
        ({"precision": "float16"}, "unknown precision"),
        ({"device": "gpu"}, "unknown device"),
        ({"callbacks": [print]}, "Callback"),
        ({"loss": "entropy"}, "unknown loss"),
    ],
)
def test_arguments_that_make_no_sense(three, arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        NetClassifier(**arguments).fit(*three)


def test_the_penalty_is_of_weights_alone(three):
    net = NetClassifier(alpha=0.7, batch_size=30, hidden=(5,), **few).fit(*three)
    on = {
        slot.name: net.model_.params.read(net.model_.optimizer_state["penalty"], slot)
        for slot in net.model_.params.slots
    }
    assert (on["bias"] == 0).all()
    np.testing.assert_allclose(on["weight"], 0.7 / 30)
    value = 0.5 * 0.7 / 30 * sum((w**2).sum() for w in net.coefs_)
    assert solvers.penalty(net.model_) == pytest.approx(value)
    assert NetClassifier(hidden=(5,), **few).fit(*three).model_.optimizer_state.keys() == {"m", "v"}


def test_a_model_trained_with_a_penalty_is_saved_and_copied(three, tmp_path):
    from xpnet import load_model

    x, y = three
    net = NetClassifier(alpha=0.7, **few).fit(x, y)
    net.model_.save(tmp_path / "net.safetensors")
    loaded = load_model(tmp_path / "net.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.predict(x), net.model_.predict(x))
    twin = pickle.loads(pickle.dumps(net))
    assert bits(twin.partial_fit(x, y)) == bits(net.partial_fit(x, y)) == bits(copy.deepcopy(twin))


# -- weights -------------------------------------------------------------------------------------------------


def normalising(input_shape, outputs):
    return [L.Dense(8), L.BatchNormalization(), L.Activation("relu"), L.Dense(outputs)]


def test_no_batch_of_one_is_left_for_normalisation(three):
    x, y = (np.tile(a, (3,) + (1,) * (a.ndim - 1))[:201] for a in three)
    net = NetClassifier(layers=normalising, **few).fit(x, y)
    assert net.model_.optimizer.iterations == 3, "one batch of 201"
    assert NetClassifier(hidden=(3,), **few).fit(x, y).model_.optimizer.iterations == 6
    with pytest.raises(ShapeError, match="use another batch_size"):
        NetClassifier(layers=normalising, batch_size=200, **few).fit(x, y)


def test_the_penalty_may_change_between_partial_fits(three):
    net = NetClassifier(alpha=0.5, **few).fit(*three)
    net.set_params(alpha=0.0).partial_fit(*three)
    assert solvers.penalty(net.model_) == 0
    net = NetClassifier(**few).fit(*three)
    net.set_params(alpha=0.5).partial_fit(*three)  # the optimizer is that of the fit


@pytest.mark.parametrize("make", [NetClassifier, NetRegressor])
def test_a_sample_of_no_weight_is_none(three, make):
    x, y = three
    w = (np.arange(len(x)) % 3 > 0) * (1.0 + np.arange(len(x)) % 2)
    net = make(layers=normalising, batch_size=7, **few)
    assert bits(net.fit(x, y, w)) == bits(clone(net).fit(x[w > 0], y[w > 0], w[w > 0]))


def test_equal_weights_are_no_weights(three):
    x, y = three
    assert bits(NetClassifier(**few).fit(x, y, np.full(len(x), 0.7))) == bits(NetClassifier(**few).fit(x, y))


@pytest.mark.parametrize(
    "given", ["balanced", {"a": 5.0, "c": 0.5}, {"a": 1, "b": 2, "c": 3, "elsewhere": 9}]
)
def test_class_weights_are_sample_weights_by_label(three, given):
    x, y = three
    x, y = x[10:], np.array(["a", "b", "c"])[y][10:]
    known = given if given == "balanced" else {k: given.get(k, 1) for k in "abc"}
    w = compute_sample_weight(known, y)
    one = NetClassifier(class_weight=given, batch_size=20, **few).fit(x, y)
    assert bits(one) == bits(NetClassifier(batch_size=20, **few).fit(x, y, w))
    both = NetClassifier(class_weight={"a": 2.0}, **few).fit(x, y, w)
    assert bits(both) == bits(NetClassifier(**few).fit(x, y, w * np.where(y == "a", 2.0, 1.0)))


def test_balanced_counts_weights(three):
    x, y = three
    times = 1 + np.arange(len(x)) % 3
    net = NetClassifier(class_weight="balanced", batch_size="full", max_iter=30)
    weighted = net.fit(x, y, times).predict_proba(x)
    repeated = clone(net).fit(x.repeat(times, axis=0), y.repeat(times)).predict_proba(x)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-9)


def test_class_weights_need_one_class_a_sample():
    x, y = make_multilabel_classification(30, 4, random_state=0)
    with pytest.raises(ValueError, match="class_weight needs one class a sample"):
        NetClassifier(class_weight="balanced").fit(x, y)


@pytest.mark.parametrize("w, words", [([1, 2], "sample_weight does not fit"), (-np.ones(90), "not negative")])
def test_weights_that_are_none(three, w, words):
    with pytest.raises(ValueError, match=words):
        NetClassifier().fit(*three, sample_weight=w)


# -- random state --------------------------------------------------------------------------------------------


def test_random_state(three):
    def drawn(state):
        return bits(
            NetClassifier(dropout=0.3, batch_size=20, **few).set_params(random_state=state).fit(*three)
        )

    assert drawn(3) == drawn(3) != drawn(4)
    assert drawn(np.random.RandomState(3)) == drawn(3)
    assert drawn(None) != drawn(None)
    going = NetClassifier(**few).set_params(random_state=np.random.RandomState(3))
    assert bits(going.fit(*three)) != bits(going.fit(*three)), "an instance goes on"


# -- the course of training ----------------------------------------------------------------------------------


def test_training_ends_where_the_loss_stands_still(three):
    net = NetClassifier(max_iter=500, tol=0.01, n_iter_no_change=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.fit(*three)
    curve, best, still = net.loss_curve_, np.inf, 0
    for loss in curve[:-1]:
        still = still + 1 if loss > best - 0.01 else 0
        best = min(best, loss)
        assert still <= 4, "it went on too long"
    assert curve[-1] > best - 0.01 and still == 4
    assert net.n_iter_ == len(curve) < 500 and net.loss_ == curve[-1] and net.best_loss_ == min(curve)
    assert net.t_ == 90 * net.n_iter_ and net.validation_scores_ is None


def test_an_end_that_was_looked_for_in_vain_is_a_warning_to_mlpclassifiers_scripts(three):
    with pytest.warns(ConvergenceWarning, match="max_iter=3") as caught:
        NetClassifier(solver="adam", max_iter=3).fit(*three)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NetClassifier(max_iter=3).fit(*three)
        NetClassifier(solver="adam", max_iter=3, n_iter_no_change=None).fit(*three)
        NetClassifier(solver="adam", max_iter=3).partial_fit(*three, classes=[0, 1, 2])


@pytest.mark.parametrize(
    "scores, epochs, kept",
    [
        (
            [0.5, 0.9, 0.90001, 0.90001, 0.8, 0.90002],
            6,
            5,
        ),  # better, but not by tol
        ([0.5, 0.9, 0.9, 0.3, 0.9, 0.1], 6, 1),
        ([0.5, 0.1, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1], 9, 4),
    ],
)
def test_training_ends_after_more_than_patience_epochs_without_progress(scores, epochs, kept):
    progress = Progress(tol=1e-4, patience=3, score=lambda model: [*scores, 0, 0][len(progress.scores)])
    model, weights = Sequential([L.Dense(1)], input_shape=(1,), device="cpu", seed=0), []
    model.compile("sgd", "mse")
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.state_dict()["0.weight"]))
    model.fit(np.eye(1), np.eye(1), epochs=20, callbacks=[progress, keep], verbose=0)
    assert progress.scores == scores and len(weights) == epochs and progress.stopped
    assert model.state_dict()["0.weight"] == weights[kept]


def test_early_stopping_keeps_the_best_weights(digits):
    x, y = digits
    seen = {}

    class Look(Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.setdefault("logs", []).append(dict(logs))

    net = NetClassifier(
        early_stopping=True, validation_fraction=0.2, learning_rate=0.02, callbacks=Look(), n_iter_no_change=5
    )
    net.fit(x, y)
    scores = net.validation_scores_
    assert len(scores) == net.n_iter_ < 200 and net.best_validation_score_ == max(scores)
    assert scores.index(max(scores)) < len(scores) - 1, "the best was not the last"
    assert [one["val_score"] for one in seen["logs"]] == scores
    assert all(np.isfinite(one["val_loss"]) for one in seen["logs"])
    # the split is the first thing that the random state is asked for, after the model's seed
    rng = np.random.RandomState(0)
    seed = rng.randint(np.iinfo(np.int32).max)
    assert net.model_.seed == seed
    _, held_out = train_test_split(np.arange(300), test_size=60, random_state=rng, stratify=y)
    assert net.score(x[held_out], y[held_out]) == max(scores)
    assert set(np.bincount(y[held_out])) <= {5, 6, 7}


def test_early_stopping_of_a_regressor_and_of_few_samples(three):
    x, y = three
    net = NetRegressor(early_stopping=True, **few).fit(x, y.astype(float))
    assert len(net.validation_scores_) == 3 and net.best_loss_ is None
    NetClassifier(early_stopping=True, **few).fit(x[:6], [0, 1, 2, 0, 1, 3])
    with pytest.raises(ValueError, match="n_samples = 3"):
        NetClassifier(early_stopping=True).fit(x[:3], y[:3])


def test_callbacks_are_the_users_own_and_hold_no_model(three):
    class Stop(Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            self.kind = type(self.model).__name__
            self.model.stop_training = epoch == 1

    stop = Stop()
    net = NetClassifier(callbacks=[stop], max_iter=50).fit(*three)
    assert net.n_iter_ == stop.epochs == 2 and stop.kind == "Sequential"
    assert "model" not in vars(stop)


def test_the_librarys_callbacks_work_in_searches_and_side_by_side(three):
    stop = EarlyStopping("val_score", mode="max", patience=2, restore_best_weights=True)
    words = {"early_stopping": True, "n_iter_no_change": None, "max_iter": 30}
    net = NetClassifier(callbacks=[stop, *listeners()], **words).fit(*three)
    assert net.n_iter_ < 30
    again = clone(net)
    assert again.callbacks[0] is not stop and "model" not in vars(again.callbacks[0])
    scores = cross_val_score(again, *three, cv=2, n_jobs=2, error_score="raise")
    np.testing.assert_array_equal(scores, cross_val_score(again, *three, cv=2, error_score="raise"))


def test_augmentation_is_passed_on(digits):
    from xpnet.data import RandomFlip

    plain = NetClassifier(layers=cnn, input_shape=(1, 8, 8), **few).fit(*digits)
    flipped = NetClassifier(layers=cnn, input_shape=(1, 8, 8), augment=[RandomFlip()], **few).fit(*digits)
    assert bits(plain) != bits(flipped)


def test_verbose_is_a_line_an_epoch(three, capsys):
    NetClassifier(verbose=10, **few).fit(*three)
    out = capsys.readouterr().out
    assert [line.split(" - ")[0] for line in out.splitlines()[1:]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    NetClassifier(**few).fit(*three)
    assert capsys.readouterr().out == ""


def test_an_interrupt_leaves_what_there_is(three):
    class Interrupt(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == self.at:
                raise KeyboardInterrupt

    callback = Interrupt()
    callback.at = 2
    with pytest.warns(UserWarning, match="interrupted"):
        net = NetClassifier(callbacks=[callback], max_iter=50).fit(*three)
    assert net.n_iter_ == 2 and net.score(*three) > 0
    callback.at = 0
    with pytest.raises(KeyboardInterrupt):
        NetClassifier(callbacks=[callback], max_iter=50).fit(*three)


def test_a_loss_that_explodes_is_an_error_and_no_fit(three):
    net = NetRegressor(optimizer="sgd", learning_rate=1e6)
    with pytest.raises(NonFiniteError, match="learning_rate"):
        net.fit(*three)
    with pytest.raises(NotFittedError):
        net.predict(three[0])


# -- going on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [NetClassifier, NetRegressor])
def test_partial_fits_are_the_epochs_of_a_fit(three, make):
    x, y = three
    net = make(dropout=0.2, batch_size=20, alpha=0.1, **few)
    step = clone(net)
    for _ in range(3):
        step.partial_fit(x, y, **({"classes": [0, 1, 2]} if make is NetClassifier else {}))
    assert bits(step) == bits(net.fit(x, y))
    assert step.loss_curve_ == net.loss_curve_ and step.t_ == net.t_ and step.n_iter_ == 1


def test_partial_fit_learns_of_all_classes_at_first(three):
    x, y = three
    net = NetClassifier(**few)
    with pytest.raises(ValueError, match="classes must be given at the first call to partial_fit"):
        net.partial_fit(x, y)
    net.partial_fit(x[:5], [1] * 5, classes=[2, 0, 1])
    assert list(net.classes_) == [0, 1, 2] and net.predict_proba(x).shape == (90, 3)
    with pytest.raises(ValueError, match=r"labels that are not among the classes. Received: \[7\]"):
        net.partial_fit(x[:1], [7])
    with pytest.raises(ValueError, match="the classes have changed"):
        net.partial_fit(x, y, classes=[0, 1, 2, 3])
    with pytest.raises(ValueError, match="the classes have changed"):
        net.partial_fit(x, np.eye(3, dtype=int)[y])
    with pytest.raises(ValueError, match="X has 5 features"):
        net.partial_fit(x[:, :5], y)
    with pytest.raises(ValueError, match="number of targets has changed"):
        NetRegressor(**few).fit(x, y).partial_fit(x, x)


def test_partial_fit_is_not_there_where_it_needs_all_samples():
    for words in ({"early_stopping": True}, {"class_weight": "balanced"}):
        assert not hasattr(NetClassifier(**words), "partial_fit")
        with pytest.raises(AttributeError, match="partial_fit"):
            NetClassifier(**words).partial_fit([[0.0]], [0], classes=[0, 1])
    assert hasattr(NetClassifier(class_weight={0: 2}), "partial_fit")


def test_warm_start_goes_on_with_the_weights(three):
    x, y = three
    net = NetClassifier(warm_start=True, **few).fit(x, y)
    first, curve = bits(net), list(net.loss_curve_)
    model = net.model_
    net.set_params(max_iter=5, learning_rate_init=0.01).fit(x, y)
    assert net.model_ is model and bits(net) != first
    assert model.optimizer.learning_rate == 0.01 and model.optimizer.iterations == 5
    assert net.loss_curve_[:3] == curve and len(net.loss_curve_) == 8 and net.n_iter_ == 5
    assert net.loss_curve_[3] < curve[0]
    cold = NetClassifier(**few).fit(x, y)
    model = cold.model_
    assert bits(cold.fit(x, y)) == first and cold.model_ is not model and len(cold.loss_curve_) == 3


# -- samples -------------------------------------------------------------------------------------------------


def test_precision_follows_the_data(digits):
    x, y = digits
    for given, precision, answer in [
        (x, "float64", "float64"),
        (x.astype(np.float32), "auto", "float32"),
        ((x * 16).astype(np.uint8), "auto", "float32"),
        ((x * 16).astype(np.int64), "float64", "float64"),
        (x > 0.5, "auto", "float32"),
    ]:
        net = NetClassifier(**few).fit(given, y)
        assert net.model_.precision == precision and net.predict_proba(given).dtype == answer
    assert NetClassifier(precision="float32", **few).fit(x, y).predict_proba(x).dtype == np.float32


@pytest.mark.parametrize("batch_size", [32, 400])
@pytest.mark.parametrize("early", [False, True])
def test_large_sparse_samples_go_by_batches_with_the_same_results(digits, monkeypatch, batch_size, early):
    x, y = digits
    net = NetClassifier(batch_size=batch_size, early_stopping=early, **few)
    w = 1.0 + np.arange(len(x)) % 2
    dense = net.fit(x, y, w)
    packed = sparse.csr_array(x)
    assert bits(clone(net).fit(sparse.coo_matrix(x), y, w)) == bits(dense)
    monkeypatch.setattr(sparse_samples, "SMALL", 0)
    made = []
    monkeypatch.setattr(
        sparse.csr_array,
        "toarray",
        lambda self, *a, f=sparse.csr_array.toarray: made.append(self.shape[0]) or f(self, *a),
    )
    by_batches = clone(net).fit(packed, y, w)
    assert max(made) <= min(batch_size, 1024), "only batches were made dense"
    assert bits(by_batches) == bits(dense) and by_batches.loss_curve_ == dense.loss_curve_
    np.testing.assert_allclose(by_batches.predict_proba(packed), dense.predict_proba(x), rtol=1e-12)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_and_their_names(three, library):
    frames = pytest.importorskip(library)
    x, y = three
    names = list("abcdef")
    frame = frames.DataFrame(dict(zip(names, x.T)))
    net = NetClassifier(**few).fit(frame, frames.Series(y))
    assert list(net.feature_names_in_) == names
    assert bits(net) == bits(NetClassifier(**few).fit(x, y))
    with pytest.raises(ValueError, match="feature names"):
        net.predict(frame[names[::-1]])


def test_tensors_of_pytorch(three):
    torch = pytest.importorskip("torch")
    x, y = three
    net = NetClassifier(**few).fit(torch.tensor(x), torch.tensor(y))
    assert bits(net) == bits(NetClassifier(**few).fit(x, y))
    np.testing.assert_array_equal(net.predict(torch.tensor(x)), net.predict(x))


def test_samples_of_another_shape(digits):
    x, y = digits
    net = NetClassifier(layers=cnn, input_shape=(1, 8, 8), **few).fit(x, y)
    with pytest.raises(ShapeError, match=r"X of shape \(300, 8, 8, 1\). Expected: \(N, 1, 8, 8\)"):
        net.predict(x.reshape(-1, 8, 8, 1))
    with pytest.raises(ValueError, match="63 features"):
        net.predict(x[:, :63])
    with pytest.raises(ValueError, match="NaN"):
        NetClassifier().fit(np.full((4, 2), np.nan), [0, 1, 0, 1])
    with pytest.raises(NotFittedError):
        NetClassifier().predict(x)
    with pytest.raises(AttributeError, match="not fitted"):
        NetClassifier().coefs_  # noqa: B018
    with pytest.raises(AttributeError, match="Dense layers alone"):
        net.coefs_  # noqa: B018


# -- in scikit-learn's company -------------------------------------------------------------------------------


def test_copies_predict_and_go_on_alike(digits, tmp_path):
    x, y = digits
    net = NetClassifier(layers=cnn, input_shape=(1, 8, 8), callbacks=[Callback()], **few).fit(x, y)
    joblib.dump(net, tmp_path / "net.joblib")
    copies = [
        pickle.loads(pickle.dumps(net)), joblib.load(tmp_path / "net.joblib"), copy.deepcopy(net),
        joblib.load(tmp_path / "net.joblib", mmap_mode="r"),
    ]  # fmt: skip
    p = net.predict_proba(x)
    net.partial_fit(x, y)
    for one in copies:
        np.testing.assert_array_equal(one.predict_proba(x), p)
        assert bits(one.partial_fit(x, y)) == bits(net)


def test_pipelines_and_grid_searches_reach_the_network(three):
    x, y = three
    pipeline = make_pipeline(StandardScaler(), NetClassifier(**few))
    pipeline.set_params(netclassifier__hidden=(4,), netclassifier__optimizer=optimizers.SGD(0.1))
    assert pipeline.fit(x, y)[-1].coefs_[0].shape == (6, 4)
    search = GridSearchCV(
        pipeline,
        {
            "netclassifier__hidden": [None],
            "netclassifier__layers": [[L.Dense(3)], normalising, (5,)],
            "netclassifier__optimizer": ["adam", optimizers.RMSprop(0.01)],
        },
        cv=2,
        error_score="raise",
    )
    search.fit(x, y)
    assert len(search.cv_results_["params"]) == 6
    assert (search.predict(x) == search.best_estimator_.predict(x)).all()


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_jobs_side_by_side_score_as_one_after_another(three, backend):
    x, y = three
    net = NetClassifier(layers=normalising, batch_size=16, **few)
    alone = cross_val_score(net, x, y, cv=3, error_score="raise")
    with joblib.parallel_backend(backend):
        together = cross_val_score(net, x, y, cv=3, n_jobs=2, error_score="raise")
    np.testing.assert_array_equal(alone, together)


def test_every_argument_is_described(three):
    for make in (xsk.NetClassifier, xsk.NetRegressor):
        text = xsk.NetClassifier.__doc__
        assert [name for name in make().get_params() if name not in text] == []


# -- memory --------------------------------------------------------------------------------------------------


def residual(input_shape, outputs):
    return [
        L.Residual([L.Conv2D(4, 3, padding="same"), L.BatchNormalization()], [L.Conv2D(4, 1)]),
        *cnn(input_shape, outputs),
    ]


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def listeners():
    return [EarlyStopping("loss", patience=50), ReduceLROnPlateau("loss"), WeightAverage(), Callback()]


@pytest.mark.parametrize("words", [{}, {"early_stopping": True}, {"alpha": 0.1, "callbacks": listeners()}])
@pytest.mark.parametrize("make", [NetClassifier, NetRegressor])
def test_a_model_goes_with_its_estimator(digits, no_collector, make, words):
    net = make(layers=residual, input_shape=(1, 8, 8), batch_size=50, max_iter=8, **words).fit(*digits)
    for _ in range(6):  # recorded from the fifth on
        net.predict(digits[0][:1]), net.predict(digits[0])
    model = net.model_
    memory = model.params.values
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    things = [model, model.params, model.layers[0], model.layers[-1], model._train_step[1], memory]
    things = [weakref.ref(one) for one in things]
    del model, memory
    assert all(one() is not None for one in things)
    net.fit(*digits)
    assert not any(one() is not None for one in things), "a new fit keeps nothing of the old one"
    model = weakref.ref(net.model_)
    del net
    assert model() is None


@pytest.mark.parametrize("where", ["strict", "host", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    "words",
    [
        {"alpha": 2.0, "early_stopping": True},
        {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.2, "learning_rate_init": 0.3},
        {"solver": "lbfgs", "alpha": 0.5},
    ],
)
def test_another_device_learns_the_same(three, where, words):
    x, y = three[0].astype(np.float32), three[1]
    ops = strict_ops() if where == "strict" else cuda_ops(where)
    words = {"hidden": (9,), "batch_size": 30, "random_state": 0, **few, **words}
    here, there = (xsk.NetClassifier(device=device, **words).fit(x, y) for device in ("cpu", ops))
    np.testing.assert_allclose(there.loss_curve_, here.loss_curve_, rtol=1e-4)
    np.testing.assert_allclose(there.predict_proba(x), here.predict_proba(x), atol=1e-4)


def test_a_new_fit_begins_when_the_old_model_is_gone(three, no_collector):
    gone = []

    def layers(shape, outputs):
        gone.append(old() is None)
        return [L.Dense(outputs)]

    net = NetClassifier(layers=lambda shape, outputs: [L.Dense(outputs)], **few).fit(*three)
    old = weakref.ref(net.model_)
    net.set_params(layers=layers).fit(*three)
    assert gone == [True]


@pytest.mark.parametrize("where", ["strict", "host", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_a_device_gets_its_memory_back(digits, no_collector, where):
    ops = strict_ops() if where == "strict" else cuda_ops(where)
    x, y = digits[0].astype(np.float32)[:120], digits[1][:120]
    net = xsk.NetClassifier(cnn, input_shape=(1, 8, 8), device=ops, batch_size=40, random_state=0, **few)
    pool = None if where == "strict" else ops.xp.get_default_memory_pool()
    before = pool and pool.used_bytes()
    p = net.fit(x, y).predict_proba(x)
    assert isinstance(p, np.ndarray) and p.dtype == np.float32
    here = NetClassifier(layers=cnn, input_shape=(1, 8, 8), batch_size=40, **few).fit(x, y)
    np.testing.assert_allclose(p, here.predict_proba(x), atol=1e-3)
    model = weakref.ref(net.model_)
    assert pool is None or pool.used_bytes() > before
    del net
    assert model() is None
    assert pool is None or pool.used_bytes() <= before
    assert pool is None or pool.free_bytes() == 0, "others on this device can have it"
