"""The optimizer that an estimator's words mean; and the L2 penalty of scikit-learn's `alpha`."""

from __future__ import annotations

import copy
from numbers import Real
from typing import Any

import numpy as np

from .. import optimizers
from ..errors import unknown
from ..optimizers import SGD, Adam, Optimizer

SCHEDULES = ("constant", "invscaling", "adaptive")


def make(estimator) -> Optimizer:
    """A new optimizer by `optimizer`, or by `solver` and the arguments that MLPClassifier has for it."""
    rate, first = estimator.learning_rate, estimator.learning_rate_init
    if isinstance(rate, str) and rate not in SCHEDULES:
        raise unknown("learning_rate", rate, (*SCHEDULES, "a number", "a schedule of xpnet.schedules"))
    if rate is not None and not isinstance(rate, str):
        if first is not None:
            raise ValueError(
                "the learning rate is given twice. Received: "
                f"learning_rate={rate!r}, learning_rate_init={first!r}. Expected: one of them"
            )
        first = rate
    if estimator.optimizer is None:
        made = _solver(estimator)
    elif estimator.solver is not None:
        raise ValueError(
            f"give optimizer or solver, not both. Received: optimizer={estimator.optimizer!r}, "
            f"solver={estimator.solver!r}"
        )
    else:
        made = copy.deepcopy(optimizers.get(estimator.optimizer))
        if rate in SCHEDULES[1:]:
            raise ValueError(
                f"learning_rate={rate!r} belongs to solver='sgd'. Received: it beside "
                f"optimizer={estimator.optimizer!r}. Expected: a number, a schedule of xpnet.schedules, or "
                "the callback ReduceLROnPlateau"
            )
    if first is not None:
        made.learning_rate = type(made)(first).learning_rate  # which checks it
    return made


def _solver(estimator) -> Optimizer:
    solver = "adam" if estimator.solver is None else estimator.solver
    if solver == "adam":
        return Adam(0.001, estimator.beta_1, estimator.beta_2, estimator.epsilon)
    if solver == "sgd":
        return SGD(0.001, estimator.momentum, bool(estimator.nesterovs_momentum and estimator.momentum))
    if solver == "lbfgs":  # lbfgs.py moves the weights, and a model must have an optimizer
        return SGD()
    raise unknown("solver", solver, ("adam", "sgd", "lbfgs"))


class Penalised:
    """Of an optimizer's class: the gradient of sum(penalty / 2 * p^2) is added to g.

    penalty: a state array, so each parameter has its own strength; 0 leaves it alone.
    """

    def update(self, xp, p, g, state, lr, t):
        *own, penalty = state
        super().update(xp, p, g + penalty * p, own, lr, t)  # type: ignore[misc]

    def initial(self, name):
        return 0.0 if name == "penalty" else super().initial(name)  # type: ignore[misc]

    def __reduce__(self):
        return _restored, (type(self).__mro__[2], vars(self).copy())


_classes: dict[type, type] = {}


def _penalised_class(cls: type) -> type:
    """cls with a penalty; in files it goes by the name of cls, which is what it is without the penalty."""
    if cls not in _classes:
        fields = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        _classes[cls] = type(cls.__name__, (Penalised, cls), fields)
    return _classes[cls]


def _restored(cls: type, fields: dict[str, Any]) -> Optimizer:
    made: Optimizer = object.__new__(_penalised_class(cls))
    vars(made).update({name: value for name, value in fields.items() if name != "owner"})
    return made


def penalised(optimizer: Optimizer) -> Optimizer:
    """The same optimizer with a state array "penalty", which `set_penalty` fills."""
    made = _restored(type(optimizer), vars(optimizer))
    made.state = (*optimizer.state, "penalty")
    return made


def set_penalty(model, strength: float) -> None:
    """Penalise weights, and neither biases nor the scales of normalisation, by strength / 2 * p^2."""
    for slot in model.params.slots:
        if len(slot.shape) > 1:
            model.params.write(model.optimizer_state["penalty"], slot, np.full(slot.shape, strength))


def penalty(model) -> float:
    """sum(penalty / 2 * p^2) of the weights as they are."""
    flat = model.optimizer_state.get("penalty")
    if flat is None:
        return 0.0
    with model.ops.running():
        return float(model.ops.to_host((0.5 * flat * model.params.values * model.params.values).sum()))


def is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
