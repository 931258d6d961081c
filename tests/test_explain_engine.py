"""The explain page's numbers against the model's own: outputs, gradients, and what each is made of."""

import copy

import explain_pages
import numpy as np
import pytest
from browser import chromium  # noqa: F401 - a fixture
from cases import CASES, assert_close, randomise

import xpnet
from xpnet import activations, losses, networks, optimizers
from xpnet import layers as L
from xpnet.training.step import head_of
from xpnet.viz.explain.graph import KINDS

TOLERANCE = 1e-4  # of the largest number


def of_case(case, number):
    """A model of one layer, whose output is the answer, with a sample and a target."""
    model = case.model(seed=number)
    model.compile(optimizer="sgd", loss="mse")
    rng = np.random.default_rng(number)
    x = rng.standard_normal(model.input_shape).astype(np.float32)
    y = rng.standard_normal(model.chain.out_shape)
    return model, x, y


def expected(model, x, y):
    """What the page must find: outputs by layer, the loss and all gradients."""
    x, y = x[None], user_target(model, y)[None]
    needs_batch = any(getattr(layer, "least", 1) == 2 and layer.is_trainable for layer in model.all_layers())
    modes = {"infer": False} if needs_batch else {"infer": False, "train": True}
    outputs = {mode: model.layer_outputs(x, train=train) for mode, train in modes.items()}
    gradients = None if needs_batch else model.gradients(x, y)
    return {"outputs": outputs, "predict": model.predict(x)[0], "gradients": gradients}


def check(model, x, y, found):
    """Everything of one page."""
    wanted, layers = expected(model, x, y), found["layers"]
    for mode, outputs in wanted["outputs"].items():
        by_name = {layer["name"]: out for layer, out in zip(layers, found[mode]["outputs"])}
        for name, output in outputs.items():
            output = output[0]
            if output.ndim == 3 and model.data_format == "channels_last":
                output = output.transpose(2, 0, 1)
            assert_close(explain_pages.array(by_name[name]), output, TOLERANCE, f"{mode}: {name}")
    if wanted["gradients"] is not None:
        keys = [layer["key"] for layer in layers]
        received = {
            f"{key}.{p['name']}": explain_pages.array(p)
            for key, params in zip(keys, found["train"]["dParams"])
            for p in params
        }
        assert received.keys() == wanted["gradients"].keys()
        for name, gradient in wanted["gradients"].items():
            # a bias before a normalization has a gradient of 0: what rounding leaves of its layer's
            layer = name.rpartition(".")[0]
            least = max(np.abs(g).max() for n, g in wanted["gradients"].items() if n.startswith(f"{layer}."))
            assert_close(received[name], gradient, TOLERANCE, f"gradient of {name}", least)
        dx = input_gradient(model, x, y)
        if dx is not None:
            assert_close(explain_pages.array(found["train"]["dPicture"]), dx, TOLERANCE, "dL/dx")
    for mode in ("infer", "train"):
        check_terms(found[mode]["checks"])


def check_terms(checks):
    """Every number that was put together from its terms is the one the run has."""
    assert checks
    largest = max(1.0, *(abs(value) for _, _, value in checks))
    wrong = [check for check in checks if abs(check[1] - check[2]) > TOLERANCE * largest]
    assert not wrong, wrong


def input_gradient(model, x, y):
    """dL/dx by the model's own backward, (C, H, W) or (D,); None where the loss folds the last activation."""
    head = head_of(model.layers, model.loss)
    if head.folded is not None:
        return None
    out, caches = model.forward(x[None], train=True)
    first = out.transpose(0, 3, 1, 2) if out.ndim == 4 and model.data_format == "channels_last" else out
    target = model.loss.check_targets(np.asarray(y)[None], model.chain.out_shape, model.dtype)
    _, dp = head.loss.value_and_grad(model.ops, first, target, None, 1.0)
    dx = model.backward(dp if first is out else dp.transpose(0, 2, 3, 1), caches)[0]
    return dx.transpose(2, 0, 1) if dx.ndim == 3 and model.data_format == "channels_last" else dx


def page_numbers(made):
    """What `explain_pages` needs of (model, x, y)."""
    model, x, y = made
    return explain_pages.numbers(explain_pages.subject(model, [explain_pages.sample(model, x, y)]))


