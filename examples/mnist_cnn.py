"""A convolutional network reads the handwritten digits of MNIST, 99 of 100 rightly.

Two convolutions of 32 and 64 filters, max pooling, and a dense layer of 128 units, with dropout after both;
Adam, batches of 128, at most 12 epochs.  The very same script runs on a GPU by --device cuda.

    python examples/mnist_cnn.py

Prints a line an epoch and the accuracy on the 10,000 test images; saves the model to
out/mnist_cnn.safetensors, and writes out/mnist_cnn.png (training curves) and out/mnist_cnn_mistakes.png (test
images that it was wrong about, if any).  MNIST is read from the folder that XPNET_DATA names, or downloaded
once.  Takes minutes on a laptop's processor.  Needs xpnet[plot].
"""

import argparse
import time
from pathlib import Path

import numpy as np

from xpnet import Sequential, datasets, viz
from xpnet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D


def build(seed=0, device="auto"):
    """The network, ready to train.  Its last layer yields logits, from which the loss takes the softmax."""
    model = Sequential(
        [
            Conv2D(32, 3, activation="relu"),  # (32, 26, 26)
            Conv2D(64, 3, activation="relu"),  # (64, 24, 24)
            MaxPooling2D(2),  # (64, 12, 12)
            Dropout(0.25),
            Flatten(),  # 9216
            Dense(128, activation="relu"),
            Dropout(0.5),
            Dense(10),
        ],
        input_shape=(1, 28, 28),
        seed=seed,
        device=device,
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def draw_mistakes(images, labels, guesses, path, most=24):
    """The first `most` images (N, 1, 28, 28) whose guess is not their label; False if there is none."""
    wrong = np.flatnonzero(labels != guesses)[:most]
    if not len(wrong):
        return False
    titles = [f"a {labels[i]}, read as {guesses[i]}" for i in wrong]
    viz.save(viz.plot_images(images[wrong], titles), path)
    return True


def main(argv=None):
    """Train, evaluate, save and draw; the test accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the files go")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)

    (x, y), (xt, yt) = datasets.load_mnist()
    model = build(args.seed, args.device)
    model.summary()

    start = time.perf_counter()
    history = model.fit(
        x, y, batch_size=args.batch_size, epochs=args.epochs, validation_data=(xt, yt), verbose=2
    )
    print(f"trained in {time.perf_counter() - start:.0f} s")
    loss, accuracy = model.evaluate(xt, yt)
    print(f"test loss {loss:.4f}, test accuracy {accuracy:.2%} of {len(xt)} images")

    model.save(args.out / "mnist_cnn.safetensors")
    viz.save(viz.plot_history(history), args.out / "mnist_cnn.png")
    print(f"model {args.out / 'mnist_cnn.safetensors'}, training curves {args.out / 'mnist_cnn.png'}")
    mistakes = args.out / "mnist_cnn_mistakes.png"
    if draw_mistakes(xt, yt, model.predict(xt).argmax(axis=1), mistakes):
        print(f"what it was wrong about: {mistakes}")
    return accuracy


if __name__ == "__main__":
    main()
