"""solver="lbfgs": all samples at once, by SciPy's L-BFGS-B, as in MLPClassifier; for small data."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize

from ..ops import threads
from . import solvers


def train(model, x, y, w, max_iter: int, tol: float, max_fun: int) -> tuple[list[float], bool]:
    """Move the model's weights to a minimum of loss and penalty; the values on the way, and whether that
    ended by itself.

    tol: the largest part of the gradient at an end.  max_fun: evaluations of the loss.
    """
    chance = [layer.where for layer in model.all_layers() if hasattr(layer, "stream")]
    if chance:
        raise ValueError(
            f"solver='lbfgs' needs a loss that chance has no part in. Received: {chance[0]}. Expected: no "
            "dropout, or solver='adam'"
        )
    data, params, ops = model._data(x, y, w), model.params, model.ops
    every, step = np.arange(len(data)), model.train_step()
    strength = model.optimizer_state.get("penalty")

    def value_and_grad(at):
        params.values[...] = ops.asarray(at.astype(params.dtype))
        params.pending[...] = params.state
        loss, _, buffers = step.gradients(data, every)
        params.state[...] = params.pending
        gradient = sum(buffers[1:], buffers[0])
        if strength is not None:
            gradient = gradient + strength * params.values
        value = float(ops.to_host(loss)) + solvers.penalty(model)
        return value, np.array(ops.to_host(gradient), dtype=np.float64)

    values: list[float] = []

    def note(intermediate_result: Any) -> None:
        values.append(float(intermediate_result.fun))

    with ops.running(), threads.blas_threads(step.blas_threads(len(data))), np.errstate(all="ignore"):
        start = np.array(ops.to_host(params.values), dtype=np.float64)
        limits = {"maxiter": max_iter, "maxfun": max_fun, "gtol": tol}
        found = minimize(value_and_grad, start, method="L-BFGS-B", jac=True, callback=note, options=limits)
        params.values[...] = ops.asarray(found.x.astype(params.dtype))
    return values or [float(found.fun)], bool(found.success)
