"""CIFAR-10: 50,000 + 10,000 photographs, 32x32, three channels (red, green, blue), ten classes.

Read from its binary version: five training batches and one test batch, each a run of records of 1 label byte
and 3072 pixel bytes in C, H, W order.  Where XPNET_DATA has none of these, but `cifar10-jpeg.npz`, they are
read from that: the pictures as JPEG files (see `jpegs`), which loses a little, so that an accuracy on them is
not CIFAR-10's.

A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

from . import files, jpegs
from .arrays import Split, image_split
from .files import Source, bad_data

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
JPEGS = "cifar10-jpeg.npz"
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = "test_batch.bin"
IMAGE_SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
Batch = tuple[np.ndarray, np.ndarray]

SOURCE = Source(
    title="CIFAR-10",
    folders=("cifar10", "cifar-10", "cifar10-jpeg"),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    files={ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    note="Only the binary version is read: the Python version (cifar-10-batches-py) is pickled.",
)


def load_data() -> Split:
    """((x, y), (xt, yt)) as Keras's `cifar10.load_data`: images uint8 (N, 32, 32, 3), labels uint8 (N, 1).

    Raises DatasetError if the files are missing and cannot be downloaded, or are damaged.
    """
    (x, y), (xt, yt) = _read()
    x, xt = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, xt))
    return (x, y[:, None]), (xt, yt[:, None])


def load_cifar10(*, raw: bool = False) -> Split:
    """((x, y), (xt, yt)): images (N, 3, 32, 32), float32 in [0, 1], or uint8 if raw; labels int64 (N,).

    Raises DatasetError if the files are missing and cannot be downloaded, or are damaged.
    """
    return image_split(_read(), raw)


def _read() -> Split:
    """Images uint8 (N, 3, 32, 32), labels uint8 (N,): from a folder or an archive under XPNET_DATA, from the
    JPEG copy there, or else from the cached archive.
    """
    homes = files.data_folders(SOURCE)
    for home in homes:
        for folder in (home, home / FOLDER):
            if any((folder / name).is_file() for name in (*TRAIN, TEST)):
                return _joined(_read_folder(folder))
        archive = next(files.variants(home, ARCHIVE), None)
        if archive is not None:
            return _joined(_read_archive(archive))
    for home in homes:
        if (home / JPEGS).is_file():
            return jpegs.read_set(home / JPEGS, IMAGE_SHAPE, len(CLASS_NAMES))
    return _joined(_read_archive(files.fetch(SOURCE)[ARCHIVE]))


def _joined(batches: dict[str, Batch]) -> Split:
    x, y = (np.concatenate(part) for part in zip(*(batches[name] for name in TRAIN)))
    return (x, y), batches[TEST]


def _read_folder(folder: Path) -> dict[str, Batch]:
    names = (*TRAIN, TEST)
    _check_complete([name for name in names if (folder / name).is_file()], folder)
    return {name: parse(files.contents(folder / name), str(folder / name)) for name in names}


def _read_archive(path: Path) -> dict[str, Batch]:
    """Reads members by name and extracts nothing, so that no path in the archive is ever followed."""
    data = files.contents(path)  # the whole of it, so that gzip's own checksum is verified
    batches = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in (*TRAIN, TEST) and member.isfile():
                    stream = archive.extractfile(member)
                    assert stream is not None  # a regular file has one
                    batches[name] = parse(stream.read(), f"{path}: {member.name}")
    except tarfile.TarError as error:
        raise bad_data(
            f"{path} cannot be read as an archive ({error})",
            received=f"{len(data)} bytes",
            expected=f"a complete {ARCHIVE}",
        ) from error
    _check_complete(list(batches), path)
    return batches


def _check_complete(found: list[str], where: Path) -> None:
    missing = [name for name in (*TRAIN, TEST) if name not in found]
    if missing:
        raise bad_data(
            f"CIFAR-10 is incomplete in {where}",
            received=", ".join(found) or "none of its batches",
            expected=f"also {', '.join(missing)}",
            advice="Place the missing files there, or remove the others",
        )


def parse(data: bytes, name: str) -> Batch:
    """The records of one batch, data -> images uint8 (N, 3, 32, 32), labels uint8 (N,).

    name: what errors call it.  Raises DatasetError where they are damaged.
    """
    if not data or len(data) % RECORD:
        raise bad_data(
            f"{name} is truncated, or no batch of CIFAR-10's binary version",
            received=f"{len(data)} bytes",
            expected=f"a multiple of {RECORD} (10000 records are {10000 * RECORD})",
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    x, y = records[:, 1:].reshape(-1, *IMAGE_SHAPE), records[:, 0].copy()
    if y.max() >= len(CLASS_NAMES):
        raise bad_data(
            f"{name} holds labels that CIFAR-10 has not",
            received=f"{y.max()} in record {y.argmax()}",
            expected=f"0 to {len(CLASS_NAMES) - 1}",
        )
    return x, y
