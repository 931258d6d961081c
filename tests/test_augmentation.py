"""Augmentation: every change against one written out for a single picture, on every set of operations."""

import math

import numpy as np
import pytest
from cases import assert_close
from scipy import ndimage, stats

from xpnet import ShapeError
from xpnet.config import describe, restore
from xpnet.data import (
    Augmentation,
    CutMix,
    Cutout,
    GaussianNoise,
    MixUp,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomZoom,
    apply,
)
from xpnet.data.augmentation import checked
from xpnet.ops.numpy_ops import NumpyOps
from xpnet.ops.reference import Ops

FILL_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")
LAST = np.float32(1 - 2**-24)  # the largest number that a draw yields


class Draws:
    """draw of a step: numbers from rng, kept in `given`."""

    def __init__(self, ops, rng):
        self.ops, self.rng, self.given = ops, rng, []

    def __call__(self, *shape):
        self.given.append(self.rng.random(shape, dtype=np.float32))
        return self.ops.asarray(self.given[-1])


class Again:
    """draw that yields arrays of the device once more, in their order."""

    def __init__(self, ops, given):
        self.left = [ops.asarray(u) for u in given]

    def __call__(self, *shape):
        u = self.left.pop(0)
        assert u.shape == shape
        return u


ORDERS = {"samples first": (0, 1, 2, 3), "packed": (2, 1, 3, 0), "channels last": (0, 2, 3, 1)}


def laid_out(ops, x, order="samples first"):
    """x (N, C, H, W) on the device as a view of memory in another order of its axes."""
    axes = ORDERS[order]
    return ops.asarray(np.ascontiguousarray(x.transpose(axes))).transpose(*map(int, np.argsort(axes)))


def changed(one, ops, x, y, rng):
    """x, y and the numbers that were drawn, of the host."""
    draw = Draws(ops, rng)
    xs, ys = one(ops, laid_out(ops, x), ops.asarray(y), draw)
    return ops.to_host(xs), ops.to_host(ys), draw.given


# -- what is done to a single picture ------------------------------------------------------------------------


def cropped(one, a, top, left, fill=None):
    (p, q), (_, H, W) = one.padding, a.shape
    more = {"constant_values": one.fill_value if fill is None else fill}
    around = np.pad(
        a, ((0, 0), (p, p), (q, q)), mode=one.fill_mode, **(more if one.fill_mode == "constant" else {})
    )
    i, j = int(top * (2 * p + 1)), int(left * (2 * q + 1))
    return around[:, i : i + H, j : j + W]


SCIPY = dict(zip(FILL_MODES, ("grid-constant", "nearest", "mirror", "grid-mirror", "grid-wrap")))


def seen_through(one, matrix, a, order=1, fill=None):
    """scipy's picture of a (C, H, W) through the matrix about its centre."""
    centre = (np.array(a.shape[1:]) - 1) / 2
    fill = one.fill_value if fill is None else fill
    return np.stack(
        [
            ndimage.affine_transform(
                channel, matrix, centre - matrix @ centre, order=order, mode=SCIPY[one.fill_mode], cval=fill
            )
            for channel in a.astype(np.float64)
        ]
    )


def between_two(matrix, a):
    """Which pixels of a (C, H, W) see a place so near the middle of two that rounding picks one, (H, W)."""
    centre = (np.array(a.shape[1:]) - 1) / 2
    places = np.moveaxis(np.indices(a.shape[1:]), 0, -1) - centre
    return (np.abs((places @ matrix.T + centre) % 1 - 0.5) < 1e-4).any(axis=-1)


def turned_by(u, least, most):
    t = math.radians(least + u * (most - least))
    return np.array([[math.cos(t), math.sin(t)], [-math.sin(t), math.cos(t)]])


def holed(a, u, v, size, value):
    _, H, W = a.shape
    top, left = int(u * H) - size[0] // 2, int(v * W) - size[1] // 2
    out = a.copy()
    out[:, max(top, 0) : max(top + size[0], 0), max(left, 0) : max(left + size[1], 0)] = value
    return out


