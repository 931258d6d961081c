"""The layers, one family a file."""

from .activation import ELU, Activation, LeakyReLU, ReLU, Softmax
from .base import Layer
from .containers import Concatenate, Residual
from .conv import Conv2D, ZeroPadding2D
from .conv_transpose import Conv2DTranspose
from .dense import Dense
from .dropout import Dropout, SpatialDropout2D
from .input import Input
from .norm import BatchNormalization, GroupNormalization, LayerNormalization
from .pool import AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D
from .reshape import Flatten, Reshape
from .scale import Normalization, Rescaling
from .upsample import UpSampling2D

# Keras's other names
AvgPool2D, MaxPool2D = AveragePooling2D, MaxPooling2D
GlobalAvgPool2D, GlobalMaxPool2D = GlobalAveragePooling2D, GlobalMaxPooling2D
InputLayer = Input

__all__ = [
    "ELU",
    "Activation",
    "AveragePooling2D",
    "AvgPool2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Conv2DTranspose",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GlobalMaxPooling2D",
    "GroupNormalization",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "MaxPool2D",
    "MaxPooling2D",
    "Normalization",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Residual",
    "Softmax",
    "SpatialDropout2D",
    "UpSampling2D",
    "ZeroPadding2D",
]
