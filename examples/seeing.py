"""Train a small CNN on handwritten digits, and look at it from every side.

How training went and how the kernels came about; one image on its way through all layers; what is mistaken
for what, and the worst mistakes; where in the image the answer comes from; the loss around the weights, and
how optimizers walk on such surfaces.  Every picture of xpnet.viz is here once.

Writes 19 pictures and three animations.
Run it: python examples/seeing.py --out out
"""

import argparse
from pathlib import Path

from xpnet import Sequential, callbacks, optimizers, viz
from xpnet.datasets import load_blobs, load_digits
from xpnet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D

WALKERS = {
    "SGD": optimizers.SGD(0.95),
    "momentum": optimizers.SGD(0.1, momentum=0.9),
    "Adagrad": optimizers.Adagrad(1.5, initial_accumulator_value=0),
    "Adam": optimizers.Adam(0.3),
}


def network(seed):
    model = Sequential(
        [
            Conv2D(8, 3, padding="same", activation="relu"),
            MaxPooling2D(2),
            Conv2D(16, 3, padding="same", activation="relu"),
            Flatten(),
            Dense(32, activation="relu"),
            Dropout(0.3),
            Dense(10, activation="softmax"),
        ],
        input_shape=(1, 8, 8),
        seed=seed,
    )
    model.compile(optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def training(out, model, data, epochs):
    """The rate to train with, the curves, and the kernels as they came about."""
    (x, y), test = data
    viz.save(callbacks.find_learning_rate(model, x, y).plot(), out / "01_learning_rates.png")
    weights = callbacks.WeightHistory()
    history = model.fit(x, y, epochs=epochs, validation_data=test, callbacks=[weights], verbose=0)
    viz.save(viz.plot_history(history), out / "02_history.png")
    viz.save(viz.plot_kernels(model.layers[0]), out / "03_kernels.png")
    viz.save(viz.plot_kernel_evolution(weights), out / "04_kernels_over_time.png")
    viz.animate_kernels(weights, out / "05_kernels.gif")
    return weights


def one_image(out, model, image):
    """What every layer makes of one image."""
    viz.save(viz.plot_layers(model, image), out / "06_layers.png")
    viz.save(viz.plot_feature_maps(model, x=image, layer="conv2d_1"), out / "07_feature_maps.png")


def answers(out, model, xt, yt):
    """What is taken for what."""
    viz.save(viz.plot_images(xt[:16], [f"a {label}" for label in yt[:16]]), out / "08_images.png")
    viz.save(viz.plot_confusion_matrix(model, xt, yt), out / "09_confusions.png")
    viz.save(viz.plot_mistakes(model, xt, yt), out / "10_mistakes.png")


def reasons(out, model, images):
    """Where in the image the answer comes from."""
    viz.save(viz.plot_saliency(model, images), out / "11_gradient.png")
    viz.save(viz.plot_saliency(model, images, method="smoothgrad"), out / "12_smoothgrad.png")
    viz.save(
        viz.plot_saliency(model, images, method="integrated_gradients"), out / "13_integrated_gradients.png"
    )
    viz.save(viz.plot_grad_cam(model, images), out / "14_grad_cam.png")


def surfaces(out, model, weights, xt, yt):
    """The loss around the weights and along the way of the training; optimizers on a surface."""
    around = viz.loss_surface(model, xt, yt, resolution=15)
    viz.save(viz.plot_loss_surface(around), out / "15_loss_surface.png")
    viz.save(viz.plot_loss_surface(around, projection="3d"), out / "16_loss_relief.png")
    way = viz.loss_surface(model, xt, yt, history=weights, resolution=15)
    viz.save(viz.plot_loss_surface(way), out / "17_loss_on_the_way.png")
    viz.save(viz.plot_optimizer_paths("ravine", WALKERS, steps=30), out / "18_optimizers.png")
    viz.animate_optimizer_paths("ravine", WALKERS, out / "19_optimizers.gif", steps=30)
    return way


def regions(out, seed):
    """A small network that learns to divide the plane, at five moments."""
    (x, y), _ = load_blobs()
    model = Sequential(
        [Dense(20, activation="relu"), Dense(5, activation="softmax")], input_shape=(2,), seed=seed
    )
    model.compile(optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    frames, titles = [viz.decision_regions(model.predict)], ["before training"]
    for epoch in (1, 2, 4, 8):
        model.fit(x, y, epochs=epoch, initial_epoch=epoch // 2, verbose=0)
        frames.append(viz.decision_regions(model.predict))
        titles.append(f"epoch {epoch}")
    viz.save(viz.plot_points(x, y), out / "20_points.png")
    axes = viz.plot_points(x, y, ax=viz.plot_decision_regions(frames[-1]))
    viz.save(axes, out / "21_decision_regions.png")
    viz.animate_decision_regions(frames, out / "22_decision_regions.gif", points=(x, y), titles=titles, fps=2)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the shuffles")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)

    data = load_digits()  # images (N, 1, 8, 8), brightness 0 to 1
    xt, yt = data[1]
    model = network(args.seed)
    weights = training(args.out, model, data, args.epochs)
    accuracy = model.evaluate(xt, yt)[1]
    print(f"{accuracy:.2%} of {len(xt)} test images are right after {args.epochs} epochs")
    one_image(args.out, model, xt[3])
    answers(args.out, model, xt, yt)
    reasons(args.out, model, xt[:8])
    way = surfaces(args.out, model, weights, xt, yt)
    regions(args.out, args.seed)
    print(f"{sum(way.shares):.0%} of the way of the weights lies in the plane of 17_loss_on_the_way.png")
    print("wrote", len(list(args.out.glob("[0-9][0-9]_*"))), "pictures to", args.out)
    return {"accuracy": accuracy, "way": way}


if __name__ == "__main__":
    main()
