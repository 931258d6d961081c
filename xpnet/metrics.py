"""What people read while training goes on.

A metric is a sum over samples and a function of that sum: `sums(ops, p, y, w)` yields a vector that adds up
over batches and replicas (on the device, so nothing waits for it), and `result(total)` makes the figure of it
on the host. p are outputs (N, K), y class indices (N,) or targets (N, K), w a weight a sample.  Called with
host arrays, a metric gives its value at once: `Accuracy()(y_true, y_pred)`.
"""

from __future__ import annotations

import re

import numpy as np

from .config import Configurable
from .errors import ShapeError, unknown


class Metric(Configurable):
    """Base.  p (N, K) or (N, K, H, W), y (N,), (N, K), (N, H, W) or (N, K, H, W).

    Called with host arrays, metric(y, p, sample_weight), it gives its figure.  ranks_only: whether the order
    of a sample's outputs is all it looks at, so that logits do.  better: "max" or "min", which is the better
    figure; None where nobody can say.
    """

    ranks_only = False
    better: str | None = None
    multilabel = False  # set by the model: outputs are K independent yes-or-no answers

    @property
    def name(self) -> str:
        """What it goes by in `compile`, in logs and in files."""
        return next((name for name, cls in TABLE.items() if cls is type(self)), type(self).__name__.lower())

    def sums(self, ops, p, y, w):
        """A vector (S,) that adds up over samples, of which each weighs w (N,)."""
        raise NotImplementedError(f"{type(self).__name__} has no sums")

    def result(self, total: np.ndarray):
        """The figure, from the total (S,) over all samples."""
        return float(total[0] / total[1]) if total[1] else 0.0

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The figure for host arrays."""
        from .ops.reference import Ops

        p, y = np.asarray(y_pred), np.asarray(y_true)
        if len(p) != len(y):
            raise ShapeError(
                f"{self.name}: lengths differ. Received: {len(y)} targets and {len(p)} predictions"
            )
        if (
            p.ndim == y.ndim == 1
            and self.ranks_only
            and (p == np.floor(p)).all()
            and max(p.max(), y.max()) > 1
        ):
            p = np.eye(int(max(p.max(), y.max())) + 1)[p.astype(int)]  # predicted class indices
        p = p[:, None] if p.ndim == 1 else p
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 and p.shape[1] > 1 else y
        y = y[:, None] if y.ndim == 1 and p.shape[1] == 1 else y
        w = np.ones(len(p)) if sample_weight is None else np.asarray(sample_weight, float)
        return self.result(np.asarray(self.sums(Ops(), p, y, w)))


def _pixels_as_samples(p, y, w):
    """Maps (N, K, H, W) as N*H*W samples of K outputs, each with its share of the sample's weight."""
    if p.ndim == 2:
        return p, y, w
    K = p.shape[1]
    pixels = p[0, 0].size

    def rows(a):
        return a.transpose((0, *range(2, a.ndim), 1)).reshape(-1, K)

    y = rows(y) if y.ndim == p.ndim else y.reshape(-1)
    return rows(p), y, (w[:, None] / pixels).repeat(pixels, axis=1).reshape(-1)


def _classes(xp, p, y):
    """Predicted and true class of each sample; for one output, 1 where it exceeds a half."""
    if p.shape[1] == 1:
        return (p[:, 0] > 0.5).astype(np.int64), (y.reshape(-1) > 0.5).astype(np.int64)
    return p.argmax(axis=1), y.argmax(axis=1) if y.ndim == 2 else y


class Accuracy(Metric):
    """The share of samples whose largest output is their class; of right answers, for yes-or-no outputs."""

    ranks_only = True
    better = "max"

    def sums(self, ops, p, y, w):
        if p.ndim == 2 and p.shape[1] > 1 and not self.multilabel:
            counted = ops.count_right(p, y, w)
            if counted is not None:
                return counted
        p, y, w = _pixels_as_samples(p, y, w)
        if self.multilabel:
            right = ((p > 0.5) == (y > 0.5)).mean(axis=1)
        else:
            predicted, true = _classes(ops.xp, p, y)
            right = predicted == true
        return ops.xp.stack([(right * w).sum(), w.sum()])


