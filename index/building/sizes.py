"""How large a generation will be, told before anything of it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import faiss

from eigenlens.index.building.spilling import SHARE
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.plans.plan import IndexSpec

# Of each row beside its code: key, place in the order of keys, norm.
_BYTES_OF_ROW = 8 + 8 + 4
_BYTES_OF_ID = 8
_LINK = 4
# Codes that centroids were not trained on are less like them, so more of them have a second list.
_MORE = 1.3


def codes_bytes(count: int, code_length: int) -> int:
    """Size of a codes artifact."""
    return count * (2 * code_length + _BYTES_OF_ROW)


def index_bytes(specs: Sequence[IndexSpec], count: int) -> Mapping[IndexSpec, int]:
    """Size of each index's file for so many codes, to some percent; 0 where it is the codes."""
    return {spec: _index_bytes(spec, count) for spec in specs}


def building_bytes(specs: Sequence[IndexSpec], count: int) -> Mapping[IndexSpec, int]:
    """Memory that each index takes while it is built: lists of 4 bits are there twice when they get their last form."""
    return {spec: size * (2 if spec.kind == "ivf-pq" else 1) for spec, size in index_bytes(specs, count).items()}


def _index_bytes(spec: IndexSpec, count: int) -> int:
    factory = require_kind(spec.kind).factory
    if factory is None:
        return 0
    index = faiss.index_factory(spec.length, factory(count, spec.length), faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexIVF):
        lists = int(index.nlist)
        listed = kept = count
        if isinstance(index, faiss.IndexIVFFastScan):
            listed += round(_MORE * SHARE * count)  # in a second list
            kept = listed + lists * int(index.bbs) // 2  # the last block of each list is filled up
        centroids = _with_graph(faiss.downcast_index(index.quantizer), lists)
        return kept * int(index.code_size) + listed * _BYTES_OF_ID + centroids
    return _with_graph(index, count)


def _with_graph(index: faiss.Index, count: int) -> int:
    """Vectors that lie one after the other, and the graph over them where there is one."""
    if isinstance(index, faiss.IndexHNSW):
        # 2 M links of each in the lowest level, M in each of the levels above, where one in M is; level and offset.
        m = int(index.hnsw.nb_neighbors(1))
        links = _LINK * (2 * m + m / (m - 1)) + 4 + 8
        return round(count * (int(faiss.downcast_index(index.storage).code_size) + links))
    sums = _LINK * (int(index.n_levels) + 1) if hasattr(index, "n_levels") else 0
    return count * (int(index.code_size) + sums)
