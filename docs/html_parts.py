"""A Sphinx extension: what the pages need beyond Markdown, so that the Markdown stays plain."""

import os
import re
import tempfile
from html import escape
from pathlib import Path

import blocks
from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.errors import ExtensionError
from sphinx.util.osutil import relative_uri

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SCHEME = "repository"  # of links that leave docs/
LINK = re.compile(r"(\]\()(\.\./[^)#\s]+)(#[^)\s]*)?(?=\))")

# The contents, beside the index: (heading, pages in order); a * stands for all that come by name.
CONTENTS = (
    ("Guide", ("start", "training", "layers", "memory-order", "pictures", "explain")),
    ("Coming from", ("coming-from/*",)),
    ("Reference", ("reference/index",)),
    ("Inside", ("cpu", "gpu")),
)


def setup(app):
    """Connect everything here to a build."""
    app.add_config_value("old_pictures", False, "")
    app.connect("builder-inited", make_pictures)
    app.connect("source-read", add_contents)
    app.connect("source-read", point_into_repository)
    app.connect("doctree-resolved", inline_drawings)
    app.connect("html-collect-pages", repository_pages)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    return {"parallel_read_safe": False}


def make_pictures(app):
    """Run the code of every page that shows what its code draws, and keep the pictures.

    With -D old_pictures=1 those that there are will do.
    """
    for page in blocks.pages():
        if not page.is_relative_to(DOCS) or blocks.fresh(page, app.config.old_pictures):
            continue
        print(f"running the code of {page.relative_to(ROOT)} ...", flush=True)
        folder = blocks.picture_folder(page)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
            if blocks.in_process(page, fresh).returncode:
                raise ExtensionError(f"the code of {page.relative_to(ROOT)} fails")
            for name in blocks.drawn(page):
                os.replace(Path(fresh) / name, folder / name)  # whole, also while others build


def add_contents(app, docname, source):
    """The tables of contents of the sidebar, which on a code host would be noise."""
    if docname != "index":
        return
    for heading, names in CONTENTS:
        listed = "\n".join(names)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {heading}\n\n{listed}\n```\n"


def point_into_repository(app, docname, source):
    """Links to files outside docs/ go to pages that show these files."""
    page = Path(app.env.doc2path(docname))

    def point(link):
        target = (page.parent / link[2]).resolve()
        if target.is_relative_to(DOCS) or not target.is_file():
            return link[0]
        name = target.relative_to(ROOT).as_posix()
        app.env.xpnet_shown = getattr(app.env, "xpnet_shown", {}) | {name: target}
        return f"{link[1]}{SCHEME}:{relative_uri(docname, f'repository/{name}')}.html"

    source[0] = LINK.sub(point, source[0])


def repository_pages(app):
    """A page for each file of the repository that some page links to."""
    for name, path in sorted(getattr(app.env, "xpnet_shown", {}).items()):
        language = {".py": "python", ".md": "markdown", ".cu": "cuda", ".sh": "bash"}.get(path.suffix, "text")
        code = app.builder.highlighter.highlight_block(path.read_text(), language, linenos=False)
        body = f'<h1><code class="literal">{name}</code></h1>\n{code}'
        yield f"repository/{name}", {"title": name, "body": body, "parents": [], "toc": ""}, "page.html"


def inline_drawings(app, doctree, docname):
    """Drawings become part of the page, whose colours they take, in the dark too."""
    for image in list(doctree.findall(nodes.image)):
        path = DOCS / image["uri"]
        if path.parent.name != "drawings":
            continue
        label = escape(image.get("alt", ""))
        svg = path.read_text().replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
        image.replace_self(nodes.raw("", f'<figure class="drawing">{svg}</figure>', format="html"))


def inline_math(translator, node):
    """A formula in the text, as MathML, which browsers show by themselves."""
    translator.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_math(translator, node):
    """A formula in lines of its own."""
    formula = latex2mathml.tex2mathml(node.astext(), as_block=True)
    translator.body.append(f'<div class="math">{formula}</div>')
    raise nodes.SkipNode
