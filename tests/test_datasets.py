"""Data sets: shapes and units, files found and downloaded, and what is said when they are bad."""

import gzip
import hashlib
import http.server
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from xpnet import datasets
from xpnet.datasets import DatasetError, cifar10, fashion_mnist, files, idx, mnist

REAL_DATA = os.environ.get("XPNET_DATA")
IDX_SETS = [
    pytest.param(mnist, datasets.load_mnist, id="mnist"),
    pytest.param(fashion_mnist, datasets.load_fashion_mnist, id="fashion"),
]


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Every test has an empty XPNET_DATA and cache of its own, and no way to a mirror or a proxy."""
    for name in ("data", "cache"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"XPNET_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for module in (mnist, fashion_mnist, cifar10):
        monkeypatch.setattr(module, "SOURCE", replace(module.SOURCE, mirrors=("http://127.0.0.1:9/",)))


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path):
    """(folder, URL): what is placed in the folder is served on 127.0.0.1; `hits` counts the requests."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    hits, folder = [], tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/", hits
    server.shutdown()
    thread.join()
    server.server_close()


def idx_bytes(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_arrays(n=6, nt=4, seed=0):
    """{name without .gz: array} of a small set in MNIST's form."""
    rng = np.random.default_rng(seed)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (n, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": rng.integers(0, 10, n, dtype=np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (nt, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": rng.integers(0, 10, nt, dtype=np.uint8),
    }


def write_idx(folder, arrays, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        data = idx_bytes(array)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(data) if zipped else data)


def source_of(source, arrays, url):
    """source with the checksums of these arrays and one mirror."""
    sums = {f"{name}.gz": hashlib.sha256(idx_bytes(a)).hexdigest() for name, a in arrays.items()}
    return replace(source, files=sums, mirrors=(url,), unzipped=True)


def cifar_batches(records=3, seed=0):
    """{batch file name: (images (N, 3, 32, 32), labels (N,))}"""
    rng = np.random.default_rng(seed)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    return {
        name: (
            rng.integers(0, 256, (records, 3, 32, 32), dtype=np.uint8),
            rng.integers(0, 10, records, dtype=np.uint8),
        )
        for name in names
    }


def batch_bytes(images, labels):
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels))


def write_cifar(folder, batches):
    folder.mkdir(parents=True, exist_ok=True)
    for name, batch in batches.items():
        (folder / name).write_bytes(batch_bytes(*batch))


def write_cifar_archive(path, batches, folder="cifar-10-batches-bin/"):
    with tarfile.open(path, "w:gz") as archive:
        for name, batch in batches.items():
            member = tarfile.TarInfo(folder + name)
            blob = batch_bytes(*batch)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))


def real(folder):
    """The folder under the true XPNET_DATA, or a visible skip."""
    if not REAL_DATA or not (path := Path(REAL_DATA).expanduser() / folder).is_dir():
        pytest.skip(f"XPNET_DATA is not set or has no folder {folder}")
    return path.resolve()


# ---------------------------------------------------------------------------------------------- the package


def test_importing_datasets_loads_no_optional_library():
    code = "import sys, xpnet.datasets; print(*{'sklearn', 'pooch', 'requests', 'tqdm'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_class_names_are_ten_different_words():
    for module in (mnist, fashion_mnist, cifar10):
        assert isinstance(module.CLASS_NAMES, tuple) and len(set(module.CLASS_NAMES)) == 10
    assert cifar10.CLASS_NAMES[9] == "truck" and fashion_mnist.CLASS_NAMES[9] == "Ankle boot"


def test_checksums_are_whole():
    for module in (mnist, fashion_mnist, cifar10):
        for name, checksum in module.SOURCE.files.items():
            assert len(bytes.fromhex(checksum)) == 32, name


# ---------------------------------------------------------------------------------------- digits and blobs


def test_digits_are_scikit_learns_in_its_usual_split():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    wanted = train_test_split(*load_digits(return_X_y=True), random_state=0)
    (x, y), (xt, yt) = datasets.load_digits()
    assert x.shape == (1347, 1, 8, 8) and xt.shape == (450, 1, 8, 8)
    assert x.dtype == xt.dtype == np.float32 and y.dtype == yt.dtype == np.int64
    assert x.min() == 0 and x.max() == 1
    for got, want in zip((x, xt), wanted[:2]):
        assert np.array_equal(got.reshape(len(got), 64) * 16, want)
    assert np.array_equal(y, wanted[2]) and np.array_equal(yt, wanted[3])


def test_raw_digits_are_as_stored_and_seed_and_size_are_heeded():
    (x, _), (xt, _) = datasets.load_digits(raw=True)
    assert x.dtype == xt.dtype == np.uint8 and x.max() == 16
    (other, _), (rest, _) = datasets.load_digits(raw=True, seed=1, test_size=797)
    assert len(other) == 1000 and len(rest) == 797 and not np.array_equal(x[:1000], other)


