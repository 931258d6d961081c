"""An ONNX file as a graph with one input: constants folded, shapes known, weights as arrays."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

Sizes = tuple[int, ...]
SMALL = 64  # elements of a constant that may say a shape: the target of Reshape, axes, pads
RANDOM = (
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
)  # fmt: skip


class Samples(int):
    """How many samples there are where a graph leaves it open: a number for its shapes, N in messages."""

    def __repr__(self) -> str:
        return "N"


N = Samples(1021)  # a prime, which no other size is taken for


class OnnxError(ValueError):
    """An ONNX graph that cannot be read; the message names the operator, the node and what to do.

    number: the node's place in the graph, -1 where the error is of no node.
    """

    def __init__(self, message: str, number: int = -1):
        super().__init__(message)
        self.number = number


class Node:
    """One operator with what is known of its inputs.

    number: its place in the graph.  inputs: the names of its data, None where an input is constant or absent.
    constants: the arrays of the others, None where an input is data or absent.  in_sizes, out_sizes: the
    shape of the first data input and of the first output, samples included.
    """

    def __init__(self, proto, number: int, opset: int, inputs, constants, in_sizes: Sizes, out_sizes: Sizes):
        self.op = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
        self.proto, self.number, self.opset = proto, number, opset
        self.inputs: list[str | None] = inputs
        self.constants: list[np.ndarray | None] = constants
        self.in_sizes, self.out_sizes = in_sizes, out_sizes
        self.attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in proto.attribute}
        self.output = proto.output[0]
        self.outputs = [name for name in proto.output if name]

    @property
    def data(self) -> list[str]:
        return [name for name in self.inputs if name is not None]

    @property
    def where(self) -> str:
        return f"node {self.number} {self.proto.name or self.output!r} ({self.op})"

    def get(self, name: str, default: Any = None, position: int | None = None) -> Any:
        """An attribute, or the constant input at a position, which newer operators have in its place."""
        if name in self.attributes:
            return self.attributes[name]
        if position is not None and position < len(self.inputs):
            if self.inputs[position] is not None:
                self.fail(f"takes its {name} from the data", "a constant")
            if self.constants[position] is not None:
                return self.constants[position]
        return default

    def constant(self, position: int, what: str) -> np.ndarray:
        """The constant input at a position, which has to be one."""
        array = self.constants[position] if position < len(self.constants) else None
        if array is None:
            self.fail(f"needs its {what} as a constant", "weights among the graph's initializers")
        return array

    def fail(self, problem: str, expected: str) -> NoReturn:
        raise OnnxError(f"{self.where}: {problem}. Expected: {expected}", self.number)


def opened(source) -> onnx.ModelProto:
    """The checked ModelProto of a path, or the one given, with local functions written out."""
    if isinstance(source, onnx.ModelProto):
        model, where = source, "the ModelProto"
    else:
        try:
            path = Path(source)
        except TypeError:
            raise TypeError(
                f"load takes the path of an ONNX file or a ModelProto. Received: {type(source).__name__}"
            ) from None
        if not path.is_file():
            raise FileNotFoundError(f"there is no ONNX file {os.fspath(path)!r}")
        where = str(path)
        try:
            model = onnx.load(path)
        except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
            raise OnnxError(
                f"{where} cannot be read ({error}). It may be cut short or in another format, or a file with "
                "its weights is missing beside it"
            ) from error
    if not model.graph.output:
        raise OnnxError(f"{where} holds no graph. Expected: an ONNX model with inputs, nodes and outputs")
    try:
        onnx.checker.check_model(model)
        return inliner.inline_local_functions(model) if model.functions else model
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise OnnxError(f"{where} is not a valid ONNX model: {error}") from error


class Graph:
    """The nodes between the one input and the output that is asked for.

    input: its name; in_sizes: its shape, samples (the first axis) included; element: its ONNX type.  nodes:
    in order, those that depend on the input.  makers: the node that makes a value, by the value's name.
    """

    def __init__(self, model: onnx.ModelProto, input_shape=None, output: str | None = None):
        self.opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
        self.constants = {t.name: _array(t) for t in model.graph.initializer}
        self.nodes: list[Node] = []
        self.makers: dict[str, Node] = {}
        self.output = self._chosen_output(model, output)
        protos = self._needed(model)
        for number, proto in protos:
            if any(a.type in (a.GRAPH, a.GRAPHS) for a in proto.attribute):
                Node(proto, number, 0, [], [], (), ()).fail(
                    "runs a graph of its own", "a graph without loops and conditions, exported for inference"
                )
        self._choose_input(model, protos, input_shape)
        self._types = {self.input: helper.make_tensor_type_proto(self.element, self.in_sizes)}
        self._same: dict[str, str] = {}  # values that another one is, under a second name
        for number, proto in protos:
            self._take(proto, number)
        self.output = self._same.get(self.output, self.output)
        if self.output in self.constants:
            raise OnnxError(
                f"the output {self.output!r} is constant: it does not depend on the input {self.input!r}"
            )

    def _chosen_output(self, model, output: str | None) -> str:
        names = [value.name for value in model.graph.output]
        if output is None:
            if len(names) > 1:
                raise OnnxError(
                    f"the graph has {len(names)} outputs. Received: {', '.join(names)}. Expected: one; name "
                    f"it: load(..., output={names[0]!r})"
                )
            return names[0]
        made = [name for node in model.graph.node for name in node.output]
        if output not in made:
            raise OnnxError(
                f"the graph has no value of that name. Received: output={output!r}. Expected: one of "
                f"{', '.join(names)}, or a value inside the graph"
            )
        return output

    def _needed(self, model) -> list[tuple[int, onnx.NodeProto]]:
        """The nodes that the output depends on, in an order in which they can run, with their numbers."""
        makers = {name: i for i, node in enumerate(model.graph.node) for name in node.output if name}
        wanted, stack = set(), [self.output]
        while stack:
            number = makers.get(stack.pop())
            if number is not None and number not in wanted:
                wanted.add(number)
                stack += model.graph.node[number].input
        return [(i, model.graph.node[i]) for i in sorted(wanted)]

    def _choose_input(self, model, protos, input_shape) -> None:
        used = {name for _, proto in protos for name in proto.input}
        values = [v for v in model.graph.input if v.name not in self.constants and v.name in used]
        if len(values) != 1:
            names = ", ".join(v.name for v in values) or "none that the output depends on"
            raise OnnxError(
                f"the graph has {len(values)} data inputs. Received: {names}. Expected: one; a part with a "
                "single input can be cut out by onnx.utils.extract_model"
            )
        (value,) = values
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            raise OnnxError(f"the input {value.name!r} is no tensor. Expected: images or vectors")
        dims = [d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim]
        self.input, self.element = value.name, tensor.elem_type
        if input_shape is not None:
            given = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else (input_shape,)
            if tensor.HasField("shape") and (
                len(dims) != len(given) + 1 or any(d not in (None, s) for d, s in zip(dims[1:], given))
            ):
                raise OnnxError(
                    f"input_shape does not fit the graph. Received: {given}. Expected: that of one sample of "
                    f"{value.name!r}, {_written(dims[1:])}"
                )
            dims = [dims[0] if dims else None, *given]
        if len(dims) < 2 or any(d is None or d < 1 for d in dims[1:]):
            raise OnnxError(
                f"the graph leaves the shape of its samples open. Received: {value.name!r} of "
                f"{_written(dims)}. Expected: sizes for all axes but the first; give them: load(..., "
                "input_shape=(3, 224, 224))"
            )
        self.in_sizes: Sizes = (dims[0] or N, *(size for size in dims[1:] if size))

    def _take(self, proto, number: int) -> None:
        """One more node: folded where its inputs are constant, else kept with the shape it yields."""
        names = [self._same.get(name, name) for name in proto.input]
        constants = [self.constants.get(name) if name else None for name in names]
        inputs = [None if not name or name in self.constants else name for name in names]
        node = Node(proto, number, self.opsets.get("", 1), inputs, constants, (), ())
        for name in node.data:
            if name != self.input and name not in self.makers:
                node.fail(f"needs {name!r}, which nothing yields", "a dense weight, or the output of a node")
        if node.op in ("Shape", "Size") and node.data and (sizes := self._sizes(node.data[0])):
            part = sizes[node.get("start", 0) : node.get("end")]
            self.constants[node.output] = np.array(part if node.op == "Shape" else math.prod(sizes), np.int64)
        elif node.op == "Identity" and node.data:
            self._same[node.output] = node.data[0]
        elif node.op in RANDOM:
            node.fail("draws numbers at random", "weights as they are, or Dropout")
        elif not node.data:
            self._fold(node, names)
        else:
            self._keep(node, names)

    def _fold(self, node: Node, names) -> None:
        feeds = {name: a for name, a in zip(node.proto.input, node.constants) if a is not None}
        try:
            arrays = evaluate(node.proto, feeds, self.opsets)
        except Exception as error:  # whatever the reference implementation raises
            raise OnnxError(f"{node.where}: cannot be computed from its constants: {error}") from error
        self.constants.update((name, np.asarray(a)) for name, a in zip(node.proto.output, arrays) if name)

    def _keep(self, node: Node, names) -> None:
        types = {
            original: self._types[name]
            for original, name in zip(node.proto.input, names)
            if name in self._types and name not in self.constants
        }
        arrays = {name: a for name, a in zip(node.proto.input, node.constants) if a is not None}
        made = inferred(node, types, arrays, self.opsets)
        self._types.update(made)
        node.in_sizes = self._sizes(node.data[0]) if node.data else ()
        node.out_sizes = self._sizes(node.output)
        self.nodes.append(node)
        self.makers.update((name, node) for name in node.proto.output if name)

    def _sizes(self, name: str) -> Sizes:
        """The shape of a value; () where it is not known."""
        return sizes_of(self._types[name]) if name in self._types else ()


def inferred(node: Node, types: dict, arrays: dict[str, np.ndarray], opsets: dict[str, int]) -> dict:
    """The types of a node's outputs by name, from the types of its data and the arrays of its constants."""
    given = {name: type_of(a) for name, a in arrays.items()}
    small = {name: numpy_helper.from_array(a) for name, a in arrays.items() if a.size <= SMALL}
    try:
        schema = onnx.defs.get_schema(node.proto.op_type, node.opset, node.proto.domain)
        return shape_inference.infer_node_outputs(
            schema, node.proto, types | given, small, opset_imports=imports(opsets)
        )
    except onnx.defs.SchemaError:
        return {}
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        received = ", ".join(f"{name} {sizes_of(kind)}" for name, kind in (types | given).items())
        raise OnnxError(
            f"{node.where}: its inputs do not fit together. Received: {received}. Expected: what the "
            f"operator says ({error})",
            node.number,
        ) from error


