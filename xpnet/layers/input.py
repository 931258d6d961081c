"""The shape of the samples, told where Keras's scripts tell it."""

from __future__ import annotations

from typing import Any


class Input:
    """The first entry of a model's layers, in place of its `input_shape`; not a layer itself.

    shape: of one sample, in the model's data_format.  batch_shape: with the batch in front.  batch_size,
    dtype, name: Keras's words, which change nothing.  Raises ValueError without a shape.
    """

    def __init__(self, shape=None, batch_size=None, dtype=None, name=None, batch_shape: Any = None):
        if (shape is None) == (batch_shape is None):
            raise ValueError(
                "Input needs the shape of one sample. Received: "
                f"shape={shape!r}, batch_shape={batch_shape!r}. Expected: one of them, such as "
                "Input(shape=(1, 28, 28))"
            )
        self.shape = tuple(batch_shape)[1:] if shape is None else shape

    def __repr__(self) -> str:
        return f"Input({self.shape!r})"