def test_blobs_have_the_asked_form_and_repeat():
    (x, y), (xt, yt) = datasets.load_blobs()
    assert x.shape == (800, 2) and xt.shape == (200, 2) and x.dtype == xt.dtype == np.float32
    assert y.dtype == yt.dtype == np.int64 and set(y) == set(range(5))
    assert np.array_equal(x, datasets.load_blobs()[0][0])
    assert not np.array_equal(x, datasets.load_blobs(seed=1)[0][0])
    (x, y), _ = datasets.load_blobs(50, 3, 4, cluster_std=0.0, center_box=(2, 3), test_size=0.5)
    assert x.shape == (25, 4) and set(y) == {0, 1, 2} and x.min() >= 2 and x.max() <= 3
    assert len(np.unique(x, axis=0)) == 3  # without spread a cloud is a point


# ------------------------------------------------------------------------------------ MNIST, Fashion-MNIST


@pytest.mark.parametrize("zipped", [True, False], ids=["gzip", "plain"])
@pytest.mark.parametrize("module, load", IDX_SETS)
def test_idx_set_in_its_own_folder(module, load, zipped, data):
    arrays = idx_arrays()
    write_idx(data / module.SOURCE.folders[0], arrays, zipped)
    images, labels, test_images, test_labels = arrays.values()

    (x, y), (xt, yt) = module.load_data()  # as Keras
    assert x.dtype == y.dtype == xt.dtype == yt.dtype == np.uint8
    for got, want in zip((x, y, xt, yt), arrays.values()):
        assert np.array_equal(got, want) and got.flags.writeable

    (x, y), (xt, yt) = load()
    assert x.shape == (6, 1, 28, 28) and xt.shape == (4, 1, 28, 28) and x.dtype == xt.dtype == np.float32
    assert np.array_equal(x[:, 0], (images / 255).astype(np.float32)) and 0 <= xt.min() <= xt.max() <= 1
    assert np.array_equal(xt[:, 0], (test_images / 255).astype(np.float32))
    assert y.dtype == yt.dtype == np.int64 and np.array_equal(y, labels) and np.array_equal(yt, test_labels)

    (x, y), (xt, _) = load(raw=True)
    assert x.dtype == xt.dtype == np.uint8 and y.dtype == np.int64
    assert np.array_equal(x[:, 0], images) and np.array_equal(xt[:, 0], test_images)


def test_white_is_exactly_one():
    assert datasets.arrays.unit_range(np.array([0, 255], np.uint8)).tolist() == [0, 1]


def test_mnist_and_fashion_mnist_stand_side_by_side(data):
    one, other = idx_arrays(seed=1), idx_arrays(seed=2)
    write_idx(data / "mnist", one)
    write_idx(data / "fashion-mnist", other)
    assert np.array_equal(mnist.load_data()[0][0], one["train-images-idx3-ubyte"])
    assert np.array_equal(fashion_mnist.load_data()[0][0], other["train-images-idx3-ubyte"])


def test_files_spelt_with_a_dot_and_gzip_without_its_suffix_are_read(data):
    arrays = idx_arrays()
    write_idx(data / "mnist", {name.replace("-idx", ".idx"): a for name, a in arrays.items()})
    (data / "mnist/train-labels.idx1-ubyte.gz").rename(data / "mnist/train-labels.idx1-ubyte")
    assert np.array_equal(mnist.load_data()[0][1], arrays["train-labels-idx1-ubyte"])


def test_xpnet_data_comes_before_the_cache(data, cache, monkeypatch):
    own, cached = idx_arrays(seed=1), idx_arrays(seed=2)
    monkeypatch.setattr(mnist, "SOURCE", source_of(mnist.SOURCE, cached, "http://127.0.0.1:9/"))
    write_idx(cache / "mnist", cached)
    assert np.array_equal(mnist.load_data()[0][0], cached["train-images-idx3-ubyte"])
    write_idx(data / "mnist", own)
    assert np.array_equal(mnist.load_data()[0][0], own["train-images-idx3-ubyte"])


def test_the_sets_own_folder_comes_before_xpnet_data_itself(data):
    own = idx_arrays(seed=1)
    write_idx(data, idx_arrays(seed=2))
    write_idx(data / "mnist", own)
    assert np.array_equal(mnist.load_data()[0][0], own["train-images-idx3-ubyte"])


def test_genuine_files_directly_in_xpnet_data_are_read(data, monkeypatch):
    arrays = idx_arrays()
    monkeypatch.setattr(mnist, "SOURCE", source_of(mnist.SOURCE, arrays, "http://127.0.0.1:9/"))
    write_idx(data, arrays, zipped=False)
    assert np.array_equal(mnist.load_data()[0][0], arrays["train-images-idx3-ubyte"])


@pytest.mark.parametrize("module, load", IDX_SETS)
def test_unknown_files_directly_in_xpnet_data_are_not_taken_for_a_set_of_the_same_names(module, load, data):
    write_idx(data, idx_arrays())
    with pytest.raises(DatasetError, match=f"not known as a file of {module.SOURCE.title}") as error:
        load()
    assert str(data / module.SOURCE.folders[0]) in str(error.value)


