"""Networks from elsewhere, by ONNX.  Every graph is run by ONNX Runtime, too, and the outputs compared."""

import io
import warnings

import numpy as np
import pytest
import strict_xp

onnx = pytest.importorskip("onnx", reason="pip install 'xpnet[onnx]'")
ort = pytest.importorskip("onnxruntime", reason="pip install 'xpnet[test]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from xpnet import Sequential, check_gradients, layers, load_model, optimizers  # noqa: E402
from xpnet.interop.onnx import OnnxError, export, load  # noqa: E402


class Made:
    """A graph in the making; calling it adds a node and gives the name of its output."""

    def __init__(self, *shape, seed=0, opset=20, dtype=np.float32, batch="N"):
        self.nodes, self.weights, self.shape, self.batch = [], [], shape, batch
        self.rng, self.opset, self.dtype = np.random.default_rng(seed), opset, np.dtype(dtype)

    def __call__(self, op, *inputs, name=None, **attributes):
        names = [self.array(i) if isinstance(i, (np.ndarray, np.generic)) else i for i in inputs]
        y = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [y], name or y, **attributes))
        return y

    def array(self, value):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape):
        return self.rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(self.dtype)

    def conv(self, x, filters, channels, size=3, groups=1, **attributes):
        W, b = self.weight(filters, channels // groups, size, size), self.weight(filters)
        return self("Conv", x, W, b, group=groups, **attributes)

    def batch_norm(self, x, channels, **attributes):
        scale, mean, var = self.weight(channels), self.weight(channels), np.abs(self.weight(channels)) + 0.5
        return self("BatchNormalization", x, scale, self.weight(channels), mean, var, **attributes)

    def model(self, *outputs, shape=None, domains=()):
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        x = helper.make_tensor_value_info("x", kind, [self.batch, *(self.shape if shape is None else shape)])
        outputs = [onnx.ValueInfoProto(name=y) for y in outputs or (self.nodes[-1].output[0],)]
        graph = helper.make_graph(self.nodes, "made", [x], outputs, self.weights)
        operators = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in domains)]
        model = helper.make_model(graph, opset_imports=operators, ir_version=8)
        model = onnx.shape_inference.infer_shapes(model)
        for value in model.graph.output:
            tensor = value.type.tensor_type
            tensor.elem_type = tensor.elem_type or kind
            if not tensor.HasField("shape"):  # wrong on purpose, or of no operator that onnx knows
                tensor.shape.dim.add().dim_param = "N"
        return model


class Last(Made):
    """A graph whose images have their channels last, but for the operators that want them first."""

    def __call__(self, op, *inputs, **attributes):
        if op == "Concat":
            attributes["axis"] = 3
        if not op.startswith(("Conv", "MaxPool", "AveragePool", "BatchNorm", "GlobalAveragePool")):
            return super().__call__(op, *inputs, **attributes)
        x = super().__call__("Transpose", inputs[0], perm=[0, 3, 1, 2])
        y = super().__call__(op, x, *inputs[1:], **attributes)
        return super().__call__("Transpose", y, perm=[0, 2, 3, 1])


def by_runtime(model, x, output=None):
    options = ort.SessionOptions()
    options.log_severity_level = 3  # shapes that an exporter guessed are no concern of ours
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([output] if output else None, {session.get_inputs()[0].name: x})[0]


def agree(model, shape, samples=3, **arguments):
    """Load the model and compare it with ONNX Runtime; the loaded one."""
    x = np.random.default_rng(1).normal(size=(samples, *shape)).astype(np.float32)
    loaded = load(model, device="cpu", **arguments)
    same(loaded.predict(x), by_runtime(model, x, arguments.get("output")))
    return loaded


def same(got, wanted, tolerance=1e-5):
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * max(np.abs(wanted).max(), 1e-6))


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


