"""The one table of layers: every contract test runs over every row of it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import xpnet
from xpnet import activations
from xpnet import layers as L


class Case(NamedTuple):
    """A layer with one setting, for inputs of one shape (without the batch)."""

    setting: str
    make: Callable[[], L.Layer]
    shape: tuple[int, ...]

    def __str__(self):
        return f"{self.setting}-{'x'.join(map(str, self.shape))}"

    def model(self, *around, ops="cpu", precision="float64", seed=1, **more):
        """A model of this layer (behind and before the layers of `around`) with random parameters."""
        model = xpnet.Sequential(
            [*around[:1], self.make(), *around[1:]],
            input_shape=self.shape,
            device=ops,
            precision=precision,
            seed=seed,
            **more,
        )
        randomise(model, np.random.default_rng(seed))
        return model


def _activation_cases():
    for name in activations.TABLE:
        yield Case(f"Activation-{name}", lambda name=name: L.Activation(name), (5,))
        yield Case(f"Activation-{name}", lambda name=name: L.Activation(name), (3, 2, 4))
        yield Case(f"Dense-{name}", lambda name=name: L.Dense(4, activation=name), (3,))
        yield Case(
            f"Conv2D-{name}", lambda name=name: L.Conv2D(3, 2, activation=name, padding="same"), (2, 3, 4)
        )


MAP, ODD, THICK = (3, 6, 5), (2, 7, 9), (8, 6, 7)

CASES = [
    *_activation_cases(),
    Case("LeakyReLU-0.01", lambda: L.Activation(activations.LeakyReLU(0.01)), (4,)),
    Case("ELU-2", lambda: L.Activation(activations.ELU(2.0)), (4,)),
    Case("GELU-tanh", lambda: L.Activation(activations.GELU(approximate=True)), (4,)),
    Case("Dense-1", lambda: L.Dense(1), (1,)),
    Case("Dense-no-bias", lambda: L.Dense(7, use_bias=False), (5,)),
    Case("Conv2D-1x1", lambda: L.Conv2D(4, 1), MAP),
    Case("Conv2D-3x3", lambda: L.Conv2D(5, 3), MAP),
    Case("Conv2D-3x3-thick", lambda: L.Conv2D(5, 3), THICK),
    Case("Conv2D-same-thick", lambda: L.Conv2D(5, 3, padding="same", activation="relu"), THICK),
    Case("Conv2D-no-bias", lambda: L.Conv2D(4, (2, 3), use_bias=False), MAP),
    Case("Conv2D-one-filter", lambda: L.Conv2D(1, 3, padding=1), MAP),
    Case("Conv2D-one-channel", lambda: L.Conv2D(3, 3, padding="same"), (1, 5, 6)),
    Case("Conv2D-same-even", lambda: L.Conv2D(3, (2, 4), padding="same"), ODD),
    Case("Conv2D-same-strides", lambda: L.Conv2D(3, 3, strides=2, padding="same"), ODD),
    Case("Conv2D-same-dilated", lambda: L.Conv2D(3, 3, padding="same", dilation_rate=2), ODD),
    Case("Conv2D-strides-leave-a-rest", lambda: L.Conv2D(3, 2, strides=(3, 2)), ODD),
    Case("Conv2D-pad-pair", lambda: L.Conv2D(3, 3, padding=(0, 2), strides=(1, 2)), MAP),
    Case("Conv2D-pad-beyond-kernel", lambda: L.Conv2D(3, 2, padding=3), THICK),
    Case("Conv2D-dilated", lambda: L.Conv2D(2, (3, 2), dilation_rate=(2, 3)), ODD),
    Case("Conv2D-groups", lambda: L.Conv2D(6, 3, groups=2, padding=1, activation="tanh"), (4, 5, 6)),
    Case("Conv2D-depthwise", lambda: L.Conv2D(8, 3, groups=8, padding=1), THICK),
    Case("Conv2D-depthwise-strided", lambda: L.Conv2D(6, 3, groups=3, strides=2), MAP),
    Case("Conv2D-whole-map", lambda: L.Conv2D(4, (6, 5)), MAP),
    Case("Conv2DTranspose-3x3", lambda: L.Conv2DTranspose(5, 3), MAP),
    Case("Conv2DTranspose-1x1", lambda: L.Conv2DTranspose(4, 1), MAP),
    Case("Conv2DTranspose-2x2-strides", lambda: L.Conv2DTranspose(4, 2, 2, activation="relu"), MAP),
    Case("Conv2DTranspose-same", lambda: L.Conv2DTranspose(5, 3, 2, "same", activation="tanh"), THICK),
    Case("Conv2DTranspose-same-1", lambda: L.Conv2DTranspose(5, 3, padding="same"), THICK),
    Case("Conv2DTranspose-gaps", lambda: L.Conv2DTranspose(3, (2, 1), (3, 2), use_bias=False), MAP),
    Case("Conv2DTranspose-number", lambda: L.Conv2DTranspose(3, 4, 2, 1, 1, activation="gelu"), MAP),
    Case("Conv2DTranspose-pad-beyond-kernel", lambda: L.Conv2DTranspose(3, 2, 2, (2, 3), (1, 0)), MAP),
    Case("Conv2DTranspose-dilated", lambda: L.Conv2DTranspose(2, (3, 2), dilation_rate=(2, 3)), MAP),
    Case("Conv2DTranspose-groups", lambda: L.Conv2DTranspose(6, 3, 2, groups=2), (4, 5, 6)),
    Case("Conv2DTranspose-depthwise", lambda: L.Conv2DTranspose(8, 3, 2, "same", groups=8), THICK),
    Case("UpSampling2D", lambda: L.UpSampling2D(), MAP),
    Case("UpSampling2D-pair", lambda: L.UpSampling2D((1, 3)), MAP),
    Case("UpSampling2D-bilinear", lambda: L.UpSampling2D(2, "bilinear"), MAP),
    Case("UpSampling2D-bilinear-pair", lambda: L.UpSampling2D((3, 1), "bilinear"), MAP),
    Case("UpSampling2D-bilinear-of-one-row", lambda: L.UpSampling2D((4, 5), "bilinear"), (2, 1, 3)),
    Case("ZeroPadding2D-1", lambda: L.ZeroPadding2D(), MAP),
    Case("ZeroPadding2D-sides", lambda: L.ZeroPadding2D(((1, 0), (2, 3))), MAP),
    Case("ZeroPadding2D-0", lambda: L.ZeroPadding2D(0), MAP),
    *(
        Case(f"{kind.__name__}-{setting}", lambda kind=kind, given=given: kind(**given), shape)
        for kind in (L.MaxPooling2D, L.AveragePooling2D)
        for setting, given, shape in [
            ("2", {}, (3, 6, 4)),
            ("ragged", {}, ODD),
            ("ceil", {"ceil_mode": True}, ODD),
            ("overlap", {"pool_size": 3, "strides": 2}, ODD),
            ("overlap-ceil-pad", {"pool_size": 3, "strides": 2, "padding": 1, "ceil_mode": True}, MAP),
            ("gaps", {"pool_size": 2, "strides": 3}, ODD),
            ("same", {"pool_size": 3, "strides": 2, "padding": "same"}, MAP),
            ("pair", {"pool_size": (2, 3), "strides": (1, 2), "padding": (1, 0)}, MAP),
            ("1", {"pool_size": 1}, MAP),
            ("whole-map", {"pool_size": (6, 5)}, MAP),
        ]
    ),
    Case("AveragePooling2D-pad-apart", lambda: L.AveragePooling2D(3, 2, 1, count_include_pad=False), MAP),
    Case("GlobalAveragePooling2D", L.GlobalAveragePooling2D, MAP),
    Case("GlobalMaxPooling2D", L.GlobalMaxPooling2D, MAP),
    Case("Flatten", L.Flatten, MAP),
    Case("Flatten-one-row", L.Flatten, (3, 1, 4)),
    Case("Flatten-vector", L.Flatten, (5,)),
    Case("Reshape-to-vector", lambda: L.Reshape((-1,)), MAP),
    Case("Reshape-to-map", lambda: L.Reshape((3, 2, -1)), (24,)),
    Case("Reshape-map-to-map", lambda: L.Reshape((5, 3, 6)), MAP),
    Case("Reshape-same", lambda: L.Reshape((4,)), (4,)),
    Case("Rescaling", lambda: L.Rescaling(1 / 255), (5,)),
    Case("Rescaling-map", lambda: L.Rescaling(2, offset=-1), MAP),
    Case("Dropout", lambda: L.Dropout(0.3), (8,)),
    Case("Dropout-map", lambda: L.Dropout(0.5), MAP),
    Case("Dropout-0", lambda: L.Dropout(0.0), (8,)),
    Case("Dropout-inference", lambda: L.Dropout(0.25, scaling="inference"), MAP),
    Case("SpatialDropout2D", lambda: L.SpatialDropout2D(0.4), (20, 2, 3)),
    Case("SpatialDropout2D-inference", lambda: L.SpatialDropout2D(0.25, scaling="inference"), MAP),
    Case("Normalization", lambda: L.Normalization(), (5,)),
    Case("Normalization-map", lambda: L.Normalization(mean=[1, 2, 3], variance=[4, 5, 6]), MAP),
    Case("BatchNormalization", lambda: L.BatchNormalization(), (4,)),
    Case("BatchNormalization-map", lambda: L.BatchNormalization(momentum=0.9, epsilon=1e-5), MAP),
    Case("BatchNormalization-frozen", lambda: L.BatchNormalization(trainable=False), MAP),
    Case("LayerNormalization", lambda: L.LayerNormalization(), (6,)),
    Case("LayerNormalization-map", lambda: L.LayerNormalization(epsilon=1e-5), MAP),
    Case("LayerNormalization-channels", lambda: L.LayerNormalization(axis="channels"), MAP),
    Case("GroupNormalization", lambda: L.GroupNormalization(2), (6,)),
    Case("GroupNormalization-map", lambda: L.GroupNormalization(4, epsilon=1e-5), THICK),
    Case("GroupNormalization-instance", lambda: L.GroupNormalization(-1), MAP),
    Case("GroupNormalization-one", lambda: L.GroupNormalization(1), MAP),
    Case("Residual", lambda: L.Residual([L.Dense(5, activation="tanh"), L.Dense(4)]), (4,)),
    Case(
        "Residual-block",
        lambda: L.Residual(
            [
                L.Conv2D(4, 3, 2, "same"),
                L.BatchNormalization(),
                L.Activation("relu"),
                L.Conv2D(4, 3, 1, "same"),
            ],
            shortcut=L.Conv2D(4, 1, strides=2),
            activation="relu",
        ),
        MAP,
    ),
    # branches that pass x and dy on as they are, or write dy in place: each needs a dy of its own
    Case("Residual-in-place", lambda: L.Residual([L.Activation("tanh")], [L.Dropout(0.5)], "sigmoid"), (6,)),
    Case("Residual-identities", lambda: L.Residual([L.Dropout(0.0)]), MAP),
    Case("Residual-nested", lambda: L.Residual([L.Residual([L.Dense(4, "tanh")], activation="tanh")]), (4,)),
    Case("Concatenate", lambda: L.Concatenate([[L.Dense(3)], [], [L.Dense(2), L.Activation("tanh")]]), (4,)),
    Case(
        "Concatenate-maps",
        lambda: L.Concatenate([L.Conv2D(2, 1), [L.Conv2D(3, 3, padding=1), L.MaxPooling2D(3, 1, 1)], []]),
        MAP,
    ),
    Case("Concatenate-identities", lambda: L.Concatenate([[], [L.Dropout(0.0)]]), MAP),
]  # fmt: skip


def randomise(model, rng):
    """Random parameters and running statistics, so that no weight of 1 or bias of 0 hides a mistake."""
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        value = 0.5 * rng.standard_normal(value.shape)
        state[name] = 0.5 + np.abs(value) if name.endswith("running_var") else value
        if name.endswith("weight") and value.ndim != 2 and value.ndim != 4:
            state[name] += 1.0
    model.load_state_dict(state, strict=False)


def gradients(model):
    """The gradients that model.backward left, by name and in conventional shapes."""
    return {
        name: model.params.read(model.params.grads, slot)
        for name, slot in model._named_slots()
        if slot in slot.layer.slots
    }


def tolerance(dtype):
    """Largest error allowed against an independent implementation, as a share of the largest value."""
    return 1e-4 if np.dtype(dtype) == np.float32 else 1e-9


def assert_close(received, expected, rtol, what="result", least=1e-3):
    """Same shape, and no element further off than rtol of the largest expected one (at least of `least`)."""
    received, expected = np.asarray(received), np.asarray(expected)
    assert received.shape == expected.shape, f"{what}: shape {received.shape}, expected {expected.shape}"
    if not expected.size:
        return
    assert np.isfinite(received).all() or not np.isfinite(expected).all(), f"{what} is not finite"
    error = np.abs(received.astype(np.float64) - expected.astype(np.float64)).max()
    scale = max(np.abs(expected).max(), least)
    assert error <= rtol * scale, f"{what}: off by {error:.3g} where values reach {scale:.3g} (rtol {rtol:g})"
