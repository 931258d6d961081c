"""The screenshots of docs/images: python docs/images.py trains a network, and photographs what is made of it.

Needs pip install 'xpnet[test]' and a Chromium: the system's, or that of `playwright install chromium`.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
LARGEST = 200_000  # bytes of a picture
WIDE, NARROW, LONG, PHONE = (1440, 900), (1080, 860), (1080, 2400), (390, 844)


def main():
    from playwright.sync_api import sync_playwright

    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        run = Path(folder) / "digits-cnn"
        xpnet("train", "--seed", "0", "--quiet", "--out", run)
        xpnet("explain", run)
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        walk, report = ((run / name).as_uri() for name in ("model.html", "report.html"))
        walk += "#sample=0"

        def open_page(address, size=WIDE, **options):
            page = browser.new_page(viewport=dict(zip(("width", "height"), size)), locale="en", **options)
            page.goto(address)
            page.wait_for_load_state("networkidle")
            return page

        keep("explain", open_page(walk))
        page = open_page(walk, LONG)
        page.keyboard.press("v")  # the detail's next tab: as a matrix
        keep("explain-matrix", page, "#detail")
        page = open_page(walk)
        page.keyboard.press("b")  # backward
        keep("explain-backward", page)
        keep("explain-phone", open_page(walk, PHONE, color_scheme="dark"), full_page=False)
        keep("report", open_page(report, NARROW), full_page=False)
        browser.close()


def xpnet(*words):
    """A command of this very library."""
    subprocess.run([sys.executable, "-m", "xpnet", *words], check=True, cwd=Path(__file__).parents[1])


def keep(name: str, page, part: str | None = None, full_page: bool = True):
    """Photograph a page, or a part of it, and write it in few colours."""
    from PIL import Image

    page.wait_for_timeout(500)  # until what moves has come to rest
    shot = page.locator(part).screenshot() if part else page.screenshot(full_page=full_page)
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    path = IMAGES / f"{name}.png"
    picture.quantize(256).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.name}: {picture.size[0]} x {picture.size[1]}, {size / 1000:.0f} kB")
    assert size <= LARGEST, f"{path} is larger than {LARGEST} bytes"


if __name__ == "__main__":
    main()
