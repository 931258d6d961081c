"""The rules of the house that no single module can keep for the others."""

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import xpnet

HOUSE = Path(xpnet.__file__).parent
SOURCES = sorted(HOUSE.rglob("*.py"))
DEVICE_CODE = [HOUSE / "ops", HOUSE / "device.py"]
DEVICE_WORDS = [*DEVICE_CODE, HOUSE / "commands" / "doctor.py"]  # which reports on devices


def outside(homes):
    """The modules that are in none of these files and folders."""
    return [p for p in SOURCES if not any(p == home or home in p.parents for home in homes)]


def name_of(path):
    return str(path.relative_to(HOUSE))


def imports(path):
    """The top names that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def hidden_imports(code):
    """The top names that code imports by a call, `import_module("cupy")`, or in the text of a script."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"(?:^|[;:])[ \t]*(?:import|from)[ \t]+(\w+)", node.value, flags=re.M)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).split(".")[-1]
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value).split(".")[0]


def test_the_house_is_read():
    assert len(SOURCES) > 30 and HOUSE / "layers" / "conv.py" in SOURCES


@pytest.mark.parametrize("path", outside(DEVICE_CODE), ids=name_of)
def test_only_ops_and_device_import_cupy(path):
    assert not {"cupy", "cupyx"} & {*imports(path), *hidden_imports(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize(
    "code",
    [
        'TRY = """\nimport json\ntry:\n    import cupy\nexcept ImportError:\n    pass\n"""',
        'run([sys.executable, "-c", "import sys; from cupy import cuda"])',
        'cupy = importlib.import_module("cupy.cuda")',
        'cupy = __import__("cupy")',
    ],
)
def test_imports_in_scripts_and_calls_are_found(code):
    assert "cupy" in set(hidden_imports(code))


QUESTIONS = r"get_array_module|\bif\b[^\n#]*\b(gpu|cuda|cupy)\b|\bxp\s+is\s+(not\s+)?np\b|\bxp\s*[!=]=\s*np\b"


@pytest.mark.parametrize("path", outside(DEVICE_WORDS), ids=name_of)
def test_only_ops_and_device_ask_which_device_it_is(path):
    text = re.sub(r'""".*?"""', "", path.read_text(encoding="utf-8"), flags=re.S)
    found = re.search(QUESTIONS, text, flags=re.I)
    assert not found, f"{found[0]!r}: what depends on the device belongs in ops/"


FORMULAS = [
    *sorted((HOUSE / "layers").glob("*.py")),
    *(HOUSE / f"{name}.py" for name in ("activations", "initializers", "losses", "metrics", "optimizers")),
    HOUSE / "training" / "step.py",
]
ABOUT_DEVICES = {
    "name",
    "device",
    "in_host_memory",
    "owns",
    "precisions",
    "gpu",
    "stream",
    "blas",
    "__class__",
}


def questions(tree):
    """Where code asks on which device it is: of its ops, or of an array by its type or its methods."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of = node.value
            asked = of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else None
            if (asked == "ops" and node.attr in ABOUT_DEVICES) or node.attr == "in_host_memory":
                yield node
            if asked == "xp" and node.attr in ("__name__", "cuda"):
                yield node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            first, *rest = (ast.unparse(arg) for arg in node.args)
            kinds = r"\b(ndarray|generic|\w*Ops)\b"
            if node.func.id in ("isinstance", "issubclass") and re.search(kinds, " ".join(rest)):
                yield node
            # a layer's own attributes may be looked for; an array's tell whose it is
            if node.func.id in ("hasattr", "getattr") and rest[0] in ("'get'", "'device'", "'data'", "'set'"):
                yield node
            if node.func.id == "type" and first.split(".")[-1] in ("ops", "xp"):
                yield node


@pytest.mark.parametrize("path", FORMULAS, ids=name_of)
def test_no_layer_knows_its_device(path):
    """Nor a loss, a metric, an activation or an optimizer: one formula for all, which `ops` carries out."""
    found = [ast.unparse(node) for node in questions(ast.parse(path.read_text(encoding="utf-8")))]
    assert not found, f"{path.name} asks where it is: {found}; what depends on the device belongs in ops/"


@pytest.mark.parametrize(
    "code",
    [
        "self.ops.in_host_memory", "ops.name == 'cupy'", "self.ops.device", "ops.owns(x)", "type(self.ops)",
        "isinstance(x, np.ndarray)", "isinstance(self.ops, NumpyOps)", "hasattr(x, 'get')",
        "getattr(x, 'device', None)", "ops.xp.__name__", "self.ops.xp.cuda", "type(ops.xp)",
    ],
)  # fmt: skip
def test_such_questions_are_found(code):
    assert list(questions(ast.parse(code)))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_unpickled_or_evaluated(path):
    assert not {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"} & set(imports(path))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None)
            assert name not in ("eval", "exec", "compile", "__import__"), (
                f"{path.name}:{node.lineno} calls {name}"
            )
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle":
                    assert keyword.value.value is False, f"{path.name}:{node.lineno} unpickles"


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if p.parent.name in ("layers", "training") or p.parent == HOUSE],
    ids=lambda p: p.name,
)
def test_optional_libraries_are_imported_where_they_are_used(path):
    """At the top of a module only the standard library and NumPy: the rest would make every import slow."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {
        name.split(".")[0]
        for node in top
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if not getattr(node, "level", 0)
    }
    assert names <= set(sys.stdlib_module_names) | {"numpy"}


OPTIONAL = (
    "cupy",
    "cupyx",
    "matplotlib",
    "onnx",
    "sklearn",
    "scipy",
    "torch",
    "pooch",
    "tqdm",
    "safetensors",
)
TRAIN = """
import numpy as np
model = xpnet.Sequential([xpnet.layers.Conv2D(2, 3, activation="relu"), xpnet.layers.Flatten(),
    xpnet.layers.Dropout(0.5), xpnet.layers.Dense(3)], input_shape=(1, 5, 5), device="cpu", seed=0)
model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
x, y = np.zeros((40, 1, 5, 5), np.float32), np.arange(40) % 3
model.fit(x, y, epochs=2, verbose=0, validation_data=(x, y))
model.predict(x)
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("then", ["", TRAIN], ids=["import", "train"])
def test_optional_libraries_stay_unloaded(then):
    loaded = run(f"import sys, xpnet\n{then}\nprint(*(m for m in {OPTIONAL!r} if m in sys.modules))").split()
    assert not loaded


def test_importing_loads_not_even_numpy():
    """So that `import xpnet` costs next to nothing, whatever it is compared with."""
    code = "import sys, xpnet\nprint(*(m for m in sys.modules if m == 'numpy' or m.startswith('xpnet.')))"
    assert run(code).split() == []


@pytest.mark.parametrize("name", sorted(set(xpnet.__all__) - {"viz", "__version__"}))
def test_every_public_name_can_be_had_first(name):
    """No name depends on another having been imported before it: there is no circle of imports."""
    if name in vars(xpnet) and not hasattr(xpnet, name):
        pytest.fail(f"{name} is announced but missing")
    run(f"import xpnet; xpnet.{name}")


def test_every_module_can_be_imported_first():
    """In a fresh interpreter each, several at a time: imports in any order."""
    names = [
        ".".join(("xpnet", *path.relative_to(HOUSE).with_suffix("").parts)).removesuffix(".__init__")
        for path in SOURCES
        if not {"cupy", "cupyx", "matplotlib", "onnx"} & set(imports(path)) and path.name != "__main__.py"
    ]
    if find_spec("torch") is None:  # whose package says so as it is imported
        names = [name for name in names if not name.startswith("xpnet.interop.torch")]
    code = f"""
import importlib, sys
for name in {names!r}:
    for loaded in [m for m in sys.modules if m == "xpnet" or m.startswith("xpnet.")]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""
    run(code)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'Sequentail'"):
        _ = xpnet.Sequentail
    assert set(xpnet.__all__) == set(dir(xpnet))
