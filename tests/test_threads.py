"""Threads: the count that was asked for, BLAS held back and let go, and models side by side."""

import threading

import numpy as np
import pytest

import xpnet
from xpnet import Sequential, callbacks
from xpnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from xpnet.ops import threads
from xpnet.training import host as training_step

pytestmark = pytest.mark.skipif(
    not threads.blas_can_be_limited(), reason="the BLAS behind NumPy obeys no thread limit"
)


@pytest.fixture(autouse=True)
def default_count():
    """BLAS on two threads before each test, so that a limit shows; both counts put back after it."""
    limit = threads._hold.controller().limit(limits=2)
    if set(blas()) != {2}:
        limit.restore_original_limits()
        pytest.skip("this BLAS was built for one thread")
    yield
    limit.restore_original_limits()
    xpnet.set_num_threads(None)


@pytest.fixture
def two_threads(monkeypatch):
    """Two replicas for batches of 16 and more, on any machine."""
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    monkeypatch.setattr(training_step, "LEAST_WORK", 1)
    xpnet.set_num_threads(2)


def blas():
    """How many threads each BLAS library would use now."""
    return [library["num_threads"] for library in threads.blas_info()]


def data(n=64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 2, 8, 8)).astype(np.float32), rng.integers(0, 3, n)


def cnn(seed=0):
    model = Sequential(
        [
            Conv2D(4, 3, activation="relu"),
            BatchNormalization(),
            MaxPooling2D(2),
            Flatten(),
            Dropout(0.3),
            Dense(3),
        ],
        input_shape=(2, 8, 8),
        seed=seed,
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


def side_by_side(*jobs):
    """Run the jobs at once, each in a thread; their results, or the first error."""
    results, errors, start = [None] * len(jobs), [], threading.Barrier(len(jobs))

    def work(k):
        try:
            start.wait(10)
            results[k] = jobs[k]()
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(jobs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return results


# -- the count -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True])
def test_a_thread_count_that_is_none(n):
    with pytest.raises(ValueError, match=r"thread count must be a whole number of at least 1. Received: "):
        xpnet.set_num_threads(n)


def test_the_count_is_at_most_one_a_core_and_none_goes_back(monkeypatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 4)
    xpnet.set_num_threads(3)
    assert threads.num_threads() == 3
    xpnet.set_num_threads(64)
    assert threads.num_threads() == 4
    xpnet.set_num_threads(None)
    assert threads.num_threads() == 4


def test_a_count_set_between_steps_takes_effect(two_threads):
    model = cnn()
    x, y = data()
    model.train_on_batch(x, y)
    assert len(model.train_step().replicas(64)) == 2
    xpnet.set_num_threads(1)
    model.train_on_batch(x, y)
    assert len(model.train_step().replicas(64)) == 1


def test_small_batches_and_small_networks_stay_on_one_thread(monkeypatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    xpnet.set_num_threads(2)
    model = cnn()
    assert len(model.train_step().replicas(64)) == 1, "too little work"
    monkeypatch.setattr(training_step, "LEAST_WORK", 1)
    step = training_step.HostStep(model)
    assert [len(step.replicas(n)) for n in (1, 15, 16, 64)] == [1, 1, 2, 2], "at least 8 samples a replica"


@pytest.mark.parametrize("n", [32, 33, 47])
def test_two_replicas_do_what_one_does(two_threads, n):
    """Batch statistics, dropout masks, loss, metrics and gradients are those of the whole batch."""
    x, y = data(n)
    results = []
    for count in (1, 2):
        xpnet.set_num_threads(count)
        model = cnn()
        weights = np.linspace(0.5, 2, n)
        figures = [model.train_on_batch(x, y, sample_weight=weights) for _ in range(3)]
        results.append((np.array(figures), model.state_dict(), model.gradients(x, y)))
    assert np.allclose(results[0][0], results[1][0], rtol=1e-5)
    for k in (1, 2):
        for name, value in results[0][k].items():
            assert np.allclose(value, results[1][k][name], rtol=1e-3, atol=1e-4), name


# -- BLAS ----------------------------------------------------------------------------------------------------


def test_fit_holds_blas_and_lets_it_go(two_threads):
    before, seen = blas(), []

    class Look(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(blas())

    cnn().fit(*data(), verbose=0, callbacks=[Look()])
    assert seen and all(count == 1 for counts in seen for count in counts)
    assert blas() == before


def test_blas_is_let_go_after_an_exception(two_threads):
    before = blas()

    class Fail(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cnn().fit(*data(), verbose=0, callbacks=[Fail()])
    assert blas() == before
    model = cnn()
    state = model.state_dict()
    state["0.weight"][...] = 3e38
    model.load_state_dict(state)
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(xpnet.NonFiniteError):
            call(*data())
    assert blas() == before


def test_overlapping_limits_restore_what_was_there_before_the_first():
    before = blas()
    first, second = threads.blas_threads(1), threads.blas_threads(2)
    first.__enter__()
    second.__enter__()
    assert blas() == [1] * len(before)
    first.__exit__(None, None, None)  # not nested: the first goes first
    assert blas() == [1] * len(before)
    second.__exit__(None, None, None)
    assert blas() == before
    with threads.blas_threads(1), threads.blas_threads(1):
        pass
    assert blas() == before


def test_predict_inside_a_fit_neither_hangs_nor_lifts_the_limit(two_threads):
    x, y = data()
    before, seen = blas(), []

    class Look(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.predict(x, batch_size=8)
            seen.extend(blas())

    cnn().fit(x, y, epochs=2, verbose=0, callbacks=[Look()])
    assert set(seen) == {1} and blas() == before


# -- side by side --------------------------------------------------------------------------------------------


def test_two_models_train_at_once_as_they_would_alone(two_threads):
    before = blas()

    def train(seed):
        model = cnn(seed)
        model.fit(*data(seed=seed), batch_size=32, epochs=4, verbose=0)
        return model.state_dict()

    alone = [train(1), train(2)]
    together = side_by_side(lambda: train(1), lambda: train(2))
    assert same(alone[0], together[0]) and same(alone[1], together[1])
    assert blas() == before


def test_predict_and_evaluate_from_several_threads_at_once_give_the_same_answers(two_threads):
    x, y = data(100)
    model = cnn()
    model.fit(x, y, verbose=0)
    expected, figures = model.predict(x, batch_size=16), model.evaluate(x, y, batch_size=16)

    def work():
        return [(model.predict(x, batch_size=16), model.evaluate(x, y, batch_size=16)) for _ in range(5)]

    for answers in side_by_side(*[work] * 4):
        for predicted, evaluated in answers:
            assert np.array_equal(predicted, expected) and evaluated == figures


def test_forwards_from_several_threads_keep_their_caches_apart(two_threads):
    model = cnn()
    inputs = [data(8, seed)[0] for seed in range(3)]

    def work(x):
        y, caches = model.forward(x, train=False)
        return y

    expected = [work(x) for x in inputs]
    for got, wanted in zip(side_by_side(*[lambda x=x: work(x) for x in inputs]), expected):
        assert np.array_equal(got, wanted)


def test_an_error_in_one_replica_surfaces_and_training_can_go_on(two_threads):
    class Breaks(Dense):
        broken = True

        def forward(self, x, *, train):
            if Breaks.broken and train and getattr(self.ops, "rank", 0) == 1:
                raise ZeroDivisionError("mine")
            return super().forward(x, train=train)

    x, y = data()
    # the batch norm behind it makes the other replica wait, which must be woken
    model = Sequential([Flatten(), Breaks(8), BatchNormalization(), Dense(3)], input_shape=(2, 8, 8), seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.state_dict()
    with pytest.raises(ZeroDivisionError, match="mine"):
        model.fit(x, y, batch_size=64, verbose=0)
    assert same(before, model.state_dict())
    Breaks.broken = False
    model.fit(x, y, batch_size=64, verbose=0)
    assert not same(before, model.state_dict())


def test_a_forked_child_trains_too(two_threads):
    import multiprocessing

    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    model = cnn()
    x, y = data()
    model.fit(x, y, batch_size=64, verbose=0)  # the workers are there now
    import os
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks in a threaded process
        child = os.fork()
    if child == 0:
        code = 1
        try:
            model.fit(x, y, batch_size=64, verbose=0)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
