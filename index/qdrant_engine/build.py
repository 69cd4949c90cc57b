"""Building a generation in Qdrant: a collection of codes, its payload and graphs indexed, and measured."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eigenlens import artifact
from eigenlens.index.building.build import BuildOptions
from eigenlens.index.building.calibrating.filtered_calibrator import FilteredCalibrator
from eigenlens.index.building.calibrating.remote_tuning import tuning_of_remote
from eigenlens.index.building.describe import describe_codes
from eigenlens.index.building.index_builder import TRAINING_VECTORS
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.eigenfunctions import write_eigenfunctions
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.filters.columns import Attributes
from eigenlens.index.filters.drawn import drawn_shares, is_drawn
from eigenlens.index.live.generation import KIND
from eigenlens.index.plans.calibration import Calibration
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.qdrant_engine.conditions import DRAWN, Payloads, drawn_value
from eigenlens.index.qdrant_engine.generation import BUILD
from eigenlens.index.qdrant_engine.kinds import KINDS, choose_qdrant_indexes
from eigenlens.index.qdrant_engine.prefix_index import QdrantIndex
from eigenlens.index.qdrant_engine.server import QdrantServer, VectorForm
from eigenlens.index.qdrant_engine.sizes import index_bytes

BACKEND = "qdrant"
# Points of one request.
_BATCH = 500


def build_qdrant_generation(
    path: Path, codes: Codes, options: BuildOptions, server: QdrantServer, *, collection: str
) -> artifact.Artifact:
    """Build, calibrate and publish a generation, whole or not at all: its collection is finished before its directory.

    A collection without a directory is left by a process that was killed in between; `QdrantBackend` removes it.

    Raises: ArtifactExistsError; IndexKindError; EngineUnavailableError.
    """
    specs = choose_qdrant_indexes(len(codes), lengths=options.lengths, kinds=options.kinds)
    properties: dict[str, Any] = {
        "backend": BACKEND,
        "collection": collection,
        "build": secrets.token_hex(8),
        "count": len(codes),
        "code_length": codes.code_length,
        "last_key": codes.last_key,
        "removal": options.removal,
        "indexes": [{"length": spec.length, "kind": spec.kind} for spec in specs],
        "codes": codes.artifact.path.name,
    }
    made_from = {"codes": codes.id, "encoder": codes.encoder_id}
    with artifact.publishing(path, kind=KIND, made_from=made_from, properties=properties) as directory:
        describe_codes(directory, codes, properties, lengths=options.lengths, metadata=options.metadata)
        payloads = Payloads(Attributes(directory, count=len(codes)))
        try:
            calibration = _Build(server, collection, codes, specs, payloads).run(options)
            metadata = {BUILD: properties["build"], "codes": codes.id, "encoder": codes.encoder_id}
            server.describe(collection, metadata)
        except BaseException:
            server.drop(collection)
            raise
        properties["calibration"] = calibration.to_json()
        sizes = index_bytes(specs, len(codes))
        properties["index_bytes"] = {str(spec.length): size for spec, size in sizes.items()}
        if len(codes):
            write_eigenfunctions(directory, codes, sample=codes.sample(TRAINING_VECTORS))
    return artifact.read(path, kind=KIND, verify=False)


class _Build:
    """The collection of one generation."""

    def __init__(
        self, server: QdrantServer, collection: str, codes: Codes, specs: Sequence[IndexSpec], payloads: Payloads
    ) -> None:
        self._server, self._collection, self._codes, self._specs = server, collection, codes, specs
        self._payloads = payloads
        self._shares: Sequence[float] = ()

    def run(self, options: BuildOptions) -> Calibration:
        """Fill the collection, and build and measure its indexes."""
        options.on_progress(0, len(self._specs))
        forms = [VectorForm(s.length, KINDS[s.kind].has_graph, KINDS[s.kind].quantised) for s in self._specs]
        self._shares = drawn_shares(len(self._codes), scored_directly=options.tuning.max_rows_scored_directly)
        drawn = {DRAWN: "text"} if self._shares else {}
        self._server.create(self._collection, forms, {**self._payloads.fields, **drawn})
        if not len(self._codes):
            return Calibration.of_nothing(self._specs)
        tuning = tuning_of_remote(options.tuning)
        with_efforts = sum(KINDS[spec.kind].has_graph for spec in self._specs)
        calibrator = FilteredCalibrator(self._codes, indexes=with_efforts, queries=options.queries, tuning=tuning)
        held_in = calibrator.held_in
        self._fill(0, held_in)
        for done, spec in enumerate(self._specs, start=1):
            calibrator.measure(self._index(spec, held_in))
            options.on_progress(done, len(self._specs))
        sizes = index_bytes(self._specs, len(self._codes))
        calibrator.measure_again(lambda spec: self._index(spec, held_in), sizes)
        calibrator.measure_drawn(lambda spec, share: self._index(spec, held_in).drawn(share), sizes, self._shares)
        if held_in < len(self._codes):
            self._fill(held_in, len(self._codes))
        return calibrator.result(sizes)

    def _index(self, spec: IndexSpec, count: int) -> QdrantIndex:
        return QdrantIndex(self._server, self._collection, spec, self._codes, count)

    def _fill(self, start: int, stop: int) -> None:
        """Store a range of rows, and index them."""
        for rows, codes in self._codes.runs(start, stop):
            for first in range(0, len(rows), _BATCH):
                batch = slice(first, first + _BATCH)
                self._server.upsert(self._collection, self._points(rows[batch], codes[batch]))
        self._server.index(self._collection)

    def _points(self, rows: np.ndarray[Any, Any], codes: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
        prefixes = {
            str(spec.length): unit_prefix(codes, spec.length).astype(np.float64).round(6) for spec in self._specs
        }
        first, stop = int(rows[0]), int(rows[-1]) + 1
        payloads = self._payloads.rows(first, stop)
        for share in self._shares:
            for place in np.flatnonzero(is_drawn(first, stop, share)).tolist():
                payloads[place].setdefault(DRAWN, []).append(drawn_value(share))
        return [
            {
                "id": key,
                "vector": {name: prefix[place].tolist() for name, prefix in prefixes.items()},
                "payload": payloads[place],
            }
            for place, key in enumerate(self._codes.keys[rows].tolist())
        ]
