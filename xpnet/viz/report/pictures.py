"""Small pictures for a page: arrays as PNG or JPEG data in `data:` addresses, scaled by the browser."""

from __future__ import annotations

import base64
import io
import math
from typing import NamedTuple

import numpy as np

from ..grids import colours, extremes, images_of, scale_of
from ..style import SEQUENTIAL

SAMPLE, LOOK = 72, 64  # pixels of a page that a sample's longer side takes
SHARP = 2  # stored pixels a shown one, at most
PALETTE_PAYS = 512  # pixels, from which on a palette and a byte for each take less than three bytes for each
FEW = 24  # numbers that a vector is written out in; more are drawn


class Picture(NamedTuple):
    """src: a data: address.  width, height: on the page.  alt: what is seen.  coarse: pixels as squares."""

    src: str
    width: int
    height: int
    alt: str
    coarse: bool


class Sample(NamedTuple):
    """A sample as a picture, or as text where it is a few numbers."""

    picture: Picture | None
    text: str


def picture(a: np.ndarray, size: int, alt: str) -> Picture:
    """a (H, W) grey or (H, W, 3) in colour, uint8; its longer side as long as size."""
    from PIL import Image

    return stored(Image.fromarray(np.ascontiguousarray(a)), size, alt)


def coloured(a, size: int, alt: str, low: float, high: float, colors: str, sharp: int = SHARP) -> Picture:
    """Values a (H, W) in a colour scale from low to high; nothing where there are no numbers."""
    from PIL import Image

    a, scale = np.asarray(a, float), colours(colors)
    unit, gaps = ((a - low) / ((high - low) or 1.0)).clip(0, 1), np.isnan(a)
    if gaps.any() or a.size < PALETTE_PAYS:
        drawn = scale(unit, bytes=True)
        drawn[gaps] = 0
        drawn = drawn if gaps.any() else np.ascontiguousarray(drawn[..., :3])
        return stored(Image.fromarray(drawn), size, alt)
    numbers = Image.fromarray((unit * 255).round().astype(np.uint8))
    return stored(numbers, size, alt, scale(np.arange(256), bytes=True)[:, :3].tobytes(), sharp)


def stored(image, size: int, alt: str, palette: bytes | None = None, sharp: int = SHARP) -> Picture:
    """A picture of Pillow's, made smaller where the page has no use for its pixels.  Then it is a photograph,
    or as smooth as one, which JPEG stores in a fifth of the bytes, unless it has a palette.
    """
    from PIL import Image

    W, H = image.size
    scale = size / max(H, W)
    width, height = max(1, round(W * scale)), max(1, round(H * scale))
    small = max(H, W) > sharp * size
    if small:
        image = image.resize((sharp * width, sharp * height), Image.Resampling.BOX)
    if palette is not None:
        image.putpalette(palette)
    kind = "jpeg" if small and image.mode in ("L", "RGB") else "png"
    file = io.BytesIO()
    image.save(file, kind, optimize=True)
    return Picture(address(file.getvalue(), kind), width, height, alt, scale > 1)


def address(data: bytes, kind: str) -> str:
    """data as what an <img> shows."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


# -- samples -------------------------------------------------------------------------------------------------


def samples(model, x: np.ndarray, alts: list[str], size: int = SAMPLE) -> list[Sample]:
    """The samples x (N, ...) as one sees them, on one scale of brightness."""
    if not len(x):
        return []
    if x.ndim == 2 and x.shape[1] <= FEW:
        return [Sample(None, ", ".join(f"{value:.3g}" for value in row)) for row in x]
    if x.ndim == 2 and math.isqrt(x.shape[1]) ** 2 != x.shape[1]:
        low, high, colors = scale_of(x)
        return [Sample(coloured(grid(row), size, alt, low, high, colors), "") for row, alt in zip(x, alts)]
    seen = as_seen(channels_first(model, x) if x.ndim == 4 else images_of(x, ""))
    return [Sample(picture(image, size, alt), "") for image, alt in zip(seen, alts)]


def channels_first(model, x: np.ndarray) -> np.ndarray:
    """Maps in the order (N, C, H, W), whatever the model's is."""
    if x.ndim != 4:
        return x
    return x.transpose(0, 3, 1, 2) if model.data_format == "channels_last" else x


def as_seen(images: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) for the eye, as uint8: in colour, (N, H, W, 3), where C is 3, else the mean of the
    channels, (N, H, W).
    """
    a = images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images.mean(axis=1)
    low, high = extremes(a)
    if images.dtype == np.uint8:
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    unit = (np.nan_to_num(a, nan=low) - low) / ((high - low) or 1.0)
    return (unit.clip(0, 1) * 255).round().astype(np.uint8)


def maps(a: np.ndarray, classes: int | None, alt: str) -> list[Picture]:
    """Maps (N, C, H, W) as images, or (N, H, W), whose pixels are of so many classes, in their colours."""
    if classes is None:
        return [picture(image, LOOK, alt) for image in as_seen(a)]
    return [coloured(one, LOOK, alt, 0, classes - 1, SEQUENTIAL) for one in a]


def grid(values: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Numbers (D,) row by row, in a square or so many a row; NaN where there are none left."""
    columns = columns or math.ceil(math.sqrt(len(values)))
    rows = math.ceil(len(values) / columns)
    out = np.full(rows * columns, np.nan)
    out[: len(values)] = values
    return out.reshape(rows, columns)
