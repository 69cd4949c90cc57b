"""The graph over one prefix: built, opened, searched beside the indexes of the lengths, which answer filters."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.calibrating.calibrator import Calibrator
from eigenlens.index.building.prefix_choice import choose_graph, with_lengths_between
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.exact import exact_search
from eigenlens.index.errors import CodesError, IndexKindError, SearchError
from eigenlens.index.faiss_engine import generation as opening
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.graph import vamana
from eigenlens.index.faiss_engine.graph.links import link_back
from eigenlens.index.faiss_engine.graph.vamana import VamanaGraph
from eigenlens.index.faiss_engine.graph.walk import layout, search_graph
from eigenlens.index.faiss_engine.va_file.va_file_index import VaFileIndex
from eigenlens.index.filters.parse import parse_filter
from eigenlens.index.live.engine import LiveEngine
from eigenlens.index.plans.calibration import COUNTS, Measured, Recall
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.plans.reach import Reach
from eigenlens.index.tuning import Tuning
from tests.support.codes import flip_byte, hardly_calibrated, write_codes

pytest.importorskip("svs")

COUNT, LENGTH, LENGTHS = 3000, 64, (8, 16, 64)
TUNING = replace(hardly_calibrated(Tuning()), min_codes_for_ivf=1000, max_rows_scored_directly=100)


def ordered_codes(seed: int, count: int, length: int = LENGTH) -> NDArray[np.float32]:
    """Codes whose coordinates lose variance fast, as those of eigenfunctions do."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, length)) * 0.8 ** np.arange(length)).astype(np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph")
    codes = write_codes(path / "codes", ordered_codes(0, COUNT))
    metadata = ({"even": number % 2 == 0} for number in range(COUNT))
    options = BuildOptions(lengths=LENGTHS, metadata=metadata, optimise="latency", tuning=TUNING)
    build_generation(path / "generation", codes, options)
    return path


@pytest.fixture
def generation(place: Path) -> Generation:
    return Generation(place / "generation", Codes(place / "codes"), tuning=TUNING)


def graph_plan(generation: Generation, *, window: int = 100, shortlist: int = 100) -> Plan:
    assert generation.graph is not None
    return Plan(generation.graph.length, "vamana", window, shortlist, LENGTH)


def test_a_generation_tells_of_its_graph(generation: Generation) -> None:
    graph = generation.graph
    assert graph is not None
    assert (graph.kind, graph.length) == ("vamana", 16)
    assert graph.bytes > COUNT * 2 * graph.length
    assert [spec.kind for spec in generation.specs] == [generation.describe(length).kind for length in LENGTHS]
    assert "16 vamana" in generation.calibration.efforts, "it is measured like the others"
    assert generation.calibration.plain(8).plan.kind != "vamana"  # type: ignore[union-attr]


def test_it_finds_the_exact_nearest_and_the_rows_that_were_held_out(generation: Generation) -> None:
    queries = ordered_codes(1, 50)
    exact_scores, exact = exact_search(generation.codes.codes, queries, length=LENGTH, k=10)
    plan = graph_plan(generation)
    for number in range(2):  # the second search of a query is prepared
        found = [generation.search(query[None], plan=plan, k=10) for query in queries]
        scores, rows = (np.concatenate(part) for part in zip(*found, strict=True))
        assert np.mean([np.isin(a, b).mean() for a, b in zip(exact, rows, strict=True)]) > 0.97, number
        np.testing.assert_allclose(scores[:, 0], exact_scores[:, 0], atol=1e-3)
    batch_scores, batch_rows = generation.search(queries, plan=plan, k=10)
    np.testing.assert_array_equal(batch_rows, rows)
    many = np.concatenate([queries, ordered_codes(6, 50)])  # searched by several threads
    np.testing.assert_array_equal(generation.search(many, plan=plan, k=10)[1][:50], rows)
    np.testing.assert_allclose(batch_scores, scores, atol=1e-6)
    last = generation.codes.codes[-20:].astype(np.float32)  # added to the graph after it was measured
    assert generation.search(last, plan=plan, k=1)[1][:, 0].tolist() == list(range(COUNT - 20, COUNT))


