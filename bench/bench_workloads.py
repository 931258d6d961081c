"""Whole training steps and predictions of the five workloads."""

from __future__ import annotations

import numpy as np
import pytest

from bench import workloads
from xpnet.data.arrays import Arrays
from xpnet.ops.threads import blas_threads


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_training_step(timed, ops, name):
    model = workloads.model(name, device=ops)
    x, y = workloads.batch(name)
    step, data, index = model.train_step(), Arrays(x, y), np.arange(len(x))
    with blas_threads(step.blas_threads(len(x))):
        timed(step, data, index)


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_predict(timed, ops, name, size):
    model = workloads.model(name, device=ops)
    x, _ = workloads.batch(name, size)
    timed(model.predict, x)
