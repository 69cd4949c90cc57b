"""A generation in FAISS: one immutable build of all prefix indexes of a gallery, over one codes artifact."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.exact import best_of_runs, rerank
from eigenlens.index.engine import IndexDescription
from eigenlens.index.errors import TargetError
from eigenlens.index.faiss_engine.compact_codes import CompactCodes
from eigenlens.index.faiss_engine.gpu import Gpu, device_name
from eigenlens.index.faiss_engine.gpu_index import GpuIndex, on_gpu
from eigenlens.index.faiss_engine.graph.vamana import has_numba
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.faiss_engine.open_index import open_compact_codes, open_prefix_index
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex, file_name
from eigenlens.index.faiss_engine.reach import ReachEstimator
from eigenlens.index.faiss_engine.selected_codes import SelectedCodes
from eigenlens.index.filters.selection import Selection
from eigenlens.index.live.generation import BaseGeneration
from eigenlens.index.method_cache import cache_of
from eigenlens.index.plans.calibration import DEFAULT_TARGET, Measured
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.plans.reach import Reach
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning
from eigenlens.install import install_line

log = logging.getLogger(__name__)

# Images with the same score are put in order among so many results; beyond, an index's own order decides.
_MAX_TIED = 10_000
_PLAN_CACHE_SIZE = 256
# So many queries are answered sooner one after the other, in a prepared way, than together.
_FEW_QUERIES = 8
# A search that finds too few is repeated with so many times the effort.
_MORE_EFFORT = 4


class Generation(BaseGeneration):
    """An open generation that FAISS searches. Several threads may search at once."""

    compact: CompactCodes | None

    def __init__(
        self,
        path: Path,
        codes: Codes,
        *,
        verify: bool = True,
        gpu: Gpu | None = None,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        """Open the generation at `path` over the codes that it was built from.

        Args:
            verify: whether to compare the files with the hashes in the manifest.
            gpu: a GPU that gets a copy of each index that it can search; None to search on the CPU alone.

        Raises: ArtifactError, which names a missing or damaged file; CodesError, if these are other codes.
        """
        self._gpu = gpu
        self._opening = threading.Lock()
        self.graph_spec: IndexSpec | None = None
        super().__init__(path, codes, verify=verify, tuning=tuning)
        entry = self.artifact.properties.get("graph")
        if entry is not None and has_numba():
            self.graph_spec = IndexSpec(**entry)
        elif entry is not None:
            log.warning("the graph of %s is not used: Numba is not installed; %s", path, install_line("svs"))
            self.calibration = self.calibration.without_kind(entry["kind"])
        self._guesses: dict[int, Measured | None] = {}
        self._cached_without_graph = cache_of(self._choose_without_graph, _PLAN_CACHE_SIZE)
        self._selected = SelectedCodes(codes)

    def open_indexes(self) -> None:
        """Open the indexes that FAISS maps; the others are opened by the first search that needs them."""
        if self.artifact.properties.get("compact"):
            self.compact = open_compact_codes(self.artifact, self.codes)
        self._indexes = {spec: self._open(spec) for spec in self.specs if require_kind(spec.kind).mapped}

    def warm_up(self) -> None:
        """Do what BaseGeneration.warm_up does; where a graph has loaded Numba, also compile the exact scan."""
        super().warm_up()
        if self.graph_spec is not None:
            self.search(self.codes.codes[:1].astype(np.float32), plan=self.calibration.exact().for_k(1), k=1)

    @property
    def device(self) -> str:
        """Name of the device that searches, as calibrations record it: "cpu" or "gpu"."""
        return device_name(self._gpu)

    @property
    def lengths_on_gpu(self) -> tuple[int, ...]:
        """Prefix lengths whose index has a copy on the GPU."""
        return tuple(spec.length for spec, index in self._indexes.items() if isinstance(index, GpuIndex))

    def reaches(self, queries: NDArray[np.float32], selection: Selection, *, k: int) -> list[Reach]:
        """Estimate for each query (q, code_length) how many of the nearest rows hold k that are selected."""
        estimator = self._reach_estimator
        if estimator is not None:
            return estimator.estimate(queries, selection, k=k)
        # Without lists nothing is known of a query's surroundings; flat indexes see everything as it is.
        walks = any(require_kind(spec.kind).effort for spec in self.specs)
        return [Reach(len(self) if walks else k)] * len(queries)

    @cached_property
    def _reach_estimator(self) -> ReachEstimator | None:
        """By the longest prefix that is in lists."""
        lengths = [spec.length for spec in self.specs if require_kind(spec.kind).has_lists]
        if not lengths:
            return None
        index = self.prefix_index(lengths[-1])
        return ReachEstimator(index.index, lengths[-1], self.codes)

    def bytes_of(self, length: int) -> int:
        """Return the bytes on disk of an index, 0 if it is the codes themselves. Raises: PrefixLengthError."""
        return int(self.artifact.files.get(file_name(self._spec(length)), {"bytes": 0})["bytes"])

    @property
    def all_specs(self) -> tuple[IndexSpec, ...]:
        """The index of each length, and the graph."""
        return self.specs if self.graph_spec is None else (*self.specs, self.graph_spec)

    def size_of(self, spec: IndexSpec) -> int:
        """Return the bytes on disk of an index, or of the graph."""
        name = file_name(spec)
        files = self.artifact.files.items()
        return sum(int(entry["bytes"]) for file, entry in files if file == name or file.startswith(f"{name}/"))

    @property
    def graph(self) -> IndexDescription | None:
        """The graph over a prefix, beside the indexes of the lengths; None without one."""
        spec = self.graph_spec
        return None if spec is None else IndexDescription(spec.length, spec.kind, self.size_of(spec), len(self), True)

    def max_effort(self, length: int) -> int | None:
        """Return the effort at which the index of a length visits everything; None if its kind has no effort.

        Raises: PrefixLengthError.
        """
        return self.prefix_index(length).max_effort if require_kind(self._spec(length).kind).effort else None

    def describe(self, length: int) -> IndexDescription:
        """Describe the index of a prefix length. Raises: PrefixLengthError."""
        spec = self._spec(length)
        lossy = require_kind(spec.kind).lossy
        return IndexDescription(spec.length, spec.kind, self.bytes_of(length), self.max_effort(length), lossy)

    def search(
        self, queries: NDArray[np.float32], *, plan: Plan, k: int, selection: Selection | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores (cosines) and rows of the k nearest, each (q, min(k, n)), best first; row -1 if fewer.

        Args:
            queries: codes, (q, code_length).
            selection: rows that may be returned; all if None. If it leaves few rows, all of them are scored exactly.

        Raises: PrefixLengthError; ResultCountError; CodesError.
        """
        if selection is not None:
            plan = self._without_graph(plan, k)
        index = self.index_of(plan)
        if selection is None and len(self):
            if 1 < len(queries) <= _FEW_QUERIES and self._is_funnel(plan):
                each = [self.search(query[None], plan=plan, k=k) for query in queries]
                return np.concatenate([scores for scores, _ in each]), np.concatenate([rows for _, rows in each])
            found = index.run_prepared(queries, plan, k)
            if found is not None:
                return found
            if len(queries) == 1:
                index.prepare(plan, k)
        self.check_search(queries, k)
        k = min(k, len(self))
        if k == 0:
            return np.empty((len(queries), 0), dtype=np.float32), np.empty((len(queries), 0), dtype=np.int64)
        # One more than is asked for shows whether the last has a tie.
        scores, rows = self._search_whole(queries, plan, min(k + 1, _most_ranked(plan, k), len(self)), selection)
        tied = np.flatnonzero(_ends_in_tie(scores, rows, k)) if scores.shape[1] > k else ()
        settled = [self._settle(queries[i : i + 1], plan, k, selection) for i in tied]
        scores, rows = self._in_order(scores[:, :k], rows[:, :k])
        for i, (its_scores, its_rows) in zip(tied, settled, strict=True):
            scores[i], rows[i] = its_scores[0], its_rows[0]
        return scores, rows

    def _is_funnel(self, plan: Plan) -> bool:
        """Whether a search of one query by a plan takes a prepared way, in fewer steps than one of several queries."""
        return plan.shortlist is not None and plan.rerank_length == self.code_length and self.device == "cpu"

    def _settle(
        self, query: NDArray[np.float32], plan: Plan, k: int, selection: Selection | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best of one query (1, code_length), where the last has the same score as others: the smallest keys."""
        most = min(_most_ranked(plan, k), len(self), max(_MAX_TIED, k + 1))
        width = k + 1
        while True:
            width = min(8 * width, most)
            scores, rows = self._search_whole(query, plan, width, selection)
            if width >= most or scores[0, -1] != scores[0, k - 1]:
                scores, rows = self._in_order(scores, rows)
                return scores[:, :k], rows[:, :k]

    def _in_order(
        self, scores: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Results of each query (q, k) by score, and by key where scores are equal."""
        if not (scores[:, 1:] == scores[:, :-1]).any():
            return scores, rows
        order = np.lexsort((self.keys[rows], -scores), axis=1)
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _search_whole(
        self, queries: NDArray[np.float32], plan: Plan, k: int, selection: Selection | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As _search_once, with more effort for the queries of which too few rows were found."""
        scores, rows = self._search_once(queries, plan, k, selection)
        available = min(k, len(self) if selection is None else selection.count)
        if available == 0 or scores.shape[1] == 0:
            return scores, rows
        max_effort = self.index_of(plan).max_effort
        widened: Plan | None = plan
        while widened is not None and len(short := np.flatnonzero(rows[:, available - 1] < 0)):
            widened = _widened(widened, plan, k, max_effort=max_effort)
            if widened is None:
                last = plan.rerank_length or plan.prefix_length
                more_scores, more_rows = self._scan(queries[short], length=last, k=k, selection=selection)
            else:
                more_scores, more_rows = self._search_once(queries[short], widened, k, selection)
            width = min(more_scores.shape[1], scores.shape[1])
            scores[short, :width], rows[short, :width] = more_scores[:, :width], more_rows[:, :width]
        return scores, rows

    def _search_once(
        self, queries: NDArray[np.float32], plan: Plan, k: int, selection: Selection | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows of the k best that a plan finds, each (q, at most k)."""
        index = self.index_of(plan)
        last = plan.rerank_length or plan.prefix_length
        if selection is not None and self.scores_directly(selection, k):
            return self._selected.search(queries, selection, length=last, k=k)
        if plan.shortlist is not None and max(plan.shortlist, k) >= len(self):
            return self._scan(queries, length=last, k=k, selection=selection)  # everything is rescored: no first pass
        max_results = index.kind.max_results
        candidates = max(plan.shortlist or 0, k)
        if max_results is not None and candidates > max_results:
            scores, rows = self._scan(queries, length=plan.prefix_length, k=candidates, selection=selection)
            if plan.rerank_length is None:
                return scores, rows
            return rerank(queries, rows, self.codes.codes, length=plan.rerank_length, k=k)
        full = plan.prefix_length == self.code_length  # the bound for pruning is a score by full codes
        if index.kind.prunes and full and plan.rerank_length is None:
            return self._pruned(index, queries, k=k, selection=selection)
        return index.run(queries, plan=plan, k=k, selection=selection)

    def _pruned(
        self, index: PrefixIndex, queries: NDArray[np.float32], *, k: int, selection: Selection | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the exact k nearest by an index that prunes: a quick search gives a lower bound of their scores."""
        guess = self._guess(k)
        if guess is None:
            return index.search(queries, k, selection=selection)
        if selection is not None:
            guess = self._without_graph(guess, k)
        scores, rows = self.index_of(guess).run(queries, plan=guess, k=k, selection=selection)
        if scores.shape[1] < k or (rows[:, -1] < 0).any():
            return index.search(queries, k, selection=selection)
        return index.search_above(queries, k, least=scores[:, -1], selection=selection)

    def _guess(self, k: int) -> Plan | None:
        """The quickest plan that finds most of the k best, with their scores by full codes."""
        if k not in self._guesses:
            good = [
                m
                for m in self.calibration.measured
                if m.plan.rerank_length == self.code_length and m.low(k) >= self.tuning.min_bound_recall
            ]
            self._guesses[k] = min(good, key=lambda m: m.latency_ms["p50"]) if good else None
        guess = self._guesses[k]
        return None if guess is None else guess.for_k(k)

    def _scan(
        self, queries: NDArray[np.float32], *, length: int, k: int, selection: Selection | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the exact k nearest by the first `length` coordinates, from the codes."""
        runs = self.codes.runs(0, len(self))
        if selection is not None:
            mask = selection.mask
            runs = ((rows[mask[rows]], codes[mask[rows]]) for rows, codes in runs)
        return best_of_runs(runs, queries, length=length, k=k)

    def prefix_index(self, length: int) -> PrefixIndex:
        """Return the open index of a prefix length. Raises: PrefixLengthError; ArtifactError; SearchError."""
        return self.open_index(self._spec(length))

    def index_of(self, plan: Plan) -> PrefixIndex:
        """Return the open index that a plan searches. Raises: PrefixLengthError; ArtifactError; SearchError."""
        spec = self.graph_spec
        if spec is not None and plan.kind == spec.kind and plan.prefix_length == spec.length:
            return self.open_index(spec)
        return self.prefix_index(plan.prefix_length)

    def open_index(self, spec: IndexSpec) -> PrefixIndex:
        """Return an open index. Raises: ArtifactError; SearchError."""
        index = self._indexes.get(spec)
        if index is None:
            with self._opening:
                index = self._indexes.get(spec) or self._open(spec)
                self._indexes[spec] = index
        return index

    def _without_graph(self, plan: Plan, k: int) -> Plan:
        """Return a plan whose index can leave rows out: for one that walks the graph, the quickest with its recall."""
        if require_kind(plan.kind).filters:
            return plan
        return self._cached_without_graph(plan, k)

    def _choose_without_graph(self, plan: Plan, k: int) -> Plan:
        measured = self.calibration.expected(plan, k)
        target = DEFAULT_TARGET if measured is None else measured.low(k)
        try:
            return self.calibration.choose(k=k, target_recall=target, without_kind=plan.kind).for_k(k)
        except TargetError:
            return self.calibration.exact().for_k(k)

    def _open(self, spec: IndexSpec) -> PrefixIndex:
        return on_gpu(
            open_prefix_index(self.artifact, spec, self.codes, compact=self.compact), self._gpu, tuning=self.tuning
        )


def _most_ranked(plan: Plan, k: int) -> int:
    """Return how many results a plan puts in order, for k: those of its shortlist, or all."""
    return sys.maxsize if plan.ranked is None else max(plan.ranked, k)


def _ends_in_tie(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Whether the k-th score of each query (q, more than k) is also the next: (q,)."""
    return np.asarray((scores[:, k] == scores[:, k - 1]) & (rows[:, k] >= 0))


def _widened(plan: Plan, first: Plan, k: int, *, max_effort: int | None) -> Plan | None:
    """Return the plan to try after one that found too few rows; None where only a scan is left."""
    if first.shortlist is not None and plan.shortlist == first.shortlist:  # some rows may be in it twice
        return replace(plan, shortlist=2 * max(first.shortlist, k), final_shortlist=0)
    if plan.effort is None or max_effort is None or plan.effort >= max_effort:
        return None
    return replace(plan, effort=min(_MORE_EFFORT * plan.effort, max_effort))