# -- every layer alone ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_cases(tmp_path_factory):
    made = [of_case(case, number) for number, case in enumerate(CASES)]
    return list(zip(made, explain_pages.in_node(map(page_numbers, made), tmp_path_factory.mktemp("node"))))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case) for case in CASES])
def test_every_layer(of_cases, number):
    made, found = of_cases[number]
    check(*made, found)


def test_the_table_has_every_layer():
    known = {type(layer) for case in CASES for layer in case.model().all_layers()}
    assert known == set(KINDS)


# -- networks ------------------------------------------------------------------------------------------------


def conv_net(activation="relu", last=None, classes=4):
    return [
        L.Conv2D(3, 3, padding="same", activation=activation),
        L.MaxPooling2D(2),
        L.Conv2D(4, 2, strides=2, padding="same"),
        L.BatchNormalization(),
        L.Activation(activation),
        L.Dropout(0.3),
        L.Flatten(),
        L.Dense(6, activation=activation),
        L.Dropout(0.5),
        L.Dense(classes, activation=last),
    ]


def auto_encoder(last=None):
    return [
        L.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
        L.SpatialDropout2D(0.4),
        L.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu"),
        L.Concatenate([[], [L.UpSampling2D(2, "bilinear"), L.AveragePooling2D(2)]]),
        L.Conv2D(1, 3, padding="same", activation=last),
    ]


def shortcuts():
    block = [L.Conv2D(4, 3, padding="same"), L.GroupNormalization(2), L.Activation("relu"), L.Dropout(0.3)]
    inner = L.Residual([L.Conv2D(4, 1), L.LayerNormalization(axis="channels")], activation="tanh")
    return [
        L.Rescaling(2.0, offset=-1.0),
        L.ZeroPadding2D(((1, 0), (0, 1))),
        L.Conv2D(4, 3, activation="gelu"),
        L.Residual([*block, inner], activation="relu"),
        L.Residual([L.Conv2D(6, 3, strides=2, padding="same")], [L.Conv2D(6, 1, strides=2)]),
        L.GlobalAveragePooling2D(),
        L.Residual([L.Dense(6, activation="silu")]),
        L.Dense(4),
    ]


def image(rng, C=1, H=8, W=8):
    return rng.random((C, H, W)).astype(np.float32)


