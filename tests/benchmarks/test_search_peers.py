"""Other libraries' indexes in `eigenlens bench search`: over whole codes, and over prefixes with rescoring."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from eigenlens.benchmarks.search import batches
from eigenlens.benchmarks.search.batches import BatchTrial, batch_trials
from eigenlens.benchmarks.search.interleaved import TURNS
from eigenlens.benchmarks.search.measure import missing
from eigenlens.benchmarks.search.peers import choice, prefix_graphs, stored_graphs, whole_codes
from eigenlens.benchmarks.search.peers.choice import Chooser, prefix_search
from eigenlens.benchmarks.search.peers.prefix_graphs import PREFIX_GRAPHS, PrefixGraph, Shortlist
from eigenlens.benchmarks.search.peers.rescoring import rescoring, rescoring_of_batches
from eigenlens.benchmarks.search.peers.whole_codes import PACKAGES, PEERS
from eigenlens.benchmarks.search.prefix_peers import open_prefix_peer
from eigenlens.benchmarks.search.setup import CORES, Setup, Vectors, calibration_truth, truth
from eigenlens.benchmarks.search.values import TARGETS, recall_of

COUNT, CODE_LENGTH, QUERIES = 600, 16, 40


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """A small gallery whose coordinates lose variance; what has a process of its own elsewhere runs in this one."""
    monkeypatch.setattr(stored_graphs, "in_process_of_its_own", lambda: ThreadPoolExecutor(1))
    monkeypatch.setattr(batches, "_LEAST_QUERIES", QUERIES)
    monkeypatch.setattr(prefix_graphs, "CORES", 1)
    monkeypatch.setattr(choice, "EFFORTS", (10, 20, 50, 200, 400))
    rng = np.random.default_rng(0)
    scale = (1 + np.arange(CODE_LENGTH)) ** -1.0
    centres = rng.normal(size=(40, CODE_LENGTH)) * scale
    for name, count in (("codes", COUNT), ("calibration", QUERIES), ("fresh", QUERIES)):
        codes = centres[rng.integers(40, size=count)] + 0.5 * rng.normal(size=(count, CODE_LENGTH)) * scale
        unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
        (tmp_path / f"{name}.f16").write_bytes(unit.astype(np.float16).tobytes())
    return Setup(
        work=tmp_path,
        codes=tmp_path / "codes.f16",
        calibration=tmp_path / "calibration.f16",
        fresh=tmp_path / "fresh.f16",
        count=COUNT,
        code_length=CODE_LENGTH,
        lengths=(CODE_LENGTH,),
        kinds={},
        encoder="e",
        prefixes=(4, 8, 16),
        batches=(1, 7),
    )


@pytest.mark.parametrize("method", PREFIX_GRAPHS)
def test_a_graph_over_a_prefix_reaches_its_targets_and_is_built_once(
    setup: Setup, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (reason := missing(method)) is not None:
        pytest.skip(reason)
    first = PREFIX_GRAPHS[method][0]
    monkeypatch.setitem(PREFIX_GRAPHS, method, (first,))  # others may end the process, which is here this one
    monkeypatch.setattr(stored_graphs, "_refusal", lambda _: None)
    monkeypatch.setattr(stored_graphs, "anonymous_bytes", itertools.count(0, 1000).__next__)
    opened = open_prefix_peer(setup, method)
    assert {value["params"]["prefix"] for value in opened.values} <= {4, 8}
    built = {value["params"]["recall"] for value in opened.values if value["metric"] == "build_s"}
    assert built == set(TARGETS)
    memory = {value["value"] for value in opened.values if value["metric"] == "memory_bytes"}
    assert memory == {1000 + COUNT * CODE_LENGTH * 2}, "the graph's and that of the codes for rescoring"
    by_name = {trial.name: trial for trial in opened.trials}
    assert {f"recall {target}" for target in TARGETS} <= by_name.keys()
    for target in TARGETS:
        trial = by_name[f"recall {target}"]
        ids = [row for turn in range(TURNS) for row in trial.take_turn(turn)[1]]
        assert recall_of(ids, truth(setup)) >= target - 0.05
        if target in batches.RECALLS:
            for size in setup.batches:
                _, of_batches = by_name[f"batch {size} recall {target}"].take_turn(0)
                np.testing.assert_array_equal(of_batches, ids)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("built again")

    with monkeypatch.context() as patch:
        patch.setattr(first, "build", fail)
        assert [one.prefix for one in stored_graphs.stored_graphs(setup, method)] == [4, 8]
        with pytest.raises(AssertionError, match="built again"):
            stored_graphs.stored_graphs(replace(setup, encoder="another"), method)


class ExactGraph:
    """Compares every prefix."""

    variant: ClassVar[str] = "exact"
    rescores: ClassVar[bool] = False
    package: ClassVar[str] = "numpy"
    settings: ClassVar[dict[str, Any]] = {}

    def build(self, vectors: Vectors, *, length: int) -> None:
        self._vectors = vectors

    def save(self, folder: Path) -> None:
        np.save(folder / "vectors.npy", self._vectors)

    def load(self, folder: Path, *, length: int) -> None:
        self._vectors = np.load(folder / "vectors.npy")

    def prepare(self, *, limit: int, effort: int) -> Shortlist:
        search = self.prepare_batches(limit=limit, effort=effort, threads=1)
        return lambda prefix: search(prefix)[0]

    def prepare_batches(self, *, limit: int, effort: int, threads: int) -> Shortlist:
        return lambda prefixes: (-prefixes @ self._vectors.T).argsort(1)[:, :limit]


class RefusingGraph(ExactGraph):
    """Cannot be built on this machine."""

    variant = "refusing"

    def build(self, vectors: Vectors, *, length: int) -> None:
        raise RuntimeError("not on this processor")


def test_a_shortlist_is_the_smallest_that_has_the_recall(setup: Setup) -> None:
    pytest.importorskip("numkong", reason="the extra `peers` is not installed")
    codes, exact = setup.run(0, COUNT), calibration_truth(setup)
    chooser = Chooser(codes, setup.calibration_queries, exact, targets=(0.5, 0.9))
    graph: PrefixGraph = ExactGraph()
    graph.build(setup.vectors(4), length=4)
    measured = list(chooser.measure(0, graph, prefix=4))
    assert chooser.best.keys() == {0.5, 0.9}
    for point in measured:
        recalls = []
        for shortlist in (point.shortlist - 1, point.shortlist):
            if shortlist >= 10:
                search = prefix_search(graph, codes, prefix=4, effort=point.effort, shortlist=shortlist)
                recalls.append(recall_of([search(query[None]) for query in setup.calibration_queries], exact))
        assert recalls[-1] == pytest.approx(point.recall, abs=0.002), "rescoring rounds the query"
        assert point.shortlist == 10 or min(recalls) < max(t for t in (0.5, 0.9) if t <= point.recall)
    for target, best in chooser.best.items():
        reaching = [point for point in measured if point.recall >= target]
        assert best.milliseconds == min(point.milliseconds for point in reaching)


def test_a_variant_that_cannot_be_built_here_is_left_out_with_its_reason(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PREFIX_GRAPHS, "any+prefix", (RefusingGraph, ExactGraph))
    stored = stored_graphs.stored_graphs(setup, "any+prefix")
    assert [(one.graph_class, one.prefix) for one in stored] == [(ExactGraph, 4), (ExactGraph, 8)]
    assert "any+prefix: no refusing here: not on this processor" in capsys.readouterr().err


def test_rescoring_finds_the_best_of_a_shortlist() -> None:
    pytest.importorskip("numkong", reason="the extra `peers` is not installed")
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(300, 12)).astype(np.float16)
    queries = rng.normal(size=(70, 12)).astype(np.float32)
    rows = rng.permuted(np.tile(np.arange(300), (70, 1)), axis=1)[:, :25]
    scores = np.einsum("qsd,qd->qs", codes[rows].astype(np.float64), queries.astype(np.float16).astype(np.float64))
    best = np.take_along_axis(rows, (-scores).argsort(1)[:, :10], 1)
    one = rescoring(codes, 25)
    np.testing.assert_array_equal([one(queries[i : i + 1], rows[i]) for i in range(70)], best)
    for threads in (1, 3):
        several = rescoring_of_batches(codes, 25, threads=threads)
        np.testing.assert_array_equal(several(queries, rows), best)
        np.testing.assert_array_equal(several(queries[:1], rows[:1]), best[:1])


@pytest.mark.parametrize("method", PEERS)
def test_batches_find_what_single_searches_find(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(PACKAGES.get(method, method), reason="the extra `peers` is not installed")
    monkeypatch.setattr(whole_codes, "CORES", 1)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    peer = PEERS[method]()
    peer.build(vectors)
    effort, queries = peer.efforts[-1], vectors[:30]
    search = peer.prepare(effort)
    ids = np.array([search(query[None]) for query in queries])
    exact = (-queries @ vectors.T).argsort(1)[:, :10]
    assert recall_of(list(ids), exact) >= 0.97
    for threads in (1, 2):
        of_batches = peer.prepare_batches(effort, threads)
        assert (of_batches(queries) == ids).mean() >= 0.99
        assert of_batches(queries[:1]).shape == (1, 10)


def test_every_query_of_a_batch_is_answered_once_whoever_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_LEAST_QUERIES", 50)
    queries = np.arange(40, dtype=np.float32)[:, None]
    threads_of_searches = []

    def prepare(threads: int) -> Any:
        threads_of_searches.append(threads)
        return lambda some: np.repeat(some.astype(np.int64), 10, axis=1)

    for callers in (1, 3):
        for size in (1, 7, 100):
            threads_of_searches.clear()
            milliseconds, ids = BatchTrial("t", prepare, queries, size, callers).take_turn(0)
            assert [int(row[0]) for row in ids] == list(range(40))
            assert len(milliseconds) == 1
            assert threads_of_searches == ([CORES] if callers == 1 else [1] * 3)
    assert BatchTrial("t", prepare, queries, 7, 1).take_turn(1)[1] == []


def test_the_quicker_way_of_calling_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CORES", 2)
    took: dict[int, float] = {1: 2.0, 2: 1.0}
    monkeypatch.setattr(BatchTrial, "take_turn", lambda trial, turn: ([took[trial.callers]], []))

    def prepare(threads: int) -> Any:
        raise AssertionError

    for quicker, slower in ((2, 1), (1, 2)):
        took |= {quicker: 1.0, slower: 2.0}
        (trial,) = batch_trials(prepare, np.empty((0, 1), np.float32), [32], target=0.9, prefix=4)
        assert trial.callers == quicker
        assert trial.params == {"target": 0.9, "batch": 32, "prefix": 4, "callers": quicker}
