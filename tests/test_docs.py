"""Every code block of README and docs runs as it stands, and the pages are built without a warning."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def _load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


blocks = _load("blocks")
PAGES = blocks.pages()


def _name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_of_the_page_runs(page, tmp_path):
    found = blocks.blocks(page)
    done = blocks.in_process(page, tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr[-4000:]
    if page.is_relative_to(DOCS):
        own = blocks.picture_folder(page).relative_to(DOCS / "_made").as_posix()
        for name in blocks.pictures(page).get(own, []):
            assert (tmp_path / name).exists(), f"{_name(page)} shows {name}, which its code does not draw"
    left_out = re.findall(r"left out: (.*)", done.stdout)
    if left_out:
        pytest.skip(f"{len(found)} blocks, but for {'; '.join(left_out)}")
