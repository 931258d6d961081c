"""Keras's layers as xpnet's: from the configuration of a model, alive or in a .keras file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn, Protocol

import numpy as np

from ... import activations as A
from ... import layers as L
from ...errors import ModelFileError, warn
from .write import Entry, Join


class Source(Protocol):
    """Where the arrays of the layers of one model are."""

    def arrays(self, kind: str, name: str) -> list[np.ndarray]: ...

    def inside(self, kind: str, name: str) -> Source: ...


CHAINS = ("Sequential", "Functional", "Model")


def chain(description: dict[str, Any], source: Source, where: str = "layer") -> list[Entry | Join]:
    """The layers of a model that run one after another or in branches that join again, those of models inside
    it included.

    description: {"class_name", "config"}, as Keras serializes a model.
    """
    kind, config = description.get("class_name"), description.get("config", {})
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        raise ModelFileError(
            f"this Keras model does not tell its layers. Received: {kind}. Expected: a Sequential or a "
            "functional model; for one with a call of its own put its layers into keras.Sequential([...])"
        )
    parts: dict[str, list[Entry | Join]] = {}
    for index, one in enumerate(config["layers"]):
        kind, name = one["class_name"], one["config"].get("name", str(index))
        place = f"{where} {index} {name!r} ({kind})"
        if kind in CHAINS:
            parts[name] = chain(one, source.inside(kind, name), f"{place} > layer")
        else:
            built = {"built_for": (one.get("build_config") or {}).get("input_shape")}
            parts[name] = [*plain(Entry(kind, one["config"] | built, source.arrays(kind, name), place))]
    if "output_layers" in config:
        return Graph(config, parts).unrolled()
    return [entry for part in parts.values() for entry in part]


def input_shape(description: dict[str, Any]) -> tuple[int, ...]:
    """The shape of one sample, channels last."""
    config = description["config"]
    shape = next(
        (
            found
            for one in [*config["layers"][:1], {"config": config}]
            for key in ("batch_shape", "batch_input_shape", "build_input_shape")
            if (found := one["config"].get(key)) is not None
        ),
        None,
    )
    first = config["layers"][0] if config["layers"] else {}
    if shape is None and first.get("class_name") in CHAINS:
        return input_shape(first)
    if not isinstance(shape, (list, tuple)) or None in shape[1:]:
        raise ModelFileError(
            f"the Keras model leaves the shape of its samples open. Received: {shape}. Expected: fixed "
            "sizes, by keras.Input(shape) as its first layer or model.build"
        )
    return tuple(shape[1:])


class Graph:
    """A functional model as a graph of its layers.

    inputs, users: by a layer's name, the layers whose outputs it takes and those that take its own.  parts:
    what each layer is.
    """

    def __init__(self, config: dict[str, Any], parts: dict[str, list[Entry | Join]]):
        self.parts = parts
        self.inputs: dict[str, list[str]] = {}
        for name, one in zip(parts, config["layers"]):
            nodes = one.get("inbound_nodes", [])
            if len(nodes) > 1:
                self.refuse(name, "is used more than once")
            self.inputs[name] = [t for node in nodes for t in _tensors(node)]
        self.users: dict[str, list[str]] = {name: [] for name in parts}
        for name, sources in self.inputs.items():
            for one in sources:
                if name not in self.users[one]:
                    self.users[one].append(name)
        ends = config["output_layers"]  # [name, node, tensor], or a list of such
        self.ends = [ends[0]] if isinstance(ends[0], str) else [end[0] for end in ends]

    def unrolled(self) -> list[Entry | Join]:
        first = [name for name, sources in self.inputs.items() if not sources]
        if len(first) != 1:
            self.refuse(", ".join(first), "are inputs side by side")
        found, last, merge = self.follow(first[0])
        if merge is not None:
            self.refuse(merge, "joins what did not part")
        if [last] != self.ends:
            self.refuse(last, f"is not the output, which is {', '.join(self.ends)}")
        return self.parts[first[0]] + found

    def follow(self, name: str) -> tuple[list[Entry | Join], str, str | None]:
        """What comes behind a layer up to where its branch joins others, the last layer of that, and the one
        that joins, if any.
        """
        found: list[Entry | Join] = []
        while users := self.users[name]:
            if len(users) > 1:
                name = self.fork(name, found)
            elif len(self.inputs[users[0]]) > 1:
                return found, name, users[0]
            else:
                name = users[0]
                found += self.parts[name]
        return found, name, None

    def fork(self, name: str, found: list[Entry | Join]) -> str:
        """Append the branches behind a layer; the layer that joins them."""
        branches: dict[str, list[Entry | Join]] = {}  # by the layer that each ends with
        merges: set[str | None] = set()
        for user in self.users[name]:
            if len(self.inputs[user]) > 1:
                branches[name] = []
                merges.add(user)
            else:
                inner, last, joined_by = self.follow(user)
                branches[last] = self.parts[user] + inner
                merges.add(joined_by)
        merge = merges.pop()
        if merges or merge is None or sorted(self.inputs[merge]) != sorted(branches):
            self.refuse(name, "parts into branches that do not all join in one layer")
        join = self.parts[merge][0]
        if not isinstance(join, Entry) or join.kind not in ("Add", "Concatenate"):
            self.refuse(merge, "joins branches in another way than Add and Concatenate")
        if join.kind == "Concatenate":
            _check_axes(join, (-1,))
        found.append(Join(join.kind, merge, [branches[one] for one in self.inputs[merge]]))
        return merge

    def refuse(self, name: str, what: str) -> NoReturn:
        raise ModelFileError(
            f"the Keras model is no chain of layers and blocks. Received: {name!r}, which {what}. Expected: "
            "layers one after another, or in branches that meet in an Add or a Concatenate; for other "
            "graphs model.export('m.onnx', format='onnx') and xpnet.interop.onnx.load"
        )


def _tensors(node: Any) -> Iterator[str]:
    """The names of the layers whose outputs a node takes."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            yield node["config"]["keras_history"][0]
        else:
            for part in node.values():
                yield from _tensors(part)
    elif isinstance(node, (list, tuple)):
        if len(node) == 4 and isinstance(node[0], str):  # Keras 2: [layer, node, tensor, arguments]
            yield node[0]
        else:
            for part in node:
                yield from _tensors(part)


