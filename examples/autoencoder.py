"""A convolutional autoencoder takes the noise off handwritten digits.

The encoder halves the image twice by convolutions with stride 2, the decoder doubles it twice by transposed
convolutions.  It is shown noisy images and told the clean ones: to part the two it must learn what digits
look like (P. Vincent et al., Extracting and composing robust features with denoising autoencoders, 2008).

    python examples/autoencoder.py                 # 1797 digits of 8x8, which come with scikit-learn
    python examples/autoencoder.py --data mnist    # 28x28, from the folder that XPNET_DATA names

Prints the mean squared error on the test images, beside those of the noisy images themselves and of a plain
blur, which knows nothing of digits; writes out/autoencoder.png: clean, noisy and restored digits in turn.
Needs xpnet[plot].
"""

import argparse
from pathlib import Path

import numpy as np

from xpnet import Sequential, datasets, viz
from xpnet.layers import Conv2D, Conv2DTranspose

DATA = {"digits": datasets.load_digits, "mnist": datasets.load_mnist}
SHOWN = 8  # digits in the picture


def load(name, most=6000):
    """Training and test images (N, 1, H, W) in [0, 1], at most so many for training; no labels are needed."""
    (x, _), (xt, _) = DATA[name]()
    return x[:most], xt[:1000]


def noisy(images, deviation, rng):
    """The images with normal noise, cut off at black and white."""
    noise = rng.normal(0, deviation, images.shape).astype(images.dtype)
    return np.clip(images + noise, 0, 1)


def blurred(images):
    """Each pixel the mean of the 3x3 around it, those of the edge repeated beyond it."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    H, W = images.shape[2:]
    return sum(padded[:, :, i : i + H, j : j + W] for i in range(3) for j in range(3)) / 9


def build(input_shape, seed=0, device="auto"):
    """The network, ready to train; sides of images are multiples of 4."""
    channels, *_ = input_shape
    model = Sequential(
        [
            Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu"),
            Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu"),
            Conv2D(channels, 3, padding="same", activation="sigmoid"),
        ],
        input_shape=input_shape,
        seed=seed,
        device=device,
    )
    model.compile(optimizer="adam", loss="binary_crossentropy")
    return model


def error(images, clean):
    return float(((images - clean) ** 2).mean())


def draw(clean, seen, restored, path):
    """Three rows: what was there, what the network saw, what it made of it."""
    rows = np.concatenate([clean[:SHOWN], seen[:SHOWN], restored[:SHOWN]])
    titles = [name for name in ("clean", "noisy", "restored") for _ in range(SHOWN)]
    viz.save(viz.plot_images(rows, titles, columns=SHOWN), path)


def main(argv=None):
    """Train, measure and draw; the errors by name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--noise", type=float, default=0.3, help="its standard deviation")
    parser.add_argument("--epochs", type=int, help="default: 30, or 5 for mnist")
    parser.add_argument("--seed", type=int, default=0, help="of weights, shuffles and noise")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the picture goes")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(args.seed)

    clean, clean_test = load(args.data)
    seen = noisy(clean_test, args.noise, rng)
    model = build(clean.shape[1:], args.seed, args.device)
    model.summary()
    epochs = args.epochs or (5 if args.data == "mnist" else 30)
    for epoch in range(1, epochs + 1):  # noise anew each time, so that none can be learned by heart
        history = model.fit(noisy(clean, args.noise, rng), clean, batch_size=32, epochs=1, verbose=0)
        if epoch % max(1, epochs // 5) == 0 or epoch == 1:
            print(f"epoch {epoch:2d}/{epochs}   loss {history.history['loss'][0]:.4f}", flush=True)

    restored = model.predict(seen)
    errors = {
        name: error(images, clean_test)
        for name, images in (("noisy", seen), ("blurred", blurred(seen)), ("restored", restored))
    }
    print("mean squared error: " + ", ".join(f"{name} {value:.4f}" for name, value in errors.items()))
    args.out.mkdir(parents=True, exist_ok=True)
    draw(clean_test, seen, restored, args.out / "autoencoder.png")
    print(f"digits: {args.out / 'autoencoder.png'}")
    return errors


if __name__ == "__main__":
    main()
