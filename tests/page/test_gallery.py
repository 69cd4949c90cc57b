"""The gallery on the page: its images; with the key adding, deleting, rebuilding and going back."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from eigenlens.image_ids import id_of_path
from eigenlens.service.gallery.layout import Gallery
from tests.page.test_access import serious
from tests.support.pages import Watch, drop, drop_path, ids_of, in_a_browser, opened, press, searched
from tests.support.service import build_gallery, image_id, pixels_of, png, serving, settings_of

pytestmark = in_a_browser
SLOW_MS = 60_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = build_gallery(tmp_path_factory.mktemp("built"), count=60)
    built.store.close()
    return built.root


@pytest.fixture
def gallery(built: Path, tmp_path: Path) -> Gallery:
    """A copy for each test, which changes it."""
    return Gallery(shutil.copytree(built, tmp_path / "gallery"))


@pytest.fixture
def watched(gallery: Gallery, browser: Browser) -> Iterator[tuple[Page, Watch]]:
    with (
        serving(settings_of(gallery)) as client,
        opened(browser, str(client.base_url).rstrip("/"), view="/#gallery") as (page, watch),
    ):
        yield page, watch


@pytest.fixture
def page(watched: tuple[Page, Watch], gallery: Gallery) -> Page:
    sign_in(watched[0], gallery)
    return watched[0]


def sign_in(page: Page, gallery: Gallery) -> None:
    page.locator("#key").fill((gallery.root / "admin.key").read_text().strip())
    page.locator("#key").press("Enter")
    expect(page.locator("#key-panel")).to_contain_text("The key is in use.")


def test_images_that_come_while_a_wrong_key_is_tried_cannot_be_deleted(watched: tuple[Page, Watch]) -> None:
    page, watch = watched
    watch.provoked = ("401",)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/v1/admin/generations", hold)
    page.locator("#key").fill("not-the-key-at-all")
    page.locator("#key").press("Enter")
    page.locator("#browse-prefix").fill("e")  # listed anew, with the key that is being tried
    expect(page.get_by_role("button", name="Delete")).not_to_have_count(0)
    held[0].continue_()
    expect(page.locator("#key-error")).not_to_be_empty()
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)


def test_a_wrong_key_is_refused_and_nothing_can_be_changed(watched: tuple[Page, Watch]) -> None:
    page, watch = watched
    watch.provoked = ("401",)
    for wrong in ("not-the-key-at-all", "with spaces and ü"):
        page.locator("#key").fill(wrong)
        page.locator("#key").press("Enter")
        expect(page.locator("#key-error")).not_to_be_empty()
        expect(page.locator("#key")).to_be_focused()
    expect(page.locator("#browse li").first).to_be_visible()
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)
    expect(page.locator("#admin > *")).to_have_count(0)


def test_the_key_is_kept_nowhere(page: Page) -> None:
    kept = page.evaluate("() => [document.cookie, localStorage.length, sessionStorage.length, location.href].join()")
    assert kept.startswith(",0,0,http")
    page.reload()
    expect(page.locator("#key")).to_be_visible()
    expect(page.locator("#key")).to_have_value("")
    expect(page.locator("#admin > *")).to_have_count(0)


def test_images_are_added_by_drop_with_what_became_of_each(page: Page) -> None:
    files = [
        ("new boot.png", png(pixels_of(1000)), "image/png"),
        ("notes.txt", b"no image", "text/plain"),
        ("other.png", png(pixels_of(1001)), "image/png"),
    ]
    page.locator("#add-folder").fill("fresh")
    page.locator("#add-label").fill("<b>boots</b>")
    drop(page, "#add-drop", files)
    outcomes = page.locator("#add-outcomes li")
    expect(outcomes).to_have_count(3)
    expect(outcomes.filter(has_text="new boot.png")).to_contain_text("added")
    expect(outcomes.filter(has_text="notes.txt")).to_contain_text("skipped")
    expect(outcomes.filter(has_text="notes.txt").locator(".bad")).to_contain_text("image")
    expect(page.locator("#add-status")).to_have_text("Finished: 2 added, skipped: 1 other file.")
    expect(page.locator("#facts")).to_contain_text("62 images")
    page.locator("#browse-prefix").fill("fresh/")
    expect(page.locator("#browse li")).to_have_count(2)
    expect(page.locator("#browse .label").first).to_have_text("<b>boots</b>")
    page.locator("#browse button.card").first.click()
    searched(page, "new boot.png")
    expect(page.locator("#asked-label")).to_have_text("<b>boots</b>")
    expect(page.locator("#results li").first).to_be_visible()


def test_a_folder_is_added_by_drop_with_its_paths_and_is_told_by_byte(page: Page, tmp_path: Path) -> None:
    trip = tmp_path / "Trip"
    (trip / "Rome").mkdir(parents=True)
    photograph = png(pixels_of(1002))
    files = {"1.png": photograph, "Rome/2.png": photograph, "Rome/.3.png": b"", "Rome/a.txt": b"text"}
    for name, data in files.items():
        (trip / name).write_bytes(data)
    page.evaluate(
        """() => {
            window.told = [];
            const status = document.getElementById("add-status");
            new MutationObserver(() => window.told.push(status.textContent)).observe(status, { childList: true });
        }"""
    )
    drop_path(page, "#add-drop", trip)
    expect(page.locator("#add-status")).to_have_text("Finished: 2 added, skipped: 1 other file.")
    names = page.locator("#add-outcomes li span:first-of-type").all_text_contents()
    assert sorted(names) == ["Trip/1.png", "Trip/Rome/2.png", "Trip/Rome/a.txt"]
    size = 2 * len(photograph) + len(b"text")
    assert f"Sending 3 of 3 files: {size} bytes of {size} bytes …" in page.evaluate("window.told")
    page.locator("#browse-prefix").fill("Trip/Rome/")
    expect(page.locator("#browse li")).to_have_count(1)
    expect(page.locator("#browse .label").first).to_have_text("Trip")
    page.set_input_files("#add-directory", trip)
    expect(page.locator("#add-status")).to_contain_text("2 unchanged")
    odd = {b"a\nb.png", b"content", "u\u0308\\x41.png".encode()}
    for odd_name in odd:
        (trip / "Rome" / os.fsdecode(odd_name)).write_bytes(photograph)
    drop_path(page, "#add-drop", trip / "Rome")
    expect(page.locator("#add-status")).to_contain_text("6 added")
    page.locator("#browse-prefix").fill("Rome/")
    expect(page.locator("#browse li")).to_have_count(4)
    assert set(ids_of(page, "browse")) == {
        "Rome/2.png",
        *(id_of_path(os.fsdecode(name), prefix="Rome/") for name in odd),
    }


def test_an_image_is_deleted_at_the_second_click_only(page: Page) -> None:
    page.locator("#browse-prefix").fill(image_id(7))
    expect(page.locator("#browse li")).to_have_count(1)
    button = page.get_by_role("button", name=f"Delete {image_id(7)}")
    button.click()
    expect(button).to_have_text("Really delete?")
    page.locator("#browse-prefix").focus()
    expect(button).to_have_text("Delete")
    button.press("Enter")
    button.press("Enter")
    expect(page.locator("#browse-status")).to_have_text(f"{image_id(7)} was deleted.")
    expect(page.locator("#facts")).to_contain_text("59 images")
    assert image_id(7) not in ids_of(page, "browse")


def test_several_images_are_selected_removed_brought_back_and_removed_when_the_view_is_left(
    page: Page, gallery: Gallery
) -> None:
    page.locator("#browse-prefix").fill("odd/")
    expect(page.locator("#browse .select input")).to_have_count(30)
    ids = list(ids_of(page, "browse"))
    page.get_by_role("checkbox", name=f"Select {ids[1]}").press("Space")
    expect(page.locator("#selection")).to_contain_text("1 image selected.")
    page.get_by_role("checkbox", name=f"Select {ids[4]}").click(modifiers=["Shift"])
    expect(page.locator("#selection")).to_contain_text("4 images selected.")
    page.get_by_role("checkbox", name=f"Select {ids[2]}").press("Space")  # not this one
    assert not serious(page)
    page.get_by_role("button", name="Remove them").press("Enter")
    expect(page.locator("#leaving")).to_contain_text("3 images will be removed when you leave this view.")
    expect(page.locator("#browse li")).to_have_count(27)
    expect(page.get_by_role("button", name="Undo all")).to_be_focused()
    press(page, "Enter")
    expect(page.locator("#browse li")).to_have_count(30)
    expect(page.locator("#leaving")).to_be_hidden()
    assert gallery.store.count() == 60
    for place in (1, 3, 4):
        page.get_by_role("checkbox", name=f"Select {ids[place]}").check()
    page.get_by_role("button", name="Remove them").press("Enter")
    page.locator("#browse-prefix").fill("od")  # listed anew, they stay away
    expect(page.locator("#browse li")).to_have_count(27)
    assert gallery.store.count() == 60
    page.locator("nav [data-view=search]").press("Enter")
    expect(page.locator("#facts")).to_contain_text("57 images")
    left = {record.id for record in gallery.store.page(100, prefix="odd/")}
    assert left == set(ids) - {ids[place] for place in (1, 3, 4)}


def test_what_is_to_be_removed_is_not_where_the_key_is_forgotten(page: Page, gallery: Gallery) -> None:
    page.locator("#browse .select input").first.check()
    page.get_by_role("button", name="Select all shown").click()
    expect(page.locator("#selection")).to_contain_text("48 images selected.")
    page.get_by_role("button", name="Remove them").click()
    page.get_by_role("button", name="Forget the key").click()
    expect(page.locator("#leaving")).to_be_hidden()
    page.locator("nav [data-view=search]").click()
    expect(page.locator("#facts")).to_contain_text("60 images")
    assert gallery.store.count() == 60


@pytest.mark.timeout(180)
def test_a_rebuild_is_watched_and_undone(page: Page) -> None:
    drop(page, "#add-drop", [("added.png", png(pixels_of(1002)), "image/png")])
    expect(page.locator("#facts")).to_contain_text("61 images")
    page.locator("#rebuild-lengths").fill("3, 6")
    page.get_by_role("button", name="Rebuild", exact=True).click()
    expect(page.locator("#rebuild-status")).to_have_text("Done: generation 2 is served.", timeout=SLOW_MS)
    expect(page.locator("#about-gallery")).to_contain_text("build 2 of the gallery.")
    rows = page.locator("#generations tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("3, 6, 12")
    expect(rows.first).to_contain_text("served now")
    page.get_by_role("button", name="Serve generation 1").click()
    expect(page.locator("#generations-status")).to_have_text("Generation 1 is served.")
    expect(page.locator("#facts")).to_contain_text("61 images")
    expect(page.locator("#about-gallery")).to_contain_text("build 1 of the gallery and 1 added since.")


def test_a_rebuild_is_cancelled(page: Page) -> None:
    page.get_by_role("button", name="Rebuild", exact=True).click()
    page.get_by_role("button", name="Cancel").click()  # the rebuild's process takes longer than that to begin
    expect(page.locator("#rebuild-status")).to_have_text("Cancelled. The gallery is as it was.", timeout=SLOW_MS)
    expect(page.locator("#generations tbody tr")).to_have_count(1)
    expect(page.get_by_role("button", name="Rebuild", exact=True)).to_be_enabled()


def test_health_and_figures_are_seen_at_a_glance(page: Page) -> None:
    tiles = page.locator("#glance div")
    for name, value in (("health", "ready"), ("images", "60"), ("added", "0"), ("generation", "1"), ("jobs", "0")):
        expect(tiles.filter(has=page.get_by_text(name, exact=True)).locator("b")).to_have_text(value)
    expect(tiles.filter(has=page.get_by_text("disk", exact=True))).to_contain_text("B are free")
    drop(page, "#add-drop", [("one more.png", png(pixels_of(1003)), "image/png")])
    expect(tiles.filter(has=page.get_by_text("added", exact=True)).locator("b")).to_have_text("1")


def test_what_the_service_did_is_seen_at_a_glance(page: Page) -> None:
    """The figures of /metrics: searches, their time and batches, refusals."""

    def tile(name: str) -> Locator:
        return page.locator("#glance div").filter(has=page.get_by_text(name, exact=True))

    address = page.url.partition("/#")[0]
    expect(tile("searches").locator("b")).to_have_text("0")
    expect(tile("search time").locator("b")).to_have_text("–")
    for _ in range(3):
        answer = page.request.post(f"{address}/v1/search", data={"code": [1.0] + [0.0] * 11})
        assert answer.ok
    refused = page.request.get(f"{address}/v1/admin/jobs", headers={"Authorization": "Bearer wrong"})
    assert refused.status == 401
    expect(tile("searches").locator("b")).to_have_text("3")
    expect(tile("searches")).to_contain_text("a second now")
    expect(tile("search time")).to_contain_text(re.compile(r"^search time< [\d.]+ .?s"))
    expect(tile("batches").locator("b")).to_have_text("1.0")
    expect(tile("refused").locator("b")).to_have_text("1")
    expect(tile("failures").locator("b")).to_have_text("0")


def test_a_rebuild_that_cannot_be_says_why(watched: tuple[Page, Watch], gallery: Gallery) -> None:
    page, watch = watched
    watch.provoked = ("422",)
    sign_in(page, gallery)
    page.locator("#rebuild-lengths").fill("99")
    page.get_by_role("button", name="Rebuild", exact=True).click()
    expect(page.locator("#rebuild-status")).to_contain_text("99")


def test_the_key_is_forgotten_on_demand(page: Page) -> None:
    expect(page.get_by_role("button", name="Delete").first).to_be_visible()
    page.get_by_role("button", name="Forget the key").click()
    expect(page.locator("#key")).to_be_visible()
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)


def test_recall_of_real_searches_is_shown_beside_its_promise(gallery: Gallery, browser: Browser) -> None:
    with (
        serving(settings_of(gallery, recall_share=1.0)) as client,
        opened(browser, str(client.base_url).rstrip("/"), view="/#gallery") as (page, watch),
    ):
        watch.provoked = ("409",)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
        sign_in(page, gallery)
        expect(page.locator("#recall-about")).to_contain_text("repeats 100 % of the searches exactly")
        page.get_by_role("button", name="Recalibrate with recent searches").click()
        expect(page.locator("#recall-status")).to_contain_text("recent searches are kept, and recalibration takes 100")
        client.post("/v1/search?length=2&k=10", files={"image": png(pixels_of(5000))}).raise_for_status()
        row = page.locator("#recall tbody tr").first
        expect(row).to_contain_text("2 flat")
        expect(row.locator("td").nth(6)).to_have_text("1")
    assert asked.count("stats") <= asked.count("metrics") + 1, "the panels share what is read of the service"
