"""Sequential: a network with Keras's way of training it."""

from __future__ import annotations

import copy
import math
import operator
import weakref
from typing import Any

import numpy as np

from . import losses, metrics, optimizers
from .data.arrays import Arrays, as_array, check_lengths, check_weights, class_weights
from .errors import NotCompiledError, ShapeError
from .inference import Inference
from .network import Network, on_device
from .ops import threads
from .training import loop
from .training.callbacks import Callback, History
from .training.device import DeviceStep
from .training.host import HostStep
from .training.step import Step

# what a copy makes for itself
_MADE_ANEW = (
    "params", "chain", "ops", "device_reason", "optimizer_state", "stop_training", "_train_step",
    "_inference",
)  # fmt: skip


class Sequential(Network):
    """A network of layers that run one after another.

    layers: a list; more come by `add`.  input_shape: (D,) for vectors, (C, H, W) for images ((H, W, C) with
    data_format="channels_last"); without it the model takes its shapes from the first layer's input_shape, or
    from the first data it sees.  device: "auto" (a GPU where one works), "cpu", "cuda", "cuda:1".  precision:
    "auto", "float32", "tf32", "bfloat16", "float64".  seed: fixes initial weights, shuffles and dropout
    masks; None draws one.
    """

    def _prepare(self) -> None:
        """Before the layers are added: not compiled, not trained."""
        self.optimizer: optimizers.Optimizer | None = None
        self.optimizer_state: dict[str, Any] = {}
        self.loss: Any = None
        self.metrics: list[tuple[str, metrics.Metric]] = []
        self.history: History | None = None
        self.stop_training = False
        self.epochs_trained = 0
        self._train_step: tuple[Any, Step] | None = None
        self._inference: Inference | None = None

    def compile(self, optimizer="adam", loss=None, metrics=()) -> None:
        """Choose how to train.

        loss: a name takes logits, unless the model ends in the softmax (or sigmoid) that belongs to it, which
        training then folds into the loss; an object takes what its from_logits says.  metrics: names or
        objects.
        """
        if loss is None:
            raise ValueError(f"compile needs a loss. Expected one of: {', '.join(sorted(losses.TABLE))}")
        loss, optimizer = losses.get(loss), optimizers.get(optimizer)
        owner = optimizer.owner and optimizer.owner()
        if owner is not None and owner is not self and owner.optimizer is optimizer:
            raise ValueError(
                f"this optimizer belongs to another model. Received: {optimizer!r}. Make a new one"
            )
        chosen = _named_metrics(metrics)
        labels = [label for label, _ in chosen]
        if len(set(labels)) < len(labels):
            raise ValueError(f"metrics must have different names. Received: {labels}")
        self.optimizer, self.loss, self.metrics = optimizer, loss, chosen
        optimizer.owner = weakref.ref(self)
        optimizer.iterations = 0
        self._train_step = None
        self._reset_optimizer()

    @on_device
    def fit(
        self,
        x,
        y=None,
        batch_size: int | str | None = 32,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks=None,
        validation_split: float = 0.0,
        validation_data=None,
        shuffle: bool = True,
        class_weight=None,
        sample_weight=None,
        initial_epoch: int = 0,
        stratify: bool | None = None,
    ) -> History:
        """Train for epochs - initial_epoch passes over the data; the History of losses and metrics.

        x: (N, ...) in the model's input shape; y: targets as the loss wants them.  batch_size: samples a
        step, 1 for on-line training, "full" for the whole data set.  verbose: 0 quiet, 1 (or "auto") a
        progress bar, 2 a line an epoch.  validation_split: the share of the samples that is held out, drawn
        at random with the classes in proportion (stratify=False: without); validation_data: (x, y) or (x, y,
        sample_weight).  class_weight: {class: weight} or "balanced".  Figures are means over samples, as
        weighted, also where the loss is reduced to a sum (`train_on_batch` returns that sum).

        Raises NonFiniteError where the loss or gradient turns NaN or infinite, with the weights of the step
        before.
        """
        self._need_compiled()
        if y is None:
            raise ValueError("fit needs targets. Received: y=None. Expected: fit(x, y)")
        data = self._data(x, y, sample_weight, class_weight)
        if validation_data is not None and validation_split:
            raise ValueError("give validation_data or validation_split, not both")
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
                raise ValueError(
                    "validation_data must be (x, y) or (x, y, sample_weight). Received: "
                    f"{type(validation_data).__name__}"
                    + (f" of {len(validation_data)}" if isinstance(validation_data, (tuple, list)) else "")
                )
            xv, yv, *wv = validation_data
            validation = self._data(xv, yv, wv[0] if wv else None, what="validation ")
        elif validation_split:
            data, validation = self._split(data, validation_split, stratify)
        epochs, initial_epoch = _whole("epochs", epochs, 0), _whole("initial_epoch", initial_epoch, 0)
        if batch_size in ("full", -1):
            batch_size = len(data)
        batch_size = _whole("batch_size", 32 if batch_size is None else batch_size, 1, " (or 'full')")
        self._check_last_batch(len(data), batch_size)
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(
                    "callbacks must be objects of a subclass of xpnet.callbacks.Callback. Received: "
                    f"{callback!r}"
                )
        if verbose not in (0, 1, 2, "auto", True, False):
            raise ValueError(f"verbose must be 0, 1, 2 or 'auto'. Received: {verbose!r}")
        verbose = 1 if verbose == "auto" else int(verbose)
        if verbose:
            print(f"training on {self.device} ({self.device_reason}), {self.precision_meaning}", flush=True)
        return loop.fit(
            self, data, validation, batch_size, epochs, initial_epoch, callbacks, verbose, bool(shuffle)
        )

    @on_device
    def evaluate(
        self,
        x,
        y,
        batch_size: int | None = None,
        verbose: int | str = 0,
        sample_weight=None,
        return_dict: bool = False,
    ):
        """Loss and metrics in inference, means over samples: [loss, *metrics], the loss alone where there are
        none.

        verbose: taken, so that Keras scripts run; nothing is printed.
        """
        self._need_compiled()
        data = self._data(x, y, sample_weight)
        size = None if batch_size is None else _whole("batch_size", batch_size, 1)
        logs = loop.evaluate(self, data, size).logs()
        if return_dict:
            return logs
        return list(logs.values()) if len(logs) > 1 else logs["loss"]

    @on_device
    def predict(self, x, batch_size: int | None = None, verbose: int = 0):
        """The last layer's output for every sample: (N, K), or maps in the model's data_format.

        Works in blocks of batch_size samples, so memory stays bounded.  NumPy in, NumPy out; arrays of the
        model's own GPU in, arrays of that GPU out.
        """
        x = self._inputs(x)
        size = None if batch_size is None else _whole("batch_size", batch_size, 1)
        keep = not isinstance(x, np.ndarray)
        again = self.inference().again if self.ops.in_host_memory else _never
        if len(x) == 1 and (y := again(x)) is not None:
            return y
        shape = (len(x), *self.output_shape)
        out = self.ops.xp.empty(shape, self.dtype) if keep else np.empty(shape, self.dtype)

        def work(block):
            part = x[block]
            y = again(part)
            if y is None:
                y = self._to_user(self.leave(self.infer(self.enter(part, self.ops))))
            out[block] = y if keep else self.ops.to_host(y)

        loop.in_blocks(self, len(x), size, work)
        return out

    @on_device
    def train_on_batch(self, x, y, sample_weight=None, class_weight=None, return_dict: bool = False):
        """One step of `fit` on one batch: the loss before the step (and metrics), as floats."""
        self._need_compiled()
        data = self._data(x, y, sample_weight, class_weight)
        step = self.train_step()
        with threads.blas_threads(step.blas_threads(len(data))):
            epoch = step.epoch(data, np.arange(len(data)), len(data))
            try:
                epoch.step(0)
            except BaseException:
                epoch.abandon()
                raise
            epoch.finish()
        logs = epoch.logs()
        if self.loss.reduction == "sum":
            logs["loss"] *= epoch.weight or 1.0  # what was minimised, not its mean
        if return_dict:
            return logs
        return list(logs.values()) if len(logs) > 1 else logs["loss"]

    @on_device
    def gradients(self, x, y, sample_weight=None) -> dict[str, np.ndarray]:
        """dL/dW of every parameter in training mode, by its name in `state_dict`; nothing of the model
        changes.
        """
        self._need_compiled()
        data = self._data(x, y, sample_weight)
        step = self.train_step()
        _, _, buffers = step.gradients(data, np.arange(len(data)))
        total = self.params.grads
        for other in buffers[1:]:
            total += other
        return {
            name: self.params.read(total, slot)
            for name, slot in self._named_slots()
            if slot in slot.layer.slots
        }

    def inference(self) -> Inference:
        """How the model predicts in host memory, as it is now."""
        if self._inference is None or not self._inference.fits(self):
            self._inference = Inference(self)
        return self._inference

    def train_step(self) -> Any:
        """The training step for the model as it is now."""
        self._need_compiled()
        key = (
            self.params,
            self.optimizer,
            self.loss,
            threads.num_threads(),
            *(c.is_trainable for c in self.all_layers()),
        )
        if self._train_step is None or self._train_step[0] != key:
            self._train_step = (key, (HostStep if self.ops.in_host_memory else DeviceStep)(self))
        return self._train_step[1]

    def shuffled(self, n: int) -> np.ndarray:
        """The order of n samples in the next epoch: it follows from the seed and the epochs so far."""
        return np.random.default_rng([self.seed, 1, self.epochs_trained]).permutation(n)

    def save(self, path, training: bool = False) -> None:
        """Write the model to a safetensors file: weights, architecture, and how it was compiled.

        training=True: the optimizer's state, step and shuffle state too, so that a run resumed at an epoch's
        end goes on to the bit.  The file is written whole or not at all.
        """
        from .interop.files import save_model

        save_model(self, path, training)

    # -- inside ----------------------------------------------------------------------------------------------

    @on_device
    def _reset_optimizer(self) -> None:
        """Optimizer state as before the first step."""
        self.optimizer_state = {}
        if self.params is not None and self.optimizer is not None:
            for name in self.optimizer.state:
                flat = self.ops.flat(len(self.params.values), self.dtype)
                flat[...] = self.optimizer.initial(name)
                self.optimizer_state[name] = flat
        multilabel = isinstance(self.loss, losses.BinaryCrossentropy)
        for _, metric in self.metrics:
            metric.multilabel = multilabel and (self.params is None or self.chain.out_shape[0] > 1)

    def _was_built(self) -> None:
        self._train_step = self._inference = None
        if self.optimizer is not None:
            self._reset_optimizer()

    @on_device
    def _snapshot(self) -> dict[str, Any]:
        """Everything that training changes: the network's own, and the optimizer's."""
        slots = [(name, slot) for name, slot in self._named_slots() if slot in slot.layer.slots]
        state = {
            f"{name}.{key}": self.params.read(flat, slot)
            for key, flat in self.optimizer_state.items()
            for name, slot in slots
            if slot in self.params.slots
        }
        iterations = self.optimizer.iterations if self.optimizer is not None else 0
        more = {"optimizer": state, "iterations": iterations, "epochs_trained": self.epochs_trained}
        return super()._snapshot() | more

    @on_device
    def _load_snapshot(self, saved: dict[str, Any]) -> None:
        super()._load_snapshot(saved)
        for name, slot in self._named_slots():
            for key, flat in self.optimizer_state.items():
                if f"{name}.{key}" in saved["optimizer"]:
                    self.params.write(flat, slot, saved["optimizer"][f"{name}.{key}"])
        if self.optimizer is not None:
            self.optimizer.iterations = saved["iterations"]
        self.epochs_trained = saved["epochs_trained"]

    def __copy__(self) -> Sequential:
        return copy.deepcopy(self)  # two models cannot share layers

    def __getstate__(self):
        """For copying and pickling: the layers without their views, and the arrays by name."""
        state = {key: value for key, value in self.__dict__.items() if key not in _MADE_ANEW}
        return state | {
            "optimizer": copy.copy(self.optimizer),
            "device": self.device,
            "in_shape": None if self.params is None else self.chain.in_shape,
            "arrays": None if self.params is None else self._snapshot(),
        }

    def __setstate__(self, state):
        device, in_shape, arrays = (state.pop(key) for key in ("device", "in_shape", "arrays"))
        self.__dict__.update(state, params=None, chain=None, optimizer_state={}, stop_training=False)
        self._train_step = self._inference = None
        if self.optimizer is not None:
            self.optimizer.owner = weakref.ref(self)
        self._use_device(device)
        if in_shape is not None:
            self._build(in_shape)
            self._load_snapshot(arrays)

    def __repr__(self) -> str:
        return f"Sequential({self.layers!r})"

    def _need_compiled(self) -> None:
        if self.loss is None:
            raise NotCompiledError(
                "the model has no loss yet: call model.compile(optimizer=..., loss=...) first"
            )

    def _data(self, x, y, sample_weight=None, class_weight=None, what: str = "") -> Arrays:
        """Checked samples, targets and weights."""
        y = as_array(y, f"{what}y", self.ops)
        check_lengths(**{f"{what}x": as_array(x, f"{what}x", self.ops), f"{what}y": y})
        x = self._inputs(x, f"{what}x")
        out_shape = self.chain.out_shape
        if self._last and y.ndim == 4:
            y = y.transpose(0, 3, 1, 2)
        try:
            y = self.loss.check_targets(y, out_shape, self.dtype)
        except ValueError as error:
            order = ""
            if self._last and len(out_shape) == 3 and isinstance(error, ShapeError):
                order = f". Shapes are given channels first here; the model yields (N, *{self.output_shape})"
            raise type(error)(f"{self.layers[-1].where}: {what}{error}{order}") from None
        w = check_weights(sample_weight, len(x), self.dtype)
        if class_weight is not None:
            by_class = class_weights(class_weight, y, self.dtype)
            w = by_class if w is None else w * by_class
        return Arrays(x, y, w)

    def _split(self, data: Arrays, share: float, stratify: bool | None) -> tuple[Arrays, Arrays]:
        """Training and validation parts, drawn by the seed, with the classes in proportion where targets are
        classes.
        """
        from sklearn.model_selection import train_test_split

        if not 0 < share < 1:
            raise ValueError(f"validation_split must lie between 0 and 1. Received: {share!r}")
        labels: Any = None
        if stratify is not False and isinstance(
            self.loss, (losses.CategoricalCrossentropy, losses.BinaryCrossentropy)
        ):
            y = data.y
            if y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
                labels = y.reshape(-1)
            elif y.ndim == 2 and isinstance(self.loss, losses.CategoricalCrossentropy):
                labels = y.argmax(axis=1)
        if labels is not None:
            labels = as_array(labels, "y")
            counts = np.unique(labels, return_counts=True)[1]
            held = math.ceil(len(data) * share)
            if counts.min() < 2 or min(held, len(data) - held) < len(counts):
                if stratify:
                    raise ValueError(
                        f"too few samples to keep the classes in proportion. Received: {len(counts)} "
                        f"classes, the smallest of {counts.min()} samples, and {held} to hold out. Expected: "
                        "2 a class, one of them held out"
                    )
                labels = None
        elif stratify:
            raise ValueError("stratify=True needs targets that are classes")
        train, held_out = train_test_split(
            np.arange(len(data)), test_size=share, random_state=self.seed % 2**32, stratify=labels
        )
        return Arrays(*data.take(np.sort(train))), Arrays(*data.take(np.sort(held_out)))

    def _check_last_batch(self, n: int, batch_size: int) -> None:
        least = max(
            (getattr(layer, "least", 1) for layer in self.all_layers() if layer.is_trainable), default=1
        )
        last = n % batch_size or min(batch_size, n)
        if last < least:
            layer = next(
                one for one in self.all_layers() if one.is_trainable and getattr(one, "least", 1) > last
            )
            raise ShapeError(
                f"{layer.where}: cannot normalise a batch of one sample: it has no variance. Received: {n} "
                f"samples in batches of {batch_size}, which leave a last batch of {last}. Expected: at least "
                f"{least} in every batch; use another batch_size"
            )


def load_model(path, device: Any = "auto", custom_objects: dict[str, type] | None = None) -> Sequential:
    """The model that `Sequential.save` wrote, compiled as it was.

    device: as in Sequential.  custom_objects: your own classes by name, where the model has any.
    Raises FileNotFoundError, or ModelFileError where the file is corrupt or not xpnet's.  Nothing is
    unpickled.
    """
    from .interop.files import read_model

    return read_model(path, device, custom_objects)


def _never(x) -> None:
    """No recording answers."""


def _named_metrics(chosen) -> list[tuple[str, metrics.Metric]]:
    """Metrics with the names that they go by in logs: the word that was given, or their own."""
    listed = [chosen] if isinstance(chosen, (str, metrics.Metric)) else list(chosen or [])
    return [(m if isinstance(m, str) else metrics.get(m).name, copy.copy(metrics.get(m))) for m in listed]


def _whole(name: str, value, least: int, more: str = "") -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number of at least {least}{more}. Received: {value!r}")
    return number
