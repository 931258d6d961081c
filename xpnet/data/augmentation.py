"""Augmentation: samples changed at random while a model trains, each batch at once, on the model's device.

    model.fit(x, y, augment=[RandomCrop(padding=4), RandomFlip("horizontal"), Cutout(8), MixUp(0.2)])

The changes are made in the order of the list, anew for every step, in training alone.  x is (N, C, H, W) in
the model's float type, in any memory order; vectors (N, D) only for what needs no pictures.  Targets that are
maps of the pictures' own height and width, masks (N, H, W) of whole numbers or (N, K, H, W) of any, are moved
as the pictures are.

All chance is in draw(*shape), which yields new float32 numbers, uniform in [0, 1); they follow from the seed
and the step, so that the same changes are made on every device.  Nothing here waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..config import Configurable
from ..errors import ShapeError, unknown, warn
from .arrays import check_lengths
from .resample import FILL_MODES, extended, sampled

Move = Callable[[Any, bool], Any]
BLOCK = 1 << 14  # pixels that a CPU turns at once: 128 pictures of 28x28 in 0.9 ms, not 2.3


class Augmentation(Configurable):
    """Base.  A subclass keeps its constructor's arguments under their names, and changes nothing of itself.

    needs_one_hot: targets that are classes are handed over as rows (N, K), as the loss gets them back.
    """

    needs_one_hot = False

    def check(self, in_shape: tuple[int, ...], target_shape: tuple[int, ...] = ()) -> None:
        """Raises ShapeError unless it suits samples of in_shape, (C, H, W) or (D,), and targets of
        target_shape, without the batch.
        """

    def __call__(self, ops, x, y, draw) -> tuple[Any, Any]:
        """x and y, changed, in new memory; or themselves, where nothing changes.

        ops: the device's operations.  draw: draw(*shape), float32 numbers from 0 to 1 by the model's seed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no __call__")


def checked(
    augment: Augmentation | Iterable[Augmentation] | None,
    in_shape: tuple[int, ...],
    target_shape: tuple[int, ...] = (),
) -> tuple[Augmentation, ...]:
    """What `fit(augment=)` was given, one or several, as a tuple that suits samples and targets so shaped."""
    given: Any = () if augment is None else augment
    chain = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    for one in chain:
        if not isinstance(one, Augmentation):
            raise TypeError(
                "augment must be a list of augmentations. Received: "
                f"{one.__name__ + ', a class' if isinstance(one, type) else repr(one)}. Expected: objects of "
                "xpnet.data such as RandomFlip('horizontal'), or of your own subclass of Augmentation"
            )
        one.check(in_shape, target_shape)
    return chain


def apply(augment, x, y=None, seed: int = 0, data_format: str = "channels_first"):
    """x, or (x, y), of the host as `fit(augment=augment)` would train on them: to look at what it does.

    x: (N, D) or images, (N, C, H, W) or as data_format says.  y: targets, (N,), (N, K) or maps; class indices
    for MixUp and CutMix come back as rows (N, K).  seed: of the changes.  Raises ValueError for data that do
    not fit each other, ShapeError for an augmentation that does not suit them.
    """
    from ..losses import one_hot
    from ..ops.reference import Ops

    if data_format not in ("channels_first", "channels_last"):
        raise unknown("data_format", data_format, ("channels_first", "channels_last"))
    last = data_format == "channels_last" and np.ndim(x) == 4
    ops, rng = Ops(), np.random.default_rng(seed)
    x = np.asarray(x)
    targets = np.zeros(len(x), np.float32) if y is None else np.asarray(y)
    check_lengths(x=x, y=targets)
    x = (x.transpose(0, 3, 1, 2) if last else x).astype(x.dtype if x.dtype.kind == "f" else np.float32)
    chain = checked(augment, x.shape[1:], targets.shape[1:])
    if any(one.needs_one_hot for one in chain) and targets.dtype.kind != "f":
        targets = one_hot(ops, targets, int(targets.max()) + 1, x.dtype)
    for one in chain:
        x, targets = one(ops, x, targets, lambda *shape: rng.random(shape, dtype=np.float32))
    x = x.transpose(0, 2, 3, 1) if last else x
    return x if y is None else (x, targets)


# -- pictures ------------------------------------------------------------------------------------------------


