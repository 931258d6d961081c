"""The reference names everything public, says what the signature asks for, and its tables are true."""

import ast
import importlib.util
import inspect
import os
import pydoc
import re
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet import (
    activations,
    callbacks,
    data,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    networks,
    optimizers,
    schedules,
)
from xpnet.config import arguments as config_arguments

os.environ.setdefault("KERAS_BACKEND", "torch")

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
import public_names  # noqa: E402

EVERYTHING = public_names.everything()
CALLABLES = {  # each once, though subclasses have it too
    thing: name
    for name, thing in reversed(EVERYTHING.items())
    if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__.startswith("xpnet")
}


# of Keras's, on arrays of NumPy 2
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)


def arguments(thing):
    """The names of a callable's arguments."""
    try:
        found = inspect.signature(thing).parameters.values()
    except ValueError:  # of Python's own errors
        return set()
    return {p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - {
        "self",
        "cls",
        "_names",
    }


# -- what is in the built reference --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inventory(tmp_path_factory):
    """The names that a build of the reference explains, {kind: names}; the build meets no warning."""
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    out = tmp_path_factory.mktemp("reference")
    settings = {
        "extensions": "myst_parser,docstrings,command_line",
        "root_doc": "reference/index",
        "include_patterns": "reference/**,coming-from/**",
        "suppress_warnings": "toc.not_included,myst.xref_missing",  # of the pages that are left out here
        "html_theme": "furo",
    }
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-C", "-b", "html", str(DOCS), str(out)]
        + [f"-D{name}={value}" for name, value in settings.items()],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(DOCS), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = zlib.decompress((out / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    found: dict[str, set[str]] = {}
    for line in lines:
        name, kind = re.match(r"(.+?) (\w+:\w+) -?\d+ ", line).groups()
        found.setdefault(kind.partition(":")[0], set()).add(name)
    return found


def test_every_public_name_is_in_the_reference(inventory):
    explained = inventory["py"]
    objects = {id(thing) for name, thing in EVERYTHING.items() if name in explained}
    homes = {}  # class: the names it is explained under
    for name in sorted(explained):
        homes.setdefault(pydoc.locate(name), []).append(name)

    def is_explained(name, thing):
        if name in explained or inspect.ismodule(thing):
            return name in explained
        owner, _, member = name.rpartition(".")
        if inspect.isclass(EVERYTHING.get(owner)):
            bases = EVERYTHING[owner].__mro__
            return any(f"{home}.{member}" in explained for base in bases for home in homes.get(base, ()))
        return id(thing) in objects

    assert not [name for name, thing in EVERYTHING.items() if not is_explained(name, thing)]


def test_every_word_of_the_command_line_is_in_the_reference(inventory):
    command_line = pytest.importorskip("command_line")
    for command, parser in command_line.parsers().items():
        for action in parser._actions:
            for word in action.option_strings or [action.metavar]:
                assert f"xpnet-{command}.{word}" in inventory["std"]


def test_the_index_lists_every_page():
    listed = re.search(r"```\{toctree\}.*?\n\n(.*?)```", (DOCS / "reference/index.md").read_text(), re.S)
    pages = {page.stem for page in (DOCS / "reference").glob("*.md")} - {"index"}
    assert set(listed[1].split()) == pages


def test_a_docstring_becomes_a_list_of_arguments_errors_and_shapes():
    reread = pytest.importorskip("docstrings").reread

    def scale(x, factor=2.0, *, mode="same"):
        """x (N, D) -> y (N, K), |x * factor|.

            y = |x| * factor

        factor, mode: "same" or not, as `fit` has it.  x: of any length.  Raises ShapeError for maps.
        """

    lines = reread(inspect.getdoc(scale).splitlines(), scale, "xpnet.Sequential.scale")
    assert [line.rstrip() for line in lines] == [
        "\\ ``x (N, D) → y (N, K)``\\ , \\|x \\* factor\\|.", "",
        ".. code-block:: text", "", "       y = |x| * factor", "",
        ".. container:: arguments", "",
        "   ``factor=2.0``, ``mode='same'``",
        "       \\ ``\"same\"``\\  or not, as \\ :py:obj:`fit <xpnet.Sequential.fit>`\\  has it.", "",
        "   ``x``", "       of any length.", "", "",
        ".. container:: raises", "",
        "   **Raises** \\ :py:obj:`ShapeError <xpnet.ShapeError>`\\  for maps.", "",
    ]  # fmt: skip


# -- what the docstrings say ---------------------------------------------------------------------------------


def own_or_inherited(name, thing):
    """The docstring of an object; of a method that has none, its base's."""
    owner, _, member = name.rpartition(".")
    bases = EVERYTHING[owner].__mro__ if inspect.isclass(EVERYTHING.get(owner)) else ()
    docs = (thing.__doc__, *(getattr(vars(base).get(member), "__doc__", None) for base in bases))
    return inspect.cleandoc(next(filter(None, docs), ""))


def test_every_public_name_has_a_docstring():
    assert not [
        name
        for name, thing in EVERYTHING.items()
        if name != "xpnet.__version__" and not own_or_inherited(name, thing)
    ]


def explained_names(name, thing):
    """The words of all that may tell of an object's arguments: its docstring, those of its class, bases and
    module, what these refer to, and the reference's list of letters.
    """
    owner = EVERYTHING[name.rpartition(".")[0]]
    docs = [own_or_inherited(name, thing), owner.__doc__, inspect.getmodule(thing).__doc__]
    for cls in filter(inspect.isclass, (thing, owner)):
        docs += [base.__doc__ for base in cls.__mro__ if base.__module__.startswith("xpnet")]
    others = re.findall(r"(?:those\s+of|as\s+in)\s+`([\w.]+)`", " ".join(filter(None, docs)))
    home = name.rpartition(".")[0]
    full = [name for one in others for name in (f"{home}.{one}", public_names.by_last_name().get(one))]
    docs += [EVERYTHING[one].__doc__ for one in full if one in EVERYTHING]
    letters = (row["letter"] for row in table("index", "letter"))
    return set(re.findall(r"\w+", " ".join(filter(None, [*docs, *letters]))))


def overrides(name, thing):
    """Whether a base of its class has it, too, and explains it."""
    owner = EVERYTHING[name.rpartition(".")[0]]
    bases = owner.__mro__[1:] if inspect.isclass(owner) else ()
    return any(vars(base).get(thing.__name__, thing) is not thing for base in bases)


def test_every_argument_is_told():
    silent = {}
    for thing, name in CALLABLES.items():
        missing = arguments(thing) - explained_names(name, thing)
        if missing and not overrides(name, thing):
            silent[name] = sorted(missing)
    assert not silent


SHAPE = re.compile(r"\((?:[A-Z]{1,2}|\d+|\.\.\.|\*\w+)[^()]*,[^()]*\)|any shape|of shape|shape of|flat array")
ARRAYS = {"x", "y", "X", "a", "dy", "p", "z", "images", "maps", "points"}


def takes_arrays(thing):
    if inspect.isclass(thing):
        return issubclass(thing, (layers.Layer, losses.Loss, metrics.Metric))
    return ARRAYS & arguments(thing) and "Writer" not in thing.__qualname__  # whose x is a name in a graph


def test_what_takes_arrays_tells_their_shapes():
    silent = []
    for thing, name in CALLABLES.items():
        owner = EVERYTHING[name.rpartition(".")[0]]
        docs = [own_or_inherited(name, thing)]
        for cls in filter(inspect.isclass, (thing, owner)):
            docs += [base.__doc__ for base in cls.__mro__ if base.__module__.startswith("xpnet")]
            docs += [inspect.getmodule(cls).__doc__]
        if takes_arrays(thing) and not SHAPE.search(" ".join(filter(None, docs))):
            silent.append(name)
    assert not silent


def raised(function):
    """The classes of errors that a function's own body raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    makers = {"unknown": "ValueError", "bad_data": "DatasetError"}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Raise)
            and isinstance(node.exc, ast.Call)
            and isinstance(node.exc.func, ast.Name)
        ):
            yield makers.get(node.exc.func.id, node.exc.func.id)


def test_what_is_raised_is_told():
    silent = {}
    for thing, name in CALLABLES.items():
        if inspect.isfunction(thing):
            told = f"{own_or_inherited(name, thing)} {EVERYTHING[name.rpartition('.')[0]].__doc__}"
            missing = {one for one in raised(thing) if one.endswith("Error") and one not in told}
            missing -= {"NotImplementedError"}
            if missing:
                silent[name] = sorted(missing)
    assert not silent


# -- the tables ----------------------------------------------------------------------------------------------


def table(page, first):
    """The rows of the page's table whose first column has this heading: {heading: cell}."""
    lines = iter((DOCS / "reference" / f"{page}.md").read_text().splitlines())
    head = next(cells(line) for line in lines if line.startswith(f"| {first} |"))
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(head, cells(line), strict=True)))
    assert rows
    return rows


def cells(line):
    return [re.sub(r"^`(.*)`$", r"\1", cell.strip()) for cell in line.strip().strip("|").split("|")]


def ids(row):
    return next(cell for cell in row.values() if cell)


def call(code, *places):
    """The value of a table's code, whose names stand in these modules."""
    names = {key: value for place in reversed(places) for key, value in vars(place).items()}
    return eval(code, names)


rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same numbers, alone or after others."""
    global rng
    rng = np.random.default_rng(1)
    if importlib.util.find_spec("torch"):
        import torch

        torch.manual_seed(1)
    if importlib.util.find_spec("keras"):
        import keras

        keras.utils.set_random_seed(1)


LAYERS = table("layers", "layer")
for _row in LAYERS:
    _row["keras.layers"] = _row["keras.layers"].replace("the same", _row["layer"])


@pytest.mark.parametrize("row", LAYERS, ids=ids)
def test_shapes_of_layers(row):
    shape = ast.literal_eval(row["in"])
    model = xpnet.Sequential([call(row["layer"], layers)], input_shape=shape, device="cpu")
    assert model.output_shape == ast.literal_eval(row["out"])
    assert model.predict(rng.normal(size=(3, *shape)).astype("f")).shape == (3, *model.output_shape)


@pytest.mark.torch
@pytest.mark.parametrize("row", [row for row in LAYERS if row["torch.nn"]], ids=ids)
def test_layers_and_pytorchs(row):
    torch = pytest.importorskip("torch")
    net = call(f"Sequential({row['torch.nn']})", torch.nn).eval()
    shape = ast.literal_eval(row["in"])
    model = xpnet.Sequential([call(row["layer"], layers)], input_shape=shape, device="cpu")
    model.load_state_dict(net.state_dict())
    x = rng.normal(size=(3, *shape)).astype("f")
    with torch.no_grad():
        np.testing.assert_allclose(model.predict(x), net(torch.from_numpy(x)), atol=1e-5)


@pytest.mark.parametrize("row", [row for row in LAYERS if row["keras.layers"]], ids=ids)
def test_layers_and_kerass(row):
    keras = pytest.importorskip("keras")
    shape = ast.literal_eval(row["in"])
    shape = (*shape[1:], shape[0])
    net = keras.Sequential([keras.Input(shape), call(row["keras.layers"], keras.layers)])
    one = [call(row["layer"], layers)]
    model = xpnet.Sequential(one, input_shape=shape, device="cpu", data_format="channels_last")
    xpnet.interop.keras.load_weights(model, net)
    x = rng.normal(size=(3, *shape)).astype("f")
    np.testing.assert_allclose(model.predict(x), np.asarray(net(x).detach()), atol=1e-5)


def test_the_table_of_layers_is_whole():
    named = {row["layer"].partition("(")[0] for row in LAYERS}
    aliases = {"AvgPool2D", "MaxPool2D", "GlobalAvgPool2D", "GlobalMaxPool2D", "InputLayer"}
    assert named | aliases | {"Input", "Layer"} == set(layers.__all__)


@pytest.mark.parametrize(
    "row", [row for page in ("layers", "losses") for row in table(page, "code")], ids=ids
)
def test_what_is_refused(row):
    error = {"ShapeError": xpnet.ShapeError, "ValueError": ValueError, "TypeError": TypeError}[row["raises"]]
    with pytest.raises(error, match=re.escape(row["says"])):
        call(row["code"], layers, xpnet)


@pytest.mark.parametrize("row", table("activations", "name"), ids=ids)
def test_activations_and_the_others(row):
    from xpnet.ops.reference import Ops

    z = rng.normal(size=(5, 7)).astype("f") * 2
    y, _ = activations.get(ast.literal_eval(row["name"]))(Ops(), z.copy())
    torch = pytest.importorskip("torch")
    np.testing.assert_allclose(y, call(row["torch.nn"], torch.nn)(torch.from_numpy(z)), atol=1e-6)
    keras = pytest.importorskip("keras")
    theirs = getattr(keras.activations, row["keras.activations"])(torch.from_numpy(z))
    np.testing.assert_allclose(y, theirs, atol=1e-6)


def test_the_table_of_activations_is_whole():
    assert [ast.literal_eval(row["name"]) for row in table("activations", "name")] == list(activations.TABLE)


LOSSES = table("losses", "name")


def targets_and_logits(row):
    p = rng.normal(size=(6, 4)).astype("f")
    y = {
        "classes": rng.integers(4, size=6),
        "rows": rng.dirichlet(np.ones(4), size=6).astype("f"),
        "0 to 1": rng.random((6, 4)).astype("f"),
        "numbers": rng.normal(size=(6, 4)).astype("f") * 2,
    }
    return next(value for word, value in y.items() if row["targets `y`"].startswith(word)), p


@pytest.mark.parametrize("row", LOSSES, ids=ids)
def test_losses_and_the_others(row):
    loss = call(row["class"], losses)
    for name in re.findall(r'"(\w+)"', row["name"]):
        assert type(losses.get(name)) is type(loss)
    y, p = targets_and_logits(row)
    ours = loss(y, p)
    torch = pytest.importorskip("torch")
    if row["torch.nn"]:
        theirs = call(row["torch.nn"], torch.nn)(torch.from_numpy(p), torch.from_numpy(y))
        assert ours == pytest.approx(float(theirs), rel=1e-5)
    keras = pytest.importorskip("keras")
    if row["keras.losses"]:
        theirs = call(row["keras.losses"], keras.losses)(torch.from_numpy(y), torch.from_numpy(p))
        assert ours == pytest.approx(float(theirs), rel=1e-5)


def test_the_table_of_losses_is_whole():
    named = {name for row in LOSSES for name in re.findall(r'"(\w+)"', row["name"])}
    assert named == {*losses.TABLE, *losses.ALIASES}


METRICS = table("metrics", "name")


@pytest.mark.parametrize("row", METRICS, ids=ids)
def test_metrics_and_the_others(row):
    import sklearn.metrics

    metric = call(row["class"], metrics)
    for name in re.findall(r'"(\w+)"', row["name"]):
        assert type(metrics.get(name)) is type(metric)
    of_numbers = row["sklearn.metrics"].endswith(("error", "r2_score"))
    p = rng.dirichlet(np.ones(4), size=50).astype("f")
    y = p + rng.normal(size=p.shape).astype("f") * 0.1 if of_numbers else rng.integers(4, size=50)
    ours = metric(y, p)
    theirs = getattr(sklearn.metrics, row["sklearn.metrics"])
    options = {"average": "macro", "zero_division": 0} if re.match("prec|rec|f1", theirs.__name__) else {}
    guess = p if of_numbers or "top_k" in theirs.__name__ else p.argmax(axis=1)
    np.testing.assert_allclose(ours, theirs(y, guess, **options), rtol=1e-5)
    if row["keras.metrics"]:
        torch, keras = pytest.importorskip("torch"), pytest.importorskip("keras")
        other = call(row["keras.metrics"], keras.metrics)
        other.update_state(torch.from_numpy(y), torch.from_numpy(p))
        assert ours == pytest.approx(float(other.result()), rel=1e-4)


def test_the_table_of_metrics_is_whole():
    named = {re.findall(r'"(\w+)"', row["name"])[0] for row in METRICS}
    assert named == set(metrics.TABLE)


def trained_by(optimizer, weights, x, y):
    model = xpnet.Sequential([layers.Dense(3)], input_shape=(4,), device="cpu")
    model.load_state_dict(weights)
    model.compile(optimizer, "mse")
    for _ in range(20):
        model.train_on_batch(x, y)
    return model.state_dict()


OPTIMIZERS = table("optimizers", "name")


@pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row["class"])
def test_optimizers_and_the_others(row):
    torch = pytest.importorskip("torch")
    x, y = rng.normal(size=(16, 4)).astype("f"), rng.normal(size=(16, 3)).astype("f")
    net = torch.nn.Linear(4, 3)
    start = {
        f"0.{name}": value.clone().numpy() for name, value in net.named_parameters() for value in [value.data]
    }
    ours = trained_by(call(row["class"], optimizers), start, x, y)
    name, _, settings = row["torch.optim"].partition("(")
    optimizer = getattr(torch.optim, name)(net.parameters(), **eval(f"dict({settings}"))
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    for name, value in net.named_parameters():
        np.testing.assert_allclose(ours[f"0.{name}"], value.detach(), rtol=1e-3, atol=1e-5)
    keras = pytest.importorskip("keras")
    theirs = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    theirs.set_weights([start["0.weight"].T, start["0.bias"]])
    theirs.compile(call(row["keras.optimizers"], keras.optimizers), "mse")
    for _ in range(20):
        theirs.train_on_batch(x, y)
    np.testing.assert_allclose(ours["0.weight"].T, theirs.get_weights()[0], rtol=1e-3, atol=1e-4)


def test_the_table_of_optimizers_is_whole():
    named = {ast.literal_eval(row["name"]) for row in OPTIMIZERS if row["name"]}
    assert named == {*optimizers.TABLE, "momentum"}
    for row in OPTIMIZERS:
        if row["name"]:
            assert type(optimizers.get(ast.literal_eval(row["name"]))) is type(call(row["class"], optimizers))


@pytest.mark.torch
@pytest.mark.parametrize("row", table("optimizers", "argument"), ids=ids)
def test_defaults_of_optimizers(row):
    torch = pytest.importorskip("torch")
    name, argument = re.match(r"(\w+)\((\w+)\)", row["argument"]).groups()
    word = {"learning_rate": "lr", "epsilon": "eps", "rho": "alpha"}.get(argument, argument)
    ours, theirs = getattr(optimizers, name)(), getattr(torch.optim, name)([torch.zeros(1)])
    assert getattr(ours, argument) == float(row["here"])
    assert theirs.defaults[word] == float(row["PyTorch"])


@pytest.mark.parametrize("row", table("schedules", "schedule"), ids=ids)
def test_schedules_and_kerass(row):
    ours = call(row["schedule"], schedules)
    for step in (0, 50, 100):
        assert ours(step) == pytest.approx(float(row[f"at {step}"]), abs=1e-9)
    keras = pytest.importorskip("keras")
    if row["keras.optimizers.schedules"]:
        theirs = call(row["keras.optimizers.schedules"], keras.optimizers.schedules)
        for step in range(0, 120, 10):
            assert ours(step) == pytest.approx(float(theirs(step)), abs=1e-6)


@pytest.mark.parametrize("row", table("initializers", "name"), ids=ids)
def test_initializers_and_kerass(row):
    one = call(row["class"], initializers)
    for name in re.findall(r'"(\w+)"', row["name"]):
        assert type(initializers.get(name)) is type(one)
    drawn = one(np.random.default_rng(0), (64, 32, 3, 3))
    assert np.std(drawn) == pytest.approx(float(row["deviation"]), rel=0.02)
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(1)
    theirs = np.asarray(call(row["keras.initializers"], keras.initializers)((3, 3, 32, 64)))
    assert np.std(theirs) == pytest.approx(np.std(drawn), rel=0.03)
    assert abs(theirs).max() == pytest.approx(abs(drawn).max(), rel=0.15)


def test_the_table_of_initializers_is_whole():
    named = {name for row in table("initializers", "name") for name in re.findall(r'"(\w+)"', row["name"])}
    assert named == set(initializers.TABLE)


def test_pytorchs_initial_weights():
    torch = pytest.importorskip("torch")
    ours = initializers.VarianceScaling(1 / 3, "fan_in", "uniform")(np.random.default_rng(0), (400, 300))
    theirs = torch.nn.Linear(300, 400)
    for drawn in (ours, theirs.weight.detach().numpy()):
        assert abs(drawn).max() == pytest.approx(300**-0.5, rel=1e-3)
    assert theirs.bias.detach().abs().max() > 0.9 * 300**-0.5


def test_the_table_of_callbacks():
    rows = table("callbacks", "callback")
    assert {row["callback"] for row in rows} | {"RateCurve", "find_learning_rate"} == set(callbacks.__all__)
    keras = pytest.importorskip("keras")
    assert all(hasattr(keras.callbacks, row["keras.callbacks"]) for row in rows if row["keras.callbacks"])


AUGMENTATIONS = table("data", "augmentation")


@pytest.mark.parametrize("row", AUGMENTATIONS, ids=ids)
def test_the_table_of_augmentations(row):
    one = call(row["augmentation"], data)
    answer = {"yes": True, "no": False}
    y = np.arange(6) % 3
    for column, shape in (("images `(N, C, H, W)`", (6, 3, 8, 8)), ("vectors `(N, D)`", (6, 10))):
        x = rng.random(shape).astype("f")
        if not answer[row[column]]:
            with pytest.raises(xpnet.ShapeError, match="needs images"):
                data.apply([one], x, y)
            continue
        changed, targets = data.apply([one], x, y)
        assert changed.shape == shape and not np.array_equal(changed, x)
        assert (targets.ndim == 2) is answer[row["classes `y` become rows"]]
    keras = pytest.importorskip("keras")
    assert hasattr(keras.layers, row["keras.layers"])


def test_the_table_of_augmentations_is_whole():
    named = {row["augmentation"].partition("(")[0] for row in AUGMENTATIONS}
    assert named == set(data.__all__) - {"Augmentation", "apply"}


@pytest.mark.parametrize("row", table("datasets", "loader")[:-1], ids=ids)
def test_the_table_of_datasets(row):
    try:
        (x, y), (xt, yt) = call(row["loader"], datasets)
    except datasets.DatasetError:
        pytest.skip("needs the files of the data set")
    assert x.shape == ast.literal_eval(row["x"]) and xt.shape == ast.literal_eval(row["xt"])
    assert len(np.unique(y)) == int(row["classes"]) and y.dtype == np.int64 and x.dtype == np.float32


@pytest.mark.parametrize("row", table("networks", "network"), ids=ids)
def test_the_table_of_networks(row):
    shape = ast.literal_eval(row["samples"])
    model = xpnet.Sequential(call(row["network"], networks), input_shape=shape, device="cpu")
    assert model.output_shape == (10,)
    assert f"{model.count_params():,}" == row["parameters"]


def test_the_table_of_errors():
    rows = table("errors", "class")
    assert {row["class"] for row in rows} == {
        name
        for name in xpnet.__all__
        if inspect.isclass(getattr(xpnet, name)) and name.endswith(("Error", "Warning"))
    }
    for row in rows:
        assert getattr(xpnet, row["class"]).__base__.__name__ == row["is a"]


# -- what the pages for newcomers name -----------------------------------------------------------------------

COMING = sorted((DOCS / "coming-from").glob("*.md"))
PLACES = [*public_names.modules().values(), xpnet.Sequential]
ROOTS = {"xpnet": xpnet, "model": xpnet.Sequential, "history": callbacks.History}


def column(text, which):
    """The pieces of code in one column of all tables."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield from re.findall(r"`([^`]+)`", line.strip().strip("|").split("|")[which])


def meant(path):
    """What a name may stand for, in any public place."""
    first, *rest = path.split(".")
    found = [getattr(one, first) for one in PLACES if hasattr(one, first)]
    if first in ROOTS:
        found = [ROOTS[first] if rest else ROOTS[first].__call__]
    for name in rest:
        found = [getattr(one, name) for one in found if hasattr(one, name)]
    return found


def takes(thing, word):
    known = config_arguments(thing) if inspect.isclass(thing) else inspect.signature(thing).parameters
    return word in known or word in inspect.signature(thing).parameters


@pytest.mark.parametrize("page", COMING, ids=lambda page: page.stem)
def test_newcomers_are_told_names_and_arguments_that_there_are(page):
    checked, left_out = 0, []
    for code in column(page.read_text(), -1):
        if not importlib.util.find_spec("torch") and "interop.torch" in code:
            left_out.append(code)
        elif re.fullmatch(r"(\w+)(\.\w+)+", code) and code.partition(".")[0] in {*ROOTS, *xpnet.__all__}:
            assert meant(code), code
        elif re.fullmatch(r"(?!self)[A-Za-z_][\w.]*\((?!.*\.\.\.).*\)", code):
            for one in ast.walk(ast.parse(re.sub(r"=(?=[,)])", "=0", code))):
                if isinstance(one, ast.Call):
                    things = meant(ast.unparse(one.func))
                    assert things, code
                    assert all(any(takes(thing, word.arg) for thing in things) for word in one.keywords), code
        else:
            continue
        checked += 1
    assert checked
    if left_out:
        pytest.skip(f"no PyTorch: {', '.join(left_out)}")


@pytest.mark.parametrize("page", COMING, ids=lambda page: page.stem)
def test_what_newcomers_are_told_is_missing_is(page):
    _, heading, text = page.read_text().partition("## What is not there")
    assert heading
    for code in column(text, 0):
        name = code.rpartition(".")[2]
        found = [getattr(one, name) for one in PLACES if hasattr(one, name)]
        found = [one for one in found if not inspect.ismodule(one)]  # imported by whoever came before
        assert name in ("Sequential", "forward") or not found, code
