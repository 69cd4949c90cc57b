"""Every engine against float64 plain loops: what is added is found, what is removed is not, filters and plans hold."""

from __future__ import annotations

import functools
import gc
import itertools
import secrets
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.engine import Engine
from eigenlens.index.errors import CodesError, FilterError, PrefixLengthError, ResultCountError
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.filters.parse import parse_filter
from eigenlens.index.live.engine import LiveEngine
from eigenlens.index.pgvector_engine.build import build_pgvector_generation
from eigenlens.index.pgvector_engine.generation import PgvectorGeneration
from eigenlens.index.pgvector_engine.statements import table_name
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.qdrant_engine.build import build_qdrant_generation
from eigenlens.index.qdrant_engine.generation import QdrantGeneration
from eigenlens.index.qdrant_engine.server import QdrantServer
from eigenlens.index.tuning import Tuning
from eigenlens.service.gallery.store.postgres.vectors import VectorConnections
from tests.support import oracles
from tests.support.codes import (
    CODE_LENGTH,
    ENCODER_ID,
    HARDLY_CALIBRATED,
    LENGTHS,
    random_codes,
    repeatable,
    write_codes,
)
from tests.support.numpy_engine import NumpyEngine

Open = Callable[[Path, NDArray[np.float32], Sequence[Mapping[str, Any]]], Engine]
TOLERANCE = 2e-3  # codes are kept in half precision
COUNT, FIRST_KEY = 300, 100
# Filters that leave more than a few images go through the indexes.
# And where few are removed, they are dropped from results.
TUNING = replace(HARDLY_CALIBRATED, max_rows_scored_directly=20, max_dropped_share=0.1)
_folders = itertools.count()


def open_numpy(_: Path, codes: NDArray[np.float32], metadata: Sequence[Mapping[str, Any]]) -> Engine:
    keys = range(FIRST_KEY, FIRST_KEY + len(codes))
    return NumpyEngine(keys, codes, metadata, lengths=LENGTHS, encoder_id=ENCODER_ID)


def open_faiss(kinds: Mapping[int, str], tuning: Tuning = TUNING) -> Open:
    built: dict[bytes, Path] = {}

    def open_engine(folder: Path, codes: NDArray[np.float32], metadata: Sequence[Mapping[str, Any]]) -> Engine:
        """Open a generation of these codes, built by the first test that asks for them."""
        path = built.get(codes.tobytes(), folder / str(next(_folders)))
        if codes.tobytes() not in built:
            stored = write_codes(path / "codes", codes, tuning=tuning)
            options = BuildOptions(lengths=LENGTHS, kinds=kinds, metadata=metadata, tuning=tuning)
            build_generation(path / "generation", stored, options)
            built[codes.tobytes()] = path
        return LiveEngine(Generation(path / "generation", Codes(path / "codes", tuning=tuning), tuning=tuning))

    return open_engine


def open_pgvector(database: VectorConnections, replica: VectorConnections, catch_up: Callable[[], None]) -> Open:
    """Engines in a primary, which builds, and in a replica of it, in turns."""
    built: dict[bytes, tuple[Path, Codes]] = {}
    turns = itertools.cycle([database, replica])

    def open_engine(folder: Path, codes: NDArray[np.float32], metadata: Sequence[Mapping[str, Any]]) -> Engine:
        """Open a generation of these codes in PostgreSQL, built by the first test that asks for them."""
        if codes.tobytes() not in built:
            path = folder / str(next(_folders))
            stored = write_codes(path / "codes", codes, tuning=TUNING)
            # One query: to search for more and to time them takes most of a small build.
            options = BuildOptions(
                lengths=LENGTHS,
                kinds={4: "pg-hnsw", 8: "pg-hnsw"},
                metadata=metadata,
                queries=codes[:1],
                tuning=replace(TUNING, timed_queries=1),
            )
            table = table_name(len(built) + 1)
            build_pgvector_generation(path / "generation", stored, options, database, table=table)
            built[codes.tobytes()] = path / "generation", stored
            catch_up()
        generation, stored = built[codes.tobytes()]
        return LiveEngine(PgvectorGeneration(generation, stored, next(turns), verify=False, tuning=TUNING))

    return open_engine


