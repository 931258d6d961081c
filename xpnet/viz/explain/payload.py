"""What a page knows of a model: its manifest, which engine/net.js reads, and the tensors it names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import activations, losses
from ... import layers as L
from ...training.step import Head, head_of
from .assemble import page_data
from .graph import activation_of, is_known, needs_batch
from .plan import GONE, STORED_FORM, Part, Plan
from .reasons import reason
from .tensors import FLOATS, Tensors

STRAIGHT = (type(None), activations.ReLU, activations.LeakyReLU)


@dataclass
class Sample:
    """One sample for the page.

    x: (1, ...), as the model takes it.  label: its class, or None.  target: what the loss takes, (1, ...), or
    None.
    """

    x: np.ndarray
    label: int | None = None
    target: np.ndarray | None = None
    name: str = ""


@dataclass
class Subject:
    """What is explained: a model, samples, and what is known of its data.

    classes: names in the order of the outputs.  low, high: the range of the inputs.  style: how drawn strokes
    become an image.
    """

    model: Any
    samples: list[Sample]
    title: str
    classes: list[str]
    language: str | None = None
    low: float = 0.0
    high: float = 1.0
    style: str | None = None


def collect(subject: Subject, room: int) -> tuple[dict[str, Any], bytes]:
    """The manifest and the gzipped tensors, which together take at most `room` characters of a page.

    ValueError where even the smallest page would be larger.
    """
    head, why = loss_of(subject.model)
    plan, wanted = Plan(subject.model, head, [(s.x, s.target) for s in subject.samples]), room
    for _ in range(8):  # the plan estimates what gzip makes of the tensors
        plan.fit(wanted)
        manifest, packed = _written(subject, plan, _loss(head, why, subject.model))
        size = sum(len(text.encode()) for text in page_data(manifest, packed).values())
        if size <= room:
            return manifest, packed
        wanted -= size - room
    raise ValueError(
        f"the model does not fit a page. Received: {len(manifest['layers'])} layers, which take {size:,} "
        f"bytes without weights. Expected: at most {room:,}"
    )


def _written(subject: Subject, plan: Plan, loss: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    model, kept = subject.model, Tensors()
    layers = [_layer(index, part, plan, kept) for index, part in enumerate(plan.parts)]
    samples = [_sample(i, sample, plan, kept) for i, sample in enumerate(subject.samples[: plan.count])]
    first = next((part.node.layer for part in plan.parts if needs_batch(part.node.layer)), None)
    shape = list(model.chain.in_shape)
    manifest = {
        "title": subject.title,
        "language": subject.language,
        "classes": subject.classes,
        "input": {
            "shape": shape,
            "low": subject.low,
            "high": subject.high,
            "drawable": len(shape) == 3 and shape[0] == 1,
            "style": subject.style,
            "dataFormat": model.data_format,
        },
        "loss": loss,
        "trainable": {
            "ok": first is None,
            "reason": None if first is None else reason("one sample", layer=first.label),
        },
        "layers": layers,
        "samples": samples,
        "first": _least_certain(plan, subject.samples),
        "tensors": kept.entries,
    }
    return manifest, kept.packed()


def _least_certain(plan: Plan, samples: list[Sample]) -> int:
    """The sample with the largest loss, whose gradients show most; the first where a label is missing."""
    chosen, last = samples[: plan.count], plan.model.layers[-1]
    if any(sample.label is None or sample.target is None for sample in chosen):
        return 0

    def loss(index):
        out = plan.seen(index, False)[id(last)].output[None]
        return float(plan.head.loss.per_sample(plan.model.ops, out, chosen[index].target)[0][0])

    return max(range(len(chosen)), key=loss, default=0)


def _layer(index: int, part: Part, plan: Plan, kept: Tensors) -> dict[str, Any]:
    node, layer = part.node, part.node.layer
    function = activation_of(layer) if is_known(layer) else None
    status, why = plan.told(part)
    return {
        "index": index,
        "depth": node.depth,
        "parent": node.parent,
        "inputs": node.inputs,
        "children": node.children,
        "name": layer.label,
        "kind": type(layer).__name__,
        "known": is_known(layer),
        "key": node.key,
        "text": repr(layer),
        "config": _config(layer),
        "inShape": list(layer.in_shape),
        "outShape": list(layer.out_shape),
        "activation": None if function is None else _name(function),
        "activationOptions": None if function is None else {"name": _name(function), **_config(function)},
        "params": [_param(part, slot, plan, kept) for slot in layer.slots + layer.state_slots],
        "mask": _mask(layer, kept),
        "trainable": layer.is_trainable,
        "multiplyAdds": int(layer.multiply_adds()),
        "status": status,
        "reason": why,
        **(_resolved(layer) if is_known(layer) else {}),
    }


def _param(part: Part, slot, plan: Plan, kept: Tensors) -> dict[str, Any]:
    form = part.forms.get(slot.name, "float32")
    if not is_known(part.node.layer):
        form = GONE
    number = None if form == GONE else kept.add(plan.array(part, slot), form)
    learned = slot in part.node.layer.slots
    return {"name": slot.name, "shape": list(slot.shape), "learned": learned, "tensor": number}


def _mask(layer, kept: Tensors) -> int | None:
    """What a dropout layer would keep of one sample at the model's present step: a bit an element, or a
    channel.
    """
    if type(layer) not in (L.Dropout, L.SpatialDropout2D) or not layer.rate:
        return None
    if len(layer.in_shape) == 1:
        y, _ = layer.forward(np.ones((1, *layer.in_shape), np.float32), train=True)
        return kept.add(y[0] != 0, "bits")
    C, H, W = layer.in_shape
    y, _ = layer.forward(np.ones((H, C, W, 1), np.float32), train=True)
    survivors = y[..., 0].transpose(1, 0, 2) != 0
    return kept.add(survivors[:, 0, 0] if type(layer) is L.SpatialDropout2D else survivors, "bits")


def _sample(index: int, sample: Sample, plan: Plan, kept: Tensors) -> dict[str, Any]:
    target: Any = sample.label
    if target is None and sample.target is not None:
        target = {"tensor": kept.add(np.asarray(sample.target[0], np.float32))}
    return {
        "x": kept.add(channels_first(plan.model, sample.x)),
        "label": sample.label,
        "name": sample.name,
        "target": target,
        "stored": {
            mode: {
                number: _results(plan, index, part, train, kept)
                for number, part in enumerate(plan.parts)
                if part.is_stored
            }
            for mode, train in (("train", True), ("infer", False))
        },
    }


def _results(plan: Plan, index: int, part: Part, train: bool, kept: Tensors) -> dict[str, Any]:
    """What a layer made of a sample: z, and dL/dx.  A container's dL/dx follows from its branches."""
    seen = plan.seen(index, train)[id(part.node.layer)]
    bends = type(activation_of(part.node.layer)) not in STRAIGHT
    d_input = None if part.node.children else seen.d_input
    return {
        "pre": kept.add(seen.pre, "float32" if bends or seen.pre.ndim == 1 else _map_form(seen.pre)),
        "dInput": None if d_input is None else kept.add(d_input, _map_form(d_input)),
    }


