"""What NetClassifier and NetRegressor have in common: arguments, data in and out, and the course of a fit."""

from __future__ import annotations

import copy
import math
import sys
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from .. import losses
from ..activations import Linear
from ..callbacks import Callback
from ..data.arrays import as_array, check_weights
from ..errors import ShapeError, warn
from ..layers import Dense
from ..layers.base import Shape
from ..losses import Loss
from ..model import Sequential
from ..training.inputs import whole
from . import lbfgs, solvers
from .architecture import Architecture, last_activation
from .progress import Progress
from .sparse import Batches, is_sparse, unpacked

BATCH = 200  # samples a step where batch_size="auto", as in MLPClassifier
BLOCK = 1024  # sparse samples that are predicted together


class Samples(NamedTuple):
    """X (N, D), dense or CSR; targets t in numbers, (N,) or (N, K); weights w (N,) or None."""

    X: Any
    t: np.ndarray
    w: np.ndarray | None

    def take(self, rows: np.ndarray) -> Samples:
        return Samples(self.X[rows], self.t[rows], None if self.w is None else self.w[rows])

    def present(self) -> Samples:
        """Those that have a weight: the others shall not take part in BatchNormalization either."""
        if self.w is None or self.w.all():
            return self
        if not self.w.any():
            raise ValueError("all weights are zero. Expected: samples of a class with a weight")
        return self.take(np.flatnonzero(self.w))

    @property
    def number(self) -> int:
        return self.X.shape[0]

    @property
    def weight(self) -> float:
        return float(self.number if self.w is None else self.w.sum())


