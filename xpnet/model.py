"""Sequential: layers one after another, with Keras's way of training them."""

from __future__ import annotations

import copy
import math
import operator
import re
import warnings
import weakref
from typing import Any

import numpy as np

from . import device as devices
from . import losses, metrics, optimizers
from .data.arrays import Arrays, as_array, check_lengths, check_weights, check_x, class_weights
from .errors import DeviceFallbackWarning, NotBuiltError, NotCompiledError, ShapeError, unknown
from .layers.base import Layer, Shape
from .layers.containers import Chain
from .ops import threads
from .params import Params, Slot
from .training import loop
from .training.callbacks import Callback, History
from .training.step import TrainStep

PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float64")
_owners: weakref.WeakKeyDictionary[Layer, weakref.ref] = weakref.WeakKeyDictionary()  # the model of a layer


class Sequential:
    """A network of layers that run one after another.

    layers: a list; more come by `add`.  input_shape: (D,) for vectors, (C, H, W) for images ((H, W, C) with
    data_format="channels_last"); without it the model takes its shapes from the first layer's input_shape, or
    from the first data it sees.  device: "auto" (a GPU where one works), "cpu", "cuda", "cuda:1".  precision:
    "auto", "float32", "tf32", "bfloat16", "float64".  seed: fixes initial weights, shuffles and dropout
    masks; None draws one.
    """

    def __init__(
        self,
        layers=(),
        *,
        input_shape: Shape | int | None = None,
        device: Any = "auto",
        data_format: str = "channels_first",
        precision: str = "auto",
        seed: int | None = None,
        name: str = "sequential",
    ):
        if data_format not in ("channels_first", "channels_last"):
            raise unknown("data_format", data_format, ("channels_first", "channels_last"))
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1, np.uint32)[0])
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
            raise ValueError(f"seed must be a whole number from 0 to 2^64 - 1. Received: {seed!r}")
        self.data_format, self.precision, self.seed, self.name = data_format, precision, int(seed), name
        self.layers: list[Layer] = []
        self.params: Any = None  # a Params, once the model is built
        self.chain: Any = None  # a Chain of the layers, likewise
        self.optimizer: optimizers.Optimizer | None = None
        self.optimizer_state: dict[str, Any] = {}
        self.loss: Any = None
        self.metrics: list[tuple[str, metrics.Metric]] = []
        self.history: History | None = None
        self.stop_training = False
        self.epochs_trained = 0
        self._train_step: tuple[Any, TrainStep] | None = None
        self._use_device(device)
        self._without_channel = False  # images come as (N, H, W)
        self._asked_shape = None if input_shape is None else self._internal(input_shape)
        if isinstance(layers, Layer):
            raise TypeError(f"layers must be a list. Received: {layers!r}. Expected: [{layers!r}]")
        for layer in layers or ():
            self._append(layer)
        self._build_if_known()

    # -- structure -------------------------------------------------------------------------------------------

    def add(self, layer: Layer) -> None:
        """Append a layer.  Parameters, running statistics and optimizer state of the others stay as they
        are.
        """
        self._append(layer)
        try:
            if self.params is not None:
                self._rebuild()
            else:
                self._build_if_known()
        except Exception:
            self.layers.pop()
            raise

    def pop(self) -> Layer:
        """Remove the last layer and return it."""
        if not self.layers:
            raise ValueError("there is no layer to remove")
        layer = self.layers.pop()
        if self.params is not None:
            self._rebuild()
        for one in _walk([layer]):
            _owners.pop(one, None)
            one.slots, one.state_slots = [], []
        return layer

    def to(self, device) -> Sequential:
        """Move the model, with its optimizer state, to another device; the model itself."""
        saved = None if self.params is None else self._snapshot()
        self._use_device(device)
        if saved is not None:
            self._rebuild(saved)
        return self

    def build(self, input_shape: Shape | int) -> None:
        """Fix the shapes and draw the weights, without waiting for data.  input_shape: as in the
        constructor.
        """
        shape = self._internal(input_shape)
        if self.params is None:
            self._build(shape)
        elif shape != self.chain.in_shape:
            raise ShapeError(
                f"the model has been built for another input_shape. Received: {self._external(shape)}. "
                f"Expected: {self.input_shape}, or a new model"
            )

    @property
    def built(self) -> bool:
        return self.params is not None

    @property
    def device(self) -> str:
        """The device the model is on: "cpu" or "cuda:0"."""
        return self.ops.device

    @property
    def dtype(self) -> np.dtype:
        """What parameters and feature maps are kept in."""
        return np.dtype(np.float64 if self.precision == "float64" else np.float32)

    @property
    def input_shape(self) -> Shape:
        """Of one sample, in the model's data_format; (H, W) where the model was given that."""
        in_shape = self._need_built().in_shape
        return in_shape[1:] if self._without_channel else self._external(in_shape)

    @property
    def output_shape(self) -> Shape:
        """Of one prediction, in the model's data_format."""
        return self._external(self._need_built().out_shape)

    def all_layers(self) -> list[Layer]:
        """Every layer, those inside containers included, in the order of the forward pass."""
        return list(_walk(self.layers))

    def summary(self, print_fn=print) -> None:
        """Print a table of the layers: name, output shape, parameters."""
        chain = self._need_built()
        rows = [("layer", "output shape", "parameters")]

        def walk(layers, indent):
            for layer in layers:
                inner = [child for branch in layer.children().values() for child in branch]
                shape = ", ".join(["N", *map(str, self._external(layer.out_shape))])
                count = sum(slot.size for slot in layer.slots)
                rows.append((f"{indent}{layer.label} ({type(layer).__name__})", f"({shape})", f"{count:,}"))
                walk(inner, indent + "  ")

        walk(chain.layers, "")
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        line = "-" * (sum(widths) + 4)
        print_fn(
            f"{self.name}: input {self.input_shape}, {self.data_format}, {self.precision_meaning}, on "
            f"{self.device}"
        )
        print_fn(line)
        for number, (a, b, c) in enumerate(rows):
            print_fn(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}")
            if number == 0:
                print_fn(line)
        print_fn(line)
        params = self.params
        print_fn(f"{params.count():,} parameters, of which {params.count(trainable=False):,} are not trained")

    def count_params(self) -> int:
        """Trained and frozen parameters, running statistics not counted."""
        self._need_built()
        return self.params.count()

    # -- training --------------------------------------------------------------------------------------------

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
        weighted.

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

    def predict(self, x, batch_size: int | None = None, verbose: int = 0):
        """The last layer's output for every sample: (N, K), or maps in the model's data_format.

        Works in blocks of batch_size samples, so memory stays bounded.  NumPy in, NumPy out; arrays of the
        model's own GPU in, arrays of that GPU out.
        """
        x = self._inputs(x)
        size = loop.BLOCK if batch_size is None else _whole("batch_size", batch_size, 1)
        keep = not isinstance(x, np.ndarray)
        shape = (len(x), *self.output_shape)
        out = self.ops.xp.empty(shape, self.dtype) if keep else np.empty(shape, self.dtype)

        def work(block):
            y = self._to_user(self.leave(self.infer(self.enter(x[block], self.ops))))
            out[block] = y if keep else self.ops.to_host(y)

        loop.in_blocks(self, len(x), size, work)
        return out

    def train_on_batch(self, x, y, sample_weight=None, class_weight=None, return_dict: bool = False):
        """One step of `fit` on one batch: the loss before the step (and metrics), as floats."""
        self._need_compiled()
        data = self._data(x, y, sample_weight, class_weight)
        step = self.train_step()
        with threads.blas_threads(step.blas_threads(len(data))):
            result = step(data, np.arange(len(data)))
        if not self.ops.to_host(result.ok):
            step.update.reset(skipped=0 if self.ops.in_host_memory else 1)
            step.fail(data, np.arange(len(data)), self.ops.to_host(result.loss))
        logs = {"loss": float(self.ops.to_host(result.loss))}
        for (label, metric), total in zip(self.metrics, result.sums):
            logs[label] = metric.result(np.asarray(self.ops.to_host(total), np.float64))
        if return_dict:
            return logs
        return list(logs.values()) if len(logs) > 1 else logs["loss"]

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

    def train_step(self) -> TrainStep:
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
            self._train_step = (key, TrainStep(self))
        return self._train_step[1]

    def shuffled(self, n: int) -> np.ndarray:
        """The order of n samples in the next epoch: it follows from the seed and the epochs so far."""
        return np.random.default_rng([self.seed, 1, self.epochs_trained]).permutation(n)

    # -- forward and backward --------------------------------------------------------------------------------

    def forward(self, x, *, train: bool = False):
        """(y, caches): outputs for x, and what `backward` needs.  In training mode dropout masks and batches
        normalise.
        """
        x = self._inputs(x)
        with np.errstate(all="ignore"):
            y, caches = self._need_built().forward(self.enter(x, self.ops), train=train)
        y = self._to_user(self.leave(y))
        return (y if not isinstance(x, np.ndarray) else self.ops.to_host(y)), _Caches(caches, len(x))

    def backward(self, dy, caches):
        """dL/dx from dL/dy and the caches of a forward, which are used up; the parameters' gradients go to
        the layers.
        """
        chain = self._need_built()
        if not isinstance(caches, list) or len(caches) != len(chain.layers):
            raise ValueError(
                "backward needs the caches of one forward. Received: "
                + (f"{len(caches)} caches" if isinstance(caches, list) else repr(type(caches).__name__))
                + f" for {len(chain.layers)} layers. Expected: those that model.forward(x, train=True) "
                "returned, once"
            )
        dy = as_array(dy, "dy", self.ops)
        expected = (getattr(caches, "samples", len(dy)), *self.output_shape)
        if dy.shape != expected:
            raise ShapeError(
                f"dy does not fit the model's output. Received: {dy.shape}. Expected: {expected}"
            )
        host = isinstance(dy, np.ndarray)
        with np.errstate(all="ignore"):
            dx = chain.backward(self.enter(dy, self.ops, copy=True), caches)
        dx = self._to_user(self.leave(dx))
        return self.ops.to_host(dx) if host else dx

    def enter(self, x, ops, copy: bool = False):
        """Conventional x as the layers want it: packed to (H, C, W, N), or (N, D); in the model's type."""
        x = ops.asarray(x)
        if x.ndim == 4:
            return ops.pack(x.transpose(0, 3, 1, 2) if self._last else x, self.dtype)
        return x.astype(self.dtype, copy=copy)

    def leave(self, y):
        """A layer's output with the samples first: (N, C, H, W) or (N, D)."""
        return self.ops.unpack(y) if y.ndim == 4 else y

    def infer(self, h, folded=None):
        """The output of the layers in inference, without the last activation where it is folded into the
        loss.
        """
        layers = self._need_built().layers
        if folded is not None:
            layers = [*layers[:-1], layers[-1].without_activation()]
        with np.errstate(all="ignore"):
            for layer in layers:
                h, _ = layer.forward(h, train=False)
        return h

    # -- weights and files -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Parameters and running statistics, names and shapes as in the same torch.nn.Sequential."""
        self._need_built()
        out = {}
        for name, slot in self._named_slots():
            learned = slot in slot.layer.slots
            value = self.params.read(self.params.values if learned else self.params.state, slot)
            out[name] = value.astype(np.int64) if slot.integer else value
        return out

    def load_state_dict(self, state, strict: bool = True) -> None:
        """Copy the arrays (or PyTorch tensors) of a state_dict in.  Nothing is changed unless every name and
        shape fits.

        strict=False takes what fits by name and leaves the rest.
        """
        self._need_built()
        slots = dict(self._named_slots())
        missing = [name for name in slots if name not in state]
        strange = [name for name in state if name not in slots]
        if strict and (missing or strange):
            raise ShapeError(
                "the state does not belong to this model. "
                + (f"Missing: {', '.join(missing)}. " if missing else "")
                + (f"Not in the model: {', '.join(map(str, strange))}. " if strange else "")
                + "Expected: the same layers in the same order; strict=False takes what fits"
            )
        arrays = {}
        for name, slot in slots.items():
            if name in state:
                value = as_array(state[name], name)
                if value.shape != slot.shape:
                    raise ShapeError(
                        f"{slot.layer.where}: {name} does not fit. Received: {value.shape}. Expected: "
                        f"{slot.shape}"
                    )
                if value.dtype.kind not in "biuf":
                    raise ValueError(
                        f"{slot.layer.where}: {name} must be numbers. Received: dtype {value.dtype}. "
                        f"Expected: {self.dtype}"
                    )
                arrays[name] = value
        for name, value in arrays.items():
            self._write(slots[name], value)

    def save(self, path, training: bool = False) -> None:
        """Write the model to a safetensors file: weights, architecture, and how it was compiled.

        training=True: the optimizer's state, step and shuffle state too, so that a run resumed at an epoch's
        end goes on to the bit.  The file is written whole or not at all.
        """
        from .interop.files import save_model

        save_model(self, path, training)

    # -- inside ----------------------------------------------------------------------------------------------

    @property
    def _last(self) -> bool:
        return self.data_format == "channels_last"

    def _internal(self, shape) -> Shape:
        """A user's shape as (D,) or (C, H, W); (H, W) is an image without a channel axis."""
        try:
            shape = tuple(map(operator.index, (shape,) if not isinstance(shape, (tuple, list)) else shape))
        except TypeError:
            shape = ()
        if len(shape) == 2 and min(shape) > 0:
            self._without_channel = True
            return (1, *shape)
        if len(shape) not in (1, 3) or min(shape) < 1:
            order = "(H, W, C)" if self._last else "(C, H, W)"
            raise ShapeError(f"input_shape must be (D,) for vectors or {order} for images. Received: {shape}")
        return (shape[2], shape[0], shape[1]) if len(shape) == 3 and self._last else shape

    def _external(self, shape: Shape) -> Shape:
        return (shape[1], shape[2], shape[0]) if len(shape) == 3 and self._last else shape

    def _to_user(self, y):
        """Samples-first y in the user's order, in memory of its own."""
        if y.ndim == 4:  # unpacked to memory of its own already
            return self.ops.xp.ascontiguousarray(y.transpose(0, 2, 3, 1)) if self._last else y
        return self.ops.xp.array(y, order="C")

    def _use_device(self, device) -> None:
        self.ops, self.device_reason = devices.resolve(device)
        self._train_step = None
        if self.precision not in ("auto", *self.ops.precisions):
            warnings.warn(
                f"precision={self.precision!r} is not available on {self.ops.device}; computing in float32 "
                "instead",
                DeviceFallbackWarning,
                stacklevel=3,
            )

    @property
    def precision_meaning(self) -> str:
        """What the precision comes to on this device."""
        return str(self.dtype)

    def _append(self, layer: Layer) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(
                f"a model is made of layers. Received: {layer!r}. Expected: an object of xpnet.layers"
            )
        self.layers.append(layer)
        everything = self.all_layers()
        seen: set[int] = set()
        for one in everything:
            if id(one) in seen:
                self.layers.pop()
                raise ValueError(
                    f"a layer can stand in a model once. Received: {one!r} a second time. Expected: another "
                    "instance; "
                    "one of its own for each place"
                )
            seen.add(id(one))
        try:
            self._claim([layer])
        except ValueError:
            self.layers.pop()
            raise
        counts: dict[str, int] = {}
        for one in everything:
            base = _snake(type(one).__name__)
            number = counts.get(base, 0)
            counts[base] = number + 1
            one.label = one.name or (f"{base}_{number}" if number else base)

    def _claim(self, layers) -> None:
        """Note that the layers stand here; ValueError where one holds its weights in another model."""
        for one in _walk(layers):
            owner = _owners.get(one, lambda: None)()
            if owner is self:
                continue
            if owner is not None and owner.built and any(one is other for other in owner.all_layers()):
                raise ValueError(
                    f"a layer can stand in one model only. Received: {one!r}, which stands in "
                    f"{owner.name!r}. Expected: "
                    "an instance of its own for each; for a part of a trained model copy.deepcopy(model), "
                    "then pop"
                )
            _owners[one] = weakref.ref(self)
            one.slots, one.state_slots = [], []

    def _build_if_known(self) -> None:
        shape = self._asked_shape
        if shape is None and self.layers and self.layers[0].input_shape is not None:
            shape = self._internal(self.layers[0].input_shape)
        if shape is not None and self.layers:
            self._build(shape)

    def _build(self, in_shape: Shape) -> None:
        if not self.layers:
            raise NotBuiltError("the model has no layers. Expected: Sequential([...]), or model.add(layer)")
        self._claim(self.layers)
        params = Params(self.seed, self.ops, self.dtype, self.data_format)
        chain = Chain(self.layers)
        before = [(layer, layer.__dict__.copy()) for layer in self.all_layers()]
        try:
            chain.build(in_shape, params)
            params.allocate()
        except Exception:
            for layer, fields in before:  # what was built before stays whole
                layer.__dict__.clear()
                layer.__dict__.update(fields)
            raise
        self.chain, self.params = chain, params
        self._train_step = None
        if self.optimizer is not None:
            self._reset_optimizer()

    def _rebuild(self, saved=None) -> None:
        saved = saved or self._snapshot()
        if self.layers:
            self._build(self.chain.in_shape)
            self._load_snapshot(saved)
        else:
            self.params = None

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

    def _named_slots(self) -> list[tuple[str, Slot]]:
        """Every slot with its name: modules are numbered as in torch.nn.Sequential, where an activation is
        one.
        """
        found: list[tuple[str, Slot]] = []

        def walk(layers, prefix):
            number = 0
            for layer in layers:
                found.extend(
                    (f"{prefix}{number}.{slot.name}", slot) for slot in layer.slots + layer.state_slots
                )
                for branch, inner in layer.children().items():
                    walk(inner, f"{prefix}{number}.{branch}.")
                number += layer.modules

        walk(self.layers, "")
        return found

    def _write(self, slot: Slot, value) -> None:
        if slot in slot.layer.slots:
            self.params.write(self.params.values, slot, value)
        else:
            self.params.write(self.params.state, slot, value)
            self.params.write(self.params.pending, slot, value)

    def _snapshot(self) -> dict[str, Any]:
        """Everything that training changes, on the host, by name: what moving, growing and copying carry
        over.
        """
        params = self.params
        slots = [
            (name, slot)
            for name, slot in self._named_slots()
            if slot in slot.layer.slots and slot in params.slots
        ]
        return {
            "weights": self.state_dict(),
            "optimizer": {
                f"{name}.{key}": params.read(flat, slot)
                for key, flat in self.optimizer_state.items()
                for name, slot in slots
            },
            "iterations": self.optimizer.iterations if self.optimizer is not None else 0,
            "step": params.step,
            "epochs_trained": self.epochs_trained,
        }

    def _load_snapshot(self, saved: dict[str, Any]) -> None:
        self.load_state_dict(saved["weights"], strict=False)
        for name, slot in self._named_slots():
            for key, flat in self.optimizer_state.items():
                if f"{name}.{key}" in saved["optimizer"]:
                    self.params.write(flat, slot, saved["optimizer"][f"{name}.{key}"])
        if self.optimizer is not None:
            self.optimizer.iterations = saved["iterations"]
        self.params.step, self.epochs_trained = saved["step"], saved["epochs_trained"]

    def __copy__(self) -> Sequential:
        return copy.deepcopy(self)  # two models cannot share layers

    def __getstate__(self):
        """For copying and pickling: the layers without their views, and the arrays by name."""
        keep = (
            "data_format",
            "precision",
            "seed",
            "name",
            "layers",
            "loss",
            "metrics",
            "history",
            "_asked_shape",
            "_without_channel",
        )
        state = {key: getattr(self, key) for key in keep}
        return state | {
            "optimizer": copy.copy(self.optimizer),
            "device": self.device,
            "in_shape": None if self.params is None else self.chain.in_shape,
            "arrays": None if self.params is None else self._snapshot(),
        }

    def __setstate__(self, state):
        device, in_shape, arrays = (state.pop(key) for key in ("device", "in_shape", "arrays"))
        self.__dict__.update(
            state, params=None, chain=None, optimizer_state={}, stop_training=False, epochs_trained=0
        )
        self._train_step = None
        if self.optimizer is not None:
            self.optimizer.owner = weakref.ref(self)
        self._use_device(device)
        if in_shape is not None:
            self._build(in_shape)
            self._load_snapshot(arrays)

    def __repr__(self) -> str:
        return f"Sequential({self.layers!r})"

    def _need_built(self) -> Chain:
        if self.params is None:
            raise NotBuiltError(
                "the model does not know its input shape yet. Expected: Sequential([...], input_shape=...), "
                "model.build(input_shape), or data by fit"
            )
        return self.chain

    def _need_compiled(self) -> None:
        if self.loss is None:
            raise NotCompiledError(
                "the model has no loss yet: call model.compile(optimizer=..., loss=...) first"
            )

    def _inputs(self, x, what: str = "x"):
        """x, checked against the input shape; an unbuilt model is built for it."""
        x = check_x(x, None if self.params is None else self.input_shape, self.ops, what, self.dtype)
        if self.params is None:
            self._build(self._internal(x.shape[1:]))
        if self._without_channel:
            x = x[..., None] if self._last else x[:, None]
        return x

    def _data(self, x, y, sample_weight=None, class_weight=None, what: str = "") -> Arrays:
        """Checked samples, targets and weights."""
        y = as_array(y, f"{what}y", self.ops)
        check_lengths(**{f"{what}x": as_array(x, f"{what}x", self.ops), f"{what}y": y})
        x = self._inputs(x, f"{what}x")
        out_shape = self.chain.out_shape
        if self._last and y.ndim == 4:
            y = y.transpose(0, 3, 1, 2)
        y = self.loss.check_targets(y, out_shape, self.dtype)
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
        labels = None
        if stratify is not False and isinstance(
            self.loss, (losses.CategoricalCrossentropy, losses.BinaryCrossentropy)
        ):
            y = data.y
            if y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
                labels = y.reshape(-1)
            elif y.ndim == 2 and isinstance(self.loss, losses.CategoricalCrossentropy):
                labels = y.argmax(axis=1)
        if labels is not None:
            counts = np.unique(labels, return_counts=True)[1]
            held = math.ceil(len(data) * share)
            if counts.min() < 2 or min(held, len(data) - held) < len(counts):
                if stratify:
                    raise ValueError(
                        f"too few samples to keep the classes in proportion. Received: {len(counts)} "
                        "classes, the smallest "
                        f"of {counts.min()} samples, and {held} to hold out. Expected: 2 a class, one of "
                        "them held out"
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
            layer = next(one for one in self.all_layers() if getattr(one, "least", 1) > last)
            raise ShapeError(
                f"{layer.where}: cannot normalise a batch of one sample: it has no variance. Received: {n} "
                "samples in "
                f"batches of {batch_size}, which leave a last batch of {last}. Expected: at least {least} "
                "in every batch; "
                "use another batch_size"
            )


def load_model(path, device: Any = "auto", custom_objects: dict[str, type] | None = None) -> Sequential:
    """The model that `Sequential.save` wrote, compiled as it was.

    device: as in Sequential.  custom_objects: your own classes by name, where the model has any.
    Raises FileNotFoundError, or ModelFileError where the file is corrupt or not xpnet's.  Nothing is
    unpickled.
    """
    from .interop.files import read_model

    return read_model(path, device, custom_objects)


class _Caches(list):
    """What the layers remember of one forward of so many samples."""

    def __init__(self, caches, samples: int):
        super().__init__(caches)
        self.samples = samples


def _walk(layers):
    """Every layer, those inside containers included, in the order of the forward pass."""
    for layer in layers:
        yield layer
        for inner in layer.children().values():
            yield from _walk(inner)


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


def _snake(name: str) -> str:
    """MaxPooling2D -> max_pooling2d."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()
