"""`eigenlens bench backends`: the same codes in FAISS, PostgreSQL and Qdrant: recall, latency, and bytes.

The last images, a random sample, are the queries, and all others are indexed in each. Searches of the backends take
turns, so that all meet the same machine. Where no Qdrant runs, `python -m tests.support.qdrant_double` in a checkout
prints the address of a double of its server over its engine: its times have Python on both ends of the connection. Of
the same searches, what the server says that its engine took is recorded too.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.index.backends import FAISS, PGVECTOR, QDRANT, Backend, FaissBackend, PgvectorBackend, QdrantBackend
from eigenlens.index.building.build import BuildOptions
from eigenlens.index.codes.artifact import Codes, writing_codes
from eigenlens.index.codes.exact import exact_search
from eigenlens.index.filters.parse import Filter, parse_filter
from eigenlens.index.live.engine import LiveEngine
from eigenlens.index.live.generation import BaseGeneration
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.qdrant_engine.names import CollectionNames
from eigenlens.index.qdrant_engine.server import QdrantServer
from eigenlens.index.qdrant_engine.sizes import vector_bytes
from eigenlens.index.threads import all_cores
from eigenlens.service.commands.options import configure_backend, parse_lengths, qdrant_of
from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.layout import Gallery

TARGETS = (0.9, 0.95, 0.99)
_K = 10
# Filters by a random number of each image, and the share that they leave.
FILTERS: Mapping[str, dict[str, Any] | None] = {
    "none": None,
    "0.5": {"number": {"$lt": 500}},
    "0.02": {"number": {"$lt": 20}},
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--gallery", metavar="DIR", type=Path, required=True, help="gallery whose codes are indexed")
    parser.add_argument(
        "--store",
        metavar="ADDRESS",
        default=os.environ.get("EIGENLENS_STORE"),
        help="address of an empty schema in a PostgreSQL with pgvector (default: EIGENLENS_STORE)",
    )
    configure_backend(parser)
    parser.add_argument("--name", default="fashion-mnist", help="name of the images in records (default: %(default)s)")
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="where the codes are indexed")
    parser.add_argument("--queries", type=positive, default=500, help="images to search with (default: %(default)s)")
    parser.add_argument("--count", type=positive, help="index only so many images (default: all others)")
    parser.add_argument(
        "--lengths", type=parse_lengths, default=[64], metavar="N,N,...", help="lengths to index (default: 64)"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


@dataclass(frozen=True)
class _Case:
    """Searches of one kind: a target, or a plan's lengths; a filter by the share that it leaves; what was removed."""

    request: PlanRequest
    filter: str = "none"
    change: str = "none"

    @property
    def params(self) -> dict[str, Any]:
        """Return what its records say of it."""
        request = self.request
        plan = f"{request.length} -> {request.rerank}, shortlist {request.shortlist}"
        if request.length is None:
            plan = f"target {request.target_recall}"
        return {"plan": plan, "filter": self.filter, "change": self.change}


CASES = (
    *(_Case(PlanRequest(target_recall=target)) for target in TARGETS),
    *(_Case(PlanRequest(64, rerank=128, shortlist=shortlist)) for shortlist in (50, 100)),
    *(_Case(PlanRequest(target_recall=0.99), filter=share) for share in ("0.5", "0.02")),
    *(_Case(PlanRequest(target_recall=0.99), change=change) for change in ("third removed", "half added")),
)


