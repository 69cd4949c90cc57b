"""The index of one prefix length in PostgreSQL: a search is one statement, whatever its plan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.filters.drawn import is_drawn
from eigenlens.index.filters.selection import Selection
from eigenlens.index.live.prefix_index import Rows, Scores
from eigenlens.index.pgvector_engine.database import Queries
from eigenlens.index.pgvector_engine.kinds import KINDS, MAX_EF_SEARCH, WHOLE, PgvectorKind
from eigenlens.index.pgvector_engine.statements import SearchStatement, integers, vector
from eigenlens.index.plans.calibration import measured_count
from eigenlens.index.plans.plan import IndexSpec, Plan


@dataclass(frozen=True)
class PgvectorIndex:
    """Searches the table of a generation by one prefix length; satisfies `index.live.prefix_index.AnyPrefixIndex`.

    index = PgvectorIndex(database, "vectors_000001", IndexSpec(64, "pg-hnsw"), codes, len(codes))
    scores, rows = index.run(queries, plan=Plan(64, "pg-hnsw", effort=100, shortlist=240, rerank_length=256), k=10)

    Attributes:
        database: that has the table.
        table: its name.
        spec: length and kind of the index.
        codes: codes of all rows, of which the table has a copy.
        count: number of rows in the table.
        selection: rows that searches may return; all if None.
    """

    database: Queries
    table: str
    spec: IndexSpec
    codes: Codes
    count: int
    selection: Selection | None = None

    def among(self, selection: Selection | None) -> PgvectorIndex:
        """Return the same index, whose searches may return these rows only; all if None."""
        return replace(self, selection=selection)

    def drawn(self, share: float) -> PgvectorIndex:
        """Return the same index, whose searches may return a share of the rows, drawn at random."""
        return self.among(Selection(is_drawn(0, len(self.codes), share)))

    @property
    def kind(self) -> PgvectorKind:
        """Properties of the kind."""
        return KINDS[self.spec.kind]

    @property
    def max_effort(self) -> int | None:
        """The effort at which every code is compared; efforts below are `hnsw.ef_search`. None for a scan."""
        return WHOLE if self.kind.has_graph else None

    def search(self, queries: Scores, k: int, *, effort: int | None = None) -> tuple[Scores, Rows]:
        """Return the cosines of prefixes and the rows of the k nearest, each (q, k), in the order of the index.

        The first results are those of a search for fewer.
        """
        statement = self._statement(effort, last_length=self.spec.length, shortlist=k)
        return self._execute(statement, queries, k, effort=effort, in_order_of_shortlist=True)

    def search_entries(self, queries: Scores, k: int, *, effort: int | None = None) -> Rows:
        """Return the rows that `search` returns: the index holds each once."""
        return self.search(queries, k, effort=effort)[1]

    def run(self, queries: Scores, *, plan: Plan, k: int) -> tuple[Scores, Rows]:
        """Return scores (cosines) and rows of the k nearest by a plan, each (q, k), best first; row -1 if fewer.

        Args:
            queries: codes, (q, code_length).
            plan: a plan of this index's length and kind.
        """
        if plan.shortlist is not None and plan.rerank_length is not None:
            statement = self._statement(plan.effort, last_length=plan.rerank_length, shortlist=max(plan.shortlist, k))
        else:
            # As many candidates for every k up to the next: pages of results fit together.
            candidates = max(measured_count(k), min(plan.effort or 0, MAX_EF_SEARCH))
            whole = self._is_whole(plan.effort)
            statement = self._statement(
                plan.effort, last_length=self.spec.length, shortlist=None if whole else candidates
            )
        return self._execute(statement, queries, k, effort=plan.effort)

    def scan(self, queries: Scores, k: int, *, length: int) -> tuple[Scores, Rows]:
        """Return the exact k nearest by the first `length` coordinates, each (q, k); row -1 if fewer.

        Of a selection, few rows are read one by one; if they are many, the whole table is.
        """
        code_length, selection = self.codes.code_length, self.selection
        condition = "" if selection is None else "rows" if selection.count < self.count // 10 else "bits"
        statement = SearchStatement(self.table, code_length, length, length, None, False, condition)
        return self._execute(statement, queries, k, effort=None)

    def _statement(self, effort: int | None, *, last_length: int, shortlist: int | None) -> SearchStatement:
        return SearchStatement(
            self.table,
            self.codes.code_length,
            self.spec.length,
            last_length,
            shortlist,
            by_graph=not self._is_whole(effort),
            condition="" if self.selection is None else "bits",
        )

    def _is_whole(self, effort: int | None) -> bool:
        return not self.kind.has_graph or effort is None or effort >= WHOLE

    def _execute(
        self,
        statement: SearchStatement,
        queries: Scores,
        k: int,
        *,
        effort: int | None,
        in_order_of_shortlist: bool = False,
    ) -> tuple[Scores, Rows]:
        """Return scores and rows of a statement for each query, each (q, k); row -1 and score -inf if fewer."""
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        text = statement.text(k, in_order_of_shortlist=in_order_of_shortlist)
        before = statement.settings
        if statement.by_graph:
            before = f"SET hnsw.ef_search = {effort}; {before}"
        chosen: list[object] = []
        if self.selection is not None:
            rows_alone = statement.condition == "rows"
            chosen = [integers(self.selection.rows) if rows_alone else self.selection.bits.tobytes()]
        for number, query in enumerate(queries):
            parameters = [vector(query, statement.last_length), *chosen]
            if statement.shortlist is not None:
                parameters.append(vector(query, statement.length))
            results = self.database.query(text, parameters, before=before)
            for place, (row, score) in enumerate(results):
                rows[number, place], scores[number, place] = row, score
        return scores, rows
