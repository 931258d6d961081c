"""A small kernel slides over the image; each filter answers how much of its pattern lies under it."""

from __future__ import annotations

from typing import Any

from .. import activations, initializers
from ..errors import unknown
from ..ops.geometry import Window
from .base import Layer, pair, positive


class Convolution(Layer):
    """What convolutions and their transposes are given; F: filters, G: groups."""

    weight: Any
    dweight: Any
    bias: Any = None
    dbias: Any = None

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        dilation_rate=1,
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **layer,
    ):
        super().__init__(**layer)
        kind = type(self).__name__
        self.filters, self.groups = positive(kind, "filters", filters), positive(kind, "groups", groups)
        self.kernel_size = pair(kind, "kernel_size", kernel_size)
        self.strides = pair(kind, "strides", strides)
        self.dilation_rate = pair(kind, "dilation_rate", dilation_rate)
        self.padding = check_padding(kind, padding)
        self.activation, self.use_bias = activations.get(activation), use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        if self.filters % self.groups:
            raise ValueError(
                f"{kind}: groups must divide filters. Received: filters={filters}, groups={groups}"
            )

    def build(self, in_shape, params):
        self.need_map(in_shape)
        if in_shape[0] % self.groups:
            self.fail(
                f"groups must divide the channels. Received: {in_shape[0]} channels, groups={self.groups}. "
                f"Expected: a multiple of {self.groups} channels"
            )
        return in_shape

    def _reserve(self, params, ends: tuple[int, int]) -> None:
        """Parameters: a kernel from one number of channels to another, and a bias."""
        order = (3, 0, 2, 1)
        params.reserve(self, "weight", (*ends, *self.kernel_size), self.kernel_initializer, order)
        if self.use_bias:
            params.reserve(self, "bias", (self.filters,), self.bias_initializer)


class Conv2D(Convolution):
    """Convolution (cross-correlation) and activation.  x (H, C, W, N) -> y (OH, F, OW, N).

        z[oh, f, ow, n] = b[f] + sum over kh, kw, c of  W[f, c, kh, kw]  x[oh SH + kh DH, c, ow SW + kw DW, n]

    with strides SH, SW and dilation rates DH, DW.  W is (F, C/G, KH, KW) and b (F,), as in torch.nn.Conv2d;
    memory holds W as (KW, F, KH, C/G), so that each kernel column is one matrix (F, KH*C/G): see
    `columns_view` in ops/convolution.py.

    filters: F.  kernel_size, strides, dilation_rate: a number or (rows, columns).  padding: "valid" (none),
    "same" (output size = input size / strides, rounded up; the odd element at the end, as in Keras), a number
    or (rows, columns) on both sides, as in PyTorch.  groups: G; each filter sees C/G channels.  activation:
    f, a name or an object of `xpnet.activations`.  use_bias: whether there is a b.  kernel_initializer,
    bias_initializer: where W and b start, names or objects of `xpnet.initializers`.
    """

    def build(self, in_shape, params):
        C, H, W = super().build(in_shape, params)
        window = Window(self.kernel_size, self.strides, self.dilation_rate)
        self.window = window._replace(padding=resolve_padding(self.padding, window, H, W))
        OH, OW = self.window.out_size(H, W)
        if min(OH, OW) < 1:
            self.fail(
                f"the kernel is larger than its input. Received: a map {in_shape}, "
                f"kernel_size={self.kernel_size}, dilation_rate={self.dilation_rate}, "
                f"padding={self.padding!r}, which leave {OH} x {OW}. Expected: an output of at least 1 x 1; "
                "use padding='same', a smaller kernel or fewer poolings"
            )
        self._reserve(params, (self.filters, C // self.groups))
        return (self.filters, OH, OW)

    def forward(self, x, *, train):
        ops, w, b = self.ops, self.weight, self.bias
        seen, window = ops.bordered(x, w, self.window, self.groups)
        if self.activation.keeps_input:  # the slope needs z whole, so the activation cannot run in place
            z = ops.conv2d(seen, w, window, self.groups, b)
            y, kept = ops.finish(z, None, self.activation)
        else:
            y = ops.conv2d(seen, w, window, self.groups, b, self.activation)
            # a pooling that follows may let go of y; only a slope would hold it
            kept = None if type(self.activation) is activations.Linear else y
        return y, (seen, window, x.shape, kept)

    def backward(self, dy, cache):
        seen, window, in_shape, kept = cache
        dz = self.ops.finish_backward(dy, kept, self.activation, self.dbias)
        self.ops.conv2d_weight_grad(seen, dz, self.dweight, window, self.groups)
        if not self.needs_dx:
            return None
        return self.ops.conv2d_input_grad(dz, self.weight, in_shape, self.window, self.groups)

    def multiply_adds(self):
        _, OH, OW = self.out_shape
        return super().multiply_adds() * OH * OW


def check_padding(layer_name: str, padding):
    """padding as given, if it is one of the words, a number or a pair."""
    if isinstance(padding, str):
        if padding.lower() not in ("valid", "same"):
            raise ValueError(
                f"{layer_name}: {unknown('padding', padding, ('valid', 'same'))}, a number or a pair"
            )
        return padding.lower()
    return pair(layer_name, "padding", padding, least=0)


def resolve_padding(padding, window: Window, H: int, W: int):
    """((top, bottom), (left, right)) for a map of H x W."""
    if padding == "valid":
        return ((0, 0), (0, 0))
    if padding != "same":
        return ((padding[0], padding[0]), (padding[1], padding[1]))
    both: Any = []
    for size, stride, extent in zip((H, W), window.strides, window.extent):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        both.append((total // 2, total - total // 2))
    return tuple(both)


class ZeroPadding2D(Layer):
    """A border of zeros.  x (H, C, W, N) -> (top + H + bottom, C, left + W + right, N).

    padding: a number, (rows, columns), or ((top, bottom), (left, right)).
    """

    padding: Any

    def __init__(self, padding=1, **layer):
        super().__init__(**layer)
        if isinstance(padding, (tuple, list)) and len(padding) == 2 and isinstance(padding[0], (tuple, list)):
            self.padding = tuple(pair("ZeroPadding2D", "padding", side, least=0) for side in padding)
            self.sides = self.padding
        else:
            self.padding = rows, columns = pair("ZeroPadding2D", "padding", padding, least=0)
            self.sides = ((rows, rows), (columns, columns))

    def build(self, in_shape, params):
        self.need_map(in_shape)
        C, H, W = in_shape
        (top, bottom), (left, right) = self.sides
        return (C, top + H + bottom, left + W + right)

    def forward(self, x, *, train):
        return self.ops.pad(x, self.sides), x.shape

    def backward(self, dy, shape):
        H, _, W, _ = shape
        (top, _), (left, _) = self.sides
        return dy[top : top + H, :, left : left + W].copy()
