"""Searching on the page as a person does: choose, drop, paste or take an image, move the slider, filter, scroll."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from eigenlens.index.faiss_engine.graph.vamana import VAMANA
from eigenlens.index.faiss_engine.kinds import KINDS as FAISS_KINDS
from eigenlens.index.pgvector_engine.kinds import KINDS as PGVECTOR_KINDS
from eigenlens.index.qdrant_engine.kinds import KINDS as QDRANT_KINDS
from eigenlens.service.gallery.layout import Gallery
from tests.support import oracles
from tests.support.codes import encoded
from tests.support.pages import choose, drop, ids_of, in_a_browser, opened, press, searched
from tests.support.service import build_gallery, code_of, database_of, image_id, pixels_of, png, serving, settings_of

pytestmark = in_a_browser
HOSTILE = "<img src=x onerror=alert(1)>"
IMAGES = 120


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    gallery = build_gallery(tmp_path_factory.mktemp("page"), count=IMAGES)
    hostile(gallery)
    with serving(settings_of(gallery)) as client:
        yield str(client.base_url).rstrip("/")


def hostile(gallery: Gallery) -> None:
    """A label that would run a script, were it not text."""
    with database_of(gallery).transaction() as connection:
        connection.execute("UPDATE images SET metadata = ?", (json.dumps({"label": HOSTILE}),))


@pytest.fixture
def page(address: str, browser: Browser) -> Iterator[Page]:
    with opened(browser, address) as (page, watch):
        watch.provoked = ("415", "404")
        yield page


def test_a_photograph_is_searched_at_the_length_of_the_slider(page: Page) -> None:
    choose(page, png(pixels_of(5)))
    searched(page)
    expect(page.locator("#status")).to_contain_text("most similar images")
    expect(page.locator("#results .score").first).to_have_text("1.000")
    assert ids_of(page)[0] == image_id(5)
    expect(page.locator("#plan")).to_contain_text("of the code")
    expect(page.locator("#numbers")).to_contain_text("of the best ten stay")
    expect(page.locator("#facets")).to_be_visible()
    expect(page.locator("#numbers")).not_to_contain_text("show")  # one label of all images tells nothing of results
    for stage in ("decode", "encode", "search", "total"):
        expect(page.locator("#timing")).to_contain_text(stage)


def test_every_kind_of_index_has_its_words(page: Page) -> None:
    words = {
        "ivf": "with the images in 32 lists nearest to the query",
        "graph": "along a graph of 3,000 images, keeping 32 candidates",
        "bounds": "with 3,000 images, leaving each as soon as it cannot win",
        "scan": "with 3,000 images",
    }
    kinds = dict.fromkeys(("ivf", "ivf-sq8", "ivf-pq", "ivf-rabitq"), "ivf")
    kinds |= dict.fromkeys(("hnsw", "vamana", "pg-hnsw", "qd-hnsw", "qd-hnsw-sq8"), "graph")
    kinds |= dict.fromkeys(("va-file", "panorama"), "bounds")
    kinds |= dict.fromkeys(("flat", "half", "sq8", "pg-scan", "qd-scan"), "scan")
    assert {*FAISS_KINDS, VAMANA.name, *PGVECTOR_KINDS, *QDRANT_KINDS} == set(kinds)
    for kind, how in kinds.items():
        plan = {"kind": kind, "length": 96, "effort": 32, "rerank": 256, "shortlist": 40}
        told = page.evaluate(
            "async (given) => (await import('./plan_words.js')).inWords(...given)",
            [plan, {"code_length": 256, "count": 3000}],
        )
        first = f"Compared the first 96 of 256 numbers {words[how]}"
        assert told == f"{first}, then rescored the best 40 with all 256."


def test_moving_the_slider_searches_again_without_encoding(page: Page) -> None:
    choose(page, png(pixels_of(5)))
    searched(page)
    expect(page.locator("#timing")).to_contain_text("encode")
    page.locator("#length").focus()
    press(page, "ArrowRight")
    expect(page.locator("#length-value")).to_have_text("2 numbers")
    expect(page.locator("#plan")).to_contain_text("first 2 of 12 numbers")
    expect(page.locator("#timing")).not_to_contain_text("encode")
    press(page, "ArrowRight")
    expect(page.locator("#plan")).to_contain_text("first 4 of 12 numbers")
    page.locator("#details summary").click()
    page.locator("#rerank").check()
    expect(page.locator("#plan")).to_contain_text("rescored the best")
    expect(page.locator("#results .score").first).to_have_text("1.000")
    press(page, "Home")


def test_the_page_says_when_nothing_looks_like_the_photograph(page: Page) -> None:
    codes = np.stack([code_of(pixels_of(seed)) for seed in range(IMAGES)])
    pixels = [pixels_of(seed) for seed in range(5000, 9000)]
    far = oracles.scatter_distance(np.stack([code_of(each) for each in pixels]), codes)
    choose(page, png(pixels[int(far.argmax())]), name="outlier.png")
    searched(page, "outlier.png")
    said = page.get_by_role("status").filter(has_text="Nothing here looks like this picture")
    expect(said).to_contain_text("the results may show something else")
    expect(said).to_contain_text("than those of 100 % of the gallery’s images")
    expect(page.locator("#status")).to_contain_text("most similar images")
    choose(page, png(pixels_of(5)))
    searched(page)
    expect(page.locator("#unlike")).to_be_empty()


def test_results_are_found_as_the_service_finds_them(page: Page, address: str) -> None:
    choose(page, png(pixels_of(5)))
    searched(page)
    page.locator("#length").focus()
    press(page, "ArrowRight", "ArrowRight")
    expect(page.locator("#plan")).to_contain_text("first 4 of 12 numbers")
    answer = page.request.post(
        f"{address}/v1/search",
        multipart={
            "image": {"name": "q.png", "mimeType": "image/png", "buffer": png(pixels_of(5))},
            "k": "24",
            "length": "4",
        },
    ).json()
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
    assert list(ids_of(page))[:24] == [result["id"] for result in answer["results"]]


def test_a_result_is_searched_from_by_keyboard(page: Page) -> None:
    choose(page, png(pixels_of(5)))
    searched(page)
    second = ids_of(page)[1]
    page.locator("#results button.card").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#query")).to_have_attribute("src", re.compile(re.escape(quote(second)) + "/thumbnail"))
    expect(page.locator("#results .score").first).not_to_have_text("1.000")
    assert second not in ids_of(page)
    expect(page.locator("#results button.card").nth(1)).to_be_focused()  # the card in its place


def test_a_sample_is_shown_at_once_and_another_is_taken_by_a_click(page: Page) -> None:
    expect(page.locator("#samples img")).to_have_count(12)
    expect(page.locator("#results li").first).to_be_visible()
    button = page.locator("#samples button").nth(3)
    wanted = (button.get_attribute("title") or "").removeprefix("Search for images like ")
    button.click()
    expect(page).to_have_url(re.compile(re.escape("id=" + quote_plus(wanted))))
    page.locator("#others").click()
    expect(button).not_to_have_attribute("title", f"Search for images like {wanted}")


def test_a_photograph_is_dropped_and_one_is_pasted(page: Page) -> None:
    drop(page, "#drop", [("dropped.png", png(pixels_of(7)), "image/png")])
    searched(page, "dropped.png")
    expect(page.locator("#results .score").first).to_have_text("1.000")
    assert ids_of(page)[0] == image_id(7)
    page.evaluate(
        """bytes => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        }""",
        list(png(pixels_of(8))),
    )
    searched(page, "pasted.png")
    expect(page.locator("#results button.card").first).to_have_attribute("title", re.compile(re.escape(image_id(8))))


def test_a_text_file_is_refused_readably_and_the_next_photograph_works(page: Page) -> None:
    choose(page, b"not an image at all", "notes.txt", "text/plain")
    expect(page.locator("#error")).to_contain_text("o image that can be read")
    expect(page.locator(".plan")).to_be_hidden()
    choose(page, png(pixels_of(5)))
    searched(page)
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator(".plan")).to_be_visible()


def test_a_photograph_that_the_browser_cannot_show_is_searched_and_has_no_part_to_cut(page: Page) -> None:
    choose(page, encoded(Image.fromarray(pixels_of(5)), "HEIF"), "photo.heic", "image/heic")
    searched(page, "photo.heic")
    expect(page.locator("#hint")).to_have_text("The browser cannot show this file")
    expect(page.locator("#results li").first).to_be_visible()
    press(page, "c")
    expect(page.get_by_role("dialog")).to_have_count(0)
    choose(page, png(pixels_of(6)))
    expect(page.locator("#crop")).to_be_visible()


def test_metadata_is_shown_as_text(page: Page) -> None:
    choose(page, png(pixels_of(5)))
    searched(page)
    expect(page.locator("#results .label").first).to_have_text(HOSTILE)
    expect(page.locator("#results .label *")).to_have_count(0)


def test_the_details_of_a_result_are_shown_and_closed_by_keyboard(page: Page) -> None:
    choose(page, png(pixels_of(5)))
    searched(page)
    button = page.get_by_role("button", name=f"About {image_id(5)}", exact=True)
    button.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 × 2 pixels")
    expect(dialog).to_contain_text(HOSTILE)
    expect(dialog.locator("img")).to_have_js_property("naturalWidth", 2)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()


def test_results_are_pictures(page: Page) -> None:
    choose(page, png(pixels_of(5)))
    searched(page)
    for place in range(4):
        expect(page.locator("#results img").nth(place)).to_have_js_property("naturalWidth", 2)
        expect(page.locator("#results img").nth(place)).to_have_attribute("loading", "lazy")


def test_scrolling_goes_on_to_the_end_of_the_gallery_and_repeats_nothing(page: Page) -> None:
    choose(page, png(pixels_of(5)))
    searched(page)
    for _ in range(20):
        page.keyboard.press("End")
        page.wait_for_timeout(50)
        if "there are no more" in (page.locator("#status").text_content() or ""):
            break
    expect(page.locator("#status")).to_have_text(f"The {IMAGES} most similar images; there are no more")
    assert len(set(ids_of(page))) == len(ids_of(page)) == IMAGES


def test_the_address_brings_a_search_back(page: Page, address: str) -> None:
    choose(page, png(pixels_of(5)))
    searched(page)
    page.locator("#length").focus()
    press(page, "ArrowRight", "ArrowRight")
    expect(page.locator("#plan")).to_contain_text("first 4 of 12 numbers")
    expect(page).to_have_url(re.compile("code=.*length=4|length=4.*code="))
    shared, shown = page.url, list(ids_of(page))[:24]
    page.goto("about:blank")
    page.goto(shared)
    expect(page.locator("#asked")).to_contain_text("known by its code")
    expect(page.locator("#plan")).to_contain_text("first 4 of 12 numbers")
    expect(page.locator("#results .score").first).to_have_text("1.000")
    assert list(ids_of(page))[:24] == shown


def test_back_goes_to_what_was_searched_for_before(page: Page) -> None:
    choose(page, png(pixels_of(5)), "first.png")
    searched(page, "first.png")
    expect(page).to_have_url(re.compile("code="))
    page.locator("#results button.card").nth(2).click()
    expect(page.locator("#asked")).not_to_have_text("first.png")
    page.go_back()
    searched(page, "first.png")
    expect(page.locator("#query")).to_have_attribute("src", re.compile("^blob:"))
    expect(page.locator("#results .score").first).to_have_text("1.000")


def test_a_link_to_an_image_that_is_gone_says_so(page: Page, address: str) -> None:
    page.goto("about:blank")
    page.goto(f"{address}/#search?id=nothing.png")
    expect(page.locator("#error")).to_contain_text("no image 'nothing.png'")


def test_a_link_that_was_damaged_still_opens(page: Page, address: str) -> None:
    for damaged in ("#search?code=%%%", "#search?code=AAAA&filter={", "#search?length=7&a=x", "#nowhere?coordinate=-5"):
        page.goto("about:blank")
        page.goto(f"{address}/{damaged}")
        expect(page.locator("#results li").first).to_be_visible()