def beta(alpha, u, v):
    """Bailey's polar method for Student's t, and from that the share, as the papers have it."""
    t = math.cos(2 * math.pi * v) * math.sqrt(2 * alpha * ((1 - float(u)) ** (-1 / alpha) - 1))
    return (1 + t / math.sqrt(2 * alpha + t * t)) / 2


def sample(ops, rng, shape=(6, 3, 7, 10), dtype=np.float32):
    return rng.random(shape).astype(dtype), np.arange(shape[0]) % 3


@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("padding", [0, 4, (1, 6)])
def test_random_crop_takes_a_window_of_the_padded_picture(ops, rng, fill_mode, padding):
    one = RandomCrop(padding, fill_mode, fill_value=0.25)
    x, y = sample(ops, rng)
    received, labels, (u, v) = changed(one, ops, x, y, rng)
    np.testing.assert_array_equal(labels, y)
    np.testing.assert_array_equal(received, [cropped(one, *of_one) for of_one in zip(x, u, v)])


@pytest.mark.parametrize("mode, axes", [("horizontal", [2]), ("vertical", [1]), (None, [2, 1])])
def test_random_flip_mirrors_half_of_the_pictures(ops, rng, mode, axes):
    one = RandomFlip(mode) if mode else RandomFlip()
    x, y = sample(ops, rng, (40, 2, 3, 4))
    received, _, given = changed(one, ops, x, y, rng)
    assert len(given) == len(axes)
    for n, a in enumerate(x):
        for axis, u in zip(axes, given):
            a = np.flip(a, axis) if u[n] < 0.5 else a
        np.testing.assert_array_equal(received[n], a)
    assert any((r == a).all() for r, a in zip(received, x)) and (received != x).any()


@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("degrees", [20, 180, (90, 135)])
def test_random_rotation_is_scipys(ops, rng, degrees, interpolation, fill_mode):
    one = RandomRotation(degrees, interpolation, fill_mode, fill_value=0.5)
    x, y = sample(ops, rng)
    received, _, (u,) = changed(one, ops, x, y, rng)
    least, most = degrees if isinstance(degrees, tuple) else (-degrees, degrees)
    for a, v, mine in zip(x, u, received):
        matrix = turned_by(v, least, most)
        if interpolation == "bilinear":
            assert_close(mine, seen_through(one, matrix, a), 2e-5)
        else:
            clear = ~between_two(matrix, a)
            assert clear.mean() > 0.8
            assert_close(mine[:, clear], seen_through(one, matrix, a, order=0)[:, clear], 1e-6)


@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("factor", [0.3, 0.9])
def test_random_zoom_is_scipys(ops, rng, factor, fill_mode):
    one = RandomZoom(factor, fill_mode=fill_mode, fill_value=0.5)
    x, y = sample(ops, rng)
    received, _, (u,) = changed(one, ops, x, y, rng)
    expected = [seen_through(one, (1 + factor * (2 * v - 1)) * np.eye(2), a) for a, v in zip(x, u)]
    assert_close(received, expected, 2e-5)


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (2, 2, 1, 9), (2, 1, 9, 1)])
@pytest.mark.parametrize("fill_mode", FILL_MODES)
def test_thin_pictures_turn_too(ops, rng, shape, fill_mode):
    one = RandomRotation(180, fill_mode=fill_mode)
    x, y = sample(ops, rng, shape)
    received, _, (u,) = changed(one, ops, x, y, rng)
    if fill_mode in ("constant", "edge"):  # scipy knows no others across a single pixel
        expected = [seen_through(one, turned_by(v, -180, 180), a) for a, v in zip(x, u)]
        assert_close(received, expected, 2e-5)
    assert received.shape == x.shape and received.min() >= -1e-6 and received.max() <= x.max() + 1e-6


