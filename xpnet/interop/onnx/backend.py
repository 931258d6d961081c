"""xpnet as a backend of ONNX, node by node: what ONNX's own tests of its operators run.

    from xpnet.interop.onnx import backend

    outputs = backend.prepare(model, "CPU").run(inputs)

The interface is onnx.backend.base.Backend.  A node that a layer can hold is read as `load` reads it and
computed by a model of that layer; the rest, volumes, integers, training mode and branches, by `nodes` and
`elementary`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend import base

from ... import device as devices
from .elementary import NUMBERS
from .flow import Flow
from .graph import Node, OnnxError, inferred, opened, sizes_of, type_of
from .load import as_model
from .nodes import NODES
from .readers import READERS, read

OPERATORS = frozenset(NODES)  # computed in all their forms
CASTS = frozenset(("Cast", "CastLike"))  # to and from NUMBERS alone
# no layers for these
BESIDE = ("Cast", "Add", "Sub", "Mul", "Div", "Neg", "Max", "Min", "Mean", "Sum", "Concat")
HALVES = (np.float16, helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))


class Rep(base.BackendRep):
    """A model ready to run."""

    def __init__(self, model: onnx.ModelProto, device: Any):
        self.model, self.device = model, device
        self.opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs in the graph's order.  inputs: a list in the graph's order, or arrays by name."""
        names = [value.name for value in self.model.graph.input if value.name not in self.constants]
        given = dict(inputs) if isinstance(inputs, dict) else dict(zip(names, inputs))
        if set(given) != set(names):
            raise ValueError(f"the inputs do not fit. Received: {sorted(given)}. Expected: {names}")
        values = self.constants | given
        for number, proto in enumerate(self.model.graph.node):
            arrays = [values[name] if name else None for name in proto.input]
            outputs = compute(proto, arrays, self.opset, self.device, number)
            values.update((name, y) for name, y in zip(proto.output, outputs) if name)
        names = [value.name for value in self.model.graph.output]
        return base.namedtupledict("Outputs", names)(*(values[name] for name in names))


class XpnetBackend(base.Backend):
    """See the module."""

    @classmethod
    def is_compatible(cls, model, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether every operator of the model is one of OPERATORS, or casts between numbers of NumPy's."""
        graph = model.graph
        used = {node.op_type if node.domain in ("", "ai.onnx") else None for node in graph.node}
        kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
        return used <= OPERATORS or (used <= OPERATORS | CASTS and kinds <= NUMBERS.keys())

    @classmethod
    def prepare(cls, model, device: str = "CPU", **kwargs: Any) -> Rep:
        return Rep(opened(model), _device(device))

    @classmethod
    def run_node(cls, node, inputs, device: str = "CPU", outputs_info=None, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs of one node.  opset_version: of its operator, by default the newest."""
        opset = kwargs.get("opset_version") or onnx.defs.onnx_opset_version()
        return tuple(compute(node, list(inputs), opset, _device(device)))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        try:
            name = _device(device)
        except AttributeError:  # of a kind that ONNX does not know
            return False
        if name == "cpu":
            return True
        try:
            return bool(devices._cuda(int(name.removeprefix("cuda:"))))
        except devices.NoDevice:
            return False


prepare = XpnetBackend.prepare
run_model = XpnetBackend.run_model
run_node = XpnetBackend.run_node
supports_device = XpnetBackend.supports_device
is_compatible = XpnetBackend.is_compatible


def _device(name: Any) -> Any:
    """ONNX's name of a device, "CPU" or "CUDA:1", as xpnet's; Ops as they are."""
    if not isinstance(name, str):
        return name
    kind = base.Device(name)
    if kind.type == base.DeviceType.CPU:
        return "cpu"
    return f"cuda:{kind.device_id}"


def compute(proto: onnx.NodeProto, arrays: list, opset: int, device: Any, number: int = 0) -> list:
    """A node's outputs from its inputs, NumPy arrays, None where one is absent."""
    x, *rest = arrays or [None]
    data = [*proto.input[:1], *(None for _ in rest)]
    node = Node(proto, number, opset, data, [None, *rest], np.shape(x), ())
    if node.op in READERS and node.op not in BESIDE and _for_layers(node, x):
        try:
            return [by_layers(node, x, device)]
        except OnnxError:  # no layer holds it
            if node.op not in NODES:
                raise
    if node.op in CASTS:
        return [cast(node, *arrays)]
    if node.op not in NODES:
        node.fail("is not an operator of this backend", f"one of {', '.join(sorted(OPERATORS))}")
    return by_arrays(node, arrays, device)


def _for_layers(node: Node, x) -> bool:
    """Whether x is what layers work on, samples of vectors or images in float32 or float64."""
    floats = isinstance(x, np.ndarray) and x.dtype in (np.float32, np.float64)
    return floats and 1 <= x.ndim <= 4 and x.size > 0 and len(node.outputs) == 1


def by_layers(node: Node, x: np.ndarray, device: Any) -> np.ndarray:
    """The output of a node for x, by the layers that `load` reads it as."""
    arrays = {name: a for name, a in zip(node.proto.input, node.constants) if a is not None}
    made = inferred(node, {node.proto.input[0]: type_of(x)}, arrays, {"": node.opset})
    node.out_sizes = sizes_of(made[node.output])
    sizes = x.shape[1:]
    shape = (1,) * (3 - len(sizes)) + sizes if len(sizes) > 1 else sizes or (1,)
    flow = Flow(shape, np.arange(math.prod(sizes)).reshape(sizes))
    read(flow, node)
    if flow.border is not None:
        node.fail("yields a border that is not zero", "a border of zeros")
    y = x.reshape(len(x), *shape)
    if flow.layers:
        y = as_model(flow, shape, device=device, precision=str(x.dtype), seed=0).predict(y)
    return np.moveaxis(y.reshape(len(x), -1)[:, flow.index], 0, flow.axis)


def by_arrays(node: Node, arrays: list, device: Any) -> list:
    """The outputs of a node by `nodes`; half precision is computed in float32."""
    ops, _ = devices.resolve(device, "float32")
    with ops.running(), np.errstate(all="ignore"):
        given = [ops.asarray(_wide(a)) if isinstance(a, np.ndarray) else a for a in arrays]
        y = NODES[node.op](ops, node, *given)
        outputs = [ops.to_host(a) if ops.owns(a) else a for a in (y if isinstance(y, tuple) else (y,))]
    kind = next((a.dtype for a in arrays if isinstance(a, np.ndarray)), None)
    if kind not in HALVES:
        return outputs
    return [a.astype(kind) if a.dtype == np.float32 else a for a in outputs]


def cast(node: Node, x: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """x in the type of another array, or in the one that the node names."""
    kind = NUMBERS.get(node.get("to")) if like is None else like.dtype
    known = set(NUMBERS.values())
    if kind is None or not {kind, x.dtype} <= known:
        node.fail(f"turns {x.dtype} into {kind or node.get('to')}", "numbers that NumPy has on both sides")
    with np.errstate(all="ignore"):
        return x.astype(kind)


def _wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float32) if a.dtype in HALVES else a
