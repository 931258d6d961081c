"""`xpnet predict`: classes and probabilities for new samples."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "classes and probabilities of new samples, by a saved model"
DESCRIPTION = """\
Print the most probable classes of each sample in FILE.

FILE is an array of samples (.npy, or .npz with an array x) or a picture (PNG, JPEG, ...), which is turned to
grey or colour and resized as the model needs it.  What is changed on the way is told.
"""
EXAMPLES = """\
examples:
  xpnet predict runs/digits-cnn/model.safetensors runs/digits-cnn/samples.npz
  xpnet predict runs/mnist-cnn photo.png --invert
  xpnet predict model.safetensors x.npy --out predictions.csv
"""

TOP = 3
ROWS = 20  # samples that the table shows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a .safetensors file, or the folder that holds one")
    add("file", type=Path, metavar="FILE", help=".npy or .npz with samples, or a picture")
    add("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:1 (default: auto)")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="write all probabilities to FILE.npy (N, classes) or FILE.csv",
    )
    add("--overwrite", action="store_true", help="replace --out if it exists")
    add(
        "--invert",
        action="store_true",
        help="swap light and dark first: for dark ink on paper, where training images are light on dark",
    )


def run(args: argparse.Namespace) -> int:
    """Predict as args say; the exit code."""
    from .. import load_model
    from . import card, samples
    from .output import check_new

    if args.out is not None:
        if args.out.suffix.lower() not in (".npy", ".csv"):
            raise ValueError(f"--out must end in .npy or .csv. Received: {args.out}")
        check_new(args.out, args.overwrite)
    path = args.model / "model.safetensors" if args.model.is_dir() else args.model
    model = load_model(path, device=args.device)
    known = card.read(path)
    print(f"model: {model.name} on {model.device}" + (f", trained on {known.data}" if known else ""))
    x, labels = samples.read(
        args.file,
        model.input_shape,
        model.data_format == "channels_last",
        known,
        args.invert,
        lambda text: print(f"note: {text}"),
    )
    outputs = model.predict(x)
    if outputs.ndim != 2:
        raise ValueError(
            f"the model's outputs are maps, no classes. Received: {outputs.shape}. Expected: (N, classes); "
            "in Python, model.predict gives the maps"
        )
    p, classes = outputs, None
    if is_classifier(model):
        p = probabilities(model, outputs)
        classes = names_of(p.shape[1], known)
        print_classes(p, classes, labels)
    else:
        print_numbers(p)
    if args.out is not None:
        write(args.out, p, classes)
        print(f"wrote {args.out}")
    return 0


def is_classifier(model) -> bool:
    """By its loss; a model without one counts as a classifier, which most are."""
    from ..losses import BinaryCrossentropy, CategoricalCrossentropy

    return model.loss is None or isinstance(model.loss, (BinaryCrossentropy, CategoricalCrossentropy))


def link(model):
    """The function that makes probabilities of a classifier's outputs, softmax or sigmoid; None where they
    are probabilities.
    """
    from ..activations import Sigmoid, Softmax
    from ..layers import Activation
    from ..losses import BinaryCrossentropy

    last = model.layers[-1]
    function = last.function if isinstance(last, Activation) else last.activation
    from_logits = None if model.loss is None else model.loss.from_logits
    if from_logits is None:  # as a loss by name decides it
        from_logits = not isinstance(function, (Sigmoid, Softmax))
    if not from_logits:
        return None
    binary = isinstance(model.loss, BinaryCrossentropy) or model.output_shape == (1,)
    return Sigmoid() if binary else Softmax()


def probabilities(model, outputs: np.ndarray) -> np.ndarray:
    """outputs (N, K) as probabilities.  One output becomes two classes."""
    import numpy as np

    from ..ops.reference import Ops

    p, function = outputs, link(model)
    if function is not None:
        p = np.empty_like(outputs)
        function.forward(Ops(), outputs, p)
    return np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p


def names_of(count: int, known) -> tuple[str, ...]:
    """The classes' names, or their numbers where the file names none that fit."""
    if known is not None and len(known.classes) == count:
        return known.classes
    return tuple(map(str, range(count)))


# -- output --------------------------------------------------------------------------------------------------


def print_classes(p: np.ndarray, classes: tuple[str, ...], labels: np.ndarray | None) -> None:
    """A table of the most probable classes (N, K); with labels (N,), theirs and how many are right."""
    top = min(TOP, p.shape[1])
    order = (-p).argsort(axis=1, kind="stable")[:, :top]
    titles = ("class", "probability", "second", "", "third", "")
    rows = [["sample", *(["label"] if labels is not None else []), *titles[: 2 * top]]]
    for i in range(min(len(p), ROWS)):
        row = [str(i)]
        if labels is not None:
            known = 0 <= labels[i] < len(classes)
            row.append(classes[labels[i]] if known else str(labels[i]))
        for k in order[i]:
            row += [classes[k], f"{p[i, k]:.1%}"]
        rows.append(row)
    first = 1 if labels is None else 2
    print_table(rows, right={0, *range(first + 1, len(rows[0]), 2)})
    _print_rest(len(p))
    if labels is not None:
        right = int((order[:, 0] == labels).sum())
        print(f"{right:,} of {len(p):,} agree with the labels in the file ({right / len(p):.2%})")


def print_numbers(y: np.ndarray) -> None:
    """The plain outputs (N, K) of a model that is no classifier."""
    shown = y[:ROWS, :8]
    rows = [["sample", *(f"output {k}" for k in range(shown.shape[1]))]]
    rows += [[str(i), *(f"{value:.6g}" for value in row)] for i, row in enumerate(shown)]
    print_table(rows, right=set(range(len(rows[0]))))
    if y.shape[1] > shown.shape[1]:
        print(f"... and {y.shape[1] - shown.shape[1]:,} more outputs of each; --out writes all")
    _print_rest(len(y))


def print_table(rows: list[list[str]], right: set[int]) -> None:
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    for row in rows:
        cells = [v.rjust(w) if c in right else v.ljust(w) for c, (v, w) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


def _print_rest(count: int) -> None:
    if count > ROWS:
        print(f"... and {count - ROWS:,} more samples; --out predictions.csv writes all")


def write(path: Path, p: np.ndarray, classes: tuple[str, ...] | None) -> None:
    """p (N, K) as an array, or as lines of text with the class in front where there are classes."""
    import numpy as np

    from .output import whole

    with whole(path) as temporary:
        if path.suffix.lower() == ".npy":
            np.save(temporary, p, allow_pickle=False)
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            if classes is None:
                out.writerow(["sample", *(f"output {k}" for k in range(p.shape[1]))])
                out.writerows([i, *(f"{v:.9g}" for v in row)] for i, row in enumerate(p))
                return
            out.writerow(["sample", "class", *(f"p({name})" for name in classes)])
            best = p.argmax(axis=1)
            out.writerows(
                [i, classes[k], *(f"{v:.9g}" for v in row)] for i, (k, row) in enumerate(zip(best, p))
            )
