"""Watch a small network divide a plane.

A thousand points lie in five clouds.  A network with two inputs, twenty hidden sigmoid units and five softmax
outputs learns which cloud a point belongs to: 500 times it is shown 100 points drawn at random, and takes a
step of 0.2 down the gradient of their mean loss.  Then it is asked about a 100 x 100 grid of points, all in
one call, and the plane is painted in the colours of its answers, the stronger the surer it is.

Writes blobs_boundary.png (the points, and the regions) and blobs_boundary.gif (the regions as they form).
Run it: python examples/blobs_boundary.py --out out
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import make_blobs

from xpnet import Sequential, optimizers, viz
from xpnet.layers import Dense

EXTENT = (-15, 15)


@viz.style()
def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--frames", type=int, default=50, help="pictures in the animation, at most")
    parser.add_argument("--seed", type=int, default=6, help="of the points, the weights and the draws")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)

    # The data: 1000 points (x, y) around five centres, and the number of the centre each belongs to.
    x, y = make_blobs(n_samples=1000, n_features=2, centers=5, random_state=args.seed)

    # The network: 2 -> 20 -> 5.  Softmax makes its five outputs probabilities.
    model = Sequential(
        [Dense(20, activation="sigmoid"), Dense(5, activation="softmax")], input_shape=(2,), seed=args.seed
    )
    model.compile(
        optimizer=optimizers.SGD(learning_rate=0.2),
        loss="sparse_categorical_crossentropy",  # its gradient is averaged over the batch
        metrics=["accuracy"],
    )
    model.summary()

    # Training, with a look at the plane every few steps.
    rng = np.random.default_rng(args.seed)
    every = max(1, args.iterations // max(1, args.frames))
    frames = [viz.decision_regions(model.predict, EXTENT)]
    titles = ["before training"]
    for iteration in range(1, args.iterations + 1):
        chosen = rng.integers(0, len(x), size=100)  # with replacement: a point may come twice
        loss, accuracy = model.train_on_batch(x[chosen], y[chosen])
        if iteration % every == 0:
            frames.append(viz.decision_regions(model.predict, EXTENT))
            titles.append(f"after {iteration} steps, loss {loss:.2f}")
        if iteration == 1 or iteration % max(1, args.iterations // 10) == 0:
            print(f"step {iteration:4d}: loss {loss:.4f}, accuracy {accuracy:.2%} on its 100 points")
    loss, accuracy = model.evaluate(x, y)
    print(f"all 1000 points: loss {loss:.4f}, accuracy {accuracy:.2%}")

    # The pictures.
    figure = viz.figure(11, 4.8)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    viz.plot_points(x, y, ax=left).get_legend().remove()  # one legend, on the right, is enough
    left.set_title("1000 points in five clouds")
    viz.plot_decision_regions(model.predict, EXTENT, resolution=100, ax=right)
    viz.plot_points(x, y, ax=right)
    right.set_title(f"What the network answers: {accuracy:.1%} right")
    print("wrote", viz.save(figure, args.out / "blobs_boundary.png"))
    movie = args.out / "blobs_boundary.gif"
    print("wrote", viz.animate_decision_regions(frames, movie, EXTENT, points=(x, y), titles=titles))
    return {"loss": loss, "accuracy": accuracy, "frames": len(frames)}


if __name__ == "__main__":
    main()
