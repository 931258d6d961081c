"""What listens to training.  The hooks and their arguments are Keras's; `logs` maps names to numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from numbers import Real
from typing import Any

from ..errors import NonFiniteError, unknown

BAR = "{desc} {percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
COUNT = "{desc} {n_fmt} batches [{elapsed}{postfix}]"  # where nobody knows yet how many there are


class Callback:
    """Base: override what you need.  `self.model` is the model; set `self.model.stop_training = True` to
    stop.

    All hooks of Keras's are here, so that its subclasses move over.  `fit` calls those of training, of
    epochs, of training batches, and of its validation as a whole.

    epoch, batch: numbers from 0.  logs: {name: figure}, which later callbacks see, with what this one adds.
    """

    kept: tuple[str, ...] = ()  # attributes that a resumed run needs: numbers, text, or dicts of arrays

    model: Any  # a Sequential
    params: dict[str, Any] = {}  # epochs, initial_epoch, steps an epoch or None, verbose,
    # validation (whether there is any), callbacks

    def set_model(self, model) -> None:
        """Before training: keep the model as `self.model`."""
        self.model = model

    def set_params(self, params) -> None:
        """Before training: keep what `fit` was asked for as `self.params`."""
        self.params = params

    def on_train_begin(self, logs=None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs=None) -> None:
        """After the last epoch."""

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Before an epoch."""

    def on_epoch_end(self, epoch, logs=None) -> None:
        """After an epoch and its validation.  logs: its figures, the validation's under "val_" + name."""

    def on_batch_begin(self, batch, logs=None) -> None:
        """Keras's older name for `on_train_batch_begin`."""

    def on_batch_end(self, batch, logs=None) -> None:
        """Keras's older name for `on_train_batch_end`."""

    def on_test_begin(self, logs=None) -> None:
        """Before `evaluate`, and before the validation of an epoch."""

    def on_test_end(self, logs=None) -> None:
        """After `evaluate`, and after the validation of an epoch.  logs: its figures."""

    def on_test_batch_begin(self, batch, logs=None) -> None:
        """Keras's; never called here."""

    def on_test_batch_end(self, batch, logs=None) -> None:
        """Keras's; never called here."""

    def on_predict_begin(self, logs=None) -> None:
        """Keras's; never called here."""

    def on_predict_end(self, logs=None) -> None:
        """Keras's; never called here."""

    def on_predict_batch_begin(self, batch, logs=None) -> None:
        """Keras's; never called here."""

    def on_predict_batch_end(self, batch, logs=None) -> None:
        """Keras's; never called here."""

    def on_train_batch_begin(self, batch, logs=None) -> None:
        """Before a training step."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None) -> None:
        """After a training step.  logs: the figures of the epoch so far, computed when somebody looks."""
        self.on_batch_end(batch, logs)

    def on_train_error(self, error, logs=None) -> None:
        """Training ends in an error: put away what is open, and leave the weights of the last whole step."""
        self.on_train_end(logs)

    def is_an_end(self, error) -> bool:
        """Whether training that meets this error has ended well; where nobody says so, `fit` raises it."""
        return False

    def __getstate__(self):
        """Without the model, which is not the callback's to copy."""
        return {name: value for name, value in self.__dict__.items() if name not in ("model", "params")}


def listed(callbacks) -> list[Callback]:
    """One callback, several or None, as a list."""
    found = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
    for one in found:
        if not isinstance(one, Callback):
            raise TypeError(
                f"callbacks must be objects of a subclass of xpnet.callbacks.Callback. Received: {one!r}"
            )
    return found


def listening(listeners: list[Callback], hook: str) -> list[Callable[..., None]]:
    """The hook of each listener that has something to do there."""
    return [getattr(one, hook) for one in listeners if _overrides(one, hook)]


def _overrides(callback: Callback, hook: str) -> bool:
    own = getattr(getattr(callback, hook), "__func__", None)  # a function set on the object has none
    if own is not getattr(Callback, hook):
        return True
    older = hook.replace("_train_batch_", "_batch_")  # Keras's older name, which the newer one calls
    return older != hook and _overrides(callback, older)


class LambdaCallback(Callback):
    """Hooks given as functions: LambdaCallback(on_epoch_end=lambda epoch, logs: print(logs["loss"])).

    on_epoch_begin, on_epoch_end, on_train_begin, on_train_end, on_train_batch_begin, on_train_batch_end:
    called with what the method of that name in `Callback` gets.  more: its other hooks.  Raises ValueError
    for a name that is no hook.
    """

    def __init__(
        self,
        on_epoch_begin: Callable | None = None,
        on_epoch_end: Callable | None = None,
        on_train_begin: Callable | None = None,
        on_train_end: Callable | None = None,
        on_train_batch_begin: Callable | None = None,
        on_train_batch_end: Callable | None = None,
        **more: Callable | None,
    ):
        hooks = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        for name, function in (hooks | more).items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                raise unknown("hook", name, [n for n in dir(Callback) if n.startswith("on_")])
            if function is not None:
                setattr(self, name, function)


