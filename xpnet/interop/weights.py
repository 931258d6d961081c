"""Weights alone, as the same torch.nn.Sequential names and shapes them.

    model.save_weights("w.safetensors")    net.load_state_dict(safetensors.torch.load_file("w.safetensors"))
    model.load_weights("w.safetensors")    safetensors.torch.save_file(net.state_dict(), "w.safetensors")

Modules of another make have other names; `names` says which: {"0": "conv1", "3": "head.fc"} for whole modules
(or for single arrays), or a function from our name to theirs.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..errors import ShapeError
from ..params import Slot
from . import files

Names = Mapping[str, str] | Callable[[str], str] | None


def save_weights(model, path, names: Names, overwrite: bool) -> None:
    """What `Sequential.save_weights` does."""
    files.check_new(path, overwrite)
    if Path(path).suffix in (".h5", ".hdf5"):
        from . import keras

        if names is not None:
            raise ValueError("names belongs to safetensors files; a Keras file names arrays by their layers")
        return keras.save_weights(model, path)
    state = model.state_dict()
    renamed = _renamed(state, names)
    files.write(path, {renamed[name]: a for name, a in state.items()}, {"format": "pt"})


def load_weights(model, path, strict: bool, names: Names, skip_mismatch: bool) -> None:
    """What `Sequential.load_weights` does."""
    if files.is_hdf5(path) or files.is_keras(path):
        from . import keras

        if names is not None or not strict or skip_mismatch:
            raise ValueError(
                "names, strict=False and skip_mismatch=True belong to safetensors files; a Keras file is "
                "read layer by layer"
            )
        return keras.load_weights(model, path)
    model._need_built()
    tensors, metadata = files.read(path)
    if "xpnet" in metadata:
        from .saving import weights_of

        tensors = weights_of(tensors)
    slots = dict(model._named_slots())
    renamed = _renamed(slots, names)
    if skip_mismatch:
        strict = False
        shapes = {renamed[name]: slot.shape for name, slot in slots.items()}
        tensors = {name: a for name, a in tensors.items() if a.shape == shapes.get(name)}
    check(slots, tensors, renamed, strict, Path(path).name)
    model.load_state_dict(
        {name: tensors[theirs] for name, theirs in renamed.items() if theirs in tensors}, strict
    )


def check(
    slots: Mapping[str, Slot], tensors: Mapping, renamed: Mapping[str, str], strict: bool, source: str
) -> None:
    """ShapeError that names the first array, in the order of the model, that is missing or has another shape;
    then the first that the model has no place for.
    """
    for name, slot in slots.items():
        theirs = renamed[name]
        called = f"{name}" if name == theirs else f"{name} (there {theirs})"
        if theirs in tensors:
            shape = tuple(tensors[theirs].shape)
            if shape != slot.shape:
                raise ShapeError(
                    f"{slot.layer.where}: {called} does not fit. Received: {shape} in {source}. Expected: "
                    f"{slot.shape}{_why(shape, slot.shape)}"
                )
        elif strict:
            spare = {other: tuple(a.shape) for other, a in tensors.items() if other not in renamed.values()}
            raise ShapeError(
                f"{slot.layer.where}: {called} is missing in {source}. Received: {len(tensors)} arrays, "
                f"{_nearest(theirs, slot.shape, spare)}. Expected: {name} of shape {slot.shape}"
                f"{_advice(name, theirs, slot.shape, spare)}"
            )
    strange = [name for name in tensors if name not in renamed.values()]
    if strict and strange:
        raise ShapeError(
            f"the model has no place for an array. Received: {strange[0]} of shape "
            f"{tuple(tensors[strange[0]].shape)} in {source}"
            + (f", and {len(strange) - 1} more" if len(strange) > 1 else "")
            + f". Expected: {len(slots)} arrays, {', '.join(_close(strange[0], renamed.values()))}"
            "; the same layers in the same order; strict=False takes what fits"
        )
    if slots and not any(name in tensors for name in renamed.values()):
        raise ShapeError(
            f"none of the arrays belongs to the model. Received: {', '.join(list(tensors)[:3]) or 'none'} in "
            f"{source}. Expected: names such as {next(iter(renamed.values()))}; names= says what they are "
            "called there"
        )


def _renamed(ours: Iterable[str], names: Names) -> dict[str, str]:
    """Our name -> theirs, for every array."""
    ours = list(ours)
    if names is None:
        return {name: name for name in ours}
    if callable(names):
        renamed = {name: names(name) for name in ours}
        if not all(isinstance(name, str) for name in renamed.values()):
            raise TypeError(f"names must turn a name into a name. Received: {next(iter(renamed.items()))!r}")
    elif not isinstance(names, Mapping):
        raise TypeError(
            f"names must be a dict or a function. Received: {names!r}. Expected: {{'0': 'conv1'}}"
        )
    else:
        unused = [key for key in names if not any(name == key or name.startswith(f"{key}.") for name in ours)]
        if unused:
            raise ValueError(
                f"names speaks of an array or module that the model does not have. Received: {unused[0]!r}. "
                f"Expected: some of {', '.join(_close(unused[0], ours))}, ..., or the module before the last "
                "dot"
            )
        renamed = {name: _in_table(name, names) for name in ours}
    theirs, times = Counter(renamed.values()).most_common(1)[0] if renamed else ("", 1)
    if times > 1:
        both = [name for name in renamed if renamed[name] == theirs]
        raise ValueError(f"names gives two arrays one name. Received: {theirs!r} for {' and '.join(both)}")
    return renamed


def _in_table(name: str, names: Mapping[str, str]) -> str:
    """name with the longest of its beginnings that stands in the table replaced."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (head := ".".join(parts[:length])) in names:
            return ".".join([names[head], *parts[length:]])
    return name


def _why(received: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What may have happened, where the shapes tell."""
    if sorted(received) == sorted(expected):
        turned = "(in, out)" if len(received) == 2 else "another order of axes"
        return f"; it looks like {turned}, as Keras has it: xpnet.interop.keras reads such weights"
    if math.prod(received) == math.prod(expected):
        return "; as many elements in another shape, so another layer"
    return ""


def _close(name: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    return difflib.get_close_matches(name, names, n=3, cutoff=0) or names[:3]


def _nearest(name: str, shape, spare: Mapping[str, tuple[int, ...]]) -> str:
    """The arrays that it may be called instead, those of its shape first."""
    fitting = [other for other in spare if spare[other] == tuple(shape)]
    close = _close(name, fitting or spare)
    if not close:
        return "all of which the model knows"
    return "the nearest " + ", ".join(f"{other} {spare[other]}" for other in close)


def _advice(name: str, theirs: str, shape, spare: Mapping[str, tuple[int, ...]]) -> str:
    """The `names` that would find it, where there is a guess."""
    kind = name.rpartition(".")[2]
    prefixed = [other for other in spare if other.endswith(f".{theirs}") and spare[other] == tuple(shape)]
    if prefixed:
        prefix = prefixed[0].removesuffix(theirs)
        return f"; names=lambda name: {prefix!r} + name finds it"
    for other in _close(name, [o for o in spare if spare[o] == tuple(shape) and o.endswith(f".{kind}")]):
        module = other.rpartition(".")[0]
        ours = name.rpartition(".")[0]
        return f"; where {module!r} is this layer, names={{{ours!r}: {module!r}, ...}} says so"
    return "; the same layers in the same order, or strict=False, which takes what fits"
