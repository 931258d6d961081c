"""ONNX export: ONNX Runtime computes from the graph what the model computes here."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import strict_xp
from cases import CASES, assert_close, randomise

import xpnet
from xpnet import Sequential, ShapeError, activations, networks
from xpnet import layers as L

onnx = pytest.importorskip("onnx", reason="pip install 'xpnet[onnx]'")
ReferenceEvaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
ort = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

from xpnet.interop.onnx import export, register_exporter  # noqa: E402
from xpnet.interop.onnx.writer import EXPORTERS  # noqa: E402

exporting = sys.modules["xpnet.interop.onnx.export"]

OPSETS = (18, 20, 21, 23)  # the form of some operator differs between them; 21 is the default
every_layer = pytest.mark.parametrize("case", CASES, ids=str)


def runtime(proto):
    """A function that runs the graph in ONNX Runtime."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["output"], {"input": x})[0]


def assert_same(model, rng, proto=None, batches=(1, 7), rounding=None):
    """ONNX Runtime and the model agree to 1e-5 of the largest output (at least of 1), batch by batch.

    rounding: the same model in float64; where the model's own rounding is more than a fifth of that, five
    times it.
    """
    proto = export(model) if proto is None else proto
    onnx.checker.check_model(proto, full_check=True)
    run = runtime(proto)
    for n in batches:
        x = rng.standard_normal((n, *model.input_shape)).astype(np.float32)
        expected = model.predict(x)
        received = run(x)
        assert received.dtype == np.float32
        rtol = 1e-5
        if rounding is not None:
            own = np.abs(expected - rounding.predict(x)).max() / max(np.abs(expected).max(), 1)
            rtol = max(rtol, 5 * own)
        assert_close(received, expected, rtol, f"batch of {n}", least=1)
    return proto


def shape_of(value):
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)


# -- every layer ---------------------------------------------------------------------------------------------


@every_layer
@pytest.mark.parametrize("opset", OPSETS)
def test_every_layer_computes_the_same_in_onnx_runtime(case, opset, rng):
    model = case.model(precision="float32")
    proto = assert_same(model, rng, export(model, opset=opset))
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", opset)]


@every_layer
def test_every_layer_keeps_the_users_order(case, rng):
    """With data_format="channels_last" the graph takes and gives (N, H, W, C)."""
    if len(case.shape) == 3:
        C, H, W = case.shape
        case = case._replace(shape=(H, W, C))
    try:
        model = case.model(precision="float32", data_format="channels_last")
    except ShapeError:  # a Reshape to another number of elements, as sizes are read in another order
        pytest.skip("not this shape")
    proto = assert_same(model, rng)
    assert shape_of(proto.graph.input[0]) == ("N", *model.input_shape)
    assert shape_of(proto.graph.output[0]) == ("N", *model.output_shape)


@every_layer
def test_every_layer_in_double_precision_by_the_reference_of_onnx(case, rng):
    """Another implementation of the operators, in float64, finds the same to 1e-7: what ONNX keeps in float32
    (epsilon, alpha, scales) allows no more.
    """
    model = case.model()
    if case.setting in ("Conv2DTranspose-groups", "Conv2DTranspose-depthwise"):
        pytest.skip("ONNX's reference knows no groups here")
    proto = export(model, dtype="float64")
    assert {one.data_type for one in proto.graph.initializer} <= {
        onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64, *scales_of_resize(proto)
    }  # fmt: skip
    x = rng.standard_normal((2, *case.shape))
    (received,) = ReferenceEvaluator(proto).run(None, {"input": x})
    assert_close(received, model.predict(x), 1e-7, least=1)


def scales_of_resize(proto):
    return [onnx.TensorProto.FLOAT] if any(node.op_type == "Resize" for node in proto.graph.node) else []


def test_every_layer_and_activation_has_an_exporter():
    kinds = [getattr(L, name) for name in L.__all__]
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, L.Layer)]
    assert len(kinds) > 15
    wanted = {*kinds, *activations.TABLE.values()} - {L.Layer}
    missing = [kind.__name__ for kind in wanted if not any(base in EXPORTERS for base in kind.__mro__)]
    assert not missing


# -- networks ------------------------------------------------------------------------------------------------


def autoencoder():
    return [
        L.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
        L.Conv2D(4, 3, strides=2, padding="same"),
        L.GroupNormalization(2),
        L.Activation("silu"),
        L.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu"),
        L.UpSampling2D(2, "bilinear"),
        L.SpatialDropout2D(0.2),
        L.Conv2D(3, 3, padding="same", activation="sigmoid"),
    ]


