"""Values and gradients against an independent implementation: PyTorch, where it is installed."""

import warnings

import numpy as np
import pytest
from cases import assert_close, gradients, randomise, tolerance

import xpnet
from xpnet import activations, losses, networks
from xpnet import layers as L

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.torch


def tensors(state):
    return {name: torch.from_numpy(np.array(value)) for name, value in state.items()}


def compare(model, module, x, *, train=True):
    """Outputs, dL/dx and every parameter's gradient of the two, for a random dL/dy.

    module: an nn.Module, whose parameters are loaded from the model by name (strictly), or a function of a
    tensor and a dictionary of the model's parameters.
    """
    rtol = tolerance(model.dtype)
    t = torch.from_numpy(x).requires_grad_()
    state = tensors(model.state_dict())
    if isinstance(module, nn.Module):
        module = module.to(t.dtype).train(train)
        module.load_state_dict(state, strict=True)
        module.zero_grad()
        parameters = dict(module.named_parameters())
        expected = module(t)
    else:
        parameters = {k: v.requires_grad_() for k, v in state.items() if v.dtype == t.dtype}
        expected = module(t, parameters)
    y, caches = model.forward(x, train=train)
    assert_close(y, expected.detach().numpy(), rtol, "y")
    dy = np.random.default_rng(7).standard_normal(y.shape).astype(y.dtype)
    dx = model.backward(dy, caches)
    expected.backward(torch.from_numpy(dy))
    assert_close(dx, t.grad.numpy(), rtol, "dx")
    received = gradients(model)
    # a bias before a normalisation has a gradient of zero but for rounding: compare with the largest of all
    scale = max((np.abs(g).max() for g in received.values()), default=1.0) * 1e-2
    for name, g in received.items():
        want = parameters[name].grad.numpy()
        assert_close(g, want, rtol * max(1.0, scale / max(np.abs(want).max(), 1e-3)), f"gradient of {name}")


def built(layers, shape, precision, seed=0):
    layers = layers if isinstance(layers, list) else [layers]
    model = xpnet.Sequential(layers, input_shape=shape, device="cpu", precision=precision, seed=seed)
    randomise(model, np.random.default_rng(seed))
    return model


# -- convolution and pooling ---------------------------------------------------------------------------------


