"""Callbacks, under the name that Keras gives its module."""

from .training.callbacks import Callback, History, ProgressBar

__all__ = ["Callback", "History", "ProgressBar"]
