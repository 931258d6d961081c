"""A small residual network tells the ten kinds of things on CIFAR-10's photographs apart.

ResNet-9 by D. Page (How to train your ResNet, 2018) and his way to train it in a few epochs: SGD with
Nesterov's momentum, a learning rate that rises for a fifth of the steps and falls for the rest of them,
weight decay, label smoothing, and pictures that are shifted, mirrored and in part blanked anew every time
they are seen.

    python examples/cifar_resnet9.py --device cuda
    python examples/cifar_resnet9.py --width 16 --epochs 8      # a sixteenth of the work: for a processor

Prints a line an epoch, the accuracy on the 10,000 test images and the seconds it took; with --target 0.92 it
ends as soon as that is reached.  Writes out/cifar_resnet9.png (training curves) and
out/cifar_resnet9_seen.png (a few images as training sees them).  CIFAR-10 is read from the folder that
XPNET_DATA names, or downloaded once.  Needs xpnet[plot].
"""

import argparse
import time
from pathlib import Path

import numpy as np

from xpnet import Sequential, data, datasets, networks, optimizers, schedules, viz
from xpnet.callbacks import Callback
from xpnet.layers import Normalization
from xpnet.losses import SparseCategoricalCrossentropy

MEAN = (125.3, 123.0, 113.9)  # of the training images' red, green and blue, 0 to 255
DEVIATION = (63.0, 62.1, 66.7)

AUGMENT = [
    data.RandomCrop(padding=4, fill_mode="reflect"),
    data.RandomFlip("horizontal"),
    data.Cutout(8, fill_value=120),  # about the mean
]


def build(steps, width=64, rate=0.4, seed=0, device="auto", precision="auto"):
    """The network, ready for so many steps of training.  It takes bytes, 0 to 255."""
    model = Sequential(
        [
            Normalization(mean=MEAN, variance=tuple(d * d for d in DEVIATION)),
            *networks.resnet9((3, 32, 32), 10, width=width),
        ],
        input_shape=(3, 32, 32),
        seed=seed,
        device=device,
        precision=precision,
    )
    rising = max(steps // 5, 1)
    cycle = schedules.CosineDecay(0.0, max(steps - rising, 1), warmup_target=rate, warmup_steps=rising)
    model.compile(
        # decay acts beside the momentum here: 5e-4 within it, as PyTorch has it, comes to ten times as much
        optimizer=optimizers.SGD(cycle, momentum=0.9, nesterov=True, weight_decay=5e-3),
        loss=SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
    )
    return model


class Until(Callback):
    """Stops at an accuracy on the test images, and keeps the seconds since training began."""

    def __init__(self, target):
        self.target, self.seconds, self.reached = target, 0.0, False

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.start
        self.reached = self.target is not None and logs["val_accuracy"] >= self.target
        self.model.stop_training = self.reached


def draw_seen(images, path):
    """Each of eight images (N, 3, 32, 32) as it is, and then as training sees it in seven epochs."""
    few = images[:8]
    seen = [few / 255, *(data.apply(AUGMENT, few, seed=epoch) / 255 for epoch in range(7))]
    viz.save(viz.plot_images(np.stack(seen, axis=1).reshape(-1, *few.shape[1:]), columns=8), path)


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--width", type=int, default=64, help="filters of the first layer")
    parser.add_argument("--rate", type=float, default=0.4, help="the highest learning rate")
    parser.add_argument("--images", type=int, help="train and test on the first so many alone")
    parser.add_argument("--target", type=float, help="end at this accuracy on the test images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--precision", default="auto", help="auto, float32, tf32 or bfloat16")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where pictures go")
    return parser.parse_args(argv)


def load(images=None):
    """((x, y), (xt, yt)) of bytes; of each part the first so many images alone."""
    return tuple((x[:images], y[:images]) for x, y in datasets.load_cifar10(raw=True))


def train(split, args):
    """The trained model, and the figures of the run."""
    (x, y), (xt, yt) = split
    steps = args.epochs * -(-len(x) // args.batch_size)
    model = build(steps, args.width, args.rate, args.seed, args.device, args.precision)
    model.summary()
    until = Until(args.target)
    model.fit(x, y, args.batch_size, args.epochs, 2, [until], validation_data=(xt, yt), augment=AUGMENT)
    epochs, accuracy = len(model.history.epoch), model.history.history["val_accuracy"][-1]
    print(f"test accuracy {accuracy:.2%} of {len(xt)} images after {epochs} epochs")
    took = f"{until.seconds:.1f} s, the tests after every epoch included"
    if args.target is None:
        print(f"trained in {took}")
    else:
        print(
            f"{args.target:.0%} reached after {took}"
            if until.reached
            else f"{args.target:.0%} not reached in {took}"
        )
    figures = {"accuracy": accuracy, "reached": until.reached, "seconds": until.seconds, "epochs": epochs}
    return model, figures | {"device": model.device, "precision": model.precision_meaning}


def main(argv=None):
    """Train, evaluate and draw; the accuracy on the test images."""
    args = arguments(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    split = load(args.images)
    draw_seen(split[0][0], args.out / "cifar_resnet9_seen.png")
    model, figures = train(split, args)
    viz.save(viz.plot_history(model.history), args.out / "cifar_resnet9.png")
    print(f"pictures: {args.out / 'cifar_resnet9.png'}, {args.out / 'cifar_resnet9_seen.png'}")
    return figures["accuracy"]


if __name__ == "__main__":
    main()
