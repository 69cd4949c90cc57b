"""The kinds of index in Qdrant, which suits a prefix length, and what Qdrant is not asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eigenlens.index.errors import IndexKindError
from eigenlens.index.live.remote_generation import check_kinds
from eigenlens.index.plans.plan import IndexSpec

# Efforts are `hnsw_ef`. Qdrant takes any; one above this compares every code instead.
MAX_EF = 1000
WHOLE = MAX_EF + 1
# Results, and candidates of a shortlist, that one search asks each shard for.
MAX_RESULTS = 10_000
MAX_CODE_LENGTH = 65_535
# A graph over shorter prefixes finds shortlists too long to be worth it.
_MIN_LENGTH = 32
# A shortlist by a quarter of the coordinates, rescored by all of them.
_FULL_TO_SHORTLIST = 4
# A scan of fewer rows takes no longer than a few milliseconds.
_MIN_ROWS_FOR_GRAPH = 5000


@dataclass(frozen=True)
class QdrantKind:
    """A kind of index in Qdrant; its other attributes are those of `index.live.prefix_index.AnyKind`.

    Attributes:
        name: as in a plan.
        has_graph: whether an HNSW graph leads to the nearest vectors; all are compared otherwise.
        quantised: whether the graph is searched by copies of one byte a coordinate.
    """

    name: str
    has_graph: bool
    quantised: bool = False

    lossy = False
    exact = True
    has_file = True
    scores_codes = False
    prunes = False
    is_remote = True
    filters = True
    min_measured_effort = 20

    def max_shortlist(self, effort: int | None) -> int | None:
        """Return the longest shortlist that a search of this effort finds: a longer one raises Qdrant's effort."""
        return MAX_RESULTS if effort is None or effort >= WHOLE else effort


KINDS = {
    kind.name: kind
    for kind in (
        QdrantKind("qd-hnsw", has_graph=True),
        QdrantKind("qd-hnsw-sq8", has_graph=True, quantised=True),
        QdrantKind("qd-scan", has_graph=False),
    )
}


def choose_qdrant_lengths(code_length: int) -> list[int]:
    """Return the lengths that are built where none are given: each is one more vector of every image."""
    return sorted({min(code_length, max(_MIN_LENGTH, code_length // _FULL_TO_SHORTLIST)), code_length})


def choose_qdrant_indexes(
    count: int, *, lengths: Sequence[int], kinds: Mapping[int, str] | None = None
) -> tuple[IndexSpec, ...]:
    """Return the indexes to build for `count` codes, one for each length: graphs, and a scan by full codes.

    Raises: IndexKindError, for a kind of another engine, a length that is not built, or what Qdrant cannot hold.
    """
    kinds = dict(kinds or {})
    check_kinds(kinds, backend="qdrant", kinds=KINDS, lengths=lengths)
    full = max(lengths)
    if full > MAX_CODE_LENGTH:
        raise IndexKindError(
            f"qdrant stores codes of at most {MAX_CODE_LENGTH} coordinates, not {full}; use the backend faiss"
        )
    return tuple(IndexSpec(n, kinds.get(n) or _suitable_kind(count, is_full=n == full)) for n in sorted(lengths))


def _suitable_kind(count: int, *, is_full: bool) -> str:
    return "qd-scan" if is_full or count < _MIN_ROWS_FOR_GRAPH else "qd-hnsw"