def open_qdrant(server: QdrantServer) -> Open:
    built: dict[bytes, tuple[Path, Codes]] = {}

    def open_engine(folder: Path, codes: NDArray[np.float32], metadata: Sequence[Mapping[str, Any]]) -> Engine:
        """Open a generation of these codes in Qdrant, built by the first test that asks for them."""
        if codes.tobytes() not in built:
            path = folder / str(next(_folders))
            stored = write_codes(path / "codes", codes, tuning=TUNING)
            options = BuildOptions(
                lengths=LENGTHS,
                kinds={4: "qd-hnsw", 8: "qd-hnsw"},
                metadata=metadata,
                queries=codes[:1],
                tuning=replace(TUNING, timed_queries=1, effort_steps=1),
            )
            name = f"test-{secrets.token_hex(4)}"
            build_qdrant_generation(path / "generation", stored, options, server, collection=name)
            built[codes.tobytes()] = path / "generation", stored
        generation, stored = built[codes.tobytes()]
        return LiveEngine(QdrantGeneration(generation, stored, server, verify=False, tuning=TUNING))

    return open_engine


ENGINES = {
    "numpy": open_numpy,
    "faiss": open_faiss({}),
    "faiss-lists": open_faiss({4: "ivf", 8: "ivf-sq8", CODE_LENGTH: "half"}),
    "faiss-graph": open_faiss({4: "hnsw", 8: "ivf-pq"}),
}


# Together with these, every kind of index, with and without a graph over its lists.
MORE_ENGINES = {
    "faiss-scans": open_faiss({4: "sq8", 8: "ivf-rabitq", CODE_LENGTH: "flat"}),
    "faiss-graph-of-lists": open_faiss({4: "ivf-pq", 8: "ivf"}, replace(TUNING, max_scanned_lists=1)),
}

ALL_ENGINES = (*ENGINES, "pgvector", "qdrant")


@pytest.fixture(scope="module")
def engine_named(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Open]]:
    """Opens engines by name; servers of PostgreSQL or the double of Qdrant's are started where they are needed."""
    databases: list[VectorConnections] = []
    servers: list[QdrantServer] = []

    @functools.cache
    def named(name: str) -> Open:
        if name == "qdrant":
            servers.append(QdrantServer(request.getfixturevalue("qdrant_url")))
            return open_qdrant(servers[0])
        if name != "pgvector":
            return (ENGINES | MORE_ENGINES)[name]
        primary, replica = request.getfixturevalue("postgres"), request.getfixturevalue("replica")
        address = primary.new_schema()
        databases.extend(map(VectorConnections, (address, replica.address_here(address))))
        return open_pgvector(databases[0], databases[1], lambda: replica.catch_up(primary))

    yield named
    for database in databases:
        database.close()
    for server in servers:
        for collection in server.names():
            if collection.startswith("test-"):
                server.drop(collection)
        server.close()


# A filter in its JSON form, and what it says of an image's metadata.
Condition = tuple[dict[str, Any], Callable[[Mapping[str, Any]], bool]]


def has_label(label: str) -> Condition:
    return {"label": label}, lambda metadata: metadata["label"] == label


def is_below(bound: int) -> Condition:
    return {"number": {"$lt": bound}}, lambda metadata: metadata["number"] < bound


def all_of(parts: list[Condition]) -> Condition:
    return {"$and": [form for form, _ in parts]}, lambda metadata: all(holds(metadata) for _, holds in parts)


def any_of(parts: list[Condition]) -> Condition:
    return {"$or": [form for form, _ in parts]}, lambda metadata: any(holds(metadata) for _, holds in parts)


def none_of(part: Condition) -> Condition:
    return {"$not": part[0]}, lambda metadata: not part[1](metadata)


