"""Backends: each builds, opens and removes the generations of one search engine, whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.errors import EngineUnavailableError, IndexKindError
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.gpu import Gpu
from eigenlens.index.faiss_engine.graph.vamana import require_svs
from eigenlens.index.faiss_engine.suitable_kinds import choose_indexes
from eigenlens.index.live.generation import BaseGeneration
from eigenlens.index.pgvector_engine.build import BACKEND, build_pgvector_generation
from eigenlens.index.pgvector_engine.database import Database
from eigenlens.index.pgvector_engine.generation import PgvectorGeneration
from eigenlens.index.pgvector_engine.kinds import choose_pgvector_indexes
from eigenlens.index.pgvector_engine.sizes import graph_bytes, table_bytes
from eigenlens.index.pgvector_engine.statements import TABLES, table_name
from eigenlens.index.plans.plan import IndexSpec, Optimise, choose_lengths
from eigenlens.index.qdrant_engine import sizes as qdrant_sizes
from eigenlens.index.qdrant_engine.build import BACKEND as QDRANT_BACKEND
from eigenlens.index.qdrant_engine.build import build_qdrant_generation
from eigenlens.index.qdrant_engine.generation import QdrantGeneration
from eigenlens.index.qdrant_engine.kinds import choose_qdrant_indexes, choose_qdrant_lengths
from eigenlens.index.qdrant_engine.names import CollectionNames
from eigenlens.index.qdrant_engine.server import QdrantServer

FAISS, PGVECTOR, QDRANT = "faiss", BACKEND, QDRANT_BACKEND
BACKENDS = (FAISS, PGVECTOR, QDRANT)
log = logging.getLogger(__name__)

# A graph over shorter prefixes finds shortlists too long to be worth it.
_MIN_PGVECTOR_LENGTH = 32


class Backend(Protocol):
    """A search engine as a gallery uses it. A generation is a directory; what lies elsewhere is found by its number."""

    @property
    def name(self) -> str:
        """As manifests and `eigenlens build --backend` call it."""

    def choose_lengths(self, code_length: int, lengths: Sequence[int] | None) -> tuple[int, ...]:
        """Return the prefix lengths to build, ascending, the full one among them. Raises: LengthRangeError."""

    def choose_indexes(
        self, count: int, *, lengths: Sequence[int], kinds: Mapping[int, str] | None = None
    ) -> tuple[IndexSpec, ...]:
        """Return the indexes to build for `count` codes. Raises: IndexKindError, for what this engine has not."""

    def describe_size(self, specs: Sequence[IndexSpec], *, count: int, code_length: int) -> str:
        """Return what a generation takes outside of its directory; empty if it takes nothing."""

    def check_optimise(self, optimise: Optimise) -> None:
        """Check that this engine can build for that. Raises: IndexKindError, which says what it needs."""

    def build(self, path: Path, codes: Codes, options: BuildOptions) -> None:
        """Build, calibrate and publish the generation at `path`, whose name is its number, whole or not at all."""

    def open(self, path: Path, codes: Codes, *, verify: bool = True) -> BaseGeneration:
        """Open a generation. Raises: ArtifactError, which names a damaged file; SearchError."""

    def remove_unused(self, used: Collection[Mapping[str, Any]]) -> None:
        """Remove what lies outside of directories and belongs to no generation, given the properties of all."""


class FaissBackend:
    """Indexes are files of the generation's directory."""

    name = FAISS

    def __init__(self, gpu: Gpu | None = None) -> None:
        """Build and search on a GPU; on the CPU if None."""
        self._gpu = gpu

    def choose_lengths(self, code_length: int, lengths: Sequence[int] | None) -> tuple[int, ...]:
        """Return the prefix lengths to build: the powers of two from 4, unless others are given."""
        return choose_lengths(code_length, lengths)

    def choose_indexes(
        self, count: int, *, lengths: Sequence[int], kinds: Mapping[int, str] | None = None
    ) -> tuple[IndexSpec, ...]:
        """Return the indexes to build for `count` codes. Raises: IndexKindError."""
        return choose_indexes(count, lengths=lengths, kinds=kinds, gpu=self._gpu is not None)

    def describe_size(self, specs: Sequence[IndexSpec], *, count: int, code_length: int) -> str:
        """Return nothing: all is in the directory."""
        return ""

    def check_optimise(self, optimise: Optimise) -> None:
        """Check that SVS is there for a graph. Raises: IndexKindError."""
        if optimise == "latency":
            require_svs()

    def build(self, path: Path, codes: Codes, options: BuildOptions) -> None:
        """Build a generation."""
        build_generation(path, codes, options)

    def open(self, path: Path, codes: Codes, *, verify: bool = True) -> Generation:
        """Open a generation."""
        return Generation(path, codes, verify=verify, gpu=self._gpu)

    def remove_unused(self, used: Collection[Mapping[str, Any]]) -> None:
        """Do nothing: all is in the directories."""


