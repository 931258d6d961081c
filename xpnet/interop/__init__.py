"""Ways in and out: files and other libraries.  The modules are loaded when they are first used."""

import importlib

__all__ = ["keras", "onnx", "torch"]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
