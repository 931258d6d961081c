"""How a docstring of xpnet's becomes a part of the reference.

The docstrings are plain prose for `help()`: shapes first, then `name: what it is.` for the arguments, with
formulas and code indented.  Here prose turns into what a page shows at a glance: shapes in type, a list of
the arguments with their defaults, the errors in a paragraph of their own, and `names` as links.  Nothing is
left to reStructuredText's own signs, so (x * y) and |x| stay what they are.
"""

import inspect
import itertools
import re
from importlib.util import find_spec

from public_names import by_last_name, everything

from xpnet.config import arguments

LETTERS = r"(?:[A-Z]{1,2}|\d+)"
DIMENSION = rf"{LETTERS}(?: ?[*/] ?{LETTERS})*"
SHAPE = rf"\((?:{DIMENSION}|\.\.\.)(?:, (?:{DIMENSION}|\.\.\.|\*\w+))*,?\)"
FLOW = rf"(?:\w+ )?{SHAPE} -> (?:\w+ )?{SHAPE}"
LONE = SHAPE.replace("*,?", "+,?") + rf"|\({LETTERS},\)"  # but not the (N) of a plain remark
VALUE = r"(?:\w+=)?\"[^\" ]{1,40}\"|\b\w+=(?:True|False|None|-?\d[\d.e-]*\b)"
CODE = re.compile(rf"`([^`]+)`|({VALUE}|{FLOW}|{LONE})|\b(\w+(?:Error|Warning))\b")
ARGUMENTS = re.compile(r"(?:^|(?<=[.;:!?)]) +)((?:\*{0,2}\w+)(?:, \*{0,2}\w+)*(?: and \*{0,2}\w+)?): +")
RAISES = re.compile(r"(?:^|(?<=[.!?)]) +)Raises (?=[A-Z])")
OF_BASES = {"layer": "xpnet.layers.Layer", "common": "xpnet.optimizers.Optimizer"}  # **layer, **common


def setup(app):
    """Autodoc, reading docstrings as they are written here."""
    app.setup_extension("sphinx.ext.autodoc")
    for name, value in {
        "autodoc_docstring_signature": False,  # "Convolution (cross-correlation)" is none
        "autodoc_typehints": "none",  # `returns` puts back what a call gives
        "autodoc_inherit_docstrings": False,  # what a base explains stands there
        "autodoc_member_order": "bysource",
        "python_maximum_signature_line_length": 88,
        "add_module_names": False,
        "smartquotes": False,
    }.items():
        app.config[name] = value
    if not (find_spec("torch") and find_spec("onnx")):  # whose parts are then left out
        app.config.suppress_warnings = [*app.config.suppress_warnings, "autodoc.import_object"]
    app.add_css_file("reference.css")
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", returns)
    return {"parallel_read_safe": True}


def returns(app, kind, name, thing, options, signature, result):
    """The signature with what the call returns, in the words of the source."""
    if kind in ("function", "method") and signature and not result:
        found = inspect.signature(thing).return_annotation
        if isinstance(found, str) and found != "None":
            return signature, found
    return None


def process(app, kind, name, thing, options, lines):
    """Autodoc's event: the docstring's lines, rewritten in place."""
    lines[:] = reread(lines, thing, name)


def reread(lines, thing, name):
    """The lines of a docstring as reStructuredText."""
    defaults = parameters(thing)
    out: list[str] = []
    arguments: list[str] = []

    def explained():
        if arguments:
            out.extend([".. container:: arguments", "", *(f"   {line}" for line in arguments), ""])
            arguments.clear()

    for paragraph in paragraphs(lines):
        if indented(paragraph):
            explained()
            out += [f".. code-block:: {'python' if is_code(paragraph) else 'text'}", ""]
            out += [f"   {line}" for line in paragraph] + [""]
            continue
        for kind, names, text in pieces(" ".join(line.strip() for line in paragraph), defaults):
            text = inline(text, name)
            if kind == "arguments":
                terms = ", ".join(f"``{term(one, defaults)}``" for one in names)
                arguments += [terms, f"    {text}", ""]
                continue
            explained()
            if kind == "raises":
                out += [".. container:: raises", "", f"   **Raises** {text}", ""]
            else:
                out += [text, ""]
    for one, base in OF_BASES.items():
        if (defaults.get(one) or "").startswith("**") and not name.endswith(base.rpartition(".")[2]):
            arguments += [f"``**{one}``", f"    the arguments of :py:obj:`~{base}`.", ""]
    explained()
    return out


