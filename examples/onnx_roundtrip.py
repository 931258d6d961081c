"""A network leaves xpnet and comes back: trained here, run by ONNX Runtime, read again and trained further.

    python examples/onnx_roundtrip.py

A small CNN learns the handwritten digits that come with scikit-learn: 8x8 pixels, 1797 images, ten classes.
`onnx.export` writes what it computes as a graph of ONNX's operators, ending in a softmax; ONNX Runtime, which
knows nothing of xpnet, reads the file and names the test images.  `onnx.load` makes a model of the file, and
training goes on, without the dropout, which a graph does not hold.

Prints the accuracies, and how far the probabilities of the three are apart: rounding, some 1e-7.  Needs
xpnet[onnx] and onnxruntime.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import onnxruntime

from xpnet import Sequential, datasets
from xpnet.interop import onnx
from xpnet.layers import Activation, BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D


def build(seed=0, device="auto"):
    """The network, ready to train; it ends in logits."""
    layers = [
        Conv2D(16, 3, padding="same", use_bias=False),  # (16, 8, 8)
        BatchNormalization(),
        Activation("relu"),
        Conv2D(32, 3, padding="same", activation="relu"),  # (32, 8, 8)
        MaxPooling2D(2),  # (32, 4, 4)
        Flatten(),
        Dropout(0.5),
        Dense(10),
    ]
    model = Sequential(layers, input_shape=(1, 8, 8), seed=seed, device=device)
    return compiled(model)


def compiled(model):
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def accuracy(probabilities, labels):
    return float((probabilities.argmax(axis=1) == labels).mean())


def main(argv=None):
    """Train, export, run, load and train on; the probabilities that xpnet, ONNX Runtime and the loaded model
    find for the test images, and the loaded model.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of weights, shuffles and dropout masks")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the file goes")
    args = parser.parse_args(argv)

    (x, y), (xt, yt) = datasets.load_digits()
    model = build(args.seed, args.device)
    model.fit(x, y, batch_size=32, epochs=args.epochs, verbose=0)

    # out: dropout is gone, and the softmax that training folds into the loss is spelled out
    classifier = copy.deepcopy(model)
    classifier.add(Activation("softmax"))
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "digits.onnx"
    graph = onnx.export(classifier, path).graph
    print(f"wrote {path}: {' - '.join(node.op_type for node in graph.node)}")

    # elsewhere: a file and an array are all that is needed
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"input": xt})

    # and back
    loaded = onnx.load(path, device=args.device)
    ours, again = classifier.predict(xt), loaded.predict(xt)
    for name, p in (("xpnet", ours), ("ONNX Runtime", theirs), ("loaded", again)):
        apart = np.abs(p - ours).max()
        print(f"{name:>12}: accuracy {accuracy(p, yt):.2%}, probabilities {apart:.1e} from xpnet's")

    compiled(loaded).fit(x, y, batch_size=32, epochs=args.epochs, verbose=0)
    print(f"{'trained on':>12}: accuracy {loaded.evaluate(xt, yt)[1]:.2%}")
    return ours, theirs, again, loaded


if __name__ == "__main__":
    main()