def test_incomplete_folder_names_the_missing_file(data):
    write_idx(data / "mnist", idx_arrays())
    (data / "mnist/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetError, match=r"incomplete in .*Expected: also t10k-labels-idx1-ubyte\.gz\."):
        datasets.load_mnist()


LABELS = idx_bytes(np.zeros(6, np.uint8))
IMAGES = idx_bytes(np.zeros((6, 28, 28), np.uint8))


@pytest.mark.parametrize(
    "blob, words",
    [
        (IMAGES[:-1], r"is truncated\. Received: 4703 bytes of data\. Expected: 4704, .*\(6, 28, 28\)"),
        (IMAGES + b"\0", r"longer than its header says\. Received: 4705 .*Expected: 4704"),
        (IMAGES[:10], r"truncated in its header\. Received: 10 bytes\. Expected: 16 or more"),
        (b"", r"not an IDX file .*Received: 0 bytes"),
        (LABELS, r"not an IDX file of 3-dim.*begin with b'\\x00\\x00\\x08\\x01'.*b'\\x00\\x00\\x08\\x03'"),
        (b"<html>not found</html>", r"not an IDX file .*b'<htm'.*gzip of it"),
        (struct.pack(">4B3I", 0, 0, 8, 3, *3 * (2**32 - 1,)), r"truncated\. Received: 0 bytes"),
        (struct.pack(">4B3I", 0, 0, 0x0D, 3, 0, 28, 28), r"uint8 data\. Received: 16 bytes"),
        (gzip.compress(IMAGES)[:-9], r"truncated or damaged gzip file .*Expected: a complete gzip file"),
        (
            gzip.compress(IMAGES)[:10] + b"\xff" + gzip.compress(IMAGES)[11:],
            r"truncated or damaged gzip file",
        ),
        (gzip.compress(IMAGES[:-1]), r"is truncated\. Received: 4703"),
        (idx_bytes(np.zeros((6, 8, 8), np.uint8)), r"images of 28x28\. Received: shape \(6, 8, 8\)"),
        (idx_bytes(np.zeros((0, 28, 28), np.uint8)), r"Received: shape \(0, 28, 28\)"),
        (
            idx_bytes(np.zeros((5, 28, 28), np.uint8)),
            r"not belong together\. Received: 5 images and 6 labels",
        ),
    ],
    ids=["short", "long", "header", "empty", "labels", "html", "huge", "float"]
    + ["gzip-short", "gzip-damaged", "gzip-of-short", "size", "none", "count"],
)
def test_bad_idx_file_is_named_with_what_is_wrong(blob, words, data):
    write_idx(data / "mnist", idx_arrays())
    path = data / "mnist/train-images-idx3-ubyte.gz"
    path.write_bytes(blob)
    with pytest.raises(DatasetError, match=words) as error:
        datasets.load_mnist()
    assert str(error.value).startswith(str(path)) and "Replace" in str(error.value)


def test_dataset_error_is_an_os_error():
    assert issubclass(DatasetError, OSError)


def test_read_idx_reads_a_users_own_file(tmp_path):
    array = np.arange(30, dtype=np.uint8).reshape(5, 3, 2)
    (tmp_path / "own").write_bytes(idx_bytes(array))
    assert np.array_equal(idx.read_idx(tmp_path / "own", 3), array)


# ------------------------------------------------------------------------------------------------ CIFAR-10


def check_cifar(batches):
    *train, (test_images, test_labels) = batches.values()
    images, labels = (np.concatenate(part) for part in zip(*train))

    (x, y), (xt, yt) = cifar10.load_data()  # as Keras
    assert x.shape == (15, 32, 32, 3) and y.shape == (15, 1) and xt.shape == (3, 32, 32, 3)
    assert x.dtype == y.dtype == xt.dtype == yt.dtype == np.uint8 and x.flags.c_contiguous
    assert np.array_equal(x[4, 5, 6], images[4, :, 5, 6])  # a pixel's red, green, blue
    assert np.array_equal(y[:, 0], labels) and np.array_equal(yt[:, 0], test_labels)

    (x, y), (xt, yt) = datasets.load_cifar10(raw=True)
    assert x.dtype == np.uint8 and np.array_equal(x, images) and np.array_equal(xt, test_images)
    assert y.dtype == np.int64 and np.array_equal(y, labels) and np.array_equal(yt, test_labels)

    (x, y), (xt, yt) = datasets.load_cifar10()
    assert x.dtype == xt.dtype == np.float32 and y.dtype == yt.dtype == np.int64
    assert np.array_equal(x, (images / 255).astype(np.float32)) and x.max() == 1
    assert np.array_equal(xt, (test_images / 255).astype(np.float32))


@pytest.mark.parametrize(
    "folder", ["cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", "cifar-10", "."]
)
def test_cifar_batches_in_a_folder(folder, data):
    batches = cifar_batches()
    write_cifar(data / folder, batches)
    check_cifar(batches)


@pytest.mark.parametrize("folder", ["cifar10", "."])
def test_cifar_archive_is_read_and_nothing_is_extracted(folder, data, tmp_path):
    batches = cifar_batches()
    (data / folder).mkdir(exist_ok=True)
    write_cifar_archive(data / folder / cifar10.ARCHIVE, batches, folder="../../escaped/")
    check_cifar(batches)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [cifar10.ARCHIVE]


def test_cifar_batches_keep_their_order_whatever_that_of_the_archive(data):
    batches = cifar_batches()
    write_cifar_archive(data / cifar10.ARCHIVE, dict(reversed(batches.items())))
    check_cifar(batches)


@pytest.mark.parametrize("archived", [False, True], ids=["folder", "archive"])
def test_incomplete_cifar_names_the_missing_batch(archived, data):
    batches = cifar_batches()
    del batches["data_batch_4.bin"]
    if archived:
        write_cifar_archive(data / cifar10.ARCHIVE, batches)
    else:
        write_cifar(data / "cifar10", batches)
    with pytest.raises(DatasetError, match=r"incomplete in .*Expected: also data_batch_4\.bin\."):
        datasets.load_cifar10()


@pytest.mark.parametrize(
    "blob, words",
    [
        (bytes(3073 * 2 - 1), r"truncated, .*Received: 6145 bytes\. Expected: a multiple of 3073"),
        (b"", r"truncated, .*Received: 0 bytes"),
        (bytes(3073) + b"\x0a" + bytes(3072), r"labels that CIFAR-10 has not\. Received: 10 in record 1"),
    ],
    ids=["short", "empty", "label"],
)
@pytest.mark.parametrize("archived", [False, True], ids=["folder", "archive"])
def test_bad_cifar_batch_is_named_with_what_is_wrong(blob, words, archived, data, monkeypatch):
    batches = cifar_batches()
    if archived:
        monkeypatch.setitem(globals(), "batch_bytes", lambda *_: blob)
        write_cifar_archive(data / cifar10.ARCHIVE, batches)
    else:
        write_cifar(data / "cifar10", batches)
        (data / "cifar10/data_batch_1.bin").write_bytes(blob)
    with pytest.raises(DatasetError, match=rf"data_batch_1\.bin .*{words}"):
        datasets.load_cifar10()


def test_bad_cifar_archive_is_named(data):
    path = data / cifar10.ARCHIVE
    write_cifar_archive(path, cifar_batches())
    whole = path.read_bytes()
    middle = len(whole) // 2
    for blob, words in (
        (whole[:middle], r"truncated or damaged gzip file"),
        (
            whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            r"truncated or damaged gzip file",
        ),
        (gzip.decompress(whole)[:middle], r"cannot be read as an archive \(unexpected end of data\)"),
        (b"<html>", r"cannot be read as an archive .*Received: 6 bytes"),
        (b"", r"cannot be read as an archive .*Received: 0 bytes"),
    ):
        path.write_bytes(blob)
        with pytest.raises(DatasetError, match=words) as error:
            datasets.load_cifar10()
        assert str(error.value).startswith(str(path)) and "Replace it" in str(error.value)


# ------------------------------------------------------------------------------------------------ JPEG copy


def jpeg_arrays(n=15, nt=3, mode="RGB", size=(32, 32), seed=0):
    """({array name: array} as in cifar10-jpeg.npz, {"train": (images, labels), "test": ...} as decoded)."""
    image = pytest.importorskip("PIL.Image", reason="JPEG files need Pillow: pip install pillow")
    rng, arrays, pictures = np.random.default_rng(seed), {}, {}
    for part, count in (("train", n), ("test", nt)):
        blobs, decoded = [], []
        for _ in range(count):
            blob = io.BytesIO()
            coarse = image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            coarse.resize(size).convert(mode).save(blob, "JPEG")
            blobs.append(blob.getvalue())
            decoded.append(np.asarray(image.open(blob).convert("RGB")).transpose(2, 0, 1))
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        arrays |= {
            f"{part}_jpeg": np.frombuffer(b"".join(blobs), np.uint8),
            f"{part}_offsets": np.cumsum([0, *map(len, blobs)]),
            f"{part}_labels": labels,
        }
        pictures[part] = np.stack(decoded), labels
    return arrays, pictures


@pytest.mark.parametrize("folder", ["cifar10-jpeg", "cifar10", "."])
def test_cifar_is_read_from_its_jpeg_copy(folder, data):
    arrays, pictures = jpeg_arrays()
    (data / folder).mkdir(exist_ok=True)
    np.savez(data / folder / cifar10.JPEGS, **arrays)
    (images, labels), (test_images, test_labels) = pictures["train"], pictures["test"]
    (x, y), (xt, yt) = datasets.load_cifar10(raw=True)
    assert x.shape == (15, 3, 32, 32) and x.dtype == np.uint8 and x.std() > 20 and y.dtype == np.int64
    for received, expected in ((x, images), (y, labels), (xt, test_images), (yt, test_labels)):
        np.testing.assert_array_equal(received, expected)
    assert cifar10.load_data()[0][0].shape == (15, 32, 32, 3)


def test_the_original_goes_before_the_copy_wherever_it_lies(data):
    arrays, _ = jpeg_arrays()
    (data / "cifar10-jpeg").mkdir()
    np.savez(data / "cifar10-jpeg" / cifar10.JPEGS, **arrays)
    batches = cifar_batches()
    write_cifar_archive(data / cifar10.ARCHIVE, batches)
    check_cifar(batches)


def cut_short(arrays):
    offsets = arrays["test_offsets"]
    arrays["test_jpeg"][offsets[2] - 200 : offsets[2]] = 0


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda a: a.pop("test_labels"), r"is incomplete\. Received: .*test_labels.* Expected: test_jpeg, "),
        (
            lambda a: a.update(train_offsets=a["train_offsets"][:-1]),
            r"do not fit together.*offsets int64 \(15,",
        ),
        (lambda a: a.update(train_jpeg=a["train_jpeg"].astype(int)), r"do not fit together.*jpeg int64"),
        (lambda a: a.update(test_jpeg=a["test_jpeg"][:-1]), r"test_offsets do not lie within test_jpeg"),
        (lambda a: a["train_offsets"].__setitem__(3, 0), r"train_offsets do not lie within train_jpeg"),
        (
            lambda a: a["test_labels"].__setitem__(1, 10),
            r"classes that there are not. Received: 10 for picture 1",
        ),
        (lambda a: a["test_jpeg"].__setitem__(slice(0, 4), 0), r"picture 0 of test_jpeg cannot be used"),
        (cut_short, r"picture 1 of test_jpeg cannot be used"),
        (lambda a: a.update(jpeg_arrays(mode="L")[0]), r"picture 0 of train_jpeg .*Received: L, 32x32"),
        (lambda a: a.update(jpeg_arrays(size=(32, 16))[0]), r"Received: RGB, 32x16 pixels\. .*32x32"),
        (lambda a: a.update(train_labels=np.array([None])), r"cannot be read \(Object arrays"),
    ],
)
def test_a_bad_jpeg_copy_is_named_with_what_is_wrong(spoil, words, data):
    arrays, _ = jpeg_arrays()
    arrays = {name: a.copy() for name, a in arrays.items()}
    spoil(arrays)
    np.savez(data / cifar10.JPEGS, **arrays)
    with pytest.raises(DatasetError, match=words) as error:
        datasets.load_cifar10()
    assert str(error.value).startswith(str(data / cifar10.JPEGS))


