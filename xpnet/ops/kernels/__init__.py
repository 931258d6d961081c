"""CUDA kernels: a .cu file and a .py file of launches for each family, compiled when first used.

A launch function takes the `Kernels` of a device first and writes into arrays that are handed to it.  Maps
are (H, C, W, N) and vectors (N, D), C-contiguous, as everywhere.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

CONTROL = np.dtype(
    [
        ("step", "u8"),
        ("iterations", "i8"),
        ("rate", "f8"),
        ("norm", "f8"),
        ("cursor", "i8"),
        ("skipped", "i8"),
    ]
    + [("ok", "i4"), ("good", "i4"), ("x", "u8"), ("y", "u8"), ("w", "u8"), ("order", "u8")]
)
"""The struct Control of common.cuh."""

C_TYPES = {"float32": "float", "float64": "double", "bool": "unsigned char", "int8": "signed char"}
C_TYPES |= {"int16": "short", "int32": "int", "int64": "long long"}
C_TYPES |= {f"u{name}": f"unsigned {C_TYPES[name].split()[-1]}" for name in ("int8", "int16", "int32")}
C_TYPES |= {"uint64": "unsigned long long"}


@functools.cache
def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def source(file: str, code: str = "", **types: str) -> str:
    """The text of a kernel file for a compiler: types (T="float32", ...) as macros, the common part, code (a
    device function that the file calls), and the file.
    """
    defines = "".join(f"#define {name} {C_TYPES[dtype]}\n" for name, dtype in sorted(types.items()))
    return f"{defines}{_text('common.cuh')}\n{code}\n{_text(file + '.cu')}"


class Kernels:
    """Compiles and launches the kernels of one device."""

    def __init__(self, cupy: Any):
        self.cupy = cupy
        self.counters = cupy.zeros(8192, np.int32)
        """By which blocks find out which of them is last; every kernel leaves zeros."""
        self._functions: dict[tuple, Any] = {}

    def empty(self, shape, dtype):
        """Uninitialised memory for a temporary."""
        return self.cupy.empty(shape, dtype)

    def launch(self, file: str, entry: str, grid, block, args, code: str = "", **types: str) -> None:
        """Run kernel `entry` of `file`.cu over grid and block (tuples) on the current stream.

        args: device arrays, None for a null pointer, whole numbers (passed as int), or NumPy scalars of the
        parameter's very type.  types: T="float32" and the like.
        """
        key = (file, entry, code, *sorted(types.items()))
        function = self._functions.get(key)
        if function is None:
            module = self.cupy.RawModule(code=source(file, code, **types), options=("--std=c++17",))
            function = self._functions[key] = module.get_function(entry)
        function(grid, block, tuple(map(_argument, args)))


def _argument(a):
    if a is None:
        return np.uint64(0)
    if type(a) is int:
        if not -(1 << 31) <= a < 1 << 31:
            raise OverflowError(f"a kernel's int argument is out of range. Received: {a}")
        return np.int32(a)
    return a
