"""Opening the index of one prefix length, of whatever kind."""

from __future__ import annotations

from pathlib import Path

import faiss

from eigenlens.artifact import Artifact
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.errors import SearchError
from eigenlens.index.faiss_engine.compact_codes import CODES_FILE, QUANTIZER_FILE, CompactCodes
from eigenlens.index.faiss_engine.graph.graph_index import GraphIndex
from eigenlens.index.faiss_engine.graph.vamana import SETTINGS, VAMANA, VamanaGraph
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex, file_name
from eigenlens.index.faiss_engine.va_file.kind import VaFileKind
from eigenlens.index.faiss_engine.va_file.va_file_index import VaFileIndex
from eigenlens.index.plans.plan import IndexSpec


def prefix_index_over(
    index: faiss.Index | VamanaGraph, spec: IndexSpec, codes: Codes, *, compact: CompactCodes | None = None
) -> PrefixIndex:
    """Return the PrefixIndex that searches an index in memory."""
    if isinstance(index, VamanaGraph):
        return GraphIndex(index, spec, codes, compact=compact)
    is_va_file = isinstance(require_kind(spec.kind), VaFileKind)
    return (VaFileIndex if is_va_file else PrefixIndex)(index, spec, codes, compact=compact)


def open_compact_codes(generation: Artifact, codes: Codes) -> CompactCodes:
    """Open the compact codes of a generation.

    Raises: ArtifactDamagedError, if the manifest does not list their files; SearchError, if these cannot be read.
    """
    for name in (CODES_FILE, QUANTIZER_FILE):
        generation.file(name)
    return CompactCodes(generation.path, count=len(codes), code_length=codes.code_length)


def open_prefix_index(
    generation: Artifact, spec: IndexSpec, codes: Codes, *, compact: CompactCodes | None = None
) -> PrefixIndex:
    """Open an index of a generation.

    Raises: ArtifactDamagedError, if the manifest does not list its file; SearchError, if the file
        cannot be read or holds other vectors.
    """
    if require_kind(spec.kind).has_file:
        name = file_name(spec)
        generation.file(f"{name}/{SETTINGS}/svs_config.toml" if spec.kind == VAMANA.name else name)
    return read_prefix_index(generation.path, spec, codes, compact=compact)


def read_prefix_index(
    directory: Path, spec: IndexSpec, codes: Codes, *, compact: CompactCodes | None = None
) -> PrefixIndex:
    """Open an index in a directory. Raises: SearchError, if its file cannot be read or holds other vectors."""
    kind = require_kind(spec.kind)
    if not kind.has_file:
        return PrefixIndex(codes.scan(len(codes)), spec, codes)
    path = directory / file_name(spec)
    try:
        index = kind.read(path)
    except RuntimeError as error:
        raise SearchError(f"{kind.library} cannot read {path}: {error}") from error
    if not kind.fits(index, spec.length) or index.ntotal != len(codes):
        raise SearchError(
            f"{path} holds {index.ntotal} vectors of {index.d} coordinates, not {len(codes)} of {spec.length}"
        )
    return prefix_index_over(index, spec, codes, compact=compact)
