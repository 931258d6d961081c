"""Where in an image a model finds its answer: gradients of a class's score by the pixels, and Grad-CAM.

The score S of a class is its logit: what the model yields before a softmax or sigmoid at its end.  (A
probability hardly has a slope where the model is sure.)  Layers work as in inference: no dropout mask is
drawn, BatchNormalization takes its running statistics, and nothing of the model changes; gradients of
parameters go to memory of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..activations import LogSoftmax, Sigmoid, Softmax
from ..errors import ShapeError, unknown
from ..layers import Activation, BatchNormalization, GroupNormalization, LayerNormalization
from ..layers.conv import Convolution
from ..network import on_device
from ..training.inputs import whole
from ..training.step import clone
from .answers import last_activation, network, says_yes_or_no
from .grids import layer_with_maps

BLOCK = 64  # samples at a time, which bounds the memory of what the layers keep for backward
FINISHING = (Activation, BatchNormalization, GroupNormalization, LayerNormalization)
METHODS = ("gradient", "input_x_gradient", "integrated_gradients", "smoothgrad")


def saliency(
    model,
    x,
    target=None,
    method: str = "gradient",
    *,
    steps: int = 50,
    baseline: Any = 0.0,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> np.ndarray:
    """How much each number of x says for the target class: an array of x's shape, with signs.

    x: samples (N, ...) as for `model.predict`.  target: a class, or one for each sample; None: the class
    predicted.  Of a single yes-or-no output 1 is the class and 0 its opposite; of another single output, 0 is
    the output itself.  Of a model that yields maps, the scores of all pixels are added up.  method: one of

        gradient              dS/dx; largest |dS/dx| of a pixel's channels is its saliency
                              Simonyan, Vedaldi & Zisserman, 2013, section 3
        input_x_gradient      x dS/dx     Shrikumar et al., 2016
        integrated_gradients  (x - b) mean of dS/dx at b + (x - b) (k - 1/2) / steps, k = 1 .. steps; adds up
                              to S(x) - S(b), b the baseline
                              Sundararajan, Taly & Yan, 2017, eq. 1 and 3
        smoothgrad            mean of dS/dx over so many samples with normal noise added, of deviation noise
                              (max(x) - min(x)), each image's own; seed: of the noise
                              Smilkov et al., 2017, section 3

    Raises ValueError for another method, and for noise that is no share.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    steps, samples = whole("steps", steps, 1), whole("samples", samples, 1)
    if isinstance(noise, bool) or not 0 <= noise < np.inf:
        raise ValueError(f"noise must be a finite share of at least 0. Received: {noise!r}")
    shape = np.shape(x)
    found: Any
    x, target = asked(model, x, target)
    if method == "gradient":
        found = _gradient(model, x, target)
    elif method == "input_x_gradient":
        found = x * _gradient(model, x, target)
    elif method == "smoothgrad":
        rng, axes = np.random.default_rng(seed), tuple(range(1, x.ndim))
        spread = noise * (x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True))
        noisy = (x + spread * rng.standard_normal(x.shape) for _ in range(samples))
        found = sum(_gradient(model, one, target) for one in noisy) / samples
    else:
        b = _baseline(baseline, shape).reshape(x.shape)
        between = (b + (x - b) * ((k - 0.5) / steps) for k in range(1, steps + 1))
        found = (x - b) * sum(_gradient(model, one, target) for one in between) / steps
    return found.astype(model.dtype).reshape(shape)


def grad_cam(model, x, target=None, layer=None) -> np.ndarray:
    """How much each place of a layer's maps says for the target class: (N, H, W), H and W the maps'.

        L = max(0, sum over k of a_k A_k),   a_k = mean of dS/dA_k over its pixels
        Selvaraju et al., 2017, eq. 1 and 2

    A_k: the layer's maps.  x, target: as in `saliency`.  layer: its name, its place in `model.layers`, or
    itself; by default the last convolution, or block with convolutions, together with the normalization and
    activation that follow it.
    """
    x, target = asked(model, x, target)
    chosen = layer_with_maps(model, layer, "the last convolution", lambda found: _last_convolution(model))
    place = next(i for i, one in enumerate(model.layers) if one is chosen)
    maps, slopes = _maps_and_slopes(model, x, target, place)
    weights = slopes.mean(axis=(2, 3), keepdims=True)  # (N, C, 1, 1), eq. 1
    return np.maximum((weights * maps).sum(axis=1), 0)  # eq. 2


def _last_convolution(model):
    """The last layer with a convolution, or the activation or normalization after it."""
    layers = model.layers
    places = [i for i, one in enumerate(layers) if len(one.out_shape) == 3 and convolves(one)]
    if not places:
        raise ShapeError(
            f"Grad-CAM looks at the maps of a convolution, and this model has none. Received: {model!r}. "
            "Expected: one with a Conv2D, or layer=, a layer that yields maps"
        )
    place = places[-1]
    while place + 2 < len(layers) and isinstance(layers[place + 1], FINISHING):
        place += 1
    return layers[place]