class _OfImages(Augmentation):
    """What is done to pictures."""

    def check(self, in_shape, target_shape=()):
        if len(in_shape) != 3:
            raise ShapeError(
                f"{type(self).__name__} needs images. Received: samples of shape {in_shape}. Expected: "
                "(C, H, W); leave it out, or give the model images"
            )


class _Move(_OfImages):
    """What takes pixels elsewhere, in pictures and in targets that are maps alike."""

    def check(self, in_shape, target_shape=()):
        super().check(in_shape, target_shape)
        maps = target_shape[-2:]
        if len(maps) == 2 and maps not in (in_shape[1:], (1, 1)):
            raise ShapeError(
                f"{type(self).__name__} cannot move these targets with their images. Received: targets of "
                f"shape {target_shape} for images of {in_shape[1]}x{in_shape[2]}. Expected: maps of the same "
                "height and width, or targets that have none"
            )

    def move(self, ops, shape, draw) -> Move:
        """move(a, target): (N, C, H, W) moved, the same way every time; target: beyond the border is 0."""
        raise NotImplementedError(f"{type(self).__name__} has no move")

    def __call__(self, ops, x, y, draw):
        move = self.move(ops, x.shape, draw)
        if y.ndim == 3 and y.shape[1:] == x.shape[2:]:
            y = move(y[:, None], True)[:, 0]
        elif y.ndim == 4 and y.shape[2:] == x.shape[2:]:
            y = move(y, True)
        return move(x, False), y


class RandomCrop(_Move):
    """A part of the picture's own size, anywhere in the picture with `padding` pixels around it.

    padding: for all sides, or (rows, columns).  fill_mode: what lies beyond the border, by the names of
    numpy.pad: "constant" (of fill_value), "edge", "reflect", "symmetric", "wrap".  He et al., Deep residual
    learning, 2016, section 4.2.
    """

    def __init__(self, padding=4, fill_mode="constant", fill_value=0.0):
        self.padding = _pair("RandomCrop", "padding", padding)
        self.fill_mode, self.fill_value = _fill("RandomCrop", fill_mode, fill_value)

    def check(self, in_shape, target_shape=()):
        super().check(in_shape, target_shape)
        if any(p >= size for p, size in zip(self.padding, in_shape[1:])):
            raise ShapeError(
                "RandomCrop: padding must be less than the image's size. Received: "
                f"{self.padding} for images of {in_shape[1]}x{in_shape[2]}"
            )

    def move(self, ops, shape, draw):
        (N, _, H, W), xp = shape, ops.xp
        p, q = self.padding
        top, left = _whole(draw(N), 2 * p + 1), _whole(draw(N), 2 * q + 1)

        def move(a, target):
            around = extended(xp, a, p, q, self.fill_mode, 0 if target else self.fill_value)
            return ops.crops(around, top, left, H, W)

        return move


class RandomFlip(_Move):
    """Mirrored left to right, upside down, or each of both: one time in two.

    mode: "horizontal", "vertical" or "horizontal_and_vertical".
    """

    def __init__(self, mode="horizontal_and_vertical"):
        axes = {"horizontal": (3,), "vertical": (2,), "horizontal_and_vertical": (3, 2)}
        if mode not in axes:
            raise unknown("mode of RandomFlip", mode, axes)
        self.mode, self._axes = mode, axes[mode]

    def move(self, ops, shape, draw):
        flips = [(axis, (draw(shape[0]) < 0.5).reshape(-1, 1, 1, 1)) for axis in self._axes]

        def move(a, target):
            for axis, chosen in flips:
                a = ops.xp.where(chosen, ops.xp.flip(a, axis), a)
            return a

        return move


