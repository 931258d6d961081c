"""Memory that training takes beyond the import, of one library in a process of its own.

`growth(name, side, threads)` builds a workload's network, trains 20 steps of it, and reports in MiB

* `import_mib`: what the process holds after its imports, with the batch in memory;
* `base_mib`: the same after two steps of a network of one tiny layer, which load what a library loads at
  first use (PyTorch's optimizers bring in some 80 MiB of code);
* `peak_mib`: the peak;
* `growth_after_import_mib`: the peak above import_mib;
* `growth_mib`: the peak above base_mib, which is what the network itself takes.

The peak is the resident set's high-water mark, which Linux resets on request (5 written to
/proc/self/clear_refs): nothing between two looks is missed, as by a sampling thread, and nothing of the
imports is counted.  `ru_maxrss` cannot be reset, and a child's begins with its parent's; it serves where
there is no /proc, and growth is then what exceeds the peak of the imports.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def growth(name: str, side: str, threads: int, steps: int = 20) -> dict:
    """The figures of workload `name` on side "xpnet", "torch channels_first" or "torch channels_last".

    To be called in a process that has done nothing else.
    """
    from bench import workloads

    x, y = workloads.batch(name)
    if side != "xpnet":
        import torch

        from bench import torch_steps  # noqa: F401

        torch.set_num_threads(threads)
    imported = resident()
    _tiny(side, threads)
    base = resident()
    reset_peak()
    made = _xpnet(name, x, y, threads) if side == "xpnet" else _torch(name, x, y, side)
    with made.hold():
        for _ in range(steps):
            made.run()
    top = peak()
    return {
        "import_mib": imported,
        "base_mib": base,
        "peak_mib": top,
        "growth_mib": top - base,
        "growth_after_import_mib": top - imported,
    }


def _xpnet(name, x, y, threads):
    from bench import peers, workloads

    return peers.xpnet_side(name, x, y, workloads.model(name), threads)


def _torch(name, x, y, side):
    from bench import torch_steps
    from bench.turns import Side

    net = torch_steps.fresh(name)  # without a model of xpnet's, whose memory would count as PyTorch's
    return Side(torch_steps.trainer(net, name, x, y, side.endswith("channels_last")))


def _tiny(side, threads) -> None:
    """Two steps of Adam on a layer of ten weights."""
    x, y = np.zeros((2, 4), np.float32), np.zeros(2, np.int64)
    if side == "xpnet":
        from xpnet import Sequential, set_num_threads
        from xpnet.layers import Dense

        set_num_threads(threads)
        model = Sequential([Dense(2)], input_shape=(4,), device="cpu")
        model.compile("adam", "sparse_categorical_crossentropy")
        for _ in range(2):
            model.train_on_batch(x, y)
        return
    import torch

    from bench import torch_steps

    net = torch.nn.Linear(4, 2)
    optimizer = torch_steps.optimizer_for(net, "Adam")
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()


def resident() -> float:
    """MiB of the process that lie in memory; where there is no /proc, the most that ever did."""
    return _status("VmRSS") if STATUS.exists() else _highest()


def reset_peak() -> None:
    """Forget the peak so far, where the system can."""
    if RESET.exists():
        RESET.write_text("5")


def peak() -> float:
    """The most MiB in memory since reset_peak, or ever, where that could do nothing."""
    return _status("VmHWM") if STATUS.exists() else _highest()


def _status(key: str) -> float:
    found = re.search(rf"{key}:\s+(\d+) kB", STATUS.read_text())
    assert found, f"{STATUS} has no {key}"
    return int(found[1]) / 1024


def _highest() -> float:
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)
