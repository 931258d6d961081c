"""Objects that can be rebuilt from their constructor's arguments: how an architecture is saved as JSON.

A Configurable keeps each argument of its constructor under the same name, as scikit-learn's estimators do.
Its description is {"class": "layers.Dense", "units": 10, ...}; nothing is pickled, and only classes that
stand in xpnet's own families (or are handed over by `custom_objects`) are ever instantiated.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np

from .errors import ModelFileError

FAMILIES = (
    "layers", "activations", "initializers", "losses", "metrics", "optimizers", "schedules", "data",
)  # fmt: skip


def arguments(cls: Any) -> dict[str, Any]:
    """Names and defaults of the explicit constructor arguments, own first, then those of the bases."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if init is None or base is object:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        for p in parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                found.setdefault(p.name, p.default)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


class Configurable:
    """Base of everything that is saved by its constructor arguments."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, by name.  Raises TypeError where one is not kept as an attribute."""
        missing = [name for name in arguments(type(self)) if not hasattr(self, name)]
        if missing:
            raise TypeError(
                f"{type(self).__name__} cannot be described. Expected: the constructor's argument "
                f"{missing[0]!r} kept as self.{missing[0]}"
            )
        return {name: getattr(self, name) for name in arguments(type(self))}

    def __repr__(self) -> str:
        defaults = arguments(type(self))
        shown = []
        for name, value in ((n, getattr(self, n)) for n in defaults if hasattr(self, n)):
            value, default = _plain(value), defaults[name]
            if default is inspect.Parameter.empty:
                shown.append(repr(value))
            elif value != default and not (default is None and value == "linear"):
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _plain(value: Any) -> Any:
    """value as one would type it: the name of an object that has nothing but defaults, a number for equal
    pairs.
    """
    if isinstance(value, Configurable):
        name = getattr(value, "name", None)
        defaults = arguments(type(value))
        plain = all(_plain(v) == defaults[k] for k, v in value.get_config().items())
        return name if plain and isinstance(name, str) else value
    if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]:
        return value[0]
    return value


def describe(value: Any) -> Any:
    """value as something JSON can hold; TypeError names what cannot be described."""
    if isinstance(value, Configurable):
        cls = type(value)
        family = cls.__module__.removeprefix("xpnet.").split(".")[0]
        own = cls.__module__.startswith("xpnet.") and family in FAMILIES
        label = f"{family}.{cls.__name__}" if own else f"custom.{cls.__name__}"
        return {"class": label} | {k: describe(v) for k, v in value.get_config().items()}
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"cannot be written to a file. Received: {value!r}. Expected: a name, a number or an object of "
        "xpnet's; a function of your own can be wrapped in a subclass of the family it belongs to"
    )


def restore(value: Any, custom_objects: dict[str, type] | None = None) -> Any:
    """The object that `describe` described."""
    if isinstance(value, list):
        return [restore(v, custom_objects) for v in value]
    if not isinstance(value, dict):
        return value
    if "class" not in value:
        return {k: restore(v, custom_objects) for k, v in value.items()}
    family, _, name = str(value["class"]).partition(".")
    cls = (custom_objects or {}).get(name)
    if cls is None and family in FAMILIES:
        cls = getattr(importlib.import_module(f"xpnet.{family}"), name, None)
        if not (isinstance(cls, type) and issubclass(cls, Configurable)):
            cls = None
    if cls is None:
        raise ModelFileError(
            f"the file names a class that is not known here. Received: {value['class']!r}. "
            f"Expected: one of xpnet's own, or your class by custom_objects={{{name!r}: {name}}}"
        )
    arguments = {k: restore(v, custom_objects) for k, v in value.items() if k != "class"}
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ModelFileError(f"{value['class']} cannot be rebuilt from {arguments}: {error}") from error