NETWORKS = {
    "mlp": lambda: networks.mlp((3, 16, 16), 10),
    "cnn": lambda: networks.cnn((3, 16, 16), 10),
    "lenet": lambda: networks.lenet((3, 16, 16), 10),
    "vgg": lambda: networks.vgg((3, 16, 16), 10),
    "vgg-batch-norm": lambda: networks.vgg(
        (3, 16, 16), 10, blocks=((8,), (16, 16)), batch_norm=True, hidden=(32,)
    ),
    "resnet9": lambda: networks.resnet9((3, 16, 16), 10, width=16),
    "resnet18": lambda: networks.resnet18((3, 16, 16), 10, width=16),
    "autoencoder": autoencoder,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_networks_compute_the_same_in_onnx_runtime(name, data_format, rng):
    shape = (3, 16, 16) if data_format == "channels_first" else (16, 16, 3)
    model = Sequential(NETWORKS[name](), input_shape=shape, data_format=data_format, device="cpu", seed=1)
    # running statistics as after some training
    model.load_state_dict(
        {
            key: value + 0.1 * rng.random(value.shape)
            for key, value in model.state_dict().items()
            if "running" in key
        },
        strict=False,
    )
    assert_same(model, rng)


def test_every_builder_stands_among_the_networks():
    assert set(networks.BUILDERS) <= set(NETWORKS)


def grow(rng, precision="float32"):
    """A random network: layers that fit one another, for maps, then perhaps for vectors."""
    data_format = str(rng.choice(["channels_first", "channels_last"]))
    C, H, W = (int(rng.integers(*span)) for span in ((1, 5), (4, 13), (4, 13)))
    shape = (C, H, W) if data_format == "channels_first" else (H, W, C)
    layers: list[L.Layer] = []

    def pick(*options):
        return options[rng.integers(len(options))]

    def activation():
        return pick(*activations.TABLE)

    def number(least, most):
        return int(rng.integers(least, most + 1))

    def pair(least, most):
        return number(least, most), number(least, most)

    def padding():
        return pick("valid", "same", 1)

    def on_maps():
        groups = pick(1, 1, 2)
        pool = {"pool_size": pair(2, 3), "strides": pick(None, 1, 2), "padding": padding()}
        return pick(
            lambda: L.Conv2D(
                groups * number(1, 4), pair(1, 4), pair(1, 2), padding(), pair(1, 2), groups, activation()
            ),
            lambda: L.Conv2DTranspose(
                groups * number(1, 3), pair(1, 3), pair(1, 3), padding(), groups=groups
            ),
            lambda: L.MaxPooling2D(**pool, ceil_mode=pick(True, False)),
            lambda: L.AveragePooling2D(
                **pool, ceil_mode=pick(True, False), count_include_pad=pick(None, True, False)
            ),
            lambda: L.ZeroPadding2D((pair(0, 2), pair(0, 2))),
            lambda: L.UpSampling2D(pair(1, 2), pick("nearest", "bilinear")),
            lambda: L.GroupNormalization(pick(-1, 1)),
            lambda: L.LayerNormalization(axis=pick(None, "channels")),
            lambda: L.Residual([L.Conv2D(number(1, 3), 3, padding="same")], [L.Conv2D(1, 1)], activation()),
            lambda: L.Residual([L.BatchNormalization()], None, activation()),
            lambda: L.Concatenate([[L.Conv2D(2, 1)], [], [L.MaxPooling2D(3, 1, 1)]]),
        )()

    def on_both():
        return pick(
            lambda: L.Activation(activation()),
            lambda: L.BatchNormalization(),
            lambda: L.Dropout(0.3, pick("train", "inference")),
            lambda: L.Rescaling(0.5, number(0, 1)),
        )()

    def on_vectors():
        return pick(
            lambda: L.Dense(number(1, 9), activation(), use_bias=pick(True, False)),
            lambda: L.LayerNormalization(),
            lambda: L.Residual([L.Dropout(0.5)], [L.Activation("tanh")], activation()),
            lambda: L.Concatenate([[L.Dense(3)], []]),
        )()

    def build():
        return Sequential(
            layers, input_shape=shape, data_format=data_format, device="cpu", precision=precision, seed=0
        )

    on = on_maps
    for _ in range(number(3, 9)):
        layer = on() if rng.random() < 0.7 else on_both()
        if on is on_maps and rng.random() < 0.15:
            layer, on = pick(L.Flatten, L.GlobalAveragePooling2D, L.GlobalMaxPooling2D)(), on_vectors
        layers.append(layer)
        try:
            build()
        except ShapeError:
            layers.pop()
    model = build()
    randomise(model, rng)
    return model


@pytest.mark.parametrize("seed", range(60))
def test_random_networks_compute_the_same_in_onnx_runtime(seed):
    model, twin = (grow(np.random.default_rng(seed), precision) for precision in ("float32", "float64"))
    twin.load_state_dict(model.state_dict())
    assert_same(model, np.random.default_rng(seed), rounding=twin)


def test_a_trained_network_is_exported_as_it_predicts(rng):
    """Running statistics, not those of the batch; no dropout."""
    x, y = rng.standard_normal((64, 2, 6, 6)).astype(np.float32), rng.integers(0, 3, 64)
    layers = [L.Conv2D(4, 3), L.BatchNormalization(momentum=0.5), L.Activation("relu"), L.Flatten()]
    model = Sequential([*layers, L.Dropout(0.5), L.Dense(3)], device="cpu", seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=3, verbose=0)
    before = model.state_dict()
    proto = assert_same(model, rng)
    assert [node.op_type for node in proto.graph.node] == [
        "Conv", "BatchNormalization", "Relu", "Flatten", "Gemm",
    ]  # fmt: skip
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    model.fit(x, y, epochs=1, verbose=0)  # and it goes on


# -- the graph -----------------------------------------------------------------------------------------------


def small(**more):
    layers = [
        L.Conv2D(4, 3, activation="relu"),
        L.Residual([L.Conv2D(4, 3, padding=1, use_bias=False), L.BatchNormalization()], activation="relu"),
        L.Flatten(),
        L.Dense(3),
    ]
    return Sequential(layers, input_shape=(1, 6, 6), device="cpu", seed=0, **more)


def test_weights_and_nodes_go_by_the_names_of_state_dict():
    model = small(name="two")
    proto = export(model)
    graph = proto.graph
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert set(stored) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(stored[name], value, err_msg=name)
    assert [node.name for node in graph.node] == [
        "0.Conv", "1.Relu", "2.body.0.Conv", "2.body.1.BatchNormalization", "2.Add", "3.Relu", "4.Flatten",
        "5.Gemm",
    ]  # fmt: skip
    assert [node.doc_string for node in graph.node][2] == model.layers[1].body[0].where
    assert graph.name == "two"
    assert [v.name for v in graph.input] == ["input"] and [v.name for v in graph.output] == ["output"]


def test_the_shapes_of_all_maps_are_written():
    graph = export(small()).graph
    shapes = {value.name: shape_of(value) for value in graph.value_info}
    assert shapes["0.Conv"] == ("N", 4, 4, 4) and shapes["4.Flatten"] == ("N", 64)
    made = {name for node in graph.node for name in node.output} - {"output"}
    assert set(shapes) == made


def test_the_file_says_who_wrote_it_and_what_it_was_told(tmp_path):
    path = tmp_path / "m.onnx"
    returned = export(small(), path, metadata={"classes": '["a", "b", "c"]'})
    proto = onnx.load(path)
    assert proto == returned
    assert (proto.producer_name, proto.producer_version) == ("xpnet", xpnet.__version__)
    assert {p.key: p.value for p in proto.metadata_props} == {"classes": '["a", "b", "c"]'}
    assert proto.opset_import[0].version == 21 and proto.ir_version == 10  # ONNX Runtime 1.18 reads these
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("batch", ["samples", 4, np.int64(4)])
def test_the_batch_axis_is_named_or_fixed(batch, rng):
    model = small()
    proto = assert_same(model, rng, export(model, batch=batch), batches=(4,))
    assert shape_of(proto.graph.input[0])[0] == shape_of(proto.graph.output[0])[0] == batch
    if not isinstance(batch, str):
        with pytest.raises(Exception, match="invalid dimensions"):
            runtime(proto)(np.zeros((5, 1, 6, 6), np.float32))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_images_without_a_channel_axis(data_format, rng):
    layers = [L.Conv2D(3, 3), L.MaxPooling2D(2)]
    model = Sequential(layers, input_shape=(8, 9), data_format=data_format, device="cpu", seed=0)
    proto = assert_same(model, rng)
    assert shape_of(proto.graph.input[0]) == ("N", 8, 9)


def test_a_vector_becomes_a_map_in_the_users_order_and_a_map_a_vector_in_pytorchs(rng):
    layers = [L.Reshape((2, 3, 4)), L.Conv2D(3, 2), L.Reshape((-1,)), L.Dense(2)]
    model = Sequential(layers, input_shape=(24,), data_format="channels_last", device="cpu", seed=0)
    assert_same(model, rng)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("sides", [1, ((0, 1), (2, 2))], ids=str)
@pytest.mark.parametrize(
    "pooling",
    [L.MaxPooling2D, L.AveragePooling2D, lambda *window: L.Conv2D(2, *window)],
    ids=["max", "mean", "conv"],
)
def test_a_border_of_zeros_stays_one_before_a_pooling(data_format, sides, pooling, rng):
    """ONNX Runtime fuses a Pad with the pooling behind it, whose own border holds no zeros."""
    layers = [L.Activation("softplus"), L.Rescaling(-1), L.ZeroPadding2D(sides), pooling(2, 1, "same")]
    model = Sequential(layers, input_shape=(6, 6, 2), data_format=data_format, device="cpu", seed=0)
    assert_same(model, rng)


@pytest.mark.parametrize("layer", [L.Dropout(0.5), L.Flatten(), L.Concatenate([[]])], ids=repr)
def test_a_model_that_computes_nothing(layer, rng):
    model = Sequential([layer], input_shape=(5,), device="cpu")
    proto = assert_same(model, rng)
    assert len(proto.graph.node) == 1


def test_a_model_in_double_precision_runs_in_single(rng):
    assert_same(small(precision="float64"), rng)


def test_a_model_on_a_device_is_read_from_there(rng):
    here = small()
    there = Sequential(
        [type(one)(**one.get_config()) for one in small().layers[:1]] + [L.Flatten(), L.Dense(3)],
        input_shape=(1, 6, 6),
        device=strict_xp.strict_ops(),
        seed=0,
    )
    proto = export(there)
    x = rng.standard_normal((3, 1, 6, 6)).astype(np.float32)
    assert_close(runtime(proto)(x), there.predict(x), 1e-5, least=1)
    assert here.ops is not there.ops


# -- layers of one's own -------------------------------------------------------------------------------------


class Doubled(L.Layer):
    """y = 2 f x, f a weight a feature."""

    def __init__(self, activation=None, **layer):
        super().__init__(**layer)
        self.activation = activations.get(activation)

    def build(self, in_shape, params):
        params.reserve(self, "factor", in_shape[:1], "ones")
        return in_shape

    def forward(self, x, *, train):
        y = self.ops.like(x)
        y[...] = x * self.factor * 2
        return self.ops.finish(y, None, self.activation)[0], None


class Cube(activations.ActivationFunction):
    def forward(self, ops, z, out):
        out[...] = z * z * z
        return z


class Halved(L.Dense):
    """A Dense layer that computes something else."""

    def forward(self, x, *, train):
        y, cache = super().forward(x, train=train)
        return y / 2, cache


class TenUnits(L.Dense):
    """A Dense layer with another constructor."""

    def __init__(self, **layer):
        super().__init__(10, "tanh", **layer)


@pytest.fixture
def registry(monkeypatch):
    """Exporters that are registered in a test are forgotten behind it."""
    monkeypatch.setattr("xpnet.interop.onnx.writer.EXPORTERS", dict(EXPORTERS))


def alone(*layers):
    model = Sequential(layers, input_shape=(4,), device="cpu", seed=0)
    randomise(model, np.random.default_rng(0))
    return model


@pytest.mark.parametrize(
    ("layers", "kind", "where"),
    [
        ([L.Dense(3), Doubled()], "Doubled", "layer 1 'doubled'"),
        ([L.Residual([Doubled()])], "Doubled", "layer 0 'residual' > body 0 'doubled'"),
        ([L.Dense(3, activation=Cube())], "Cube", "layer 0 'dense'"),
        ([Halved(3)], "Halved", "layer 0 'halved'"),
    ],
    ids=["layer", "inside", "activation", "other-forward"],
)
def test_a_layer_of_ones_own_without_an_exporter_is_named_with_what_to_do(layers, kind, where):
    with pytest.raises(ValueError, match=rf"{where}.*register_exporter\({kind}\)"):
        export(alone(*layers))


def test_a_subclass_that_computes_the_same_needs_no_exporter(rng):
    assert_same(alone(TenUnits()), rng)


def test_exporters_of_ones_own(registry, rng):
    @register_exporter(Doubled)
    def doubled(layer, x, to):
        scaled = to.node("Mul", x, to.weight("factor"))
        return to.node("Mul", scaled, to.constant("two", 2.0))

    @register_exporter(Cube)
    def cube(function, z, to):
        return to.node("Mul", to.node("Mul", z, z), z)

    model = alone(L.Dense(3, activation=Cube()), Doubled("tanh"), L.Residual([Doubled()]))
    proto = assert_same(model, rng)
    assert [node.name for node in proto.graph.node][1:6] == ["1.Mul", "1.Mul_1", "2.Mul", "2.Mul_1", "3.Tanh"]


def test_an_exporter_that_writes_nonsense_is_an_error(registry):
    @register_exporter(Doubled)
    def doubled(layer, x, to):
        return to.node("Gemm", x, to.weight("factor"))  # a vector in place of a matrix

    with pytest.raises(ValueError, match=r"(?s)the graph is not valid.*0\.Gemm"):
        export(alone(Doubled()))


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"opset": 17}, ValueError, "from 18 to .* Received: 17"),
        ({"opset": 1000}, ValueError, f"which onnx {onnx.__version__} knows. Received: 1000"),
        ({"opset": "21"}, ValueError, "Received: '21'"),
        ({"batch": 0}, ValueError, "batch must be .* Received: 0"),
        ({"batch": ""}, ValueError, "batch must be"),
        ({"batch": True}, ValueError, "batch must be .* Received: True"),
        ({"batch": None}, ValueError, "batch must be .* Received: None"),
        ({"dtype": "float16"}, ValueError, "'float32' or 'float64'. Received: 'float16'"),
        ({"dtype": None}, ValueError, "Received: None"),
        ({"dtype": "single-ish"}, ValueError, "Received: 'single-ish'"),
        ({"metadata": {"classes": ["a"]}}, TypeError, "Expected: strings"),
    ],
)
def test_wrong_options_are_explained(options, error, message):
    with pytest.raises(error, match=message):
        export(small(), **options)


