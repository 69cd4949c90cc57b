"""`eigenlens bench gallery-scale`: a gallery of any size from shards of images to answers, in each search engine.

The images are those of a gallery, each turned and shaded so that no two are equal, with the gallery's encoder. The
commands are the ones that people call: `encode`, `build --codes`, `build --backend`, `migrate`, and `serve`. Started
again with the same folder and the same servers, it leaves out the steps that ended.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image, ImageEnhance

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.common.service_process import running_service
from eigenlens.index.backends import FAISS, PGVECTOR, QDRANT
from eigenlens.index.building.sizes import codes_bytes, index_bytes
from eigenlens.index.pgvector_engine.sizes import graph_bytes, table_bytes
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.qdrant_engine.server import URL_VARIABLE
from eigenlens.index.qdrant_engine.sizes import vector_bytes
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store.open import VARIABLE

_PER_SHARD = 10_000
_SEARCHES = 200


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--gallery", metavar="DIR", type=Path, required=True, help="whose images are copied")
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="for shards, codes and the new gallery")
    parser.add_argument("--count", type=positive, default=200_000, help="images (default: %(default)s)")
    parser.add_argument("--length", type=positive, default=64, help="prefix that finds shortlists (default: 64)")
    parser.add_argument(
        "--store",
        metavar="ADDRESS",
        default=os.environ.get(VARIABLE),
        help="address of an empty schema in a PostgreSQL with pgvector, which is left out without (default: "
        f"{VARIABLE})",
    )
    parser.add_argument(
        "--backend-url",
        metavar="URL",
        default=os.environ.get(URL_VARIABLE),
        help=f"address of a Qdrant, which is left out without (default: {URL_VARIABLE})",
    )
    parser.add_argument("--name", default="fashion-mnist-copies", help="name of the images in records")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Make the images, and run the commands one after the other. Raises: RuntimeError, if one fails."""
    args.work.mkdir(parents=True, exist_ok=True)
    scale = _Scale(args)
    source = Gallery(args.gallery)
    with closing(source.store):
        encoder = source.encoder_path(source.current_encoder_id())
        scale.run("images", lambda: scale.write_images(source))
    shards, codes, gallery = (str(args.work / name) for name in ("shards", "codes", "gallery"))
    build = ["build", "--gallery", gallery, "--lengths", str(args.length)]
    scale.call("encode", ["encode", "--encoder", str(encoder), "--images", shards, "--out", codes])
    scale.call(FAISS, [*build, "--encoder", str(encoder), "--codes", codes])
    scale.serve(FAISS)
    if args.backend_url:
        scale.environment[URL_VARIABLE] = args.backend_url
        scale.call(QDRANT, [*build, "--backend", QDRANT])
        scale.serve(QDRANT)
    if args.store:
        scale.environment[VARIABLE] = args.store
        scale.call("migrate", ["migrate", "--gallery", gallery])
        scale.call(PGVECTOR, [*build, "--backend", PGVECTOR])
        scale.serve(PGVECTOR)


