"""Every code block of README and docs runs as it stands, and the pages are built without a warning."""

import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import blocks  # noqa: E402
from blocks import PageError  # noqa: E402


def name_of(page):
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Writes a page and runs it, in a folder of its own; what was left out."""
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    monkeypatch.setattr(blocks, "DOCS", tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())

    def run(text, name="page.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        return blocks.run(tmp_path / name)

    return run


def fenced(language, text, mark=""):
    return f"{mark}\n```{language}\n{text}\n```\n"


# what a page says without showing it
README = ("accuracy > 0.95", "history.history['val_accuracy'][-1] > 0.85", "scores.mean() > 0.9")
HOLDS = {"README.md": README, "README.ja.md": README}


# -- the pages -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", blocks.pages(), ids=name_of)
def test_every_block_of_the_page_runs(page, tmp_path):
    found = blocks.blocks(page)
    done = blocks.in_process(page, tmp_path, HOLDS.get(name_of(page), ()), capture_output=True)
    assert done.returncode == 0, done.stderr[-4000:]
    if page.is_relative_to(DOCS):
        for name in blocks.drawn(page):
            assert (tmp_path / name).exists(), f"{name_of(page)} shows {name}, which its code does not draw"
    left_out = re.findall(r"left out: (.*)", done.stdout)
    if left_out:
        pytest.skip(f"{len(found)} blocks, but for {'; '.join(left_out)}")


@pytest.mark.parametrize("page", blocks.pages(), ids=name_of)
def test_links_within_the_repository_lead_somewhere(page):
    text = re.sub(r"(`{3,}).*?\1", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link and "_made/" not in link:
            assert (page.parent / link).exists(), f"{name_of(page)} points to {link}"
    for path in re.findall(r"`((?:examples|xpnet|docs|bench|tests)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), f"{name_of(page)} names {path}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("README.*.md")), ids=name_of)
def test_a_translated_readme_has_the_same_blocks(page):
    def code(path):
        found = [re.sub(r" *# .*", "", block.text) for block in blocks.blocks(path)]
        return [text for text in found if text.strip()]

    assert code(page) == code(ROOT / "README.md")


def test_pictures_lie_where_their_page_draws_them():
    shown = {path for page in blocks.pages() for path in blocks.pictures(page)}
    drawn = {
        (blocks.picture_folder(page) / name).relative_to(DOCS / "_made").as_posix()
        for page in DOCS.rglob("*.md")
        for name in blocks.drawn(page)
    }
    assert shown and shown == drawn


def test_screenshots_are_small():
    for path in (DOCS / "images").iterdir():
        assert path.stat().st_size <= 200_000, path.name


def test_the_kernel_that_the_gpu_page_shows_is_the_one_that_runs():
    from xpnet import optimizers
    from xpnet.ops import fuse

    shown = [block for block in blocks.blocks(DOCS / "gpu.md") if block.language == "cpp"]
    assert [block.text.strip() for block in shown] == [fuse.update(optimizers.Adam()).strip()]


def test_drawings_are_those_that_their_script_draws(tmp_path):
    script = DOCS / "drawings" / "memory_order.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    drawn = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert drawn == {path.name: path.read_text() for path in script.parent.glob("*.svg")}


class Loads(HTMLParser):
    """What a page would fetch."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag != "a" and named.get("rel") not in ("index", "search", "prev", "next", "author", "copyright"):
            self.found += [value for key, value in attributes if key in ("src", "href", "srcset", "poster")]


@pytest.mark.slow
def test_the_pages_are_built_without_a_warning_and_need_no_network(tmp_path):
    for name in ("sphinx", "myst_parser", "furo", "sphinx_copybutton"):
        pytest.importorskip(name, reason="the documentation needs pip install 'xpnet[docs]'")
    command = ["sphinx", "-W", "--keep-going", "-q", "-D", "old_pictures=1", "-b", "html", "docs", tmp_path]
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    built = list(tmp_path.rglob("*.html"))
    assert len(built) >= len(list(DOCS.glob("*.md")))
    for path in built:
        for address in Loads(path.read_text()).found:
            assert not re.match(r"(https?:)?//", address), f"{path.name} fetches {address}"
    memory = (tmp_path / "memory-order.html").read_text()
    assert memory.count('<figure class="drawing"><svg role="img" aria-label="') == 5
    assert 'href="repository/xpnet/ops/convolution.py.html"' in memory
    assert "columns_view" in (tmp_path / "repository" / "xpnet" / "ops" / "convolution.py.html").read_text()
    assert 'href="start.html"' in (tmp_path / "index.html").read_text()