class TerminateOnNaN(Callback):
    """End training well where the loss or gradient is NaN or infinite, with the weights of the step before.

    `fit` notices that by itself and raises NonFiniteError, which this turns into a message; raise_error=True
    leaves the error.
    """

    def __init__(self, raise_error: bool = False):
        self.raise_error = raise_error

    def is_an_end(self, error):
        if self.raise_error or not isinstance(error, NonFiniteError):
            return False
        say(str(error))
        return True


class History(Callback):
    """The figures of every epoch: `history["loss"]` is a list, `epoch` the epochs' numbers from 0.

    measured: for each figure the numbers of its epochs, which validation_freq may make fewer.
    """

    def __init__(self) -> None:
        self.history: dict[str, list] = {}
        self.measured: dict[str, list[int]] = {}
        self.epoch: list[int] = []

    def set_model(self, model):
        """Not kept: a model has its history, and goes from memory where nothing leads back to it."""

    def set_params(self, params):
        """Not kept either: callbacks lead back to their model."""

    def on_epoch_end(self, epoch, logs=None):
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
            self.measured.setdefault(name, []).append(epoch)

    def plot(self, ax=None):
        """Training curves, drawn into ax or a new figure; the Axes.  Needs pip install 'xpnet[plot]'."""
        from ..viz import plot_history

        return plot_history(self, ax=ax)

    def _repr_html_(self) -> str:
        """What a notebook shows: the curves, and the last and best figures."""
        from ..viz import notebook

        return notebook.card(notebook.training(self))

    def __repr__(self) -> str:
        last = ", ".join(
            f"{name}={_shown(values[-1])}" for name, values in self.history.items() if is_number(values[-1])
        )
        return f"History({len(self.epoch)} epochs{': ' + last if last else ''})"


class ProgressBar(Callback):
    """A bar an epoch with the time left, by tqdm; verbose=2: a line an epoch and no bar."""

    def __init__(self, verbose: int = 1):
        self.verbose = verbose
        self._bar: Any = None
        self._shown_at = 0.0
        self._batches: int | None = None  # of the epoch before

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()
        if self.verbose == 1:
            from tqdm.auto import tqdm

            total = self.params["steps"] or self._batches
            self._bar = tqdm(
                total=total,
                desc=f"epoch {epoch + 1}/{self.params['epochs']}",
                unit="batch",
                bar_format=BAR if total else COUNT,
            )

    def on_train_batch_end(self, batch, logs=None):
        if self._bar is not None:
            self._bar.update()
            now = time.perf_counter()
            if now - self._shown_at > 0.2:  # reading the figures makes them: not at every batch
                self._shown_at = now
                self._bar.set_postfix_str(_line(logs), refresh=False)

    def on_epoch_end(self, epoch, logs=None):
        if self._bar is not None:
            self._bar.set_postfix_str(_line(logs))
            self._batches = self._bar.n
            self._bar.close()
            self._bar = None
        elif self.verbose == 2:
            seconds = time.perf_counter() - self._started
            print(f"epoch {epoch + 1}/{self.params['epochs']} - {seconds:.1f}s - {_line(logs)}", flush=True)

    def on_train_end(self, logs=None):
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def say(text: str) -> None:
    """Print a line, past the progress bar where there is one."""
    from tqdm.auto import tqdm

    tqdm.write(text)


def is_number(value) -> bool:
    return isinstance(value, Real)


def _shown(value) -> str:
    return f"{value:.4g}" if abs(value) < 1e-3 and value else f"{value:.4f}"


def _line(logs) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in (logs or {}).items() if is_number(value))


class LazyLogs(dict):
    """Figures of the epoch so far, computed when somebody looks.  weight: of the samples they are of."""

    def __init__(self, epoch):
        super().__init__()
        self._compute, self.weight = epoch.logs, epoch.weight

    def _fill(self):
        if self._compute is not None:
            compute, self._compute = self._compute, None
            self.update(compute())

    def items(self):
        self._fill()
        return super().items()

    def keys(self):
        self._fill()
        return super().keys()

    def values(self):
        self._fill()
        return super().values()

    def get(self, key, default=None):
        self._fill()
        return super().get(key, default)

    def __getitem__(self, key):
        self._fill()
        return super().__getitem__(key)

    def __contains__(self, key):
        self._fill()
        return super().__contains__(key)

    def __iter__(self):
        self._fill()
        return super().__iter__()

    def __len__(self):
        self._fill()
        return super().__len__()

    def copy(self):
        self._fill()
        return dict(self)

    def __repr__(self):
        self._fill()
        return super().__repr__()
