"""A service over a gallery and a browser that looks at its page."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eigenlens.artifact import EigenlensError
from eigenlens.benchmarks.common.service_process import running_service

if TYPE_CHECKING:
    from playwright.sync_api import Browser


class BrowserError(EigenlensError):
    """There is no browser to look at the page with."""


def find_chromium() -> str | None:
    """Find Debian's chromium: the headless shell, which has no windows to draw, takes a third of the other's time."""
    return shutil.which("chromium-headless-shell") or shutil.which("chromium")


@contextmanager
def looking_at(gallery: Path) -> Iterator[tuple[Browser, str]]:
    """Open Debian's chromium, and serve the gallery to it at this address. Raises: BrowserError; RuntimeError."""
    chromium = find_chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise BrowserError("playwright is not installed: pip install '.[dev]'") from None
    if chromium is None:
        raise BrowserError("chromium is not installed: apt-get install chromium-headless-shell")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(gallery, Path(folder) / "service.log") as server,
        sync_playwright() as playwright,
    ):
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser, server.address
        browser.close()
