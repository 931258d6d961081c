"""A model as a list of layers that read each other's outputs, and what they make of one sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import activations
from ... import layers as L
from ...layers import Activation, Concatenate, Layer, Residual
from ...layers.containers import Chain, with_branch
from ...training.step import Head, training_chain

KINDS = (
    Activation, L.AveragePooling2D, L.BatchNormalization, Concatenate, L.Conv2D, L.Conv2DTranspose, L.Dense,
    L.Dropout, L.Flatten, L.GlobalAveragePooling2D, L.GlobalMaxPooling2D, L.GroupNormalization,
    L.LayerNormalization, L.MaxPooling2D, L.Normalization, L.Rescaling, L.Reshape, Residual,
    L.SpatialDropout2D, L.UpSampling2D, L.ZeroPadding2D,
)  # fmt: skip
FUNCTIONS = (*activations.TABLE.values(), activations.LogSoftmax)


@dataclass
class Node:
    """One layer at its place.  A container stands behind the layers inside it, whose outputs it joins.

    inputs: the numbers of the nodes whose outputs it reads, -1 for the model's input.  key: where its
    parameters go in `state_dict`.  children: the numbers of the nodes in each branch.
    """

    layer: Layer
    key: str
    depth: int
    inputs: list[int]
    parent: int | None = None
    children: dict[str, list[int]] = field(default_factory=dict)


def nodes_of(model) -> list[Node]:
    """The model's layers in an order in which each comes after those it reads."""
    nodes: list[Node] = []

    def walk(layers, source: int, depth: int, prefix: str) -> tuple[int, list[int]]:
        number, here = 0, []
        for layer in layers:
            node = Node(layer, f"{prefix}{number}", depth, [source])
            if type(layer) in (Residual, Concatenate):
                ends = []
                for branch, inner in layer.children().items():
                    end, node.children[branch] = walk(inner, source, depth + 1, f"{node.key}.{branch}.")
                    ends.append(end)
                node.inputs = ends
            source = len(nodes)
            here.append(source)
            for child in (index for branch in node.children.values() for index in branch):
                nodes[child].parent = source
            nodes.append(node)
            number += layer.modules
        return source, here

    walk(model.layers, -1, 0, "")
    return nodes


@dataclass
class Seen:
    """What one layer did to one sample: before its activation, after it, and dL/dx; maps (C, H, W)."""

    pre: np.ndarray
    output: np.ndarray
    d_input: np.ndarray | None = None


class _Witness:
    """A layer that tells what it does."""

    def __init__(self, layer: Layer, seen: dict[int, Seen], key: int):
        self.layer, self.seen, self.key = layer, seen, key

    def forward(self, x, *, train):
        layer = self.layer
        y, cache = layer.forward(x, train=train)
        pre = y
        if is_known(layer) and activation_of(layer) is not None:
            pre = layer.without_activation().forward(x, train=train)[0]
        self.seen[self.key] = Seen(_one(pre), _one(y))
        return y, cache

    def backward(self, dy, cache):
        dx = self.layer.backward(dy, cache)
        self.seen[self.key].d_input = None if dx is None else _one(dx)
        return dx


def observe(model, head: Head, x: np.ndarray, target, train: bool) -> dict[int, Seen]:
    """What every layer makes of one sample, by the layer's id; the model stays as it was.

    x: (1, ...), as `predict` takes it.  target: what the loss takes, of one sample, or None: no gradients.
    """
    ops = model.ops
    grads = ops.flat(len(model.params.grads), model.dtype)
    seen: dict[int, Seen] = {}
    twins = training_chain(model.layers, ops, grads, head)
    chain = Chain([_watched(twin, layer, seen) for twin, layer in zip(twins.layers, model.layers)])
    with np.errstate(all="ignore"):
        y, caches = chain.forward(model.enter(x, ops), train=train)
        if target is not None:
            p = model.leave(y)
            _, dp = head.loss.value_and_grad(ops, p, target, None, 1.0)
            chain.backward(ops.pack(dp, dp.dtype) if y.ndim == 4 else dp, caches)
    return seen


def _watched(twin: Layer, original: Layer, seen: dict[int, Seen]) -> Any:
    twin.needs_dx = True
    if needs_batch(original):
        twin.trainable = False  # so that it takes its running statistics
    if type(original) in (Residual, Concatenate):
        for branch, inner in original.children().items():
            pairs = zip(twin.children()[branch], inner)
            if inner:
                twin = with_branch(twin, branch, [_watched(a, b, seen) for a, b in pairs])
    return _Witness(twin, seen, id(original))


def _one(a) -> np.ndarray:
    """A copy of the only sample of (H, C, W, 1) or (1, D)."""
    return np.array(a[..., 0].transpose(1, 0, 2) if a.ndim == 4 else a[0], order="C")


def needs_batch(layer: Layer) -> bool:
    """Whether a layer cannot be trained on one sample, of which it has no variance."""
    return type(layer) is L.BatchNormalization and layer.is_trainable and math.prod(layer.in_shape[1:]) == 1


def is_known(layer: Layer) -> bool:
    """Whether the page can compute the layer: one of xpnet's own, not of a class made from it."""
    function = layer.function if isinstance(layer, Activation) else layer.activation
    return type(layer) in KINDS and type(function) in FUNCTIONS


def activation_of(layer: Layer) -> activations.ActivationFunction | None:
    """What a layer ends in; None for nothing."""
    function = layer.function if isinstance(layer, Activation) else layer.activation
    return None if isinstance(function, activations.Linear) else function
