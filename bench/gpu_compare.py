"""Step times of one library on one device, every library in a process of its own, as lines of JSON.

    python -m bench.gpu_compare --side SIDE [JOB ...] [--rows FILE] [--device cuda]

SIDE: xpnet, or PyTorch as eager, channels_last, graph (a CUDA graph of the whole step, captured by hand, in
the faster of both memory formats) or compile (torch.compile with reduce-overhead).

JOB: WORKLOAD/BATCH/PRECISION for a training step; matmul/N/PRECISION for a product of N x N matrices;
layers/BATCH/PRECISION for the layers of cifar-vgg one by one (of xpnet; of PyTorch only the convolutions).

Data lie on the device.  xpnet gathers every batch from them, as `fit` does; PyTorch trains the same gathered
batch over and over, which is to its advantage.  Initial weights are the same.  Precisions mean the same on
both sides; bfloat16 is autocast in PyTorch.  The graph and compile get PyTorch's fused optimizer.
"""

from __future__ import annotations

import math
from functools import partial

from bench import rows, workloads
from xpnet.training.timing import measure, trainer

SIDES = ("xpnet", "eager", "channels_last", "graph", "compile")
STEPS = [
    "digits-cnn/8/auto",
    "mnist-mlp/1000/auto",
    "lenet/128/auto",
    "mnist-cnn/128/auto",
    *(f"cifar-vgg/{batch}/{precision}" for precision in ("tf32", "bfloat16") for batch in (64, 512)),
    *(f"resnet9/512/{precision}" for precision in ("tf32", "bfloat16")),
]
RATES = [
    "matmul/8192/tf32",
    "matmul/8192/bfloat16",
    "matmul/8192/float32",
    "layers/512/tf32",
    "layers/512/bfloat16",
]


def default_jobs(side: str) -> list[str]:
    """channels_last is nothing to a network of vectors; the rates are measured on the first side of a
    library.
    """
    steps = [job for job in STEPS if side != "channels_last" or not job.startswith("mnist-mlp")]
    return steps + (RATES if side in ("xpnet", "eager") else [])


def work(side: str, device: str, seconds: float, job: str) -> dict:
    """The figures of a job."""
    what, size, precision = job.split("/")
    library = Xpnet(device, precision) if side == "xpnet" else Torch(device, precision, side)
    library.seconds = seconds
    if what == "matmul":
        figures = library.matmul(int(size))
        return figures | {"tflops": 2 * int(size) ** 3 / figures["ms"] / 1e9}
    if what == "layers":
        return {"layers": library.layers(int(size))}
    return library.step(what, int(size))


class Xpnet:
    seconds = 1.0

    def __init__(self, device: str, precision: str):
        self.device, self.precision = device, precision

    def model(self, layers, input_shape, optimizer="adam"):
        from xpnet import Sequential

        model = Sequential(
            layers, input_shape=input_shape, device=self.device, precision=self.precision, seed=0
        )
        model.compile(optimizer, "sparse_categorical_crossentropy")
        return model

    def step(self, name: str, batch: int) -> dict:
        from xpnet.data.arrays import Arrays
        from xpnet.ops.threads import blas_threads

        work = workloads.WORKLOADS[name]
        model = self.model(work.layers(), work.input_shape, workloads.optimizer(name))
        data = Arrays(*workloads.batch(name, 4 * batch))
        with blas_threads(model.train_step().blas_threads(batch)):
            run = trainer(model, data, batch)
            figures = measure(run, model.ops.synchronize, self.seconds, host=device_of(self.device))
        return figures | {"meaning": model.precision_meaning}

    def matmul(self, n: int) -> dict:
        """A Dense layer without bias: the library's own way to a product of matrices."""
        from xpnet.layers import Dense

        model = self.model([Dense(n, use_bias=False)], (n,))
        (layer,), ops = model.layers, model.ops
        x = ops.asarray(random((n, n)))
        return measure(lambda: layer.forward(x, train=False), ops.synchronize, self.seconds)

    def layers(self, batch: int) -> list[dict]:
        """Milliseconds of each layer of cifar-vgg as it stands in the network, with its flops."""
        work = workloads.WORKLOADS["cifar-vgg"]
        model = self.model(work.layers(), work.input_shape)
        ops, out = model.ops, []
        h = model.enter(workloads.batch("cifar-vgg", batch)[0], ops)
        for number, layer in enumerate(model.layers):
            layer.needs_dx = number > 0
            y = layer.forward(h, train=True)[0]
            dy = ops.asarray(random(y.shape))

            def both(layer=layer, h=h, dy=dy):
                _, cache = layer.forward(h, train=True)
                layer.backward(dy, cache)  # which may scale dy in place, by 0 and 1 here

            forward = measure(
                lambda layer=layer, h=h: layer.forward(h, train=True), ops.synchronize, self.seconds / 4
            )
            out.append(
                _layer_row(layer, number, batch, forward, measure(both, ops.synchronize, self.seconds / 4))
            )
            h = y
        return out


