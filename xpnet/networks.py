"""Ready-made classifiers for samples of a given shape, by the names that `xpnet train --model` takes.

Each builder takes the shape of one sample, (C, H, W) or (D,), and the number of classes K, and returns a
list of new layers that ends in K logits: `Sequential(lenet((1, 28, 28), 10), input_shape=(1, 28, 28))`.
ShapeError where the samples do not suit the network.
"""

from __future__ import annotations

import math

from .errors import ShapeError, unknown
from .layers import Conv2D, Dense, Dropout, Flatten, Layer, MaxPooling2D

Shape = tuple[int, ...]

SMALL_IMAGE = 14  # below this many rows or columns, `cnn` is the network made for 8x8 digits


def mlp(input_shape: Shape, classes: int) -> list[Layer]:
    """Dense layers with ReLU, for vectors and images alike: 500-250-100 from 256 inputs on, else 64-64."""
    layers: list[Layer] = [Flatten()] if len(input_shape) == 3 else []
    hidden = (500, 250, 100) if math.prod(input_shape) >= 256 else (64, 64)
    return [*layers, *(Dense(units, activation="relu") for units in hidden), Dense(classes)]


def cnn(input_shape: Shape, classes: int) -> list[Layer]:
    """Two 3x3 convolutions, a pooling, dense layers with dropout: a small one for small images, else MNIST's.

    Images below 14x14 keep their size through 10 filters, twice, and go on to 200-200, the network of the
    digits tutorials; larger ones get 32 and 64 filters and 128 units, the classic for MNIST.
    """
    if _least_side("cnn", input_shape, 2) < SMALL_IMAGE:
        relu = {"activation": "relu", "kernel_initializer": "he_normal"}  # He et al., 2015
        return [
            Conv2D(10, 3, padding="same", **relu),
            Conv2D(10, 3, padding="same", **relu),
            MaxPooling2D(2),
            Flatten(),
            Dense(200, **relu),
            Dropout(0.5),
            Dense(200, **relu),
            Dropout(0.5),
            Dense(classes),
        ]
    return [
        Conv2D(32, 3, activation="relu"),
        Conv2D(64, 3, activation="relu"),
        MaxPooling2D(2),
        Dropout(0.25),
        Flatten(),
        Dense(128, activation="relu"),
        Dropout(0.5),
        Dense(classes),
    ]


def lenet(input_shape: Shape, classes: int) -> list[Layer]:
    """5x5 convolutions with 6 and 16 filters, each pooled, then 120-84-K, with ReLU.

    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, 1998.
    """
    _least_side("lenet", input_shape, 12)
    return [
        Conv2D(6, 5, padding="same", activation="relu"),
        MaxPooling2D(2),
        Conv2D(16, 5, activation="relu"),
        MaxPooling2D(2),
        Flatten(),
        Dense(120, activation="relu"),
        Dense(84, activation="relu"),
        Dense(classes),
    ]


def vgg(input_shape: Shape, classes: int) -> list[Layer]:
    """Three times two 3x3 convolutions and a pooling, with 64, 128 and 256 filters, then K.

    A short member of the family of K. Simonyan, A. Zisserman, Very deep convolutional networks for
    large-scale image recognition, 2015.  Its depth needs He's initial weights to start learning.
    """
    _least_side("vgg", input_shape, 8)
    layers: list[Layer] = []
    for filters in (64, 128, 256):
        for _ in range(2):
            layers.append(
                Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal")
            )
        layers.append(MaxPooling2D(2))
    return [*layers, Flatten(), Dense(classes)]


BUILDERS = {"mlp": mlp, "cnn": cnn, "lenet": lenet, "vgg": vgg}


def build(name: str, input_shape: Shape, classes: int) -> list[Layer]:
    """The layers of the network that goes by this name."""
    if name not in BUILDERS:
        raise unknown("model", name, BUILDERS)
    return BUILDERS[name](input_shape, classes)


def _least_side(name: str, input_shape: Shape, least: int) -> int:
    """The shorter side of the images, which must be `least` or more."""
    if len(input_shape) != 3:
        raise ShapeError(
            f"{name} needs images. Received: samples of shape {input_shape}. Expected: (C, H, W); "
            "the model 'mlp' takes vectors"
        )
    side = min(input_shape[1:])
    if side < least:
        raise ShapeError(
            f"{name} needs images of at least {least}x{least}. Received: {input_shape[1]}x{input_shape[2]}. "
            "Expected: larger images, or the model " + ("'mlp'" if side < 2 else "'cnn' or 'mlp'")
        )
    return side
