"""Data that come batch by batch: from a generator, a PyTorch DataLoader, a Keras PyDataset, a list."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_ARRAY = ("shape", "__array__", "__dlpack__", "__array_interface__")


def is_stream(x) -> bool:
    """Whether x yields batches and is no array itself, nor a list that could be one."""
    if isinstance(x, (list, tuple, dict, str, bytes)) or any(hasattr(x, name) for name in _ARRAY):
        return False
    return hasattr(x, "__iter__") or (hasattr(x, "__getitem__") and hasattr(x, "__len__"))


def ndim(a) -> int:
    """Axes of an array of any library, or of a list of numbers."""
    return a.ndim if hasattr(a, "ndim") else np.ndim(a)


class Stream:
    """The batches of an iterable, epoch by epoch.

    source: yields (x, y) or (x, y, sample_weight), each with the samples along axis 0.  It is gone through
    anew for each epoch, or, with `steps` batches an epoch, goes on where the epoch before ended, and starts
    anew at its end.  What has `__getitem__` and `__len__` but no `__iter__` is taken by index, in an order
    that `order(count)` gives.  `on_epoch_end()` is called, where the source has one, as Keras does.
    """

    def __init__(
        self,
        source: Any,
        steps: int | None = None,
        what: str = "",
        order: Callable[[int], np.ndarray] = np.arange,
    ):
        self.source, self.steps, self.what, self.order = source, steps, what, order
        self.once = hasattr(source, "__next__")  # it cannot start anew
        self.ended = False  # it gave fewer batches than were asked for
        self._going: Iterator[Any] | None = None

    def __len__(self) -> int:
        """Batches an epoch; TypeError where nobody knows."""
        return self.steps if self.steps is not None else len(self.source)

    def check_passes(self, passes: int) -> None:
        """ValueError where the source cannot be gone through so often."""
        if self.once and self.steps is None and passes > 1:
            argument = "validation_steps" if self.what else "steps_per_epoch"
            raise ValueError(
                f"the {self.what}data can be gone through once. Received: {_kind(self.source)} for {passes} "
                f"epochs. Expected: an iterable that starts anew, as a list or a DataLoader, or "
                f"{argument}= to say how many of its batches are an epoch"
            )

    def first(self) -> tuple:
        """The first batch, which the first epoch will see again."""
        self._going = self._start()
        batch = next(self._going, None)
        if batch is None:
            raise ValueError(
                f"the {self.what}data are empty. Received: {_kind(self.source)} without a batch. Expected: "
                "batches (x, y)"
            )
        self._going = itertools.chain([batch], self._going)
        return self._unpacked(batch, 0)

    def epoch(self) -> Iterator[tuple]:
        """The batches of the next epoch, as (x, y, w or None)."""
        count = itertools.count() if self.steps is None else range(self.steps)
        if self._going is None:
            self._going = self._start()
        for number in count:
            batch = next(self._going, None)
            if batch is None and self.steps is not None and not self.once:
                self._going = self._start()
                batch = next(self._going, None)
            if batch is None:
                self._end(number)
                break
            yield self._unpacked(batch, number)
        if self.steps is None:
            self._going = None

    def _start(self) -> Iterator[Any]:
        if hasattr(self.source, "__iter__"):
            return iter(self.source)
        return (self.source[int(k)] for k in self.order(len(self.source)))

    def _end(self, number: int) -> None:
        """After `number` batches there are no more."""
        self.ended = self.once or not number
        if number < (self.steps or 1):
            warnings.warn(
                f"the {self.what}data ended early. Received: {number} batches. Expected: "
                f"{self.steps or 'at least 1'} an epoch",
                stacklevel=2,
            )
        elif hasattr(self.source, "on_epoch_end"):
            self.source.on_epoch_end()

    def _unpacked(self, batch, number: int) -> tuple:
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
            raise TypeError(
                f"{self.what}batch {number + 1} must be (x, y) or (x, y, sample_weight). Received: "
                f"{type(batch).__name__}{size}"
            )
        x, y, w = (*batch, None)[:3]
        if ndim(y) == 0:
            raise TypeError(
                f"{self.what}batch {number + 1} is a single sample. Received: y={y!r}. Expected: samples "
                "along axis 0, as torch.utils.data.DataLoader(dataset, batch_size=32) makes them"
            )
        return x, y, w


def _kind(source) -> str:
    name = type(source).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
