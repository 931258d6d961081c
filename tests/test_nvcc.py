"""NVIDIA's compiler takes every kernel, for today's GPUs, in both precisions and with formulas put in."""

import re
import shutil
import subprocess
from math import prod
from types import SimpleNamespace

import host_cuda
import numpy as np
import pytest

from xpnet import activations, optimizers
from xpnet.ops import fuse
from xpnet.ops.geometry import Window
from xpnet.ops.kernels import (
    CONTROL,
    Kernels,
    cast,
    conv,
    dropout,
    layout,
    loss,
    norm,
    pool,
    sums,
    update,
)

NVCC = shutil.which("nvcc")
ARCHITECTURES = {"float32": (80, 120), "float64": (90,)}
QUICK = ["-Xcicc", "-O1", "-Xptxas", "-O1"]  # what is made is not run


class Texts:
    """In place of CuPy: keeps the texts that it is to compile, and runs nothing."""

    def __init__(self):
        self.texts = {}  # text -> entry points that were asked for
        self.zeros = self.empty = lambda shape, dtype: array(shape, dtype)

    def RawModule(self, *, code, options):
        entries = self.texts.setdefault(code, [])
        return SimpleNamespace(get_function=lambda name: entries.append(name) or (lambda *args: None))


def array(shape, dtype):
    """An array of any size, C-contiguous, over next to no memory."""
    shape = shape if isinstance(shape, tuple) else (shape,)
    strides = [np.dtype(dtype).itemsize * prod(shape[k + 1 :]) for k in range(len(shape))]
    return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, strides)


