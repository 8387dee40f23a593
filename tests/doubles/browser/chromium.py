"""A headless Chromium for tests of pages: Playwright's own, or the system's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a browser, or skip with the reason where none can be started. Yields Playwright's `Browser`."""
    pytest.importorskip("playwright", reason="the test extra is not installed: pip install -e '.[test]'")
    from playwright.sync_api import Error, sync_playwright

    system = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        except Error as error:
            reason = str(error).splitlines()[0]
            pytest.skip(f"no Chromium: {reason}. Install it: apt-get install chromium, or playwright install chromium")
        try:
            yield browser
        finally:
            browser.close()