def plain(entry: Entry) -> Iterator[Entry]:
    """The entry with the arrays that it leaves out, or the two that it stands for."""
    kind, config, arrays, where = entry
    if kind == "SeparableConv2D":
        shared = {key: config[key] for key in ("name", "trainable", "data_format") if key in config}
        window = {key: config[key] for key in ("kernel_size", "strides", "padding", "dilation_rate")}
        many = config["depth_multiplier"]
        yield Entry(
            "DepthwiseConv2D",
            shared | window | {"depth_multiplier": many, "use_bias": False},
            arrays[:1],
            where,
        )
        last = {key: config[key] for key in ("filters", "activation", "use_bias")}
        point = {"kernel_size": 1, "strides": 1, "padding": "valid", "dilation_rate": 1, "groups": 1}
        yield Entry(
            "Conv2D", shared | {"name": f"{config['name']}_pointwise"} | point | last, arrays[1:], where
        )
        return
    if kind in ("BatchNormalization", "LayerNormalization", "GroupNormalization") and arrays:
        rest = list(arrays)
        scale = rest.pop(0) if config.get("scale", True) else np.ones_like(rest[0] if rest else arrays[0])
        shift = rest.pop(0) if config.get("center", True) else np.zeros_like(scale)
        arrays = [scale, shift, *rest]
    if kind == "Normalization":
        if config.get("mean") is not None:
            arrays = [np.ravel(np.asarray(config[key], np.float32)) for key in ("mean", "variance")]
        arrays = arrays[:2]
    yield Entry(kind, config, arrays, where)


