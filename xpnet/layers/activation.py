"""An activation as a layer of its own."""

from __future__ import annotations

from .. import activations
from .base import Layer


class Activation(Layer):
    """y = f(x), element by element (softmax: over the features).  x of any shape -> y of the same.

    function: a name, or an object of `xpnet.activations`.

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


def ReLU(negative_slope=0.0, **layer) -> Activation:
    """Activation("relu"), by the name of Keras's layer.

    negative_slope: where it is not 0, LeakyReLU of that slope.
    """
    return LeakyReLU(negative_slope, **layer) if negative_slope else Activation("relu", **layer)


def LeakyReLU(negative_slope=0.3, **layer) -> Activation:
    """Activation("leaky_relu") by the name of Keras's layer.

    negative_slope: below zero; by default that of Keras's layer, not that of its activation, which is 0.2.
    """
    return Activation(activations.LeakyReLU(layer.pop("alpha", negative_slope)), **layer)  # Keras 2: alpha


def ELU(alpha=1.0, **layer) -> Activation:
    """Activation("elu") by the name of Keras's layer.  alpha: what it falls to, minus."""
    return Activation(activations.ELU(alpha), **layer)


def Softmax(**layer) -> Activation:
    """Activation("softmax"), over the features or channels, by the name of Keras's layer."""
    return Activation("softmax", **layer)
