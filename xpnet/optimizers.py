"""How a gradient becomes a step.  `update` is the textbook's formula on flat pieces of all parameters at
once.

p values, g gradient, lr learning rate, t the step's number from 1; the other arrays are the optimizer's
state, zero (or as `initial` says) before the first step.  The update runs over pieces that fit the cache, so
its temporaries cost no memory traffic.  Gaps between parameters hold g = 0 and stay as they are: 0 / 0 counts
as an update of 0.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from . import schedules  # noqa: F401 - where Keras has them
from .config import Configurable, arguments
from .errors import unknown

LARGEST = 3e38  # of what float32 holds
GATHERED = "gathered_gradient"
TINY = 1e-6  # added to a norm before it divides, as PyTorch does


class Optimizer(Configurable):
    """Base.

    learning_rate: a number, or a schedule called with the number of steps taken.  weight_decay: also subtract
    lr weight_decay p at each step (decoupled, as in Keras; Loshchilov & Hutter, 2019).  clipnorm,
    global_clipnorm, clipvalue: limits of the gradient: of each parameter's norm, of the norm of all together,
    of each element.  gradient_accumulation_steps: update once in so many batches, by the mean of their
    gradients.

    Raises ValueError for values that cannot be, TypeError for arguments it does not know.
    """

    state: tuple[str, ...] = ()  # names of the flat arrays that update is given
    iterations = 0  # updates made
    gathered = 0  # batches since, whose gradients wait for the next
    gradient_accumulation_steps: int | None = None

    owner: Any = None  # a weak reference to the model it was compiled into

    def __init__(
        self,
        learning_rate=0.01,
        weight_decay=None,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        gradient_accumulation_steps=None,
        **unexpected,
    ):
        if unexpected:
            name = next(iter(unexpected))
            known = unknown("argument", "learning_rate" if name == "lr" else name, arguments(type(self)))
            raise TypeError(
                f"{type(self).__name__}: unknown argument 'lr'. Expected: learning_rate"
                if name == "lr"
                else f"{type(self).__name__}: {known}"
            )
        if not callable(learning_rate):
            check_rate("learning_rate must be a schedule or", learning_rate)
        for name, value in (
            ("clipnorm", clipnorm),
            ("clipvalue", clipvalue),
            ("global_clipnorm", global_clipnorm),
        ):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive. Received: {value!r}")
        if weight_decay is not None and not weight_decay >= 0:
            raise ValueError(f"weight_decay must not be negative. Received: {weight_decay!r}")
        if clipnorm is not None and global_clipnorm is not None:
            raise ValueError("clipnorm and global_clipnorm exclude each other. Received: both")
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        every = gradient_accumulation_steps
        if isinstance(every, bool) or not (
            every is None or (isinstance(every, Integral) and int(every) >= 1)
        ):
            raise ValueError(
                f"gradient_accumulation_steps must be a whole number of at least 1. Received: {every!r}"
            )
        self.gradient_accumulation_steps = None if every is None else int(every)

    @property
    def every(self) -> int:
        """Batches an update."""
        return self.gradient_accumulation_steps or 1

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of all the flat arrays that it needs from one batch to the next."""
        return (*self.state, GATHERED) if self.every > 1 else self.state

    def count(self, batches: int = 1) -> None:
        """So many batches more have been trained on, or fewer where `batches` is negative."""
        done = self.iterations * self.every + self.gathered + batches
        self.iterations, self.gathered = divmod(done, self.every)

    def rate(self) -> float:
        """The learning rate of the next step.  Raises ValueError where a schedule yields what is none."""
        rate: Any = self.learning_rate
        if callable(rate):
            rate = rate(self.iterations)
            check_rate(f"the schedule's rate at step {self.iterations} must be", rate)
        return float(rate)

    def initial(self, name: str) -> float:
        """What the state array of this name holds before the first step."""
        return 0.0

    def __getstate__(self):
        """Without the model it belongs to."""
        return {key: value for key, value in self.__dict__.items() if key != "owner"}

    def step(self, xp, p, g, state: list[Any], lr, t, norm) -> None:
        """One step on flat arrays, in place: clip g, decay p, update.

        p, g: flat arrays of parameters and gradient.  state: those of the optimizer.  lr: the rate.  t: the
        step's number from 1.  norm: of the whole gradient, each of its elements clipped.
        """
        if self.clipvalue is not None:
            g = xp.minimum(xp.maximum(g, -self.clipvalue), self.clipvalue)
        if self.global_clipnorm is not None:
            g = g * xp.minimum(1.0, self.global_clipnorm / (norm + TINY)).astype(g.dtype)
        if self.weight_decay:
            p *= 1 - lr * self.weight_decay
        self.update(xp, p, g, state, lr, t)

    def update(self, xp, p, g, state: list[Any], lr: float, t: int) -> None:
        """The optimizer's own formula on flat arrays p, g and state, in place; g may be written too.

        lr: the rate.  t: the step's number from 1.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update")


def check_rate(what: str, rate) -> None:
    """Raises ValueError, which begins with `what`, where rate is no learning rate."""
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) <= LARGEST:
        raise ValueError(f"{what} a finite number of at least 0. Received: {rate!r}")


def _ratio(xp, a, b, epsilon: float, scale=1.0):
    """a / (b + epsilon scale), and 0 for 0 / 0; b is overwritten."""
    if not epsilon:
        return a / xp.where(b == 0, b.dtype.type(1), b)
    b += epsilon * scale
    return xp.divide(a, b, out=b)


def _sqrt(x):
    """Of a number, or of what stands for one in a kernel: `ops/fuse.py`."""
    return math.sqrt(x) if isinstance(x, Real) else x**0.5


def _fraction(kind: str, **values) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{kind}: {name} must be at least 0 and below 1. Received: {value!r}")


def _epsilon(kind: str, epsilon) -> None:
    if not epsilon >= 0:
        raise ValueError(f"{kind}: epsilon must not be negative. Received: {epsilon!r}")


class SGD(Optimizer):
    """p -= lr g; with momentum, v = momentum v + g and p -= lr v; Nesterov: p -= lr (g + momentum v).

    As in PyTorch; Keras keeps -lr v, which is the same at a constant rate.  Sutskever et al., 2013, eq. 1 to
    4.

    momentum: at least 0, below 1.  nesterov: look ahead, which needs a momentum.
    """

    def __init__(self, learning_rate=0.01, momentum=0.0, nesterov=False, **common):
        super().__init__(learning_rate, **common)
        _fraction("SGD", momentum=momentum)
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs a momentum. Received: momentum=0.0")
        self.momentum, self.nesterov = momentum, nesterov
        self.state = ("velocity",) if momentum else ()

    def update(self, xp, p, g, state, lr, t):
        if state:
            (v,) = state
            v *= self.momentum
            v += g
            g = g + self.momentum * v if self.nesterov else v
        p -= lr * g


class Adagrad(Optimizer):
    """h += g^2;  p -= lr g / (sqrt(h) + epsilon).  Duchi et al., 2011.

    initial_accumulator_value: h before the first step.  epsilon: it and the former may be 0.
    """

    state = ("accumulator",)

    def __init__(self, learning_rate=0.001, initial_accumulator_value=0.1, epsilon=1e-7, **common):
        super().__init__(learning_rate, **common)
        _epsilon("Adagrad", epsilon)
        if not initial_accumulator_value >= 0:
            raise ValueError(
                "Adagrad: initial_accumulator_value must not be negative. Received: "
                f"{initial_accumulator_value!r}"
            )
        self.initial_accumulator_value, self.epsilon = initial_accumulator_value, epsilon

    def initial(self, name):
        return self.initial_accumulator_value

    def update(self, xp, p, g, state, lr, t):
        (h,) = state
        h += g * g
        step = _ratio(xp, g, xp.sqrt(h), self.epsilon)
        step *= lr
        p -= step


class RMSprop(Optimizer):
    """v = rho v + (1 - rho) g^2;  p -= lr g / (sqrt(v) + epsilon).  Tieleman & Hinton, 2012, lecture 6.5.

    rho: share that v keeps.  momentum: as in SGD, of the scaled gradient.  centered: v minus the square of
    g's own running mean.
    """

    def __init__(self, learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False, **common):
        super().__init__(learning_rate, **common)
        _fraction("RMSprop", rho=rho, momentum=momentum)
        _epsilon("RMSprop", epsilon)
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered
        self.state = ("square",) + ("mean",) * bool(centered) + ("velocity",) * bool(momentum)

    def update(self, xp, p, g, state, lr, t):
        v, *rest = state
        v *= self.rho
        v += (1 - self.rho) * (g * g)
        spread = v
        if self.centered:
            mean, *rest = rest
            mean *= self.rho
            mean += (1 - self.rho) * g
            spread = xp.maximum(v - mean * mean, 0)
        step = _ratio(xp, g, xp.sqrt(spread), self.epsilon)
        if self.momentum:
            (velocity,) = rest
            velocity *= self.momentum
            velocity += step
            step = velocity
        p -= lr * step


class Adam(Optimizer):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr m' / (sqrt(v') + epsilon).

    m' = m / (1 - b1^t) and v' = v / (1 - b2^t) undo the start from zero.  Kingma & Ba, 2015, algorithm 1,
    which is PyTorch's form; Keras takes the variant at the end of its section 2, where epsilon is not divided
    by sqrt(1 - b2^t).

    beta_1, beta_2: b1 and b2, what m and v keep.
    """

    state = ("m", "v")

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, **common):
        super().__init__(learning_rate, **common)
        _fraction(type(self).__name__, beta_1=beta_1, beta_2=beta_2)
        _epsilon(type(self).__name__, epsilon)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def update(self, xp, p, g, state, lr, t):
        m, v = state
        m *= self.beta_1
        m += (1 - self.beta_1) * g
        v *= self.beta_2
        v += (1 - self.beta_2) * (g * g)
        unbias = _sqrt(1 - self.beta_2**t)  # of sqrt(v); drawn out of the quotient, which saves a pass
        step = _ratio(xp, m, xp.sqrt(v), self.epsilon, unbias)
        step *= lr * unbias / (1 - self.beta_1**t)
        p -= step


class AdamW(Adam):
    """Adam with decoupled weight decay, 0.004 by default, as in Keras.  Loshchilov & Hutter, 2019, algorithm
    2.

    beta_1, beta_2, epsilon: as in `Adam`.
    """

    def __init__(
        self, learning_rate=0.001, weight_decay=0.004, beta_1=0.9, beta_2=0.999, epsilon=1e-7, **common
    ):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay=weight_decay, **common)


TABLE: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}


def get(optimizer: str | Optimizer) -> Optimizer:
    """The optimizer of that name with its defaults, "momentum" being SGD with momentum 0.9, or the one given.

    Raises ValueError for an unknown name.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    name = str(optimizer).lower()
    if name == "momentum":
        return SGD(momentum=0.9)
    if not isinstance(optimizer, str) or name not in TABLE:
        raise unknown("optimizer", optimizer, [*TABLE, "momentum"])
    return TABLE[name]()