def same_sides(sizes, kernel, strides, dilation):
    """(left, right, top, bottom) as Keras pads: ceil(size / stride) outputs, the odd element at the end."""
    sides = []
    for size, k, s, d in zip(sizes, kernel, strides, dilation):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        sides = [total // 2, total - total // 2, *sides]
    return sides


@pytest.mark.parametrize("padding", ["valid", "same", "number", "pair"])
@pytest.mark.parametrize("seed", range(14))
def test_conv2d(padding, seed, precision):
    rng = np.random.default_rng([seed, len(padding)])

    def pair(low, high):
        return tuple(int(v) for v in rng.integers(low, high + 1, 2))

    kernel, strides, dilation = pair(1, 5), pair(1, 3), pair(1, 3)
    if seed % 3 == 0:
        strides = dilation = (1, 1)
    groups = int(rng.choice([1, 1, 2, 3]))
    inner = 70 if seed % 4 == 0 else int(rng.integers(1, 5))
    channels, filters = groups * inner, groups * int(rng.integers(1, 4))
    if seed == 5:  # depthwise
        groups = channels = filters = 6
    H, W = ((k - 1) * d + 1 + int(rng.integers(0, 6)) for k, d in zip(kernel, dilation))
    given = {"valid": "valid", "same": "same", "number": 2, "pair": (1, 3)}[padding]
    bias = bool(rng.integers(2))
    layer = L.Conv2D(filters, kernel, strides, given, dilation, groups, use_bias=bias)
    model = built(layer, (channels, H, W), precision, seed)
    x = rng.standard_normal((int(rng.choice([1, 5])), channels, H, W)).astype(precision)

    def convolve(t, p):
        sides = 0
        if padding == "same":
            t = F.pad(t, same_sides((H, W), kernel, strides, dilation))
        elif padding != "valid":
            sides = given
        return F.conv2d(t, p["0.weight"], p.get("0.bias"), strides, sides, dilation, groups)

    compare(model, convolve, x)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, (2, 5)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_is_torch_s_at_stride_1(kernel, dilation, rng):
    model = built(L.Conv2D(4, kernel, padding="same", dilation_rate=dilation), (2, 7, 6), "float64")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that an even kernel costs it a copy
        compare(
            model,
            nn.Sequential(nn.Conv2d(2, 4, kernel, padding="same", dilation=dilation)),
            rng.standard_normal((3, 2, 7, 6)),
        )


@pytest.mark.parametrize("seed", range(24))
def test_conv2d_transpose(seed, precision):
    """A number as padding is PyTorch's, with its output_padding."""
    rng = np.random.default_rng([5, seed])

    def pair(low, high):
        return tuple(int(v) for v in rng.integers(low, high + 1, 2))

    kernel, strides, dilation, padding = pair(1, 5), pair(1, 3), pair(1, 2), pair(0, 2)
    if seed % 3 == 0:
        strides = dilation = (1, 1)
    extra = tuple(int(rng.integers(0, s)) for s in strides)
    groups = int(rng.choice([1, 1, 2, 3]))
    inner = 40 if seed % 4 == 0 else int(rng.integers(1, 5))
    channels, filters = groups * inner, groups * int(rng.integers(1, 4))
    if seed == 5:  # depthwise
        groups = channels = filters = 6
    least = [1 + -(-2 * p // s) for p, s in zip(padding, strides)]
    H, W = (int(n + rng.integers(0, 5)) for n in least)
    bias = bool(rng.integers(2))
    layer = L.Conv2DTranspose(
        filters, kernel, strides, padding, extra, dilation_rate=dilation, groups=groups, use_bias=bias
    )
    model = built(layer, (channels, H, W), precision, seed)
    module = nn.ConvTranspose2d(
        channels, filters, kernel, strides, padding, extra, groups, bias, dilation=dilation
    )
    x = rng.standard_normal((int(rng.choice([1, 5])), channels, H, W)).astype(precision)
    compare(model, nn.Sequential(module), x)


def test_a_transposed_convolution_is_the_adjoint_of_a_convolution(precision, rng):
    """<conv x, y> = <x, transposed y> for the same weights."""
    given = {"kernel_size": 3, "strides": 2, "padding": 1, "use_bias": False}
    down = built(L.Conv2D(6, **given), (4, 9, 7), precision)
    up = built(L.Conv2DTranspose(4, **given), down.output_shape, precision)
    up.load_state_dict(down.state_dict())
    x, y = (rng.standard_normal((3, *m.input_shape)).astype(precision) for m in (down, up))
    assert (down.predict(x) * y).sum() == pytest.approx((x * up.predict(y)).sum(), rel=tolerance(precision))


@pytest.mark.parametrize("size", [2, (1, 4), (3, 2)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_up_sampling(size, mode, precision, rng):
    align = {"align_corners": False} if mode == "bilinear" else {}
    for shape in ((3, 4, 5), (2, 1, 1), (1, 2, 7)):
        model = built(L.UpSampling2D(size, mode), shape, precision)
        x = rng.standard_normal((4, *shape)).astype(precision)
        factor = size if isinstance(size, tuple) else (size, size)
        factor = tuple(map(float, factor))
        compare(model, nn.Sequential(nn.Upsample(scale_factor=factor, mode=mode, **align)), x)


@pytest.mark.parametrize("kind", ["max", "average", "average without padding"])
@pytest.mark.parametrize("seed", range(16))
def test_pooling(kind, seed, precision):
    rng = np.random.default_rng([seed, len(kind)])
    size = tuple(int(v) for v in rng.integers(1, 5, 2))
    strides = None if seed % 4 == 0 else tuple(int(v) for v in rng.integers(1, 5, 2))
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in size) if seed % 2 else 0
    ceil = bool(seed % 3)
    shape = (3, *(int(v) for v in rng.integers(5, 12, 2)))
    if kind == "max":
        layer = L.MaxPooling2D(size, strides, padding, ceil)
        module = nn.MaxPool2d(size, strides, padding, ceil_mode=ceil)
    else:
        include = kind == "average"
        layer = L.AveragePooling2D(size, strides, padding, ceil, None if include else False)
        module = nn.AvgPool2d(size, strides, padding, ceil, count_include_pad=include)
    x = rng.standard_normal((4, *shape)).astype(precision)
    compare(built(layer, shape, precision), nn.Sequential(module), x)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("seed", range(8))
def test_same_pooling_pads_as_keras_does(kind, seed, precision):
    """The padding never wins a maximum and does not count in a mean."""
    rng = np.random.default_rng(seed)
    size, strides = (tuple(int(v) for v in rng.integers(1, high, 2)) for high in (5, 4))
    shape = (2, *(int(v) for v in rng.integers(5, 10, 2)))
    sides = same_sides(shape[1:], size, strides, (1, 1))

    def pool(t, _):
        if kind == "max":
            return F.max_pool2d(F.pad(t, sides, value=-torch.inf), size, strides)
        counts = F.avg_pool2d(F.pad(torch.ones_like(t), sides), size, strides)
        return F.avg_pool2d(F.pad(t, sides), size, strides) / counts

    layer = (L.MaxPooling2D if kind == "max" else L.AveragePooling2D)(size, strides, "same")
    model = built(layer, shape, precision)
    assert model.output_shape[1:] == tuple(-(-n // s) for n, s in zip(shape[1:], strides))
    compare(model, pool, rng.standard_normal((3, *shape)).astype(precision) - 3)


def test_max_pooling_breaks_ties_as_torch_does(rng):
    x = rng.integers(0, 2, (5, 2, 7, 8)).astype(np.float64)
    for size, strides in ((2, 2), (3, 2), (3, 1)):
        compare(
            built(L.MaxPooling2D(size, strides), x.shape[1:], "float64"),
            nn.Sequential(nn.MaxPool2d(size, strides)),
            x,
        )


def test_global_pooling_padding_and_reshaping(precision, rng):
    x = rng.standard_normal((4, 3, 5, 6)).astype(precision)
    for layer, function in [
        (L.GlobalAveragePooling2D(), lambda t, _: t.mean(dim=(2, 3))),
        (L.GlobalMaxPooling2D(), lambda t, _: t.amax(dim=(2, 3))),
        (L.ZeroPadding2D(((1, 2), (0, 3))), lambda t, _: F.pad(t, (0, 3, 1, 2))),
        (L.Flatten(), lambda t, _: t.flatten(1)),
        (L.Reshape((6, 5, -1)), lambda t, _: t.reshape(4, 6, 5, 3)),
        (L.Reshape((-1,)), lambda t, _: t.reshape(4, -1)),
    ]:
        compare(built(layer, x.shape[1:], precision), function, x)
    vectors = x.reshape(4, -1)
    compare(built(L.Reshape((5, 3, 6)), (90,), precision), lambda t, _: t.reshape(4, 5, 3, 6), vectors)


# -- dense, activations, normalisation -----------------------------------------------------------------------

FUNCTIONS = {
    "linear": (lambda: "linear", nn.Identity),
    "relu": (lambda: "relu", nn.ReLU),
    "leaky_relu": (lambda: "leaky_relu", lambda: nn.LeakyReLU(0.2)),
    "leaky_relu 0.01": (lambda: activations.LeakyReLU(0.01), lambda: nn.LeakyReLU(0.01)),
    "elu": (lambda: "elu", nn.ELU),
    "elu 0.3": (lambda: activations.ELU(0.3), lambda: nn.ELU(0.3)),
    "sigmoid": (lambda: "sigmoid", nn.Sigmoid),
    "tanh": (lambda: "tanh", nn.Tanh),
    "softmax": (lambda: "softmax", lambda: nn.Softmax(dim=1)),
    "softplus": (lambda: "softplus", lambda: nn.Softplus(threshold=1e9)),
    "gelu": (lambda: "gelu", nn.GELU),
    "gelu tanh": (lambda: activations.GELU(approximate=True), lambda: nn.GELU("tanh")),
    "silu": (lambda: "silu", nn.SiLU),
}


def test_every_activation_is_compared():
    assert {name.split()[0] for name in FUNCTIONS} == set(activations.TABLE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations(name, precision, rng):
    """Alone on vectors and maps, over a wide range of values, and inside Dense and Conv2D."""
    ours, theirs = FUNCTIONS[name]
    x = (3 * rng.standard_normal((6, 4, 5, 3))).astype(precision)
    x[0, 0] = [-20.0, -8.0, 9.0]
    compare(built(L.Activation(ours()), (4, 5, 3), precision), nn.Sequential(theirs()), x)
    vectors = x.reshape(6, -1)
    compare(built(L.Activation(ours()), (60,), precision), nn.Sequential(theirs()), vectors)
    dense = built(L.Dense(7, activation=ours()), (60,), precision)
    compare(dense, nn.Sequential(nn.Linear(60, 7), theirs()), vectors)
    conv = built(L.Conv2D(6, 3, padding=1, activation=ours()), (4, 5, 3), precision)
    compare(conv, nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), theirs()), x)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n", [1, 6])
def test_dense(bias, n, precision, rng):
    x = rng.standard_normal((n, 5)).astype(precision)
    compare(built(L.Dense(4, use_bias=bias), (5,), precision), nn.Sequential(nn.Linear(5, 4, bias=bias)), x)


@pytest.mark.parametrize("shape", [(5,), (4, 3, 6), (3, 1, 1)], ids=str)
@pytest.mark.parametrize("train", [True, False])
def test_batch_normalization(shape, train, precision, rng):
    model = built(L.BatchNormalization(momentum=0.7, epsilon=1e-4), shape, precision)
    norm = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
    x = (2 * rng.standard_normal((6, *shape)) + 1).astype(precision)
    compare(model, nn.Sequential(norm(shape[0], eps=1e-4, momentum=0.3)), x, train=train)


@pytest.mark.parametrize("shape", [(5,), (4, 3, 6)], ids=str)
def test_running_statistics(shape, precision, rng):
    """momentum is one minus PyTorch's; the running variance is the unbiased one; batches are counted."""
    model = built(L.BatchNormalization(momentum=0.7), shape, precision)
    model.compile(xpnet.optimizers.SGD(0.0), "mse")
    norm = (nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d)(shape[0], momentum=0.3, eps=1e-3)
    module = nn.Sequential(norm).to(getattr(torch, precision))
    module.load_state_dict(tensors(model.state_dict()))
    for _ in range(5):
        x = (3 * rng.standard_normal((4, *shape)) - 1).astype(precision)
        model.train_on_batch(x, x)
        module(torch.from_numpy(x))
    expected = module.state_dict()
    assert list(model.state_dict()) == list(expected)
    for name, value in model.state_dict().items():
        assert_close(value, expected[name].numpy(), tolerance(precision), name)
    assert model.state_dict()["0.num_batches_tracked"] == 5


@pytest.mark.parametrize("shape", [(6,), (4, 3, 5)], ids=str)
def test_layer_normalization(shape, precision, rng):
    x = (2 * rng.standard_normal((5, *shape)) + 1).astype(precision)
    model = built(L.LayerNormalization(epsilon=1e-5), shape, precision)
    compare(model, nn.Sequential(nn.LayerNorm(shape)), x)


def test_layer_normalization_over_channels(precision, rng):
    x = rng.standard_normal((5, 4, 3, 6)).astype(precision)

    def normalise(t, p):
        y = F.layer_norm(t.permute(0, 2, 3, 1), (4,), p["0.weight"], p["0.bias"], 1e-3)
        return y.permute(0, 3, 1, 2)

    compare(built(L.LayerNormalization(axis="channels"), (4, 3, 6), precision), normalise, x)


@pytest.mark.parametrize("shape", [(12,), (12, 3, 5), (12, 1, 1)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 3, -1])
def test_group_normalization(shape, groups, precision, rng):
    if groups == -1:  # a group of one number would have no variance
        shape = (12, 3, 5)
    x = (2 * rng.standard_normal((5, *shape)) + 1).astype(precision)
    model = built(L.GroupNormalization(groups, epsilon=1e-4), shape, precision)
    count = groups if groups > 0 else 12
    compare(model, nn.Sequential(nn.GroupNorm(count, 12, eps=1e-4)), x)
    if groups == -1:
        state = tensors(model.state_dict())
        expected = F.instance_norm(
            torch.from_numpy(x), weight=state["0.weight"], bias=state["0.bias"], eps=1e-4
        )
        assert_close(model.predict(x), expected.numpy(), tolerance(precision))


def test_normalization_is_a_batch_normalization_that_is_done_learning(precision, rng):
    x = (3 * rng.standard_normal((6, 4, 5, 3)) - 1).astype(precision)
    model = built(L.Normalization(), (4, 5, 3), precision)
    model.layers[0].adapt(x)
    state = model.state_dict()

    def normalise(t, _):
        mean, var = (torch.from_numpy(state[f"0.running_{name}"]) for name in ("mean", "var"))
        return F.batch_norm(t, mean, var, eps=0.0)

    for train in (True, False):
        compare(model, normalise, x, train=train)
    assert_close(model.predict(x).mean((0, 2, 3)), np.zeros(4), 1e-3 * tolerance(precision), least=1e3)
    assert_close(model.predict(x).var((0, 2, 3)), np.ones(4), tolerance(precision))


def test_rescaling(precision, rng):
    x = rng.integers(0, 256, (4, 2, 3, 5)).astype(precision)
    compare(built(L.Rescaling(1 / 127.5, -1), (2, 3, 5), precision), lambda t, _: t / 127.5 - 1, x)


def test_dropout_s_gradient_passes_the_same_mask(precision, rng):
    """PyTorch's masks are others; the formula, at our own mask, is not."""
    x = rng.standard_normal((6, 50)).astype(precision)
    model = built(L.Dropout(0.4), (50,), precision)
    mask = model.forward(np.ones_like(x), train=True)[0]
    compare(model, lambda t, _: t * torch.from_numpy(mask), x)
    compare(model, nn.Sequential(nn.Dropout(0.4)), x, train=False)
    maps = x.reshape(6, 10, 5, 1)
    model = built(L.SpatialDropout2D(0.4), (10, 5, 1), precision)
    mask = model.forward(np.ones_like(maps), train=True)[0]
    compare(model, lambda t, _: t * torch.from_numpy(mask), maps)
    compare(model, nn.Sequential(nn.Dropout2d(0.4)), maps, train=False)


# -- containers ----------------------------------------------------------------------------------------------


class TorchResidual(nn.Module):
    def __init__(self, body, shortcut=(), last=None):
        super().__init__()
        self.body, self.shortcut, self.last = nn.Sequential(*body), nn.Sequential(*shortcut), last

    def forward(self, x):
        y = self.body(x) + self.shortcut(x)
        return self.last(y) if self.last else y


class TorchConcatenate(nn.Module):
    def __init__(self, branches):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


@pytest.mark.parametrize("train", [True, False])
def test_residual(train, precision, rng):
    def both(filters, strides):
        ours = [
            L.Conv2D(filters, 3, strides, 1, use_bias=False),
            L.BatchNormalization(0.9, 1e-5),
            L.Activation("relu"),
            L.Conv2D(filters, 3, 1, 1, activation="tanh"),
            L.BatchNormalization(0.9, 1e-5),
        ]
        theirs = [
            nn.Conv2d(3, filters, 3, strides, 1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, 1, 1),
            nn.Tanh(),
            nn.BatchNorm2d(filters),
        ]
        return ours, theirs

    x = rng.standard_normal((4, 3, 7, 6)).astype(precision)
    ours, theirs = both(5, 2)
    model = built(L.Residual(ours, L.Conv2D(5, 1, 2), "relu"), (3, 7, 6), precision)
    compare(model, nn.Sequential(TorchResidual(theirs, [nn.Conv2d(3, 5, 1, 2)], nn.ReLU())), x, train=train)
    ours, theirs = both(3, 1)
    compare(
        built(L.Residual(ours), (3, 7, 6), precision), nn.Sequential(TorchResidual(theirs)), x, train=train
    )


def test_concatenate(precision, rng):
    x = rng.standard_normal((4, 3, 6, 5)).astype(precision)
    ours = [
        [L.Conv2D(2, 1, activation="relu"), L.Conv2D(4, 3, padding="same")],
        [],
        [L.MaxPooling2D(3, 1, 1), L.Conv2D(2, 1)],
    ]
    theirs = [
        [nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 3, padding="same")],
        [],
        [nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, 2, 1)],
    ]
    compare(built(L.Concatenate(ours), (3, 6, 5), precision), nn.Sequential(TorchConcatenate(theirs)), x)
    vectors = x.reshape(4, -1)
    model = built(
        [L.Concatenate([L.Dense(3), [L.Dense(2, "tanh"), L.Dense(4)]]), L.Dense(2)], (90,), precision
    )
    branches = [[nn.Linear(90, 3)], [nn.Linear(90, 2), nn.Tanh(), nn.Linear(2, 4)]]
    compare(model, nn.Sequential(TorchConcatenate(branches), nn.Linear(7, 2)), vectors)


# -- whole networks ------------------------------------------------------------------------------------------


class TorchMean(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))


class Twins:
    """A random network, written twice."""

    def __init__(self, seed):
        self.rng = np.random.default_rng([99, seed])
        self.ours, self.theirs = [], []
        maps = self.rng.random() < 0.75
        self.shape = (int(self.rng.integers(1, 5)), *self.sizes(8, 15, 2)) if maps else self.sizes(3, 20, 1)
        now = self.shape
        if maps:
            for _ in range(int(self.rng.integers(1, 6))):
                now = self.map_layer(now)
            if self.rng.random() < 0.3:
                self.put(L.GlobalAveragePooling2D(), TorchMean())
                now = now[:1]
            elif self.rng.random() < 0.8:
                self.put(L.Flatten(), nn.Flatten())
                now = (int(np.prod(now)),)
        if len(now) == 1:
            for _ in range(int(self.rng.integers(1, 4))):
                now = self.vector_layer(now)

    def sizes(self, low, high, count):
        return tuple(int(v) for v in self.rng.integers(low, high, count))

    def put(self, ours, *theirs):
        self.ours.append(ours)
        self.theirs.extend(theirs)
        assert ours.modules == len(theirs)

    def function(self):
        """An activation, or none, and the module it becomes."""
        names = [n for n in FUNCTIONS if n not in ("linear", "softmax")]
        if self.rng.random() < 0.3:
            return None, []
        ours, theirs = FUNCTIONS[str(self.rng.choice(names))]
        return ours(), [theirs()]

    def map_layer(self, shape):
        C, H, W = shape
        kind = self.rng.choice(
            ["conv", "conv", "conv", "up", "max", "average", "norm", "layernorm", "group", "residual", "pad"]
        )
        if kind == "conv":
            k, s = self.sizes(1, min(5, H + 1, W + 1), 2), int(self.rng.choice([1, 1, 2]))
            padding = ["valid", "same", 1][int(self.rng.integers(3))]
            if padding == "same":
                s, k = 1, tuple(v | 1 for v in k)
            groups = C if self.rng.random() < 0.2 else 1
            filters, bias = groups * int(self.rng.integers(1, 7)), bool(self.rng.integers(2))
            f, module = self.function()
            self.put(
                L.Conv2D(filters, k, s, padding, groups=groups, activation=f, use_bias=bias),
                nn.Conv2d(C, filters, k, s, 0 if padding == "valid" else padding, groups=groups, bias=bias),
                *module,
            )
            grown = {"valid": (0, 0), "same": (k[0] - 1, k[1] - 1), 1: (2, 2)}[padding]
            return (filters, *((n + g - v) // s + 1 for n, g, v in zip((H, W), grown, k)))
        if kind == "up" and self.rng.random() < 0.5:
            k, s, p = (int(v) for v in self.rng.integers((1, 1, 0), (5, 3, 2)))
            if min(((n - 1) * s + k - 2 * p) for n in (H, W)) > 0:
                filters = int(self.rng.integers(1, 7))
                f, module = self.function()
                self.put(
                    L.Conv2DTranspose(filters, k, s, p, activation=f),
                    nn.ConvTranspose2d(C, filters, k, s, p),
                    *module,
                )
                return (filters, *((n - 1) * s + k - 2 * p for n in (H, W)))
        elif kind == "up":
            mode = str(self.rng.choice(["nearest", "bilinear"]))
            self.put(L.UpSampling2D(2, mode), nn.Upsample(scale_factor=2, mode=mode))
            return C, 2 * H, 2 * W
        if kind in ("max", "average") and min(H, W) >= 3:
            k, s, p = (
                int(v) for v in (self.rng.integers(2, 4), self.rng.integers(1, 3), self.rng.integers(2))
            )
            if kind == "max":
                self.put(L.MaxPooling2D(k, s, p), nn.MaxPool2d(k, s, p))
            else:
                self.put(L.AveragePooling2D(k, s, p), nn.AvgPool2d(k, s, p))
            return (C, *((n + 2 * p - k) // s + 1 for n in (H, W)))
        if kind == "norm" and H * W > 1:
            self.put(L.BatchNormalization(0.9, 1e-3), nn.BatchNorm2d(C, eps=1e-3))
        elif kind == "layernorm" and C * H * W > 4:
            self.put(L.LayerNormalization(1e-3), nn.LayerNorm(shape, eps=1e-3))
        elif kind == "group" and H * W > 4:
            groups = C if C % 2 else 2
            self.put(L.GroupNormalization(groups), nn.GroupNorm(groups, C, eps=1e-3))
        elif kind == "residual":
            self.put(
                L.Residual([L.Conv2D(C, 3, 1, 1, activation="tanh"), L.Conv2D(C, 1)]),
                TorchResidual([nn.Conv2d(C, C, 3, 1, 1), nn.Tanh(), nn.Conv2d(C, C, 1)]),
            )
        elif kind == "pad":
            self.put(L.ZeroPadding2D(((0, 1), (2, 0))), nn.ZeroPad2d((2, 0, 0, 1)))
            return C, H + 1, W + 2
        return shape

    def vector_layer(self, shape):
        kind = self.rng.choice(["dense", "dense", "dense", "norm", "layernorm", "concatenate", "softmax"])
        (D,) = shape
        if kind == "dense":
            units, bias = int(self.rng.integers(2, 20)), bool(self.rng.integers(2))
            f, module = self.function()
            self.put(L.Dense(units, f, bias), nn.Linear(D, units, bias), *module)
            return (units,)
        if kind == "norm":
            self.put(L.BatchNormalization(0.9, 1e-3), nn.BatchNorm1d(D, eps=1e-3))
        elif kind == "layernorm" and D > 4:
            self.put(L.LayerNormalization(1e-3), nn.LayerNorm(D, eps=1e-3))
        elif kind == "concatenate":
            self.put(L.Concatenate([L.Dense(3), []]), TorchConcatenate([[nn.Linear(D, 3)], []]))
            return (D + 3,)
        elif kind == "softmax":
            self.put(L.Activation("softmax"), nn.Softmax(dim=1))
        return shape


class TorchMax(nn.Module):
    def forward(self, x):
        return x.amax(dim=(2, 3))


class TorchScale(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x * self.scale


def torch_norm(filters):
    return nn.BatchNorm2d(filters, eps=1e-5, momentum=0.1)


def torch_resnet9(channels, classes, width):
    """D. Page's network, as its authors write it in PyTorch."""

    def conv(before, filters):
        return [nn.Conv2d(before, filters, 3, padding=1, bias=False), torch_norm(filters), nn.ReLU()]

    def residual(filters):
        return TorchResidual([*conv(filters, filters), *conv(filters, filters)])

    return nn.Sequential(
        *conv(channels, width),
        *conv(width, 2 * width),
        nn.MaxPool2d(2),
        residual(2 * width),
        *conv(2 * width, 4 * width),
        nn.MaxPool2d(2),
        *conv(4 * width, 8 * width),
        nn.MaxPool2d(2),
        residual(8 * width),
        TorchMax(),
        nn.Linear(8 * width, classes, bias=False),
        TorchScale(0.125),
    )


def torch_resnet18(channels, classes, width):
    """torchvision's BasicBlocks behind a 3x3 convolution."""

    def block(before, filters, stride):
        body = [
            nn.Conv2d(before, filters, 3, stride, 1, bias=False),
            torch_norm(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, 1, 1, bias=False),
            torch_norm(filters),
        ]
        shortcut = [nn.Conv2d(before, filters, 1, stride, bias=False), torch_norm(filters)]
        return TorchResidual(body, shortcut if stride > 1 else (), nn.ReLU())

    widths = [width, width, 2 * width, 4 * width, 8 * width]
    blocks = []
    for stage, (before, filters) in enumerate(zip(widths, widths[1:])):
        blocks += [block(before, filters, 2 if stage else 1), block(filters, filters, 1)]
    stem = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), torch_norm(width), nn.ReLU()]
    # a Residual's own activation counts as a module
    numbered = [module for one in blocks for module in (one, nn.Identity())]
    return nn.Sequential(*stem, *numbered, TorchMean(), nn.Linear(8 * width, classes))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ["resnet9", "resnet18"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 9, 11)], ids=str)
def test_residual_networks(name, shape, train, rng):
    model = built(networks.build(name, shape, 5, width=6), shape, "float64")
    module = {"resnet9": torch_resnet9, "resnet18": torch_resnet18}[name](shape[0], 5, 6)
    assert list(model.state_dict()) == list(module.state_dict())
    compare(model, module, rng.standard_normal((4, *shape)), train=train)


def torch_vgg(blocks, channels, batch_norm):
    """torchvision's make_layers."""
    layers = []
    for block in blocks:
        for filters in block:
            layers += [nn.Conv2d(channels, filters, 3, padding=1)]
            layers += [torch_norm(filters)] * batch_norm + [nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2, 2))
    return layers


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg_is_torchvision_s_by_name_and_value(batch_norm, rng):
    blocks = ((3,), (4,), (6, 6))
    model = built(
        networks.vgg((2, 8, 9), 5, blocks=blocks, batch_norm=batch_norm, hidden=(7,), dropout=0.0),
        (2, 8, 9),
        "float64",
    )
    features = torch_vgg(blocks, 2, batch_norm)
    module = nn.Sequential(*features, nn.Flatten(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 5))
    compare(model, module, rng.standard_normal((4, 2, 8, 9)))


@pytest.mark.parametrize("seed", range(30))
def test_whole_random_networks(seed, precision):
    twins = Twins(seed)
    model, module = built(twins.ours, twins.shape, precision, seed), nn.Sequential(*twins.theirs)
    x = twins.rng.standard_normal((5, *twins.shape)).astype(precision)
    for train in (True, False):
        compare(model, module, x, train=train)


def test_state_dict_goes_both_ways(precision, rng):
    """A torch.nn.Sequential's own state loads here by name, and ours loads there, without a renaming."""
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10)
    ).to(getattr(torch, precision))
    model = xpnet.Sequential(
        [
            L.Conv2D(8, 3, activation="relu"),
            L.BatchNormalization(0.9, 1e-5),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dense(10),
        ],
        input_shape=(1, 8, 8),
        device="cpu",
        precision=precision,
        seed=1,
    )
    theirs = module.state_dict()
    assert list(model.state_dict()) == list(theirs)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: tuple(v.shape) for k, v in theirs.items()
    }
    model.load_state_dict(theirs)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, theirs[name].numpy(), err_msg=name)
    x = rng.standard_normal((3, 1, 8, 8)).astype(precision)
    with torch.no_grad():
        assert_close(model.predict(x), module.eval()(torch.from_numpy(x)).numpy(), tolerance(precision))
    randomise(model, rng)
    module.load_state_dict(tensors(model.state_dict()), strict=True)
    with torch.no_grad():
        assert_close(model.predict(x), module.eval()(torch.from_numpy(x)).numpy(), tolerance(precision))


