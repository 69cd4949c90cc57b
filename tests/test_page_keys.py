"""The page where searching needs a key: it asks for one, and pictures come with it too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Browser, expect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.keys import load_or_create_key
from tests.pages import browser, choose, in_a_browser, opened, searched
from tests.service_builders import build_gallery, pixels_of, png, serving, settings_of

__all__ = ["browser"]
pytestmark = in_a_browser


def behind_a_key(app: ASGIApp, *, key: str) -> ASGIApp:
    """Everything of the API needs a key, as it does behind a proxy that guards it."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            given = dict(scope["headers"]).get(b"authorization", b"").decode()
            if given != f"Bearer {key}":
                await JSONResponse({"detail": "this needs a key"}, 401)(scope, receive, send)
                return
        await app(scope, receive, send)

    return guarded


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """An address, and the key that it needs."""
    gallery = build_gallery(tmp_path_factory.mktemp("keys"), count=40)
    key = load_or_create_key(settings_of(gallery).key_file)
    with serving(settings_of(gallery), behind=partial(behind_a_key, key=key)) as client:
        yield str(client.base_url).rstrip("/"), key


def test_where_searching_needs_a_key_the_page_asks_for_it(browser: Browser, guarded: tuple[str, str]) -> None:
    address, key = guarded
    with opened(browser, address) as (page, watch):
        watch.provoked = ("401",)
        expect(page.get_by_label("Searching needs a key here.")).to_be_visible()
        page.locator("#unlock-key").fill("wrong")
        page.locator("#unlock-key").press("Enter")
        expect(page.locator("#unlock-error")).to_have_text("This key is not accepted.")
        page.locator("#unlock-key").fill(key)
        page.locator("#unlock-key").press("Enter")
        expect(page.locator("#locked")).to_be_hidden()
        expect(page.locator("#error")).to_be_hidden()
        choose(page, png(pixels_of(5)))
        searched(page)
        first = page.locator("#results img").first
        expect(first).to_have_attribute("src", re.compile("^blob:"))
        expect(first).to_have_js_property("naturalWidth", 2)
        assert key not in page.url


def test_the_gallery_is_unlocked_by_its_own_form(browser: Browser, guarded: tuple[str, str]) -> None:
    address, key = guarded
    with opened(browser, address, view="/#gallery") as (page, watch):
        watch.provoked = ("401",)
        page.locator("#key").fill(key)
        page.locator("#key").press("Enter")
        expect(page.locator("#browse li").first).to_be_visible()
        expect(page.locator("#facts")).to_contain_text("40 images")