CONDITIONS = st.recursive(
    st.one_of(st.sampled_from(["a", "b", "c", "none"]).map(has_label), st.integers(0, 1100).map(is_below)),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(all_of),
        st.lists(inner, min_size=1, max_size=3).map(any_of),
        inner.map(none_of),
    ),
    max_leaves=4,
)


class Gallery:
    """What an engine was told, as plain dictionaries, and what it should answer."""

    def __init__(self, open_engine: Open, folder: Path, seed: int, count: int = COUNT) -> None:
        codes = random_codes(seed, count)
        metadata: list[dict[str, Any]] = [{"label": "ab"[row % 2], "number": row} for row in range(count)]
        self.engine = open_engine(folder, codes, metadata)
        self.codes = dict(zip(range(FIRST_KEY, FIRST_KEY + count), codes, strict=True))
        self.metadata = dict(zip(self.codes, metadata, strict=True))

    def add(self, keys: Sequence[int], seed: int) -> None:
        codes = random_codes(seed, len(keys))
        metadata: list[dict[str, Any]] = [{"label": "c" if key % 2 else "a", "number": key} for key in keys]
        self.engine.add(keys, codes, metadata)
        for key, code, values in zip(keys, codes, metadata, strict=True):
            self.codes.setdefault(key, code)
            self.metadata.setdefault(key, values)

    def remove(self, keys: Sequence[int]) -> None:
        self.engine.remove(keys)
        for key in keys:
            self.codes.pop(key, None)

    def check(
        self, queries: NDArray[np.float32], *, k: int, plan: PlanRequest, condition: Condition | None = None
    ) -> None:
        """Compare with the exact answer; a plan that looks at everything has to give it."""
        chosen = PlanChooser(self.engine).choose(plan, k=k).plan
        filter = None if condition is None else parse_filter(condition[0])
        nearest = self.engine.search(queries, plan=chosen, k=k, filter=filter)
        allowed = [key for key in self.codes if condition is None or condition[1](self.metadata[key])]
        length = chosen.rerank_length or chosen.prefix_length
        for query, neighbors in zip(queries, nearest, strict=True):
            keys = [key for key, _ in neighbors]
            assert len(keys) == len(set(keys)) == min(k, len(allowed))
            assert set(keys) <= set(allowed)
            if not allowed:
                continue
            exact = oracles.cosine(query[None], np.array([self.codes[key] for key in allowed]), length=length)
            by_key = dict(zip(allowed, exact[0], strict=True))
            np.testing.assert_allclose([s for _, s in neighbors], [by_key[key] for key in keys], atol=TOLERANCE)
            np.testing.assert_allclose(
                [by_key[key] for key in keys], oracles.best_scores(exact, k)[0], atol=2 * TOLERANCE
            )


def plans(engine: Engine) -> list[PlanRequest]:
    """Each length at its maximum effort, alone or with everything rescored; and what is chosen for an exact search."""
    found = [PlanRequest(target_recall=1.0)]
    for length in engine.lengths:
        index = engine.describe(length)
        effort = None if index.max_effort is None else "max"
        if not index.lossy:
            found.append(PlanRequest(length, effort=effort))  # type: ignore[arg-type]
        if index.lossy or length < engine.code_length:
            found.append(PlanRequest(length, rerank="full", shortlist=2 * COUNT, effort=effort))  # type: ignore[arg-type]
    return found


@pytest.fixture(params=ALL_ENGINES)
def open_engine(request: pytest.FixtureRequest, engine_named: Callable[[str], Open]) -> Open:
    return engine_named(request.param)


@pytest.mark.parametrize("name", [*ALL_ENGINES, *MORE_ENGINES])
@repeatable
@given(seed=st.integers(0, 2**31), k=st.sampled_from([1, 7, COUNT + 150]), data=st.data())
def test_any_history_gives_the_exact_answer(
    tmp_path_factory: pytest.TempPathFactory,
    engine_named: Callable[[str], Open],
    name: str,
    seed: int,
    k: int,
    data: st.DataObject,
) -> None:
    count = data.draw(st.sampled_from([1, 30, COUNT]))
    gallery = Gallery(engine_named(name), tmp_path_factory.getbasetemp() / "engines", seed % 4, count)
    rng = np.random.default_rng(seed)
    gallery.add(range(1000, 1000 + data.draw(st.integers(0, 60))), seed + 1)
    removed = data.draw(st.integers(0, len(gallery.codes)))
    gallery.remove(rng.choice(list(gallery.codes), removed, replace=False).tolist())
    condition = data.draw(st.none() | CONDITIONS)
    for plan in plans(gallery.engine):
        gallery.check(random_codes(seed + 2, 2), k=k, plan=plan, condition=condition)
    assert len(gallery.engine) == len(gallery.codes)


