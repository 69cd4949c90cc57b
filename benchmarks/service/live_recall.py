"""`eigenlens bench live-recall`: whether a service notices that searches find less than promised, and mends that.

A gallery is searched with views of other photographs. Live recall has to show that their targets are missed; after a
recalibration these have to hold for fresh photographs. The work folder gets a copy of the gallery, whose plans are
measured anew; a copy that is there is taken as it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.common.service_process import running_service
from eigenlens.benchmarks.search.view_codes import view_codes, views_of_halves
from eigenlens.benchmarks.service.measure import Cell, run_load, write_photos
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.images.sources import open_source
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.api.admin import Job
from eigenlens.service.client import Client
from eigenlens.service.gallery.layout import Gallery

TARGETS = (0.9, 0.95, 0.99)
_K = 10
_PER_REQUEST = 100
_POLL_S = 1.0
_AT_ONCE = 200
# Closed loops of photographs, with and without live recall in turn.
_CLIENTS, _ROUND_S, _WARM_S = 8, 4.0, 0.5
_PHOTOS = "200px"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, required=True, help="a gallery; it is copied")
    parser.add_argument("--images", metavar="SOURCE", required=True, help="other photographs, to search with")
    parser.add_argument("--name", required=True, help="name of these photographs in the records")
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="where codes and the copy are kept")
    parser.add_argument("--queries", type=positive, default=2000, help="fresh searches (default: %(default)s)")
    parser.add_argument(
        "--rate", type=positive, default=100, help="searches a second under load (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=positive, default=60, help="of the load (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=8, help="of throughput (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Measure, print and record all of it. Raises: EigenlensError."""
    args.work.mkdir(parents=True, exist_ok=True)
    root = args.work / "gallery"
    is_measured = root.exists()
    if not is_measured:
        shutil.copytree(args.gallery, root)
    write_photos(open_source(args.images), args.work / "photos", sizes=[_PHOTOS])
    loaded, fresh = _codes(args, Gallery(root))
    with running_service(root, args.work / "service.log") as server:
        key = (root / "admin.key").read_text().strip()
        with Client(server.address, key=key) as client:
            if not is_measured:
                print("measuring the plans with images of the gallery ...")
                _finish(client, client.rebuild())
            exact = _exact(Gallery(root), fresh)
            before = _recall(client, fresh, exact)
            shown = _under_load(client, server.address, loaded, rate=args.rate, seconds=args.seconds)
            began = time.monotonic()
            _finish(client, client.recalibrate())
            recalibrated_s = time.monotonic() - began
            after = _recall(client, fresh, exact)
    ratios = _compare_speed(root, args.work, rounds=args.rounds)
    records = []
    for target in TARGETS:
        subject = _subject(args, {"target": target})
        told = shown[target]
        metrics: list[tuple[str, float, str]] = [
            ("recall_before", before[target], ""),
            ("recall_shown", told["recall"], ""),
            ("recall_shown_high", told["high"], ""),
            ("shown_after_s", told["seconds"], "s"),
            ("recall_after", after[target], ""),
        ]
        print(f"target {target}: " + ", ".join(f"{name} {value:.4f}" for name, value, _ in metrics))
        # What live recall did not tell within the time has no record.
        records += [make_record(subject, *metric) for metric in metrics if np.isfinite(metric[1])]
    subject = _subject(args, {"rounds": args.rounds})
    records.append(make_record(subject, "recalibration_s", round(recalibrated_s, 1), "s"))
    records += [make_record(subject, name, round(ratio, 4)) for name, ratio in ratios.items()]
    print(f"recalibrated in {recalibrated_s:.0f} s; with live recall, relative to without: {ratios}")
    if args.results:
        append_records(args.results, records)


def _subject(args: argparse.Namespace, params: Mapping[str, Any]) -> Subject:
    common = {"queries": args.queries, "rate": args.rate, "seconds": args.seconds, "k": _K}
    return Subject("live-recall", args.name, "eigenlens", params={**common, **params})


