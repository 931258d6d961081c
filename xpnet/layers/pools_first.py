"""Max pooling before bias and activation: the same numbers from a fraction of the additions.

A bias is one number a channel and ReLU never falls, so rounded or not

    max(f(z_1 + b), .., f(z_k + b)) = f(max(z_1, .., z_k) + b)

to the bit, and f and b need touch only the pooled map, a quarter of the elements for windows of 2x2.  The
gradient, too, finds the same element, whether f's slope is applied before or after; only where the sum with b
rounds two elements to one number, the larger gets it and not the first.
"""

from __future__ import annotations

from typing import Any

from .. import activations
from .activation import Activation
from .base import Layer
from .containers import Concatenate, Residual, with_branch
from .conv import Conv2D
from .pool import GlobalMaxPooling2D, MaxPooling2D

RISING = (activations.Linear, activations.ReLU, activations.LeakyReLU)  # as they are computed, too


class Finish(Layer):
    """The bias and the activation of a convolution, after the pooling.  y = f(x + b), x a map or a vector."""

    bias: Any = None
    dbias: Any = None

    def forward(self, x, *, train):
        if self.bias is None:
            return self.ops.activate(x, self.activation)
        y = self.ops.like(x)
        self.ops.xp.add(x, self.bias if x.ndim == 2 else self.bias[:, None, None], out=y)
        return self.ops.finish(y, None, self.activation)

    def backward(self, dy, kept):
        return self.ops.finish_backward(dy, kept, self.activation, self.dbias)


def pools_first(layers: list[Layer]) -> list[Layer]:
    """Layers that compute what these do, with the bias and activation before a max pooling after it.

    Inside containers, too.  The given layers stay as they are; those of a user's own class are not moved.
    """
    out: list[Layer] = []
    for layer in layers:
        if type(layer) in (Residual, Concatenate):
            for branch, inner in layer.children().items():
                moved = pools_first(inner)
                if moved is not inner:
                    layer = with_branch(layer, branch, moved)
        waiting: list[Layer] = []
        if type(layer) in (MaxPooling2D, GlobalMaxPooling2D):
            while out and type(out[-1]) is Activation and type(out[-1].function) in RISING:
                waiting.insert(0, out.pop())
            last = out[-1] if out else None
            if type(last) is Conv2D and type(last.activation) in RISING:
                out[-1:], waiting = _taken_apart(last, waiting)
        out += [layer, *waiting]
    return layers if len(out) == len(layers) and all(a is b for a, b in zip(out, layers)) else out


def _taken_apart(conv: Conv2D, behind: list[Layer]) -> tuple[list[Layer], list[Layer]]:
    """A convolution alone, and its bias and activation before the layers behind it."""
    if conv.bias is None and type(conv.activation) is activations.Linear:
        return [conv], behind
    bare, finish = conv.twin(), Finish()
    bare.activation, bare.bias, bare.dbias = activations.Linear(), None, None
    finish.__dict__.update(conv.__dict__)
    bare.slots = [slot for slot in conv.slots if slot.name != "bias"]
    finish.slots = [slot for slot in conv.slots if slot.name == "bias"]
    return [bare], [finish, *behind]
