"""The explain page's numbers against the model's own: outputs, gradients, and what each is made of."""

import explain_pages
import numpy as np
import pytest
from browser import chromium  # noqa: F401 - a fixture
from cases import CASES, assert_close, randomise

import xpnet
from xpnet import activations, losses
from xpnet import layers as L
from xpnet.training.step import head_of

TOLERANCE = 1e-4  # of the largest number


def case_page(case, number, **more):
    """A model of one layer (and, where it ends in maps, those maps as the answer), and its page."""
    model = case.model(seed=number, **more)
    model.compile(optimizer="sgd", loss="mse")
    rng = np.random.default_rng(number)
    x = rng.standard_normal(model.input_shape).astype(np.float32)
    y = rng.standard_normal(model.chain.out_shape)
    return model, x, y


def expected(model, x, y):
    """What the page must find: outputs by layer, the loss and all gradients."""
    x, y = x[None], np.asarray(y)[None]
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
            assert_close(received[name], gradient, TOLERANCE, f"gradient of {name}")
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


@pytest.fixture(scope="module")
def case_results(tmp_path_factory):
    made = [case_page(case, number) for number, case in enumerate(CASES)]
    pages = [
        explain_pages.numbers(explain_pages.subject(model, [explain_pages.sample(model, x, y)]))
        for model, x, y in made
    ]
    return list(zip(made, explain_pages.in_node(pages, tmp_path_factory.mktemp("node"))))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case) for case in CASES])
def test_every_layer(case_results, number):
    (model, x, y), found = case_results[number]
    check(model, x, y, found)
