"""A user's own data from an .npz file, as `np.savez("my.npz", x=x, y=y)` writes it."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .arrays import Split, unit_range
from .files import DatasetError, bad_data

NAMES = {"x": ("x", "x_train"), "y": ("y", "y_train"), "xt": ("x_test", "xt"), "yt": ("y_test", "yt")}
ADVICE = "Write it again with np.savez(path, x=x, y=y)"


def load_npz(
    path: str | os.PathLike[str], *, test_size: float = 0.2, seed: int = 0, data_format: str | None = None
) -> Split:
    """((x, y), (xt, yt)) from the arrays x, y and, where there are any, x_test, y_test of an .npz file.

    Also read under the names x_train, y_train, xt, yt; Keras's mnist.npz is such a file.

        x (N, D), (N, H, W) or (N, C, H, W)     -> float32 (N, D) or (N, C, H, W); uint8 images divided by 255
        y integers (N,), (N, 1) or (N, K)       -> int64 (N,) or (N, K)
        y floats                                -> float32 in their shape

    path: of the file.  test_size: fraction or number of samples set apart where the file has no test arrays,
    class by class where every class has enough samples.  seed: draws them.  data_format: "channels_last" for
    images (N, H, W, C), which are turned; "channels_first" for images that only look so.

    Raises DatasetError if the file is missing or damaged, or if arrays are missing or do not fit, ValueError
    for another data_format.  Nothing is unpickled.
    """
    path = Path(path).expanduser()
    if data_format not in (None, "channels_first", "channels_last"):
        raise ValueError(
            f"unknown data_format. Received: {data_format!r}. Expected: 'channels_first' or 'channels_last'"
        )
    stored = _read(path)
    x, y = _pair(stored["x"], stored["y"], data_format, path, ("x", "y"))
    if "xt" not in stored:
        return _split(x, y, test_size, seed, path)
    xt, yt = _pair(stored["xt"], stored["yt"], data_format, path, ("x_test", "y_test"))
    for name, a, b in (("x", x, xt), ("y", y, yt)):
        if a.shape[1:] != b.shape[1:]:
            raise bad_data(
                f"{path}: {name} and {name}_test hold samples of different shape",
                received=f"{a.shape} and {b.shape}",
                expected="the same but for the first dimension",
                advice=ADVICE,
            )
    dtypes = (stored["x"].dtype, stored["xt"].dtype)
    if np.uint8 in dtypes and dtypes[0] != dtypes[1]:
        raise bad_data(
            f"{path}: x and x_test differ in their units",
            received=f"{dtypes[0]} and {dtypes[1]}",
            expected="both uint8 (0 to 255), or neither",
            advice=ADVICE,
        )
    return (x, y), (xt, yt)


def _read(path: Path) -> dict[str, np.ndarray]:
    """{"x": array, "y": array} and, where the file has them, "xt" and "yt", as stored."""
    if not path.is_file():
        raise DatasetError(
            f"{path} does not exist. Expected: an .npz file; np.savez(path, x=x, y=y) writes one"
        )
    if not zipfile.is_zipfile(path):
        with path.open("rb") as f:
            start = f.read(6)
        raise bad_data(
            f"{path} is no .npz file, or is truncated",
            received=f"a file that begins with {start!r}",
            expected="a zip archive of arrays",
            advice=ADVICE,
        )
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = _choose(stored.files, path)
            return {key: _numbers(stored[name], path, name) for key, name in names.items()}
    except DatasetError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise bad_data(
            f"{path} cannot be read",
            received=str(error),
            expected="arrays of numbers (objects would have to be unpickled, and nothing is)",
            advice=ADVICE,
        ) from error


def _choose(stored: list[str], path: Path) -> dict[str, str]:
    """{"x": the name it has in the file, ...}, of what is there."""
    found = {key: name for key, names in NAMES.items() for name in reversed(names) if name in stored}
    if "x" not in found or "y" not in found:
        raise bad_data(
            f"{path} lacks samples or labels",
            received=", ".join(stored) or "no arrays",
            expected="x and y (or x_train and y_train), perhaps with x_test and y_test",
            advice=ADVICE,
        )
    if ("xt" in found) != ("yt" in found):
        raise bad_data(
            f"{path} has one of the two test arrays",
            received=", ".join(stored),
            expected="both x_test and y_test, or neither",
            advice=ADVICE,
        )
    return found


def _numbers(value: object, path: Path, name: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise bad_data(
            f"{path}: {name} does not hold real numbers",
            received=f"dtype {value.dtype}" if isinstance(value, np.ndarray) else "a member that is no array",
            expected="integers or floats",
            advice="np.unique(y, return_inverse=True) numbers classes that are words",
        )
    return value


def _pair(x: np.ndarray, y: np.ndarray, data_format: str | None, path: Path, names: tuple[str, str]):
    """Samples and their labels in the form that load_npz hands out."""
    if len(x.shape[:1] + y.shape[:1]) < 2 or len(x) != len(y):
        raise bad_data(
            f"{path}: {names[0]} and {names[1]} do not belong together",
            received=f"shapes {x.shape} and {y.shape}",
            expected="one label for each sample, along the first dimension",
            advice=ADVICE,
        )
    if y.dtype.kind == "f":
        y = y.astype(np.float32)
    else:
        y = y.astype(np.int64)
        y = y[:, 0] if y.shape[1:] == (1,) else y
    return _samples(x, data_format, path, names[0]), y


def _samples(x: np.ndarray, data_format: str | None, path: Path, name: str) -> np.ndarray:
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise bad_data(
            f"{path}: {name} has no shape that samples have",
            received=x.shape,
            expected="(N, D), (N, H, W) or (N, C, H, W), none of them 0",
            advice=ADVICE,
        )
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and data_format == "channels_last":
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim == 4 and data_format is None and x.shape[3] in (1, 3, 4) and min(x.shape[1:3]) > 4:
        raise bad_data(
            f"{path}: {name} looks like images (N, H, W, C)",
            received=x.shape,
            expected="(N, C, H, W)",
            advice="Say data_format='channels_last' to have them turned, or 'channels_first' if all is well",
        )
    if x.ndim == 4 and x.dtype == np.uint8:
        return unit_range(np.ascontiguousarray(x))
    return np.ascontiguousarray(x, dtype=np.float32)


def _split(x: np.ndarray, y: np.ndarray, test_size: float, seed: int, path: Path) -> Split:
    from sklearn.model_selection import train_test_split

    if len(x) < 2:
        raise bad_data(
            f"{path} holds too few samples to set some apart",
            received=len(x),
            expected="2 or more, or the arrays x_test and y_test beside x and y",
            advice=ADVICE,
        )
    classes = y if y.ndim == 1 and y.dtype == np.int64 else None
    try:
        x, xt, y, yt = train_test_split(x, y, test_size=test_size, random_state=seed, stratify=classes)
    except ValueError:  # a class of one sample, or more classes than test samples
        x, xt, y, yt = train_test_split(x, y, test_size=test_size, random_state=seed)
    return (x, y), (xt, yt)