def test_a_quarter_turn_and_none_are_exact(ops, rng):
    x, y = sample(ops, rng, (2, 3, 5, 5))
    received, _, _ = changed(RandomRotation((0, 0)), ops, x, y, rng)
    np.testing.assert_array_equal(received, x)
    received, _, _ = changed(RandomRotation((90, 90), "nearest"), ops, x, y, rng)
    np.testing.assert_array_equal(received, np.rot90(x, axes=(2, 3)))


@pytest.mark.parametrize("size", [1, 4, (3, 10), (7, 2)])
def test_cutout_blanks_a_rectangle_about_a_pixel(ops, rng, size):
    one = Cutout(size, fill_value=9.0)
    x, y = sample(ops, rng, (30, 2, 7, 10))
    received, _, (u, v) = changed(one, ops, x, y, rng)
    expected = [holed(a, s, t, one.size, 9.0) for a, s, t in zip(x, u, v)]
    np.testing.assert_array_equal(received, expected)
    assert (received == 9).any(axis=(1, 2, 3)).all()


def test_brightness_and_contrast_are_clipped_to_their_range(ops, rng):
    x, y = sample(ops, rng)
    received, _, (u,) = changed(RandomBrightness(0.5, (0, 1)), ops, x, y, rng)
    assert_close(received, [np.clip(a + (2 * v - 1) * 0.5, 0, 1) for a, v in zip(x, u)], 1e-6)
    assert received.min() == 0 or received.max() == 1
    received, _, (u,) = changed(RandomBrightness(0.1, (0, 255)), ops, 255 * x, y, rng)
    assert_close(received, [np.clip(255 * a + (2 * v - 1) * 25.5, 0, 255) for a, v in zip(x, u)], 1e-6)
    received, _, (u,) = changed(RandomContrast(0.9, (0.0, 1.0)), ops, x, y, rng)
    means = x.mean(axis=(2, 3), keepdims=True)
    expected = [np.clip(m + (a - m) * (1 + 0.9 * (2 * v - 1)), 0, 1) for a, m, v in zip(x, means, u)]
    assert_close(received, expected, 1e-5)


@pytest.mark.parametrize("shape", [(6, 3, 7, 11), (5, 7)])
def test_gaussian_noise_is_normal_numbers_by_box_and_muller(ops, rng, shape):
    x = np.zeros(shape, np.float32)
    draw = Draws(ops, rng)
    received = ops.to_host(GaussianNoise(0.5)(ops, ops.asarray(x), ops.asarray(np.zeros(len(x))), draw)[0])
    u, v = (a.astype(np.float64) for a in draw.given)
    r = 0.5 * np.sqrt(-2 * np.log(1 - u))
    normal = np.concatenate([r * np.cos(2 * np.pi * v), r * np.sin(2 * np.pi * v)])[: x.size]
    assert_close(received, normal.reshape(shape), 1e-5)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
@pytest.mark.parametrize("shape", [(7, 3, 4, 5), (7, 4), (1, 4)])
def test_mixup_mixes_samples_and_targets_in_one_proportion(ops, rng, shape, alpha):
    x, y = rng.random(shape, dtype=np.float32), rng.random((shape[0], 3), dtype=np.float32)
    draw, N = Draws(ops, rng), shape[0]
    xs, ys = (ops.to_host(a) for a in MixUp(alpha)(ops, ops.asarray(x), ops.asarray(y), draw))
    step, u, v = draw.given
    for n in range(N):
        other, share = (n + 1 + int(step[0] * (N - 1))) % N, beta(alpha, u[n], v[n])
        assert other != n or N == 1
        assert_close(xs[n], share * x[n] + (1 - share) * x[other], 1e-5)
        assert_close(ys[n], share * y[n] + (1 - share) * y[other], 1e-5)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_cutmix_mixes_targets_by_area(ops, rng, alpha):
    x = rng.random((20, 2, 6, 9), dtype=np.float32)
    y = np.eye(3, dtype=np.float32)[np.arange(20) % 3]
    received, targets, (step, u, v, rows, columns) = changed(CutMix(alpha), ops, x, y, rng)
    for n in range(20):
        other = (n + 1 + int(step[0] * 19)) % 20
        side = math.sqrt(1 - beta(alpha, u[n], v[n]))
        h, w = int(side * 6), int(side * 9)
        top, left = int(rows[n] * 6) - h // 2, int(columns[n] * 9) - w // 2
        cut = np.zeros((6, 9), bool)
        cut[max(top, 0) : max(top + h, 0), max(left, 0) : max(left + w, 0)] = True
        np.testing.assert_array_equal(received[n], np.where(cut, x[other], x[n]))
        assert_close(targets[n], y[n] * (1 - cut.mean()) + y[other] * cut.mean(), 1e-6)


