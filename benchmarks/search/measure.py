"""Recall against latency of Eigenlens and of other indexes, on the same codes, timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import faiss
import numpy as np

from eigenlens.benchmarks.search.batches import RECALLS, batch_trials
from eigenlens.benchmarks.search.eigenlens_modes import MODES, open_eigenlens
from eigenlens.benchmarks.search.interleaved import Opened, Timed, Times, Trial, run_interleaved
from eigenlens.benchmarks.search.peers.prefix_graphs import PREFIX_GRAPHS
from eigenlens.benchmarks.search.peers.whole_codes import PACKAGES, PEERS
from eigenlens.benchmarks.search.prefix_peers import open_prefix_peer
from eigenlens.benchmarks.search.setup import CORES, Ids, K, Setup, truth
from eigenlens.benchmarks.search.values import (
    SLOWEST_MS,
    TARGETS,
    Values,
    anonymous_bytes,
    exact_trial,
    latency,
    recall_of,
    time_twice,
    value_of,
)
from eigenlens.index.codes.prefix import unit_prefix

METHODS = ("flat", *MODES, *PREFIX_GRAPHS, *PEERS)


def measure(setup: Setup, methods: Sequence[str]) -> dict[str, Values]:
    """Return values of each method: searches at the targets and exact ones are timed in turn with the others'."""
    values, times = run_interleaved({method: _OPEN.get(method, _open_peer) for method in methods}, setup)
    for method, timed in times.items():
        values[method] += [_value_of_times(setup, one) for one in timed]
    return values


def _value_of_times(setup: Setup, times: Times) -> dict[str, Any]:
    recall, params = recall_of(times.ids, truth(setup)), dict(times.params)
    if "batch" in params:
        rates = 1000 / np.asarray(times.milliseconds)
        params |= {"recall": params.pop("target"), "recall_seen": round(recall, 4), "threads": CORES}
        params |= {"slowest": round(float(rates.min()), 1), "fastest": round(float(rates.max()), 1)}
        return value_of("queries_per_s", float(np.median(rates)), "1/s", **params)
    if params.get("exact"):
        params["identical"] = _identical(setup, times.ids)
    return latency(times.milliseconds, recall, **params)


def _open_flat(setup: Setup, method: str) -> Opened:
    before, vectors = anonymous_bytes(), setup.vectors()
    started = time.perf_counter()
    index = faiss.IndexFlatIP(setup.code_length)
    index.add(vectors)
    built = time.perf_counter() - started
    del vectors
    memory = anonymous_bytes() - before
    faiss.omp_set_num_threads(1)
    values = [value_of("build_s", built, "s"), value_of("memory_bytes", memory, "B")]
    return Opened(values, [exact_trial(setup, lambda query: np.asarray(index.search(query, K)[1][0]))])


def _open_peer(setup: Setup, method: str) -> Opened:
    peer = PEERS[method]()
    before, vectors = anonymous_bytes(), setup.vectors()
    started = time.perf_counter()
    peer.build(vectors)
    built = time.perf_counter() - started
    del vectors
    memory = anonymous_bytes() - before
    values = [value_of("build_s", built, "s", **peer.settings), value_of("memory_bytes", memory, "B")]
    reached: list[tuple[float, int]] = []
    for effort in peer.efforts:
        times, ids = time_twice(peer.prepare(effort), setup.queries)
        recall, median = recall_of(ids, truth(setup)), float(np.median(times))
        reached.append((recall, effort))
        values.append(latency(times, recall, curve=True, effort=effort))
        if recall >= max(TARGETS) or median > SLOWEST_MS:
            break
    trials: list[Timed] = []
    for target in TARGETS:
        # Efforts ascend: the first is the quickest, whatever disturbed the machine while the curve was timed.
        least = next((effort for recall, effort in reached if recall >= target), None)
        if least is None:
            continue
        params = {"target": target, "effort": least}
        trials.append(Trial(f"recall {target}", partial(peer.prepare, least), setup.queries, params=params))
        if target in RECALLS:
            batches = partial(peer.prepare_batches, least)
            trials += batch_trials(batches, setup.queries, setup.batches, target=target, effort=least)
    return Opened(values, trials)


_OPEN: dict[str, Callable[[Setup, str], Opened]] = {
    "flat": _open_flat,
    **dict.fromkeys(MODES, open_eigenlens),
    **dict.fromkeys(PREFIX_GRAPHS, open_prefix_peer),
}


def _identical(setup: Setup, ids: Sequence[Ids]) -> bool:
    """Tell whether the results' scores are the exact ones: ids may differ where scores tie."""
    queries = setup.queries
    for number, rows in enumerate(ids):
        exact = unit_prefix(setup.gallery[truth(setup)[number]], setup.code_length) @ queries[number]
        scores = unit_prefix(setup.gallery[np.asarray(rows)], setup.code_length) @ queries[number]
        if not np.allclose(np.sort(exact), np.sort(scores), atol=1e-6):
            return False
    return True


def missing(method: str) -> str | None:
    """Tell why a method cannot be measured here; None if it can."""
    if method in PREFIX_GRAPHS:
        modules = [PREFIX_GRAPHS[method][0].package, "numkong"]
    elif method in PEERS:
        modules = [PACKAGES.get(method, method)]
    else:
        modules = ["svs", "numba"] if MODES.get(method) == "latency" else []
    try:
        for module in modules:
            __import__(module)
    except ImportError as error:
        return f"{error}; `pip install '.[peers]'` brings it"
    return None