def run(args: argparse.Namespace) -> None:
    """Build all that have an address, search them in turns, and print a line for each case. Raises: EigenlensError."""
    qdrant = qdrant_of(args)
    if not args.store and qdrant is None:
        raise GalleryError(
            "give the address of an empty schema as EIGENLENS_STORE or --store, or of a Qdrant as "
            "EIGENLENS_BACKEND_URL or --backend-url"
        )
    gallery = Gallery(args.gallery)
    _, generation = gallery.open_current()
    codes, queries = _split(args.work, generation.codes, queries=args.queries, count=args.count)
    gallery.store.close()
    bench = _Bench(codes, queries, args, qdrant)
    bench.build(FaissBackend(), args.work / "faiss" / "000001")
    with ExitStack() as open_backends:
        if args.store:
            from eigenlens.service.gallery.store.postgres.vectors import VectorConnections  # needs psycopg

            database = open_backends.enter_context(closing(VectorConnections(args.store)))
            bench.build(PgvectorBackend(database), args.work / PGVECTOR / "000001")
            table = database.query("SELECT pg_relation_size('vectors_000001'), pg_relation_size('vectors_000001_pkey')")
            bench.record(PGVECTOR, {"part": "table"}, "bytes_per_image", table[0][0] / len(codes), "B")
            bench.record(PGVECTOR, {"part": "primary key"}, "bytes_per_image", table[0][1] / len(codes), "B")
        if qdrant is not None:
            open_backends.enter_context(closing(qdrant))
            names = CollectionNames(args.work / QDRANT)
            specs = bench.build(QdrantBackend(qdrant, names), args.work / QDRANT / "000001")
            open_backends.callback(qdrant.drop, names.of(1))
            vectors = vector_bytes(specs, len(codes)) / len(codes)
            bench.record(QDRANT, {"part": "vectors, computed"}, "bytes_per_image", vectors, "B")
        with all_cores(False):
            for case in CASES:
                bench.measure(case)


def _split(work: Path, codes: Codes, *, queries: int, count: int | None) -> tuple[Codes, NDArray[np.float32]]:
    """Write the first codes as an artifact of its own. Returns: it, and the codes of the last rows, (queries, d)."""
    if len(codes) < 2 * queries:
        raise GalleryError(f"the gallery has {len(codes)} images, too few for {queries} queries")
    held_in = len(codes) - queries
    # In random order: a build takes the last rows for a random sample, which those before a gallery's last are not.
    rows = np.random.default_rng(0).permutation(held_in)[:count]
    path = work / "codes"
    with writing_codes(path, count=len(rows), code_length=codes.code_length, encoder_id=codes.encoder_id) as writer:
        for start in range(0, len(rows), 10_000):
            batch = rows[start : start + 10_000]
            writer.append(codes.keys[batch], codes.codes[batch])
    return Codes(path), codes.codes[held_in:].astype(np.float32)


