"""The sections of `python -m bench.compare`: what is measured, job by job, in processes apart.

    python -m bench.sections [SECTION/WORKLOAD ...] [--threads 2] [--rounds 15] [--short] [--rows FILE]

Every section is a function of a workload and the options, and returns a row of figures.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from bench import memory, peers, rows, turns, workloads
from bench.turns import Side

EPOCHS = ("mnist-mlp", "lenet")  # whose steps are so short that what comes between them would show
# what the short form has no time for
SHORTER = {
    "steps": ["keras on jax", "plain numpy"],
    "memory": ["torch channels_last"],
    "accuracy": ["mnist"],
    "predict": ["16 and 1024 images"],
    "batches": ["two sizes of three"],
}
IMAGES = (1, 16, 128, 1024, 10000)
GRID = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
NEIGHBOURS = (
    (16, 17),
    (31, 32),
    (32, 33),
    (63, 64),
    (64, 65),
    (127, 128),
    (128, 129),
    (255, 256),
    (256, 257),
)
BATCHES_LAST = 180.0  # seconds for the batch sizes of a workload, or five rounds
BLOCK = 1024  # images that PyTorch predicts at once


class Skipped(Exception):
    """A job that cannot be done here; the message says why and what would help."""


def need_torch() -> None:
    if absent := peers.missing(["torch channels_first"]):
        raise Skipped(f"PyTorch is not installed: {absent['torch channels_first']}")


def mnist():
    """MNIST as arrays, or Skipped."""
    from xpnet import datasets

    try:
        return datasets.load_mnist()
    except datasets.DatasetError as error:
        raise Skipped(f"no MNIST: {error}") from None


# -- steps ---------------------------------------------------------------------------------------------------


def steps(name: str, args, run: str = "1") -> dict:
    """Median step times of xpnet and its peers on one batch, in turn, and the ratio to each.

    run: the number of this measurement, where there are several.
    """
    x, y = workloads.batch(name)
    model = workloads.model(name)
    names = [peer for peer in peers.PEERS if not (args.short and peer in SHORTER["steps"])]
    sides = peers.sides(name, x, y, model, args.threads, names)
    times = turns.in_turn(sides, args.rounds, args.lasting, args.rest)
    row = {
        "batch": len(x),
        "sides": {side: turns.summary(t) for side, t in times.items()},
        "ratios": {side: turns.ratio(times["xpnet"], t) for side, t in times.items() if side != "xpnet"},
        "missing": peers.missing(),
    }
    if best := turns.faster(times, "torch"):
        row |= {"torch": best, **row["ratios"][best]}
    return row


# -- memory --------------------------------------------------------------------------------------------------


def memory_of(name: str, args, side: str) -> dict:
    """Growth of memory of one side; each in a process of its own."""
    if side != "xpnet":
        need_torch()
    return memory.growth(name, side, args.threads, steps=5 if args.short else 20)


# -- accuracy ------------------------------------------------------------------------------------------------


ACCURACY = {  # workload, the held-out accuracy to reach, learning rate, most epochs
    "digits": ("digits-cnn", 0.97, 0.01, 60),
    "mnist": ("lenet", 0.98, 0.001, 15),
}


def accuracy(what: str, args) -> dict:
    """Seconds until a held-out accuracy is reached, looked at after every epoch: xpnet's fit and a plain loop
    in PyTorch, from the same weights over the same batches, for several seeds in turn.
    """
    need_torch()
    import torch

    from xpnet import datasets, set_num_threads

    name, wanted, rate, most = ACCURACY[what]
    images = mnist() if what == "mnist" else None
    torch.set_num_threads(args.threads)
    set_num_threads(args.threads)
    model = workloads.model(name)
    x, y = workloads.batch(name)
    trial = peers.sides(name, x, y, model, args.threads, ["torch channels_first", "torch channels_last"])
    best = turns.faster(turns.in_turn(trial, 3, args.lasting, args.rest), "torch")
    seconds: dict[str, list[float]] = {"xpnet": [], "torch": []}
    epochs: dict[str, list[int]] = {"xpnet": [], "torch": []}
    for seed in range(args.seeds):
        data = images or datasets.load_digits(seed=seed)
        for side, train in (("xpnet", _fit), ("torch", partial(_loop, best == "torch channels_last"))):
            model = workloads.model(name, seed=seed)
            model.optimizer.learning_rate = rate
            spent, count = train(name, model, data, wanted, most)
            seconds[side].append(spent)
            epochs[side].append(count)
    return {
        "workload": name,
        "accuracy": wanted,
        "torch": best,
        "seconds": {side: float(np.median(s)) for side, s in seconds.items()},
        "all_seconds": seconds,
        "epochs": epochs,
        "ratio": float(np.median(seconds["xpnet"]) / np.median(seconds["torch"])),
        "quartiles": turns.quartiles(np.array(seconds["xpnet"]) / np.array(seconds["torch"])),
    }


def _fit(name, model, data, wanted, most) -> tuple[float, int]:
    """Seconds and epochs of xpnet's fit, which looks at the held-out samples after every epoch."""
    from xpnet.callbacks import Callback

    class Until(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = logs["val_accuracy"] >= wanted

    model.compile(model.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    (x, y), held_out = data
    size = workloads.WORKLOADS[name].batch
    start = time.perf_counter()
    history = model.fit(x, y, size, most, 0, [Until()], validation_data=held_out).history["val_accuracy"]
    return _reached(time.perf_counter() - start, history, wanted)


def _loop(channels_last, name, model, data, wanted, most) -> tuple[float, int]:
    """The same by PyTorch, written as its tutorials write it."""
    import torch

    from bench import torch_steps

    (x, y), (xt, yt) = data
    size = workloads.WORKLOADS[name].batch
    orders = []
    for epoch in range(most):
        model.epochs_trained = epoch  # from which the order of fit's next epoch follows
        orders.append(torch.from_numpy(model.shuffled(len(x))))
    form = torch.channels_last if channels_last else torch.contiguous_format
    net = torch_steps.module(model).to(memory_format=form)
    optimizer = torch_steps.optimizer_for(
        net, workloads.WORKLOADS[name].optimizer, model.optimizer.learning_rate
    )
    criterion, history = torch.nn.CrossEntropyLoss(), []
    start = time.perf_counter()
    tx, txt = (torch.from_numpy(a).to(memory_format=form) for a in (x, xt))
    ty, tyt = torch.from_numpy(y), torch.from_numpy(yt)
    for order in orders:
        net.train()
        right = torch.zeros((), dtype=torch.int64)
        for index in order.split(size):
            optimizer.zero_grad(set_to_none=True)
            out, labels = net(tx[index]), ty[index]
            criterion(out, labels).backward()
            optimizer.step()
            right += (out.argmax(1) == labels).sum()  # the training accuracy, which fit reports too
        net.eval()
        with torch.inference_mode():
            parts = zip(txt.split(BLOCK), tyt.split(BLOCK))
            held = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in parts)
        history.append(held / len(yt))
        if history[-1] >= wanted:
            break
    return _reached(time.perf_counter() - start, history, wanted)


def _reached(spent: float, history, wanted: float) -> tuple[float, int]:
    if history[-1] < wanted:
        raise RuntimeError(f"after {len(history)} epochs the accuracy is {max(history):.4f}, not {wanted}")
    return spent, len(history)


# -- threads -------------------------------------------------------------------------------------------------


def threads(name: str, args) -> dict:
    """Step times of xpnet on one thread and on all, in turn; ratio: how many times as fast."""
    x, y = workloads.batch(name)
    if args.threads < 2:
        raise Skipped("scaling needs at least two threads: --threads 2, on a machine with so many cores")
    sides = {str(n): peers.xpnet_side(name, x, y, workloads.model(name), n) for n in (1, args.threads)}
    times = turns.in_turn(sides, args.rounds, args.lasting, args.rest)
    one, all_ = times.values()
    return {"sides": {n: turns.summary(t) for n, t in times.items()}, **turns.ratio(one, all_)}


# -- predict -------------------------------------------------------------------------------------------------


def predict(name: str, args) -> dict:
    """Latency of predict, by number of images: xpnet against PyTorch under inference_mode in its faster
    format.
    """
    need_torch()
    import torch

    from xpnet import set_num_threads

    torch.set_num_threads(args.threads)
    set_num_threads(args.threads)
    model = workloads.model(name)
    forms = ("channels_first", "channels_last")[: len(model.input_shape)]
    theirs = {form: peers.torch_predictor(model, form == "channels_last", BLOCK) for form in forms}
    peers.limit_blas(args.threads)
    row: dict = {"sizes": [], "left_out": []}
    for count in IMAGES[:: 2 if args.short else 1]:
        done = row["sizes"][-1:]
        if done and 1e-3 * done[0]["xpnet_ms"] * count / done[0]["images"] > args.longest:
            row["left_out"].append(count)
            continue
        x, _ = workloads.batch(name, count)
        sides = {"xpnet": Side(lambda x=x: model.predict(x))}
        for form, (ready, call) in theirs.items():
            sides[f"torch {form}"] = Side(partial(call, ready(x)))
        times = turns.in_turn(sides, min(args.rounds, 7), args.lasting, args.rest)
        best = turns.faster(times, "torch")
        figures = {"xpnet_ms": float(np.median(times["xpnet"])), "torch_ms": float(np.median(times[best]))}
        row["sizes"].append(
            {"images": count, **figures, "torch": best, **turns.ratio(times["xpnet"], times[best])}
        )
    return row


# -- batches -------------------------------------------------------------------------------------------------


def batches(name: str, args) -> dict:
    """Step times of xpnet over batch sizes, in turn, and the worst of them.

    growth: the largest (t2 / t1) / (b2 / b1) of two sizes b1 < b2 of the grid; 1 is growing with the batch.
    cliff: the largest ratio of a step's time to that of the size next to it, larger or smaller.
    """
    from xpnet.ops.memory import pool

    near = NEIGHBOURS[:: 3 if args.short else 1]
    wanted = {*GRID[:: 3 if args.short else 1], *(b for pair in near for b in pair)}
    x, y = workloads.batch(name, max(GRID))
    sides, takes, left_out = {}, {}, []
    for size in sorted(wanted):
        last = max(takes, default=size)
        if takes.get(last, 0.0) * size / last > args.longest:
            left_out.append(size)
            continue
        # a model each: what a step keeps for its shapes is not pushed out by that of the other sizes
        one = peers.xpnet_side(name, x[:size], y[:size], workloads.model(name), args.threads)
        sides[size] = Side(one.run, partial(_from_an_empty_pool, one.hold, pool))
        with sides[size].hold():
            one.run()
            takes[size] = turns.seconds(one.run, 1)
    a_round = sum(max(t, args.rest) + max(args.lasting, t) for t in takes.values())
    rounds = min(args.rounds, max(5, int(BATCHES_LAST / a_round)))
    times = turns.in_turn({str(size): side for size, side in sides.items()}, rounds, args.lasting, args.rest)
    ms = {int(size): float(np.median(t)) for size, t in times.items()}
    per_sample = {size: 1e3 * t / size for size, t in ms.items()}
    figures = {"ms": ms, "per_sample_us": per_sample, "rounds": rounds, "left_out": left_out}
    return figures | worst(ms, near)


def worst(ms: dict[int, float], near) -> dict:
    """growth and cliff, with the sizes between which they lie."""
    grid = [b for b in ms if b in GRID]
    growths = [(ms[b] / ms[a] * a / b, [a, b]) for a in grid for b in grid if a < b]
    cliffs = [(max(ms[b] / ms[a], ms[a] / ms[b]), [a, b]) for a, b in near if a in ms and b in ms]
    nothing = (None, [])  # where all but one size took too long
    (growth, between), (cliff, beside) = max(growths, default=nothing), max(cliffs, default=nothing)
    return {"growth": growth, "growth_between": between, "cliff": cliff, "cliff_between": beside}


@contextlib.contextmanager
def _from_an_empty_pool(hold, pool):
    """As fit leaves the pool of host memory at its end: blocks of other sizes are not kept."""
    pool.clear()
    with hold():
        yield


# -- epoch ---------------------------------------------------------------------------------------------------


def epoch(name: str, args) -> dict:
    """An epoch of MNIST by fit, with metrics and progress bar, over the sum of its bare steps: as many steps
    on one batch and one of the last batch's size, without metrics.
    """
    from xpnet import set_num_threads

    set_num_threads(args.threads)
    (x, y), _ = mnist()
    if len(workloads.WORKLOADS[name].input_shape) == 1:
        x = x.reshape(len(x), -1)
    x, y = (x[: args.samples], y[: args.samples]) if args.samples else (x, y)
    size = workloads.WORKLOADS[name].batch
    whole, last = divmod(len(x), size)
    model = workloads.model(name)
    model.compile(model.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    bare = workloads.model(name)
    full = peers.xpnet_side(name, x[:size], y[:size], bare, args.threads)
    rest = peers.xpnet_side(name, x[:last], y[:last], bare, args.threads) if last else None

    def steps() -> None:
        with full.hold():
            for _ in range(whole):
                full.run()
            if rest:
                rest.run()

    def fit() -> None:
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            model.fit(x, y, batch_size=size, verbose=1)

    for side in (full, rest) if rest else (full,):
        with side.hold():
            turns.settle(side.run)
    fit()
    times: dict[str, list[float]] = {"fit": [], "steps": []}
    for turn in range(max(3, args.rounds // 3)):
        for side, run in (("fit", fit), ("steps", steps)) if turn % 2 else (("steps", steps), ("fit", fit)):
            times[side].append(1e3 * turns.seconds(run, 1))
    return {
        "samples": len(x),
        "sides": {side: turns.summary(t) for side, t in times.items()},
        **turns.ratio(times["fit"], times["steps"]),
    }


# -- all of them ---------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[..., dict]] = {
    "steps": steps,
    "memory": memory_of,
    "accuracy": accuracy,
    "threads": threads,
    "predict": predict,
    "batches": batches,
    "epoch": epoch,
}
RUNS = {"mnist-mlp": 5}  # runs of the steps, each in a process of its own, whose median counts
KIND = {"kind": "cpu"}


def jobs(section: str, names, args) -> list[str]:
    """The jobs of a section for these workloads: SECTION/WORKLOAD, and perhaps a run or a side."""
    names = [name for name in workloads.WORKLOADS if name in names]
    if section == "steps":
        runs = {name: 1 if args.short else RUNS.get(name, 1) for name in names}
        return [f"steps/{name}/{run + 1}" for name in names for run in range(runs[name])]
    if section == "memory":
        forms = {name: 2 if len(workloads.WORKLOADS[name].input_shape) == 3 else 1 for name in names}
        sides = ("xpnet", "torch channels_first", "torch channels_last")
        count = {name: 2 if args.short else 1 + forms[name] for name in names}
        return [f"memory/{name}/{side}" for name in names for side in sides[: count[name]]]
    if section == "accuracy":
        left_out = SHORTER["accuracy"] if args.short else ()
        return [
            f"accuracy/{what}"
            for what, (name, *_) in ACCURACY.items()
            if name in names and what not in left_out
        ]
    if section == "epoch":
        names = [name for name in names if name in EPOCHS]
    return [f"{section}/{name}" for name in names]


def work(args, job: str) -> dict:
    """The row of a job; `skipped` says why it has no figures."""
    section, name, *more = job.split("/")
    others = turns.Elsewhere()
    try:
        row = SECTIONS[section](name, args, *more)
    except Skipped as reason:
        return {"skipped": str(reason)}
    return row | {"cores_elsewhere": others.cores()}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What says how to measure."""
    add = parser.add_argument
    add("--threads", type=int, default=2, help="of every side (default 2)")
    add("--rounds", type=int, help="in each of which every side has its turn (default 15; 3 with --short)")
    add("--short", action="store_true", help="in some two minutes: rougher figures, fewer sizes")
    add("--samples", type=int, help="of MNIST in the section epoch (default all; 12,800 with --short)")


def settle(args) -> None:
    """The options that follow from the others; an error for what cannot be measured here."""
    from xpnet.ops.threads import available_cores

    if not 1 <= args.threads <= available_cores():
        raise SystemExit(
            f"--threads must be at least 1 and at most the cores of this process. Received: {args.threads}; "
            f"there are {available_cores()}"
        )
    args.rounds = args.rounds or (3 if args.short else 15)
    args.samples = args.samples or (12800 if args.short else None)
    args.lasting = 0.03 if args.short else 0.1  # seconds of a side in a round
    args.rest = turns.REST
    args.longest = 0.1 if args.short else 3.0  # seconds of a call; sizes that take longer are left out
    args.seeds = 1 if args.short else 5


def _is_further_run(job: str) -> bool:
    section, _, *run = job.split("/")
    return section == "steps" and run != ["1"] and bool(run)


def measure(asked: list[str], args, path) -> list[dict]:
    """The rows of jobs, also appended to path; memory and further runs have processes of their own."""
    apart = [job for job in asked if job.startswith("memory/") or _is_further_run(job)]
    together = [job for job in asked if job not in apart]
    more = ["--threads", str(args.threads), "--rounds", str(args.rounds)]
    more += ["--short"] * args.short + (["--samples", str(args.samples)] if args.samples else [])
    found = []
    for group in [together] * bool(together) + [[job] for job in apart]:
        namespace = argparse.Namespace(jobs=group, rows=path, limit=args.limit, apart=False)
        found += rows.run("bench.sections", namespace, partial(work, args), KIND, more)
    return found


def main(argv=None) -> None:
    parser = rows.arguments(__doc__, ())
    parser.set_defaults(limit=1200)
    add_options(parser)
    args = parser.parse_args(argv)
    settle(args)
    if args.apart:
        rows.run("bench.sections", args, partial(work, args), KIND)
    asked = args.jobs or [job for section in SECTIONS for job in jobs(section, workloads.WORKLOADS, args)]
    for row in measure(asked, args, args.rows):
        print(row)


if __name__ == "__main__":
    main()
