"""What xpnet raises.  Every message says what was received, what was expected and what to do."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable


class ShapeError(ValueError):
    """A shape does not fit; the message names the layer, the shape received and the shape expected."""


class NotCompiledError(RuntimeError):
    """Training or evaluation was asked of a model without a loss: call `model.compile` first."""


class NotBuiltError(RuntimeError):
    """Something needs the shapes of a model that has seen neither an input_shape nor data."""


class DeviceMemoryError(MemoryError):
    """A device has no memory left.  The message names the layer and, in training, a batch that fits."""


class NonFiniteError(FloatingPointError):
    """Training met a loss or gradient that is NaN or infinite; the weights are the last good ones.

    epoch, batch: where it happened, counted from 1 (None outside `fit`); layer: the name of the first
    layer whose output (or gradient) was not finite, or None.
    """

    def __init__(
        self, message: str, epoch: int | None = None, batch: int | None = None, layer: str | None = None
    ):
        super().__init__(message)
        self.epoch, self.batch, self.layer = epoch, batch, layer


class ModelFileError(ValueError):
    """A model file is corrupt, foreign or does not fit."""


class GradientError(AssertionError):
    """`check_gradients` found backward and numerical gradients that disagree."""


class DeviceFallbackWarning(UserWarning):
    """A GPU was asked for and the model runs on the CPU; the message says why and what to install."""


def unknown(kind: str, name: object, options: Iterable[str]) -> ValueError:
    """The ValueError for a name that stands in no table, with the closest one it may have meant.

    kind: what it should have been, "layer".  options: the names there are.
    """
    import difflib

    options = sorted(options)
    close = difflib.get_close_matches(str(name).lower(), options, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ValueError(f"unknown {kind}. Received: {name!r}.{hint} Expected one of: {', '.join(options)}")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with this message and category, and point at the user's line: the first caller outside the
    package.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("xpnet."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