def write_shards(source: Gallery, folder: Path, *, count: int) -> int:
    """Write copies of a gallery's images, none equal to another, as tars, anew. Returns: their bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    keys, _ = source.store.contents()
    images = copies(source, keys[: min(len(keys), count)].tolist())
    for start in range(0, count, _PER_SHARD):
        with tarfile.open(folder / f"{start // _PER_SHARD:04d}.tar", "w") as tar:
            for number in range(start, min(start + _PER_SHARD, count)):
                content = next(images)
                member = tarfile.TarInfo(f"{number:08d}.png")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return sum(path.stat().st_size for path in folder.iterdir())


def copies(source: Gallery, keys: Sequence[int]) -> Iterator[bytes]:
    """Yield the images in turns without end, each turned and shaded at random, as PNG."""
    rng = np.random.default_rng(0)
    while True:
        for key in keys:
            image = Image.open(io.BytesIO(source.store.content(key)))
            turned = image.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)
            shaded = ImageEnhance.Brightness(turned).enhance(rng.uniform(0.7, 1.3))
            data = io.BytesIO()
            shaded.save(data, "PNG", compress_level=1)
            yield data.getvalue()


class _Scale:
    """The commands over one gallery, and what they took."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args, self._gallery = args, args.work / "gallery"
        self.environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, URL_VARIABLE)}
        self._records: list[dict[str, Any]] = []

    def run(self, step: str, work: Callable[[], None]) -> None:
        """Do a step that did not end before, and add its records to the results when it ends."""
        ended = self._args.work / f"{step}.ended"
        if ended.exists():
            return
        work()
        if self._args.results is not None:
            append_records(self._args.results, self._records)
        self._records = []
        ended.touch()

    def write_images(self, source: Gallery) -> None:
        """Write the images; record their bytes and the time."""
        begun = time.perf_counter()
        size = write_shards(source, self._args.work / "shards", count=self._args.count)
        self.record("images", "bytes_per_image", size / self._args.count, "B")
        self.record("images", "seconds", time.perf_counter() - begun, "s")

    def call(self, step: str, arguments: Sequence[str]) -> None:
        """Run a command as a step; record the time that passed and that its processor worked, and its memory.

        The time of a database's processor is not in it.
        """
        self.run(step, lambda: self._call(step, arguments))

    def _call(self, step: str, arguments: Sequence[str]) -> None:
        log = self._args.work / f"{step}.log"
        begun = time.perf_counter()
        with log.open("wb") as f:
            command = [sys.executable, "-m", "eigenlens", *arguments]
            process = subprocess.Popen(command, stdout=f, stderr=f, env=self.environment)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begun
        if process.returncode:
            raise RuntimeError(f"{step} failed: {log.read_text()[-1000:]}")
        self.record(step, "seconds", seconds, "s")
        self.record(step, "processor_s", used.ru_utime + used.ru_stime, "s")
        self.record(step, "memory_mb", used.ru_maxrss / 1e3, "MB")

    def serve(self, backend: str) -> None:
        """Serve the gallery from this backend, as a step: record its bytes, a start, searches, and its memory."""
        self.run(f"serve {backend}", lambda: self._serve(backend))

    def _serve(self, backend: str) -> None:
        self._record_bytes(backend)
        begun = time.perf_counter()
        with running_service(self._gallery, self._args.work / "serve.log", environment=self.environment) as server:
            self.record(f"serve {backend}", "start_s", time.perf_counter() - begun, "s")
            with httpx.Client(base_url=server.address, timeout=60) as client:
                listed = client.get(f"/v1/images?limit={_SEARCHES}").raise_for_status().json()["images"]
                times = [_search(client, image["id"]) for image in listed]
            self.record(f"serve {backend}", "p50_ms", float(np.median(times)), "ms")
            self.record(f"serve {backend}", "memory_mb", server.memory_mb(), "MB")

    def _record_bytes(self, backend: str) -> None:
        gallery = Gallery(self._gallery, store=self.environment.get(VARIABLE))
        with closing(gallery.store):
            _, generation = gallery.open_current()
            count, code_length, specs = len(generation), generation.code_length, generation.specs
            computed = computed_bytes(backend, specs, count=count, code_length=code_length)
            measured = {name: generation.bytes_of(name) for name in generation.lengths}
            codes = sum(path.stat().st_size for path in generation.codes.artifact.path.iterdir())
            vectors = gallery.store.vectors()
            if backend == PGVECTOR and vectors is not None:
                table = generation.artifact.properties["table"]
                ((codes,),) = vectors.query(f"SELECT pg_relation_size('{table}') + pg_relation_size('{table}_pkey')")
        for part, size in computed.items():
            self.record(f"{backend} {part}", "computed_bytes_per_image", size / count, "B")
            # Of Qdrant nobody tells the bytes: a test compares them with the files of its engine.
            if backend != QDRANT:
                held = codes if isinstance(part, str) else measured[part]
                self.record(f"{backend} {part}", "bytes_per_image", held / count, "B")
                self.record(f"{backend} {part}", "bytes_by_computed", held / size)

    def record(self, step: str, metric: str, value: float, unit: str = "") -> None:
        """Print a value, and keep it for when its step ends."""
        print(f"{step:18} {metric:26} {value:12.3f} {unit}", flush=True)
        if self._args.results is not None:
            subject = Subject("gallery-scale", self._args.name, step, params={"count": self._args.count})
            self._records.append(make_record(subject, metric, round(value, 4), unit))


def computed_bytes(
    backend: str, specs: Sequence[IndexSpec], *, count: int, code_length: int
) -> Mapping[str | int, float]:
    """Return the bytes of the codes, and of the index of each length that has one, as a build computes them before."""
    if backend == FAISS:
        codes, sizes = codes_bytes(count, code_length), index_bytes(specs, count)
    elif backend == PGVECTOR:
        codes, sizes = table_bytes(count, code_length), graph_bytes(specs, count)
    else:
        codes, sizes = vector_bytes(specs, count), {}
    return {"codes": codes} | {spec.length: size for spec, size in sizes.items() if size}


def _search(client: httpx.Client, id: str) -> float:
    """Search for what is like an image; return the milliseconds."""
    query: dict[str, Any] = {"id": id, "k": 10}
    begun = time.perf_counter()
    client.post("/v1/search", json=query).raise_for_status()
    return 1000 * (time.perf_counter() - begun)
