"""One browser for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.support.pages import CHROMIUM, PATIENCE_MS


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's chromium. Closed after the tests of this folder: others cannot run an event loop beside Playwright's."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield launched
        launched.close()
