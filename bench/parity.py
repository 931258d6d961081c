"""How far a device is from the float64 reference: layers, workloads, loss curves; and what must be the same
to the bit.

    python -m bench.parity [JOB ...] [--devices cpu cuda] [--rows FILE]

JOB: same (initial weights, shuffles and dropout masks of every device against the CPU's, by their SHA-256),
layers/TYPE (every setting of a layer in the tests' table, and the benchmarks' larger shapes), workload/NAME
(a training step's outputs and gradients), curve/NAME (losses over 100 steps).

An error is the largest absolute difference over the largest absolute reference value.  Where the inputs of a
ReLU or a maximum agree within rounding, the gradient goes another way: one element may then be far off, so
the root of the mean squared error over that of the reference stands beside it.  The reference is the plain
float64 code of ops/reference.py (for curves, the CPU's in float64), from the same float32 weights.  The CPU
in float32 stands in the tables as a yardstick: what rounding alone does.
"""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from pathlib import Path

import numpy as np

from bench import rows, workloads
from xpnet import Sequential, layers
from xpnet.ops.reference import Ops

PRECISIONS = {"cpu": ["float32"], "cuda": ["float32", "tf32", "bfloat16"]}
STEPS = 100
LONG = ("resnet9",)  # whose curve takes minutes on a CPU: `bench.follow` holds it against PyTorch's


def layer_types() -> list[str]:
    """The classes of layers, without their other names and the functions that make one."""
    found = ((name, getattr(layers, name)) for name in layers.__all__ if name != "Layer")
    return [
        name
        for name, one in found
        if isinstance(one, type) and issubclass(one, layers.Layer) and one.__name__ == name
    ]


def default_jobs() -> list[str]:
    names = list(workloads.WORKLOADS)
    return (
        ["same", *(f"workload/{n}" for n in names)]
        + [f"layers/{kind}" for kind in layer_types()]
        + [f"curve/{n}" for n in names if n not in LONG]
    )


def work(devices: list[str], steps: int, job: str) -> dict:
    kind, _, name = job.partition("/")
    subjects = [
        (device, precision) for device in devices for precision in PRECISIONS[device.partition(":")[0]]
    ]
    if kind == "same":
        return same(devices)
    if kind == "layers":
        return {"errors": (found := of_each(subjects, partial(layer_errors, name)))} | stopped(found)
    if kind == "workload":
        return {"errors": (found := of_each(subjects, partial(workload_errors, name)))} | stopped(found)
    if kind == "curve":
        found = of_each([("cpu", "float64"), *subjects], partial(curve, name, steps))
        return {"losses": found} | stopped(found)
    raise ValueError(f"unknown job {job!r}")


def of_each(subjects, f) -> dict:
    """f of every device and precision, or the error in its place."""
    found = {}
    for subject in subjects:
        try:
            found[" ".join(subject)] = f(*subject)
        except Exception as error:  # one precision's must not cost the others
            found[" ".join(subject)] = {"error": f"{type(error).__name__}: {error}"[:300]}
    return found


def stopped(found: dict) -> dict:
    """The mark of a row after which a process is not used again, where something failed."""
    errors = [one["error"] for one in found.values() if "error" in one]
    return {"stopped": errors[0]} if errors else {}


# -- errors --------------------------------------------------------------------------------------------------


def errors(pairs) -> list[float]:
    """[largest error, root mean square error], each relative and the worst over pairs of (received,
    expected).

    What is zero but for rounding (the gradient of a bias before a normalisation) is held against the others.
    """
    both = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    largest = max((np.abs(b).max() for _, b in both if b.size), default=0.0)
    worst = [0.0, 0.0]
    for a, b in both:
        if a.shape != b.shape or not np.isfinite(a).all():
            return [float("inf"), float("inf")]
        if b.size and largest:
            scales = np.abs(b).max(), np.sqrt((b * b).mean())
            if scales[0] < 1e-9 * largest:
                scales = largest, largest
            found = np.abs(a - b).max() / scales[0], np.sqrt(((a - b) ** 2).mean()) / scales[1]
            worst = [max(old, float(new)) for old, new in zip(worst, found)]
    return worst


