"""Ready-made classifiers for samples of a given shape, by the names that `xpnet train --model` takes.

Each builder takes the shape of one sample, (C, H, W) or (D,), and the number of classes K, and returns a
list of new layers that ends in K logits: `Sequential(lenet((1, 28, 28), 10), input_shape=(1, 28, 28))`.
The shape only decides what fits, so a model with data_format="channels_last" is built of the same list.
ShapeError where the samples do not suit the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import ShapeError, unknown
from .layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    Layer,
    MaxPooling2D,
    Rescaling,
    Residual,
)

Shape = tuple[int, ...]

SMALL_IMAGE = 14  # below this many rows or columns, `cnn` is the network made for 8x8 digits
VGG = {  # filters of the convolutions between two poolings, by the number of layers with weights
    7: ((64, 64), (128, 128), (256, 256)),
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


def mlp(
    input_shape: Shape,
    classes: int,
    *,
    hidden: Sequence[int] | int | None = None,
    activation="relu",
    dropout: float = 0.0,
) -> list[Layer]:
    """Dense layers, for vectors and images alike.

    input_shape: of one sample, (C, H, W) or (D,).  classes: K.  hidden: their units, 500-250-100 from 256
    inputs on, else 64-64.  dropout: the share of the units of each that is silenced in training.  activation:
    of the hidden layers.
    """
    if hidden is None:
        hidden = (500, 250, 100) if math.prod(input_shape) >= 256 else (64, 64)
    flat: list[Layer] = [Flatten()] if len(input_shape) == 3 else []
    return [*flat, *_hidden(hidden, activation, dropout), Dense(classes)]


def cnn(input_shape: Shape, classes: int) -> list[Layer]:
    """Two 3x3 convolutions, a pooling, dense layers with dropout: a small one for small images, else MNIST's.

    Images below 14x14 keep their size through 10 filters, twice, and go on to 200-200, the network of the
    digits tutorials; larger ones get 32 and 64 filters and 128 units, the classic for MNIST.

    input_shape: of one sample, (C, H, W).  classes: K.  Raises ShapeError for samples that are no images.
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


def lenet(
    input_shape: Shape,
    classes: int,
    *,
    filters: tuple[int, int] = (6, 16),
    hidden: Sequence[int] | int = (120, 84),
    activation="relu",
) -> list[Layer]:
    """5x5 convolutions with 6 and 16 filters, each pooled, then 120-84-K.

    input_shape: of one sample, (C, H, W), at least 12x12.  classes: K.  filters, hidden: how many.
    activation: of all layers but the last.  Raises ShapeError for smaller images.

    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, 1998.
    """
    _least_side("lenet", input_shape, 12)
    return [
        Conv2D(filters[0], 5, padding="same", activation=activation),
        MaxPooling2D(2),
        Conv2D(filters[1], 5, activation=activation),
        MaxPooling2D(2),
        Flatten(),
        *_hidden(hidden, activation),
        Dense(classes),
    ]


def vgg(
    input_shape: Shape,
    classes: int,
    depth: int = 7,
    *,
    blocks: Sequence[Sequence[int]] | None = None,
    batch_norm: bool = False,
    hidden: Sequence[int] | int = (),
    dropout: float = 0.5,
) -> list[Layer]:
    """Blocks of 3x3 convolutions, each pooled, then K: by default twice 64, twice 128 and twice 256 filters.

    input_shape: of one sample, (C, H, W), which every block halves.  classes: K.  depth: 11, 13, 16 or 19 for
    those of the paper, 7 for a short member of the family.  blocks: the filters of each block in its place.
    batch_norm: normalise after each convolution.  hidden: units of dense layers before the last, with
    dropout: (4096, 4096) in the paper, none where the images are small.  Parameters go by the names of
    torchvision's `vgg(...).features`.  Raises ShapeError for images that are too small, ValueError for
    another depth.

    K. Simonyan, A. Zisserman, Very deep convolutional networks for large-scale image recognition, 2015.  Its
    depth needs He's initial weights to start learning.
    """
    if blocks is None:
        if depth not in VGG:
            raise unknown("depth of vgg", depth, map(str, VGG))
        blocks = VGG[depth]
    _least_side("vgg", input_shape, 2 ** len(blocks))
    layers: list[Layer] = []
    for block in blocks:
        for filters in block:
            if batch_norm:
                layers += [_conv3(filters, use_bias=True), _norm(), Activation("relu")]
            else:
                layers.append(_conv3(filters, use_bias=True, activation="relu"))
        layers.append(MaxPooling2D(2))
    return [*layers, Flatten(), *_hidden(hidden, "relu", dropout), Dense(classes)]


