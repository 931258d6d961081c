"""Networks: `Sequential`, under the name that Keras gives its module."""

from .interop.files import load_model
from .model import Sequential

__all__ = ["Sequential", "load_model"]
