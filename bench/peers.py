"""Who is compared: each trains the same network from the same weights on the same batch.

`PEERS` is the registry: xpnet, PyTorch eager in both of its memory formats, scikit-learn's MLPClassifier
where the network is one, Keras on JAX, and plain NumPy.  A peer that is not installed is named with the
command that installs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from bench.turns import Side
from xpnet import layers
from xpnet.ops import threads


class Peer(NamedTuple):
    """make(name, x, y, model, threads): a Side whose run trains one step of workload `name` on the batch
    (x, y), from the weights of model.
    """

    make: Callable[..., Side]
    needs: tuple[str, ...] = ()
    install: str = ""
    applies: Callable[..., bool] = lambda model: True


# -- xpnet ---------------------------------------------------------------------------------------------------


def xpnet_side(name: str, x, y, model, count: int) -> Side:
    """The step of fit, which gathers its batch from the data, checks it, and adds up the epoch's loss."""
    from xpnet.data.arrays import Arrays

    threads.set_num_threads(count)
    step = model.train_step()
    epoch = step.epoch(Arrays(x, y), np.arange(len(x)), len(x))
    return Side(lambda: epoch.step(0), lambda: xpnet_threads(count, step.blas_threads(len(x))))


@contextmanager
def xpnet_threads(count: int, blas: int) -> Iterator[None]:
    """So many threads for xpnet, and BLAS held at so many, as fit holds it."""
    threads.set_num_threads(count)
    with threads.blas_threads(blas):
        yield


def is_plain(model) -> bool:
    """Whether the network is a chain of the layers and an optimizer that every tutorial has."""
    known = (layers.Conv2D, layers.Dense, layers.Dropout, layers.Flatten, layers.MaxPooling2D)
    return type(model.optimizer).__name__ in ("Adam", "Adagrad") and all(
        isinstance(layer, known) for layer in model.layers
    )


# -- PyTorch -------------------------------------------------------------------------------------------------


def torch_side(channels_last: bool):
    def make(name: str, x, y, model, count: int) -> Side:
        import torch

        from bench import torch_steps

        torch.set_num_threads(count)
        run, _ = torch_steps.step(name, model, x, y, channels_last)
        return Side(run, lambda: torch_threads(count))

    return make


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    import torch

    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
    yield


# -- scikit-learn --------------------------------------------------------------------------------------------


def is_mlp(model) -> bool:
    """Whether MLPClassifier can be this network: dense layers, ReLU between them, Adam."""
    return type(model.optimizer).__name__ == "Adam" and all(
        isinstance(layer, layers.Dense) for layer in model.layers
    )


def sklearn_net(x, y, model):
    """An MLPClassifier with the model's layers, weights and Adam, without its default weight decay; its
    partial_fit on len(x) samples is one step.
    """
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(
        hidden_layer_sizes=[layer.units for layer in model.layers[:-1]],
        batch_size=len(x),
        alpha=0.0,
        shuffle=False,
        epsilon=model.optimizer.epsilon,
    )
    classes = np.arange(model.layers[-1].units)
    net.partial_fit(
        x, y, classes=classes
    )  # makes its arrays, which then get the weights and a fresh optimizer
    state = list(model.state_dict().values())
    for mine, value in zip((*net.coefs_, *net.intercepts_), [w.T for w in state[::2]] + state[1::2]):
        mine[...] = value
    del net._optimizer  # of the step above; the next one begins anew
    return net


def sklearn_side(name: str, x, y, model, count: int) -> Side:
    net = sklearn_net(x, y, model)
    return Side(lambda: net.partial_fit(x, y))


# -- Keras on JAX --------------------------------------------------------------------------------------------


