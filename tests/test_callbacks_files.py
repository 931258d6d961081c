"""Callbacks that write files: which, when, what is in them, and that they are whole."""

import csv
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import strict_xp

from xpnet import ModelFileError, Sequential, callbacks, load_model, metrics, optimizers, schedules
from xpnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten

X = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 64)


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras", reason="beside Keras's own callbacks: pip install keras torch")


def mlp(optimizer=None, device="cpu", seed=1):
    stack = [Dense(8, activation="tanh"), BatchNormalization(), Dropout(0.2), Dense(3)]
    model = Sequential(stack, input_shape=(5,), seed=seed, device=device)
    optimizer = optimizers.Adam(0.01) if optimizer is None else optimizer
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(model, *listeners, epochs=3, **more):
    return model.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=listeners, **more)


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def figures(**values):
    """Writes figures of its own into the logs."""

    def write(epoch, logs):
        logs.update({name: one[epoch] for name, one in values.items()})

    return callbacks.LambdaCallback(on_epoch_end=write)


# -- ModelCheckpoint -----------------------------------------------------------------------------------------


class Saves:
    """A model that notes where and when it is saved, and nothing else."""

    def __init__(self, direction):
        self.saved, self.now, self.optimizer = [], None, None
        self.metrics = direction

    def save(self, path, **how):
        self.saved.append((self.now, Path(path).name.split(".safe")[0].split(".keras")[0]))


def saved_by(callback, direction, losses, batches=5):
    model = Saves(direction)
    callback.set_model(model)
    callback.set_params({"epochs": len(losses), "validation": True})
    callback.on_train_begin({})
    for epoch, loss in enumerate(losses):
        callback.on_epoch_begin(epoch, {})
        for batch in range(batches):
            model.now = epoch, batch
            callback.on_train_batch_end(batch, {"loss": loss + batch})
        model.now = epoch
        callback.on_epoch_end(epoch, {"loss": loss, "val_loss": loss / 2})
    callback.on_train_end({})
    return model.saved


CHECKPOINTS = [
    {},
    {"save_best_only": True},
    {"save_best_only": True, "mode": "max"},
    {"save_best_only": True, "initial_value_threshold": 0.75},
    {"save_freq": 2},
    {"save_freq": 7},
    {"save_freq": 3, "save_best_only": True, "monitor": "loss"},
]


@pytest.mark.parametrize("arguments", CHECKPOINTS, ids=str)
def test_checkpoints_are_written_when_keras_writes_them_under_the_same_names(keras, tmp_path, arguments):
    name = "{epoch:02d}-{loss:.2f}" + ("-{batch}" if "save_freq" in arguments else "-{val_loss:.2f}")
    losses = [2.0, 1.0, 1.5, 1.0, 0.5, 3.0]
    ours = callbacks.ModelCheckpoint(tmp_path / f"{name}.safetensors", **arguments)
    theirs = keras.callbacks.ModelCheckpoint(tmp_path / f"{name}.keras", **arguments)
    received = saved_by(ours, [("accuracy", metrics.Accuracy())], losses)
    assert received == saved_by(theirs, [], losses) and received


def test_best_last_and_all_hold_the_model_of_their_epoch(tmp_path):
    model, ends = mlp(), []
    note = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(model.state_dict()))
    folder = tmp_path / "made" / "for it"
    fit(
        model, figures(own=[0.3, 0.1, 0.2]), note,
        callbacks.ModelCheckpoint(folder / "best.safetensors", "own", save_best_only=True, mode="min"),
        callbacks.ModelCheckpoint(folder / "last.safetensors"),
        callbacks.ModelCheckpoint(str(folder / "{epoch:03d}-{own:.1f}.safetensors")),
    )  # fmt: skip
    assert names(folder) == [
        "001-0.3.safetensors", "002-0.1.safetensors", "003-0.2.safetensors", "best.safetensors",
        "last.safetensors",
    ]  # fmt: skip
    for name, epoch in (("best", 1), ("last", 2), ("001-0.3", 0)):
        loaded = load_model(folder / f"{name}.safetensors", device="cpu")
        assert same(loaded.state_dict(), ends[epoch])
        assert loaded.evaluate(X, Y, return_dict=True).keys() == {"loss", "accuracy"}