def test_a_filter_and_many_removals_are_answered_by_another_index(generation: Generation) -> None:
    quickest = Measured(graph_plan(generation), dict.fromkeys(COUNTS, Recall(1.0, 1.0)), {"p50": 1e-6, "p95": 1e-6})
    measured = (quickest, *generation.calibration.measured)
    generation.calibration = replace(generation.calibration, measured=measured)
    engine = LiveEngine(generation)
    chooser = PlanChooser(engine)
    odd = parse_filter({"even": False})
    assert chooser.choose(PlanRequest(target_recall=0.9), k=10).plan.kind == "vamana"
    plan = chooser.choose_filtered(PlanRequest(target_recall=0.9), k=10, reach=Reach(20)).plan
    assert plan.kind != "vamana"
    query = ordered_codes(2, 1)
    keys = {key for key, _ in engine.search(query, plan=graph_plan(generation), k=10, filter=odd)[0]}
    mask = np.arange(COUNT) % 2 == 1
    rows = np.flatnonzero(mask)[exact_search(generation.codes.codes[mask], query, length=LENGTH, k=10)[1][0]]
    assert len(keys & set(generation.keys[rows].tolist())) >= 9
    gone = generation.keys[: COUNT // 4].tolist()
    engine.remove(gone)
    found = [key for key, _ in engine.search(query, plan=graph_plan(generation), k=10)[0]]
    assert len(found) == 10
    assert not set(found) & set(gone)


def test_plans_that_stand_in_for_the_graph_are_kept_however_quick_it_is(place: Path) -> None:
    """Filters and many queries at once need the quickest of them at each recall."""
    calibrator = Calibrator(Codes(place / "codes"), indexes=2, tuning=TUNING)

    def measured(kind: str, effort: int, recall: float, latency_ms: float) -> Measured:
        plan = Plan(8, kind, effort, 100, LENGTH)
        return Measured(plan, dict.fromkeys(COUNTS, Recall(recall, recall)), dict.fromkeys(("p50", "p95"), latency_ms))

    lists = [measured("ivf-pq", 4, 0.9, 2.0), measured("ivf-pq", 8, 0.99, 3.0)]
    beaten = measured("ivf-pq", 9, 0.98, 4.0)
    calibrator._kinds_without_filters.add("vamana")
    calibrator._measured = {
        IndexSpec(8, "vamana"): [measured("vamana", 4, 1.0, 1.0)],
        IndexSpec(8, "ivf-pq"): [*lists, beaten],
    }
    kept = calibrator.result(dict.fromkeys(calibrator._measured, 0)).measured
    assert {m.plan for m in kept if m.plan.kind != "vamana"} == {m.plan for m in lists}


def test_few_removals_are_dropped_from_what_the_graph_finds(generation: Generation) -> None:
    engine = LiveEngine(generation)
    query = ordered_codes(3, 1)
    plan = graph_plan(generation)
    before = [key for key, _ in engine.search(query, plan=plan, k=12)[0]]
    engine.remove(before[:2])
    assert [key for key, _ in engine.search(query, plan=plan, k=10)[0]] == before[2:]


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e12, 1e30])
def test_a_query_of_any_norm_is_answered_as_the_other_indexes_do(generation: Generation, scale: float) -> None:
    query = (ordered_codes(8, 1) * scale).astype(np.float32)
    lists = Plan(8, "ivf-sq8", generation.max_effort(8), COUNT - 1, LENGTH)
    for _ in range(2):
        scores, rows = generation.search(query, plan=graph_plan(generation, window=300, shortlist=300), k=5)
        expected_scores, expected_rows = generation.search(query, plan=lists, k=5)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
        if scale:
            np.testing.assert_array_equal(rows, expected_rows)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_finite_is_refused(generation: Generation, value: float) -> None:
    for place in (0, LENGTH - 1):
        query = ordered_codes(9, 1)
        generation.search(query, plan=graph_plan(generation), k=5)  # prepares the plan
        query[0, place] = value
        with pytest.raises(CodesError, match="not finite"):
            generation.search(query, plan=graph_plan(generation), k=5)


