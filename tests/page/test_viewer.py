"""Looking at one image, and asking by several: the viewer, more and less like these, a part of the query, facets."""

from __future__ import annotations

import io
import json
import re
import sqlite3
from collections.abc import Iterator
from urllib.parse import parse_qs, quote

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.page.test_access import PHONE, serious
from tests.support.pages import choose, drop, ids_of, in_a_browser, opened, press, searched
from tests.support.service import build_gallery, image_id, pixels_of, png, serving, settings_of

pytestmark = in_a_browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    gallery = build_gallery(tmp_path_factory.mktemp("viewer"))
    with sqlite3.connect(gallery.root / "gallery.sqlite") as connection:
        connection.execute("UPDATE images SET metadata = json_set(metadata, '$.taken', '2026-05-03') WHERE key < 4")
    with serving(settings_of(gallery)) as client:
        photograph = Image.effect_noise((48, 24), 90).convert("RGB")
        exif = Image.Exif()
        exif[0x010F], exif[0x0132] = "Camera & Co.", "2026:05:03 14:12:09"
        buffer = io.BytesIO()
        photograph.save(buffer, "JPEG", exif=exif)
        key = {"Authorization": f"Bearer {(gallery.root / 'admin.key').read_text().strip()}"}
        for name, data in (("trips/wide.jpg", buffer.getvalue()), ("trips/again.jpg", buffer.getvalue())):
            client.put(f"/v1/images/{name}", content=data, headers=key | {"Content-Type": "image/jpeg"})
        yield str(client.base_url).rstrip("/")


@pytest.fixture
def page(address: str, browser: Browser) -> Iterator[Page]:
    with opened(browser, address, reduced_motion="reduce") as (page, _):
        choose(page, png(pixels_of(5)))
        searched(page)
        yield page


def asked(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(page.url.partition("?")[2]).items()}


def test_the_viewer_goes_through_the_results_by_key_and_tells_why_each_matched(page: Page) -> None:
    ids = ids_of(page)
    opener = page.get_by_role("button", name=f"About {ids[0]}", exact=True)
    opener.press("Enter")
    viewer = page.get_by_role("dialog")
    expect(viewer).to_contain_text("1 of ")
    expect(viewer.get_by_role("button", name="The image before")).to_be_disabled()
    press(page, "ArrowRight")
    expect(viewer.get_by_role("heading", name=ids[1].rpartition("/")[2])).to_be_visible()
    press(page, "+")
    expect(viewer.get_by_role("status")).to_have_text("150 %")
    expect(viewer.locator(".stage-area")).to_be_focused()  # for the arrows, which scroll it
    press(page, *"++++")
    around = viewer.locator(".stage-area").evaluate(
        "e => [e.scrollTop + e.clientHeight / 2, e.scrollHeight / 2, e.scrollHeight - e.clientHeight]"
    )
    assert around[2] > 0
    assert around[0] == pytest.approx(around[1], abs=2)
    assert not serious(page)
    viewer.locator(".stage-area").hover()
    page.mouse.down()
    box = viewer.locator(".stage-area").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 - 60, steps=3)
    page.mouse.up()
    dragged = viewer.locator(".stage-area").evaluate("e => e.scrollTop + e.clientHeight / 2")
    assert dragged == pytest.approx(around[0] + 60, abs=2)
    press(page, "0")
    viewer.get_by_role("button", name="The image before").click()
    expect(viewer.get_by_role("heading", name=ids[0].rpartition("/")[2])).to_be_visible()
    # That button is disabled now, and the keys still work.
    press(page, "ArrowRight")
    expect(viewer.get_by_role("heading", name=ids[1].rpartition("/")[2])).to_be_visible()
    viewer.get_by_text("Why did this match?").press("Enter")
    # The image's numbers and the query's, by hand: those whose products are largest are said to agree.
    expect(viewer.get_by_role("heading", name="They agree")).to_be_visible()
    expect(viewer.locator(".reasons li").first).to_contain_text("Number")
    expect(viewer.locator(".reasons img").first).to_have_js_property("complete", True)
    assert not serious(page)
    for _ in range(30):  # the focus stays within
        press(page, "Tab")
        focused = page.evaluate("() => [document.activeElement.tagName, !!document.activeElement.closest('dialog')]")
        assert focused[1] or focused[0] == "BODY"
    press(page, "Escape")
    expect(viewer).to_have_count(0)
    expect(opener).to_be_focused()