class PgvectorBackend:
    """Codes and indexes are a table of the gallery's PostgreSQL; all else is in the generation's directory."""

    name = PGVECTOR

    def __init__(self, database: Database | None) -> None:
        """Keep tables in a database; without one, generations open and cannot be searched."""
        self._database = database

    def choose_lengths(self, code_length: int, lengths: Sequence[int] | None) -> tuple[int, ...]:
        """Return the prefix lengths to build: the powers of two from 32, unless others are given."""
        if lengths is None:
            lengths = [n for n in choose_lengths(code_length) if n >= min(_MIN_PGVECTOR_LENGTH, code_length)]
        return choose_lengths(code_length, lengths)

    def choose_indexes(
        self, count: int, *, lengths: Sequence[int], kinds: Mapping[int, str] | None = None
    ) -> tuple[IndexSpec, ...]:
        """Return the indexes to build for `count` codes. Raises: IndexKindError."""
        return choose_pgvector_indexes(count, lengths=lengths, kinds=kinds)

    def describe_size(self, specs: Sequence[IndexSpec], *, count: int, code_length: int) -> str:
        """Return the megabytes of the table and of each index."""
        sizes = graph_bytes(specs, count)
        by_index = [f"length {spec.length} {size / 1e6:,.1f} MB" for spec, size in sizes.items() if size]
        return ", ".join([f"in PostgreSQL: codes {table_bytes(count, code_length) / 1e6:,.1f} MB", *by_index])

    def check_optimise(self, optimise: Optimise) -> None:
        """Refuse all but the default, since the table has the same indexes always. Raises: IndexKindError."""
        if optimise != "memory":
            raise IndexKindError(f"optimise {optimise} is for the backend {FAISS}; {PGVECTOR} has memory only")

    def build(self, path: Path, codes: Codes, options: BuildOptions) -> None:
        """Build a generation in a table of its number."""
        assert self._database is not None, "the gallery has no PostgreSQL"
        build_pgvector_generation(path, codes, options, self._database, table=table_name(int(path.name)))

    def open(self, path: Path, codes: Codes, *, verify: bool = True) -> PgvectorGeneration:
        """Open a generation; `check` tells whether its table is there."""
        return PgvectorGeneration(path, codes, self._database, verify=verify)

    def remove_unused(self, used: Collection[Mapping[str, Any]]) -> None:
        """Drop the tables that belong to no generation, such as that of a build that was killed at its end."""
        if self._database is None or not self._database.is_installed():
            return
        kept = {properties.get("table") for properties in used}
        for (table,) in self._database.query(TABLES):
            if table not in kept:
                with self._database.borrow(f"DROP TABLE {table}"):
                    pass


class QdrantBackend:
    """Codes and indexes are collections of a Qdrant; all else is in the generation's directory."""

    name = QDRANT

    def __init__(self, server: QdrantServer | None, names: CollectionNames) -> None:
        """Keep collections in a server; without one, generations open and cannot be searched."""
        self._server, self._names = server, names

    def choose_lengths(self, code_length: int, lengths: Sequence[int] | None) -> tuple[int, ...]:
        """Return the prefix lengths to build: a quarter of the code for shortlists, unless others are given."""
        return choose_lengths(code_length, choose_qdrant_lengths(code_length) if lengths is None else lengths)

    def choose_indexes(
        self, count: int, *, lengths: Sequence[int], kinds: Mapping[int, str] | None = None
    ) -> tuple[IndexSpec, ...]:
        """Return the indexes to build for `count` codes. Raises: IndexKindError."""
        return choose_qdrant_indexes(count, lengths=lengths, kinds=kinds)

    def describe_size(self, specs: Sequence[IndexSpec], *, count: int, code_length: int) -> str:
        """Return the megabytes of the vectors and of each index."""
        sizes = qdrant_sizes.index_bytes(specs, count)
        by_index = [f"length {spec.length} {size / 1e6:,.1f} MB" for spec, size in sizes.items() if size]
        vectors = qdrant_sizes.vector_bytes(specs, count)
        return ", ".join([f"in Qdrant: vectors {vectors / 1e6:,.1f} MB", *by_index])

    def check_optimise(self, optimise: Optimise) -> None:
        """Refuse all but the default, since a collection has the same indexes always. Raises: IndexKindError."""
        if optimise != "memory":
            raise IndexKindError(f"optimise {optimise} is for the backend {FAISS}; {QDRANT} has memory only")

    def build(self, path: Path, codes: Codes, options: BuildOptions) -> None:
        """Build a generation in a collection of its number."""
        assert self._server is not None, "the gallery has no Qdrant"
        name = self._names.of(int(path.name))
        build_qdrant_generation(path, codes, options, self._server, collection=name)

    def open(self, path: Path, codes: Codes, *, verify: bool = True) -> QdrantGeneration:
        """Open a generation; `check` tells whether its collection is there."""
        return QdrantGeneration(path, codes, self._server, verify=verify)

    def remove_unused(self, used: Collection[Mapping[str, Any]]) -> None:
        """Drop the collections of this gallery that belong to no generation, such as that of a killed build."""
        if self._server is None or not self._names.is_used:
            return
        kept = {properties.get("collection") for properties in used}
        try:
            for name in self._names.among(self._server.names()):
                if name not in kept:
                    self._server.drop(name)
        except EngineUnavailableError as error:
            log.warning("collections that no generation needs are removed later: %s", error)