# -- networks made by PyTorch --------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def exported(torch, net, *shape, opset=17, **arguments):
    """What torch's older exporter makes of a network whose statistics are not those it begins with."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low in (
                (module.running_mean, -1),
                (module.running_var, 0.5),
                (module.weight.data, 0.5),
            ):
                tensor.uniform_(low, 2)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), torch.zeros(2, *shape), file, dynamo=False, opset_version=opset, input_names=["x"],
            dynamic_axes={"x": {0: "n"}}, **arguments,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def whole(torch):
    """Arguments that keep batch normalization and dropout in the graph."""
    return {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}


@pytest.mark.torch
@pytest.mark.parametrize("opset", [9, 13, 17])
def test_vgg11(torch, opset):
    nn, parts, channels = torch.nn, [], 3
    for width in (4, "M", 8, "M", 12, 12, "M", 16, 16, "M", 16, 16, "M"):
        if width == "M":
            parts.append(nn.MaxPool2d(2, 2))
        else:
            parts += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width

    class VGG(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.pool = nn.Sequential(*parts), nn.AdaptiveAvgPool2d((2, 2))
            self.classifier = nn.Sequential(
                nn.Linear(64, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 24), nn.ReLU(True),
                nn.Dropout(), nn.Linear(24, 10),
            )  # fmt: skip

        def forward(self, x):
            return self.classifier(torch.flatten(self.pool(self.features(x)), 1))

    model = agree(exported(torch, VGG(), 3, 64, 64, opset=opset, **whole(torch)), (3, 64, 64))
    assert kinds(model)[:3] == ["Conv2D", "BatchNormalization", "Activation"]
    assert kinds(model).count("Conv2D") == 8 and kinds(model).count("Dense") == 3
    assert model.output_shape == (10,)


def basic_block(torch):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, i, o, stride=1):
            super().__init__()
            self.a, self.b = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.Conv2d(o, o, 3, 1, 1, bias=False)
            self.c, self.d = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
            self.short = nn.Identity()
            if stride > 1 or i != o:
                self.short = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

        def forward(self, x):
            y = self.d(self.b(torch.relu(self.c(self.a(x)))))
            return torch.relu(y + self.short(x))

    return Block


@pytest.mark.torch
@pytest.mark.parametrize("folded", [True, False])
def test_resnet18(torch, folded):
    nn, Block = torch.nn, basic_block(torch)
    blocks = [Block(8, 8), Block(8, 8), Block(8, 12, 2), Block(12, 12), Block(12, 16, 2), Block(16, 16)]
    net = nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    model = agree(exported(torch, net, 3, 40, 40, **({} if folded else whole(torch))), (3, 40, 40))
    residual = [layer for layer in model.layers if isinstance(layer, layers.Residual)]
    assert len(residual) == 6 and all(layer.activation.name == "relu" for layer in residual)
    assert [len(layer.shortcut or []) for layer in residual] == [
        0,
        0,
        1 + (not folded),
        0,
        1 + (not folded),
        0,
    ]
    if not folded:
        state = model.state_dict()
        np.testing.assert_array_equal(state["4.body.0.weight"], blocks[0].a.weight.detach().numpy())
        np.testing.assert_array_equal(
            state["8.shortcut.1.running_var"], blocks[2].short[1].running_var.numpy()
        )


@pytest.mark.torch
def test_squeezenet_fire(torch):
    nn = torch.nn

    class Fire(nn.Module):
        def __init__(self, i, squeeze, expand):
            super().__init__()
            self.squeeze = nn.Conv2d(i, squeeze, 1)
            self.small, self.large = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

        def forward(self, x):
            x = torch.relu(self.squeeze(x))
            return torch.cat([torch.relu(self.small(x)), torch.relu(self.large(x))], 1)

    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8, 4, 6), Fire(12, 4, 8),
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(), nn.Conv2d(16, 5, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    model = agree(exported(torch, net, 3, 38, 38), (3, 38, 38))
    assert kinds(model).count("Concatenate") == 2
    assert kinds(model)[-1] == "GlobalAveragePooling2D"  # whose vector needs no Flatten


@pytest.mark.torch
def test_densenet_lists_all_features_so_far(torch):
    nn = torch.nn

    class Layer(nn.Module):
        def __init__(self, i):
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(i), nn.Conv2d(i, 4, 3, padding=1)

        def forward(self, features):
            return self.conv(torch.relu(self.norm(torch.cat(features, 1))))

    class Block(nn.Module):
        def __init__(self, i, n):
            super().__init__()
            self.layers = nn.ModuleList(Layer(i + 4 * k) for k in range(n))

        def forward(self, x):
            features = [x]
            for layer in self.layers:
                features.append(layer(features))
            return torch.cat(features, 1)

    net = nn.Sequential(
        nn.Conv2d(2, 6, 3), Block(6, 4), nn.Conv2d(22, 6, 1), nn.AvgPool2d(2), Block(6, 2),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(14, 3), nn.Softmax(1),
    )  # fmt: skip
    model = agree(exported(torch, net, 2, 14, 12), (2, 14, 12))
    assert kinds(model).count("Concatenate") == 6


@pytest.mark.torch
def test_inception_branches_that_part_again(torch):
    nn = torch.nn

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 5, 1)
            self.wide, self.tall = (
                nn.Conv2d(5, 2, (1, 3), padding=(0, 1)),
                nn.Conv2d(5, 3, (3, 1), padding=(1, 0)),
            )
            self.c = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            b = self.b(x)
            b = torch.cat([self.wide(b), self.tall(b)], 1)  # the exporter joins both lists to one
            pooled = nn.functional.avg_pool2d(x, 3, 1, 1)
            return torch.cat([self.a(x), b, self.c(pooled)], 1)

    agree(exported(torch, nn.Sequential(Mixed(), nn.Conv2d(10, 2, 1)), 4, 6, 7), (4, 6, 7))
    # all four in one list, as ONNX's optimisers write it
    made = Made(4, 6, 6)
    b = made.conv("x", 5, 4)
    made("Concat", made.conv("x", 2, 4), made.conv(b, 3, 5, pads=[1] * 4), b, made.conv("x", 2, 4), axis=1)
    (joined,) = agree(made.model(), (4, 6, 6)).layers
    assert [len(branch) for branch in joined.branches] == [1, 2, 1]


@pytest.mark.torch
def test_mobilenet_inverted_residual(torch):
    nn = torch.nn

    class Inverted(nn.Module):
        def __init__(self, i):
            super().__init__()
            self.parts = nn.Sequential(
                nn.Conv2d(i, 3 * i, 1, bias=False), nn.BatchNorm2d(3 * i), nn.ReLU6(),
                nn.Conv2d(3 * i, 3 * i, 3, padding=1, groups=3 * i, bias=False), nn.BatchNorm2d(3 * i),
                nn.ReLU6(), nn.Conv2d(3 * i, i, 1, bias=False), nn.BatchNorm2d(i),
            )  # fmt: skip

        def forward(self, x):
            return x + self.parts(x)

    model = agree(exported(torch, nn.Sequential(Inverted(4), Inverted(4)), 4, 9, 8), (4, 9, 8))
    assert kinds(model) == ["Residual", "Residual"]


@pytest.mark.torch
def test_convnext_block(torch):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, C):
            super().__init__()
            self.depthwise, self.norm = nn.Conv2d(C, C, 7, padding=3, groups=C), nn.LayerNorm(C, eps=1e-6)
            self.up, self.down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
            self.scale = nn.Parameter(torch.rand(C, 1, 1))

        def forward(self, x):
            y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
            y = self.down(nn.functional.gelu(self.up(y)))
            return x + self.scale * y.permute(0, 3, 1, 2)

    (block,) = agree(exported(torch, nn.Sequential(Block(6)), 6, 9, 8), (6, 9, 8)).layers
    body = [type(layer).__name__ for layer in block.body]
    assert body == ["Conv2D", "LayerNormalization", "Conv2D", "Conv2D"]
    assert block.body[2].activation.name == "gelu"


@pytest.mark.torch
@pytest.mark.parametrize("opset", [11, 18])
def test_autoencoder(torch, opset):
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(4, 8, 3, 2, 1), nn.ELU(),
        nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1), nn.GroupNorm(2, 4), nn.Upsample(scale_factor=2),
        nn.InstanceNorm2d(4, affine=True), nn.Conv2d(4, 1, 3, padding=1), nn.Tanh(),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Sigmoid(),
    )  # fmt: skip
    net[5].weight.data.uniform_(0.5, 2)
    model = agree(exported(torch, net, 1, 28, 28, opset=opset), (1, 28, 28))
    assert kinds(model)[2:5] == ["Conv2DTranspose", "GroupNormalization", "UpSampling2D"]


@pytest.mark.torch
def test_a_network_along_one_axis(torch):
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 6, 3, 2, bias=False), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 2),
    )  # fmt: skip
    assert agree(exported(torch, net, 4, 21), (4, 21)).input_shape == (4, 21)


@pytest.mark.torch
def test_shapes_that_the_graph_computes(torch):
    nn = torch.nn

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.dense = nn.Conv2d(2, 3, 3), nn.Linear(3 * 4 * 5, 4)

        def forward(self, x):
            x = self.conv(x)
            return self.dense(x.view(x.size(0), x.size(1) * x.size(2) * x.size(3)))

    graph = exported(torch, Flat(), 2, 6, 7, opset=11)
    assert {"Shape", "Gather"} <= {node.op_type for node in graph.graph.node}
    agree(graph, (2, 6, 7))


# -- networks with their channels last -----------------------------------------------------------------------


def keras_like(made):
    """As tf2onnx writes a Keras model: Transposes around every convolution, MatMul and Add for Dense."""
    x = made("Transpose", "x", perm=[0, 3, 1, 2])
    x = made.conv(x, 6, 3, auto_pad="SAME_UPPER", strides=[2, 2])
    x = made("Transpose", x, perm=[0, 2, 3, 1])
    x = made("Relu", x)
    x = made("Mul", x, np.float32([2, 1, 3, 0.5, 1, 4]))  # a batch normalization, written out
    x = made("Add", x, made.weight(6))
    x = made("Transpose", x, perm=[0, 3, 1, 2])
    return made("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")


def test_channels_last_with_a_flatten_between():
    made = Made(9, 12, 3)
    x = made("Transpose", keras_like(made), perm=[0, 2, 3, 1])
    x = made("Reshape", x, np.int64([-1, 3 * 3 * 6]))  # rows, columns, channels
    x = made("Relu", made("Add", made("MatMul", x, made.weight(54, 8)), made.weight(8)))
    made("Softmax", made("Add", made("MatMul", x, made.weight(8, 3)), made.weight(3)))
    model = agree(made.model(), (9, 12, 3))
    assert model.data_format == "channels_last" and model.input_shape == (9, 12, 3)
    first = agree(made.model(), (9, 12, 3), data_format="channels_last")
    assert kinds(first) == kinds(model)
    x = np.random.default_rng(2).normal(size=(2, 9, 12, 3)).astype(np.float32)
    moved = load(made.model(), data_format="channels_first", device="cpu")
    assert moved.input_shape == (3, 9, 12)
    same(moved.predict(x.transpose(0, 3, 1, 2)), model.predict(x))


def test_maps_of_another_shape_between_channels_last():
    made = Made(6, 4, 3)
    x = made.conv(made("Transpose", "x", perm=[0, 3, 1, 2]), 4, 3, pads=[1] * 4)
    x = made.conv(made("Reshape", x, np.int64([-1, 8, 3, 4])), 2, 8, pads=[1] * 4)
    made("Transpose", x, perm=[0, 2, 3, 1])
    model = agree(made.model(), (6, 4, 3))
    assert kinds(model) == ["Conv2D", "Reshape", "Conv2D"] and model.output_shape == (3, 4, 2)


def test_channels_last_means():
    made = Made(9, 12, 3)
    x = made("Transpose", keras_like(made), perm=[0, 2, 3, 1])
    made("ReduceMean", x, axes=[1, 2], keepdims=0)
    made.opset = 17
    assert kinds(agree(made.model(), (9, 12, 3)))[-1] == "GlobalAveragePooling2D"


def test_a_decoder_with_channels_last():
    made = Made(5)
    x = made("Add", made("MatMul", "x", made.weight(5, 4 * 3 * 2)), made.weight(24))
    x = made("Reshape", made("Relu", x), np.int64([-1, 4, 3, 2]))
    x = made("Transpose", x, perm=[0, 3, 1, 2])
    x = made("ConvTranspose", x, made.weight(2, 3, 2, 2), made.weight(3), strides=[2, 2])
    made("Sigmoid", x)
    model = agree(made.model(), (5,))
    assert model.output_shape == (3, 8, 6)
    made("Transpose", made.nodes[-1].output[0], perm=[0, 2, 3, 1])
    assert agree(made.model(), (5,)).output_shape == (8, 6, 3)


# -- affine maps ---------------------------------------------------------------------------------------------


def test_an_mlp_with_weights_on_either_side():
    made = Made(6)
    W, V = made.weight(7, 6), made.weight(7, 4)
    x = made("MatMul", W, made("Transpose", "x", perm=[1, 0]))  # (7, N)
    x = made("Tanh", made("Add", made.weight(7, 1), x))
    x = made("Transpose", x)
    x = made("Elu", made("Add", made("MatMul", x, V), made.weight(4)), alpha=0.5)
    made(
        "Sigmoid",
        made("Gemm", made.weight(4, 3), x, made.weight(3, 1), transA=1, transB=1, alpha=0.5, beta=2.0),
    )
    x = made("Transpose", made.nodes[-1].output[0], perm=[1, 0])
    model = agree(made.model(), (6,))
    assert kinds(model) == ["Dense", "Dense", "Dense"]
    np.testing.assert_array_equal(model.state_dict()["0.weight"], W)
    np.testing.assert_array_equal(model.state_dict()["2.weight"], V.T)


@pytest.mark.parametrize(
    "arguments", [{"transB": 1}, {"transB": 0}, {"transB": 1, "alpha": 2.0, "beta": -0.5}, {"transA": 1}]
)
def test_gemm(arguments):
    made = Made(6)
    x = made("Transpose", "x", perm=[1, 0]) if arguments.get("transA") else "x"
    W = made.weight(4, 6) if arguments.get("transB") else made.weight(6, 4)
    made("Gemm", x, W, made.weight(1, 4), **arguments)
    (dense,) = agree(made.model(), (6,)).layers
    assert dense.use_bias


def test_scales_and_shifts():
    """Of all, of each channel, before anything and behind layers that can take them up."""
    made = Made(3, 6, 5)
    x = made("Mul", made("Add", made("Div", "x", np.float32(0.25)), np.float32(1)), np.float32([3]))
    x = made("Div", made("Sub", x, made.weight(3, 1, 1)), np.float32([0.5, 2, 1]).reshape(3, 1, 1))
    x = made("Add", made("Conv", x, made.weight(4, 3, 3, 3)), made.weight(1, 4, 1, 1))
    x = made("Mul", made("Relu", x), np.float32([3, 1, 2, 1]).reshape(4, 1, 1))
    x = made("Sub", np.float32([1.0]), made("Neg", x))
    x = made("Conv", x, made.weight(2, 4, 1, 1))
    made("Mul", x, np.float32([-1, 2]).reshape(2, 1, 1))
    model = agree(made.model(), (3, 6, 5))
    assert kinds(model)[:3] == ["Rescaling", "Normalization", "Conv2D"]
    assert kinds(model)[-1] == "Conv2D" and model.layers[2].use_bias


def test_a_classifier_of_scikit_learn():
    """As skl2onnx writes MLPClassifier for two classes: weights on the right, two outputs."""
    made = Made(6)
    x = made("Cast", "x", to=TensorProto.FLOAT)
    x = made("Relu", made("Add", made("MatMul", x, made.weight(6, 8)), made.weight(1, 8)))
    x = made("Sigmoid", made("Add", made("MatMul", x, made.weight(8, 1)), made.weight(1, 1)))
    both = made("Concat", made("Sub", np.float32([1]), x), x, axis=1)
    made("ArgMax", both, axis=1)
    graph = made.model(made.nodes[-1].output[0], both)
    agree(graph, (6,), output=both)
    refused(graph, "the graph has 2 outputs")


# -- windows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 2, 0, 1]},
        {"pads": [2, 1, 2, 1], "strides": [2, 1], "dilations": [1, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID", "dilations": [2, 2]},
        {"groups": 2, "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]},
    ],
)
def test_convolutions(attributes):
    made = Made(4, 10, 9)
    made.conv("x", 6, 4, **attributes)
    agree(made.model(), (4, 10, 9))


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 3]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [3, 2], "output_shape": [13, 10]},
        {"dilations": [2, 1], "pads": [0, 1, 0, 1]},
    ],
)
def test_transposed_convolutions(attributes):
    made = Made(4, 4, 5)
    made("ConvTranspose", "x", made.weight(4, 3, 3, 3), made.weight(3), **attributes)
    agree(made.model(), (4, 4, 5))
    made = Made(4, 4, 5)
    made("ConvTranspose", "x", made.weight(4, 3, 3, 3), group=2, **attributes)
    agree(made.model(), (4, 4, 5))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]},
    ],
)
def test_poolings(op, attributes):
    made = Made(2, 8, 7)
    made(op, "x", **attributes)
    (layer,) = agree(made.model(), (2, 8, 7)).layers
    assert type(layer).__name__ == {"MaxPool": "MaxPooling2D", "AveragePool": "AveragePooling2D"}[op]


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]])
def test_averages_that_count_the_padding(pads):
    made = Made(2, 8, 7)
    made("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 1], pads=pads, count_include_pad=1)
    agree(made.model(), (2, 8, 7))


def test_a_border_becomes_the_padding_of_what_follows():
    made = Made(2, 8, 7)
    x = made("Pad", "x", np.int64([0, 0, 1, 0, 0, 0, 1, 0]))
    x = made.conv(x, 3, 2, pads=[0, 1, 0, 1])
    x = made("Pad", x, np.int64([1, 2, 0, 3]), np.float32(0), np.int64([-1, -2]))
    made.opset = 18
    made.conv(x, 2, 3)
    first, border, last = agree(made.model(), (2, 8, 7)).layers
    assert first.padding == (1, 1) and last.padding == "valid"
    assert border.padding == ((2, 3), (1, 0))


def test_a_border_around_images_with_their_channels_last():
    made = Made(6, 5, 3)
    x = made.conv(made("Transpose", "x", perm=[0, 3, 1, 2]), 4, 3)
    x = made("Pad", made("Transpose", x, perm=[0, 2, 3, 1]), np.int64([0, 1, 0, 0, 0, 2, 3, 0]))
    x = made("Transpose", made("Tanh", x), perm=[0, 3, 1, 2])
    made("Transpose", made.conv(x, 2, 4), perm=[0, 2, 3, 1])
    assert agree(made.model(), (6, 5, 3)).layers[1].padding == ((1, 2), (0, 3))


@pytest.mark.parametrize("mode, value", [("edge", ""), ("constant", np.float32(-np.inf))])
def test_a_border_that_no_maximum_sees(mode, value):
    """As Keras on PyTorch writes MaxPooling2D(padding="same")."""
    made = Made(2, 8, 7, opset=18)
    x = made("Pad", "x", np.int64([0, 0, 0, 0, 0, 0, 1, 1]), value, mode=mode)
    made("MaxPool", x, kernel_shape=[3, 2], strides=[2, 2])
    (layer,) = agree(made.model(), (2, 8, 7)).layers
    assert type(layer).__name__ == "MaxPooling2D" and layer.padding == "same"
    refused(made.model(x), r"node 0 'v0' \(Pad\): yields a border that is not zero")
    made("Tanh", x, name="t")
    refused(made, r"'t' \(Tanh\): sees a border \(\(0, 1\), \(0, 1\)\) that is not zero")


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize(mode):
    made = Made(2, 4, 3)
    made("Resize", "x", "", np.float32([1, 1, 2, 3]), mode=mode, coordinate_transformation_mode="half_pixel")
    (layer,) = agree(made.model(), (2, 4, 3)).layers
    assert layer.size == (2, 3)


# -- normalization and activations ---------------------------------------------------------------------------


def test_layer_normalization_of_all_and_of_channels():
    made = Made(4, 3, 2)
    x = made("LayerNormalization", "x", made.weight(4, 3, 2), made.weight(4, 3, 2), axis=1, epsilon=1e-2)
    x = made("Transpose", x, perm=[0, 2, 3, 1])
    x = made("LayerNormalization", x, made.weight(4), made.weight(4), axis=-1)
    x = made("Reshape", x, np.int64([0, 24]))
    made("LayerNormalization", x, made.weight(24))
    made("Gemm", made.nodes[-1].output[0], made.weight(24, 3))
    model = agree(made.model(), (4, 3, 2))
    assert [layer.axis for layer in model.layers[:2]] == [None, "channels"]


ACTIVATIONS = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.3}, "Elu": {"alpha": 0.7}, "Sigmoid": {}, "Tanh": {}, "Softplus": {},
    "Gelu": {}, "HardSigmoid": {"alpha": 0.3}, "Selu": {}, "Celu": {"alpha": 0.6}, "Softmax": {"axis": 1},
    "LogSoftmax": {"axis": 1},
}  # fmt: skip


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_activations(op):
    made = Made(5, 4, 3)
    made(op, made.conv("x", 5, 5, 1), **ACTIVATIONS[op])
    agree(made.model(), (5, 4, 3))


def test_softmax_before_opset_13_is_over_all_axes_behind():
    made = Made(5, 4, 3, opset=11)
    made("Flatten", made("Softmax", made("GlobalAveragePool", "x")))
    agree(made.model(), (5, 4, 3))
    made = Made(5, 4, 3, opset=11)
    made("Softmax", "x", axis=1)
    refused(made, r"\(Softmax\): is over axis 1")


@pytest.mark.parametrize("low, high", [(0, 6), (-1, 1), (0.5, None), (None, 0.5), (0, None)])
def test_bounds(low, high):
    made = Made(5)
    x = made("Mul", "x", np.float32(4))
    bounds = [np.float32(b) if b is not None else "" for b in (low, high)]
    made("Clip", x, *bounds)
    agree(made.model(), (5,))


@pytest.mark.parametrize("op, bound", [("Max", -0.5), ("Max", 0), ("Min", 6), ("Min", 0.25)])
def test_one_bound(op, bound):
    made = Made(5)
    made(op, np.float32([bound]), made("Mul", "x", np.float32(4)))
    agree(made.model(), (5,))


def test_log_softmax_as_an_activation_of_its_own(tmp_path, rng):
    """As PyTorch's MNIST example ends: trains like logits, and its slope is right."""
    made = network()
    made("LogSoftmax", made.nodes[-1].output[0])
    model = agree(made.model(), (3, 8, 8), precision="float64", seed=0)
    x, y = rng.normal(size=(6, 3, 8, 8)), rng.integers(3, size=6)
    model.compile("sgd", "mse")
    check_gradients(model, x, rng.normal(size=(6, 3)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    nats = -model.predict(x)[np.arange(6), y].mean()
    assert model.evaluate(x, y) == pytest.approx(nats, rel=1e-6)
    model.save(tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors", device="cpu")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def spelled(made, how):
    """Activations as exporters write them that know no operator for them."""
    f = np.float32
    if how == "silu":
        return made("Mul", made("Sigmoid", "x"), "x"), "silu"
    if how == "gelu by erf":
        y = made("Add", made("Erf", made("Div", "x", f(np.sqrt(2)))), f(1))
        return made("Mul", made("Mul", "x", y), f(0.5)), "gelu"
    if how == "gelu by tanh":
        cubic = made("Add", "x", made("Mul", made("Pow", "x", f(3)), f(0.044715)))
        y = made("Add", made("Tanh", made("Mul", cubic, f(np.sqrt(2 / np.pi)))), f(1))
        return made("Mul", made("Mul", f(0.5), "x"), y), "GELU(approximate=True)"
    if how == "leaky by max":
        return made("Max", "x", made("Mul", "x", f(0.125))), "LeakyReLU(negative_slope=0.125)"
    if how == "sigmoid by exp":
        return made("Reciprocal", made("Add", made("Exp", made("Neg", "x")), f([1]))), "sigmoid"
    return made("Where", made("Greater", "x", f(0)), "x", made("Sub", made("Exp", "x"), f(1))), "elu"


@pytest.mark.parametrize(
    "how", ["silu", "gelu by erf", "gelu by tanh", "leaky by max", "sigmoid by exp", "elu by where"]
)
def test_activations_spelled_out(how):
    made = Made(7)
    _, wanted = spelled(made, how)
    (layer,) = agree(made.model(), (7,)).layers
    assert repr(layer) == f"Activation({wanted if '(' in wanted else repr(wanted)})"


def test_what_spells_no_activation_is_refused():
    made = Made(7)
    made("Mul", "x", made("Tanh", "x"), name="gate")
    with pytest.raises(
        OnnxError, match=r"node 1 'gate' \(Mul\): joins branches. Expected: .* Add, Sum, Concat"
    ):
        load(made.model())


# -- structure -----------------------------------------------------------------------------------------------


def random_graph(seed, kind=Made):
    """A network drawn at random: windows, norms, activations, nested branches, and a head."""
    made = kind(3, 12, 11, seed=seed) if kind is Made else kind(12, 11, 3, seed=seed)
    rng = made.rng
    activations = ["Relu", "Tanh", "Sigmoid", "Elu", "LeakyRelu", "Softplus"]

    def step(x, C, size):
        kind = rng.integers(8)
        if kind < 2:
            F = int(rng.integers(1, 4)) * 2
            k, d = int(rng.integers(1, 4)), int(rng.integers(1, 3))
            pad = d * (k - 1) // 2
            after = d * (k - 1) - pad
            return made.conv(x, F, C, k, pads=[pad, pad, after, after], dilations=[d, d]), F, size
        if kind == 2:
            return made.batch_norm(x, C), C, size
        if kind == 3:
            return made(str(rng.choice(activations)), x), C, size
        if kind == 4 and min(size) > 3:
            op = str(rng.choice(["MaxPool", "AveragePool"]))
            pad = int(rng.integers(2))
            y = made(op, x, kernel_shape=[3, 2], strides=[2, 1], pads=[pad] * 4)
            return y, C, ((size[0] + 2 * pad - 3) // 2 + 1, size[1] + 2 * pad - 1)
        if kind == 5:
            return made("Dropout", made("Identity", x)), C, size
        if kind == 6:
            y, F, other = chain(x, C, size, 2)
            if other != size:
                return y, F, other
            short = made.conv(x, F, C, 1) if F != C or rng.integers(2) else x
            pair = [y, short] if rng.integers(2) else [short, y]
            return made("Relu", made("Add", *pair)), F, size
        parts = [chain(x, C, size, int(rng.integers(3))) for _ in range(int(rng.integers(2, 4)))]
        fitting = [part for part in parts if part[2] == size]
        if not fitting:
            return parts[0]
        return made("Concat", *(y for y, _, _ in fitting), axis=1), sum(F for _, F, _ in fitting), size

    def chain(x, C, size, steps):
        for _ in range(steps):
            x, C, size = step(x, C, size)
        return x, C, size

    x, C, size = chain("x", 3, (12, 11), 6)
    head = rng.integers(3)
    if head == 0:
        x = made("Flatten", made("GlobalAveragePool", x))
    else:
        C *= size[0] * size[1]
        x = made("Flatten", x) if head == 1 else made("Reshape", x, np.int64([0, -1]))
    x = made("Gemm", x, made.weight(5, C), made.weight(5), transB=1)
    made("Softmax", x)
    return made.model()


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("kind, shape", [(Made, (3, 12, 11)), (Last, (12, 11, 3))])
def test_random_networks_and_back(seed, kind, shape):
    graph = random_graph(seed, kind)
    model = agree(graph, shape)
    again = export(model)
    twice = agree(again, shape)
    x = np.random.default_rng(3).normal(size=(4, *shape)).astype(np.float32)
    same(twice.predict(x), model.predict(x))
    same(by_runtime(again, x), by_runtime(graph, x))


@pytest.mark.parametrize("seed", [0, 4, 9])
def test_on_any_array_module(seed):
    x = np.random.default_rng(1).normal(size=(3, 3, 12, 11)).astype(np.float32)
    graph = random_graph(seed)
    same(load(graph, device=strict_xp.strict_ops()).predict(x), by_runtime(graph, x))


def test_a_skip_from_before_the_pooling_as_in_a_u_net():
    made = Made(2, 8, 8)
    x = made("Relu", made.conv("x", 4, 2, pads=[1] * 4))
    y = made("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = made("Relu", made.conv(y, 6, 4, pads=[1] * 4))
    y = made("ConvTranspose", y, made.weight(6, 4, 2, 2), made.weight(4), strides=[2, 2])
    made.conv(made("Concat", y, x, axis=1), 1, 8, 1)
    model = agree(made.model(), (2, 8, 8))
    assert kinds(model) == ["Conv2D", "Concatenate", "Conv2D"]


def test_a_value_added_to_itself_and_three_in_one_sum():
    made = Made(2, 5, 5)
    x = made("Add", "x", "x")
    y = made.conv(x, 2, 2, 1)
    made("Sum", x, y, made("Relu", y))
    agree(made.model(), (2, 5, 5))


def test_weights_that_nodes_share_are_each_ones_own():
    made = Made(4)
    W = made.array(made.weight(4, 4))
    made("MatMul", made("Tanh", made("MatMul", "x", W)), W)
    model = agree(made.model(), (4,))
    assert model.count_params() == 32


def test_branches_that_do_not_nest_are_refused():
    made = Made(2, 6, 6)
    a = made.conv("x", 2, 2, 1)
    b = made("Tanh", a)
    c = made.conv(b, 2, 2, 1, name="early")
    d = made("Concat", c, made.conv(b, 2, 2, 1), axis=1)
    e = made.conv(d, 2, 4, 1)
    f = made("Sigmoid", c)
    made("Concat", e, f, made.conv(a, 2, 2, 1), axis=1)
    with pytest.raises(
        OnnxError, match=r"'early' \(Conv\): feeds branches that part and meet in no nested order"
    ):
        load(made.model())


# -- the model that comes out --------------------------------------------------------------------------------


def network(**arguments):
    made = Made(3, 8, 8, **arguments)
    x = made("Relu", made.batch_norm(made.conv("x", 4, 3, pads=[1] * 4), 4))
    x = made("Flatten", made("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    made("Gemm", x, made.weight(64, 3), made.weight(3))
    return made


def test_it_trains_saves_and_goes_on(tmp_path, rng):
    model = load(network().model(), device="cpu", seed=0)
    model.compile(optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = rng.normal(size=(48, 3, 8, 8)).astype(np.float32), rng.integers(3, size=48)
    before = model.evaluate(x, y)[0]
    history = model.fit(x, y, batch_size=16, epochs=20, verbose=0)
    assert history.history["loss"][-1] < 0.5 * before
    model.save(tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors", device="cpu")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    agree(export(model), (3, 8, 8))


def test_what_export_writes_comes_back_as_the_same_layers():
    first = Sequential(
        [
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", use_bias=False),
            layers.BatchNormalization(momentum=0.8),
            layers.Residual([layers.Conv2D(4, 1), layers.Activation("tanh")], activation="relu"),
            layers.Concatenate([[], [layers.AveragePooling2D(3, 1, 1, count_include_pad=False)]]),
            layers.MaxPooling2D(2, padding="same"),
            layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="gelu"),
            layers.GroupNormalization(2, epsilon=1e-3),
            layers.Flatten(),
            layers.Dense(5, activation="silu"),
            layers.Dense(3, activation="softmax"),
        ],
        input_shape=(3, 9, 8),
        device="cpu",
    )
    back = load(export(first), device="cpu")
    assert repr(back.layers).replace("momentum=0.9", "momentum=0.8") == repr(first.layers).replace(
        "[Conv2D(4, 1), Activation('tanh')]", "[Conv2D(4, 1, activation='tanh')]"
    )
    for name, value in first.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name], value, err_msg=name)


def test_images_without_a_channel_axis_and_vectors_of_one():
    made = Made(6, 5)
    x = made("Unsqueeze", "x", np.int64([1]))
    x = made("Flatten", made.conv(x, 2, 1))
    made("MatMul", x, made.weight(24, 1))
    assert agree(made.model(), (6, 5)).input_shape == (6, 5)


def test_doubles_halves_and_bytes():
    doubles = network(dtype=np.float64).model()
    model = load(doubles, device="cpu")
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    assert model.precision == "float64"
    same(model.predict(x), ReferenceEvaluator(doubles).run(None, {"x": x})[0], 1e-12)
    assert load(doubles, device="cpu", precision="float32").precision == "float32"
    halves = network(dtype=np.float16).model()
    same(
        load(halves, device="cpu").predict(x),
        by_runtime(halves, x.astype(np.float16)).astype(np.float32),
        5e-3,
    )
    made = Made(4, batch=2)
    made("MatMul", made("Cast", "x", to=TensorProto.FLOAT), made.weight(4, 2))
    graph = made.model()
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    x = np.uint8([[1, 2, 3, 200], [0, 9, 8, 7]])
    same(load(graph, device="cpu").predict(x), by_runtime(graph, x))


def test_a_part_of_a_shape():
    made = Made(2, 4, 3)
    made(
        "Reshape",
        "x",
        made("Concat", np.int64([-1]), made("Shape", "x", start=2, end=-1), np.int64([6]), axis=0),
    )
    made("Gemm", made("Flatten", made.nodes[-1].output[0]), made.weight(24, 2))
    agree(made.model(), (2, 4, 3))


@pytest.mark.parametrize("batch", ["N", 1, 5, None])
def test_a_batch_of_any_name_or_size(batch):
    made = Made(2, 4, 4, batch=batch)
    x = made.conv("x", 3, 2)
    shape = made("Concat", made("Slice", made("Shape", x), *np.int64([[0], [1]])), np.int64([-1]), axis=0)
    made("Gemm", made("Reshape", x, shape), made.weight(12, 2))
    model = load(made.model(), device="cpu")
    x = np.random.default_rng(0).normal(size=(5, 2, 4, 4)).astype(np.float32)
    if batch != 1:
        same(model.predict(x), by_runtime(made.model(), x))
    same(model.predict(x[:1]), model.predict(x)[:1])


def test_a_file_with_its_weights_beside_it(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save_model(
        network().model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    same(
        load(path, device="cpu").predict(np.ones((1, 3, 8, 8))),
        load(network().model()).predict(np.ones((1, 3, 8, 8))),
    )
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(OnnxError, match=r"its weights is missing beside it"):
        load(path)


def test_weights_listed_among_the_inputs_as_old_files_do():
    graph = network().model()
    for weight in graph.graph.initializer:
        value = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        graph.graph.input.append(value)
    agree(graph, (3, 8, 8))


def test_one_of_several_outputs():
    made = network()
    logits = made.nodes[-1].output[0]
    made("ArgMax", logits, axis=1)
    graph = made.model(made.nodes[-1].output[0], logits)
    with pytest.raises(
        OnnxError, match=r"2 outputs. Received: v6, v5. Expected: one; name it: load\(..., output='v6'\)"
    ):
        load(graph)
    agree(graph, (3, 8, 8), output=logits)
    model = load(graph, output="v1", device="cpu")  # inside the graph
    assert kinds(model) == ["Conv2D", "BatchNormalization"]


# -- what cannot be read -------------------------------------------------------------------------------------


def refused(made, message, **arguments):
    graph = made if isinstance(made, onnx.ModelProto) else made.model()
    with pytest.raises(OnnxError, match=message):
        load(graph, **arguments)


def test_unsupported_operators_are_named_with_what_could_replace_them():
    made = network()
    made("HardSwish", made.nodes[-1].output[0], name="head/act")
    refused(
        made,
        r"node 6 'head/act' \(HardSwish\): is not an operator that load reads. Expected: Swish, or x Sigmoid",
    )
    made = Made(3, 8, 8)
    made.nodes.append(helper.make_node("FusedConv", ["x"], ["y"], "fused", domain="com.microsoft"))
    refused(
        made.model("y", domains=["com.microsoft"]),
        r"node 0 'fused' \(com.microsoft.FusedConv\): .*Expected: one of Add, AveragePool",
    )


def test_quantised_graphs_are_refused_by_name():
    made = Made(4)
    scale, zero = np.float32(0.1), np.uint8(128)
    x = made("QuantizeLinear", "x", scale, zero, name="q")
    made("DequantizeLinear", x, scale, zero)
    refused(made, r"node 0 'q' \(QuantizeLinear\): belongs to a quantised graph.*before quantisation")


def test_weights_that_do_not_fit_are_named():
    made = Made(3, 8, 8)
    made("Conv", "x", made.weight(4, 2, 3, 3), name="c")
    refused(made, r"'c' \(Conv\): .*\(4, 2, 3, 3\).*3")
    made = Made(6)
    made("Gemm", "x", made.weight(5, 4), name="g")
    refused(made, r"'g' \(Gemm\)")
    made = Made(3, 4, 4)
    made("BatchNormalization", "x", *[np.ones(n, np.float32) for n in (3, 3, 3, 4)], name="b")
    refused(made, r"'b' \(BatchNormalization\): its inputs do not fit.* x \(N, 3, 4, 4\),.* w3 \(4,\)")


def test_a_bias_that_does_not_fit_is_named():
    made = Made(3, 8, 8)
    made("Conv", "x", made.weight(4, 3, 3, 3), made.weight(5), name="c")
    refused(made, r"'c' \(Conv\): its bias does not fit. Received: \(5,\). Expected: \(4,\)")


def test_second_outputs_may_be_there_but_not_be_used():
    made = Made(3, 8, 8)
    made("MaxPool", made("Dropout", "x"), kernel_shape=[2, 2])
    for node in made.nodes:
        node.output.append(node.output[0] + "_more")
    agree(made.model("v1"), (3, 8, 8))
    refused(made.model("v1_more"), r"node 1 'v1' \(MaxPool\): yields 'v1_more' beside its output")


def test_sparse_weights_are_refused():
    made = Made(4)
    made("MatMul", "x", "sparse")
    graph = made.model()
    values = numpy_helper.from_array(np.float32([1, 2]), "sparse")
    places = numpy_helper.from_array(np.int64([0, 5]), "places")
    graph.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 3]))
    refused(graph, r"\(MatMul\): needs 'sparse', which nothing yields. Expected: a dense weight")


def test_numbers_drawn_by_the_graph_are_no_weights():
    made = Made(4)
    made("Add", "x", made("RandomNormal", shape=[4], name="noise"))
    refused(made, r"'noise' \(RandomNormal\): draws numbers at random")


def test_two_inputs_and_none():
    made = Made(4)
    made("Add", "x", "z")
    graph = made.model()
    graph.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4]))
    refused(graph, "2 data inputs. Received: x, z. Expected: one")
    made = Made(4)
    made("Relu", np.ones((2, 4), np.float32))
    refused(made, "0 data inputs. Received: none that the output depends on")


def test_open_shapes():
    made = network()
    graph = made.model(shape=(3, "h", "w"))
    refused(graph, r"leaves the shape of its samples open. Received: 'x' of \(\?, 3, \?, \?\).*input_shape=")
    assert load(graph, input_shape=(3, 8, 8), device="cpu").input_shape == (3, 8, 8)
    refused(graph, r"input_shape does not fit the graph. Received: \(1, 8, 8\)", input_shape=(1, 8, 8))
    made = Made(2, 3, 4, 5)
    made("Relu", "x")
    refused(made, r"shape \(N, 2, 3, 4, 5\). Expected: vectors")


@pytest.mark.parametrize(
    "op, arguments, message",
    [
        ("Softmax", {"axis": 2}, "is over axis 2"),
        ("Elu", {"alpha": -1.0}, "has alpha=-1.0"),
        ("LeakyRelu", {"alpha": 1.5}, "has alpha=1.5"),
        ("PRelu", np.float32([0.1, 0.2, 0.1, 0.1]).reshape(4, 1, 1), "has slopes"),
        ("Selu", {"alpha": 0.0}, "cannot be a layer: alpha must be positive"),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [2, 2, 2, 2]}, "pads by"),
        ("Reshape", np.int64([-1, 4]), "does not keep the samples apart"),
        ("Transpose", {"perm": [1, 0, 2, 3]}, "samples are not its first axis"),
        ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "has dilations"),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}, "pads by"),
        ("Cast", {"to": TensorProto.INT32}, "turns the data into INT32"),
        ("Resize", np.float32([1, 1, 1.5, 2]), r"resizes \(N, 4, 6, 6\) to \(N, 4, 9, 12\)"),
        ("InstanceNormalization", "three", "does not fit"),
        ("Pad", np.int64([0, 0, 0, 0, 2, 0, 0, 0]), "pads the samples by .0, 2."),
        ("Dropout", "training", "is in training mode"),
    ],
)
def test_forms_that_no_layer_has(op, arguments, message):
    made = Made(4, 6, 6)
    if op == "Resize":
        made(op, "x", "", arguments)
    elif op == "Dropout":
        made(op, "x", np.float32(0.5), np.array(True))
    elif op == "InstanceNormalization":
        made(op, "x", np.ones(3, np.float32), np.ones(3, np.float32))
    elif isinstance(arguments, dict):
        made(op, "x", **arguments)
    else:
        made(op, "x", arguments)
    refused(made, rf"node 0 'v0' \({op}\): .*{message}.*Expected: ")


