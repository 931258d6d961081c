"""A small U-Net finds handwritten digits on textured ground, and names every pixel.

Each image holds four digits, bright or dark, on stripes and clouds that are nearly so themselves.  The
network says for each pixel whether it is ground or which digit it belongs to: eleven classes.  Going down,
convolutions and poolings gather what is there; going up, transposed convolutions bring that back to where it
is, and at each size the map from the way down is put beside it, which still knows the outlines (O.
Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation, 2015).

    python examples/segmentation.py

The images are made from the digits that come with scikit-learn, the test images from others than the
training images.  Prints the share of test pixels named rightly, and the mean over classes of intersection
over union (what is rightly called a class, as a share of all that is or is called so); writes
out/segmentation.png.  Needs xpnet[plot].
"""

import argparse
import math
from pathlib import Path

import numpy as np

from xpnet import Sequential, datasets, optimizers, schedules, viz
from xpnet.layers import (
    Activation,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    MaxPooling2D,
    SpatialDropout2D,
)

SIDE, CELL, DIGIT = 24, 12, 8  # pixels of an image, of each of its four cells, and of the digit in that
CLASSES = 11  # the ground and ten digits
SHOWN = 6  # images in the picture


def make_images(digits, labels, count, rng):
    """Images (count, 1, 24, 24) in [0, 1] and the class of each pixel (count, 24, 24): 0 ground, 1 + digit.

    digits (N, 1, 8, 8), labels (N,).
    """
    images = np.stack([texture(rng) for _ in range(count)])
    classes = np.zeros(images.shape, np.int64)
    for image, mask in zip(images, classes):
        for row, column in np.ndindex(SIDE // CELL, SIDE // CELL):
            which = rng.integers(len(digits))
            top, left = CELL * np.array([row, column]) + rng.integers(0, CELL - DIGIT + 1, 2)
            place = slice(top, top + DIGIT), slice(left, left + DIGIT)
            ink, shade = digits[which, 0], rng.choice([rng.uniform(0, 0.15), rng.uniform(0.85, 1)])
            image[place] += ink * (shade - image[place])
            mask[place][ink > 0.4] = 1 + labels[which]
    images += rng.normal(0, 0.03, images.shape)
    return images[:, None].clip(0, 1).astype(np.float32), classes


def texture(rng):
    """Stripes of any direction and width over clouds, (24, 24), about 0.2 to 0.8."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    angle, waves, phase = rng.uniform(0, np.pi), rng.uniform(1, 5), rng.uniform(0, 2 * np.pi)
    stripes = np.sin(2 * np.pi * waves * (rows * np.cos(angle) + columns * np.sin(angle)) + phase)
    clouds = sum(
        rng.normal() * np.sin(2 * np.pi * (a * rows + b * columns) + rng.uniform(0, 2 * np.pi))
        for a in range(3)
        for b in range(3)
    )
    return 0.5 + 0.15 * stripes + 0.08 * clouds


def block(filters):
    """Two 3x3 convolutions that keep the size."""
    layers = []
    for _ in range(2):
        layers += [
            Conv2D(filters, 3, padding="same", use_bias=False),
            BatchNormalization(momentum=0.9),
            Activation("relu"),
        ]
    return layers


def unet(width, *deeper):
    """A block of `width` filters, beside its map what narrower maps know, and a block to join the two."""
    if not deeper:
        return [*block(width), SpatialDropout2D(0.2)]
    below = [MaxPooling2D(2), *unet(*deeper), Conv2DTranspose(width, 2, strides=2)]
    return [*block(width), Concatenate([[], below]), *block(width)]


def build(steps, seed=0, device="auto", widths=(16, 32, 64)):
    """The network, ready to train in so many steps; it ends in a map of logits for each class."""
    model = Sequential(
        [*unet(*widths), Conv2D(CLASSES, 1)], input_shape=(1, SIDE, SIDE), seed=seed, device=device
    )
    rate = schedules.CosineDecay(0.006, steps)
    model.compile(optimizer=optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    return model


def intersection_over_union(classes, guesses):
    """Of each class: the pixels that are and are called so, over those that are or are called so."""
    table = np.bincount((CLASSES * classes + guesses).ravel(), minlength=CLASSES**2)
    table = table.reshape(CLASSES, CLASSES)
    both = np.diag(table)
    return both / (table.sum(axis=0) + table.sum(axis=1) - both)


@viz.style()
def draw(images, classes, guesses, path):
    """Three rows: images, what is there, what the network found."""
    figure = viz.figure(SHOWN * 1.6 + 1, 5.2)
    axes = figure.subplots(3, SHOWN)
    for column in range(SHOWN):
        axes[0, column].imshow(images[column, 0], cmap="gray", vmin=0, vmax=1)
        for row, what in ((1, classes), (2, guesses)):
            shown = axes[row, column].imshow(
                what[column], cmap="tab20", vmin=-0.5, vmax=19.5, interpolation="nearest"
            )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for row, title in enumerate(("image", "truth", "found")):
        axes[row, 0].set_ylabel(title)
    bar = figure.colorbar(shown, ax=axes, fraction=0.03, boundaries=np.arange(CLASSES + 1) - 0.5)
    bar.set_ticks(range(CLASSES), labels=["ground", *map(str, range(10))])
    viz.save(figure, path)


def main(argv=None):
    """Train, measure and draw; (share of pixels, mean intersection over union)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000, help="to train on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of weights, images, shuffles and dropout")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the picture goes")
    args = parser.parse_args(argv)

    train, test = datasets.load_digits()
    rng = np.random.default_rng(args.seed)
    x, y = make_images(*train, args.images, rng)
    xt, yt = make_images(*test, 500, rng)

    steps = args.epochs * math.ceil(len(x) / args.batch_size)
    model = build(steps, args.seed, args.device)
    model.summary()
    model.fit(x, y, batch_size=args.batch_size, epochs=args.epochs, validation_data=(xt, yt), verbose=2)

    guesses = model.predict(xt).argmax(axis=1)
    right, shares = float((guesses == yt).mean()), intersection_over_union(yt, guesses)
    print(
        "intersection over union: ground "
        + ", ".join(f"{name}{share:.2f}" for name, share in zip(["", *(f"{d}: " for d in range(10))], shares))
    )
    print(f"pixels named rightly: {right:.2%}; mean intersection over union: {shares.mean():.3f}")
    args.out.mkdir(parents=True, exist_ok=True)
    draw(xt, yt, guesses, args.out / "segmentation.png")
    print(f"picture: {args.out / 'segmentation.png'}")
    return right, float(shares.mean())


if __name__ == "__main__":
    main()