def test_what_is_added_is_found_and_what_is_removed_is_not(open_engine: Open, tmp_path: Path) -> None:
    gallery = Gallery(open_engine, tmp_path, 5)
    engine = gallery.engine
    gallery.add([7000], 9)
    gallery.add([7000, FIRST_KEY], 10)  # both are there
    assert (engine.added, engine.removed, len(engine)) == (1, 0, COUNT + 1)
    query = engine.codes_of([7000])[7000][None]
    for plan in plans(engine):
        gallery.check(query, k=3, plan=plan)
    gallery.remove([7000, FIRST_KEY + 1, 999_999])
    assert (engine.added, engine.removed, len(engine)) == (0, 1, COUNT - 1)
    for plan in plans(engine):
        gallery.check(query, k=COUNT, plan=plan)


@pytest.mark.parametrize("name", [*ALL_ENGINES, *MORE_ENGINES])
def test_an_engine_goes_with_its_last_user(name: str, engine_named: Callable[[str], Open], tmp_path: Path) -> None:
    """With its memory and its open files, by no garbage collection: nothing that it has keeps it by a cycle."""
    gallery = Gallery(engine_named(name), tmp_path, 5)
    gallery.add([7000], 9)
    gallery.remove([FIRST_KEY + 1])
    queries = random_codes(3, 2)
    for plan in plans(gallery.engine):
        for condition in (None, has_label("a"), is_below(40)):
            gallery.check(queries, k=3, plan=plan, condition=condition)
    region = parse_filter({"$code": {"1": {"$gte": 0}}})
    gallery.engine.reach(queries, k=3, filter=region)
    gallery.engine.search(queries, plan=PlanChooser(gallery.engine).choose(PlanRequest(), k=3).plan, k=3, filter=region)
    engine = weakref.ref(gallery.engine)
    generation = weakref.ref(getattr(gallery.engine, "generation", gallery.engine))
    gc.disable()
    try:
        del gallery
        assert (engine(), generation()) == (None, None)
    finally:
        gc.enable()


def test_equal_scores_are_in_the_order_of_keys_and_fewer_results_are_the_first_of_more(
    open_engine: Open, tmp_path: Path
) -> None:
    codes = random_codes(11, COUNT)
    codes[50:150] = codes[7]  # as near as each other to any query, and more than a page
    metadata: list[dict[str, Any]] = [{"label": "ab"[row % 2], "number": row} for row in range(COUNT)]
    engine = open_engine(tmp_path, codes, metadata)
    engine.add([5000, 4000], np.stack([codes[7], codes[7]]), [{"label": "a"}, {"label": "b"}])
    copies = [FIRST_KEY + 7, *range(FIRST_KEY + 50, FIRST_KEY + 150), 4000, 5000]
    query = codes[7][None]
    for plan in plans(engine):
        chosen = PlanChooser(engine).choose(plan, k=200).plan
        whole = [key for key, _ in engine.search(query, plan=chosen, k=200)[0]]
        built = [key for key in whole[: len(copies)] if key < 4000]
        assert built == sorted(built)
        assert set(whole[: len(copies)]) == set(copies)
        for k in (1, 30, 101, 150):
            assert [key for key, _ in engine.search(query, plan=chosen, k=k)[0]] == whole[:k]