@pytest.mark.parametrize("left", [0, 6, 2000])
def test_a_truncated_jpeg_copy_is_named(left, data):
    np.savez(data / cifar10.JPEGS, **jpeg_arrays()[0])
    whole = (data / cifar10.JPEGS).read_bytes()
    (data / cifar10.JPEGS).write_bytes(whole[:left])
    with pytest.raises(DatasetError, match=r"cifar10-jpeg\.npz cannot be read .*Expected: an \.npz file"):
        datasets.load_cifar10()


def test_what_decodes_jpeg_files_is_named_where_it_is_missing(data, monkeypatch):
    np.savez(data / cifar10.JPEGS, **jpeg_arrays()[0])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DatasetError, match="pip install pillow"):
        datasets.load_cifar10()


# ------------------------------------------------------------------------------------------------ download


def test_download_is_verified_unzipped_and_kept(served, cache, monkeypatch, capfd):
    folder, url, hits = served
    arrays = idx_arrays()
    write_idx(folder, arrays)
    monkeypatch.setattr(mnist, "SOURCE", source_of(mnist.SOURCE, arrays, url))
    for _ in range(2):
        split = mnist.load_data()
        for got, want in zip((*split[0], *split[1]), arrays.values()):
            assert np.array_equal(got, want)
    assert len(hits) == 4, "the second load reads the cache"
    assert sorted(p.name for p in (cache / "mnist").iterdir()) == sorted(arrays)
    assert capfd.readouterr() == ("", "")  # pooch's own notes are kept quiet


