"""A model's arrays as the list that Keras's `get_weights` gives: layer after layer, in Keras's shapes.

So model.set_weights(keras_model.get_weights()) is a copy, where the layers are the same.
"""

from __future__ import annotations

import numpy as np

from ...errors import ShapeError
from ...layers import Layer
from ...params import Slot
from .arrays import Orders, orders, slots, turned, turned_back, turned_shape


def get_weights(model, layer: Layer | None = None) -> list[np.ndarray]:
    """Copies of the arrays of the model, or of one layer with all that stands inside, in Keras's order."""
    state = model.state_dict()
    return [turned(one, slot, state[name], order) for one, slot, name, order in _places(model, layer)]


def set_weights(model, weights, layer: Layer | None = None) -> None:
    """Write arrays that `get_weights` gave.

    weights: a list of arrays.  layer: the one of the model that they belong to.  Raises ShapeError where
    their number or a shape does not fit; then nothing changes.
    """
    places = _places(model, layer)
    arrays = [np.asarray(a) for a in weights]
    if len(arrays) != len(places):
        raise ShapeError(
            f"the weights are of another {'layer' if layer else 'model'}. Received: {len(arrays)} arrays. "
            f"Expected: {len(places)}, {', '.join(name for _, _, name, _ in places)}"
        )
    state = {}
    for a, (one, slot, name, order) in zip(arrays, places):
        expected = turned_shape(one, slot, order)
        if a.shape != expected:
            raise ShapeError(
                f"{one.where}: {slot.name} does not fit. Received: {a.shape}. Expected: {expected}, in "
                "Keras's order of axes"
            )
        state[name] = turned_back(one, slot, a, order)
    model.load_state_dict(state, strict=False)


def _places(model, layer: Layer | None) -> list[tuple[Layer, Slot, str, Orders]]:
    """Every array that Keras has too: its layer, its slot, its name in `state_dict`, the orders around it."""
    model._need_built()
    around = orders(model.layers)
    names = {(slot.layer, slot.name): name for name, slot in model._named_slots()}
    chosen = model.all_layers() if layer is None else _within(layer)
    return [(one, slot, names[one, slot.name], around[one]) for one in chosen for slot in slots(one)]


def _within(layer: Layer) -> list[Layer]:
    return [
        layer,
        *(one for branch in layer.children().values() for inner in branch for one in _within(inner)),
    ]
