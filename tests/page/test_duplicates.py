"""The view of duplicates: looked for with the key, one kept, the others removed when it is left, and undone before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from eigenlens.service.gallery.layout import Gallery
from tests.page.test_access import serious
from tests.support.pages import Watch, in_a_browser, opened
from tests.support.service import admin_headers, build_gallery, pixels_of, png, serving, settings_of

pytestmark = in_a_browser


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return build_gallery(tmp_path)


@pytest.fixture
def watched(gallery: Gallery, browser: Browser) -> Iterator[tuple[Page, Watch]]:
    with serving(settings_of(gallery)) as client:
        for name in ("copies/one.png", "copies/two.png", "copies/three.png"):
            headers = admin_headers(gallery) | {"Content-Type": "image/png"}
            added = client.put(f"/v1/images/{name}", content=png(pixels_of(900)), headers=headers)
            assert added.status_code == 201
        with opened(browser, str(client.base_url).rstrip("/"), view="/#duplicates") as (page, watch):
            watch.provoked = ("401",)
            yield page, watch


def test_an_accepted_key_takes_the_focus_from_nobody_who_moved_on(
    watched: tuple[Page, Watch], gallery: Gallery
) -> None:
    page, _ = watched
    page.evaluate("""() => {
        const real = window.fetch;
        window.fetch = async (...what) => {
            if (String(what[0]).includes("/admin/generations")) await new Promise((go) => { window.accept = go; });
            return real(...what);
        };
    }""")
    page.locator("#duplicates-key").fill(admin_headers(gallery)["Authorization"].removeprefix("Bearer "))
    page.locator("#duplicates-key").press("Enter")
    look = page.get_by_role("button", name="Look for duplicates")
    look.focus()
    page.evaluate("window.accept()")
    expect(page.locator("#duplicates-key")).to_have_value("")
    expect(look).to_be_focused()


def test_copies_are_found_one_is_kept_and_the_others_are_removed(watched: tuple[Page, Watch], gallery: Gallery) -> None:
    page, _ = watched
    expect(page.locator("#duplicates-status")).to_have_text("Nobody has looked for duplicates in this gallery yet.")
    expect(page.get_by_role("button", name="Look for duplicates")).to_be_hidden()
    page.locator("#duplicates-key").fill("wrong")
    page.locator("#duplicates-key").press("Enter")
    expect(page.locator("#duplicates-key-error")).to_have_text("This key is not accepted.")
    page.locator("#duplicates-key").fill(admin_headers(gallery)["Authorization"].removeprefix("Bearer "))
    page.locator("#duplicates-key").press("Enter")
    page.locator("#duplicates-cosine").select_option("1")
    page.get_by_role("button", name="Look for duplicates").press("Enter")
    groups = page.locator("#duplicate-groups > li")
    expect(groups).to_have_count(1, timeout=60_000)
    expect(groups).to_contain_text("3 images, the same file")
    expect(groups.locator(".alike li")).to_have_count(3)
    assert not serious(page)

    groups.get_by_role("radio").first.focus()
    page.keyboard.press("ArrowDown")  # another one is kept
    kept = groups.get_by_role("radio", checked=True).get_attribute("value")
    groups.get_by_role("button", name="Remove the other 2").press("Enter")
    expect(page.locator(".marked")).to_contain_text("2 images will be removed when you leave this view.")
    expect(groups.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".marked")).to_be_hidden()
    assert gallery.store.count() == 43
    groups.get_by_role("button", name="Remove the other 2").press("Enter")
    page.locator("nav [data-view=gallery]").click()
    expect(page.locator("#facts")).to_contain_text("41 images")
    expect(page.locator("#key-panel")).to_contain_text("The key is in use.")
    expect(page.locator("#generations tbody tr")).to_have_count(1)
    left = {record.id for record in gallery.store.page(100, prefix="copies/")}
    assert left == {kept}