def convolves(layer) -> bool:
    inside = [one for branch in layer.children().values() for one in branch]
    return isinstance(layer, Convolution) or any(map(convolves, inside))


def _baseline(baseline, shape) -> np.ndarray:
    try:
        return np.broadcast_to(np.asarray(baseline, float), shape)
    except ValueError:
        raise ShapeError(
            f"the baseline does not fit x. Received: {np.shape(baseline)}. Expected: a number, or {shape}"
        ) from None


def asked(model, x, target) -> tuple[np.ndarray, np.ndarray]:
    """Checked samples on the host, in the model's type, and a class for each."""
    return _checked(network(model), x, target)


@on_device
def _checked(model, x, target) -> tuple[np.ndarray, np.ndarray]:
    x = model.ops.to_host(model._inputs(x)).astype(model.dtype)
    K, N = model.chain.out_shape[0], len(x)
    classes = 2 if says_yes_or_no(model) else K
    if target is None:
        if classes == 1:
            return x, np.zeros(N, int)
        scores = np.concatenate([_scores(model, x[part]) for part in _blocks(N)])
        return x, scores.argmax(axis=1) if K > 1 else (scores[:, 0] > 0).astype(int)
    wanted = np.asarray(target)
    if wanted.dtype.kind not in "iu" or wanted.shape not in ((), (N,)):
        raise ValueError(
            f"target must be a class, or one for each sample. Received: {target!r}. Expected: a whole number "
            f"below {classes}, or {N} of them"
        )
    strange = (wanted < 0) | (wanted >= classes)
    if strange.any():
        raise ValueError(
            f"target must be a class of the model. Received: {int(wanted[strange].flat[0])}. Expected: 0 to "
            f"{classes - 1}"
        )
    return x, np.broadcast_to(wanted, (N,)).astype(int)


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]


def _gradient(model, x, target) -> np.ndarray:
    """dS/dx, in x's shape."""
    parts = [_slopes(model, x[part], target[part], -1)[1] for part in _blocks(len(x))]
    slopes = np.concatenate(parts)
    return (
        slopes.transpose(0, 2, 3, 1) if slopes.ndim == 4 and model.data_format == "channels_last" else slopes
    )


def _maps_and_slopes(model, x, target, place: int) -> tuple[np.ndarray, np.ndarray]:
    """The maps of layer `place` and dS/d of them, (N, C, H, W) both."""
    parts = [_slopes(model, x[part], target[part], place) for part in _blocks(len(x))]
    maps, slopes = (np.concatenate(both) for both in zip(*parts))
    return maps, slopes


@on_device
def _slopes(model, x, target, place: int) -> tuple[np.ndarray, np.ndarray]:
    """The output of layer `place`, -1 for x itself, and dS/d of it; the samples first, channels next."""
    ops, layers = model.ops, _twins(model)
    with np.errstate(all="ignore"):
        through, caches = _forward(model, layers, x)
        here = np.array(ops.to_host(model.leave(through[place + 1])))  # backward may use it up
        dS = _seed(model, ops.to_host(model.leave(through[-1])), target)
        d = ops.pack(ops.asarray(dS), model.dtype) if dS.ndim == 4 else ops.asarray(dS)
        for layer in reversed(layers[place + 1 :]):
            d = layer.backward(d, caches.pop())
        return here, np.array(ops.to_host(model.leave(d)))


def _seed(model, y, target) -> np.ndarray:
    """dS/dy of the outputs y before their softmax or sigmoid."""
    dS = np.zeros_like(y)
    if says_yes_or_no(model):
        dS[:, 0] = 2 * target - 1
    else:
        dS[np.arange(len(y)), target] = 1
    return dS


def _scores(model, x) -> np.ndarray:
    """S of every class: (N, K)."""
    with np.errstate(all="ignore"):
        y = model.ops.to_host(model.leave(_forward(model, _twins(model), x)[0][-1]))
    return y if y.ndim == 2 else y.sum(axis=(2, 3))


def _forward(model, layers, x) -> tuple[list, list]:
    """What goes into each layer, with the output at the end; and the layers' caches."""
    through, caches = [model.enter(x, model.ops)], []
    for layer in layers:
        y, cache = layer.forward(through[-1], train=False)
        through.append(y)
        caches.append(cache)
    return through, caches


def _twins(model) -> list:
    """The layers with gradients of their own, and without a softmax or sigmoid at the end."""
    scratch = model.ops.flat(len(model.params.grads), model.dtype)
    twins: list = [clone(layer, model.ops, scratch) for layer in model.layers]
    if isinstance(last_activation(model), (LogSoftmax, Sigmoid, Softmax)):
        twins[-1] = twins[-1].without_activation()
    return twins