@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_every_so_many_batches_the_weights_of_that_step_are_written(tmp_path, where):
    model, steps = mlp(device=strict_xp.strict_ops() if where == "strict" else where), []

    def note(batch, logs):
        steps.append((f"{model.epochs_trained + 1}-{batch + 1}-{logs['loss']:.6f}", model.state_dict()))

    write = callbacks.ModelCheckpoint(tmp_path / "{epoch}-{batch}-{loss:.6f}.safetensors", save_freq=3)
    fit(model, callbacks.LambdaCallback(on_train_batch_end=note), write)
    assert names(tmp_path) == sorted(f"{name}.safetensors" for name, _ in steps[2::3])
    for name, weights in steps[2::3]:
        written = load_model(tmp_path / f"{name}.safetensors", device="cpu")
        assert same(written.state_dict(), weights)


def test_every_so_many_epochs_and_only_the_last_few(tmp_path):
    write = callbacks.ModelCheckpoint(tmp_path / "{epoch}.safetensors", period=2, keep_last=2)
    fit(mlp(), write, epochs=9)
    assert names(tmp_path) == ["6.safetensors", "8.safetensors"]
    write = callbacks.ModelCheckpoint(tmp_path / "one.safetensors", keep_last=1)
    fit(mlp(), write)
    assert "one.safetensors" in names(tmp_path), "the file just written was taken for an old one"


@pytest.mark.parametrize("name", ["w.safetensors", "w.weights.h5"])
def test_weights_alone_are_read_by_load_weights(tmp_path, name):
    if name.endswith("h5"):
        pytest.importorskip("h5py", reason="Keras's files: pip install 'xpnet[keras]'")
    model = mlp()
    fit(model, callbacks.ModelCheckpoint(tmp_path / name, save_weights_only=True))
    other = mlp(seed=5)
    other.load_weights(tmp_path / name)
    assert all(
        np.array_equal(a, model.state_dict()[n]) for n, a in other.state_dict().items() if "tracked" not in n
    )


def test_a_file_of_weights_alone_is_told_from_a_model(tmp_path):
    fit(mlp(), callbacks.ModelCheckpoint(tmp_path / "w.safetensors", save_weights_only=True))
    with pytest.raises(ModelFileError, match="no xpnet architecture"):
        load_model(tmp_path / "w.safetensors")


@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_a_run_goes_on_from_a_checkpoint_to_the_bit(tmp_path, where):
    def device():
        return strict_xp.strict_ops() if where == "strict" else where

    whole = mlp(device=device())
    fit(whole, epochs=4)
    fit(
        mlp(device=device()),
        callbacks.ModelCheckpoint(tmp_path / "{epoch}.safetensors", training=True),
        epochs=3,
    )
    resumed = load_model(tmp_path / "2.safetensors", device=device())
    fit(resumed, epochs=4, initial_epoch=2)
    assert same(resumed.state_dict(), whole.state_dict())


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    fit(mlp(), callbacks.ModelCheckpoint(path), epochs=1)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="no space"):
        fit(mlp(seed=2), callbacks.ModelCheckpoint(path), epochs=1)
    assert path.read_bytes() == before and names(tmp_path) == ["m.safetensors"]


def test_the_best_so_far_counts_over_several_fits(tmp_path):
    path = tmp_path / "{epoch}.safetensors"
    model, write = mlp(), callbacks.ModelCheckpoint(path, "own", save_best_only=True, mode="max")
    fit(model, figures(own=[1.0, 3.0]), write, epochs=2)
    fit(model, figures(own=[0, 0, 2.0, 4.0]), write, epochs=4, initial_epoch=2)
    assert names(tmp_path) == ["1.safetensors", "2.safetensors", "4.safetensors"]


