"""A small CNN reads the handwritten digits that come with scikit-learn: 8x8 pixels, 1797 images, ten classes.

Two convolutions find strokes, max pooling halves the map, and three dense layers name the digit.  Dropout in
its textbook form (units are silenced in training, outputs halved at inference) keeps the dense layers from
learning the training images by heart.  The gradients are summed over each batch of 8, and AdaGrad gives every
weight a step of its own size.

    python examples/digits_cnn.py            # the full net
    python examples/digits_cnn.py --small    # one convolution, no dropout

Prints the error (cross-entropy) on the training and the test images as training goes on, then the accuracies;
writes the error curves to out/digits_cnn.png.  Needs xpnet[plot].

One image in 450 is 0.22%, so the test accuracy depends on the seed: 98.4% on average over 20 of them, and at
most 98.89%.
"""

import argparse
from pathlib import Path

from sklearn.preprocessing import StandardScaler

from xpnet import Sequential, datasets, optimizers, viz
from xpnet.callbacks import Callback
from xpnet.initializers import RandomNormal
from xpnet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from xpnet.losses import SparseCategoricalCrossentropy


def load():
    """((x, y), (xt, yt)): images (N, 1, 8, 8), every pixel with mean 0 and deviation 1, labels (N,)."""
    (x, y), (xt, yt) = datasets.load_digits(raw=True)  # pixels 0..16; 450 of the images are for testing
    scaler = StandardScaler().fit(
        x.reshape(-1, 64)
    )  # on the training part alone: the test images stay unseen

    def standardised(images):
        return scaler.transform(images.reshape(-1, 64)).reshape(-1, 1, 8, 8)

    return (standardised(x), y), (standardised(xt), yt)


def build(seed=0, small=False, device="auto"):
    """The network, ready to train."""
    normal = {"kernel_initializer": RandomNormal(stddev=0.1), "bias_initializer": RandomNormal(stddev=0.1)}

    model = Sequential(input_shape=(1, 8, 8), seed=seed, device=device)
    model.add(Conv2D(10, 3, padding=1, activation="relu", **normal))  # (10, 8, 8)
    if not small:
        model.add(Conv2D(10, 3, padding=1, activation="relu", **normal))  # (10, 8, 8)
    model.add(MaxPooling2D(2))  # (10, 4, 4)
    model.add(Flatten())  # 160
    for _ in range(2):
        model.add(Dense(200, activation="relu", **normal))
        if not small:
            model.add(Dropout(0.5, scaling="inference"))
    model.add(Dense(10, activation="softmax", **normal))

    model.compile(
        optimizer=optimizers.Adagrad(0.01, initial_accumulator_value=1e-8, epsilon=0),
        loss=SparseCategoricalCrossentropy(reduction="sum"),
        metrics=["accuracy"],
    )
    return model


class ErrorLog(Callback):
    """Measures the error on training and test images after each epoch, and prints it now and then.

    The loss that `fit` reports is taken while dropout is at work and the weights still move; here both parts
    go through the same finished network.
    """

    def __init__(self, train, test, every=10):
        self.train, self.test, self.every = train, test, every
        self.train_errors, self.test_errors = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.train_errors.append(self.model.evaluate(*self.train)[0])
        self.test_errors.append(self.model.evaluate(*self.test)[0])
        done, last = epoch + 1, self.params["epochs"]
        if done % self.every == 0 or done in (1, last):
            print(
                f"epoch {done:3d}/{last}   "
                f"train error {self.train_errors[-1]:.4f}   test error {self.test_errors[-1]:.4f}",
                flush=True,
            )


@viz.style()
def draw(errors, path):
    """The two error curves, as a picture."""
    figure = viz.figure(7, 4.5)
    axes = figure.subplots()
    epochs = range(1, len(errors.train_errors) + 1)
    axes.plot(epochs, errors.train_errors, label="train")
    axes.plot(epochs, errors.test_errors, label="test")
    axes.set(xlabel="epoch", ylabel="error (cross-entropy)", title="Digits CNN", yscale="log")
    axes.grid()
    axes.legend()
    viz.save(figure, path)


def main(argv=None):
    """Train, log and draw; (training accuracy, test accuracy)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="one convolution, no dropout")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of weights, shuffles and dropout masks")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the picture goes")
    args = parser.parse_args(argv)

    train, test = load()
    model = build(args.seed, args.small, args.device)
    model.summary()

    errors = ErrorLog(train, test)
    model.fit(*train, batch_size=args.batch_size, epochs=args.epochs, callbacks=[errors], verbose=0)

    train_accuracy, test_accuracy = model.evaluate(*train)[1], model.evaluate(*test)[1]
    print(f"accuracy: train {train_accuracy:.2%}, test {test_accuracy:.2%}")

    args.out.mkdir(parents=True, exist_ok=True)
    picture = args.out / ("digits_cnn_small.png" if args.small else "digits_cnn.png")
    draw(errors, picture)
    print(f"error curves: {picture}")
    return train_accuracy, test_accuracy


if __name__ == "__main__":
    main()
