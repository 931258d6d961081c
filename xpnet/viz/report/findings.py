"""What the answers to test samples say of a model: numbers, made from one prediction of all samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...activations import LogSoftmax, Sigmoid, Softmax
from ...data.arrays import as_array
from ...errors import ShapeError
from ...losses import BinaryCrossentropy
from ..answers import class_numbers, last_activation, names_of, probabilities_of

PAIRS = 8  # of classes that are confused
LARGEST = 1000  # classes that a confusion matrix has
LEVEL = 1.96  # standard deviations either side hold 95% of a normal distribution


def task_of(model, y: np.ndarray) -> str:
    """What the model does: "classes", "labels" (several of them a sample), "numbers" or "maps"."""
    if len(model.output_shape) == 3:
        return "maps"
    K = model.output_shape[0]
    if isinstance(model.loss, BinaryCrossentropy) and K > 1:
        return "labels"
    if model.loss is not None and model.loss.folds:
        return "classes"
    one_hot = y.ndim == 2 and y.shape[1] == K > 1 and bool((y.sum(axis=1) == 1).all() and (y >= 0).all())
    whole = y.size == len(y) and bool((y == np.floor(y)).all()) and y.min() >= 0
    ends = isinstance(last_activation(model), (Softmax, LogSoftmax, Sigmoid))
    told_apart = ends or (model.loss is None and K > 1)
    return "classes" if told_apart and (one_hot or (whole and y.max() < max(K, 2))) else "numbers"


class ClassRow(NamedTuple):
    """How one class fares.  support: samples of it; called: samples called it."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    called: int


class Pair(NamedTuple):
    """Samples of class `true` that were called `answer`: how many, and their share of the class."""

    true: str
    answer: str
    times: int
    share: float


@dataclass(frozen=True)
class Classes:
    """p (N, K): probabilities.  true, answer (N,): classes.  names: of the K classes.

    matrix (K, K): how often class i (row) was called class j; None of very many classes.  rows: of the
    classes; mean: of the rows.  wrong: the mistakes, the surest first.  low, high: the accuracy's 95%
    interval.  commonest: the share of the commonest class, which is what always naming it would get.
    """

    p: np.ndarray
    true: np.ndarray
    answer: np.ndarray
    names: list[str]
    matrix: np.ndarray | None
    rows: list[ClassRow]
    mean: ClassRow
    pairs: list[Pair]
    wrong: np.ndarray
    right: int
    low: float
    high: float
    commonest: float

    @property
    def count(self) -> int:
        return len(self.true)

    @property
    def accuracy(self) -> float:
        return self.right / self.count


def classes(model, x, y, labels) -> Classes:
    """What a classifier's answers to x say, with y to compare."""
    p, numbers = probabilities_of(model, x)
    _refuse_infinite(p, x)
    true, names = class_numbers(y, numbers), names_of(labels, numbers)
    _same_length(p, true)
    K, answer = p.shape[1], p.argmax(axis=1)
    wrong = np.flatnonzero(answer != true)
    right = len(true) - len(wrong)
    hit, called, support = (np.bincount(a, minlength=K) for a in (true[answer == true], answer, true))
    rows = class_rows(hit, called, support, names)
    matrix = np.bincount(true * K + answer, minlength=K * K).reshape(K, K) if K <= LARGEST else None
    low, high = interval(right, len(true))
    return Classes(
        p, true, answer, names, matrix, rows, mean_row(rows), _pairs(true[wrong], answer[wrong], rows),
        wrong[np.argsort(-p[wrong].max(axis=1), kind="stable")], right, low, high,
        float(support.max() / len(true)),
    )  # fmt: skip


def class_rows(hit, predicted, true, names) -> list[ClassRow]:
    """Precision, recall and their harmonic mean of each class; 0 / 0 counts as 0, as in scikit-learn.

    hit, predicted, true (K,): samples called the class rightly, called it, and of it.
    """

    def share(a, b):
        return np.divide(a, b, out=np.zeros(len(a)), where=b > 0).tolist()

    figures = share(hit, predicted), share(hit, true), share(2 * hit, predicted + true)
    return [ClassRow(*row) for row in zip(names, *figures, true.tolist(), predicted.tolist())]


def mean_row(rows: list[ClassRow]) -> ClassRow:
    """The mean of the figures over the classes that occur or are answered, as scikit-learn's macro average,
    and the number of all samples.
    """
    there = [row for row in rows if row.support or row.called]
    K = len(there) or 1
    return ClassRow(
        "mean",
        sum(row.precision for row in there) / K,
        sum(row.recall for row in there) / K,
        sum(row.f1 for row in there) / K,
        sum(row.support for row in there),
        sum(row.called for row in there),
    )


