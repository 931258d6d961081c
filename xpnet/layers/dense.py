"""Every output is a weighted sum of every input."""

from __future__ import annotations

from typing import Any

from .. import activations, initializers
from .base import Layer, positive


class Dense(Layer):
    """Affine map and activation.  x (N, I) -> y (N, O) = f(x W' + b).

    W (O, I) and b (O,), as in torch.nn.Linear.

    units: O.  activation: f, a name or an object of `xpnet.activations`.  use_bias: whether there is a b.
    kernel_initializer, bias_initializer: where W and b start, names or objects of `xpnet.initializers`.
    """

    weight: Any
    dweight: Any
    bias: Any = None
    dbias: Any = None

    def __init__(
        self,
        units,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **layer,
    ):
        super().__init__(**layer)
        self.units = positive("Dense", "units", units)
        self.activation, self.use_bias = activations.get(activation), use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)

    def build(self, in_shape, params):
        if len(in_shape) != 1:
            self.fail(
                f"works on vectors. Received: a map {in_shape}. Expected: (D,); put a Flatten() before it"
            )
        params.reserve(self, "weight", (self.units, in_shape[0]), self.kernel_initializer)
        if self.use_bias:
            params.reserve(self, "bias", (self.units,), self.bias_initializer)
        return (self.units,)

    def forward(self, x, *, train):
        z = self.ops.matmul(x, self.weight.T)
        y, kept = self.ops.finish(z, self.bias, self.activation)
        return y, (x, kept)

    def backward(self, dy, cache):
        x, kept = cache
        # dL/db = sum of dz over the batch
        dz = self.ops.finish_backward(dy, kept, self.activation, self.dbias)
        self.ops.matmul(dz.T, x, out=self.dweight)  # dL/dW = dz' x
        if not self.needs_dx:
            return None
        return self.ops.matmul(dz, self.weight, out=self.ops.like(x))  # dL/dx = dz W
