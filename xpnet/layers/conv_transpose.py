"""A convolution run backwards: each pixel leaves its multiple of the kernel on a larger map."""

from __future__ import annotations

from .. import activations
from ..ops.geometry import Window
from .base import pair
from .conv import Convolution


class Conv2DTranspose(Convolution):
    """Transposed convolution and activation.  x (H, C, W, N) -> y (OH, F, OW, N).

        z[h SH + kh DH, f, w SW + kw DW, n] = b[f] + sum over c of  W[c, f, kh, kw]  x[h, c, w, n]

    where those that meet add up: the adjoint of a `Conv2D` from F to C channels, whose backward is its
    forward.  W is (C, F/G, KH, KW) and b (F,), as in torch.nn.ConvTranspose2d; memory holds W as that
    Conv2D's.

    padding: what is cut off the full map of (H - 1) SH + EH rows, EH = (KH - 1) DH + 1.  "valid": nothing,
    but at least H SH rows; "same": H SH rows are left, both as in Keras; a number or (rows, columns): so many
    on either side, as in PyTorch.  output_padding: rows added at the end; with a word for the padding, what
    Keras makes of it.  filters, kernel_size, strides and the rest: as in `Conv2D`.
    """

    def __init__(self, filters, kernel_size, strides=1, padding="valid", output_padding=None, **convolution):
        super().__init__(filters, kernel_size, strides, padding, **convolution)
        self.output_padding = output_padding
        if output_padding is not None:
            self.output_padding = pair("Conv2DTranspose", "output_padding", output_padding, least=0)
            if any(p >= s for p, s in zip(self.output_padding, self.strides)):
                raise ValueError(
                    "Conv2DTranspose: output_padding must be smaller than strides. Received: "
                    f"output_padding={output_padding}, strides={strides}"
                )

    def build(self, in_shape, params):
        C, H, W = super().build(in_shape, params)
        window = Window(self.kernel_size, self.strides, self.dilation_rate)
        cut = [self._cut(axis, window.extent[axis], window.strides[axis]) for axis in (0, 1)]
        OH, OW = (
            (size - 1) * stride + extent - first - last
            for size, stride, extent, (first, last) in zip((H, W), window.strides, window.extent, cut)
        )
        if min(OH, OW) < 1:
            self.fail(
                f"the padding leaves nothing. Received: a map {in_shape}, kernel_size={self.kernel_size}, "
                f"strides={self.strides}, padding={self.padding!r}, which leave {OH} x {OW}. Expected: an "
                "output of at least 1 x 1; use a smaller padding or padding='same'"
            )
        # of Conv2D: rows that it would not see, a rest of its strides, need no border
        top, left = ((first, max(last, 0)) for first, last in cut)
        self.window = window._replace(padding=(top, left))
        self._reserve(params, (C, self.filters // self.groups))
        return (self.filters, OH, OW)

    def _cut(self, axis: int, extent: int, stride: int) -> tuple[int, int]:
        """Elements cut off before and behind the full map; behind, fewer than none are added."""
        extra = None if self.output_padding is None else self.output_padding[axis]
        if isinstance(self.padding, tuple):
            return self.padding[axis], self.padding[axis] - (extra or 0)
        if self.padding == "valid":
            return 0, -(max(stride - extent, 0) if extra is None else extra)
        kept = stride if extra is None else extent % 2 + extra  # what the last pixel makes longer
        first = max(extent - 1 - (extent + kept - 1) // 2, 0)
        return first, extent - kept - first

    def forward(self, x, *, train):
        N, OH, OW = x.shape[3], *self.out_shape[1:]
        z = self.ops.conv2d_input_grad(x, self.weight, (OH, self.filters, OW, N), self.window, self.groups)
        y, kept = self.ops.finish(z, self.bias, self.activation)
        return y, (x, kept if type(self.activation) is not activations.Linear else None)

    def backward(self, dy, cache):
        x, kept = cache
        dz = self.ops.finish_backward(dy, kept, self.activation, self.dbias)
        seen, window = self.ops.bordered(dz, self.weight, self.window, self.groups)
        self.ops.conv2d_weight_grad(seen, x, self.dweight, window, self.groups)
        return self.ops.conv2d(seen, self.weight, window, self.groups) if self.needs_dx else None

    def multiply_adds(self):
        _, H, W = self.in_shape
        return super().multiply_adds() * H * W
