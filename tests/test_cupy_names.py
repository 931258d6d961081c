"""The real CuPy has what xpnet and the fakes of the tests take it to have.  Needs CuPy, and no GPU.

What CuPy is asked for is read from the sources: a name that CuPy lacks, or a parameter that it does not take,
would show on a GPU only.
"""

import ast
import inspect
import re
import types
from pathlib import Path

import numpy as np
import pytest
import strict_xp

import xpnet
from xpnet import device
from xpnet.ops import kernels

try:
    import cupy
except Exception as error:  # whatever is wrong with it, `xpnet doctor` tells
    pytest.skip(f"no CuPy to compare with: {error}", allow_module_level=True)

HOUSE = Path(xpnet.__file__).parent
SOURCES = {str(path.relative_to(HOUSE)): path.read_text(encoding="utf-8") for path in HOUSE.rglob("*.py")}


def find(path, root=cupy):
    """root.a.b of "a.b"; None where it is there but its library is not installed."""
    for name in path.split("."):
        try:
            root = getattr(root, name)
        except ImportError:
            return None
    return root


def parameters(f):
    """[(name, kind, has a default)] of a function of CuPy; None where nothing tells.

    kind: "position", "keyword", "*" or "**".  Compiled functions have their signature in their first line.
    """
    try:
        kinds = ("position", "position", "*", "keyword", "**")
        found = inspect.signature(f).parameters.values()
        return [(p.name, kinds[p.kind], p.default is not p.empty) for p in found]
    except (TypeError, ValueError):
        line = ((f.__doc__ or "").strip().splitlines() or [""])[0]
    name = re.escape(getattr(f, "__name__", ""))
    match = re.match(rf"(\w+\.)*{name}\((.*)\)(\s*->.*)?$", line)
    if not match:
        return None
    found, kind = [], "position"
    for part in re.split(r",(?![^(\[]*[)\]])", match[2].replace("\\", "")):
        left, equals, _ = part.partition("=")
        word = left.split(":")[0].split()[-1:] or [""]
        stars = len(word[0]) - len(word[0].lstrip("*"))
        if stars:
            kind = "keyword"
            if word[0] != "*":
                found.append((word[0].lstrip("*"), "*" * stars, False))
        elif word[0]:
            found.append((word[0], kind, bool(equals)))
    return found


def takes(f, positions=0, keywords=()):
    """What of a call with so many positions and these keywords CuPy's f refuses; "" if nothing."""
    there = parameters(f)
    if there is None:
        return ""
    by_position = [name for name, kind, _ in there if kind == "position" and name != "self"]
    if positions > len(by_position) and not any(kind == "*" for _, kind, _ in there):
        return f"{positions} positions of {there}"
    known = {name for name, kind, _ in there if kind in ("position", "keyword")}
    wrong = [name for name in keywords if name not in known]
    return f"{wrong} of {there}" if wrong and not any(kind == "**" for _, kind, _ in there) else ""


def test_signatures_are_read_where_they_are():
    """Of Python functions, of compiled ones by their first line, and None of ufuncs."""
    position, keyword = ("position", "keyword")
    assert parameters(cupy.cuda.Stream.begin_capture) == [("self", position, False), ("mode", position, True)]
    assert parameters(cupy.cuda.MemoryPool.set_limit) == [
        ("self", position, False), ("size", position, True), ("fraction", position, True),
    ]  # fmt: skip
    assert ("backend", keyword, True) in parameters(cupy.RawModule)
    assert parameters(cupy.ndarray.transpose)[-1] == ("axes", "*", False)
    assert takes(cupy.cuda.Device, 1) == "" and takes(cupy.cuda.Device, 2) and takes(cupy.zeros, 1, ["axis"])


# -- xpnet's own code ----------------------------------------------------------------------------------------


