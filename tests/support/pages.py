"""The page in a real browser: opened over a gallery, watched for errors and for requests to other hosts."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from eigenlens.benchmarks.page.browser import find_chromium

CHROMIUM = find_chromium()
in_a_browser = [
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PATIENCE_MS = 15_000


class Watch:
    """What went wrong in a page. Tests that provoke a status say so: the browser notes it as an error."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.troubles: list[str] = []
        self.provoked: tuple[str, ...] = ()

    def follow(self, page: Page) -> None:
        """Note every request to another host, and every error."""
        page.on("request", self._only_here)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", self._note)
        page.on("dialog", lambda dialog: self.troubles.append("a script of the metadata ran"))

    def _only_here(self, request: Request) -> None:
        if not request.url.startswith((self.address, "blob:", "data:")):
            self.troubles.append(f"request to {request.url}")

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(sign in message.text for sign in self.provoked):
            self.troubles.append(message.text)


@contextlib.contextmanager
def opened(browser: Browser, address: str, *, view: str = "", **options: Any) -> Iterator[tuple[Page, Watch]]:
    """The page at an address, with nothing kept from before; afterwards: no error and no request to another host."""
    watch = Watch(address)
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    watch.follow(page)
    try:
        page.goto(address + view)
        yield page, watch
    finally:
        context.close()
    assert not watch.troubles, watch.troubles


def choose(page: Page, data: bytes, name: str = "query.png", media_type: str = "image/png") -> None:
    """Choose a file to search for."""
    page.set_input_files("#file", {"name": name, "mimeType": media_type, "buffer": data})


def searched(page: Page, name: str = "query.png") -> None:
    """Wait until what is searched for has this name, and its results are there."""
    expect(page.locator("#asked")).to_have_text(name)
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")


def press(page: Page, *keys: str) -> None:
    """Press keys one after the other."""
    for key in keys:
        page.keyboard.press(key)


def ids_of(page: Page, list_id: str = "results") -> Sequence[str]:
    """Ids of the images of a list, in its order."""
    titles = [button.get_attribute("title") or "" for button in page.locator(f"#{list_id} button.card").all()]
    return [title.splitlines()[0].removeprefix("Search for images like ") for title in titles]


def drop(page: Page, selector: str, files: Sequence[tuple[str, bytes, str]]) -> None:
    """Drop files onto an element, as a person would from another window."""
    given = [{"name": name, "type": media_type, "bytes": list(data)} for name, data, media_type in files]
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const { name, type, bytes } of files)
                transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
            return transfer;
        }""",
        given,
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event(selector, event, {"dataTransfer": transfer})


def drop_path(page: Page, selector: str, path: Path) -> None:
    """Drop a file or a folder of the disk onto an element, as a person would from the desktop."""
    element, session = page.locator(selector), page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while True:  # what is above may still grow, so that the element moves away
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        assert box is not None
        place = {"x": box["x"] + 4, "y": box["y"] + 4, "data": data}
        for event in ("dragEnter", "dragOver"):
            session.send("Input.dispatchDragEvent", {"type": event, **place})
        if "over" in (element.get_attribute("class") or "").split():
            break
        assert time.monotonic() < deadline, f"{selector} is not under what is dragged"
        session.send("Input.dispatchDragEvent", {"type": "dragCancel", **place})
        page.wait_for_timeout(50)
    session.send("Input.dispatchDragEvent", {"type": "drop", **place})
    session.detach()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