def test_a_search_for_more_than_the_graph_can_tell_is_exact(generation: Generation) -> None:
    query = ordered_codes(4, 1)
    for plan, k in ((graph_plan(generation, window=COUNT), 10), (graph_plan(generation), COUNT)):
        rows = generation.search(query, plan=replace(plan, shortlist=COUNT), k=k)[1][0]
        assert rows.tolist() == exact_search(generation.codes.codes, query, length=LENGTH, k=k)[1][0].tolist()


def test_a_damaged_graph_is_refused(place: Path, tmp_path: Path) -> None:
    artifact.copy(place / "generation", tmp_path / "generation", kind="generation")
    codes = Codes(place / "codes")
    damaged = next((tmp_path / "generation").rglob("graph_*.svs"))
    flip_byte(damaged, 5000)
    with pytest.raises(artifact.ArtifactError, match="vamana"):
        Generation(tmp_path / "generation", codes, tuning=TUNING)
    settings = next((tmp_path / "generation").rglob("settings/*.toml"))
    settings.write_bytes(b"x" * settings.stat().st_size)
    unchecked = Generation(tmp_path / "generation", codes, verify=False, tuning=TUNING)
    with pytest.raises(SearchError, match="cannot read"):
        unchecked.search(ordered_codes(5, 1), plan=graph_plan(unchecked), k=3)


def test_without_numba_the_other_indexes_answer(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "has_numba", lambda: False)
    monkeypatch.setattr(vamana, "has_numba", lambda: False)
    generation = Generation(place / "generation", Codes(place / "codes"), tuning=TUNING)
    assert generation.graph is None
    assert "Numba is not installed" in caplog.text
    assert all(m.plan.kind != "vamana" for m in generation.calibration.measured)


@pytest.mark.parametrize(("function", "name"), [("has_svs", "SVS"), ("has_numba", "Numba")])
def test_a_graph_is_not_built_without_its_packages(
    place: Path, monkeypatch: pytest.MonkeyPatch, function: str, name: str
) -> None:
    monkeypatch.setattr(vamana, function, lambda: False)
    options = BuildOptions(lengths=LENGTHS, optimise="latency", tuning=TUNING)
    with pytest.raises(IndexKindError, match=f"{name}, which is not installed"):
        build_generation(place / "another", Codes(place / "codes"), options)


def test_a_graph_is_searched_without_svs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "svs", None)
    generation = Generation(place / "generation", Codes(place / "codes"), tuning=TUNING)
    last = generation.codes.codes[-3:].astype(np.float32)
    assert generation.search(last, plan=graph_plan(generation), k=1)[1][:, 0].tolist() == list(range(COUNT - 3, COUNT))


def test_links_to_rows_that_are_not_there_are_refused(place: Path, tmp_path: Path) -> None:
    """They would have a search read memory that is not the graph's."""
    codes = Codes(place / "codes")
    for slot, value in ((0, 32), (1, COUNT)):
        copy = tmp_path / f"generation-{slot}"
        artifact.copy(place / "generation", copy, kind="generation")
        links = next(copy.rglob("graph_*.svs"))
        changed = bytearray(links.read_bytes())
        changed[1024 + 4 * slot : 1028 + 4 * slot] = value.to_bytes(4, "little")
        links.write_bytes(changed)
        unchecked = Generation(copy, codes, verify=False, tuning=TUNING)
        with pytest.raises(SearchError, match="rows that are not there"):
            unchecked.search(ordered_codes(5, 1), plan=graph_plan(unchecked), k=3)


def test_threads_and_batches_find_what_one_search_finds(generation: Generation) -> None:
    queries, plan = ordered_codes(10, 300), graph_plan(generation)
    one_by_one = [generation.search(query[None], plan=plan, k=10) for query in queries]
    scores, rows = (np.concatenate(part) for part in zip(*one_by_one, strict=True))
    batch_scores, batch_rows = generation.search(queries, plan=plan, k=10)
    np.testing.assert_array_equal(batch_rows, rows)
    np.testing.assert_allclose(batch_scores, scores, atol=1e-6)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda query: generation.search(query[None], plan=plan, k=10)[1], queries))
    np.testing.assert_array_equal(np.concatenate(parts), rows)


