"""The code blocks of README and docs/, and how they are run: what a page shows is what happens.

    python docs/blocks.py docs/start.md FOLDER ["a > 1" ...]

runs one page's blocks in FOLDER, and then looks whether conditions hold of the names that the page has made.

All blocks of a page run one after another, in one namespace and one folder, and warnings are errors.

    ```python     is run
    ```sh         commands: `xpnet ...` is run; of others it is checked that what they name exists
    ```console    the same behind "$ ", with what they print
    ```{...}      is one of Sphinx's directives, in docs/ alone
    ```text       is no code

A comment on the line before a block says more of it:

    <!-- output -->                         a text that is what the block before it printed; "..." stands for
                                            anything within a line, a line of it for any lines, and an error
                                            may be broken into lines
    <!-- output: within 3% -->              its numbers need only be as close as that
    <!-- needs: torch -->                   left out without it; `data` stands for the data sets of XPNET_DATA
    <!-- raises: ShapeError -->             it must, and the error is its output
    <!-- warns: DeviceFallbackWarning -->   it may
    <!-- parsed -->                         commands too long to be run: only their words are checked
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras's own default is TensorFlow
DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
SHOWN = {"text", "cpp"}  # not run: text; CUDA's C++, which test_docs compares with what is compiled
MARKS = ("needs", "raises", "warns", "parsed", "output")
FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*(\S*)(.*)$")
MARK = re.compile(r"^\s*<!--\s*(\w+)(?::\s*(.*?))?\s*-->\s*$")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
PICTURE = re.compile(r"\]\((?:\.\./)*_made/([\w./-]+)\)")


class Block(NamedTuple):
    """One fenced block of a page."""

    page: Path
    line: int  # of its first line of text, from 1
    language: str
    text: str
    marks: dict[str, str]  # of the comment before it

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def missing(self) -> list[str]:
        """What it needs and is not here."""
        return [name for name in re.findall(r"\w+", self.marks.get("needs", "")) if not _is_here(name)]


class PageError(Exception):
    """A block does not do what its page says."""


def pages() -> list[Path]:
    """Every page with code that is checked."""
    return sorted(ROOT.glob("README*.md")) + sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found, marks = [], {}
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    for number, line in lines:
        if mark := MARK.match(line):
            marks[mark[1]] = mark[2] or ""
        elif fence := FENCE.match(line):
            text = []
            for _, inside in lines:
                if inside.strip().startswith(fence[2]) and not inside.strip().strip(fence[2][0]):
                    break
                text.append(inside.removeprefix(fence[1]))
            else:
                raise PageError(f"{page.name}:{number}: the block has no end")
            found.append(Block(page, number + 1, fence[3], "\n".join(text) + "\n", marks))
            marks = {}
        elif line.strip():
            marks = {}
    return found


def pictures(page: Path) -> list[str]:
    """Those that a page shows of some page's code: their paths under docs/_made."""
    return PICTURE.findall(page.read_text())


def picture_folder(page: Path) -> Path:
    """Where the pictures of a page's own code are kept when the documentation is built."""
    return DOCS / "_made" / page.relative_to(DOCS).with_suffix("")


def drawn(page: Path) -> list[str]:
    """The files that a page shows of its own code."""
    own = picture_folder(page).relative_to(DOCS / "_made")
    return [Path(path).name for path in pictures(page) if Path(path).parent == own]


def fresh(page: Path, old_will_do: bool = False) -> bool:
    """Whether all pictures that a page shows of its own code are there, and newer than page and library."""
    sources = [page, *(ROOT / "xpnet").rglob("*.py")]
    newest = 0.0 if old_will_do else max(path.stat().st_mtime for path in sources)
    shown = [picture_folder(page) / name for name in drawn(page)]
    return all(path.exists() and path.stat().st_mtime > newest for path in shown)


def in_process(page: Path, folder: Path, conditions=(), **options) -> subprocess.CompletedProcess:
    """Run a page's blocks in a process of their own."""
    command = [sys.executable, __file__, page, folder, *conditions]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, **options)


