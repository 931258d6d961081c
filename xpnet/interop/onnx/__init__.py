"""ONNX: networks out, for every runtime that reads it, and in, from whatever wrote them.

    from xpnet.interop import onnx

    onnx.export(model, "digits.onnx")
    model = onnx.load("digits.onnx")

Needs xpnet[onnx].
"""

try:
    import onnx  # noqa: F401 - the package of that name, not this one
except ImportError as error:
    raise ImportError(f"ONNX needs the onnx package ({error}): pip install 'xpnet[onnx]'") from error

from .export import export
from .graph import OnnxError
from .load import load
from .writer import Writer, register_exporter

__all__ = ["OnnxError", "Writer", "export", "load", "register_exporter"]
