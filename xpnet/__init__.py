"""xpnet trains convolutional networks from one readable source, on NumPy and on NVIDIA GPUs through CuPy.

    from xpnet import Sequential, layers

    model = Sequential([layers.Conv2D(32, 3, activation="relu"), layers.Flatten(), layers.Dense(10)])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=5)

Modules and names are loaded when they are first used, so that importing the package costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import (
        activations,
        callbacks,
        data,
        datasets,
        initializers,
        interop,
        layers,
        losses,
        metrics,
        models,
        networks,
        optimizers,
        schedules,
        sklearn,
        utils,
        viz,
    )
    from .device import set_memory_limit
    from .errors import (
        DeviceFallbackWarning,
        DeviceMemoryError,
        GradientError,
        ModelFileError,
        NonFiniteError,
        NotBuiltError,
        NotCompiledError,
        ShapeError,
    )
    from .layers import Input
    from .model import Sequential, load_model
    from .ops.threads import set_num_threads
    from .testing import check_gradients, numerical_gradient

__version__ = "0.1.0"

_HOME = {
    "DeviceFallbackWarning": "errors",
    "DeviceMemoryError": "errors",
    "GradientError": "errors",
    "Input": "layers",
    "ModelFileError": "errors",
    "NonFiniteError": "errors",
    "NotBuiltError": "errors",
    "NotCompiledError": "errors",
    "ShapeError": "errors",
    "Sequential": "model",
    "load_model": "model",
    "set_memory_limit": "device",
    "set_num_threads": "ops.threads",
    "check_gradients": "testing",
    "numerical_gradient": "testing",
}
_MODULES = (
    "activations", "callbacks", "data", "datasets", "initializers", "interop", "layers", "losses", "metrics",
    "models", "networks", "optimizers", "schedules", "sklearn", "utils", "viz",
)  # fmt: skip


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"xpnet.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(f"xpnet.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'xpnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "DeviceFallbackWarning",
    "DeviceMemoryError",
    "GradientError",
    "Input",
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
    "data",
    "datasets",
    "initializers",
    "interop",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "networks",
    "numerical_gradient",
    "optimizers",
    "schedules",
    "set_memory_limit",
    "set_num_threads",
    "sklearn",
    "utils",
    "viz",
]
