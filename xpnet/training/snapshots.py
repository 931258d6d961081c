"""A callback that keeps the weights as they were, so that one can look back at how they came about."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers.base import Layer
from .callbacks import Callback
from .inputs import whole


class WeightHistory(Callback):
    """Copies of a model's parameters as training goes, on the host: `weights[name]` is (T, *shape).

    T moments: before training, at the end of each epoch (save_freq="epoch") or of so many batches, and after
    training, where updates have been made since.  Names and shapes are those of `state_dict`.  `steps` (T,):
    updates made until then; `moments`: the same in words; `layers`: the layer that each name belongs to.  A
    fit begins anew.

    layer: whose parameters, those of layers inside it included: its name, its place in `model.layers`, or
    itself; None: all.  limit: how many copies there are at most.  Where there would be more every other one
    is dropped, and from then on copies are made half as often; so memory stays within limit times the
    parameters', however long the training, and the moments evenly spaced.
    """

    def __init__(
        self, layer: Layer | str | int | None = None, save_freq: str | int = "epoch", limit: int = 50
    ):
        if save_freq != "epoch":
            if isinstance(save_freq, str):
                raise ValueError(f"save_freq must be 'epoch' or a number of batches. Received: {save_freq!r}")
            save_freq = whole("save_freq", save_freq, 1)
        self.layer, self.limit = layer, whole("limit", limit, 2)
        self.save_freq: Any = save_freq
        self.layers: dict[str, str] = {}
        self.steps: list[int] = []
        self.moments: list[str] = []
        self._copies: list[dict[str, np.ndarray]] = []

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The parameters at all moments, by name: (T, *shape)."""
        return {name: np.stack([copy[name] for copy in self._copies]) for name in self.layers}

    def __len__(self) -> int:
        return len(self._copies)

    def __repr__(self) -> str:
        return f"WeightHistory({len(self)} moments of {', '.join(self.layers) or 'nothing yet'})"

    def on_train_begin(self, logs=None):
        self.steps, self.moments, self._copies = [], [], []
        chosen = self._chosen()
        self.layers = {name: slot.layer.label for name, slot in self.model._named_slots() if slot in chosen}
        self._batches = self._met = 0
        self._every = 1
        self._meet("before training")

    def on_epoch_end(self, epoch, logs=None):
        if self.save_freq == "epoch":
            self._meet(f"epoch {epoch + 1}")

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq != "epoch":
            self._batches += 1
            if self._batches % self.save_freq == 0:
                self._meet(f"batch {self._batches}")

    def on_train_end(self, logs=None):
        if self.steps and self.model.optimizer.iterations > self.steps[-1]:
            if len(self) == self.limit:
                self._thin()
            self._copy("after training")

    def _chosen(self) -> list[Any]:
        """The slots of the parameters to keep."""
        model, layer = self.model, self.layer
        if layer is None:
            return model.params.slots
        if isinstance(layer, str):
            layer = model.get_layer(layer)
        elif isinstance(layer, int):
            layer = model.get_layer(index=layer)
        if not any(layer is one for one in model.all_layers()):
            raise ValueError(f"WeightHistory: the layer is not this model's. Received: {self.layer!r}")
        slots = list(_slots_of(layer))
        if not slots:
            raise ValueError(
                f"WeightHistory: the layer has no parameters. Received: {layer.where}. Expected: one of "
                + ", ".join(repr(one.label) for one in model.all_layers() if one.slots)
            )
        return slots

    def _meet(self, moment: str) -> None:
        """A moment of which there is to be a copy, unless there have been too many."""
        if self._met % self._every == 0:
            if len(self) == self.limit:
                self._thin()
            if self._met % self._every == 0:
                self._copy(moment)
        self._met += 1

    def _copy(self, moment: str) -> None:
        params, slots = self.model.params, dict(self.model._named_slots())
        self._copies.append({name: params.read(params.values, slots[name]) for name in self.layers})
        self.steps.append(self.model.optimizer.iterations)
        self.moments.append(moment)

    def _thin(self) -> None:
        self._every *= 2
        for kept in (self._copies, self.steps, self.moments):
            del kept[1::2]


def _slots_of(layer: Layer):
    yield from layer.slots
    for branch in layer.children().values():
        for inner in branch:
            yield from _slots_of(inner)
