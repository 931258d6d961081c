"""The command line: `xpnet train | predict | export | explain | bench | doctor`, and how every command ends.

Exit codes: 0 done; 1 something that is xpnet's fault, or a `doctor` that found xpnet unusable; 2 an error of
the user's, told on stderr without a traceback; 130 interrupted.  NumPy and the rest are imported inside the
commands, so that `xpnet --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence
from typing import NoReturn

from . import __version__
from .commands import bench, doctor, explain, export, predict, train

COMMANDS = {
    "train": train,
    "predict": predict,
    "export": export,
    "explain": explain,
    "bench": bench,
    "doctor": doctor,
}

EXAMPLES = """\
examples:
  xpnet train                          handwritten digits, in seconds, nothing to download
  xpnet train mnist --model lenet
  xpnet train my.npz --model mlp --epochs 50
  xpnet predict runs/digits-cnn photo.png
  xpnet export runs/digits-cnn         an ONNX file, for other runtimes
  xpnet explain runs/digits-cnn        a page that walks through it, forward and backward
  xpnet bench                          milliseconds of a training step, CPU and GPU side by side
  xpnet doctor                         what is installed, and what is missing for a GPU
"""


class UsageError(Exception):
    """The command line itself is wrong."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors left to `main`, which ends every command in the same way."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` tells the usage")


def parser() -> Parser:
    """The parser of the whole command line."""
    top = Parser(
        prog="xpnet",
        description="Train convolutional networks on NumPy or on NVIDIA GPUs, and use them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"xpnet {__version__}")
    _add_debug(top, False)
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, module in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=textwrap.dedent(module.DESCRIPTION),
            epilog=textwrap.dedent(module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(sub)
        # given after the command it must not be undone by the command's own default
        _add_debug(sub, argparse.SUPPRESS)
    return top


def _add_debug(to: argparse.ArgumentParser, default) -> None:
    to.add_argument("--debug", action="store_true", default=default, help="show the traceback of an error")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line argv (by default the process's own) and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in argv
    try:
        with _plain_warnings():
            return _run(argv)
    except KeyboardInterrupt:
        print("\nxpnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has gone: no error of anybody's
        _discard_output()
        return 0
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        message, code = describe(error)
        print(f"xpnet: error: {message}", file=sys.stderr)
        return code


def _run(argv: list[str]) -> int:
    top = parser()
    first = next((word for word in argv if not word.startswith("-")), None)
    if first is not None and first not in COMMANDS:
        from .errors import unknown

        raise UsageError(str(unknown("command", first, COMMANDS)))
    try:
        args = top.parse_args(argv)
    except SystemExit as end:  # --help and --version have said all
        return int(end.code or 0)
    if args.command is None:
        top.print_help()
        return 0
    code = COMMANDS[args.command].run(args)
    sys.stdout.flush()
    return code


def describe(error: Exception) -> tuple[str, int]:
    """What to tell the user of an error, and the exit code: 2 where the user can mend it, else 1."""
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return f"not enough memory ({text}); a smaller --batch-size or fewer samples need less", 2
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}", 2
    if isinstance(error, (UsageError, ValueError, OSError, FloatingPointError, ImportError)) or (
        type(error) is RuntimeError
    ):
        return text, 2
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)", 1


@contextlib.contextmanager
def _plain_warnings():
    """Warnings as lines for a user, without the source line that gave them; xpnet's own are always shown."""

    def show(message, category, filename, lineno, file=None, line=None):
        print(f"xpnet: warning: {message}", file=sys.stderr)

    from .errors import DeviceFallbackWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", DeviceFallbackWarning)
        warnings.showwarning = show
        yield


def _discard_output() -> None:
    """Point stdout at nothing, so that the interpreter's flush at exit does not raise once more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
