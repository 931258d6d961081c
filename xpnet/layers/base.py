"""What a layer is: three methods, and nothing remembered between them but what is handed over.

    build(in_shape, params) -> out_shape      shapes without the batch: a map (C, H, W) or a vector (D,)
    forward(x, *, train)    -> (y, cache)     never writes x or the layer
    backward(dy, cache)     -> dx             owns dy and may overwrite it; writes the gradients, never adds
    to them

Maps travel as (H, C, W, N), vectors as (N, D).  A layer never asks which device it is on: arrays come from
its `ops`. Only the layer that allocated an array may write to it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from .. import activations
from ..config import Configurable, arguments
from ..errors import NotBuiltError, ShapeError, unknown

if TYPE_CHECKING:
    from ..ops.reference import Ops
    from ..params import Params, Slot

Shape = tuple[int, ...]


_REGULARIZER = "weight_decay= of the optimizer, as in optimizers.AdamW"
_KERAS = {  # words of Keras's that say what belongs to the model here; None: it changes nothing
    "activity_regularizer": _REGULARIZER,
    "bias_regularizer": _REGULARIZER,
    "kernel_regularizer": _REGULARIZER,
    "data_format": "data_format= of the model",
    "dtype": "precision= of the model",
    "seed": None,
}


class Layer(Configurable):
    """Base of all layers: `build`, `forward`, `backward`.

    name: shown in summaries and errors; by default the class's name and a number.  trainable: whether the
    optimizer updates the parameters.  input_shape: of the first layer, without the batch.

    Raises TypeError for arguments it does not know, ValueError for values that cannot be; `build` raises
    ShapeError for a shape that does not fit.
    """

    activation: activations.ActivationFunction = activations.Linear()
    ops: Ops
    where = "layer"  # "layer 3 'dense_1'" once it stands in a model
    label = ""  # the name it goes by in its model
    needs_dx = True  # False on the first layer, whose input nobody trains
    name: str | None = None
    trainable = True
    input_shape: Shape | None = None
    slots: list[Slot] = []  # every built layer has lists of its own
    state_slots: list[Slot] = []
    in_shape: Shape = ()
    out_shape: Shape = ()
    _parent: weakref.ref[Layer] | None = None
    _model: weakref.ref[Any] | None = None

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        input_shape: Shape | int | None = None,
        **unexpected,
    ):
        if input_shape is None and "input_dim" in unexpected:  # Keras's word for vectors
            input_shape = unexpected.pop("input_dim")
        for word in unexpected.keys() & _KERAS:
            value, instead = unexpected.pop(word), _KERAS[word]
            if value is not None and instead:
                raise TypeError(
                    f"{type(self).__name__}: {word} is not the layer's here. Received: {value!r}. Expected: "
                    f"{instead}"
                )
        if unexpected:
            raise TypeError(
                f"{type(self).__name__}: "
                f"{unknown('argument', next(iter(unexpected)), self._argument_names())}"
            )
        if isinstance(input_shape, int):
            input_shape = (input_shape,)
        self.name, self.trainable = name, trainable
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self.slots, self.state_slots = [], []

    def build(self, in_shape: Shape, params: Params) -> Shape:
        """The shape of the outputs for inputs of in_shape: (C, H, W) or (D,), without the batch.

        params: reserves parameters, `params.reserve(self, "weight", shape, initializer)`.  Raises ShapeError
        where in_shape does not suit the layer.
        """
        return in_shape

    def forward(self, x, *, train: bool) -> tuple[Any, Any]:
        """(y, cache): the output for x, (H, C, W, N) or (N, D), and what backward needs.

        train: whether in training.  Never writes x or the layer.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dy, cache) -> Any:
        """dL/dx, of x's shape, from dy = dL/dy, of y's shape; the gradients of the parameters go to
        self.d<name>.

        cache: what forward gave.  dy may be overwritten.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def get_weights(self) -> list:
        """Copies of the layer's arrays in Keras's order and shapes.

        Raises NotBuiltError where it stands in no model.
        """
        return self._standing().get_weights(self)

    def set_weights(self, weights) -> None:
        """Write what `get_weights` gave.  weights: a list of arrays.  Raises ShapeError where one does not
        fit.
        """
        self._standing().set_weights(weights, self)

    def count_params(self) -> int:
        """Elements of the layer's parameters, those of layers inside it included."""
        inner = [one for branch in self.children().values() for one in branch]
        return sum(slot.size for slot in self.slots) + sum(one.count_params() for one in inner)

    def _standing(self):
        if self.model is None:
            raise NotBuiltError(f"{self!r} has no weights yet. Expected: a layer that stands in a model")
        return self.model

    # -- what the model asks of a layer ----------------------------------------------------------------------

    def children(self) -> dict[str, list[Layer]]:
        """The layers inside a container, by the name of the branch."""
        return {}

    def multiply_adds(self) -> int:
        """Multiplications of one sample's forward, for deciding what is worth a second thread."""
        return sum(slot.size for slot in self.slots)

    @property
    def parent(self) -> Layer | None:
        """The container it stands in, which holds it."""
        return None if self._parent is None else self._parent()

    @parent.setter
    def parent(self, container: Layer) -> None:
        self._parent = weakref.ref(container)

    @property
    def model(self) -> Any:
        """The model it stands in, if any."""
        return None if self._model is None else self._model()

    @model.setter
    def model(self, model) -> None:
        self._model = None if model is None else weakref.ref(model)

    @property
    def is_trainable(self) -> bool:
        """Whether the optimizer updates it: neither the layer nor a container around it is frozen."""
        return self.trainable and (self.parent is None or self.parent.is_trainable)

    @property
    def modules(self) -> int:
        """How many torch.nn modules it stands for: a fused activation is one of its own."""
        return 1 if isinstance(self.activation, activations.Linear) else 2

    def twin(self) -> Any:
        """A shallow copy that shares everything, the views into the model's buffers too."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def without_activation(self) -> Layer:
        """A twin whose output is what its activation would be applied to."""
        twin = self.twin()
        twin.activation = activations.Linear()
        return twin

    def fail(self, message: str) -> NoReturn:
        """Raise a ShapeError with this message that names the layer."""
        raise ShapeError(f"{self.where}: {message}")

    def need_map(
        self, in_shape: Shape, fix: str = "give the model images, or put a Reshape((C, H, W)) before it"
    ) -> None:
        """Raises ShapeError unless in_shape is that of a map, (C, H, W).  fix: what to do instead."""
        if len(in_shape) != 3:
            self.fail(f"works on feature maps. Received: {in_shape}. Expected: (C, H, W); {fix}")

    def _argument_names(self) -> list[str]:
        return list(arguments(type(self)))

    def __getstate__(self):
        """Without the views into a model's buffers, which only the model can restore."""
        state = self.__dict__.copy()
        for slot in self.slots:
            state.pop(slot.name, None), state.pop("d" + slot.name, None)
        for slot in self.state_slots:
            state.pop(slot.name, None), state.pop("next_" + slot.name, None)
        for name in ("ops", "stream", "_parent", "_model"):
            state.pop(name, None)
        return state | {"slots": [], "state_slots": []}


def positive(layer_name: str, argument: str, value: Any) -> int:
    """value as a whole number of at least 1."""
    import operator

    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(
            f"{layer_name}: {argument} must be a whole number of at least 1. Received: {value!r}"
        )
    return number


def pair(layer_name: str, argument: str, value: Any, least: int = 1) -> tuple[int, int]:
    """value, a whole number or two of them (rows, columns), as two."""
    import operator

    try:
        both = (value, value) if not isinstance(value, (tuple, list)) else tuple(value)
        a, b = (operator.index(v) for v in both)
        if min(a, b) < least or isinstance(value, bool):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"{layer_name}: {argument} must be a whole number of at least {least}, or a pair (rows, "
            f"columns). Received: {value!r}"
        ) from None
    return a, b
