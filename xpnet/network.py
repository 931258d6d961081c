"""A network as a structure: layers in order, their shapes, their parameters, forward and backward."""

from __future__ import annotations

import functools
import operator
import re
import traceback
from typing import Any, Self

import numpy as np

from . import device as devices
from .data.arrays import as_array, check_x
from .errors import DeviceFallbackWarning, DeviceMemoryError, NotBuiltError, ShapeError, unknown, warn
from .layers.base import Layer, Shape
from .layers.containers import Chain
from .layers.input import Input
from .layers.pools_first import pools_first
from .ops.memory import SMALL
from .params import Params, Slot
from .utils import fresh_seed

PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float64")


def on_device(method):
    """The method, with all that it asks of the model's device asked in one order.

    Raises DeviceMemoryError where the device has no memory for it, in place of the array module's own error.
    """

    @functools.wraps(method)
    def ordered(self, *args, **kwargs):
        try:
            with self.ops.running():
                return method(self, *args, **kwargs)
        except self.ops.out_of_memory as error:
            explained = _out_of_memory(self.ops, error)
            raise explained from error.with_traceback(None)  # whose frames hold arrays

    return ordered


def _out_of_memory(ops, error: BaseException) -> DeviceMemoryError:
    selves = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    layers = [one.where for one in selves if isinstance(one, Layer)]
    return DeviceMemoryError(
        f"{layers[-1] if layers else 'the model'}: out of memory on {ops.device}. {ops.shortage(error)}. "
        "Expected: fewer samples at once, a smaller model, or more memory: let go of other models and arrays "
        "there, raise the limit (xpnet.set_memory_limit) if there is one"
    )


