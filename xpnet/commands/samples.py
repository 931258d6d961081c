"""Samples to predict, from .npy, .npz or a picture, in the form that a model takes.

Every change that is made on the way is told by a note, since a wrong guess about scale or order gives
predictions that look sound and are not.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .card import Card

NAMES = ("x", "x_test", "xt", "x_train")
LABELS = {"x": "y", "x_test": "y_test", "xt": "yt", "x_train": "y_train"}
PILLOW = "reading a picture needs Pillow: pip install pillow (pip install 'xpnet[plot]' brings it too)"

Note = Callable[[str], object]


class SampleError(ValueError):
    """A file with samples cannot be read, or does not fit the model."""


def read(
    path: Path,
    shape: tuple[int, ...],
    last: bool,
    card: Card | None,
    invert: bool,
    note: Note,
    resize: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples (N, *shape) and their labels, if the file has any.

    shape: of one sample, in the model's order, channels last where `last`.  note: takes each change made.
    resize: whether a picture of another size is scaled, with a note; else it is a SampleError.
    """
    if path.is_dir():
        raise SampleError(f"{path} is a folder. Expected: an .npy or .npz file, or a picture")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(6)
    kind = path.suffix.lower()
    labels = None
    if start == b"\x93NUMPY":
        x = _numbers(_load(path), path)
    elif zipfile.is_zipfile(path):
        x, labels = _from_npz(path, note)
    elif kind in (".npy", ".npz"):
        raise SampleError(
            f"{path} is no {kind} file, or is cut short. Received: a file that begins with {start!r}"
        )
    else:
        x = _from_picture(path, shape, last, note, resize)
        if card is not None and card.full is None:
            note(f"a picture has values from 0 to 1, the training samples from {card.low:g} to {card.high:g}")
        if invert:
            return 1 - x, None
        if card is not None and card.full and _looks_inverted(float(x.mean()), card.mean):
            light, dark = ("light", "dark") if x.mean() > card.mean else ("dark", "light")
            note(f"the picture is {light} on the whole, the training images were {dark}: try --invert")
        return x, None
    x = _in_units(_in_shape(x, shape, last, note), card, note)
    if invert:
        low, high = (card.low, card.high) if card is not None else (0.0, 1.0)
        x = (low + high) - x
    return x, labels


# -- arrays --------------------------------------------------------------------------------------------------


def _load(path: Path):
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise SampleError(
            f"{path} cannot be read: {error}. Nothing is unpickled; np.save writes arrays of numbers"
        ) from error


def _from_npz(path: Path, note: Note) -> tuple[np.ndarray, np.ndarray | None]:
    """The samples among the arrays of an .npz file, and the labels that belong to them."""
    with _load(path) as stored:
        name = next((n for n in NAMES if n in stored.files), None)
        if name is None and len(stored.files) == 1:
            name = stored.files[0]
        if name is None:
            raise SampleError(
                f"{path} has no array of samples. Received: {', '.join(stored.files) or 'no arrays'}. "
                f"Expected: one array, or one named {', '.join(NAMES[:-1])} or {NAMES[-1]}"
            )
        if len(stored.files) > 1:
            note(f"samples are the array {name!r} of {path.name}")
        try:
            x, y = stored[name], stored[LABELS[name]] if LABELS.get(name) in stored.files else None
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise SampleError(f"{path} cannot be read: {error}. Nothing is unpickled") from error
    x = _numbers(x, path)
    if y is not None:
        y = y.reshape(-1) if y.shape == (len(x), 1) else y
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            y = None
    return x, y


def _numbers(x, path: Path) -> np.ndarray:
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
        raise SampleError(f"{path} does not hold real numbers. Received: dtype {getattr(x, 'dtype', 'none')}")
    if x.ndim == 0 or not x.size:
        raise SampleError(f"{path} is empty. Received: shape {x.shape}. Expected: at least one sample")
    return x


