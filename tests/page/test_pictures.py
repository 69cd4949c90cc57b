"""The commands that measure the page and take its pictures, and the picture in the README."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from eigenlens.benchmarks.page.browser import looking_at
from eigenlens.benchmarks.page.measure import measure_page
from eigenlens.benchmarks.page.pictures import draw_readme, take_pictures
from eigenlens.service.gallery.layout import Gallery
from tests.support.pages import in_a_browser
from tests.support.service import LENGTHS, gallery_fixture

pytestmark = in_a_browser
ROOT = Path(__file__).parents[2]
PICTURE = "docs/page.webp"
VIEWS = ("compare", "gallery")
MOST_BYTES = 300_000


gallery = gallery_fixture(count=30)


def test_the_readme_shows_the_page() -> None:
    assert PICTURE in (ROOT / "README.md").read_text()
    assert (ROOT / PICTURE).stat().st_size < MOST_BYTES
    with Image.open(ROOT / PICTURE) as picture:
        assert picture.format == "WEBP"
        assert picture.width >= 1000


def test_pictures_of_every_view_are_taken_and_every_move_is_measured(gallery: Gallery, tmp_path: Path) -> None:
    def look() -> tuple[list[Path], dict[str, list[float]]]:
        with looking_at(gallery.root) as (browser, address):
            key = (gallery.root / "admin.key").read_text().strip()
            taken = take_pictures(
                browser, address, tmp_path, key=key, devices=("phone",), schemes=("dark",), views=VIEWS
            )
            draw_readme(browser, address, tmp_path / "page.webp")
            return taken, measure_page(browser, address, queries=1, visits=1)

    with ThreadPoolExecutor(1) as thread:  # the thread of the other tests has a browser of its own
        taken, measured = thread.submit(look).result()
    assert [path.stem for path in taken] == [f"{view}-phone-dark" for view in VIEWS]
    for path in taken:
        with Image.open(path) as picture:
            assert picture.width == 390
            assert len(picture.convert("RGB").getcolors(2**24) or []) > 20
    assert (tmp_path / "page.webp").stat().st_size > 0
    assert len(measured["results_ms"]) == len(measured["pictures_ms"]) == 2 * len(LENGTHS)
    assert all(0 < ms < 10_000 for times in measured.values() for ms in times)