def test_the_viewer_tells_what_the_camera_wrote_and_makes_a_link_and_a_search(address: str, browser: Browser) -> None:
    with opened(browser, address, view="/#gallery", reduced_motion="reduce", **PHONE) as (page, _):
        page.locator("#browse-contains").fill("WIDE")
        expect(page.locator("#browse li")).to_have_count(1)
        expect(page.locator("#browse .label")).to_have_text("wide.jpg")
        page.get_by_role("button", name="About trips/wide.jpg").click()
        viewer = page.get_by_role("dialog")
        expect(viewer).to_contain_text("48 × 24 pixels")
        expect(viewer).to_contain_text("Camera & Co.")
        expect(viewer).to_contain_text("2026-05-03T14:12:09")
        expect(viewer.get_by_text("taken", exact=True)).to_have_count(1)  # it is in the metadata too
        with page.expect_download() as downloaded:
            viewer.get_by_role("button", name="Download").click()
        assert downloaded.value.suggested_filename == "wide.jpg"
        assert not serious(page)
        viewer.get_by_role("button", name="Search from this").click()
        searched(page, "wide.jpg")
        assert asked(page)["id"] == "trips/wide.jpg"


def test_the_gallery_is_sorted_by_date_and_tells_dates(address: str, browser: Browser) -> None:
    with opened(browser, address, view="/#gallery") as (page, _):
        page.locator("#browse-order").select_option("newest")
        expect(page.locator("#browse .label").first).to_have_text("again.jpg")
        page.locator("#browse-prefix").fill(image_id(0))
        expect(page.locator("#browse li")).to_have_count(1)
        expect(page.locator("#browse .date")).to_contain_text("2026")


def test_copies_are_one_result_with_a_count(address: str, browser: Browser) -> None:
    with opened(browser, address, view="/#search?id=even/0000.png&length=12") as (page, _):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.post_data or ""))
        expect(page.locator("#results li").first).to_be_visible()
        for _ in range(200):
            page.mouse.wheel(0, 4000)
            copies = {"trips/wide.jpg", "trips/again.jpg"} & set(ids_of(page))
            if copies and "there are no more" in (page.locator("#status").text_content() or ""):
                break
            page.wait_for_timeout(50)
        assert len(copies) == 1
        expect(page.locator("#results .copies:visible")).to_have_text("+ 1")
        # A search that groups looks deeper, by a plan of which nothing was measured for the reader to see.
        assert not any("group_duplicates" in body for body in asked)


def test_more_and_less_like_these_are_a_search_that_its_address_holds(page: Page, address: str) -> None:
    first, second = ids_of(page)[3], ids_of(page)[5]
    page.locator("#results button.card").nth(3).press("+")
    page.get_by_role("button", name=f"Less like {second}", exact=True).click()
    expect(page.locator("#asked")).to_have_text("More like 2 images, less like 1 image")
    expect(page.locator("#examples li")).to_have_count(3)
    expect(page.locator("#results")).not_to_contain_text(second.rpartition("/")[2])
    body = {
        "positive": [{"image": None, "code": (pixels_of(5).reshape(-1).astype(float) - 127.5).tolist()}, {"id": first}],
        "negative": [{"id": second}],
        "k": 24,
        "group_duplicates": 1,
    }
    expected = [result["id"] for result in page.request.post(f"{address}/v1/search", data=body).json()["results"]]
    expect(page.locator("#results .name").first).to_have_text(expected[0].rpartition("/")[2])
    assert list(ids_of(page))[:10] == expected[:10]
    like = json.loads(asked(page)["like"])
    assert [list(example) for example in like] == [["code"], ["id"]]
    page.reload()  # the photograph is known by its code now
    expect(page.locator("#examples li")).to_have_count(3)
    expect(page.locator("#results .name").first).to_have_text(expected[0].rpartition("/")[2])
    assert not serious(page)
    page.get_by_role("button", name="Remove: Less like").click()
    expect(page.locator("#asked")).to_have_text("More like 2 images")
    page.go_back()
    expect(page.locator("#asked")).to_have_text("More like 2 images, less like 1 image")