def test_a_long_walk_sees_nearly_all_rows_once(generation: Generation) -> None:
    """Its table of seen rows grows, and no row is found twice."""
    window = COUNT - 1
    rows = generation.search(ordered_codes(11, 1), plan=graph_plan(generation, window=window, shortlist=window), k=2000)
    found = rows[1][0].tolist()
    assert len(set(found)) == 2000
    expected = exact_search(generation.codes.codes, ordered_codes(11, 1), length=LENGTH, k=2000)[1][0]
    assert np.isin(expected, found).mean() > 0.99


@pytest.mark.parametrize(
    ("length", "stored"),
    [
        (8, 8),
        (16, 16),
        (32, 32),
        (48, 48),
        (64, 56),
        (72, 72),
        (96, 88),
        (128, 120),
        (160, 152),
        (256, 248),
    ],
)
def test_a_stored_prefix_fills_lines_of_the_cache(length: int, stored: int) -> None:
    wide, narrow = layout(length)
    size = 2 * wide + narrow
    assert wide + narrow == stored
    assert wide >= 8
    if size == 2 * length:
        return
    lines = [(start + size - 1) // 64 - start // 64 + 1 for start in range(0, 10 * size, size)]
    assert max(lines) == -(-size // 64)
    assert size % 32 == 0


def test_a_graph_may_be_over_a_prefix_between_two_long_lengths() -> None:
    assert with_lengths_between([4, 8, 16, 32, 64, 128, 256]) == [4, 8, 16, 32, 64, 96, 128, 256]
    assert with_lengths_between([32, 64, 128]) == [32, 64, 128]  # the full length is no prefix
    assert with_lengths_between([8, 16]) == [8, 16]


def test_the_graph_is_over_a_prefix_between_where_that_is_long_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(20)
    codes = rng.normal(size=(2000, 256)) * np.where(np.arange(256) < 90, 1, 0.01)
    written = write_codes(tmp_path / "codes", codes.astype(np.float32))
    assert choose_graph(written, (32, 64, 128, 256), tuning=TUNING) == IndexSpec(96, "vamana")


@pytest.mark.parametrize("length", [64, 96, 128])
def test_long_prefixes_have_16_and_8_bits_a_coordinate(length: int) -> None:
    """Without a graph to speak of: each row's link leads to the next, none to the last, and the walk sees all."""
    codes = ordered_codes(12, 200, length)
    prefixes = (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float16)
    links = np.zeros((200, 32), np.uint32)
    links[:, 0], links[:, 1] = 1, (np.arange(200) + 1) % 199
    search = VamanaGraph(links, prefixes).searching(prefixes, window=200, shortlist=0)
    queries = ordered_codes(13, 5, length)
    scores, rows = np.empty((5, 200), np.float32), np.empty((5, 200), np.int64)
    search(queries, scores, rows)
    cosines = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ prefixes.T.astype(np.float32)
    assert (np.sort(rows, axis=1) == np.arange(200)).all()
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, rows, 1), atol=1e-3)


@pytest.mark.parametrize(
    ("equal", "k", "is_decided"), [(False, 10, True), (False, 11, False), (True, 1, True), (True, 3, False)]
)
def test_a_walk_tells_whether_all_results_are_there_and_none_has_the_score_of_another(
    equal: bool, k: int, is_decided: bool
) -> None:
    codes = ordered_codes(16, 40)
    if equal:  # these are the second and the third of the query's results
        codes[1] = codes[0]
    prefixes = (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float16)
    links = np.zeros((40, 32), np.uint32)
    links[:, 0], links[:, 1:31] = 30, (np.arange(40)[:, None] + np.arange(1, 31)) % 40
    search = VamanaGraph(links, prefixes).searching(prefixes, window=10, shortlist=10)
    assert search(codes[5:6], np.empty((1, k), np.float32), np.empty((1, k), np.int64)) == is_decided


def test_a_length_cannot_have_the_graph_as_its_index(place: Path) -> None:
    with pytest.raises(IndexKindError, match="--optimise latency"):
        build_generation(place / "another", Codes(place / "codes"), BuildOptions(lengths=LENGTHS, kinds={16: "vamana"}))


