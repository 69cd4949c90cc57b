"""How many bytes a generation takes in PostgreSQL, computed before anything of it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eigenlens.index.pgvector_engine.kinds import KINDS
from eigenlens.index.plans.plan import IndexSpec

_PAGE, _PAGE_HEADER, _LINE_POINTER = 8192, 24, 4
# A row's header; its row number and key, aligned to 8 bytes; the header of a halfvec.
_ROW_HEADER, _NUMBER_AND_KEY, _VECTOR_HEADER = 24, 16, 8
# An entry of the primary key, whose pages are nine tenths full.
_KEY_ENTRY = 20 / 0.9
# Of HNSW with m = 16: a node's header before its vector; links of its lowest layer and, on average, those above.
_NODE_HEADER, _LINKS, _LINKS_ABOVE, _GRAPH_PAGE_END = 72, 200, 8, 8


def table_bytes(count: int, code_length: int) -> int:
    """Return the bytes of the table of so many codes and its primary key."""
    row = _ROW_HEADER + _NUMBER_AND_KEY + _aligned(_VECTOR_HEADER + 2 * code_length) + _LINE_POINTER
    rows_of_page = (_PAGE - _PAGE_HEADER) // row
    return round(count * (_PAGE / rows_of_page + _KEY_ENTRY))


def graph_bytes(specs: Sequence[IndexSpec], count: int) -> Mapping[IndexSpec, int]:
    """Return the bytes of each index; 0 of a scan. The sizes of tables and indexes are right to some percent."""
    return {spec: _graph_bytes(spec.length, count) if KINDS[spec.kind].has_graph else 0 for spec in specs}


def _graph_bytes(length: int, count: int) -> int:
    node = _aligned(_NODE_HEADER + _VECTOR_HEADER + 2 * length) + _LINE_POINTER
    node += _LINKS + _LINKS_ABOVE + _LINE_POINTER
    nodes_of_page = (_PAGE - _PAGE_HEADER - _GRAPH_PAGE_END) // node
    return round(count * _PAGE / nodes_of_page)


def _aligned(size: int) -> int:
    return -(-size // 8) * 8
