"""Recall against latency of Eigenlens and of other indexes, on the same codes, one query at a time on one thread."""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.benchmarks.search.interleaved import (
    PASSES,
    Opened,
    Search,
    Trial,
    in_process_of_its_own,
    run_interleaved,
    time_each,
)
from eigenlens.benchmarks.search.peers import PEERS, Ids, Vectors
from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.row_order import order_rows
from eigenlens.index.codes.artifact import Codes, read_rows, writing_codes
from eigenlens.index.codes.exact import exact_search
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.metrics import recall_at_k
from eigenlens.index.plans.calibration import Measured
from eigenlens.index.plans.plan import Plan

TARGETS = (0.9, 0.95, 0.99, 0.999)
METHODS = ("flat", "eigenlens", *PEERS)
_K = 10
_CHUNK = 50_000
_EXACT_QUERIES = 100
_SLOWEST_MS = 25.0


@dataclass(frozen=True)
class Setup:
    """One size of gallery on disk.

    Attributes:
        codes: raw half-precision codes (count, code_length), in the order of views.
        calibration, fresh: raw half-precision codes of queries; the first are for choosing plans, the others measured.
    """

    work: Path
    codes: Path
    calibration: Path
    fresh: Path
    count: int
    code_length: int
    lengths: tuple[int, ...]
    kinds: Mapping[int, str]
    encoder: str

    @property
    def folder(self) -> Path:
        """Where this size keeps what it makes."""
        return self.work / str(self.count)

    def read(self, path: Path) -> NDArray[np.float16]:
        """The codes of a raw file, memory-mapped."""
        return np.memmap(path, dtype=np.float16, mode="r").reshape(-1, self.code_length)

    @property
    def gallery(self) -> NDArray[np.float16]:
        """The codes that are searched."""
        return self.read(self.codes)[: self.count]

    @property
    def queries(self) -> Vectors:
        """The queries that are measured, unit norm."""
        return unit_prefix(self.read(self.fresh), self.code_length)