@pytest.mark.parametrize(
    ("path", "more", "message"),
    [
        ("m.h5", {}, "'m.h5', a format of Keras 2's.*Expected: 'm.safetensors'.*'m.weights.h5'"),
        ("w.weights.npz", {"save_weights_only": True}, "'w.weights.npz'.*Expected: 'w.safetensors'"),
        ("{epoch}", {}, "must end in .safetensors.*Expected: '{epoch}.safetensors'"),
        ("m.safetensors", {"save_freq": 0}, "save_freq.*Received: 0"),
        ("m.safetensors", {"save_freq": "batch"}, "save_freq.*'batch'"),
        ("m.safetensors", {"period": 0}, "period"),
        ("m.safetensors", {"keep_last": -1}, "keep_last"),
        ("m.safetensors", {"training": True, "save_weights_only": True}, "more than weights"),
    ],
)
def test_a_checkpoint_refuses_what_it_cannot_write(path, more, message):
    with pytest.raises(ValueError, match=message):
        callbacks.ModelCheckpoint(path, **more)


@pytest.mark.parametrize("name", ["{val_loss:.2f}", "{loss:d}", "{0}", "{epoch", "{accuracy.nothing}"])
def test_a_name_that_cannot_be_filled_in_names_what_there_is(tmp_path, name):
    with pytest.raises(ValueError, match=r"filled in.*epoch, loss, accuracy"):
        fit(mlp(), callbacks.ModelCheckpoint(tmp_path / f"{name}.safetensors"))
    assert names(tmp_path) == []


# -- BackupAndRestore ----------------------------------------------------------------------------------------


def listeners(folder):
    """Callbacks that all remember something from epoch to epoch."""
    return [
        callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.95),
        callbacks.ReduceLROnPlateau("loss", patience=1, factor=0.7, min_delta=0.2, cooldown=1),
        callbacks.EarlyStopping("loss", mode="max", patience=5, restore_best_weights=True),
        callbacks.WeightAverage(0.9, keep_average=False),
        callbacks.BackupAndRestore(folder),
    ]