def run(page: Path, conditions=()) -> list[Block]:
    """Run a page's blocks here, in the current folder; those that were left out.

    conditions: expressions that must be true at the end.
    """
    names: dict = {"__name__": "__main__"}
    left_out, printed = [], None
    for block in blocks(page):
        if strange := [mark for mark in block.marks if mark not in MARKS]:
            raise PageError(f"{block.where}: there is no mark {strange[0]!r}. Expected: {', '.join(MARKS)}")
        if "output" in block.marks:
            if printed is None:
                raise PageError(f"{block.where}: no block before it printed this")
            if printed is not left_out:
                compare(printed, block.text, block.where, block.marks["output"])
        elif block.missing:
            left_out.append(block)
            printed = left_out
        elif block.language == "python":
            printed = run_python(block, names)
        elif block.language in ("sh", "console"):
            printed = run_commands(block)
        elif block.language in SHOWN or (block.language.startswith("{") and page.is_relative_to(DOCS)):
            printed = None
        else:
            raise PageError(
                f"{block.where}: nobody checks a block of {block.language or 'no language'!r}. "
                f"Expected: python, sh, console or {', '.join(sorted(SHOWN))}"
            )
    for condition in conditions:
        if not eval(condition, names):
            raise PageError(f"{page.relative_to(ROOT)}: expected {condition}")
    return left_out


def run_python(block: Block, names: dict) -> str:
    """Run one block; what it printed."""
    for name in re.findall(r"\w+", block.marks.get("needs", "")):
        if importlib.util.find_spec(name):
            importlib.import_module(name)  # before warnings, of its own too, become errors
    out, raised = io.StringIO(), None
    expected = block.marks.get("raises")
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
    with warnings.catch_warnings(), contextlib.redirect_stdout(out):
        warnings.simplefilter("error")
        if "warns" in block.marks:
            warnings.filterwarnings("ignore", category=_class(block.marks["warns"]))
        try:
            exec(code, names)
        except Exception as error:
            if type(error).__name__ != expected:
                raise
            raised = error
    if expected and raised is None:
        raise PageError(f"{block.where}: expected a {expected}")
    return out.getvalue() + (f"{expected}: {raised}\n" if raised else "")


def run_commands(block: Block) -> str:
    """Run or check the commands of a block; what they printed."""
    printed, since = "", ""
    shown: list[str] = []
    for line in (*block.text.splitlines(), None):
        is_command = line is not None and (block.language == "sh" or line.startswith("$ "))
        if line is not None and not is_command:
            shown.append(line)
            continue
        if shown:
            compare(since, "\n".join(shown), block.where)
        if line is not None and line.strip():
            since, shown = run_line(line.removeprefix("$ "), "parsed" in block.marks, block.where), []
            printed += since
    return printed


