"""The README's Python runs as it stands, block after block."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_every_python_block_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx", reason="the README's exchange needs pip install 'xpnet[onnx]'")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["accuracy"] > 0.95
    assert (tmp_path / "digits.safetensors").stat().st_size > 10_000


def test_the_readme_names_files_that_exist():
    for path in re.findall(r"`((?:examples|xpnet|docs|bench)/[\w/.]+)`", README.read_text()):
        assert (README.parent / path).exists(), path


def test_the_kernel_that_the_gpu_page_shows_is_the_one_that_runs():
    from xpnet import optimizers
    from xpnet.ops import fuse

    shown = re.search(r"```cpp\n(.*?)```", (README.parent / "docs" / "gpu.md").read_text(), re.S)
    assert shown and shown[1].strip() == fuse.update(optimizers.Adam()).strip()
