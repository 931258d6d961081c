"""From what a user says about a network to new layers for data of one shape."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

from .. import activations, networks
from ..activations import ActivationFunction
from ..initializers import RandomUniform
from ..layers import Activation, Dense, Dropout, Flatten, Input
from ..layers.base import Layer, Shape
from ..training.inputs import whole

HIDDEN = (100,)  # MLPClassifier's default


class Architecture:
    """One of `layers` (a list of layers, a function, the name of a network, widths), `hidden` and
    `hidden_layer_sizes`, as given to an estimator; the widths (100,) where none is.
    """

    def __init__(self, layers, hidden, hidden_layer_sizes, activation, dropout):
        given = {"layers": layers, "hidden": hidden, "hidden_layer_sizes": hidden_layer_sizes}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) > 1:
            raise ValueError(
                f"the architecture is given more than once. Received: {' and '.join(given)}. Expected: one "
                "of them, the others None"
            )
        self.name, value = next(iter(given.items()), ("hidden", HIDDEN))
        self.value: Any = value
        self.activation, self.dropout = activation, dropout
        by_layers = self.name == "layers"
        self.is_list = (
            by_layers
            and isinstance(value, (list, tuple))
            and len(value) > 0
            and all(isinstance(one, (Layer, Input)) for one in value)
        )
        self.is_function = by_layers and (
            isinstance(value, str) or (callable(value) and not isinstance(value, (Layer, type)))
        )
        self.widths = () if self.is_list or self.is_function else self._widths()
        if dropout and (self.is_list or self.is_function):
            raise ValueError(
                f"dropout belongs to hidden=(...). Received: dropout={dropout!r} beside layers. Expected: "
                "Dropout layers where the network wants them"
            )

    def layers(self, shape: Shape, outputs: int, width: int) -> list[Layer]:
        """New layers for samples of `shape`, (C, H, W) or (D,).

        outputs: what a function is asked for, classes or targets.  width: units of the output layer that
        follows hidden ones.
        """
        if self.is_list:
            return copy.deepcopy(list(self.value))
        if isinstance(self.value, str):
            return networks.build(self.value, shape, outputs)
        if self.is_function:
            return _called(self.value, shape, outputs)
        layers: list[Layer] = [Flatten()] if len(shape) == 3 else []
        inputs = math.prod(shape)
        for units in self.widths:
            layers.append(self._dense(inputs, units, self.activation))
            if self.dropout:
                layers.append(Dropout(self.dropout))
            inputs = units
        return [*layers, self._dense(inputs, width, None)]

    def _dense(self, inputs: int, units: int, activation) -> Dense:
        """Weights and biases start as MLPClassifier's: from biases of 0 small nets often stand still."""
        scale = 2 if isinstance(activations.get(self.activation), activations.Sigmoid) else 6
        bound = math.sqrt(scale / (inputs + units))
        start = RandomUniform(-bound, bound)
        return Dense(units, activation=activation, kernel_initializer=start, bias_initializer=start)

    def _widths(self) -> tuple[int, ...]:
        several = hasattr(self.value, "__iter__") and not isinstance(self.value, str)
        try:
            return tuple(whole("a width", units, 1) for units in (self.value if several else [self.value]))
        except ValueError:
            expected = "widths of hidden layers, (128, 64)"
            if self.name == "layers":
                expected = (
                    "a list of layers of xpnet.layers, a function (input_shape, "
                    "outputs) -> layers, such as xpnet.networks.lenet; the name of one "
                    f"({', '.join(networks.BUILDERS)}); or {expected}"
                )
            raise ValueError(
                f"{self.name} cannot be read. Received: {self.value!r}. Expected: {expected}"
            ) from None


def _called(function: Callable, shape: Shape, outputs: int) -> list[Layer]:
    arguments: tuple[Any, ...] = (shape, outputs)
    if not _takes(function, *arguments):
        arguments = (shape,)
        if not _takes(function, *arguments):
            raise TypeError(
                f"layers={function!r} must take the shape of a sample, and may take the number of outputs. "
                "Expected: a function (input_shape, outputs) -> layers, as xpnet.networks.lenet"
            )
    layers = function(*arguments)
    if not isinstance(layers, (list, tuple)) or not all(isinstance(one, (Layer, Input)) for one in layers):
        raise TypeError(
            f"layers={function!r} must return layers. Received: {layers!r}. Expected: a list of objects of "
            "xpnet.layers"
        )
    return copy.deepcopy(list(layers))  # which another model may have


def _takes(function: Callable, *arguments) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True


def last_activation(layers: list[Layer]) -> ActivationFunction:
    """What the network's outputs have been through."""
    last: Any = layers[-1]
    return last.function if isinstance(last, Activation) else last.activation