def test_download_works_without_xpnet_data(served, monkeypatch):
    folder, url, _ = served
    arrays = idx_arrays()
    write_idx(folder, arrays)
    monkeypatch.delenv("XPNET_DATA")
    monkeypatch.setattr(mnist, "SOURCE", source_of(mnist.SOURCE, arrays, url))
    assert np.array_equal(mnist.load_data()[1][1], arrays["t10k-labels-idx1-ubyte"])


def test_cifar_archive_is_downloaded_and_kept(served, cache, monkeypatch):
    folder, url, hits = served
    batches = cifar_batches()
    write_cifar_archive(folder / cifar10.ARCHIVE, batches)
    checksum = hashlib.sha256((folder / cifar10.ARCHIVE).read_bytes()).hexdigest()
    source = replace(cifar10.SOURCE, mirrors=(url,), files={cifar10.ARCHIVE: checksum})
    monkeypatch.setattr(cifar10, "SOURCE", source)
    check_cifar(batches)
    assert len(hits) == 1 and [p.name for p in (cache / "cifar10").iterdir()] == [cifar10.ARCHIVE]


def test_second_mirror_serves_when_the_first_fails(served, monkeypatch):
    folder, url, _ = served
    arrays = idx_arrays()
    write_idx(folder, arrays)
    source = source_of(mnist.SOURCE, arrays, url)
    mirrors = ("http://127.0.0.1:9/", f"{url}gone/", url)
    monkeypatch.setattr(mnist, "SOURCE", replace(source, mirrors=mirrors))
    assert np.array_equal(mnist.load_data()[0][1], arrays["train-labels-idx1-ubyte"])


