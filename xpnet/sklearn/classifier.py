"""NetClassifier: one of K classes a sample, or any number of K labels."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_expit, log_softmax, logit, softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from .. import losses
from ..activations import Linear, Sigmoid, Softmax
from ..losses import BinaryCrossentropy, SparseCategoricalCrossentropy
from .architecture import last_activation
from .base import Net, goes_on, keep
from .solvers import is_number


class NetClassifier(ClassifierMixin, Net):
    """A network that tells classes apart, as a scikit-learn estimator.

    y (N,) holds labels of any kind, or (N, K) a one for each label that a sample has (multi-label).

    The network.  hidden, hidden_layer_sizes: (128, 64) is two layers of so many units; (100,) where nothing
    is said.  activation: theirs.  dropout: the rate of a Dropout behind each.  layers: in their place a list
    of layers, which stays as it is, as every fit works on a copy with new weights; or function(input_shape),
    or function(input_shape, outputs), which returns such a list for samples of (D,) or (C, H, W), in this
    order whatever data_format says: `xpnet.networks.lenet`, or its name, "lenet".

    The last layer is the output layer where it is a Dense without activation, or yields probabilities; it
    must have K units for K classes or labels (for two classes one will do).  Where the network ends in
    anything else, as Flatten or Dense(64, activation="relu"), a Dense(K) is added.

    input_shape, data_format: what a row of X is made into, (1, 28, 28) for 784 features, or (28, 28, 1) with
    "channels_last".  X may come in that shape, too.

    Training.  optimizer: a name or an object of `xpnet.optimizers`.  learning_rate: a number or a schedule,
    in place of its own.  loss: a name or an object of `xpnet.losses`; cross-entropy where None is given.
    Targets are indices for a sparse loss, else rows (N, K) of zeros and ones.

    alpha: L2 penalty alpha / 2 * ||W||^2 on weights, divided by a batch's samples.  batch_size: samples a
    step; "auto" is 200, or all where there are fewer; "full" is all.  shuffle: whether in a new order each
    epoch.  max_iter: epochs.  tol, n_iter_no_change: training stops once the loss has not fallen by tol for
    more than that many epochs; n_iter_no_change=None trains for max_iter.  early_stopping,
    validation_fraction: hold out such a share, stop by the accuracy on it, and keep the weights that were
    best.  Callbacks see its figures as "val_loss" and "val_score".  class_weight: {label: weight} or
    "balanced", besides any sample_weight.  A sample of weight 0 is left out.  augment, callbacks: as
    `Sequential.fit` takes them.  verbose: a line an epoch.  warm_start: the next fit goes on with the weights
    of the last.  random_state: None, a whole number or a RandomState; the same number gives the same bits.
    device, precision: as in Sequential, but "auto" computes in float64 for float64 data, as scikit-learn
    does; on a GPU give float32 data, or precision="float32", for its full speed.

    MLPClassifier's words.  solver: "adam" or "sgd" takes the place of optimizer, with learning_rate_init,
    beta_1, beta_2 and epsilon, or momentum and nesterovs_momentum; then learning_rate may be "constant",
    "invscaling" (with power_t) or "adaptive", which mean something to "sgd" alone, as there; and training
    that reaches max_iter is a ConvergenceWarning.  "lbfgs" takes all samples at once, for max_iter iterations
    or max_fun evaluations; networks with dropout and callbacks are not for it.

    Sparse X is accepted in any form, and made dense a batch at a time where it is large.

    Attributes: classes_, n_features_in_, feature_names_in_, n_outputs_, out_activation_, model_ (the
    Sequential), loss_, loss_curve_ (a mean over samples for each epoch, of all fits that went on with one
    model, penalty included), best_loss_, validation_scores_, best_validation_score_, n_iter_ (epochs of the
    last fit), t_ (samples seen); coefs_ and intercepts_ where all layers are Dense.
    """

    def __init__(
        self, layers=None, activation="relu", *, hidden=None, hidden_layer_sizes=None, dropout=0.0,
        input_shape=None, data_format="channels_first", loss=None, optimizer=None, solver=None,
        learning_rate=None, learning_rate_init=None, alpha=0.0, batch_size="auto", max_iter=200, shuffle=True,
        augment=None, tol=1e-4, n_iter_no_change=10, early_stopping=False, validation_fraction=0.1,
        class_weight=None, warm_start=False, random_state=None, callbacks=None, device="auto",
        precision="auto", verbose=False, power_t=0.5, momentum=0.9, nesterovs_momentum=True, beta_1=0.9,
        beta_2=0.999, epsilon=1e-8, max_fun=15000,
    ):  # fmt: skip
        keep(self, locals())

    def fit(self, X, y, sample_weight=None):
        """Train on X (N, D), or (N, *input_shape), and labels y (N,) or (N, K); the estimator itself."""
        return self._fit(X, y, sample_weight)

    @available_if(goes_on)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one more pass, over X and y; the estimator itself.

        classes: all labels there will be, at the first call; of multi-label y the columns say that.
        """
        return self._fit(X, y, sample_weight, classes=classes, partial=True)

    def predict(self, X) -> np.ndarray:
        """Labels (N,), or zeros and ones (N, K), for X (N, D), or (N, *input_shape)."""
        chosen = self._chosen(self._logits(self._predicted(X)))
        return chosen if self._several else self.classes_[chosen]

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities (N, K) in the order of classes_, for X (N, D), or (N, *input_shape); of labels, each
        by itself.
        """
        z = self._logits(self._predicted(X))
        return softmax(z, axis=1) if self.out_activation_ == "softmax" else expit(self._for_each(z))

    def predict_log_proba(self, X) -> np.ndarray:
        """Logarithms of probabilities, exact also where these would round to 0."""
        z = self._logits(self._predicted(X))
        if self.out_activation_ == "softmax":
            return log_softmax(z, axis=1)
        return log_expit(self._for_each(z))

    def decision_function(self, X) -> np.ndarray:
        """Logits (N, K) for X (N, D), or (N, *input_shape); of two classes (N,), positive for the second."""
        z = self._logits(self._predicted(X))
        if self._several or len(self.classes_) != 2:
            return z
        return z[:, 0] if self.n_outputs_ == 1 else z[:, 1] - z[:, 0]

    # -- outputs ---------------------------------------------------------------------------------------------

    def _logits(self, outputs: np.ndarray) -> np.ndarray:
        """What the outputs were before a last softmax or sigmoid."""
        ends = self._ends
        with np.errstate(divide="ignore"):
            if isinstance(ends, Softmax):
                return np.log(outputs)
            return logit(outputs) if isinstance(ends, Sigmoid) else outputs

    def _chosen(self, z: np.ndarray) -> np.ndarray:
        """Class indices (N,), or zeros and ones (N, K)."""
        if self.out_activation_ == "softmax":
            return z.argmax(axis=1)
        return (z > 0).astype(int) if self._several else (z[:, 0] > 0).astype(int)

    def _for_each(self, z: np.ndarray) -> np.ndarray:
        """A logit for each class where one output stands for two."""
        return z if self._several else np.concatenate([-z, z], axis=1)

    # -- what Net asks ---------------------------------------------------------------------------------------

    def _encode(self, y, classes, going_on, partial):
        check_classification_targets(y)
        kind = type_of_target(y)
        several = kind == "multilabel-indicator"
        if y.ndim == 2 and not several:
            raise ValueError(
                f"y must be labels (N,), or zeros and ones (N, K). Received: {kind} {y.shape}. Expected: for "
                "several labels a sample, of several values each, a classifier for each column, as "
                "sklearn.multioutput.MultiOutputClassifier makes them"
            )
        labels = None if classes is None else np.unique(classes)
        if several:
            labels = np.arange(y.shape[1])
        if not going_on:
            if labels is None and partial:
                raise ValueError(
                    "classes must be given at the first call to partial_fit. Received: None. Expected: all "
                    "labels that there will be"
                )
            self.classes_, self._several = np.unique(y) if labels is None else labels, several
        if several != self._several or (labels is not None and not np.array_equal(labels, self.classes_)):
            raise ValueError(
                f"the classes have changed. Received: {labels} ({kind}). Expected: {self.classes_}, as before"
            )
        if several:
            return (y != 0).astype(np.uint8)
        strange = np.setdiff1d(y, self.classes_)
        if len(strange):
            raise ValueError(
                f"y has labels that are not among the classes. Received: {strange}. Expected: {self.classes_}"
                + (", the labels of the first fit; warm_start=False starts anew" if going_on else "")
            )
        return np.searchsorted(self.classes_, y)

    def _kind(self):
        return f"of {len(self.classes_)} {'labels' if self._several else 'classes'}"

    def _widths(self):
        K = len(self.classes_)
        if self._several or K != 2:
            return (K,)
        binary = self.loss is None or isinstance(losses.get(self.loss), BinaryCrossentropy)
        return (1, 2) if binary else (2, 1)

    def _final_activation(self):
        return (Sigmoid,) if self._several else (Softmax,)

    def _suits(self, activation, width):
        kind = Softmax if not self._several and width == len(self.classes_) else Sigmoid
        return self.loss is not None or isinstance(activation, (Linear, kind))

    def _note_outputs(self, model):
        self.n_outputs_ = model.output_shape[0]
        softmax = not self._several and self.n_outputs_ == len(self.classes_)
        self.out_activation_ = "softmax" if softmax else "logistic"
        self._ends = last_activation(model.layers)

    def _default_loss(self):
        softmax = self.out_activation_ == "softmax"
        return "sparse_categorical_crossentropy" if softmax else "binary_crossentropy"

    def _targets(self, t, loss):
        if self._several or isinstance(loss, SparseCategoricalCrossentropy):
            return t
        return np.eye(self.n_outputs_, dtype=np.float32)[t] if self.out_activation_ == "softmax" else t

    def _with_class_weight(self, samples):
        if self.class_weight is None:
            return samples
        if self._several:
            raise ValueError(
                f"class_weight needs one class a sample. Received: {self.class_weight!r} and multi-label y. "
                "Expected: sample_weight"
            )
        by_class = self._class_weights(samples)[samples.t]
        return samples._replace(w=by_class if samples.w is None else samples.w * by_class)

    def _class_weights(self, samples) -> np.ndarray:
        """A weight for each class (K,): as given, or N / (K * samples of the class)."""
        K, given = len(self.classes_), self.class_weight
        if isinstance(given, str) and given == "balanced":
            counts = np.bincount(samples.t, samples.w, K)
            return counts.sum() / (np.count_nonzero(counts) * np.where(counts > 0, counts, 1))
        if not isinstance(given, dict) or not all(is_number(w) and 0 <= w < np.inf for w in given.values()):
            raise ValueError(
                f"class_weight must map labels to weights of at least 0. Received: {given!r}. Expected: "
                "{label: weight}, 'balanced' or None"
            )
        places = {label: k for k, label in enumerate(self.classes_.tolist())}
        strange = [label for label in given if label not in places]
        if strange and len(given) - len(strange) < K:  # all classes of a fold may be there, and others
            raise ValueError(
                f"class_weight has labels that are not in y. Received: {strange}. Expected: some of "
                f"{list(places)}"
            )
        weights = np.ones(K)
        for label, weight in given.items():
            if label in places:
                weights[places[label]] = weight
        return weights

    def _strata(self, t):
        return None if self._several else t

    def _score(self, t, outputs, w):
        return accuracy_score(t, self._chosen(self._logits(outputs)), sample_weight=w)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