# -- the layer of an entry -----------------------------------------------------------------------------------


def layers(entries: list[Entry | Join]) -> list[L.Layer]:
    """xpnet's layers of a chain."""
    return [made for entry in entries if (made := _layer(entry)) is not None]


def flat(entries: list[Entry | Join]) -> Iterator[Entry]:
    """The layers of a chain and of its branches, in the order of `Sequential.all_layers`."""
    for entry in entries:
        if isinstance(entry, Join):
            for branch in _in_order(entry):
                yield from flat(branch)
        else:
            yield entry


def _in_order(join: Join) -> list[list[Entry | Join]]:
    """The branches as our layer has them: one that adds the input itself is no body."""
    return sorted(join.branches, key=lambda branch: not branch) if join.kind == "Add" else join.branches


def _layer(entry: Entry | Join) -> L.Layer | None:
    """The layer of an entry; None for what only tells a shape."""
    if isinstance(entry, Join):
        branches = [layers(branch) for branch in _in_order(entry)]
        if entry.kind == "Concatenate":
            return L.Concatenate(branches, name=entry.name)
        if len(branches) != 2:
            raise ModelFileError(
                f"{entry.name!r} adds up more branches than xpnet's Residual. Received: {len(branches)}. "
                "Expected: 2; nest them"
            )
        return L.Residual(branches[0], branches[1] or None, name=entry.name)
    if entry.kind == "InputLayer":
        return None
    if entry.kind not in _TABLE:
        _fail(entry, entry.kind, f"one of {', '.join(sorted(_TABLE))}{_instead(entry.kind)}")
    config = entry.config
    _need(entry, "data_format", "channels_last", None)
    for key in ("kernel_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint"):
        if config.get(key) is not None:
            warn(f"{entry.where}: {key} is left out; it takes part in training alone")
    try:
        made = _TABLE[entry.kind](entry, config)
    except KeyError as error:
        _fail(entry, f"a description without {error}", "what Keras 3 writes")
    except ModelFileError:
        raise
    except ValueError as error:
        raise ModelFileError(f"{entry.where}: {error}") from None
    made.name, made.trainable = config.get("name"), config.get("trainable", True)
    return made


def _fail(entry: Entry, received: str, expected: str) -> NoReturn:
    raise ModelFileError(
        f"{entry.where} has no counterpart in xpnet. Received: {received}. Expected: {expected}"
    )


def _need(entry: Entry, key: str, *values) -> None:
    """ModelFileError unless the configuration has one of the values, or no such key."""
    received = entry.config.get(key, values[0])
    if isinstance(received, list):
        received = tuple(received)
    if received not in values:
        _fail(entry, f"{key}={received!r}", f"{key}={values[0]!r}")


def _instead(kind: str) -> str:
    if kind.startswith("Random"):
        return "; pictures are varied by xpnet.data while training: leave the layer out"
    return ""


def _activation(entry: Entry) -> A.ActivationFunction:
    word = entry.config.get("activation")
    try:
        return A.get(word)
    except ValueError as error:
        _fail(entry, f"activation={word!r}", str(error).rpartition("Expected ")[2])


def _dense(entry, config):
    return L.Dense(config["units"], _activation(entry), config["use_bias"])


def _window(config) -> dict[str, Any]:
    keys = ("kernel_size", "strides", "padding", "dilation_rate", "use_bias")
    return {key: _tuple(config[key]) for key in keys}


def _tuple(value):
    return tuple(map(_tuple, value)) if isinstance(value, (list, tuple)) else value


def _conv(entry, config):
    return L.Conv2D(
        config["filters"], **_window(config), groups=config["groups"], activation=_activation(entry)
    )


def _depthwise(entry, config):
    channels = entry.arrays[0].shape[2] if entry.arrays else 1
    return L.Conv2D(
        channels * config["depth_multiplier"],
        **_window(config),
        groups=channels,
        activation=_activation(entry),
    )