@pytest.mark.parametrize("where", ["cpu", "strict"])
@pytest.mark.parametrize("dies_at", [1, 6, 17])
def test_a_run_that_is_killed_goes_on_to_the_bit(tmp_path, where, dies_at):
    def model():
        return mlp(optimizers.SGD(0.5, momentum=0.9), strict_xp.strict_ops() if where == "strict" else where)

    whole, killed, resumed = model(), model(), model()
    expected = fit(whole, *listeners(tmp_path / "a"), epochs=6, validation_data=(X, Y))

    def die(batch, logs):
        if killed.optimizer.iterations == dies_at:
            raise KeyboardInterrupt

    dying = callbacks.LambdaCallback(on_train_batch_end=die)
    with pytest.raises(KeyboardInterrupt):
        fit(killed, dying, *listeners(tmp_path / "b"), epochs=6, validation_data=(X, Y))
    assert len(names(tmp_path / "b")) == (2 if dies_at > 4 else 0)
    nothing = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    got = fit(resumed, nothing, *listeners(tmp_path / "b"), epochs=6, validation_data=(X, Y))
    left = 6 - dies_at // 4
    assert len(got.epoch) == left
    assert got.history == {name: values[-left:] for name, values in expected.history.items()}
    assert same(resumed.state_dict(), whole.state_dict())
    assert resumed.optimizer.learning_rate == whole.optimizer.learning_rate
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_process_that_is_killed_goes_on_to_the_bit(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        """
import os, sys
import numpy as np
from xpnet import Sequential, callbacks, layers
x = np.random.default_rng(0).standard_normal((64, 5)).astype("float32")
y = np.random.default_rng(1).integers(0, 3, 64)
model = Sequential([layers.Dense(8, activation="relu"), layers.Dropout(0.3), layers.Dense(3)],
                   input_shape=(5,), seed=1, device="cpu")
model.compile("adam", "sparse_categorical_crossentropy")
def die(batch, logs):
    if model.optimizer.iterations == int(sys.argv[2]):
        os._exit(9)
model.fit(x, y, batch_size=16, epochs=5, verbose=0, callbacks=[
    callbacks.LambdaCallback(on_train_batch_end=die), callbacks.BackupAndRestore(sys.argv[1])])
print(sum(float(np.abs(a).sum(dtype="float64")) for a in model.state_dict().values()).hex())
"""
    )

    def run(folder, dies_at):
        command = [sys.executable, str(script), str(tmp_path / folder), str(dies_at)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    killed, resumed, whole = run("a", 11), run("a", 0), run("b", 0)
    assert killed.returncode == 9 and whole.returncode == 0, whole.stderr
    assert resumed.stdout == whole.stdout != ""


def test_a_backup_is_of_the_same_run_or_an_error(tmp_path):
    def backup():
        return callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)

    fit(mlp(), backup(), epochs=2)
    assert sorted(names(tmp_path / "b")) == ["epoch-2.callbacks.safetensors", "epoch-2.safetensors"]
    other = Sequential([Dense(9), Dense(3)], input_shape=(5,), seed=1, device="cpu")
    other.compile("adam", "sparse_categorical_crossentropy")
    before = other.state_dict()
    with pytest.raises(ModelFileError, match=r"another run: its weights do not fit, first 0.weight"):
        fit(other, backup(), epochs=3)
    with pytest.raises(ModelFileError, match=r"another run: its optimizer"):
        fit(mlp(optimizers.RMSprop()), backup(), epochs=3)
    with pytest.raises(ModelFileError, match=r"other callbacks. Received: EarlyStopping, BackupAndRestore"):
        fit(mlp(), callbacks.EarlyStopping("loss"), backup(), epochs=3)
    assert same(before, other.state_dict())
    assert fit(mlp(), backup(), epochs=2).epoch == []
    assert fit(mlp(), backup(), epochs=3).epoch == [2]


def test_a_backup_leaves_other_files_of_its_folder(tmp_path):
    for name in ("notes.txt", "epoch-last.safetensors"):
        (tmp_path / name).write_text("mine")
    fit(mlp(), callbacks.BackupAndRestore(tmp_path), epochs=2)
    assert names(tmp_path) == ["epoch-last.safetensors", "notes.txt"]


def test_a_backup_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "epoch-3.safetensors").write_text("cut short")
    with pytest.raises(ModelFileError, match=r"epoch-3.safetensors is not a readable"):
        fit(mlp(), callbacks.BackupAndRestore(tmp_path))


def test_a_backup_goes_last_and_at_the_ends_of_epochs(tmp_path):
    with pytest.raises(ValueError, match=r"must come last.*EarlyStopping after it"):
        fit(mlp(), callbacks.BackupAndRestore(tmp_path), callbacks.EarlyStopping("loss"))
    with pytest.raises(ValueError, match=r"epoch's end only.*save_freq=100"):
        callbacks.BackupAndRestore(tmp_path, save_freq=100)


def test_a_backup_with_a_schedule_leaves_the_schedule(tmp_path):
    def model():
        return mlp(optimizers.SGD(schedules.CosineDecay(0.5, 30)))

    whole, killed, resumed = model(), model(), model()
    fit(whole, epochs=4)
    fit(killed, callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False), epochs=2)
    fit(resumed, callbacks.BackupAndRestore(tmp_path), epochs=4)
    assert same(resumed.state_dict(), whole.state_dict())


# -- CSVLogger -----------------------------------------------------------------------------------------------

ROWS = [
    {"loss": 0.5, "accuracy": 1 / 3},
    {"loss": 1e-12, "accuracy": 1.0, "val_loss": 2.0},
    {"loss": math.inf, "accuracy": np.float32(0.1)},
    {"loss": 3, "val_accuracy": 0.5},
]
TABLES = [
    ROWS,
    ROWS[1:],
    [{"loss": 1.0, "matrix": [[1, 2], [3, 4]], "note": "a, b", "z": np.array(2.0)}] * 2,
    [{}, {"loss": 1.0}],
]


