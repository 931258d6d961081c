"""ONNX's own tests of its operators, run on xpnet.interop.onnx.backend: all of every operator it claims."""

import unittest
import warnings

import numpy as np
import pytest
import strict_xp

onnx = pytest.importorskip("onnx", reason="pip install 'xpnet[onnx]'")

from onnx import TensorProto, helper  # noqa: E402
from onnx.backend.test.runner import Runner  # noqa: E402
from onnx.numpy_helper import to_array  # noqa: E402

from xpnet import device  # noqa: E402
from xpnet.interop.onnx import backend  # noqa: E402

# what a user would ask for by the name of "activations", and the operators around them
NAMED = {
    "Add", "AveragePool", "BatchNormalization", "Celu", "Clip", "Concat", "Conv", "ConvTranspose",
    "Dropout", "Elu", "Flatten", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid",
    "HardSwish", "LeakyRelu", "LogSoftmax", "MatMul", "MaxPool", "Mish", "PRelu", "Pad", "Relu", "Reshape",
    "Selu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
}  # fmt: skip
# those with a test on samples of vectors or images, which goes by xpnet's layers
BY_LAYERS = {
    "AveragePool", "BatchNormalization", "Celu", "Clip", "Conv", "ConvTranspose", "Dropout", "Elu",
    "Flatten", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization", "HardSigmoid",
    "InstanceNormalization", "LeakyRelu", "LogSoftmax", "MatMul", "MaxPool", "Relu", "Reshape", "Selu",
    "Sigmoid",    "Softmax", "Softplus", "Squeeze", "Swish", "Tanh", "Transpose", "Unsqueeze",
}  # fmt: skip


def _cases():
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the examples overflow on purpose
        found = load_model_tests(kind="node")
    return [case for case in found if backend.is_compatible(case.model)]


CASES = _cases()


def run(case, on="CPU"):
    for data in case.data_sets:
        inputs, outputs = ([to_array(a) if isinstance(a, TensorProto) else a for a in side] for side in data)
        got = backend.prepare(case.model, on).run(inputs)
        Runner.assert_similar_outputs(list(outputs), list(got), case.rtol, case.atol)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_node(case):
    run(case)


def test_every_operator_that_is_claimed_has_tests():
    tested = {node.op_type for case in CASES for node in case.model.graph.node}
    assert tested == backend.OPERATORS | backend.CASTS
    assert NAMED <= backend.OPERATORS


def test_functions_written_out_in_claimed_operators_are_among_them():
    names = {case.name for case in CASES if len(case.model.graph.node) > 1}
    for name in "relu_expanded_ver18", "softmax_axis_1_expanded", "gelu_default_1_expanded", "mish_expanded":
        assert f"test_{name}" in names
    assert len([name for name in names if "_expanded" in name]) > 100


def test_what_layers_can_hold_is_computed_by_layers(monkeypatch):
    taken = set()
    by_layers = backend.by_layers

    def seen(node, x, device):
        y = by_layers(node, x, device)
        taken.add(node.op)
        return y

    monkeypatch.setattr(backend, "by_layers", seen)
    for case in CASES:
        if len(case.model.graph.node) == 1:
            run(case)
    assert taken == BY_LAYERS


@pytest.mark.parametrize("layers", [True, False])
def test_nodes_compute_on_any_array_module(layers, monkeypatch):
    """On arrays that refuse what CuPy's refuse, also where layers leave a node alone."""
    if not layers:
        monkeypatch.setattr(backend, "_for_layers", lambda *args: False)
    ops = strict_xp.strict_ops()
    for case in CASES:
        try:
            run(case, ops)
        except Exception as error:
            raise AssertionError(case.name) from error


def test_onnx_s_own_runner_takes_the_module_for_a_backend():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = onnx.backend.test.BackendTest(backend, __name__)
    tests.include("^test_(relu|maxpool_2d_ceil|batchnorm_epsilon_training_mode)_(cpu|cuda)$")
    suite = tests.test_suite
    result = unittest.TestResult()
    suite.run(result)
    ran = result.testsRun - len(result.skipped)
    assert (ran, result.errors, result.failures) == (3, [], [])


def test_devices_are_those_that_work():
    assert backend.supports_device("CPU")
    assert backend.supports_device("CUDA") == (device.resolve("auto")[0].device != "cpu")
    assert not backend.supports_device("CUDA:999")
    assert not backend.supports_device("TPU")


@pytest.mark.parametrize(
    "op, alpha", [("Elu", -0.5), ("LeakyRelu", -2.0), ("LeakyRelu", 1.5), ("Swish", 2.0)]
)
def test_activations_outside_the_layers_range(op, alpha):
    x = np.float32([[-2, -0.5, 0, 3]])
    wanted = {
        "Elu": np.where(x < 0, alpha * np.expm1(x), x),
        "LeakyRelu": np.where(x < 0, alpha * x, x),
        "Swish": x / (1 + np.exp(-alpha * x)),
    }
    (y,) = backend.run_node(helper.make_node(op, ["x"], ["y"], alpha=alpha), [x], opset_version=24)
    np.testing.assert_allclose(y, wanted[op], rtol=1e-6)


