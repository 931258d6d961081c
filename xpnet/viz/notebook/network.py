"""The layers of a model as a table: what each is, what it yields, what it holds and what it costs."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

from .markup import bytes_text, el

OPEN = 12  # layers in a model, up to which its containers are shown opened
TITLES = ("layer", "output shape", "parameters", "multiply-adds")


def network(model) -> Element:
    """The model: where it runs, its layers, how it was compiled, what memory it takes."""
    return el("section", _headline(model), _table(model) if model.layers else None, *_notes(model))


def _headline(model) -> Element:
    kind = type(model).__name__
    where = f"{kind} on {model.device}, {model.precision_meaning}"
    shape = f", input {_shape(model.input_shape)}, {model.data_format}" if model.built else ""
    return el("header", el("strong", model.name), " ", el("span", where + shape, class_="quiet"))


def _table(model) -> Element:
    open_ = len(model.all_layers()) <= OPEN
    rows = [_row(model, layer, open_) for layer in model.layers]
    head = el("thead", el("tr", *(el("th", title, scope="col") for title in TITLES)))
    parts = [el("colgroup", *(el("col") for _ in TITLES)), head, el("tbody", *rows)]
    if model.built:
        total = (f"{model.count_params():,}", f"{sum(map(multiply_adds, model.layers)):,}")
        cells = [el("td"), *(el("td", n, data_unit=unit) for n, unit in zip(total, TITLES[2:]))]
        parts.append(el("tfoot", el("tr", el("th", "in all", scope="row"), *cells)))
    return el("table", *parts, class_="layers")


def _row(model, layer, open_: bool) -> Element:
    branches = layer.children()
    if not branches:
        return el("tr", el("th", *_name(layer), scope="row"), *_numbers(model, layer, "td"))
    inner = []
    for branch, layers in branches.items():
        label = branch if layers else f"{branch}: x as it is"
        inner.append(el("tr", el("td", label, colspan=len(TITLES), class_="branch")))
        inner += [_row(model, one, open_) for one in layers]
    summary = el("summary", el("span", *_name(layer)), *_numbers(model, layer, "span"))
    table = el("table", el("colgroup", *(el("col") for _ in TITLES)), el("tbody", *inner), class_="layers")
    box = el("details", summary, table, open="open" if open_ else None)
    return el("tr", el("td", box, colspan=len(TITLES), class_="nest"))


def _name(layer) -> list:
    """Its name, its kind with the settings, and whether it is frozen."""
    named = [el("b", layer.label), " ", el("code", _settings(layer))]
    frozen = layer.count_params() and not layer.is_trainable
    return [*named, " ", el("em", "frozen")] if frozen else named


def _settings(layer) -> str:
    """Its repr; of a container without the layers inside, which have rows of their own."""
    if not layer.children():
        return repr(layer)
    function = layer.activation.name
    return type(layer).__name__ + (f"(activation={function!r})" if function != "linear" else "")


def _numbers(model, layer, tag: str) -> list[Element]:
    """Output shape, parameters with a bar of their share, multiply-adds."""
    if not model.built:
        return [el(tag, "?"), el(tag), el(tag)]
    count, products = layer.count_params(), multiply_adds(layer)
    share = count / (model.count_params() or 1)
    bar = el("i", style=f"width:{share:.1%}", title=f"{share:.1%} of all parameters") if count else None
    return [
        el(tag, _shape(("N", *model._external(layer.out_shape)))),
        el(tag, f"{count:,}" if count else "", bar, data_unit=TITLES[2] if count else None),
        el(tag, f"{products:,}" if products else "", data_unit=TITLES[3] if products else None),
    ]


def multiply_adds(layer) -> int:
    """Products with weights in one sample's forward pass; biases, poolings and activations not counted."""
    inner = [one for branch in layer.children().values() for one in branch]
    if inner:
        return sum(map(multiply_adds, inner))
    held, weight = sum(slot.size for slot in layer.slots), [s for s in layer.slots if s.name == "weight"]
    if not weight:
        return layer.multiply_adds()
    if len(weight[0].shape) == 1:  # a factor for each channel
        return math.prod(layer.out_shape)
    return weight[0].size * layer.multiply_adds() // held


def _notes(model) -> list[Element]:
    """How it is trained, and the memory it takes."""
    optimizer, loss = getattr(model, "optimizer", None), getattr(model, "loss", None)
    notes = []
    if not model.layers:
        notes.append(el("p", "There are no layers yet: model.add(layer)."))
    elif not model.built:
        notes.append(el("p", "Shapes follow from the first data, or from model.build(input_shape)."))
    if loss is None:
        notes.append(el("p", "Not compiled."))
    else:
        metrics = ", ".join(name for name, _ in model.metrics)
        words = ["Optimizer ", el("code", repr(optimizer)), ", loss ", el("code", repr(loss))]
        notes.append(el("p", *words, f", metrics {metrics}." if metrics else "."))
    if model.built:
        notes.append(el("p", _memory(model, optimizer)))
    return notes


def _memory(model, optimizer) -> str:
    params, size = model.params, model.dtype.itemsize
    weights = params.count() * size
    outputs = sum(math.prod(one.out_shape) for one in model.all_layers() if not one.children())
    frozen, statistics = params.count(trainable=False), sum(slot.size for slot in params.state_slots)
    words = [f"Memory: weights {bytes_text(weights)}"]
    if optimizer is not None:
        kept = len(optimizer.kept)
        words.append(f"gradients{' and optimizer' * bool(kept)} {bytes_text(weights * (1 + kept))}")
    words.append(f"layer outputs {bytes_text(outputs * size)} a sample.")
    told = ", ".join(words)
    if frozen:
        told += f" {frozen:,} parameters are frozen."
    if statistics:
        told += f" {statistics:,} running statistics are kept besides."
    return told


def _shape(shape) -> str:
    inner = ", ".join(map(str, shape))
    return f"({inner},)" if len(shape) == 1 else f"({inner})"
