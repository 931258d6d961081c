"""One page from its parts: HTML, style, scripts, words, and a model's numbers."""

from __future__ import annotations

import base64
import html
import json
import re
from functools import cache
from importlib.resources import files
from posixpath import dirname, join, normpath
from typing import Any

ENTRY = "page/main.js"
IMPORT = re.compile(r'^import (?:\{[^}]*\} from |\* as (?P<whole>\w+) from )?"(?P<path>[^"]+)";$', re.M)
EXPORT = re.compile(r"^export (?=(async )?function|const|let|class)", re.M)


def page(manifest: dict[str, Any], packed: bytes, title: str, language: str | None) -> str:
    """The whole page as text."""
    numbers = page_data(manifest, packed)
    parts = {
        "<!-- style -->": f"<style>\n{part('page.css')}</style>",
        "<!-- words -->": _element("words", "application/json", _json(json.loads(part("words.json")))),
        "<!-- manifest -->": _element("manifest", "application/json", numbers["manifest"]),
        "<!-- tensors -->": _element("tensors", "text/plain", numbers["tensors"]),
        "<!-- script -->": f'<script type="module">\n{bundle(ENTRY)}</script>',
        "{{title}}": html.escape(title),
        "{{language}}": html.escape(language or ""),
    }
    places = re.compile("|".join(map(re.escape, parts)))
    return places.sub(lambda found: parts[found.group()], part("page.html"))


def page_data(manifest: dict[str, Any], packed: bytes) -> dict[str, str]:
    """A model's numbers as the text of the elements by whose ids engine/net.js finds them."""
    return {"manifest": _json(manifest), "tensors": base64.b64encode(packed).decode("ascii")}


def bundle(entry: str) -> str:
    """A module and all it imports as one script, each after what it imports."""
    done: dict[str, str] = {}

    def visit(path: str) -> None:
        if path in done:
            return
        done[path] = ""  # a circle ends here
        source = part(path)
        namespaces = []
        for found in IMPORT.finditer(source):
            target = normpath(join(dirname(path), found["path"]))
            visit(target)
            if found["whole"]:
                names = ", ".join(exported(part(target)))
                namespaces.append(f"const {found['whole']} = {{ {names} }};\n")
        del done[path]
        done[path] = "".join(namespaces) + EXPORT.sub("", IMPORT.sub("", source)).lstrip("\n")

    visit(entry)
    return "\n".join(f"// ---- {path}\n\n{source}" for path, source in done.items())


def exported(source: str) -> list[str]:
    """The names that a module exports."""
    return re.findall(r"^export (?:async )?(?:function|const|let|class) (\w+)", source, re.M)


@cache
def part(path: str) -> str:
    """The text of one of the page's own files."""
    return files(__package__).joinpath(path).read_text(encoding="utf-8")


def _element(name: str, kind: str, text: str) -> str:
    return f'<script type="{kind}" id="{name}">{text}</script>'


def _json(value: Any) -> str:
    """JSON that nothing in it can end the element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
