"""`xpnet explain`: one page in which a person walks a saved model, forward and backward."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "a page that walks through a saved model: every map, every sum, every gradient"
DESCRIPTION = """\
Write one HTML file in which the model runs live: draw or pick an image, see what every layer makes of it,
what each number is the sum of, how the gradient flows back, and what a step of training changes.

The page needs no network and stays below 3 MB.  Without IMAGE it shows the samples beside the model
(samples.npz, as `xpnet train` leaves them), or some of the data set it was trained on, where that is at hand.
"""
EXAMPLES = """\
examples:
  xpnet explain runs/digits-cnn                      runs/digits-cnn/model.html
  xpnet explain runs/mnist-cnn three.png --labels 3 --invert
  xpnet explain model.safetensors x.npy --out walk.html --lang ja
"""

BESIDE = "samples.npz"  # what `xpnet train` leaves beside a model
SHOWN = 10  # samples of a data set


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a .safetensors file, or the folder that holds one")
    add(
        "images",
        type=Path,
        nargs="*",
        default=[],
        metavar="IMAGE",
        help="pictures, or .npy or .npz with samples",
    )
    add(
        "--labels",
        type=lambda text: [name.strip() for name in text.split(",")],
        metavar="A,B,...",
        help="classes of the samples, by name or number, in their order",
    )
    add("--out", type=Path, metavar="FILE.html", help="the file to write (default: MODEL's name, with .html)")
    add("--lang", choices=("en", "ja"), help="the page's language (default: the reader's browser decides)")
    add("--overwrite", action="store_true", help="replace FILE.html if it exists")
    add("--open", action="store_true", help="show the page in the browser")
    add("--resize", action="store_true", help="scale pictures of another size to that of the model's images")
    add(
        "--invert",
        action="store_true",
        help="swap light and dark first: for dark ink on paper, where training images are light on dark",
    )


def run(args: argparse.Namespace) -> int:
    """Write the page as args say; the exit code."""
    from .. import load_model
    from ..viz import explain
    from . import card
    from .output import check_new
    from .predict import is_classifier, names_of

    path = args.model / "model.safetensors" if args.model.is_dir() else args.model
    out = args.out or path.with_suffix(".html")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out must end in .html. Received: {out}")
    check_new(out, args.overwrite)
    model = load_model(path, device="cpu")
    known = card.read(path)
    print(f"model: {model.name}" + (f", trained on {known.data}" if known else ""))
    K, classifies = model.output_shape[0], len(model.output_shape) == 1 and is_classifier(model)
    classes = names_of(2 if K == 1 else K, known) if classifies else None
    x, labels, names = _samples(args, path, model, known)
    if args.labels is not None:
        labels = _named_labels(args.labels, classes, x)
    y = None if x is None else _targets(model, x, labels, classes)
    explain(
        model,
        out,
        x,
        y,
        classes=classes,
        names=names,
        value_range=None if known is None else (known.low, known.high),
        language=args.lang,
    )
    shown = f"{len(x):,} samples" if x is not None else "no samples: the page opens with an empty picture"
    print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB, {shown})")
    if args.open:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())
    return 0


# -- samples -------------------------------------------------------------------------------------------------


def _samples(args: argparse.Namespace, path: Path, model, known):
    """x (N, ...), labels (N,) or None, and names; None for all where there are none."""
    import numpy as np

    beside = path.with_name(BESIDE)
    if not args.images and not beside.is_file():
        return _of_data_set(model, known)
    parts, labels, names = [], [], []
    for image in args.images or [beside]:
        x, y = _read(image, model, known, args, quiet=not args.images)
        parts.append(x)
        labels.append(y)
        names += [image.name] if len(x) == 1 else [f"{image.name} {i}" for i in range(len(x))]
    together = None if any(y is None for y in labels) else np.concatenate(labels)
    return np.concatenate(parts), together, names if args.images else None


def _read(path: Path, model, known, args: argparse.Namespace, quiet: bool):
    """The samples of one file and their labels, in the model's shape."""
    from . import samples

    def note(text: str) -> None:
        if not quiet:
            print(f"note: {path.name}: {text}")

    last = model.data_format == "channels_last"
    invert = args.invert and bool(args.images)
    x, labels = samples.read(path, model.input_shape, last, known, invert, note, args.resize)
    if x.shape[1:] != model.input_shape:
        raise samples.SampleError(
            f"{path} does not fit the model. Received: {x.shape}. Expected: "
            f"{('N', *model.input_shape)}, as the model was trained on".replace("'", "")
        )
    return x, labels


def _of_data_set(model, known):
    """Test samples of the data set that the model was trained on, if it is here and fits."""
    if known is None or not _at_hand(known.data):
        return None, None, None
    from .train import load

    data = load(known.data, None)
    x = data.xt[:SHOWN]
    if model.data_format == "channels_last" and x.ndim == 4:
        x = x.transpose(0, 2, 3, 1)
    if x.shape[1:] != model.input_shape:
        return None, None, None
    print(f"samples: the first {len(x)} test images of {known.data}")
    return x, data.yt[:SHOWN], None


def _at_hand(name: str) -> bool:
    """Whether a data set can be read without a download."""
    from .. import datasets
    from ..datasets.files import cache_folder, data_folders, variants
    from .train import DATA

    if name not in DATA:
        return False
    source = getattr(getattr(datasets, name.replace("-", "_"), None), "SOURCE", None)
    if source is None:  # it comes with scikit-learn, or is drawn
        return True
    folders = [*data_folders(source), cache_folder(source)]
    return any(all(any(variants(folder, name)) for name in source.files) for folder in folders)


def _named_labels(given: list[str], classes: tuple[str, ...] | None, x) -> np.ndarray:
    """Class indices of --labels."""
    import numpy as np

    from ..errors import unknown

    if classes is None:
        raise ValueError(
            f"--labels are classes. Received: {','.join(given)} for a model that is no classifier"
        )
    count = 0 if x is None else len(x)
    if len(given) != count:
        raise ValueError(f"--labels must name every sample. Received: {len(given)} labels, {count} samples")
    found = []
    for name in given:
        if name in classes:
            found.append(classes.index(name))
        elif name.isdecimal() and int(name) < len(classes):
            found.append(int(name))
        else:
            raise unknown("label", name, classes)
    return np.array(found)


def _targets(model, x: np.ndarray, labels: np.ndarray | None, classes: tuple[str, ...] | None):
    """What the model's loss takes: classes, or the images themselves where it maps images to such."""
    import numpy as np

    from ..losses import BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy
    from ..utils import to_categorical

    if classes is None:
        same = len(model.output_shape) == 3 and model.output_shape == model.input_shape
        return x if same and model.loss is not None else None
    if labels is None:
        return None
    if not ((labels >= 0) & (labels < len(classes))).all():
        print(f"note: the labels are left out: they are no classes from 0 to {len(classes) - 1}")
        return None
    if isinstance(model.loss, BinaryCrossentropy | CategoricalCrossentropy) and not (
        isinstance(model.loss, SparseCategoricalCrossentropy) or model.output_shape == (1,)
    ):
        return to_categorical(labels, len(classes)).astype(np.float32)
    return labels