class _Affine(_Move):
    """Pictures seen through a linear map about their centre, one a sample."""

    def __init__(self, interpolation="bilinear", fill_mode="constant", fill_value=0.0):
        kind = type(self).__name__
        if interpolation not in ("bilinear", "nearest"):
            raise unknown(f"interpolation of {kind}", interpolation, ("bilinear", "nearest"))
        self.interpolation = interpolation
        self.fill_mode, self.fill_value = _fill(kind, fill_mode, fill_value)

    def maps(self, xp, u) -> tuple[Any, Any, Any, Any]:
        """From u (N,), uniform, the elements ((a, b), (c, d)) of the maps from a place to where it is seen
        from.
        """
        raise NotImplementedError(f"{type(self).__name__} has no maps")

    def reach(self, h: float, w: float) -> tuple[float, float]:
        """How far from the centre is seen, where pictures reach to h and w."""
        raise NotImplementedError(f"{type(self).__name__} has no reach")

    def move(self, ops, shape, draw):
        (N, _, H, W), xp = shape, ops.xp
        h, w = (H - 1) / 2, (W - 1) / 2
        p, q = (math.ceil(far - near) + 1 for far, near in zip(self.reach(h, w), (h, w)))
        i, j = xp.arange(H, dtype=np.float32) - h, xp.arange(W, dtype=np.float32) - w
        a, b, c, d = (e.reshape(N, 1) for e in self.maps(xp, draw(N)))
        rows = (a * i + (h + p)).reshape(N, H, 1), (b * j).reshape(N, 1, W)
        columns = (c * i + (w + q)).reshape(N, H, 1), (d * j).reshape(N, 1, W)

        def move(x, target):
            nearest = self.interpolation == "nearest" or x.dtype.kind != "f"
            out = ops.like(x)
            for k in ops.blocks(0, N, max(1, BLOCK // (H * W))):
                around = extended(xp, x[k], p, q, self.fill_mode, 0 if target else self.fill_value)
                out[k] = sampled(xp, around, rows[0][k] + rows[1][k], columns[0][k] + columns[1][k], nearest)
            return out

        return move


class RandomRotation(_Affine):
    """Turned about the centre by an angle from -degrees to degrees, or from (least, most), counterclockwise.

    interpolation: "bilinear" or "nearest"; masks of whole numbers always take the nearest.  fill_mode,
    fill_value: what comes in at the corners, as in RandomCrop.
    """

    def __init__(self, degrees, interpolation="bilinear", fill_mode="constant", fill_value=0.0):
        super().__init__(interpolation, fill_mode, fill_value)
        pair = degrees if isinstance(degrees, (tuple, list)) else (-degrees, degrees)
        if len(pair) != 2 or not all(_is_real(v) and -360 <= v <= 360 for v in pair) or pair[0] > pair[1]:
            raise ValueError(
                f"RandomRotation: degrees must be 0 to 360, or a pair that rises. Received: {degrees!r}"
            )
        if 0 < max(map(abs, pair)) < 1:
            warn(
                f"RandomRotation turns by less than one degree. Received: degrees={degrees!r}. If a share of "
                "a whole turn was meant, as in Keras, multiply it by 360"
            )
        self.degrees = degrees
        self._least, self._most = (math.radians(v) for v in pair)

    def maps(self, xp, u):
        angle = self._least + u * (self._most - self._least)
        cos, sin = xp.cos(angle), xp.sin(angle)
        return cos, sin, -sin, cos

    def reach(self, h, w):
        most = max(abs(self._least), abs(self._most))

        def far(near, other):
            turn = min(most, math.atan2(other, near))  # from there on a corner comes no nearer
            return near * math.cos(turn) + other * math.sin(turn)

        return far(h, w), far(w, h)


class RandomZoom(_Affine):
    """Seen from further away or from nearer by, 1 - factor to 1 + factor times as much of the picture.

    factor: below 1.  interpolation, fill_mode, fill_value: as in `RandomRotation`.
    """

    def __init__(self, factor, interpolation="bilinear", fill_mode="constant", fill_value=0.0):
        super().__init__(interpolation, fill_mode, fill_value)
        self.factor = _share("RandomZoom", "factor", factor)

    def maps(self, xp, u):
        scale, none = 1 + self.factor * (2 * u - 1), xp.zeros_like(u)
        return scale, none, none, scale

    def reach(self, h, w):
        return h * (1 + self.factor), w * (1 + self.factor)


class Cutout(_OfImages):
    """A square of fill_value, its centre anywhere in the picture, so that it may stick out.

    size: side, or (height, width).  T. DeVries, G. Taylor, Improved regularization of convolutional neural
    networks with cutout, 2017.
    """

    def __init__(self, size, fill_value=0.0):
        self.size = _pair("Cutout", "size", size, 1)
        self.fill_value = _real("Cutout", "fill_value", fill_value)

    def check(self, in_shape, target_shape=()):
        super().check(in_shape, target_shape)
        if any(side > size for side, size in zip(self.size, in_shape[1:])):
            raise ShapeError(
                f"Cutout: size must fit the image. Received: {self.size} for images of "
                f"{in_shape[1]}x{in_shape[2]}"
            )

    def __call__(self, ops, x, y, draw):
        (N, _, H, W), xp = x.shape, ops.xp
        rows, columns = (_span(xp, draw(N), n, side) for n, side in zip((H, W), self.size))
        hole = rows.reshape(N, 1, H, 1) & columns.reshape(N, 1, 1, W)
        return xp.where(hole, x.dtype.type(self.fill_value), x), y


# -- brightness and noise ------------------------------------------------------------------------------------


class RandomBrightness(_OfImages):
    """A picture's values plus one number, from -factor to factor of value_range, and clipped to that.

    value_range: of the data as they come, (0, 255) for bytes, (0, 1) for what the data sets yield.
    """

    def __init__(self, factor, value_range):
        self.factor = _share("RandomBrightness", "factor", factor, 1)
        self.value_range = _range("RandomBrightness", value_range)

    def __call__(self, ops, x, y, draw):
        low, high = self.value_range
        shift = (2 * draw(len(x)) - 1) * (self.factor * (high - low))
        return ops.xp.clip(x + _each(shift, x), low, high), y


class RandomContrast(_OfImages):
    """A picture's distance from the mean of its channel times 1 - factor to 1 + factor, and clipped to
    value_range, as in RandomBrightness.
    """

    def __init__(self, factor, value_range):
        self.factor = _share("RandomContrast", "factor", factor, 1)
        self.value_range = _range("RandomContrast", value_range)

    def __call__(self, ops, x, y, draw):
        mean = x.mean(axis=(2, 3), keepdims=True)
        changed = (x - mean) * _each(1 + self.factor * (2 * draw(len(x)) - 1), x) + mean
        return ops.xp.clip(changed, *self.value_range), y


class GaussianNoise(Augmentation):
    """Every element plus a number of its own, normal with deviation stddev.  Also of vectors."""

    def __init__(self, stddev):
        self.stddev = _real("GaussianNoise", "stddev", stddev, 0)

    def __call__(self, ops, x, y, draw):
        """Two normal numbers from two uniform ones: G. Box, M. Muller, 1958."""
        xp, n = ops.xp, math.prod(x.shape)
        u, v = draw((n + 1) // 2), draw((n + 1) // 2)
        r, turn = xp.sqrt(-2 * xp.log(1 - u)) * self.stddev, 2 * math.pi * v
        noise = xp.concatenate([r * xp.cos(turn), r * xp.sin(turn)])[:n].reshape(x.shape)
        return x + noise.astype(x.dtype, copy=False), y


# -- mixtures of two samples ---------------------------------------------------------------------------------


class _Mixture(Augmentation):
    """Samples mixed with others of their batch, and their targets with them."""

    needs_one_hot = True

    def __init__(self, alpha):
        self.alpha = _real(type(self).__name__, "alpha", alpha, 0)
        if not self.alpha:
            raise ValueError(f"{type(self).__name__}: alpha must be above 0. Received: {alpha!r}")

    def partners(self, xp, N: int, draw):
        """Indices (N,) of the samples to mix with: those a drawn number of places further on, never its own.

        The batch comes shuffled, so that they are any others; a cyclic shift needs no sorting.
        """
        return (xp.arange(N) + (1 + _whole(draw(1), N - 1))) % N

    def shares(self, xp, N: int, draw):
        """(N,) numbers in [0, 1] from Beta(alpha, alpha).

        For T of Student's t with 2 alpha degrees of freedom, (1 + T / sqrt(2 alpha + T^2)) / 2 is so
        distributed, and R. Bailey's polar method, 1994, makes T from two uniform numbers u and v:
        T = cos(2 pi v) sqrt(2 alpha (u^(-1 / alpha) - 1)).  Here both are put by q = u^(1 / alpha).
        """
        log_q = xp.log1p(-draw(N)) / self.alpha
        cos, rest = xp.cos(2 * math.pi * draw(N)), -xp.expm1(log_q)
        return (1 + cos * xp.sqrt(rest) / xp.sqrt(cos * cos * rest + xp.exp(log_q))) / 2


class MixUp(_Mixture):
    """x and y times a share s, plus those of another sample times 1 - s.  Also of vectors.

    alpha: s is one a sample, from Beta(alpha, alpha).  Class indices become rows (N, K); weights of samples
    stay.  H. Zhang et al., mixup: beyond empirical risk minimization, 2018.
    """

    def __init__(self, alpha=0.2):
        super().__init__(alpha)

    def __call__(self, ops, x, y, draw):
        _need_shares(self, y)
        partner, share = self.partners(ops.xp, len(x), draw), self.shares(ops.xp, len(x), draw)
        return tuple(_mixed(a, a[partner], share) for a in (x, y))


class CutMix(_Mixture, _OfImages):
    """A rectangle of the picture replaced by that of another; y mixed by their areas.

    alpha: the rectangle's share of the picture is 1 - s, with s from Beta(alpha, alpha).  Its proportions are
    the picture's and its centre lies anywhere in it.  Targets that are maps get the same rectangle of the
    other's.  S. Yun et al., CutMix: regularization strategy to train strong classifiers with localizable
    features, 2019.
    """

    def __init__(self, alpha=1.0):
        super().__init__(alpha)

    def __call__(self, ops, x, y, draw):
        (N, _, H, W), xp = x.shape, ops.xp
        partner = self.partners(xp, N, draw)
        side = xp.sqrt(1 - self.shares(xp, N, draw))
        rows, columns = (_span(xp, draw(N), n, _whole(side, n).reshape(N, 1)) for n in (H, W))
        cut = rows.reshape(N, 1, H, 1) & columns.reshape(N, 1, 1, W)
        if y.ndim > 2 and y.shape[-2:] == (H, W):
            y = xp.where(cut if y.ndim == 4 else cut[:, 0], y[partner], y)
        else:
            _need_shares(self, y)
            kept = 1 - rows.sum(axis=1) * columns.sum(axis=1) / (H * W)
            y = _mixed(y, y[partner], kept)
        return xp.where(cut, x[partner], x), y


# -- parts of them -------------------------------------------------------------------------------------------


def _whole(u, n: int):
    """From uniform u whole numbers 0 .. n - 1, all as likely (0, where n is 0)."""
    return (u * n).astype(np.int64)


def _span(xp, u, n: int, side):
    """Which of n places, (N, n), lie in a span of `side` about a centre that u (N,) picks."""
    i, first = xp.arange(n), _whole(u, n).reshape(-1, 1) - side // 2
    return (i >= first) & (i < first + side)


def _each(v, x):
    """v (N,), a number a sample, as a factor of x."""
    return v.reshape(-1, *(1 for _ in x.shape[1:]))


def _mixed(a, b, share):
    """a share + b (1 - share), in the memory of b."""
    b += (a - b) * _each(share, a)
    return b


def _need_shares(mixture: Augmentation, y) -> None:
    if y.dtype.kind != "f":
        raise ShapeError(
            f"{type(mixture).__name__} mixes targets. Received: y of shape {y.shape} and dtype {y.dtype}. "
            "Expected: floats; class indices as rows (N, K), by xpnet.utils.to_categorical(y)"
        )


# -- arguments -----------------------------------------------------------------------------------------------


def _is_real(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _real(kind: str, name: str, value, least: float = -math.inf) -> float:
    if not _is_real(value) or value < least:
        bound = "" if least == -math.inf else f" of at least {least:g}"
        raise ValueError(f"{kind}: {name} must be a number{bound}. Received: {value!r}")
    return float(value)


def _share(kind: str, name: str, value, most: float = 0.99) -> float:
    if not _is_real(value) or not 0 <= value <= most:
        raise ValueError(f"{kind}: {name} must be a number from 0 to {most:g}. Received: {value!r}")
    return float(value)


def _range(kind: str, value) -> tuple[float, float]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not all(map(_is_real, pair)) or pair[0] >= pair[1]:
        raise ValueError(f"{kind}: value_range must be a pair that rises, as (0, 255). Received: {value!r}")
    return pair


def _pair(kind: str, name: str, value, least: int = 0) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    whole = all(isinstance(v, Integral) and not isinstance(v, bool) and int(v) >= least for v in pair)
    if len(pair) != 2 or not whole:
        raise ValueError(
            f"{kind}: {name} must be a whole number of at least {least}, or a pair of them. Received: "
            f"{value!r}"
        )
    return int(pair[0]), int(pair[1])


def _fill(kind: str, mode, value) -> tuple[str, float]:
    if mode not in FILL_MODES:
        raise unknown(f"fill_mode of {kind}", mode, FILL_MODES)
    return mode, _real(kind, "fill_value", value)
