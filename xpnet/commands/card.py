"""What a model file says of the data it was trained on, so that `predict` can treat new samples alike."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

KEY = "data"  # of the safetensors metadata


@dataclass(frozen=True)
class Card:
    """data: the data set's name.  classes: names in the order of the model's outputs.

    full: the stored integer that became 1 (255, or 16 in scikit-learn's digits), None where values were used
    as they are.  low, high, mean: of the training samples as the network saw them.
    """

    data: str
    classes: tuple[str, ...]
    full: int | None
    low: float
    high: float
    mean: float


def save(model, card: Card, path: Path) -> None:
    """Write the model with its card; whole or not at all."""
    model.save(path, metadata={KEY: json.dumps(asdict(card))})


def texts(card: Card) -> dict[str, str]:
    """Its entries as text, for a format that stores nothing else."""
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in asdict(card).items()}


def read(path: Path) -> Card | None:
    """The card of a model file; None where it has none, as files that `model.save` wrote, or none of use."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            stored = json.loads((file.metadata() or {})[KEY])
        full = stored["full"]
        return Card(
            str(stored["data"]),
            tuple(str(name) for name in stored["classes"]),
            None if full is None else int(full) if int(full) > 0 else None,
            *(float(stored[key]) for key in ("low", "high", "mean")),
        )
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None
