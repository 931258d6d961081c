"""What writes a graph: nodes and weights under the names of `state_dict`, and the table of exporters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from ... import activations
from ...layers import Layer

Exporter = Callable[[Any, str, "Writer"], str]
EXPORTERS: dict[type, Exporter] = {}


def register_exporter(*kinds: type) -> Callable[[Exporter], Exporter]:
    """Decorator: the function exports layers (or activation functions) of these classes.

        @register_exporter(Scale)
        def scale(layer, x, to):
            return to.node("Mul", x, to.weight("factor"))

    It gets the layer, the name of its input, (N, C, H, W) or (N, D), and the Writer; it returns the name of
    its output.  What the layer does in inference is what counts; `layer.activation` is added behind it.
    """

    def register(exporter: Exporter) -> Exporter:
        EXPORTERS.update(dict.fromkeys(kinds, exporter))
        return exporter

    return register


@dataclass(frozen=True)
class Writer:
    """Adds one layer's nodes and weights to a graph.

    graph: the ONNX graph.  state: the model's `state_dict`.  opset: the operator set to write for.  dtype: of
    all weights and maps.  path: how the layer's weights begin in `state_dict`, "2.body.0"; where: how errors
    call it.  weights: those that nodes take, by name; they are no part of the graph yet, whose check need not
    carry them around.
    """

    graph: onnx.GraphProto
    state: Mapping[str, np.ndarray]
    opset: int
    dtype: np.dtype
    path: str = ""
    where: str = ""
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def node(self, op: str, *inputs: str, **attributes) -> str:
        """Add a node of one output: its name, "0.Conv", which is the node's as well.

        op: the operator.  inputs: names.  attributes: the operator's.
        """
        name = self._free(op)
        node = onnx.helper.make_node(op, inputs, [name], name, self.where or None, **attributes)
        self.graph.node.append(node)
        return name

    def has(self, name: str) -> bool:
        """Whether the layer has a parameter or running statistic of this name."""
        return f"{self.path}.{name}" in self.state

    def value(self, name: str) -> np.ndarray:
        """It, in the shape that `state_dict` gives it and in float64."""
        return self.state[f"{self.path}.{name}"].astype(np.float64)

    def weight(self, name: str) -> str:
        """It, in the graph: "0.weight"."""
        full = f"{self.path}.{name}"
        self._names.add(full)
        self.weights[full] = self.state[full].astype(self.dtype, copy=False)
        return full

    def constant(self, name: str, value) -> str:
        """A number or array under a name, such as "0.pads": float64 as `dtype`, as weights are, integers as
        int64.

        value: an array of any shape.
        """
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(self.dtype)
        elif array.dtype.kind == "i":
            array = array.astype(np.int64)
        full = self._free(name)
        self.graph.initializer.append(onnx.numpy_helper.from_array(array, full))
        return full

    def _free(self, name: str) -> str:
        """The name under the layer's path, with a number where it is taken."""
        full, count = f"{self.path}.{name}", 0
        while full in self._names:
            count += 1
            full = f"{self.path}.{name}_{count}"
        self._names.add(full)
        return full

    def at(self, path: str, where: str) -> Writer:
        """The writer for another layer of the same graph."""
        return replace(self, path=path, where=where)

    def chain(self, layers: Iterable[Layer], x: str, branch: str = "") -> str:
        """Export layers that run one after another, from a branch of this one, whose input is called x: the
        output of the last.

        They are numbered as in `state_dict`, where an activation is a module of its own.
        """
        prefix = f"{self.path}.{branch}." if branch else ""
        number = 0
        for layer in layers:
            x = self.at(f"{prefix}{number}", layer.where).export(layer, x)
            number += layer.modules
            if not isinstance(layer.activation, activations.Linear):
                x = self.at(f"{prefix}{number - 1}", layer.where).export(layer.activation, x)
        return x

    def export(self, part: Layer | activations.ActivationFunction, x: str) -> str:
        """Export a part, a layer without its activation or an activation function, whose input is called x:
        the name of its output.

        Raises ValueError where nobody registered how: a subclass that computes something else by a `forward`
        of its own is not exported as its base.
        """
        kind = type(part)
        base = next((cls for cls in kind.__mro__ if cls in EXPORTERS), None)
        if base is None or kind.forward is not base.forward:  # type: ignore[attr-defined]
            raise ValueError(
                f"{self.where}: there is no ONNX exporter for {kind.__name__}. Received: {part!r}. Expected: "
                "one of xpnet's own, or a function that writes yours in ONNX's operators: "
                f"@xpnet.interop.onnx.register_exporter({kind.__name__})"
            )
        return EXPORTERS[base](part, x, self)
