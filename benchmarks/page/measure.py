"""How soon the page answers: from a move of the slider to the new results, and to its first paint.

    python -m eigenlens.benchmarks.page.measure --gallery .demo/fashion-mnist/gallery \\
        --results benchmarks/results/page.jsonl

Moves are key presses on the slider of the real page in chromium, one after the other, each time from another query.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eigenlens.artifact import EigenlensError
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.page.browser import looking_at

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_QUERIES = 12
_VISITS = 5
_SETTLED_MS = 60

# From the input event to the frame that has the new cards, and to the frame that has all their pictures in view.
_ARM = """() => {
    const [slider, list] = ["length", "results"].map((id) => document.getElementById(id));
    // A task that was posted in a frame's callback runs when the frame has been painted.
    const painted = () => new Promise((resolve) => requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = resolve;
        channel.port2.postMessage(null);
    }));
    window.moved = new Promise((resolve) => {
        slider.addEventListener("input", (event) => {
            new MutationObserver(async (_, observer) => {
                observer.disconnect();
                await painted();
                const results_ms = performance.now() - event.timeStamp;
                const inView = [...list.querySelectorAll("img")].filter(
                    (image) => image.getBoundingClientRect().top < innerHeight);
                await Promise.all(inView.map((image) => image.decode().catch(() => null)));
                await painted();
                resolve({ results_ms, pictures_ms: performance.now() - event.timeStamp });
            }).observe(list, { childList: true });
        }, { once: true });
    });
}"""


def measure_page(
    browser: Browser, address: str, *, queries: int = _QUERIES, visits: int = _VISITS
) -> dict[str, list[float]]:
    """Milliseconds of first paints, and of the slider's moves over all lengths and back for so many queries."""
    measured: dict[str, list[float]] = {"first_paint_ms": [], "results_ms": [], "pictures_ms": []}
    for _ in range(visits):
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.locator("#results li").first.wait_for()
        measured["first_paint_ms"].append(_first_paint(page))
        context.close()
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.locator("#results li").first.wait_for()
    for query in range(queries):
        page.locator("#samples button").nth(query).click()
        page.wait_for_load_state("networkidle")
        page.locator("#length").focus()
        page.keyboard.press("Home")
        page.wait_for_load_state("networkidle")
        moves = int(page.locator("#length").get_attribute("max") or 0)
        for key in ["ArrowRight"] * moves + ["ArrowLeft"] * moves:
            page.wait_for_timeout(_SETTLED_MS)
            page.evaluate(_ARM)
            page.keyboard.press(key)
            for name, value in page.evaluate("() => window.moved").items():
                measured[name].append(value)
    page.close()
    return measured


def _first_paint(page: Page) -> float:
    return float(
        page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Infinity")
    )


def main() -> int:
    """Measure, print, keep the records."""
    parser = argparse.ArgumentParser(description="Measure how soon the page answers.")
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, required=True)
    parser.add_argument(
        "--data", default="fashion-mnist", help="what the records call its images (default: %(default)s)"
    )
    parser.add_argument("--results", metavar="FILE", type=Path, help="add the records to FILE")
    args = parser.parse_args()
    try:
        with looking_at(args.gallery) as (browser, address):
            images = _images(browser, address)
            measured = measure_page(browser, address)
    except EigenlensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    records: list[dict[str, Any]] = []
    for name, times in measured.items():
        params = {"images": images, "samples": len(times)}
        subject = Subject(bench="page", data=args.data, method="eigenlens", params=params)
        for percent in (50, 95):
            value = round(float(np.percentile(times, percent)), 1)
            print(f"{name} p{percent}: {value} ms over {len(times)}")
            records.append(make_record(subject, f"{name.removesuffix('_ms')}_p{percent}_ms", value, "ms"))
    if args.results is not None:
        append_records(args.results, records)
    return 0


def _images(browser: Browser, address: str) -> int:
    page = browser.new_page()
    count = page.request.get(f"{address}/v1/lengths").json()["count"]
    page.close()
    return int(count)


if __name__ == "__main__":
    sys.exit(main())