def test_exact_searches_are_compiled_before_the_first(generation: Generation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes seconds, once on a machine: longer than a service lets a search wait."""
    scanned = []
    scan = VaFileIndex._scan_compiled

    def noted(self: VaFileIndex, *given: Any, **more: Any) -> None:
        scanned.append(self.spec.length)
        scan(self, *given, **more)

    monkeypatch.setattr(VaFileIndex, "_scan_compiled", noted)
    generation.warm_up()
    assert scanned == [LENGTH]


def test_an_exact_search_takes_the_memory_of_the_codes_too(generation: Generation) -> None:
    """A build for memory would otherwise take it for small, and search exactly."""
    exact = generation.calibration.exact()
    assert exact.plan.kind == "va-file"
    assert exact.bytes_per_image == pytest.approx(generation.bytes_of(LENGTH) / COUNT + 2 * LENGTH, abs=0.1)


def test_few_codes_have_no_graph(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", ordered_codes(0, 300))
    built = build_generation(tmp_path / "generation", codes, BuildOptions(lengths=LENGTHS, optimise="latency"))
    assert built.properties["graph"] is None
    assert IndexSpec(64, "va-file") in Generation(tmp_path / "generation", codes).specs


def test_a_build_in_a_hurry_has_two_lengths(place: Path, tmp_path: Path) -> None:
    codes = Codes(place / "codes")
    built = build_generation(
        tmp_path / "generation", codes, BuildOptions(lengths=LENGTHS, optimise="build", tuning=TUNING)
    )
    assert built.properties["indexes"] == [{"length": 8, "kind": "ivf-sq8"}, {"length": LENGTH, "kind": "va-file"}]
    generation = Generation(tmp_path / "generation", codes, tuning=TUNING)
    query = ordered_codes(7, 1)
    exact = generation.calibration.choose(k=10, target_recall=1.0).for_k(10)
    rows = generation.search(query, plan=exact, k=10)[1]
    assert rows.tolist() == exact_search(codes.codes, query, length=LENGTH, k=10)[1].tolist()


def test_every_row_is_linked_from_rows_near_it() -> None:
    """Rows that nothing led to would never be found."""
    rng = np.random.default_rng(14)
    links = np.zeros((500, 32), np.uint32)
    for row in range(500):  # all lead to the first hundred rows
        links[row, 0] = 20
        links[row, 1:21] = rng.choice(np.delete(np.arange(100), row if row < 100 else []), 20, replace=False)
    before = links.copy()
    link_back(links, np.array([1, 2, 3], np.uint32))
    degrees = links[:, 0]
    assert degrees.max() == 31
    arriving = np.zeros(500, int)
    for row in range(500):
        own = links[row, 1 : 1 + degrees[row]]
        assert len(set(own.tolist())) == degrees[row]
        assert own[:20].tolist() == before[row, 1:21].tolist()
        np.add.at(arriving, own, 1)
    assert arriving.min() >= 2, "those with the fewest come first"
    assert (arriving >= 3).mean() > 0.75, "all but those whose neighbours have no slot left"
    assert arriving[100:].sum() == (degrees[:100] - 20).sum()


def test_no_array_of_a_caller_has_the_walk_compiled_again(generation: Generation) -> None:
    """That takes seconds, which a request would wait for."""
    queries = ordered_codes(15, 4)
    plan = graph_plan(generation)
    expected = [generation.search(query[None], plan=plan, k=5)[1] for query in queries]
    compiled = len(search_graph.signatures)  # type: ignore[attr-defined]
    read_only = queries.copy()
    read_only.flags.writeable = False
    every_other = np.repeat(queries, 2, axis=1)[:, ::2]
    arrays: list[Any] = [read_only, np.asfortranarray(queries), queries.astype(np.float64), every_other]
    for given in arrays:
        for number in range(4):
            rows = generation.search(given[number : number + 1], plan=plan, k=5)[1]
            np.testing.assert_array_equal(rows, expected[number])
        np.testing.assert_array_equal(generation.search(given, plan=plan, k=5)[1], np.concatenate(expected))
    assert len(search_graph.signatures) == compiled  # type: ignore[attr-defined]
