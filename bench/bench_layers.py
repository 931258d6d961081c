"""Single layers, forward and backward, at mid-size shapes."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import Sequential, layers

LAYERS = {
    "Dense": (lambda: layers.Dense(250, activation="relu"), (500,)),
    "Conv2D": (lambda: layers.Conv2D(64, 3, activation="relu"), (32, 26, 26)),
    "Conv2D strides 2": (lambda: layers.Conv2D(64, 3, strides=2, padding="same"), (32, 26, 26)),
    "Conv2D 1x1": (lambda: layers.Conv2D(64, 1), (32, 26, 26)),
    "Conv2D depthwise": (lambda: layers.Conv2D(32, 3, groups=32), (32, 26, 26)),
    "MaxPooling2D": (lambda: layers.MaxPooling2D(2), (64, 24, 24)),
    "AveragePooling2D": (lambda: layers.AveragePooling2D(2), (64, 24, 24)),
    "GlobalAveragePooling2D": (lambda: layers.GlobalAveragePooling2D(), (64, 24, 24)),
    "BatchNormalization": (lambda: layers.BatchNormalization(), (64, 24, 24)),
    "LayerNormalization": (lambda: layers.LayerNormalization(), (64, 24, 24)),
    "Dropout": (lambda: layers.Dropout(0.25), (64, 12, 12)),
    "Flatten": (lambda: layers.Flatten(), (64, 12, 12)),
    "Activation gelu": (lambda: layers.Activation("gelu"), (64, 12, 12)),
    "Activation softmax": (lambda: layers.Activation("softmax"), (1000,)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("part", ["forward", "forward_backward"])
def test_layer(timed, ops, name, part):
    make, shape = LAYERS[name]
    model = Sequential([make()], input_shape=shape, device=ops, seed=0)
    layer = model.layers[0]
    x = model.enter(np.random.default_rng(0).random((64, *shape), dtype=np.float32), ops)
    dy = ops.xp.ones_like(layer.forward(x, train=True)[0])

    def both():
        _, cache = layer.forward(x, train=True)
        layer.backward(dy.copy(), cache)

    timed(both if part == "forward_backward" else lambda: layer.forward(x, train=True))