# -- what holds for all of them ------------------------------------------------------------------------------

EVERY = [
    RandomCrop(2), RandomCrop((1, 3), "reflect"), RandomFlip(), RandomRotation(40), RandomZoom(0.5),
    RandomRotation(100, "nearest", "wrap"), Cutout(3), RandomBrightness(0.3, (0, 1)),
    RandomContrast(0.7, (0, 1)), GaussianNoise(0.1), MixUp(0.4), CutMix(),
]  # fmt: skip
every_one = pytest.mark.parametrize("one", EVERY, ids=repr)


@every_one
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_memory_order_gives_the_same_and_the_users_data_are_not_written(ops, rng, one, dtype):
    x, y = rng.random((5, 3, 6, 7)).astype(dtype), rng.random((5, 4)).astype(dtype)
    expected, targets, given = changed(one, ops, x, y, rng)
    assert expected.dtype == targets.dtype == dtype and (expected != x).any()
    for order in ORDERS:
        mine, labels = laid_out(ops, x, order), ops.asarray(y)
        xs, ys = one(ops, mine, labels, Again(ops, given))
        # sums over a channel round by the order of its pixels in memory
        assert_close(ops.to_host(xs), expected, 1e-6 if dtype == np.float32 else 1e-14)
        np.testing.assert_array_equal(ops.to_host(ys), targets)
        np.testing.assert_array_equal(ops.to_host(mine), x)
        np.testing.assert_array_equal(ops.to_host(labels), y)
        assert not np.shares_memory(ops.to_host(xs), x) and xs is not mine


@every_one
def test_the_cpu_and_the_plain_code_agree_on_a_large_batch(rng, one):
    """So large that the CPU works through it in several blocks, the last of them smaller."""
    x, y = rng.random((81, 1, 20, 20), dtype=np.float32), rng.random((81, 4), dtype=np.float32)
    expected, targets, given = changed(one, Ops(), x, y, rng)
    xs, ys = one(NumpyOps(), x, y, Again(NumpyOps(), given))
    np.testing.assert_array_equal(xs, expected), np.testing.assert_array_equal(ys, targets)


@every_one
def test_nothing_waits_for_the_device(rng, one):
    import strict_xp

    ops = strict_xp.strict_ops()
    x, y = rng.random((5, 3, 6, 7), dtype=np.float32), rng.random((5, 4), dtype=np.float32)
    _, _, given = changed(one, ops, x, y, rng)
    x, y, draw = laid_out(ops, x, "packed"), ops.asarray(y), Again(ops, given)
    with strict_xp.no_syncs():
        one(ops, x, y, draw)
    assert not draw.left


@every_one
@pytest.mark.parametrize("u", [0.0, LAST])
def test_the_first_and_the_last_number_of_a_draw_are_within_bounds(ops, one, u):
    x, y = np.full((3, 2, 5, 6), 0.5, np.float32), np.full((3, 2), 0.5, np.float32)
    xs, ys = one(ops, laid_out(ops, x), ops.asarray(y), lambda *shape: ops.asarray(np.full(shape, u)))
    assert np.isfinite(ops.to_host(xs)).all() and np.isfinite(ops.to_host(ys)).all()
    least, most = (-4, 4) if isinstance(one, GaussianNoise) else (0, 1)
    assert least <= ops.to_host(xs).min() and ops.to_host(xs).max() <= most


