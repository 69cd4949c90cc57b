"""The map on the page: moved, zoomed and searched from, by pointer and by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.pages import in_a_browser, opened, press
from tests.support.service import build_gallery, serving, settings_of

pytestmark = in_a_browser
IMAGES = 40


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(settings_of(build_gallery(tmp_path_factory.mktemp("map"), count=IMAGES))) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture
def page(address: str, browser: Browser) -> Iterator[Page]:
    with opened(browser, address, view="/#map") as (page, _):
        expect(page.locator("#map-status")).to_contain_text(f"{IMAGES} images around here")
        yield page


def around(page: Page) -> int:
    told = re.match(r"(\d+) images?", page.locator("#map-status").text_content() or "")
    assert told is not None
    return int(told[1])


def painted(page: Page) -> int:
    """How many pixels of the map are not empty."""
    count: int = page.evaluate(
        """() => { const map = document.getElementById("map-canvas");
        const data = map.getContext("2d").getImageData(0, 0, map.width, map.height).data;
        let count = 0; for (let i = 3; i < data.length; i += 4) count += data[i] > 0; return count; }"""
    )
    return count


def test_the_whole_gallery_is_shown_with_the_query_in_a_ring(page: Page) -> None:
    expect(page.locator("#map-status")).to_contain_text("The ring is where the query falls")
    assert painted(page) > 20 * 50 * 50 / 4
    expect(page.locator("#map-near li")).to_have_count(12)


def test_it_is_moved_and_zoomed_by_keyboard_and_by_buttons(page: Page) -> None:
    page.locator("#map-canvas").focus()
    press(page, "+", "+", "+")
    expect(page.locator("#map-status")).not_to_contain_text(f"{IMAGES} images")
    closer = around(page)
    assert closer < IMAGES
    press(page, *["ArrowLeft"] * 30)
    expect(page.locator("#map-status")).to_contain_text("0 images around here")
    expect(page.locator("#map-status")).to_contain_text("falls outside of what is shown")
    press(page, "0")
    expect(page.locator("#map-status")).to_contain_text(f"{IMAGES} images")
    page.get_by_role("button", name="Come closer to the map").click(click_count=3)
    expect(page.locator("#map-status")).not_to_contain_text(f"{IMAGES} images")
    page.get_by_role("button", name="Show everything").click()
    expect(page.locator("#map-status")).to_contain_text(f"{IMAGES} images")


def test_it_is_dragged_and_zoomed_by_the_pointer_and_a_click_searches(page: Page) -> None:
    place = page.locator("#map-canvas").bounding_box()
    assert place is not None
    middle = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 4 * place["width"], middle[1], steps=8)
    page.mouse.up()
    expect(page.locator("#map-status")).to_contain_text("0 images around here")
    page.locator("#map-canvas").press("0")
    expect(page.locator("#map-status")).to_contain_text(f"{IMAGES} images")
    page.mouse.move(*middle)
    page.mouse.wheel(0, -480)
    expect(page.locator("#map-status")).not_to_contain_text(f"{IMAGES} images")


def test_a_click_on_an_image_searches_for_more_like_it(page: Page, address: str) -> None:
    place = page.locator("#map-canvas").bounding_box()
    assert place is not None
    whole = httpx.get(f"{address}/v1/map").json()
    image = whole["images"][0]
    x = place["x"] + place["width"] * (image["x"] - whole["left"]) / (whole["right"] - whole["left"])
    y = place["y"] + place["height"] * (whole["top"] - image["y"]) / (whole["top"] - whole["bottom"])
    page.mouse.click(x, y, button="right")  # of another button nothing happens
    asked = page.url
    assert unquote(asked).find(image["id"]) < 0
    page.mouse.click(x, y)
    page.wait_for_url(lambda url: url != asked)


def test_all_is_shown_whatever_is_still_loading(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/v1/map?*left=*", hold)
    page.locator("#map-canvas").focus()
    press(page, "+", "+", "+")
    expect(page.locator("#map-canvas")).to_be_focused()
    while not held:
        page.wait_for_timeout(20)
    press(page, "0")
    held[0].continue_()
    expect(page.locator("#map-status")).to_contain_text(f"{IMAGES} images around here")
    assert len(held) == 1


def test_other_axes_can_be_chosen_but_not_one_twice(page: Page) -> None:
    expect(page.locator("#map-x option:disabled")).to_have_text("2")
    before = painted(page)
    page.locator("#map-y").select_option("5")
    expect(page.locator("#map-x option:disabled")).to_have_text("5")
    expect(page.locator("#map-status")).to_contain_text(f"{IMAGES} images")
    assert painted(page) != before


@pytest.mark.parametrize("size", [(390, 844), (1440, 900)])
def test_it_fits_a_phone_and_a_desk(address: str, browser: Browser, size: tuple[int, int], tmp_path: Path) -> None:
    options = {"viewport": {"width": size[0], "height": size[1]}}
    with opened(browser, address, view="/#map", **options) as (page, _):
        expect(page.locator("#map-status")).to_contain_text(f"{IMAGES} images around here")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=tmp_path / "map.png")
