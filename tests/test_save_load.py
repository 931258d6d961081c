"""Model files: they bring everything back, are written whole or not at all, and run no code."""

import json
import os
import pickle

import numpy as np
import pytest

import xpnet
from xpnet import (
    ModelFileError,
    Sequential,
    activations,
    initializers,
    losses,
    metrics,
    optimizers,
    schedules,
)
from xpnet.config import describe
from xpnet.layers import (
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    GroupNormalization,
    Layer,
    LayerNormalization,
    MaxPooling2D,
    Normalization,
    Rescaling,
    Reshape,
    Residual,
    SpatialDropout2D,
    UpSampling2D,
    ZeroPadding2D,
)

safetensors = pytest.importorskip("safetensors.numpy")


def images(n=20):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 2, 8, 8)).astype(np.float32), rng.integers(0, 3, n)


def stack():
    return [Conv2D(4, 3, activation="relu"), BatchNormalization(), Flatten(), Dropout(0.4), Dense(3)]


def small(seed=1, optimizer="adam", **kwargs):
    model = Sequential(stack(), input_shape=(2, 8, 8), seed=seed, **kwargs)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


def again(model, path, **kwargs):
    model.save(path)
    return xpnet.load_model(path, **kwargs)


# -- what comes back -----------------------------------------------------------------------------------------

LAYERS = {
    "conv": [Conv2D(4, (3, 2), strides=(2, 1), padding="same", activation="relu", use_bias=False)],
    "grouped conv": [Conv2D(4, 3, groups=2, dilation_rate=2, padding=(1, 2), kernel_initializer="he_normal")],
    "max pool": [MaxPooling2D((3, 2), strides=2, padding=1, ceil_mode=True)],
    "average pool": [AveragePooling2D(3, padding="same", count_include_pad=True)],
    "global average": [GlobalAveragePooling2D(), Dense(3)],
    "global max": [GlobalMaxPooling2D(), Dense(3)],
    "zero padding": [ZeroPadding2D(((1, 0), (2, 1)))],
    "norms": [BatchNormalization(0.9, 1e-5), LayerNormalization(1e-4), LayerNormalization(axis="channels")],
    "reshape": [Flatten(), Reshape((4, 8, -1)), Reshape(-1), Dense(4, bias_initializer="ones", name="end")],
    "dropout": [Dropout(0.25, scaling="inference"), Flatten()],
    "activation": [Activation(name) for name in ("relu", "tanh", "silu", "softmax")],
    "residual": [
        Residual([Conv2D(4, 3, padding=1), BatchNormalization()], shortcut=[Conv2D(4, 1)], activation="relu")
    ],
    "identity residual": [Residual(Conv2D(2, 3, padding=1))],
    "concatenate": [Concatenate([[Conv2D(2, 1)], [], [Conv2D(1, 3, padding=1), Activation("elu")]])],
    "transposed conv": [
        Conv2DTranspose(4, 3, 2, "same", activation="relu"),
        Conv2DTranspose(2, (3, 2), strides=2, padding=1, output_padding=1, use_bias=False),
    ],
    "upsampling": [UpSampling2D((2, 3)), UpSampling2D(2, interpolation="bilinear")],
    "spatial dropout": [SpatialDropout2D(0.3)],
    "group norm": [GroupNormalization(2, epsilon=1e-4), GroupNormalization(-1)],
    "scale": [Rescaling(1 / 255, offset=-1), Normalization(mean=[1.0, 2.0], variance=[3.0, 0.5])],
    "frozen": [Conv2D(2, 3, trainable=False, name="frozen")],
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_comes_back_with_its_arguments_weights_and_predictions(name, tmp_path):
    fresh = [xpnet.config.restore(describe(layer)) for layer in LAYERS[name]]
    model = Sequential(fresh, input_shape=(2, 8, 8), seed=4, name="mine")
    loaded = again(model, tmp_path / "model.safetensors")
    x, _ = images(3)
    assert describe(loaded.layers) == describe(LAYERS[name])
    assert [layer.trainable for layer in loaded.layers] == [layer.trainable for layer in model.layers]
    assert same(loaded.state_dict(), model.state_dict())
    assert np.array_equal(loaded.predict(x), model.predict(x))
    assert (loaded.name, loaded.seed, loaded.loss) == ("mine", 4, None)


def test_the_table_above_covers_every_layer():
    def kinds(layers):
        return {type(one).__name__ for one in layers} | {
            kind for one in layers for branch in one.children().values() for kind in kinds(branch)
        }

    known = {value.__name__ for value in vars(xpnet.layers).values() if isinstance(value, type)}
    known = {name for name in known if issubclass(getattr(xpnet.layers, name), Layer)}
    assert {"Layer"} | set().union(*map(kinds, LAYERS.values())) == known


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_data_format_and_precision_come_back(data_format, precision, tmp_path):
    shape = (2, 8, 8) if data_format == "channels_first" else (8, 8, 2)
    model = Sequential(stack(), input_shape=shape, data_format=data_format, precision=precision)
    loaded = again(model, tmp_path / "model")
    assert (loaded.data_format, loaded.precision, loaded.input_shape) == (data_format, precision, shape)
    x = np.random.default_rng(0).standard_normal((2, *shape))
    assert np.array_equal(loaded.predict(x), model.predict(x)) and loaded.predict(x).dtype == precision


OBJECTS = [
    *(cls() for cls in dict.fromkeys(activations.TABLE.values())),
    activations.LeakyReLU(0.3),
    activations.ELU(0.7),
    activations.GELU(approximate=True),
    *(cls() for cls in dict.fromkeys(initializers.TABLE.values())),
    initializers.RandomNormal(stddev=0.1),
    initializers.RandomUniform(-0.3, 0.2),
    initializers.Constant([[1.0, 2.0]]),
    initializers.VarianceScaling(3.0, "fan_out", "uniform"),
    *(cls() for cls in losses.TABLE.values()),
    losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1, reduction="sum"),
    losses.Huber(0.3, reduction="sum"),
    *(cls() for cls in metrics.TABLE.values()),
    metrics.TopKCategoricalAccuracy(3),
    metrics.F1Score(average=None),
    *(cls() for cls in optimizers.TABLE.values()),
    optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, clipnorm=1.0),
    optimizers.RMSprop(momentum=0.5, centered=True, clipvalue=0.5),
    optimizers.Adagrad(0.01, initial_accumulator_value=0, epsilon=0, global_clipnorm=2.0),
    schedules.Constant(0.1),
    schedules.StepDecay(0.1, 5, 0.5),
    schedules.PiecewiseConstantDecay([3, 6], [0.1, 0.01, 0.001]),
    schedules.ExponentialDecay(0.1, 5, 0.9, staircase=True),
    schedules.CosineDecay(0.0, 9, alpha=0.1, warmup_target=0.1, warmup_steps=2),
    optimizers.Adam(schedules.WarmUp(schedules.CosineDecay(0.1, 9), 3)),
]