def measure(setup: Setup, methods: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return values of each method: searches at the targets and exact ones are timed in turn with the others'."""
    values, times = run_interleaved({method: _OPEN.get(method, _open_peer) for method in methods}, setup)
    for method, timed in times.items():
        for one in timed:
            params = dict(one.params)
            if params.get("exact"):
                params["identical"] = _identical(setup, one.ids)
            values[method].append(_latency(one.milliseconds, _recall(one.ids, truth(setup)), **params))
    return values


def truth(setup: Setup) -> Ids:
    """Return the rows of the exact 10 nearest of every measured query, (q, 10); kept on disk."""
    path = setup.folder / f"truth-{setup.encoder}-{zlib.crc32(setup.fresh.read_bytes()):08x}.npy"
    if not path.exists():
        setup.folder.mkdir(parents=True, exist_ok=True)
        np.save(path, exact_search(setup.gallery, setup.queries, length=setup.code_length, k=_K)[1])
    return np.asarray(np.load(path, allow_pickle=False))


def _open_flat(setup: Setup, method: str) -> Opened:
    before, vectors = _anonymous_bytes(), _vectors(setup)
    started = time.perf_counter()
    index = faiss.IndexFlatIP(setup.code_length)
    index.add(vectors)
    built = time.perf_counter() - started
    del vectors
    memory = _anonymous_bytes() - before
    faiss.omp_set_num_threads(1)
    values = [_value("build_s", built, "s"), _value("memory_bytes", memory, "B")]
    return Opened(values, [_exact(setup, lambda query: np.asarray(index.search(query, _K)[1][0]))])


def _exact(setup: Setup, search: Search, **params: Any) -> Trial:
    """Return a search of everything: it takes its time, so few queries and one pass are enough."""
    return Trial("exact", lambda: search, setup.queries[:_EXACT_QUERIES], passes=1, params={"exact": True} | params)


def _open_eigenlens(setup: Setup, method: str) -> Opened:
    built = _built(setup)
    os.sync()  # what was built is written back now, and not while searches are timed
    started = time.perf_counter()
    codes = Codes(setup.folder / "codes")
    generation = Generation(setup.folder / "generation", codes)
    values = [
        _value("build_s", built["build_s"], "s", **{k: v for k, v in built.items() if k != "build_s"}),
        _value("start_s", time.perf_counter() - started, "s"),
    ]
    trials = []
    for target in TARGETS:
        chosen = generation.calibration.choose(k=_K, target_recall=target)
        plan, search = asdict(chosen.plan), _searching(generation, chosen.for_k(_K))
        with in_process_of_its_own() as another:
            memory = another.submit(_memory_of, setup, chosen.for_k(_K)).result()
        values.append(_value("memory_bytes", memory, "B", recall=target))
        trials.append(
            Trial(
                f"recall {target}",
                lambda search=search: search,  # type: ignore[misc]
                setup.queries[: _EXACT_QUERIES if chosen.exact else None],
                passes=1 if chosen.exact else PASSES,
                params={"target": target, "plan": plan, "memory_bytes": memory},
            )
        )
    for point in _curve(generation.calibration.measured):
        times, ids = _time(_searching(generation, point.for_k(_K)), setup.queries[:500])
        values.append(_latency(times, _recall(ids, truth(setup)), curve=True, plan=asdict(point.plan)))
    exact = generation.calibration.choose(k=_K, target_recall=1.0)
    trials.append(_exact(setup, _searching(generation, exact.for_k(_K)), plan=asdict(exact.plan)))
    return Opened(values, trials)


def _memory_of(setup: Setup, plan: Plan) -> int:
    """Return what a process holds that searches by one plan: its own memory, the codes and a mapped index's file."""
    before = _anonymous_bytes()
    generation = Generation(setup.folder / "generation", Codes(setup.folder / "codes"))
    search, queries = _searching(generation, plan), setup.queries
    for number in range(_EXACT_QUERIES):
        search(queries[number : number + 1])
    mapped = generation.bytes_of(plan.prefix_length) if require_kind(plan.kind).mapped else 0
    codes = generation.codes.codes.nbytes if plan.rerank_length is not None else 0
    return _anonymous_bytes() - before + mapped + codes


def _open_peer(setup: Setup, method: str) -> Opened:
    peer = PEERS[method]()
    before, vectors = _anonymous_bytes(), _vectors(setup)
    started = time.perf_counter()
    peer.build(vectors)
    built = time.perf_counter() - started
    del vectors
    memory = _anonymous_bytes() - before
    values = [_value("build_s", built, "s", **peer.settings), _value("memory_bytes", memory, "B")]
    reached: list[tuple[float, int]] = []
    for effort in peer.efforts:
        times, ids = _time(peer.prepare(effort), setup.queries)
        recall, median = _recall(ids, truth(setup)), float(np.median(times))
        reached.append((recall, effort))
        values.append(_latency(times, recall, curve=True, effort=effort))
        if recall >= max(TARGETS) or median > _SLOWEST_MS:
            break
    trials = []
    for target in TARGETS:
        # Efforts ascend: the first is the quickest, whatever disturbed the machine while the curve was timed.
        least = next((effort for recall, effort in reached if recall >= target), None)
        if least is not None:
            params = {"target": target, "effort": least}
            trials.append(Trial(f"recall {target}", partial(peer.prepare, least), setup.queries, params=params))
    return Opened(values, trials)


_OPEN: dict[str, Callable[[Setup, str], Opened]] = {"flat": _open_flat, "eigenlens": _open_eigenlens}


def _built(setup: Setup) -> dict[str, float]:
    """Build the generation, unless it is there, and say how long that took and the most memory it held."""
    noted = setup.folder / "built.json"
    if not noted.exists():
        _write_codes(setup)
        started = time.perf_counter()
        codes = Codes(setup.folder / "codes", verify=False)
        built = build_generation(
            setup.folder / "generation",
            codes,
            BuildOptions(
                lengths=setup.lengths,
                kinds=setup.kinds,
                queries=unit_prefix(setup.read(setup.calibration), setup.code_length),
            ),
        )
        total = time.perf_counter() - started
        spent = built.properties["calibration"]["seconds"]
        ordered = json.loads((setup.folder / "arranged.json").read_text())["arrange_s"]
        values = {
            "build_s": round(total - spent + ordered, 1),
            "calibration_s": spent,
            "arrange_s": round(ordered, 1),
            "peak_resident_bytes": _peak_resident_bytes(),
        }
        artifact.write_atomic(noted, json.dumps(values).encode())
    return dict(json.loads(noted.read_text()))


def _write_codes(setup: Setup) -> None:
    path = setup.folder / "codes"
    if path.exists():
        return
    started = time.perf_counter()
    order = order_rows(lambda start, stop: _run(setup, start, stop), setup.count)
    arranged = time.perf_counter() - started
    artifact.write_atomic(setup.folder / "arranged.json", json.dumps({"arrange_s": arranged}).encode())
    with writing_codes(path, count=setup.count, code_length=setup.code_length, encoder_id=setup.encoder) as writer:
        for start in range(0, setup.count, _CHUNK):
            rows = order[start : start + _CHUNK]
            writer.append(rows, read_rows(setup.codes, rows, code_length=setup.code_length))


def _run(setup: Setup, start: int, stop: int) -> NDArray[np.float16]:
    width = setup.code_length
    codes = np.fromfile(setup.codes, dtype=np.float16, count=(stop - start) * width, offset=2 * width * start)
    return codes.reshape(-1, width)


def _searching(generation: Generation, plan: Plan) -> Search:
    return lambda query: generation.keys.take(generation.search(query, plan=plan, k=_K)[1][0])


def _curve(measured: Sequence[Measured]) -> Iterator[Measured]:
    """Yield the front of recall@10 against latency, as it was calibrated."""
    best = 0.8
    for point in sorted(measured, key=lambda m: m.latency_ms["p50"]):
        if point.recall[_K].mean > best + 0.002 and not point.exact:
            best = point.recall[_K].mean
            yield point


def _vectors(setup: Setup) -> Vectors:
    return np.concatenate(
        [
            unit_prefix(_run(setup, i, min(i + _CHUNK, setup.count)), setup.code_length)
            for i in range(0, setup.count, _CHUNK)
        ]
    )


def _time(search: Search, queries: Vectors) -> tuple[list[float], list[Ids]]:
    """Return milliseconds and results of every query; a first pass over them all is not timed."""
    time_each(search, queries)
    return time_each(search, queries)


def _recall(ids: Sequence[Ids], exact: Ids) -> float:
    return float(recall_at_k(np.asarray(ids), exact[: len(ids)]).mean())


def _identical(setup: Setup, ids: Sequence[Ids]) -> bool:
    """Tell whether the results' scores are the exact ones: ids may differ where scores tie."""
    queries = setup.queries
    for number, rows in enumerate(ids):
        exact = unit_prefix(setup.gallery[truth(setup)[number]], setup.code_length) @ queries[number]
        scores = unit_prefix(setup.gallery[np.asarray(rows)], setup.code_length) @ queries[number]
        if not np.allclose(np.sort(exact), np.sort(scores), atol=1e-6):
            return False
    return True


def _latency(times: Sequence[float], recall: float, *, target: float | None = None, **params: Any) -> dict[str, Any]:
    p50, p95, p99 = (round(float(np.percentile(times, q)), 4) for q in (50, 95, 99))
    goal = {} if target is None else {"recall": target}
    return _value("latency_ms", p50, "ms", threads=1, **goal, recall_seen=round(recall, 4), p95=p95, p99=p99, **params)


def _value(metric: str, value: float, unit: str, **params: Any) -> dict[str, Any]:
    return {"metric": metric, "value": round(float(value), 4), "unit": unit, "params": params}


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _anonymous_bytes() -> int:
    return _status("RssAnon")


def _peak_resident_bytes() -> int:
    return _status("VmHWM")


def missing(method: str) -> str | None:
    """Tell why a method cannot be measured here; None if it can."""
    if method in ("flat", "eigenlens", "faiss-hnsw"):
        return None
    try:
        __import__(method)
    except ImportError as error:
        return f"{error}; `pip install '.[peers]'` brings it"
    return None


def print_values(method: str, values: Sequence[Mapping[str, Any]]) -> None:
    """Print a method's values but those of its curve."""
    for value in values:
        params = value["params"]
        if params.get("curve"):
            continue
        target = "exact" if params.get("exact") else f"recall {params['recall']}" if "recall" in params else ""
        seen = f"recall seen {params['recall_seen']:.4f}" if "recall_seen" in params else ""
        print(f"{method:<12}{value['metric']:<14}{target:<14}{value['value']:>16,.4f} {value['unit']:<4}{seen}")
    sys.stdout.flush()
