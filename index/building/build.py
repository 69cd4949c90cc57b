"""Building a generation: the indexes of its prefix lengths made, measured and published as one artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.index.building.calibrating.calibrator import Calibrator
from eigenlens.index.building.describe import describe_codes
from eigenlens.index.building.graph_builder import GraphBuilder
from eigenlens.index.building.index_builder import TRAINING_VECTORS, Builder
from eigenlens.index.building.prefix_choice import add_prefix_between, choose_fewest, choose_graph
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.eigenfunctions import write_eigenfunctions
from eigenlens.index.faiss_engine.compact_codes import CODES_FILE, CompactCodes, write_compact_codes
from eigenlens.index.faiss_engine.gpu import Gpu, device_name
from eigenlens.index.faiss_engine.gpu_index import on_gpu
from eigenlens.index.faiss_engine.graph.vamana import VAMANA
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.faiss_engine.open_index import prefix_index_over, read_prefix_index
from eigenlens.index.faiss_engine.process_memory import return_freed_memory
from eigenlens.index.faiss_engine.suitable_kinds import choose_indexes, suits_compact_codes
from eigenlens.index.live.generation import KIND
from eigenlens.index.plans.calibration import Calibration
from eigenlens.index.plans.plan import IndexSpec, Optimise
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What a generation is built with, beside its codes.

    Attributes:
        lengths: prefix lengths, as from choose_lengths.
        kinds: index kind of some of the lengths; what suits the number of codes for the others.
        metadata: of the images, in the order of rows, to filter by; read once.
        queries: codes to calibrate with, (q, code_length); some of the codes, held out meanwhile, when None.
        removal: number of the last removal of images that the codes have in them.
        gpu: for k-means, and for the searches that are measured; the CPU when None.
        optimise: for many codes, "memory" adds compact codes, which rescore shortlists, and a length between two long
            ones where that finds shortlists in less memory; "latency" adds a graph over one prefix to the indexes of
            the lengths; "build" leaves out all lengths but the full one and that which finds shortlists best.
        on_progress: called with (indexes built, indexes in all) before the first and after each.
        tuning: thresholds of the build.
    """

    lengths: Sequence[int]
    kinds: Mapping[int, str] | None = None
    metadata: Iterable[Mapping[str, Any]] = ()
    queries: NDArray[np.float32] | None = None
    removal: int = 0
    gpu: Gpu | None = None
    optimise: Optimise = "memory"
    on_progress: Callable[[int, int], None] = lambda done, total: None
    tuning: Tuning = DEFAULT_TUNING


def build_generation(
    path: Path,
    codes: Codes,
    options: BuildOptions,
) -> artifact.Artifact:
    """Build, calibrate and publish the indexes of `codes` at `path`, whole or not at all.

    Without codes the indexes are empty, flat ones: those of a gallery that is filled while it is served.

    Raises: ArtifactExistsError; IndexKindError.
    """
    lengths, kinds = options.lengths, dict(options.kinds or {})
    if options.optimise == "build":
        lengths = choose_fewest(codes, lengths, tuning=options.tuning)
        kinds = {length: kind for length, kind in kinds.items() if length in lengths}
    has_compact = suits_compact_codes(
        len(codes), optimise=options.optimise, gpu=options.gpu is not None, tuning=options.tuning
    )
    if has_compact:
        lengths = add_prefix_between(codes, lengths)
    specs = choose_indexes(len(codes), lengths=lengths, kinds=kinds, gpu=options.gpu is not None, tuning=options.tuning)
    if len(codes) == 0:  # most kinds are trained on codes
        specs = tuple(IndexSpec(spec.length, "flat") for spec in specs)
    graph = choose_graph(codes, options.lengths, tuning=options.tuning) if options.optimise == "latency" else None
    with_graph = specs if graph is None else (*specs, graph)
    options.on_progress(0, len(with_graph))
    properties: dict[str, Any] = {
        "count": len(codes),
        "code_length": codes.code_length,
        "last_key": codes.last_key,
        "removal": options.removal,
        "lengths": list(options.lengths),
        "indexes": [asdict(spec) for spec in specs],
        "optimise": options.optimise,
        "graph": None if graph is None else asdict(graph),
        "compact": has_compact,
        "codes": codes.artifact.path.name,
    }
    made_from = {"codes": codes.id, "encoder": codes.encoder_id}
    with artifact.publishing(path, kind=KIND, made_from=made_from, properties=properties) as directory:
        write_indexes = _write_indexes if len(codes) else _write_empty_indexes
        if has_compact:
            write_compact_codes(directory, codes, sample=codes.sample(TRAINING_VECTORS))
        calibration = write_indexes(directory, codes, with_graph, options)
        properties["calibration"] = calibration.to_json()
        lengths = [spec.length for spec in specs]
        describe_codes(directory, codes, properties, lengths=lengths, metadata=options.metadata)
    return artifact.read(path, kind=KIND, verify=False)


def _write_indexes(directory: Path, codes: Codes, specs: Sequence[IndexSpec], options: BuildOptions) -> Calibration:
    """Fill, measure and write all indexes, and the eigenfunctions. Returns: what was measured."""
    gpu, tuning = options.gpu, options.tuning
    sample = codes.sample(TRAINING_VECTORS)
    compact = None
    if (directory / CODES_FILE).exists():
        compact = CompactCodes(directory, count=len(codes), code_length=codes.code_length)
    with_efforts = sum(require_kind(spec.kind).effort is not None for spec in specs)
    calibrator = Calibrator(codes, indexes=with_efforts, queries=options.queries, compact=compact, tuning=tuning)
    sizes: dict[IndexSpec, int] = {}
    for done, spec in enumerate(specs, start=1):
        # The builder is kept by no name: its index is freed before the next is built.
        sizes[spec] = _build_index(
            directory,
            GraphBuilder(codes, spec, scratch=directory)
            if spec.kind == VAMANA.name
            else Builder(codes, spec, sample=sample, gpu=gpu, tuning=tuning),
            calibrator,
            options,
            compact,
        )
        return_freed_memory()
        options.on_progress(done, len(specs))
    calibrator.measure_again(
        lambda spec: on_gpu(read_prefix_index(directory, spec, codes, compact=compact), gpu, tuning=tuning), sizes
    )
    write_eigenfunctions(directory, codes, sample=sample)
    return calibrator.result(sizes, device=device_name(gpu))


def _write_empty_indexes(
    directory: Path, codes: Codes, specs: Sequence[IndexSpec], options: BuildOptions
) -> Calibration:
    """Write indexes without codes. Returns: a calibration without measurements."""
    for done, spec in enumerate(specs, start=1):
        Builder(codes, spec, sample=codes.sample(TRAINING_VECTORS)).write(directory)
        options.on_progress(done, len(specs))
    return Calibration.of_nothing(specs, device=device_name(options.gpu))


def _build_index(
    directory: Path,
    builder: Builder | GraphBuilder,
    calibrator: Calibrator,
    options: BuildOptions,
    compact: CompactCodes | None,
) -> int:
    """Fill, measure and write one index. Returns: its file's size in bytes."""
    codes, spec = builder.codes, builder.spec
    builder.add(0, calibrator.held_in)
    index = prefix_index_over(builder.index, spec, codes, compact=compact)
    calibrator.measure(on_gpu(index, options.gpu, tuning=options.tuning))
    builder.add(calibrator.held_in, len(codes))
    return builder.write(directory)
