"""The training steps that stand for the field, for xpnet; `bench/torch_steps.py` has them for PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from xpnet import Sequential, networks, optimizers
from xpnet.layers import Conv2D, Dense, Dropout, Flatten, Layer, MaxPooling2D


class Workload(NamedTuple):
    """A network, the shape of its input, its batch and its optimizer (a torch.optim class of the same name
    exists), with the settings that are not xpnet's defaults.
    """

    layers: Callable[[], list[Layer]]
    input_shape: tuple[int, ...]
    batch: int
    optimizer: str = "Adam"
    settings: Mapping[str, Any] = MappingProxyType({})


def _digits_cnn():
    return [
        Conv2D(10, 3, padding="same", activation="relu"),
        Conv2D(10, 3, padding="same", activation="relu"),
        MaxPooling2D(2),
        Flatten(),
        Dense(200, activation="relu"),
        Dropout(0.5),
        Dense(200, activation="relu"),
        Dropout(0.5),
        Dense(10),
    ]


def _mnist_mlp():
    return [
        Dense(500, activation="relu"),
        Dense(250, activation="relu"),
        Dense(100, activation="relu"),
        Dense(10),
    ]


def _lenet():
    return [
        Conv2D(6, 5, padding="same", activation="relu"),
        MaxPooling2D(2),
        Conv2D(16, 5, activation="relu"),
        MaxPooling2D(2),
        Flatten(),
        Dense(120, activation="relu"),
        Dense(84, activation="relu"),
        Dense(10),
    ]


def _mnist_cnn():
    return [
        Conv2D(32, 3, activation="relu"),
        Conv2D(64, 3, activation="relu"),
        MaxPooling2D(2),
        Dropout(0.25),
        Flatten(),
        Dense(128, activation="relu"),
        Dropout(0.5),
        Dense(10),
    ]


def _cifar_vgg():
    layers: list[Layer] = []
    for filters in (64, 128, 256):
        layers += [Conv2D(filters, 3, padding="same", activation="relu") for _ in range(2)]
        layers.append(MaxPooling2D(2))
    return [*layers, Flatten(), Dense(10)]


WORKLOADS = {
    "digits-cnn": Workload(_digits_cnn, (1, 8, 8), 8, "Adagrad"),
    "mnist-mlp": Workload(_mnist_mlp, (784,), 1000),
    "lenet": Workload(_lenet, (1, 28, 28), 128),
    "mnist-cnn": Workload(_mnist_cnn, (1, 28, 28), 128),
    "cifar-vgg": Workload(_cifar_vgg, (3, 32, 32), 64),
    "resnet9": Workload(
        lambda: networks.resnet9((3, 32, 32), 10),
        (3, 32, 32),
        64,
        "SGD",
        {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
    ),
}


def optimizer(name: str) -> optimizers.Optimizer:
    """A workload's optimizer, new."""
    return getattr(optimizers, WORKLOADS[name].optimizer)(**WORKLOADS[name].settings)


def model(name: str, device: str = "cpu", seed: int = 0) -> Sequential:
    """A compiled model of a workload, without metrics."""
    work = WORKLOADS[name]
    made = Sequential(work.layers(), input_shape=work.input_shape, device=device, seed=seed)
    made.compile(optimizer(name), "sparse_categorical_crossentropy")
    return made


def batch(name: str, size: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs in [0, 1) and labels for one step: x (N, ...) float32, y (N,) int64."""
    work = WORKLOADS[name]
    rng = np.random.default_rng(seed)
    n = size or work.batch
    return rng.random((n, *work.input_shape), dtype=np.float32), rng.integers(0, 10, n)
