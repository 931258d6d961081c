"""Files that are written whole or not at all, and safetensors files: arrays by name, with notes as text.

safetensors was chosen because PyTorch, Keras and the hubs read it, and because a file of it cannot run code.
Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import ModelFileError


@contextlib.contextmanager
def whole(path) -> Iterator[Path]:
    """A temporary path of the same suffix, which takes path's place once the block has ended well.

    The content is on the disk before it gets its name, so that a power cut leaves the old file or the new.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Expected: the name of a file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        temporary.touch()
        mode = (path if path.exists() else temporary).stat().st_mode
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, mode)  # some libraries make files that only their owner may read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_new(path, overwrite: bool) -> None:
    """FileExistsError where there is a file already that may not be written over."""
    if not overwrite and Path(path).exists():
        raise FileExistsError(f"{path} exists already. Expected: another name, or overwrite=True")


def write(path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """A safetensors file of the arrays."""
    from safetensors.numpy import save_file

    with whole(path) as temporary:
        save_file(tensors, temporary, metadata)


def read(path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a safetensors file, bfloat16 as float32, and its metadata.

    Raises FileNotFoundError, or ModelFileError that says what the file is instead and how to use it.
    """
    from safetensors import SafetensorError, deserialize, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            strange = {name: kind for name, kind in kinds.items() if kind not in (*_NUMPY, "BF16")}
            if strange:
                name, kind = next(iter(strange.items()))
                raise ModelFileError(
                    f"{path}: {name} has a type that NumPy lacks. Received: {kind}. Expected: floats of 16, "
                    "32 or 64 bits, or whole numbers; convert it where it was made, tensor.float()"
                )
            raw = dict(deserialize(path.read_bytes())) if "BF16" in kinds.values() else {}
            tensors = {
                name: _widened(raw[name]) if kind == "BF16" else file.get_tensor(name)
                for name, kind in kinds.items()
            }
    except (SafetensorError, TypeError, OSError) as error:
        raise ModelFileError(f"{path} is not a readable safetensors file ({error}). {_kind(path)}") from None
    return tensors, metadata


_NUMPY = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")


def _widened(stored: dict) -> np.ndarray:
    """A stored bfloat16 array as float32, of which it is the upper half."""
    upper = np.frombuffer(stored["data"], "<u2").astype(np.uint32)
    return (upper << 16).view(np.float32).reshape(stored["shape"])


def is_hdf5(path) -> bool:
    """Whether the file is HDF5, as Keras's .weights.h5 is."""
    return _begins(path, b"\x89HDF\r\n\x1a\n")


def is_keras(path) -> bool:
    """Whether the file is a .keras archive."""
    return "config.json" in _members(path)


def _begins(path, signature: bytes) -> bool:
    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(signature)) == signature


def _members(path) -> list[str]:
    """The names in a zip file, none where it is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return []


def _kind(path: Path) -> str:
    """What a file that is not safetensors seems to be, and what makes one of use of it."""
    names = _members(path)
    if any(name.endswith("data.pkl") for name in names) or _begins(path, b"\x80"):
        target = path.with_suffix(".safetensors").name
        return (
            "It is a pickle, as torch.save writes, and pickles can run code, so none is opened here. Convert "
            'it where you trust it: python -c "import torch, safetensors.torch as s; s.save_file('
            f"torch.load('{path.name}', weights_only=True), '{target}')\" (of a checkpoint, its state_dict "
            "entry)"
        )
    if is_hdf5(path) or is_keras(path):
        return (
            "It is a Keras file: xpnet.interop.keras.from_keras(path) makes a model of a .keras file, and "
            "model.load_weights(path) reads the weights of one, or of a .weights.h5"
        )
    if any(name.endswith(".npy") for name in names):
        return "It is an .npz file: model.load_state_dict(np.load(path)) takes arrays by name"
    if path.suffix == ".onnx":
        return "It is named as an ONNX file: xpnet.interop.onnx.load(path) reads those"
    return "It may be cut short, or in another format"
