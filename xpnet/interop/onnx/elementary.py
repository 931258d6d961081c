"""The operators in which ONNX writes the functions of others out: a softmax by Exp, ReduceSum and Div."""

from __future__ import annotations

import math

import numpy as np
import onnx

from .graph import Node
from .nodes import computes

# dtypes that a Cast may lead from and to: those that NumPy has
NUMBERS = {
    onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)): np.dtype(kind)
    for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
}
FUNCTIONS = {"Abs": "abs", "Exp": "exp", "Log": "log", "Sqrt": "sqrt"}
COMPARISONS = {
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
}


@computes(*FUNCTIONS)
def function(ops, node: Node, x):
    return getattr(ops.xp, FUNCTIONS[node.op])(x)


@computes(*COMPARISONS)
def comparison(ops, node: Node, a, b):
    return getattr(ops.xp, COMPARISONS[node.op])(a, b)


@computes("Erf")
def erf(ops, node: Node, x):
    return ops.erf(x)


@computes("Reciprocal")
def reciprocal(ops, node: Node, x):
    return 1 / x


@computes("Pow")
def power(ops, node: Node, x, exponent):
    return ops.xp.power(x, exponent).astype(x.dtype)


@computes("Where")
def where(ops, node: Node, condition, x, y):
    return ops.xp.where(condition, x, y)


@computes("Shape")
def shape(ops, node: Node, x):
    return ops.asarray(np.int64(x.shape[node.get("start", 0) : node.get("end")]))


@computes("Size")
def size(ops, node: Node, x):
    return ops.asarray(np.array(math.prod(x.shape), np.int64))


@computes("ConstantOfShape")
def constant_of_shape(ops, node: Node, shape):
    value = node.get("value")
    value = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return ops.asarray(np.full([int(n) for n in ops.to_host(shape)], value.item(), value.dtype))


@computes("Slice")
def cut(ops, node: Node, x, *_):
    """x between starts and ends along axes, by steps: attributes once, inputs now."""
    starts, ends = node.get("starts", position=1), node.get("ends", position=2)
    axes = node.get("axes", range(len(starts)), position=3)
    steps = node.get("steps", [1] * len(starts), position=4)
    kept = [slice(None)] * x.ndim
    for axis, *part in zip(axes, starts, ends, steps):
        kept[int(axis)] = slice(*map(int, part))
    return x[tuple(kept)]