VOLUMES = [
    ("Conv", (6, 2, 2, 3, 2), {"group": 2, "strides": [1, 2, 1], "pads": [1, 0, 1, 0, 1, 1]}),
    ("ConvTranspose", (4, 3, 2, 3, 2), {"group": 2, "strides": [2, 1, 2], "output_padding": [1, 0, 1]}),
    ("ConvTranspose", (4, 6, 2, 3, 2), {"dilations": [1, 2, 1], "pads": [1, 0, 0, 0, 1, 1]}),
    ("MaxPool", None, {"kernel_shape": [2, 3, 2], "strides": [2, 1, 1], "pads": [1, 1, 0, 0, 1, 1]}),
    ("AveragePool", None, {"kernel_shape": [2, 3, 2], "pads": [1, 1, 0, 0, 1, 1], "count_include_pad": 1}),
]


@pytest.mark.parametrize("op, weight, attributes", VOLUMES)
def test_volumes_as_onnx_runtime_has_them(op, weight, attributes):
    ort = pytest.importorskip("onnxruntime", reason="pip install 'xpnet[test]'")
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(2, 4, 4, 5, 6))}
    if weight is not None:
        inputs |= {"w": rng.normal(size=weight), "b": rng.normal(size=6)}
    inputs = {name: a.astype(np.float32) for name, a in inputs.items()}
    outputs = ["y", "places"] if op == "MaxPool" else ["y"]
    node = helper.make_node(op, list(inputs), outputs, **attributes)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value(name, TensorProto.FLOAT, a.shape) for name, a in inputs.items()],
        [value(name, 1 if name == "y" else TensorProto.INT64, [None] * 5) for name in outputs],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for got, wanted in zip(backend.run_model(model, inputs), session.run(None, inputs)):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_the_places_of_maxima_are_never_in_the_padding():
    x = np.zeros((1, 2, 2, 2), np.uint8)
    node = helper.make_node("MaxPool", ["x"], ["y", "places"], kernel_shape=[2, 2], pads=[1, 1, 1, 1])
    _, places = backend.run_node(node, [x])
    first = [[0, 0, 1], [0, 0, 1], [2, 2, 3]]
    assert places.tolist() == [[first, (np.array(first) + 4).tolist()]]


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap", "constant"])
def test_borders_of_images(mode):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    node = helper.make_node("Pad", ["x", "pads", "value"], ["y"], mode=mode)
    for value in (0, 1.5, -np.inf):
        (y,) = backend.run_node(node, [x, np.int64([0, 0, 1, 2, 0, 0, 3, -1]), np.float32(value)])
        given = {"constant_values": value} if mode == "constant" else {}
        np.testing.assert_array_equal(y, np.pad(x[..., :-1], [(0, 0), (0, 0), (1, 3), (2, 0)], mode, **given))
        (y,) = backend.run_node(node, [x, np.int64([0, 0, 1, 2, 0, 0, 3, 1]), np.float32(value)])
        np.testing.assert_array_equal(y, np.pad(x, [(0, 0), (0, 0), (1, 3), (2, 1)], mode, **given))


def test_casts_between_what_numpy_has_and_no_others():
    node = helper.make_node("Cast", ["x"], ["y"], "c", to=TensorProto.INT32)
    (y,) = backend.run_node(node, [np.float32([[1.7, -2.3]])])
    assert y.dtype == np.int32 and y.tolist() == [[1, -2]]
    node = helper.make_node("Cast", ["x"], ["y"], "c", to=TensorProto.FLOAT8E4M3FN)
    with pytest.raises(ValueError, match=r"node 0 'c' \(Cast\): turns float32 into 17"):
        backend.run_node(node, [np.float32([[1.7, -2.3]])])


def test_run_node_and_run_model():
    x = np.float32([[-1, 2], [3, -4]])
    node = helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5)
    np.testing.assert_array_equal(backend.run_node(node, [x])[0], [[-0.5, 2], [3, -2]])
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [value("x", 1, [2, 2])], [value("y", 1, [2, 2])])
    outputs = backend.run_model(helper.make_model(graph), {"x": x})
    np.testing.assert_array_equal(outputs["y"], [[-0.5, 2], [3, -2]])
    with pytest.raises(ValueError, match=r"Received: \['z'\]. Expected: \['x'\]"):
        backend.run_model(helper.make_model(graph), {"z": x})


def test_an_operator_that_is_not_claimed_is_named():
    node = helper.make_node("Det", ["x"], ["y"], "volume")
    with pytest.raises(ValueError, match=r"node 0 'volume' \(Det\): is not an operator of this backend"):
        backend.run_node(node, [np.eye(2, dtype=np.float32)])
