"""Softmax cross-entropy with its derivative, and what accuracy counts, in a kernel each."""

from __future__ import annotations

import numpy as np

THREADS = 256


def crossentropy(gpu, p, y, w, divisor, smoothing, mean, loss, dp) -> None:
    """The value_and_grad of (Sparse)CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing).

    p, dp (N, K), of any strides; y: class indices (N,) int64, or targets (N, K); w (N,) or None; divisor: a
    number or a 0-d device array; mean: whether to divide by it; loss: 0-d.  A label that is no class makes
    the loss NaN.
    """
    in_memory = hasattr(divisor, "dtype") and not isinstance(divisor, np.generic)
    pointer, number = (divisor, 0.0) if in_memory else (None, float(divisor))
    of_p, of_dp = _strides(p), _strides(dp)
    D = divisor.dtype.name if in_memory else p.dtype.name
    labels, targets = _labels_or_targets(y)
    how = (pointer, np.float64(number), p.dtype.type(smoothing), int(mean))
    _launch(gpu, "crossentropy", (p, *of_p, labels, targets, w, *how, loss, dp, *of_dp), p, D)


def count_right(gpu, p, y, w, out) -> None:
    """out (2,) = the weight of the samples whose largest output is their class, and of all: metrics.Accuracy.

    p (N, K), of any strides; y: class indices (N,) int64, or targets (N, K); w (N,) or None.
    """
    labels, targets = _labels_or_targets(y)
    _launch(gpu, "count_right", (p, *_strides(p), labels, targets, w, out), p, out.dtype.name)


def _strides(a):
    return [np.int64(stride // a.itemsize) for stride in a.strides]


def _labels_or_targets(y):
    return (y, None) if y.ndim == 1 else (None, y)


def _launch(gpu, entry, args, p, D) -> None:
    """As many threads a row as leave each about four classes: 1 up to 4 classes, 256 from 513."""
    N, K = p.shape
    L = 1
    while L < THREADS and L * 4 < K:
        L *= 2
    blocks = max(1, -(-N // (THREADS // L)))
    parts = gpu.empty((blocks, 2), np.float64)
    gpu.launch(
        "loss", entry, (blocks,), (THREADS,), (*args, parts, gpu.counters, N, K, L), T=p.dtype.name, D=D
    )