def paragraphs(lines):
    """The lines between empty ones; indented ones that follow each other are one paragraph."""
    found: list[list[str]] = []
    for is_text, group in itertools.groupby(lines, key=lambda line: bool(line.strip())):
        one = [line.rstrip() for line in group]
        if not is_text:
            continue
        if found and indented(found[-1]) and indented(one):
            found[-1] += ["", *one]
        else:
            found.append(one)
    return found


def indented(paragraph):
    return all(line.startswith(" ") for line in paragraph if line)


def is_code(paragraph):
    """Whether an indented paragraph is Python, not a formula."""
    text = "\n".join(paragraph)
    try:
        compile(inspect.cleandoc(text), "docstring", "exec")
    except SyntaxError:
        return False
    return True


def parameters(thing):
    """What `name:` may explain, as the signature has it: arguments, and a class's attributes as None."""
    found: dict[str, str | None] = {}
    if isinstance(thing, property) or not callable(thing):
        return found
    if inspect.isclass(thing):
        found |= dict.fromkeys(one for one in dir(thing) if not one.startswith("_"))
        if hasattr(thing, "get_config"):  # with the arguments of its bases
            for one, default in arguments(thing).items():
                found[one] = one if default is inspect.Parameter.empty else f"{one}={default!r}"
    try:
        signature = inspect.signature(thing)
    except (ValueError, TypeError):
        return found
    for p in signature.parameters.values():
        if p.name not in ("self", "cls"):
            found[p.name] = str(p.replace(annotation=p.empty))
    return found


def term(name, defaults):
    """`strides=1`, as the signature has it."""
    return defaults[name.lstrip("*")] or name


def pieces(text, defaults):
    """A paragraph as (kind, names, text): prose, explained arguments, errors."""
    marks = [(m.start(), m.end(), "raises", ()) for m in RAISES.finditer(text)]
    for m in ARGUMENTS.finditer(text):
        names = re.split(r", | and ", m[1])
        if all(one.lstrip("*") in defaults for one in names):
            marks.append((m.start(), m.end(), "arguments", names))
    marks.sort()
    begin = marks[0][0] if marks else len(text)
    if text[:begin].strip():
        yield "prose", (), text[:begin].strip()
    for (_, end, kind, names), after in zip(marks, [*(m[0] for m in marks[1:]), len(text)]):
        yield kind, names, re.sub(r"[;,]$", ".", text[end:after].strip())


def inline(text, where):
    """Prose with its shapes, `code` and names set as such, and every other sign as it is."""
    out, done = [], 0
    for m in CODE.finditer(text):
        out += [escaped(text[done : m.start()]), code(m, where)]
        done = m.end()
    text = "".join([*out, escaped(text[done:])])
    return text if re.match(r"[\w`:\\]", text) and not re.match(r"\w+[.)] ", text) else f"\\ {text}"


def escaped(text):
    return re.sub(r"([\\*_|`<>])", r"\\\1", text).replace(" -> ", " → ")


def code(match, where):
    quoted, plain, error = match.groups()
    if quoted or error:
        target = found(quoted or error, where)
        if target:
            return f"\\ :py:obj:`{quoted or error} <{target}>`\\ "
        if error:
            return escaped(error)
    return f"\\ ``{(quoted or plain).replace(' -> ', ' → ')}``\\ "


def found(word, where):
    """The full name behind a word: of the same class or module, of xpnet, or the only one that ends so."""
    word = word.removesuffix("()")
    homes = (where, where.rpartition(".")[0], "xpnet")
    names = (f"{home}.{word}" for home in homes)
    return next((one for one in (word, *names) if one in everything()), by_last_name().get(word))
