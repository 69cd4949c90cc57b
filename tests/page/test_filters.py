"""Filters on the page: added from the gallery's metadata, shown as words, kept in the address, taken away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.pages import in_a_browser, opened
from tests.support.service import build_gallery, serving, settings_of

pytestmark = in_a_browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(settings_of(build_gallery(tmp_path_factory.mktemp("filters"), count=40))) as client:
        yield str(client.base_url).rstrip("/")


def labels(page: Page) -> set[str]:
    return set(page.locator("#results .label").all_text_contents())


def test_a_filter_is_added_kept_in_the_address_and_removed_by_keyboard(address: str, browser: Browser) -> None:
    with opened(browser, address) as (page, _):
        expect(page.locator("#results li").first).to_be_visible()
        assert labels(page) == {"odd", "even"}
        page.get_by_role("button", name="Add a filter").press("Enter")
        expect(page.locator("#filter-field")).to_be_focused()
        expect(page.locator("#filter-values option")).to_have_count(2)
        page.locator("#filter-value").fill("odd")
        page.locator("#filter-value").press("Enter")
        expect(page.locator(".chips")).to_contain_text("label is odd")
        expect(page.locator("#status")).to_contain_text("there are no more")
        assert labels(page) == {"odd"}
        shared = page.url
        page.goto("about:blank")
        page.goto(shared)
        expect(page.locator(".chips")).to_contain_text("label is odd")
        page.get_by_role("button", name="Remove the filter").press("Enter")
        expect(page.locator(".chips li")).to_have_count(0)
        expect(page.locator("#status")).to_have_text("The 24 most similar images")


def test_a_filter_that_nothing_satisfies_says_so(address: str, browser: Browser) -> None:
    with opened(browser, address, view='/#search?filter={"label":"neither"}') as (page, _):
        expect(page.locator("#status")).to_have_text("No image satisfies the filter.")
        page.get_by_role("button", name="Remove the filter").click()
        expect(page.locator("#results li").first).to_be_visible()
