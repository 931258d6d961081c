"""Activations that a graph spells out in arithmetic: GELU by Erf, SiLU as a product with a sigmoid.

Exporters write the same function in many ways, so it is told by its values: the nodes are computed on a grid,
and whichever of xpnet's functions has those values it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ... import activations
from ...ops.reference import Ops
from .graph import Node, evaluate
from .readers import number

ELEMENTWISE = {
    "Abs", "Add", "Cast", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "Greater", "GreaterOrEqual",
    "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg",
    "PRelu", "Pow", "Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Sum", "Tanh", "Where",
}  # fmt: skip
GRID = np.concatenate([np.linspace(-9, 9, 289), [-60, -25, 25, 60]])


def activation_of(nodes: Iterable[Node], x: str, y: str) -> activations.ActivationFunction | None:
    """The activation function that leads from the value x to y by these nodes, in order; None where none
    does.
    """
    values = {x: GRID}
    for node in nodes:
        arrays = [
            values[name] if name is not None else None if c is None else c.astype(_wide(c.dtype)).reshape(())
            for name, c in zip(node.inputs, node.constants)
        ]
        feeds = {name: a for name, a in zip(node.proto.input, arrays) if a is not None}
        try:
            with np.errstate(all="ignore"):
                (values[node.output],) = evaluate(node.proto, feeds, {"": node.opset})
        except Exception:  # whatever the reference implementation raises
            return None
    found = np.asarray(values[y])
    if found.shape != GRID.shape:
        return None
    return next((f for f in _candidates(found) if np.allclose(found, _values(f), 1e-5, 1e-6)), None)


def scalars_only(node: Node) -> bool:
    """Whether the node works element by element, with single numbers for constants."""
    return node.op in ELEMENTWISE and all(c is None or c.size == 1 for c in node.constants)


def _candidates(found: np.ndarray) -> Iterator[activations.ActivationFunction]:
    yield from (activations.ReLU(), activations.Sigmoid(), activations.Tanh(), activations.Softplus())
    yield from (activations.SiLU(), activations.GELU(), activations.GELU(approximate=True))
    at = dict(zip(GRID.tolist(), found.tolist()))
    if 0 < -at[-1.0] < 1:
        yield activations.LeakyReLU(number(-at[-1.0]))
    if -at[-60.0] > 0:
        yield activations.ELU(number(-at[-60.0]))


def _values(function: activations.ActivationFunction) -> np.ndarray:
    z, y = GRID[:, None].copy(), np.empty((len(GRID), 1))
    function.forward(Ops(), z, y)
    return y[:, 0]


def _wide(dtype):
    return np.float64 if dtype.kind == "f" else dtype