@pytest.mark.parametrize("value", OBJECTS, ids=repr)
def test_every_small_object_survives_json_and_means_the_same(value):
    text = json.dumps(describe(value))
    twin = xpnet.config.restore(json.loads(text))
    assert type(twin) is type(value) and json.dumps(describe(twin)) == text and repr(twin) == repr(value)
    if isinstance(value, schedules.Schedule):
        assert [twin(step) for step in range(12)] == [value(step) for step in range(12)]


def test_every_class_of_the_families_is_covered_above():
    listed = {type(value) for value in OBJECTS} | {schedules.WarmUp}
    for family, base in [
        (schedules, schedules.Schedule),
        (optimizers, optimizers.Optimizer),
        (losses, losses.Loss),
    ]:
        known = {
            v for v in vars(family).values() if isinstance(v, type) and issubclass(v, base) and v is not base
        }
        assert known <= listed


def test_how_the_model_was_compiled_comes_back(tmp_path):
    model = Sequential(stack(), input_shape=(2, 8, 8), seed=1)
    model.compile(
        optimizers.SGD(schedules.StepDecay(0.1, 2), momentum=0.9),
        losses.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["acc", metrics.TopKCategoricalAccuracy(2)],
    )
    loaded = again(model, tmp_path / "m.safetensors")
    x, y = images()
    assert repr(loaded.optimizer) == repr(model.optimizer) and repr(loaded.loss) == repr(model.loss)
    assert loaded.evaluate(x, y, return_dict=True) == model.evaluate(x, y, return_dict=True)
    string = again(small(), tmp_path / "s.safetensors")
    assert string.loss.from_logits is None, "a string loss must go on folding the last activation"


