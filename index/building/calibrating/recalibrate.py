"""Recalibration: the plans of a generation measured again with real queries; a new generation has the same indexes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.index.building.calibrating.filtered_calibrator import FilteredCalibrator
from eigenlens.index.errors import CodesError
from eigenlens.index.live.generation import KIND, BaseGeneration
from eigenlens.index.live.remote_generation import RemoteGeneration
from eigenlens.index.plans.plan import IndexSpec

# With fewer queries, the lower bounds of recall are so low that hardly any plan meets a target.
MIN_QUERIES = 100


def recalibrate_generation(
    path: Path,
    generation: BaseGeneration,
    queries: NDArray[np.float32],
    excluded_rows: NDArray[np.int64],
    *,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> artifact.Artifact:
    """Publish a generation at `path`, whole or not at all: the files of another, and plans measured with real queries.

    Files are linked where the file system can, so that they take no space twice. Rows of images that were removed since
    the build count as neighbours, as they do while a generation is built: a search reaches that much farther.

    Args:
        queries: codes, (q, code_length).
        excluded_rows: a row for each query that is no result, (q,), such as the query itself; -1 for none.
        device: that searches, "cpu" or "gpu", as calibrations record it.
        on_progress: called with (indexes measured, indexes in all) after each.

    Raises: CodesError, if there are too few queries; ArtifactExistsError.
    """
    if len(queries) < MIN_QUERIES:
        raise CodesError(f"{len(queries)} queries are too few to measure recall with; {MIN_QUERIES} are enough")
    source = generation.artifact
    properties = dict(source.properties)
    with artifact.publishing(path, kind=KIND, made_from=source.made_from, properties=properties) as directory:
        for name in source.files:
            _link(source.path / name, directory / name)
        calibrator = FilteredCalibrator(
            generation.codes,
            indexes=sum(generation.open_index(spec).max_effort is not None for spec in generation.all_specs),
            queries=queries,
            excluded_rows=excluded_rows,
            compact=generation.compact if device == "cpu" else None,
            tuning=generation.tuning,
        )
        for done, spec in enumerate(generation.all_specs, start=1):
            calibrator.measure(generation.open_index(spec))
            on_progress(done, len(generation.all_specs))
        sizes: dict[IndexSpec, int] = {spec: generation.size_of(spec) for spec in generation.all_specs}
        calibrator.measure_again(generation.open_index, sizes)
        if isinstance(generation, RemoteGeneration):
            shares = list(generation.calibration.drawn)
            calibrator.measure_drawn(lambda s, share: generation.prefix_index(s.length).drawn(share), sizes, shares)
        properties["calibration"] = calibrator.result(sizes, device=device).to_json()
    return artifact.read(path, kind=KIND, verify=False)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # the file system has no links
        shutil.copyfile(source, target)
