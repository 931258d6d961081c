"""What `fit` and `evaluate` are given, made into epochs to train on and figures to ask for."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import losses
from ..data.arrays import Arrays, as_array
from ..data.batches import Stream, is_stream, ndim
from ..errors import ShapeError
from . import loop
from .step import Totals


def brings_targets(x, y, method: str) -> bool:
    """Whether x yields batches with their targets; ValueError where there are no targets at all."""
    if is_stream(x) or (y is None and isinstance(x, (list, tuple)) and len(x) and _is_batch(x[0])):
        if y is not None:
            raise ValueError(
                f"batches bring their targets. Received: {type(x).__name__} and y. Expected: {method}(x) of "
                "batches (x, y), or arrays x and y"
            )
        return True
    if y is None:
        raise ValueError(
            f"{method} needs targets. Received: y=None. Expected: {method}(x, y), or batches (x, y)"
        )
    return False


def _is_batch(one) -> bool:
    """Whether this may be (x, y) or (x, y, sample_weight) of several samples."""
    return isinstance(one, (tuple, list)) and len(one) in (2, 3) and ndim(one[0]) >= 2


def refuse_with_batches(name: str, given) -> None:
    """ValueError where an argument is given that only arrays can follow."""
    if given is not None:
        raise ValueError(
            f"{name} needs arrays, and the data come in batches. Received: {name}={given!r}. Expected: "
            "batches of the size that they should have, as (x, y) or (x, y, sample_weight)"
            + (", and validation_data of their own" if name == "validation_split" else "")
        )


def array_passes(model, data: Arrays, batch_size, steps: int | None, shuffle: bool) -> loop.Passes:
    """Epochs over arrays."""
    if batch_size in ("full", -1):
        batch_size = len(data)
    batch_size = whole("batch_size", 32 if batch_size is None else batch_size, 1, " (or 'full')")
    passes = loop.Passes(model, data, batch_size, steps, shuffle)
    if steps is not None and steps > passes.steps:
        raise ValueError(
            f"there are not so many batches. Received: steps_per_epoch={steps}. Expected: at most "
            f"{passes.steps} of {batch_size} from {len(data)} samples"
        )
    _check_last_batch(model, passes.count, batch_size)
    return passes


def stream_passes(model, x, steps: int | None, passes: int, class_weight) -> loop.StreamPasses:
    """Epochs over batches as they come."""
    if class_weight is not None and not isinstance(class_weight, dict):
        raise ValueError(
            f"class_weight must be a dict where the data come in batches. Received: {class_weight!r}"
        )
    stream = Stream(x, steps, order=model.shuffled)
    stream.check_passes(passes)
    return loop.StreamPasses(stream, lambda x, y, w, what: model._data(x, y, w, class_weight, what))


def validation(model, given, batch_size, steps, passes: int) -> Callable[[], Totals]:
    """What tells the figures of the data that are given, (x, y), (x, y, weights) or batches.

    steps: batches that are taken, or None for all of them.  passes: how often it will be asked.
    """
    steps = None if steps is None else whole("validation_steps", steps, 1)
    listed = isinstance(given, (tuple, list))
    if is_stream(given) or (listed and given and _is_batch(given[0])):
        stream = Stream(given, steps, "validation ")
        stream.check_passes(passes)

        def totals() -> Totals:
            found, number = Totals(model), 0
            for number, batch in enumerate(stream.epoch(), 1):
                found.join(loop.evaluate(model, model._data(*batch, what=f"validation batch {number}: ")))
            if not number:
                raise ValueError("the validation data are empty: there is nothing to take figures of")
            return found

        return totals
    if isinstance(given, Arrays):
        data = given
    elif listed and len(given) in (2, 3):
        xv, yv, *wv = given
        data = model._data(xv, yv, wv[0] if wv else None, what="validation ")
    else:
        raise ValueError(
            "validation_data must be (x, y), (x, y, sample_weight) or batches of them. Received: "
            f"{type(given).__name__}" + (f" of {len(given)}" if listed else "")
        )
    if steps is not None:
        data = data.part(np.arange(min(len(data), steps * (batch_size or 32))))
    return lambda: loop.evaluate(model, data, batch_size)


def split(model, data: Arrays, share: float, stratify: bool | None) -> tuple[Arrays, Arrays]:
    """Training and validation parts, drawn by the seed, with the classes in proportion where targets are
    classes.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise ValueError(f"validation_split must lie between 0 and 1. Received: {share!r}")
    labels: Any = None
    if stratify is not False and isinstance(
        model.loss, (losses.CategoricalCrossentropy, losses.BinaryCrossentropy)
    ):
        y = data.y
        if y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
            labels = y.reshape(-1)
        elif y.ndim == 2 and isinstance(model.loss, losses.CategoricalCrossentropy):
            labels = y.argmax(axis=1)
    if labels is not None:
        labels = as_array(labels, "y")
        counts = np.unique(labels, return_counts=True)[1]
        held = math.ceil(len(data) * share)
        if counts.min() < 2 or min(held, len(data) - held) < len(counts):
            if stratify:
                raise ValueError(
                    f"too few samples to keep the classes in proportion. Received: {len(counts)} "
                    f"classes, the smallest of {counts.min()} samples, and {held} to hold out. Expected: "
                    "2 a class, one of them held out"
                )
            labels = None
    elif stratify:
        raise ValueError("stratify=True needs targets that are classes")
    train, held_out = train_test_split(
        np.arange(len(data)), test_size=share, random_state=model.seed % 2**32, stratify=labels
    )
    return data.part(np.sort(train)), data.part(np.sort(held_out))


def _check_last_batch(model, n: int, batch_size: int) -> None:
    least = max((getattr(layer, "least", 1) for layer in model.all_layers() if layer.is_trainable), default=1)
    last = n % batch_size or min(batch_size, n)
    if last < least:
        layer = next(
            one for one in model.all_layers() if one.is_trainable and getattr(one, "least", 1) > last
        )
        raise ShapeError(
            f"{layer.where}: cannot normalise a batch of one sample: it has no variance. Received: {n} "
            f"samples in batches of {batch_size}, which leave a last batch of {last}. Expected: at least "
            f"{least} in every batch; use another batch_size"
        )


def whole(name: str, value, least: int, more: str = "") -> int:
    """value as a whole number of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number of at least {least}{more}. Received: {value!r}")
    return number
