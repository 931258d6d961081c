"""Callbacks, under the names that Keras gives them, and the learning-rate finder."""

from .training.averaging import WeightAverage
from .training.backup import BackupAndRestore
from .training.callbacks import Callback, History, LambdaCallback, ProgressBar, TerminateOnNaN
from .training.checkpoints import ModelCheckpoint
from .training.finder import RateCurve, find_learning_rate
from .training.live import LivePlot
from .training.monitors import EarlyStopping, ReduceLROnPlateau
from .training.rates import LearningRateScheduler
from .training.recorders import CSVLogger, TensorBoard
from .training.snapshots import WeightHistory

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "LivePlot",
    "ModelCheckpoint",
    "ProgressBar",
    "RateCurve",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
    "WeightAverage",
    "WeightHistory",
    "find_learning_rate",
]