class _Bench:
    """The same codes in several backends."""

    def __init__(
        self, codes: Codes, queries: NDArray[np.float32], args: argparse.Namespace, qdrant: QdrantServer | None
    ) -> None:
        self._codes, self._queries, self._args, self._qdrant = codes, queries, args, qdrant
        rng = np.random.default_rng(0)
        self._numbers = rng.integers(0, 1000, len(codes))
        self._added = self._queries[rng.integers(0, len(queries), len(codes) // 2)] * 0.5
        self._added += 0.5 * codes.codes[: len(self._added)].astype(np.float32)
        self._generations: dict[str, BaseGeneration] = {}

    def build(self, backend: Backend, path: Path) -> Sequence[IndexSpec]:
        """Build the codes in a backend, and record time and bytes of its indexes. Returns: these."""
        path.parent.mkdir(parents=True)
        metadata = ({"number": int(number)} for number in self._numbers)
        lengths = backend.choose_lengths(self._codes.code_length, self._args.lengths)
        begun = time.perf_counter()
        backend.build(path, self._codes, BuildOptions(lengths=lengths, metadata=metadata))
        self.record(backend.name, {"part": "build"}, "build_s", time.perf_counter() - begun, "s")
        generation = self._generations[backend.name] = backend.open(path, self._codes)
        for spec in generation.specs:
            size = generation.bytes_of(spec.length) / len(self._codes)
            self.record(backend.name, {"part": f"{spec.length} {spec.kind}"}, "bytes_per_image", size, "B")
        return generation.specs

    def measure(self, case: _Case) -> None:
        """Search the backends in turns, and record recall and times; Qdrant reranks by lengths that it has only."""
        engines = {
            name: LiveEngine(generation)
            for name, generation in self._generations.items()
            if name != QDRANT or case.request.rerank in (None, "full", *generation.lengths)
        }
        kept, extra = np.ones(len(self._codes), dtype=bool), self._added[:0]
        for engine in engines.values():
            if case.change == "third removed":
                kept[::3] = False
                engine.remove(self._codes.keys[::3].tolist())
            if case.change == "half added":
                extra = self._added
                engine.add(range(10**9, 10**9 + len(extra)), extra, [{}] * len(extra))
        form = FILTERS[case.filter]
        filter = None if form is None else parse_filter(form)
        if form is not None:
            kept &= self._numbers < form["number"]["$lt"]
        gallery = np.concatenate([self._codes.codes[kept].astype(np.float32), extra])
        keys = np.concatenate([self._codes.keys[kept], np.arange(10**9, 10**9 + len(extra))])
        length = case.request.rerank if isinstance(case.request.rerank, int) else self._codes.code_length
        _, rows = exact_search(gallery, self._queries, length=length, k=_K)
        found: dict[str, list[set[int]]] = {name: [] for name in engines}
        times: dict[str, list[float]] = {name: [] for name in engines}
        engine_times: list[float] = []
        choosers = {name: PlanChooser(engine) for name, engine in engines.items()}
        for query in self._queries:
            for name, engine in engines.items():
                engine_s = 0.0 if self._qdrant is None else self._qdrant.engine_s
                keys_found, ms = _search(engine, choosers[name], case.request, query, filter)
                found[name].append(keys_found)
                times[name].append(ms)
                if name == QDRANT and self._qdrant is not None:
                    engine_times.append(1000 * (self._qdrant.engine_s - engine_s))
        medians = {name: float(np.median(ms)) for name, ms in times.items()}
        for name in engines:
            pairs = zip(found[name], keys[rows].tolist(), strict=True)
            recall = np.mean([len(hits.intersection(best)) / _K for hits, best in pairs])
            self.record(name, case.params, "recall@10", float(recall))
            self.record(name, case.params, "latency_ms", medians[name], "ms")
            self.record(name, case.params, "times_faiss", medians[name] / medians[FAISS])
        if engine_times:
            engine_ms = float(np.median(engine_times))
            self.record(QDRANT, case.params, "engine_ms", engine_ms, "ms")
            self.record(QDRANT, case.params, "engine_times_faiss", engine_ms / medians[FAISS])

    def record(self, backend: str, params: Mapping[str, Any], metric: str, value: float, unit: str = "") -> None:
        """Print a value, and add it to the results."""
        print(f"{backend:9} {' '.join(map(str, params.values())):36} {metric:16} {value:10.4f} {unit}", flush=True)
        if self._args.results is not None:
            subject = Subject(
                "backends",
                self._args.name,
                backend,
                self._codes.code_length,
                params={**params, "count": len(self._codes), "queries": len(self._queries)},
            )
            append_records(self._args.results, [make_record(subject, metric, round(value, 4), unit)])


def _search(
    engine: LiveEngine,
    chooser: PlanChooser,
    request: PlanRequest,
    query: NDArray[np.float32],
    filter: Filter | None,
) -> tuple[set[int], float]:
    """Choose a plan and search, as the service does. Returns: keys of the results, and milliseconds."""
    begun = time.perf_counter()
    if filter is None and not engine.removed:
        plan = chooser.choose(request, k=_K).plan
    else:
        reach = engine.reach(query[None], k=_K, filter=filter)[0]
        plan = chooser.choose_filtered(request, k=_K, reach=reach).plan
    nearest = engine.search(query[None], plan=plan, k=_K, filter=filter)[0]
    return {key for key, _ in nearest}, 1000 * (time.perf_counter() - begun)
