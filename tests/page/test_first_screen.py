"""The first five minutes: five questions answered from the page alone, a phone's first screen, errors, the tools."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.http.startup import open_state
from tests.support.pages import choose, ids_of, in_a_browser, opened, press, searched
from tests.support.service import build_gallery, pixels_of, png, serving, settings_of

pytestmark = in_a_browser
IMAGES = 60
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return build_gallery(tmp_path_factory.mktemp("first"), count=IMAGES)


@pytest.fixture(scope="module")
def address(gallery: Gallery) -> Iterator[str]:
    with serving(settings_of(gallery)) as client:
        yield str(client.base_url).rstrip("/")


def at_length(page: Page, length: int) -> None:
    page.locator("#length").focus()
    press(page, "Home")
    while page.locator("#length-value").text_content() != f"{length} numbers":
        press(page, "ArrowRight")
    expect(page.locator("#plan")).to_contain_text(re.compile(f"first {length} of"))


@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
def test_five_questions_are_answered_by_what_can_be_read(
    browser: Browser, address: str, device: dict[str, Any]
) -> None:
    with opened(browser, address, **device) as (page, _):
        at_length(page, 4)
        expect(page.locator("#numbers div")).to_have_count(4)
        expect(page.locator("#numbers")).to_contain_text(re.compile("show (the same|one thing)"))
        read = page.locator("body").inner_text()
        # What is this for?
        assert "Find the pictures that look like yours." in read
        # What does the slider do?
        assert re.search(r"Fewer numbers:\s+faster, smaller, coarser", read)
        # What do I lose at this length?
        measured = httpx.get(f"{address}/v1/lengths").json()["lengths"]
        entry = next(entry for entry in measured if entry["length"] == 4)["alone"]
        share = 10 * entry["recall"]["10"]
        assert f"{'10' if share == 10 else format(min(9.9, share), '.1f')} of 10\nof the best ten stay" in read
        # How much memory would ten million take?
        assert re.search(rf"{entry['bytes_per_image'] * 10:.0f} MB\s+for ten million", read)
        # Why did this picture come first?
        assert "First comes the picture whose first 4 numbers agree best with yours." in read
        # What is of the build is not the first impression.
        assert not re.search(r"generation|bytes|finds \d", read)


@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
def test_every_word_that_is_not_everyday_english_tells_what_it_means(
    browser: Browser, address: str, device: dict[str, Any]
) -> None:
    with opened(browser, address, **device) as (page, _):
        expect(page.locator("#numbers div").first).to_be_visible()
        for word in page.locator(".term:visible").all():
            word.focus()
            tip = word.evaluate("e => getComputedStyle(e, '::after').display + ' ' + e.dataset.tip")
            assert re.match(r"block .{30,}\.$", tip)
            left, right, width = word.evaluate(
                """e => {
                    const tip = getComputedStyle(e, "::after");
                    const frame = getComputedStyle(e).position === "static" ? e.offsetParent : e;
                    const left = frame.getBoundingClientRect().left + parseFloat(tip.left);
                    return [left, left + parseFloat(tip.width), innerWidth];
                }"""
            )
            assert 0 <= left < right <= width
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_scores_differ_also_where_all_are_nearly_one_and_times_add_up(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        answer = {
            "results": [],
            "plan": {"length": 4, "kind": "flat"},
            "generation": 1,
            "timing_ms": {"search": 2.5, "queue": 1, "total": 5},
        }
        images = httpx.get(f"{address}/v1/images?limit=24").json()["images"]
        answer["results"] = [image | {"score": 0.99997 - 0.00001 * place} for place, image in enumerate(images)]
        page.route("**/v1/search", lambda route: route.fulfill(json=answer))
        at_length(page, 4)
        scores = page.locator("#results .score").all_text_contents()
        assert len(set(scores)) > len(scores) / 2
        assert "1.000" not in scores
        page.locator("#details summary").click()
        expect(page.locator("#timing")).to_contain_text("other1.5 ms")
        ends = page.locator("#timing-bar rect").evaluate_all(
            "all => all.map(e => e.x.baseVal.value + e.width.baseVal.value)"
        )
        assert max(ends) == pytest.approx(100, abs=1)


def test_after_an_error_the_failed_query_is_shown_and_nobody_elses_results(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, watch):
        watch.provoked = ("415",)
        expect(page.locator("#results li").first).to_be_visible()
        choose(page, b"not an image at all", "notes.txt", "text/plain")
        expect(page.locator("#error")).to_contain_text("o image that can be read")
        expect(page.locator("#asked")).to_have_text("notes.txt")
        expect(page.locator("#hint")).to_have_text("Drop or paste another photograph")
        for part in ("#results li", "#numbers div", "#timing div"):
            expect(page.locator(part)).to_have_count(0)
        expect(page.locator("#why")).to_be_empty()
        choose(page, png(pixels_of(5)))
        searched(page)
        expect(page.locator("#results li").first).to_be_visible()


def test_cards_are_called_by_their_files(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        expect(page.locator("#results li").first).to_be_visible()
        names = page.locator("#results .card").evaluate_all("all => all.map(e => e.lastChild.textContent)")
        assert names == [id.rsplit("/", 1)[-1] for id in ids_of(page)]


def test_on_a_phone_query_and_slider_are_one_low_bar_and_results_begin_on_the_first_screen(
    browser: Browser, address: str
) -> None:
    with opened(browser, address, **PHONE) as (page, _):
        expect(page.locator("#results img").first).to_be_visible()
        bar, first = page.locator(".askbar").bounding_box(), page.locator("#results li").first.bounding_box()
        assert bar is not None
        assert first is not None
        assert bar["height"] <= 120
        assert first["y"] + 60 < 844
        low = page.evaluate(
            """() => [...document.querySelectorAll("button, select, a, summary, input[type=range], label.button")]
            .filter((e) => e.checkVisibility() && !e.matches(".about-card, .skip") && e.clientHeight)
            .map((e) => [e.id || e.textContent.trim() || e.className, e.getBoundingClientRect().height])
            .filter(([, height]) => height < 44)"""
        )
        assert low == []
        page.mouse.wheel(0, 2000)
        page.wait_for_function("() => scrollY > 300")
        stuck = page.locator(".askbar").bounding_box()
        assert stuck is not None
        assert abs(stuck["y"]) < 2


def test_colours_are_chosen_and_kept_and_keys_are_listed(browser: Browser, address: str) -> None:
    def ground(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    with opened(browser, address, color_scheme="light") as (page, _):
        expect(page.locator("#results li").first).to_be_visible()
        light = ground(page)
        press(page, "t", "t")
        expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
        dark = ground(page)
        assert dark != light
        page.reload()
        assert ground(page) == dark
        press(page, "?")
        expect(page.get_by_role("dialog")).to_contain_text("fewer and more numbers")
        press(page, "Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        press(page, "]", "]")
        expect(page.locator("#length-value")).to_have_text("4 numbers")
        press(page, "3")
        expect(page).to_have_url(re.compile("#map"))


def test_the_administrators_link_opens_the_page_as_administrator_once(gallery: Gallery, browser: Browser) -> None:
    settings = settings_of(gallery, search_needs_key=True)
    with serving(settings, opened=(state := open_state(settings))) as client:
        address = str(client.base_url).rstrip("/")
        link = f"/#admin={state.keyring.make_link_token()}"
        with opened(browser, address, view=link) as (page, watch):
            watch.provoked = ("401",)
            expect(page.locator("#key-panel")).to_contain_text("The key is in use.")
            expect(page.locator("#generations tbody tr")).to_have_count(1)
            assert "admin=" not in page.url
            page.locator("nav [data-view=map]").click()
            expect(page.locator("#map-near img").first).to_have_attribute("src", re.compile("^blob:"))
        with opened(browser, address, view=link) as (page, watch):
            watch.provoked = ("401",)
            expect(page.locator("#key-error")).to_contain_text("was used already")
