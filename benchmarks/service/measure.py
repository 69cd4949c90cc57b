"""Throughput and latency of the service under load, beside the limit of its cores and a plain endpoint."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from eigenlens.benchmarks.common.service_process import Server, running_service, stopping
from eigenlens.benchmarks.service.plain_endpoint import GALLERY_VARIABLE, INDEX_VARIABLE, write_index
from eigenlens.model.images.decode import decode
from eigenlens.model.images.sources import Source
from eigenlens.service.commands.listening import listen
from eigenlens.service.gallery.layout import Gallery

# Longest side in pixels, or pixels in all; how many photographs.
PHOTOS = {"200px": (200, None, 64), "1mp": (None, 1e6, 16), "12mp": (None, 12e6, 4)}
PATHS = {"eigenlens": "/v1/search?k=10", "plain-fastapi": "/search?k=10"}
# What is searched by other than a photograph: path of the service, searches in one request.
QUERIES = {"id": ("/v1/search?k=10", 1), "code": ("/v1/search?k=10", 1), "codes": ("/v1/search/batch?k=10", 100)}
_QUERY_COUNT = 1000
_QUALITY = 90
_READY_S = 60.0
_BATCH = 16


def write_photos(source: Source, folder: Path, *, sizes: Iterable[str]) -> None:
    """Write JPEG photographs of these sizes, made from the source's, below `folder`; what is there is left as it is."""
    for name in sizes:
        side, pixels, count = PHOTOS[name]
        target = folder / name
        if target.is_dir() and len(list(target.iterdir())) == count:
            continue
        target.mkdir(parents=True, exist_ok=True)
        for number, image in zip(range(count), source, strict=False):
            photo = decode(image.data)
            scale = side / max(photo.size) if side else (float(pixels or 0) / (photo.width * photo.height)) ** 0.5
            size = round(photo.width * scale), round(photo.height * scale)
            buffer = io.BytesIO()
            photo.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=_QUALITY)
            (target / f"{number:03d}.jpg").write_bytes(buffer.getvalue())


def write_queries(gallery: Gallery, folder: Path, *, kinds: Iterable[str]) -> None:
    """Write the bodies of searches by ids and codes of random images of a gallery, in place of what is there."""
    _, generation = gallery.open_current()
    rng = np.random.default_rng(0)
    for kind in kinds:
        target = folder / kind
        shutil.rmtree(target, ignore_errors=True)  # it may be of another gallery
        target.mkdir(parents=True)
        _, size = QUERIES[kind]
        for number in range(_QUERY_COUNT // size):
            rows = rng.integers(0, len(generation), size)
            if kind == "id":
                records = gallery.store.records(generation.keys[rows].tolist())
                searches = [{"id": record.id} for record in records.values()]
            else:
                codes = generation.codes.codes[rows].astype(float).round(6)
                searches = [{"code": code.tolist()} for code in codes]
            body = {"searches": searches} if kind == "codes" else searches[0]
            (target / f"{number:04d}.json").write_text(json.dumps(body))


@dataclass(frozen=True)
class Cell:
    """One measurement: so many clients (closed loop) or requests a second (open loop).

    Attributes:
        photo: the size of the photographs, one of PHOTOS, or another sort of search, one of QUERIES.
        workers: processes of the service.
    """

    photo: str
    load: str
    concurrency: int
    rate: float | None = None
    seconds: float = 4.0
    workers: int = 1


@dataclass
class Measured:
    """Results of the rounds of one method in one cell.

    Attributes:
        lost: requests without an answer.
        failed: searches that failed in answers to several.
    """

    throughputs: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    batches: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    failed: int = 0
    more: dict[str, list[float]] = field(default_factory=dict)

    def add(self, answer: Mapping[str, Any], *, searches: int = 1) -> None:
        """Count one round of a load generator, whose requests are of so many searches; failed ones are not answered."""
        self.failed += answer["failed_counted"]
        answered = searches * len(answer["latencies_ms"]) - answer["failed_counted"]
        self.throughputs.append(answered / answer["seconds"])
        self.latencies_ms += answer["latencies_ms"]
        self.statuses.update(answer["statuses"])
        self.batches.update({int(size): count for size, count in answer["batches"].items()})
        self.lost += answer["lost"]

    def metrics(self) -> Iterator[tuple[str, float, str]]:
        """Yield name, value and unit of what is recorded: medians over rounds, percentiles over all requests."""
        yield "throughput_rps", round(float(np.median(self.throughputs)), 1), "1/s"
        for q in (50, 95, 99) if self.latencies_ms else ():
            yield f"p{q}_ms", round(float(np.percentile(self.latencies_ms, q)), 2), "ms"
        if self.batches:
            mean = sum(size * count for size, count in self.batches.items()) / self.batches.total()
            yield "batch_mean", round(mean, 2), ""
        for name, values in self.more.items():
            yield name, round(float(np.median(values)), 4), "ms" if name.endswith("_ms") else "MB"


@contextmanager
def servers(gallery: Path, work: Path) -> Iterator[dict[str, Server]]:
    """Run the service and the plain endpoint over one gallery, both warm."""
    index = plain_index(Gallery(gallery), work)
    with (
        running_service(gallery, work / "service.log") as service,
        _running_plain_endpoint(gallery, index, work / "plain.log") as plain,
    ):
        yield {"eigenlens": service, "plain-fastapi": plain}


def plain_index(gallery: Gallery, work: Path) -> Path:
    """Return the plain endpoint's index of a gallery, built once for each generation."""
    number, generation = gallery.open_current()
    index = work / f"plain-{generation.encoder_id}-{number}-{len(generation)}.faiss"
    if not index.exists():
        write_index(gallery, index.with_suffix(".tmp"))
        index.with_suffix(".tmp").rename(index)
    return index


@contextmanager
def _running_plain_endpoint(gallery: Path, index: Path, log: Path) -> Iterator[Server]:
    """Serve a gallery by the plain endpoint, from when it answers to the end of the block."""
    server = _start_plain_endpoint(gallery, index, log)
    with stopping(server.process):
        yield server


def _start_plain_endpoint(gallery: Path, index: Path, log: Path) -> Server:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "--factory", "eigenlens.benchmarks.service.plain_endpoint:create_app"]
    command += ["--port", str(port), "--no-access-log"]
    environment = os.environ | {GALLERY_VARIABLE: str(gallery), INDEX_VARIABLE: str(index)}
    with log.open("wb") as f:
        process = subprocess.Popen(command, stderr=f, env=environment)
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/openapi.json", timeout=1).status_code == 200:
                return Server(process, address)
        except httpx.TransportError:
            time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the plain endpoint did not start: {log.read_text()}")