def _codes(args: argparse.Namespace, gallery: Gallery) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return codes of views of one half of the photographs, for the load, and of the other half, for fresh searches."""
    encoder = Encoder(gallery.encoder_path(gallery.current_encoder_id()))
    photographs = len(open_source(args.images))
    count = max(photographs, 2 * max(args.queries, args.rate * args.seconds))
    codes = view_codes(
        encoder, args.images, count=count, seed=0, directory=args.work / "views", augmentation=AugmentationConfig()
    )
    one, other = views_of_halves(photographs, views=count, count=args.rate * args.seconds, seed=0)
    return codes[one].astype(np.float32), codes[other[: args.queries]].astype(np.float32)


def _finish(client: Client, job: Job) -> None:
    """Wait for a job. Raises: RuntimeError, if it fails."""
    last = list(client.follow(job.id))[-1]
    if last.state != "done":
        raise RuntimeError(f"the job failed: {last.error}")


def _exact(gallery: Gallery, queries: NDArray[np.float32]) -> list[set[str]]:
    """Return the ids of the exact nearest images of each query."""
    _, generation = gallery.open_current()
    codes = unit_prefix(generation.codes.codes, generation.code_length)
    nearest: list[set[int]] = []
    for start in range(0, len(queries), _AT_ONCE):
        cosines = unit_prefix(queries[start : start + _AT_ONCE], codes.shape[1]) @ codes.T
        best = np.argpartition(-cosines, _K, axis=1)[:, :_K]
        nearest += [set(generation.keys[rows].tolist()) for rows in best]
    ids = _ids(gallery, set().union(*nearest))
    return [{ids[key] for key in keys} for keys in nearest]


def _ids(gallery: Gallery, keys: set[int]) -> dict[int, str]:
    """Return the ids of images by key."""
    ordered = sorted(keys)
    ids: dict[int, str] = {}
    for start in range(0, len(ordered), 1000):
        records = gallery.store.records(ordered[start : start + 1000])
        ids |= {key: record.id for key, record in records.items()}
    return ids


def _recall(client: Client, queries: NDArray[np.float32], exact: list[set[str]]) -> dict[float, float]:
    """Return the recall of searches by each target."""
    recalls = {}
    for target in TARGETS:
        found = 0
        for start in range(0, len(queries), _PER_REQUEST):
            part = [code.tolist() for code in queries[start : start + _PER_REQUEST]]
            answers = client.search_batch(part, k=_K, target_recall=target, include=[])
            for ids, item in zip(exact[start:], answers, strict=False):
                assert item.answer is not None, item.problem
                found += len(ids & {result.id for result in item.answer.results})
        recalls[target] = found / (_K * len(queries))
    return recalls


def _under_load(
    client: Client, address: str, queries: NDArray[np.float32], *, rate: int, seconds: int
) -> dict[float, dict[str, float]]:
    """Search at a steady rate, by each target in turn, and read what is told meanwhile.

    Returns: by target, the recall that is told at the end, the upper end of its interval, and after how many seconds it
        was first told to be below its promise; infinite if it never was.
    """
    first: dict[float, float] = dict.fromkeys(TARGETS, float("inf"))
    last: dict[float, dict[str, float]] = {}
    with _searching(address, queries, rate=rate):
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < seconds:
            for told in client.stats().live_recall.plans:
                target = told.target_recall
                if target in first:
                    last[target] = {"recall": told.recall, "high": told.recall_high}
                    if told.below_promise:
                        first[target] = min(first[target], elapsed)
            time.sleep(_POLL_S)
    nothing = {"recall": float("nan"), "high": float("nan")}
    return {target: {**last.get(target, nothing), "seconds": round(first[target], 1)} for target in TARGETS}


@contextmanager
def _searching(address: str, queries: NDArray[np.float32], *, rate: int) -> Iterator[None]:
    """Search at a steady rate within the block, from a few threads."""
    over = threading.Event()
    begun = time.monotonic()
    threads = 4

    def search(first: int) -> None:
        with Client(address) as client:
            for number in range(first, len(queries), threads):
                over.wait(max(0.0, begun + number / rate - time.monotonic()))
                if over.is_set():
                    return
                target = TARGETS[number % len(TARGETS)]
                client.search(queries[number].tolist(), k=_K, target_recall=target, include=[])

    running = [threading.Thread(target=search, args=(first,)) for first in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in running:
            thread.join()


def _compare_speed(gallery: Path, work: Path, *, rounds: int) -> dict[str, float]:
    """Return throughput, and processor time a search, with live recall over those without: medians of rounds in turn.

    What other processes take of a busy machine makes throughput uncertain; processor time hardly depends on it.
    """
    without = os.environ | {"EIGENLENS_RECALL_SHARE": "0", "EIGENLENS_RECENT_QUERIES": "0"}
    cell = Cell(_PHOTOS, "closed", _CLIENTS, seconds=_ROUND_S)
    speeds: list[float] = []
    costs: list[float] = []
    with (
        running_service(gallery, work / "with.log") as checked,
        running_service(gallery, work / "without.log", environment=without) as plain,
    ):
        for number in range(rounds):
            pair = [checked, plain] if number % 2 else [plain, checked]
            speed, cost = {}, {}
            for server in pair:
                before = server.cpu_s()
                measured = run_load(cell, "eigenlens", server, work / "photos", warm_s=_WARM_S, seed=number)
                speed[server.port] = measured.throughputs[0]
                # The warm-up has searches too, at the same pace.
                cost[server.port] = (server.cpu_s() - before) / (measured.throughputs[0] * (_ROUND_S + _WARM_S))
            speeds.append(speed[checked.port] / speed[plain.port])
            costs.append(cost[checked.port] / cost[plain.port])
    return {"throughput_ratio": float(np.median(speeds)), "cpu_ratio": float(np.median(costs))}