class Torch:
    seconds = 1.0

    def __init__(self, device: str, precision: str, side: str):
        import torch

        from bench import torch_steps

        torch_steps.set_precision(precision)
        self.torch, self.steps = torch, torch_steps
        self.device, self.precision, self.side = device, precision, side
        self.wait = torch.cuda.synchronize if device_of(device) else (lambda: None)
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32

    def step(self, name: str, batch: int) -> dict:
        x, y = workloads.batch(name, batch)
        way = self.side if self.side in ("graph", "compile") else "eager"
        layouts = [self.side == "channels_last"]
        if x.ndim == 4 and way == "graph":
            layouts = [False, True]
        elif x.ndim == 4 and way == "compile":
            layouts = [batch >= 64]  # what a hand would choose: it pays where tensor cores do the work
        found = []
        for last in layouts:
            run, _ = self.steps.step(
                name, workloads.model(name), x, y, last, self.device, self.precision, way
            )
            figures = measure(run, self.wait, self.seconds, host=device_of(self.device))
            found.append(figures | {"layout": "channels_last" if last else "channels_first"})
        return min(found, key=lambda figures: figures["ms"])

    def matmul(self, n: int) -> dict:
        torch = self.torch
        a = torch.from_numpy(random((n, n))).to(self.device, self.dtype)
        b, out = a.flip(0).contiguous(), torch.empty_like(a)
        return measure(lambda: torch.matmul(a, b, out=out), self.wait, self.seconds)

    def layers(self, batch: int) -> list[dict]:
        """As Xpnet.layers, of the convolutions with their ReLU, in the faster memory format of each."""
        torch, out = self.torch, []
        model = workloads.model("cifar-vgg")
        for number, layer in enumerate(model.layers):
            if type(layer).__name__ != "Conv2D":
                continue
            net = torch.nn.Sequential(*self.steps.modules(layer)).to(self.device)
            sides = []
            for layout in (torch.contiguous_format, torch.channels_last):
                net = net.to(memory_format=layout)
                x = torch.from_numpy(random((batch, *layer.in_shape))).to(self.device, self.dtype)
                x = x.to(memory_format=layout).requires_grad_(number > 0)
                wanted = [*net.parameters(), *([x] if number else [])]

                def forward(net=net, x=x):
                    with self.steps.autocast(self.device, self.precision):
                        return net(x)

                dy = torch.randn_like(forward())

                def both(forward=forward, wanted=wanted, dy=dy):
                    torch.autograd.grad(forward(), wanted, dy)

                one, two = (measure(f, self.wait, self.seconds / 4) for f in (forward, both))
                sides.append(_layer_row(layer, number, batch, one, two))
            out.append(min(sides, key=lambda row: row["both_ms"]))
        return out


def _layer_row(layer, number: int, batch: int, forward: dict, both: dict) -> dict:
    weights = sum(slot.size for slot in layer.slots if slot.name == "weight")
    flops = 2 * batch * weights * math.prod(layer.out_shape[1:])
    return {
        "layer": f"{number} {type(layer).__name__} {layer.out_shape}",
        "forward_ms": forward["ms"],
        "both_ms": both["ms"],
        "forward_gflop": flops / 1e9,
        "both_gflop": flops * (3 if number else 2) / 1e9,  # the first layer has no input gradient
    }


def random(shape):
    import numpy as np

    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def device_of(device: str) -> bool:
    """Whether a device works on its own while the host goes on."""
    return device != "cpu"


def main(argv=None) -> None:
    parser = rows.arguments(__doc__, ())
    parser.add_argument("--side", choices=SIDES, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=1.0, help="to measure a step for")
    args = parser.parse_args(argv)
    args.jobs = args.jobs or default_jobs(args.side)
    mark = {"kind": "compare", "side": args.side}
    more = ["--side", args.side, "--device", args.device, "--seconds", str(args.seconds)]
    found = rows.run(
        "bench.gpu_compare", args, partial(work, args.side, args.device, args.seconds), mark, more
    )
    print(rows.table(["job", "ms", "quartiles or error", "host us"], map(_summary, found)))


def _summary(row: dict) -> list:
    low, high = row.get("quartiles_ms", (0, 0))
    spread = f"{low:.4g} to {high:.4g}" if high else row.get("error")
    return [row["job"], row.get("ms"), spread, row.get("host_us")]


if __name__ == "__main__":
    main()