def keras_net(model, count: int):
    """A compiled keras.Sequential, channels last, that computes what model computes."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with _cores(count):  # XLA makes a thread for each core that it sees when it starts
        import jax

        jax.devices()
        import keras
    if keras.backend.backend() != "jax":
        raise RuntimeError(
            f"Keras was imported before with another backend. Received: {keras.backend.backend()!r}. "
            "Expected: KERAS_BACKEND=jax in the environment"
        )
    shape = model.layers[0].in_shape
    made, weights, state, number, maps = [], [], model.state_dict(), 0, None
    for layer in model.layers:
        activation = "relu" if layer.modules == 2 else None
        if isinstance(layer, layers.Conv2D):
            one = keras.layers.Conv2D(
                layer.filters, layer.kernel_size, padding=layer.padding, activation=activation
            )
            weights += [state[f"{number}.weight"].transpose(2, 3, 1, 0), state[f"{number}.bias"]]
        elif isinstance(layer, layers.Dense):
            one = keras.layers.Dense(layer.units, activation=activation)
            W = state[f"{number}.weight"]
            if maps is not None:  # Keras flattens in the order H, W, C
                W = W.reshape(-1, *maps).transpose(0, 2, 3, 1).reshape(len(W), -1)
            weights += [W.T, state[f"{number}.bias"]]
            maps = None
        elif isinstance(layer, layers.MaxPooling2D):
            one = keras.layers.MaxPooling2D(layer.pool_size)
        elif isinstance(layer, layers.Dropout):
            one = keras.layers.Dropout(layer.rate)
        elif isinstance(layer, layers.Flatten):
            one, maps = keras.layers.Flatten(), layer.in_shape
        else:
            raise TypeError(f"no Keras counterpart is listed for {layer!r}")
        made.append(one)
        number += layer.modules
    net = keras.Sequential(
        [keras.Input((*shape[1:], shape[0]) if len(shape) == 3 else shape), *made], name="peer"
    )
    net.set_weights(weights)
    optimizer = getattr(keras.optimizers, type(model.optimizer).__name__)(model.optimizer.rate())
    net.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return net


def keras_side(name: str, x, y, model, count: int) -> Side:
    """train_on_batch, compiled by XLA, on a batch that JAX holds already."""
    net = keras_net(model, count)
    import jax

    x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
    x, y = jax.device_put(np.ascontiguousarray(x)), jax.device_put(y.astype(np.int32))
    return Side(lambda: net.train_on_batch(x, y))


@contextmanager
def _cores(count: int) -> Iterator[None]:
    """The process on so many of its cores, where the system has affinities."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# -- plain NumPy ---------------------------------------------------------------------------------------------


def plain_side(name: str, x, y, model, count: int) -> Side:
    from bench.plain import Network

    net = Network(model)
    return Side(lambda: net.step(x, y))


# -- the registry --------------------------------------------------------------------------------------------

TORCH = ("torch",), "pip install torch"
PEERS = {
    "xpnet": Peer(xpnet_side),
    "torch channels_first": Peer(torch_side(False), *TORCH),
    "torch channels_last": Peer(torch_side(True), *TORCH, applies=lambda model: len(model.input_shape) == 3),
    "scikit-learn": Peer(sklearn_side, ("sklearn",), "pip install scikit-learn", is_mlp),
    "keras on jax": Peer(keras_side, ("keras", "jax"), "pip install keras jax", is_plain),
    "plain numpy": Peer(plain_side, applies=is_plain),
}


def missing(names=None) -> dict[str, str]:
    """{peer: the command that installs it} of those that are not installed."""
    out = {}
    for name in PEERS if names is None else names:
        if any(find_spec(module) is None for module in PEERS[name].needs):
            out[name] = PEERS[name].install
    return out


def sides(name: str, x, y, model, count: int, names=None) -> dict[str, Side]:
    """A side for every peer that is installed and can be this network; BLAS has count threads from now on.

    xpnet holds BLAS at fewer while it runs, and hands it back after.
    """
    absent = missing(names)
    made = {
        peer: PEERS[peer].make(name, x, y, model, count)
        for peer in (PEERS if names is None else names)
        if peer not in absent and PEERS[peer].applies(model)
    }
    limit_blas(count)
    return made


def limit_blas(count: int) -> None:
    """Every BLAS library that is loaded now has count threads in this process."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(count, user_api="blas")


def torch_predictor(model, channels_last: bool, block: int):
    """predict(x): NumPy in, NumPy out, the fastest that PyTorch's own interface allows: no autograd, samples
    that lie in the wanted memory format already, blocks of so many.
    """
    import torch

    from bench import torch_steps

    net = torch_steps.module(model).eval()
    form = torch.channels_last if channels_last else torch.contiguous_format
    if channels_last:
        net = net.to(memory_format=form)

    def ready(x):
        t = torch.from_numpy(x)
        return t.to(memory_format=form) if t.ndim == 4 else t

    def predict(t):
        with torch.inference_mode():
            if len(t) <= block:
                return net(t).numpy()
            return np.concatenate([net(part).numpy() for part in t.split(block)])

    return ready, predict
