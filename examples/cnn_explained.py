"""Follow one handwritten digit through a convolutional network, part by part.

The network learns scikit-learn's 8 x 8 digits.  Then one image it has never seen goes through it, and every
part leaves a picture: a kernel that slides over the image, the feature maps this makes before and after
training, ReLU, pooling, flattening, the dense layers, and softmax with a table of probabilities to read.  On
the way the script shows with numbers why there must be something non-linear in between: without it any stack
of layers is one matrix.

Writes ten pictures, 01_image.png to 10_probabilities.png.
Run it: python examples/cnn_explained.py --out out
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import make_moons

from xpnet import Sequential, optimizers, viz
from xpnet.datasets import load_digits
from xpnet.layers import Activation, AveragePooling2D, Conv2D, Dense, Flatten, MaxPooling2D

KERNELS = 6


def collapse(f, shape):
    """The matrix W and vector b of a linear f(x) = W x + b, found by asking about unit images."""
    size = int(np.prod(shape))
    b = f(np.zeros((1, *shape), np.float32))[0]
    W = f(np.eye(size, dtype=np.float32).reshape(size, *shape)).T - b[:, None]
    return W, b


def write_numbers(ax, a, digits=2, size=9):
    """Put the numbers of a (H, W) into the pixels of its image."""
    image = ax.get_images()[0]
    for (row, column), value in np.ndenumerate(a):
        dark = np.dot(image.cmap(image.norm(value))[:3], (0.3, 0.6, 0.1)) < 0.5
        text = f"{np.round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.00"
        color = "white" if dark else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize=size, color=color)


def frame_pixels(ax, top, left, height=1, width=1):
    """A frame around some pixels of an image."""
    ax.add_patch(_rectangle((left - 0.5, top - 0.5), width, height))


def _rectangle(corner, width, height):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, fill=False, edgecolor="#EE6677", linewidth=3, clip_on=False)


def show(ax, a, title, cmap="RdBu_r", low=None, high=None):
    """An image of a (H, W); by default red above 0 and blue below."""
    limit = np.abs(a).max()
    ax.imshow(a, cmap=cmap, vmin=-limit if low is None else low, vmax=limit if high is None else high)
    ax.set_title(title)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)


def picture_of_sliding(image, kernel, bias, feature_map, top, left):
    """One place of a convolution: patch, kernel, their products, and the pixel that their sum becomes."""
    KH, KW = kernel.shape
    padded = np.pad(image, 1)
    patch = padded[top : top + KH, left : left + KW]
    products = patch * kernel
    figure = viz.figure(14, 3.3)
    axes = figure.subplots(1, 5)
    show(axes[0], padded, "the image in a border of zeros", "gray", 0, 1)
    show(axes[1], patch, "the patch in the frame", "gray", 0, 1)
    show(axes[2], kernel, "times the kernel")
    show(axes[3], products, "gives nine products")
    show(axes[4], feature_map, "their sum is one pixel")
    for ax, a in zip(axes[1:4], (patch, kernel, products)):
        write_numbers(ax, a)
    frame_pixels(axes[0], top, left, KH, KW)
    frame_pixels(axes[4], top, left)
    by_hand = products.sum() + bias
    axes[4].set_xlabel(f"{products.sum():.2f} + bias {bias:.2f} = {by_hand:.2f}")
    return figure, by_hand


def picture_of_pooling(feature_map):
    """A map beside the largest and the mean of each 2 x 2 block of it."""
    model = Sequential([MaxPooling2D(2)], input_shape=(1, *feature_map.shape))
    largest = model.predict(feature_map[None, None])[0, 0]
    model = Sequential([AveragePooling2D(2)], input_shape=(1, *feature_map.shape))
    mean = model.predict(feature_map[None, None])[0, 0]
    figure = viz.figure(13, 4.6)
    axes = figure.subplots(1, 3)
    titles = (
        "one feature map after ReLU, 8 x 8",
        "max pooling: the largest of 2 x 2",
        "average pooling: their mean",
    )
    for ax, a, title in zip(axes, (feature_map, largest, mean), titles):
        show(ax, a, title, "viridis", 0, feature_map.max())
        write_numbers(ax, a, 1, 9 if a is feature_map else 12)
    for edge in range(2, 8, 2):
        axes[0].axhline(edge - 0.5, color="white", linewidth=2.5)
        axes[0].axvline(edge - 0.5, color="white", linewidth=2.5)
    return figure, largest, mean


def picture_of_lines(epochs):
    """Two crescents of points, for three dense layers with nothing between them, and with ReLU."""
    x, y = make_moons(400, noise=0.12, random_state=0)
    figure = viz.figure(11, 4.8)
    right = {}
    for ax, between in zip(figure.subplots(1, 2), ("linear", "relu")):
        model = Sequential(
            [Dense(16, activation=between), Dense(16, activation=between), Dense(2, activation="softmax")],
            input_shape=(2,),
            seed=0,
        )
        model.compile(optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x, y, epochs=epochs, verbose=0)
        right[between] = model.evaluate(x, y)[1]
        viz.plot_decision_regions(model.predict, (-1.7, 2.7, -2, 2), ax=ax)
        legend = viz.plot_points(x, y, ax=ax).get_legend()
        legend.set_visible(between == "relu")
        name = "three dense layers, nothing between" if between == "linear" else "the same with ReLU between"
        ax.set_title(f"{name}: {right[between]:.0%} right")
    return figure, right


def picture_of_probabilities(outputs, label):
    """From the last feature maps to the answer: flatten, dense, dense, softmax."""
    figure = viz.figure(11, 8)
    axes = figure.subplots(4, 1, height_ratios=(0.5, 1, 1, 1))
    flat = outputs["flatten"][0]
    axes[0].imshow(flat[None], aspect="auto", cmap="viridis")
    axes[0].set_title(f"flatten: the pooled maps in one row of {len(flat)} numbers")
    axes[0].set(yticks=[], xlabel="position")
    hidden = outputs["dense"][0]
    axes[1].bar(range(len(hidden)), hidden, color=["#4477AA" if h > 0 else "#CCCCCC" for h in hidden])
    axes[1].set_title(f"dense: {len(hidden)} weighted sums of them (ReLU keeps the blue ones)")
    axes[1].set_xlabel("unit")
    panels = (
        ("scores", "dense: a score for each digit"),
        ("softmax", "softmax: the scores as probabilities"),
    )
    for ax, (name, title) in zip(axes[2:], panels):
        values = outputs[name][0]
        ax.bar(range(10), values, color=["#EE6677" if d == values.argmax() else "#4477AA" for d in range(10)])
        ax.set_title(title)
        ax.set(xticks=range(10), xlabel=f"digit (the image shows a {label})")
    axes[3].set_ylim(0, 1)
    for ax in axes[1:]:
        ax.axhline(0, color="#555555", linewidth=0.8)
        ax.margins(x=0.01)
    return figure


def table(scores, probabilities, label):
    """Class probabilities as text, a bar for each."""
    lines = ["digit    score  probability"]
    for digit, (score, p) in enumerate(zip(scores, probabilities)):
        marks = " <- answer" * int(digit == probabilities.argmax()) + " <- truth" * (digit == label)
        lines.append(f"{digit:5d}  {score:7.2f}  {p:11.4%}  {'#' * round(20 * p)}{marks}".rstrip())
    return "\n".join(lines)


@viz.style()
def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the initial weights and the shuffles")
    parser.add_argument("--image", type=int, default=8, help="which of the 450 test images to follow")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    results = {}

    def save(drawn, name):
        print("   wrote", viz.save(drawn, args.out / name))

    (x, y), (xt, yt) = load_digits()  # 1347 and 450 images (1, 8, 8), brightness 0 to 1
    one, label = xt[args.image : args.image + 1], int(yt[args.image])
    image = one[0, 0]

    print(f"\n1. An image is a table of numbers: this one, of a {label}, has 8 x 8 of them.")
    figure = viz.figure(9, 4.4)
    axes = figure.subplots(1, 2)
    show(axes[0], image, f"the digit {label}, as we see it", "gray", 0, 1)
    show(axes[1], image, "and as the network does", "gray", 0, 1)
    write_numbers(axes[1], image)
    save(figure, "01_image.png")

    # Each part is a layer of its own here, so that we can look between them.
    model = Sequential(
        [
            Conv2D(KERNELS, 3, padding="same", name="convolution"),
            Activation("relu", name="relu"),
            MaxPooling2D(2, name="pooling"),
            Flatten(name="flatten"),
            Dense(32, name="dense"),
            Activation("relu", name="dense relu"),
            Dense(10, name="scores"),
            Activation("softmax", name="softmax"),
        ],
        input_shape=(1, 8, 8),
        seed=args.seed,
    )
    model.summary()
    kernels_before = model.state_dict()["0.weight"]  # (F, C, KH, KW) = (6, 1, 3, 3)
    maps_before = model.layer_outputs(one)["convolution"][0]
    model.compile(optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=args.epochs, verbose=0)
    accuracy = results["accuracy"] = model.evaluate(xt, yt)[1]
    kernels, biases = model.state_dict()["0.weight"], model.state_dict()["0.bias"]
    outputs = model.layer_outputs(one)
    maps = outputs["convolution"][0]
    print(f"   Trained for {args.epochs} epochs: {accuracy:.2%} of the 450 test images are right.")

    print("\n2. A kernel slides over the image.  Where it matches, the feature map is large.")
    k, top, left = np.unravel_index(maps.argmax(), maps.shape)
    figure, by_hand = picture_of_sliding(image, kernels[k, 0], biases[k], maps[k], top, left)
    results["sliding"] = (float(by_hand), float(maps[k, top, left]))
    print(f"   One pixel: {by_hand:.4f} by hand, {maps[k, top, left]:.4f} by the layer.")
    save(figure, "02_kernel_slides.png")

    print("\n3. Nobody designed the kernels: training moved them from random numbers to these.")
    change = results["kernel_change"] = float(np.abs(kernels - kernels_before).mean())
    print(f"   Mean size of a weight before {np.abs(kernels_before).mean():.3f}; mean change {change:.3f}.")
    titles = [f"{k}, {when}" for when in ("before", "after") for k in range(KERNELS)]
    both = np.concatenate([kernels_before, kernels])
    axes = viz.plot_kernels(both, titles, columns=KERNELS)
    axes[0].figure.suptitle("The kernels before and after training")
    save(axes, "03_kernels.png")

    print("\n4. So the feature maps of the image change too.")
    axes = viz.plot_feature_maps(np.concatenate([maps_before, maps]), titles, columns=KERNELS)
    axes[0].figure.suptitle("The feature maps before and after training")
    save(axes, "04_feature_maps.png")

    print("\n5. ReLU keeps what is above zero.")
    relu = outputs["relu"][0]
    print(f"   {np.mean(maps < 0):.0%} of the maps' pixels were negative and are zero now.")
    titles = [f"{k}, {what}" for what in ("before", "after") for k in range(KERNELS)]
    axes = viz.plot_feature_maps(np.concatenate([maps, relu]), titles, columns=KERNELS)
    axes[0].figure.suptitle("The feature maps before and after ReLU")
    save(axes, "05_relu.png")

    print("\n6. Without anything non-linear, a stack of layers is one matrix.")
    linear = Sequential(
        [
            Conv2D(KERNELS, 3, padding="same", name="convolution"),
            AveragePooling2D(2, name="pooling"),  # a mean is linear; a maximum is not
            Flatten(name="flatten"),
            Dense(32, name="dense"),
            Dense(10, name="scores"),
        ],
        input_shape=(1, 8, 8),
        seed=args.seed,
    )
    linear.compile(optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    linear.fit(x, y, batch_size=32, epochs=args.epochs, verbose=0)
    # Two dense layers: W2 (W1 h + b1) + b2 = (W2 W1) h + (W2 b1 + b2).
    state, inside = linear.state_dict(), linear.layer_outputs(xt)
    W1, b1, W2, b2 = (state[name] for name in ("3.weight", "3.bias", "4.weight", "4.bias"))
    W21, b21 = W2 @ W1, W2 @ b1 + b2
    gap = results["dense_gap"] = float(np.abs(inside["flatten"] @ W21.T + b21 - inside["scores"]).max())
    print(f"   Two dense layers {W1.shape} and {W2.shape} are one {W21.shape}: largest difference {gap:.1e}.")
    # And convolution, pooling and both dense layers together: one (10, 64) matrix, the image as 64 numbers.
    W, b = collapse(lambda images: linear.layer_outputs(images)["scores"], (1, 8, 8))
    gap = results["linear_gap"] = float(np.abs(xt.reshape(-1, 64) @ W.T + b - inside["scores"]).max())
    print(f"   All five layers are one {W.shape} matrix: largest difference over 450 images {gap:.1e}.")
    V, c = collapse(lambda images: model.layer_outputs(images)["scores"], (1, 8, 8))
    gap = results["relu_gap"] = float(
        np.abs(xt.reshape(-1, 64) @ V.T + c - model.layer_outputs(xt)["scores"]).max()
    )
    print(f"   The network with ReLU is no matrix: the same recipe misses by {gap:.1f}.")
    without = results["linear_accuracy"] = linear.evaluate(xt, yt)[1]
    print(f"   Right on test images: {without:.2%} without ReLU, {accuracy:.2%} with it.")
    axes = viz.plot_kernels(W.reshape(10, 1, 8, 8), [f"score of {digit}" for digit in range(10)], columns=5)
    axes[0].figure.suptitle("All that five linear layers are: one template for each digit")
    save(axes, "06_collapsed.png")
    figure, results["moons"] = picture_of_lines(3 * args.epochs)
    save(figure, "07_straight_lines.png")

    print("\n7. Pooling keeps one number of each 2 x 2 block, so a shift by a pixel matters less.")
    figure, largest, _ = picture_of_pooling(relu[k])
    results["pooled"] = bool(np.array_equal(largest, outputs["pooling"][0, k]))
    save(figure, "08_pooling.png")
    axes = viz.plot_feature_maps(outputs["pooling"][0], columns=KERNELS)
    axes[0].figure.suptitle("All six maps after max pooling, 4 x 4 each")
    save(axes, "09_pooled_maps.png")

    print("\n8. Flatten, dense layers and softmax turn the maps into an answer.")
    save(picture_of_probabilities(outputs, label), "10_probabilities.png")
    probabilities = results["probabilities"] = outputs["softmax"][0]
    print("\n" + table(outputs["scores"][0], probabilities, label))
    return results


if __name__ == "__main__":
    main()