def run_load(cell: Cell, method: str, server: Server, photos: Path, *, warm_s: float, seed: int) -> Measured:
    """Measure one round against a server, by a load generator in a process of its own."""
    path, searches = QUERIES.get(cell.photo, (PATHS[method], 1))
    spec = {
        "bodies": str(photos / cell.photo),
        "json": cell.photo in QUERIES,
        "path": path,
        "form": True,
        "port": server.port,
        "load": cell.load,
        "concurrency": cell.concurrency,
        "rate": cell.rate,
        "seconds": cell.seconds,
        "warm_s": warm_s,
        "seed": seed,
    }
    measured = Measured()
    with _memory(server, measured, after_s=warm_s + cell.seconds / 4):
        before_s = server.cpu_s()
        answer = _in_process_of_its_own("eigenlens.benchmarks.service.load", spec)
        took_s = server.cpu_s() - before_s
        measured.add(answer, searches=searches)
    measured.more["cpu_ms"] = [1000 * took_s / max(1, searches * answer["answers"] - answer["failed"])]
    return measured


def run_in_process(cell: Cell, gallery: Path, photos: Path, *, warm_s: float) -> Measured:
    """Measure one round of the limit."""
    times = {"warm_s": warm_s, "seconds": cell.seconds}
    spec = {"gallery": str(gallery), "photos": str(photos / cell.photo), "batch": _BATCH, **times}
    answer = _in_process_of_its_own("eigenlens.benchmarks.service.in_process", spec)
    measured = Measured(throughputs=[answer.pop("throughput_rps")])
    measured.more = {name: [value] for name, value in answer.items()}
    return measured


def merged(rounds: Iterable[Measured]) -> Measured:
    """Merge several rounds of one cell."""
    total = Measured()
    for one in rounds:
        total.throughputs += one.throughputs
        total.latencies_ms += one.latencies_ms
        total.statuses.update(one.statuses)
        total.batches.update(one.batches)
        total.lost += one.lost
        total.failed += one.failed
        for name, values in one.more.items():
            total.more.setdefault(name, []).extend(values)
    return total


@contextmanager
def _memory(server: Server, measured: Measured, *, after_s: float) -> Iterator[None]:
    """Note the server's memory once it is warm, and how much it has grown by the end."""
    seen: list[float] = []
    timer = threading.Timer(after_s, lambda: seen.append(server.memory_mb()))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if seen:
        measured.more |= {"memory_mb": [seen[0]], "memory_growth_mb": [server.memory_mb() - seen[0]]}


def _in_process_of_its_own(module: str, spec: Mapping[str, Any]) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", module], input=json.dumps(spec).encode(), capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr.decode()}")
    return json.loads(done.stdout)
