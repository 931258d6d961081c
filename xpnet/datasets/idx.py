"""The IDX format of MNIST: a big-endian header, then the bytes of one array.

    2 zero bytes, type code (8: uint8), number of dimensions, each dimension as uint32, data in C order

Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import numpy as np

from . import files
from .arrays import Split
from .files import Source, bad_data

UINT8 = 0x08
IMAGE_SHAPE = (28, 28)


def read_idx(path: str | os.PathLike[str], ndim: int) -> np.ndarray:
    """The uint8 array of `ndim` dimensions in an IDX file, gzip or plain.

    DatasetError if the file is of another format, type or number of dimensions, or if its length is not what
    its header says.
    """
    path = Path(path)
    data = files.contents(path)
    magic, start = bytes((0, 0, UINT8, ndim)), 4 + 4 * ndim
    if data[:4] != magic:
        raise bad_data(
            f"{path} is not an IDX file of {ndim}-dimensional uint8 data",
            received=f"{len(data)} bytes that begin with {data[:4]!r}",
            expected=f"{magic!r} first, or gzip of it",
        )
    if len(data) < start:
        raise bad_data(
            f"{path} is truncated in its header", received=f"{len(data)} bytes", expected=f"{start} or more"
        )
    shape = struct.unpack(f">{ndim}I", data[4:start])
    received, expected = len(data) - start, math.prod(shape)
    if received != expected:
        raise bad_data(
            f"{path} is {'truncated' if received < expected else 'longer than its header says'}",
            received=f"{received} bytes of data",
            expected=f"{expected}, for the shape {shape} in its header",
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


def read_set(source: Source) -> Split:
    """((x, y), (xt, yt)) of a data set in four IDX files: images uint8 (N, 28, 28), labels uint8 (N,)."""
    train_x, train_y, test_x, test_y = find(source).values()
    return _read_pair(train_x, train_y), _read_pair(test_x, test_y)


def find(source: Source) -> files.Files:
    """{file name: path} in the source's order: all from one folder under XPNET_DATA, or else from `fetch`.

    The files of MNIST and of its successors have the same names, so those that stand in XPNET_DATA itself,
    not in the data set's own folder, are told apart by their checksums.
    """
    for folder in files.data_folders(source):
        paths = {name: next(files.variants(folder, name), None) for name in source.files}
        found = {name: path for name, path in paths.items() if path is not None}
        if not found:
            continue
        if len(found) < len(paths):
            raise bad_data(
                f"{source.title} is incomplete in {folder}",
                received=", ".join(found),
                expected=f"also {', '.join(name for name in paths if name not in found)}",
                advice="Place the missing files there, or remove the others",
            )
        if folder == files.data_root():
            _check_genuine(found, source, folder)
        return found
    return files.fetch(source)


def _check_genuine(paths: files.Files, source: Source, root: Path) -> None:
    for name, path in paths.items():
        if not files.is_genuine(path, name, source):
            raise bad_data(
                f"{path} is not known as a file of {source.title}",
                received="a file with another checksum",
                expected=f"in XPNET_DATA itself only {source.title}'s own; other data sets have these names",
                advice=f"To have it read as {source.title} all the same, move it and its fellows to "
                f"{root / source.folders[0]}",
            )


def _read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    x, y = read_idx(images, 3), read_idx(labels, 1)
    if x.shape[1:] != IMAGE_SHAPE or not len(x):
        raise bad_data(
            f"{images} does not hold images of 28x28",
            received=f"shape {x.shape}",
            expected="(N, 28, 28) with N of 1 or more",
        )
    if len(x) != len(y):
        raise bad_data(
            f"{images} and {labels} do not belong together",
            received=f"{len(x)} images and {len(y)} labels",
            expected="as many labels as images",
            advice="Replace both with fresh copies",
        )
    return x, y
