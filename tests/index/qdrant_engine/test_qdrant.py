"""The engine in Qdrant: recall by its graphs, filters as payload conditions, collections whole or not at all."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings

from eigenlens.index.backends import QdrantBackend
from eigenlens.index.building.build import BuildOptions
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.errors import (
    EngineUnavailableError,
    FilterError,
    IndexKindError,
    RerankNotStoredError,
    ResultCountError,
    SearchError,
)
from eigenlens.index.filters.parse import Compare, Every, Filter, Negation, Some, matches, parse_filter
from eigenlens.index.live.engine import LiveEngine
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.qdrant_engine.build import build_qdrant_generation
from eigenlens.index.qdrant_engine.generation import QdrantGeneration
from eigenlens.index.qdrant_engine.kinds import MAX_RESULTS, choose_qdrant_indexes
from eigenlens.index.qdrant_engine.names import CollectionNames
from eigenlens.index.qdrant_engine.server import QdrantServer, VectorForm
from eigenlens.index.qdrant_engine.sizes import index_bytes, vector_bytes
from tests.support import oracles
from tests.support.codes import HARDLY_CALIBRATED, random_codes, write_codes
from tests.support.filters import FILTERS, odd_metadata

if TYPE_CHECKING:
    from tests.support.qdrant_double import QdrantDouble

pytest.importorskip("qdrant_edge")

COUNT, LENGTH, FIRST_KEY = 2000, 64, 100
PLAN = Plan(32, "qd-hnsw", effort=200, shortlist=240, rerank_length=LENGTH)
# Also the images of 2 % are more than are scored one by one.
TUNING = replace(HARDLY_CALIBRATED, max_rows_scored_directly=20)
METADATA: list[dict[str, Any]] = [{"label": "ab"[row % 2], "number": row % 50} for row in range(COUNT)]
CASES: dict[str, dict[str, Any]] = {
    "2 %": {"number": 7},
    "6 %": {"number": {"$lt": 3}},
    "8 %": {"number": {"$lt": 4}},
    "10 %": {"number": {"$lt": 5}},
    "12 %": {"number": {"$lt": 6}},
    "50 %": {"label": "a"},
}


@pytest.fixture(scope="module", autouse=True)
def _graphs_search_what_filters_leave() -> Iterator[None]:
    """Compare one by one only what Qdrant does at the least: the rest, which is little here, goes by the graphs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eigenlens.index.qdrant_engine.server._FULL_SCAN_KB", 10)
        yield


@pytest.fixture(scope="module")
def server(qdrant_url: str) -> Iterator[QdrantServer]:
    server = QdrantServer(qdrant_url)
    yield server
    server.close()


def build(
    folder: Path,
    server: QdrantServer,
    *,
    kind: str = "qd-hnsw",
    metadata: list[dict[str, Any]] = METADATA,
    queries: int = 1,
) -> QdrantGeneration:
    """A generation of 2,000 codes of 64 coordinates, whose first 32 find shortlists, measured with some queries."""
    codes = write_codes(folder / "codes", random_codes(1, COUNT, LENGTH))
    options = BuildOptions(
        lengths=(32, LENGTH),
        kinds={32: kind},
        metadata=metadata,
        queries=random_codes(2, queries, LENGTH),
        tuning=replace(TUNING, timed_queries=1, effort_steps=1),
    )
    name = f"test-{secrets.token_hex(4)}"
    build_qdrant_generation(folder / "000001", codes, options, server, collection=name)
    return QdrantGeneration(folder / "000001", codes, server, tuning=TUNING)


@pytest.fixture(scope="module")
def generation(tmp_path_factory: pytest.TempPathFactory, server: QdrantServer) -> Iterator[QdrantGeneration]:
    generation = build(tmp_path_factory.mktemp("qdrant"), server, queries=40)
    yield generation
    server.drop(generation.collection)