def resnet9(input_shape: Shape, classes: int, *, width: int = 64, logit_scale: float = 0.125) -> list[Layer]:
    """Eight convolutions, two pairs of them beside a short cut, for images of the size of CIFAR-10's.

    input_shape: of one sample, (C, H, W), at least 8x8.  classes: K.  width: filters of the first, a half, a
    quarter and an eighth of those that follow.  logit_scale: factor of the logits, which keeps the first,
    large steps of a short training stable.

    D. Page, How to train your ResNet, 2018: the network that led DAWNBench's list for CIFAR-10.
    """
    _least_side("resnet9", input_shape, 8)

    def conv(filters: int, *pooling: Layer) -> list[Layer]:
        return [_conv3(filters), _norm(), Activation("relu"), *pooling]

    def residual(filters: int) -> Layer:
        return Residual([*conv(filters), *conv(filters)])

    return [
        *conv(width),
        *conv(2 * width, MaxPooling2D(2)),
        residual(2 * width),
        *conv(4 * width, MaxPooling2D(2)),
        *conv(8 * width, MaxPooling2D(2)),
        residual(8 * width),
        GlobalMaxPooling2D(),
        Dense(classes, use_bias=False),
        Rescaling(logit_scale),
    ]


def resnet18(input_shape: Shape, classes: int, *, width: int = 64) -> list[Layer]:
    """Four stages of two blocks with a short cut; all but the first halve the map and double the filters.

    The form for small images: one 3x3 convolution before the stages in place of a 7x7 with a pooling.
    input_shape: of one sample, (C, H, W).  classes: K.  width: filters of the first stage.

    K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image recognition, 2016 (table 1; short cuts
    of type B).
    """
    _least_side("resnet18", input_shape, 8)

    def block(filters: int, strides: int) -> Layer:
        return Residual(
            [
                *(_conv3(filters, strides), _norm(), Activation("relu")),
                *(_conv3(filters), _norm()),
            ],
            shortcut=[_conv1(filters, strides), _norm()] if strides > 1 else None,
            activation="relu",
        )

    layers: list[Layer] = [_conv3(width), _norm(), Activation("relu")]
    for stage in range(4):
        layers += [block(width << stage, 2 if stage else 1), block(width << stage, 1)]
    return [*layers, GlobalAveragePooling2D(), Dense(classes)]


BUILDERS = {
    "mlp": mlp,
    "cnn": cnn,
    "lenet": lenet,
    "vgg": vgg,
    "resnet9": resnet9,
    "resnet18": resnet18,
}


def build(name: str, input_shape: Shape, classes: int, **options) -> list[Layer]:
    """The layers of the network that goes by this name.

    name: "mlp", "cnn", "lenet", "vgg", "resnet9" or "resnet18".  input_shape, classes, options: what its
    builder takes.  Raises ValueError for another name, ShapeError where the samples do not suit it.
    """
    if name not in BUILDERS:
        raise unknown("model", name, BUILDERS)
    return BUILDERS[name](input_shape, classes, **options)


def _hidden(units: Sequence[int] | int, activation, dropout: float = 0.0) -> list[Layer]:
    layers: list[Layer] = []
    for one in (units,) if isinstance(units, int) else units:
        layers.append(Dense(one, activation=activation))
        if dropout:
            layers.append(Dropout(dropout))
    return layers


def _conv3(filters: int, strides: int = 1, use_bias: bool = False, activation=None) -> Layer:
    """3x3, as wide as its input where strides are 1, from initial weights after He et al., 2015."""
    return Conv2D(
        filters,
        3,
        strides,
        padding=1,
        use_bias=use_bias,
        activation=activation,
        kernel_initializer="he_normal",
    )


def _conv1(filters: int, strides: int) -> Layer:
    return Conv2D(filters, 1, strides, use_bias=False, kernel_initializer="he_normal")


def _norm() -> Layer:
    return BatchNormalization(momentum=0.9, epsilon=1e-5)  # PyTorch's, for runs of few epochs


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
