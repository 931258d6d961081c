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
        ("resnet9", (3, 8, 8)),
        ("resnet9", (1, 28, 21)),
        ("resnet18", (3, 8, 8)),
        ("resnet18", (1, 9, 12)),
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
        ("resnet9", (3, 32, 32), 6_573_120),  # as D. Page's
        ("resnet18", (3, 32, 32), 11_173_962),  # as that of torchvision with a 3x3 stem and ten classes
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


@pytest.mark.parametrize("name", networks.BUILDERS)
def test_two_calls_share_no_layer(name):
    first, second = (networks.build(name, (3, 32, 32), 10) for _ in range(2))
    assert not {id(one) for one in _walk(first)} & {id(one) for one in _walk(second)}


def _walk(made):
    for layer in made:
        yield layer
        for branch in layer.children().values():
            yield from _walk(branch)


# -- options -------------------------------------------------------------------------------------------------


def test_an_mlp_of_one_s_own_size():
    made = networks.mlp((20,), 3, hidden=(8, 5), activation="tanh", dropout=0.1)
    assert _kinds(made) == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert [one.units for one in made if isinstance(one, layers.Dense)] == [8, 5, 3]
    assert [one.activation.name for one in made[::2]] == ["tanh", "tanh", "linear"]
    assert {one.rate for one in made[1::2]} == {0.1}
    assert _kinds(networks.mlp((20,), 3, hidden=())) == ["Dense"]  # softmax regression
    assert [one.units for one in networks.mlp((20,), 3, hidden=9)] == [9, 3]


def test_a_lenet_of_another_width():
    made = networks.lenet((1, 28, 28), 10, filters=(4, 8), hidden=(30,), activation="tanh")
    assert [one.filters for one in made if isinstance(one, layers.Conv2D)] == [4, 8]
    assert [one.units for one in made if isinstance(one, layers.Dense)] == [30, 10]
    assert {one.activation.name for one in made[:-1] if hasattr(one, "use_bias")} == {"tanh"}


@pytest.mark.parametrize("depth", [7, 11, 13, 16, 19])
def test_vgg_has_as_many_layers_with_weights_as_its_depth_says(depth):
    """Of the paper's, all but the two wide dense layers, which `hidden` puts back; and its filters."""
    given = {"hidden": (32, 32), "dropout": 0.0} if depth > 7 else {}
    made = networks.vgg((3, 32, 32), 10, depth, **given)
    assert sum(isinstance(one, (layers.Conv2D, layers.Dense)) for one in made) == depth
    filters = [one.filters for one in made if isinstance(one, layers.Conv2D)]
    assert filters == sorted(filters) and filters[-1] == (512 if depth > 7 else 256)
    model = Sequential(made, input_shape=(3, 32, 32), device="cpu")
    flat = next(one for one in model.layers if isinstance(one, layers.Flatten))
    assert flat.out_shape == ((512,) if depth > 7 else (256 * 16,))


@pytest.mark.parametrize(
    # torchvision's own counts for a thousand classes: vgg11, vgg13_bn, vgg16, vgg19_bn
    ("depth", "batch_norm", "count"),
    [(11, False, 132_863_336), (13, True, 133_053_736), (16, False, 138_357_544), (19, True, 143_678_248)],
)
def test_the_vgg_of_the_paper_has_torchvision_s_parameters(depth, batch_norm, count):
    made = networks.vgg((3, 224, 224), 1000, depth, batch_norm=batch_norm, hidden=(4096, 4096))
    assert parameters(made, (3, 224, 224)) == count


def parameters(made, shape):
    """How many there are, without any memory for them."""
    from xpnet.layers.containers import Chain
    from xpnet.ops.numpy_ops import NumpyOps
    from xpnet.params import Params

    params = Params(0, NumpyOps(), np.float32)
    Chain(made).build(shape, params)
    return sum(slot.size for slot in params.slots)


def test_batch_normalization_stands_between_a_convolution_and_its_relu():
    made = networks.vgg((3, 8, 8), 10, batch_norm=True)
    assert _kinds(made)[:4] == ["Conv2D", "BatchNormalization", "Activation", "Conv2D"]
    assert made[0].activation.name == "linear" and made[2].function.name == "relu"


def test_blocks_of_one_s_own():
    made = networks.vgg((3, 8, 8), 10, blocks=[(5,), (6, 7)])
    assert [one.filters for one in made if isinstance(one, layers.Conv2D)] == [5, 6, 7]
    assert _kinds(made).count("MaxPooling2D") == 2


def test_the_width_of_a_residual_network_goes_through_all_of_it():
    for name, widest in (("resnet9", 8), ("resnet18", 8)):
        for width in (4, 10):
            convolutions = [
                one
                for one in _walk(networks.build(name, (3, 16, 16), 10, width=width))
                if isinstance(one, layers.Conv2D)
            ]
            assert {one.filters // width for one in convolutions} == {1, 2, 4, widest}
            assert not any(one.use_bias for one in convolutions)
    assert networks.resnet9((3, 16, 16), 10, logit_scale=0.5)[-1].scale == 0.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: networks.vgg((3, 32, 32), 10, depth=12), r"unknown depth.*12.*11, 13, 16, 19, 7"),
        (lambda: networks.vgg((3, 16, 32), 10, 16), r"vgg needs images of at least 32x32.*16x32"),
        (lambda: networks.resnet9((3, 7, 32), 10), r"resnet9 needs images of at least 8x8.*7x32"),
        (lambda: networks.resnet18((64,), 10), r"resnet18 needs images.*\(64,\)"),
    ],
)
def test_options_that_do_not_suit_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


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
    for name, side in (("lenet", 12), ("vgg", 8), ("cnn", 2), ("resnet9", 8), ("resnet18", 8)):
        Sequential(networks.build(name, (1, side, side), 2), input_shape=(1, side, side), device="cpu")


def test_the_command_line_knows_them_all():
    from xpnet.commands.train import MODELS

    assert tuple(networks.BUILDERS) == MODELS


def test_an_unknown_network_is_named_with_the_closest():
    with pytest.raises(ValueError, match=r"unknown model.*'lenett'.*Did you mean 'lenet'"):
        networks.build("lenett", (1, 28, 28), 10)


@pytest.mark.parametrize(
    ("name", "side", "epochs", "options"),
    [
        ("mlp", 8, 60, {}),
        ("cnn", 8, 60, {}),
        ("lenet", 12, 60, {}),
        ("vgg", 8, 20, {}),
        ("vgg", 8, 40, {"blocks": [(8, 8), (16,)], "batch_norm": True}),
        ("resnet9", 8, 40, {"width": 8, "logit_scale": 1.0}),
        ("resnet18", 8, 40, {"width": 8}),
    ],
)
def test_every_network_learns(name, side, epochs, options):
    """Four images of noise, one a class: a network that cannot learn them by heart is not connected."""
    shape = (1, side, side)
    x = np.random.default_rng(3).random((4, *shape), dtype=np.float32)
    made = [one for one in networks.build(name, shape, 4, **options) if not isinstance(one, layers.Dropout)]
    model = Sequential(made, input_shape=shape, device="cpu", seed=1)
    model.compile(optimizers.Adam(0.002), "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x, np.arange(4), batch_size=4, epochs=epochs, verbose=0)
    loss, accuracy = model.evaluate(x, np.arange(4))
    assert accuracy == 1.0 and loss < 0.5
