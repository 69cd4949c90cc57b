"""The engine in PostgreSQL: recall by its graphs, what is filtered and removed, and tables whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eigenlens.index.backends import PgvectorBackend
from eigenlens.index.building.build import BuildOptions
from eigenlens.index.building.sizes import codes_bytes, index_bytes
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.errors import IndexKindError, SearchError
from eigenlens.index.filters.parse import matches, parse_filter
from eigenlens.index.live.engine import LiveEngine
from eigenlens.index.pgvector_engine.build import build_pgvector_generation
from eigenlens.index.pgvector_engine.generation import PgvectorGeneration
from eigenlens.index.pgvector_engine.kinds import MAX_ROWS, choose_pgvector_indexes
from eigenlens.index.pgvector_engine.sizes import graph_bytes, table_bytes
from eigenlens.index.pgvector_engine.statements import TABLES, table_name
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.service.gallery.store.postgres.vectors import VectorConnections
from tests.support import oracles
from tests.support.codes import HARDLY_CALIBRATED, random_codes, write_codes
from tests.support.postgres import Server

COUNT, LENGTH, FIRST_KEY = 2000, 64, 100
PLAN = Plan(32, "pg-hnsw", effort=200, shortlist=240, rerank_length=LENGTH)
# Half of the images are more than are scored one by one.
TUNING = replace(HARDLY_CALIBRATED, max_rows_scored_directly=200)
METADATA: list[dict[str, Any]] = [{"label": "ab"[row % 2], "number": row % 50} for row in range(COUNT)]


@pytest.fixture(scope="module")
def address(postgres: Server) -> str:
    return postgres.new_schema()


@pytest.fixture(scope="module")
def database(address: str) -> Iterator[VectorConnections]:
    connections = VectorConnections(address)
    yield connections
    connections.close()


@pytest.fixture(scope="module")
def generation(tmp_path_factory: pytest.TempPathFactory, database: VectorConnections) -> PgvectorGeneration:
    folder = tmp_path_factory.mktemp("pgvector")
    codes = write_codes(folder / "codes", random_codes(1, COUNT, LENGTH))
    options = BuildOptions(
        lengths=(32, LENGTH),
        kinds={32: "pg-hnsw"},
        metadata=METADATA,
        queries=random_codes(2, 40, LENGTH),
        tuning=replace(TUNING, timed_queries=1, effort_steps=1),
    )
    build_pgvector_generation(folder / "000001", codes, options, database, table=table_name(1))
    return PgvectorGeneration(folder / "000001", codes, database, tuning=TUNING)


@pytest.fixture(scope="module")
def replicated(
    generation: PgvectorGeneration, address: str, postgres: Server, replica: Server
) -> Iterator[PgvectorGeneration]:
    """The same generation, searched in a replica of the server that built it."""
    connections = VectorConnections(replica.address_here(address))
    replica.catch_up(postgres)
    replicated = PgvectorGeneration(generation.artifact.path, generation.codes, connections, tuning=TUNING)
    replicated.check()
    yield replicated
    connections.close()


@pytest.mark.parametrize("where", ["generation", "replicated"])
@pytest.mark.parametrize("case", ["all", "2 %", "50 %", "removals", "large delta"])
def test_recall_holds_whatever_is_left_out_or_added(request: pytest.FixtureRequest, where: str, case: str) -> None:
    generation: PgvectorGeneration = request.getfixturevalue(where)
    engine = LiveEngine(generation)
    stored = dict(zip(generation.keys.tolist(), random_codes(1, COUNT, LENGTH), strict=True))
    filter = {"2 %": {"number": 7}, "50 %": {"label": "a"}}.get(case)
    if case == "removals":
        removed = list(stored)[::3]
        engine.remove(removed)
        stored = {key: code for key, code in stored.items() if key not in set(removed)}
    if case == "large delta":
        added = random_codes(3, COUNT // 2, LENGTH)
        engine.add(range(9000, 9000 + len(added)), added, [{}] * len(added))
        stored |= dict(zip(range(9000, 9000 + len(added)), added, strict=True))
    if filter is not None:
        condition = parse_filter(filter)
        stored = {key: code for key, code in stored.items() if matches(condition, METADATA[key - FIRST_KEY])}
    queries = random_codes(4, 25, LENGTH)
    nearest = engine.search(queries, plan=PLAN, k=10, filter=None if filter is None else parse_filter(filter))
    keys, exact = list(stored), oracles.cosine(queries, np.array(list(stored.values())), length=LENGTH)
    best = np.argsort(-exact, axis=1)[:, :10]
    recalls = [
        len({key for key, _ in found} & {keys[place] for place in places}) / 10
        for found, places in zip(nearest, best, strict=True)
    ]
    assert np.mean(recalls) >= 0.98
    scores = {(number, key): score for number, found in enumerate(nearest) for key, score in found}
    errors = [abs(score - exact[number, keys.index(key)]) for (number, key), score in scores.items()]
    assert max(errors) < 2e-3


def test_a_search_needs_the_graph_and_what_holds_for_one_search_ends_with_it(
    generation: PgvectorGeneration, database: VectorConnections
) -> None:
    query = random_codes(5, 1, LENGTH)
    index = generation.prefix_index(32)
    for effort in (10, 1000, 10):  # also above what pgvector takes before its library is loaded
        index.run(query, plan=replace(PLAN, effort=effort), k=10)
        ((setting,),) = database.query("SELECT current_setting('hnsw.ef_search')")
        assert setting == str(effort)
    statement = index._statement(10, last_length=LENGTH, shortlist=240)
    explained = database.query(
        f"EXPLAIN {statement.text(10)}", [f"[{'1,' * 63}1]", f"[{'1,' * 31}1]"], before=statement.settings
    )
    assert "Index Scan using vectors_000001_32" in "\n".join(line for (line,) in explained)
    beyond, rows = generation.search(query, plan=Plan(32, "pg-hnsw", effort=100), k=1500)
    assert len(set(rows[0].tolist()) - {-1}) == 1500, "more than pgvector keeps at a time"
    assert (np.diff(beyond) <= 0).all()
    exact, _ = index.run(query, plan=replace(PLAN, effort=index.max_effort, shortlist=COUNT - 1), k=10)
    np.testing.assert_allclose(exact, index.scan(query, 10, length=LENGTH)[0], atol=1e-6)


def test_calibration_measures_what_a_search_through_the_connection_finds(generation: PgvectorGeneration) -> None:
    measured = {m.plan: m for m in generation.calibration.measured}
    assert generation.calibration.exact().plan == Plan(LENGTH, "pg-scan")
    rescored = [m for plan, m in measured.items() if plan.rerank_length == LENGTH and (plan.shortlist or 0) >= 240]
    assert max(m.recall[10].mean for m in rescored) > 0.97
    assert all(m.latency_ms["p50"] > 0 for m in measured.values())
    assert generation.bytes_of(LENGTH) == 0


def test_a_graph_leads_to_all_codes_of_a_tight_cluster(tmp_path: Path, postgres: Server) -> None:
    each, centres = 50, random_codes(1, 40, LENGTH)
    clusters = np.repeat(centres, each, axis=0) + 0.15 * random_codes(3, COUNT, LENGTH)
    codes = write_codes(tmp_path / "codes", clusters.astype(np.float32))
    tuning = replace(HARDLY_CALIBRATED, timed_queries=1, effort_steps=1)
    queries = (centres + 0.15 * random_codes(4, 40, LENGTH)).astype(np.float32)
    options = BuildOptions(
        lengths=(32, LENGTH), kinds={32: "pg-hnsw"}, metadata=[{}] * COUNT, queries=queries[:2], tuning=tuning
    )
    with closing(VectorConnections(postgres.new_schema())) as database:
        build_pgvector_generation(tmp_path / "000001", codes, options, database, table=table_name(1))
        index = PgvectorGeneration(tmp_path / "000001", codes, database).prefix_index(32)
        _, exact = index.search(queries, each)
        _, rows = index.search(queries, each, effort=100)
    assert np.mean([len(set(a) & set(b)) / each for a, b in zip(rows, exact, strict=True)]) > 0.995


def test_bytes_are_as_they_were_estimated(generation: PgvectorGeneration, database: VectorConnections) -> None:
    ((table,),) = database.query("SELECT pg_relation_size('vectors_000001') + pg_relation_size('vectors_000001_pkey')")
    # A table grows by several pages at a time.
    assert table == pytest.approx(table_bytes(COUNT, LENGTH), abs=16 * 8192)
    for spec, size in graph_bytes(generation.specs, COUNT).items():
        assert generation.bytes_of(spec.length) == pytest.approx(size, rel=0.05), spec


def test_a_build_leaves_all_or_nothing(
    tmp_path: Path, generation: PgvectorGeneration, database: VectorConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: Codes = write_codes(tmp_path / "codes", random_codes(6, 60, 8))
    backend = PgvectorBackend(database)

    reports: list[tuple[int, int]] = []

    def fail(done: int, total: int) -> None:
        reports.append((done, total))
        if done == total:
            raise KeyboardInterrupt

    def ignored(done: int, total: int) -> None:
        pass

    options = BuildOptions(lengths=(4, 8), metadata=[{}] * 60, tuning=HARDLY_CALIBRATED, on_progress=fail)
    with pytest.raises(KeyboardInterrupt):
        backend.build(tmp_path / "000002", codes, options)
    assert database.query(TABLES) == [("vectors_000001",)]
    assert reports == [(0, 2), (1, 2), (2, 2)]
    assert not (tmp_path / "000002").exists()
    backend.build(tmp_path / "000002", codes, replace(options, on_progress=ignored))
    opened = backend.open(tmp_path / "000002", codes)
    opened.check()
    assert backend.open(tmp_path / "000002", codes).search(random_codes(6, 1, 8), plan=Plan(8), k=1)[1].shape == (1, 1)
    backend.remove_unused([generation.artifact.properties])  # as if the process was killed before the directory
    assert database.query(TABLES) == [("vectors_000001",)]
    with pytest.raises(SearchError, match="table vectors_000002 is not in the gallery's store: `eigenlens build`"):
        opened.check()
    with pytest.raises(SearchError, match="`eigenlens build`"):
        PgvectorBackend(None).open(tmp_path / "000002", codes).search(random_codes(6, 1, 8), plan=Plan(8), k=1)


def test_what_pgvector_cannot_hold_is_refused_with_what_can() -> None:
    with pytest.raises(IndexKindError, match="pgvector has no index of kind 'ivf-pq'; it has pg-hnsw, pg-scan"):
        choose_pgvector_indexes(10, lengths=(8,), kinds={8: "ivf-pq"})
    with pytest.raises(IndexKindError, match="which is not built"):
        choose_pgvector_indexes(10, lengths=(8,), kinds={4: "pg-scan"})
    with pytest.raises(IndexKindError, match="20000000 takes too long to build; use the backend faiss"):
        choose_pgvector_indexes(MAX_ROWS + 1, lengths=(8,))
    with pytest.raises(IndexKindError, match="at most 4000 coordinates, not 5000; use the backend faiss"):
        choose_pgvector_indexes(10, lengths=(8, 5000))
    assert [spec.kind for spec in choose_pgvector_indexes(10**6, lengths=(8, 64))] == ["pg-hnsw", "pg-scan"]


def test_the_guide_tells_the_bytes_that_are_computed() -> None:
    guide = (Path(__file__).parents[3] / "docs/guide/outgrowing.md").read_text()
    for count in (10**6, 10**7, MAX_ROWS, 10**8, 10**9):
        faiss, graph = IndexSpec(64, "ivf-pq"), IndexSpec(64, "pg-hnsw")
        sizes = [index_bytes([faiss], count)[faiss], 532 * count]
        assert codes_bytes(count, 256) == 532 * count
        if count <= MAX_ROWS:
            sizes += [graph_bytes([graph], count)[graph], table_bytes(count, 256)]
        cells = [f"{size / 1e9:.2f} GB" for size in sizes] + ["refused"] * (4 - len(sizes))
        assert f"| {count:,} | {' | '.join(cells)} |" in guide
