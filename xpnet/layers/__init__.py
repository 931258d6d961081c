"""The layers, one family a file."""

from .activation import Activation
from .base import Layer
from .containers import Concatenate, Residual
from .conv import Conv2D, ZeroPadding2D
from .dense import Dense
from .dropout import Dropout
from .norm import BatchNormalization, LayerNormalization
from .pool import AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D
from .reshape import Flatten, Reshape

__all__ = [
    "Activation",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Layer",
    "LayerNormalization",
    "MaxPooling2D",
    "Reshape",
    "Residual",
    "ZeroPadding2D",
]
