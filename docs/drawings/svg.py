"""A few strokes of SVG: boxes, words and arrows, in colours that follow the reader's light or dark.

A drawing knows both sets of colours.  As an image it takes that of the system; within the built pages, where
html_parts.py puts it into the text, that of the page's own switch.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

LIGHT = """--ink: #1f2328; --soft: #656d76; --line: #afb8c1; --paper: #ffffff;
  --a: #ffb77c; --b: #80ccff; --c: #a7e3a1; --d: #e2b6ff"""
DARK = """--ink: #e6edf3; --soft: #9198a1; --line: #59636e; --paper: #161b22;
  --a: #9a4c10; --b: #0f5c9c; --c: #2a6b30; --d: #6b3fa0"""
STYLE = f"""
.xp {{ {LIGHT}; font: 13px system-ui, sans-serif; max-width: WIDTHpx; width: 100%; height: auto }}
@media (prefers-color-scheme: dark) {{ .xp {{ {DARK} }} }}
body[data-theme="light"] .xp {{ {LIGHT} }}
body[data-theme="dark"] .xp {{ {DARK} }}
.xp text {{ fill: var(--ink); text-anchor: middle; dominant-baseline: central }}
.xp .left {{ text-anchor: start }} .xp .right {{ text-anchor: end }}
.xp .soft {{ fill: var(--soft) }} .xp .small {{ font-size: 11px }} .xp .big {{ font-size: 17px }}
.xp .code {{ font-family: ui-monospace, monospace; font-size: 12px }}
.xp rect {{ fill: var(--paper); stroke: var(--line) }}
.xp .none {{ fill: none }} .xp .frame {{ fill: none; stroke: var(--ink); stroke-width: 2.5 }}
.xp .a {{ fill: var(--a) }} .xp .b {{ fill: var(--b) }}
.xp .c {{ fill: var(--c) }} .xp .d {{ fill: var(--d) }}
.xp .rim {{ stroke-dasharray: 2 2; fill: none }}
.xp path {{ fill: none; stroke: var(--soft); stroke-width: 1.5 }}
.xp .head {{ fill: var(--soft); stroke: none }}
"""


class Drawing:
    """Shapes on a sheet of width x height units, about pixels."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.shapes: list[str] = []

    def box(self, x, y, width, height, kind: str = "", words: str = "", words_kind: str = "") -> None:
        """A rectangle, and words in its middle."""
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self.shapes.append(f'<rect {place} class="{kind}"/>')
        if words:
            self.text(x + width / 2, y + height / 2, words, words_kind)

    def text(self, x, y, words: str, kind: str = "") -> None:
        """Words around a point; kind "left" and "right" begin and end there."""
        self.shapes.append(f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>')

    def grid(self, x, y, rows: int, columns: int, size: float, kind=lambda r, c: "", words=lambda r, c: ""):
        """rows x columns square cells; kind and words of each by its row and column."""
        for r in range(rows):
            for c in range(columns):
                self.box(x + c * size, y + r * size, size, size, kind(r, c), words(r, c), "small")

    def arrow(self, x0, y0, x1, y1) -> None:
        """A straight arrow."""
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        u, v = (x1 - x0) / length * 7, (y1 - y0) / length * 7
        tip = f"{x1:g},{y1:g} {x1 - u - v / 2:g},{y1 - v + u / 2:g} {x1 - u + v / 2:g},{y1 - v - u / 2:g}"
        self.shapes.append(f'<path d="M{x0:g} {y0:g} L{x1 - u:g} {y1 - v:g}"/>')
        self.shapes.append(f'<polygon class="head" points="{tip}"/>')

    def save(self, path: Path) -> None:
        """Write the drawing."""
        style = STYLE.replace("WIDTH", str(round(self.width * 1.35)))
        head = f'<svg xmlns="http://www.w3.org/2000/svg" class="xp" viewBox="0 0 {self.width} {self.height}">'
        path.write_text("\n".join([head, f"<style>{style}</style>", *self.shapes, "</svg>", ""]))
