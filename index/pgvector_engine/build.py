"""Building a generation in PostgreSQL: a table of codes, its indexes made and measured, all in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eigenlens import artifact
from eigenlens.index.building.build import BuildOptions
from eigenlens.index.building.calibrating.filtered_calibrator import FilteredCalibrator
from eigenlens.index.building.calibrating.remote_tuning import tuning_of_remote
from eigenlens.index.building.describe import describe_codes
from eigenlens.index.building.index_builder import TRAINING_VECTORS
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.eigenfunctions import write_eigenfunctions
from eigenlens.index.filters.drawn import drawn_shares
from eigenlens.index.live.generation import KIND
from eigenlens.index.pgvector_engine.database import Connection, Database, OneConnection
from eigenlens.index.pgvector_engine.kinds import KINDS, choose_pgvector_indexes
from eigenlens.index.pgvector_engine.prefix_index import PgvectorIndex
from eigenlens.index.pgvector_engine.statements import (
    COPY_HEADER,
    COPY_TRAILER,
    copy_codes,
    create_index,
    create_table,
    rows_to_copy,
)
from eigenlens.index.plans.calibration import Calibration
from eigenlens.index.plans.plan import IndexSpec

BACKEND = "pgvector"


def build_pgvector_generation(
    path: Path, codes: Codes, options: BuildOptions, database: Database, *, table: str
) -> artifact.Artifact:
    """Build, calibrate and publish a generation, whole or not at all: its table is committed before its directory.

    A table without a directory is left by a process that was killed in between; `PgvectorBackend` removes it.

    Raises: ArtifactExistsError; IndexKindError.
    """
    specs = choose_pgvector_indexes(len(codes), lengths=options.lengths, kinds=options.kinds)
    if len(codes) == 0:
        specs = tuple(IndexSpec(spec.length, "pg-scan") for spec in specs)
    properties: dict[str, Any] = {
        "backend": BACKEND,
        "table": table,
        "count": len(codes),
        "code_length": codes.code_length,
        "last_key": codes.last_key,
        "removal": options.removal,
        "indexes": [{"length": spec.length, "kind": spec.kind} for spec in specs],
        "codes": codes.artifact.path.name,
    }
    made_from = {"codes": codes.id, "encoder": codes.encoder_id}
    with artifact.publishing(path, kind=KIND, made_from=made_from, properties=properties) as directory:
        database.install()
        with database.borrow("BEGIN") as connection:
            calibration, index_bytes = _Build(connection, table, codes, specs, options).run()
            connection.execute("COMMIT")
        properties["calibration"] = calibration.to_json()
        properties["index_bytes"] = {str(spec.length): size for spec, size in index_bytes.items()}
        if len(codes):
            write_eigenfunctions(directory, codes, sample=codes.sample(TRAINING_VECTORS))
        describe_codes(directory, codes, properties, lengths=options.lengths, metadata=options.metadata)
    return artifact.read(path, kind=KIND, verify=False)


class _Build:
    """The table of one generation, inside a transaction."""

    def __init__(
        self, connection: Connection, table: str, codes: Codes, specs: Sequence[IndexSpec], options: BuildOptions
    ) -> None:
        self._connection, self._table, self._codes, self._specs = connection, table, codes, specs
        self._options = options

    def run(self) -> tuple[Calibration, dict[IndexSpec, int]]:
        """Fill the table, and build and measure its indexes. Returns: what was measured, and bytes of each index."""
        execute, table, codes = self._connection.execute, self._table, self._codes
        self._options.on_progress(0, len(self._specs))
        execute(create_table(table, code_length=codes.code_length))
        tuning = tuning_of_remote(self._options.tuning)
        calibrator = None
        if len(codes):
            with_efforts = sum(KINDS[spec.kind].has_graph for spec in self._specs)
            calibrator = FilteredCalibrator(codes, indexes=with_efforts, queries=self._options.queries, tuning=tuning)
            self._copy(0, calibrator.held_in)
        for done, spec in enumerate(self._specs, start=1):
            if KINDS[spec.kind].has_graph:
                execute(
                    create_index(table, length=spec.length, code_length=codes.code_length, count=len(codes)),
                )
            if calibrator is not None:
                calibrator.measure(self._index(spec, calibrator.held_in))
            self._options.on_progress(done, len(self._specs))
        if calibrator is not None:
            held_in = calibrator.held_in
            sizes = {spec: self._index_bytes(spec) for spec in self._specs}
            calibrator.measure_again(lambda spec: self._index(spec, held_in), sizes)
            shares = drawn_shares(len(codes), scored_directly=self._options.tuning.max_rows_scored_directly)
            calibrator.measure_drawn(lambda spec, share: self._index(spec, held_in).drawn(share), sizes, shares)
            self._copy(held_in, len(codes))
        execute(f"COMMENT ON TABLE {table} IS '{codes.id}'")
        sizes = {spec: self._index_bytes(spec) for spec in self._specs}
        calibration = Calibration.of_nothing(self._specs) if calibrator is None else calibrator.result(sizes)
        return calibration, sizes

    def _index(self, spec: IndexSpec, count: int) -> PgvectorIndex:
        return PgvectorIndex(OneConnection(self._connection), self._table, spec, self._codes, count)

    def _copy(self, start: int, stop: int) -> None:
        with self._connection.cursor().copy(copy_codes(self._table)) as copy:
            copy.write(COPY_HEADER)
            for rows, codes in self._codes.runs(start, stop):
                copy.write(rows_to_copy(int(rows[0]), self._codes.keys[rows], codes))
            copy.write(COPY_TRAILER)

    def _index_bytes(self, spec: IndexSpec) -> int:
        if not KINDS[spec.kind].has_graph:
            return 0
        rows = self._connection.execute(
            "SELECT pg_relation_size(to_regclass(%s))", (f"{self._table}_{spec.length}",)
        ).fetchall()
        return int(rows[0][0])
