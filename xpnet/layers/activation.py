"""An activation as a layer of its own."""

from __future__ import annotations

from .. import activations
from .base import Layer


class Activation(Layer):
    """y = f(x), element by element (softmax: over the features).  function: a name, or an object of
    `activations`.

    `Dense(10, activation="relu")` computes the same in the Dense layer's own output, which saves a copy.
    """

    def __init__(self, function, **layer):
        super().__init__(**layer)
        self.function = activations.get(function)

    def without_activation(self):
        twin = self.twin()
        twin.function = activations.Linear()
        return twin

    def forward(self, x, *, train):
        if isinstance(self.function, activations.Linear):
            return x, None
        return self.ops.activate(x, self.function)

    def backward(self, dy, kept):
        return self.ops.finish_backward(dy, kept, self.function)