def test_what_is_wrong_with_a_graph_that_has_its_channels_last_is_said_of_that():
    made = Made(4, 4, 3)
    x = made("Transpose", "x", perm=[0, 3, 1, 2])
    made("ConvTranspose", x, made.weight(3, 2, 3, 3), pads=[0, 0, 1, 1], name="up")
    refused(made, r"node 1 'up' \(ConvTranspose\): cuts \(\(0, 1\), \(0, 1\)\) off its output")


def test_files_that_are_no_graphs(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no ONNX file"):
        load(tmp_path / "none.onnx")
    for name, content in (
        ("cut", network().model().SerializeToString()[:300]),
        ("text", b"hello"),
        ("empty", b""),
    ):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(OnnxError, match=f"{name}.onnx (cannot be read|holds no graph|is not a valid)"):
            load(path)
    with pytest.raises(TypeError, match=r"takes the path of an ONNX file or a ModelProto. Received: int"):
        load(3)
    with pytest.raises(ValueError, match="unknown data_format"):
        load(network().model(), data_format="NCHW")


def test_training_graphs_and_conditions():
    made = Made(3, 4, 4)
    weights = [np.ones(3, np.float32)] * 4
    made("BatchNormalization", "x", *weights, training_mode=1)
    made.nodes[-1].output.extend(["mean", "var"])
    refused(made, "is in training mode. Expected: a graph exported for inference")
    then = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["t"])], "t", [], [helper.make_tensor_value_info("t", 1, ["N", 4])]
    )
    made = Made(4)
    made("If", np.array(True), then_branch=then, else_branch=then)
    refused(made, r"\(If\): runs a graph of its own")
