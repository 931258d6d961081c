"""A network learns to read digits here, goes to PyTorch and to Keras, learns on there, and comes back.

A convolutional network is trained on scikit-learn's 8x8 digits.  Then, where PyTorch and Keras are installed:

  PyTorch    by a safetensors file, whose arrays have the names and shapes of the same torch.nn.Sequential;
             an epoch of training there; and back by a file that PyTorch wrote.
  Keras      as a .keras file that Keras opens as it is; and back by a file that Keras wrote.

    python examples/weights_exchange.py

Prints how many of the test digits each reads rightly, and how far apart their predictions are.  The files go
to out/.  Each part needs its library: pip install torch, pip install 'xpnet[keras]' keras.
"""

import argparse
import importlib.util
import os
from pathlib import Path

import numpy as np

import xpnet
from xpnet import Sequential, datasets
from xpnet.layers import BatchNormalization, Conv2D, Dense, Flatten, MaxPooling2D


def build(seed=0):
    """(1, 8, 8) -> 10 logits."""
    model = Sequential(
        [
            Conv2D(16, 3, padding="same", use_bias=False),
            BatchNormalization(momentum=0.9),
            Conv2D(32, 3, padding="same", activation="relu"),
            MaxPooling2D(2),
            Flatten(),
            Dense(64, activation="relu"),
            Dense(10),
        ],
        input_shape=(1, 8, 8),
        seed=seed,
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def torch_twin():
    """The same network, written as one writes it in PyTorch."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same", bias=False),
        nn.BatchNorm2d(16, eps=1e-3),
        nn.Conv2d(16, 32, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def by_torch(model, x, y, xt, out):
    """To PyTorch, an epoch there, and back: the model that comes back, and how far predictions were apart."""
    import torch
    from safetensors.torch import load_file, save_file

    model.save_weights(out / "to_torch.safetensors")
    net = torch_twin().eval()
    net.load_state_dict(load_file(out / "to_torch.safetensors"))
    with torch.no_grad():
        apart = np.abs(net(torch.from_numpy(xt)).numpy() - model.predict(xt)).max()

    net.train()
    optimizer = torch.optim.Adam(net.parameters())
    for start in range(0, len(x), 32):
        logits = net(torch.from_numpy(x[start : start + 32]))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[start : start + 32]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file(net.state_dict(), out / "from_torch.safetensors")

    back = build()
    back.load_weights(out / "from_torch.safetensors")
    with torch.no_grad():
        apart = max(apart, np.abs(net.eval()(torch.from_numpy(xt)).numpy() - back.predict(xt)).max())
    return back, apart


def by_keras(model, xt, out):
    """To Keras and back: the model that comes back, and how far predictions were apart."""
    import keras

    model.save(out / "to_keras.keras")
    theirs = keras.saving.load_model(out / "to_keras.keras")
    images = xt.transpose(0, 2, 3, 1)  # Keras's order, (N, H, W, C)
    p = theirs.predict(images, verbose=0)
    theirs.save(out / "from_keras.keras")
    back = xpnet.load_model(out / "from_keras.keras")
    return back, max(np.abs(p - model.predict(xt)).max(), np.abs(p - back.predict(images)).max())


def main(argv=None):
    """Train, carry there and back; the largest difference of predictions, by library."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the files go")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)

    (x, y), (xt, yt) = datasets.load_digits()
    model = build(args.seed)
    model.fit(x, y, batch_size=32, epochs=args.epochs, verbose=0)
    print(f"xpnet reads {np.mean(model.predict(xt).argmax(axis=1) == yt):.1%} of {len(xt)} test digits")

    apart = {}
    if importlib.util.find_spec("torch"):
        back, apart["torch"] = by_torch(model, x, y, xt, args.out)
        right = np.mean(back.predict(xt).argmax(axis=1) == yt)
        print(f"PyTorch: predictions at most {apart['torch']:.1e} apart; {right:.1%} after an epoch there")
    else:
        print("PyTorch: not installed (pip install torch)")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    if importlib.util.find_spec("keras") and importlib.util.find_spec("h5py"):
        back, apart["keras"] = by_keras(model, xt, args.out)
        right = np.mean(back.predict(xt.transpose(0, 2, 3, 1)).argmax(axis=1) == yt)
        print(f"Keras: predictions at most {apart['keras']:.1e} apart; {right:.1%} back here")
    else:
        print("Keras: not installed (pip install 'xpnet[keras]' keras)")
    return apart


if __name__ == "__main__":
    main()
