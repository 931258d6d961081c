"""An ONNX graph as a Sequential: branches that part and meet again become Residual and Concatenate.

What the branches that meet at a node have in common ends with the nearest value that all paths to the node
pass, its immediate dominator; there they part.  Inside a branch it is the same again.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx

from ... import activations
from ...errors import unknown
from ...layers import Concatenate, Residual
from ...model import Sequential
from .flow import Flow
from .graph import Graph, Node, OnnxError, opened
from .readers import READERS, read
from .spelled import activation_of, scalars_only

JOINS = ("Add", "Sum", "Concat")
FORMATS = ("channels_first", "channels_last")
LONGEST = 6  # values back that a spelled-out activation may begin
NUMBERS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "UINT8", "INT8", "INT32", "INT64")
PLAIN = ("Relu", "Sigmoid", "Tanh", "Softplus", "LeakyRelu", "Elu", "Gelu")  # no need to look what they spell


def load(
    source: Any,
    *,
    device: Any = "auto",
    data_format: str | None = None,
    precision: str | None = None,
    input_shape: Any = None,
    output: str | None = None,
    seed: int | None = None,
) -> Sequential:
    """The network in an ONNX file, with its weights, as a model that predicts what the graph computes.

    source: a path, or an onnx.ModelProto.  data_format: how the model takes images, by default as the graph
    does; (N, H, W, C) where it begins by moving the channels.  precision: as in Sequential, by default
    "float64" for graphs of doubles.  input_shape: of one sample, in the graph's order, where the graph leaves
    it open.  output: the value to end at, where the graph has several outputs.  device, seed: as in
    Sequential.

    A graph may be a chain, or branches that part at one value and meet in Add, Sum or Concat, nested at will.
    Axes of size 1 that the graph's output lacks stay: (N, 1) for (N,).  Weights that nodes share become each
    node's own.

    Raises OnnxError (a ValueError) for what cannot be read, with the operator, the node and what to do.
    """
    if data_format not in (None, *FORMATS):
        raise unknown("data_format", data_format, FORMATS)
    graph = Graph(opened(source), input_shape, output)
    kind = onnx.TensorProto.DataType.Name(graph.element)
    if kind not in NUMBERS:
        raise OnnxError(f"the input {graph.input!r} is of {kind}. Expected: numbers, such as FLOAT")
    first, second = FORMATS[::-1] if _moves_channels(graph) else FORMATS
    try:
        flow, shape = _layers(graph, first, data_format)
    except OnnxError as error:
        try:  # that a graph has its channels last shows in that it can be read so
            flow, shape = _layers(graph, second, data_format)
        except OnnxError as other:
            raise max(error, other, key=lambda e: e.number) from None  # of the reading that came further
    if precision is None:
        precision = "float64" if kind == "DOUBLE" else "auto"
    return as_model(flow, shape, device=device, precision=precision, seed=seed)


def as_model(flow: Flow, input_shape, **arguments) -> Sequential:
    """The layers of a flow, with their weights, as a model."""
    model = Sequential(flow.layers, input_shape=input_shape, data_format=flow.data_format, **arguments)
    weights = {
        name: flow.weights[slot.layer][slot.name]
        for name, slot in model._named_slots()
        if slot.name in flow.weights.get(slot.layer, {})
    }
    model.load_state_dict(weights, strict=False)
    return model


def _moves_channels(graph: Graph) -> bool:
    """Whether the first thing done to images is to bring their last axis to the front."""
    first = next((node for node in graph.nodes if not scalars_only(node)), None)
    return first is not None and first.op == "Transpose" and first.get("perm") == (0, 3, 1, 2)


def _layers(graph: Graph, layout: str, data_format: str | None) -> tuple[Flow, tuple[int, ...]]:
    """The layers from the graph's input to its output, if images come in this layout, and the input_shape in
    data_format.
    """
    sizes = graph.in_sizes[1:]
    if len(sizes) not in (1, 2, 3):
        raise OnnxError(
            f"the input {graph.input!r} is of shape (N, {', '.join(map(str, sizes))}). Expected: vectors (N, "
            "D) or images (N, C, H, W), (N, H, W, C) or (N, H, W)"
        )
    index = np.arange(np.prod(sizes)).reshape(sizes)
    shape = (1, *sizes) if len(sizes) == 2 else sizes
    if layout == "channels_last" and len(sizes) == 3:
        shape = (sizes[2], *sizes[:2])
        index = np.arange(np.prod(sizes)).reshape(shape).transpose(1, 2, 0)
    flow = Flow(shape, index, data_format or layout)
    flow = _Walk(graph).follow(graph.input, graph.output, flow)
    _finish(graph, flow, layout)
    if not flow.layers:
        flow.activate(activations.Linear())
    if len(sizes) == 2:
        return flow, sizes
    last = flow.data_format == "channels_last" and len(shape) == 3
    return flow, (*shape[1:], shape[0]) if last else shape


def _finish(graph: Graph, flow: Flow, layout: str) -> None:
    """See that the layers yield the output itself."""
    node = graph.makers[graph.output] if graph.nodes else None
    if node is None:
        return
    if flow.border is not None:
        node.fail("yields a border that is not zero", "a MaxPool behind such a Pad")
    if flow.axis:
        node.fail("yields an output whose samples are not its first axis", "a Transpose behind it")
    if flow.index.ndim == 3 and layout == "channels_last":
        flow.index = flow.index.transpose(2, 0, 1)
    if flow.index.ndim == 3 or (flow.index.ndim == 2 and len(flow.shape) == 3):
        flow.index = flow.index[None] if flow.index.ndim == 2 else flow.index
        flow.as_map(node)
    elif flow.index.ndim < 2:
        flow.in_order(node)
    else:
        node.fail(f"yields an output {node.out_sizes}", "vectors (N, D) or images (N, C, H, W)")


class _Walk:
    """Reads a graph along its structure."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.joined = _nested_concats(graph.nodes)
        self.above: dict[str, str] = {}  # the immediate dominator of each value
        self.depth = {graph.input: 0}
        for node in graph.nodes:
            first, *rest = self.data(node)
            for other in rest:
                first = self._meet(first, other)
            for name in node.proto.output:
                self.above[name], self.depth[name] = first, self.depth[first] + 1
        self.used: set[int] = set()  # nodes with weights that have become a layer
        self.times = 0

    def data(self, node: Node) -> list[str]:
        return self.joined.get(node.number, node.data)

    def follow(self, start: str, end: str, flow: Flow) -> Flow:
        """Append to flow, which has come to the value start, what leads from there to the value end."""
        steps: list[tuple[Node, Any]] = []
        while end != start:
            node = self.graph.makers[end]
            if end != node.output:
                node.fail(f"yields {end!r} beside its output", "a graph that uses its first output alone")
            function, begin = self._spelled(node, start)
            if function is None:
                begin = self.above[end]
            steps.append((node, function))
            end = begin
        for node, function in reversed(steps):
            if function is not None:
                flow.activate(function)
            elif len(self.data(node)) > 1:
                if node.op not in JOINS or any(c is not None for c in node.constants):
                    _refuse(node, joins=True)
                self._count(node)
                self._join(flow, node, self.above[node.output], self.data(node))
            else:
                self._read(flow, node)
        return flow

    def _read(self, flow: Flow, node: Node) -> None:
        if node.op not in READERS:
            _refuse(node)
        if flow.border is not None and node.op not in ("MaxPool", "Cast"):
            node.fail(f"sees a border {flow.border} that is not zero", "a MaxPool behind such a Pad")
        before = len(flow.weights)
        read(flow, node)
        self._count(node, len(flow.weights) > before)

    def _count(self, node: Node, weights: bool = False) -> None:
        """Note a node, which branches that do not nest would read again and again."""
        self.times += 1
        if node.number in self.used or self.times > 4 * len(self.graph.nodes) + 16:
            node.fail(
                "feeds branches that part and meet in no nested order",
                "branches that part at one value and meet in one Add or Concat; a U-Net's skips do",
            )
        if weights:
            self.used.add(node.number)

    def _join(self, flow: Flow, node: Node, start: str, names: list[str]) -> None:
        """Append the node that joins these values, which part at start.  Neighbours that have more in common
        than the rest are joined first.
        """
        branches = []
        for run in self._runs(start, names):
            branch = flow.fork()
            if len(run) == 1:
                self.follow(start, run[0], branch)
            else:
                parting = functools.reduce(self._meet, run)
                self.follow(start, parting, branch)
                self._join(branch, node, parting, run)
            branches.append(branch)
            if branch.border is not None:
                node.fail(f"joins a border {branch.border} that is not zero", "a MaxPool behind such a Pad")
        flow.border = None
        if node.op == "Concat":
            _concatenate(flow, node, branches)
        else:
            _add(flow, node, branches)

    def _runs(self, start: str, names: list[str]) -> list[list[str]]:
        """The values in runs of neighbours that part later than at start."""
        runs = [names[:1]]
        for before, name in zip(names, names[1:]):
            if self._meet(before, name) == start:
                runs.append([name])
            else:
                runs[-1].append(name)
        return runs

    def _spelled(self, node: Node, start: str) -> tuple[Any, str]:
        """The activation whose last node this is, and the value it is applied to; (None, "") if there is
        none.
        """
        if not scalars_only(node) or node.op in PLAIN:
            return None, ""
        x = node.output
        for _ in range(LONGEST):
            if x == start:
                break
            x = self.above[x]
            between = self._between(x, node)
            if between is None:
                break
            if (function := activation_of(between, x, node.output)) is not None:
                return function, x
        return None, ""

    def _between(self, x: str, last: Node) -> list[Node] | None:
        """The nodes from the value x to the last node, in order; None where one is not element by element."""
        found, stack = {last.number: last}, [last]
        while stack:
            for name in stack.pop().data:
                if name != x:
                    node = self.graph.makers[name]
                    if not scalars_only(node):
                        return None
                    if node.number not in found:
                        found[node.number] = node
                        stack.append(node)
        return [found[number] for number in sorted(found)]

    def _meet(self, a: str, b: str) -> str:
        """The nearest value that all paths to a and all paths to b pass."""
        while a != b:
            if self.depth[a] >= self.depth[b]:
                a = self.above[a]
            else:
                b = self.above[b]
        return a


