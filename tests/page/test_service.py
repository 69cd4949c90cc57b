"""The page when the service goes away, comes back, or is busy."""

from __future__ import annotations

import contextlib
import re
import threading

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from eigenlens.service.gallery.layout import Gallery
from tests.support.codes import encoded
from tests.support.pages import choose, free_port, in_a_browser, opened, press, searched
from tests.support.pictures import noise
from tests.support.service import gallery_fixture, pixels_of, png, serving, settings_of

pytestmark = in_a_browser


gallery = gallery_fixture(count=40)


def test_a_service_that_goes_and_comes_back(gallery: Gallery, browser: Browser) -> None:
    port = free_port()
    with contextlib.ExitStack() as later:
        with serving(settings_of(gallery), port=port):
            page, watch = later.enter_context(opened(browser, f"http://127.0.0.1:{port}"))
            watch.provoked = ("ERR_",)
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


def test_a_busy_service_is_asked_again_without_the_person(gallery: Gallery, browser: Browser) -> None:
    photograph = a_photograph()
    stop = threading.Event()

    def flood(address: str) -> None:
        with httpx.Client(base_url=address, timeout=30) as client:
            while not stop.is_set():
                client.post("/v1/search", files={"image": photograph})

    with (
        serving(settings_of(gallery, max_waiting=1)) as client,
        opened(browser, str(client.base_url).rstrip("/")) as (page, watch),
    ):
        watch.provoked = ("429",)
        choose(page, png(pixels_of(5)))
        searched(page)
        callers = [threading.Thread(target=flood, args=(watch.address,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        try:
            page.locator("#length").focus()
            refused = any(moved(page, "ArrowRight" if turn % 2 == 0 else "ArrowLeft") == 429 for turn in range(100))
        finally:
            stop.set()
            for caller in callers:
                caller.join()
        assert refused
        length = page.locator("#length-value").text_content() or ""
        wanted = "of the code" if length == "auto" else "first 2 of 12 numbers"
        expect(page.locator("#plan")).to_contain_text(wanted, timeout=10_000)
        expect(page.locator("#status")).to_contain_text("most similar", timeout=10_000)
        expect(page.locator("#error")).to_be_hidden()


def moved(page: Page, key: str) -> int:
    """Move the slider; the status of the first answer."""
    with page.expect_response(re.compile("/v1/search")) as answer:
        press(page, key)
    return answer.value.status


def a_photograph() -> bytes:
    return encoded(Image.fromarray(noise(1500, 1500)), "JPEG", quality=90)
