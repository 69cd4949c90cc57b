"""FAISS on a GPU: training, flat and IVF search beside the CPU's results, and the service that searches there."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.service_process import running_service
from eigenlens.benchmarks.gpu.context import Context, NoGpuHereError, require_faiss_gpu
from eigenlens.benchmarks.gpu.training import run_command
from eigenlens.index.building.index_builder import TRAINING_VECTORS, Builder
from eigenlens.index.codes.artifact import Codes, writing_codes
from eigenlens.index.errors import SearchError
from eigenlens.index.faiss_engine.gpu import Gpu, open_gpu
from eigenlens.index.faiss_engine.gpu_index import GpuIndex, on_gpu
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex
from eigenlens.index.plans.plan import IndexSpec, Plan

_LENGTH = 256
_K = 10
_BATCHES = (1, 32, 1000)
# Calls of each batch size are repeated until they took so long, and at most so often.
_TIMED_S, _SMALL_TIMED_S, _MAX_CALLS = 0.5, 0.0, 200
# Least share of results that are the same on both: of two with nearly equal scores either may come first.
LEAST_EQUAL = 0.999

Records = Iterator[dict[str, Any]]
Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]


def faiss_search(context: Context) -> Records:
    """Build flat and IVF indexes with and without the GPU, and search the same with both.

    Without a GPU both are on the CPU. Raises: NoGpuHereError, on a machine whose FAISS should see a GPU and does not.
    """
    gpu = None
    if context.device.type == "cuda":
        require_faiss_gpu()
        gpu = open_gpu("gpu")
    codes = _synthetic_codes(context.work / "codes", context.size(1_000_000, 5000))
    queries = _decaying(np.random.default_rng(1), context.size(1000, 50))
    for kind, length in (("flat", _LENGTH), ("ivf", 64), ("ivf-sq8", 64)):
        yield from _kind(context, codes, queries, IndexSpec(length, kind), gpu)


def _kind(context: Context, codes: Codes, queries: Vectors, spec: IndexSpec, gpu: Gpu | None) -> Records:
    params: dict[str, Any] = {"n": len(codes), "length": spec.length, "kind": spec.kind, "k": _K}
    sample = codes.sample(TRAINING_VECTORS)
    builders = {}
    for where, device in (("cpu", None), ("gpu", gpu)):
        started = time.perf_counter()
        builders[where] = Builder(codes, spec, sample=sample, gpu=device)
        seconds = time.perf_counter() - started
        yield context.record("faiss", "train_s", round(seconds, 3), "s", **params, where=where)
    builder = builders["gpu"]
    builder.add(0, len(codes))
    here = PrefixIndex(builder.index, spec, codes)
    there = on_gpu(here, gpu)
    # What the GPU searches has no graph over its centroids, so it visits the nearest lists exactly.
    plain = PrefixIndex(here.kind.without_graph(here.index), spec, codes)
    if gpu is not None and not isinstance(there, GpuIndex):
        raise NoGpuHereError(f"no copy of {spec} was made on the GPU")
    # The GPU rescores in the same way; plans of several efforts, and the whole index where it has no effort.
    most = here.max_effort
    efforts = [None] if most is None else [min(effort, most) for effort in (8, 64)]
    shortlist, rerank = (100, _LENGTH) if here.kind.lossy else (None, None)
    plans = [Plan(spec.length, spec.kind, effort, shortlist, rerank) for effort in efforts]
    for plan in plans:
        effort: dict[str, Any] = {"effort": plan.effort}
        expected, rows = plain.run(queries, plan=plan, k=_K)
        scores, rows_there = there.run(queries, plan=plan, k=_K)
        same = _share_of_equal(rows, rows_there)
        _, rows_by_graph = here.run(queries, plan=plan, k=_K)
        by_graph = round(_share_of_equal(rows, rows_by_graph), 5)
        yield context.record(
            "faiss", "share of equal results by the graph over centroids", by_graph, **params, **effort
        )
        yield context.record("faiss", "share of equal results", round(same, 5), **params, **effort)
        difference = float(np.abs(scores - expected).max())
        yield context.record("faiss", "largest difference of scores", difference, **params, **effort)
        if same < LEAST_EQUAL:
            raise SearchError(f"{spec} at effort {plan.effort}: {same:.4f} of the results are equal, not {LEAST_EQUAL}")
        for batch in _BATCHES:
            for where, index in (("cpu", here), ("gpu", there)):
                seconds = _time(index, queries[:batch], plan, timed_s=_SMALL_TIMED_S if context.small else _TIMED_S)
                labels = {**params, **effort, "batch": batch, "where": where}
                yield context.record("faiss", "latency_ms", round(1e3 * seconds, 4), "ms", **labels)
                rate = round(min(batch, len(queries)) / seconds, 1)
                yield context.record("faiss", "queries_per_s", rate, "1/s", **labels)


def service(context: Context) -> Records:
    """Build a gallery and serve it from the GPU and from the CPU; compare answers and time searches by id.

    Raises: NoGpuHereError, without the encoder of the part `export`.
    """
    encoder, images = context.work / "encoder", context.work / "images"
    if not encoder.exists():
        raise NoGpuHereError("the part `export` makes its encoder: run that first")
    if context.device.type == "cuda":
        require_faiss_gpu()
    gallery = context.work / "gallery"
    shutil.rmtree(gallery, ignore_errors=True)
    device = "gpu" if context.device.type == "cuda" else "cpu"
    kinds = ["--kinds", "16=ivf,32=flat"]
    words = ["build", "--encoder", str(encoder), "--images", str(images), "--gallery", str(gallery), "--lengths"]
    run_command(*words, "16,32", *kinds, "--search-device", device)
    answers: dict[str, list[Any]] = {}
    for where in dict.fromkeys(("cpu", device)):
        log = context.work / f"serve-{where}.log"
        with running_service(gallery, log, environment=_environment(where)) as server:
            answers[where], seconds = _ask(server.address, context.size(300, 5))
        yield context.record("service", "latency_ms", round(1e3 * seconds, 3), "ms", where=where)
    same = np.mean([a == b for a, b in zip(answers["cpu"], answers[device], strict=True)])
    yield context.record("service", "share of equal answers", round(float(same), 5))


def _environment(device: str) -> dict[str, str]:
    traced = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    untraced = {name: value for name, value in os.environ.items() if name not in traced}
    return untraced | {"EIGENLENS_SEARCH_DEVICE": device}


def _ask(address: str, count: int) -> tuple[list[Any], float]:
    """Search by id at three lengths. Returns: ids of all answers, and the median seconds of a search."""
    answers, seconds = [], []
    with httpx.Client(base_url=address, timeout=30) as client:
        for number in range(count):
            for length in (16, 32, 64):
                query = {"id": f"{number:06d}.png", "k": _K, "length": length}
                started = time.perf_counter()
                answer = client.post("/v1/search", json=query)
                seconds.append(time.perf_counter() - started)
                answer.raise_for_status()
                answers.append([result["id"] for result in answer.json()["results"]])
    return answers, float(np.median(seconds))


def _share_of_equal(rows: Rows, others: Rows) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(rows, others, strict=True)])) / _K


def _time(index: PrefixIndex, queries: Vectors, plan: Plan, *, timed_s: float) -> float:
    """Return the median seconds of a search of all the queries at once."""
    index.run(queries, plan=plan, k=_K)
    seconds: list[float] = []
    while not seconds or (sum(seconds) < timed_s and len(seconds) < _MAX_CALLS):
        started = time.perf_counter()
        index.run(queries, plan=plan, k=_K)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _decaying(rng: np.random.Generator, count: int) -> Vectors:
    """Return random codes whose coordinates decay, as those of ordered eigenfunctions do, (count, 256)."""
    decay = (1 / np.sqrt(np.arange(1, _LENGTH + 1))).astype(np.float32)
    return rng.standard_normal((count, _LENGTH), dtype=np.float32) * decay


def _synthetic_codes(path: Path, count: int) -> Codes:
    if not (path / "manifest.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        rng = np.random.default_rng(0)
        with writing_codes(path, count=count, code_length=_LENGTH, encoder_id="synthetic") as writer:
            for start in range(0, count, 100_000):
                size = min(100_000, count - start)
                writer.append(np.arange(start, start + size), _decaying(rng, size))
    return Codes(path, verify=False)