@every_one
def test_each_is_described_by_its_arguments(one):
    assert repr(restore(describe(one))) == repr(one)
    assert vars(restore(describe(one))).keys() == vars(one).keys()


MOVES = [RandomCrop(2, fill_value=0.5), RandomFlip(), RandomRotation(50, fill_value=0.5), RandomZoom(0.5)]


@pytest.mark.parametrize("one", MOVES, ids=repr)
def test_targets_that_are_maps_move_with_their_pictures(ops, rng, one):
    """What comes in from beyond the border is 0, and classes are never between two."""
    x = rng.random((5, 1, 6, 7), dtype=np.float32)
    mask = rng.integers(1, 5, (5, 6, 7))
    moved, classes, given = changed(one, ops, x, mask, rng)
    known = one.get_config()
    bare, nearest = (
        type(one)(**known | {name: value for name, value in other.items() if name in known})
        for other in ({"fill_value": 0.0}, {"fill_value": 0.0, "interpolation": "nearest"})
    )
    expected, _ = nearest(NumpyOps(), mask[:, None].astype(np.float32), mask, Again(NumpyOps(), given))
    assert classes.dtype == mask.dtype and (classes != mask).any()
    np.testing.assert_array_equal(classes, expected[:, 0])
    maps = np.concatenate([x, 2 * x], axis=1)
    _, both = one(ops, ops.asarray(x), ops.asarray(maps), Again(ops, given))
    expected, _ = bare(NumpyOps(), x, mask, Again(NumpyOps(), given))
    assert_close(ops.to_host(both), np.concatenate([expected, 2 * expected], axis=1), 1e-6)
    assert (moved != expected).any() == (bare.get_config() != known)


def test_maps_of_another_size_and_rows_stay_as_they_are(ops, rng):
    x = rng.random((5, 1, 6, 7), dtype=np.float32)
    for y in (np.arange(5), rng.random((5, 3)), rng.random((5, 2, 1, 1))):
        _, same, _ = changed(RandomFlip(), ops, x, y, rng)
        np.testing.assert_array_equal(same, y)


@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_cutmix_takes_the_rectangle_of_a_map_too(ops, rng, kind):
    x = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 1, 6, 7)
    y = x.astype(kind) if kind is np.float32 else x[:, 0].astype(kind)
    received, targets, _ = changed(CutMix(), ops, x, y, rng)
    np.testing.assert_array_equal(targets.reshape(received.shape), received)
    assert (received != x).any()


def test_mixup_mixes_maps_of_probabilities(ops, rng):
    x = rng.random((4, 2, 3, 5), dtype=np.float32)
    received, targets, _ = changed(MixUp(), ops, x, x.copy(), rng)
    np.testing.assert_array_equal(targets, received)


# -- chance --------------------------------------------------------------------------------------------------


def test_each_offset_of_a_crop_is_as_likely(rng):
    x = np.zeros((20000, 1, 3, 3), np.float32)
    x[:, :, 1, 1] = 1  # a dot that may come to lie in any of nine places
    moved, _, _ = changed(RandomCrop(1), NumpyOps(), x, x[:, 0, 0, 0], rng)
    assert stats.chisquare(moved.sum(axis=(0, 1)).ravel()).pvalue > 1e-3


def test_angles_and_zooms_fill_their_range(rng):
    u = rng.random(5000, dtype=np.float32)
    cos, sin, _, _ = RandomRotation((10, 50)).maps(np, u)
    angles = np.degrees(np.arctan2(sin, cos))
    assert stats.kstest(angles, stats.uniform(10, 40).cdf).pvalue > 1e-3
    assert stats.kstest(RandomZoom(0.2).maps(np, u)[0], stats.uniform(0.8, 0.4).cdf).pvalue > 1e-3


