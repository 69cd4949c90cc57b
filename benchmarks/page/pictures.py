"""Pictures of the page: every view on a phone, a desktop and a wide screen, light and dark; and the README's.

python -m eigenlens.benchmarks.page.pictures --gallery .demo/fashion-mnist/gallery --out pictures
python -m eigenlens.benchmarks.page.pictures --gallery .demo/fashion-mnist/gallery --readme docs/page.webp
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from eigenlens.artifact import EigenlensError
from eigenlens.benchmarks.page.browser import looking_at
from eigenlens.service.client import Client

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_DEVICES = {
    "phone": {"width": 390, "height": 844},
    "desktop": {"width": 1440, "height": 900},
    "wide": {"width": 2560, "height": 1300},
}
_SCHEMES = ("light", "dark")
_VIEWS = {
    "search": "#search?length=16",
    "auto": "#search?length=auto",
    "compare": "#compare?a=32&b=128",
    "lengths": "#compare?a=8&b=128",
    "map": "#map",
    "eigenfunctions": "#eigenfunctions?coordinate=3&length=16",
    "gallery": "#gallery",
    "duplicates": "#duplicates",
    "viewer": "#search?length=64",
}
_OF_THE_SCREEN = ("search", "viewer", "duplicates")  # the others whole
_QUALITY = 88
_WIDE = 1200


def take_pictures(
    browser: Browser,
    address: str,
    out: Path,
    *,
    key: str,
    devices: Sequence[str] = tuple(_DEVICES),
    schemes: Sequence[str] = _SCHEMES,
    views: Sequence[str] = tuple(_VIEWS),
) -> list[Path]:
    """A picture of each view for each device and scheme, in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    taken = []
    for device in devices:
        for scheme in schemes:
            context = browser.new_context(viewport=_DEVICES[device], color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            for view in views:
                page = context.new_page()
                _open(page, address, _VIEWS[view])
                _prepare(page, view, key)
                page.wait_for_load_state("networkidle")
                taken.append(out / f"{view}-{device}-{scheme}.png")
                page.screenshot(path=taken[-1], full_page=view not in _OF_THE_SCREEN)
                page.close()
            context.close()
    return taken


def _prepare(page: Page, view: str, key: str) -> None:
    """Do what a person does before a view shows all that it has: give the key, add lengths, look at a result."""
    if view == "gallery":
        page.locator("#key").fill(key)
        page.locator("#key").press("Enter")
        page.locator("#generations tbody tr").first.wait_for()
    elif view == "duplicates":
        page.locator("#duplicates-key").fill(key)
        page.locator("#duplicates-key").press("Enter")
        page.get_by_role("button", name="Look for duplicates").wait_for()
    elif view == "lengths":
        for _ in range(2):
            page.get_by_role("button", name="Add a length").press("Enter")
    elif view == "viewer":
        page.locator("#results .about-card").first.press("Enter")
        page.get_by_text("Why did this match?").press("Enter")
        page.get_by_role("heading", name="They agree").wait_for()


def draw_readme(browser: Browser, address: str, path: Path) -> None:
    """The map and, below it, an eigenfunction, as one small picture."""
    page = browser.new_page(viewport={"width": 1280, "height": 860}, device_scale_factor=1.5, reduced_motion="reduce")
    pictures = []
    for view in ("map", "eigenfunctions"):
        _open(page, address, _VIEWS[view])
        if view == "map":
            page.locator("#map-status", has_text="matches are framed").wait_for()
            page.wait_for_load_state("networkidle")
        pictures.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    page.close()
    whole = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)))
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    whole.thumbnail((_WIDE, 10 * _WIDE))
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path, quality=_QUALITY, method=6)


def _open(page: Page, address: str, path: str) -> None:
    page.goto("about:blank")
    page.goto(f"{address}/{path}")
    page.locator("#facts", has_text="images").wait_for()
    page.wait_for_load_state("networkidle")


def main() -> int:
    """Take them."""
    parser = argparse.ArgumentParser(description="Take pictures of the page over a gallery.")
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, required=True)
    parser.add_argument("--out", metavar="DIR", type=Path, help="every view, device and scheme")
    parser.add_argument("--readme", metavar="FILE", type=Path, help="the picture in the README")
    args = parser.parse_args()
    try:
        with looking_at(args.gallery) as (browser, address):
            if args.out is not None:
                key = (args.gallery / "admin.key").read_text().strip()
                with Client(address, key=key) as client:
                    list(client.follow(client.find_duplicates().id))  # so that their view has some
                for path in take_pictures(browser, address, args.out, key=key):
                    print(path)
            if args.readme is not None:
                draw_readme(browser, address, args.readme)
                print(f"{args.readme}: {args.readme.stat().st_size:,} bytes")
    except EigenlensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
