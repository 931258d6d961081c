"""Runs CUDA kernels on the CPU: g++ compiles them through a shim.

A thread of a block is a fiber that runs until a barrier, so that a missing barrier gives wrong values (in one
of the two thread orders, see `reverse`).  Blocks run one after the other.  Shared memory is filled with 0xFF
(NaN) before each block.  Wrong pointers, indices outside of fixed arrays, integer overflow, division by zero,
barriers that not every thread reaches and arguments of a wrong type raise KernelError.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import device_memory
import numpy as np

reverse = os.environ.get("XPNET_REVERSE_THREADS", "") == "1"
"""Run threads and blocks from the last to the first."""

GPP = shutil.which("g++") if sys.platform == "linux" else None
FLAGS = [
    "-O1",  # two thirds of the time to compile that -O2 takes
    "-std=c++17",
    "-fPIC",
    "-w",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fno-exceptions",
    "-fsanitize=alignment,bounds,null,integer-divide-by-zero,signed-integer-overflow,shift",
]


class KernelError(Exception):
    """A kernel does not compile, was called wrongly, or did what is undefined on a GPU."""


def available() -> bool:
    return GPP is not None


PROGRAM = """{prelude}
namespace {{  // without a name: shared variables of inline functions and templates become ordinary ones
#line 1 "kernel"
{code}
}}
""".format

ENTRY = """
extern "C" __attribute__((visibility("default"))) const char *xp_types_@() { return xp::describe_all(&@); }
extern "C" __attribute__((visibility("default")))
int xp_launch_@(const unsigned *size, void **a, int reverse, int barriers, char *text) {
    return xp::launch<&@>(size, a, reverse, barriers, text);
}
"""


def _without_comments(text):
    return re.sub(r'//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\])*")', lambda m: m[1] or " ", text, flags=re.DOTALL)


def entries(code: str) -> list[str]:
    """The names of the kernels in a text."""
    bounds = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
    return re.findall(
        rf'extern\s+"C"\s+__global__\s+{bounds}void\s+{bounds}(\w+)\s*\(', _without_comments(code)
    )


@functools.cache
def _folder():
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "xpnet-host-cuda"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="xpnet-host-cuda-"))


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KernelError(f"g++ failed:\n{done.stderr[:4000]}")


def _library(text) -> Path:
    """The shared object of a program, compiled unless it is in the cache."""
    key = hashlib.sha256(f"{GPP} {FLAGS} {text}".encode()).hexdigest()[:32]
    library = _folder() / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=_folder()) as work:
            program, made, linked = (Path(work) / name for name in ("a.cpp", "a.o", "a.so"))
            program.write_text(text, encoding="utf-8")
            _run(GPP, *FLAGS, "-c", program, "-o", made)
            _run(GPP, "-shared", made, "-o", linked)  # not with -fsanitize: the shim has the handlers
            os.replace(linked, library)  # at once, as other processes may look for it
    return library


class Module:
    """A compiled source text, as CuPy's RawModule(code=text)."""

    def __init__(self, code: str, options: tuple[str, ...] = (), **others):
        if GPP is None:
            raise KernelError("no g++ to compile kernels with")
        self.names = entries(code)
        self.barriers = "__syncthreads" in _without_comments(code)
        ends = "".join(ENTRY.replace("@", name) for name in self.names)
        prelude = Path(__file__).with_name("host_cuda.hpp").read_text(encoding="utf-8")
        self._library = ctypes.CDLL(str(_library(PROGRAM(prelude=prelude, code=code) + ends)))

    def get_function(self, name: str) -> Function:
        if name not in self.names:
            raise KernelError(f'no kernel {name!r}; the text has extern "C" __global__ void {self.names}')
        return Function(self, name)


class Function:
    """A kernel.  f(grid, block, args): args are device arrays (NumPy arrays here) and NumPy scalars."""

    def __init__(self, module, name):
        self.name, self.barriers = name, module.barriers
        self._launch = getattr(module._library, f"xp_launch_{name}")
        types = getattr(module._library, f"xp_types_{name}")
        types.restype = ctypes.c_char_p
        self.types = types().decode().split()

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        if shared_mem:
            raise KernelError(f"{self.name}: only static shared memory is supported. Received: {shared_mem}")
        size = [*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3]]
        limits = (2**31 - 1, 65535, 65535, 1024, 1024, 64)
        if not all(1 <= n <= most for n, most in zip(size, limits)) or size[3] * size[4] * size[5] > 1024:
            raise KernelError(f"{self.name}: no GPU takes this size. Received: grid {grid}, block {block}")
        if len(args) != len(self.types):
            raise KernelError(f"{self.name} has {len(self.types)} parameters. Received: {len(args)}")
        values = [_value(self.name, i, *pair) for i, pair in enumerate(zip(self.types, args))]
        pointers = (ctypes.c_void_p * max(len(values), 1))(*(v.ctypes.data for v in values))
        message = ctypes.create_string_buffer(512)
        if self._launch(
            (ctypes.c_uint * 6)(*size), pointers, ctypes.c_int(reverse), ctypes.c_int(self.barriers), message
        ):
            raise KernelError(f"{self.name}: {message.value.decode()}")


def _value(name, i, wanted, given):
    """The bytes of an argument, refused if it is not what the parameter is."""
    if wanted[0] in "*&":
        return _pointer(f"{name}, parameter {i}", wanted, given)
    if type(given) in (bool, int, float):  # CuPy passes them so
        given = np.asarray(given, {bool: "?", int: "i8", float: "f8"}[type(given)])[()]
    kind, size = wanted[0], int(wanted[1:])
    got = given.dtype.kind.replace("b", "u") if isinstance(given, np.generic) else "an array"
    if (got, getattr(given, "nbytes", 0)) not in ((kind, size), ("V", size)):
        raise KernelError(f"{name}, parameter {i} is {wanted}. Received: {given!r} ({type(given).__name__})")
    return np.frombuffer(given.tobytes() or b"\0", np.uint8)


def _pointer(place, wanted, given):
    if isinstance(given, np.uint64 | np.int64):
        return np.array(given)
    address = getattr(getattr(given, "data", None), "ptr", None)
    if address is None:
        if not isinstance(given, np.ndarray):
            raise KernelError(f"{place} is a pointer. Received: {given!r} ({type(given).__name__})")
        address = given.ctypes.data
        if wanted[0] == "*" and not given.flags.writeable:
            raise KernelError(f"{place} points to what the kernel writes; the array is read-only")
    kind, size = wanted[1], int(wanted[2:])
    dtype = given.dtype
    if kind != "v" and ((kind == "f") != (dtype.kind == "f") or dtype.itemsize != size):
        raise KernelError(f"{place} points to {wanted[1:]}. Received: an array of {dtype}")
    return np.array(address, np.uint64)


def _zeros(shape, dtype=float):
    a = device_memory.empty(shape, dtype)
    a.fill(0)
    return a


NUMPY = SimpleNamespace(RawModule=Module, zeros=_zeros, empty=device_memory.empty)
"""As much of CuPy as Kernels needs, on NumPy arrays between guard zones."""


def kernels():
    """xpnet's Kernels on the CPU; writing outside of an array from device_memory raises after the launch."""
    from xpnet.ops.kernels import Kernels

    class HostKernels(Kernels):
        def launch(self, file, entry, grid, block, args, code="", **types):
            super().launch(file, entry, grid, block, args, code, **types)
            device_memory.check(f"{file}.{entry}")

    return HostKernels(NUMPY)
