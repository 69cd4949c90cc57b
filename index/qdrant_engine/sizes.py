"""How many bytes a generation takes in Qdrant, computed before anything of it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.qdrant_engine.kinds import KINDS

# Links of a node on average, of a graph with m = 16. Each is stored in as many bits as the number of points has.
_LINKS = 22
# Of a quantised copy, beside its coordinates.
_OFFSET = 4


def index_bytes(specs: Sequence[IndexSpec], count: int) -> Mapping[IndexSpec, int]:
    """Return the bytes of each index, beside its vectors: links and quantised copies; 0 of a scan.

    Right to some percent for one segment. Each field to filter by adds links among the images that share a value of it:
    at most as many again.
    """
    return {spec: round(_bytes_of_point(spec, count) * count) for spec in specs}


def vector_bytes(specs: Sequence[IndexSpec], count: int) -> int:
    """Return the bytes of the vectors of all lengths."""
    return count * sum(2 * spec.length for spec in specs)


def _bytes_of_point(spec: IndexSpec, count: int) -> float:
    kind = KINDS[spec.kind]
    links = _LINKS * max(1, count - 1).bit_length() / 8 if kind.has_graph else 0
    return links + (spec.length + _OFFSET if kind.quantised else 0)