def _map_form(a: np.ndarray) -> str:
    """Maps may be rounded to their channels' scales."""
    return STORED_FORM if a.ndim == 3 and np.isfinite(a).all() else FLOATS[-1]


def class_of(target: np.ndarray | None) -> int | None:
    """The class that a target (1, ...) names: an index, a row of zeros and a one, or a no or yes."""
    if target is None:
        return None
    value = target[0]
    if value.ndim == 0 and value.dtype.kind in "iu":
        return int(value)
    if value.ndim != 1 or not np.isin(value, (0, 1)).all():
        return None
    if len(value) == 1:
        return int(value[0])
    return int(value.argmax()) if value.sum() == 1 else None


def channels_first(model, x: np.ndarray) -> np.ndarray:
    """A sample as the page has it: (C, H, W) or (D,)."""
    x = x.reshape(model.input_shape)
    if len(model.chain.in_shape) == 3 and x.ndim == 3 and model.data_format == "channels_last":
        x = x.transpose(2, 0, 1)
    return x.reshape(model.chain.in_shape)


def _name(function) -> str:
    """What engine/activations.js calls it."""
    return "log_softmax" if type(function) is activations.LogSoftmax else function.name


def _config(described) -> dict[str, Any]:
    """The numbers and words that a layer or an activation was made with."""
    try:
        config = described.get_config()
    except TypeError:  # a class of the user's own that does not keep its arguments
        return {}
    return {key: value for key, value in config.items() if _plain(value)}


