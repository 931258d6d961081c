"""The five workloads in PyTorch: the same networks, initial weights, optimizers and batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bench.workloads import WORKLOADS
from xpnet import layers


def module(model) -> nn.Sequential:
    """The torch.nn.Sequential of an xpnet model of the workloads' layers, with its weights."""
    made: list[nn.Module] = []
    for layer in model.layers:
        shape = layer.in_shape
        if isinstance(layer, layers.Conv2D):
            made.append(nn.Conv2d(shape[0], layer.filters, layer.kernel_size, padding=layer.padding))
        elif isinstance(layer, layers.Dense):
            made.append(nn.Linear(shape[0], layer.units))
        elif isinstance(layer, layers.MaxPooling2D):
            made.append(nn.MaxPool2d(layer.pool_size))
        elif isinstance(layer, layers.Dropout):
            made.append(nn.Dropout(layer.rate))
        elif isinstance(layer, layers.Flatten):
            made.append(nn.Flatten())
        else:
            raise TypeError(f"no PyTorch counterpart is listed for {layer!r}")
        if layer.modules == 2:
            made.append(nn.ReLU())
    net = nn.Sequential(*made)
    net.load_state_dict({k: torch.from_numpy(v) for k, v in model.state_dict().items()})
    return net


def step(name: str, model, x: np.ndarray, y: np.ndarray, channels_last: bool, device: str = "cpu"):
    """A function that trains one batch eagerly, and the module it trains."""
    net = module(model).to(device)
    net.train()
    tx, ty = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    if channels_last and tx.ndim == 4:
        net, tx = net.to(memory_format=torch.channels_last), tx.to(memory_format=torch.channels_last)
    optimizer = getattr(torch.optim, WORKLOADS[name].optimizer)(net.parameters(), lr=0.001)
    loss = nn.CrossEntropyLoss()

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(net(tx), ty).backward()
        optimizer.step()

    return run, net