def recall_and_error(generation: QdrantGeneration, case: str, plan: Plan = PLAN) -> tuple[float, float]:
    """The recall@10 of a plan among what a case leaves, and the largest error of a score."""
    engine = LiveEngine(generation)
    stored = dict(zip(generation.keys.tolist(), random_codes(1, COUNT, LENGTH), strict=True))
    if case == "removals":
        removed = list(stored)[::3]
        engine.remove(removed)
        stored = {key: code for key, code in stored.items() if key not in set(removed)}
    if case == "large delta":
        added = random_codes(3, COUNT // 2, LENGTH)
        engine.add(range(9000, 9000 + len(added)), added, [{}] * len(added))
        stored |= dict(zip(range(9000, 9000 + len(added)), added, strict=True))
    filter = parse_filter(CASES[case]) if case in CASES else None
    if filter is not None:
        stored = {key: code for key, code in stored.items() if matches(filter, METADATA[key - FIRST_KEY])}
    queries = random_codes(4, 25, LENGTH)
    nearest = engine.search(queries, plan=plan, k=10, filter=filter)
    keys, exact = list(stored), oracles.cosine(queries, np.array(list(stored.values())), length=LENGTH)
    best = np.argsort(-exact, axis=1)[:, :10]
    recalls = [
        len({key for key, _ in hits} & {keys[place] for place in places}) / 10
        for hits, places in zip(nearest, best, strict=True)
    ]
    errors = [abs(score - exact[number, keys.index(key)]) for number, hits in enumerate(nearest) for key, score in hits]
    return float(np.mean(recalls)), max(errors)


@pytest.mark.parametrize("case", ["all", *CASES, "removals", "large delta"])
def test_recall_holds_whatever_is_left_out_or_added(generation: QdrantGeneration, case: str) -> None:
    recall, error = recall_and_error(generation, case)
    assert recall >= 0.98
    assert error < 2e-3


def test_graphs_that_were_built_before_the_payload_was_indexed_lose_what_a_filter_leaves(tmp_path: Path) -> None:
    from tests.support.qdrant_double import running_double  # importing the client takes a second

    with running_double() as double:
        double.makes_payload_indexes = False
        server = QdrantServer(double.url)
        generation = build(tmp_path, server)
        assert recall_and_error(generation, "all")[0] >= 0.98
        # Without such an index the engine guesses how many match, and compares all of them if it thinks them few: any
        # one filter may be lucky.
        assert min(recall_and_error(generation, case)[0] for case in CASES) < 0.98
        double.forget_payload_indexes(generation.collection)
        with pytest.raises(SearchError, match=r"has lost the indexes of its payload \(n1, t0\)"):
            generation.check()
        server.close()


def test_a_search_is_one_request_and_copies_of_a_byte_find_as_much(tmp_path: Path, qdrant: QdrantDouble) -> None:
    server = QdrantServer(qdrant.url)
    generation = build(tmp_path, server, kind="qd-hnsw-sq8", metadata=[{}] * COUNT)  # graphs of no field, sooner built
    before = len(qdrant.requests)
    generation.search(random_codes(5, 20, LENGTH), plan=replace(PLAN, kind="qd-hnsw-sq8"), k=10)
    assert qdrant.requests[before:] == [f"POST /collections/{generation.collection}/points/query/batch"]
    assert recall_and_error(generation, "all", replace(PLAN, kind="qd-hnsw-sq8"))[0] >= 0.98
    plain = Plan(32, "qd-hnsw-sq8", effort=200)
    scores, rows = generation.search(random_codes(5, 5, LENGTH), plan=plain, k=10)
    exact, exact_rows = generation.prefix_index(32).scan(random_codes(5, 5, LENGTH), 10, length=32)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact_rows, strict=True)]) > 0.9
    np.testing.assert_allclose(scores[:, 0], exact[:, 0], atol=2e-3)  # by the vectors, not by the copies
    server.drop(generation.collection)
    server.close()


def test_calibration_measures_what_a_search_through_the_client_finds(generation: QdrantGeneration) -> None:
    measured = {m.plan: m for m in generation.calibration.measured}
    assert generation.calibration.device == generation.device == "cpu"
    assert generation.calibration.exact().plan == Plan(LENGTH, "qd-scan")
    rescored = [m for plan, m in measured.items() if plan.rerank_length == LENGTH and (plan.shortlist or 0) >= 240]
    assert max(m.recall[10].mean for m in rescored) > 0.97
    assert all(m.latency_ms["p50"] > 0 for m in measured.values())


