"""Keras's files, read and written by h5py, without Keras.

A .weights.h5 has a group a layer, layers/dense_1/vars, named by the layer's class and a number, with the
arrays 0, 1, ...  A .keras file is a zip of such a file with the model's description, config.json.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelFileError
from .. import files
from .write import Entry

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
VERSION = "3.0.0"  # of Keras, whose format this is


def _h5py():
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"Keras's files need the h5py package ({error}): pip install 'xpnet[keras]'"
        ) from error
    return h5py


def group_name(kind: str, counts: Counter[str]) -> str:
    """The group of the next layer of a class: MaxPooling2D -> max_pooling2d, max_pooling2d_1, ..."""
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind)).lower()
    counts[name] += 1
    return name if counts[name] == 1 else f"{name}_{counts[name] - 1}"


class Stored:
    """The arrays of the layers of one model, asked for in their order, in an HDF5 file (a `read.Source`)."""

    def __init__(self, group, what: str):
        self.group, self.what = group, what
        self.counts: Counter[str] = Counter()

    def arrays(self, kind: str, name: str) -> list[np.ndarray]:
        held = self._inner(f"{group_name(kind, self.counts)}/vars")
        if held is None:
            return []
        found = []
        for index in range(len(held)):
            one = held.get(str(index))
            if not isinstance(one, _h5py().Dataset) or one.is_virtual or one.external:
                raise ModelFileError(f"{self.what}: {held.name} holds something other than arrays 0, 1, ...")
            found.append(one[()])
        return found

    def inside(self, kind: str, name: str) -> Stored:
        held = self._inner(group_name(kind, self.counts))
        if held is None:
            raise ModelFileError(f"{self.what} has no weights of the model {name!r} inside it")
        return Stored(held, self.what)

    def groups(self) -> list[str]:
        """The names of the layers that have arrays, or layers inside them."""
        layers = self.group.get("layers", {})
        return [name for name in layers if "layers" in layers[name] or len(self._inner(f"{name}/vars") or ())]

    def _inner(self, path: str):
        """A group of the file's own, not one that it only points to."""
        group = self.group
        for part in ("layers", *path.split("/")):
            link = group.get(part, getlink=True)
            if link is None:
                return None
            if not isinstance(link, _h5py().HardLink) or not isinstance(group[part], _h5py().Group):
                raise ModelFileError(f"{self.what}: {part} is no group of its own")
            group = group[part]
        return group


@contextmanager
def opened(path) -> Iterator[tuple[dict[str, Any] | None, Stored]]:
    """The description (None in a .weights.h5) and the arrays of a file that Keras wrote."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no Keras file {path}")
    h5py = _h5py()
    try:
        if files.is_keras(path):
            with zipfile.ZipFile(path) as archive:
                description, weights = json.loads(archive.read(CONFIG)), io.BytesIO(archive.read(WEIGHTS))
            with h5py.File(weights) as held:
                yield description, _stored(held, path)
        else:
            with h5py.File(path) as held:
                yield None, _stored(held, path)
    except (OSError, KeyError, zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"{path} is not a readable Keras file ({error}). Expected: a .keras or .weights.h5 file of Keras "
            "3"
        ) from None


def _stored(held, path: Path) -> Stored:
    if "layers" not in held and len(held):
        old = "model_weights" in held or "layer_names" in held.attrs
        raise ModelFileError(
            f"{path} is HDF5 in another form. Received: groups {', '.join(list(held)[:4])}"
            + (", as Keras 2 wrote. " if old else ". ")
            + "Expected: a .keras or .weights.h5 file of Keras 3; open it with Keras and give the model"
        )
    return Stored(held, path.name)


def write_weights(path, entries: list[Entry]) -> None:
    """A .weights.h5 file, which the same Keras model loads."""
    with files.whole(path) as temporary, _h5py().File(temporary, "w") as held:
        _fill(held, entries)


def _fill(held, entries: list[Entry]) -> None:
    counts: Counter[str] = Counter()
    held.create_group("vars")
    layers = held.create_group("layers")
    for entry in entries:
        group = layers.create_group(f"{group_name(entry.kind, counts)}/vars")
        group.attrs["name"] = entry.config["name"]
        for index, a in enumerate(entry.arrays):
            group[str(index)] = a


def write_model(
    path, name: str, input_shape: tuple[int, ...], dtype: str, entries: list[Entry], beside: dict[str, bytes]
) -> None:
    """A .keras file: a Sequential, not compiled, and more files beside it."""
    shape = [None, *input_shape]
    front = {"batch_shape": shape, "dtype": dtype, "name": "input"}
    layers = [("InputLayer", front), *((entry.kind, entry.config) for entry in entries)]
    description = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {
            "name": name,
            "trainable": True,
            "dtype": dtype,
            "layers": [
                {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}
                for kind, config in layers
            ],
            "build_input_shape": shape,
        },
        "registered_name": None,
        "build_config": {"input_shape": shape},
    }
    weights = io.BytesIO()
    with _h5py().File(weights, "w") as held:
        _fill(held, entries)
    with files.whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(METADATA, json.dumps({"keras_version": VERSION}))
        archive.writestr(CONFIG, json.dumps(description))
        archive.writestr(WEIGHTS, weights.getvalue())
        for name, content in beside.items():
            archive.writestr(name, content)
