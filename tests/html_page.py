"""Reading a page of HTML as a browser does: well nested or refused, its elements and their texts."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np

VOID = {"meta", "img", "br", "col", "link", "input", "hr"}


class Node:
    """An element: tag, attributes, children (nodes and text)."""

    def __init__(self, tag, attributes=()):
        self.tag, self.attributes, self.children = tag, dict(attributes), []

    def all(self, tag=None, class_=None, **attributes):
        """Every element inside that fits, in the order of the page."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                classes = (child.attributes.get("class") or "").split()
                if (
                    tag in (None, child.tag)
                    and (class_ is None or class_ in classes)
                    and all(child.attributes.get(k.replace("_", "-")) == v for k, v in attributes.items())
                ):
                    found.append(child)
                found += child.all(tag, class_, **attributes)
        return found

    def one(self, tag=None, class_=None, **attributes):
        found = self.all(tag, class_, **attributes)
        assert len(found) == 1, f"{len(found)} elements for {tag} {class_} {attributes}"
        return found[0]

    @property
    def text(self):
        """What is read, styles left out, blanks run together."""
        parts = []
        for child in self.children:
            if isinstance(child, str):
                parts.append(child)
            elif child.tag != "style":
                parts.append(child.text)
        return " ".join(" ".join(parts).split())

    def rows(self):
        """The cells' texts of a table's own rows, headings included."""
        return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in self.all("tr")]


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = Node("page")
        self.open = [self.root]

    def handle_starttag(self, tag, attributes):
        node = Node(tag, attributes)
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read(text: str) -> Node:
    """The page; AssertionError where an element is not closed in its place."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root], f"<{reader.open[-1].tag}> is not closed"
    return reader.root


def pixels(image: Node) -> np.ndarray:
    """The stored picture of an <img>, (H, W) or (H, W, C)."""
    from PIL import Image

    kind, _, data = image.attributes["src"].partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg"), kind
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    return np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
