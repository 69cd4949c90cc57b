"""A generation whose codes and indexes are a collection of Qdrant; its directory has all else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.errors import RerankNotStoredError, ResultCountError, SearchError
from eigenlens.index.filters.parse import Filter
from eigenlens.index.filters.selection import Selection
from eigenlens.index.live.remote_generation import RemoteGeneration
from eigenlens.index.plans.plan import Plan
from eigenlens.index.qdrant_engine.conditions import Payloads, has_code_range, ids_condition
from eigenlens.index.qdrant_engine.kinds import MAX_RESULTS
from eigenlens.index.qdrant_engine.prefix_index import Among, QdrantIndex
from eigenlens.index.qdrant_engine.server import QdrantServer
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

# Metadata of a collection: which build filled it. It is written last.
BUILD = "eigenlens_build"


class QdrantGeneration(RemoteGeneration):
    """An open generation that Qdrant searches. Several threads may search at once."""

    def __init__(
        self,
        path: Path,
        codes: Codes,
        server: QdrantServer | None,
        *,
        verify: bool = True,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        """Open the generation at `path`; without a server it cannot be searched.

        Raises: ArtifactError, which names a missing or damaged file; CodesError, if these are other codes.
        """
        super().__init__(path, codes, verify=verify, tuning=tuning)
        self._server = server
        self.collection = str(self.artifact.properties["collection"])
        self._payloads = Payloads(self.attributes)

    def check(self) -> None:
        """Check that the collection is there and was filled by the build of this generation.

        Raises: SearchError, which says what to do.
        """
        if self._server is None:
            raise SearchError(
                f"{self.artifact.path} was built with the backend qdrant: give the server's address as "
                "EIGENLENS_BACKEND_URL or --backend-url, or make a generation with `eigenlens build --backend faiss`"
            )
        state, remedy = self._server.state(self.collection), "`eigenlens build` makes a new one of the same codes"
        if state is None:
            raise SearchError(
                f"{self.artifact.path} was built with the backend qdrant, and its collection {self.collection} is not "
                f"in Qdrant at {self._server.address}: {remedy}"
            )
        if state.metadata.get(BUILD) != self.artifact.properties["build"] or state.count != len(self):
            raise SearchError(
                f"the collection {self.collection} of Qdrant at {self._server.address} has other codes, or those of "
                f"another calibration, than {self.artifact.path}: {remedy}"
            )
        missing = sorted(self._payloads.fields.keys() - state.indexed_fields)
        if missing:
            raise SearchError(
                f"the collection {self.collection} of Qdrant at {self._server.address} has lost the indexes of its "
                f"payload ({', '.join(missing)}), without which filtered searches find a part: {remedy}"
            )

    def prefix_index(self, length: int) -> QdrantIndex:
        """Return the index of a prefix length. Raises: PrefixLengthError; SearchError, without a server."""
        spec = self._spec(length)
        if self._server is None:
            self.check()
            raise AssertionError
        return QdrantIndex(self._server, self.collection, spec, self.codes, len(self))

    def check_filter(self, filter: Filter) -> None:
        """Check that Qdrant can compare what a filter does. Raises: FilterError, for a range of texts."""
        self._payloads.condition(filter)

    def search(
        self, queries: NDArray[np.float32], *, plan: Plan, k: int, selection: Selection | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores (cosines) and rows of the k nearest, each (q, min(k, n)), best first; row -1 if fewer.

        Args:
            queries: codes, (q, code_length).
            selection: rows that may be returned; all if None. If it leaves few rows, all of them are scored exactly.

        Raises: PrefixLengthError; RerankNotStoredError; ResultCountError; CodesError; EngineUnavailableError.
        """
        index = self.prefix_index(plan.prefix_length)
        self.check_search(queries, k)
        last = plan.rerank_length or plan.prefix_length
        if last not in self.lengths:
            raise RerankNotStoredError(last, self.lengths)
        k = min(k, len(self))
        if k > MAX_RESULTS:
            raise ResultCountError(
                f"the backend qdrant returns at most {MAX_RESULTS:,} results, offset included; ask for fewer than {k:,}"
                ", or build the gallery with the backend faiss"
            )
        if k == 0:
            return np.empty((len(queries), 0), dtype=np.float32), np.empty((len(queries), 0), dtype=np.int64)
        directly = selection is not None and self.scores_directly(selection, k)
        if selection is not None:
            index = index.limited(self._among(selection, directly=directly))
        shortlist = plan.shortlist or 0
        if directly or max(shortlist, k) >= len(self):
            return index.scan(queries, k, length=last)
        if shortlist > MAX_RESULTS:
            raise ResultCountError(
                f"the backend qdrant finds shortlists of at most {MAX_RESULTS:,}, not {shortlist:,}; give that, or "
                "build the gallery with the backend faiss"
            )
        scores, rows = index.run(queries, plan=plan, k=k)
        # A graph may not lead to all rows.
        available = min(k, len(self) if selection is None else selection.count)
        short = np.flatnonzero(rows[:, available - 1] < 0) if available else ()
        if len(short):
            scores[short], rows[short] = index.scan(queries[short], k, length=last)
        return scores, rows

    def _among(self, selection: Selection, *, directly: bool) -> Among:
        """Return what Qdrant is told of a selection, and what of it is checked here.

        What was removed since the build and ranges of codes are no payload. Few rows are named one by one.
        """
        filter = selection.filter
        if filter is not None and selection.is_all_of_filter and not has_code_range(filter):
            return Among(self._payloads.condition(filter))
        if directly:
            return Among(ids_condition(self.keys[selection.rows]))
        return Among(None if filter is None else self._payloads.condition(filter), selection)