def test_a_filter_by_a_region_of_codes_leaves_the_images_in_it(open_engine: Open, tmp_path: Path) -> None:
    gallery = Gallery(open_engine, tmp_path, 12)
    gallery.add(range(1000, 1040), 13)
    gallery.remove([FIRST_KEY, 1001])
    unit = {key: code / np.linalg.norm(code) for key, code in gallery.codes.items()}
    values = np.sort([code[1] for code in unit.values()])
    gap = int(np.diff(values[60:120]).argmax()) + 60  # bounds in gaps, which the rounding of codes does not cross
    low, high = float(values[gap : gap + 2].mean()), float(values[-20:-18].mean())
    inside = {key for key, code in unit.items() if low <= code[1] <= high}
    form = {"$and": [{"$code": {"2": {"$gte": low, "$lte": high}}}, {"$not": {"label": "b"}}]}
    allowed = {key for key in inside if gallery.metadata[key]["label"] != "b"}
    assert {key >= 1000 for key in allowed} == {True, False}
    for plan in plans(gallery.engine):
        chosen = PlanChooser(gallery.engine).choose(plan, k=COUNT).plan
        nearest = gallery.engine.search(random_codes(3, 1), plan=chosen, k=COUNT, filter=parse_filter(form))[0]
        assert {key for key, _ in nearest} == allowed
    beyond = parse_filter({"$code": {str(CODE_LENGTH + 1): {"$gte": 0}}})
    with pytest.raises(FilterError, match=f"no coordinate {CODE_LENGTH + 1}"):
        gallery.engine.search(random_codes(3, 1), plan=chosen, k=1, filter=beyond)
    np.testing.assert_allclose(
        gallery.engine.leading(3),
        [
            random_codes(12, COUNT)[key - FIRST_KEY][:3] / np.linalg.norm(random_codes(12, COUNT)[key - FIRST_KEY])
            for key in gallery.engine.keys
        ],
        atol=TOLERANCE,
    )


def test_codes_are_given_back_by_key(open_engine: Open, tmp_path: Path) -> None:
    gallery = Gallery(open_engine, tmp_path, 6)
    gallery.add([7000], 9)
    wanted = [FIRST_KEY + 3, 7000, 999_999, FIRST_KEY]
    codes = gallery.engine.codes_of(wanted)
    assert codes.keys() == {FIRST_KEY + 3, 7000, FIRST_KEY}
    for key, code in codes.items():
        cosines = oracles.cosine(code[None], gallery.codes[key][None], length=CODE_LENGTH)
        assert cosines[0, 0] == pytest.approx(1, abs=TOLERANCE)
    assert gallery.engine.codes_of([]) == {}


def test_an_engine_tells_what_it_can_do(open_engine: Open, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    engine = Gallery(open_engine, tmp_path, 7).engine
    assert engine.lengths == LENGTHS
    assert (engine.code_length, engine.encoder_id, engine.device) == (CODE_LENGTH, ENCODER_ID, "cpu")
    assert engine.device == engine.calibration.device
    assert engine.is_remote == (request.node.callspec.params["open_engine"] in ("pgvector", "qdrant"))
    assert {field: list(kinds) for field, kinds in engine.fields.items()} == {"label": ["text"], "number": ["number"]}
    assert sorted(engine.keys.tolist()) == list(range(FIRST_KEY, FIRST_KEY + COUNT))
    assert [engine.describe(length).length for length in LENGTHS] == list(LENGTHS)
    engine.warm_up()


def test_what_no_engine_can_search_is_refused(open_engine: Open, tmp_path: Path) -> None:
    engine = Gallery(open_engine, tmp_path, 8).engine
    query = random_codes(1, 1)
    plan = PlanChooser(engine).choose(PlanRequest(target_recall=1.0), k=1).plan
    with pytest.raises(PrefixLengthError, match="available: 4, 8, 16"):
        engine.describe(5)
    with pytest.raises(ResultCountError, match="k is 0"):
        engine.search(query, plan=plan, k=0)
    with pytest.raises(CodesError):
        engine.search(query[:, :5], plan=plan, k=1)
    with pytest.raises(CodesError):
        engine.search(np.full_like(query, np.nan), plan=plan, k=1)