def run_line(line: str, only_parsed: bool, where: str) -> str:
    """One line of shell: commands joined by &&."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words, printed = list(lexer), ""
    while words:
        end = words.index("&&") if "&&" in words else len(words)
        command, words = words[:end], words[end + 1 :]
        environment = {}
        while command and (assignment := re.fullmatch(r"(\w+)=(.*)", command[0])):
            environment[assignment[1]] = assignment[2]
            command = command[1:]
        try:
            for name in environment:
                _check_variable(name)
            printed += _command(command, environment, only_parsed)
        except PageError as error:
            raise PageError(f"{where}: `{line}`: {error}") from error
    return printed


def compare(printed: str, shown: str, where: str, how: str = "") -> None:
    """PageError where a page shows something else than was printed."""
    if not _alike(printed, shown, float(how.removeprefix("within ").rstrip("%")) / 100 if how else None):
        raise PageError(f"{where}: the page shows\n\n{shown}\nand this was printed:\n\n{printed}")


def _alike(printed: str, shown: str, tolerance: float | None) -> bool:
    if re.match(r"\w+Error:\s", shown):
        printed, shown = " ".join(printed.split()), " ".join(shown.split())
    pattern, numbers = "", []
    for line in shown.strip("\n").splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*"
            continue
        if tolerance is None:
            pattern += _with_gaps(line.rstrip())
        else:  # a number may be wider or narrower than the shown one, so the blanks before it are any
            numbers += map(float, NUMBER.findall(line))
            words = [_with_gaps(part.rstrip(" ")) for part in NUMBER.split(line)]
            pattern += rf" *({NUMBER.pattern})".join(words)
        pattern += r"[ \t]*\n"
    match = re.fullmatch(pattern, printed.strip("\n") + "\n")
    found = [] if match is None else list(map(float, match.groups()))
    return match is not None and all(abs(a - b) <= tolerance * abs(b) for a, b in zip(found, numbers))


def _with_gaps(text: str) -> str:
    return r"[^\n]*".join(map(re.escape, text.split("...")))


# -- commands ------------------------------------------------------------------------------------------------


def _command(words: list[str], environment: dict[str, str], only_parsed: bool) -> str:
    """Run xpnet; of another command, check that what it names exists.  What was printed."""
    match words:
        case ["xpnet", *rest]:
            return _xpnet(rest, environment, only_parsed)
        case ["pip", "install", *rest]:
            for word in rest:
                _check_requirement(word)
        case ["sphinx-build", *_, source, _]:
            _need((ROOT / source / "conf.py").exists(), f"there is no documentation in {source}")
        case ["pytest" | "ruff" | "mypy" | "bash" | "cd", *rest]:
            for word in rest:
                path = ROOT / word.partition("::")[0]
                _need("/" not in word or path.exists(), f"there is no {word}")
        case ["python", "-m", module, *rest]:
            _check_options(ROOT / Path(*module.split(".")).with_suffix(".py"), rest)
        case ["python", path, *rest]:
            _check_options(ROOT / path, rest)
        case ["export", assignment]:
            _check_variable(assignment.partition("=")[0])
        case _:
            raise PageError("no rule says how to check this command (docs/blocks.py)")
    return ""


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise PageError(message)


def _xpnet(words: list[str], environment: dict[str, str], only_parsed: bool) -> str:
    if only_parsed:
        from xpnet import cli

        try:
            cli.parser().parse_args(words)
        except cli.UsageError as error:
            raise PageError(error) from error
        return ""
    done = subprocess.run(
        [sys.executable, "-m", "xpnet", *words], env=os.environ | environment, text=True,
        stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    _need(done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _check_requirement(word: str) -> None:
    """A package of pyproject.toml, this one with extras that it has, or an option."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = {re.split(r"[^\w-]", line)[0] for line in sum(extras.values(), project["dependencies"])}
    name, _, chosen = word.rstrip("]").partition("[")
    _need(name in {".", "xpnet", "-e", "-U"} | needed, f"pyproject.toml knows no {name}")
    for extra in filter(None, chosen.split(",")):
        _need(extra in extras, f"there is no extra {extra}")


def _check_options(program: Path, words: list[str]) -> None:
    """A program of this repository, and options that a source beside it names."""
    _need(program.is_relative_to(ROOT) and program.exists(), f"there is no {program}")
    text = "".join(path.read_text() for path in program.parent.glob("*.py"))
    for word in words:
        named = f'"{word.partition("=")[0]}"' in text
        _need(named or not word.startswith("--"), f"there is no {word}")


def _check_variable(name: str) -> None:
    """An environment variable that something here reads."""
    sources = [*(ROOT / "xpnet").rglob("*.py"), *(ROOT / "bench").glob("*.py")]
    read = name == "OMP_NUM_THREADS" or any(name in path.read_text() for path in sources)
    _need(read, f"nothing here reads the variable {name}")


def _is_here(name: str) -> bool:
    if name == "data":
        return bool(os.environ.get("XPNET_DATA"))
    return importlib.util.find_spec(name) is not None


def _class(name: str) -> type[Warning]:
    import builtins

    from xpnet import errors

    return getattr(errors, name, None) or getattr(builtins, name)


def main(page: str, folder: str, *conditions: str) -> int:
    """Run one page in a folder; 0 where every block does what its page says."""
    path = Path(page).resolve()
    os.chdir(folder)
    sys.path.insert(0, "")
    try:
        for block in run(path, conditions):
            print(f"left out: {block.where} (needs {', '.join(block.missing)})")
    except PageError as error:
        print(error, file=sys.stderr)
    except Exception:
        traceback.print_exc()
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