# -- how they are run ----------------------------------------------------------------------------------------


def test_blocks_share_a_namespace_and_their_output_is_compared(page):
    page(fenced("python", "a = 2") + fenced("python", "print(a)") + fenced("text", "2", "<!-- output -->"))
    with pytest.raises(PageError, match=r"page\.md:11: the page shows\n\n3\n\nand this was printed:\n\n2"):
        page(
            fenced("python", "a = 2") + fenced("python", "print(a)") + fenced("text", "3", "<!-- output -->")
        )


def test_a_page_that_shows_an_output_of_nothing_is_refused(page):
    with pytest.raises(PageError, match="no block before it printed this"):
        page(fenced("text", "2", "<!-- output -->"))


def test_conditions_are_looked_at_in_the_end(page, tmp_path):
    page(fenced("python", "a = 2"))
    assert blocks.run(tmp_path / "page.md", ["a == 2"]) == []
    with pytest.raises(PageError, match=r"page\.md: expected a == 3"):
        blocks.run(tmp_path / "page.md", ["a == 3"])


def test_an_error_is_told_with_the_line_of_the_page(page):
    with pytest.raises(ZeroDivisionError) as caught:
        page("# A page\n" + fenced("python", "a = 1\na / 0"))
    last = caught.traceback[-1]
    assert last.path.name == "page.md" and last.lineno + 1 == 5


def test_warnings_are_errors_unless_the_page_tells_of_them(page):
    text = "import warnings\nwarnings.warn('so')"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as they are outside of tests
        with pytest.raises(UserWarning, match="so"):
            page(fenced("python", text))
    page(fenced("python", text, "<!-- warns: UserWarning -->"))
    with pytest.raises(UserWarning):
        page(fenced("python", text, "<!-- warns: DeviceFallbackWarning -->"))


def test_an_error_that_the_page_tells_of_must_come(page):
    raises = "<!-- raises: KeyError -->"
    page(fenced("python", "{}[1]", raises) + fenced("text", "KeyError:\n  1", "<!-- output -->"))
    with pytest.raises(PageError, match="expected a KeyError"):
        page(fenced("python", "{1: 1}[1]", raises))
    with pytest.raises(IndexError):
        page(fenced("python", "[][0]", raises))
    with pytest.raises(PageError, match="the page shows"):
        page(fenced("python", "{}[1]", raises) + fenced("text", "KeyError: 2", "<!-- output -->"))


def test_what_needs_something_that_is_missing_is_left_out_with_its_output(page):
    needs = "<!-- needs: nowhere_at_all -->"
    text = fenced("python", "import nowhere_at_all", needs) + fenced("text", "7", "<!-- output -->")
    (left,) = page(text + fenced("python", "a = 1"))
    assert left.missing == ["nowhere_at_all"] and left.where == "page.md:3"
    assert page(fenced("python", "a = 1", "<!-- needs: numpy -->")) == []


def test_a_needed_data_set_is_there_where_a_folder_is_named(page, monkeypatch):
    text = fenced("python", "a = 1", "<!-- needs: data -->")
    monkeypatch.delenv("XPNET_DATA", raising=False)
    assert len(page(text)) == 1
    monkeypatch.setenv("XPNET_DATA", "somewhere")
    assert page(text) == []


@pytest.mark.parametrize("language", ["", "pyton", "{toctree}"])
def test_a_block_that_nobody_checks_is_refused(page, language):
    with pytest.raises(PageError, match="nobody checks a block"):
        page(fenced(language, "a"))


def test_directives_are_let_through_in_docs_alone(page):
    assert page(fenced("{toctree}", "a"), "docs/page.md") == []


def test_a_mark_with_a_slip_is_refused(page):
    with pytest.raises(PageError, match="there is no mark 'need'"):
        page(fenced("python", "a = 1", "<!-- need: torch -->"))


def test_a_mark_is_that_of_the_next_block_alone(page):
    needs = "<!-- needs: nowhere_at_all -->"
    assert len(page(f"{needs}\n" + fenced("python", "a = 1"))) == 1
    assert page(f"{needs}\n\nSome words.\n" + fenced("python", "a = 1")) == []
    assert len(page(fenced("python", "a = 1", needs) + fenced("python", "a = 1"))) == 1


def test_a_block_without_an_end_is_refused(page):
    with pytest.raises(PageError, match="has no end"):
        page("```python\na = 1\n")


