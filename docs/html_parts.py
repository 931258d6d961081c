"""What xpnet's pages need beyond plain Sphinx; conf.py hands `setup` to it."""

import re
import sys
from pathlib import Path

import blocks
from docutils import nodes
from docutils.utils.math import latex2mathml
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
    app.connect("builder-inited", make_pictures)
    app.connect("source-read", add_contents)
    app.connect("source-read", point_into_repository)
    app.connect("doctree-resolved", inline_drawings)
    app.connect("html-collect-pages", repository_pages)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    return {"parallel_read_safe": False}


def make_pictures(app):
    """Run the code of every page that shows what its code draws."""
    for page in blocks.pages():
        if page.is_relative_to(DOCS) and not blocks.fresh(page):
            print(f"running the code of {page.relative_to(ROOT)} ...", flush=True)
            folder = blocks.picture_folder(page)
            folder.mkdir(parents=True, exist_ok=True)
            if blocks.in_process(page, folder).returncode:
                sys.exit(f"the code of {page.relative_to(ROOT)} fails")


def add_contents(app, docname, source):
    """The tables of contents of the sidebar, which on a code host would be noise."""
    if docname != "index":
        return
    known = app.env.found_docs
    for heading, wanted in CONTENTS:
        names = [name for name in wanted if "*" in name or name in known]
        if any("*" not in n or any(k.startswith(n.rstrip("*")) for k in known) for n in names):
            names = "\n".join(names)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {heading}\n\n{names}\n```\n"


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
        svg = path.read_text().partition("<svg")
        label = nodes.fully_normalize_name(image.get("alt", "")).replace('"', "&quot;")
        text = f'<figure class="drawing">{svg[1]} role="img" aria-label="{label}"{svg[2]}</figure>'
        image.replace_self(nodes.raw("", text, format="html"))


def inline_math(translator, node):
    """A formula in the text, as browsers show it by themselves."""
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block_math(translator, node):
    """A formula of its own line."""
    translator.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def mathml(formula: str, display: str) -> str:
    tree = latex2mathml.tex2mathml(formula, as_block=display == "block")
    return tree if isinstance(tree, str) else tree.toprettyxml()
