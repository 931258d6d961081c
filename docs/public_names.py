"""What is public: every name that the reference has to explain, and the test of it asks for."""

import functools
import importlib
import inspect

import xpnet

# beside those of xpnet.__all__
MODULES = (
    "datasets.cifar10",
    "datasets.fashion_mnist",
    "datasets.mnist",
    "errors",
    "interop.keras",
    "interop.onnx",
    "interop.torch",
    "testing",
)


def modules():
    """The public modules, by name; those of extras that are missing are left out."""
    names = [name for name in xpnet.__all__ if inspect.ismodule(getattr(xpnet, name))]
    found = {
        f"xpnet.{name}": present(importlib.import_module, f"xpnet.{name}") for name in (*names, *MODULES)
    }
    return {"xpnet": xpnet} | {name: module for name, module in sorted(found.items()) if module}


def present(load, *name):
    """What load yields; None where that needs an extra that is missing, as the error says."""
    try:
        return load(*name)
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        return None


def of_module(module):
    """The names of a module: those of __all__, or else what it defines itself."""
    listed = getattr(module, "__all__", None)
    if listed is None:
        own = {
            name
            for name, thing in vars(module).items()
            if getattr(thing, "__module__", "") == module.__name__
        }
        listed = [name for name in vars(module) if name in own]
    found = {name: present(getattr, module, name) for name in listed if not name.startswith("_")}
    return {name: thing for name, thing in found.items() if thing is not None}


def of_class(cls):
    """A class's methods and properties, its bases' included; not those that a private base asks for."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("xpnet."):
            for name, thing in vars(base).items():
                if not name.startswith("_") and is_member(thing):
                    found.setdefault(name, base)
    return [name for name, first in found.items() if not first.__name__.startswith("_")]


def is_member(thing):
    return inspect.isfunction(thing) or isinstance(thing, (property, classmethod, staticmethod))


@functools.cache
def everything():
    """{full name: object} of all modules, their names, and the members of their classes."""
    found = {}
    for home, module in modules().items():
        found[home] = module
        for name, thing in of_module(module).items():
            found[f"{home}.{name}"] = thing
            if inspect.isclass(thing):
                for member in of_class(thing):
                    found[f"{home}.{name}.{member}"] = inspect.getattr_static(thing, member)
    return found


@functools.cache
def by_last_name():
    """{last part of a name: full name}, where all that go by it are one object."""
    objects = {}
    for full, thing in everything().items():
        objects.setdefault(full.rpartition(".")[2], {}).setdefault(id(thing), full)
    return {name: next(iter(full.values())) for name, full in objects.items() if len(full) == 1}
