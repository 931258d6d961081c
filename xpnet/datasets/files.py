"""Where the files of a data set are: under XPNET_DATA, in the cache, or else on the network.

XPNET_DATA names a folder with a subfolder for each data set (`mnist/`, `cifar10/`, ...).  What stands there
is the user's own: its structure is checked, its checksum is not.  What is downloaded, and what stands in the
cache (XPNET_CACHE, or the system's cache folder), must have the checksum that is written in the source.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Files = dict[str, Path]


class DatasetError(OSError):
    """A data set is missing, cannot be downloaded, or its files are damaged; the message says what to do."""


def bad_data(
    problem: str,
    *,
    received: object,
    expected: str,
    advice: str = "Replace it with a fresh copy, or delete it",
) -> DatasetError:
    """The error for data that are there but of no use."""
    return DatasetError(f"{problem}. Received: {received}. Expected: {expected}. {advice}")


@dataclass(frozen=True)
class Source:
    """What it takes to find a data set, and to download it.

    title: its name in messages.
    folders: the names its folder may have under XPNET_DATA; the first is its folder in the cache.
    mirrors: URLs up to the file name, tried in turn.
    files: {file name: sha256, in hex}.
    unzipped: the sha256 is that of the uncompressed bytes, for files that mirrors compress in their own way;
        such files stand uncompressed in the cache.
    note: a sentence for the message that tells what to download.
    """

    title: str
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]
    files: dict[str, str]
    unzipped: bool = False
    note: str = ""


def data_root() -> Path | None:
    """The folder that XPNET_DATA names, or None."""
    value = os.environ.get("XPNET_DATA")
    return Path(value).expanduser() if value else None


def cache_folder(source: Source) -> Path:
    """Where downloads of this data set are kept: a folder in XPNET_CACHE or in the system's cache folder."""
    value = os.environ.get("XPNET_CACHE")
    if value:
        return Path(value).expanduser() / source.folders[0]
    import pooch

    return Path(pooch.os_cache("xpnet")).expanduser() / source.folders[0]


def data_folders(source: Source) -> list[Path]:
    """The existing folders of this data set under XPNET_DATA, in order of choice, XPNET_DATA itself last."""
    root = data_root()
    if root is None:
        return []
    return [folder for folder in (*(root / name for name in source.folders), root) if folder.is_dir()]


def variants(folder: Path, name: str) -> Iterator[Path]:
    """The existing files that may be `name`: with and without .gz, and spelt train-images.idx3-ubyte."""
    plain = name.removesuffix(".gz")
    for spelling in dict.fromkeys((plain, plain.replace("-idx", ".idx"))):
        for path in (folder / spelling, folder / f"{spelling}.gz"):
            if path.is_file():
                yield path


def contents(path: Path) -> bytes:
    """The bytes of a file, uncompressed where it is gzip (told by its first bytes, not by its name)."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise bad_data(
            f"{path} is a truncated or damaged gzip file ({error})",
            received=f"{len(data)} bytes",
            expected="a complete gzip file",
        ) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def is_genuine(path: Path, name: str, source: Source) -> bool:
    """Whether the file at path has the checksum that source gives for `name`."""
    try:
        data = contents(path) if source.unzipped else path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data).hexdigest() == source.files[name]


def fetch(source: Source) -> Files:
    """{file name: path} of every file of the data set, from the cache or downloaded into it, checksums right.

    DatasetError says where the files were looked for, why each mirror failed, and how to place them by hand.
    """
    return {name: _cached(name, source) or _download(name, source) for name in source.files}


def _cached(name: str, source: Source) -> Path | None:
    return next((p for p in variants(cache_folder(source), name) if is_genuine(p, name, source)), None)


def _download(name: str, source: Source) -> Path:
    import pooch

    bar = sys.stderr is not None and sys.stderr.isatty()
    download = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=30)

    def download_unzipped(url, output_file, pooch):
        download(url, output_file, pooch)
        try:
            data = contents(Path(output_file))
        except DatasetError as error:
            raise ValueError("the download is a truncated or damaged gzip file") from error
        Path(output_file).write_bytes(data)

    failures = []
    for mirror in source.mirrors:
        try:
            # pooch writes to a temporary file and moves it into place only once the checksum is right
            with _quiet(pooch.get_logger()):
                path = pooch.retrieve(
                    mirror + name,
                    known_hash=f"sha256:{source.files[name]}",
                    fname=name.removesuffix(".gz") if source.unzipped else name,
                    path=cache_folder(source),
                    downloader=download_unzipped if source.unzipped else download,
                )
            return Path(path)
        except (OSError, ValueError) as error:  # no network, an HTTP error, a full disk; a wrong checksum
            failures.append(f"{mirror + name} ({type(error).__name__}: {error})")
    raise DatasetError(_not_found(name, source, failures))


@contextmanager
def _quiet(logger):
    """Without pooch's own notes on what it downloads and on hashes."""
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _not_found(name: str, source: Source, failures: list[str]) -> str:
    root, cache = data_root(), cache_folder(source)
    if root is None:
        looked = "XPNET_DATA (not set)"
    elif not root.is_dir():
        looked = f"XPNET_DATA={root} (no such folder)"
    else:
        looked = f"XPNET_DATA={root} (its folders {', '.join(source.folders)}, and itself)"
    own = (
        root / source.folders[0]
        if root
        else f"a folder {source.folders[0]} in one that you set XPNET_DATA to"
    )
    unlike = "".join(f"\n  Passed over: {path} (wrong checksum)" for path in variants(cache, name))
    tried = "".join(f"\n  Tried: {failure}" for failure in failures)
    urls = "".join(f"\n    {source.mirrors[0]}{file}" for file in source.files)
    return (
        f"{source.title} was not found and could not be downloaded."
        f"\n  Looked for: {name}"
        f"\n  Looked in: {looked}; {cache}{unlike}{tried}"
        f"\n  What to do: download{urls}"
        f"\n  and place what you downloaded, as it is, in {cache}"
        f"\n  or in {own}" + (f"\n  {source.note}" if source.note else "")
    )
