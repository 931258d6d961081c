"""xpnet trains convolutional networks from one readable source, on NumPy and on NVIDIA GPUs through CuPy.

    from xpnet import Sequential, layers

    model = Sequential([layers.Conv2D(32, 3, activation="relu"), layers.Flatten(), layers.Dense(10)])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=5)
"""

from . import (
    activations,
    callbacks,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    schedules,
    utils,
)
from .errors import (
    DeviceFallbackWarning,
    GradientError,
    ModelFileError,
    NonFiniteError,
    NotBuiltError,
    NotCompiledError,
    ShapeError,
)
from .model import Sequential
from .models import load_model
from .ops.threads import set_num_threads
from .testing import check_gradients, numerical_gradient

__version__ = "0.1.0"

__all__ = [
    "DeviceFallbackWarning",
    "GradientError",
    "ModelFileError",
    "NonFiniteError",
    "NotBuiltError",
    "NotCompiledError",
    "Sequential",
    "ShapeError",
    "__version__",
    "activations",
    "callbacks",
    "check_gradients",
    "datasets",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "numerical_gradient",
    "optimizers",
    "schedules",
    "set_num_threads",
    "utils",
]
