"""A training run and all that listens to it.

A small convolutional network learns handwritten digits.  First the learning-rate finder tries a hundred rates
on a hundred batches and suggests one.  Then the network is trained with it, while callbacks average its
weights, lower the rate on a plateau, keep the best model, stop in time, write a table, and draw the curves
where the run is watched.  The best model is read back from its file and tested.

Writes rates.png, log.csv, best.safetensors and curves.png.  Run it: python examples/callbacks_tour.py
"""

import argparse
from pathlib import Path

from xpnet import Sequential, callbacks, datasets, load_model, optimizers, viz
from xpnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D


def build(seed):
    """Two convolutions and a dense layer for 8 x 8 pixels."""
    return Sequential(
        [
            Conv2D(16, 3, padding="same", activation="relu"),
            BatchNormalization(momentum=0.9),
            Conv2D(32, 3, padding="same", activation="relu"),
            MaxPooling2D(2),
            Flatten(),
            Dropout(0.3),
            Dense(10, activation="softmax"),
        ],
        input_shape=(1, 8, 8),
        seed=seed,
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what is written")
    parser.add_argument("--epochs", type=int, default=40, help="at most so many")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the shuffles and the dropout")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    (x, y), (xt, yt) = datasets.load_digits()

    # Which rate?  The model is afterwards what it was.
    model = build(args.seed)
    model.compile(optimizers.Adam(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    found = callbacks.find_learning_rate(model, x, y)
    viz.save(found.plot(), args.out / "rates.png")
    print(f"learning rate: {found.suggestion:.2g} (the loss is lowest at {found.lowest:.2g})")

    # The average comes first: what is measured, kept and written is the average then.
    model.optimizer.learning_rate = found.suggestion
    history = model.fit(
        x, y, epochs=args.epochs, validation_split=0.2, verbose=0,
        callbacks=[
            callbacks.WeightAverage(decay=0.99),
            callbacks.ReduceLROnPlateau(patience=3, factor=0.3, verbose=1),
            callbacks.ModelCheckpoint(args.out / "best.safetensors", save_best_only=True),
            callbacks.EarlyStopping(patience=8, restore_best_weights=True, verbose=1),
            callbacks.CSVLogger(args.out / "log.csv"),
            callbacks.LivePlot(),
        ],
    )  # fmt: skip
    viz.save(history.plot(), args.out / "curves.png")

    best = load_model(args.out / "best.safetensors")
    loss, accuracy = best.evaluate(xt, yt)
    print(f"of {len(yt)} digits never seen, {accuracy:.1%} are read right")
    return accuracy


if __name__ == "__main__":
    main()