def layer_errors(kind: str, device: str, precision: str) -> dict:
    """Forward and gradient errors of a type of layer, the worst over its settings, and how many there are."""
    from bench.bench_layers import LAYERS

    cases = tests_table()
    settings = [
        (case.make, case.shape, 4, True) for case in cases.CASES if type(case.make()).__name__ == kind
    ] + [(make, shape, 64, False) for make, shape in LAYERS.values() if type(make()).__name__ == kind]
    forward, backward = [0.0, 0.0], [0.0, 0.0]
    for make, shape, batch, scatter in settings:
        models = [
            Sequential([make()], input_shape=shape, device=d, precision=p, seed=1)
            for d, p in ((device, precision), (Ops(np), "float64"))
        ]
        if scatter:  # no weight of 1 and no bias of 0 may hide a mistake
            cases.randomise(models[0], np.random.default_rng(1))
        models[1].load_state_dict(models[0].state_dict())
        rng = np.random.default_rng(2)
        x = rng.standard_normal((batch, *shape), dtype=np.float32)
        dy = rng.standard_normal((batch, *models[0].output_shape), dtype=np.float32)
        results = []
        for model in models:
            y, caches = model.forward(x, train=True)
            dx = model.backward(dy, caches)
            results.append((y, [dx, *cases.gradients(model).values()]))
        (y, gradients), (expected_y, expected) = results
        forward = [max(pair) for pair in zip(forward, errors([(y, expected_y)]))]
        backward = [max(pair) for pair in zip(backward, errors(zip(gradients, expected)))]
    return {"forward": forward, "gradient": backward, "settings": len(settings)}