def _in_shape(x: np.ndarray, shape: tuple[int, ...], last: bool, note: Note) -> np.ndarray:
    """x as (N, *shape), where there is one way to read it so; the model itself refuses all else."""
    if x.shape[1:] == shape:
        return x
    if x.shape == shape:
        return x[None]
    squeezed = tuple(size for size in shape if size != 1)
    image = len(shape) == 3
    if image and x.ndim == 4:
        turned = x.transpose(0, 3, 1, 2) if not last else x.transpose(0, 2, 3, 1)
        if turned.shape[1:] == shape:
            note(f"images {x.shape} are read as channels {'first' if last else 'last'} and turned")
            return turned
    if image and x.shape[1:] == squeezed:
        return x.reshape(-1, *shape)
    if image and x.shape == squeezed:
        return x.reshape(1, *shape)
    size = math.prod(shape)
    if x.shape == (size,) or (x.ndim > 1 and math.prod(x.shape[1:]) == size and (x.ndim == 2 or not image)):
        # rows that are images hold them in the C, H, W order of most files, unless the model says otherwise
        note(f"samples of shape {x.shape} are read as {('N', *shape)}".replace("'", ""))
        return x.reshape(-1, *shape)
    return x


def _in_units(x: np.ndarray, card: Card | None, note: Note) -> np.ndarray:
    """x as float32, in the units of the training data."""
    low, high = float(x.min()), float(x.max())
    whole = x.dtype.kind in "iu"
    out = x.astype(np.float32)
    if card is None:
        if whole:
            note("the model file does not say how its training data were scaled: values are used as they are")
        return out
    if card.full is None:
        return out
    if low >= 0 and (whole or high > 1.5):
        full = card.full if high <= card.full else 255
        if high <= full:
            note(f"values from {low:g} to {high:g} are divided by {full}, as those trained on were")
            out /= np.float32(full)
            return out
    if low < card.low - 0.5 or high > card.high + 0.5:
        note(
            f"values from {low:g} to {high:g} are unlike those trained on, {card.low:g} to {card.high:g}: "
            "expect wrong predictions"
        )
    return out


# -- pictures ------------------------------------------------------------------------------------------------


def _looks_inverted(mean: float, usual: float) -> bool:
    """Whether the picture's mean is far from that of the training images, and its negative's is not."""
    return abs(mean - usual) > 0.2 and abs(1 - mean - usual) < 0.5 * abs(mean - usual)


def _from_picture(path: Path, shape: tuple[int, ...], last: bool, note: Note, resize: bool) -> np.ndarray:
    """A picture as one sample (1, *shape), float32 in [0, 1]."""
    if len(shape) != 3:
        raise SampleError(
            f"{path}: the model takes vectors of {shape[0]} numbers, no pictures. Expected: an .npy file"
        )
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(f"{path}: {PILLOW}") from error
    C, H, W = (shape[2], *shape[:2]) if last else shape
    if C not in (1, 3):
        raise SampleError(
            f"{path}: a picture has 1 or 3 channels. The model takes {C}. Expected: an .npy file"
        )
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except UnidentifiedImageError:
        raise SampleError(f"{path} is neither an .npy or .npz file nor a picture that Pillow reads") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SampleError(f"{path} cannot be read as a picture: {error}") from error
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert("L") would clip to white
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        note("transparent parts are taken as white")
    mode = "L" if C == 1 else "RGB"
    if image.mode in ("1", "L") and C == 3:
        note("a grey picture is used for all three colours")
    elif image.mode not in ("1", "L") and C == 1:
        note("colours are turned into grey")
    image = image.convert(mode)
    if image.size != (W, H):
        if not resize:
            raise SampleError(
                f"{path} has another size than the model's images. Received: {image.width}x{image.height}. "
                f"Expected: {W}x{H} (width x height); --resize scales it"
            )
        note(f"resized from {image.width}x{image.height} to {W}x{H} (width x height)")
        image = image.resize((W, H), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, np.float32).reshape(H, W, C) / np.float32(255)
    return pixels[None] if last else np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
