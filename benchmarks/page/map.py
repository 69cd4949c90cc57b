"""`eigenlens bench map`: how smoothly the map moves in a browser, and how soon its tiles answer.

The browser is chromium without a GPU, driven frame by frame: drags and wheel turns of the real page. Frames a second
are of the clock; the processor time of a frame is that of all of the browser's processes, whatever else the machine
does.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.page.browser import looking_at
from eigenlens.service.api.gallery_map import MapParameters
from eigenlens.service.gallery.store.records import Position
from eigenlens.service.gallery.store.sqlite import DATABASE, SqliteStore
from eigenlens.service.http.routes.gallery_map import gallery_map
from eigenlens.service.search.gallery_map import GalleryMap

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_FRAMES = 150
_TILES = 200
_DEEPEST = 7
_CELLS, _PARTS = 12, 32  # of a tile of the page
_VISITS = 3

# Moves the map by one event a frame, and resolves to the times of the frames.
_MOVE = """async ({ frames, kind }) => {
    const canvas = document.getElementById("map-canvas");
    canvas.setPointerCapture = () => {}; // there is no such pointer
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const [x, y] = [left + width / 2, top + height / 2];
    const send = (type, more) => canvas.dispatchEvent(type === "wheel"
        ? new WheelEvent(type, { clientX: x, clientY: y, cancelable: true, ...more })
        : new PointerEvent(type, { pointerId: 7, clientX: x, clientY: y, ...more }));
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    if (kind === "pan") send("pointerdown", {});
    const times = [await frame()];
    for (let turn = 0; turn < frames; turn += 1) {
        const phase = (2 * Math.PI * turn) / frames;
        const [across, up] = [0.3 * width * Math.sin(phase), 0.2 * height * Math.sin(2 * phase)];
        if (kind === "pan") send("pointermove", { clientX: x + across, clientY: y + up });
        else send("wheel", { deltaY: turn < frames / 2 ? -12 : 12 });
        times.push(await frame());
    }
    if (kind === "pan") send("pointercancel", {});
    return times;
}"""


@dataclass
class Moved:
    """Times of the frames of one move: milliseconds between them, and processor milliseconds of each."""

    intervals_ms: list[float]
    processor_ms: float


def measure_map(
    browser: Browser, address: str, *, frames: int = _FRAMES, visits: int = _VISITS
) -> tuple[list[float], dict[str, Moved]]:
    """Return the milliseconds from opening the map to its first paint, visit by visit, and each kind of move."""
    paints = []
    for _ in range(visits):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(f"{address}/#map")
        page.wait_for_function("() => performance.getEntriesByName('map-painted').length")
        paints.append(float(page.evaluate("() => performance.getEntriesByName('map-painted')[0].startTime")))
        if len(paints) < visits:
            context.close()
    page.wait_for_load_state("networkidle")
    moves = {}
    for kind in ("pan", "zoom"):
        page.evaluate(_MOVE, {"frames": frames // 5, "kind": kind})  # so that tiles are there
        page.wait_for_load_state("networkidle")
        before = _processor_s()
        times = page.evaluate(_MOVE, {"frames": frames, "kind": kind})
        moves[kind] = Moved(np.diff(times).tolist(), 1000 * (_processor_s() - before) / frames)
    context.close()
    return paints, moves


def _processor_s() -> float:
    """Return the seconds of processor time that chromium's processes below this one have taken."""
    ticks, children = 0, {os.getpid()}
    statuses = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:  # it has ended
                continue
            fields = rest.split()
            statuses.append((int(folder.name), int(fields[1]), name, int(fields[11]) + int(fields[12])))
    for pid, parent, name, used in sorted(statuses):  # a child is younger than its parent
        if parent in children:
            children.add(pid)
            ticks += used if name.startswith("chrom") else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def measure_tiles(address: str, *, count: int = _TILES) -> list[float]:
    """Return the milliseconds of requests for tiles at random places and depths."""
    took = []
    with httpx.Client(base_url=address) as client:
        whole = client.get("/v1/map", params={"columns": 1, "rows": 1, "parts": 1}).json()
        for parameters in _tiles(whole, count):
            begun = time.perf_counter()
            client.get("/v1/map", params=parameters).raise_for_status()
            took.append(1000 * (time.perf_counter() - begun))
    return took