def _nested_concats(nodes: list[Node]) -> dict[int, list[str]]:
    """The inputs of Concats, by node number, with what an earlier Concat has joined taken from that: DenseNet
    lists all features so far, [a, b, c] after [a, b].
    """
    made: list[tuple[Node, list[str]]] = []
    out = {}
    for node in nodes:
        if node.op != "Concat" or len(node.data) < len(node.inputs):
            continue
        names = node.data
        earlier = [
            (other, given, at)
            for other, given in made
            if other.get("axis") == node.get("axis") and 1 < len(given) < len(names)
            for at in range(len(names) - len(given) + 1)
            if names[at : at + len(given)] == given
        ]
        if earlier:
            other, given, at = max(earlier, key=lambda found: len(found[1]))
            out[node.number] = [*names[:at], other.output, *names[at + len(given) :]]
        made.append((node, names))
    return out


def _add(flow: Flow, node: Node, branches: list[Flow]) -> None:
    if any(branch.index.shape != branches[0].index.shape or branch.axis for branch in branches):
        shapes = [branch.index.shape for branch in branches]
        node.fail(f"adds values of shapes {shapes}", "branches of the same shape")
    if not all(b.shape == branches[0].shape and (b.index == branches[0].index).all() for b in branches):
        for branch in branches:
            branch.as_map(node) if branch.index.ndim > 1 else branch.in_order(node)
    total, *rest = branches
    layer: Any = None
    for other in rest:
        body, shortcut = (total, other) if len(total.layers) >= len(other.layers) else (other, total)
        layer = Residual(body.layers, shortcut.layers or None)
        total.layers = [layer]
    flow.shape = flow.built(node, layer)
    flow.keep(layer)
    flow.index, flow.axis = total.index, total.axis