def test_several_photographs_are_one_search(page: Page) -> None:
    drop(page, "#drop", [(f"{seed}.png", png(pixels_of(seed)), "image/png") for seed in (11, 12)])
    expect(page.locator("#asked")).to_have_text("More like 2 images")
    expect(page.locator("#examples img")).to_have_count(2)
    first = page.locator("#results button.card").first  # as soon as the results are those of both
    expect(first).to_have_attribute("title", re.compile(f"{re.escape(image_id(11))}|{re.escape(image_id(12))}"))


def test_a_part_of_the_query_is_searched_by_keyboard(page: Page) -> None:
    wide = Image.new("RGB", (20, 10), "red")
    wide.paste(Image.new("RGB", (10, 10), "blue"), (10, 0))
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    choose(page, buffer.getvalue(), "halves.png")
    searched(page, "halves.png")
    page.locator("#crop").press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".crop-area")).to_be_focused()
    press(page, *["ArrowLeft"] * 5, *["Shift+ArrowLeft"] * 18)
    expect(dialog).to_contain_text("44 % of the width")
    assert not serious(page)
    press(page, "Enter")
    searched(page, "part of halves.png")
    expect(page.locator("#query")).to_have_js_property("naturalWidth", 9)


def test_on_a_phone_a_part_is_asked_for_and_more_and_less_like_by_keys_alone(browser: Browser, address: str) -> None:
    with opened(browser, address, reduced_motion="reduce", **PHONE) as (page, _):
        choose(page, png(pixels_of(5)))
        searched(page)
        first, second = page.locator("#results button.card").nth(1), page.locator("#results button.card").nth(2)
        first.focus()
        press(page, "+")
        expect(page.locator("#examples li")).to_have_count(2)
        second.focus()
        press(page, "-")
        expect(page.locator("#asked")).to_have_text("More like 2 images, less like 1 image")
        assert page.locator(".askbar").evaluate("e => e.offsetHeight") <= 120, "query and slider are one low bar"
        press(page, "c")  # several pictures have no part of their own
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.go_back()
        page.go_back()
        searched(page)
        press(page, "c")
        expect(page.locator(".crop-area")).to_be_focused()
        press(page, "Enter")
        searched(page, "part of query.png")
        press(page, "6")
        expect(page).to_have_url(re.compile("#duplicates"))


def test_a_card_is_dragged_onto_the_query_and_a_link_is_not_followed(page: Page, address: str) -> None:
    given = """([type, data]) => {
        const transfer = new DataTransfer();
        transfer.setData(type, data);
        return transfer;
    }"""

    def dropped(type: str, data: str) -> None:
        transfer = page.evaluate_handle(given, [type, data])
        page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})

    dropped("text/uri-list", "http://elsewhere.example/shoe.jpg")
    expect(page.locator("#hint")).to_contain_text("The service fetches nothing from other addresses")
    expect(page.locator("#asked")).to_have_text("query.png")
    target = image_id(8)
    dropped("text/uri-list", f"{address}/v1/images/{target}/thumbnail?v=1")
    expect(page).to_have_url(re.compile(re.escape(quote(target, safe=""))))
    picture = page.locator("#results button.card img").nth(2)
    dragged = ids_of(page)[2]
    picture.drag_to(page.locator("#drop"))
    expect(page).to_have_url(re.compile(re.escape(quote(dragged, safe=""))))


def test_facets_narrow_the_search_down(page: Page) -> None:
    page.get_by_text("Narrow it down").press("Enter")
    odd = page.locator(".facet-value", has_text="odd")
    expect(odd).to_have_text("odd 20")
    odd.press("Enter")
    expect(page.locator(".chips")).to_contain_text("label is odd")
    expect(odd).to_have_attribute("aria-pressed", "true")
    expect(odd).to_be_focused()
    expect(page.locator("#results .label", has_text="even")).to_have_count(0)
    odd.press("Enter")
    expect(page.locator(".chips li")).to_have_count(0)
