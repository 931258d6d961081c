"""Where weights start.  An initialiser is called with a NumPy Generator and the weight's conventional shape.

fan_in and fan_out of (out, in) are in and out; of a kernel (F, C, KH, KW) they are C*KH*KW and F*KH*KW.
Glorot & Bengio, 2010, eq. 16; He et al., 2015, eq. 10; LeCun et al., 1998, section 4.6.
"""

from __future__ import annotations

import math

import numpy as np

from .config import Configurable
from .errors import unknown


class Initializer(Configurable):
    """Base: __call__(rng, shape) -> float64 array of shape."""

    @property
    def name(self) -> str:
        """What layers take it by."""
        return next((name for name, cls in TABLE.items() if cls is type(self)), type(self).__name__)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        raise NotImplementedError


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a conventional weight shape."""
    if len(shape) < 2:
        return (shape[0], shape[0]) if shape else (1, 1)
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _truncated_normal(rng, stddev, shape):
    """Normal values, those beyond two deviations drawn again, scaled so that stddev is what remains, as Keras
    does.
    """
    x = rng.standard_normal(shape)
    far = np.abs(x) > 2
    while far.any():
        x[far] = rng.standard_normal(int(far.sum()))
        far = np.abs(x) > 2
    return x * (stddev / 0.87962566103423978)


class VarianceScaling(Initializer):
    """Values of variance scale / fan.

    mode: which fan, "fan_in", "fan_out" or "fan_avg", their mean.  distribution: "normal", cut off at two
    deviations, or "uniform".
    """

    def __init__(self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "normal"):
        if not scale > 0:
            raise ValueError(f"scale must be positive. Received: {scale!r}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise unknown("mode", mode, ("fan_in", "fan_out", "fan_avg"))
        if distribution not in ("normal", "uniform"):
            raise unknown("distribution", distribution, ("normal", "uniform"))
        self.scale, self.mode, self.distribution = scale, mode, distribution

    def __call__(self, rng, shape):
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        deviation = math.sqrt(self.scale / fan)
        if self.distribution == "uniform":
            return rng.uniform(-math.sqrt(3) * deviation, math.sqrt(3) * deviation, shape)
        return _truncated_normal(rng, deviation, shape)


class GlorotUniform(VarianceScaling):
    """Uniform, variance 2 / (fan_in + fan_out)."""

    def __init__(self):
        super().__init__(1.0, "fan_avg", "uniform")


class GlorotNormal(VarianceScaling):
    """Truncated normal, variance 2 / (fan_in + fan_out)."""

    def __init__(self):
        super().__init__(1.0, "fan_avg", "normal")


class HeUniform(VarianceScaling):
    """Uniform, variance 2 / fan_in: for ReLU."""

    def __init__(self):
        super().__init__(2.0, "fan_in", "uniform")


class HeNormal(VarianceScaling):
    """Truncated normal, variance 2 / fan_in: for ReLU."""

    def __init__(self):
        super().__init__(2.0, "fan_in", "normal")


class LecunUniform(VarianceScaling):
    """Uniform, variance 1 / fan_in."""

    def __init__(self):
        super().__init__(1.0, "fan_in", "uniform")


class LecunNormal(VarianceScaling):
    """Truncated normal, variance 1 / fan_in."""

    def __init__(self):
        super().__init__(1.0, "fan_in", "normal")


class RandomUniform(Initializer):
    """Uniform between minval and maxval."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05):
        if not minval <= maxval:
            raise ValueError(f"minval must not exceed maxval. Received: minval={minval!r}, maxval={maxval!r}")
        self.minval, self.maxval = minval, maxval

    def __call__(self, rng, shape):
        return rng.uniform(self.minval, self.maxval, shape)


class RandomNormal(Initializer):
    """Normal with this mean and, stddev, standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05):
        if not stddev >= 0:
            raise ValueError(f"stddev must not be negative. Received: {stddev!r}")
        self.mean, self.stddev = mean, stddev

    def __call__(self, rng, shape):
        return rng.normal(self.mean, self.stddev, shape)


class Constant(Initializer):
    """The same value everywhere, or an array of exactly the weight's conventional shape."""

    def __init__(self, value: float | list | np.ndarray = 0.0):
        self.value = value

    def __call__(self, rng, shape):
        value = np.asarray(self.value, dtype=float)
        if value.ndim and value.shape != tuple(shape):
            raise ValueError(
                f"Constant does not fit the weight. Received: {value.shape}. Expected: {tuple(shape)} or a "
                "number"
            )
        return np.full(shape, value)


class Zeros(Initializer):
    """All zeros."""

    def __call__(self, rng, shape):
        return np.zeros(shape)


class Ones(Initializer):
    """All ones."""

    def __call__(self, rng, shape):
        return np.ones(shape)


TABLE: dict[str, type[Initializer]] = {
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "uniform": RandomUniform,
    "random_uniform": RandomUniform,
    "normal": RandomNormal,
    "random_normal": RandomNormal,
    "constant": Constant,
    "zeros": Zeros,
    "ones": Ones,
}


def get(initializer: str | Initializer) -> Initializer:
    """The initializer of that name, or the one given; any callable (rng, shape) will do.

    Raises ValueError for an unknown name, and for what cannot be called.
    """
    if isinstance(initializer, str):
        if initializer.lower() not in TABLE:
            raise unknown("initializer", initializer, TABLE)
        return TABLE[initializer.lower()]()
    if not callable(initializer):
        raise ValueError(
            f"unknown initializer. Received: {initializer!r}. Expected: a name ({', '.join(sorted(TABLE))}) "
            "or an object called with (rng, shape)"
        )
    return initializer
