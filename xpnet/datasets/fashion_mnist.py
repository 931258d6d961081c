"""Fashion-MNIST: 60,000 + 10,000 pictures of clothing, 28x28, one channel, ten classes.

H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking, arXiv 1708.07747, 2017.
"""

from __future__ import annotations

from . import idx
from .arrays import Split, image_split
from .files import Source

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

SOURCE = Source(
    title="Fashion-MNIST",
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    files={
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)


def load_data() -> Split:
    """((x, y), (xt, yt)) as Keras's `fashion_mnist.load_data`: images uint8 (N, 28, 28), labels uint8 (N,).

    Raises DatasetError if the files are missing and cannot be downloaded, or are damaged.
    """
    return idx.read_set(SOURCE)


def load_fashion_mnist(*, raw: bool = False) -> Split:
    """((x, y), (xt, yt)): images (N, 1, 28, 28), float32 in [0, 1], or uint8 if raw; labels int64 (N,).

    Raises DatasetError if the files are missing and cannot be downloaded, or are damaged.
    """
    (x, y), (xt, yt) = load_data()
    return image_split(((x[:, None], y), (xt[:, None], yt)), raw)
