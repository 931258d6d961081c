"""One seed fixes weights, shuffles and masks: two runs agree to the bit, on one thread and on two."""

import subprocess
import sys

import numpy as np
import pytest

import xpnet
from xpnet import Sequential, optimizers
from xpnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from xpnet.ops import threads
from xpnet.training import host as training_step


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def thread_count(request, monkeypatch):
    """Training on so many threads, with a replica on each however small the network."""
    use_threads(monkeypatch, request.param)
    yield request.param
    xpnet.set_num_threads(None)


def use_threads(monkeypatch, count):
    monkeypatch.setattr(threads, "available_cores", lambda: 2)  # also on a machine of one core
    monkeypatch.setattr(training_step, "LEAST_WORK", 1)
    xpnet.set_num_threads(count)


def data(n=80):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 2, 8, 8)).astype(np.float32), rng.integers(0, 3, n)


def model_of(seed=5, precision="float32", rate=0.4):
    model = Sequential(
        [
            Conv2D(4, 3, activation="relu"),
            BatchNormalization(),
            Dropout(rate),
            MaxPooling2D(2),
            Flatten(),
            Dense(16, activation="tanh"),
            Dropout(rate),
            Dense(3),
        ],
        input_shape=(2, 8, 8),
        seed=seed,
        precision=precision,
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def run(**kwargs):
    x, y = data()
    model = model_of(**kwargs)
    history = model.fit(x, y, batch_size=32, epochs=3, validation_split=0.2, verbose=0).history
    return history, model.state_dict(), model.predict(x)


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


def test_two_runs_of_one_seed_agree_to_the_bit(thread_count):
    first, second = run(), run()
    assert first[0] == second[0] and same(first[1], second[1]) and np.array_equal(first[2], second[2])


def test_the_replicas_are_there_when_two_threads_are_asked_for(thread_count):
    x, y = data()
    model = model_of()
    model.fit(x, y, batch_size=32, verbose=0)
    assert len(model.train_step().replicas(32)) == thread_count


def test_another_seed_is_another_run():
    first, second = run(seed=5), run(seed=6)
    assert not same(first[1], second[1])
    assert not np.array_equal(
        model_of(seed=5).state_dict()["0.weight"], model_of(seed=6).state_dict()["0.weight"]
    )


def test_a_model_without_a_seed_draws_one_and_tells_it():
    first, second = model_of(seed=None), model_of(seed=None)
    assert first.seed != second.seed
    assert same(model_of(seed=first.seed).state_dict(), first.state_dict())


def test_runs_agree_between_processes():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_determinism as t, hashlib, numpy as np;"
        "print(hashlib.sha256(b''.join(v.tobytes() for v in t.run()[1].values())).hexdigest())"
    )
    from pathlib import Path

    here = str(Path(__file__).parent)
    outputs = {
        subprocess.run([sys.executable, "-c", code, here], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(outputs) == 1 and len(outputs.pop().strip()) == 64


def test_one_and_two_threads_agree_within_rounding(monkeypatch):
    """Summation order differs, so bits may; shuffles, masks and batch statistics must not."""
    results = []
    for count in (1, 2):
        use_threads(monkeypatch, count)
        results.append(run(precision="float64"))
    xpnet.set_num_threads(None)
    for name, value in results[0][1].items():
        assert np.allclose(value, results[1][1][name], rtol=1e-8, atol=1e-9), name


def masks(model, x, y):
    """What each Dropout layer lets through in one training step, put together from the replicas' shares."""
    found = {}
    original = Dropout.forward

    def spy(layer, h, *, train):
        out, mask = original(layer, h, train=train)
        share = getattr(layer.ops, "share", slice(0, len(x)))
        found.setdefault(layer.label, {})[share.start] = mask != 0
        return out, mask

    Dropout.forward = spy
    try:
        model.train_on_batch(x, y)
    finally:
        Dropout.forward = original
    return {
        label: np.concatenate(
            [part if part.ndim == 2 else part.transpose(3, 1, 0, 2) for _, part in sorted(parts.items())]
        )
        for label, parts in found.items()
    }


def test_dropout_masks_are_the_same_bits_for_one_and_two_threads(monkeypatch):
    x, y = data(33)
    seen = []
    for count in (1, 2):
        use_threads(monkeypatch, count)
        model = model_of()
        assert len(model.train_step().replicas(33)) == count
        seen.append([masks(model, x, y) for _ in range(2)])
    xpnet.set_num_threads(None)
    for one, two in zip(*seen):
        assert list(one) == ["dropout", "dropout_1"] and same(one, two)
    assert not same(seen[0][0], seen[0][1]), "the next step must draw new masks"
    share = seen[0][0]["dropout"].mean()
    assert 0.5 < share < 0.7


def test_two_dropout_layers_do_not_share_their_masks():
    x = np.ones((40, 16), np.float32)
    model = Sequential([Dropout(0.5), Dropout(0.5)], input_shape=(16,), seed=0)
    survivors = (model.forward(x, train=True)[0] != 0).mean()
    assert 0.15 < survivors < 0.35


def test_two_forwards_within_a_step_share_a_mask_and_the_next_step_has_another():
    x, y = data(20)
    model = model_of()
    first, second = model.forward(x, train=True)[0], model.forward(x, train=True)[0]
    assert np.array_equal(first, second)
    model.compile(optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    model.train_on_batch(x, y)
    assert not np.array_equal(first, model.forward(x, train=True)[0])


def test_a_mask_does_not_depend_on_what_was_predicted_or_evaluated_in_between():
    x, y = data(40)
    plain, busy = model_of(), model_of()
    for _ in range(2):
        plain.train_on_batch(x, y)
        busy.predict(x), busy.evaluate(x, y), busy.gradients(x, y), busy.forward(x, train=True)
        busy.train_on_batch(x, y)
    assert same(plain.state_dict(), busy.state_dict())


def test_float32_and_float64_start_from_the_same_weights():
    single, double = model_of(precision="float32").state_dict(), model_of(precision="float64").state_dict()
    for name, value in double.items():
        assert np.array_equal(value.astype(single[name].dtype), single[name]), name
    assert not np.array_equal(double["0.weight"], single["0.weight"]), "float64 should keep all its digits"


def test_initial_weights_of_a_layer_do_not_depend_on_the_layers_behind_it():
    short = Sequential([Dense(4)], input_shape=(5,), seed=1).state_dict()
    long = Sequential([Dense(4), BatchNormalization(), Dense(2)], input_shape=(5,), seed=1).state_dict()
    assert all(np.array_equal(short[name], long[name]) for name in short)


def test_two_layers_of_one_shape_start_differently():
    state = Sequential([Dense(5), Dense(5)], input_shape=(5,), seed=1).state_dict()
    assert not np.array_equal(state["0.weight"], state["1.weight"])


def test_the_global_random_state_is_neither_read_nor_moved():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = run()
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert same(first[1], run()[1])
