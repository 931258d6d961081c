"""Dropout: masks from a counter-based generator, the same bits as on the CPU."""

from __future__ import annotations

import numpy as np

from .layout import aligned

THREADS = 128
BITS_A_BLOCK = THREADS * 16  # elements: 16 a thread


def forward(gpu, x, y, mask, control, key, layer, threshold, scale) -> None:
    """mask = (bits >= threshold) * scale and y = x * mask, bits of (key, layer, control's step).

    x, y, mask: alike in shape and strides, C-contiguous, or vectors (N, D) whose memory is (D, N).
    """
    if not x.size:
        return
    T = x.dtype.name
    stream = (control, np.uint64(key), np.uint64(layer), int(threshold), x.dtype.type(scale))
    if x.flags.c_contiguous:
        by_four = int(aligned(x, y, mask))
        args = (x, y, mask, *stream, np.int64(x.size), by_four)
        gpu.launch("dropout", "forward", (-(-x.size // BITS_A_BLOCK),), (THREADS,), args, T=T)
    else:
        args = (x, y, mask, *stream, *map(np.int64, x.shape))
        gpu.launch("dropout", "forward_transposed", (-(-x.size // THREADS),), (THREADS,), args, T=T)


def bits(gpu, out, control, key, layer) -> None:
    """out (uint16, C-contiguous) = Ops.random_bits(key, layer, control's step, out.shape)."""
    if out.size:
        stream = (control, np.uint64(key), np.uint64(layer))
        args = (out, *stream, np.int64(out.size), int(aligned(out)))
        gpu.launch("dropout", "bits", (-(-out.size // BITS_A_BLOCK),), (THREADS,), args, T="float32")