def test_a_hole_may_be_centred_on_any_pixel(rng):
    x = np.zeros((30000, 1, 3, 5), np.float32)
    holes, _, _ = changed(Cutout(1, 1.0), NumpyOps(), x, x[:, 0, 0, 0], rng)
    assert stats.chisquare(holes.sum(axis=(0, 1)).ravel()).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 4.0, 100.0])
def test_shares_are_beta_distributed(rng, alpha):
    shares = MixUp(alpha).shares(np, 20000, Draws(NumpyOps(), rng))
    assert shares.dtype == np.float32 and shares.min() >= 0 and shares.max() <= 1
    assert abs(shares.mean() - 0.5) < 0.02
    # below 1e-6 float32 has no shares near 1; the distribution is held against what is between
    inner = stats.beta(alpha, alpha).cdf(np.linspace(0.01, 0.99, 99))
    assert np.abs(np.searchsorted(np.sort(shares), np.linspace(0.01, 0.99, 99)) / 20000 - inner).max() < 0.014


def test_noise_is_normal(rng):
    x = np.zeros((200, 101), np.float32)
    noise = GaussianNoise(2.0)(NumpyOps(), x, x, Draws(NumpyOps(), rng))[0]
    assert stats.kstest(noise.ravel(), stats.norm(0, 2).cdf).pvalue > 1e-3


def test_partners_are_all_others_and_never_the_sample_itself(rng):
    seen = set()
    for _ in range(200):
        partners = MixUp().partners(np, 5, Draws(NumpyOps(), rng))
        assert sorted(partners) == list(range(5)) and (partners != np.arange(5)).all()
        seen.add(int(partners[0]))
    assert seen == {1, 2, 3, 4}


# -- by hand -------------------------------------------------------------------------------------------------


def test_apply_shows_what_training_sees(rng):
    x, y = (255 * rng.random((6, 3, 8, 8))).astype(np.uint8), np.arange(6) % 3
    xs, ys = apply([RandomFlip("horizontal"), MixUp(0.4)], x, y, seed=1)
    assert xs.dtype == np.float32 and ys.shape == (6, 3) and np.allclose(ys.sum(axis=1), 1)
    again, _ = apply([RandomFlip("horizontal"), MixUp(0.4)], x, y, seed=1)
    np.testing.assert_array_equal(xs, again)
    assert (xs != apply([RandomFlip("horizontal"), MixUp(0.4)], x, y, seed=2)[0]).any()
    assert apply(RandomFlip(), x).shape == x.shape  # one alone, and no targets
    np.testing.assert_array_equal(apply(None, x), x)
    last, _ = apply([RandomFlip("horizontal"), MixUp(0.4)], x.transpose(0, 2, 3, 1), y, 1, "channels_last")
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), xs)
    with pytest.raises(ValueError, match="unknown data_format"):
        apply(None, x, data_format="NHWC")
    with pytest.raises(ShapeError, match="6 in x, 2 in y"):
        apply(MixUp(), x, y[:2])
    masks = rng.integers(0, 3, (6, 8, 8))
    assert apply([RandomRotation(20), CutMix()], x, masks)[1].shape == (6, 3, 8, 8)


class Halved(Augmentation):
    def __call__(self, ops, x, y, draw):
        return x / 2, y


def test_augmentation_of_ones_own(rng):
    x = rng.random((3, 4), dtype=np.float32)
    np.testing.assert_array_equal(apply(Halved(), x), x / 2)
    with pytest.raises(NotImplementedError, match="Augmentation has no __call__"):
        apply(Augmentation(), x)


