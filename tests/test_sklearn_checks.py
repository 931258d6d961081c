"""scikit-learn's own checks of an estimator: every one passes, and none is skipped or expected to fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# the check of array API inputs is skipped unless SCIPY_ARRAY_API is set before scipy is loaded
RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
from sklearn.utils.estimator_checks import check_estimator
import test_sklearn_checks
from xpnet.sklearn import NetClassifier, NetRegressor
kind, arguments = sys.argv[1:]
arguments = eval(arguments, vars(test_sklearn_checks))
estimator = {"c": NetClassifier, "r": NetRegressor}[kind](device="cpu", **arguments)
results = check_estimator(estimator, on_skip=None, on_fail=None)
print(json.dumps([[r["check_name"], r["status"], repr(r["exception"])] for r in results]))
"""


def two_layers(input_shape, outputs):
    from xpnet.layers import Dense

    return [Dense(32, activation="tanh"), Dense(outputs)]


def statuses(kind, arguments):
    environment = os.environ | {"SCIPY_ARRAY_API": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, kind, arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "kind, arguments",
    [
        ("c", "{}"),
        ("r", "{}"),
        ("c", "dict(layers=two_layers, solver='sgd', learning_rate='adaptive', learning_rate_init=0.1)"),
        ("r", "dict(layers=two_layers, optimizer='rmsprop', learning_rate=0.01, batch_size='full')"),
        ("c", "dict(hidden=(64, 32), alpha=0.1, n_iter_no_change=None, activation='logistic')"),
        ("r", "dict(hidden_layer_sizes=50, alpha=0.1, loss='mse', learning_rate_init=0.01)"),
    ],
)
def test_every_check_passes(kind, arguments):
    results = statuses(kind, arguments)
    assert len(results) > 50
    assert [one for one in results if one[1] != "passed"] == []
    names = [name for name, _, _ in results]
    assert "check_array_api_input" in names and "check_sample_weight_equivalence_on_dense_data" in names
