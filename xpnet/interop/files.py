"""Models as safetensors files: arrays by name, and the architecture as JSON in the metadata.  Nothing is ever
unpickled.

safetensors was chosen because PyTorch, Keras and the hubs read it, and because a file of it cannot run code.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ..config import describe, restore
from ..errors import ModelFileError, NotBuiltError
from ..model import Sequential

FORMAT = "1"
STATE = "optimizer."  # prefix of the optimizer's arrays, which only training=True writes


def save_model(model: Sequential, path, training: bool = False) -> None:
    """What `Sequential.save` does."""
    from safetensors.numpy import save_file

    model._need_built()
    path = Path(path)
    if training:
        model._need_compiled()
    architecture = {
        "name": model.name,
        "input_shape": list(model.input_shape),
        "data_format": model.data_format,
        "precision": model.precision,
        "seed": model.seed,
        "layers": describe(model.layers),
    }
    metadata = {"xpnet": FORMAT, "architecture": json.dumps(architecture)}
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
        metadata["compile"] = json.dumps(compiled)
    if training:
        tensors |= {STATE + name: a for name, a in saved["optimizer"].items()}
        metadata["training"] = json.dumps({k: saved[k] for k in ("iterations", "step", "epochs_trained")})
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_model(path, device: Any, custom_objects: dict[str, type] | None) -> Sequential:
    """What `load_model` does."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, ValueError, TypeError) as error:
        raise ModelFileError(
            f"{path} is not a readable safetensors file ({error}). It may be cut short, or in another format"
        ) from None
    if "architecture" not in metadata:
        raise ModelFileError(
            f"{path} holds arrays but no xpnet architecture. Received: {len(tensors)} arrays. Expected: a "
            "file written by model.save; build the same model and use "
            "model.load_state_dict(safetensors.numpy.load_file(path))"
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
        weights = {name: a for name, a in tensors.items() if not name.startswith(STATE)}
        model.load_state_dict(weights)
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
