"""Is backward the derivative of forward?  Numerical gradients, and the check that compares the two."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import GradientError


def numerical_gradient(f: Callable[[np.ndarray], Any], a: np.ndarray, eps: float = 1e-4) -> np.ndarray:
    """df/da by central differences, (f(a + eps) - f(a - eps)) / (2 eps) for one element after another.

    f: is called with a, whose elements are changed in place and put back, so f may also look at a without its
    argument.  a: float array of any shape.  Two calls of f an element: for teaching and testing.

    Raises TypeError where a is no float array.
    """
    if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
        raise TypeError(
            f"numerical_gradient needs a float array. Received: {getattr(a, 'dtype', type(a).__name__)}"
        )
    gradient = np.zeros_like(a)
    for i in np.ndindex(a.shape):
        kept = a[i]
        a[i] = kept + eps
        above = float(f(a))
        a[i] = kept - eps
        below = float(f(a))
        a[i] = kept
        gradient[i] = (above - below) / (2 * eps)
    return gradient


def check_gradients(
    model,
    x,
    y,
    sample_weight=None,
    eps: float = 1e-7,
    tolerance: float = 1e-5,
    directions: int = 3,
    seed: int = 0,
) -> dict[str, float]:
    """Compare `model.gradients` with central differences along random directions, in float64, one parameter
    at a time.

    The model is copied to float64 first; dropout masks stay fixed between the two sides.  Returns the largest
    relative error |g.v - difference| / (|g| |v|) by parameter name.

    x (N, ...), y, sample_weight: as in `Sequential.fit`.  eps: the step of the differences.  tolerance: the
    largest error that is none.  directions: how many for each parameter.  seed: of the directions.

    Raises GradientError, with both sides printed, beyond tolerance.
    """
    model = as_float64(model)
    x, y = np.asarray(x), np.asarray(y)
    gradients = model.gradients(x, y, sample_weight)
    step = model.train_step()
    data = model._data(x, y, sample_weight)
    index = np.arange(len(data))
    rng = np.random.default_rng(seed)
    errors: dict[str, float] = {}
    for name, value in {k: v for k, v in model.state_dict().items() if k in gradients}.items():
        g = gradients[name]
        for _ in range(directions):
            v = rng.standard_normal(g.shape)
            sides = []
            for sign in (1, -1):
                model.load_state_dict({name: value + sign * eps * v}, strict=False)
                sides.append(float(model.ops.to_host(step.gradients(data, index)[0])))
            model.load_state_dict({name: value}, strict=False)
            numerical, backward = (sides[0] - sides[1]) / (2 * eps), float((g * v).sum())
            scale = float(np.sqrt((g * g).sum() * (v * v).sum()))
            # losses are rounded, and a difference within that says nothing (where the gradient is 0, say)
            noise = 32 * np.finfo(np.float64).eps * max(map(abs, sides)) / eps
            error = max(abs(numerical - backward) - noise, 0.0) / max(scale, 1e-8)
            errors[name] = max(errors.get(name, 0.0), error)
            if error > tolerance:
                raise GradientError(
                    f"the gradient of {name} is wrong along a random direction. Backward: {backward:.9g}. "
                    f"Numerical: {numerical:.9g}. Relative error: {error:.2g}, tolerance {tolerance:.2g}"
                )
    return errors


def as_float64(model):
    """A copy of the model that computes in float64."""
    state = model.__getstate__() | {"precision": "float64", "history": None}
    twin = model.__class__.__new__(model.__class__)
    twin.__setstate__(copy.deepcopy(state))
    return twin
