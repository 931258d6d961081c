"""Arrays as bytes of a page, in as many bits as there is room for; engine/tensors.js reads them.

Bytes of one significance lie together, all first bytes, then all second ones: exponents are alike, so that
gzip finds something to pack.
"""

from __future__ import annotations

import gzip
import math
import zlib
from typing import Any

import numpy as np

FLOATS = ("float32", "float24")  # the second has 16 of the 24 binary digits
ROUNDED = ("int16", "int12", "int8")  # whole numbers, times a scale a row

MEASURED = 1 << 16  # elements by which the size of all is estimated


class Tensors:
    """The arrays of a page, one after another."""

    def __init__(self):
        self.entries: list[dict[str, Any]] = []
        self._bytes = bytearray()

    def add(self, array, form: str = "float32") -> int:
        """Append an array; the number it goes by in the manifest."""
        array = np.asarray(array)
        self.entries.append({"format": form, "shape": list(array.shape), "start": len(self._bytes)})
        self._bytes += encode(array, form)
        return len(self.entries) - 1

    def packed(self) -> bytes:
        """All of it, by gzip; the same bytes for the same arrays."""
        return gzip.compress(bytes(self._bytes), 9, mtime=0)


def encode(array: np.ndarray, form: str) -> bytes:
    """The bytes of an array in one of FLOATS or ROUNDED, or as "bits": of truth values, eight a byte."""
    if form == "bits":
        return np.packbits(array.reshape(-1), bitorder="little").tobytes()
    if form in ROUNDED:
        return _scaled(array, int(form.removeprefix("int")))
    return _planes(array, 4 if form == "float32" else 3)


def decode(array: np.ndarray, form: str) -> np.ndarray:
    """The float32 array that a page reads where this one was written."""
    if form in ROUNDED:
        whole, scale = _whole(array, int(form.removeprefix("int")))
        return (whole * scale[:, None].astype(np.float64)).astype(np.float32).reshape(array.shape)
    words = _words(array, 4 if form == "float32" else 3)
    return words.view(np.float32).reshape(array.shape)


def packed_size(array: np.ndarray, form: str) -> int:
    """About how many characters of a page it takes: gzip makes bytes fewer, base64 more.  Measured on its
    first rows.
    """
    some = array[: max(1, MEASURED * len(array) // array.size)]
    return math.ceil(len(zlib.compress(encode(some, form), 6)) * array.size / some.size * 4 / 3)


def _words(array, count: int) -> np.ndarray:
    """float32 as uint32, rounded to the first `count` bytes."""
    with np.errstate(over="ignore"):
        words = np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint32)
    if count == 4:
        return words
    rounded = (words + np.uint32(0x80)) & np.uint32(0xFFFFFF00)
    return np.where(np.isfinite(words.view(np.float32)), rounded, words & np.uint32(0xFFFFFF00))


def _planes(array, count: int) -> bytes:
    parts = _words(array, count).astype(">u4").view(np.uint8).reshape(-1, 4)
    return parts[:, :count].T.tobytes()


def _whole(array: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of so many bits (rows, n), and what a row's are multiplied with; a vector is one row."""
    rows = np.asarray(array, np.float64).reshape(len(array) if array.ndim > 1 else 1, -1)
    largest = 2 ** (bits - 1) - 1
    scale = (np.abs(rows).max(axis=1) / largest).astype(np.float32)
    scale[scale == 0] = 1
    return np.clip(np.rint(rows / scale[:, None]), -largest, largest).astype(np.int32), scale


def _scaled(array: np.ndarray, bits: int) -> bytes:
    whole, scale = _whole(array, bits)
    numbers = (whole + 2 ** (bits - 1)).reshape(-1)
    high = (numbers >> (bits - 8)).astype(np.uint8).tobytes()
    low = b""
    if bits == 16:
        low = (numbers & 255).astype(np.uint8).tobytes()
    elif bits == 12:
        pairs = np.pad(numbers & 15, (0, len(numbers) % 2)).reshape(-1, 2)
        low = (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8).tobytes()
    return _planes(scale, 4) + high + low