def type_of(a: np.ndarray) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)


def sizes_of(kind: onnx.TypeProto) -> Sizes:
    """The shape of a tensor type; () where it is not known."""
    dims = kind.tensor_type.shape.dim
    if not all(d.WhichOneof("value") == "dim_value" for d in dims):
        return ()
    return tuple(N if d.dim_value == N else d.dim_value for d in dims)


def imports(opsets: dict[str, int]) -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid(domain, version) for domain, version in opsets.items()]


def evaluate(proto: onnx.NodeProto, feeds: dict[str, np.ndarray], opsets: dict[str, int]) -> list[np.ndarray]:
    """A node's outputs by ONNX's own reference implementation."""
    inputs, outputs = ([onnx.ValueInfoProto(name=name) for name in names] for names in (feeds, proto.output))
    graph = helper.make_graph([proto], "node", inputs, [value for value in outputs if value.name])
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=imports(opsets))).run(None, feeds)  # type: ignore


def _array(tensor) -> np.ndarray:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OSError, RuntimeError, onnx.checker.ValidationError) as error:
        raise OnnxError(
            f"the weight {tensor.name!r} cannot be read: {error}. Expected: its numbers in the file, or in a "
            "file beside it, and a path, not a ModelProto, where they are"
        ) from error


def _plain(value):
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _written(dims) -> str:
    return "(" + ", ".join("?" if d is None else str(d) for d in dims) + ")"