def _plain(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_plain(one) for one in value)
    return (
        value is None
        or isinstance(value, (bool, int, str))
        or (isinstance(value, float) and math.isfinite(value))
    )


def _resolved(layer) -> dict[str, Any]:
    """What follows from the constructor's words and the shapes: windows, shares, borders."""
    kind = type(layer)
    more: dict[str, Any] = {}
    if kind in (L.GlobalAveragePooling2D, L.GlobalMaxPooling2D):
        _, H, W = layer.in_shape
        more["window"] = {
            "kernel": [H, W],
            "strides": [H, W],
            "dilation": [1, 1],
            "padding": [[0, 0], [0, 0]],
        }
    elif kind in (L.Conv2D, L.Conv2DTranspose, L.MaxPooling2D, L.AveragePooling2D):
        more["window"] = layer.window._asdict()
    if kind is L.AveragePooling2D:
        more["share"] = np.asarray(layer.share, np.float64).reshape(-1).tolist()
    elif kind is L.GlobalAveragePooling2D:
        more["share"] = [1 / math.prod(layer.in_shape[1:])]
    elif kind is L.ZeroPadding2D:
        more["border"] = layer.sides
    elif kind is L.BatchNormalization:
        more["frozen"] = not layer.is_trainable or needs_batch(layer)
    elif kind is L.Reshape:
        more["channelsLast"] = bool(layer.last and len(layer.in_shape) == 1)
    elif kind in (L.Dropout, L.SpatialDropout2D):
        more["keep"] = 1 / (1 - layer.rate) if layer.scaling == "train" else 1.0
    return more


# -- the loss ------------------------------------------------------------------------------------------------

KINDS = {
    losses.CategoricalCrossentropy: "softmax-cross-entropy",
    losses.SparseCategoricalCrossentropy: "softmax-cross-entropy",
    losses.BinaryCrossentropy: "binary-cross-entropy",
    losses.MeanSquaredError: "mse",
    losses.HalfSquaredError: "half-squared-error",
    losses.SumSquaredError: "sum-squared-error",
    losses.MeanAbsoluteError: "mae",
    losses.Huber: "huber",
}


def loss_of(model) -> tuple[Head, str]:
    """The model's loss as training takes it, and why it is this one.

    A model without a loss, or with one that the page does not know, gets the usual one for its outputs.
    """
    if model.loss is not None and type(model.loss) in KINDS:
        return head_of(model.layers, model.loss), "compiled"
    K, *pixels = model.chain.out_shape
    name = "sparse_categorical_crossentropy" if K > 1 else "binary_crossentropy"
    name = "mean_squared_error" if pixels else name
    return head_of(model.layers, losses.get(name)), "assumed" if model.loss is None else "unknown"


def _loss(head: Head, why: str, model) -> dict[str, Any]:
    loss = head.loss
    last = activation_of(model.layers[-1])
    probabilities = "outputs" if isinstance(last, activations.Softmax) else None
    if loss.folds:
        probabilities = "outputs" if head.folded or not loss.from_logits else loss.folds
    return {
        "kind": KINDS[type(loss)],
        "text": loss.name,
        "fromLogits": bool(loss.from_logits),
        "folded": None if head.folded is None else head.folded.name,
        "smoothing": float(getattr(loss, "label_smoothing", 0.0)),
        "delta": float(getattr(loss, "delta", 1.0)),
        "probabilities": probabilities if len(model.chain.out_shape) == 1 else None,
        "why": reason(why),
    }