class Net(BaseEstimator):
    """Base of both.  A subclass says what targets are to the network, and its outputs to the user."""

    classes_: np.ndarray
    n_outputs_: int
    model_: Sequential

    def __init__(
        self, layers=None, activation="relu", *, hidden=None, hidden_layer_sizes=None, dropout=0.0,
        input_shape=None, data_format="channels_first", loss=None, optimizer=None, solver=None,
        learning_rate=None, learning_rate_init=None, alpha=0.0, batch_size="auto", max_iter=200, shuffle=True,
        augment=None, tol=1e-4, n_iter_no_change=10, early_stopping=False, validation_fraction=0.1,
        warm_start=False, random_state=None, callbacks=None, device="auto", precision="auto", verbose=False,
        power_t=0.5, momentum=0.9, nesterovs_momentum=True, beta_1=0.9, beta_2=0.999, epsilon=1e-8,
        max_fun=15000,
    ):  # fmt: skip
        keep(self, locals())

    # -- what a subclass says --------------------------------------------------------------------------------

    def _encode(self, y, classes, going_on: bool, partial: bool) -> np.ndarray:
        """y in numbers, (N,) or (N, K); sets what a fit learns of y."""
        raise NotImplementedError

    def _kind(self) -> str:
        """What y is, in an error's words."""
        raise NotImplementedError

    def _widths(self) -> tuple[int, ...]:
        """How many outputs the network may have; hidden layers get the first of these."""
        raise NotImplementedError

    def _final_activation(self) -> tuple[type, ...]:
        """What only an output layer has."""
        return ()

    def _suits(self, activation, width: int) -> bool:
        """Whether outputs that have been through this can be predictions of y."""
        return True

    def _note_outputs(self, model: Sequential) -> None:
        """Set what a fit learns of the model's outputs."""

    def _default_loss(self) -> str:
        raise NotImplementedError

    def _targets(self, t: np.ndarray, loss: Loss) -> np.ndarray:
        """Encoded targets as the loss wants them."""
        return t

    def _with_class_weight(self, samples: Samples) -> Samples:
        return samples

    def _score(self, t, outputs, w) -> float:
        """How good the network's outputs are: what early stopping watches."""
        raise NotImplementedError

    def _strata(self, t: np.ndarray) -> np.ndarray | None:
        """In which proportions early stopping holds samples out."""
        return None

    # -- the course of a fit ---------------------------------------------------------------------------------

    def _fit(self, X, y, sample_weight, *, classes=None, partial: bool = False):
        self._check_arguments()
        going_on = hasattr(self, "model_") and (partial or self.warm_start)
        if not going_on:
            self._let_go()
        X, y, shape = self._read(X, y, reset=not going_on)
        w = check_weights(sample_weight, X.shape[0], np.dtype(np.float64))
        samples = Samples(X, self._encode(y, classes, going_on, partial), w)
        samples = self._with_class_weight(samples).present()
        rng = check_random_state(self.random_state)
        model = self.model_ if going_on else self._new_model(shape, X.dtype, rng)
        if not (partial and going_on):  # the optimizer starts anew, as in MLPClassifier
            optimizer = solvers.make(self)
            model.compile(solvers.penalised(optimizer) if self.alpha else optimizer, self._own_loss())
        if self.solver == "lbfgs":
            progress = self._minimise(model, samples)
        else:
            held_out = None
            if self.early_stopping:
                samples, held_out = self._split(samples, rng)
            progress = self._train(model, samples, held_out, going_on, partial)
        self.model_ = model
        self._note(progress, samples.number, going_on)
        return self

    def _let_go(self) -> None:
        """Forget the model, and give a GPU the memory back that then nobody uses."""
        model = self.__dict__.pop("model_", None)
        if model is not None:
            ops = model.ops
            del model
            with ops.running():
                ops.release_memory()

    def __del__(self):
        if not sys.is_finalizing():
            self._let_go()

    def _train(
        self, model, samples: Samples, held_out: Samples | None, going_on: bool, partial: bool
    ) -> Progress:
        """Epochs, until they bring no more."""
        n = samples.number
        size = self._batch(model, n)
        if "penalty" in model.optimizer_state:
            solvers.set_penalty(model, self.alpha / (samples.weight / math.ceil(n / size)))
        epochs = 1 if partial else self.max_iter
        patience = math.inf if partial or self.n_iter_no_change is None else self.n_iter_no_change
        progress = Progress(self.tol, patience, held_out and self._scorer(held_out))
        if self.solver == "sgd" and isinstance(self.learning_rate, str):
            progress.schedule, progress.power_t = self.learning_rate, self.power_t
            progress.samples, progress.seen = n, self.t_ if going_on else 0
        callbacks = [progress, *self._callbacks()]
        try:
            model.fit(
                **self._fed(model, samples, size, bool(self.shuffle)),
                epochs=epochs,
                verbose=2 if self.verbose else 0,
                callbacks=callbacks,
                validation_data=held_out and self._validation(model, held_out, size),
                augment=self.augment or (),
            )
        except KeyboardInterrupt:
            if not progress.losses:
                raise
            warn("training was interrupted; the estimator is as the epochs so far have made it")
        finally:
            for listener in (*callbacks, model.history):
                if isinstance(listener, Callback):  # which would keep the model's memory
                    listener.__dict__.pop("model", None), listener.__dict__.pop("params", None)
        unconverged = not progress.stopped and len(progress.losses) == epochs and patience < math.inf
        if unconverged and self.solver is not None:  # to MLPClassifier max_iter is a limit, to others a plan
            warn(
                f"training ended at max_iter={epochs} and had not converged: the "
                f"{'score' if held_out else 'loss'} still improved by tol={self.tol}. Expected: more "
                "iterations, a higher learning rate, or n_iter_no_change=None where max_iter is all that is "
                "wanted",
                ConvergenceWarning,
            )
        return progress

    def _batch(self, model, n: int) -> int:
        """Samples a step, of n."""
        if self.batch_size != "auto":
            return n if self.batch_size in ("full", -1) else min(n, self.batch_size)
        size = min(n, BATCH)
        least = max(getattr(layer, "least", 1) for layer in model.all_layers())
        return size + 1 if 0 < n % size < least else size  # BatchNormalization cannot take a batch of one

    def _minimise(self, model, samples: Samples) -> Progress:
        """All samples at once, by L-BFGS."""
        if self.callbacks or self.augment:
            raise ValueError(
                "solver='lbfgs' has no epochs. Received: "
                f"{'callbacks' if self.callbacks else 'augment'} beside it. Expected: solver='adam' or 'sgd'"
            )
        if self.alpha:
            solvers.set_penalty(model, self.alpha / samples.weight)
        dense = samples._replace(X=samples.X.toarray() if is_sparse(samples.X) else samples.X)
        fed = self._fed(model, dense, samples.number, shuffle=False)
        progress = Progress(self.tol, math.inf)
        progress.losses, progress.stopped = lbfgs.train(
            model, fed["x"], fed["y"], fed["sample_weight"], self.max_iter, self.tol, self.max_fun
        )
        if not progress.stopped:
            warn(
                f"lbfgs ended after {len(progress.losses)} iterations and had not converged. Expected: a "
                f"larger max_iter (now {self.max_iter}) or max_fun (now {self.max_fun}), or scaled samples",
                ConvergenceWarning,
            )
        return progress

    def _note(self, progress: Progress, n: int, going_on: bool) -> None:
        """What a fit leaves behind, by MLPClassifier's names."""
        before = (self.loss_curve_, self.validation_scores_ or [], self.t_) if going_on else ([], [], 0)
        self.loss_curve_: list[float] = [*before[0], *progress.losses]
        self.n_iter_ = len(progress.losses)
        self.t_: int = before[2] + n * self.n_iter_
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else math.nan  # a callback may want no epoch
        scores = [*before[1], *progress.scores]
        watched = progress.score is not None
        self.validation_scores_: list[float] | None = scores if watched else None
        self.best_validation_score_ = max(scores, default=math.nan) if watched else None
        self.best_loss_ = None if watched else min(self.loss_curve_, default=math.nan)

    def _new_model(self, shape: Shape | None, dtype, rng) -> Sequential:
        """A model for samples of this shape, None where they are plain rows."""
        architecture = Architecture(
            self.layers, self.hidden, self.hidden_layer_sizes, self.activation, self.dropout
        )
        features, rows = self.n_features_in_, shape is None and self.input_shape is None
        if self.input_shape is not None:
            shape = tuple(np.atleast_1d(self.input_shape).tolist())
            if math.prod(shape) != features:
                raise ShapeError(
                    f"input_shape does not fit the samples. Received: input_shape={shape}, which is "
                    f"{math.prod(shape)} numbers, and X with {features} features"
                )
        if shape is None and not architecture.is_list:
            shape = (features,)
        widths = self._widths()
        try:
            # a list of layers may know the shape by itself
            inner = () if shape is None else _channels_first(shape, self.data_format)
            layers = architecture.layers(inner, max(widths), widths[0])
            model = Sequential(
                layers,
                input_shape=shape,
                device=self.device,
                data_format=self.data_format,
                precision=self._precision(dtype),
                seed=int(rng.randint(np.iinfo(np.int32).max)),
            )
            if not model.built:
                model.build((features,))
        except ShapeError as error:
            hint = f"; rows of {features} features become images by input_shape=(C, H, W)"
            raise ShapeError(f"{error}{hint if rows else ''}") from None
        self._finish(model, widths)
        return model

    def _finish(self, model: Sequential, widths: tuple[int, ...]) -> None:
        """Add the output layer where the network leaves it out; raise where its outputs do not suit y."""
        features = self.n_features_in_
        if math.prod(model.input_shape) != features:
            raise ShapeError(
                f"the first layer does not fit the samples. Received: layers for {model.input_shape}, and X "
                f"with {features} features"
            )
        out, last, ends = model.output_shape, model.layers[-1], last_activation(model.layers)
        fits = len(out) == 1 and out[0] in widths
        if not (fits and self._suits(ends, out[0])):
            meant = isinstance(ends, self._final_activation()) or (
                isinstance(last, Dense) and isinstance(ends, Linear)
            )
            if len(out) != 1 or (meant and not fits):
                raise ShapeError(
                    f"{last.where}: the network must end in {' or '.join(map(str, widths))} outputs, for y "
                    f"{self._kind()}. Received: {out if len(out) == 3 else out[0]}. Expected: "
                    f"{'Flatten() and ' if len(out) == 3 else ''}Dense({max(widths)}) at the end; a function "
                    "(input_shape, outputs) -> layers is told the number"
                )
            if meant:
                raise ValueError(
                    f"{last.where}: outputs for y {self._kind()} cannot be {ends.name}. Expected: logits, or "
                    "their sigmoid for one output and for labels, softmax for several classes"
                )
            model.add(Dense(widths[0]))
        self._note_outputs(model)

    def _split(self, samples: Samples, rng) -> tuple[Samples, Samples]:
        """Samples to train on, and those that early stopping holds out: with the classes in proportion where
        there are enough of each.
        """
        n = samples.number
        if n < 4:
            raise ValueError(
                f"too few samples to hold some out. Received: n_samples = {n}. Expected: at least 4, or "
                "early_stopping=False"
            )
        held = max(2, math.ceil(n * self.validation_fraction))
        strata = self._strata(samples.t)
        if strata is not None:
            counts = np.bincount(strata)
            counts = counts[counts > 0]
            if counts.min() < 2 or min(held, n - held) < len(counts):
                strata = None
        rows, held_out = train_test_split(np.arange(n), test_size=held, random_state=rng, stratify=strata)
        return samples.take(rows), samples.take(held_out)

    def _scorer(self, held_out: Samples):
        return lambda model: self._score(held_out.t, _outputs(model, held_out.X), held_out.w)

    def _own_loss(self) -> Loss:
        return copy.deepcopy(losses.get(self._default_loss() if self.loss is None else self.loss))

    def _callbacks(self) -> list[Callback]:
        return [self.callbacks] if isinstance(self.callbacks, Callback) else list(self.callbacks or ())

    def _precision(self, dtype) -> str:
        """What "auto" means for such data: as exact as they are, so float64 for float64."""
        if self.precision != "auto":
            return self.precision
        return "auto" if np.result_type(dtype, np.float32) == np.float32 else "float64"

    # -- samples ---------------------------------------------------------------------------------------------

    def _read(self, X, y, reset: bool) -> tuple[Any, Any, Shape | None]:
        """X as rows (N, D), y, and the shape of one sample where X came in more than rows."""
        X, shape = self._rows(X)
        X, y = validate_data(
            self,
            X,
            y,
            reset=reset,
            dtype="numeric",
            accept_sparse="csr",
            multi_output=True,
            y_numeric=is_regressor(self),
        )
        if is_sparse(y):
            y = y.toarray()
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return unpacked(X), y, shape

    def _rows(self, X) -> tuple[Any, Shape | None]:
        if hasattr(X, "__dlpack__") and not isinstance(X, np.ndarray):
            X = as_array(X, "X")
        if not isinstance(X, np.ndarray) or X.ndim < 3:
            return X, None
        shape, expected = X.shape[1:], self.input_shape
        if hasattr(self, "model_"):
            expected = self.model_.input_shape
        if expected is not None and shape != tuple(expected):
            raise ShapeError(
                f"the samples have another shape. Received: X of shape {X.shape}. Expected: (N, "
                f"{', '.join(map(str, expected))}), or rows of as many features"
            )
        return X.reshape(len(X), -1), shape

    def _fed(self, model, samples: Samples, size: int, shuffle: bool) -> dict[str, Any]:
        """What the model's fit takes: arrays, or batches where samples are sparse."""
        y, w = self._targets(samples.t, model.loss), samples.w
        if w is not None:
            w = None if w.min() == w.max() else w / w.mean()  # near 1, also in float32
        if is_sparse(samples.X):
            return {"x": Batches(samples.X, y, w, size, model, shuffle)}
        x = samples.X.reshape(-1, *model.input_shape)
        return {"x": x, "y": y, "sample_weight": w, "batch_size": size, "shuffle": shuffle}

    def _validation(self, model, held_out: Samples, size: int):
        fed = self._fed(model, held_out, size, shuffle=False)
        if "y" not in fed:
            return fed["x"]
        return tuple(fed[name] for name in ("x", "y", "sample_weight") if fed[name] is not None)

    def _predicted(self, X) -> np.ndarray:
        """The network's outputs (N, K)."""
        check_is_fitted(self, "model_")
        X, _ = self._rows(X)
        X = validate_data(self, X, reset=False, dtype="numeric", accept_sparse="csr")
        return _outputs(self.model_, unpacked(X))

    # -- arguments -------------------------------------------------------------------------------------------

    def _check_arguments(self) -> None:
        for name in ("max_iter", "max_fun"):
            whole(name, getattr(self, name), 1)
        if self.batch_size not in ("auto", "full", -1):
            whole("batch_size", self.batch_size, 1, " (or 'auto', or 'full')")
        for name, low, high in (("alpha", 0, math.inf), ("tol", 0, math.inf), ("validation_fraction", 0, 1)):
            value = getattr(self, name)
            if not solvers.is_number(value) or not low <= value < high:
                limit = f"from {low} to below {high}" if high < math.inf else f"of at least {low}"
                raise ValueError(f"{name} must be a number {limit}. Received: {value!r}")
        if self.n_iter_no_change not in (None, math.inf):
            whole("n_iter_no_change", self.n_iter_no_change, 1, " (or None, to train for max_iter)")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # -- a network of Dense layers, by scikit-learn's names --------------------------------------------------

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weights of each Dense layer, (I, O), copied."""
        return [weight.T for weight, _ in self._dense()]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of each Dense layer, (O,), copied."""
        return [bias for _, bias in self._dense()]

    @property
    def n_layers_(self) -> int:
        """Layers with parameters, and one for the input."""
        return 1 + sum(bool(layer.slots) for layer in self._trained().all_layers())

    def _trained(self) -> Sequential:
        if "model_" not in vars(self):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet: call fit first")
        return self.model_

    def _dense(self):
        model = self._trained()
        layers = [layer for layer in model.all_layers() if layer.slots]
        if not all(isinstance(layer, Dense) and len(layer.slots) == 2 for layer in layers):
            raise AttributeError(
                "coefs_ and intercepts_ are there for networks of Dense layers alone. Expected: "
                "model_.state_dict() for others"
            )
        arrays = list(model.state_dict().values())
        return zip(arrays[::2], arrays[1::2])