LOGITS = "sparse_categorical_crossentropy"  # takes logits, or the softmax it is folded with
LAST = {"data_format": "channels_last"}
SPARSE = losses.SparseCategoricalCrossentropy
NETWORKS = {  # layers, input, loss, target, more of the model's arguments
    "logits": (conv_net, (1, 8, 8), LOGITS, 2, {}),
    "softmax": (lambda: conv_net(last="softmax"), (1, 8, 8), LOGITS, 1, {}),
    "softmax-layer": (
        lambda: [*conv_net(), L.Softmax()], (1, 8, 8), "categorical_crossentropy", "one-hot", {},
    ),
    "softmax-unfolded": (lambda: conv_net(last="softmax"), (1, 8, 8), "mse", "one-hot", {}),
    "log-softmax": (
        lambda: [*conv_net(), L.Activation(activations.LogSoftmax())], (1, 8, 8), SPARSE(True), 3, {},
    ),
    "smoothing": (conv_net, (1, 8, 8), SPARSE(from_logits=True, label_smoothing=0.1), 2, {}),
    "probabilities": (lambda: conv_net(last="sigmoid"), (1, 8, 8), SPARSE(), 2, {}),
    "sum": (conv_net, (1, 8, 8), SPARSE(from_logits=True, reduction="sum"), 2, {}),
    "yes-or-no": (lambda: conv_net(last="sigmoid", classes=1), (1, 8, 8), "binary_crossentropy", 1, {}),
    "yes-or-no-logits": (lambda: conv_net(classes=1), (1, 8, 8), "binary_crossentropy", 0, {}),
    "multi-label": (lambda: conv_net(last="sigmoid"), (1, 8, 8), "binary_crossentropy", "labels", {}),
    "binary-smoothing": (
        lambda: conv_net(last="sigmoid"),
        (1, 8, 8), losses.BinaryCrossentropy(label_smoothing=0.2), "labels", {},
    ),
    "regression": (lambda: conv_net("tanh", classes=2), (1, 8, 8), "huber", "numbers", {}),
    "mae": (lambda: conv_net("elu", classes=2), (1, 8, 8), "mae", "numbers", {}),
    "half": (lambda: conv_net("softplus", classes=1), (1, 8, 8), "squared_error", "numbers", {}),
    "sse": (lambda: conv_net("leaky_relu"), (1, 8, 8), "sum_squared_error", "numbers", {}),
    "huber-wide": (conv_net, (1, 8, 8), losses.Huber(delta=0.1), "numbers", {}),
    "colours": (conv_net, (3, 9, 7), LOGITS, 0, {}),
    "channels-last": (conv_net, (9, 7, 3), LOGITS, 0, LAST),
    "float64": (conv_net, (1, 8, 8), LOGITS, 0, {"precision": "float64"}),
    "auto-encoder": (auto_encoder, (1, 8, 8), "mse", "maps", {}),
    "auto-encoder-sigmoid": (lambda: auto_encoder("sigmoid"), (1, 8, 8), "binary_crossentropy", "shares", {}),
    "auto-encoder-last": (auto_encoder, (8, 8, 1), "mse", "maps", LAST),
    "segmentation": (
        lambda: [L.Conv2D(4, 3, padding="same", activation="relu"), L.Conv2D(3, 1)],
        (1, 6, 5), LOGITS, "pixels", {},
    ),
    "segmentation-probabilities": (
        lambda: [L.Conv2D(3, 3, padding="same", activation="sigmoid")], (1, 6, 5), SPARSE(), "pixels", {},
    ),
    "ties": (
        lambda: [L.MaxPooling2D(3, strides=2), L.MaxPooling2D(2, strides=1), L.Flatten(), L.Dense(4)],
        (2, 9, 9), LOGITS, 2, {},
    ),
    "shortcuts": (shortcuts, (1, 8, 8), LOGITS, 3, {}),
    "vectors": (
        lambda: [L.Normalization(), L.Dense(8, activation="relu"), L.LayerNormalization(), L.Dense(3)],
        (5,), LOGITS, 2, {},
    ),
    "vector-to-map-last": (
        lambda: [L.Dense(24), L.Reshape((2, 3, 4)), L.Conv2D(2, 2), L.Reshape((-1,)), L.Dense(3)],
        (5,), LOGITS, 2, LAST,
    ),
    "map-to-map-last": (
        lambda: [L.Conv2D(2, 1), L.Reshape((4, 3, 2)), L.Conv2D(2, 2), L.Flatten(), L.Dense(3)],
        (2, 6, 2), LOGITS, 2, LAST,
    ),
    "frozen": (
        lambda: [
            L.Conv2D(3, 3, trainable=False), L.BatchNormalization(trainable=False), L.Flatten(), L.Dense(4),
        ],
        (1, 8, 8), LOGITS, 2, {},
    ),
    "lenet": (lambda: networks.lenet((1, 28, 28), 10), (1, 28, 28), LOGITS, 7, {}),
    "resnet9": (
        lambda: networks.resnet9((3, 16, 16), 10, width=4), (3, 16, 16), LOGITS, 7, {},
    ),
    "resnet18": (
        lambda: networks.resnet18((3, 16, 16), 10, width=4), (3, 16, 16), LOGITS, 7, {},
    ),
    "vgg": (
        lambda: networks.vgg((1, 8, 8), 10, blocks=((4, 4), (8,)), batch_norm=True, hidden=9),
        (1, 8, 8), LOGITS, 7, {},
    ),
}  # fmt: skip


