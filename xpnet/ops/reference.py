"""Every operation once, plainly, over an array module: what the overrides must agree with.

Feature maps are (H, C, W, N), C-contiguous: image row, channel, image column, sample.  Vectors are (N, D).
Throughout: N batch, C channels, H W height and width, F filters, KH KW kernel, OH OW output size, I O
features in and out, G groups.  Convolution weights are (KW, F, KH, C/G): see `Conv2D`.
"""

from __future__ import annotations

import contextlib
import math
import threading
from typing import Any

import numpy as np

from ..optimizers import TINY
from .geometry import Window


class Ops:
    """All operations over the array module xp.  Stateless: safe to share between layers and threads."""

    name = "reference"
    precisions: tuple[str, ...] = ("float32", "float64")
    in_host_memory = False  # True where arrays are NumPy's and reading one costs nothing

    pools_first = False  # whether a bias and an activation cost less on a pooled map than on the whole one
    inference_block = 256  # samples that inference takes through a network together

    def __init__(self, xp: Any = np, device: str = "cpu"):
        self.xp, self.device = xp, device

    # -- arrays: where host and device meet ------------------------------------------------------------------

    def running(self):
        """A context in which this device does the work that is asked of it, in order."""
        return contextlib.nullcontext()

    def asarray(self, a, dtype=None):
        """a, an array of the host or of this device, as an array of this device."""
        return self.xp.asarray(a, dtype=dtype)

    def to_host(self, a) -> np.ndarray:
        """a as a NumPy array; waits for the device."""
        return a.get() if hasattr(a, "get") else np.asarray(a)

    def meaning(self, dtype) -> str:
        """What a model of this dtype computes in, in words."""
        return str(np.dtype(dtype))

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""

    def owns(self, a) -> bool:
        """Whether a lies in this device's memory already."""
        return isinstance(a, self.xp.ndarray)

    def empty(self, shape, dtype):
        """Uninitialised memory for a temporary."""
        return self.xp.empty(shape, dtype)

    def like(self, a):
        """Uninitialised memory of a's shape, type and axis order."""
        return self.xp.empty_like(a)

    def ones(self, n: int, dtype):
        """n ones, which nobody writes."""
        return self.xp.ones(n, dtype)

    def flat(self, count: int, dtype):
        """A flat buffer of zeros for parameters, gradients or optimizer state, aligned to 64 bytes."""
        return self.xp.zeros(count, dtype)

    def pack(self, x, dtype):
        """x (N, C, H, W) -> feature map (H, C, W, N) of dtype, always a new array."""
        N, C, H, W = x.shape
        out = self.empty((H, C, W, N), dtype)
        out[...] = x.transpose(2, 1, 3, 0)
        return out

    def unpack(self, x):
        """feature map (H, C, W, N) -> (N, C, H, W), a new array."""
        return self.xp.ascontiguousarray(x.transpose(3, 1, 0, 2))

    def enter(self, x, dtype, channels_last: bool = False, copy: bool = False):
        """Conventional x, images (N, C, H, W) or (N, H, W, C), or vectors (N, D), as layers want it."""
        x = self.asarray(x)
        if x.ndim == 4:
            return self.pack(x.transpose(0, 3, 1, 2) if channels_last else x, dtype)
        return x.astype(dtype, copy=copy)

    # -- affine maps -----------------------------------------------------------------------------------------

    def matmul(self, a, b, out=None):
        """a (M, K) @ b (K, N) -> (M, N), into out where that is given; each may be a transposed view."""
        out = self.empty((a.shape[0], b.shape[1]), a.dtype) if out is None else out
        return self.xp.matmul(a, b, out=out)

    def finish(self, z, bias, function):
        """What follows a sum of products: z plus bias (one number a feature, or None), then function, an
        activation.

        y, and what the function's backward needs; z's memory is used up.
        """
        if bias is not None:
            z += bias if z.ndim == 2 else bias[:, None, None]
        return function(self, z)

    def finish_backward(self, dy, kept, function, dbias=None):
        """dL/dz, in dy's memory, and its sum over all but features into dbias, if given."""
        dz = function.backward(self, dy, kept)
        if dbias is not None:
            self.feature_sum(dz, out=dbias)
        return dz

    def activate(self, x, function):
        """function of x in new memory, and what its backward needs."""
        y = self.like(x)
        return y, function.forward(self, x, y)

    # -- convolution -----------------------------------------------------------------------------------------

    def pad(self, x, padding, value=0.0):
        """x (H, C, W, N) with ((top, bottom), (left, right)) rows and columns of value around it; x itself if
        none.
        """
        (top, bottom), (left, right) = padding
        if not (top or bottom or left or right):
            return x
        H, C, W, N = x.shape
        out = self.empty((top + H + bottom, C, left + W + right, N), x.dtype)
        if top or bottom:
            out[:top], out[top + H :] = value, value
        if left or right:
            out[top : top + H, :, :left], out[top : top + H, :, left + W :] = value, value
        out[top : top + H, :, left : left + W] = x
        return out

    def bordered(self, x, w, window: Window, groups: int = 1):
        """x (H, C, W, N) in its border, window.padding, and the window without it, for a convolution with w;
        or both as they are, where that convolution is faster with a border that is only thought.
        """
        return (self.pad(x, window.padding), window.bare) if window.padded else (x, window)

    def im2col(self, x, window: Window, groups: int = 1):
        """Patches as columns: x (H, C, W, N), padded -> (OH, G, KW*KH*C/G, OW*N).

        For each output row one matrix a group, whose rows are the kernel's elements in the order of the
        weight (kw, kh, c) and whose columns are the row's output positions of every sample.
        """
        H, C, W, N = x.shape
        (KH, KW), (OH, OW) = window.kernel, window.positions(x)
        cols = self.empty((OH, groups, KW, KH, C // groups, OW, N), x.dtype)
        for j in range(KW):
            for i in range(KH):
                patch = x[window.rows(i, OH), :, window.columns(j, OW)]
                cols[:, :, j, i] = patch.reshape(OH, groups, C // groups, OW, N)
        return cols.reshape(OH, groups, -1, OW * N)

    def col2im(self, cols, out, window: Window):
        """The adjoint of im2col: every column added to the patch of out (H, C, W, N) that it came from."""
        H, C, W, N = out.shape
        (KH, KW), (OH, OW) = window.kernel, window.positions(out)
        cols = cols.reshape(OH, -1, KW, KH, C // cols.shape[1], OW, N)
        for j in range(KW):
            for i in range(KH):
                out[window.rows(i, OH), :, window.columns(j, OW)] += cols[:, :, j, i].reshape(OH, C, OW, N)
        return out

    def conv2d(self, x, w, window: Window, groups: int = 1, bias=None, function=None):
        """Cross-correlation of x (H, C, W, N) in its window.padding with w (KW, F, KH, C/G): (OH, F, OW, N).

        bias (F,) and function, an activation that works in place, are applied to y as `finish` does it.
        """
        x, window = self.bordered(x, w, window, groups)
        F, (OH, OW) = w.shape[1], window.positions(x)
        y = self.xp.matmul(self.weight_matrix(w, groups), self.im2col(x, window, groups))
        y = y.reshape(OH, F, OW, -1)
        self._finish_rows(y, bias, function)
        return y

    def _finish_rows(self, rows, bias, function):
        """Bias and activation of finished output rows (rows, F, OW, N), in place."""
        if bias is not None:
            rows += bias[:, None, None]
        if function is not None:
            function.forward(self, rows, rows)

    def conv2d_weight_grad(self, x, dz, dw, window: Window, groups: int = 1):
        """dL/dw into dw (KW, F, KH, C/G), from x and window as conv2d had them and dz (OH, F, OW, N)."""
        x, window = self.bordered(x, dw, window, groups)
        OH, F, OW, N = dz.shape
        KW, _, KH, C = dw.shape
        cols = self.im2col(x, window, groups)
        d = self.xp.matmul(dz.reshape(OH, groups, F // groups, OW * N), cols.swapaxes(2, 3)).sum(axis=0)
        dw[...] = d.reshape(groups, F // groups, KW, KH, C).transpose(2, 0, 1, 3, 4).reshape(dw.shape)

    def conv2d_input_grad(self, dz, w, shape, window: Window, groups: int = 1):
        """dL/dx for the map of shape (H, C, W, N) before its padding by window.padding."""
        OH, F, OW, N = dz.shape
        (top, bottom), (left, right) = window.padding
        H, C, W, N = shape
        dz = dz.reshape(OH, groups, F // groups, OW * N)
        cols = self.xp.matmul(self.weight_matrix(w, groups).swapaxes(1, 2), dz)
        dx = self.xp.zeros((top + H + bottom, C, left + W + right, N), dz.dtype)
        self.col2im(cols, dx, window)
        return self.xp.ascontiguousarray(dx[top : top + H, :, left : left + W])

    def weight_matrix(self, w, groups: int = 1):
        """w (KW, F, KH, C/G) -> (G, F/G, KW*KH*C/G): a row a filter, in the order of im2col."""
        KW, F, KH, C = w.shape
        return (
            w.reshape(KW, groups, F // groups, KH, C)
            .transpose(1, 2, 0, 3, 4)
            .reshape(groups, F // groups, -1)
        )

    # -- pooling ---------------------------------------------------------------------------------------------

    def _windows(self, x, window: Window):
        """The KH*KW strided views of x, padded, that lie under each kernel element in turn, row-major."""
        OH, OW = window.positions(x)
        KH, KW = window.kernel
        return [x[window.rows(i, OH), :, window.columns(j, OW)] for i in range(KH) for j in range(KW)]

    def max_pool(self, x, window: Window):
        """Largest element under each window: x (H, C, W, N), padded -> (OH, C, OW, N)."""
        first, *rest = self._windows(x, window)
        y = first.copy()
        for view in rest:
            self.xp.maximum(y, view, out=y)
        return y

    def max_pool_backward(self, dy, x, y, window: Window):
        """dy sent to the first largest element of its window, row-major, as PyTorch does; -> like x,
        padded.
        """
        dx = self.xp.zeros_like(x)
        free = self.xp.ones(y.shape, bool)
        for view, dview in zip(self._windows(x, window), self._windows(dx, window)):
            hit = (view == y) & free
            free &= ~hit
            dview += dy * hit
        return dx

    def max_pool_train(self, x, window: Window):
        """`max_pool`, and what `max_pool_train_backward` needs to know of it."""
        y = self.max_pool(x, window)
        return y, (x, y)

    def max_pool_train_backward(self, dy, kept, window: Window):
        """`max_pool_backward` from what `max_pool_train` kept."""
        x, y = kept
        return self.max_pool_backward(dy, x, y, window)

    def sum_pool(self, x, window: Window):
        """Sum under each window: x (H, C, W, N), padded -> (OH, C, OW, N)."""
        first, *rest = self._windows(x, window)
        y = first.copy()
        for view in rest:
            y += view
        return y

    def sum_pool_backward(self, dy, shape, window: Window):
        """The adjoint of sum_pool: each dy added to every element of its window, in zeros of shape (H, C, W,
        N).
        """
        dx = self.xp.zeros(shape, dy.dtype)
        for dview in self._windows(dx, window):
            dview += dy
        return dx

    # -- sums, masks, functions ------------------------------------------------------------------------------

    def feature_sum(self, a, out=None):
        """The sum of a (N, D) over the batch, (D,), or of a (H, C, W, N) over all but channels, (C,)."""
        return a.sum(axis=0 if a.ndim == 2 else (0, 2, 3), out=out)

    def batch_sum(self, a):
        """a, summed over all replicas of a training step: here there is one, and a is the sum already."""
        return a

    def batch_size(self, n: int) -> int:
        """Samples in the whole batch, of which this replica holds n."""
        return n

    @property
    def leads(self) -> bool:
        """Whether this is the replica that records running statistics."""
        return True

    def random_bits(self, key: int, layer: int, step: int, shape):
        """uint16 array of shape, from Philox4x64-10 at counter (., 0, layer, step): the bits of the whole
        batch.

        shape is (N, D) or (H, C, W, N); element e takes bits 16 (e mod 4).. of the stream's word e // 4.
        Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3".
        """
        return self.asarray(philox_bits(key, layer, step, 0, math.prod(shape)).reshape(shape))

    def uniform(self, stream, shape):
        """float32 numbers in [0, 1) from the stream's current bits: 24 of them each."""
        bits = self.stream_bits(stream, (2, math.prod(shape)))
        number = bits[0].astype(np.float32) * 256 + (bits[1] >> 8)
        return (number / (1 << 24)).astype(np.float32, copy=False).reshape(shape)

    def stream_bits(self, stream, shape):
        """uint16 array of the stream's current bits, on a device also of the step that a recording is at."""
        return self.random_bits(stream.seed, stream.number, stream.step, shape)

    def dropout(self, x, stream, threshold: int, scale: float):
        """x * mask and the mask: scale where an element's 16 random bits reach the threshold, 0 elsewhere."""
        mask = (stream.bits(self, x.shape) >= threshold) * x.dtype.type(scale)
        return self.xp.multiply(x, mask, out=self.like(x)), mask

    def batch_norm(self, x, weight, bias, epsilon: float):
        """x (N, D) or (H, C, W, N), each feature brought to mean 0 and variance 1 over the whole batch, then
        scaled and shifted:  xhat = (x - mean) slope,  slope = 1 / sqrt(var + epsilon),  y = weight xhat +
        bias.

        y, mean, var (the mean of squares, n in the denominator), n, and the cache for `batch_norm_backward`.
        """
        xp, spread, n = self.xp, feature_axis(x), self.elements_a_feature(x)
        mean = self.batch_sum(self.feature_sum(x)) / n
        xhat = self.like(x)
        xp.subtract(x, mean[spread], out=xhat)
        y = xp.multiply(xhat, xhat, out=self.like(x))
        var = self.batch_sum(self.feature_sum(y)) / n
        slope = 1 / xp.sqrt(var + epsilon)
        xhat *= slope[spread]
        xp.multiply(xhat, weight[spread], out=y)
        y += bias[spread]
        return y, mean, var, n, (xhat, slope, n)

    def batch_norm_backward(self, dy, cache, weight, dweight, dbias, needs_dx: bool = True):
        """dx = weight slope (dy - mean(dy) - xhat mean(dy xhat)), the means over the whole batch, in dy's
        memory.
        """
        xhat, slope, n = cache
        spread = feature_axis(dy)
        self.feature_sum(self.xp.multiply(dy, xhat, out=self.like(dy)), out=dweight)
        self.feature_sum(dy, out=dbias)
        total = self.batch_sum(self.xp.stack([dweight, dbias])) / n
        if not needs_dx:
            return None
        xhat *= total[0][spread]
        dy -= xhat
        dy -= total[1][spread]
        dy *= (weight * slope)[spread]
        return dy

    def running_statistics(self, mean, var, n: int, momentum: float, running, out) -> None:
        """out = momentum running + (1 - momentum) batch, each a (mean, var, number of batches).

        mean, var: the batch's, of n elements a feature; the running variance is unbiased.
        """
        old_mean, old_var, batches = running
        new_mean, new_var, new_batches = out
        new_mean[...] = momentum * old_mean + (1 - momentum) * mean
        new_var[...] = momentum * old_var + (1 - momentum) * var * (n / (n - 1))
        new_batches[...] = batches + 1

    def elements_a_feature(self, x) -> int:
        """Of how many elements of the whole batch a feature's statistics are made; x (N, D) or (H, C, W,
        N).
        """
        samples = x.shape[0 if x.ndim == 2 else 3]
        return x.size // (samples * x.shape[1]) * self.batch_size(samples)

    def crossentropy(self, p, y, w, divisor, smoothing: float, mean: bool):
        """Softmax cross-entropy of logits p (N, K) and its derivative by p in one go; None where there is no
        faster way than the loss's own formula.
        """
        return None

    def count_right(self, p, y, w):
        """The weights' sum over right answers and over all; None where the metric's own formula is the
        way.
        """
        return None

    def relu(self, z, out):
        """max(z, 0) into out, which may be z."""
        return self.xp.maximum(z, 0, out=out)

    def erf(self, x):
        """The error function, by W. J. Cody's way of a fitted series: Numerical Recipes, 3rd ed., 6.2.2.

        Relative error below 1.2e-16 in float64; float32 input is computed in float32.
        """
        xp = self.xp
        z = xp.abs(x)
        t = 2.0 / (2.0 + z)
        ty, d, dd = 4.0 * t - 2.0, xp.zeros_like(z), xp.zeros_like(z)
        for c in _ERFC[:0:-1]:
            d, dd = ty * d - dd + c, d
        erfc = t * xp.exp(-z * z + 0.5 * (_ERFC[0] + ty * d) - dd)
        return xp.where(x >= 0, 1.0 - erfc, erfc - 1.0)

    # -- a training step on a device: nothing in it is read back, so flags and counters stay there -----------

    def control(self) -> Control:
        """What the steps of one model read and advance."""
        return Control(self)

    def gather(self, control: Control, n: int, dtype, channels_last: bool):
        """The next n samples: x as layers want it, y and w (or None)."""
        index = control.order[control.cursor : control.cursor + n]
        x, y, w = (None if a is None else a[index] for a in (control.x, control.y, control.w))
        return self.enter(x, dtype, channels_last), y, w

    def weight_sum(self, w):
        """The sum of weights, a 0-d array; 1 where it is 0, so that a mean of nothing is 0."""
        total = w.sum()
        return total + (total == 0)

    def judge(self, control: Control, grads, ranges, loss, clipvalue, n: int) -> None:
        """Whether the step can be made: loss and the gradient's norm, over ranges of flat grads, are finite.

        Once one is not, no later step is made either, until the host has looked.
        """
        xp, squared = self.xp, 0.0
        for start, stop in ranges:
            g = grads[start:stop]
            if clipvalue is not None:
                xp.clip(g, -clipvalue, clipvalue, out=g)
            g = g.astype(np.float64)  # whose square does not overflow
            squared = squared + xp.dot(g, g)
        ok = xp.isfinite(loss) & xp.isfinite(squared) if ranges else xp.isfinite(loss)
        control.ok = control.good = ok if control.good is None else ok & control.good
        control.skipped = control.skipped + (1 - control.ok.astype(np.int64))
        control.norm = xp.sqrt(squared) if ranges else 0.0

    def optimizer_step(self, control: Control, optimizer, values, grads, state: list, ranges) -> None:
        """One step of the optimizer on ranges of the flat buffers, unless `judge` forbids it."""
        for start, stop in ranges:
            p, g, *more = (flat[start:stop] for flat in (values, grads, *state))
            old = [a.copy() for a in (p, *more)]
            t = control.iterations + 1
            optimizer.step(self.xp, p, g, more, control.rate, t, control.norm)
            for a, before in zip((p, *more), old):
                a[...] = self.xp.where(control.ok, a, before)

    def take_over(self, control: Control, state, pending) -> None:
        """The running statistics that the step proposes, unless `judge` forbids it."""
        state[...] = self.xp.where(control.ok, pending, state)

    def limit_norms(self, grads, slots, limit: float) -> None:
        """Each slot's part of flat grads scaled down to a norm of limit."""
        xp = self.xp
        for slot in slots:
            g = grads[slot.start : slot.start + slot.size]
            wide = g.astype(np.float64)
            g *= xp.minimum(1.0, limit / (xp.sqrt(xp.dot(wide, wide)) + TINY)).astype(g.dtype)

    def accumulate(self, total, values, factor=1.0) -> None:
        """total += values * factor, flat and in float64."""
        total += values.reshape(-1) * factor

    def recorder(self) -> Recorder:
        """What runs and records a model's steps."""
        return Recorder()

    # -- memory ----------------------------------------------------------------------------------------------

    out_of_memory: tuple[type[BaseException], ...] = ()  # what the device raises

    def free_memory(self) -> float:
        """Bytes that may still be allocated."""
        return math.inf

    def release_memory(self) -> None:
        """Give back memory that is held but not used."""

    def staging(self, shape, dtype) -> np.ndarray:
        """Memory of the host from which this device copies fastest."""
        return np.empty(shape, dtype)

    def upload(self, staged: np.ndarray, out, behind=None):
        """Copy staged into out, while the device goes on with what it was asked for, but behind an event.

        An event that follows the copy; None stands for the past.
        """
        out[...] = self.asarray(staged)

    def mark(self):
        """An event that follows all that has been asked so far."""

    def after(self, event) -> None:
        """What is asked from now on waits for the event, on the device."""

    def wait(self, event) -> None:
        """The host waits for the event."""

    def shortage(self, error: BaseException) -> str:
        """What an out_of_memory error means, as a sentence without its full stop."""
        return str(error)

    # -- pictures --------------------------------------------------------------------------------------------

    def crops(self, a, top, left, H: int, W: int):
        """(N, C, H, W): of each picture of a (N, C, ...) its part from row top and column left on, both
        (N,) whole numbers.
        """
        xp, (N, C) = self.xp, a.shape[:2]
        rows, columns = top.reshape(N, 1) + xp.arange(H), left.reshape(N, 1) + xp.arange(W)
        of = xp.arange(N).reshape(N, 1, 1, 1), xp.arange(C).reshape(1, C, 1, 1)
        return a[*of, rows.reshape(N, 1, H, 1), columns.reshape(N, 1, 1, W)]

    # -- the optimizer's side on the host --------------------------------------------------------------------

    def blocks(self, start: int, stop: int, size: int = 0) -> list[slice]:
        """[start, stop) in pieces to be walked one after another, where a cache makes that worth it: of size
        elements each, or what suits the update of a flat buffer.
        """
        return [slice(start, stop)] if stop > start else []

    def squared_norm(self, g):
        """Sum of the squares of a flat array, a 0-d array (or a float in host memory)."""
        return self.xp.dot(g, g)


class Recorder:
    """Runs the steps of a model.  A device that can records them: see `ops/cupy_ops.py`."""

    def run(self, work) -> None:
        """work(), which only asks the device for work, as it is."""
        work()

    def record(self, work) -> Any:
        """An object whose `launch()` does again what work() asks for; None where that cannot be had."""
        return None

    def release(self) -> None:
        """Give back the memory of all that was recorded; none of it is launched again."""


class Control:
    """What a training step on a device finds where it left it, so that a recorded step does not freeze it.

    step, iterations, rate: as Params and the optimizer have them.  x, y, w: samples, and order: their numbers
    in the order of the epoch, of which the next batch begins at cursor.  ok: whether the current step is
    made; good: whether every one so far was; skipped: how many were not.
    """

    def __init__(self, ops: Ops):
        self.ops = ops
        self.step = self.iterations = self.cursor = 0
        self.rate: float = 0.0
        self.norm: Any = 0.0
        self.x: Any = None
        self.y: Any = None
        self.w: Any = None
        self.order: Any = None
        self.ok: Any = None
        self.good: Any = None
        self.skipped: Any = 0

    def set(self, **fields) -> None:
        """Give fields a value; where they have it already nothing is done."""
        for name, value in fields.items():
            setattr(self, name, value)

    def advance(self, n: int) -> None:
        """The host's count of a step on n samples; the device counts for itself."""
        self.step, self.iterations, self.cursor = self.step + 1, self.iterations + 1, self.cursor + n

    def say(self) -> None:
        """Count from where the host is: a step that broke off may have counted what the host did not."""

    def read(self) -> int:
        """How many steps were skipped since the last look, and go on from there.  Waits for the device."""
        skipped = int(self.ops.to_host(self.ops.xp.asarray(self.skipped)))
        self.good, self.skipped = None, 0
        self.step, self.iterations = self.step - skipped, self.iterations - skipped
        return skipped


def feature_axis(a):
    """The index that lets a vector of features meet a: (D,) with (N, D), (C,) with (H, C, W, N)."""
    return slice(None) if a.ndim == 2 else (slice(None), None, None)


def philox_bits(key: int, layer: int, step: int, start: int, count: int) -> np.ndarray:
    """uint16 elements start .. start+count of the stream (key, layer, step), on the host.

    A block of four 64-bit words is 16 elements, so a part of a stream is generated by moving the counter,
    which NumPy's generator increments before each block.
    """
    block, skip = divmod(start, 16)
    generator, state = _philox.generator, _philox.state  # setting a state takes a sixth of making a generator
    state["state"]["counter"][:] = block, 0, layer, step
    state["state"]["key"][0] = key
    generator.state = state
    words = generator.random_raw((skip + count + 3) // 4)
    return words.astype("<u8", copy=False).view(np.uint16)[skip : skip + count]


class _Philox(threading.local):
    """A generator for each thread, and the state it is set to: its buffer used up, its counter to be filled
    in.
    """

    def __init__(self):
        self.generator = np.random.Philox(key=0)
        self.state = self.generator.state | {"buffer_pos": 4, "has_uint32": 0}


_philox = _Philox()

_ERFC = (
    -1.3026537197817094, 6.4196979235649026e-1, 1.9476473204185836e-2, -9.561514786808631e-3,
    -9.46595344482036e-4, 3.66839497852761e-4, 4.2523324806907e-5, -2.0278578112534e-5, -1.624290004647e-6,
    1.303655835580e-6, 1.5626441722e-8, -8.5238095915e-8, 6.529054439e-9, 5.059343495e-9, -9.91364156e-10,
    -2.27365122e-10, 9.6467911e-11, 2.394038e-12, -6.886027e-12, 8.94487e-13, 3.13092e-13, -1.12708e-13,
    3.81e-16, 7.106e-15, -1.523e-15, -9.4e-17, 1.21e-16, -2.8e-17,
)  # fmt: skip