def _pairs(true: np.ndarray, answer: np.ndarray, rows: list[ClassRow]) -> list[Pair]:
    """The mistakes that happened most often."""
    kinds, counts = np.unique(true * len(rows) + answer, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:PAIRS]
    places = [divmod(int(kind), len(rows)) for kind in kinds[most]]
    return [
        Pair(rows[i].name, rows[j].name, int(count), int(count) / rows[i].support)
        for (i, j), count in zip(places, counts[most])
    ]


def interval(right: int, count: int) -> tuple[float, float]:
    """The shares that right of count samples leave plausible, at 95%.  Wilson, 1927."""
    z2, share = LEVEL**2, right / count
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = LEVEL / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


@dataclass(frozen=True)
class Labels:
    """p, yes (N, K): probabilities and what is true.  rows: of the labels; right: the share of answers."""

    p: np.ndarray
    yes: np.ndarray
    names: list[str]
    rows: list[ClassRow]
    mean: ClassRow
    right: float
    exact: float


def labels_of(model, x, y, labels) -> Labels:
    """What a model says that answers K questions with yes or no."""
    p, numbers = probabilities_of(model, x)
    _refuse_infinite(p, x)
    _same_length(p, y)
    if np.shape(y) != p.shape:
        raise ShapeError(f"y must answer each question. Received: {np.shape(y)}. Expected: {p.shape}")
    names, said, yes = names_of(labels, numbers), p > 0.5, np.asarray(y) > 0.5
    counts = ((said & yes).sum(axis=0), said.sum(axis=0), yes.sum(axis=0))
    rows, same = class_rows(*counts, names), said == yes
    return Labels(p, yes, names, rows, mean_row(rows), float(same.mean()), float(same.all(axis=1).mean()))


@dataclass(frozen=True)
class Numbers:
    """predicted, true (N, D).  r2: of each output; error: the mean of |predicted - true|, as a share, too, of
    what always answering the targets' mean would err.  worst: the samples that err most, the worst first.
    """

    predicted: np.ndarray
    true: np.ndarray
    r2: list[float]
    error: float
    squared: float
    usual: float
    worst: np.ndarray


def numbers(model, x, y) -> Numbers:
    """What a regression's answers to x say, with y to compare."""
    predicted = answers(model, x)
    true = np.asarray(y, dtype=float).reshape(len(y), -1)
    _same_length(predicted, true)
    if true.shape != predicted.shape:
        raise ShapeError(
            f"y must fit the model's outputs. Received: {np.shape(y)}. Expected: {predicted.shape}"
        )
    d = predicted - true
    spread = true - true.mean(axis=0)
    total = (spread**2).sum(axis=0)
    r2 = 1 - np.divide((d**2).sum(axis=0), total, out=np.ones(len(total)), where=total > 0)
    scale = np.sqrt(total / len(true)) + (total == 0)
    worst = np.argsort(-(np.abs(d) / scale).max(axis=1), kind="stable")
    return Numbers(
        predicted, true, r2.tolist(), float(np.abs(d).mean()), float((d**2).mean()),
        float(np.abs(spread).mean()), worst,
    )  # fmt: skip


def answers(model, x) -> np.ndarray:
    """The model's outputs, all of them finite."""
    y = np.asarray(model.predict(x), dtype=float)
    _refuse_infinite(y, x)
    return y


def _refuse_infinite(answers: np.ndarray, x) -> None:
    bad = ~np.isfinite(answers.reshape(len(answers), -1)).all(axis=1)
    if bad.any():
        raise ValueError(
            f"a report needs answers that are numbers. Received: NaN or infinity for {int(bad.sum())} of "
            f"{len(bad)} samples, the first of them sample {int(bad.argmax())}. Expected: a model whose "
            "training did not diverge, and samples without NaN"
        )


def _same_length(answers, y) -> None:
    if len(answers) != len(y):
        raise ShapeError(f"each sample needs its target. Received: {len(answers)} in x, {len(y)} in y")


def targets(y) -> np.ndarray:
    """y as an array of numbers on the host, refused where it is none."""
    y = np.asarray(as_array(y, "y"))
    if y.ndim == 0 or not y.size:
        raise ShapeError(f"y holds no targets. Received: shape {y.shape}. Expected: one a sample")
    if y.dtype.kind not in "biuf":
        raise ValueError(
            f"y must be numbers. Received: dtype {y.dtype}. Expected: the classes' numbers, with their names "
            "as labels=, or what a regression should answer"
        )
    if not np.isfinite(y).all():
        raise ValueError(f"y holds NaN or infinity, {int((~np.isfinite(y)).sum())} in all. Expected: numbers")
    return y
