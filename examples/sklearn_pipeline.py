"""A CNN in a scikit-learn pipeline: a scaler, then a network, and a grid search over both at once.

The digits of scikit-learn come as rows of 64 numbers, which input_shape=(1, 8, 8) makes images again.  Of the
eights, nines of ten are thrown away, so that a class is rare: class_weight="balanced" makes up for it, which
MLPClassifier cannot, and neither has it convolutions or dropout.

    python examples/sklearn_pipeline.py              # two processes
    python examples/sklearn_pipeline.py --jobs 1

Prints what the search found, and for each choice of class weights the recall of all digits and of the eights,
on images that the search has not seen.
"""

import argparse
from functools import partial

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

from xpnet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from xpnet.sklearn import NetClassifier

RARE = 8


def load(seed=0):
    """((x, y), (xt, yt)): rows (N, 64) and labels; of the rare digit one in ten is left to train on."""
    x, y = load_digits(return_X_y=True)
    x, xt, y, yt = train_test_split(x.astype(np.float32), y, test_size=0.4, random_state=seed, stratify=y)
    rare = np.flatnonzero(y == RARE)
    kept = np.ones(len(y), dtype=bool)
    kept[rare[len(rare) // 10 :]] = False
    return (x[kept], y[kept]), (xt, yt)


def network(input_shape, classes, dropout=0.0):
    """The layers for images (C, H, W), as NetClassifier asks for them once it knows the data."""
    return [
        Conv2D(16, 3, padding="same", activation="relu"),
        MaxPooling2D(2),
        Conv2D(32, 3, padding="same", activation="relu"),
        MaxPooling2D(2),
        Flatten(),
        Dense(64, activation="relu"),
        Dropout(dropout),
        Dense(classes),
    ]


def search(epochs=20, jobs=2, seed=0, device="auto"):
    """The grid search, ready to fit."""
    net = NetClassifier(
        layers=network,
        input_shape=(1, 8, 8),
        learning_rate=0.005,
        batch_size=32,
        max_iter=epochs,
        n_iter_no_change=None,  # every candidate trains for all epochs
        random_state=seed,
        device=device,
    )
    grid = {
        "scale__feature_range": [(0, 1), (-1, 1)],
        "net__layers": [partial(network, dropout=rate) for rate in (0.0, 0.5)],
        "net__class_weight": [None, "balanced"],
    }
    pipeline = Pipeline([("scale", MinMaxScaler()), ("net", net)])
    return GridSearchCV(pipeline, grid, scoring="balanced_accuracy", cv=3, n_jobs=jobs)


def recalls(pipeline, x, y):
    """The mean recall over the digits, and that of the rare one."""
    each = recall_score(y, pipeline.predict(x), average=None)
    return each.mean(), each[RARE]


def main(argv=None):
    """Search, print; {class_weight: (recall of all, recall of the rare digit)}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the split, weights, shuffles and dropout masks"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args = parser.parse_args(argv)

    train, test = load(args.seed)
    found = search(args.epochs, args.jobs, args.seed, args.device).fit(*train)
    best = found.best_params_
    print(
        f"best of {len(found.cv_results_['params'])}: dropout {best['net__layers'].keywords['dropout']}, "
        f"class weights {best['net__class_weight']}, pixels from {best['scale__feature_range']}, "
        f"balanced accuracy {found.best_score_:.2%} in cross-validation"
    )
    results = {}
    for weights in (None, "balanced"):
        pipeline = found.best_estimator_.set_params(net__class_weight=weights).fit(*train)
        every, rare = results[weights] = recalls(pipeline, *test)
        print(f"class_weight={weights!s:8}  recall: all {every:.2%}, eights {rare:.2%}")
    return results


if __name__ == "__main__":
    main()
