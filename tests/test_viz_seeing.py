"""The example that draws every picture of viz: they are all there, and the script says what it found."""

import re
from pathlib import Path

import pytest
from test_examples_pictures import assert_picture, load

from xpnet import viz

pytest.importorskip("matplotlib", reason="pictures need matplotlib")

SCRIPT = Path(__file__).parent.parent / "examples" / "seeing.py"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    out = tmp_path_factory.mktemp("seeing") / "new" / "folder"
    return load("seeing").main(["--out", str(out), "--epochs", "3"]), out


@pytest.mark.slow
def test_every_picture_is_there_and_can_be_looked_at(seen):
    from PIL import Image

    results, out = seen
    names = sorted(path.name for path in out.iterdir())
    assert [name[:3] for name in names] == [f"{i:02d}_" for i in range(1, 23)]
    for name in names:
        if name.endswith(".gif"):
            with Image.open(out / name) as gif:
                assert gif.n_frames > 3, name
        else:
            assert_picture(out / name)
    assert results["accuracy"] > 0.5  # chance is 0.1
    assert len(results["way"].path) == 4 and 0.9 < sum(results["way"].shares) <= 1 + 1e-6


def test_it_uses_every_function_that_draws():
    text = SCRIPT.read_text()
    drawing = {name for name in viz.__all__ if name.startswith(("plot_", "animate_"))} - {"plot_rates"}
    assert {name for name in drawing if f"viz.{name}(" not in text} == set()
    assert ".plot()" in text  # plot_rates, by what find_learning_rate returned


def test_the_script_counts_its_pictures_right():
    text = SCRIPT.read_text()
    assert re.search(r"Writes (\d+) pictures and three", text)[1] == str(
        len(set(re.findall(r'"\d\d_\w+\.png"', text)))
    )
    assert len(set(re.findall(r'"\d\d_\w+\.gif"', text))) == 3
