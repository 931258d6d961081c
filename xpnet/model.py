"""Sequential: a network with Keras's way of training it."""

from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Collection
from typing import Any

import numpy as np

from . import losses, metrics, optimizers
from .data.arrays import Arrays, as_array, check_lengths, check_weights, class_weights
from .data.augmentation import Augmentation, checked
from .data.batches import is_stream
from .errors import NotCompiledError, ShapeError
from .inference import Inference
from .layers.base import Layer
from .network import Network, on_device
from .ops import threads
from .training import inputs, loop
from .training.callbacks import History, listed
from .training.device import DeviceStep
from .training.host import HostStep
from .training.inputs import whole
from .training.step import Step

# what a copy makes for itself
_MADE_ANEW = (
    "params", "chain", "ops", "device_reason", "optimizer_state", "stop_training", "augmentation",
    "_train_step", "_inference",
)  # fmt: skip


class Sequential(Network):
    """A network of layers that run one after another.

    layers: a list; more come by `add`.  input_shape: (D,) for vectors, (C, H, W) for images ((H, W, C) with
    data_format="channels_last"); without it the model takes its shapes from the first layer's input_shape, or
    from the first data it sees.  device: "auto" (a GPU where one works), "cpu", "cuda", "cuda:1".  precision:
    "auto", "float32", "tf32", "bfloat16", "float64".  seed: fixes initial weights, shuffles and dropout
    masks; None draws one.  name: shown by `summary`.
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
        self.augmentation: tuple[Augmentation, ...] = ()  # of the samples of the fit under way
        self._train_step: tuple[Any, Step] | None = None
        self._inference: Inference | None = None

    def compile(
        self, optimizer="adam", loss=None, metrics=(), *, run_eagerly=False, jit_compile="auto"
    ) -> None:
        """Choose how to train.

        optimizer: a name or an object of `xpnet.optimizers`.  loss: a name takes logits, unless the model
        ends in the softmax (or sigmoid) that belongs to it, which training then folds into the loss; an
        object takes what its from_logits says.  metrics: names or objects.  run_eagerly, jit_compile: taken,
        so that Keras scripts run; they change nothing.

        Raises ValueError without a loss, for an unknown name, for metrics of one name, and for an optimizer
        that belongs to another model.
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
        optimizer.iterations = optimizer.gathered = 0
        self._train_step = None
        self._reset_optimizer()

    @on_device
    def fit(
        self,
        x=None,
        y=None,
        batch_size: int | str | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks=None,
        validation_split: float = 0.0,
        validation_data=None,
        shuffle: bool = True,
        class_weight=None,
        sample_weight=None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq=1,
        *,
        stratify: bool | None = None,
        augment=(),
    ) -> History:
        """Train for epochs - initial_epoch passes over the data; the History of losses and metrics.

        x: (N, ...) in the model's input shape, which may be a memory map; y: targets as the loss wants them.
        Or x alone: batches (x, y) or (x, y, sample_weight) from a generator, a list, a PyTorch DataLoader or
        a Keras PyDataset.  batch_size: samples a step, 32 where nothing is said, 1 for on-line training,
        "full" for the whole data set.  shuffle: the samples, anew for each epoch; batches come as they are.
        initial_epoch: the number of epochs done before.  steps_per_epoch: batches an epoch, where it is not
        all of them.  callbacks: one or a list of `xpnet.callbacks`.
        augment: changes to the training samples, from `xpnet.data`, in order.  verbose: 0 quiet, 1 (or
        "auto") a progress bar, 2 a line an epoch.

        validation_split: the share of the samples that is held out, drawn at random with the classes in
        proportion (stratify=False: without); validation_data: (x, y), (x, y, sample_weight) or batches, of
        which validation_steps are taken; validation_batch_size: samples at once, as many as in training
        unless said; validation_freq: every so many epochs, or the epochs, from 1.  class_weight: {class:
        weight} or "balanced".  sample_weight: (N,).

        Figures are means over samples, as weighted, also where
        the loss is reduced to a sum (`train_on_batch` returns that sum).

        Raises NotCompiledError before `compile`; ShapeError or ValueError for data that do not fit the model,
        or arguments that do not fit each other; NonFiniteError where the loss or gradient turns NaN or
        infinite, with the weights of the step before; what the data or a callback raise comes through, with
        the weights of the last step.
        """
        self._need_compiled()
        epochs, initial_epoch = whole("epochs", epochs, 0), whole("initial_epoch", initial_epoch, 0)
        numbers = range(initial_epoch, epochs)
        steps = None if steps_per_epoch is None else whole("steps_per_epoch", steps_per_epoch, 1)
        callbacks = listed(callbacks)
        if verbose not in (0, 1, 2, "auto", True, False):
            raise ValueError(f"verbose must be 0, 1, 2 or 'auto'. Received: {verbose!r}")
        if validation_data is not None and validation_split:
            raise ValueError("give validation_data or validation_split, not both")
        if inputs.brings_targets(x, y, "fit"):
            for name, given in (
                ("batch_size", batch_size), ("sample_weight", sample_weight),
                ("validation_split", validation_split or None),
            ):  # fmt: skip
                inputs.refuse_with_batches(name, given)
            passes: Any = inputs.stream_passes(self, x, steps, len(numbers), class_weight)
        else:
            data = self._data(x, y, sample_weight, class_weight)
            if validation_split:
                data, validation_data = inputs.split(self, data, validation_split, stratify)
            passes = inputs.array_passes(self, data, batch_size, steps, bool(shuffle))
        validate = None
        if validation_data is not None:
            size = validation_batch_size or getattr(passes, "batch_size", None)
            validate = inputs.validation(self, validation_data, size, validation_steps, len(numbers))
        if not isinstance(validation_freq, Collection):
            every = whole("validation_freq", validation_freq, 1)
            validation_freq = range(every, epochs + 1, every)
        self.augmentation = checked(augment, self.chain.in_shape, passes.target_shape)
        verbose = 1 if verbose == "auto" else int(verbose)
        if verbose:
            print(f"training on {self.device} ({self.device_reason}), {self.precision_meaning}", flush=True)
        try:
            return loop.fit(self, passes, validate, numbers, validation_freq, callbacks, verbose)
        finally:
            self.augmentation = ()

    @on_device
    def evaluate(
        self,
        x,
        y=None,
        batch_size: int | None = None,
        verbose: int | str = 0,
        sample_weight=None,
        steps: int | None = None,
        callbacks=None,
        return_dict: bool = False,
    ):
        """Loss and metrics in inference, means over samples: [loss, *metrics], the loss alone where there are
        none.

        x, y, sample_weight: as in `fit`, or x alone for batches, of which `steps` are taken.  batch_size:
        samples at once, which changes memory and time, not the figures.  callbacks: hear on_test_begin and
        on_test_end.  verbose: taken, so that Keras scripts run; nothing is printed.  return_dict: the figures
        by name instead.

        Raises NotCompiledError before `compile`, ShapeError or ValueError for data that do not fit.
        """
        self._need_compiled()
        listeners = listed(callbacks)
        for listener in listeners:
            listener.set_model(self)
            listener.on_test_begin({})
        size = None if batch_size is None else whole("batch_size", batch_size, 1)
        if inputs.brings_targets(x, y, "evaluate"):
            inputs.refuse_with_batches("sample_weight", sample_weight)
            totals = inputs.validation(self, x, size, steps, 1)()
        else:
            data = self._data(x, y, sample_weight)
            totals = inputs.validation(self, data, size, steps, 1)()
        logs = totals.logs()
        for listener in listeners:
            listener.on_test_end(logs)
        if return_dict:
            return logs
        return list(logs.values()) if len(logs) > 1 else logs["loss"]

    @on_device
    def predict(self, x, batch_size: int | None = None, verbose: int = 0, steps: int | None = None):
        """The last layer's output for every sample: (N, K), or maps in the model's data_format.

        x: (N, ...) in the model's input shape, or batches, x alone or (x, y), of which `steps` are taken.
        NumPy in, NumPy out; arrays of the model's own GPU in, arrays of that GPU out.  batch_size: samples at
        once, so that memory stays bounded.  verbose: taken, so that Keras scripts run; nothing is printed.

        Raises ShapeError where x does not fit the model.
        """
        if is_stream(x):
            return self._predict_batches(x, batch_size, steps)
        x = self._inputs(x)
        size = None if batch_size is None else whole("batch_size", batch_size, 1)
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
        """One step of `fit` on one batch: the loss before the step, or [loss, *metrics], as floats.

        x (N, ...), y, sample_weight, class_weight: as in `fit`.  return_dict: the figures by name instead.
        Raises what `fit` raises.
        """
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

        x (N, ...), y, sample_weight: as in `fit`.  The arrays have the shapes that `state_dict` has.  Raises
        NotCompiledError before `compile`, ShapeError or ValueError for data that do not fit.
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
        assert self.optimizer is not None
        key = (
            self.params,
            self.optimizer,
            self.loss,
            self.optimizer.every,
            self.augmentation,
            threads.num_threads(),
            *(c.is_trainable for c in self.all_layers()),
        )
        if self._train_step is None or self._train_step[0] != key:
            self._make_optimizer_state()
            self._train_step = (key, (HostStep if self.ops.in_host_memory else DeviceStep)(self))
        return self._train_step[1]

    def shuffled(self, n: int) -> np.ndarray:
        """The order of n samples in the next epoch, (N,): it follows from the seed and the epochs so far."""
        return np.random.default_rng([self.seed, 1, self.epochs_trained]).permutation(n)

    def predict_on_batch(self, x):
        """`predict` of one batch, x (N, ...)."""
        return self.predict(x, batch_size=len(x))

    def test_on_batch(self, x, y, sample_weight=None, return_dict: bool = False):
        """`evaluate` of one batch, x (N, ...) and y; sample_weight, return_dict: as there."""
        return self.evaluate(x, y, batch_size=len(x), sample_weight=sample_weight, return_dict=return_dict)

    def __call__(self, x, training: bool = False):
        """The outputs for x (N, ...), at once; training=True: as in training, with masks and statistics of
        the batch.
        """
        return self.forward(x, train=training)[0]

    def get_weights(self, layer: Layer | None = None) -> list[np.ndarray]:
        """Copies of the arrays of all layers, or of one, in Keras's order and shapes; `state_dict` has
        PyTorch's.

        layer: one of the model's.
        """
        from .interop import keras

        return keras.get_weights(self, layer)

    def set_weights(self, weights, layer: Layer | None = None) -> None:
        """Write what `get_weights` gave, here or in the same Keras model.

        weights: a list of arrays.  layer: one of the model's, to which they belong.  Raises ShapeError where
        their number or a shape does not fit; then nothing changes.
        """
        from .interop import keras

        keras.set_weights(self, weights, layer)

    def save(
        self,
        filepath,
        training: bool = False,
        metadata: dict[str, str] | None = None,
        overwrite: bool = True,
    ) -> None:
        """Write the model to a safetensors file: weights, architecture, and how it was compiled.

        A filepath that ends in .keras gets a file that Keras opens too.  training=True: the optimizer's
        state, step and shuffle state too, so that a run resumed at an epoch's end goes on to the bit.
        metadata: text of your own, by name.  overwrite: False refuses a filepath that is there.  The file is
        written whole or not at all.
        """
        from .interop.saving import save_model

        save_model(self, filepath, training, metadata, overwrite)

    def save_weights(self, filepath, names=None, overwrite: bool = True) -> None:
        """Write the weights alone to a safetensors file that the same torch.nn.Sequential loads; a filepath
        that ends in .h5 gets Keras's own format.

        names: what the arrays are called in a module of another make, {"0": "conv1"} or a function.
        overwrite: False refuses a filepath that is there.
        """
        from .interop.weights import save_weights

        save_weights(self, filepath, names, overwrite)

    @on_device
    def load_weights(self, filepath, strict: bool = True, names=None, skip_mismatch: bool = False) -> None:
        """Read weights that PyTorch, Keras or xpnet wrote.  Nothing changes unless every name and shape fits.

        filepath: a safetensors file, a .weights.h5 or a .keras file.  strict=False takes what fits by name,
        skip_mismatch=True what fits by name and shape.  names: as in `save_weights`.

        Raises FileNotFoundError, ModelFileError where the file is damaged, ShapeError where it does not fit.
        """
        from .interop.weights import load_weights

        load_weights(self, filepath, strict, names, skip_mismatch)

    # -- inside ----------------------------------------------------------------------------------------------

    @on_device
    def _reset_optimizer(self) -> None:
        """Optimizer state as before the first step."""
        self.optimizer_state = {}
        if self.params is not None and self.optimizer is not None:
            self._make_optimizer_state()
        multilabel = isinstance(self.loss, losses.BinaryCrossentropy)
        for _, metric in self.metrics:
            metric.multilabel = multilabel and (self.params is None or self.chain.out_shape[0] > 1)

    def _make_optimizer_state(self) -> None:
        """The flat arrays that the optimizer needs and has not got."""
        assert self.optimizer is not None
        for name in self.optimizer.kept:
            if name not in self.optimizer_state:
                flat = self.ops.flat(len(self.params.values), self.dtype)
                if name in self.optimizer.state:
                    flat[...] = self.optimizer.initial(name)
                self.optimizer_state[name] = flat

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
        done = (0, 0) if self.optimizer is None else (self.optimizer.iterations, self.optimizer.gathered)
        more = {"optimizer": state, "iterations": done, "epochs_trained": self.epochs_trained}
        return super()._snapshot() | more

    @on_device
    def _load_snapshot(self, saved: dict[str, Any]) -> None:
        super()._load_snapshot(saved)
        for name, slot in self._named_slots():
            for key, flat in self.optimizer_state.items():
                if f"{name}.{key}" in saved["optimizer"]:
                    self.params.write(flat, slot, saved["optimizer"][f"{name}.{key}"])
        if self.optimizer is not None:
            done = saved["iterations"]
            self.optimizer.iterations, self.optimizer.gathered = (done, 0) if isinstance(done, int) else done
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
        self.augmentation = ()
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

    def _predict_batches(self, x, batch_size, steps):
        """predict, of batches."""
        batches = (batch[0] if isinstance(batch, (tuple, list)) else batch for batch in x)
        limit = None if steps is None else whole("steps", steps, 1)
        answers = [self.predict(batch, batch_size) for batch in itertools.islice(batches, limit)]
        if not answers:
            raise ValueError(f"x is empty. Received: {type(x).__name__} without a batch")
        return (np if isinstance(answers[0], np.ndarray) else self.ops.xp).concatenate(answers)


def load_model(
    filepath,
    device: Any = "auto",
    custom_objects: dict[str, type] | None = None,
    compile: bool = True,
) -> Sequential:
    """The model that `Sequential.save` wrote, compiled as it was (compile=False: not), or that of a .keras
    file.

    filepath: a .safetensors or .keras file.  device: as in `Sequential`.  custom_objects: your own classes by
    name, where the model has any.  Nothing is unpickled.  Raises FileNotFoundError, or ModelFileError where
    the file is corrupt or not xpnet's.
    """
    from .interop.saving import read_model

    return read_model(filepath, device, custom_objects, compile)


def _never(x) -> None:
    """No recording answers."""


def _named_metrics(chosen) -> list[tuple[str, metrics.Metric]]:
    """Metrics with the names that they go by in logs: the word that was given, or their own."""
    listed = [chosen] if isinstance(chosen, (str, metrics.Metric)) else list(chosen or [])
    return [(m if isinstance(m, str) else metrics.get(m).name, copy.copy(metrics.get(m))) for m in listed]