def test_a_plain_file_carries_no_optimizer_state_and_starts_it_afresh(tmp_path):
    model = small()
    x, y = images()
    model.fit(x, y, verbose=0)
    loaded = again(model, tmp_path / "m.safetensors")
    assert loaded.optimizer.iterations == 0 and not loaded.optimizer_state["m"].any()
    assert not any(
        name.startswith("optimizer.") for name in safetensors.load_file(tmp_path / "m.safetensors")
    )


def test_the_file_is_a_plain_safetensors_file_with_torchs_names(tmp_path):
    model = small()
    model.save(tmp_path / "m.safetensors")
    assert same(
        dict(sorted(safetensors.load_file(tmp_path / "m.safetensors").items())),
        dict(sorted(model.state_dict().items())),
    )


def test_torch_reads_the_file(tmp_path):
    torch = pytest.importorskip("torch")
    loader = pytest.importorskip("safetensors.torch")
    model = Sequential([Dense(4, activation="relu"), Dense(2)], input_shape=(3,))
    model.save(tmp_path / "m.safetensors")
    twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    twin.load_state_dict(loader.load_file(tmp_path / "m.safetensors"))
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    with torch.no_grad():
        assert np.allclose(twin(torch.tensor(x)).numpy(), model.predict(x), atol=1e-6)


# -- resuming ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: "adam",
        lambda: optimizers.SGD(schedules.CosineDecay(0.1, 12), momentum=0.9, nesterov=True),
        lambda: optimizers.RMSprop(centered=True, momentum=0.5),
        lambda: optimizers.Adagrad(0.01, initial_accumulator_value=1e-8),
    ],
    ids=["adam", "momentum and schedule", "rmsprop", "adagrad"],
)
def test_a_run_resumed_at_an_epochs_end_continues_to_the_bit(optimizer, tmp_path):
    x, y = images()
    whole, first = small(optimizer=optimizer()), small(optimizer=optimizer())
    history = whole.fit(x, y, batch_size=8, epochs=4, validation_split=0.2, verbose=0).history
    first.fit(x, y, batch_size=8, epochs=2, validation_split=0.2, verbose=0)
    first.save(tmp_path / "c.safetensors", training=True)
    resumed = xpnet.load_model(tmp_path / "c.safetensors")
    assert resumed.optimizer.iterations == first.optimizer.iterations > 0
    rest = resumed.fit(x, y, batch_size=8, epochs=4, initial_epoch=2, validation_split=0.2, verbose=0).history
    assert {k: v[2:] for k, v in history.items()} == rest
    assert same(resumed.state_dict(), whole.state_dict())
    a, b = whole._snapshot(), resumed._snapshot()
    assert same(a["optimizer"], b["optimizer"]) and a["step"] == b["step"] == 8


def test_without_training_true_a_resumed_run_differs(tmp_path):
    """The counter-check: the test above would notice if the optimizer's state were lost."""
    x, y = images()
    whole, first = small(), small()
    whole.fit(x, y, batch_size=8, epochs=4, verbose=0)
    first.fit(x, y, batch_size=8, epochs=2, verbose=0)
    resumed = again(first, tmp_path / "m.safetensors")
    resumed.fit(x, y, batch_size=8, epochs=4, initial_epoch=2, verbose=0)
    assert not same(resumed.state_dict(), whole.state_dict())


def test_saving_the_training_needs_a_compiled_model(tmp_path):
    with pytest.raises(xpnet.NotCompiledError, match=r"call model.compile"):
        Sequential([Dense(2)], input_shape=(3,)).save(tmp_path / "m", training=True)


# -- your own classes ----------------------------------------------------------------------------------------


class Scale(Layer):
    """y = factor x, with a weight of its own beside it."""

    def __init__(self, factor=2.0, **layer):
        super().__init__(**layer)
        self.factor = factor

    def build(self, in_shape, params):
        params.reserve(self, "shift", in_shape, lambda rng, shape: rng.standard_normal(shape))
        return in_shape

    def forward(self, x, *, train):
        return x * np.asarray(self.factor, x.dtype) + self.shift, None

    def backward(self, dy, cache):
        dy.sum(axis=0, out=self.dshift)
        dy *= self.factor
        return dy


