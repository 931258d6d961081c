"""The example of callbacks, and a Keras script that uses them."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xpnet import load_model

TOUR = Path(__file__).parents[1] / "examples" / "callbacks_tour.py"

SCRIPT = """
import sys
import numpy as np
from keras.callbacks import CSVLogger, EarlyStopping, LearningRateScheduler, ModelCheckpoint
from keras.callbacks import Callback, LambdaCallback, ReduceLROnPlateau, TerminateOnNaN
from keras.layers import Dense
from keras.models import Sequential
from keras.optimizers import SGD

folder = sys.argv[1]
rng = np.random.default_rng(0)
y = rng.integers(0, 3, 300)
x = (rng.standard_normal((300, 6)) + 1.5 * np.eye(3, 6)[y]).astype("float32")


class Slowest(Callback):
    def __init__(self):
        super().__init__()
        self.batches = 0

    def on_train_begin(self, logs=None):
        self.losses = []

    def on_batch_end(self, batch, logs=None):
        self.batches += 1

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs.get("val_loss"))
        logs["batches"] = self.batches


seen = []
slowest = Slowest()
model = Sequential()
model.add(Dense(16, activation="relu", input_shape=(6,)))
model.add(Dense(3, activation="softmax"))
model.compile(optimizer=SGD(learning_rate=0.5), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(
    x[:200], y[:200], validation_data=(x[200:], y[200:]), epochs=30, batch_size=20, verbose=0,
    callbacks=[
        slowest,
        TerminateOnNaN(),
        LearningRateScheduler(lambda epoch, lr: lr if epoch < 2 else lr * 0.95),
        ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=2, min_lr=0.01),
        ModelCheckpoint(folder + "/best.weights.h5", monitor="val_accuracy", save_best_only=True,
                        save_weights_only=True, mode="max"),
        EarlyStopping(monitor="val_loss", patience=5, restore_best_weights=True),
        CSVLogger(folder + "/training.log", separator=";"),
        LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch)),
    ],
)
assert seen == list(range(len(seen))) and len(slowest.losses) == len(seen) == len(history.history["loss"])
assert history.history["batches"] == [10 * (epoch + 1) for epoch in seen]
restored = model.evaluate(x[200:], y[200:], verbose=0)[0]
assert abs(restored - min(history.history["val_loss"])) < 1e-5
model.load_weights(folder + "/best.weights.h5")
accuracy = model.evaluate(x[200:], y[200:], verbose=0)[1]
assert abs(accuracy - max(history.history["val_accuracy"])) < 1e-6
print(open(folder + "/training.log").readline().strip())
"""


@pytest.mark.parametrize("library", ["keras", "xpnet"])
def test_a_keras_script_with_callbacks_runs_by_its_imports_alone(tmp_path, library):
    pytest.importorskip("h5py", reason="Keras's files of weights: pip install 'xpnet[keras]'")
    if library == "keras" and not all(map(importlib.util.find_spec, ("keras", "torch"))):
        pytest.skip("the script as it was needs Keras: pip install keras torch")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("from keras.", f"from {library}."))
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120,
        env=os.environ | {"KERAS_BACKEND": "torch"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "epoch;accuracy;batches;learning_rate;loss;val_accuracy;val_loss\n"


def test_the_tour_writes_what_it_says_and_reads_digits(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the example draws: pip install 'xpnet[plot]'")
    pytest.importorskip("plotext", reason="the example draws: pip install 'xpnet[plot]'")
    from matplotlib.image import imread

    spec = importlib.util.spec_from_file_location("callbacks_tour", TOUR)
    tour = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tour)
    accuracy = tour.main(["--out", str(tmp_path), "--epochs", "8"])
    assert accuracy > 0.95
    for name in ("rates.png", "curves.png"):
        assert imread(tmp_path / name)[..., :3].std() > 0.02, f"{name} is blank"
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) <= 8 and "learning_rate" in rows[0]
    assert all(np.isfinite(a).all() for a in load_model(tmp_path / "best.safetensors").state_dict().values())
    said = capsys.readouterr().out
    assert f"{accuracy:.1%} are read right" in said and "learning rate: 0.0" in said
