"""The map on the page: moved, zoomed and searched from, by pointer and by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.pages import ids_of, in_a_browser, opened, press
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


def pixel_counts(page: Page) -> dict[str, int]:
    """How many pixels of the map have each colour."""
    counts: dict[str, int] = page.evaluate(
        """() => { const map = document.getElementById("map-canvas"), counts = {};
        const data = map.getContext("2d").getImageData(0, 0, map.width, map.height).data;
        for (let i = 0; i < data.length; i += 4) { const rgb = data.slice(i, i + 3).join(" ");
            counts[rgb] = (counts[rgb] ?? 0) + 1; } return counts; }"""
    )
    return counts


def test_the_whole_gallery_is_shown_with_the_query_pinned_and_its_results_framed(page: Page) -> None:
    expect(page.locator("#map-status")).to_contain_text("The pin is where your picture falls")
    assert painted(page) > 20 * 50 * 50 / 4
    expect(page.locator("#map-near li").nth(3)).to_be_visible()
    warm = "168 72 11"  # of the light colours; the pin and a dozen frames of 3 pixels
    deadline = 50
    while pixel_counts(page).get(warm, 0) < 72 * 72 - 64 * 64 + 4 * 3 * 40 and deadline:
        page.wait_for_timeout(100)
        deadline -= 1
    assert deadline


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

    released = False

    def hold(route: Route) -> None:
        if released:
            route.continue_()
        else:
            held.append(route)

    page.route("**/v1/map?*left=*", hold)
    page.locator("#map-canvas").focus()
    press(page, "+", "+", "+")
    expect(page.locator("#map-canvas")).to_be_focused()
    while not held:
        page.wait_for_timeout(20)
    press(page, "0")
    released = True
    for route in held:
        route.continue_()
    expect(page.locator("#map-status")).to_contain_text(f"{IMAGES} images around here")


def test_other_axes_can_be_chosen_but_not_one_twice(page: Page) -> None:
    expect(page.locator("#map-x option:disabled")).to_have_text("eigenfunction 2")
    before = painted(page)
    page.locator("#map-y").select_option("5")
    expect(page.locator("#map-x option:disabled")).to_have_text("eigenfunction 5")
    expect(page).to_have_url(re.compile("axes=1%2C5"))
    expect(page.locator("#map-status")).to_contain_text(f"{IMAGES} images")
    assert painted(page) != before


def test_a_box_is_searched_linked_to_and_saved_as_a_table(page: Page, address: str) -> None:
    place = page.locator("#map-canvas").bounding_box()
    assert place is not None
    page.keyboard.down("Shift")
    page.mouse.move(place["x"] + 0.5 * place["width"], place["y"] + 2)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] - 2, place["y"] + place["height"] - 2, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    panel = page.locator("#map-box")
    expect(panel).to_contain_text("in the box")
    expect(page).to_have_url(re.compile("box="))
    box = dict(
        zip(
            ("left", "right", "bottom", "top"), unquote(page.url).split("box=")[1].split("&")[0].split(","), strict=True
        )
    )
    rows = httpx.get(f"{address}/v1/map/images", params=box).text.splitlines()
    assert 0 < len(rows) - 1 < IMAGES
    expect(panel).to_contain_text(f"{len(rows) - 1} image")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save their names").click()
    assert Path(saved.value.path()).read_text().splitlines() == rows
    page.reload()  # the link brings the box back
    expect(panel).to_contain_text(f"{len(rows) - 1} image")
    page.get_by_role("button", name="Search only these").click()
    expect(page.locator("#filters")).to_contain_text("in the box on the map")
    inside = {row.split(",")[0] for row in rows[1:]}
    expect(page.locator("#status")).to_contain_text("there are no more")
    assert inside - set(ids_of(page)) <= {
        (page.url.split("id=")[1].split("&")[0]).replace("%2F", "/").replace("+", " ")
    }
    assert set(ids_of(page)) <= inside


def test_a_shape_drawn_around_images_is_searched_linked_to_and_saved_as_a_table(page: Page, address: str) -> None:
    place = page.locator("#map-canvas").bounding_box()
    assert place is not None
    corners = [(0.3, 0.02), (0.98, 0.5), (0.3, 0.98)]  # a triangle, shares of the canvas from its left and its top
    page.get_by_role("button", name="Draw a shape").click()
    path = [(place["x"] + x * place["width"], place["y"] + y * place["height"]) for x, y in corners]
    page.mouse.move(*path[0])
    page.mouse.down()
    for corner in path[1:]:
        page.mouse.move(*corner, steps=10)
    page.mouse.up()
    panel = page.locator("#map-box")
    whole = httpx.get(f"{address}/v1/map", params={"columns": 1, "rows": 1, "parts": 1}).json()
    rows = httpx.get(f"{address}/v1/map/images").text.splitlines()[1:]
    inside, near = set(), set()
    for row in rows:
        id, across, up = row.rsplit(",", 2)
        x = (float(across) - whole["left"]) / (whole["right"] - whole["left"])
        y = (whole["top"] - float(up)) / (whole["top"] - whole["bottom"])
        half = (x - 0.3) / 0.68 * 0.48  # at x the triangle reaches from half below 0.02 to half above 0.98
        if x >= 0.3 and 0.02 + half <= y <= 0.98 - half:
            inside.add(id)
        if min(abs(x - 0.3), abs(y - 0.02 - half), abs(y - 0.98 + half)) < 0.06:
            near.add(id)  # the shape is of strips: at its edges a little may be in or out
    expect(panel).to_contain_text(re.compile(r"\d+ images? in the shape"))
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save their names").click()
    listed = {line.rsplit(",", 2)[0] for line in Path(saved.value.path()).read_text().splitlines()[1:]}
    assert listed - near == inside - near
    assert inside - near
    assert {row.rsplit(",", 2)[0] for row in rows} - inside - near
    expect(panel).to_contain_text(f"{len(listed)} image")
    page.reload()  # the link brings the shape back
    expect(panel).to_contain_text(f"{len(listed)} image")
    page.get_by_role("button", name="Search only these").click()
    expect(page.locator("#filters")).to_contain_text("in the shape on the map")
    expect(page.locator("#status")).to_contain_text("there are no more")
    query = (page.url.split("id=")[1].split("&")[0]).replace("%2F", "/").replace("+", " ")
    assert set(ids_of(page)) == listed - {query}
    page.get_by_role("button", name="Remove the filter: in the shape").click()
    expect(page.locator("#filters li")).to_have_count(0)


def test_everything_on_the_map_is_done_by_keyboard_and_heard(page: Page) -> None:
    page.get_by_role("button", name="Mark what is shown").press("Enter")
    expect(page.locator("#map-box")).to_contain_text(f"{IMAGES} images in the box")
    page.locator("#map-canvas").focus()
    for _ in range(6):  # beyond the box's buttons
        press(page, "Tab")
        if page.evaluate("document.activeElement.closest('#map-near') !== null"):
            break
    first = page.locator("#map-near button.card").first
    expect(first).to_be_focused()
    accent = "63 79 181"
    before = pixel_counts(page).get(accent, 0)
    press(page, "Tab", "Tab")  # beyond the button that shows the first in full
    expect(page.locator("#map-near button.card").nth(1)).to_be_focused()
    page.wait_for_timeout(200)
    assert before > 100  # the picture is framed on the map while it has the focus
    name = page.locator("#map-near button.card").nth(1).get_attribute("title") or ""
    press(page, "Enter")
    expect(page.locator("#asked")).to_have_text(re.compile(re.escape(name.splitlines()[0].rsplit("/", 1)[-1])))
    expect(page.get_by_role("status").filter(has_text="around here")).to_be_visible()


def test_parts_and_pictures_have_the_colour_of_a_field(page: Page) -> None:
    colours = page.locator("#map-colour")
    expect(colours).to_have_value("label")
    expect(page.locator("#map-legend li")).not_to_have_count(0)
    named = {entry["value"] for entry in httpx.get(page.url.split("#")[0] + "v1/map?colour=label").json()["legend"]}
    assert {text.rsplit(" ", 1)[0] for text in page.locator("#map-legend li").all_text_contents()} == named
    painted_colours = pixel_counts(page)
    assert painted_colours.get("78 121 199", 0) > 50
    colours.select_option("none")
    expect(page.locator("#map-legend li")).to_have_count(0)
    expect(page).to_have_url(re.compile("colour=none"))


@pytest.mark.parametrize("size", [(390, 844), (1440, 900)])
def test_it_fits_a_phone_and_a_desk(address: str, browser: Browser, size: tuple[int, int], tmp_path: Path) -> None:
    options = {"viewport": {"width": size[0], "height": size[1]}}
    with opened(browser, address, view="/#map", **options) as (page, _):
        expect(page.locator("#map-status")).to_contain_text(f"{IMAGES} images around here")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=tmp_path / "map.png")
