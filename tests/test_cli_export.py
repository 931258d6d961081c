"""`xpnet export`: what is written, what is told, and how errors end."""

import importlib.util
import json
import sys

import numpy as np
import pytest

import xpnet
from xpnet import cli
from xpnet import layers as L
from xpnet.commands import card, predict

onnx = pytest.importorskip("onnx", reason="pip install 'xpnet[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

CARD = card.Card("pets", ("cat", "dog", "bird"), 255, 0.0, 1.0, 0.5)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def xp(capsys):
    """Run `xpnet export`: (exit code, stdout, stderr)."""

    def run(*argv):
        capsys.readouterr()
        code = cli.main(["export", *map(str, argv)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def pets(own_folder):
    """A model file of a run, as `xpnet train` writes it, and the model."""
    model = save(own_folder / "run" / "model.safetensors", L.Dense(3))
    return own_folder / "run", model


def save(path, *last, loss="sparse_categorical_crossentropy", about=CARD, **more):
    path.parent.mkdir(exist_ok=True)
    layers = [L.Conv2D(2, 3, activation="relu"), L.Flatten(), *last]
    shape = (6, 7, 1) if more.get("data_format") == "channels_last" else (1, 6, 7)
    model = xpnet.Sequential(layers, input_shape=shape, device="cpu", seed=0, name="pets-cnn", **more)
    if loss is not None:
        model.compile("adam", loss)
    if about is None:
        model.save(path)
    else:
        card.save(model, about, path)
    return model


def outputs(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]


def one_line(err):
    assert err.startswith("xpnet: error: ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def samples(model, n=5):
    return np.random.default_rng(0).random((n, *model.input_shape), np.float32)


def test_a_run_is_exported_beside_its_model(xp, pets):
    folder, model = pets
    code, out, err = xp(folder)
    assert code == 0 and not err
    assert "model: pets-cnn, trained on pets\n" in out
    path = folder / "model.onnx"
    assert f"wrote {path}\n" in out
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "model.onnx"}
    x = samples(model)
    np.testing.assert_allclose(outputs(path, x), model.predict(x), atol=1e-5)


def test_what_is_told_of_running_it_runs(xp, pets):
    folder, model = pets
    _, out, _ = xp(folder)
    told, code = out.split("to run it: pip install onnxruntime\n")
    assert "# x: float32, (N, 1, 6, 7), from 0 to 1" in code
    names = {"x": samples(model)}
    exec("\n".join(line.strip() for line in code.splitlines()), names)
    np.testing.assert_allclose(names["y"], model.predict(names["x"]), atol=1e-5)
    difference = float(told.split("differs by at most ")[1].split(",")[0])
    assert 0 <= difference < 1e-5
    assert f"ONNX Runtime {onnxruntime.__version__}" in told


def test_a_file_of_ones_own_name_and_opset(xp, pets):
    folder, _ = pets
    code, out, _ = xp(folder / "model.safetensors", "pets.onnx", "--opset", 19)
    assert code == 0 and "wrote pets.onnx\n" in out
    assert onnx.load("pets.onnx").opset_import[0].version == 19


def test_the_file_tells_of_the_data(xp, pets):
    xp(pets[0], "pets.onnx")
    told = {p.key: p.value for p in onnx.load("pets.onnx").metadata_props}
    assert told["data"] == "pets" and json.loads(told["classes"]) == ["cat", "dog", "bird"]
    assert json.loads(told["full"]) == 255


@pytest.mark.parametrize(
    ("last", "loss", "added"),
    [
        ([L.Dense(3)], "sparse_categorical_crossentropy", "added: softmax"),
        ([L.Dense(3)], None, "added: softmax"),
        ([L.Dense(3)], "binary_crossentropy", "added: sigmoid"),
        ([L.Dense(1)], "binary_crossentropy", "added: sigmoid"),
        ([L.Dense(1)], None, "added: sigmoid"),
        ([L.Dense(3, activation="softmax")], "sparse_categorical_crossentropy", "probabilities already"),
    ],
)
def test_softmax_makes_probabilities(xp, own_folder, last, loss, added):
    model = save(own_folder / "m.safetensors", *[type(one)(**one.get_config()) for one in last], loss=loss)
    code, out, _ = xp("m.safetensors", "--softmax")
    assert code == 0 and added in out
    x = samples(model)
    p = outputs("m.onnx", x)
    np.testing.assert_allclose(p, predict.probabilities(model, model.predict(x))[:, -p.shape[1] :], atol=1e-5)


def test_softmax_of_maps_is_over_the_channels(xp, own_folder):
    """A segmentation net in the user's order."""
    path = own_folder / "m.safetensors"
    layers = [L.Conv2D(4, 3)]
    model = xpnet.Sequential(layers, input_shape=(6, 7, 1), data_format="channels_last", device="cpu", seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(path)
    code, out, _ = xp(path, "--softmax")
    assert code == 0 and "(N, 6, 7, 1)\n" in out
    x = samples(model)
    p, logits = outputs("m.onnx", x), model.predict(x)
    np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(p, np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True), atol=1e-5)


def test_a_regression_has_no_softmax(xp, own_folder):
    save(own_folder / "m.safetensors", L.Dense(3), loss="mean_squared_error")
    code, _, err = xp("m.safetensors", "--softmax")
    assert code == 2 and "for classifiers" in one_line(err)
    assert not (own_folder / "m.onnx").exists()
    assert xp("m.safetensors")[0] == 0


def test_models_saved_in_python_need_no_card(xp, own_folder):
    model = save(own_folder / "m.safetensors", L.Dense(3), about=None, data_format="channels_last")
    code, out, _ = xp("m.safetensors")
    assert code == 0 and "model: pets-cnn\n" in out and "(N, 6, 7, 1)\n" in out
    x = samples(model)
    np.testing.assert_allclose(outputs("m.onnx", x), model.predict(x), atol=1e-5)
    assert not onnx.load("m.onnx").metadata_props


def test_an_earlier_file_is_replaced_only_when_told(xp, pets, own_folder):
    path = own_folder / "pets.onnx"
    path.write_bytes(b"earlier")
    code, _, err = xp(pets[0], path)
    assert code == 2 and "say --overwrite" in one_line(err)
    assert path.read_bytes() == b"earlier"
    assert xp(pets[0], path, "--overwrite")[0] == 0
    onnx.checker.check_model(onnx.load(path))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nowhere"], "there is no model file"),
        (["run", "nowhere/pets.onnx"], "there is no folder"),
        (["run", "run"], "is a folder"),
        (["run", "--opset", "7"], "opset must be a whole number from 18"),
        (["run", "--opset", "new"], "opset must be a whole number"),
        (["noise.safetensors"], "not a readable safetensors file"),
        ([], "MODEL"),
    ],
)
def test_mistakes_are_told_in_one_line(xp, pets, own_folder, argv, words):
    (own_folder / "noise.safetensors").write_bytes(b"noise" * 100)
    code, _, err = xp(*argv)
    assert code == 2 and words in one_line(err)
    assert not list(own_folder.rglob("*.onnx"))


def test_a_missing_extra_is_named_before_the_work(xp, pets, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("onnx.", "xpnet.interop.onnx"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(xpnet, "load_model", lambda *_, **__: pytest.fail("the model was read"))
    code, _, err = xp(pets[0])
    assert code == 2 and "pip install 'xpnet[onnx]'" in one_line(err)


def test_without_onnx_runtime_nothing_is_compared_but_the_file_written(xp, pets, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else find(name, *a)
    )
    code, out, _ = xp(pets[0])
    assert code == 0 and "not compared with ONNX Runtime" in out and "pip install onnxruntime" in out
    assert (pets[0] / "model.onnx").exists()


def test_a_file_for_newer_runtimes_is_written_uncompared(xp, pets):
    newest = onnx.defs.onnx_opset_version()
    code, out, err = xp(pets[0], "--opset", newest)
    assert code == 0 and not err
    proto = onnx.load(pets[0] / "model.onnx")
    assert proto.opset_import[0].version == newest
    try:
        onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:
        assert f"not compared: ONNX Runtime {onnxruntime.__version__} does not load it" in out
    else:
        assert "differs by at most" in out


def test_a_file_that_computes_something_else_is_not_written(xp, pets, monkeypatch):
    predicted = xpnet.Sequential.predict
    monkeypatch.setattr(xpnet.Sequential, "predict", lambda *a: predicted(*a) + 0.01)
    code, _, err = xp(pets[0])
    assert code == 1 and "computes something else" in err and "nothing was written" in err
    assert not (pets[0] / "model.onnx").exists()


def test_a_model_that_diverged_is_exported_as_it_is(xp, own_folder):
    model = save(own_folder / "m.safetensors", L.Dense(3))
    model.load_state_dict({"3.bias": np.full(3, np.nan, np.float32)}, strict=False)
    model.save(own_folder / "m.safetensors")
    code, out, _ = xp("m.safetensors")
    assert code == 0 and "not finite" in out
    assert np.isnan(outputs("m.onnx", samples(model))).all()
