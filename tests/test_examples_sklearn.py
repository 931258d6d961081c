"""The scikit-learn tutorial: it runs small, and at its own size finds what it promises."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).parents[1] / "examples" / "sklearn_pipeline.py"
    spec = importlib.util.spec_from_file_location("sklearn_pipeline", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_training_eights_are_rare(example):
    (x, y), (xt, yt) = example.load()
    assert x.shape[1:] == xt.shape[1:] == (64,) and x.dtype == np.float32
    counts, test_counts = np.bincount(y), np.bincount(yt)
    assert counts[8] <= 0.12 * np.delete(counts, 8).min()
    assert test_counts[8] > 0.9 * np.delete(test_counts, 8).min()


def test_the_search_goes_over_the_scaler_and_the_network(example):
    (x, y), _ = example.load()
    found = example.search(epochs=1, jobs=1, device="cpu").fit(x[:200], y[:200])
    assert len(found.cv_results_["params"]) == 8
    assert not np.isnan(found.cv_results_["mean_test_score"]).any()
    model = found.best_estimator_["net"].model_
    assert model.input_shape == (1, 8, 8) and model.output_shape == (10,)
    assert model.layers[-2].rate == found.best_params_["net__layers"].keywords["dropout"]


@pytest.mark.slow
def test_class_weights_help_the_rare_digit(example, capsys):
    results = example.main(["--jobs", "1", "--device", "cpu"])
    assert results["balanced"][1] > results[None][1]
    assert results["balanced"][0] > 0.93
    assert "balanced accuracy 9" in capsys.readouterr().out
