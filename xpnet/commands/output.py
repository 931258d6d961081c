"""Files that are written whole or not at all, and folders that are never filled twice unasked."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path of the same suffix, which takes path's place once the block has ended well."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_new(path: Path, overwrite: bool) -> None:
    """An OSError if path cannot be written, or exists and may not be overwritten."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Expected: the name of a file to write")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already. Choose another name, or say --overwrite")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """PermissionError now rather than after the work is done."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no permission to write into this folder", str(folder))


def new_folder(wanted: Path) -> Path:
    """wanted, or the first of wanted-2, wanted-3, ... that does not exist; it is made."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    number, folder = 1, wanted
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")
