"""A generation: one immutable build of all prefix indexes of a gallery, over one codes artifact."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.eigenfunctions import Eigenfunctions
from eigenlens.index.codes.exact import best_of_runs, rerank, score_rows
from eigenlens.index.codes.similarities import NearestSimilarities
from eigenlens.index.codes.typicality import Typicality
from eigenlens.index.engine import IndexDescription
from eigenlens.index.errors import CodesError, PrefixLengthError, ResultCountError
from eigenlens.index.faiss_engine.gpu import Gpu
from eigenlens.index.faiss_engine.gpu_index import GpuIndex, on_gpu
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex, file_name, open_prefix_index
from eigenlens.index.filters.columns import Attributes
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.calibration import COUNTS, Calibration, Measured
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.threads import use_all_threads
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

KIND = "generation"


class Generation:
    """An open generation. Several threads may search at once.

    Attributes:
        lengths: the prefix lengths that were built, ascending; the last is the full code length.
        keys: (n,), int64: the gallery's key of each row.
        code_length: coordinates of a full code.
        calibration: measured recall and latency of the generation's plans.
        attributes: metadata of the rows, for filters.
        eigenfunctions: statistics of each coordinate; None in a generation that an earlier version built.
        similarities: of its images with their nearest other; None of very few images and of an earlier version.
        typicality: how far its codes lie from their centre; None likewise.
    """

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
        self.artifact = artifact.read(path, kind=KIND, verify=verify)
        if self.artifact.made_from["codes"] != codes.id:
            raise CodesError(f"{path} was built from codes {self.artifact.made_from['codes']}, not from {codes.id}")
        self.codes = codes
        self.keys = codes.keys
        self.encoder_id, self.code_length = codes.encoder_id, codes.code_length
        self.specs = tuple(IndexSpec(**entry) for entry in self.artifact.properties["indexes"])
        self.lengths: tuple[int, ...] = tuple(spec.length for spec in self.specs)
        self._gpu, self.tuning = gpu, tuning
        self._opening = threading.Lock()
        self._indexes = {spec.length: self._open(spec) for spec in self.specs if require_kind(spec.kind).mapped}
        self.calibration = Calibration.from_json(self.artifact.properties["calibration"])
        self._guesses: dict[int, Measured | None] = {}
        self.attributes = Attributes(path, count=len(codes))
        has_eigenfunctions = Eigenfunctions.are_in(self.artifact)
        self.eigenfunctions = Eigenfunctions(self.artifact) if has_eigenfunctions else None
        similarities = self.artifact.properties.get("similarities")
        self.similarities = None if similarities is None else NearestSimilarities.from_json(similarities)
        self.typicality = Typicality(self.artifact) if Typicality.is_in(self.artifact) else None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def lengths_on_gpu(self) -> tuple[int, ...]:
        """Prefix lengths whose index has a copy on the GPU."""
        return tuple(length for length, index in self._indexes.items() if isinstance(index, GpuIndex))

    def warm_up(self) -> None:
        """Open the index of the default plan, so that the first search does not wait for it."""
        self.search(self.codes.codes[:1].astype(np.float32), plan=self.calibration.choose(k=1).for_k(1), k=1)

    def bytes_of(self, length: int) -> int:
        """Return the bytes on disk of an index, 0 if it is the codes themselves. Raises: PrefixLengthError."""
        return int(self.artifact.files.get(file_name(self._spec(length)), {"bytes": 0})["bytes"])

    def max_effort(self, length: int) -> int | None:
        """Return the effort at which the index of a length visits everything; None if its kind has no effort.

        Raises: PrefixLengthError.
        """
        return self._require(length).max_effort if require_kind(self._spec(length).kind).effort else None

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
        index = self._require(plan.prefix_length)
        if selection is None:
            results = index.run_prepared(queries, plan, k)
            if results is not None:
                return results
        if k < 1:
            raise ResultCountError(f"k is {k}; ask for 1 result or more")
        if queries.ndim != 2 or queries.shape[1] != self.code_length:
            raise CodesError(f"queries have shape {queries.shape}; codes here have {self.code_length} coordinates")
        # A finite sum of squares proves that all values are finite; an infinite one may be an overflow of large values.
        if not math.isfinite(np.vdot(queries, queries)) and not np.isfinite(queries).all():
            raise CodesError("queries hold values that are not finite; they have no nearest codes")
        k = min(k, len(self))
        last = plan.rerank_length or plan.prefix_length
        if selection is not None and selection.count <= max(self.tuning.max_rows_scored_directly, k):
            return score_rows(queries, selection.rows, self.codes.codes, length=last, k=k)
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
        if index.kind.prunes and full and plan.rerank_length is None and not use_all_threads(queries):
            return self._pruned(index, queries, k=k, selection=selection)
        return index.run(queries, plan=plan, k=k, selection=selection)

    def _pruned(
        self, index: PrefixIndex, queries: NDArray[np.float32], *, k: int, selection: Selection | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the exact k nearest by an index that prunes: a quick search gives a lower bound of their scores."""
        guess = self._guess(k)
        if guess is None:
            return index.search(queries, k, selection=selection)
        scores, rows = self._require(guess.prefix_length).run(queries, plan=guess, k=k, selection=selection)
        if scores.shape[1] < k or (rows[:, -1] < 0).any():
            return index.search(queries, k, selection=selection)
        return index.search_above(queries, k, least=scores[:, -1], selection=selection)

    def _guess(self, k: int) -> Plan | None:
        """Return the fastest plan that finds most of the k nearest and scores them by full codes; None without one."""
        measured_at = min(k, COUNTS[-1])
        if measured_at not in self._guesses:
            good = [
                m
                for m in self.calibration.measured
                if m.plan.rerank_length == self.code_length and m.recall_for(k).low >= self.tuning.min_bound_recall
            ]
            self._guesses[measured_at] = min(good, key=lambda m: m.latency_ms["p50"]) if good else None
        measured = self._guesses[measured_at]
        return None if measured is None else measured.for_k(k)

    def _scan(
        self, queries: NDArray[np.float32], *, length: int, k: int, selection: Selection | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the exact k nearest by the first `length` coordinates, from the codes."""
        runs = self.codes.runs(0, len(self))
        if selection is not None:
            mask = selection.mask
            runs = ((rows[mask[rows]], codes[mask[rows]]) for rows, codes in runs)
        return best_of_runs(runs, queries, length=length, k=k)

    def _spec(self, length: int) -> IndexSpec:
        if length not in self.lengths:
            raise PrefixLengthError(length, self.lengths)
        return self.specs[self.lengths.index(length)]

    def _require(self, length: int) -> PrefixIndex:
        index = self._indexes.get(length)
        if index is None:
            spec = self._spec(length)
            with self._opening:
                index = self._indexes.get(length) or self._open(spec)
                self._indexes[length] = index
        return index

    def _open(self, spec: IndexSpec) -> PrefixIndex:
        return on_gpu(open_prefix_index(self.artifact, spec, self.codes), self._gpu, tuning=self.tuning)
