"""The step time of one workload on one device by one library, in a process of its own, as a line of JSON.

    python -m bench.gpu_compare SIDE WORKLOAD [--batch N] [--device cuda] [--precision float32]

SIDE: xpnet, or PyTorch as eager, channels_last, compile (torch.compile with reduce-overhead) or graph (a CUDA
graph captured by hand).  Data lie on the device already; the median of 30 rounds is quoted, each waiting for
the device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

SIDES = ("xpnet", "eager", "channels_last", "compile", "graph")


def xpnet_step(name: str, x, y, device: str, precision: str):
    from bench import workloads
    from xpnet import Sequential, optimizers
    from xpnet.data.arrays import Arrays

    work = workloads.WORKLOADS[name]
    model = Sequential(
        work.layers(), input_shape=work.input_shape, device=device, precision=precision, seed=0
    )
    model.compile(getattr(optimizers, work.optimizer)(), "sparse_categorical_crossentropy")
    step, ops = model.train_step(), model.ops
    data, index = Arrays(ops.asarray(x), ops.asarray(y)), ops.xp.arange(len(x))
    return lambda: step(data, index), ops.synchronize


def torch_step(side: str, name: str, x, y, device: str, precision: str):
    import torch

    from bench import torch_steps, workloads

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    run, net = torch_steps.step(name, workloads.model(name), x, y, side == "channels_last", device)
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    if side == "compile":
        net.compile(mode="reduce-overhead")
    elif side == "graph":
        run = _captured(torch, name, net, x, y, device)
    return run, wait


def _captured(torch, name, net, x, y, device):
    """The step recorded once as a CUDA graph and replayed."""
    from bench.workloads import WORKLOADS

    tx, ty = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    optimizer = getattr(torch.optim, WORKLOADS[name].optimizer)(net.parameters(), lr=0.001, capturable=True)
    loss = torch.nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad(set_to_none=False)
        loss(net(tx), ty).backward()
        optimizer.step()

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("workload")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="float32", choices=("float32", "tf32", "bfloat16"))
    args = parser.parse_args(argv)
    from bench import workloads

    x, y = workloads.batch(args.workload, args.batch)
    row = {"side": args.side, "workload": args.workload, "batch": len(x), "precision": args.precision}
    try:
        if args.side == "xpnet":
            run, wait = xpnet_step(args.workload, x, y, args.device, args.precision)
        else:
            run, wait = torch_step(args.side, args.workload, x, y, args.device, args.precision)
        for _ in range(10):
            run()
        wait()
        times = []
        for _ in range(30):
            start = time.perf_counter()
            for _ in range(10):
                run()
            wait()
            times.append((time.perf_counter() - start) * 100)
        row |= {"ms": statistics.median(times), "quartiles_ms": np.quantile(times, (0.25, 0.75)).tolist()}
    except Exception as error:  # one side that cannot run must not cost the others their figures
        row["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(row))


if __name__ == "__main__":
    main()
