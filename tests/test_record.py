"""Recordings: what is repeated is what the layers would do, or nothing is recorded."""

import copy
import pickle
import threading

import numpy as np
import pytest

import xpnet
from xpnet import Sequential, replay
from xpnet.layers import (
    Activation,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    LayerNormalization,
    MaxPooling2D,
    Residual,
)
from xpnet.ops import memory, record, threads
from xpnet.ops.record import NotRecordable
from xpnet.training import host


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def in_slices(a):
    out = record.empty((6, 8), a.dtype)
    out[...] = 0
    out[1:5, 2:] = a[:, :6]
    out[::2] += a[0] * 2
    out[0, 0] = a[1, 1]
    return out


def bordered(a):
    out = record.zeros((6, 10), a.dtype)
    out[1:5, 1:9] = a
    return out * 2


def normalised(a):
    return (a - a.mean(axis=1, keepdims=True)) / a.max(axis=0)


def in_place(a):
    y = a.copy()
    y *= 3
    np.maximum(y, 0, out=y)
    y -= y.sum()
    return y


WORK = {
    "in place": in_place,
    "slices": in_slices,
    "borders": bordered,
    "reductions": normalised,
    "products": lambda a: a @ a.T,
    "a copy by reshape": lambda a: a.T.reshape(-1) + 1,
    "types": lambda a: (a > 0).astype(np.float32) * a.astype(np.float64),
    "choices": lambda a: np.where(a > 0, a, -a * 2),
    "lists": lambda a: np.concatenate([np.stack([a[0], a[1]]), a], axis=0),
    "classes": lambda a: a.argmax(axis=1) == a[:, :4].argmax(axis=0),
    "chosen rows": lambda a: a[a.argmax(axis=0)],
    "numbers": lambda a: np.stack([a.sum(), a[0, 0], np.dot(a[0], a[1])]),
    "new arrays": lambda a: np.ones_like(a) + np.zeros_like(a) - a,
    "bytes": lambda a: (a + 1).view(np.int32) >> 3,
    "limits": lambda a: np.clip(a, -0.5, 0.5) + a.clip(0, 1),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_recording_answers_other_numbers_as_the_function_does(work):
    first, second = floats(4, 8), floats(4, 8, seed=1)
    recording = record.record(lambda a: (work(a),), first)
    for a in (first, second, first):
        expected, (answer,) = work(a), recording(a)
        assert answer.dtype == expected.dtype
        np.testing.assert_array_equal(answer, expected, strict=True)
    assert record.now.tape is None


plain = np.zeros((4, 8), np.float32)

FREEZING = {
    "float": lambda a: a * float(a.sum()),
    "int": lambda a: a * int(a.sum()),
    "bool": lambda a: a if a.sum() > 0 else -a,
    "item": lambda a: a * a[0, 0].item(),
    "tolist": lambda a: a + a.tolist(),
    "index": lambda a: a[: a.argmax()],
    "contains": lambda a: a * (0 in a),
    "a mask": lambda a: a[a > 0],
    "writing by a mask": lambda a: a.__setitem__(a > 0, 0),
    "sort": lambda a: a.sort(),
    "take": lambda a: a.take([0]),
    "a strange function": lambda a: np.unwrap(a),
    "two results": lambda a: np.modf(a)[0],
    "accumulate": lambda a: np.add.accumulate(a),
    "memory of others": lambda a: (np.add(a, 1, out=plain), a + plain)[1],
    "a plain result": lambda a: np.asarray(a),
    "a plain view": lambda a: a.view(np.ndarray),
    "pickling": lambda a: copy.deepcopy(a),
}


@pytest.mark.parametrize("work", FREEZING.values(), ids=FREEZING)
def test_what_would_freeze_a_value_is_refused(work):
    with pytest.raises(NotRecordable):
        record.record(lambda a: (work(a),), floats(4, 8))
    assert record.now.tape is None


def test_a_recording_within_a_recording_is_refused():
    with pytest.raises(NotRecordable, match="under way"):
        record.record(lambda a: record.record(lambda b: (b + 1,), floats(2)).results, floats(2))


def test_an_array_of_a_recording_cannot_be_used_after_it():
    kept = []
    record.record(lambda a: (kept.append(a + 1), a * 2)[1:], floats(3))
    with pytest.raises(NotRecordable, match="after it"):
        kept[0] + 1


def test_arrays_that_are_not_needed_together_share_memory():
    def chain(a):
        for k in range(400):
            a = a * 1.5 ** (1 - 2 * (k % 2)) + k
        return (a,)

    room = memory.Room()
    recording = record.record(chain, floats(9000), room=room)
    assert room.size <= memory.CHUNK  # of 29 MB in all
    np.testing.assert_array_equal(recording(floats(9000, seed=1))[0], chain(floats(9000, seed=1))[0])


def test_a_call_holds_no_place():
    """What the layers let go of is free for what comes next, though the calls remember where it lay."""
    room, held = memory.Room(), []

    def work(a):
        b = a + 1
        b[:0] = 0  # nothing, but a view
        c = b * 2
        del b
        held.append(room.size - room.unused)
        return (c,)

    recording = record.record(work, floats(4096), room=room)
    assert held == [2 * 4096 * 4]  # a and c
    assert room.unused == room.size and recording.calls


def test_recordings_in_one_room_lie_over_one_another():
    room = memory.Room()
    double = record.record(lambda a: (a * 2 + 1,), floats(5000), room=room)
    size = room.size
    triple = record.record(lambda a: (a * 3 + 1,), floats(4000), room=room)
    assert room.size == size
    for seed in range(3):
        np.testing.assert_array_equal(double(floats(5000, seed=seed))[0], floats(5000, seed=seed) * 2 + 1)
        np.testing.assert_array_equal(triple(floats(4000, seed=seed))[0], floats(4000, seed=seed) * 3 + 1)


def test_zeros_that_nobody_writes_stay_zeros_beside_reused_memory():
    def work(a):
        b = a * 2  # of memory that the border's would be, were it free to take
        c = b + 1
        del b
        border = record.zeros((3, *c.shape), c.dtype)
        border[1] = c
        return (border.sum(axis=0), border[0] + border[2])

    recording = record.record(work, floats(600))
    for seed in range(2):
        total, edge = recording(floats(600, seed=seed))
        np.testing.assert_array_equal(edge, 0)
        np.testing.assert_array_equal(total, floats(600, seed=seed) * 2 + 1)


def test_an_array_that_is_needed_late_is_not_overwritten():
    def work(a):
        early = a + 1
        for _ in range(5):
            a = a * 2
        return a + early, early

    recording = record.record(work, floats(500))
    for answer, expected in zip(recording(floats(500, seed=1)), work(floats(500, seed=1))):
        np.testing.assert_array_equal(answer, expected)


def test_a_function_is_asked_again():
    count = iter(range(100))
    recording = record.record(
        lambda a: (a + record.again(lambda: np.full(3, next(count), a.dtype)),), np.zeros(3)
    )
    assert [recording(np.zeros(3))[0][0] for _ in range(3)] == [1, 2, 3]
    assert record.again(np.add, 1, 2) == 3  # where nothing is recorded


# -- whose work, from when on, and until when ------------------------------------------------------------


def repeated(work):
    """work over buffers of one number, `values`."""
    buffers = replay.Buffers(*(np.ones(1) for _ in range(4)))

    def make(buffers, view):
        return lambda x: work(x, view(buffers.values))

    return replay.Repeated(make, buffers, list), buffers


def test_recorded_once_the_shapes_have_come_a_few_times_and_the_weights_followed():
    again, buffers = repeated(lambda x, w: (x * w,))
    x = floats(3).astype(float)
    assert [again(x) is None for _ in range(replay.USES)] == [True] * replay.USES
    np.testing.assert_array_equal(again(x)[0], x)
    buffers.values[0] = 5
    first = again(x)[0]
    again(x + 1)
    np.testing.assert_array_equal(first, 5 * x)  # of its own memory
    assert again(x[:2]) is None and again(x.astype(np.float32)) is None  # other shapes, other types


@pytest.mark.parametrize(
    "work",
    [
        lambda x, w: (x + np.asarray(x).sum(),),
        lambda x, w: (x * np.array(w),),
        lambda x, w: (x * float(np.asarray(w)[0]),),
    ],
    ids=["of the input", "of a weight", "a number of a weight"],
)
def test_a_value_frozen_behind_the_tape_s_back_shows_in_the_trial(work):
    again, _ = repeated(work)
    assert [again(floats(3).astype(float)) for _ in range(3 * replay.USES)] == [None] * 3 * replay.USES


def test_few_shapes_are_kept():
    again, _ = repeated(lambda x, w: (x * w,))
    for n in range(1, 3 * replay.MOST):
        for _ in range(replay.USES + 1):
            answer = again(np.ones(n))
        assert answer is not None
        assert len(again.recordings()) <= replay.MOST


def test_shapes_that_take_turns_do_not_chase_each_other_out():
    again, _ = repeated(lambda x, w: (x * w,))
    made = []
    once = again._record
    again._record = lambda worker, key, arrays: made.append(key) or once(worker, key, arrays)
    sizes = range(1, replay.MOST + 3)
    for _ in range(replay.USES + 20):
        for n in sizes:
            again(np.ones(n))
    assert len(made) == len(sizes), "each once"


def test_large_recordings_are_forgotten_where_training_ends(monkeypatch):
    again, _ = repeated(lambda x, w: (x * w,))
    for _ in range(replay.USES + 1):
        again(np.ones(7))
    monkeypatch.setattr(replay, "LARGE", memory.CHUNK + 1)
    again.forget()
    assert again.recordings()
    monkeypatch.setattr(replay, "LARGE", memory.CHUNK)
    again.forget()
    assert not again.recordings()
    assert again(np.ones(7)) is not None, "it is made anew"


def test_who_does_the_same_work_on_other_samples_needs_no_trial_of_its_own(monkeypatch):
    trials, proved = [], set()
    once = replay.Repeated._try
    monkeypatch.setattr(
        replay.Repeated, "_try", lambda self, arrays: trials.append(self) or once(self, arrays)
    )
    first, _ = repeated(lambda x, w: (x * w,))
    second, _ = repeated(lambda x, w: (x * w,))
    first.proved = second.proved = proved
    for again in (first, second):
        for _ in range(replay.USES + 1):
            answer = again(np.ones(7))
        assert answer is not None
    assert trials == [first]


# -- models ----------------------------------------------------------------------------------------------

CNN = (2, 8, 8)


def cnn():
    return [
        Conv2D(4, 3, padding="same", activation="relu"),
        BatchNormalization(),
        MaxPooling2D(2),
        Dropout(0.3),
        Conv2D(5, 3, activation="gelu"),
        Flatten(),
        Dense(16, activation="tanh"),
        Dropout(0.2),
        Dense(3, activation="softmax"),
    ]


def branched():
    return [
        Conv2D(4, 3, padding="same"),
        Residual([Conv2D(4, 3, padding="same", activation="relu"), BatchNormalization()], activation="relu"),
        Concatenate([[Conv2D(3, 1)], [MaxPooling2D(3, 1, padding="same"), Dropout(0.1)]]),
        LayerNormalization(),
        Activation("leaky_relu"),
        GlobalAveragePooling2D(),
        Dense(3),
    ]


def model(layers=cnn, metrics=("accuracy",), **options):
    made = Sequential(layers(), input_shape=CNN, seed=3, **options)
    made.compile("adam", "sparse_categorical_crossentropy", metrics=metrics)
    return made


def recordings(again):
    return again.recordings()


def layers_answer(made, x):
    """What the layers say, which nothing has recorded."""
    y = made.leave(made.infer(made.enter(x, made.ops)))
    return y


def warmed(made, n=1):
    for seed in range(replay.USES + 1):
        made.predict(floats(n, *CNN, seed=seed))
    assert recordings(made.inference()._repeated)
    return made


@pytest.mark.parametrize("layers", [cnn, branched])
@pytest.mark.parametrize("n", [1, 5])
def test_predictions_are_those_of_the_layers_to_the_bit(layers, n):
    made = warmed(model(layers), n)
    for seed in (7, 8):
        x = floats(n, *CNN, seed=seed)
        np.testing.assert_array_equal(made.predict(x), layers_answer(made, x), strict=True)
        made.load_state_dict({k: v + np.asarray(0.1, v.dtype) for k, v in made.state_dict().items()})
    made.fit(floats(8, *CNN), np.arange(8) % 3, batch_size=4, verbose=0)
    np.testing.assert_array_equal(made.predict(x), layers_answer(made, x))


def test_maps_come_out_in_the_model_s_format():
    made = Sequential([Conv2D(3, 3)], input_shape=(8, 8, 2), data_format="channels_last", seed=0)
    for seed in range(2 * replay.USES):
        x = floats(1, 8, 8, 2, seed=seed)
        y = made.predict(x)
        assert y.flags.c_contiguous and y.flags.owndata
        np.testing.assert_array_equal(y, layers_answer(made, x).transpose(0, 2, 3, 1))
    assert recordings(made.inference()._repeated)


def test_a_prediction_keeps_its_numbers():
    made = warmed(model())
    first = made.predict(floats(1, *CNN, seed=1))
    before = first.copy()
    made.predict(floats(1, *CNN, seed=2))
    np.testing.assert_array_equal(first, before)


def change_activation(made):
    made.layers[0].activation = xpnet.activations.get("tanh")


def change_slope(made):
    made.layers[4].activation.negative_slope = 0.9


def change_rate(made):
    made.layers[2].rate = 0.9


def replace_weights(made):
    made.layers[-1].weight = made.layers[-1].weight * 2


def shorten(made):
    made.pop()


def exchange(made):
    made.layers[4], made.layers[5] = made.layers[5], made.layers[4]


class Counting(xpnet.activations.ActivationFunction):
    """A user's activation, which is another at each call."""

    calls = 0

    def forward(self, ops, z, out):
        out[...] = z * self.calls
        type(self).calls += 1
        return out


def test_an_activation_of_the_user_s_own_is_asked_each_time():
    made = warmed(model())
    made.layers[-1].activation = Counting()
    for _ in range(2 * replay.USES):
        made.predict(floats(1, *CNN))
    assert Counting.calls == 2 * replay.USES


CHANGES = [exchange, change_activation, change_slope, change_rate, replace_weights, shorten]


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_user_changes_holds_from_the_next_prediction_on(change):
    made = Sequential(
        [
            Conv2D(4, 3, activation="relu"),
            Flatten(),
            Dropout(0.5, scaling="inference"),
            Dense(8, activation="relu"),
            Dense(8, activation="leaky_relu"),
            Dense(8),
        ],
        input_shape=CNN,
        seed=1,
    )
    x = floats(1, *CNN, seed=9)
    before = warmed(made).predict(x)
    change(made)
    after = made.predict(x)
    np.testing.assert_array_equal(after, layers_answer(made, x))
    assert after.shape != before.shape or (after != before).any()
    for _ in range(2 * replay.USES):
        made.predict(x)
    assert bool(recordings(made.inference()._repeated)) == (change is not replace_weights)
    np.testing.assert_array_equal(made.predict(x), after)


class Moody(Dense):
    """A user's layer, which looks at values and changes its mind."""

    mood = 1

    def forward(self, x, *, train):
        y, cache = super().forward(x, train=train)
        return y * self.mood, cache


def test_a_user_s_layer_is_asked_each_time():
    made = Sequential([Moody(3)], input_shape=(4,), seed=0)
    x = floats(1, 4)
    for _ in range(2 * replay.USES):
        first = made.predict(x)
    Moody.mood = 2
    try:
        np.testing.assert_array_equal(made.predict(x), 2 * first)
    finally:
        Moody.mood = 1


def test_a_method_of_the_user_s_own_is_asked_each_time():
    made, calls = Sequential([Dense(3)], input_shape=(4,), seed=0), []
    layer = made.layers[0]

    def forward(x, *, train):
        calls.append(len(x))
        return Dense.forward(layer, x, train=train)

    layer.forward = forward
    for _ in range(2 * replay.USES):
        made.predict(floats(1, 4))
    assert len(calls) == 2 * replay.USES


def test_copies_and_pickles_go_without_recordings():
    made = warmed(model())
    x = floats(1, *CNN, seed=9)
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert twin._inference is None
        twin.load_state_dict({k: v * np.asarray(2, v.dtype) for k, v in twin.state_dict().items()})
        np.testing.assert_array_equal(twin.predict(x), layers_answer(twin, x))
    np.testing.assert_array_equal(made.predict(x), layers_answer(made, x))


def test_several_threads_predict_with_one_model():
    made, errors = warmed(model()), []
    inputs = [floats(1, *CNN, seed=seed) for seed in range(4)]
    expected = [layers_answer(made, x) for x in inputs]

    def work(k):
        for _ in range(200):
            if not np.array_equal(made.predict(inputs[k]), expected[k]):
                errors.append(k)

    crew = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    [thread.start() for thread in crew]
    [thread.join() for thread in crew]
    assert not errors


@pytest.mark.parametrize("crew", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 7, 64, 1000, 1025])
def test_blocks_cover_the_samples_in_order_and_share_them_evenly(count, crew, monkeypatch):
    if not threads.blas_can_be_limited():
        crew = 1
    monkeypatch.setattr(threads, "num_threads", lambda: crew)
    inference = model().inference()
    inference.block, inference.work, inference.least = 32, 1, 8
    shares = inference.blocks(count, None)
    flat = [block for share in shares for block in share]
    assert [i for block in flat for i in range(block.start, block.stop)] == list(range(count))
    assert all(1 <= block.stop - block.start <= 32 for block in flat)
    assert len(shares) == max(1, min(crew, count // 8))
    sizes = [sum(block.stop - block.start for block in share) for share in shares]
    assert max(sizes) - min(sizes) <= 40
    assert all(
        block.stop - block.start == 5 for block in flat[:-1] for block in inference.blocks(count, 5)[0][:1]
    )


# -- training --------------------------------------------------------------------------------------------


def trained(monkeypatch, uses, layers, weights=None, **options):
    """The model after 14 steps, and what fit said."""
    monkeypatch.setattr(replay, "USES", uses)
    made = model(layers, **options)
    x, y = floats(56, *CNN), np.random.default_rng(1).integers(0, 3, 56)
    history = made.fit(x, y, batch_size=8, epochs=2, verbose=0, sample_weight=weights).history
    return made, history


@pytest.mark.parametrize("layers", [cnn, branched])
@pytest.mark.parametrize("metrics", [(), ("accuracy", "f1")])
def test_training_by_recordings_is_training_by_the_layers_to_the_bit(layers, metrics, monkeypatch):
    xpnet.set_num_threads(1)
    try:
        recorded, said = trained(monkeypatch, 2, layers, metrics=metrics)
        eager, expected = trained(monkeypatch, 1 << 30, layers, metrics=metrics)
        (replica,) = recorded.train_step().replicas(8)
    finally:
        xpnet.set_num_threads(None)
    assert recordings(replica.repeated)
    assert said == expected
    for name, value in eager.state_dict().items():
        np.testing.assert_array_equal(recorded.state_dict()[name], value, err_msg=name)


def test_training_leaves_no_large_recordings_behind(monkeypatch):
    monkeypatch.setattr(replay, "LARGE", 0)
    made, _ = trained(monkeypatch, 2, branched)
    assert not any(recordings(replica.repeated) for replica in made.train_step().replicas(8))


@pytest.mark.parametrize("layers", [cnn, branched])
def test_two_replicas_have_recordings_of_their_own_and_meet_in_them(layers, monkeypatch):
    """Batch statistics are the whole batch's, which no replica knows alone."""
    if not threads.blas_can_be_limited():
        pytest.skip("the BLAS behind NumPy obeys no thread limit")
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    monkeypatch.setattr(host, "LEAST_WORK", 1)
    monkeypatch.setattr(host, "LEAST_SAMPLES", 4)
    recorded, said = trained(monkeypatch, 2, layers)
    eager, expected = trained(monkeypatch, 1 << 30, layers)
    replicas = recorded.train_step().replicas(8)
    assert [bool(recordings(replica.repeated)) for replica in replicas] == [True, True]
    assert said == expected
    for name, value in eager.state_dict().items():
        np.testing.assert_array_equal(recorded.state_dict()[name], value, err_msg=name)


def test_a_replica_that_is_not_recorded_meets_one_that_is(monkeypatch):
    if not threads.blas_can_be_limited():
        pytest.skip("the BLAS behind NumPy obeys no thread limit")
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    monkeypatch.setattr(host, "LEAST_WORK", 1)
    monkeypatch.setattr(host, "LEAST_SAMPLES", 4)
    plain = replay.Repeated._record

    def record(self, worker, key, arrays):
        if key[0][0] == 5:  # of nine samples the second share
            return None
        return plain(self, worker, key, arrays)

    monkeypatch.setattr(replay.Repeated, "_record", record)
    found = []
    for uses in (2, 1 << 30):
        monkeypatch.setattr(replay, "USES", uses)
        made = model(cnn)
        x, y = floats(54, *CNN), np.random.default_rng(1).integers(0, 3, 54)
        history = made.fit(x, y, batch_size=9, epochs=2, verbose=0).history
        found.append((history, made.params.values.tobytes(), made.params.state.tobytes()))
    assert found[0] == found[1]


def test_weights_of_samples_count_beside_recordings(monkeypatch):
    weights = np.random.default_rng(2).uniform(0, 2, 56)
    recorded, said = trained(monkeypatch, 2, cnn, weights)
    eager, expected = trained(monkeypatch, 1 << 30, cnn, weights)
    assert said == expected
    np.testing.assert_array_equal(recorded.params.values, eager.params.values)


def test_a_metric_or_loss_that_is_changed_is_recorded_anew(monkeypatch):
    xpnet.set_num_threads(1)
    try:
        made, _ = trained(monkeypatch, 2, branched)
        x, y = floats(8, *CNN), np.arange(8) % 3
        made.train_step().head.loss.label_smoothing = 0.5
        twin = copy.deepcopy(made)
        twin.loss.label_smoothing = 0.5
        assert made.train_on_batch(x, y) == twin.train_on_batch(x, y)
    finally:
        xpnet.set_num_threads(None)