def _outputs(model: Sequential, X) -> np.ndarray:
    """The model's outputs for rows X, dense or CSR."""
    if not is_sparse(X):
        return model.predict(X.reshape(-1, *model.input_shape))
    blocks = (X[start : start + BLOCK].toarray() for start in range(0, X.shape[0], BLOCK))
    return np.concatenate([model.predict(x.reshape(-1, *model.input_shape)) for x in blocks])


def _channels_first(shape, data_format: str) -> Shape:
    """A sample's shape as functions that make layers are told it: (D,) or (C, H, W)."""
    shape = tuple(shape)
    if len(shape) == 2:
        return (1, *shape)
    return (shape[2], *shape[:2]) if len(shape) == 3 and data_format == "channels_last" else shape


def goes_on(estimator: Any) -> bool:
    """Whether an estimator has partial_fit; AttributeError says why not."""
    for name, wrong, instead in (
        ("early_stopping", True, "False"),
        ("class_weight", "balanced", "{label: weight}, or sample_weight"),
        ("solver", "lbfgs", "'adam' or 'sgd'"),
    ):
        given = getattr(estimator, name, None)
        if isinstance(given, (bool, str)) and given == wrong:
            raise AttributeError(
                f"partial_fit does not support {name}={wrong!r}, which needs all samples at once. Expected: "
                f"{instead}"
            )
    return True


def keep(estimator: BaseEstimator, given: dict[str, Any]) -> None:
    """Set the arguments of __init__, its locals(), under their own names, as scikit-learn wants them."""
    for name, value in given.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)
