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
    """An opened generation; searches may run in several threads at once.

    Attributes:
        lengths: the prefix lengths that were built, ascending; the last is the full code length.
        keys: (n,), int64: the gallery's key of each row that a search returns.
        code_length: coordinates of a full code.
        calibration: measured recall and latency of its plans.
        attributes: metadata of its rows, to filter by.
        eigenfunctions: what its coordinates look like; None in a generation of an earlier version.
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
        """Open the generation at `path` over the codes it was built from, to be searched on the GPU where it can.

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
        found = Eigenfunctions.are_in(self.artifact)
        self.eigenfunctions = Eigenfunctions(self.artifact) if found else None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def lengths_on_gpu(self) -> tuple[int, ...]:
        """The prefix lengths of which the GPU has a copy."""
        return tuple(length for length, index in self._indexes.items() if isinstance(index, GpuIndex))

    def warm_up(self) -> None:
        """Open what a search needs for which nothing is asked, so that the first one does not wait for it."""
        self.search(self.codes.codes[:1].astype(np.float32), plan=self.calibration.choose(k=1).for_k(1), k=1)

    def bytes_of(self, length: int) -> int:
        """Size on disk of the index of a prefix length; 0 where it is the codes. Raises: PrefixLengthError."""
        return int(self.artifact.files.get(file_name(self._spec(length)), {"bytes": 0})["bytes"])

    def max_effort(self, length: int) -> int | None:
        """The effort at which the index of a length looks at everything; None if it has none.

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
        """Scores (cosines) and rows of the k best, each (q, min(k, n)), best first; row -1 where fewer were found.

        Args:
            queries: codes, (q, code_length).
            selection: rows that may be returned; all when None. Few rows are scored one by one, exactly.

        Raises: PrefixLengthError; ResultCountError; CodesError.
        """
        index = self._require(plan.prefix_length)
        if selection is None:
            found = index.run_prepared(queries, plan, k)
            if found is not None:
                return found
        if k < 1:
            raise ResultCountError(f"k is {k}; ask for 1 result or more")
        if queries.ndim != 2 or queries.shape[1] != self.code_length:
            raise CodesError(f"queries have shape {queries.shape}; codes here have {self.code_length} coordinates")
        # A finite square says it at once; one that is not may come of large numbers.
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
        full = plan.prefix_length == self.code_length  # of a shorter prefix the quick search knows no scores
        if index.kind.prunes and full and plan.rerank_length is None and not use_all_threads(queries):
            return self._pruned(index, queries, k=k, selection=selection)
        return index.run(queries, plan=plan, k=k, selection=selection)

    def _pruned(
        self, index: PrefixIndex, queries: NDArray[np.float32], *, k: int, selection: Selection | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The exact k best, by an index that leaves out early what scores less than a quick search finds."""
        guess = self._guess(k)
        if guess is None:
            return index.search(queries, k, selection=selection)
        found, rows = self._require(guess.prefix_length).run(queries, plan=guess, k=k, selection=selection)
        if found.shape[1] < k or (rows[:, -1] < 0).any():
            return index.search(queries, k, selection=selection)
        return index.search_above(queries, k, least=found[:, -1], selection=selection)

    def _guess(self, k: int) -> Plan | None:
        """The quickest plan that finds most of the k best, with their scores by full codes."""
        measured_at = min(k, COUNTS[-1])
        if measured_at not in self._guesses:
            good = [
                m
                for m in self.calibration.measured
                if m.plan.rerank_length == self.code_length and m.recall_for(k).low >= self.tuning.min_bound_recall
            ]
            self._guesses[measured_at] = min(good, key=lambda m: m.latency_ms["p50"]) if good else None
        found = self._guesses[measured_at]
        return None if found is None else found.for_k(k)

    def _scan(
        self, queries: NDArray[np.float32], *, length: int, k: int, selection: Selection | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best by the first `length` coordinates, exactly, from the codes."""
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
        found = self._indexes.get(length)
        if found is None:
            spec = self._spec(length)
            with self._opening:
                found = self._indexes.get(length) or self._open(spec)
                self._indexes[length] = found
        return found

    def _open(self, spec: IndexSpec) -> PrefixIndex:
        return on_gpu(open_prefix_index(self.artifact, spec, self.codes), self._gpu, tuning=self.tuning)
