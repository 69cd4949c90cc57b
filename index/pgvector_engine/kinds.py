"""The kinds of index in PostgreSQL, which suits a prefix length, and what pgvector cannot hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eigenlens.index.errors import IndexKindError
from eigenlens.index.live.remote_generation import check_kinds
from eigenlens.index.plans.plan import IndexSpec

# pgvector's limit of hnsw.ef_search. An effort above it compares every code.
MAX_EF_SEARCH = 1000
WHOLE = MAX_EF_SEARCH + 1
MAX_ROWS = 20_000_000
# Of a halfvec that HNSW indexes; it also keeps a row with plain storage on one page.
MAX_CODE_LENGTH = 4000
# A scan of fewer rows takes no longer than a few milliseconds.
_MIN_ROWS_FOR_GRAPH = 5000


@dataclass(frozen=True)
class PgvectorKind:
    """A kind of index in PostgreSQL; its attributes are those of `index.live.prefix_index.AnyKind`."""

    name: str
    has_graph: bool

    lossy = False
    exact = True
    has_file = True
    scores_codes = False
    prunes = False
    is_remote = True
    filters = True
    min_measured_effort = 20

    def max_shortlist(self, effort: int | None) -> int | None:
        """Return the longest shortlist that calibration measures: pgvector goes on beyond ef_search by itself."""
        return MAX_EF_SEARCH


KINDS = {kind.name: kind for kind in (PgvectorKind("pg-hnsw", has_graph=True), PgvectorKind("pg-scan", False))}


def choose_pgvector_indexes(
    count: int, *, lengths: Sequence[int], kinds: Mapping[int, str] | None = None
) -> tuple[IndexSpec, ...]:
    """Return the indexes to build for `count` codes, one for each length: graphs, and a scan by full codes.

    Raises: IndexKindError, for a kind of another engine, a length that is not built, or what pgvector cannot hold.
    """
    kinds = dict(kinds or {})
    check_kinds(kinds, backend="pgvector", kinds=KINDS, lengths=lengths)
    full = max(lengths)
    if count > MAX_ROWS:
        raise IndexKindError(
            f"pgvector is not for {count} images: an index of more than {MAX_ROWS} takes too long to build; use the "
            "backend faiss"
        )
    if full > MAX_CODE_LENGTH:
        raise IndexKindError(
            f"pgvector indexes codes of at most {MAX_CODE_LENGTH} coordinates, not {full}; use the backend faiss"
        )
    return tuple(IndexSpec(n, kinds.get(n) or _suitable_kind(count, is_full=n == full)) for n in sorted(lengths))


def _suitable_kind(count: int, *, is_full: bool) -> str:
    return "pg-scan" if is_full or count < _MIN_ROWS_FOR_GRAPH else "pg-hnsw"
