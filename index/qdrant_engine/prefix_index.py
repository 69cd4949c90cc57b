"""The index of one prefix length in Qdrant: a search is one request, whatever its plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.filters.selection import Selection
from eigenlens.index.live.prefix_index import Rows, Scores
from eigenlens.index.plans.calibration import measured_count
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.qdrant_engine.conditions import Condition, drawn_condition
from eigenlens.index.qdrant_engine.kinds import KINDS, MAX_EF, WHOLE, QdrantKind
from eigenlens.index.qdrant_engine.server import QdrantServer

# Searches of one request.
_BATCH = 32
# Results beyond k, so that a tie at the end is seen; and images that may have to be left out.
_SPARE = 2


@dataclass(frozen=True)
class Among:
    """What a search is limited to.

    Attributes:
        condition: on payloads; none if None.
        selection: rows that may be returned, where more than these satisfy the condition; None if they all may.
    """

    condition: Condition | None = None
    selection: Selection | None = None

    @cached_property
    def text(self) -> str:
        """The condition as JSON."""
        return json.dumps(self.condition)

    @property
    def share(self) -> float:
        """The least share of the hits that may be returned, as it is expected."""
        return 1.0 if self.selection is None else max(self.selection.share, 1e-6)


EVERYTHING = Among()


@dataclass(frozen=True)
class QdrantIndex:
    """Searches the collection of a generation by one prefix length; satisfies `index.live.prefix_index.AnyPrefixIndex`.

    index = QdrantIndex(server, "shop-000001", IndexSpec(64, "qd-hnsw"), codes, len(codes))
    scores, rows = index.run(queries, plan=Plan(64, "qd-hnsw", effort=100, shortlist=240, rerank_length=256), k=10)

    Attributes:
        server: that has the collection.
        collection: its name.
        spec: length and kind of the index.
        codes: codes of all rows, of which the collection has copies of its lengths.
        count: number of points in the collection.
        among: what searches may return.
    """

    server: QdrantServer
    collection: str
    spec: IndexSpec
    codes: Codes
    count: int
    among: Among = EVERYTHING

    def limited(self, among: Among) -> QdrantIndex:
        """Return the same index, whose searches may return these points only."""
        return replace(self, among=among)

    def drawn(self, share: float) -> QdrantIndex:
        """Return the same index, whose searches may return a share of the points, drawn at random by the build."""
        return self.limited(Among(drawn_condition(share)))

    @property
    def kind(self) -> QdrantKind:
        """Properties of the kind."""
        return KINDS[self.spec.kind]

    @property
    def max_effort(self) -> int | None:
        """The effort at which every code is compared; efforts below are `hnsw_ef`. None for a scan."""
        return WHOLE if self.kind.has_graph else None

    def search(self, queries: Scores, k: int, *, effort: int | None = None) -> tuple[Scores, Rows]:
        """Return the cosines of prefixes and the rows of the k nearest, each (q, k), in the order of the index.

        The first results are those of a search for fewer.
        """
        scores, rows = _nothing(len(queries), k)
        first = _Stage(self.spec.length, self._params(effort))
        for start in range(0, len(queries), _BATCH):
            searches = [first.text(query, k, self.among) for query in queries[start : start + _BATCH]]
            for number, hits in enumerate(self.server.query(self.collection, searches), start):
                ids, values = _columns(hits)
                rows[number, : len(ids)], scores[number, : len(ids)] = self.codes.rows_of(ids), values
        return scores, rows

    def search_entries(self, queries: Scores, k: int, *, effort: int | None = None) -> Rows:
        """Return the rows that `search` returns: the index holds each once."""
        return self.search(queries, k, effort=effort)[1]

    def run(self, queries: Scores, *, plan: Plan, k: int) -> tuple[Scores, Rows]:
        """Return scores (cosines) and rows of the k nearest by a plan, each (q, k), best first; row -1 if fewer.

        Args:
            queries: codes, (q, code_length).
            plan: a plan of this index's length and kind.
        """
        first = _Stage(self.spec.length, self._params(plan.effort))
        if plan.shortlist is not None and plan.rerank_length is not None:
            shortlist = min(self.count, _expected(max(plan.shortlist, k), self.among))
            last = _Stage(plan.rerank_length, {}, first, shortlist)
            return self._execute(last, queries, k, at_least=k)
        # As many candidates for every k up to the next: pages of results fit together.
        whole = self._is_whole(plan.effort)
        candidates = k if whole else max(measured_count(k), min(plan.effort or 0, MAX_EF))
        return self._execute(first, queries, k, at_least=candidates)

    def scan(self, queries: Scores, k: int, *, length: int) -> tuple[Scores, Rows]:
        """Return the exact k nearest by the first `length` coordinates, each (q, k); row -1 if fewer."""
        return self._execute(_Stage(length, {"exact": True}), queries, k, at_least=k)

    def _params(self, effort: int | None) -> Mapping[str, Any]:
        if self._is_whole(effort):
            return {"exact": True}
        quantised = {"quantization": {"rescore": True}} if self.kind.quantised else {}
        return {"hnsw_ef": effort, **quantised}

    def _is_whole(self, effort: int | None) -> bool:
        return not self.kind.has_graph or effort is None or effort >= WHOLE

    def _execute(self, stage: _Stage, queries: Scores, k: int, *, at_least: int) -> tuple[Scores, Rows]:
        """Return scores and rows of a search for each query, each (q, k); row -1 and score -inf if fewer.

        More is asked for while a tie is cut, of which the smaller keys are to be returned, or too few may be returned.
        """
        scores, rows = _nothing(len(queries), k)
        among = self.among
        most = stage.shortlist or self.count
        width = min(most, _expected(at_least, among) + _SPARE)
        pending = list(range(len(queries)))
        while pending:
            unfinished: list[int] = []
            for start in range(0, len(pending), _BATCH):
                batch = pending[start : start + _BATCH]
                searches = [stage.text(queries[number], width, among) for number in batch]
                for number, hits in zip(batch, self.server.query(self.collection, searches), strict=True):
                    ids, values = _columns(hits)
                    places = self.codes.rows_of(ids)
                    kept = places >= 0
                    if among.selection is not None:
                        kept &= among.selection.mask[places]
                    best = np.flatnonzero(kept)
                    best = best[np.lexsort((ids[best], -values[best]))][:k]
                    rows[number, : len(best)], scores[number, : len(best)] = places[best], values[best]
                    is_cut = len(ids) == width < most
                    if is_cut and (len(best) < k or values[best[-1]] <= values[-1]):
                        unfinished.append(number)
            pending, width = unfinished, min(2 * width, most)
        return scores, rows


@dataclass(frozen=True)
class _Stage:
    """A search by one length: alone, or of the shortlist that another one finds.

    Attributes:
        length: coordinates that it compares.
        params: of Qdrant's search.
        before: the search that finds the shortlist; every point is searched if None.
        shortlist: how many it finds.
    """

    length: int
    params: Mapping[str, Any]
    before: _Stage | None = None
    shortlist: int | None = None

    def text(self, query: Scores, limit: int, among: Among) -> str:
        """Return the search as Qdrant takes it, in JSON, for a code (code_length,)."""
        parts = [f'"query":{_vector(query, self.length)},"using":"{self.length}","limit":{limit}']
        if self.params:
            parts.append(f'"params":{json.dumps(self.params)}')
        if self.before is not None and self.shortlist is not None:
            parts.append(f'"prefetch":{self.before.text(query, self.shortlist, among)}')
        elif among.condition is not None:
            parts.append(f'"filter":{among.text}')
        return f"{{{','.join(parts)}}}"


def _vector(query: Scores, length: int) -> str:
    """Return the unit prefix of a code as JSON; six digits hold more than half precision, in half of json's time."""
    return "[" + ("%.6g," * length)[:-1] % tuple(unit_prefix(query[None], length)[0].tolist()) + "]"


def _expected(count: int, among: Among) -> int:
    """Return how many hits are expected to hold so many that may be returned."""
    return count if among.selection is None else int(count / among.share) + 1


def _columns(hits: Sequence[tuple[int, float]]) -> tuple[Rows, Scores]:
    """Return ids and scores of hits, each (n,)."""
    ids = np.fromiter((id for id, _ in hits), dtype=np.int64, count=len(hits))
    return ids, np.fromiter((score for _, score in hits), dtype=np.float32, count=len(hits))


def _nothing(queries: int, k: int) -> tuple[Scores, Rows]:
    return np.full((queries, k), -np.inf, dtype=np.float32), np.full((queries, k), -1, dtype=np.int64)
