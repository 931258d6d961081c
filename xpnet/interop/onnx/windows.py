"""Where ONNX's windows stand: the attributes of convolutions and poolings, of any rank, as numbers."""

from __future__ import annotations

from typing import NamedTuple

from .graph import Node

Sizes = tuple[int, ...]


class Windows(NamedTuple):
    """A kernel at `out` places along each axis of a map that is padded by (before, after) elements."""

    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    padding: tuple[tuple[int, int], ...]
    out: Sizes

    @property
    def extent(self) -> Sizes:
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations))

    def in_plane(self) -> Windows:
        """A window along one axis as one over an image of one row."""
        if len(self.kernel) != 1:
            return self
        kernel, strides, dilations, padding, out = self
        return Windows((1, *kernel), (1, *strides), (1, *dilations), ((0, 0), *padding), (1, *out))


def windows(node: Node, kernel: Sizes, sizes: Sizes) -> Windows:
    """The windows of Conv, MaxPool or AveragePool over a map of sizes, channels apart."""
    strides, dilations = per_axis(node, "strides", kernel), per_axis(node, "dilations", kernel)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    same = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(sizes, strides, extent)]
    padding = _padding(node, same)
    out = []
    for n, (before, after), s, e in zip(sizes, padding, strides, extent):
        room = n + before + after - e
        steps = -(-room // s) if node.get("ceil_mode", 0) else room // s
        if node.get("ceil_mode", 0) and steps * s >= n + before:  # it would begin in the padding behind
            steps -= 1
        out.append(steps + 1)
    return _fitting(node, Windows(tuple(kernel), strides, dilations, padding, tuple(out)), sizes)


def transposed_windows(node: Node, kernel: Sizes, sizes: Sizes) -> Windows:
    """The windows of ConvTranspose: `padding` is what is cut off the full map, fewer than none are added."""
    strides, dilations = per_axis(node, "strides", kernel), per_axis(node, "dilations", kernel)
    extra = node.get("output_padding", (0,) * len(kernel))
    full = [
        (n - 1) * s + (k - 1) * d + 1 + more
        for n, s, k, d, more in zip(sizes, strides, kernel, dilations, extra)
    ]
    out = node.get("output_shape")
    if out is None and node.get("auto_pad", "NOTSET").startswith("SAME"):
        out = [n * s for n, s in zip(sizes, strides)]
    if out is None:
        padding = _padding(node, [0] * len(kernel))
        out = [n - before - after for n, (before, after) in zip(full, padding)]
    else:
        out = out[-len(kernel) :]
        total = [n - o for n, o in zip(full, out)]
        upper = node.get("auto_pad", "NOTSET") == "SAME_UPPER"
        padding = tuple((t // 2, t - t // 2) if upper else (t - t // 2, t // 2) for t in total)
    padding = tuple((before, after - more) for (before, after), more in zip(padding, extra))
    return _fitting(node, Windows(tuple(kernel), strides, dilations, padding, tuple(out)), sizes)


def per_axis(node: Node, name: str, kernel: Sizes) -> Sizes:
    values = node.get(name, (1,) * len(kernel))
    if len(values) != len(kernel) or min(values) < 1:
        node.fail(f"{name}={tuple(values)} does not fit kernel {kernel}", f"{len(kernel)} numbers from 1 on")
    return tuple(values)


def _padding(node: Node, same) -> tuple[tuple[int, int], ...]:
    rule, rank = node.get("auto_pad", "NOTSET"), len(same)
    if rule in ("SAME_UPPER", "SAME_LOWER"):
        halves = [(total // 2, total - total // 2) for total in same]
        return tuple(halves if rule == "SAME_UPPER" else [half[::-1] for half in halves])
    pads = node.get("pads", (0,) * (2 * rank)) if rule == "NOTSET" else (0,) * (2 * rank)
    if len(pads) != 2 * rank:
        node.fail(f"pads={tuple(pads)} does not fit", f"{2 * rank} numbers, beginnings before ends")
    return tuple(zip(pads[:rank], pads[rank:]))


def _fitting(node: Node, found: Windows, sizes: Sizes) -> Windows:
    if min(found.out) < 1:
        node.fail(
            f"the window does not fit. Received: a map of {tuple(sizes)}, kernel {found.kernel}, padding "
            f"{found.padding}, which leave {found.out}", "an output of at least 1 along each axis",
        )  # fmt: skip
    return found