@pytest.mark.parametrize("unzipped", [True, False])
@pytest.mark.parametrize(
    "blob, words",
    [
        (gzip.compress(LABELS), ("does not match the known hash",) * 2),
        (gzip.compress(LABELS)[:-4], ("the download is a truncated or damaged gzip", "does not match")),
        (b"<html>", ("does not match the known hash",) * 2),
    ],
    ids=["other-file", "truncated-gzip", "not-gzip"],
)
def test_download_of_wrong_content_is_an_error_and_leaves_nothing(
    unzipped, blob, words, served, cache, monkeypatch
):
    folder, url, _ = served
    arrays = idx_arrays()
    write_idx(folder, arrays)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(blob)
    monkeypatch.setattr(mnist, "SOURCE", replace(source_of(mnist.SOURCE, arrays, url), unzipped=unzipped))
    with pytest.raises(DatasetError, match=words[not unzipped]) as error:
        datasets.load_mnist()
    assert f"Tried: {url}train-images-idx3-ubyte.gz" in str(error.value)
    assert [p for p in cache.rglob("*") if p.is_file()] == []


def test_damaged_cache_is_downloaded_anew(served, cache, monkeypatch):
    folder, url, hits = served
    arrays = idx_arrays()
    write_idx(folder, arrays)
    write_idx(cache / "mnist", idx_arrays(seed=1), zipped=False)  # sound, yet not what the checksums say
    monkeypatch.setattr(mnist, "SOURCE", source_of(mnist.SOURCE, arrays, url))
    assert np.array_equal(mnist.load_data()[0][0], arrays["train-images-idx3-ubyte"])
    assert len(hits) == 4


def test_file_placed_by_hand_in_the_cache_is_read_as_downloaded(cache, monkeypatch):
    arrays = idx_arrays()
    write_idx(cache / "mnist", arrays)
    monkeypatch.setattr(mnist, "SOURCE", source_of(mnist.SOURCE, arrays, "http://127.0.0.1:9/"))
    assert np.array_equal(mnist.load_data()[0][0], arrays["train-images-idx3-ubyte"])


@pytest.mark.parametrize(
    "module, load", [*IDX_SETS, pytest.param(cifar10, datasets.load_cifar10, id="cifar10")]
)
def test_without_network_the_error_says_what_to_do(module, load, data, cache):
    with pytest.raises(DatasetError) as error:
        load()
    source, text = module.SOURCE, str(error.value)
    assert text.startswith(f"{source.title} was not found and could not be downloaded")
    name = next(iter(source.files))
    assert f"Looked for: {name}" in text and str(cache / source.folders[0]) in text
    assert f"or in {data / source.folders[0]}" in text
    assert f"XPNET_DATA={data}" in text and f"Tried: http://127.0.0.1:9/{name} (ConnectionError" in text
    for name in source.files:
        assert f"\n    http://127.0.0.1:9/{name}\n" in text
    assert ("pickled" in text) == (module is cifar10)
    assert [p for p in cache.rglob("*") if p.is_file()] == []


def test_without_network_the_error_tells_of_an_unset_or_wrong_xpnet_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=r"nowhere \(no such folder\)"):
        datasets.load_mnist()
    monkeypatch.delenv("XPNET_DATA")
    with pytest.raises(
        DatasetError, match=r"Looked in: XPNET_DATA \(not set\)(?s:.*)that you set XPNET_DATA to"
    ):
        datasets.load_mnist()


def test_without_network_the_error_tells_of_a_cached_file_with_a_wrong_checksum(cache):
    write_idx(cache / "mnist", idx_arrays())
    with pytest.raises(DatasetError, match=r"Passed over: .*ubyte\.gz \(wrong checksum\)"):
        datasets.load_mnist()


def test_unwritable_cache_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way of a folder")
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "file"))
    with pytest.raises(DatasetError, match=r"Tried: .*(NotADirectoryError|FileExistsError)"):
        datasets.load_mnist()


def test_cache_is_the_systems_unless_xpnet_cache_is_set(cache, monkeypatch):
    import pooch

    assert files.cache_folder(mnist.SOURCE) == cache / "mnist"
    monkeypatch.delenv("XPNET_CACHE")
    assert files.cache_folder(mnist.SOURCE) == Path(pooch.os_cache("xpnet")) / "mnist"


