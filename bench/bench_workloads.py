"""Training steps and predictions of the workloads, on data of the device; set-up and transfers apart."""

from __future__ import annotations

import pytest

from bench import workloads
from xpnet.data.arrays import Arrays
from xpnet.ops.threads import blas_threads
from xpnet.training.timing import trainer

every_workload = pytest.mark.parametrize("name", workloads.WORKLOADS)


@every_workload
def test_training_step(timed, ops, name):
    model = workloads.model(name, device=ops)
    x, y = workloads.batch(name)
    step = trainer(model, Arrays(x, y), len(x))
    with blas_threads(model.train_step().blas_threads(len(x))):
        timed(step)


@pytest.mark.parametrize("size", [1, 1000])
@every_workload
def test_predict(timed, ops, name, size):
    model = workloads.model(name, device=ops)
    timed(model.predict, ops.asarray(workloads.batch(name, size)[0]))


@every_workload
def test_set_up(timed, ops, name):
    """A new model and its first three steps, in which a GPU compiles (here: finds compiled) and captures."""
    x, y = workloads.batch(name)

    def set_up():
        run = trainer(workloads.model(name, device=ops), Arrays(x, y), len(x), 3)
        run(), run(), run()

    timed(set_up)


@every_workload
def test_transfer_of_a_batch(timed, ops, name):
    """From host memory to the device's, in which it stays: nothing on the CPU."""
    x, y = workloads.batch(name)
    timed(lambda: (ops.asarray(x), ops.asarray(y)))


@every_workload
def test_reading_the_weights_back(timed, ops, name):
    timed(workloads.model(name, device=ops).state_dict)
