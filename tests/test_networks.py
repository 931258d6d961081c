"""The ready-made networks build for the shapes that they promise, and refuse the others with a way out."""

import numpy as np
import pytest

from xpnet import Sequential, ShapeError, layers, networks, optimizers


def _kinds(made):
    return [type(layer).__name__ for layer in made]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp", (2,)),
        ("mlp", (784,)),
        ("mlp", (1, 8, 8)),
        ("mlp", (3, 1, 1)),
        ("cnn", (1, 8, 8)),
        ("cnn", (3, 2, 2)),
        ("cnn", (1, 28, 28)),
        ("cnn", (3, 14, 40)),
        ("lenet", (1, 28, 28)),
        ("lenet", (3, 12, 12)),
        ("vgg", (3, 32, 32)),
        ("vgg", (1, 8, 9)),
    ],
)
def test_every_network_gives_one_logit_a_class(name, shape):
    model = Sequential(networks.build(name, shape, 7), input_shape=shape, device="cpu", seed=0)
    assert model.output_shape == (7,)
    y = model.predict(np.random.default_rng(0).random((3, *shape), dtype=np.float32))
    assert y.shape == (3, 7) and np.isfinite(y).all()
    assert (y < 0).any()  # logits: no activation at the end


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        # the sums of (inputs + 1) * outputs of each layer, worked out by hand from the table of workloads
        ("lenet", (1, 28, 28), 156 + 2416 + 48_120 + 10_164 + 850),
        ("cnn", (1, 28, 28), 320 + 18_496 + 1_179_776 + 1290),
        ("cnn", (1, 8, 8), 100 + 910 + 32_200 + 40_200 + 2010),
        ("mlp", (784,), 392_500 + 125_250 + 25_100 + 1010),
        ("vgg", (3, 32, 32), 1792 + 36_928 + 73_856 + 147_584 + 295_168 + 590_080 + 40_970),
    ],
)
def test_the_networks_are_those_of_the_workloads(name, shape, count):
    assert (
        Sequential(networks.build(name, shape, 10), input_shape=shape, device="cpu").count_params() == count
    )


def test_the_cnn_is_chosen_by_the_size_of_the_images():
    small, large = networks.cnn((1, 13, 40), 10), networks.cnn((1, 14, 40), 10)
    assert small[0].filters == 10 and large[0].filters == 32
    assert [one.rate for one in small if isinstance(one, layers.Dropout)] == [0.5, 0.5]
    assert [one.rate for one in large if isinstance(one, layers.Dropout)] == [0.25, 0.5]


def test_a_vector_is_not_flattened_and_an_image_is():
    assert _kinds(networks.mlp((64,), 3)) == ["Dense"] * 3
    assert _kinds(networks.mlp((1, 8, 8), 3)) == ["Flatten"] + ["Dense"] * 3


def test_two_calls_share_no_layer():
    first, second = networks.vgg((3, 32, 32), 10), networks.vgg((3, 32, 32), 10)
    assert not {id(one) for one in first} & {id(one) for one in second}


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("lenet", (1, 8, 8), ["lenet", "12x12", "8x8", "'cnn'"]),
        ("lenet", (1, 28, 11), ["12x12", "28x11"]),
        ("vgg", (3, 7, 32), ["8x8", "7x32"]),
        ("cnn", (1, 1, 9), ["2x2", "1x9", "'mlp'"]),
        ("cnn", (64,), ["cnn needs images", "(64,)", "'mlp'"]),
    ],
)
def test_samples_that_do_not_suit_are_refused_with_a_way_out(name, shape, words):
    with pytest.raises(ShapeError) as error:
        networks.build(name, shape, 10)
    for word in words:
        assert word in str(error.value)


def test_the_smallest_promised_images_do_build():
    for name, side in (("lenet", 12), ("vgg", 8), ("cnn", 2)):
        Sequential(networks.build(name, (1, side, side), 2), input_shape=(1, side, side), device="cpu")


def test_an_unknown_network_is_named_with_the_closest():
    with pytest.raises(ValueError, match=r"unknown model.*'lenett'.*Did you mean 'lenet'"):
        networks.build("lenett", (1, 28, 28), 10)


@pytest.mark.parametrize(
    ("name", "side", "epochs"), [("mlp", 8, 60), ("cnn", 8, 60), ("lenet", 12, 60), ("vgg", 8, 20)]
)
def test_every_network_learns(name, side, epochs):
    """Four images of noise, one a class: a network that cannot learn them by heart is not connected."""
    shape = (1, side, side)
    x = np.random.default_rng(3).random((4, *shape), dtype=np.float32)
    made = [one for one in networks.build(name, shape, 4) if not isinstance(one, layers.Dropout)]
    model = Sequential(made, input_shape=shape, device="cpu", seed=1)
    model.compile(optimizers.Adam(0.002), "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x, np.arange(4), batch_size=4, epochs=epochs, verbose=0)
    loss, accuracy = model.evaluate(x, np.arange(4))
    assert accuracy == 1.0 and loss < 0.5
