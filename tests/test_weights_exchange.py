"""Weights and models carried to PyTorch and Keras and back: nothing is lost, half loaded or run."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import CASES, randomise

import xpnet
from xpnet import ModelFileError, Sequential, ShapeError
from xpnet import layers as L

safetensors = pytest.importorskip("safetensors.numpy")

STACK = [
    lambda: L.Conv2D(4, 3, activation="relu"),
    lambda: L.BatchNormalization(),
    lambda: L.Residual([L.Conv2D(4, 3, padding=1), L.BatchNormalization()], [L.Conv2D(4, 1)], "relu"),
    lambda: L.MaxPooling2D(2),
    lambda: L.Conv2DTranspose(3, 2, strides=2),
    lambda: L.GroupNormalization(3),
    lambda: L.LayerNormalization(),
    lambda: L.Flatten(),
    lambda: L.Dense(5, activation="tanh"),
    lambda: L.BatchNormalization(),
    lambda: L.Dense(3),
]


def stack(seed=0, **more):
    """A model of every kind of layer with weights, none of them as they were drawn."""
    model = Sequential([make() for make in STACK], input_shape=(2, 8, 8), seed=seed, device="cpu", **more)
    randomise(model, np.random.default_rng(seed))
    return model


def small(units=3):
    return Sequential([L.Dense(4, activation="relu"), L.Dense(units)], input_shape=(5,), seed=1, device="cpu")


def images(n=6, shape=(2, 8, 8)):
    return np.random.default_rng(1).standard_normal((n, *shape)).astype(np.float32)


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


# -- a plain safetensors file --------------------------------------------------------------------------------


def test_the_file_holds_the_state_dict_and_nothing_else(tmp_path):
    model = stack()
    model.compile("adam", "mse")
    model.save_weights(tmp_path / "w.safetensors")
    held = safetensors.load_file(tmp_path / "w.safetensors")
    assert same(dict(sorted(held.items())), dict(sorted(model.state_dict().items())))
    assert held["2.num_batches_tracked"].dtype == np.int64
    with safetensors.safe_open(tmp_path / "w.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}, "what Hugging Face's loaders ask of a file of PyTorch's"


def test_weights_come_back_into_a_model_of_another_data_format(tmp_path):
    first = stack(0)
    last = Sequential([make() for make in STACK], input_shape=(8, 8, 2), data_format="channels_last", seed=1)
    first.save_weights(tmp_path / "w.safetensors")
    last.load_weights(str(tmp_path / "w.safetensors"))
    assert same(first.state_dict(), last.state_dict())
    assert np.array_equal(first.predict(images()), last.predict(images().transpose(0, 2, 3, 1)))


def test_a_file_of_model_save_gives_its_weights_alone(tmp_path):
    model, other = small(), small()
    model.compile("adam", "mse")
    model.fit(np.ones((4, 5)), np.ones((4, 3)), verbose=0)
    model.save(tmp_path / "m.safetensors", training=True)
    other.load_weights(tmp_path / "m.safetensors")
    assert same(model.state_dict(), other.state_dict()) and other.loss is None


def test_loading_leaves_the_optimizer_as_it_is(tmp_path):
    model = small()
    model.compile("adam", "mse")
    model.save_weights(tmp_path / "w.safetensors")
    model.fit(np.ones((4, 5)), np.ones((4, 3)), verbose=0)
    before = {name: a.copy() for name, a in model.optimizer_state.items()}
    model.load_weights(tmp_path / "w.safetensors")
    assert model.optimizer.iterations == 1 and all(
        np.array_equal(a, before[name]) for name, a in model.optimizer_state.items()
    )


def test_half_precision_files_are_widened(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    model = small()
    exact = {name: torch.from_numpy(a) for name, a in model.state_dict().items()}
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        save_file({name: a.to(kind) for name, a in exact.items()}, tmp_path / "w.safetensors")
        model.load_weights(tmp_path / "w.safetensors")
        for name, a in model.state_dict().items():
            assert a.dtype == np.float32 and np.array_equal(a, exact[name].to(kind).float().numpy()), (
                kind,
                name,
            )


def test_a_type_that_numpy_lacks_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    save_file({"0.weight": torch.ones(4, 5).to(torch.float8_e4m3fn)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelFileError, match=r"0.weight has a type.*Received: F8_E4M3.*tensor.float\(\)"):
        small().load_weights(tmp_path / "w.safetensors")


# -- names of another module ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "there"),
    [
        ({"0": "hidden", "2": "head.fc"}, ["hidden.bias", "hidden.weight", "head.fc.bias", "head.fc.weight"]),
        ({"0.weight": "w", "2": "2"}, ["w", "0.bias", "2.weight", "2.bias"]),
        (lambda name: f"net.{name}", ["net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias"]),
    ],
    ids=["modules", "arrays", "function"],
)
def test_names_say_what_the_arrays_are_called_there(names, there, tmp_path):
    first, second = small(), small()
    second.load_state_dict({name: a * 0 for name, a in second.state_dict().items()})
    first.save_weights(tmp_path / "w.safetensors", names=names)
    assert sorted(safetensors.load_file(tmp_path / "w.safetensors")) == sorted(there)
    second.load_weights(tmp_path / "w.safetensors", names=names)
    assert same(first.state_dict(), second.state_dict())


def test_the_longest_beginning_wins():
    from xpnet.interop.weights import _renamed

    names = {"2": "block", "2.body": "trunk", "2.body.0.bias": "b"}
    ours = ["1.weight", "2.body.0.weight", "2.body.0.bias", "2.shortcut.0.weight", "21.weight"]
    assert list(_renamed(ours, names).values()) == [
        "1.weight", "trunk.0.weight", "b", "block.shortcut.0.weight", "21.weight",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ({"1": "conv"}, ValueError, "does not have. Received: '1'. Expected: some of"),
        ({"0.weigth": "w"}, ValueError, r"Received: '0.weigth'. Expected: some of 0.weight,"),
        ({"0": "fc", "2": "fc"}, ValueError, "one name. Received: 'fc.weight' for 0.weight and 2.weight"),
        (lambda name: "all", ValueError, "one name. Received: 'all' for 0.weight and 0.bias and"),
        ("conv", TypeError, r"names must be a dict or a function. Received: 'conv'"),
        (lambda name: 3, TypeError, r"names must turn a name into a name. Received: \('0.weight', 3\)"),
    ],
)
def test_names_that_make_no_sense_are_refused(names, error, message, tmp_path):
    model = small()
    with pytest.raises(error, match=message):
        model.save_weights(tmp_path / "w.safetensors", names=names)
    assert os.listdir(tmp_path) == []


# -- wrong weights -------------------------------------------------------------------------------------------

WRONG = {
    "shape": (
        lambda s: s.update({"2.weight": np.ones((7, 4), "f"), "2.bias": np.ones(9, "f")}),
        r"layer 1 'dense_1': 2.weight does not fit. Received: \(7, 4\) in w.safetensors. Expected: \(3, 4\)$",
    ),
    "keras's order": (
        lambda s: s.update({"2.weight": s["2.weight"].T.copy(), "0.weight": s["0.weight"].T.copy()}),
        r"0.weight does not fit. Received: \(5, 4\).*; it looks like \(in, out\).*interop.keras",
    ),
    "another layer": (
        lambda s: s.update({"0.weight": np.ones((4, 5, 1, 1), "f")}),
        r"0.weight does not fit. Received: \(4, 5, 1, 1\).*; as many elements in another shape",
    ),
    "missing": (
        lambda s: s.pop("2.weight") is s.pop("2.bias"),
        r"layer 1 'dense_1': 2.weight is missing in w.safetensors. Received: 2 arrays, all of which the "
        r"model knows. Expected: 2.weight of shape \(3, 4\)",
    ),
    "renamed": (
        lambda s: s.update({"fc2.weight": s.pop("2.weight"), "fc2.bias": s.pop("2.bias")}),
        r"2.weight is missing.*the nearest fc2.weight \(3, 4\).*where 'fc2' is this layer, "
        r"names=\{'2': 'fc2', ...\} says so",
    ),
    "prefixed": (
        lambda s: [s.update({f"net.{name}": s.pop(name)}) for name in list(s)],
        r"0.weight is missing.*the nearest net.0.weight \(4, 5\).*names=lambda name: 'net.' \+ name finds it",
    ),
    "too many": (
        lambda s: s.update({"4.weight": np.ones((2, 3), "f"), "4.bias": np.ones(2, "f")}),
        r"no place for an array. Received: 4.\w+ of shape \(2.*in w.safetensors, and 1 more. "
        r"Expected: 4 arrays",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_weights_name_the_first_mismatch_and_change_nothing(case, tmp_path):
    change, message = WRONG[case]
    model = small()
    before = model.state_dict()
    state = {name: a + 1 for name, a in before.items()}
    change(state)
    safetensors.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ShapeError, match=message):
        model.load_weights(tmp_path / "w.safetensors")
    assert same(model.state_dict(), before)


def test_strict_false_takes_what_fits_by_name(tmp_path):
    model, other = small(), small(units=7)
    state = {name: a + 1 for name, a in other.state_dict().items() if name.startswith("0.")}
    safetensors.save_file(state | {"strange": np.ones(2, "f")}, tmp_path / "w.safetensors")
    before = model.state_dict()
    model.load_weights(tmp_path / "w.safetensors", strict=False)
    assert np.array_equal(model.state_dict()["0.weight"], state["0.weight"])
    assert np.array_equal(model.state_dict()["2.weight"], before["2.weight"])
    safetensors.save_file({"strange": np.ones(2, "f")}, tmp_path / "w.safetensors")
    with pytest.raises(ShapeError, match=r"none of the arrays belongs to the model. Received: strange"):
        model.load_weights(tmp_path / "w.safetensors", strict=False)
    safetensors.save_file({"0.weight": np.ones((2, 2), "f")}, tmp_path / "w.safetensors")
    with pytest.raises(ShapeError, match=r"0.weight does not fit"):
        model.load_weights(tmp_path / "w.safetensors", strict=False)


def test_skip_mismatch_takes_what_fits_by_name_and_shape(tmp_path):
    model, other = small(), small(units=7)
    other.load_state_dict({name: a + 1 for name, a in other.state_dict().items()})
    other.save_weights(tmp_path / "w.safetensors")
    before = model.state_dict()
    model.load_weights(tmp_path / "w.safetensors", skip_mismatch=True)
    assert np.array_equal(model.state_dict()["0.weight"], other.state_dict()["0.weight"])
    assert np.array_equal(model.state_dict()["2.weight"], before["2.weight"])


@pytest.mark.parametrize("save", ["save", "save_weights"])
def test_overwrite_false_keeps_what_is_there(save, tmp_path):
    path = tmp_path / "w.safetensors"
    getattr(small(), save)(path, overwrite=False)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"w\.safetensors exists already. Expected: another name"):
        getattr(small(units=7), save)(filepath=path, overwrite=False)
    assert path.read_bytes() == before


def test_arrays_that_are_no_numbers_are_refused(tmp_path):
    state = small().state_dict()
    safetensors.save_file(state | {"0.bias": np.ones(4, np.complex64)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelFileError, match=r"0.bias has a type.*Received: C64"):
        small().load_weights(tmp_path / "w.safetensors")


def test_an_unbuilt_model_says_so(tmp_path):
    with pytest.raises(xpnet.NotBuiltError, match="input shape"):
        Sequential([L.Dense(2)]).load_weights(tmp_path / "w.safetensors")
    with pytest.raises(xpnet.NotBuiltError, match="input shape"):
        Sequential([L.Dense(2)]).save_weights(tmp_path / "w.safetensors")
    assert os.listdir(tmp_path) == []


# -- other files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_save_is_refused_with_the_line_that_converts_it(zipped, tmp_path):
    torch = pytest.importorskip("torch")
    model, other = small(), small()
    state = {name: torch.from_numpy(a + 1) for name, a in model.state_dict().items()}
    torch.save(state, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ModelFileError, match=r"a pickle, as torch.save writes.*none is opened here"
    ) as refused:
        other.load_weights(tmp_path / "net.pt")
    line = str(refused.value).split("Convert it where you trust it: ")[1].split(" (of a checkpoint")[0]
    words = shlex.split(line)
    assert words[:2] == ["python", "-c"]
    subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, check=True, timeout=120)
    other.load_weights(tmp_path / "net.safetensors")
    assert np.array_equal(other.state_dict()["2.bias"], model.state_dict()["2.bias"] + 1)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.npz", lambda path: np.savez(path, a=np.ones(2)), r"\.npz file: model.load_state_dict"),
        ("a.onnx", lambda path: path.write_bytes(b"\x08\x07" * 40), "interop.onnx.load"),
        ("a.bin", lambda path: path.write_bytes(b"nothing of use"), "cut short, or in another format"),
    ],
)
def test_other_files_are_named_with_the_way_to_use_them(name, make, message, tmp_path):
    make(tmp_path / name)
    with pytest.raises(ModelFileError, match=rf"{name} is not a readable safetensors file.*{message}"):
        small().load_weights(tmp_path / name)
    with pytest.raises(ModelFileError, match=message):
        xpnet.load_model(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model file .*w\.safetensors"):
        small().load_weights(tmp_path / "w.safetensors")


# -- PyTorch -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def to_torch(torch):
    from xpnet.interop.torch import to_torch

    return to_torch


@pytest.fixture(scope="module")
def from_torch(torch):
    from xpnet.interop.torch import from_torch

    return from_torch


def channels_first(a, model):
    return np.ascontiguousarray(a.transpose(0, 3, 1, 2)) if a.ndim == 4 and model._last else a


def outputs(net, x):
    import torch

    with torch.no_grad():
        return net(torch.from_numpy(x)).numpy()


@pytest.mark.torch
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layer_has_a_module_that_computes_the_same(case, data_format, to_torch, from_torch):
    shape = case.shape
    if data_format == "channels_last" and len(shape) == 3:
        shape = (*shape[1:], shape[0])
    try:
        model = Sequential(
            [case.make()], input_shape=shape, data_format=data_format, precision="float64", seed=1
        )
    except ValueError:
        pytest.skip("a Reshape that has this meaning in channels_first alone")
    randomise(model, np.random.default_rng(2))
    net = to_torch(model)
    assert list(net.state_dict()) == list(model.state_dict())
    x = np.random.default_rng(3).standard_normal((3, *shape)) - 2  # a border of zeros would win a maximum
    y = channels_first(model.predict(x), model)
    np.testing.assert_allclose(outputs(net, channels_first(x, model)), y, rtol=1e-9, atol=1e-11)
    if data_format == "channels_first":
        back = from_torch(net, case.shape, precision="float64")
        np.testing.assert_allclose(back.predict(x), y, rtol=1e-9, atol=1e-11)


@pytest.mark.torch
def test_files_go_both_ways(to_torch, tmp_path):
    from safetensors.torch import load_file, save_file

    model, other, x = stack(0), stack(1), images()
    net = to_torch(other)  # of other weights
    model.save_weights(tmp_path / "w.safetensors")
    net.load_state_dict(load_file(tmp_path / "w.safetensors"))
    np.testing.assert_allclose(outputs(net, x), model.predict(x), rtol=1e-5, atol=1e-5)
    save_file({name: a + 0.125 for name, a in net.state_dict().items()}, tmp_path / "t.safetensors")
    other.load_weights(tmp_path / "t.safetensors")
    for name, a in model.state_dict().items():
        assert np.array_equal(other.state_dict()[name], np.asarray(a + 0.125, a.dtype)), name


@pytest.mark.torch
def test_masks_and_factors_of_both_kinds_of_dropout(torch, to_torch):
    x = np.ones((4, 6, 20, 20), np.float32)
    for layer, kept, values in [
        (L.Dropout(0.25), 1.0, {0.0, 4 / 3}),
        (L.Dropout(0.25, scaling="inference"), 0.75, {0.0, 1.0}),
        (L.SpatialDropout2D(0.25, scaling="inference"), 0.75, {0.0, 1.0}),
    ]:
        net = to_torch(Sequential([layer], input_shape=x.shape[1:]))
        assert np.unique(outputs(net, x)) == pytest.approx([kept])
        assert np.unique(outputs(net.train(), x)) == pytest.approx(sorted(values))


@pytest.mark.torch
def test_running_statistics_move_alike_there_and_back(torch, to_torch, from_torch):
    model = Sequential(
        [L.BatchNormalization(momentum=0.7)], input_shape=(2, 3, 3), precision="float64", seed=0
    )
    model.compile(xpnet.optimizers.SGD(0.0), "mse")
    net, x = to_torch(model).train(), np.random.default_rng(0).standard_normal((4, 2, 3, 3)) + 5
    back = from_torch(net, (2, 3, 3), precision="float64")
    back.compile(xpnet.optimizers.SGD(0.0), "mse")
    outputs(net, x)
    for one in (model, back):
        one.train_on_batch(x, x)
        for name, value in one.state_dict().items():
            np.testing.assert_allclose(value, net.state_dict()[name].numpy(), rtol=1e-9, err_msg=name)


@pytest.mark.torch
def test_a_vgg_of_pytorchs_comes_over(torch, from_torch, tmp_path):
    """As torchvision writes it: nested, with dropout in place, an adaptive pooling, one ReLU used twice."""
    nn = torch.nn
    torch.manual_seed(0)
    relu = nn.ReLU(inplace=True)
    features = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), relu, nn.MaxPool2d(2, 2),
        nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12, affine=False), relu, nn.MaxPool2d(2),
    )  # fmt: skip
    head = nn.Sequential(nn.Linear(12 * 4, 20), relu, nn.Dropout(), nn.Linear(20, 5), nn.Softmax(dim=-1))
    net = nn.Sequential(features, nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), head)
    x = images(4, (3, 16, 16))
    net.train()(torch.from_numpy(images(32, (3, 16, 16))))  # running statistics of its own
    model = from_torch(net, (3, 16, 16), seed=3, name="vgg")
    assert net.training, "from_torch leaves the mode as it was"
    np.testing.assert_allclose(model.predict(x), outputs(net.eval(), x), rtol=1e-5, atol=1e-6)
    assert (model.seed, model.name, model.device) == (3, "vgg", "cpu")
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.arange(4), verbose=0)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda nn: nn.Linear(3, 2), (3,), "takes a chain of modules. Received: Linear.*Sequential"),
        (lambda nn: nn.Sequential(nn.Linear(3, 2), nn.PReLU()), (3,), r"module '1' \(PReLU\) has no"),
        (  # before anything runs: PyTorch's own error would be of the layer after it
            lambda nn: nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 4), nn.Linear(4, 2)), (3,),
            r"module '1' \(LSTM\) has no",
        ),
        (
            lambda nn: nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"))),
            (1, 5, 5),
            r"module '0.0' \(Conv2d\).*padding_mode='reflect'. Expected: zeros",
        ),
        (lambda nn: nn.Sequential(nn.Upsample(scale_factor=1.5)), (1, 4, 4), "whole factors"),
        (lambda nn: nn.Sequential(nn.MaxPool2d(2, dilation=2)), (1, 8, 8), "dilation=2"),
        (lambda nn: nn.Sequential(nn.AdaptiveAvgPool2d(3)), (1, 8, 8), r"maps of \[8, 8\] to \[3, 3\]"),
        (lambda nn: nn.Sequential(nn.LayerNorm(4)), (3, 4, 4), "all features of a sample"),
        (lambda nn: nn.Sequential(nn.Softmax(dim=2)), (3, 4, 4), "dim=1"),
        (lambda nn: nn.Sequential(nn.LeakyReLU(1.5)), (3,), r"LeakyReLU.*between 0 and 1"),
        (lambda nn: nn.Sequential(*[nn.Linear(3, 3)] * 2), (3,), "a second place in the net"),
        (lambda nn: nn.Sequential(nn.BatchNorm1d(3, momentum=None)), (3,), "a momentum"),
    ],
)  # fmt: skip
def test_modules_without_a_counterpart_are_named(make, shape, message, torch, from_torch):
    with pytest.raises(TypeError, match=message):
        from_torch(make(torch.nn), shape)


@pytest.mark.torch
def test_an_input_shape_that_the_net_does_not_take_is_named(torch, from_torch):
    with pytest.raises(ShapeError, match=r"samples of input_shape=\(4,\). PyTorch says: "):
        from_torch(torch.nn.Sequential(torch.nn.Linear(3, 2)), 4)


@pytest.mark.torch
def test_a_layer_of_ones_own_has_no_module(to_torch):
    class Twice(L.Dense):
        def forward(self, x, *, train):
            y, cache = super().forward(x, train=train)
            return 2 * y, cache

    with pytest.raises(TypeError, match=r"layer 0 'mine': Twice has no module in PyTorch"):
        to_torch(Sequential([Twice(2, name="mine")], input_shape=(3,)))


# -- the example ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_the_example_agrees_with_what_is_installed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
    path = Path(__file__).parents[1] / "examples" / "weights_exchange.py"
    spec = importlib.util.spec_from_file_location("example_weights_exchange", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    apart = example.main(["--epochs", "3", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    for library, label in [("torch", "PyTorch"), ("keras", "Keras")]:
        if library in apart:
            assert apart[library] < 1e-4 and f"{label}: predictions at most" in shown
        else:
            assert f"{label}: not installed (pip install" in shown
    percent = [float(number) for number in re.findall(r"([\d.]+)%", shown)]
    assert len(percent) == 1 + len(apart) and min(percent) > 90
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert example.main(["--epochs", "1", "--out", str(tmp_path)]) == {}
    assert capsys.readouterr().out.count("not installed") == 2
