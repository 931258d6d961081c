"""Element-wise functions between layers, and softmax.

Each is a pair.  `forward(ops, z, out)` writes f(z) to out, which may be z itself, and returns what the slope
needs: the output where it follows from that (relu, sigmoid, tanh, softmax, elu, leaky_relu, softplus), else
the input (gelu, silu).  `backward(ops, dy, kept)` turns dL/dy into dL/dz in place.  Axis 1 holds the features
of vectors (N, D) and the channels of maps (H, C, W, N) alike.
"""

from __future__ import annotations

import math
from typing import Any

from .config import Configurable
from .errors import unknown


class ActivationFunction(Configurable):
    """Base of the pairs.  z and y (N, D) or (H, C, W, N); subclasses write `forward` and `backward`."""

    keeps_input = False  # whether the slope needs z, so that z must not be overwritten

    def forward(self, ops, z, out) -> Any:
        """Write f(z) to out, which may be z; what `backward` needs: the output, or z."""
        raise NotImplementedError

    def backward(self, ops, dy, kept) -> Any:
        """dL/dz from dL/dy, in dy's own memory; kept: what `forward` returned."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """What it goes by in `compile` and in files."""
        return next((name for name, cls in TABLE.items() if cls is type(self)), type(self).__name__)

    def __call__(self, ops, z):
        """f(z) in z's own memory where that can be: (y, what backward needs)."""
        out = ops.like(z) if self.keeps_input else z
        return out, self.forward(ops, z, out)


class Linear(ActivationFunction):
    """z itself."""

    def forward(self, ops, z, out):
        if out is not z:
            out[...] = z
        return None

    def backward(self, ops, dy, kept):
        return dy


class ReLU(ActivationFunction):
    """max(z, 0); slope 1 where y > 0."""

    def forward(self, ops, z, out):
        return ops.relu(z, out)

    def backward(self, ops, dy, y):
        return ops.xp.multiply(dy, y > 0, out=dy)


class LeakyReLU(ActivationFunction):
    """z where positive, negative_slope * z elsewhere.  negative_slope: between 0 and 1."""

    def __init__(self, negative_slope: float = 0.2):
        if not 0 < negative_slope < 1:
            raise ValueError(f"negative_slope must lie between 0 and 1. Received: {negative_slope!r}")
        self.negative_slope = negative_slope

    def forward(self, ops, z, out):
        ops.xp.maximum(z, self.negative_slope * z, out=out)
        return out

    def backward(self, ops, dy, y):
        return ops.xp.multiply(
            dy, ops.xp.where(y > 0, y.dtype.type(1), y.dtype.type(self.negative_slope)), out=dy
        )


class ELU(ActivationFunction):
    """z where positive, alpha (exp(z) - 1) elsewhere; slope 1, or y + alpha.  alpha: positive.

    Clevert et al., 2016.
    """

    def __init__(self, alpha: float = 1.0):
        if not alpha > 0:
            raise ValueError(f"alpha must be positive. Received: {alpha!r}")
        self.alpha = alpha

    def forward(self, ops, z, out):
        xp = ops.xp
        out[...] = xp.where(z > 0, z, self.alpha * xp.expm1(xp.minimum(z, 0)))
        return out

    def backward(self, ops, dy, y):
        return ops.xp.multiply(dy, ops.xp.where(y > 0, y.dtype.type(1), y + self.alpha), out=dy)


class Sigmoid(ActivationFunction):
    """1 / (1 + exp(-z)), by way of tanh, which cannot overflow; slope y (1 - y)."""

    def forward(self, ops, z, out):
        ops.xp.multiply(z, 0.5, out=out)
        ops.xp.tanh(out, out=out)
        out *= 0.5
        out += 0.5
        return out

    def backward(self, ops, dy, y):
        dy *= y * (1 - y)
        return dy


class Tanh(ActivationFunction):
    """tanh(z); slope 1 - y^2."""

    def forward(self, ops, z, out):
        ops.xp.tanh(z, out=out)
        return out

    def backward(self, ops, dy, y):
        dy *= 1 - y * y
        return dy


