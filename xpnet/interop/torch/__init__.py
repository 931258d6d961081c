"""The same network as a torch.nn.Sequential, and back.

    net = interop.torch.to_torch(model)                      # the same state_dict, the same outputs
    model = interop.torch.from_torch(net, (3, 32, 32))

PyTorch takes and gives maps as (N, C, H, W), whatever the model's data_format.  For weights alone,
model.save_weights and model.load_weights, or state_dict and load_state_dict, need no PyTorch here.
"""

from __future__ import annotations

import numpy as np

from ...model import Sequential

try:
    import torch
except ImportError as error:
    raise ImportError(f"xpnet.interop.torch needs PyTorch ({error}): pip install torch") from error

from .read import Parts, is_chain
from .write import in_torch


def to_torch(model: Sequential) -> torch.nn.Sequential:
    """The model's layers and weights as a torch.nn.Sequential on the CPU, in evaluation mode.

    Its state_dict has the names and shapes of the model's.  Raises NotBuiltError before the shapes are known,
    TypeError for a layer that PyTorch has no module for.
    """
    model._need_built()
    net = torch.nn.Sequential(*in_torch(model.layers)).to(getattr(torch, model.dtype.name))
    net.load_state_dict({name: torch.from_numpy(a) for name, a in model.state_dict().items()})
    return net.eval()


def from_torch(net: torch.nn.Module, input_shape, **model) -> Sequential:
    """A torch.nn.Sequential with its weights as a model; nested ones are unrolled.

    net: the chain.  input_shape: of one sample, (C, H, W) or (D,).  model: more arguments of `Sequential`,
    such as device and seed.  Raises TypeError where a module has no counterpart or net is no chain,
    ValueError for data_format="channels_last".
    """
    if not is_chain(net):
        raise TypeError(
            f"from_torch takes a chain of modules. Received: {type(net).__name__}. Expected: "
            "torch.nn.Sequential, put together from the parts in the order of its forward, such as "
            "Sequential(net.features, Flatten(), net.classifier); for other graphs torch.onnx.export and "
            "xpnet.interop.onnx.load"
        )
    if model.pop("data_format", "channels_first") != "channels_first":
        raise ValueError(
            "from_torch makes models with data_format='channels_first', as PyTorch's modules are"
        )
    input_shape = tuple(np.atleast_1d(input_shape).tolist())
    parts = Parts(net, input_shape)
    wide = any(p.dtype == torch.float64 for p in net.parameters())
    made = Sequential(
        parts.layers(net), input_shape=input_shape, **{"precision": "float64" if wide else "auto"} | model
    )
    if made.output_shape != parts.out_shape:
        raise TypeError(
            f"the model came out different. Received: outputs {made.output_shape}. Expected: "
            f"{parts.out_shape}"
        )
    state = {
        name: value.detach().cpu().double().numpy()
        for name, slot in made._named_slots()
        if (value := getattr(parts.source[slot.layer], slot.name, None)) is not None
    }
    made.load_state_dict(state, strict=False)
    return made
