"""What listens to training.  The hooks and their arguments are Keras's; `logs` maps names to numbers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model import Sequential


BAR = "{desc} {percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Callback:
    """Base: override what you need.  `self.model` is the model; set `self.model.stop_training = True` to
    stop.
    """

    model: Sequential
    params: dict[str, Any]  # epochs, steps a epoch, verbose

    def set_model(self, model) -> None:
        self.model = model

    def set_params(self, params) -> None:
        self.params = params

    def on_train_begin(self, logs=None) -> None: ...
    def on_train_end(self, logs=None) -> None: ...
    def on_epoch_begin(self, epoch, logs=None) -> None: ...
    def on_epoch_end(self, epoch, logs=None) -> None: ...
    def on_train_batch_begin(self, batch, logs=None) -> None: ...
    def on_train_batch_end(self, batch, logs=None) -> None: ...


class History(Callback):
    """The figures of every epoch: `history["loss"]` is a list, `epoch` the epochs' numbers from 0."""

    def __init__(self) -> None:
        self.history: dict[str, list] = {}
        self.epoch: list[int] = []

    def on_epoch_end(self, epoch, logs=None):
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def __getstate__(self):
        """Without the model, which is not the history's to copy."""
        return {"history": self.history, "epoch": self.epoch}

    def plot(self, ax=None):
        """Training curves (needs matplotlib: pip install 'xpnet[plot]'); the Axes."""
        from ..viz import plot_history

        return plot_history(self, ax=ax)

    def __repr__(self) -> str:
        last = ", ".join(
            f"{name}={_shown(values[-1])}" for name, values in self.history.items() if _is_number(values[-1])
        )
        return f"History({len(self.epoch)} epochs{': ' + last if last else ''})"


class ProgressBar(Callback):
    """A bar an epoch with the time left, by tqdm; verbose=2: a line an epoch and no bar."""

    def __init__(self, verbose: int = 1):
        self.verbose = verbose
        self._bar: Any = None
        self._shown_at = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()
        if self.verbose == 1:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=self.params["steps"],
                desc=f"epoch {epoch + 1}/{self.params['epochs']}",
                unit="batch",
                bar_format=BAR,
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
            self._bar.close()
            self._bar = None
        elif self.verbose == 2:
            seconds = time.perf_counter() - self._started
            print(f"epoch {epoch + 1}/{self.params['epochs']} - {seconds:.1f}s - {_line(logs)}", flush=True)

    def on_train_end(self, logs=None):
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _is_number(value) -> bool:
    return isinstance(value, (int, float))


def _shown(value) -> str:
    return f"{value:.4g}" if abs(value) < 1e-3 and value else f"{value:.4f}"


def _line(logs) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in (logs or {}).items() if _is_number(value))


class LazyLogs(dict):
    """Figures of the epoch so far, computed when somebody looks."""

    def __init__(self, compute):
        super().__init__()
        self._compute = compute

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
