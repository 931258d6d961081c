"""What a model answers, as probabilities of classes, whatever it ends in."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..activations import ActivationFunction, LogSoftmax, Sigmoid, Softmax
from ..data.arrays import as_array
from ..errors import ShapeError
from ..layers import Activation
from ..losses import BinaryCrossentropy
from ..network import Network

LONGEST = 18  # characters of a class's name in a title


def network(model) -> Any:
    """model, if it is one of this library's, and built."""
    if not isinstance(model, Network):
        raise TypeError(
            f"model must be a Sequential. Received: {type(model).__name__}. Expected: a model of xpnet's; of "
            "a NetClassifier or NetRegressor, its model_"
        )
    model._need_built()
    return model


def last_activation(model) -> ActivationFunction:
    """What the model's outputs have gone through."""
    last = model.layers[-1]
    return last.function if isinstance(last, Activation) else last.activation


def says_yes_or_no(model) -> bool:
    """Whether one output tells two classes apart."""
    ends = isinstance(last_activation(model), Sigmoid) or isinstance(model.loss, BinaryCrossentropy)
    return model.output_shape == (1,) and ends


def probabilities_of(model, x) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and the K classes that they are of.

    model: a Sequential, whose logits are turned into probabilities; a classifier as scikit-learn has them,
    with predict_proba and classes_; or the probabilities themselves, (N, K), or (N,) of the second of two.
    """
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(x)), np.asarray(model.classes_)
    p = _probabilities(model, x) if hasattr(model, "predict") else np.asarray(model)
    if p.ndim == 1 or (p.ndim == 2 and p.shape[1] == 1):
        p = np.stack([1 - p.reshape(-1), p.reshape(-1)], axis=1)
    if p.ndim != 2 or not p.size or p.dtype.kind not in "iuf":
        raise ShapeError(
            f"each sample needs its probabilities. Received: shape {p.shape}, dtype {p.dtype}. Expected: (N, "
            "K), from a model that tells classes apart"
        )
    if x is not None and len(p) != len(x):
        raise ShapeError(f"numbers of samples differ. Received: {len(p)} in the probabilities, {len(x)} in x")
    return p, np.arange(p.shape[1])


def _probabilities(model, x) -> np.ndarray:
    y = np.asarray(model.ops.to_host(model.predict(x)), dtype=float)
    ending = last_activation(model)
    if isinstance(ending, (Softmax, Sigmoid)) or y.ndim != 2:
        return y
    if isinstance(ending, LogSoftmax):
        return np.exp(y)
    if model.loss is not None and not model.loss.folds:
        raise ValueError(
            f"the model tells no classes apart. Received: {y.shape[1]} outputs for {model.loss!r}. Expected: "
            "a model that ends in softmax or sigmoid, or learns by a cross-entropy"
        )
    if y.shape[1] == 1:
        return 1 / (1 + np.exp(-y))
    e = np.exp(y - y.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def class_numbers(y, classes, what: str = "y") -> np.ndarray:
    """Targets as places among classes: labels (N,) or (N, 1), or a row (N, K) of shares, the largest its
    class.
    """
    y = as_array(y, what)
    K = len(classes)
    if y.ndim == 2 and y.shape[1] == K and K > 1:
        return y.argmax(axis=1)
    if y.ndim != 1 and not (y.ndim == 2 and y.shape[1] == 1):
        raise ShapeError(
            f"{what} must be a class a sample. Received: {y.shape}. Expected: (N,), or (N, {K}) one-hot"
        )
    y = y.reshape(-1)
    order = np.argsort(classes)
    places = order[np.searchsorted(classes, y, sorter=order).clip(0, K - 1)]
    strange = np.asarray(classes)[places] != y
    if strange.any():
        raise ValueError(
            f"{what} names a class that the model does not know. Received: {_plain(y[strange][0])!r} in "
            f"sample {int(strange.argmax())}. Expected: one of {_few(classes)}"
        )
    return places


def names_of(labels, classes) -> list[str]:
    """The classes' names: labels, or what they are called anyway."""
    labels = list(classes) if labels is None else list(labels)
    if len(labels) != len(classes):
        raise ValueError(
            f"each class needs one label. Received: {len(labels)} labels for {len(classes)} classes"
        )
    return [literal(label) for label in labels]


def literal(name: Any) -> str:
    """A name as one line of text, in which matplotlib sees no formula."""
    return " ".join(str(name).split()).replace("$", r"\$")


def short(name: str) -> str:
    """As much of a name as a title has room for."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _plain(value) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _few(classes) -> str:
    shown = [repr(_plain(c)) for c in classes]
    return ", ".join(shown) if len(shown) <= 12 else f"{', '.join(shown[:3])}, ..., {shown[-1]}"