def has_text_range(filter: Filter) -> bool:
    match filter:
        case Every(parts) | Some(parts):
            return any(has_text_range(part) for part in parts)
        case Negation(part):
            return has_text_range(part)
        case Compare(_, operator, values):
            return operator[1:3] in ("gt", "lt") and values[0][0] == "text"
    return False


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory, server: QdrantServer) -> Iterator[LiveEngine]:
    """An engine of 150 images with odd metadata, all of whose searches go through Qdrant's conditions."""
    folder = tmp_path_factory.mktemp("filtered")
    codes = write_codes(folder / "codes", random_codes(7, 150, 8))
    tuning = replace(HARDLY_CALIBRATED, timed_queries=1, effort_steps=1)
    options = BuildOptions(lengths=(8,), metadata=odd_metadata(150), queries=random_codes(7, 1, 8), tuning=tuning)
    name = f"test-{secrets.token_hex(4)}"
    build_qdrant_generation(folder / "000001", codes, options, server, collection=name)
    yield LiveEngine(QdrantGeneration(folder / "000001", codes, server, tuning=tuning))
    server.drop(name)


@settings(derandomize=True, deadline=None, max_examples=150, database=None)
@given(form=FILTERS)
def test_random_filters_leave_what_they_say_and_only_ranges_of_texts_are_refused(
    filtered: LiveEngine, form: dict[str, Any]
) -> None:
    filter, query = parse_filter(form), random_codes(8, 1, 8)
    allowed = {FIRST_KEY + row for row, metadata in enumerate(odd_metadata(150)) if matches(filter, metadata)}
    if has_text_range(filter):
        with pytest.raises(FilterError, match="the backend qdrant has no order of texts"):
            filtered.search(query, plan=Plan(8, "qd-scan"), k=150, filter=filter)
        return
    nearest = filtered.search(query, plan=Plan(8, "qd-scan"), k=150, filter=filter)[0]
    assert {key for key, _ in nearest} == allowed


def test_shards_are_merged_and_a_missing_one_is_never_a_part_of_an_answer(
    tmp_path: Path, generation: QdrantGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support import qdrant_double  # importing the client takes a second

    monkeypatch.setattr(qdrant_double, "_FEW_POINTS", 0)
    with qdrant_double.running_double(shards=3) as double:
        server = QdrantServer(double.url)
        divided = build(tmp_path, server)
        polls = [request for request in double.requests if request == f"GET /collections/{divided.collection}"]
        assert len(polls) > 2, "the build waits while the server indexes beside its answers"
        queries = random_codes(5, 10, LENGTH)
        expected, _ = generation.search(queries, plan=Plan(LENGTH, "qd-scan"), k=20)
        np.testing.assert_array_equal(divided.search(queries, plan=Plan(LENGTH, "qd-scan"), k=20)[0], expected)
        assert recall_and_error(divided, "50 %")[0] >= 0.98
        double.lose_shard(divided.collection, 1)
        with pytest.raises(EngineUnavailableError, match=r"shard 1 .* does not have enough active replicas"):
            divided.search(queries, plan=PLAN, k=10)
        double.restore_shards(divided.collection)
        assert divided.search(queries, plan=PLAN, k=10)[1].min() >= 0
        double.key = "secret"
        with pytest.raises(EngineUnavailableError, match="refuses the key in EIGENLENS_BACKEND_API_KEY"):
            divided.search(queries, plan=PLAN, k=10)
        with_key = QdrantServer(double.url, api_key="secret")
        with pytest.warns(UserWarning, match="insecure"):
            QdrantGeneration(divided.artifact.path, divided.codes, with_key).check()
        with_key.close()
    with pytest.raises(EngineUnavailableError, match="is not reached"):
        divided.search(queries, plan=PLAN, k=10)
    server.close()


def test_a_build_leaves_all_or_nothing(tmp_path: Path, server: QdrantServer) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(6, 60, 8))
    backend, names = QdrantBackend(server, CollectionNames(tmp_path)), CollectionNames(tmp_path)

    reports: list[tuple[int, int]] = []

    def fail(done: int, total: int) -> None:
        reports.append((done, total))
        if done == total:
            raise KeyboardInterrupt

    def ignored(done: int, total: int) -> None:
        pass

    tuning = replace(HARDLY_CALIBRATED, timed_queries=1)
    options = BuildOptions(lengths=(4, 8), metadata=[{}] * 60, tuning=tuning, on_progress=fail)
    with pytest.raises(KeyboardInterrupt):
        backend.build(tmp_path / "000002", codes, options)
    assert names.among(server.names()) == []
    assert reports == [(0, 2), (1, 2), (2, 2)]
    assert not (tmp_path / "000002").exists()
    backend.build(tmp_path / "000002", codes, replace(options, on_progress=ignored))
    opened = backend.open(tmp_path / "000002", codes)
    opened.check()
    assert opened.search(random_codes(6, 1, 8), plan=Plan(8, "qd-scan"), k=1)[1].shape == (1, 1)
    backend.remove_unused([opened.artifact.properties])
    assert names.among(server.names()) == [opened.collection]
    backend.build(tmp_path / "000003", codes, replace(options, on_progress=ignored))
    other = backend.open(tmp_path / "000003", codes)
    other.collection = opened.collection
    with pytest.raises(SearchError, match=r"another calibration, than .*: `eigenlens build`"):
        other.check()
    backend.remove_unused([])  # as if the process was killed before the directory
    assert names.among(server.names()) == []
    with pytest.raises(SearchError, match=r"is not in Qdrant at .*: `eigenlens build`"):
        opened.check()
    with pytest.raises(EngineUnavailableError, match="`eigenlens build`"):
        opened.search(random_codes(6, 1, 8), plan=Plan(8, "qd-scan"), k=1)
    with pytest.raises(SearchError, match="EIGENLENS_BACKEND_URL"):
        QdrantBackend(None, names).open(tmp_path / "000002", codes).check()