# ----------------------------------------------------------------------------------------------- .npz files


@pytest.fixture
def saved(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "my.npz", **arrays)
        return tmp_path / "my.npz"

    return save


def labelled(*shape, dtype=np.uint8, classes=4, seed=0):
    x = np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)
    return x, np.arange(shape[0]) % classes


@pytest.mark.parametrize(
    "names",
    [
        ("x", "y", "x_test", "y_test"),
        ("x", "y", "xt", "yt"),
        ("x_train", "y_train", "x_test", "y_test"),
    ],
)
def test_npz_with_test_arrays_under_every_spelling(names, saved):
    x, y = labelled(10, 5, 6)
    xt, yt = labelled(4, 5, 6, seed=1)
    (a, b), (at, bt) = datasets.load_npz(saved(**dict(zip(names, (x, y, xt, yt)))))
    assert a.shape == (10, 1, 5, 6) and at.shape == (4, 1, 5, 6) and a.dtype == at.dtype == np.float32
    assert np.array_equal(a[:, 0], (x / 255).astype(np.float32))
    assert np.array_equal(at[:, 0], (xt / 255).astype(np.float32))
    assert b.dtype == bt.dtype == np.int64 and np.array_equal(b, y) and np.array_equal(bt, yt)


def test_npz_without_test_arrays_is_split_class_by_class(saved):
    x = np.arange(100.0).reshape(50, 2)
    y = np.repeat(np.array([0, 1], np.uint8), (40, 10))
    path = saved(x=x, y=y)
    (a, b), (at, bt) = datasets.load_npz(path)
    assert np.bincount(b).tolist() == [32, 8] and np.bincount(bt).tolist() == [8, 2]
    assert a.dtype == at.dtype == np.float32 and b.dtype == bt.dtype == np.int64
    assert np.array_equal(np.sort(np.concatenate([a, at])[:, 0]), x[:, 0])  # every sample once
    assert all(y[int(row[0]) // 2] == label for row, label in zip(a, b))  # labels stay with their samples
    assert np.array_equal(a, datasets.load_npz(path)[0][0])
    assert not np.array_equal(a, datasets.load_npz(path, seed=1)[0][0])
    assert len(datasets.load_npz(path, test_size=0.5)[1][0]) == 25


def test_npz_with_a_class_of_one_sample_or_real_targets_is_split_all_the_same(saved):
    x = np.zeros((10, 3), np.float32)
    assert len(datasets.load_npz(saved(x=x, y=[0] * 9 + [1]))[1][1]) == 2
    (_, y), (_, yt) = datasets.load_npz(saved(x=x, y=np.linspace(0, 1, 10)))
    assert y.dtype == yt.dtype == np.float32 and len(yt) == 2


@pytest.mark.parametrize(
    "stored, wanted, scale",
    [
        ((9, 5), (5,), 1),
        ((9, 5, 6), (1, 5, 6), 255),
        ((9, 3, 5, 6), (3, 5, 6), 255),
        ((9, 1, 2, 3), (1, 2, 3), 255),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.float32])
def test_npz_scales_only_images_of_uint8(stored, wanted, scale, dtype, saved):
    x, y = labelled(*stored, dtype=dtype)
    (a, _), _ = datasets.load_npz(saved(x=x, y=y, x_test=x, y_test=y))
    assert a.shape == (9, *wanted) and a.dtype == np.float32 and a.flags.c_contiguous
    scale = scale if dtype == np.uint8 else 1
    assert np.array_equal(a.ravel(), (x / scale).astype(np.float32).ravel())


def test_npz_images_channels_last_are_turned_when_asked_and_never_guessed(saved):
    x, y = labelled(8, 6, 7, 3)
    path = saved(x=x, y=y[:, None], x_test=x, y_test=y[:, None])
    with pytest.raises(DatasetError, match=r"looks like images \(N, H, W, C\).*data_format='channels_last'"):
        datasets.load_npz(path)
    (a, b), _ = datasets.load_npz(path, data_format="channels_last")
    assert a.shape == (8, 3, 6, 7) and b.shape == (8,)
    assert np.array_equal(a, (x.transpose(0, 3, 1, 2) / 255).astype(np.float32))
    (a, _), _ = datasets.load_npz(path, data_format="channels_first")
    assert a.shape == (8, 6, 7, 3)
    with pytest.raises(ValueError, match=r"data_format\. Received: 'NHWC'\. Expected: 'channels_first'"):
        datasets.load_npz(path, data_format="NHWC")


X, Y = np.zeros((6, 4)), np.arange(6) % 2


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"x": X}, r"lacks samples or labels\. Received: x\. Expected: x and y"),
        ({}, r"Received: no arrays"),
        ({"x": X, "y": Y, "x_test": X}, r"one of the two test arrays\. Received: x, y, x_test\."),
        ({"x": X, "y": Y[:5]}, r"x and y do not belong together\. Received: shapes \(6, 4\) and \(5,\)"),
        ({"x": X, "y": Y, "xt": X, "yt": Y[:2]}, r"x_test and y_test do not belong together"),
        ({"x": X, "y": 3}, r"shapes \(6, 4\) and \(\)"),
        ({"x": X[:, 0], "y": Y}, r"x has no shape .*Received: \(6,\)\. Expected: \(N, D\)"),
        ({"x": X.reshape(6, 2, 2, 1, 1), "y": Y}, r"Received: \(6, 2, 2, 1, 1\)"),
        ({"x": X[:0], "y": Y[:0]}, r"Received: \(0, 4\)"),
        ({"x": X[:1], "y": Y[:1]}, r"too few samples .*Received: 1\. Expected: 2 or more"),
        ({"x": X, "y": Y, "xt": X[:, :3], "yt": Y}, r"different shape\. Received: \(6, 4\) and \(6, 3\)"),
        ({"x": X, "y": Y, "xt": X.astype(np.uint8), "yt": Y}, r"units\. Received: float64 and uint8"),
        ({"x": X, "y": np.array(list("catdog"))}, r"y does not hold real numbers\. Received: dtype <U1\."),
        ({"x": X + 1j, "y": Y}, r"x does not hold real numbers\. Received: dtype complex128"),
    ],
    ids=["no-y", "nothing", "no-y_test", "lengths", "test-lengths", "scalar", "1d", "5d", "empty", "one"]
    + ["sample-shapes", "units", "words", "complex"],
)
def test_bad_npz_is_named_with_what_is_wrong(arrays, words, saved):
    path = saved(**arrays)
    with pytest.raises(DatasetError, match=words) as error:
        datasets.load_npz(path)
    assert str(error.value).startswith(str(path))