def test_indented_blocks_and_longer_fences_are_read(page, tmp_path):
    page("* a point\n\n  ```python\n  a = 1\n  ```\n")
    assert [block.text for block in blocks.blocks(tmp_path / "page.md")] == ["a = 1\n"]
    page("````python\nb = '''\n```\n'''\n````\n")
    assert [block.text for block in blocks.blocks(tmp_path / "page.md")] == ["b = '''\n```\n'''\n"]


@pytest.mark.parametrize(
    ("printed", "shown", "how", "same"),
    [
        ("a 1.25 b\n", "a 1... b", "", True),
        ("a\nx\ny\nb\n", "a\n...\nb", "", True),
        ("a\nb\n", "a", "", False),
        ("a \n", "a", "", True),
        ("a.b\n", "axb", "", False),
        ("axb\n", "a.b", "", False),
        ("97% right\n", "99% right", "within 3%", True),
        ("90% right\n", "99% right", "within 3%", False),
        ("step   9: 0.101\n", "step  9: 0.1", "within 3%", True),
        ("loss -0.5\n", "loss 0.5", "within 3%", False),
        ("1e-5 and 3\n", "1.01e-05 and 3", "within 3%", True),
        ("98% wrong\n", "98% right", "within 3%", False),
    ],
)
def test_shown_and_printed_are_compared(printed, shown, how, same):
    if same:
        blocks.compare(printed, shown, "here", how)
    else:
        with pytest.raises(PageError):
            blocks.compare(printed, shown, "here", how)


def test_commands_of_xpnet_are_run(page):
    page(fenced("console", "$ xpnet --version\nxpnet ..."))
    with pytest.raises(PageError, match="the page shows"):
        page(fenced("console", "$ xpnet --version\nxpnet 17"))
    page(fenced("sh", "xpnet --version") + fenced("text", "xpnet ...", "<!-- output -->"))
    with pytest.raises(PageError, match=r"unknown command\. Received: 'trian'"):
        page(fenced("sh", "xpnet trian"))


def test_commands_too_long_to_run_are_parsed(page):
    page(fenced("sh", "xpnet train mnist --epochs 100", "<!-- parsed -->"))
    with pytest.raises(PageError):
        page(fenced("sh", "xpnet train mnist --epoch 100", "<!-- parsed -->"))


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("pip install 'xpnet[plot,onnx]'", None),
        ("pip install '.[polt]'", "there is no extra polt"),
        ("pip install nupmy", "pyproject.toml knows no nupmy"),
        ("pip install torch && xpnet --version", None),
        ("OMP_NUM_THREADS=1 pytest -n auto tests/test_docs.py", None),
        ("pytest tests/test_dogs.py", "there is no tests/test_dogs.py"),
        ("XPNET_DATE=here xpnet --version", "nothing here reads the variable XPNET_DATE"),
        ("export XPNET_DATA=/data  # where the files are", None),
        ("export XPNET_DATE=/data", "nothing here reads the variable XPNET_DATE"),
        ("python -m bench.compare --short", None),
        ("python -m bench.compare --shirt", "there is no --shirt"),
        ("python -m bench.compote", "there is no .*compote.py"),
        ("python examples/digits_cnn.py --small", None),
        ("python examples/digits_cnn.py --smell", "there is no --smell"),
        ("sphinx-build -W -b html docs build/docs", None),
        ("sphinx-build -W -b html dogs build/docs", "no documentation in dogs"),
        ("rm -rf /", "no rule says how to check"),
    ],
)
def test_other_commands_are_checked(line, wrong):
    if wrong is None:
        blocks.run_line(line, False, "here")
    else:
        with pytest.raises(PageError, match=wrong):
            blocks.run_line(line, False, "here")


def test_pictures_are_drawn_again_when_the_page_changes(page, tmp_path):
    import os

    text = fenced("python", "a = 1") + "![a](_made/page/a.png)"
    page(text, "docs/page.md")
    written, picture = tmp_path / "docs" / "page.md", tmp_path / "docs" / "_made" / "page" / "a.png"
    assert blocks.picture_folder(written) == picture.parent
    assert not blocks.fresh(written)
    picture.parent.mkdir(parents=True)
    picture.touch()
    os.utime(picture, (written.stat().st_mtime + 1,) * 2)
    assert blocks.fresh(written)
    os.utime(written, (written.stat().st_mtime + 5,) * 2)
    assert not blocks.fresh(written)
    assert blocks.fresh(written, old_will_do=True)
    picture.unlink()
    assert not blocks.fresh(written, old_will_do=True)