def _conv_transpose(entry, config):
    return L.Conv2DTranspose(
        config["filters"],
        **_window(config),
        output_padding=_tuple(config.get("output_padding")),
        activation=_activation(entry),
    )


def _pooling(kind):
    return lambda entry, config: kind(
        _tuple(config["pool_size"]), _tuple(config["strides"]), config["padding"]
    )


def _global(kind):
    def make(entry, config):
        _need(entry, "keepdims", False)
        return kind()

    return make


def _reshape(entry, config):
    return L.Reshape(_tuple(config["target_shape"]))


def _dropout(kind):
    def make(entry, config):
        _need(entry, "noise_shape", None)
        return kind(config["rate"])

    return make


def _check_axes(entry: Entry, *allowed: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a normalization, counted from the last; ModelFileError unless they are allowed."""
    given, shape = _tuple(entry.config["axis"]), entry.config["built_for"]
    axes = (given,) if isinstance(given, int) else tuple(given)
    if shape:
        axes = tuple(axis - len(shape) if axis >= 0 else axis for axis in axes)
    if axes not in allowed:
        _fail(entry, f"axis={given}", f"axis={allowed[0][0]}, the features or channels")
    return axes


def _batch_norm(entry, config):
    _check_axes(entry, (-1,))
    _need(entry, "renorm", False)
    return L.BatchNormalization(config["momentum"], config["epsilon"])


def _layer_norm(entry, config):
    _need(entry, "rms_scaling", False)
    axes = _check_axes(entry, (-1,), (-3, -2, -1))
    return L.LayerNormalization(config["epsilon"], axis="channels" if axes == (-1,) else None)


def _group_norm(entry, config):
    _check_axes(entry, (-1,))
    return L.GroupNormalization(config["groups"], config["epsilon"])


def _normalization(entry, config):
    _need(entry, "invert", False)
    _check_axes(entry, (-1,), ())
    return L.Normalization()


def _relu(entry, config):
    _need(entry, "max_value", None)
    _need(entry, "threshold", 0.0, 0)
    return L.Activation(A.LeakyReLU(config["negative_slope"]) if config["negative_slope"] else "relu")


def _softmax(entry, config):
    _need(entry, "axis", -1, (-1,))
    return L.Activation("softmax")


_TABLE = {
    "Activation": lambda entry, config: L.Activation(_activation(entry)),
    "AveragePooling2D": _pooling(L.AveragePooling2D),
    "BatchNormalization": _batch_norm,
    "Conv2D": _conv,
    "Conv2DTranspose": _conv_transpose,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _dropout(L.Dropout),
    "ELU": lambda entry, config: L.Activation(A.ELU(config["alpha"])),
    "Flatten": lambda entry, config: L.Flatten(),
    "GlobalAveragePooling2D": _global(L.GlobalAveragePooling2D),
    "GlobalMaxPooling2D": _global(L.GlobalMaxPooling2D),
    "GroupNormalization": _group_norm,
    "Identity": lambda entry, config: L.Activation("linear"),
    "InputLayer": None,
    "LayerNormalization": _layer_norm,
    "LeakyReLU": lambda entry, config: L.Activation(A.LeakyReLU(config["negative_slope"])),
    "MaxPooling2D": _pooling(L.MaxPooling2D),
    "Normalization": _normalization,
    "ReLU": _relu,
    "Rescaling": lambda entry, config: L.Rescaling(config["scale"], config["offset"]),
    "Reshape": _reshape,
    "SeparableConv2D": None,
    "Softmax": _softmax,
    "SpatialDropout2D": _dropout(L.SpatialDropout2D),
    "UpSampling2D": lambda entry, config: L.UpSampling2D(_tuple(config["size"]), config["interpolation"]),
    "ZeroPadding2D": lambda entry, config: L.ZeroPadding2D(_tuple(config["padding"])),
}  # fmt: skip