def chain(node):
    """["self", "ops", "xp", "zeros"] of self.ops.xp.zeros; [] of anything else."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *names[::-1]] if isinstance(node, ast.Name) else []


def rooted(names, aliases):
    """The path in CuPy of a chain of names; None of another."""
    for at, name in enumerate(names):
        if name in aliases:
            return ".".join([*aliases[name], *names[at + 1 :]])
    return None


def asked(text):
    """[(path in CuPy, the call or None)] of what a source asks CuPy for."""
    tree = ast.parse(text)
    calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    aliases = {"xp": [], "cupy": []}
    for node in ast.walk(tree):  # cuda = cupy.cuda.runtime; self.ops, self.cuda = ops, ops.xp.cuda
        if isinstance(node, ast.Assign):
            (target, *_), value = node.targets, node.value
            both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            for left, right in zip(target.elts, value.elts) if both else [(target, value)]:
                path = rooted(chain(right), {"xp": [], "cupy": []})
                if path and chain(left):
                    aliases[chain(left)[-1]] = path.split(".")
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in inner:
            path = rooted(chain(node), aliases)
            if path:
                found.append((path, calls.get(node)))
    return found


def test_what_xpnet_asks_of_cupy_is_found_in_its_sources():
    found = {path for text in SOURCES.values() for path, _ in asked(text)}
    assert {"zeros", "cuda.Stream", "RawModule", "cuda.nvrtc.getVersion", "cuda.using_allocator"} <= found


@pytest.mark.parametrize("name", [name for name, text in SOURCES.items() if asked(text)])
def test_cupy_has_what_xpnet_asks_for(name):
    for path, call in asked(SOURCES[name]):
        try:
            f = find(path)
        except AttributeError as error:
            pytest.fail(f"{name} asks for cupy.{path}: {error}")
        if call is not None and f is not None and not isinstance(f, cupy.ufunc):
            positions = 0 if any(isinstance(a, ast.Starred) for a in call.args) else len(call.args)
            refused = takes(f, positions, [k.arg for k in call.keywords if k.arg])
            assert not refused, f"{name}, line {call.lineno}: cupy.{path} does not take {refused}"


# -- the fakes -----------------------------------------------------------------------------------------------


def declared(text):
    """(positions, keywords) of the parameters in a table of strict_xp."""
    found = inspect.signature(eval(f"lambda {text}: None")).parameters.values()
    positions = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    # those without a default are a, b and so on, whatever CuPy calls them
    keywords = [p.name for p in found if p.default is not p.empty]
    return len(positions), keywords


@pytest.mark.parametrize(("path", "text"), list(strict_xp._table(strict_xp.FUNCTIONS)))
def test_the_strict_fake_has_the_functions_of_cupy(path, text):
    f = find(path)
    positions, keywords = declared(text)
    refused = "" if isinstance(f, cupy.ufunc) else takes(f, positions, keywords)
    assert not refused, f"cupy.{path} does not take {refused}"


@pytest.mark.parametrize(
    ("name", "text"),
    [*strict_xp._table(strict_xp.METHODS), *((n, "a") for n in strict_xp.SAME_METHODS.split())],
)
def test_the_strict_fake_has_the_methods_of_cupy(name, text):
    positions, keywords = declared(text)
    refused = takes(getattr(cupy.ndarray, name), positions - 1, keywords)
    assert not refused, f"cupy.ndarray.{name} does not take {refused}"


def test_the_strict_fake_has_the_ufuncs_and_types_of_cupy():
    for name in strict_xp.UFUNCS.split():
        theirs, ours = getattr(cupy, name), getattr(np, name)
        assert isinstance(theirs, cupy.ufunc), name
        assert (theirs.nin, theirs.nout) == (ours.nin, ours.nout), name
    for name in strict_xp.SAME_AS_NUMPY.split():
        assert hasattr(cupy, name), name


def test_the_strict_arrays_have_nothing_that_cupys_have_not():
    for name in public(strict_xp.StrictArray):
        assert hasattr(cupy.ndarray, name), name


def public(thing):
    """The names that a module, or a class and those of its bases that are not Python's own, define."""
    places = [c for c in thing.__mro__ if c.__module__ != "builtins"] if inspect.isclass(thing) else [thing]
    return sorted({name for place in places for name in vars(place) if not name.startswith("_")})


def test_the_fake_cupy_has_nothing_that_cupy_has_not():
    fake_cupy = pytest.importorskip("fake_cupy")
    assert list(differences("cupy", fake_cupy.cupy, cupy)) == []


OWN = {"cupy.cuda.Graph.launches", "cupy.cuda.runtime.CUDARuntimeError.NAMES"}
"""What the fake has for the tests."""


def differences(path, fake, real):
    """Every name of the fake that is not there in CuPy, or takes what CuPy's does not."""
    for name in public(fake):
        ours, where = getattr(fake, name), f"{path}.{name}"
        try:
            theirs = getattr(real, name)
        except AttributeError:
            if where not in OWN:
                yield f"CuPy has no {where}"
            continue
        if isinstance(ours, types.ModuleType) or (inspect.isclass(ours) and where != "cupy.ndarray"):
            yield from differences(where, ours, theirs)
        elif inspect.isfunction(ours):
            found = [p for p in inspect.signature(ours).parameters.values() if p.name != "self"]
            if any(p.kind == p.VAR_POSITIONAL for p in found):
                continue  # of the tables above
            keywords = [p.name for p in found if p.default is not p.empty]
            refused = takes(theirs, len(found) - len(keywords), keywords)
            if refused:
                yield f"{where} does not take {refused}"


# -- what CuPy says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (2, "memory"),  # cudaErrorMemoryAllocation
        (3, "fork"),
        (35, "driver"),
        (46, "busy"),
        (100, "hidden"),
        (209, "old GPU"),
        (222, "driver"),  # cudaErrorUnsupportedPtxVersion
        (304, "permission"),
        (802, "not ready"),
        (803, "restart"),
    ],
)
def test_the_words_of_cudas_errors_are_understood(status, kind):
    error = cupy.cuda.runtime.CUDARuntimeError(status)
    assert error.status == status
    assert device.explain(error, 12090, 12090).kind == kind, str(error)


def test_cupys_out_of_memory_error_tells_what_was_asked_for():
    for limit, kind in ((0, "memory"), (4096, "limit")):
        error = cupy.cuda.memory.OutOfMemoryError(1024, 3072, limit)
        assert isinstance(error, MemoryError)
        assert (error._size, error._total, error._limit) == (1024, 3072, limit)
        assert device.explain(error).kind == kind


def test_a_part_of_the_toolkit_that_is_missing_is_understood():
    for load in (lambda: cupy.cuda.nvrtc.getVersion(), lambda: cupy.cuda.cublas):
        try:
            load()
        except Exception as error:
            assert device.explain(error).kind == "toolkit", error


def test_the_engine_can_be_imported_without_a_gpu():
    from xpnet.ops.cupy_ops import CupyOps

    assert CupyOps.name == "cupy"


def test_the_sources_of_the_kernels_are_installed_with_the_package():
    families = {path.stem for path in (HOUSE / "ops" / "kernels").glob("*.py")} - {"__init__"}
    assert families
    for family in families:
        assert "__global__" in kernels.source(family, T="float32")
