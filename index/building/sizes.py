"""How large a generation will be, computed before anything of it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eigenlens.index.faiss_engine.compact_codes import compact_bytes
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

# Of each row beside its code: key, place in the order of keys, norm.
_BYTES_OF_ROW = 8 + 8 + 4


def codes_bytes(count: int, code_length: int) -> int:
    """Return the size of a codes artifact."""
    return count * (2 * code_length + _BYTES_OF_ROW)


def compact_codes_bytes(count: int, code_length: int) -> int:
    """Return the size of the compact codes of a build for memory."""
    return count * compact_bytes(code_length)


def index_bytes(specs: Sequence[IndexSpec], count: int, *, tuning: Tuning = DEFAULT_TUNING) -> Mapping[IndexSpec, int]:
    """Return the size of each index's file for so many codes, to some percent; 0 where it is the codes."""
    return {spec: require_kind(spec.kind).index_bytes(count, spec.length, tuning=tuning) for spec in specs}


def building_bytes(
    specs: Sequence[IndexSpec], count: int, *, tuning: Tuning = DEFAULT_TUNING
) -> Mapping[IndexSpec, int]:
    """Return the memory that each index takes while it is built."""
    sizes = index_bytes(specs, count, tuning=tuning)
    return {spec: require_kind(spec.kind).copies_while_built * size for spec, size in sizes.items()}
