"""The eigenfunctions on the page: one number at a time, where the query falls, the spectrum, the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.index.codes.test_eigenfunctions import without_eigenfunctions
from tests.support.pages import choose, in_a_browser, opened, press, searched
from tests.support.service import CODE_LENGTH, build_gallery, code_of, image_id, pixels_of, png, serving, settings_of

pytestmark = in_a_browser
IMAGES = 40


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(settings_of(build_gallery(tmp_path_factory.mktemp("functions"), count=IMAGES))) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture
def page(address: str, browser: Browser) -> Iterator[Page]:
    with opened(browser, address, view="/#eigenfunctions?coordinate=3&length=4") as (page, _):
        choose(page, png(pixels_of(5)))
        searched(page)
        yield page


def unit(seed: int) -> np.ndarray:
    code = code_of(pixels_of(seed))
    return np.asarray(code / np.linalg.norm(code))


def minus(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def test_a_number_shows_its_eigenvalue_its_images_and_where_the_query_falls(page: Page) -> None:
    values = np.array([unit(seed)[2] for seed in range(IMAGES)])
    expect(page.locator("#eigenvalue")).to_contain_text("Eigenvalue 0.333")
    for end, best in (("top", values.argmax()), ("bottom", values.argmin())):
        expect(page.locator(f"#end-{end} li")).to_have_count(8)
        first = page.locator(f"#end-{end} button.card").first
        expect(first).to_have_attribute("title", re.compile(re.escape(image_id(int(best)))))
        expect(first).to_contain_text(minus(float(values[best])))
    expect(page.locator("#falls")).to_contain_text(f"The query has {minus(float(unit(5)[2]))}")
    expect(page.locator("#histogram .query-line")).to_have_count(1)
    share = float((values < unit(5)[2]).mean())
    told = re.search(r"more than (\d+)", page.locator("#falls").text_content() or "")
    assert told is not None
    assert abs(int(told[1]) / 100 - share) < 0.06


def test_another_number_is_chosen_by_keyboard_and_by_a_click_on_a_chart(page: Page) -> None:
    page.locator("#coordinate").focus()
    press(page, "ArrowRight")
    expect(page.locator("#coordinate-value")).to_have_text("4 of 12")
    expect(page.locator("#eigenvalue")).to_contain_text("Eigenvalue 0.250")
    expect(page).to_have_url(re.compile("coordinate=4"))
    page.get_by_role("button", name="The number after").press("Enter")
    expect(page.locator("#coordinate-value")).to_have_text("5 of 12")
    # The charts are drawn anew for each number: only then are they clicked on.
    expect(page.locator("#eigenvalue")).to_contain_text("Eigenvalue 0.200")
    page.locator("#code .bar").nth(8).click(force=True)
    expect(page.locator("#coordinate-value")).to_have_text("9 of 12")
    expect(page.locator("#eigenvalue")).to_contain_text("Eigenvalue 0.111")
    page.locator("#spectrum svg").click(position={"x": 70, "y": 60})
    expect(page.locator("#coordinate-value")).to_have_text("1 of 12")
    expect(page.get_by_role("button", name="The number before")).to_be_visible()


def test_the_code_is_drawn_with_its_prefix_marked(page: Page) -> None:
    expect(page.locator("#code .bar")).to_have_count(CODE_LENGTH)
    expect(page.locator("#code .bar.unused")).to_have_count(CODE_LENGTH - 4)
    expect(page.locator("#code .now-name")).to_have_text("in use: the first 4")
    heights = [float(bar.get_attribute("height") or 0) for bar in page.locator("#code .bar").all()]
    assert int(np.argmax(heights)) == int(np.abs(unit(5)).argmax())
    expect(page.locator("#spectrum .now-name")).to_have_text("number 3: 0.333")
    expect(page.locator("#spectrum svg title")).to_have_text("The spectrum")


def test_an_image_of_an_end_is_searched_from(page: Page) -> None:
    page.locator("#end-top button.card").first.click()
    expect(page.locator("#asked")).not_to_have_text("query.png")
    expect(page).to_have_url(re.compile("id="))


def test_a_generation_without_them_says_how_to_get_them(browser: Browser, tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=10)
    without_eigenfunctions(gallery.open_current()[1].artifact)
    with (
        serving(settings_of(gallery)) as client,
        opened(browser, str(client.base_url).rstrip("/"), view="/#eigenfunctions") as (page, watch),
    ):
        watch.provoked = ("404",)
        expect(page.locator("#no-eigenfunctions")).to_contain_text("rebuild the gallery")
        expect(page.locator("#spectrum .curve")).to_have_count(1)
        expect(page.locator("#code .bar")).to_have_count(CODE_LENGTH)
