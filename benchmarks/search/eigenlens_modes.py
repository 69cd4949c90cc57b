"""Eigenlens as a method, with a generation for each of its modes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import get_args

import numpy as np

from eigenlens import artifact
from eigenlens.benchmarks.search.batches import RECALLS, batch_trials
from eigenlens.benchmarks.search.interleaved import (
    PASSES,
    Opened,
    Search,
    Timed,
    Trial,
    in_process_of_its_own,
)
from eigenlens.benchmarks.search.setup import K, Setup, truth
from eigenlens.benchmarks.search.values import (
    EXACT_QUERIES,
    TARGETS,
    anonymous_bytes,
    exact_trial,
    latency,
    peak_resident_bytes,
    recall_of,
    time_twice,
    value_of,
)
from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.row_order import order_rows
from eigenlens.index.codes.artifact import Codes, read_rows, writing_codes
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.graph.vamana import DEGREE, VAMANA, VamanaGraph
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.plans.calibration import Measured
from eigenlens.index.plans.plan import Optimise, Plan

# Method: what a build is for. The project's own is the one for latency.
MODES: dict[str, Optimise] = {"eigenlens": "latency"}
MODES |= {f"eigenlens-{mode}": mode for mode in get_args(Optimise) if mode not in MODES.values()}
_CHUNK = 50_000


def open_eigenlens(setup: Setup, method: str) -> Opened:
    """Build a mode's generation unless it is there, and open it."""
    mode = MODES[method]
    built = build(setup, mode=mode)
    os.sync()  # what was built is written back now, and not while searches are timed
    started = time.perf_counter()
    generation = _open(setup, mode)
    values = [
        value_of("build_s", built["build_s"], "s", **{k: v for k, v in built.items() if k != "build_s"}),
        value_of("start_s", time.perf_counter() - started, "s"),
    ]
    trials: list[Timed] = []
    for target in TARGETS:
        chosen = generation.calibration.choose(k=K, target_recall=target)
        plan, search = chosen.for_k(K), _searching(generation, chosen.for_k(K))
        with in_process_of_its_own() as another:
            memory = another.submit(_memory_of, setup, mode, plan).result()
        values.append(value_of("memory_bytes", memory, "B", recall=target))
        trials.append(
            Trial(
                f"recall {target}",
                lambda search=search: search,  # type: ignore[misc]
                setup.queries[: EXACT_QUERIES if chosen.exact else None],
                passes=1 if chosen.exact else PASSES,
                params={"target": target, "plan": asdict(plan), "memory_bytes": memory},
            )
        )
        if target in RECALLS and not chosen.exact:
            batches = partial(_searching_batches, generation, plan)
            trials += batch_trials(batches, setup.queries, setup.batches, target=target, plan=asdict(plan))
    for point in _curve(generation.calibration.measured):
        times, ids = time_twice(_searching(generation, point.for_k(K)), setup.queries[:500])
        values.append(latency(times, recall_of(ids, truth(setup)), curve=True, plan=asdict(point.plan)))
    exact = generation.calibration.choose(k=K, target_recall=1.0)
    trials.append(exact_trial(setup, _searching(generation, exact.for_k(K)), plan=asdict(exact.plan)))
    return Opened(values, trials)


def _memory_of(setup: Setup, mode: Optimise, plan: Plan) -> int:
    """Return what a process holds that searches by one plan: its own memory, and of what is mapped what it reads.

    That is the index's file, unless it is in the process's own memory, a key of each image, and the codes that rescore
    every shortlist: the compact ones where the plan has these. The few rows of the true codes that are then read for
    each query stay on disk, and the system keeps in memory as many of them as it has room for.
    """
    if plan.kind == VAMANA.name:
        _load_walk()  # a library, and what it compiles, is no part of an index
    before = anonymous_bytes()
    generation = _open(setup, mode)
    search, queries = _searching(generation, plan), setup.queries
    for number in range(EXACT_QUERIES):
        search(queries[number : number + 1])
    mapped = generation.bytes_of(plan.prefix_length) if require_kind(plan.kind).mapped else 0
    codes = generation.codes.codes.nbytes if plan.rerank_length is not None else 0
    if plan.final_shortlist and generation.compact is not None:
        codes = len(generation) * generation.compact.code_size
    return anonymous_bytes() - before + mapped + codes + generation.keys.nbytes


def _load_walk() -> None:
    """Search a graph of one row."""
    codes = np.ones((1, 8), np.float16)
    search = VamanaGraph(np.zeros((1, DEGREE + 1), np.uint32), codes).searching(codes, window=1, shortlist=1)
    search(np.ones((1, 8), np.float32), np.empty((1, 1), np.float32), np.empty((1, 1), np.int64))


def build(setup: Setup, *, mode: Optimise = "memory") -> dict[str, float]:
    """Build a mode's generation, unless it is there, and say how long that took and the most memory it held."""
    noted = setup.folder / f"built{_suffix(mode)}.json"
    if not noted.exists():
        _write_codes(setup)
        started = time.perf_counter()
        codes = Codes(setup.folder / "codes", verify=False)
        built = build_generation(
            setup.folder / f"generation{_suffix(mode)}",
            codes,
            BuildOptions(lengths=setup.lengths, kinds=setup.kinds, queries=setup.calibration_queries, optimise=mode),
        )
        total = time.perf_counter() - started
        spent = built.properties["calibration"]["seconds"]
        ordered = json.loads((setup.folder / "arranged.json").read_text())["arrange_s"]
        values = {
            "build_s": round(total - spent + ordered, 1),
            "calibration_s": spent,
            "arrange_s": round(ordered, 1),
            "peak_resident_bytes": peak_resident_bytes(),
        }
        artifact.write_atomic(noted, json.dumps(values).encode())
    return dict(json.loads(noted.read_text()))


def _open(setup: Setup, mode: Optimise) -> Generation:
    return Generation(setup.folder / f"generation{_suffix(mode)}", Codes(setup.folder / "codes"))


def _suffix(mode: Optimise) -> str:
    return "" if mode == "memory" else f"-{mode}"  # what earlier revisions built is for memory


def _write_codes(setup: Setup) -> None:
    path = setup.folder / "codes"
    if path.exists():
        return
    started = time.perf_counter()
    order = order_rows(setup.run, setup.count)
    arranged = time.perf_counter() - started
    artifact.write_atomic(setup.folder / "arranged.json", json.dumps({"arrange_s": arranged}).encode())
    with writing_codes(path, count=setup.count, code_length=setup.code_length, encoder_id=setup.encoder) as writer:
        for start in range(0, setup.count, _CHUNK):
            rows = order[start : start + _CHUNK]
            writer.append(rows, read_rows(setup.codes, rows, code_length=setup.code_length))


def _searching(generation: Generation, plan: Plan) -> Search:
    return lambda query: generation.keys.take(generation.search(query, plan=plan, k=K)[1][0])


def _searching_batches(generation: Generation, plan: Plan, threads: int) -> Search:
    """Return a search of batches, queries (q, d) to keys (q, 10); the engine chooses its threads by their number."""
    return lambda queries: generation.keys.take(generation.search(queries, plan=plan, k=K)[1])


def _curve(measured: Sequence[Measured]) -> Iterator[Measured]:
    """Yield the front of recall@10 against latency, as it was calibrated."""
    best = 0.8
    for point in sorted(measured, key=lambda m: m.latency_ms["p50"]):
        if point.recall[K].mean > best + 0.002 and not point.exact:
            best = point.recall[K].mean
            yield point
