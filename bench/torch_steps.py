"""The workloads in PyTorch: the same networks, initial weights, optimizers and batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bench.workloads import WORKLOADS
from xpnet import layers


def module(model) -> nn.Sequential:
    """The torch.nn.Sequential of an xpnet model of the workloads' layers, with its weights."""
    net = nn.Sequential(*chain(model.layers, model.layers[0].in_shape))
    net.load_state_dict({k: torch.from_numpy(v) for k, v in model.state_dict().items()})
    return net


def fresh(name: str) -> nn.Sequential:
    """A workload's torch.nn.Sequential with PyTorch's own initial weights; no xpnet model is built for it."""
    return nn.Sequential(*chain(WORKLOADS[name].layers(), WORKLOADS[name].input_shape))


def chain(layers, shape) -> list[nn.Module]:
    """What stands for layers that begin with samples of this shape.

    The shapes between layers that are not built come from running them on PyTorch's "meta" device, which has
    no memory.
    """
    made: list[nn.Module] = []
    for layer in layers:
        made += modules(layer, shape)
        shape = layer.out_shape or _after(layer, shape)
    return made


def _after(layer, shape) -> tuple[int, ...]:
    with torch.device("meta"):
        return tuple(nn.Sequential(*modules(layer, shape))(torch.empty(2, *shape)).shape[1:])


def modules(layer, shape=None) -> list[nn.Module]:
    """What stands for a layer of the workloads; shape: of its input, where the layer is not built."""
    shape = shape or layer.in_shape
    if isinstance(layer, layers.Conv2D):
        made: nn.Module = nn.Conv2d(
            shape[0], layer.filters, layer.kernel_size, padding=layer.padding, bias=layer.use_bias
        )
    elif isinstance(layer, layers.Dense):
        made = nn.Linear(shape[0], layer.units, bias=layer.use_bias)
    elif isinstance(layer, layers.BatchNormalization):
        made = nn.BatchNorm2d(shape[0], layer.epsilon, 1 - layer.momentum)
    elif isinstance(layer, layers.Activation) and layer.function.name == "relu":
        made = nn.ReLU()
    elif isinstance(layer, layers.Residual) and not layer.shortcut:
        made = Residual(layer.body, shape)
    elif isinstance(layer, layers.GlobalMaxPooling2D):
        made = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    elif isinstance(layer, layers.Rescaling):
        made = Rescaling(layer.scale)
    elif isinstance(layer, layers.MaxPooling2D):
        made = nn.MaxPool2d(layer.pool_size)
    elif isinstance(layer, layers.Dropout):
        made = nn.Dropout(layer.rate)
    elif isinstance(layer, layers.Flatten):
        made = nn.Flatten()
    else:
        raise TypeError(f"no PyTorch counterpart is listed for {layer!r}")
    return [made, nn.ReLU()] if layer.modules == 2 else [made]


class Residual(nn.Module):
    """y = body(x) + x, for layers that keep the shape of their input."""

    def __init__(self, body, shape):
        super().__init__()
        self.body = nn.Sequential(*chain(body, shape))

    def forward(self, x):
        return self.body(x) + x


class Rescaling(nn.Module):
    """y = scale x."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return self.scale * x


def set_precision(precision: str) -> None:
    """PyTorch's switches for what xpnet means by a precision ("auto" is PyTorch's own default on a GPU)."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision in ("tf32", "auto")
    torch.backends.cudnn.benchmark = True


def autocast(device: str, precision: str):
    """Computing in bfloat16 on float32 weights, where that is the precision."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16")


def step(
    name: str,
    model,
    x: np.ndarray,
    y: np.ndarray,
    channels_last: bool,
    device: str = "cpu",
    precision: str = "float32",
    way: str = "eager",
) -> tuple[Callable[[], None], nn.Module]:
    """A function that trains one batch, and the module it trains.

    way: "eager"; "compile", torch.compile with mode="reduce-overhead"; "graph", a CUDA graph of the whole
    step, captured by hand.  The last two get PyTorch's fused optimizer, where it has one.
    """
    net = module(model)
    return trainer(net, name, x, y, channels_last, device, precision, way), net


def trainer(
    net: nn.Module,
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    channels_last: bool,
    device: str = "cpu",
    precision: str = "float32",
    way: str = "eager",
) -> Callable[[], None]:
    """A function that trains net, which is moved and laid out in place, on one batch."""
    net = net.to(device)
    net.train()
    tx, ty = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    if channels_last and tx.ndim == 4:
        net, tx = net.to(memory_format=torch.channels_last), tx.to(memory_format=torch.channels_last)
    fused = {"fused": True} if WORKLOADS[name].optimizer != "Adagrad" and way != "eager" else {}
    optimizer = optimizer_for(net, WORKLOADS[name].optimizer, **WORKLOADS[name].settings, **fused)
    criterion = nn.CrossEntropyLoss()

    def forward(x, y):
        with autocast(device, precision):
            return criterion(net(x), y)

    if way == "compile":
        forward = torch.compile(forward, mode="reduce-overhead")

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward(tx, ty).backward()
        optimizer.step()

    return _captured(run, optimizer) if way == "graph" else run


def optimizer_for(net: nn.Module, kind: str, learning_rate: float = 0.001, **more) -> torch.optim.Optimizer:
    """Adam, Adagrad or SGD with xpnet's defaults."""
    meant = {"Adagrad": {"eps": 1e-7, "initial_accumulator_value": 0.1}, "Adam": {"eps": 1e-7}, "SGD": {}}
    return getattr(torch.optim, kind)(net.parameters(), lr=learning_rate, **meant[kind], **more)


def _captured(run, optimizer) -> Callable[[], None]:
    """run recorded once as a CUDA graph, after a few on a stream of its own, and replayed."""
    for group in optimizer.param_groups:
        group["capturable"] = True  # Adagrad has no such argument, and none is needed without lr_decay
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        run()
    return graph.replay