def test_tensors_are_taken_as_they_are(rng):
    """x, y and dy may be PyTorch tensors, also ones that require a gradient."""
    model = built(L.Dense(3), (4,), "float32")
    model.compile("sgd", "mse")
    x = torch.from_numpy(rng.standard_normal((5, 4)).astype(np.float32)).requires_grad_()
    np.testing.assert_array_equal(model.predict(x), model.predict(x.detach().numpy()))
    model.train_on_batch(x, torch.zeros(5, 3))


# -- losses --------------------------------------------------------------------------------------------------


def one_hot(y, K, dtype):
    return np.eye(K, dtype=dtype)[y]


def soft(p, axis=1):
    e = np.exp(p - p.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


K = 5
LOSSES = {
    "sparse from logits": (
        lambda **k: losses.SparseCategoricalCrossentropy(from_logits=True, **k),
        lambda p, y: F.cross_entropy(p, y, reduction="none"),
        "index",
    ),
    "sparse": (
        losses.SparseCategoricalCrossentropy,
        lambda p, y: F.nll_loss(p.log(), y, reduction="none"),
        "index of p",
    ),
    "categorical from logits": (
        lambda **k: losses.CategoricalCrossentropy(from_logits=True, **k),
        lambda p, y: F.cross_entropy(p, y, reduction="none"),
        "soft",
    ),
    "categorical": (losses.CategoricalCrossentropy, lambda p, y: -(y * p.log()).sum(dim=1), "soft of p"),
    "smooth": (
        lambda **k: losses.SparseCategoricalCrossentropy(True, 0.1, **k),
        lambda p, y: F.cross_entropy(p, y, reduction="none", label_smoothing=0.1),
        "index",
    ),
    "smooth soft": (
        lambda **k: losses.CategoricalCrossentropy(True, 0.3, **k),
        lambda p, y: F.cross_entropy(p, y, reduction="none", label_smoothing=0.3),
        "soft",
    ),
    "binary from logits": (
        lambda **k: losses.BinaryCrossentropy(from_logits=True, **k),
        lambda p, y: F.binary_cross_entropy_with_logits(p, y, reduction="none").mean(dim=1),
        "share",
    ),
    "binary": (
        losses.BinaryCrossentropy,
        lambda p, y: F.binary_cross_entropy(p, y, reduction="none").mean(dim=1),
        "share of p",
    ),
    "binary smooth": (
        lambda **k: losses.BinaryCrossentropy(True, 0.2, **k),
        lambda p, y: F.binary_cross_entropy_with_logits(p, 0.8 * y + 0.1, reduction="none").mean(dim=1),
        "share",
    ),
    "mse": (
        losses.MeanSquaredError,
        lambda p, y: F.mse_loss(p, y, reduction="none").mean(dim=1),
        "number",
    ),
    "half": (
        losses.HalfSquaredError,
        lambda p, y: F.mse_loss(p, y, reduction="none").mean(dim=1) / 2,
        "number",
    ),
    "sse": (losses.SumSquaredError, lambda p, y: F.mse_loss(p, y, reduction="none").sum(dim=1), "number"),
    "mae": (losses.MeanAbsoluteError, lambda p, y: F.l1_loss(p, y, reduction="none").mean(dim=1), "number"),
    "huber": (
        lambda **k: losses.Huber(0.7, **k),
        lambda p, y: F.huber_loss(p, y, reduction="none", delta=0.7).mean(dim=1),
        "number",
    ),
}  # fmt: skip


def loss_inputs(kind, shape, precision, rng):
    """Outputs p (N, K) or (N, K, H, W) and targets that a loss of that kind takes."""
    p = (2 * rng.standard_normal(shape)).astype(precision)
    if kind.endswith("of p"):
        p = soft(p) if "share" not in kind else (1 / (1 + np.exp(-p)))
    if kind.startswith("index"):
        y = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    elif kind.startswith("soft"):
        y = soft(rng.standard_normal(shape)).astype(precision)
    else:
        y = (rng.random(shape) if kind.startswith("share") else 2 * rng.standard_normal(shape)).astype(
            precision
        )
    return p.astype(precision), y


def test_every_loss_is_compared():
    assert {make().name for make, _, _ in LOSSES.values()} == set(losses.TABLE)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses(name, weighted, reduction, ops, precision, rng):
    make, theirs, kind = LOSSES[name]
    p, y = loss_inputs(kind, (7, K), precision, rng)
    w = rng.uniform(0, 3, 7).astype(precision) if weighted else None
    loss = make(reduction=reduction)
    targets = loss.check_targets(y, (K,), np.dtype(precision))
    divisor = 7.0 if w is None else float(w.sum())
    device_w = None if w is None else ops.asarray(w)
    value, dp = loss.value_and_grad(ops, ops.asarray(p), ops.asarray(targets), device_w, divisor)
    t = torch.from_numpy(p).requires_grad_()
    each = theirs(t, torch.from_numpy(y))
    weights = torch.ones(7, dtype=t.dtype) if w is None else torch.from_numpy(w)
    expected = (each * weights).sum() / (weights.sum() if reduction == "mean" else 1)
    expected.backward()
    rtol = tolerance(precision)
    assert dp.dtype == precision
    assert_close(ops.to_host(value), expected.item(), rtol, "loss")
    assert_close(ops.to_host(dp), t.grad.numpy(), rtol, "dL/dp")
    assert_close(loss(y, p, w), expected.item(), rtol, "the loss called on its own")


@pytest.mark.parametrize("name", ["sparse from logits", "categorical from logits", "smooth"])
def test_losses_of_maps_are_means_over_pixels(name, precision, rng):
    make, theirs, kind = LOSSES[name]
    p, y = loss_inputs(kind, (3, K, 4, 2), precision, rng)
    loss = make()
    targets = loss.check_targets(y, (K, 4, 2), np.dtype(precision))
    value, dp = loss.value_and_grad(xpnet.ops.reference.Ops(), p, targets, None, 3.0)
    t = torch.from_numpy(p).requires_grad_()
    expected = theirs(t, torch.from_numpy(y)).mean()
    expected.backward()
    assert_close(value, expected.item(), tolerance(precision))
    assert_close(dp, t.grad.numpy(), tolerance(precision))


def test_class_weights_are_torch_s(precision, rng):
    """Its weighted mean divides by the weights' sum, and so does ours."""
    model = built(L.Dense(K), (4,), precision)
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = rng.standard_normal((9, 4)).astype(precision), rng.integers(0, K, 9)
    weights = rng.uniform(0.2, 3, K)
    module = nn.Sequential(nn.Linear(4, K)).to(getattr(torch, precision))
    module.load_state_dict(tensors(model.state_dict()))
    criterion = nn.CrossEntropyLoss(weight=torch.from_numpy(weights.astype(precision)))
    loss = criterion(module(torch.from_numpy(x)), torch.from_numpy(y))
    loss.backward()
    for name, g in model.gradients(x, y, weights[y]).items():
        assert_close(g, dict(module.named_parameters())[name].grad.numpy(), tolerance(precision), name)
    received = model.train_on_batch(x, y, class_weight=dict(enumerate(weights)))
    assert received == pytest.approx(loss.item(), rel=tolerance(precision))


@pytest.mark.parametrize(
    "last, loss", [("softmax", "sparse_categorical_crossentropy"), ("sigmoid", "binary_crossentropy")]
)
def test_a_folded_activation_trains_as_the_loss_from_logits(last, loss, precision, rng):
    """Also where the probabilities round to 0 or 1, which the unfolded loss would have to clip."""
    units = K if last == "softmax" else 1
    model = built([L.Dense(units, activation=last)], (4,), precision)
    model.compile("sgd", loss)
    x, y = 60 * rng.standard_normal((9, 4)).astype(precision), rng.integers(0, min(units, 2) or 2, 9)
    if last == "sigmoid":
        y = rng.integers(0, 2, (9, 1))
    module = nn.Sequential(nn.Linear(4, units)).to(getattr(torch, precision))
    module.load_state_dict(tensors(model.state_dict()))
    z = module(torch.from_numpy(x))
    if last == "softmax":
        expected = F.cross_entropy(z, torch.from_numpy(y))
    else:
        expected = F.binary_cross_entropy_with_logits(z, torch.from_numpy(y.astype(precision)))
    expected.backward()
    for name, g in model.gradients(x, y).items():
        assert_close(g, dict(module.named_parameters())[name].grad.numpy(), tolerance(precision), name)
    assert model.evaluate(x, y) == pytest.approx(expected.item(), rel=tolerance(precision))
    assert model.train_on_batch(x, y) == pytest.approx(expected.item(), rel=tolerance(precision))


# -- training ------------------------------------------------------------------------------------------------


def test_a_network_trains_as_in_torch(precision, rng):
    """50 steps of a small CNN with batch normalisation: losses, weights and running statistics."""
    model = xpnet.Sequential(
        [
            L.Conv2D(6, 3, padding="same", activation="tanh"),
            L.BatchNormalization(0.9, 1e-5),
            L.AveragePooling2D(2),
            L.Flatten(),
            L.Dense(12, activation="silu"),
            L.Dense(4),
        ],
        input_shape=(2, 6, 6),
        device="cpu",
        precision=precision,
        seed=2,
    )
    module = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding="same"), nn.Tanh(), nn.BatchNorm2d(6), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(54, 12), nn.SiLU(), nn.Linear(12, 4),
    ).to(getattr(torch, precision))  # fmt: skip
    module.load_state_dict(tensors(model.state_dict()))
    model.compile(xpnet.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    rtol = 20 * tolerance(precision)
    for _ in range(50):
        x, y = rng.standard_normal((8, 2, 6, 6)).astype(precision), rng.integers(0, 4, 8)
        optimizer.zero_grad()
        expected = F.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y))
        expected.backward()
        optimizer.step()
        assert model.train_on_batch(x, y) == pytest.approx(expected.item(), rel=rtol)
    for name, value in module.state_dict().items():
        assert_close(model.state_dict()[name], value.numpy(), rtol, name)
