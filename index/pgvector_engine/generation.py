"""A generation whose codes and indexes are a table of PostgreSQL; its directory has all else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.errors import SearchError
from eigenlens.index.filters.selection import Selection
from eigenlens.index.live.remote_generation import RemoteGeneration
from eigenlens.index.pgvector_engine.database import Database
from eigenlens.index.pgvector_engine.prefix_index import PgvectorIndex
from eigenlens.index.plans.plan import Plan
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning


class PgvectorGeneration(RemoteGeneration):
    """An open generation that pgvector searches. Several threads may search at once."""

    def __init__(
        self,
        path: Path,
        codes: Codes,
        database: Database | None,
        *,
        verify: bool = True,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        """Open the generation at `path`; without a database it cannot be searched.

        Raises: ArtifactError, which names a missing or damaged file; CodesError, if these are other codes.
        """
        super().__init__(path, codes, verify=verify, tuning=tuning)
        self._database = database
        self.table = str(self.artifact.properties["table"])

    def check(self) -> None:
        """Check that the table is there and has these codes. Raises: SearchError, which says what to do."""
        comment = None
        if self._database is not None:
            ((comment,),) = self._database.query(
                "SELECT obj_description(to_regclass(%s)::oid, 'pg_class')", (self.table,)
            )
        if comment != self.codes.id:
            raise SearchError(
                f"{self.artifact.path} was built with the backend pgvector, and its table {self.table} is not in the "
                "gallery's store: `eigenlens build` makes a new one of the same codes"
            )

    def prefix_index(self, length: int) -> PgvectorIndex:
        """Return the index of a prefix length. Raises: PrefixLengthError; SearchError, without a database."""
        spec = self._spec(length)
        if self._database is None:
            self.check()
            raise AssertionError
        return PgvectorIndex(self._database, self.table, spec, self.codes, len(self))

    def search(
        self, queries: NDArray[np.float32], *, plan: Plan, k: int, selection: Selection | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores (cosines) and rows of the k nearest, each (q, min(k, n)), best first; row -1 if fewer.

        Args:
            queries: codes, (q, code_length).
            selection: rows that may be returned; all if None. If it leaves few rows, all of them are scored exactly.

        Raises: PrefixLengthError; ResultCountError; CodesError.
        """
        index = self.prefix_index(plan.prefix_length).among(selection)
        self.check_search(queries, k)
        k = min(k, len(self))
        if k == 0:
            return np.empty((len(queries), 0), dtype=np.float32), np.empty((len(queries), 0), dtype=np.int64)
        last = plan.rerank_length or plan.prefix_length
        directly = selection is not None and self.scores_directly(selection, k)
        if directly or (plan.shortlist is not None and max(plan.shortlist, k) >= len(self)):
            return index.scan(queries, k, length=last)
        scores, rows = index.run(queries, plan=plan, k=k)
        # A graph may not lead to all rows, and holds no prefixes of zeros.
        available = min(k, len(self) if selection is None else selection.count)
        short = np.flatnonzero(rows[:, available - 1] < 0) if available else ()
        if len(short):
            scores[short], rows[short] = index.scan(queries[short], k, length=last)
        return scores, rows