def launch_convolutions(gpu, T):
    tanh = fuse.activate(activations.get("tanh"))
    cases = [
        ((8, 3, 8, 32), 32, Window((3, 3)), 1, True, tanh),
        ((34, 64, 34, 128), 64, Window((3, 3), padding=((1, 1), (1, 1))), 1, True, ""),
        ((9, 4, 9, 7), 6, Window((3, 2), (2, 1), (1, 2)), 2, False, ""),
        ((512, 64, 512, 1024), 8, Window((1, 1)), 1, False, ""),  # more elements than an int counts
    ]
    for (H, C, W, N), F, window, groups, bias, code in cases:
        x, w = array((H, C, W, N), T), array((window.kernel[1], F, window.kernel[0], C // groups), T)
        OH, OW = window.positions(x)
        y = array((OH, F, OW, N), T)
        conv.forward(gpu, x, w, array(F, T) if bias else None, y, window, groups, code)
        conv.weight_grad(gpu, x, y, w, window, groups)
        conv.input_grad(gpu, y, w, x, window, groups)
        if groups == 1:
            y = array((OH, C, OW, N), T)
            pool.max_forward(gpu, x, y, window)
            pool.max_backward(gpu, y, x, y, x, window)
            pool.sum_forward(gpu, x, y, window)
            pool.sum_backward(gpu, y, x, window)


def launch_layouts(gpu, T):
    control, x = array(CONTROL.itemsize, np.uint8), array((8, 3, 8, 32), T)
    for S in {T, "uint8", "float32"}:
        layout.pack(gpu, array((32, 3, 8, 8), S), x)
        layout.gather_map(gpu, control, S, (192, 64, 8, 1), x)
        layout.gather_rows(gpu, control, "x", S, array((32, 10), T))
    layout.gather_rows(gpu, control, "y", "int64", array(32, "int64"))
    layout.unpack(gpu, x, array((32, 3, 8, 8), T))
    for N in (32, 7):
        padding = ((1, 1), (2, 0))
        layout.pad(gpu, array((8, 3, 8, N), T), array((10, 3, 10, N), T), padding, 0)
    if T == "float32":
        cast.to_bfloat16(gpu, x, array(x.shape, "uint16"))
        cast.from_bfloat16(gpu, array(x.shape, "uint16"), x)
    mask = array(x.shape, T)
    dropout.forward(gpu, x, x, mask, control, 1, 2, 3, 1.5)
    turned = array((10, 8), T).T
    dropout.forward(gpu, turned, turned, turned, control, 1, 2, 3, 1.5)
    dropout.bits(gpu, array(99, "uint16"), control, 1, 2)


def launch_losses(gpu, T):
    p, scalar = array((32, 10), T), array((), T)
    for y in (array(32, "int64"), array((32, 10), T)):
        loss.crossentropy(gpu, p, y, array(32, T), 32.0, 0.1, True, scalar, p)
        loss.crossentropy(gpu, p, y, None, array((), "float64"), 0.0, True, scalar, p)
        loss.count_right(gpu, p, y, None, array(2, "float64"))


def launch_sums(gpu, T):
    function = activations.get("swish")
    for a in (array((32, 10), T), array((8, 3, 8, 32), T)):
        F = array(a.shape[1], T)
        sums.feature_sum(gpu, a, F)
        sums.finish(gpu, a, F, "")
        sums.finish_backward(gpu, a, a, F, fuse.slope(activations.get("relu")))
        norm.forward(gpu, a, F, F, 1e-3, a, F, F, F)
        norm.backward(gpu, a, a, F, F, F, F, F, a)
        norm.running_statistics(gpu, F, F, 32, 0.99, (F, F, array((), T)), (F, F, array((), T)))
    sums.finish(gpu, a, F, fuse.activate(function))
    sums.finish_backward(gpu, a, a, None, fuse.slope(function))


def launch_updates(gpu, T):
    control, flat, scalar = array(CONTROL.itemsize, np.uint8), array(100_000, T), array((), T)
    update.judge(gpu, control, flat, [(0, 100), (200, 99_999)], scalar, 0.5, 32)
    update.judge(gpu, control, flat, [(0, 100)], array((), "float64"), None, 32)
    for name in ("SGD", "RMSprop", "Adagrad", "Adam", "AdamW"):
        optimizer = getattr(optimizers, name)()
        arrays = [array(100, T) for _ in range(2 + len(optimizer.state))]
        update.step(gpu, control, fuse.update(optimizer), arrays, 0, 100)
    update.take_over(gpu, control, flat, flat)
    update.clip_slots(gpu, flat, array(3, "int64"), array(3, "int64"), 1.0)
    update.write_control(gpu, control, step=1)
    update.accumulate(gpu, array(2, "float64"), array(2, T), 1.0)
    update.accumulate(gpu, array(2, "float64"), array(2, T), scalar)


FAMILIES = [launch_convolutions, launch_layouts, launch_losses, launch_sums, launch_updates]


def texts_of(family, *types):
    texts = Texts()
    for T in types:
        family(Kernels(texts), T)
    return texts.texts


def one_text(texts):
    """Many texts for the compiler at once, as starting it takes longer than most kernels."""
    parts = []
    for k, (text, entries) in enumerate(texts.items()):
        assert set(entries) <= set(host_cuda.entries(text))
        for name in host_cuda.entries(text):
            if name not in entries:  # another text has it: a template that nobody uses costs little
                text = re.sub(
                    rf'extern "C"(\s+__global__\s[^;{{}}]*?\b{name}\s*\()', r"template <int> \1", text
                )
        renamed = "".join(f"#define {name} {name}_{k}\n" for name in entries)
        macros = "".join(f"#undef {name}\n" for name in re.findall(r"#\s*define\s+(\w+)", renamed + text))
        parts.append(f'{renamed}namespace text_{k} {{\n#line 1 "text {k}: {entries}"\n{text}\n}}\n{macros}')
    return "#undef INFINITY\n#undef NAN\n" + "\n".join(parts)  # NVRTC has no header's macros


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("T", ["float32", "float64"])
def test_kernels_compile(tmp_path, family, T):
    source = tmp_path / "kernels.cu"
    source.write_text(one_text(texts_of(family, T)))
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES[T]]
    options = ["-std=c++17", "-fatbin", "-Werror=all-warnings", "-diag-suppress=550,177", *QUICK, *targets]
    command = [NVCC, *options, "-o", tmp_path / "kernels", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_need_no_header(family):
    foreign = (
        r"#\s*include|\bstd::|\bu?int\d+_t\b|\bINFINITY\b|\bNAN\b|\b(FLT|DBL|INT|LLONG)_(MAX|MIN|EPSILON)\b"
    )
    for text in texts_of(family, "float32"):
        code = re.sub(r"//.*", "", text)
        assert not re.search(foreign, code), re.search(foreign, code)