class Network:
    """Layers that run one after another; what `Sequential` trains.  Its arguments are explained there."""

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
            seed = fresh_seed()
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
            raise ValueError(f"seed must be a whole number from 0 to 2^64 - 1. Received: {seed!r}")
        self._prepare()
        self.data_format, self.precision, self.seed, self.name = data_format, precision, int(seed), name
        self.layers: list[Layer] = []
        self.params: Any = None  # a Params, once the model is built
        self.chain: Any = None  # a Chain of the layers, likewise
        self._use_device(device)
        self._without_channel = False  # images come as (N, H, W)
        self._asked_shape = None if input_shape is None else self._internal(input_shape)
        if isinstance(layers, Layer):
            raise TypeError(f"layers must be a list. Received: {layers!r}. Expected: [{layers!r}]")
        for layer in layers or ():
            self._append(layer)
        self._build_if_known()

    # -- structure -------------------------------------------------------------------------------------------

    def add(self, layer: Layer | Input) -> None:
        """Append a layer.  Parameters, running statistics and optimizer state of the others stay as they are.

        Raises TypeError for what is no layer, ValueError for one that stands in a model already, ShapeError
        where it does not fit; then the model is what it was.
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
        """Remove the last layer and return it.  Raises ValueError where there is none."""
        if not self.layers:
            raise ValueError("there is no layer to remove")
        layer = self.layers.pop()
        if self.params is not None:
            self._rebuild()
        for one in _walk([layer]):
            one.model = None
            one.slots, one.state_slots = [], []
        return layer

    def to(self, device) -> Self:
        """Move the model, with its optimizer state, to another device; the model itself.

        device: as in the constructor.
        """
        saved = None if self.params is None else self._snapshot()
        self._use_device(device)
        if saved is not None:
            self._rebuild(saved)
        return self

    def build(self, input_shape: Shape | int) -> None:
        """Fix the shapes and draw the weights, without waiting for data.

        input_shape: as in the constructor.  Raises ShapeError where the layers do not fit it, or the model
        has been built for another.
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
        """Whether the shapes are known and the weights drawn."""
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

    @property
    def trainable(self) -> bool:
        """Whether any layer is trained.  Set, it is set of all layers: False freezes the model."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.all_layers():
            layer.trainable = bool(value)

    def all_layers(self) -> list[Layer]:
        """Every layer, those inside containers included, in the order of the forward pass."""
        return list(_walk(self.layers))

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name (those inside containers too), or at that index among `layers`.

        Raises ValueError where there is none, or both or neither are given.
        """
        if (name is None) == (index is None):
            raise ValueError(f"get_layer takes a name or an index. Received: name={name!r}, index={index!r}")
        if index is not None:
            if not -len(self.layers) <= index < len(self.layers):
                raise ValueError(f"there is no layer {index}. Expected: below {len(self.layers)}")
            return self.layers[index]
        for layer in self.all_layers():
            if name in (layer.name, layer.label):
                return layer
        raise unknown("layer", name, [layer.label for layer in self.all_layers()])

    def summary(self, print_fn=print) -> None:
        """Print a table of the layers: name, output shape, parameters.

        print_fn: called with each line.  Raises NotBuiltError before the shapes are known.
        """
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

    def _repr_html_(self) -> str:
        """What a notebook shows: the layers with their shapes, parameters and costs."""
        from .viz import notebook

        return notebook.card(notebook.network(self))

    def count_params(self) -> int:
        """How many numbers are trained or frozen, running statistics not counted."""
        self._need_built()
        return self.params.count()

    # -- forward and backward --------------------------------------------------------------------------------

    @on_device
    def forward(self, x, *, train: bool = False):
        """(y, caches): the outputs for x (N, ...), as `predict` has them, and what `backward` needs.

        train: whether dropout masks and BatchNormalization takes the batch's own statistics.  Raises
        ShapeError where x does not fit.
        """
        x = self._inputs(x)
        with np.errstate(all="ignore"):
            y, caches = self._need_built().forward(self.enter(x, self.ops), train=train)
        y = self._to_user(self.leave(y))
        return (y if not isinstance(x, np.ndarray) else self.ops.to_host(y)), _Caches(caches, len(x))

    @on_device
    def backward(self, dy, caches):
        """dL/dx, of x's shape, from dL/dy and the caches of a forward, which are used up.

        dy: of y's shape.  The parameters' gradients go to the layers: layer.dweight, layer.dbias.  Raises
        ShapeError for another shape of dy, ValueError for caches that are not those of one forward.
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

    @on_device
    def layer_outputs(self, x, *, train: bool = False) -> dict[str, np.ndarray]:
        """What each of `layers` makes of x, by the layer's name: (N, C, H, W), in the model's data_format, or
        (N, D); on the host.

        x: (N, ...) in the model's input shape.  train: as in `forward`.
        """
        x = self._inputs(x)
        outputs = {}
        with np.errstate(all="ignore"):
            h = self.enter(x, self.ops)
            for layer in self._need_built().layers:
                h, _ = layer.forward(h, train=train)
                outputs[layer.label] = self.ops.to_host(self._to_user(self.leave(h)))
        return outputs

    def enter(self, x, ops, copy: bool = False):
        """Conventional x as the layers want it: packed to (H, C, W, N), or (N, D); in the model's type.

        ops: the operations of the device it goes to.  copy: the result shares no memory with x.
        """
        return ops.enter(x, self.dtype, self._last, copy)

    def leave(self, y):
        """A layer's output y with the samples first: (N, C, H, W) or (N, D)."""
        return self.ops.unpack(y) if y.ndim == 4 else y

    def infer(self, h, folded=None, layers=None):
        """The output of the layers for h, (H, C, W, N) or (N, D), in inference.

        layers: twins that stand for them.  folded: the activation that the loss contains, which is left out
        at the end.
        """
        layers = layers or self._need_built().layers
        if folded is not None:
            layers = [*layers[:-1], layers[-1].without_activation()]
        if self.ops.pools_first and h.nbytes >= SMALL:  # below, 20 us for the twins are more than it saves
            layers = pools_first(layers)
        with np.errstate(all="ignore"):
            for layer in layers:
                h, _ = layer.forward(h, train=False)
        return h

    # -- weights ---------------------------------------------------------------------------------------------

    @on_device
    def state_dict(self) -> dict[str, np.ndarray]:
        """Parameters and running statistics, names and shapes as in the same torch.nn.Sequential."""
        self._need_built()
        out = {}
        for name, slot in self._named_slots():
            learned = slot in slot.layer.slots
            value = self.params.read(self.params.values if learned else self.params.state, slot)
            out[name] = value.astype(np.int64) if slot.integer else value
        return out

    @on_device
    def load_state_dict(self, state, strict: bool = True) -> None:
        """Copy the arrays (or PyTorch tensors) of a state_dict in.

        state: {name: array}.  strict=False takes what fits by name and leaves the rest.  Raises ShapeError
        where a name or shape does not fit, ValueError for what are no numbers; then nothing changes.
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
        self.ops, self.device_reason = devices.resolve(device, self.precision)
        if self.precision not in ("auto", *self.ops.precisions):
            warn(
                f"precision={self.precision!r} is not available on {self.ops.device}; computing in float32 "
                "instead",
                DeviceFallbackWarning,
            )

    @property
    def precision_meaning(self) -> str:
        """What the precision comes to on this device."""
        return self.ops.meaning(self.dtype)

    def _expect(self, given: Input) -> None:
        """Take the shape of the samples from an Input at the front."""
        shape, asked = self._internal(given.shape), self._asked_shape or ()
        if self.layers or asked not in ((), shape):
            raise ValueError(
                f"Input tells the shape of the samples, once, before the first layer. Received: {given!r} "
                + ("behind a layer" if self.layers else f"and {self._external(asked)}")
            )
        self._asked_shape = shape

    def _append(self, layer: Layer | Input) -> None:
        if isinstance(layer, Input):
            return self._expect(layer)
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
                    "instance; one of its own for each place"
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
            other = one.model
            if other is self:
                continue
            if other is not None and other.built and any(one is its for its in other.all_layers()):
                raise ValueError(
                    f"a layer can stand in one model only. Received: {one!r}, which stands in "
                    f"{other.name!r}. Expected: an instance of its own for each; for a part of a trained "
                    "model copy.deepcopy(model), then pop"
                )
            one.model = self
            one.slots, one.state_slots = [], []

    def _build_if_known(self) -> None:
        shape = self._asked_shape
        if shape is None and self.layers and self.layers[0].input_shape is not None:
            shape = self._internal(self.layers[0].input_shape)
        if shape is not None and self.layers:
            self._build(shape)

    @on_device
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
        self._was_built()

    def _rebuild(self, saved=None) -> None:
        saved = saved or self._snapshot()
        if self.layers:
            self._build(self.chain.in_shape)
            self._load_snapshot(saved)
        else:
            self.params = None

    def _prepare(self) -> None:
        """Called first: what a subclass keeps of its own."""

    def _was_built(self) -> None:
        """Called when the parameters have been allocated, anew or for the first time."""

    def _snapshot(self) -> dict[str, Any]:
        """All that moving, growing and copying carry over, on the host, by name."""
        return {"weights": self.state_dict(), "step": self.params.step}

    def _load_snapshot(self, saved: dict[str, Any]) -> None:
        self.load_state_dict(saved["weights"], strict=False)
        self.params.step = saved["step"]

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

    def _need_built(self) -> Chain:
        if self.params is None:
            raise NotBuiltError(
                "the model does not know its input shape yet. Expected: Sequential([...], input_shape=...), "
                "model.build(input_shape), or data by fit"
            )
        return self.chain

    def _inputs(self, x, what: str = "x"):
        """x, checked against the input shape; an unbuilt model is built for it."""
        try:
            x = check_x(x, None if self.params is None else self.input_shape, self.ops, what, self.dtype)
        except ValueError as error:
            where = f"{self.layers[0].where}: " if self.params is not None else ""
            raise type(error)(f"{where}{error}") from None
        if self.params is None:
            self._build(self._internal(x.shape[1:]))
        if self._without_channel:
            x = x[..., None] if self._last else x[:, None]
        return x


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


def _snake(name: str) -> str:
    """Conv2DTranspose -> conv2d_transpose."""
    return re.sub(r"(?<=.)(?=[A-Z][a-z])", "_", name).lower()