def test_what_qdrant_is_not_asked_for_is_refused_with_what_can_be(
    generation: QdrantGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(IndexKindError, match="qdrant has no index of kind 'pg-hnsw'; it has qd-hnsw, qd-hnsw-sq8"):
        choose_qdrant_indexes(10, lengths=(8,), kinds={8: "pg-hnsw"})
    with pytest.raises(IndexKindError, match="which is not built"):
        choose_qdrant_indexes(10, lengths=(8,), kinds={4: "qd-scan"})
    assert [spec.kind for spec in choose_qdrant_indexes(10**9, lengths=(64, 256))] == ["qd-hnsw", "qd-scan"]
    query = random_codes(5, 1, LENGTH)
    with pytest.raises(RerankNotStoredError, match="no vectors of 48 coordinates to rerank by; it has 32, 64"):
        generation.search(query, plan=replace(PLAN, rerank_length=48), k=10)
    monkeypatch.setattr("eigenlens.index.qdrant_engine.generation.MAX_RESULTS", 100)
    assert MAX_RESULTS > 1000, "the service's own limit is below"
    with pytest.raises(ResultCountError, match=r"at most 100 results, offset included; .* than 101, or build"):
        generation.search(query, plan=PLAN, k=101)
    with pytest.raises(ResultCountError, match="shortlists of at most 100, not 240"):
        generation.search(query, plan=PLAN, k=10)


def test_bytes_are_as_they_were_estimated(qdrant: QdrantDouble) -> None:
    server, spec = QdrantServer(qdrant.url), IndexSpec(32, "qd-hnsw-sq8")
    server.create("test-bytes", [VectorForm(32, has_graph=True, quantised=True)], {})
    prefixes = unit_prefix(random_codes(1, COUNT, LENGTH), 32).tolist()
    server.upsert("test-bytes", [{"id": id, "vector": {"32": prefix}} for id, prefix in enumerate(prefixes)])
    server.index("test-bytes")
    files = qdrant.bytes_of("test-bytes")
    vectors = sum(size for name, size in files.items() if "matrix" in name)
    assert vectors == pytest.approx(vector_bytes([spec], COUNT), rel=0.15)
    index = sum(size for name, size in files.items() if "links" in name or "quantized.data" in name)
    assert index == pytest.approx(index_bytes([spec], COUNT)[spec], rel=0.15)
    server.drop("test-bytes")
    server.close()


def test_the_guide_tells_the_bytes_that_are_computed() -> None:
    guide = (Path(__file__).parents[3] / "docs/guide/outgrowing.md").read_text()
    graph, copies, full = IndexSpec(64, "qd-hnsw"), IndexSpec(64, "qd-hnsw-sq8"), IndexSpec(256, "qd-scan")
    for count in (10**6, 10**7, 10**8, 10**9, 10**10):
        plain = index_bytes([graph], count)[graph] + vector_bytes([graph], count)
        disk, with_copies = vector_bytes([full], count), index_bytes([copies], count)[copies]
        nodes = [max(1, math.ceil(size / (0.75 * 64e9))) for size in (plain, with_copies)]
        sizes = [f"{size / 1e9:,.2f} GB" for size in (plain, with_copies, disk)]
        assert f"| {count:,} | {' | '.join(sizes)} | {nodes[0]:,} or {nodes[1]:,} |" in guide
