"""Networks: `Sequential`, under the name that Keras gives its module, and how to get a saved one back."""

from .model import Sequential, load_model

__all__ = ["Sequential", "load_model"]
