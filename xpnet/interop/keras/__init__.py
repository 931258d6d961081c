"""Models and weights to and from Keras 3.

    model = interop.keras.from_keras(keras_model)            # alive, or a .keras file
    keras_model = interop.keras.to_keras(model)
    interop.keras.load_weights(model, keras_model)           # or a .keras or .weights.h5 file
    interop.keras.save_weights(model, "net.weights.h5")      # keras_model.load_weights reads it
    interop.keras.save(model, "net.keras")                   # keras.saving.load_model reads it
    interop.keras.set_weights(model, keras_model.get_weights())

Files need h5py, not Keras.  Keras's images are (N, H, W, C) throughout: `from_keras` makes models with
data_format="channels_last", and what `to_keras` makes of a channels_first one takes x.transpose(0, 2, 3, 1).
Predictions are the same; how a model is compiled, and what only training sees (regularizers), stays behind.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelFileError, ShapeError
from ...layers import Flatten, Reshape
from ...model import Sequential
from . import archive, read, write
from .arrays import is_depthwise, orders, rows_columns_channels, slots, turned_back, turned_shape
from .lists import get_weights, set_weights
from .write import Entry, Join

__all__ = [
    "from_keras",
    "get_weights",
    "load_weights",
    "save",
    "save_weights",
    "set_weights",
    "to_keras",
]


def from_keras(source, **model) -> Sequential:
    """A model with the layers and weights of a Keras model.

    source: a keras.Sequential or a functional model whose branches, if any, join in Add or Concatenate, or
    the path of a .keras file.  model: more arguments of `Sequential`, such as device and seed.  Raises
    ModelFileError where a layer has no counterpart, TypeError for what is no Keras model, ValueError for
    data_format="channels_first".
    """
    if model.pop("data_format", "channels_last") != "channels_last":
        raise ValueError(
            "from_keras makes models with data_format='channels_last', which Keras's layers work in"
        )
    with _source(source) as (description, held):
        if description is None:
            raise ModelFileError(
                f"{source} holds weights alone. Expected: a .keras file or a Keras model; or build the same "
                "model here and load_weights"
            )
        chain = _chain_of(description, held)
        entries = list(read.flat(chain))
        wide = any(a.dtype == np.float64 for entry in entries for a in entry.arrays)
        made = Sequential(
            read.layers(chain),
            input_shape=read.input_shape(description),
            **{
                "data_format": "channels_last",
                "precision": "float64" if wide else "auto",
                "name": description["config"].get("name", "sequential"),
            }
            | model,
        )
        _check_borders(made)
        _load(made, entries)
    expected = getattr(source, "output_shape", (None, *made.output_shape))[1:]
    if tuple(expected) != made.output_shape:
        raise ModelFileError(
            f"the model came out different. Received: outputs {made.output_shape}. Expected: {expected}"
        )
    return made


def to_keras(model: Sequential) -> Any:
    """The model's layers and weights as a keras.Sequential, or a functional model where it has branches.

    Raises ImportError without Keras, NotBuiltError before the shapes are known, TypeError for a layer that
    Keras has none for.
    """
    model._need_built()
    try:
        import keras
    except ImportError as error:
        raise ImportError(
            f"to_keras needs Keras ({error}): pip install keras, and one of its backends"
        ) from error
    described = write.entries(model)
    x = inputs = keras.Input(_keras_input_shape(model), dtype=model.dtype.name)
    made: list[tuple[Any, Entry]] = []

    def run(chain, x):
        for one in chain:
            if isinstance(one, Join):
                x = getattr(keras.layers, one.kind)(name=one.name)(
                    [run(branch, x) for branch in one.branches]
                )
                continue
            layer = getattr(keras.layers, one.kind)(**one.config)
            made.append((layer, one))
            x = layer(x)
        return x

    outputs = run(described, x)
    if any(isinstance(one, Join) for one in described):
        result = keras.Model(inputs, outputs, name=model.name)
    else:
        result = keras.Sequential([inputs, *(layer for layer, _ in made)], name=model.name)
    for layer, entry in made:
        if entry.arrays:
            layer.set_weights(entry.arrays)
        if entry.kind == "Normalization":
            layer.finalize_state()
    return result


def load_weights(model: Sequential, source) -> None:
    """Copy weights into a model of the same layers.  Nothing is changed unless every array fits.

    source: a Keras model, or the path of a .keras or .weights.h5 file.  Raises ShapeError where one does not,
    ModelFileError where the file is damaged.
    """
    model._need_built()
    with _source(source) as (description, held):
        if description is not None:
            entries = list(read.flat(_chain_of(description, held)))
        else:
            entries = _by_name(model, held)
        _load(model, entries)


def save_weights(model: Sequential, path) -> None:
    """Write the weights as the same Keras model does, to the .weights.h5 file of that path.

    Raises TypeError for a model with branches.
    """
    archive.write_weights(path, _chain(model))


def save(model: Sequential, path, beside: dict[str, bytes] | None = None) -> None:
    """Write the .keras file of that path, from which Keras makes the same model, not compiled.

    beside: more files for the archive, by name, of which Keras takes no notice.  Raises TypeError for a
    model with branches.
    """
    archive.write_model(
        path, model.name, _keras_input_shape(model), model.dtype.name, _chain(model), beside or {}
    )


# -- inside --------------------------------------------------------------------------------------------------


class _Live:
    """The arrays of the layers of a Keras model (a `read.Source`)."""

    def __init__(self, model):
        self.model = model

    def arrays(self, kind: str, name: str) -> list[np.ndarray]:
        return [] if kind == "InputLayer" else self.model.get_layer(name).get_weights()

    def inside(self, kind: str, name: str) -> _Live:
        return _Live(self.model.get_layer(name))


def _source(source) -> AbstractContextManager[tuple[dict[str, Any] | None, read.Source]]:
    """The description of a Keras model, alive or in a file, and where its arrays are."""
    if isinstance(source, (str, Path)):
        return archive.opened(source)
    if not hasattr(source, "get_config") or not hasattr(source, "get_layer"):
        raise TypeError(
            f"this is no Keras model. Received: {type(source).__name__}. Expected: a keras.Sequential, a "
            "keras.Model, or the path of a .keras or .weights.h5 file"
        )
    if not getattr(source, "built", True):
        raise ModelFileError(
            "the Keras model has no weights yet. Expected: keras.Input(shape) as its first layer"
        )
    return nullcontext(({"class_name": type(source).__name__, "config": source.get_config()}, _Live(source)))


def _chain_of(description: dict[str, Any], held: read.Source) -> list[Entry | Join]:
    try:
        return read.chain(description, held)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelFileError(
            f"the Keras model's description cannot be read ({error!r}). Expected: what Keras 3 writes"
        ) from error


def _chain(model: Sequential) -> list[Entry]:
    """The entries of a model without branches."""
    model._need_built()
    found: list[Entry] = []
    for entry in write.entries(model):
        if isinstance(entry, Join):
            raise TypeError(
                f"{entry.name!r} has branches, which Keras's own code must name. Received: a {entry.kind} of "
                f"{len(entry.branches)}. Expected: a chain; xpnet.interop.keras.to_keras(model).save(path) "
                "writes this one"
            )
        found.append(entry)
    return found


def _keras_input_shape(model: Sequential) -> tuple[int, ...]:
    shape = model._need_built().in_shape
    if len(shape) == 1:
        return shape
    C, H, W = shape
    return (H, W) if model._without_channel else (H, W, C)


def _by_name(model: Sequential, held: Any) -> list[Entry]:
    """What a .weights.h5 has for each layer of the model, by the names that Keras would give it."""
    groups = held.groups()
    depthwise = any(name.startswith("depthwise") for name in groups)
    counts: Counter[str] = Counter()
    found: list[Entry] = []
    names: list[str] = []
    for ours in _chain(model):
        kind = "Conv2D" if ours.kind == "DepthwiseConv2D" and not depthwise else ours.kind
        names.append(archive.group_name(kind, counts))
        entry = Entry(kind, ours.config, held.arrays(kind, ""), f"layers/{names[-1]} of {held.what}")
        if ours.arrays and not entry.arrays:
            raise ShapeError(
                f"{ours.where}: its weights are missing in {held.what}. Received: "
                f"{', '.join(groups) or 'none at all'}. Expected: layers/{names[-1]}"
            )
        found += read.plain(entry)
    strange = [name for name in groups if name not in names]
    if strange:
        raise ShapeError(
            f"the model has no place for weights. Received: layers/{strange[0]} in {held.what}. Expected: "
            f"{', '.join(name for name, ours in zip(names, found) if ours.arrays)}"
        )
    return found


def _load(model: Sequential, entries: list[Entry]) -> None:
    """Copy the arrays of the entries into the layers that have some, in turn."""
    around = orders(model.layers)
    ours = [layer for layer in model.all_layers() if slots(layer)]
    theirs = [entry for entry in entries if entry.arrays]
    names = {(slot.layer, slot.name): name for name, slot in model._named_slots()}
    state = {}
    for layer, entry in zip_longest(ours, theirs):
        if layer is None:
            raise ShapeError(f"the model has no place for weights. Received: those of Keras's {entry.where}")
        kind = "DepthwiseConv2D" if is_depthwise(layer) else type(layer).__name__
        if entry is None or (entry.kind != kind and {entry.kind, kind} != {"Conv2D", "DepthwiseConv2D"}):
            raise ShapeError(
                f"{layer.where}: Keras's layer is another. Received: {entry.where if entry else 'none'}. "
                f"Expected: a {kind}"
            )
        own = slots(layer)
        if len(own) != len(entry.arrays):
            raise ShapeError(
                f"{layer.where}: Keras's layer has other arrays. Received: {len(entry.arrays)} of "
                f"{entry.where}. Expected: {', '.join(slot.name for slot in own)}"
            )
        for slot, a in zip(own, entry.arrays):
            expected = turned_shape(layer, slot, around[layer])
            if entry.kind != kind and a.size == slot.size:
                a = a.reshape(expected)  # (KH, KW, 1, F) and (KH, KW, C, F/C) are one thing
            if kind == "Normalization" and a.size == 1:
                a = np.full(expected, a.item())  # one mean for all
            if a.shape != expected:
                raise ShapeError(
                    f"{layer.where}: {slot.name} does not fit. Received: {a.shape} of {entry.where}. "
                    f"Expected: {expected}, in Keras's order"
                )
            state[names[layer, slot.name]] = turned_back(layer, slot, a, around[layer])
    model.load_state_dict(state, strict=False)


def _check_borders(model: Sequential) -> None:
    """ModelFileError where a map is unrolled in an order that would show in the predictions."""
    around = orders(model.layers)
    for layer in model.all_layers():
        if (
            isinstance(layer, (Flatten, Reshape))
            and len(layer.in_shape) == 3
            and layer.in_shape != layer.out_shape
            and around[layer].after is None
            and rows_columns_channels(layer.in_shape) is not None
        ):
            raise ModelFileError(
                f"{layer.where} unrolls a map in H, W, C order in Keras and in C, H, W order here. Received: "
                f"{layer.in_shape} to {layer.out_shape}, and no Dense behind it whose weights could make up "
                "for that. Expected: one, or a global pooling in its place"
            )
