"""The best graph, effort and shortlist for each recall, measured with the queries that are for choosing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.search.interleaved import Search, time_each
from eigenlens.benchmarks.search.peers.prefix_graphs import PrefixGraph
from eigenlens.benchmarks.search.peers.rescoring import Halves, rescoring, rescoring_of_batches
from eigenlens.benchmarks.search.setup import Ids, K, Vectors

EFFORTS = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 200, 256, 320, 400, 500, 640, 800)
_TIMED = 500
_WARM = 50
_HOPELESS = 1.5  # times the quickest search of a target: more effort only makes it slower


@dataclass(frozen=True)
class Choice:
    """How a graph is searched.

    Attributes:
        graph: number of the graph.
        effort: nodes that a search keeps as candidates.
        shortlist: rows that are rescored.
        recall: of the 10 nearest, with the queries that chose it.
        milliseconds: median of these queries.
    """

    graph: int
    effort: int
    shortlist: int
    recall: float
    milliseconds: float


def prefix_search(graph: PrefixGraph, codes: Halves, *, prefix: int, effort: int, shortlist: int) -> Search:
    """Return a search of one thread: a unit query (1, d) to the 10 nearest rows, (10,)."""
    find = graph.prepare(limit=shortlist, effort=effort)
    if graph.rescores:
        return find
    rescore = rescoring(codes, shortlist)
    # A graph by inner product finds the same whatever the norm of the query's prefix.
    return lambda query: rescore(query, find(query[:, :prefix]))


def prefix_search_of_batches(
    graph: PrefixGraph, codes: Halves, *, prefix: int, effort: int, shortlist: int, threads: int
) -> Search:
    """Return a search of so many threads: unit queries (q, d) to the 10 nearest rows of each, (q, 10)."""
    find = graph.prepare_batches(limit=shortlist, effort=effort, threads=threads)
    if graph.rescores:
        return find
    rescore = rescoring_of_batches(codes, shortlist, threads=threads)
    return lambda queries: rescore(queries, find(np.ascontiguousarray(queries[:, :prefix])))


class Chooser:
    """Measures one graph after the other, and keeps the quickest way to reach each target."""

    def __init__(self, codes: Halves, queries: Vectors, exact: Ids, *, targets: Sequence[float]) -> None:
        """Choose with unit queries (q, d) and their exact 10 nearest (q, 10)."""
        self._codes, self._queries, self._exact = codes, queries, exact
        self._targets = targets
        self.best: dict[float, Choice] = {}

    def measure(self, number: int, graph: PrefixGraph, *, prefix: int) -> Iterator[Choice]:
        """Yield what is measured of a graph: by effort, the smallest shortlist for each target that it reaches."""
        quickest: dict[float, float] = {}
        for effort in (effort for effort in EFFORTS if effort <= len(self._codes)):
            found = self._recalls(graph, prefix=prefix, effort=effort)
            # The smallest shortlist of each target; several targets may have the same.
            reaching = {int(np.argmax(found >= target)) for target in self._targets if found[-1] >= target}
            slowest = 0.0
            for extra in sorted(reaching):
                shortlist = K + extra
                search = prefix_search(graph, self._codes, prefix=prefix, effort=effort, shortlist=shortlist)
                choice = Choice(number, effort, shortlist, float(found[extra]), self._time(search))
                yield choice
                slowest = choice.milliseconds
                for target in self._targets:
                    if choice.recall >= target:
                        quickest[target] = min(quickest.get(target, np.inf), slowest)
                        if target not in self.best or slowest < self.best[target].milliseconds:
                            self.best[target] = choice
            if len(quickest) == len(self._targets) and slowest > _HOPELESS * max(quickest.values()):
                return

    def _recalls(self, graph: PrefixGraph, *, prefix: int, effort: int) -> NDArray[np.float64]:
        """Return the recall@10 of shortlists of 10, 11, ... `effort` rows: rescoring finds what is in the shortlist."""
        limit = K if graph.rescores else effort
        find = graph.prepare(limit=limit, effort=effort)
        hits = np.zeros(limit)
        heads = self._queries if graph.rescores else self._queries[:, :prefix]
        for number, exact in enumerate(self._exact):
            hits += np.isin(find(heads[number : number + 1]), exact)
        recalls: NDArray[np.float64] = hits.cumsum() / self._exact.size
        return recalls[K - 1 :]

    def _time(self, search: Search) -> float:
        queries = self._queries[:_TIMED]
        time_each(search, queries[:_WARM])
        return float(np.median(time_each(search, queries)[0]))