class TopKCategoricalAccuracy(Metric):
    """The share of samples whose class is among the k largest outputs; ties count against it.

    k: at least 1.
    """

    ranks_only = True
    better = "max"

    def __init__(self, k=5):
        if not k >= 1:
            raise ValueError(f"k must be at least 1. Received: {k!r}")
        self.k = k

    @property
    def name(self):
        return f"top_{self.k}_accuracy"

    def sums(self, ops, p, y, w):
        xp = ops.xp
        p, y, w = _pixels_as_samples(p, y, w)
        true = y.argmax(axis=1) if y.ndim == 2 else y
        own = xp.take_along_axis(p, true[:, None], axis=1)
        right = (p >= own).sum(axis=1) <= self.k
        return xp.stack([(right * w).sum(), w.sum()])


class BinaryAccuracy(Accuracy):
    """Accuracy by Keras's name for yes-or-no outputs.  name: what it is called in logs."""

    name = ""

    def __init__(self, name="binary_accuracy"):
        self.name = name


class CategoricalAccuracy(BinaryAccuracy):
    """Accuracy by Keras's name for one-hot targets."""

    def __init__(self, name="categorical_accuracy"):
        super().__init__(name)


class SparseCategoricalAccuracy(BinaryAccuracy):
    """Accuracy by Keras's name for targets that are class indices."""

    def __init__(self, name="sparse_categorical_accuracy"):
        super().__init__(name)


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """TopKCategoricalAccuracy by Keras's name for targets that are class indices.  name: in logs."""

    name = ""

    def __init__(self, k=5, name="sparse_top_k_categorical_accuracy"):
        super().__init__(k)
        self.name = name


class _Counts(Metric):
    """p (N, K), y (N,) or (N, K).

    average: "macro" (mean of the classes' figures), "micro" (of the counts), or None (a figure a class).  For
    one yes-or-no output, the figure of "yes".  0 / 0 counts as 0, as in scikit-learn.
    """

    ranks_only = True
    better = "max"

    def __init__(self, average: str | None = "macro"):
        if average not in ("macro", "micro", None):
            raise unknown("average", average, ("macro", "micro", "None"))
        self.average = average

    def sums(self, ops, p, y, w):
        xp = ops.xp
        p, y, w = _pixels_as_samples(p, y, w)
        if self.multilabel or p.shape[1] == 1:
            predicted, true = p > 0.5, y.reshape(p.shape) > 0.5
        else:
            labels = xp.arange(p.shape[1])
            predicted, true = (c[:, None] == labels for c in _classes(xp, p, y))
        w = w[:, None]
        hit = (w * (predicted & true)).sum(axis=0)
        return xp.concatenate([hit, (w * predicted).sum(axis=0), (w * true).sum(axis=0)])

    def _figure(self, hit, predicted, true):
        raise NotImplementedError(f"{type(self).__name__} has no figure")

    def result(self, total):
        hit, predicted, true = np.asarray(total, float).reshape(3, -1)
        if self.average == "micro":
            hit, predicted, true = (a.sum(keepdims=True) for a in (hit, predicted, true))
        figures = self._figure(hit, predicted, true)
        return figures.tolist() if self.average is None else float(figures.mean())


def _share(a, b):
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


class Precision(_Counts):
    __doc__ = f"Of the samples called a class, the share that are it.  {_Counts.__doc__}"

    def _figure(self, hit, predicted, true):
        return _share(hit, predicted)


class Recall(_Counts):
    __doc__ = f"Of the samples of a class, the share that are called it.  {_Counts.__doc__}"

    def _figure(self, hit, predicted, true):
        return _share(hit, true)