def test_classes_of_ones_own_come_back_by_custom_objects(tmp_path):
    model = Sequential([Scale(3.0), Dense(2)], input_shape=(4,))
    path = tmp_path / "m.safetensors"
    model.save(path)
    with pytest.raises(
        ModelFileError, match=r"not known here. Received: 'custom.Scale'.*custom_objects=\{'Scale': Scale\}"
    ):
        xpnet.load_model(path)
    loaded = xpnet.load_model(path, custom_objects={"Scale": Scale})
    x = np.ones((2, 4))
    assert loaded.layers[0].factor == 3.0 and np.array_equal(loaded.predict(x), model.predict(x))


def test_a_function_that_cannot_be_described_is_refused_before_anything_is_written(tmp_path):
    model = Sequential([Dense(2, kernel_initializer=lambda rng, shape: rng.random(shape))], input_shape=(4,))
    with pytest.raises(TypeError, match=r"cannot be written to a file.*function of your own"):
        model.save(tmp_path / "m.safetensors")
    assert os.listdir(tmp_path) == []


# -- written whole or not at all -----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["save_file", "fsync", "replace"])
@pytest.mark.parametrize("method", ["save", "save_weights"])
def test_a_save_that_fails_leaves_the_old_file_and_no_litter(stage, method, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    model = small()
    getattr(model, method)(path)
    old = path.read_bytes()

    def half(tensors, filename, metadata=None):
        with open(filename, "wb") as file:
            file.write(b"half a fi")
        raise OSError("no space left on device")

    def refuse(*args):
        raise OSError("no space left on device")

    x, y = images()
    model.fit(x, y, verbose=0)
    if stage == "save_file":
        monkeypatch.setattr(safetensors, "save_file", half)
    else:
        monkeypatch.setattr(os, stage, refuse)
    with pytest.raises(OSError, match="no space left"):
        getattr(model, method)(path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["m.safetensors"]


def test_the_content_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, real=real: (order.append(name), real(*args))[1]
        )
    small().save(tmp_path / "m.safetensors")
    assert order == ["fsync", "replace"]


def test_saving_over_a_file_replaces_it_and_uses_the_users_permissions(tmp_path):
    path = tmp_path / "m.safetensors"
    small(seed=1).save(path)
    other = small(seed=2)
    other.save(str(path))
    assert same(xpnet.load_model(str(path)).state_dict(), other.state_dict())
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    path.chmod(0o640)
    other.save(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_one_and_the_file_it_names_is_written(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "best.safetensors").symlink_to(tmp_path / "runs" / "one.safetensors")
    small().save(tmp_path / "best.safetensors")
    assert (tmp_path / "best.safetensors").is_symlink()
    assert os.listdir(tmp_path / "runs") == ["one.safetensors"]


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing to write m.safetensors into"):
        small().save(tmp_path / "missing" / "m.safetensors")
    with pytest.raises(IsADirectoryError, match=r"is a folder. Expected: the name of a file"):
        small().save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_path_without_a_folder_goes_into_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small().save("m")
    assert os.listdir() == ["m"] and xpnet.load_model("m").built


# -- notes of one's own --------------------------------------------------------------------------------------


def test_metadata_goes_into_the_file_and_changes_nothing_else(tmp_path):
    model = small()
    model.save(tmp_path / "m.safetensors", metadata={"author": "me", "data": '{"classes": ["a", "b"]}'})
    with safetensors.safe_open(tmp_path / "m.safetensors", "numpy") as file:
        notes = file.metadata()
    assert (notes["author"], notes["data"]) == ("me", '{"classes": ["a", "b"]}')
    assert same(xpnet.load_model(tmp_path / "m.safetensors").state_dict(), model.state_dict())


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({"n": 3}, TypeError, r"metadata must map names to text. Received: \{'n': 3\}"),
        ({3: "n"}, TypeError, "must map names to text"),
        ({"compile": "x"}, ValueError, "a name that xpnet uses itself. Received: 'compile'"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(metadata, error, message, tmp_path):
    with pytest.raises(error, match=message):
        small().save(tmp_path / "m.safetensors", metadata=metadata)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("suffix", "instead"), [(".h5", "weights.h5"), (".onnx", "interop.onnx"), (".pt", "PyTorch")]
)
def test_a_name_that_promises_another_format_is_warned_of_and_loads_all_the_same(suffix, instead, tmp_path):
    path = tmp_path / f"m{suffix}"
    with pytest.warns(
        UserWarning, match=rf"m\{suffix} is named as an? .*safetensors file all the same.*{instead}"
    ):
        small().save(path)
    assert same(xpnet.load_model(path).state_dict(), small().state_dict())


# -- files that are no models --------------------------------------------------------------------------------


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model file .*nothing\.safetensors"):
        xpnet.load_model(tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError, match="no model file"):
        xpnet.load_model(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x00" * 100, b"\xff" * 100, b"PK\x03\x04" + b"\x00" * 60],
    ids=["empty", "text", "zeros", "ones", "zip"],
)
def test_a_file_that_is_no_safetensors_file_is_refused(content, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        ModelFileError, match=r"not a readable safetensors file.*cut short, or in another format"
    ):
        xpnet.load_model(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.999])
def test_a_file_that_is_cut_short_is_refused(share, tmp_path):
    path = tmp_path / "m.safetensors"
    small().save(path, training=True)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError, match=r"m.safetensors .*cut short"):
        xpnet.load_model(path)


