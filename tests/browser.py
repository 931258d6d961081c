"""Headless Chromium for tests of pages.  A test module takes the fixture by `from browser import chromium`."""

import os
import shutil

import pytest


def _executable():
    """A browser that is installed; None for the one that playwright brings."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def chromium():
    """A playwright Browser; tests that ask for it are skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'xpnet[test]'")
    with api.sync_playwright() as playwright:
        found = _executable() or playwright.chromium.executable_path
        if not os.path.exists(found):
            pytest.skip("no Chromium: apt install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()