class Softmax(ActivationFunction):
    """exp(z) over its sum along the features; dz = y (dy - sum(dy y))."""

    def forward(self, ops, z, out):
        xp = ops.xp
        xp.subtract(z, z.max(axis=1, keepdims=True), out=out)
        xp.exp(out, out=out)
        out /= out.sum(axis=1, keepdims=True)
        return out

    def backward(self, ops, dy, y):
        dy -= (dy * y).sum(axis=1, keepdims=True)
        dy *= y
        return dy


class LogSoftmax(ActivationFunction):
    """log softmax(z) = z - log(sum(exp(z))), along the features; dz = dy - exp(y) sum(dy).

    A loss that takes logits takes these too: their softmax is that of z.
    """

    def forward(self, ops, z, out):
        xp = ops.xp
        xp.subtract(z, z.max(axis=1, keepdims=True), out=out)
        out -= xp.log(xp.exp(out).sum(axis=1, keepdims=True))
        return out

    def backward(self, ops, dy, y):
        dy -= ops.xp.exp(y) * dy.sum(axis=1, keepdims=True)
        return dy


class Softplus(ActivationFunction):
    """log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)); slope 1 - exp(-y)."""

    def forward(self, ops, z, out):
        xp = ops.xp
        tail = xp.log1p(xp.exp(-xp.abs(z)))
        xp.maximum(z, 0, out=out)
        out += tail
        return out

    def backward(self, ops, dy, y):
        dy *= -ops.xp.expm1(-y)
        return dy


class GELU(ActivationFunction):
    """z Phi(z), Phi the normal distribution function; slope Phi(z) + z phi(z).  Hendrycks & Gimpel, 2016.

    approximate=True takes their tanh formula for Phi.
    """

    keeps_input = True

    def __init__(self, approximate: bool = False):
        self.approximate = approximate

    def forward(self, ops, z, out):
        out[...] = z * self._phi(ops, z)[0]
        return z

    def backward(self, ops, dy, z):
        Phi, phi = self._phi(ops, z)
        dy *= Phi + z * phi
        return dy

    def _phi(self, ops, z):
        """The distribution function, exact or approximate, and its derivative."""
        xp = ops.xp
        if self.approximate:
            a = math.sqrt(2 / math.pi)
            t = xp.tanh(a * (z + 0.044715 * z * z * z))
            return 0.5 * (1 + t), 0.5 * (1 - t * t) * a * (1 + 3 * 0.044715 * z * z)
        return 0.5 * (1 + ops.erf(z * math.sqrt(0.5))), xp.exp(-0.5 * z * z) * (1 / math.sqrt(2 * math.pi))


class SiLU(ActivationFunction):
    """z sigmoid(z) = z s; slope s (1 + z (1 - s)).  Elfwing et al., 2017."""

    keeps_input = True

    def forward(self, ops, z, out):
        Sigmoid().forward(ops, z, out)
        out *= z
        return z

    def backward(self, ops, dy, z):
        s = ops.like(z)
        Sigmoid().forward(ops, z, s)
        dy *= s * (1 + z * (1 - s))
        return dy


TABLE: dict[str, type[ActivationFunction]] = {
    "linear": Linear,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "softmax": Softmax,
    "softplus": Softplus,
    "gelu": GELU,
    "silu": SiLU,
}
ALIASES = {"identity": "linear", "swish": "silu", "logistic": "sigmoid"}


def get(activation: str | ActivationFunction | None) -> ActivationFunction:
    """The activation of that name, or the one given; None is linear.

    Raises ValueError for an unknown name.
    """
    if activation is None:
        return Linear()
    if isinstance(activation, ActivationFunction):
        return activation
    name = str(activation).lower()
    name = ALIASES.get(name, name)
    if not isinstance(activation, str) or name not in TABLE:
        raise unknown("activation", activation, [*TABLE, *ALIASES])
    return TABLE[name]()
