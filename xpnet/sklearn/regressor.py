"""NetRegressor: one or several numbers a sample."""

from __future__ import annotations

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.metaestimators import available_if

from .base import Net, goes_on


class NetRegressor(RegressorMixin, Net):
    """A network that predicts numbers, y (N,) or (N, K), as a scikit-learn estimator.

    Arguments and attributes are those of `NetClassifier`, class_weight and classes apart.  The network ends
    in as many outputs as there are targets, of any activation; or in a hidden layer, and gets them.  loss:
    half the squared error, as in MLPRegressor, where None is given.  Early stopping watches R^2.
    """

    def fit(self, X, y, sample_weight=None):
        """Train on X (N, D), or (N, *input_shape), and y (N,) or (N, K); the estimator itself."""
        return self._fit(X, y, sample_weight)

    @available_if(goes_on)
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one more pass, over X and y; the estimator itself."""
        return self._fit(X, y, sample_weight, partial=True)

    def predict(self, X) -> np.ndarray:
        """Numbers (N,), or (N, K) for several targets, for X (N, D), or (N, *input_shape)."""
        outputs = self._predicted(X)
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    # -- what Net asks ---------------------------------------------------------------------------------------

    def _encode(self, y, classes, going_on, partial):
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if going_on and outputs != self.n_outputs_:
            raise ValueError(
                f"the number of targets has changed. Received: y with {outputs}. Expected: {self.n_outputs_} "
                "a sample, as before"
            )
        self.n_outputs_, self.out_activation_ = outputs, "identity"
        return y

    def _kind(self):
        return f"of {self.n_outputs_} targets"

    def _widths(self):
        return (self.n_outputs_,)

    def _default_loss(self):
        return "squared_error"

    def _score(self, t, outputs, w):
        return r2_score(t, outputs, sample_weight=w)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
