"""`eigenlens bench adds`: search latency of a service while images arrive: an idle gallery against a stream of adds."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.common.service_process import running_service
from eigenlens.model.images.sources import Source, SourceImage, open_source


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--gallery", metavar="GALLERY", type=Path, required=True, help="a gallery; the images stay in it"
    )
    parser.add_argument(
        "--images", metavar="SOURCE", default="fashion-mnist:test", help="images to add and search with"
    )
    parser.add_argument("--rate", type=positive, default=1000, help="images a second (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=100, help="images a request (default: %(default)s)")
    parser.add_argument("--seconds", type=positive, default=60, help="how long (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Measure, print and record latencies of searches. Raises: EigenlensError."""
    measured = measure_adds(
        args.gallery,
        open_source(args.images),
        rate=args.rate,
        batch=args.batch,
        seconds=args.seconds,
        searches_per_s=20,
        log=args.gallery / "bench.log",
    )
    params = {name: getattr(args, name) for name in ("rate", "batch", "seconds")}
    params |= {"adds_per_s": round(measured["adds_per_s"], 1), "failed": len(measured["failed"])}
    print(f"{params['adds_per_s']} images a second added, {params['failed']} requests failed")
    records = []
    for name in ("idle", "busy"):
        latencies = summary(measured[name])
        print(
            f"{name:<6}{len(measured[name]):>6} searches  "
            + "  ".join(f"{q} {ms:.2f} ms" for q, ms in latencies.items())
        )
        searches = {"searches": len(measured[name])}
        subject = Subject(bench="adds", data=args.images, method=name, params=params | searches)
        records += [make_record(subject, f"{quantile}_ms", ms, "ms") for quantile, ms in latencies.items()]
    if args.results:
        append_records(args.results, records)


def measure_adds(
    gallery: Path, source: Source, *, rate: int, batch: int, seconds: float, searches_per_s: float, log: Path
) -> dict[str, Any]:
    """Latencies of searches in milliseconds, idle and while `rate` images a second are added in batches."""
    queries = [image for image, _ in zip(source, range(200), strict=False)]
    images = [image for image, _ in zip(source, range(2000), strict=False)]
    with (
        running_service(gallery, log) as server,
        httpx.Client(base_url=server.address, headers=_admin_headers(gallery)) as client,
        multiprocessing.get_context("spawn").Pool(1) as adder,  # or its work would be timed with the searches
    ):
        idle = _searches(client, queries, searches_per_s, lambda elapsed: elapsed < seconds / 3)
        begun = time.monotonic()
        arguments = server.address, _admin_headers(gallery), images
        adding = adder.apply_async(_add, arguments, {"rate": rate, "batch": batch, "seconds": seconds})
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


def _admin_headers(gallery: Path) -> dict[str, str]:
    """Return the headers with which the gallery's administrator asks; its key is there once it is served."""
    return {"Authorization": f"Bearer {(gallery / 'admin.key').read_text().strip()}"}


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
    """Add images at a steady rate, one request after the other. Returns: the reasons of requests that failed."""
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