def test_npz_that_is_missing_foreign_or_truncated_is_named(saved, tmp_path):
    with pytest.raises(DatasetError, match=r"none\.npz does not exist\. Expected: an \.npz file"):
        datasets.load_npz(tmp_path / "none.npz")
    path = saved(x=X, y=Y)
    whole = path.read_bytes()
    at = whole.index(b"NUMPY")
    for blob in (b"", b"<html>", whole[:-30], whole[:at] + b"mumpy" + whole[at + 5 :]):
        path.write_bytes(blob)
        with pytest.raises(DatasetError, match=r"(is no \.npz file, or is truncated|cannot be read)\. Rec"):
            datasets.load_npz(path)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_is_unpickled(saved, data, tmp_path):
    with pytest.raises(DatasetError, match=r"cannot be read\. .*unpickled"):
        datasets.load_npz(saved(x=np.array([Bomb(tmp_path / "boom")] * 2), y=[0, 1]))
    (tmp_path / "my.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    with pytest.raises(DatasetError, match=r"is no \.npz file"):
        datasets.load_npz(tmp_path / "my.npz")
    (data / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):  # CIFAR-10's Python version
        (data / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    with pytest.raises(DatasetError, match=r"Python version .* is pickled"):
        datasets.load_cifar10()
    assert not (tmp_path / "boom").exists()


# ------------------------------------------------------------------------------------------- the true data


@pytest.mark.data
def test_true_mnist_has_its_checksums_and_is_read(monkeypatch):
    folder = real("mnist")
    for name in mnist.SOURCE.files:
        path = next(files.variants(folder, name))
        assert files.is_genuine(path, name, mnist.SOURCE), name
    monkeypatch.setenv("XPNET_DATA", str(folder))  # genuine files, directly in XPNET_DATA
    (x, y), (xt, yt) = datasets.load_mnist()
    assert x.shape == (60000, 1, 28, 28) and xt.shape == (10000, 1, 28, 28)
    assert y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4] and yt[:5].tolist() == [7, 2, 1, 0, 4]
    assert (x.min(), x.max()) == (0, 1)
    assert np.isclose(x.mean(), 0.1307, atol=1e-4) and np.isclose(x.std(), 0.3081, atol=1e-4)
    with pytest.raises(DatasetError, match="not known as a file of Fashion-MNIST"):
        datasets.load_fashion_mnist()


@pytest.mark.data
def test_true_fashion_mnist_is_read(monkeypatch):
    monkeypatch.setenv("XPNET_DATA", str(real("fashion_mnist").parent))
    (x, y), (xt, yt) = datasets.load_fashion_mnist()
    assert x.shape == (60000, 1, 28, 28) and xt.shape == (10000, 1, 28, 28)
    assert y[:5].tolist() == [9, 0, 0, 3, 0] and yt[:5].tolist() == [9, 2, 1, 1, 6]


@pytest.mark.data
def test_true_cifar10_is_read(monkeypatch):
    monkeypatch.setenv("XPNET_DATA", str(real("cifar10").parent))
    (x, y), (xt, yt) = cifar10.load_data()
    assert x.shape == (50000, 32, 32, 3) and xt.shape == (10000, 32, 32, 3)
    assert np.bincount(y[:, 0]).tolist() == [5000] * 10 and np.bincount(yt[:, 0]).tolist() == [1000] * 10
