"""The page where searching needs a key: it asks for one, and pictures come with it too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from eigenlens.service.keys import Key, add_key, revoke_key
from tests.support.pages import choose, drop, in_a_browser, opened, searched
from tests.support.service import build_gallery, pixels_of, png, serving, settings_of, wait_for

pytestmark = in_a_browser
Guarded = tuple[str, dict[str, str]]  # address; a key of each kind, and the file of the keys


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A service that wants a key for searching."""
    gallery = build_gallery(tmp_path_factory.mktemp("keys"), count=40)
    settings = settings_of(gallery, search_needs_key=True)
    with serving(settings) as client:
        keys = {"admin": settings.key_file.read_text().strip(), "file": str(settings.keys_path)}
        address = str(client.base_url).rstrip("/")
        for name, scopes in (("search", ["search"]), ("write", ["search", "write"])):
            keys[name] = noticed_key(settings.keys_path, address, name=name, scopes=scopes)[1]
        yield address, keys


def noticed_key(path: Path, address: str, *, name: str, scopes: list[str]) -> tuple[Key, str]:
    """A new key that the service knows already: it takes a second to notice."""
    made, secret = add_key(path, name=name, scopes=scopes)
    bearer = {"Authorization": f"Bearer {secret}"}
    wait_for(lambda: httpx.get(f"{address}/v1/lengths", headers=bearer).status_code == 200)
    return made, secret


def sign_in(page: Page, key: str) -> None:
    page.locator("#key").fill(key)
    page.locator("#key").press("Enter")


def test_where_searching_needs_a_key_the_page_asks_for_it(browser: Browser, guarded: Guarded) -> None:
    address, keys = guarded
    with opened(browser, address) as (page, watch):
        watch.provoked = ("401",)
        expect(page.get_by_label("Searching needs a key here.")).to_be_visible()
        page.locator("#unlock-key").fill("wrong")
        page.locator("#unlock-key").press("Enter")
        expect(page.locator("#unlock-error")).to_have_text("This key is not accepted.")
        page.locator("#unlock-key").fill(keys["search"])
        page.locator("#unlock-key").press("Enter")
        expect(page.locator("#locked")).to_be_hidden()
        expect(page.locator("#error")).to_be_hidden()
        choose(page, png(pixels_of(5)))
        searched(page)
        first = page.locator("#results img").first
        expect(first).to_have_attribute("src", re.compile("^blob:"))
        expect(first).to_have_js_property("naturalWidth", 2)
        assert keys["search"] not in page.url


def test_the_gallery_is_unlocked_by_its_own_form(browser: Browser, guarded: Guarded) -> None:
    address, keys = guarded
    with opened(browser, address, view="/#gallery") as (page, watch):
        watch.provoked = ("401",)
        sign_in(page, keys["admin"])
        expect(page.locator("#browse li").first).to_be_visible()
        expect(page.locator("#facts")).to_contain_text("40 images")


@pytest.mark.parametrize("scope", ["search", "write"])
def test_a_key_without_admin_rights_shows_no_administration(browser: Browser, guarded: Guarded, scope: str) -> None:
    """It looks at the gallery; with the scope write it also adds and deletes, without it the page says why not."""
    address, keys = guarded
    with opened(browser, address, view="/#gallery") as (page, watch):
        watch.provoked = ("401", "403")
        sign_in(page, keys[scope])
        expect(page.locator("#key-panel")).to_contain_text("it is not for administration")
        expect(page.locator("#browse li").first).to_be_visible()
        expect(page.locator("#glance")).to_have_count(0)
        expect(page.get_by_role("button", name="Rebuild", exact=True)).to_have_count(0)
        drop(page, "#add-drop", [("mine.png", png(pixels_of(2000)), "image/png")])
        outcome = page.locator("#add-outcomes li")
        if scope == "write":
            expect(outcome).to_contain_text("added")
            page.locator("#browse-prefix").fill("mine")
            expect(page.locator("#browse li")).to_have_count(1)
            delete = page.get_by_role("button", name="Delete").first
            delete.click()
            delete.click()
            expect(page.locator("#browse-status")).to_contain_text("was deleted")
        else:
            expect(outcome.locator(".bad")).to_contain_text("write")
            delete = page.get_by_role("button", name="Delete").first
            delete.click()
            delete.click()
            expect(page.locator("#browse-status")).to_contain_text("write")
            expect(page.locator("#browse li").first).to_be_visible()


def test_a_key_that_is_revoked_during_a_visit_is_asked_for_again(browser: Browser, guarded: Guarded) -> None:
    address, keys = guarded
    made, secret = noticed_key(Path(keys["file"]), address, name="visitor", scopes=["search"])
    with opened(browser, address) as (page, watch):
        watch.provoked = ("401",)
        page.locator("#unlock-key").fill(secret)
        page.locator("#unlock-key").press("Enter")
        expect(page.locator("#locked")).to_be_hidden()
        revoke_key(Path(keys["file"]), made.id)
        bearer = {"Authorization": f"Bearer {secret}"}
        wait_for(lambda: page.request.get(f"{address}/v1/lengths", headers=bearer).status == 401)
        choose(page, png(pixels_of(6)))
        expect(page.locator("#locked")).to_be_visible()
        page.locator("#unlock-key").fill(keys["search"])
        page.locator("#unlock-key").press("Enter")
        expect(page.locator("#locked")).to_be_hidden()
