"""Pictures kept as JPEG files, one after another, in an .npz file without pickles.

For "train" and "test" each: `train_jpeg` uint8, the bytes of all files; `train_offsets`, where each begins
and where the last one ends; `train_labels`, a class a picture.  Decoding needs Pillow.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .arrays import Split
from .files import DatasetError, bad_data

Shape = tuple[int, int, int]


def read_set(path: Path, shape: Shape, classes: int) -> Split:
    """((x, y), (xt, yt)): images uint8 (N, *shape), shape (3, H, W), and labels (N,) below classes.

    DatasetError where the file is damaged, or Pillow is missing.
    """
    train, test = (_read(path, part, shape, classes) for part in ("train", "test"))
    return train, test


def _read(path: Path, part: str, shape: Shape, classes: int) -> tuple[np.ndarray, np.ndarray]:
    names = [f"{part}_{what}" for what in ("jpeg", "offsets", "labels")]
    try:
        with path.open("rb") as file, zipfile.ZipFile(file):  # no .npz otherwise
            stored = np.load(path, allow_pickle=False)
        with stored:
            jpeg, offsets, labels = (stored[name] for name in names)
    except KeyError as error:
        raise bad_data(f"{path} is incomplete", received=error.args[0], expected=", ".join(names)) from error
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise bad_data(
            f"{path} cannot be read ({error})", received="a damaged file, or another", expected="an .npz file"
        ) from error
    whole = all(a.dtype.kind in "iu" and a.ndim == 1 for a in (offsets, labels))
    if jpeg.dtype != np.uint8 or not whole or len(offsets) != len(labels) + 1:
        raise bad_data(
            f"{path}: the arrays of the part '{part}' do not fit together",
            received=", ".join(f"{n} {a.dtype} {a.shape}" for n, a in zip(names, (jpeg, offsets, labels))),
            expected="bytes, N + 1 offsets into them and N labels",
        )
    if not len(labels) or (np.diff(offsets) < 0).any() or offsets[0] < 0 or offsets[-1] > jpeg.size:
        raise bad_data(
            f"{path}: {part}_offsets do not lie within {part}_jpeg",
            received=f"{len(offsets)} offsets from {offsets[0]} to {offsets[-1]}",
            expected=f"rising numbers up to {jpeg.size}",
        )
    if labels.min() < 0 or labels.max() >= classes:
        worst = int(labels.argmax() if labels.max() >= classes else labels.argmin())
        raise bad_data(
            f"{path}: {part}_labels holds classes that there are not",
            received=f"{labels[worst]} for picture {worst}",
            expected=f"0 to {classes - 1}",
        )
    return _decoded(jpeg.data, offsets, shape, f"{path}: picture {{}} of {part}_jpeg"), labels


def _decoded(data: memoryview, offsets, shape: Shape, name: str) -> np.ndarray:
    """The pictures (N, C, H, W) in data; errors call one by `name` with its number."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DatasetError(
            "these pictures are JPEG files, which Pillow decodes, and it is not installed: pip install pillow"
        ) from error
    C, H, W = shape
    images = np.empty((len(offsets) - 1, H, W, C), np.uint8)
    for n, (start, stop) in enumerate(zip(offsets, offsets[1:])):
        try:
            with Image.open(io.BytesIO(data[start:stop]), formats=("JPEG",)) as file:
                if (file.mode, file.size) != ("RGB", (W, H)):
                    raise ValueError(f"{file.mode}, {file.size[0]}x{file.size[1]} pixels")
                images[n] = np.frombuffer(file.tobytes(), np.uint8).reshape(H, W, C)
        except (OSError, ValueError, SyntaxError) as error:
            raise bad_data(
                f"{name.format(n)} cannot be used",
                received=str(error),
                expected=f"a complete JPEG file, RGB, {W}x{H} pixels",
            ) from error
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
