"""A convolutional network in plain NumPy, as textbooks and tutorials write it: what xpnet is compared with to
see what its memory order, its replicas and its other tricks are worth together.

Images are (N, C, H, W).  A convolution copies every patch into a row of a matrix (im2col) and is one product;
its input gradient adds the rows back to where they came from (col2im).  Kernels are square, strides 1.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from xpnet import layers as xp_layers


class Conv:
    """x (N, C, H, W), W (F, C, K, K), b (F,) -> y (N, F, OH, OW); pad: zeros on each side."""

    def __init__(self, W, b, pad):
        self.params, self.pad = [W, b], pad

    def forward(self, x):
        W, b = self.params
        F, C, K, _ = W.shape
        x = np.pad(x, ((0, 0), (0, 0), (self.pad, self.pad), (self.pad, self.pad)))
        windows = sliding_window_view(x, (K, K), axis=(2, 3))  # (N, C, OH, OW, K, K)
        N, _, OH, OW, _, _ = windows.shape
        self.cols = windows.transpose(0, 2, 3, 1, 4, 5).reshape(N * OH * OW, C * K * K)  # the copy
        self.in_shape, self.out = x.shape, (N, OH, OW)
        return (self.cols @ W.reshape(F, -1).T + b).reshape(N, OH, OW, F).transpose(0, 3, 1, 2)

    def backward(self, dy, first):
        W, _ = self.params
        F, C, K, _ = W.shape
        N, OH, OW = self.out
        dz = dy.transpose(0, 2, 3, 1).reshape(-1, F)
        self.grads = [(dz.T @ self.cols).reshape(W.shape), dz.sum(axis=0)]
        if first:
            return None
        dcols = (dz @ W.reshape(F, -1)).reshape(N, OH, OW, C, K, K)
        dx = np.zeros(self.in_shape, dy.dtype)
        for i in range(K):
            for j in range(K):
                dx[:, :, i : i + OH, j : j + OW] += dcols[..., i, j].transpose(0, 3, 1, 2)
        p = self.pad
        return dx[:, :, p : dx.shape[2] - p, p : dx.shape[3] - p]


class Dense:
    """x (N, I), W (O, I), b (O,) -> y (N, O)."""

    def __init__(self, W, b):
        self.params = [W, b]

    def forward(self, x):
        self.x = x
        return x @ self.params[0].T + self.params[1]

    def backward(self, dy, first):
        self.grads = [dy.T @ self.x, dy.sum(axis=0)]
        return None if first else dy @ self.params[0]


class ReLU:
    params: list = []

    def forward(self, x):
        self.mask = x > 0
        return x * self.mask

    def backward(self, dy, first):
        return dy * self.mask


class MaxPool:
    """Windows of P x P that tile the map: x (N, C, H, W) -> y (N, C, H // P, W // P)."""

    params: list = []

    def __init__(self, P):
        self.P = P

    def forward(self, x):
        P, (N, C, H, W) = self.P, x.shape
        tiles = x[:, :, : H // P * P, : W // P * P].reshape(N, C, H // P, P, W // P, P)
        tiles = tiles.transpose(0, 1, 2, 4, 3, 5).reshape(N, C, H // P, W // P, P * P)
        self.in_shape, self.where = x.shape, tiles.argmax(axis=-1)[..., None]
        return np.take_along_axis(tiles, self.where, axis=-1)[..., 0]

    def backward(self, dy, first):
        P, (N, C, OH, OW) = self.P, dy.shape
        tiles = np.zeros((N, C, OH, OW, P * P), dy.dtype)
        np.put_along_axis(tiles, self.where, dy[..., None], axis=-1)
        dx = np.zeros(self.in_shape, dy.dtype)
        tiles = tiles.reshape(N, C, OH, OW, P, P).transpose(0, 1, 2, 4, 3, 5)
        dx[:, :, : OH * P, : OW * P] = tiles.reshape(N, C, OH * P, OW * P)
        return dx


class Dropout:
    params: list = []

    def __init__(self, rate, rng):
        self.rate, self.rng = rate, rng

    def forward(self, x):
        kept = self.rng.random(x.shape, dtype=np.float32) >= self.rate
        self.mask = kept.astype(x.dtype) / x.dtype.type(1 - self.rate)
        return x * self.mask

    def backward(self, dy, first):
        return dy * self.mask


class Flatten:
    params: list = []

    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy, first):
        return dy.reshape(self.shape)


def adam(p, g, state, t, lr=0.001, b1=0.9, b2=0.999, epsilon=1e-7):
    m, v = state.setdefault("m", np.zeros_like(p)), state.setdefault("v", np.zeros_like(p))
    m[...] = b1 * m + (1 - b1) * g
    v[...] = b2 * v + (1 - b2) * g**2
    p -= lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)


def adagrad(p, g, state, t, lr=0.001, epsilon=1e-7):
    h = state.setdefault("h", np.full_like(p, 0.1))
    h += g**2
    p -= lr * g / (np.sqrt(h) + epsilon)


class Network:
    """The layers of an xpnet model of the workloads' kinds, with copies of its weights; softmax and
    cross-entropy at the end, updated by Adam or Adagrad as the model is.
    """

    def __init__(self, model):
        self.layers, number, state = [], 0, model.state_dict()
        rng = np.random.default_rng(0)
        for layer in model.layers:
            weights = [np.array(state[f"{number}.{k}"]) for k in ("weight", "bias")] if layer.slots else []
            self.layers.append(_counterpart(layer, weights, rng))
            if layer.modules == 2:
                self.layers.append(ReLU())
            number += layer.modules
        self.update = {"Adam": adam, "Adagrad": adagrad}[type(model.optimizer).__name__]
        self.states = [[{} for _ in layer.params] for layer in self.layers]
        self.t = 0

    def step(self, x, y) -> float:
        """Train on one batch: x (N, C, H, W) or (N, D), y (N,) whole numbers; the loss before the update."""
        h = x
        for layer in self.layers:
            h = layer.forward(h)
        e = np.exp(h - h.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        rows = np.arange(len(y))
        loss = -np.log(p[rows, y]).mean()
        p[rows, y] -= 1
        d = p / len(y)
        for number in reversed(range(len(self.layers))):
            d = self.layers[number].backward(d, number == 0)
        self.t += 1
        for layer, states in zip(self.layers, self.states):
            for k, param in enumerate(layer.params):
                self.update(param, layer.grads[k], states[k], self.t)
        return float(loss)


def _counterpart(layer, weights, rng):
    if isinstance(layer, xp_layers.Conv2D):
        K = layer.kernel_size[0]
        return Conv(*weights, {"same": K // 2, "valid": 0}[layer.padding])
    if isinstance(layer, xp_layers.Dense):
        return Dense(*weights)
    if isinstance(layer, xp_layers.MaxPooling2D):
        return MaxPool(layer.pool_size[0])
    if isinstance(layer, xp_layers.Dropout):
        return Dropout(layer.rate, rng)
    if isinstance(layer, xp_layers.Flatten):
        return Flatten()
    raise TypeError(f"no plain counterpart is listed for {layer!r}")
