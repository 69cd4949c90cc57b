"""The page for everyone: no serious finding of axe-core, everything by keyboard, light and fast, cached pictures."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.http.app import PAGE
from tests.support.pages import choose, in_a_browser, opened, press, searched
from tests.support.service import client_fixture, gallery_fixture, pixels_of, png

pytestmark = in_a_browser
VIEWS = ("search", "compare", "map", "eigenfunctions", "gallery", "duplicates")
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
DESKTOP: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}
_EVASIONS = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\son\w+=\"|<style|style=\"")
MOST_BYTES = 250_000
# Modules live in folders below the page.
FILES = sorted(path for path in PAGE.rglob("*") if path.is_file())
MOST_PAINT_MS = 1000


gallery = gallery_fixture(count=60)
client = client_fixture()


@pytest.fixture(scope="module")
def address(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


def serious(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical."""
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(Axe().axe_script)
    # What passes is as long as the page, and would only be sent here.
    violations = page.evaluate("() => axe.run({ resultTypes: ['violations'] }).then((results) => results.violations)")
    return [
        f"{violation['id']}: {node['html']} {node.get('failureSummary')}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_axe_finds_nothing_serious_in_any_view(
    browser: Browser, address: str, gallery: Gallery, scheme: str, device: dict[str, Any]
) -> None:
    with opened(browser, address, color_scheme=scheme, reduced_motion="reduce", **device) as (page, _):
        choose(page, png(pixels_of(5)))
        searched(page)
        for view in VIEWS:
            page.locator(f"nav [data-view={view}]").click()
            expect(page.locator("#title")).to_be_attached()
            if view == "gallery":
                page.locator("#key").fill((gallery.root / "admin.key").read_text().strip())
                page.locator("#key").press("Enter")
                expect(page.locator("#generations tbody tr")).to_have_count(1)
            if view == "duplicates":
                expect(page.locator("#duplicates-status")).not_to_be_empty()
            else:
                expect(page.locator(f"main [data-view={view}] li").first).to_be_visible()
            assert serious(page) == []
            if device is DESKTOP:
                page.set_viewport_size({"width": 2560, "height": 1300})
                assert serious(page) == []
                page.set_viewport_size(device["viewport"])


def test_axe_sees_a_fault(browser: Browser, address: str) -> None:
    """Were the audit blind, the one above would always pass."""
    with opened(browser, address) as (page, _):
        expect(page.locator("#samples img")).to_have_count(12)
        page.evaluate("() => document.querySelector('#samples img').removeAttribute('alt')")
        assert any("alt" in finding for finding in serious(page))


@pytest.mark.parametrize("device", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_no_view_scrolls_sideways(browser: Browser, address: str, device: dict[str, Any]) -> None:
    with opened(browser, address, **device) as (page, _):
        for view in VIEWS:
            page.locator(f"nav [data-view={view}]").click()
            page.wait_for_load_state("networkidle")
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_everything_is_reached_and_done_by_keyboard(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        expect(page.locator("#results li").first).to_be_visible()
        tab_to(page, "a.skip")
        press(page, "Enter")
        expect(page.locator("#main")).to_be_focused()
        tab_to(page, "#results button.card")
        press(page, "Enter")
        expect(page).to_have_url(re.compile("id="))
        page.locator("body").focus()
        tab_to(page, "nav [data-view=compare]")
        press(page, "Enter")
        expect(page.locator("#agreement")).to_contain_text("on both sides")
        tab_to(page, "#length-b")
        press(page, "Home")
        expect(page.locator("#length-b-value")).to_have_text("auto")
        tab_to(page, "[data-view=compare] summary")
        press(page, "Enter")
        expect(page.locator("#plans-table")).to_be_visible()


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is on the first such element; it has to be seen there."""
    for _ in range(150):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            """selector => document.activeElement === document.querySelector(selector)
            ? getComputedStyle(document.activeElement).outlineStyle : null""",
            selector,
        )
        if outline is not None:
            assert outline != "none"
            return
    raise AssertionError(f"Tab does not reach {selector}")


def test_the_status_is_told_to_screen_readers(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        expect(page.get_by_role("status").filter(has_text="most similar")).to_be_visible()
        slider = page.get_by_role("slider", name="Code length")
        slider.focus()
        press(page, "ArrowRight")
        expect(slider).to_have_attribute("aria-valuetext", "2 numbers")
        page.get_by_text("Details", exact=True).press("Enter")
        expect(page.get_by_role("img", name="The query's code")).to_be_visible()


def test_the_page_is_light(client: httpx.Client) -> None:
    """Everything that the page is made of, counted as it is sent."""
    total = 0
    for path in FILES:
        answer = client.get("/" if path.name == "index.html" else f"/{path.relative_to(PAGE)}")
        assert answer.status_code == 200
        total += len(answer.content)
    assert total < MOST_BYTES


def test_the_pages_files_are_kept_but_asked_about(client: httpx.Client) -> None:
    for path in ("/", "/app.js", "/style.css"):
        answer = client.get(path)
        assert answer.headers["cache-control"] == "no-cache"
        again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        assert again.headers["cache-control"] == "no-cache"


@pytest.mark.timing
def test_it_paints_within_a_second(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        expect(page.locator("#results li").first).to_be_visible()
        paint = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Infinity")
        assert paint < MOST_PAINT_MS


def test_what_was_loaded_counts_below_the_limit_and_comes_from_the_service(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        page.wait_for_load_state("networkidle")
        loaded = page.evaluate(
            "() => performance.getEntriesByType('resource').filter(e => !/thumbnail|v1/.test(e.name))"
            ".map(e => [e.name, e.encodedBodySize])"
        )
        assert {name.split("?")[0].removeprefix(address).lstrip("/") for name, _ in loaded} == {
            path.relative_to(PAGE).as_posix()
            for path in FILES
            if path.suffix != ".html" and path.stem != "reference"  # that is the page of the API
        }
        assert sum(size for _, size in loaded) < MOST_BYTES


def test_thumbnails_are_sized_lazy_and_cached(browser: Browser, address: str, client: httpx.Client) -> None:
    with opened(browser, address) as (page, _):
        expect(page.locator("#results img").first).to_be_visible()
        for image in page.locator("#results img").all()[:5]:
            assert (image.get_attribute("width"), image.get_attribute("height")) == ("192", "192")
            assert image.get_attribute("loading") == "lazy"
        source = page.locator("#results img").first.get_attribute("src") or ""
        assert "immutable" in client.get(source).headers["cache-control"]
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/thumbnail" in request.url else None)
        first = page.locator("#samples button").first.get_attribute("title")
        page.locator("#samples button").nth(4).click()
        expect(page).to_have_url(re.compile("id="))
        page.go_back()
        expect(page.locator("#samples button").first).to_have_attribute("title", first or "")
        page.wait_for_load_state("networkidle")
        assert len(asked) == len(set(asked))


def test_nothing_of_the_page_names_another_host_or_evades_its_policy(client: httpx.Client) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    for path in FILES:
        text = path.read_text()
        assert not re.findall(r"https?://(?!www\.w3\.org/)", text), path.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\son\w+=\"|<style|style=\"", text
        ), path.name
