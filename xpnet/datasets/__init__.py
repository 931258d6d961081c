"""Data sets, each as ((x, y), (xt, yt)): training samples and labels, test samples and labels.

Images are (N, C, H, W), float32 in [0, 1], or with raw=True uint8 as stored; labels are int64.  The modules
`mnist`, `fashion_mnist` and `cifar10` have Keras's `load_data` and the CLASS_NAMES.

Files are looked for under the folder that the environment variable XPNET_DATA names (for MNIST
`$XPNET_DATA/mnist/train-images-idx3-ubyte.gz` and its three fellows, gzip or not, or the four directly in
`$XPNET_DATA`), then in the cache (the folder XPNET_CACHE names, or else the system's cache folder for xpnet);
what is not there is downloaded into the cache, once, and its sha256 is verified.
"""

from . import cifar10, fashion_mnist, mnist
from .cifar10 import load_cifar10
from .fashion_mnist import load_fashion_mnist
from .files import DatasetError
from .mnist import load_mnist
from .npz import load_npz
from .offline import load_blobs, load_digits

__all__ = [
    "DatasetError",
    "cifar10",
    "fashion_mnist",
    "load_blobs",
    "load_cifar10",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_npz",
    "mnist",
]
