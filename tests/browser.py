"""Headless Chromium for tests of pages: `from browser import chromium` takes the fixture."""

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chromium():
    """A playwright Browser; tests that ask for it are skipped where there is none.

    One a module: while it runs, nothing else in the process can run an event loop.
    """
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'xpnet[test]'")
    with api.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, NAMES)), playwright.chromium.executable_path)
        if not os.path.exists(found):
            pytest.skip("no Chromium: apt install chromium, or playwright install chromium")
        args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=found, args=args)
        yield browser
        browser.close()
