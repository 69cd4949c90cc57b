"""Two to four lengths side by side on the page, and the chart of all plans."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.pages import choose, ids_of, in_a_browser, opened, press, searched
from tests.support.service import build_gallery, pixels_of, png, serving, settings_of

pytestmark = in_a_browser
K = 24


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(settings_of(build_gallery(tmp_path_factory.mktemp("compare"), count=300))) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture
def page(address: str, browser: Browser) -> Iterator[Page]:
    with opened(browser, address, view="/#compare?a=2&b=12") as (page, _):
        choose(page, png(pixels_of(5)))
        searched(page)
        expect(page.locator("#results-b .score").first).to_have_text("1.000")
        yield page


def moves(page: Page, side: str) -> list[str]:
    return [text.strip() for text in page.locator(f"#results-{side} .move > :first-child").all_text_contents()]


def expected(own: list[str], other: list[str], *, missing: str = "only here") -> list[str]:
    """What each card has to say of its rank in the list that it is compared with."""
    said = []
    for rank, id in enumerate(own):
        by = other.index(id) - rank if id in other else None
        said.append(missing if by is None else "=" if by == 0 else f"▲ {by}" if by > 0 else f"▼ {-by}")
    return said


def test_both_sides_say_what_appears_what_drops_and_where_ranks_move(page: Page) -> None:
    a, b = list(ids_of(page, "results-a")), list(ids_of(page, "results-b"))
    assert len(a) == len(b) == K
    assert moves(page, "a") == expected(a, b)
    assert moves(page, "b") == expected(b, a)
    both = len(set(a) & set(b))
    assert 0 < both < K
    expect(page.locator("#agreement")).to_contain_text(f"{both} of 24 images are on both sides")
    expect(page.locator("#agreement")).to_contain_text(f"{K - both} are found only with 2 numbers")


@pytest.mark.parametrize("size", [(390, 844), (1440, 900)])
def test_up_to_four_lengths_are_compared_with_the_last_by_keyboard(
    browser: Browser, address: str, size: tuple[int, int]
) -> None:
    viewport = {"width": size[0], "height": size[1]}
    with opened(browser, address, view="/#compare?a=2&b=12", viewport=viewport, reduced_motion="reduce") as (page, _):
        expect(page.locator("#results-b .score").first).to_be_visible()
        add = page.get_by_role("button", name="Add a length")
        add.press("Enter")
        expect(page.locator("#length-b")).to_be_focused()
        add.press("Enter")
        expect(add).to_be_hidden()
        expect(page.locator("#length-d-value")).to_have_text("12 numbers")
        expect(page.locator("#results-d li")).to_have_count(K)
        expect(page.locator("#agreement")).to_contain_text("4 lists")
        values = [page.locator(f"#length-{side}").input_value() for side in "abc"]
        assert values == sorted(values, key=int), "places on the slider, the shortest first"
        lists = {side: list(ids_of(page, f"results-{side}")) for side in "abcd"}
        for side in "abc":
            assert moves(page, side) == expected(lists[side], lists["d"], missing="not in 12")
        shared = sum(id in lists["b"] for id in lists["d"])
        expect(page.locator("#agreement")).to_contain_text(f"2 numbers find {shared}")
        # One rank is one row on every screen, with letters that can be read and nothing cut off.
        assert len({round(page.locator(f"#results-{side} li").first.bounding_box()["y"]) for side in "abcd"}) == 1  # type: ignore[index]
        cut = page.locator(".sides .move > :first-child:visible").evaluate_all(
            """all => all.filter((e) => parseFloat(getComputedStyle(e).fontSize) < 12
            || e.getBoundingClientRect().right > e.closest("li").getBoundingClientRect().right).length"""
        )
        assert cut == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.reload()
        expect(page.locator("#length-d-value")).to_have_text("12 numbers")
        middle = page.locator("#length-b-value").text_content() or ""
        page.get_by_role("button", name="Remove the second length").press("Enter")
        expect(page.locator("#agreement")).to_contain_text("3 lists")
        expect(page.locator("#length-c-value")).to_have_text("12 numbers")
        page.go_back()
        expect(page.locator("#length-b-value")).to_have_text(middle)
        page.get_by_role("button", name="Remove the fourth length").press("Enter")
        page.get_by_role("button", name="Remove the third length").press("Enter")
        expect(page.locator("#agreement")).to_contain_text("on both sides")
        expect(page.get_by_role("button", name="Remove the first length")).to_be_hidden()


def test_it_begins_with_a_short_length_and_the_full_one(browser: Browser, address: str) -> None:
    with opened(browser, address, view="/#compare") as (page, _):
        expect(page.locator("#length-a-value")).to_have_text("4 numbers")
        expect(page.locator("#length-b-value")).to_have_text("12 numbers")
        expect(page.locator("#agreement")).to_contain_text("on both sides")


def test_equal_lengths_agree(page: Page) -> None:
    page.locator("#length-a").focus()
    press(page, "End")
    expect(page.locator("#agreement")).to_contain_text("24 of 24 images are on both sides, 24 at the same rank")
    assert set(moves(page, "a")) == {"="}


def test_the_address_holds_both_lengths(page: Page) -> None:
    page.locator("#length-a").focus()
    press(page, "ArrowRight")
    expect(page).to_have_url(re.compile("a=4&b=12"))
    page.go_back()
    page.go_forward()
    expect(page.locator("#length-a-value")).to_have_text("4 numbers")


def test_an_image_lights_up_on_both_sides(page: Page) -> None:
    a, b = list(ids_of(page, "results-a")), list(ids_of(page, "results-b"))
    shared = next(id for id in a if id in b)
    page.locator("#results-a button.card").nth(a.index(shared)).focus()
    expect(page.locator("#results-b li").nth(b.index(shared))).to_have_class("lit")
    expect(page.locator("#results-b .lit")).to_have_count(1)


def outline(points: str | None) -> tuple[tuple[float, ...], ...]:
    """A polygon's corners without its place and its size; nothing for a circle."""
    if points is None:
        return ()
    corners = np.array([[float(x) for x in point.split(",")] for point in points.split()])
    corners -= corners.mean(axis=0)
    return tuple(map(tuple, (corners / np.abs(corners).max()).round(0).tolist()))


def test_the_chart_has_every_plan_and_marks_the_ones_in_use(page: Page, address: str) -> None:
    plans = page.request.get(f"{address}/v1/lengths").json()["plans"]
    marks = page.locator("#plans > svg .plan-mark")
    expect(marks).to_have_count(len(plans))
    expect(page.locator("#plans .now-name")).to_have_text(["first", "second"])
    shapes = {outline(mark.get_attribute("points")) for mark in marks.all()}
    assert len(shapes) == len({plan["length"] for plan in plans})  # told apart without colour
    page.locator("[data-view=compare] summary").click()
    expect(page.locator("#plans-table tbody tr")).to_have_count(len(plans))
    rows = page.locator("#plans-table tbody tr").all_text_contents()
    for units in (("ms", "µs"), ("%",), ("byte",)):
        assert all(any(f" {unit}" in row for unit in units) for row in rows)
    assert sum("first" in row for row in rows) == sum("second" in row for row in rows) == 1
    expect(page.locator("#plans")).to_contain_text("median time of a search")