class F1Score(_Counts):
    __doc__ = f"The harmonic mean of precision and recall.  {_Counts.__doc__}"

    def _figure(self, hit, predicted, true):
        return _share(2 * hit, predicted + true)


class ConfusionMatrix(Metric):
    """How often class i (row) was called class j (column), as nested lists (K, K)."""

    ranks_only = True

    def sums(self, ops, p, y, w):
        xp = ops.xp
        p, y, w = _pixels_as_samples(p, y, w)
        labels = xp.arange(max(2, p.shape[1]))
        predicted, true = ((c[:, None] == labels).astype(w.dtype) for c in _classes(xp, p, y))
        return ops.matmul(true.T, predicted * w[:, None]).reshape(-1)

    def result(self, total):
        K = round(len(total) ** 0.5)
        return total.reshape(K, K).tolist()


def _difference(name: str, p, y):
    if p.shape != y.shape:
        raise ShapeError(
            f"{name} compares numbers. Received: targets {y.shape} for outputs {p.shape}. Expected: the same "
            "shape; with class indices for targets use one-hot rows, or metrics=['accuracy']"
        )
    return p - y


class MeanSquaredError(Metric):
    """(p - y)^2, the mean over outputs and samples."""

    better = "min"

    def sums(self, ops, p, y, w):
        d = _difference(self.name, p, y)
        return ops.xp.stack([((d * d).reshape(len(d), -1).mean(axis=1) * w).sum(), w.sum()])


class MeanAbsoluteError(Metric):
    """|p - y|, the mean over outputs and samples."""

    better = "min"

    def sums(self, ops, p, y, w):
        d = ops.xp.abs(_difference(self.name, p, y))
        return ops.xp.stack([(d.reshape(len(d), -1).mean(axis=1) * w).sum(), w.sum()])


class R2Score(Metric):
    """1 - (squared error) / (squared distance from the targets' mean), the mean over the outputs; 0 for
    constant targets.

    Summed as moments, in float64.
    """

    better = "max"

    def sums(self, ops, p, y, w):
        d = _difference(self.name, p, y).reshape(len(p), -1).astype(np.float64)
        y, w = y.reshape(len(y), -1).astype(np.float64), w[:, None].astype(np.float64)
        moments = [w * d * d, w * y * y, w * y, w * ops.xp.ones_like(y)]
        return ops.xp.concatenate([m.sum(axis=0) for m in moments])

    def result(self, total):
        error, squares, first, n = np.asarray(total, float).reshape(4, -1)
        spread = squares - _share(first * first, n)
        ok = spread > 1e-12 * np.maximum(squares, 1e-300)
        return float(
            np.where(ok, 1 - np.divide(error, spread, out=np.ones_like(error), where=ok), 0.0).mean()
        )


TABLE: dict[str, type[Metric]] = {
    "accuracy": Accuracy,
    "top_k_accuracy": TopKCategoricalAccuracy,
    "precision": Precision,
    "recall": Recall,
    "f1": F1Score,
    "confusion_matrix": ConfusionMatrix,
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "r2": R2Score,
}
ALIASES = {
    "acc": "accuracy",
    "f1_score": "f1",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "r2_score": "r2",
    "top_k_categorical_accuracy": "top_k_accuracy",
    "categorical_accuracy": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
    "binary_accuracy": "accuracy",
}


def get(metric: str | Metric) -> Metric:
    """The metric of that name, or the one given: "top_3_accuracy", too.  Raises ValueError for an unknown
    name.
    """
    if isinstance(metric, Metric):
        return metric
    name = ALIASES.get(str(metric).lower(), str(metric).lower())
    top = re.fullmatch(r"top_(\d+)_accuracy", name)
    if isinstance(metric, str) and top:
        return TopKCategoricalAccuracy(int(top[1]))
    if not isinstance(metric, str) or name not in TABLE:
        raise unknown("metric", metric, [*TABLE, *ALIASES])
    return TABLE[name]()
