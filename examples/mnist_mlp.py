"""A network of dense layers reads the handwritten digits of MNIST, in the words of a Keras script.

784 pixels, layers of 500, 250 and 100 ReLU units, and a softmax over the ten digits; one-hot labels, Adam,
categorical cross-entropy, batches of 1000.  It is trained twice: on pixels as they are stored, 0 to 255, and
on pixels scaled to 0 to 1, which is one division and worth about three points of accuracy.  Then the same
network, from the same weights, is trained by each of five optimizers.

    python examples/mnist_mlp.py

Prints loss and accuracy on the test images; writes out/mnist_mlp.png (scaled beside unscaled) and
out/mnist_mlp_optimizers.png.  MNIST is read from the folder that XPNET_DATA names, or downloaded once.
Needs xpnet[plot].
"""

import argparse
from pathlib import Path

from xpnet import optimizers, viz
from xpnet.datasets import mnist
from xpnet.layers import Activation, Dense
from xpnet.models import Sequential
from xpnet.utils import to_categorical


def load():
    """((x, y), (xt, yt)): images as rows (N, 784) of floats from 0 to 255, labels as one-hot rows (N, 10)."""
    (x, y), (xt, yt) = mnist.load_data()
    x, xt = x.reshape(len(x), 784).astype("float32"), xt.reshape(len(xt), 784).astype("float32")
    return (x, to_categorical(y, 10)), (xt, to_categorical(yt, 10))


def build(optimizer="adam", seed=0, device="auto"):
    """The network, ready to train."""
    model = Sequential(seed=seed, device=device)
    model.add(Dense(units=500, input_shape=(784,)))
    model.add(Activation("relu"))
    model.add(Dense(units=250))
    model.add(Activation("relu"))
    model.add(Dense(units=100))
    model.add(Activation("relu"))
    model.add(Dense(units=10))
    model.add(Activation("softmax"))
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def compare_scaling(train, test, args):
    """Train on pixels as stored and on pixels scaled; ({name: History}, {name: test accuracy})."""
    histories, accuracies = {}, {}
    for name, divisor in (("unscaled, 0 to 255", 1), ("scaled, 0 to 1", 255)):
        print(f"pixels {name}")
        (x, y), (xt, yt) = train, test
        x, xt = x / divisor, xt / divisor
        model = build(seed=args.seed, device=args.device)
        histories[name] = model.fit(
            x, y, batch_size=args.batch_size, epochs=args.epochs, validation_data=(xt, yt), verbose=2
        )
        loss, accuracy = model.evaluate(xt, yt)
        print(f"  test loss {loss:.4f}, test accuracy {accuracy:.2%}")
        accuracies[name] = accuracy
    return histories, accuracies


def compare_optimizers(train, test, args):
    """Train on scaled pixels by each optimizer at its usual rate; {name: History}."""
    (x, y), (xt, yt) = train, test
    x, xt = x / 255, xt / 255
    chosen = {
        "SGD": optimizers.SGD(),
        "momentum": optimizers.SGD(momentum=0.9),
        "AdaGrad": optimizers.Adagrad(0.01),
        "RMSProp": optimizers.RMSprop(),
        "Adam": optimizers.Adam(),
    }
    histories = {}
    for name, optimizer in chosen.items():
        model = build(optimizer, seed=args.seed, device=args.device)
        histories[name] = model.fit(
            x,
            y,
            batch_size=args.batch_size,
            epochs=args.optimizer_epochs,
            validation_data=(xt, yt),
            verbose=0,
        )
        loss, accuracy = model.evaluate(xt, yt)
        rate = f"rate {optimizer.learning_rate:g}"
        print(f"  {name:<9} {rate:<11} test loss {loss:.4f}   test accuracy {accuracy:.2%}", flush=True)
    return histories


@viz.style()
def draw(histories, title, path):
    """Loss on the training images and accuracy on the test images, a curve for each history."""
    figure = viz.figure(10, 4.2)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    for name, history in histories.items():
        epochs = [epoch + 1 for epoch in history.epoch]
        left.plot(epochs, history.history["loss"], marker=".", label=name)
        right.plot(epochs, history.history["val_accuracy"], marker=".", label=name)
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    right.set(xlabel="epoch", ylabel="test accuracy")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)  # there is no epoch 1.5
        axes.grid()
        axes.legend()
    viz.save(figure, path)


def main(argv=None):
    """Train, compare and draw; {name: test accuracy} for unscaled and scaled pixels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=1000)
    parser.add_argument(
        "--optimizer-epochs", type=int, default=5, help="of each optimizer; 0 leaves them out"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the pictures go")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)

    train, test = load()
    print(f"{len(train[0])} training images, {len(test[0])} test images")
    build(seed=args.seed, device=args.device).summary()

    histories, accuracies = compare_scaling(train, test, args)
    draw(histories, "MNIST MLP: pixels as stored, and scaled", args.out / "mnist_mlp.png")
    print(f"curves: {args.out / 'mnist_mlp.png'}")

    if args.optimizer_epochs:
        print("optimizers, on scaled pixels")
        histories = compare_optimizers(train, test, args)
        picture = args.out / "mnist_mlp_optimizers.png"
        draw(histories, "MNIST MLP: optimizers side by side", picture)
        print(f"curves: {picture}")
    return accuracies


if __name__ == "__main__":
    main()
