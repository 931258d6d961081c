"""The directive `command`: a command's usage, arguments and examples, from the parser that reads them."""

import argparse

from docstrings import inline
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.util.parsing import nested_parse_to_nodes

from xpnet import cli


def setup(app):
    app.add_directive("command", Command)
    return {"parallel_read_safe": True}


class Command(Directive):
    """.. command:: train"""

    required_arguments = 1

    def run(self):
        lines = StringList(list(described(self.arguments[0])), source="xpnet --help")
        return nested_parse_to_nodes(self.state, lines)


def parsers():
    """{command: its parser}."""
    top = cli.parser()
    (commands,) = (one for one in top._actions if isinstance(one, argparse._SubParsersAction))
    return commands.choices


def described(name):
    """A command as reStructuredText."""
    parser = parsers()[name]
    yield from block(parser.format_usage().removeprefix("usage: "), "")
    for paragraph in (parser.description or "").split("\n\n"):
        yield from (inline(" ".join(paragraph.split()), "xpnet"), "")
    yield from (f".. program:: xpnet {name}", "")
    for action in parser._actions:
        words = action.option_strings or [str(action.metavar or action.dest)]
        value = f" {action.metavar}" if action.option_strings and action.metavar else ""
        yield f".. option:: {', '.join(word + value for word in words)}"
        yield from ("", f"   {inline(parser._get_formatter()._expand_help(action), 'xpnet')}", "")
    for paragraph in (parser.epilog or "").strip().split("\n\n"):
        if paragraph.startswith("examples:"):
            yield from block(paragraph.partition("\n")[2], "Examples")
        else:
            yield from (inline(" ".join(paragraph.split()), "xpnet"), "")


def block(text, title):
    if title:
        yield from (f"**{title}**", "")
    lines = (f"   {line.removeprefix('  ')}" for line in text.splitlines())
    yield from (".. code-block:: text", "", *lines, "")