def of_network(name, seed=0):
    """(model, x, y) with random weights, at another step than the first."""
    layers, shape, loss, kind, more = NETWORKS[name]
    rng = np.random.default_rng([seed, len(name)])
    model = xpnet.Sequential(layers(), input_shape=shape, device="cpu", seed=seed, **more)
    randomise(model, rng)
    model.compile("sgd", loss)
    x = rng.random(shape).astype(np.float32)
    if name == "ties":
        x = np.round(x)
    out = model.chain.out_shape
    make = {
        "one-hot": lambda: np.eye(out[0])[1],
        "labels": lambda: (np.arange(out[0]) % 2).astype(np.float32),
        "numbers": lambda: rng.standard_normal(out),
        "maps": lambda: rng.standard_normal(out),
        "shares": lambda: rng.random(out),
        "pixels": lambda: rng.integers(0, out[0], out[1:]),
    }
    y = make[kind]() if kind in make else kind
    if model.output_shape == (1,) and kind in (0, 1):
        y = np.array([kind])
    model.params.step = 3
    return model, x, y


def user_target(model, y):
    """y as the model's user gives it."""
    y = np.asarray(y)
    return y.transpose(1, 2, 0) if y.ndim == 3 and model.data_format == "channels_last" else y


@pytest.fixture(scope="module")
def of_networks(tmp_path_factory):
    made = {name: of_network(name) for name in NETWORKS}
    found = explain_pages.in_node(map(page_numbers, made.values()), tmp_path_factory.mktemp("node"))
    return dict(zip(made, zip(made.values(), found)))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(of_networks, name):
    (model, x, y), found = of_networks[name]
    check(model, x, y, found)
    loss, *_ = np.atleast_1d(model.evaluate(x[None], user_target(model, y)[None]))
    assert abs(found["infer"]["loss"] - loss) <= TOLERANCE * max(1, abs(loss))
    answer = explain_pages.array(found["infer"]["answer"])
    last = model.data_format == "channels_last" and answer.ndim == 3
    assert_close(answer.transpose(1, 2, 0) if last else answer, model.predict(x[None])[0], TOLERANCE)


@pytest.mark.parametrize("name", ["logits", "shortcuts", "auto-encoder", "lenet"])
def test_the_same_in_a_browser(name, tmp_path, chromium):  # noqa: F811
    made = of_network(name)
    (found,) = explain_pages.in_chromium([page_numbers(made)], tmp_path, chromium)
    check(*made, found)


def test_probabilities_are_those_of_predict(of_networks):
    from xpnet.commands.predict import probabilities

    for name in ("logits", "softmax", "softmax-layer", "yes-or-no", "yes-or-no-logits", "vectors"):
        (model, x, _), found = of_networks[name]
        p = probabilities(model, model.predict(x[None]))[0]
        assert_close(found["infer"]["probabilities"], p, TOLERANCE, name)
    for name in ("regression", "auto-encoder"):
        assert of_networks[name][1]["infer"]["probabilities"] is None


@pytest.mark.parametrize("name", ["logits", "shortcuts", "resnet9"])
def test_a_step_is_one_of_gradient_descent(of_networks, name):
    (model, x, y), found = of_networks[name]
    twin = copy.deepcopy(model)
    twin.compile(optimizers.SGD(0.01), model.loss)
    before = twin.train_on_batch(x[None], np.array([y]))
    twin.params.step -= 1  # the page compares with the same masks
    after = twin.train_on_batch(x[None], np.array([y]))
    step = found["train"]["step"]
    assert_close([step["before"], step["after"]], [before, after], TOLERANCE)
    assert step["applied"] == step["after"] and step["undone"]
    assert abs(before - after) > 10 * TOLERANCE * abs(before)  # so that no step at all would be seen


@pytest.mark.parametrize("classes", [4, 10, 200])
def test_gradients_of_sure_answers_are_rounded_as_the_models(classes, tmp_path):
    """Where q is almost t, q - t is what rounding leaves of it: 1e-4 of that takes the same rounding."""
    made = []
    for seed in range(8):
        model = xpnet.Sequential([L.Dense(classes)], input_shape=(5,), device="cpu", seed=seed)
        model.compile("sgd", LOGITS)
        state = model.state_dict()
        state["0.bias"][2] = 12 + np.log(classes)
        model.load_state_dict(state)
        made.append((model, np.random.default_rng(seed).random(5).astype(np.float32), 2))
    for (model, x, y), found in zip(made, explain_pages.in_node(map(page_numbers, made), tmp_path)):
        assert 1 - found["infer"]["probabilities"][2] < 1e-4
        check(model, x, y, found)