@pytest.mark.parametrize("rows", TABLES, ids=str)
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_log_is_that_of_keras_to_the_byte(keras, tmp_path, rows, separator):
    written = []
    for module in (callbacks, keras.callbacks):
        path = tmp_path / f"{module.__name__}.csv"
        for append in (False, False, True):
            log = module.CSVLogger(str(path), separator=separator, append=append)
            log.on_train_begin({})
            for epoch, row in enumerate(rows):
                log.on_epoch_end(epoch, dict(row))
            log.on_train_end({})
        written.append(path.read_bytes())
    assert written[0] == written[1] and written[0].count(b"\n") == 2 * len(rows) + 1


def test_a_log_is_there_after_each_epoch_and_closed_after_an_error(tmp_path):
    path = tmp_path / "made" / "log.csv"
    log, lengths = callbacks.CSVLogger(path), []

    def look(epoch, logs):
        with open(path, newline="") as file:
            lengths.append(len(list(csv.DictReader(file))))
        if epoch == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fit(mlp(), log, callbacks.LambdaCallback(on_epoch_end=look), epochs=5)
    assert lengths == [1, 2, 3] and log._file is None


def test_a_log_holds_the_figures_of_the_history(tmp_path):
    history = fit(mlp(), callbacks.CSVLogger(tmp_path / "log.csv"), validation_data=(X, Y))
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row.pop("epoch")) for row in rows] == [0, 1, 2]
    assert {name: [float(row[name]) for row in rows] for name in rows[0]} == history.history


def test_going_on_with_a_log_of_other_columns_is_an_error(tmp_path):
    path = tmp_path / "log.csv"
    fit(mlp(), callbacks.CSVLogger(path))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"other columns. Received: own. Expected: accuracy, loss"):
        fit(mlp(), figures(own=[1]), callbacks.CSVLogger(path, append=True), epochs=1)
    assert path.read_bytes() == before
    (tmp_path / "other").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"no log to go on with. Received: columns a, b"):
        fit(mlp(), callbacks.CSVLogger(tmp_path / "other", append=True))


# -- TensorBoard ---------------------------------------------------------------------------------------------


def events(folder):
    """[(tag, step, value)] of an event file, whose records are read and checked as TensorBoard does."""
    import struct

    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    (path,) = Path(folder).iterdir()
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        (size,) = struct.unpack("<Q", content[at : at + 8])
        header, body = content[at : at + 8], content[at + 12 : at + 12 + size]
        for part, place in ((header, at + 8), (body, at + 12 + size)):
            assert struct.unpack("<I", content[place : place + 4])[0] == masked_crc32c(part)
        event, at = Event.FromString(body), at + 16 + size
        for value in event.summary.value:
            kind = value.WhichOneof("value")
            content_of = value.simple_value if kind == "simple_value" else getattr(value, kind)
            found.append((value.tag, event.step, content_of))
    return found


@pytest.fixture
def tensorboardx():
    return pytest.importorskip("tensorboardX", reason="events: pip install 'xpnet[tensorboard]'")


def scalars(found):
    return {(tag, step): value for tag, step, value in found if isinstance(value, float)}


def test_events_hold_what_was_measured_under_kerass_names(tensorboardx, tmp_path):
    schedule = callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    board = callbacks.TensorBoard(tmp_path, update_freq=3)
    history = fit(mlp(), schedule, board, validation_data=(X, Y))
    assert names(tmp_path) == ["train", "validation"]
    train, validation = scalars(events(tmp_path / "train")), scalars(events(tmp_path / "validation"))
    for name, values in history.history.items():
        part, tag = (validation, f"epoch_{name[4:]}") if name.startswith("val_") else (train, f"epoch_{name}")
        for epoch, value in enumerate(values):
            assert part[tag, epoch] == pytest.approx(value, rel=1e-6)
    assert [train["epoch_learning_rate", e] for e in range(3)] == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert {step for tag, step in train if tag == "batch_loss"} == {3, 6, 9, 12}
    assert train["batch_loss", 12] == pytest.approx(history.history["loss"][2], rel=1e-6)
    for epoch, step in enumerate((4, 8, 12)):
        expected = history.history["val_loss"][epoch]
        assert validation["evaluation_loss_vs_iterations", step] == pytest.approx(expected, rel=1e-6)