@pytest.mark.parametrize(
    "of_images", [one for one in EVERY if type(one) not in (GaussianNoise, MixUp)], ids=repr
)
def test_vectors_are_refused_where_images_are_needed(of_images):
    with pytest.raises(ShapeError, match=rf"{type(of_images).__name__} needs images. Received: .*\(64,\)"):
        of_images.check((64,))
    with pytest.raises(ShapeError, match="needs images"):
        checked([GaussianNoise(0.1), of_images], (64,))
    (
        of_images.check((3, 8, 8), (8, 8)),
        of_images.check((3, 8, 8), (10, 1, 1)),
        GaussianNoise(0.1).check((64,)),
        MixUp().check((64,), (10,)),
    )


@pytest.mark.parametrize(
    "one, target, words",
    [
        (RandomFlip(), (4, 4), r"cannot move these targets.*shape \(4, 4\) for images of 8x8"),
        (RandomRotation(9), (2, 16, 16), "Expected: maps of the same height and width"),
        (RandomCrop((2, 8)), (), r"padding must be less than the image's size. Received: \(2, 8\)"),
        (Cutout((9, 2)), (), r"size must fit the image. Received: \(9, 2\) for images of 8x8"),
    ],
)
def test_what_does_not_suit_the_data_is_said(one, target, words):
    with pytest.raises(ShapeError, match=words):
        one.check((3, 8, 8), target)


@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda: RandomCrop(-1),
            "padding must be a whole number of at least 0.* Received: -1",
        ),
        (lambda: RandomCrop(1.5), "Received: 1.5"),
        (lambda: RandomCrop((1, 2, 3)), r"Received: \(1, 2, 3\)"),
        (lambda: RandomCrop(2, "mirror"), "unknown fill_mode of RandomCrop. Received: 'mirror'"),
        (lambda: RandomCrop(2, fill_value="black"), "fill_value must be a number. Received: 'black'"),
        (lambda: RandomFlip("horizontl"), "Did you mean 'horizontal'"),
        (lambda: RandomRotation(-5), "degrees must be 0 to 360, or a pair that rises. Received: -5"),
        (lambda: RandomRotation((30, 10)), r"Received: \(30, 10\)"),
        (lambda: RandomRotation(float("nan")), "Received: nan"),
        (lambda: RandomRotation(9, "cubic"), "unknown interpolation of RandomRotation"),
        (lambda: RandomZoom(1.0), "factor must be a number from 0 to 0.99. Received: 1.0"),
        (lambda: Cutout(0), "size must be a whole number of at least 1"),
        (lambda: RandomBrightness(2, (0, 1)), "factor must be a number from 0 to 1. Received: 2"),
        (lambda: RandomContrast(0.1, (1, 0)), r"value_range must be a pair that rises.*\(1, 0\)"),
        (lambda: GaussianNoise(-1), "stddev must be a number of at least 0. Received: -1"),
        (lambda: MixUp(0), "alpha must be above 0. Received: 0"),
        (lambda: CutMix(True), "CutMix: alpha must be a number of at least 0. Received: True"),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_share_of_a_turn_is_remarked_upon():
    with pytest.warns(UserWarning, match=r"less than one degree. Received: degrees=0.1.*multiply it by 360"):
        RandomRotation(0.1)


@pytest.mark.parametrize(
    "given", [[RandomFlip], RandomFlip, [np.fliplr], "flip", [RandomFlip(), "cutout"], 3]
)
def test_what_is_no_augmentation_is_refused(given):
    with pytest.raises(TypeError, match=r"augment must be a list of augmentations. Received: "):
        checked(given, (3, 8, 8))


@pytest.mark.parametrize("mixture", [MixUp(), CutMix()], ids=repr)
def test_class_indices_cannot_be_mixed(rng, mixture):
    x = rng.random((4, 1, 5, 5), dtype=np.float32)
    with pytest.raises(ShapeError, match=r"mixes targets.*dtype int64.*to_categorical"):
        mixture(NumpyOps(), x, np.arange(4), Draws(NumpyOps(), rng))
