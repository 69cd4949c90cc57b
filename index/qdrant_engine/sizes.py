"""How many bytes a generation takes in Qdrant, computed before anything of it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.qdrant_engine.kinds import KINDS

# Of a graph with m = 16, as its files have the links.
_LINKS = 100


def index_bytes(specs: Sequence[IndexSpec], count: int) -> Mapping[IndexSpec, int]:
    """Return the bytes of each index, beside its vectors: links and quantised copies; 0 of a scan."""
    return {spec: _index_bytes(spec) * count for spec in specs}


def vector_bytes(specs: Sequence[IndexSpec], count: int) -> int:
    """Return the bytes of the vectors of all lengths."""
    return count * sum(2 * spec.length for spec in specs)


def _index_bytes(spec: IndexSpec) -> int:
    kind = KINDS[spec.kind]
    return (_LINKS if kind.has_graph else 0) + (spec.length + 4 if kind.quantised else 0)