def _concatenate(flow: Flow, node: Node, branches: list[Flow]) -> None:
    axis = node.get("axis") % len(node.out_sizes)
    if axis == 0 or any(branch.axis for branch in branches):
        node.fail("joins along the axis of the samples", "along the features or channels")
    if len({len(branch.shape) for branch in branches}) > 1:
        for branch in branches:
            branch.as_map(node) if branch.index.ndim > 1 else branch.as_vector()
    if len({branch.shape[1:] for branch in branches}) > 1:
        node.fail(
            f"joins maps of different sizes along axis {axis}: {[branch.shape for branch in branches]}",
            "along the channels, maps of the same rows and columns",
        )
    layer = Concatenate([branch.layers for branch in branches])
    places, start = [], 0
    for branch in branches:
        places.append(branch.index + start)
        start += int(np.prod(branch.shape))
    flow.shape = flow.built(node, layer)
    flow.keep(layer)
    flow.index, flow.axis = np.concatenate(places, axis - 1), 0


def _refuse(node: Node, joins: bool = False):
    """Say that a node cannot be read, and what could stand in its place."""
    quantised = any(word in node.op for word in ("Quant", "Integer", "QLinear"))
    if quantised:
        node.fail(
            "belongs to a quantised graph, whose numbers are integers",
            "the model as it was before quantisation; export that",
        )
    if joins:
        node.fail("joins branches", f"branches that meet in {', '.join(JOINS)}")
    hint = INSTEAD.get(node.op)
    node.fail(
        "is not an operator that load reads",
        (f"{hint}; or " if hint else "") + f"one of {', '.join(sorted({*READERS, *JOINS}))}",
    )


INSTEAD: dict[str, str] = {
    "HardSwish": "Swish, or x Sigmoid(x)",
    "Mish": "Swish, or x Sigmoid(x)",
    "ThresholdedRelu": "Relu",
    "Softsign": "Tanh",
    "LRN": "BatchNormalization",
    "LpNormalization": "LayerNormalization",
    "MeanVarianceNormalization": "InstanceNormalization",
    "GlobalLpPool": "GlobalAveragePool",
    "LpPool": "AveragePool",
    "SpaceToDepth": "Conv with strides",
    "DepthToSpace": "ConvTranspose, or Resize and Conv",
    "MaxUnpool": "Resize or ConvTranspose",
    "ArgMax": "its input, by load(..., output=...)",
    "TopK": "its input, by load(..., output=...)",
    "Slice": "Conv with strides",
    "Gather": "a graph without choices among the features",
    "Einsum": "Gemm or MatMul",
    "LSTM": "Gemm and Conv; xpnet has no recurrent layers",
    "GRU": "Gemm and Conv; xpnet has no recurrent layers",
    "RNN": "Gemm and Conv; xpnet has no recurrent layers",
    "Attention": "Gemm and Conv; xpnet has no attention",
}