def test_a_file_with_arrays_but_no_architecture_names_the_way_to_use_it(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.save_file({"0.weight": np.ones((2, 3), np.float32)}, path)
    with pytest.raises(ModelFileError, match=r"no xpnet architecture. Received: 1 arrays.*load_weights"):
        xpnet.load_model(path)


def test_a_pickle_is_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelFileError):
        xpnet.load_model(path)
    assert not (tmp_path / "exploded").exists()


def tampered(tmp_path, change_plan=None, change_tensors=None, change_meta=None):
    """The file of a small model with its metadata or arrays changed."""
    from safetensors import safe_open

    path = tmp_path / "m.safetensors"
    small().save(path, training=True)
    with safe_open(path, framework="numpy") as file:
        meta = file.metadata()
    tensors = safetensors.load_file(path)
    plan = json.loads(meta["architecture"])
    if change_plan:
        change_plan(plan)
        meta["architecture"] = json.dumps(plan)
    if change_tensors:
        change_tensors(tensors)
    if change_meta:
        change_meta(meta)
    safetensors.save_file(tensors, path, meta)
    return path


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            "plan",
            lambda p: p["layers"][0].update({"class": "os.system"}),
            "class that is not known here. Received: 'os.system'",
        ),
        ("plan", lambda p: p["layers"][0].update({"class": "layers.np"}), "not known here"),
        ("plan", lambda p: p["layers"][0].update({"class": "layers.__builtins__"}), "not known here"),
        ("plan", lambda p: p["layers"][0].update({"class": 3}), "not known here"),
        ("plan", lambda p: p["layers"][0].update(surprise=1), "cannot be rebuilt.*surprise"),
        ("plan", lambda p: p["layers"].append("relu"), "does not describe a model"),
        ("plan", lambda p: p["layers"].pop(0), "does not describe a model"),
        ("plan", lambda p: p.pop("input_shape"), "does not describe a model"),
        ("plan", lambda p: p.update(input_shape=None), "does not describe a model"),
        ("plan", lambda p: p.update(seed=-1), "does not describe a model.*seed"),
        ("plan", lambda p: p.update(precision="float8"), "does not describe a model.*precision"),
        ("tensors", lambda t: t.pop("0.weight"), "Missing: 0.weight"),
        ("tensors", lambda t: t.update(extra=np.ones(2)), "Not in the model: extra"),
        ("tensors", lambda t: t.update({"0.bias": np.ones(5, np.float32)}), "0.bias does not fit"),
        ("tensors", lambda t: t.pop("optimizer.0.weight.m"), "optimizer.0.weight.m of shape None"),
        (
            "tensors",
            lambda t: t.update({"optimizer.0.bias.m": np.ones(5, np.float32)}),
            r"0.bias.m of shape \(5,\). Expected: \(4,\)",
        ),
        ("meta", lambda m: m.update(architecture="{"), "does not describe a model"),
        ("meta", lambda m: m.update(architecture="[]"), "does not describe a model"),
        ("meta", lambda m: m.update(architecture="null"), "does not describe a model"),
        ("meta", lambda m: m.update(compile="[1]"), "does not describe a model"),
        ("meta", lambda m: m.update(training="{}"), "does not describe a model"),
        ("meta", lambda m: m.update(xpnet="99"), "has format '99'. Expected: '1'; a newer xpnet"),
        ("meta", lambda m: m.pop("xpnet"), "has format None"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused_with_the_reason(kind, change, message, tmp_path):
    with pytest.raises(ModelFileError, match=message):
        xpnet.load_model(tampered(tmp_path, **{f"change_{kind}": change}))
