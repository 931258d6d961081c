"""MNIST: 60,000 + 10,000 handwritten digits, 28x28, one channel, ten classes.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, 1998.
"""

from __future__ import annotations

from . import idx
from .arrays import Split, image_split
from .files import Source

CLASS_NAMES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")

SOURCE = Source(
    title="MNIST",
    folders=("mnist", "MNIST/raw"),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    files={
        "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    unzipped=True,
)


def load_data() -> Split:
    """((x, y), (xt, yt)) as Keras's `mnist.load_data`: images uint8 (N, 28, 28), 0..255, labels uint8 (N,).

    Raises DatasetError if the files are missing and cannot be downloaded, or are damaged.
    """
    return idx.read_set(SOURCE)


def load_mnist(*, raw: bool = False) -> Split:
    """((x, y), (xt, yt)): images (N, 1, 28, 28), float32 in [0, 1], or uint8 if raw; labels int64 (N,).

    Raises DatasetError if the files are missing and cannot be downloaded, or are damaged.
    """
    (x, y), (xt, yt) = load_data()
    return image_split(((x[:, None], y), (xt[:, None], yt)), raw)
