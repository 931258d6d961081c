"""A model as an ONNX graph, for ONNX Runtime and whatever else reads it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from ... import __version__
from ...network import Network
from ..files import whole
from . import layers  # noqa: F401 - it registers the exporters of xpnet's own
from .writer import Writer

OPSET = 21  # ONNX Runtime reads it from 1.18 (May 2024) on
OLDEST = 18  # the first whose Pad takes axes
LIMIT = 2**31 - 2**20  # protobuf's 2 GiB, less room for what is no weight


def export(
    model: Network,
    path: Any = None,
    *,
    opset: int | None = None,
    batch: str | int = "N",
    dtype: Any = "float32",
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The model's inference as an ONNX model, written to path if there is one (whole or not at all).

    The graph turns "input" into "output", both as `model.predict` has them, in the model's data_format.
    Weights go by their names in `state_dict`, nodes by layer and operator: "0.weight", "0.Conv".

    model: a `Sequential`.  path: of the file, or None.  opset: the version of ONNX's operators, by default
    21.  batch: the name of the free first axis, or a number that fixes it.  dtype: "float32" for a model of
    any precision, as runtimes have few kernels for "float64".  metadata: texts to store with the graph.

    Raises TypeError for what is no model, NotBuiltError before its shapes are known, ValueError for a layer
    of your own without an exporter: `register_exporter`.
    """
    if not isinstance(model, Network):
        raise TypeError(f"export takes a model. Received: {model!r}. Expected: an xpnet.Sequential")
    model._need_built()
    opset = _check_opset(OPSET if opset is None else opset)
    batch, kind = _check_batch(batch), _check_dtype(dtype)
    state = model.state_dict()
    size = sum(array.size for array in state.values()) * kind.itemsize
    if size > LIMIT:
        raise ValueError(
            f"the model is too large for an ONNX file. Received: {size:,} bytes of weights. Expected: at "
            f"most {LIMIT:,}" + ("; dtype='float32' takes half" if kind == np.float64 else "")
        )

    graph = onnx.GraphProto(name=model.name or "network")
    to = Writer(graph, state, opset, kind)
    _call_output(graph, _leave(model, to.chain(model.layers, _enter(model, to)), to))
    element = onnx.helper.np_dtype_to_tensor_dtype(kind)
    for side, name, shape in (
        (graph.input, "input", model.input_shape),
        (graph.output, "output", model.output_shape),
    ):
        side.append(onnx.helper.make_tensor_value_info(name, element, [batch, *shape]))
    graph.input.extend(
        onnx.helper.make_tensor_value_info(name, element, a.shape) for name, a in to.weights.items()
    )

    operators = [onnx.helper.make_opsetid("", opset)]
    proto = onnx.helper.make_model(
        graph,
        opset_imports=operators,
        ir_version=onnx.helper.find_min_ir_version_for(operators),
        producer_name="xpnet",
        producer_version=__version__,
        doc_string=f"{model.name}: {model.input_shape} to {model.output_shape}, {model.data_format}",
    )
    onnx.helper.set_model_props(proto, _check_metadata(metadata))
    proto = _with_shapes(proto)
    del proto.graph.input[1:]  # the weights, of which a check needs to know the shapes alone
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in to.weights.items())
    if path is not None:
        write(proto, path)
    return proto


def write(proto: onnx.ModelProto, path: Any) -> None:
    """The ONNX model as a file, written whole or not at all."""
    with whole(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def _enter(model: Network, to: Writer) -> str:
    """The user's input in the layers' order."""
    to = to.at("input", "the input")
    if len(model.input_shape) == 2:  # images without a channel axis
        return to.node("Unsqueeze", "input", to.constant("axes", [1]))
    if len(model.input_shape) == 3 and model.data_format == "channels_last":
        return to.node("Transpose", "input", perm=(0, 3, 1, 2))
    return "input"


def _leave(model: Network, y: str, to: Writer) -> str:
    """The last layer's output in the user's order."""
    if len(model.output_shape) == 3 and model.data_format == "channels_last":
        return to.at("output", "the output").node("Transpose", y, perm=(0, 2, 3, 1))
    return y


def _call_output(graph: onnx.GraphProto, y: str) -> None:
    """Rename y to "output", which a node has to make, be it one that does nothing."""
    if not any(y in node.output for node in graph.node):
        graph.node.append(onnx.helper.make_node("Identity", [y], ["output"], "output.Identity"))
        return
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["output" if name == y else name for name in names]


def _with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model, checked, with the shapes of all maps for whoever looks at it."""
    try:
        proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(
            f"the graph is not valid: {error}. Expected: exporters that write what the layer computes in "
            f"operators of opset {proto.opset_import[0].version}"
        ) from error
    return proto


def _check_metadata(metadata) -> dict[str, str]:
    notes = dict(metadata or {})
    if not all(isinstance(text, str) for text in (*notes, *notes.values())):
        raise TypeError(
            f"metadata must map names to text. Received: {metadata!r}. Expected: strings, such as json.dumps "
            "makes of other values"
        )
    return notes


def _check_opset(opset) -> int:
    try:
        number = operator.index(opset)
    except TypeError:
        number = 0
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= number <= newest:
        raise ValueError(
            f"opset must be a whole number from {OLDEST} to {newest}, which onnx {onnx.__version__} knows. "
            f"Received: {opset!r}"
        )
    return number


def _check_batch(batch) -> str | int:
    try:
        number = operator.index(batch)
    except TypeError:
        number = 0
    if isinstance(batch, str) and batch:
        return batch
    if number < 1 or isinstance(batch, bool):
        raise ValueError(
            "batch must be a name for an axis of any size, or a whole number of at least 1. Received: "
            f"{batch!r}"
        )
    return number


def _check_dtype(dtype) -> np.dtype:
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if dtype is None or kind not in (np.float32, np.float64):
        raise ValueError(f"dtype must be 'float32' or 'float64'. Received: {dtype!r}")
    return kind
