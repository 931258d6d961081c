"""ONNX: networks out, for every runtime that reads it, and in, from whatever wrote them.

    from xpnet.interop import onnx

    onnx.export(model, "digits.onnx")
    model = onnx.load("digits.onnx")

Needs xpnet[onnx].
"""

try:
    import onnx as _  # the package of that name, not this one
except ImportError as error:
    raise ImportError(f"ONNX needs the onnx package ({error}): pip install 'xpnet[onnx]'") from error

from .export import export
from .writer import Writer, register_exporter

__all__ = ["Writer", "export", "load", "register_exporter"]


def __getattr__(name: str):
    if name == "load":
        from . import load

        globals()["load"] = load.load
        return load.load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
