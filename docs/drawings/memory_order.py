"""The drawings of docs/memory-order.md: python docs/drawings/memory_order.py [FOLDER] writes them, beside
itself where no folder is named."""

import sys
from pathlib import Path

from svg import Drawing

HERE = Path(__file__).parent
H, C, W, N = 5, 2, 5, 3  # the map of all drawings, as in the page's code
KH = KW = OH = OW = 3
F = 4
CELL = 20


def im2col():
    """Two patches of a 4 x 4 image, and the columns that they become."""
    d = Drawing(390, 250)
    letters = [chr(ord("a") + i) for i in range(16)]

    def covered(r, c):
        return ("a" if c < 1 else "c" if c < 3 else "b") if r < 3 else ""

    d.text(52, 16, "image, 4 × 4", "soft")
    d.grid(12, 30, 4, 4, CELL, covered, lambda r, c: letters[4 * r + c])
    d.box(12, 30, 60, 60, "frame")
    d.box(32, 30, 60, 60, "frame")
    d.text(12, 130, "two windows of 3 × 3:", "left small soft")
    d.text(12, 146, "six pixels are under both", "left small soft")
    d.arrow(106, 70, 182, 70)
    d.text(244, 16, "its im2col matrix", "soft")
    for position in range(4):
        top, left = divmod(position, 2)
        shown = position < 2
        for k in range(9):
            i, j = divmod(k, 3)
            word = letters[4 * (top + i) + left + j]
            kind = covered(top + i, left + j) if shown else ""
            d.box(196 + position * 24, 30 + k * CELL, 24, CELL, kind, word, "small")
        if shown:
            d.box(196 + position * 24, 30, 24, 9 * CELL, "frame")
    for k, words in ((0, "kernel [0, 0]"), (1, "[0, 1]"), (2, "[0, 2]"), (3, "[1, 0]"), (8, "[2, 2]")):
        d.text(300, 40 + k * CELL, words, "left small soft")
    d.text(244, 226, "a column for each place of the window", "small soft")
    d.save(HERE / "im2col.svg")


def map_as_matrix():
    """A feature map in (H, C, W, N): a matrix, and the im2col matrices are rectangles of it."""
    left, top, cell = 78, 64, 20
    d = Drawing(left + W * N * cell + 8, top + H * C * cell + 78)
    d.text(left + W * N * cell / 2, 14, "a map in memory: H·C lines of W·N numbers", "soft")
    for w in range(W):
        d.text(left + (w + 0.5) * N * cell, 36, f"column {w}", "small")
        for n in range(N):
            d.text(left + (w * N + n + 0.5) * cell, 52, str(n), "small soft")
    d.text(left - 8, 52, "sample", "right small soft")
    for h in range(H):
        d.text(left - 70, top + (h + 0.5) * C * cell, f"row {h}", "left small")
        for c in range(C):
            d.text(left - 8, top + (h * C + c + 0.5) * cell, f"ch {c}", "right small soft")
    first, second = (0, 0), (1, 1)  # (output row, kernel column)

    def inside(r, c, place):
        row, j = place
        return row * C <= r < (row + KH) * C and j * N <= c < (j + OW) * N

    def kind(r, c):
        both = inside(r, c, first), inside(r, c, second)
        return {(True, True): "c", (True, False): "a", (False, True): "b"}.get(both, "")

    d.grid(left, top, H * C, W * N, cell, kind)
    for row, j in (first, second):
        d.box(left + j * N * cell, top + row * C * cell, OW * N * cell, KH * C * cell, "frame")
    below = top + H * C * cell
    d.box(left, below + 14, 14, 14, "a")
    d.text(left + 20, below + 21, "output row 0, kernel column 0", "left small")
    d.box(left, below + 34, 14, 14, "b")
    d.text(left + 20, below + 41, "output row 1, kernel column 1", "left small")
    d.box(left, below + 54, 14, 14, "c")
    d.text(left + 20, below + 61, "the same numbers, part of both", "left small")
    d.save(HERE / "map_as_matrix.svg")


def products():
    """One output row: the sum of KW products."""
    d = Drawing(390, 318)
    d.text(72, 14, "F × KH·C", "small soft")
    d.text(259, 14, "a rectangle of the map, KH·C × OW·N", "small soft")
    for j, kind in enumerate("abc"):
        y = 30 + j * 76
        d.text(18, y + 28, "+" if j else "", "big")
        d.box(36, y, 72, 56, "d", f"w[{j}]", "code")
        d.text(122, y + 28, "×", "big")
        d.box(136, y - 4, 246, 64)
        d.box(136 + j * 26, y - 4, 194, 64, kind, f"columns {j} to {j + OW - 1}", "small")
    d.text(18, 276, "=", "big")
    d.box(136, 254, 194, 44, "", "y[r]   F × OW·N", "code")
    d.save(HERE / "products.svg")


def two_orders():
    """What one product reads, in two memory orders."""
    d = Drawing(390, 206)

    def strip(y, title, runs, note):
        d.text(8, y, title, "left code")
        d.box(8, y + 14, 374, 22)
        for start, length in runs:
            d.box(8 + start, y + 14, length, 22, "a")
        d.text(8, y + 50, note, "left small soft")

    total = H * C * W * N
    unit = 374 / total
    lines = [((h * C + c) * W * N * unit, OW * N * unit) for h in range(KH) for c in range(C)]
    strip(20, "(H, C, W, N)", lines, "output row 0, kernel column 0: 6 runs of 9, one every 15")
    small = [
        (((n * C + c) * H + h) * W * unit, OW * unit) for n in range(N) for c in range(C) for h in range(KH)
    ]
    strip(122, "(N, C, H, W)", small, "the same 54 numbers: 18 runs of 3, at no one distance")
    d.save(HERE / "two_orders.svg")


def backward():
    """Which outputs a pixel went into, and the kernel that carries their gradients back."""
    d = Drawing(390, 236)
    d.text(80, 14, "dz in a border of zeros", "soft")
    size = 20

    def kind(r, c):
        if not (2 <= r < 5 and 2 <= c < 5):
            return "rim"
        return "a" if r < 4 and c < 4 else ""

    words = {(2, 2): "p", (2, 3): "q", (3, 2): "s", (3, 3): "t"}
    d.grid(10, 30, 7, 7, size, kind, lambda r, c: words.get((r, c), "0" if kind(r, c) == "rim" else "·"))
    d.box(10 + size, 30 + size, 60, 60, "frame")
    d.text(172, 100, "×", "big")
    d.text(222, 46, "kernel, turned", "soft")
    turned = "ihgfedcba"
    d.grid(192, 62, 3, 3, size, lambda r, c: "d", lambda r, c: turned[3 * r + c])
    d.text(272, 100, "=", "big")
    d.text(330, 46, "dx", "soft")
    d.grid(286, 62, 5, 5, 17, lambda r, c: "c" if (r, c) == (1, 1) else "")
    d.text(10, 190, "x[1, 1] stood under kernel element e of output p, under d", "left small soft")
    d.text(10, 206, "of q, under b of s and under a of t.  So its slope is", "left small soft")
    d.text(10, 224, "p·e + q·d + s·b + t·a", "left code")
    d.save(HERE / "backward.svg")


if __name__ == "__main__":
    HERE = Path(sys.argv[1]) if sys.argv[1:] else HERE
    im2col()
    map_as_matrix()
    products()
    two_orders()
    backward()
