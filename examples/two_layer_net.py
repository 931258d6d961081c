"""A network of 17 numbers learns by numerical gradients and by backpropagation: both find the same slopes.

Two inputs, three sigmoid units, a softmax over two classes.  The slope of the loss in each of the 17 weights
and biases can be measured: move the number a little up, then a little down, and see how the loss changes.
That takes 34 forward passes a step and cannot be wrong.  Backpropagation takes one pass forward and one back,
and must find the same numbers.

    python examples/two_layer_net.py

Three parts: the gradients side by side; 10,000 steps on labels drawn at random, where nothing can be learned
and the loss stays near log 2; and 10,000 steps on labels that follow from the inputs.  The second part takes
the numerical gradient at every step, the third backpropagation (or, with --numerical, that too the slow way).
Prints the loss every 1000 steps; writes the curves to out/two_layer_net.png.  Needs xpnet[plot].
"""

import argparse
import time
from pathlib import Path

import numpy as np

from xpnet import Sequential, numerical_gradient, viz
from xpnet.initializers import RandomNormal
from xpnet.layers import Dense


class TwoLayerNet:
    """softmax(sigmoid(x W1 + b1) W2 + b2), and how wrong it is.

    x (N, I); labels t: class indices (N,), or one-hot rows (N, O).  In float64, since a numerical gradient is
    a small difference of two losses.
    """

    def __init__(self, input_size=2, hidden_size=3, output_size=2, weight_init_std=0.01, seed=0):
        normal = RandomNormal(stddev=weight_init_std)
        self.model = Sequential(
            [
                Dense(hidden_size, activation="sigmoid", kernel_initializer=normal),
                Dense(output_size, activation="softmax", kernel_initializer=normal),
            ],
            input_shape=(input_size,),
            precision="float64",
            seed=seed,
            device="cpu",
        )
        self.model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")

    @property
    def params(self):
        """The network's own numbers, not copies: W1 (I, H), b1 (H,), W2 (H, O), b2 (O,).

        Write through them: `net.params["W1"][...] = 0`, or `p -= slope`.  xpnet, like PyTorch, keeps a weight
        as (out, in); its transpose is the textbook's (in, out).
        """
        first, second = self.model.layers
        return {"W1": first.weight.T, "b1": first.bias, "W2": second.weight.T, "b2": second.bias}

    def predict(self, x):
        """Class probabilities (N, O)."""
        return self.model.forward(x)[0]

    def loss(self, x, t):
        """The mean of -log(probability of the true class)."""
        return -np.log(self.predict(x)[np.arange(len(x)), indices(t)]).mean()

    def accuracy(self, x, t):
        """The share of samples whose likeliest class is the true one."""
        return (self.predict(x).argmax(axis=1) == indices(t)).mean()

    def numerical_gradient(self, x, t):
        """dloss/dparam of each of `params`, measured: two losses for every single number."""
        return {name: numerical_gradient(lambda _: self.loss(x, t), p) for name, p in self.params.items()}

    def gradient(self, x, t):
        """The same by backpropagation."""
        found = self.model.gradients(x, indices(t))  # by PyTorch's names: layer 0, its sigmoid 1, layer 2
        return {
            "W1": found["0.weight"].T,
            "b1": found["0.bias"],
            "W2": found["2.weight"].T,
            "b2": found["2.bias"],
        }


def indices(t):
    """Labels as class indices (N,), from those or from one-hot rows (N, O)."""
    t = np.asarray(t)
    return t.argmax(axis=1) if t.ndim == 2 else t


def train(net, gradient, x, t, iterations=10_000, batch_size=10, learning_rate=0.1, seed=0):
    """Gradient descent on random batches: the loss of each batch before its step, as a list."""
    rng = np.random.default_rng(seed)
    losses = []
    for i in range(iterations):
        batch = rng.choice(len(x), batch_size)
        slopes = gradient(x[batch], t[batch])
        losses.append(net.loss(x[batch], t[batch]))
        for name, p in net.params.items():
            p -= learning_rate * slopes[name]
        if i % 1000 == 0 or i == iterations - 1:
            print(
                f"  step {i:5d}   loss {net.loss(x, t):.4f}   accuracy {net.accuracy(x, t):.1%}", flush=True
            )
    return losses


def compare(net, x, t, repeats=50):
    """Both gradients on one batch: (largest difference, how many times faster backpropagation is)."""
    measured, derived = net.numerical_gradient(x, t), net.gradient(x, t)
    for name in measured:
        for how, slopes in (("measured", measured[name]), ("backprop", derived[name])):
            print(f"  {name} {how} ", *(f"{slope:10.7f}" for slope in slopes.ravel()))
    difference = max(np.abs(measured[name] - derived[name]).max() for name in measured)

    def seconds(f):
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            f(x, t)
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    slow, fast = seconds(net.numerical_gradient), seconds(net.gradient)
    print(f"  largest difference {difference:.1e}")
    times = f"numerical {slow * 1e6:.0f} us, backpropagation {fast * 1e6:.0f} us"
    print(f"  {times}: {slow / fast:.1f} times faster")
    return difference, slow / fast


@viz.style()
def draw(curves, path):
    """The loss of each training run, averaged over the last 200 steps."""
    figure = viz.figure(7, 4.5)
    axes = figure.subplots()
    for label, losses in curves.items():
        width = min(200, len(losses))
        means = np.convolve(losses, np.full(width, 1 / width), "valid")
        axes.plot(np.arange(width, len(losses) + 1), means, label=label)
    axes.axhline(np.log(2), color="gray", linewidth=1, linestyle="--", label="guessing: log 2")
    axes.set(xlabel="step", ylabel=f"loss (mean of {width} steps)", title="Two-layer net", ylim=(0, None))
    axes.grid()
    axes.legend()
    viz.save(figure, path)


def main(argv=None):
    """Compare, train and draw; a dict of what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--numerical", action="store_true", help="numerical gradients in the third part too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the picture goes")
    args = parser.parse_args(argv)
    settings = (args.iterations, args.batch_size, args.learning_rate, args.seed)

    rng = np.random.default_rng(args.seed)
    x = rng.standard_normal((1000, 2))
    random_labels = rng.integers(0, 2, 1000)
    labels = (x[:, 1] > x[:, 0] ** 2 - 0.5).astype(int)  # above a parabola: no straight line tells them apart

    print("the gradients of one batch, measured and by backpropagation")
    # weights of ordinary size: with those of 0.01 the slopes of the first layer are nearly zero
    difference, ratio = compare(TwoLayerNet(weight_init_std=1, seed=args.seed), x[:10], labels[:10])

    print("labels at random, numerical gradients: nothing to learn")
    net = TwoLayerNet(seed=args.seed)
    start = time.perf_counter()
    random_curve = train(net, net.numerical_gradient, x, random_labels, *settings)
    print(f"  {time.perf_counter() - start:.1f} s")

    how = "numerical gradients" if args.numerical else "backpropagation"
    print(f"labels that follow from the inputs, {how}")
    net = TwoLayerNet(seed=args.seed)
    start = time.perf_counter()
    curve = train(net, net.numerical_gradient if args.numerical else net.gradient, x, labels, *settings)
    print(f"  {time.perf_counter() - start:.1f} s")

    args.out.mkdir(parents=True, exist_ok=True)
    picture = args.out / "two_layer_net.png"
    draw({"labels at random": random_curve, "labels that can be learned": curve}, picture)
    print(f"loss curves: {picture}")
    return {"difference": difference, "ratio": ratio, "random": random_curve, "learned": curve}


if __name__ == "__main__":
    main()
