"""Searching on a GPU; where FAISS sees none, the step that copies an index there is its own copy on the CPU."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eigenlens.command import main
from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.row_order import order_rows
from eigenlens.index.errors import NoGpuError
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.gpu import Device, Gpu, open_gpu
from eigenlens.index.faiss_engine.gpu_index import GpuIndex
from eigenlens.index.faiss_engine.kinds import KINDS
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex
from eigenlens.index.faiss_engine.suitable_kinds import choose_indexes
from eigenlens.index.filters.selection import Selection
from eigenlens.index.live.engine import LiveEngine
from eigenlens.index.plans.plan import Plan
from eigenlens.index.tuning import Tuning
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.gallery.build import GenerationOptions, publish_generation
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.jobs.runner import Runner
from eigenlens.service.jobs.store import Jobs
from eigenlens.service.search.manager import SnapshotManager
from eigenlens.service.search.request import SearchRequest
from tests.support.codes import (
    CODE_LENGTH,
    HARDLY_CALIBRATED,
    generation_of_kind,
    random_codes,
    repeatable,
    write_codes,
)
from tests.support.service import build_gallery, code_of, pixels_of, serving, settings_of, wait_for

# A real GPU sums the products of an inner product in another order.
TOLERANCE = 1e-5 if faiss.get_num_gpus() else 1e-6
ON_GPU = ("flat", "ivf", "ivf-sq8")


class Copies:
    """The step to the GPU: real copies of indexes, and what became of them."""

    def __init__(self, *, room_for: int = 1000) -> None:
        self.made: list[faiss.Index] = []
        self._room_for = room_for

    def __call__(self, index: faiss.Index) -> faiss.Index:
        if len(self.made) >= self._room_for:
            raise RuntimeError("cudaMalloc error out of memory [2]")
        self.made.append(faiss.clone_index(index))
        return self.made[-1]


@cache
def gpu_resources() -> Any:
    return faiss.StandardGpuResources()


def copy_to_gpu(index: faiss.Index) -> faiss.Index:
    if faiss.get_num_gpus() == 0:
        return faiss.clone_index(index)
    return faiss.index_cpu_to_gpu(gpu_resources(), 0, index)


def on_gpu(generation: Generation, copy: Callable[[faiss.Index], faiss.Index] = copy_to_gpu) -> Generation:
    return Generation(generation.artifact.path, generation.codes, verify=False, gpu=Gpu(copy), tuning=generation.tuning)


def of_gpu(generation: Generation, length: int = 8) -> GpuIndex:
    found = generation.prefix_index(length)
    assert isinstance(found, GpuIndex)
    return found


def refuse(monkeypatch: pytest.MonkeyPatch, index: PrefixIndex) -> None:
    """From now on the index is not to be searched."""
    for name in ("run", "search", "search_above"):
        monkeypatch.setattr(index, name, lambda *_, **__: pytest.fail("searched by the other one"))


def removed(n: int, count: int) -> Selection:
    mask = np.ones(n, dtype=bool)
    mask[np.random.default_rng(1).permutation(n)[:count]] = False
    return Selection(mask)


def test_the_kinds_that_faiss_has_on_gpus() -> None:
    assert tuple(name for name, kind in KINDS.items() if kind.gpu) == ON_GPU


@pytest.mark.parametrize("kind", KINDS)
@settings(repeatable, max_examples=4)
@given(data=st.data())
def test_the_same_plans_find_the_same(kind: str, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 400))
    codes = random_codes(data.draw(st.integers(0, 2**31)), n)
    codes[n // 2 : n // 2 + data.draw(st.integers(0, 3))] = codes[0]
    length = CODE_LENGTH if KINDS[kind].scores_codes else data.draw(st.sampled_from((8, CODE_LENGTH)))
    queries = np.concatenate([random_codes(1, data.draw(st.sampled_from([2, 70]))), codes[:1]])
    with tempfile.TemporaryDirectory() as folder:
        here = generation_of_kind(Path(folder), codes, kind, length=length, tuning=Tuning(max_rows_scored_directly=0))
        there = on_gpu(here)
        assert there.lengths_on_gpu == ((length,) if kind in ON_GPU else ())
        most = here.max_effort(length)
        effort = None if most is None else data.draw(st.integers(1, most))
        for k in (1, 10, n):
            plans = [Plan(length, kind, effort, data.draw(st.integers(k, 2 * k + 5)), CODE_LENGTH)]
            if length < CODE_LENGTH:
                plans.append(Plan(length, kind, effort, k + 5, length + 1))
            if not KINDS[kind].lossy:
                plans.append(Plan(length, kind, effort))
            for plan in plans:
                expected, _ = here.search(queries, plan=plan, k=k)
                scores, rows = there.search(queries, plan=plan, k=k)
                np.testing.assert_allclose(scores[rows >= 0], expected[rows >= 0], atol=TOLERANCE)
                assert (np.isfinite(expected) & (expected > -2) == (rows >= 0)).all()


@pytest.mark.parametrize("left_out", [1, 30, 370])
@pytest.mark.parametrize("kind", ON_GPU)
def test_what_a_selection_leaves_out_is_never_found_and_the_rest_is(
    tmp_path: Path, kind: str, left_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = generation_of_kind(tmp_path, random_codes(0, 400), kind, tuning=Tuning(max_rows_scored_directly=0))
    there = on_gpu(here)
    refuse(monkeypatch, there.prefix_index(CODE_LENGTH))
    index, selection, queries = of_gpu(there), removed(400, left_out), random_codes(1, 5)
    monkeypatch.setattr(index._funnel, "search_c", lambda *_: pytest.fail("searched on the CPU"))
    for k in (1, 10):
        plans = [Plan(8, kind, here.max_effort(8), 390, CODE_LENGTH)]
        if not KINDS[kind].lossy:
            plans.append(Plan(8, kind, here.max_effort(8)))
        for plan in plans:
            expected, _ = here.search(queries, plan=plan, k=k, selection=selection)
            scores, rows = there.search(queries, plan=plan, k=k, selection=selection)
            np.testing.assert_allclose(scores, expected, atol=TOLERANCE)
            assert selection.mask[rows].all()
            assert (rows >= 0).all()


def test_the_effort_is_the_plans_whatever_rows_a_selection_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = of_gpu(on_gpu(generation_of_kind(tmp_path, random_codes(0, 400), "ivf")))
    asked: list[int | None] = []
    run = index._copy.run

    def noted(*given: Any, plan: Plan, **more: Any) -> Any:
        asked.append(plan.effort)
        return run(*given, plan=plan, **more)

    monkeypatch.setattr(index._copy, "run", noted)
    for selection in (None, removed(400, 300)):
        index.run(random_codes(1, 1), plan=Plan(8, "ivf", 2), k=3, selection=selection)
    assert asked == [2, 2]


@pytest.mark.parametrize("kind", ["ivf", "ivf-sq8"])
def test_lists_that_a_graph_finds_are_found_by_a_scan_of_the_same_centroids(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = generation_of_kind(tmp_path, random_codes(0, 3000), kind, tuning=Tuning(max_scanned_lists=4))
    copies = Copies()
    there = on_gpu(here, copies)
    assert type(faiss.downcast_index(copies.made[0].quantizer)) is faiss.IndexFlatIP
    monkeypatch.setattr(of_gpu(there).index, "search", lambda *_, **__: pytest.fail("searched on the CPU"))
    queries = random_codes(1, 20)
    few, all_lists = (Plan(8, kind, effort, 100, CODE_LENGTH) for effort in (4, here.max_effort(8)))
    expected, _ = here.search(queries, plan=all_lists, k=10)
    np.testing.assert_allclose(there.search(queries, plan=all_lists, k=10)[0], expected, atol=TOLERANCE)
    missed = here.search(queries, plan=few, k=10)[0]
    assert there.search(queries, plan=few, k=10)[0].mean() >= missed.mean(), "a scan misses no near list"


@pytest.mark.parametrize(("plan", "k"), [(Plan(8, "ivf", 9), 1), (Plan(8, "ivf", 1), 9), (Plan(8, "ivf", 1, 9, 16), 1)])
def test_more_than_a_gpu_gives_comes_from_the_cpu(
    tmp_path: Path, plan: Plan, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = generation_of_kind(tmp_path, random_codes(0, 3000), "ivf", tuning=Tuning(max_gpu_results=8))
    there = on_gpu(here)
    refuse(monkeypatch, of_gpu(there)._copy)
    queries = random_codes(1, 9)  # fewer are answered one after the other on the CPU, and rounded differently
    np.testing.assert_array_equal(there.search(queries, plan=plan, k=k)[0], here.search(queries, plan=plan, k=k)[0])
    many = removed(3000, 8)
    there.search(queries, plan=Plan(8, "ivf", 1), k=1, selection=many)


def test_a_few_queries_are_one_call_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = on_gpu(generation_of_kind(tmp_path, random_codes(0, 3000), "ivf"))
    counts: list[int] = []
    run = of_gpu(there)._copy.run

    def counted(queries: NDArray[np.float32], **more: Any) -> Any:
        counts.append(len(queries))
        return run(queries, **more)

    monkeypatch.setattr(of_gpu(there)._copy, "run", counted)
    there.search(random_codes(1, 3), plan=Plan(8, "ivf", 9, 60, CODE_LENGTH), k=10)
    assert counts == [3]


def test_an_index_that_finds_no_room_stays_on_the_cpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened = write_codes(tmp_path / "codes", random_codes(0, 300))
    build_generation(tmp_path / "generation", opened, BuildOptions(lengths=(4, 8, CODE_LENGTH)))
    here = Generation(tmp_path / "generation", opened)
    there = on_gpu(here, Copies(room_for=1))
    assert there.lengths_on_gpu == (4,)
    assert "the index of length 8 stays on the CPU: cudaMalloc error" in caplog.text
    queries = random_codes(1, 3)
    for length in (4, 8):
        np.testing.assert_allclose(
            there.search(queries, plan=Plan(length), k=5)[0], here.search(queries, plan=Plan(length), k=5)[0]
        )


def test_a_search_that_finds_no_memory_is_done_on_the_cpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("alloc fail")

    here = generation_of_kind(tmp_path, random_codes(0, 300), "flat")
    there = on_gpu(here)
    index = of_gpu(there)
    monkeypatch.setattr(index._copy, "run", fail)
    monkeypatch.setattr(index._copy, "search", fail)
    queries, plan = random_codes(1, 3), Plan(8, shortlist=20, rerank_length=CODE_LENGTH)
    expected = here.search(queries, plan=plan, k=5)
    np.testing.assert_array_equal(there.search(queries, plan=plan, k=5)[1], expected[1])
    np.testing.assert_array_equal(index.search(queries, 5)[1], here.prefix_index(8).search(queries, 5)[1])
    assert "a search runs on the CPU: alloc fail" in caplog.text
    again = threading.Thread(target=lambda: index.search(queries, 5), daemon=True)
    again.start()
    again.join(10)
    assert not again.is_alive(), "the lock is free again"


def test_searches_of_several_threads_come_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = write_codes(tmp_path / "codes", random_codes(0, 3000))
    lengths = (4, 8, CODE_LENGTH)
    build_generation(
        tmp_path / "generation",
        opened,
        BuildOptions(lengths=lengths, kinds={4: "ivf", 8: "ivf-sq8"}, tuning=HARDLY_CALIBRATED),
    )
    here = Generation(tmp_path / "generation", opened)
    there = on_gpu(here)
    inside = threading.Semaphore(1)

    def alone(search: Callable[..., Any]) -> Callable[..., Any]:
        def searching(*given: Any, **more: Any) -> Any:
            assert inside.acquire(blocking=False), "two searches at once"
            time.sleep(0.001)
            try:
                return search(*given, **more)
            finally:
                inside.release()

        return searching

    for length in (4, 8):
        index = of_gpu(there, length)
        monkeypatch.setattr(index._copy, "run", alone(index._copy.run))
    queries = random_codes(1, 40)
    plans = [Plan(length, spec.kind, 5, 50, CODE_LENGTH) for length, spec in zip((4, 8), here.specs, strict=False)]
    asked = [(plan, queries[place : place + 1]) for place in range(40) for plan in plans]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda ask: there.search(ask[1], plan=ask[0], k=10)[0], asked))
    for (plan, query), scores in zip(asked, found, strict=True):
        np.testing.assert_allclose(scores, here.search(query, plan=plan, k=10)[0], atol=TOLERANCE)


def test_no_copy_is_made_or_freed_while_another_is_searched(tmp_path: Path) -> None:
    there = on_gpu(generation_of_kind(tmp_path, random_codes(0, 300), "ivf"))
    gpu, held = of_gpu(there)._gpu, [of_gpu(there)]
    there._indexes.clear()
    made: list[faiss.Index | None] = []
    with gpu.lock:
        threads = [
            threading.Thread(target=held.clear),
            threading.Thread(target=lambda: made.append(gpu.copy_of(faiss.IndexFlatIP(4), "an index"))),
        ]
        for thread in threads:
            thread.start()
            thread.join(0.2)
            assert thread.is_alive()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert made[0] is not None


def test_a_build_trains_and_measures_there_and_writes_the_same_indexes(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 3000))
    kinds = {4: "ivf", 8: "ivf-pq", 12: "ivf-sq8"}
    lengths = (4, 8, 12, CODE_LENGTH)
    copies = Copies()
    kinds[CODE_LENGTH] = "flat"
    options = BuildOptions(lengths=lengths, kinds=kinds, tuning=replace(HARDLY_CALIBRATED, max_scanned_lists=16))
    here = build_generation(tmp_path / "here", codes, options)
    there = build_generation(tmp_path / "there", codes, replace(options, gpu=Gpu(copies)))
    indexes = [name for name in here.files if name.endswith(".faiss")]
    assert len(indexes) == 4
    assert all(here.files[name] == there.files[name] for name in indexes)
    held = [copy.ntotal for copy in copies.made if copy.ntotal == 2700]
    assert len(held) == 3, "a copy of each index that a GPU can search was measured"
    assert len(copies.made) > 20, "k-means of three indexes"
    calibrations = [Generation(path, codes).calibration for path in (tmp_path / "here", tmp_path / "there")]
    assert [calibration.device for calibration in calibrations] == ["cpu", "gpu"]


def test_one_k_means_of_few_lists_is_done_there(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 400))
    copies = Copies()
    build_generation(
        tmp_path / "generation", codes, BuildOptions(lengths=(8, CODE_LENGTH), kinds={8: "ivf-pq"}, gpu=Gpu(copies))
    )
    assert [copy.ntotal for copy in copies.made] == [8, 360], "eight lists, then the full length's index"


def test_the_order_of_codes_is_found_there() -> None:
    tuning = Tuning(min_codes_for_groups=1000, row_groups=32)
    codes, copies = random_codes(0, 2000), Copies()
    order = order_rows(lambda start, stop: codes[start:stop], 2000, gpu=Gpu(copies), tuning=tuning)
    np.testing.assert_array_equal(order, order_rows(lambda start, stop: codes[start:stop], 2000, tuning=tuning))
    assert len(copies.made) > 6


def test_a_build_that_finds_no_room_there_is_done_on_the_cpu(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 400))
    path = tmp_path / "generation"
    build_generation(path, codes, BuildOptions(lengths=(8, CODE_LENGTH), kinds={8: "ivf"}, gpu=Gpu(Copies(room_for=0))))
    assert Generation(path, codes).lengths == (8, CODE_LENGTH)


def test_kinds_suit_a_gpu() -> None:
    def kinds(count: int) -> list[str]:
        return [spec.kind for spec in choose_indexes(count, lengths=(8, 64, 256), gpu=True)]

    assert kinds(1000) == ["flat", "flat", "flat"]
    assert kinds(1_000_000) == ["ivf-sq8", "ivf-sq8", "flat"]
    assert kinds(10_000_000) == ["ivf-sq8", "ivf-sq8", "half"]


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="there is a GPU")
class TestWithoutGpu:
    @pytest.mark.parametrize("device", ["auto", "cpu"])
    def test_the_cpu_is_used(self, device: Device) -> None:
        assert open_gpu(device) is None

    @pytest.mark.parametrize(("built_for_gpus", "says"), [(False, "built for CPUs"), (True, "sees none")])
    def test_a_gpu_that_is_asked_for_is_missed_in_so_many_words(
        self, built_for_gpus: bool, says: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if built_for_gpus:
            monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
        else:
            monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
        with pytest.raises(NoGpuError, match=f"search_device is gpu, but .*{says}.*auto and cpu search on the CPU"):
            open_gpu("gpu")

    def test_the_commands_say_so_before_they_do_anything(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        gallery = build_gallery(tmp_path, count=2)
        new = tmp_path / "new"
        for command in (
            ["serve", "--gallery", str(gallery.root), "--port", "0"],
            ["build", "--gallery", str(new), "--encoder", str(tmp_path / "encoder"), "--images", str(tmp_path)],
        ):
            assert main([*command, "--search-device", "gpu"]) == 1
            assert "search_device is gpu" in capsys.readouterr().err
        assert not new.exists()

    def test_a_job_is_told_where_to_search(self, tmp_path: Path) -> None:
        gallery = build_gallery(tmp_path, count=2)
        jobs = Jobs(gallery)
        runner = Runner(gallery, jobs, on_done=lambda: None, search_device="gpu")
        job = runner.start("rebuild", {})
        wait_for(lambda: jobs.get(job.id).finished)
        assert "search_device is gpu" in (jobs.get(job.id).error or "")
        runner.close()


def test_an_index_goes_to_the_first_gpu_with_the_resources_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, int, object]] = []
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda *given: asked.append(given), raising=False)
    index = faiss.IndexFlatIP(4)
    for device in ("auto", "gpu"):
        gpu = open_gpu(device)
        assert gpu is not None
        gpu.copy_of(index, "an index")
    assert asked == [("resources", 0, index)] * 2


def test_a_service_searches_there_and_says_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gallery = build_gallery(tmp_path, count=40)
    copies = Copies()
    monkeypatch.setattr(
        "eigenlens.service.http.startup.open_gpu", lambda device: Gpu(copies) if device == "auto" else None
    )
    with serving(settings_of(gallery)) as client:
        assert copies.made
        assert client.get("/v1/lengths").status_code == 200
    assert "the GPU searches the lengths (" in caplog.text
    assert "its latencies were measured on the cpu; a rebuild measures them on the gpu" in caplog.text


def test_a_generation_that_was_measured_where_it_is_served_brings_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gallery = build_gallery(tmp_path, count=40)
    gpu = Gpu(faiss.clone_index)
    with gallery.writing():
        encoder = Encoder(gallery.encoder_path(gallery.current_encoder_id()))
        publish_generation(gallery, encoder, Progress(), GenerationOptions(gpu=gpu))
    manager = SnapshotManager(gallery, open_engine=partial(gallery.open_engine, gpu=gpu))
    manager.load()
    engine = manager.current.engine
    assert isinstance(engine, LiveEngine)
    assert isinstance(engine.generation, Generation)
    generation = engine.generation
    assert generation.calibration.device == "gpu"
    assert generation.lengths_on_gpu == generation.lengths
    assert "latencies" not in caplog.text
    found = manager.current.search(code_of(pixels_of(5)).astype(np.float32), SearchRequest(k=1))
    assert found.hits[0].score == pytest.approx(1, abs=1e-3)
