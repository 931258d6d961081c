"""Elements of HTML and SVG by the standard library's ElementTree, which escapes whatever is put into them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from xml.etree import ElementTree
from xml.etree.ElementTree import Element


def el(tag: str, *children, **attributes) -> Element:
    """An element.  children: elements, text, lists of them, None for nothing.

    attributes: class_ for class, stroke_width for stroke-width; numbers are written short, None is left out.
    """
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            element.set(name.rstrip("_").replace("_", "-"), short(value))
    for child in _flat(children):
        if isinstance(child, Element):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + str(child)
        else:
            element.text = (element.text or "") + str(child)
    return element


def _flat(children):
    for child in children:
        if isinstance(child, (list, tuple)):
            yield from _flat(child)
        elif child is not None:
            yield child


def short(value) -> str:
    """A number with at most two decimals, and text as it is."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def text(element: Element) -> str:
    """The element as HTML."""
    return ElementTree.tostring(element, encoding="unicode", method="html")


@cache
def css() -> str:
    """The style of all parts, within the class xpnet-card."""
    return (files(__package__) / "card.css").read_text(encoding="utf-8")


def card(part: Element) -> str:
    """The part as it stands in a notebook, with its style."""
    return text(el("div", el("style", css()), part, class_="xpnet-card"))


def figure_text(value: float) -> str:
    """A loss or metric as a table shows it: four digits that count."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"


def bytes_text(size: int) -> str:
    """A number of bytes with its unit, to three digits."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:,.0f} {unit}" if amount >= 99.5 else f"{amount:.3g} {unit}"
