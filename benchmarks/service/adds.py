"""Search latency of a service while images arrive: an idle gallery against a stream of adds."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from eigenlens.benchmarks.common.service_process import start_service
from eigenlens.model.images.sources import Source, SourceImage


@contextmanager
def _served(gallery: Path, log: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A service over the gallery: its address and the headers of its admin."""
    process, address = start_service(gallery, log)
    try:
        yield address, {"Authorization": f"Bearer {(gallery / 'admin.key').read_text().strip()}"}
    finally:
        process.terminate()
        process.wait(timeout=30)


def measure_adds(
    gallery: Path, source: Source, *, rate: int, batch: int, seconds: float, searches_per_s: float, log: Path
) -> dict[str, Any]:
    """Latencies of searches in milliseconds, idle and while `rate` images a second are added in batches."""
    queries = [image for image, _ in zip(source, range(200), strict=False)]
    images = [image for image, _ in zip(source, range(2000), strict=False)]
    with (
        _served(gallery, log) as (address, headers),
        httpx.Client(base_url=address, headers=headers) as client,
        multiprocessing.get_context("spawn").Pool(1) as adder,  # or its work would be timed with the searches
    ):
        idle = _searches(client, queries, searches_per_s, lambda elapsed: elapsed < seconds / 3)
        begun = time.monotonic()
        adding = adder.apply_async(_add, (address, headers, images), {"rate": rate, "batch": batch, "seconds": seconds})
        busy = _searches(client, queries, searches_per_s, lambda _: not adding.ready())
        took, failed = time.monotonic() - begun, adding.get()
        lengths = client.get("/v1/lengths").json()
    return {
        "idle": idle,
        "busy": busy,
        "failed": failed,
        "adds_per_s": lengths["pending"] / took,
        "pending": lengths["pending"],
    }


def _searches(
    client: httpx.Client, queries: list[SourceImage], rate: float, go_on: Callable[[float], bool]
) -> list[float]:
    """Searches at a steady rate, one after the other; a search that fails raises."""
    times: list[float] = []
    begun = time.monotonic()
    while go_on(time.monotonic() - begun):
        image = queries[len(times) % len(queries)]
        started = time.perf_counter()
        answer = client.post("/v1/search?k=10", files={"image": ("q.png", image.data)})
        times.append(1000 * (time.perf_counter() - started))
        if answer.status_code != 200 or not answer.json()["results"]:
            raise RuntimeError(f"a search failed: {answer.status_code} {answer.text}")
        time.sleep(max(0.0, begun + len(times) / rate - time.monotonic()))
    return times


def _add(
    address: str, headers: dict[str, str], images: list[SourceImage], *, rate: int, batch: int, seconds: float
) -> list[str]:
    """Add images at a steady rate, one request after the other. Returns: what was said of requests that failed."""
    failed: list[str] = []
    sent, begun = 0, time.monotonic()
    with httpx.Client(base_url=address, headers=headers, timeout=30) as client:
        while sent < rate * seconds:
            files = [
                ("image", (f"added/{number}.png", images[number % len(images)].data))
                for number in range(sent, sent + batch)
            ]
            answer = client.post("/v1/images", files=files)
            if answer.status_code != 200 or answer.json()["added"] + answer.json()["replaced"] != batch:
                failed.append(answer.text[:200])
            sent += batch
            time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
    return failed


def summary(times: list[float]) -> dict[str, float]:
    """Median and tails, in milliseconds."""
    return {f"p{q}": round(float(np.percentile(times, q)), 2) for q in (50, 95, 99)}
