"""Pictures of where in an image a model finds its answer."""

from __future__ import annotations

import numpy as np

from ..errors import ShapeError
from .answers import names_of, probabilities_of, says_yes_or_no, short
from .attribution import asked, grad_cam, saliency
from .grids import CELL, bare, colours, extremes, images_of, largest
from .style import DIVERGING, GREY, figure, style

HEAT = "inferno"
MOST = 16  # images side by side
VEIL = 0.75  # opacity of the hottest place, so that the image shows through


@style()
def plot_saliency(
    model, x, target=None, method: str = "gradient", labels=None, fig=None, **options
) -> np.ndarray:
    """Images above, and below each what every pixel says for the target class; their Axes, (2, N).

    model, x, target, method, options: as in `saliency`; x: images.  labels: names of the classes.  Of the
    plain gradient and of smoothgrad the magnitude is shown, the largest of a pixel's channels; of the others
    the sum of the channels, red for and blue against.  Each map has a scale of its own.
    """
    targets = asked(model, x, target)[1]
    images, axes = _sheet(fig, x, model)
    a = images_of(saliency(model, x, targets, method, **options), model.data_format)
    signed = method in ("input_x_gradient", "integrated_gradients")
    a = a.sum(axis=1) if signed else np.abs(a).max(axis=1)
    for (above, below), image, one in zip(axes.T, images, a):
        _draw_image(above, image)
        limit = largest(one)
        below.imshow(
            np.ma.masked_invalid(one), cmap=colours(DIVERGING if signed else HEAT), interpolation="nearest",
            vmin=-limit if signed else 0, vmax=limit,
        )  # fmt: skip
    _say(axes[0], model, x, targets, labels)
    axes[1, 0].set_ylabel(method.replace("_", " "), fontsize=9)
    return axes


@style()
def plot_grad_cam(model, x, target=None, layer=None, labels=None, fig=None) -> np.ndarray:
    """Images, and below each its Grad-CAM over it, dark where nothing speaks for the target class; their
    Axes, (2, N).

    model, x, target, layer: as in `grad_cam`; x: images.  labels: names of the classes.  Each map is brought
    to the image's size and has a scale of its own.
    """
    targets = asked(model, x, target)[1]
    images, axes = _sheet(fig, x, model)
    H, W = images.shape[1:3]
    for (above, below), image, heat in zip(axes.T, images, grad_cam(model, x, targets, layer)):
        _draw_image(above, image)
        _draw_image(below, image)
        if not heat.max() > 0:
            below.set_xlabel("nothing speaks for it" if np.isfinite(heat).all() else "not finite", fontsize=9)
            continue
        below.imshow(
            heat, cmap=colours(HEAT), vmin=0, vmax=heat.max(), alpha=VEIL,
            interpolation="bilinear", extent=(-0.5, W - 0.5, H - 0.5, -0.5),
        )  # fmt: skip
    _say(axes[0], model, x, targets, labels)
    axes[1, 0].set_ylabel("Grad-CAM", fontsize=9)
    return axes


def _sheet(fig, x, model):
    """The images as matplotlib draws them, from 0 to 1, and a figure with room for them."""
    images = images_of(x, model.data_format)
    if len(images) > MOST:
        raise ShapeError(
            f"so many images do not fit side by side. Received: {len(images)}. Expected: at most {MOST}; "
            "x[:8], say"
        )
    low, high = extremes(images)
    low, high = min(low, 0.0), max(high, 255.0 if images.dtype == np.uint8 else 1.0)
    a = (images - low) / (high - low)
    fig = figure(len(a) * CELL + 0.5, 2 * CELL + 0.5) if fig is None else fig
    axes = fig.subplots(2, len(a), squeeze=False)
    for ax in axes.flat:
        bare(ax)
    return (a[:, 0] if a.shape[1] == 1 else a.transpose(0, 2, 3, 1)), axes


def _draw_image(ax, image) -> None:
    ax.imshow(image, cmap=GREY, vmin=0, vmax=1, interpolation="nearest")


def _say(axes, model, x, targets, labels) -> None:
    """Above each image the class that its map is about, with the probability that the model gives it."""
    try:
        p, _ = probabilities_of(model, x)
    except ValueError:  # its outputs are no classes
        p = None
    count = 2 if says_yes_or_no(model) else model.chain.out_shape[0]
    names = names_of(labels, range(count))
    for ax, i, target in zip(axes, range(len(targets)), targets):
        title = (
            short(names[target])
            if p is None or p.shape[1] != count
            else f"{short(names[target])}\n{p[i, target]:.1%}"
        )
        ax.set_title(title, loc="center", fontsize=9, fontweight="normal")
