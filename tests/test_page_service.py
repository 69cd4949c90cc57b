"""The page when the service goes away, comes back, or is busy."""

from __future__ import annotations

import threading

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Response, expect

from service.gallery.layout import Gallery
from tests.builders import encoded
from tests.pages import browser, choose, free_port, in_a_browser, opened, press, searched
from tests.pictures import noise
from tests.service_builders import build_gallery, pixels_of, png, serving, settings_of

__all__ = ["browser"]
pytestmark = in_a_browser


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return build_gallery(tmp_path_factory.mktemp("service"), count=40)


def test_a_service_that_goes_and_comes_back(gallery: Gallery, browser: Browser) -> None:
    port = free_port()
    with serving(settings_of(gallery), port=port):
        session = opened(browser, f"http://127.0.0.1:{port}")
        page, watch = session.__enter__()
        watch.provoked = ("ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "ERR_SOCKET")
        choose(page, png(pixels_of(5)))
        searched(page)
        expect(page.locator("#lost")).to_be_hidden()
    page.locator("#length").focus()
    press(page, "ArrowRight")
    expect(page.locator("#lost")).to_be_visible()
    with serving(settings_of(gallery), port=port):
        expect(page.locator("#lost")).to_be_hidden()
        expect(page.locator("#plan")).to_contain_text("first 2 of 12 numbers")
        expect(page.locator("#error")).to_be_hidden()
        session.__exit__(None, None, None)


def test_a_page_that_is_opened_while_the_service_is_away_starts_by_itself(gallery: Gallery, browser: Browser) -> None:
    with (
        serving(settings_of(gallery)) as client,
        opened(browser, str(client.base_url).rstrip("/")) as (page, watch),
    ):
        watch.provoked = ("ERR_",)
        page.route("**/v1/lengths", lambda route: route.abort("connectionrefused"))
        page.reload()
        expect(page.locator("#lost")).to_be_visible()
        page.unroute("**/v1/lengths")
        expect(page.locator("#results li").first).to_be_visible()
        expect(page.locator("#lost")).to_be_hidden()


def test_a_busy_service_is_asked_again(gallery: Gallery, browser: Browser) -> None:
    photograph = a_photograph()
    stop = threading.Event()
    seen: list[int] = []

    def flood(address: str) -> None:
        with httpx.Client(base_url=address, timeout=30) as client:
            while not stop.is_set():
                client.post("/v1/search", files={"image": photograph})

    with serving(settings_of(gallery, max_waiting=1)) as client:
        address = str(client.base_url).rstrip("/")
        with opened(browser, address) as (page, watch):
            watch.provoked = ("429",)
            choose(page, png(pixels_of(5)))
            searched(page)
            page.on("response", lambda response: note(response, seen))
            callers = [threading.Thread(target=flood, args=(address,)) for _ in range(4)]
            for caller in callers:
                caller.start()
            try:
                page.locator("#length").focus()
                for turn in range(200):
                    press(page, "ArrowRight" if turn % 2 == 0 else "ArrowLeft")
                    page.wait_for_timeout(20)
                    if 429 in seen:
                        break
            finally:
                stop.set()
                for caller in callers:
                    caller.join()
            assert 429 in seen
            press(page, "End", "ArrowLeft")
            expect(page.locator("#plan")).to_contain_text("first 4 of 12 numbers", timeout=10_000)
            expect(page.locator("#error")).to_be_hidden()


def note(response: Response, seen: list[int]) -> None:
    if "/v1/search" in response.url:
        seen.append(response.status)


def a_photograph() -> bytes:
    return encoded(Image.fromarray(noise(1500, 1500)), "JPEG", quality=90)
