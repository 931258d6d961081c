"""How closely a training follows PyTorch's: the loss of each of the first steps on real photographs.

    python -m bench.follow [WORKLOAD] [--steps 100] [--batch 64] [--threads 2] [--json FILE] [--plot FILE]

WORKLOAD: resnet9 (the default) or cifar-vgg.  Every side begins with the same weights and takes the same
steps, on the same batches of CIFAR-10's images.  In float64 both libraries have to stay together.  In float32
all round differently, and where the inputs of a ReLU or a maximum agree within rounding, a gradient goes
another way: after some steps no two runs agree in many digits, nor do two of PyTorch with another memory
format.  So each is held against PyTorch's losses in float64, and xpnet's gap stands beside those of PyTorch's
own runs.  A gap is |loss - reference| / reference, at one step.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bench import compare, rows
from bench.workloads import WORKLOADS, Workload
from xpnet import networks

NAMES = [name for name, work in WORKLOADS.items() if work.input_shape == (3, 32, 32)]
REFERENCE = "PyTorch, float64"
FIRST = 10  # steps
AGREE = 1e-4  # the gap up to which losses in float32 agree
EXACT = 1e-9  # and in float64, all the way
FACTOR = 2.0  # xpnet's gaps in float32 by PyTorch's, at most
Batches = list[tuple[np.ndarray, np.ndarray]]


def photographs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """So many of CIFAR-10's training images (N, 3, 32, 32), each channel with mean 0 and deviation 1."""
    from xpnet import datasets

    (x, y), _ = datasets.load_cifar10(raw=True)
    order = np.random.default_rng(0).permutation(len(x))[:count]
    x = x[order].astype(np.float32)
    return (x - x.mean(axis=(0, 2, 3), keepdims=True)) / x.std(axis=(0, 2, 3), keepdims=True), y[order]


def batches(x, y, steps: int, size: int) -> Batches:
    """Batches for so many steps, from the beginning again where the samples end."""
    index = np.resize(np.arange(len(x)), steps * size)
    return [(x[k], y[k]) for k in index.reshape(steps, size)]


def sides(work: Workload, taken: Batches) -> dict[str, Callable[[], Iterator[float]]]:
    """{side: its losses, step by step}"""
    return {
        REFERENCE: lambda: of_torch(work, taken, "float64"),
        "xpnet, float64": lambda: of_xpnet(work, taken, "float64"),
        "PyTorch": lambda: of_torch(work, taken),
        "PyTorch, channels last": lambda: of_torch(work, taken, channels_last=True),
        "xpnet": lambda: of_xpnet(work, taken),
    }


def new_model(work: Workload, precision: str = "float32"):
    """A compiled model; in float64 with the weights that the others have in float32."""
    from xpnet import Sequential, optimizers

    model = Sequential(work.layers(), input_shape=work.input_shape, device="cpu", precision=precision, seed=0)
    rule = getattr(optimizers, work.optimizer)(**work.settings)
    model.compile(rule, "sparse_categorical_crossentropy")
    if precision == "float64":
        model.load_state_dict(new_model(work).state_dict())
    return model


def of_xpnet(work: Workload, taken: Batches, precision: str = "float32") -> Iterator[float]:
    model = new_model(work, precision)
    for x, y in taken:
        yield model.train_on_batch(x.astype(precision), y)


def of_torch(
    work: Workload, taken: Batches, precision: str = "float32", channels_last: bool = False
) -> Iterator[float]:
    import torch

    from bench import torch_steps

    kind = {"dtype": getattr(torch, precision)}
    kind["memory_format"] = torch.channels_last if channels_last else torch.contiguous_format
    net = torch_steps.module(new_model(work)).to(**kind).train()
    optimizer = torch_steps.optimizer_for(net, work.optimizer, **work.settings)
    for x, y in taken:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x).to(**kind)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        yield loss.item()


def gaps(losses: dict[str, list[float]]) -> dict[str, dict]:
    """Of every side but the reference: the steps that agree with it, and how far it is from it then."""
    expected = np.array(losses[REFERENCE])
    found = {}
    for side, values in losses.items():
        if side == REFERENCE:
            continue
        gap = np.abs(np.array(values) - expected) / np.abs(expected)
        apart = np.flatnonzero(~(gap <= AGREE))
        found[side] = {
            "first_loss": values[0],
            "last_losses": float(np.mean(values[-FIRST:])),
            "agree_for": int(apart[0]) if len(apart) else len(gap),
            "largest_of_first": float(gap[:FIRST].max()),
            "median": float(np.median(gap)),
            "largest": float(gap.max()),
        }
    return found