def test_histograms_and_pictures_are_of_the_weights(tensorboardx, tmp_path):
    model = Sequential([Conv2D(4, 3), Flatten(), Dense(3)], input_shape=(2, 6, 6), seed=1, device="cpu")
    model.compile("adam", "sparse_categorical_crossentropy")
    states = []
    note = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: states.append(model.state_dict()))
    board = callbacks.TensorBoard(tmp_path, histogram_freq=2, write_images=True)
    x = np.random.default_rng(0).random((32, 2, 6, 6), np.float32)
    model.fit(x, Y[:32], epochs=3, verbose=0, callbacks=[note, board])
    found = {(tag, step): value for tag, step, value in events(tmp_path / "train")}
    assert {step for tag, step in found if tag.endswith("histogram")} == {0, 2}
    for epoch in (0, 2):
        for name, a in states[epoch].items():
            histogram = found[f"{name}/histogram", epoch]
            assert (histogram.num, histogram.min, histogram.max) == (a.size, a.min(), a.max())
            assert histogram.sum == pytest.approx(float(a.sum(dtype=np.float64)), rel=1e-5)
    picture = found["0.weight/image", 2]
    assert (picture.width, picture.height) == (12, 6), "4 filters of 3 x 3 in 2 channels"
    from io import BytesIO

    from PIL import Image

    pixels = np.asarray(Image.open(BytesIO(picture.encoded_image_string)).convert("L"))
    tiles = states[2]["0.weight"].transpose(0, 2, 1, 3).reshape(12, 6).T
    expected = (tiles - tiles.min()) / (tiles.max() - tiles.min()) * 255
    assert np.abs(pixels - expected).max() <= 1


def test_the_summary_is_there_and_can_be_left_out(tensorboardx, tmp_path):
    fit(mlp(), callbacks.TensorBoard(tmp_path / "a"))
    fit(mlp(), callbacks.TensorBoard(tmp_path / "b", write_graph=False, write_steps_per_second=True))
    texts = [v for tag, _, v in events(tmp_path / "a" / "train") if tag.startswith("model")]
    assert len(texts) == 1 and b"batch_normalization" in texts[0].SerializeToString()
    tags = {tag for tag, *_ in events(tmp_path / "b" / "train")}
    assert tags == {f"epoch_{n}" for n in ("loss", "accuracy", "learning_rate", "steps_per_second")}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"update_freq": 0}, "update_freq.*Received: 0"),
        ({"update_freq": "step"}, "update_freq.*'step'"),
        ({"profile_batch": 2}, "no profile.*profile_batch=2"),
        ({"embeddings_freq": 1}, "embeddings_freq=1"),
        ({"histogram_freq": -1}, "histogram_freq"),
    ],
)
def test_tensorboard_refuses_what_it_cannot_do(more, message):
    with pytest.raises(ValueError, match=message):
        callbacks.TensorBoard("logs", **more)


def test_a_missing_tensorboardx_is_named_with_its_install_line_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    model = mlp()
    with pytest.raises(ImportError, match=r"pip install 'xpnet\[tensorboard\]'"):
        fit(model, callbacks.TensorBoard(tmp_path))
    assert model.optimizer.iterations == 0


def test_callbacks_load_nothing_that_they_do_not_need():
    code = "import sys, xpnet.callbacks; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"tensorboardX", "plotext", "matplotlib", "safetensors", "tqdm"} & set(loaded.split())