def test_a_model_without_shapes_is_no_graph_yet():
    with pytest.raises(xpnet.NotBuiltError, match="input shape"):
        export(Sequential([L.Dense(3)], device="cpu"))


def test_only_models_are_exported():
    with pytest.raises(TypeError, match=r"Expected: an xpnet\.Sequential"):
        export([L.Dense(3)])


def test_a_model_beyond_the_limit_of_a_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "LIMIT", 4000)
    model = alone(L.Dense(150))  # 3000 bytes of weights in float32, 6000 in float64
    export(model, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"6,000 bytes of weights.*dtype='float32' takes half"):
        export(model, tmp_path / "d.onnx", dtype="float64")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_the_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"as it was")

    def fails(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fails)
        with pytest.raises(OSError, match="No space"):
            export(small(), path)
    assert path.read_bytes() == b"as it was" and [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    export(small(), str(path))
    onnx.checker.check_model(onnx.load(path))
    with pytest.raises(FileNotFoundError, match="no folder"):
        export(small(), tmp_path / "nowhere" / "m.onnx")


def test_without_onnx_the_install_line_is_named():
    code = """
import sys
from pathlib import Path
sys.modules["onnx"] = None
import xpnet
try:
    xpnet.interop.onnx
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "pip install 'xpnet[onnx]'" in done.stdout, done.stderr


def test_the_modules_are_reached_from_the_package():
    code = (
        "import sys, xpnet; f = xpnet.interop.onnx.export; print(callable(f), 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "False"], done.stderr


# -- the example ---------------------------------------------------------------------------------------------


def test_the_example_goes_out_and_comes_back(tmp_path, capsys):
    path = Path(__file__).parents[1] / "examples" / "onnx_roundtrip.py"
    spec = importlib.util.spec_from_file_location("example_onnx_roundtrip", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    (x, y), (xt, yt) = xpnet.datasets.load_digits()
    ours, theirs, again, loaded = example.main(["--epochs", "3", "--out", str(tmp_path), "--device", "cpu"])
    assert example.accuracy(ours, yt) > 0.9
    assert_close(theirs, ours, 1e-5, least=1)
    assert_close(again, ours, 1e-5, least=1)
    assert example.accuracy(loaded.predict(xt), yt) > 0.9
    out = capsys.readouterr().out
    assert "Conv - BatchNormalization - Relu - Conv - Relu - MaxPool - Flatten - Gemm - Softmax" in out