def follows(found: dict[str, dict]) -> bool:
    """Whether xpnet stays with PyTorch in float64, and in float32 is no more than FACTOR times as far from
    that as PyTorch's own runs, by the median and by the largest gap.
    """
    theirs = [one for side, one in found.items() if side.startswith("PyTorch")]
    return found["xpnet, float64"]["largest"] <= EXACT and all(
        found["xpnet"][figure] <= FACTOR * max(one[figure] for one in theirs)
        for figure in ("median", "largest")
    )


def table(found: dict[str, dict]) -> str:
    header = [f"against {REFERENCE}", "first loss", f"last {FIRST}, mean", f"steps within {AGREE:g}",
              f"largest gap, first {FIRST}", "median gap", "largest gap"]  # fmt: skip
    return rows.table(header, [[side, *one.values()] for side, one in found.items()])


def plot(losses: dict[str, list[float]], title: str):
    """The losses above, the gaps to PyTorch's below."""
    from xpnet.viz.style import PALETTE, figure, style

    with style():
        drawn = figure(8.0, 6.4)
        above, below = drawn.subplots(2, 1, sharex=True)
        expected = np.array(losses[REFERENCE])
        for (side, values), color in zip(losses.items(), PALETTE):
            steps = np.arange(1, len(values) + 1)
            above.plot(steps, values, color=color, label=side, linewidth=1.2)
            if side != REFERENCE:
                gap = np.abs(np.array(values) - expected) / np.abs(expected)
                below.plot(steps, np.maximum(gap, 1e-16), color=color, linewidth=1.2)
        above.set(ylabel="loss", title=title)
        below.set(xlabel="step", ylabel=f"gap to {REFERENCE}", yscale="log")
        for ax in (above, below):
            ax.grid()
        above.legend(fontsize=8)
    return drawn


def limit(threads: int) -> None:
    """So many threads for both libraries."""
    import torch

    from xpnet import set_num_threads

    torch.set_num_threads(threads)
    set_num_threads(threads)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workload", nargs="?", default="resnet9", choices=NAMES)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, help="default: the workload's")
    parser.add_argument("--width", type=int, help="filters of resnet9's first layer (64)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="save everything there")
    parser.add_argument("--plot", type=Path, help="a picture of losses and gaps")
    args = parser.parse_args(argv)
    if args.width and args.workload != "resnet9":
        parser.error(f"--width is resnet9's. Received: --width {args.width} for {args.workload}")
    limit(args.threads)
    work, facts = WORKLOADS[args.workload], compare.machine()
    if args.width:
        work = work._replace(layers=lambda: networks.resnet9(work.input_shape, 10, width=args.width))
    size = args.batch or work.batch
    taken = batches(*photographs(args.steps * size), args.steps, size)
    losses: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for side, run in sides(work, taken).items():
        start = time.perf_counter()
        losses[side] = list(run())
        seconds[side] = time.perf_counter() - start
        print(f"{side}: {losses[side][0]:.5f} to {losses[side][-1]:.5f} in {seconds[side]:.0f} s", flush=True)
    found = gaps(losses)
    verdict = follows(found)
    print(f"\n{table(found)}\n\nxpnet {'follows' if verdict else 'DOES NOT FOLLOW'} PyTorch:", end=" ")
    print(f"to {EXACT:g} in float64, and in float32 within {FACTOR:g} times the gaps of PyTorch's own runs")
    if args.plot:
        plot(losses, f"{args.workload}, {size} images a step").savefig(args.plot)
    if args.json:
        about = {
            "date": time.strftime("%Y-%m-%d"),
            "workload": args.workload,
            "batch": size,
            "width": args.width,
        }
        about |= {"optimizer": work.optimizer, "settings": dict(work.settings), "threads": args.threads}
        about |= {**facts, "seconds": seconds, "gaps": found, "follows": verdict, "losses": losses}
        args.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
