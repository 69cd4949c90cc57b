"""Peers that know that prefixes are codes: other libraries' graphs over the best prefix, with rescoring."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from eigenlens.benchmarks.search.batches import RECALLS, batch_trials
from eigenlens.benchmarks.search.interleaved import Opened, Search, Timed, Trial
from eigenlens.benchmarks.search.peers.choice import Choice, Chooser, prefix_search, prefix_search_of_batches
from eigenlens.benchmarks.search.peers.prefix_graphs import PrefixGraph
from eigenlens.benchmarks.search.peers.rescoring import Halves
from eigenlens.benchmarks.search.peers.stored_graphs import StoredGraph, stored_graphs
from eigenlens.benchmarks.search.setup import Setup, calibration_truth
from eigenlens.benchmarks.search.values import TARGETS, Values, value_of


def open_prefix_peer(setup: Setup, method: str) -> Opened:
    """Build the graphs that are missing, choose one for each target, and open those.

    The curve of each graph is measured with the queries that are for choosing. For each target the quickest graph,
    effort and shortlist that reach it are timed beside other methods, with other queries.
    """
    stored = stored_graphs(setup, method)
    codes = setup.run(0, setup.count)
    chooser = Chooser(codes, setup.calibration_queries, calibration_truth(setup), targets=TARGETS)
    values: Values = []
    for number, one in enumerate(stored):
        graph = one.open()
        measured = list(chooser.measure(number, graph, prefix=one.prefix))
        values += [_curve_point(one, choice) for choice in measured]
        print(f"{method} over {one.prefix}: {len(measured)} points", file=sys.stderr)
        del graph  # before the next is opened
    opened = {number: stored[number].open() for number in sorted({c.graph for c in chooser.best.values()})}
    trials: list[Timed] = []
    for target, choice in chooser.best.items():
        one, graph = stored[choice.graph], opened[choice.graph]
        memory = one.memory_bytes + (0 if graph.rescores else codes.nbytes)
        values.append(value_of("build_s", one.build_s, "s", recall=target, **one.params))
        values.append(
            value_of("memory_bytes", memory, "B", recall=target, prefix=one.prefix, graph_bytes=one.memory_bytes)
        )
        settings = {"prefix": one.prefix, "effort": choice.effort, "shortlist": choice.shortlist}
        search = partial(prefix_search, graph, codes, **settings)
        params = {"target": target, "memory_bytes": memory} | one.params | settings
        trials.append(Trial(f"recall {target}", search, setup.queries, params=params))
        if target in RECALLS:
            batches = partial(_searching_batches, graph, codes, settings)
            trials += batch_trials(batches, setup.queries, setup.batches, target=target, **settings)
    return Opened(values, trials)


def _searching_batches(graph: PrefixGraph, codes: Halves, settings: Mapping[str, int], threads: int) -> Search:
    return prefix_search_of_batches(graph, codes, threads=threads, **settings)


def _curve_point(one: StoredGraph, choice: Choice) -> dict[str, Any]:
    params = {"effort": choice.effort, "shortlist": choice.shortlist, "recall_seen": round(choice.recall, 4)}
    return value_of("latency_ms", choice.milliseconds, "ms", threads=1, curve=True, **one.params, **params)