def _tiles(whole: dict[str, float], count: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    tiles = []
    for _ in range(count):
        size = 0.5 ** int(random.integers(0, _DEEPEST))
        x, y = random.random(2) * (1 - size)
        width, height = whole["right"] - whole["left"], whole["top"] - whole["bottom"]
        left, bottom = whole["left"] + x * width, whole["bottom"] + y * height
        edges = {"left": left, "right": left + size * width, "bottom": bottom, "top": bottom + size * height}
        tiles.append(edges | {"columns": _CELLS, "rows": _CELLS, "parts": _PARTS})
    return tiles


def measure_synthetic(count: int, folder: Path, *, tiles: int = _TILES) -> list[float]:
    """Return the milliseconds that tiles of so many synthetic images take, from parameters to JSON, without HTTP."""
    store = SqliteStore(folder / DATABASE, create=True)
    with store.transaction() as connection:
        connection.executemany(
            "INSERT INTO images (id, media_type, width, height, sha256, metadata) VALUES (?,?,?,?,?,?)",
            ((f"{i:09d}.png", "image/png", 28, 28, f"{i:064x}", "{}") for i in range(count)),
        )
    places = np.random.default_rng(0).standard_normal((count, 8), dtype=np.float32)
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    engine = SimpleNamespace(
        keys=np.arange(1, count + 1), code_length=8, encoder_id="synthetic", leading=lambda width: places[:, :width]
    )
    state: Any = SimpleNamespace(
        snapshots=SimpleNamespace(current=SimpleNamespace(number=1, engine=engine)),
        map=GalleryMap(),
        gallery=SimpleNamespace(store=store, position_of=lambda number: Position(count, 0)),
        settings=SimpleNamespace(root_path=""),
    )
    whole = gallery_map(state, MapParameters(columns=1, rows=1, parts=1))
    took = []
    for parameters in _tiles(whole.model_dump(), tiles):
        begun = time.perf_counter()
        gallery_map(state, MapParameters(**parameters)).model_dump_json()
        took.append(1000 * (time.perf_counter() - begun))
    store.close()
    return took


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, help="measure the page and the tiles of a gallery")
    parser.add_argument("--data", default="fashion-mnist", help="what records call its images (default: %(default)s)")
    parser.add_argument("--synthetic", metavar="N", type=int, help="measure the tiles of N synthetic images")
    parser.add_argument("--results", metavar="FILE", type=Path, help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Measure, print, keep the records."""
    values: list[tuple[Subject, str, float, str]] = []
    # Of a machine that does other things too, times by the clock tell little.
    load = {"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
    if args.gallery is not None:
        with looking_at(args.gallery) as (browser, address):
            paints, moves = measure_map(browser, address)
            tiles = measure_tiles(address)
            count = httpx.get(f"{address}/v1/lengths").json()["count"]
        subject = Subject(bench="map", data=args.data, method="eigenlens", params={"images": count} | load)
        values.append((subject, "first_paint_ms", float(np.median(paints)), "ms"))
        for kind, moved in moves.items():
            values.append((subject, f"{kind}_frames_per_s", 1000 / float(np.median(moved.intervals_ms)), "1/s"))
            values.append((subject, f"{kind}_processor_ms", moved.processor_ms, "ms"))
        values += _of_tiles(subject, tiles)
    if args.synthetic is not None:
        with tempfile.TemporaryDirectory() as folder:
            tiles = measure_synthetic(args.synthetic, Path(folder))
        subject = Subject(bench="map", data="synthetic", method="eigenlens", params={"images": args.synthetic} | load)
        values += _of_tiles(subject, tiles)
    for subject, metric, value, unit in values:
        print(f"{subject.data} {metric}: {value:.1f} {unit}")
    if args.results is not None:
        append_records(
            args.results, [make_record(s, metric, round(value, 1), unit) for s, metric, value, unit in values]
        )


def _of_tiles(subject: Subject, tiles: list[float]) -> list[tuple[Subject, str, float, str]]:
    return [(subject, f"tile_p{p}_ms", float(np.percentile(tiles, p)), "ms") for p in (50, 95)]
