"""One page, in one file and without a network, in which a person walks a trained model: forward and backward,
every number, and one step of training.

    viz.explain(model, "digits.html", xt[:10], yt[:10])

The numbers come from `payload`, the text from `assemble`; engine/ computes in the page and page/ draws it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data.arrays import as_array, check_lengths, check_x
from ..style import whole_file
from .assemble import page
from .payload import Sample, Subject, class_of, collect, loss_of

LARGEST_PAGE = 3_000_000  # bytes
SPARE = 20_000  # of it, for what is estimated
SAMPLES = 12
LANGUAGES = ("en", "ja")


def explain(
    model,
    path,
    x=None,
    y=None,
    *,
    classes: Sequence[str] | None = None,
    title: str | None = None,
    names: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
    style: str | None = None,
    language: str | None = None,
    overwrite: bool = True,
) -> Path:
    """Write a page that explains a model; its path.

    x: samples (N, ...) that can be picked, as `model.predict` takes them, of which the first 12 are used.  y:
    their targets, as the model's loss takes them.  title: of the page.  classes: names in the order of the
    outputs.  names: of the samples.  value_range: the least and largest input, by default those of x, or 0
    and 1.  style: how drawn strokes become an image, "mnist" or "digits8" (as UCI's digits were made); by
    default as the shape suggests.  language: "en" or "ja"; by default the reader's browser decides.
    overwrite: replace a file that exists.

    The file stays below 3 MB, and is written whole or not at all.  Raises ShapeError for samples that do not
    fit the model, ValueError for other arguments that cannot be, FileExistsError where overwrite=False meets
    a file, IsADirectoryError where path is a folder.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"the page is HTML. Received: {path}. Expected: a name that ends in .html")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Expected: the name of a file to write")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already. Expected: another name, or overwrite=True")
    if language not in (None, *LANGUAGES):
        raise ValueError(f"language must be 'en', 'ja' or None. Received: {language!r}")
    model._need_built()
    x = None if x is None else check_x(x, model.input_shape, model.ops)
    if not model.ops.in_host_memory:
        model = copy.deepcopy(model).to("cpu")
    subject = Subject(
        model,
        _samples(model, x, y, names),
        _text(title or model.name),
        _classes(model, classes),
        language,
        *_range(value_range, x),
        _style(model, style),
    )
    empty = page({}, b"", subject.title, language)
    text = page(*collect(subject, LARGEST_PAGE - SPARE - len(empty.encode())), subject.title, language)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _samples(model, x, y, names) -> list[Sample]:
    """The first few of the samples x (N, ...) with targets y."""
    if x is None:
        return []
    if names is not None and len(names) != len(x):
        raise ValueError(f"names must name every sample. Received: {len(names)} names. Expected: {len(x)}")
    count = min(len(x), SAMPLES)
    loss, targets = loss_of(model)[0].loss, [None] * count
    if y is not None:
        y = as_array(y, "y")
        check_lengths(x=x, y=y)
        if y.ndim == 4 and model.data_format == "channels_last":
            y = y.transpose(0, 3, 1, 2)
        checked = loss.check_targets(y[:count], model.chain.out_shape, model.dtype)
        targets = [checked[i : i + 1] for i in range(count)]
    return [
        Sample(
            x[i : i + 1],
            class_of(target) if loss.folds else None,
            target,
            _text(names[i]) if names is not None else "",
        )
        for i, target in enumerate(targets)
    ]


def _classes(model, classes) -> list[str]:
    """Names of the outputs; one output of a classifier tells two classes apart."""
    K = model.chain.out_shape[0]
    count = 2 if K == 1 and loss_of(model)[0].loss.folds else K
    if classes is None:
        return [str(k) for k in range(count)]
    if len(classes) != count:
        raise ValueError(f"classes must name every output. Received: {len(classes)} names. Expected: {count}")
    return [_text(name) for name in classes]


def _text(name) -> str:
    """name as UTF-8 can hold it, which names of files need not be."""
    return str(name).encode("utf-8", "replace").decode("utf-8")


def _range(given, x) -> tuple[float, float]:
    if given is not None:
        low, high = map(float, given)
        if not low < high:
            raise ValueError(f"value_range must be (low, high), low below high. Received: {given!r}")
        return low, high
    if x is None or not np.size(x):
        return 0.0, 1.0
    low, high = float(np.min(x)), float(np.max(x))
    return (low, high) if low < high else (low, low + 1.0)


STYLES: dict[tuple[int, ...], str] = {(1, 8, 8): "digits8", (1, 28, 28): "mnist"}


def _style(model, style) -> Any:
    if style is None:
        return STYLES.get(tuple(model.chain.in_shape))
    if style not in STYLES.values():
        raise ValueError(f"style must be 'mnist', 'digits8' or None. Received: {style!r}")
    return style
