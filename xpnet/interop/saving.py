"""Models as safetensors files: arrays by name, and the architecture as JSON in the metadata."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import describe, restore
from ..errors import ModelFileError, NotBuiltError, warn
from ..model import Sequential
from . import files

FORMAT = "1"
BESIDE = "xpnet.safetensors"  # the model in a .keras file that xpnet wrote
STATE = "optimizer."  # prefix of the optimizer's arrays, which only training=True writes
OURS = ("xpnet", "architecture", "compile", "training")  # keys of the metadata


def save_model(
    model: Sequential, path, training: bool, metadata: Mapping[str, str] | None, overwrite: bool
) -> None:
    """What `Sequential.save` does."""
    model._need_built()
    files.check_new(path, overwrite)
    if training:
        model._need_compiled()
    notes = dict(metadata or {})
    if not all(isinstance(text, str) for text in (*notes, *notes.values())):
        raise TypeError(
            f"metadata must map names to text. Received: {metadata!r}. Expected: strings, such as json.dumps "
            "makes of other values"
        )
    if taken := [key for key in notes if key in OURS]:
        raise ValueError(f"metadata has a name that xpnet uses itself. Received: {taken[0]!r}")
    architecture = {
        "name": model.name,
        "input_shape": list(model.input_shape),
        "data_format": model.data_format,
        "precision": model.precision,
        "seed": model.seed,
        "layers": describe(model.layers),
    }
    notes |= {"xpnet": FORMAT, "architecture": json.dumps(architecture)}
    saved = model._snapshot()
    tensors = dict(saved["weights"])
    compiled = None
    if model.loss is not None:
        try:
            compiled = {
                "optimizer": describe(model.optimizer),
                "loss": describe(model.loss),
                "metrics": [[label, describe(metric)] for label, metric in model.metrics],
            }
        except TypeError as error:
            if training:
                raise ModelFileError(f"how the model is trained {error}") from None
    if compiled is not None:
        notes["compile"] = json.dumps(compiled)
    if training:
        tensors |= {STATE + name: a for name, a in saved["optimizer"].items()}
        notes["training"] = json.dumps({k: saved[k] for k in ("iterations", "step", "epochs_trained")})
    if Path(path).suffix == ".keras":
        _save_keras(model, path, tensors, notes)
        return
    if kind := _OTHERS.get(Path(path).suffix):
        warn(
            f"{Path(path).name} is named as {kind[0]}. It is a safetensors file all the same, which "
            f"xpnet.load_model reads; {kind[1]}"
        )
    files.write(path, tensors, notes)


_OTHERS = {
    ".h5": ("a Keras 2 file", "for Keras 3 use the suffix .keras, or model.save_weights('m.weights.h5')"),
    ".onnx": ("an ONNX file", "xpnet.interop.onnx.export(model, path) writes one"),
    ".pt": ("a PyTorch file", "PyTorch loads what model.save_weights('m.safetensors') writes"),
    ".pth": ("a PyTorch file", "PyTorch loads what model.save_weights('m.safetensors') writes"),
}


def _save_keras(model: Sequential, path, tensors: dict[str, Any], notes: dict[str, str]) -> None:
    """A .keras file, with what only xpnet knows of the model beside it; where that cannot be, the safetensors
    file that it would hold, and a warning.
    """
    from safetensors.numpy import save

    from . import keras

    try:
        keras.save(model, path, {BESIDE: save(tensors, notes)})
    except (ImportError, TypeError) as error:
        warn(
            f"{Path(path).name} is a safetensors file, which xpnet.load_model reads and Keras does not: "
            f"{error}"
        )
        files.write(path, tensors, notes)


def weights_of(tensors: dict[str, Any]) -> dict[str, Any]:
    """The model's own arrays of those that `save_model` wrote."""
    return {name: a for name, a in tensors.items() if not name.startswith(STATE)}


def read_model(path, device: Any, custom_objects: dict[str, type] | None, compile: bool = True) -> Sequential:
    """What `load_model` does."""
    path = Path(path)
    if files.is_keras(path):
        return _read_keras(path, device, custom_objects, compile)
    tensors, metadata = files.read(path)
    if "architecture" not in metadata:
        raise ModelFileError(
            f"{path} holds arrays but no xpnet architecture. Received: {len(tensors)} arrays. Expected: a "
            "file written by model.save; build the same model and use model.load_weights(path)"
        )
    if metadata.get("xpnet") != FORMAT:
        raise ModelFileError(
            f"{path} has format {metadata.get('xpnet')!r}. Expected: {FORMAT!r}; a newer xpnet may read it"
        )
    try:
        plan, compiled, training = (
            json.loads(metadata.get(k, "null")) for k in ("architecture", "compile", "training")
        )
        layers = restore(plan["layers"], custom_objects)
        model = Sequential(
            layers,
            input_shape=tuple(plan["input_shape"]),
            data_format=plan["data_format"],
            precision=plan["precision"],
            seed=plan["seed"],
            name=plan["name"],
            device=device,
        )
        weights = weights_of(tensors)
        model.load_state_dict(weights)
        if not compile:
            compiled = training = None
        if compiled is not None:
            optimizer, loss = (restore(compiled[k], custom_objects) for k in ("optimizer", "loss"))
            made = [(label, restore(metric, custom_objects)) for label, metric in compiled["metrics"]]
            model.compile(optimizer, loss, [metric for _, metric in made])
            model.metrics = [(label, metric) for (label, _), (_, metric) in zip(made, model.metrics)]
        if training is not None:
            arrays = {name.removeprefix(STATE): a for name, a in tensors.items() if name.startswith(STATE)}
            expected = {name: a.shape for name, a in model._snapshot()["optimizer"].items()}
            received = {name: a.shape for name, a in arrays.items()}
            wrong = [n for n in expected | received if expected.get(n) != received.get(n)]
            if wrong:
                n = wrong[0]
                raise ModelFileError(
                    f"{path}: the optimizer's state does not fit. Received: {STATE + n} of shape "
                    f"{received.get(n)}. Expected: {expected.get(n)}"
                )
            model._load_snapshot({"weights": weights, "optimizer": arrays, **training})
    except ModelFileError:
        raise
    except (
        KeyError, TypeError, ValueError, AttributeError, IndexError, NotBuiltError, RecursionError,
        MemoryError, OverflowError,
    ) as error:  # fmt: skip
        raise ModelFileError(f"{path} does not describe a model that can be rebuilt: {error}") from error
    return model


def _read_keras(path: Path, device: Any, custom_objects: dict[str, type] | None, compile: bool) -> Sequential:
    """The model of a .keras file, as xpnet or as Keras wrote it."""
    with zipfile.ZipFile(path) as archive:
        if BESIDE in archive.namelist():
            with tempfile.TemporaryDirectory() as folder:
                return read_model(archive.extract(BESIDE, folder), device, custom_objects, compile)
    from . import keras

    return keras.from_keras(path, device=device)
