"""Where windows stand on a feature map: kernel, strides, dilation and padding, resolved once to numbers."""

from __future__ import annotations

from typing import NamedTuple

Pair = tuple[int, int]


class Window(NamedTuple):
    """Kernel (KH, KW) sliding over a map that is padded by ((top, bottom), (left, right)) elements."""

    kernel: Pair
    strides: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))

    @property
    def extent(self) -> Pair:
        """Rows and columns that one dilated kernel covers."""
        (KH, KW), (DH, DW) = self.kernel, self.dilation
        return (KH - 1) * DH + 1, (KW - 1) * DW + 1

    def out_size(self, H: int, W: int) -> Pair:
        """(OH, OW) for an unpadded map of H x W; below 1 where the window does not fit."""
        (EH, EW), (SH, SW), ((top, bottom), (left, right)) = self.extent, self.strides, self.padding
        return (H + top + bottom - EH) // SH + 1, (W + left + right - EW) // SW + 1

    def positions(self, x) -> Pair:
        """(OH, OW): where the window stands on a map x (H, C, W, N) that has been padded already."""
        (KH, KW), (SH, SW), (DH, DW), _ = self
        return (x.shape[0] - (KH - 1) * DH - 1) // SH + 1, (x.shape[2] - (KW - 1) * DW - 1) // SW + 1

    @property
    def padded(self) -> bool:
        return self.padding != ((0, 0), (0, 0))

    def rows(self, i: int, OH: int) -> slice:
        """The image rows under kernel row i, one for each of OH output rows."""
        start, step = i * self.dilation[0], self.strides[0]
        return slice(start, start + (OH - 1) * step + 1, step)

    def columns(self, j: int, OW: int) -> slice:
        """The image columns under kernel column j, one for each of OW output columns."""
        start, step = j * self.dilation[1], self.strides[1]
        return slice(start, start + (OW - 1) * step + 1, step)

    @property
    def bare(self) -> Window:
        """The window on a map that has its border already."""
        return self._replace(padding=((0, 0), (0, 0)))