def tests_table():
    """tests/cases.py: the one table of layers."""
    folder = str(Path(__file__).resolve().parent.parent / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    import cases

    return cases


def workload_errors(name: str, device: str, precision: str) -> dict:
    """Errors of the outputs and of every parameter's gradient, the worst of them, at the workload's batch."""
    model, reference = compiled(name, device, precision), compiled(name, Ops(np), "float64")
    reference.load_state_dict(model.state_dict())
    x, y = workloads.batch(name)
    outputs = [m.forward(x, train=True)[0] for m in (model, reference)]
    received, expected = (m.gradients(x, y) for m in (model, reference))
    return {
        "forward": errors([outputs]),
        "gradient": errors((received[parameter], expected[parameter]) for parameter in expected),
    }


def compiled(name: str, device, precision: str) -> Sequential:
    work = workloads.WORKLOADS[name]
    model = Sequential(
        work.layers(), input_shape=work.input_shape, device=device, precision=precision, seed=0
    )
    model.compile(workloads.optimizer(name), "sparse_categorical_crossentropy")
    return model


# -- loss curves ---------------------------------------------------------------------------------------------


def curve(name: str, steps: int, device: str, precision: str) -> list[float]:
    """The loss of each of so many steps, on batches of ten noisy patterns that can be told apart."""
    model, rng = compiled(name, device, precision), np.random.default_rng(3)
    work = workloads.WORKLOADS[name]
    patterns = rng.random((10, *work.input_shape), dtype=np.float32)
    if precision == "float64":  # from the float32 weights that the others begin with
        model.load_state_dict(compiled(name, "cpu", "float32").state_dict())
    losses = []
    for _ in range(steps):
        y = rng.integers(0, 10, work.batch)
        noise = rng.random((work.batch, *work.input_shape), dtype=np.float32)
        losses.append(round(model.train_on_batch(0.5 * patterns[y] + 0.5 * noise, y), 7))
    return losses


# -- what is the same to the bit -----------------------------------------------------------------------------


def sha(*arrays) -> str:
    digest = hashlib.sha256()
    for a in arrays:
        digest.update(np.ascontiguousarray(a).tobytes())
    return digest.hexdigest()


def same(devices: list[str]) -> dict:
    """SHA-256 of initial weights, of shuffles and of dropout masks, at the start and after three steps."""
    found: dict[str, dict[str, str]] = {}
    for device in dict.fromkeys(["cpu", *devices]):
        for name in workloads.WORKLOADS:
            weights = compiled(name, device, "auto").state_dict()
            found.setdefault(f"initial weights of {name}", {})[device] = sha(*weights.values())
        model = compiled("mnist-cnn", device, "auto")
        x, y = workloads.batch("mnist-cnn", 33)
        orders = []
        for epoch in range(3):
            model.epochs_trained = epoch
            orders.append(model.shuffled(60000))
        found.setdefault("shuffles of 60,000 samples, epochs 1 to 3", {})[device] = sha(*orders)
        for steps in (0, 3):
            for _ in range(steps):
                model.train_on_batch(x, y)
            for layer in model.layers:
                if isinstance(layer, layers.Dropout):
                    what = f"mask of {layer.label} {layer.in_shape}, 33 samples, after {steps} steps"
                    found.setdefault(what, {})[device] = sha(mask(model.ops, layer, 33))
    return {"sha256": found}


def mask(ops, layer, batch: int) -> np.ndarray:
    """Which elements a Dropout layer lets through."""
    shape = layer.in_shape
    ones = np.ones((shape[1], shape[0], shape[2], batch) if len(shape) == 3 else (batch, *shape), np.float32)
    return ops.to_host(layer.forward(ops.asarray(ones), train=True)[0]) != 0


# -- the report ----------------------------------------------------------------------------------------------


def markdown(found: list[dict]) -> str:
    """The tables of a list of rows."""
    by_kind: dict[str, list[dict]] = {}
    for row in found:
        by_kind.setdefault("failed" if "error" in row else row["job"].partition("/")[0], []).append(row)
    out = []
    for kind, title in (
        ("workload", "Workloads: one training step"),
        ("layers", "Layers: the worst of all settings"),
    ):
        if kind in by_kind:
            out += [f"### {title}", _errors_table(by_kind[kind])]
    if "curve" in by_kind:
        out += ["### Losses over the steps, against float64 on the CPU", _curves_table(by_kind["curve"])]
    if "same" in by_kind:
        out += [
            "### The same to the bit (SHA-256, first 16 digits)",
            _same_table(by_kind["same"][-1]["sha256"]),
        ]
    if "failed" in by_kind:
        out += [
            "### Failed",
            rows.table(["job", "error"], [[r["job"], r["error"]] for r in by_kind["failed"]]),
        ]
    return "\n\n".join(out)


def _errors_table(found: list[dict]) -> str:
    lines = []
    for row in found:
        for subject, e in row["errors"].items():
            name = row["job"].partition("/")[2] + (f" ({e['settings']})" if "settings" in e else "")
            figures = [e["error"]] + [None] * 3 if "error" in e else [*e["forward"], *e["gradient"]]
            lines.append([name, subject, *figures])
    header = ["", "on", "forward, largest", "rms", "gradient, largest", "rms"]
    return rows.table(header, lines)


def _curves_table(found: list[dict]) -> str:
    lines = []
    for row in found:
        name, expected = row["job"].partition("/")[2], row["losses"]["cpu float64"]
        for subject, losses in row["losses"].items():
            if "error" in losses:
                lines.append([name, subject, losses["error"], None, None, None])
                continue
            apart = [abs(a - b) for a, b in zip(losses, expected)]
            tenth = apart[: max(len(apart) // 10, 1)]
            lines.append([name, subject, losses[0], losses[-1], max(tenth), max(apart)])
    header = ["", "on", "first loss", "last loss", "furthest apart, first tenth", "furthest apart"]
    return rows.table(header, lines)


def _same_table(found: dict[str, dict[str, str]]) -> str:
    devices = list(next(iter(found.values())))
    lines = [
        [what, *(digests[d][:16] for d in devices), "yes" if len(set(digests.values())) == 1 else "NO"]
        for what, digests in found.items()
    ]
    return rows.table(["", *devices, "same"], lines)


def main(argv=None) -> None:
    parser = rows.arguments(__doc__, default_jobs())
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"], choices=("cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=STEPS, help="of a curve")
    args = parser.parse_args(argv)
    more = ["--steps", str(args.steps), "--devices", *args.devices]
    found = rows.run("bench.parity", args, partial(work, args.devices, args.steps), {"kind": "parity"}, more)
    print(markdown(found))


if __name__ == "__main__":
    main()
