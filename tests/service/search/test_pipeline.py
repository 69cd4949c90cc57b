"""What a batch of searches comes to is what each would have come to alone."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from eigenlens.service.api.search import ResultAnswer, SearchAnswer, SearchParameters
from eigenlens.service.errors import ImageNotFoundError, WouldWaitError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.records import Records
from eigenlens.service.gallery.store.sqlite import DATABASE, SqliteStore
from eigenlens.service.http.answers import AnswerWriter
from eigenlens.service.http.parameters import search_request
from eigenlens.service.search import pipeline as pipeline_module
from eigenlens.service.search.manager import SnapshotManager
from eigenlens.service.search.pipeline import Answer, Pipeline, Query
from eigenlens.service.waiting import without_waiting
from tests.support.service import (
    CODE_LENGTH,
    build_gallery,
    code_of,
    gallery_fixture,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
)

gallery = gallery_fixture(count=60)  # of fewer it is not known how usual a query is


class Observed:
    def __init__(self, gallery: Gallery) -> None:
        self.stages: list[str] = []
        self.lengths: list[int] = []
        manager = SnapshotManager(gallery)
        manager.load()
        self.pipeline = Pipeline(
            manager,
            write=AnswerWriter().write,
            max_pixels=10_000,
            max_k=1000,
            observe=lambda name, _: self.stages.append(name),
            observe_search=lambda length, _: self.lengths.append(length),
        )

    def answers(self, queries: Sequence[Query]) -> list[Answer | Exception]:
        for query in queries:
            self.pipeline.prepare(query)
        return self.pipeline.finish(queries)


@pytest.fixture
def observed(gallery: Gallery) -> Observed:
    return Observed(gallery)


def query_by(parameters: SearchParameters, **what: Any) -> Query:
    return Query(search_request(parameters), frozenset(parameters.include), **what)


def queries() -> list[Query]:
    """Of every sort, several of each, mixed."""
    asked = [
        SearchParameters(k=3, length=4),
        SearchParameters(k=3, length=CODE_LENGTH),
        SearchParameters(k=5, length=4, filter={"label": "odd"}),
        SearchParameters(k=3, length=4, offset=2, include=["code"]),
        SearchParameters(k=2, length=4, group_duplicates=0.9),
        SearchParameters(k=3, length=4, min_score=0.5, include=[]),
    ]
    made = [query_by(asked[n % len(asked)], image=png(pixels_of(500 + n))) for n in range(18)]
    made += [query_by(asked[0], id=image_id(n)) for n in range(4)]
    made += [query_by(asked[1], code=[float(n + j) for j in range(CODE_LENGTH)]) for n in range(4)]
    return [*made, Query(None, image=png(pixels_of(500)))]


def parsed(answer: Answer | Exception) -> Any:
    assert isinstance(answer, Answer)
    if not answer.body:
        return answer.code.tolist()
    body = json.loads(answer.body)
    body.pop("timing_ms", None)
    if body.get("query_percentile") is not None:
        body["query_percentile"] = pytest.approx(body["query_percentile"], abs=0.3)
    for result in body["results"]:
        result["score"] = pytest.approx(result["score"], abs=1e-6)
    return body


def test_a_batch_is_answered_as_each_search_alone(observed: Observed) -> None:
    together = [parsed(answer) for answer in observed.answers(queries())]
    alone = [parsed(observed.answers([query])[0]) for query in queries()]
    assert together == alone
    assert len({repr(answer["query_percentile"]) for answer in together[:-1]}) > 5
    np.testing.assert_allclose(together[-1], code_of(pixels_of(500)), atol=1e-4)


def test_light_searches_are_answered_as_any_others(observed: Observed) -> None:
    def light() -> list[Query]:
        return [query for query in queries() if query.id is not None or query.code is not None]

    assert len(light()) == 8
    at_once = [parsed(answer) for answer in observed.pipeline.answer_light(light())]
    assert at_once == [parsed(answer) for answer in observed.answers(light())]


def test_only_quick_searches_by_an_id_or_a_code_are_light(observed: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = [
        query_by(SearchParameters(), image=png(pixels_of(0))),
        query_by(SearchParameters(filter={"label": "odd"}), id=image_id(0)),
        query_by(SearchParameters(group_duplicates=0.9), id=image_id(0)),
        query_by(SearchParameters(length=5), id=image_id(0)),
        query_by(SearchParameters(k=101), id=image_id(0)),
    ]
    monkeypatch.setattr(pipeline_module, "_LIGHT_MS", math.inf)
    assert not any(observed.pipeline.is_light(query) for query in heavy)
    assert observed.pipeline.is_light(query_by(SearchParameters(), id=image_id(0)))
    assert observed.pipeline.is_light(query_by(SearchParameters(), code=[1.0] * CODE_LENGTH))
    with monkeypatch.context() as patch:
        patch.setattr(observed.pipeline._manager.current.engine, "is_remote", True)
        assert not observed.pipeline.is_light(query_by(SearchParameters(), code=[1.0] * CODE_LENGTH))
    monkeypatch.setattr(pipeline_module, "_LIGHT_MS", 0.0)
    assert not observed.pipeline.is_light(query_by(SearchParameters(), id=image_id(0)))


def test_a_light_search_finds_no_image_that_was_removed_or_replaced(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=4)
    records = Records(gallery.store)
    first = records.of_ids([image_id(0), image_id(1)])
    assert [record.id for record in first.values()] == [image_id(0), image_id(1)]
    assert records.of_ids([image_id(0)])[image_id(0)] == first[image_id(0)]
    replaced = gallery.store.replace_metadata(
        image_id(0),
        {"label": "new"},
        key=first[image_id(0)].key,
        code=np.zeros(CODE_LENGTH, dtype=np.float32),
        encoder_id="any",
    )
    assert replaced
    assert records.of_ids([image_id(0)])[image_id(0)].metadata == {"label": "new"}
    gallery.store.remove([image_id(1)])
    with pytest.raises(ImageNotFoundError):
        records.of_ids([image_id(0), image_id(1)])


def test_light_searches_never_wait_for_a_locked_database_and_the_start_of_a_worker_does(tmp_path: Path) -> None:
    """A worker opens its gallery on the event loop, and other workers write meanwhile."""
    gallery = build_gallery(tmp_path, count=4)
    store = gallery.store
    assert isinstance(store, SqliteStore)

    async def remove() -> list[bool]:
        return store.remove([image_id(1)])

    with closing(
        sqlite3.connect(tmp_path / "gallery" / DATABASE, isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.5, other.execute, ["COMMIT"])
        release.start()
        with without_waiting(), pytest.raises(sqlite3.OperationalError, match="locked"):
            store.remove([image_id(1)])
        assert asyncio.run(remove()) == [True]
        release.join()


def test_a_light_search_that_meets_an_image_removed_a_moment_ago_is_answered_by_a_thread(tmp_path: Path) -> None:
    """The engine does not know of the removal yet: to search again, it follows the gallery's changes, under a lock."""
    gallery = build_gallery(tmp_path, count=4)
    observed = Observed(gallery)
    gallery.store.remove([image_id(1)])
    request = SearchParameters(k=3, length=CODE_LENGTH)
    with pytest.raises(WouldWaitError):
        observed.pipeline.answer_light([query_by(request, id=image_id(0))])
    (answered,) = observed.answers([query_by(request, id=image_id(0))])
    assert {result["id"] for result in parsed(answered)["results"]} == {image_id(2), image_id(3)}


def test_a_batch_is_encoded_in_one_call_and_searched_in_one_for_each_plan_and_filter(observed: Observed) -> None:
    plain, other = SearchParameters(k=3, length=4), SearchParameters(k=3, length=CODE_LENGTH)
    filtered = SearchParameters(k=3, length=4, filter={"label": "odd"})
    observed.answers([query_by(asked, image=png(pixels_of(n))) for n in range(4) for asked in (plain, other, filtered)])
    assert observed.stages.count("decode") == 12
    assert observed.stages.count("encode") == 1
    assert observed.stages.count("search") == 3
    assert sorted(observed.lengths) == 8 * [4] + 4 * [CODE_LENGTH]


def test_what_cannot_be_searched_fails_alone_and_is_not_decoded(observed: Observed) -> None:
    with pytest.raises(ValueError, match="prefix length 5 was not built"):
        observed.pipeline.prepare(query_by(SearchParameters(length=5), image=png(pixels_of(0))))
    assert observed.stages == []


def test_an_answer_is_what_pydantic_would_have_written(observed: Observed) -> None:
    answer = observed.answers([query_by(SearchParameters(k=4, length=CODE_LENGTH), image=png(pixels_of(1)))])[0]
    assert isinstance(answer, Answer)
    body = json.loads(answer.body)
    assert body["results"][0]["id"] == image_id(1)
    assert body["results"][0]["metadata"] == {"label": "odd"}
    for result in body["results"]:
        assert ResultAnswer.model_validate(result).model_dump(exclude_none=True) == result
    assert set(body) == set(SearchAnswer.model_fields) - {"code", "rebuild_advice"}
    assert set(body["timing_ms"]) == {"queue", "decode", "encode", "search", "total"}
    assert answer.header.endswith("batch;desc=1")


def test_an_image_that_another_process_removed_is_never_answered_again(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path)
    observed = Observed(gallery)
    query = SearchParameters(k=5, length=CODE_LENGTH)
    before = parsed(observed.answers([query_by(query, image=png(pixels_of(1)))])[0])
    gone = before["results"][0]["id"]
    Gallery(gallery.root).store.remove([gone])
    for _ in range(2):
        after = parsed(observed.answers([query_by(query, image=png(pixels_of(1)))])[0])
        assert [result["id"] for result in after["results"][:4]] == [result["id"] for result in before["results"][1:]]
        assert len(after["results"]) == 5


def test_concurrent_searches_of_a_server_share_batches(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that takes a while: one that takes no time leaves none for a batch to fill."""
    finish, seconds = Pipeline.finish, [0.0]

    def take_a_while(self: Pipeline, queries: Sequence[Query]) -> list[Answer | Exception]:
        time.sleep(seconds[0])
        return finish(self, queries)

    monkeypatch.setattr(Pipeline, "finish", take_a_while)
    images = [png(pixels_of(700 + n)) for n in range(64)]
    with serving(settings_of(gallery, max_batch=16, deadline_s=30)) as client:
        alone = [client.post("/v1/search?k=3", files={"image": data}).json()["results"] for data in images]
        seconds[0] = 0.25

        async def together() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=client.base_url, timeout=30) as concurrent:
                headers = {"content-type": "image/png"}
                posts = (concurrent.post("/v1/search?k=3", content=data, headers=headers) for data in images)
                return await asyncio.gather(*posts)

        answers = asyncio.run(together())
    for answer, expected in zip(answers, alone, strict=True):
        found = answer.json()["results"]
        assert [result.pop("score") for result in found] == pytest.approx([result.pop("score") for result in expected])
        assert found == expected
    sizes = [int(answer.headers["server-timing"].rpartition("desc=")[2]) for answer in answers]
    assert max(sizes) > 4


@pytest.mark.parametrize(("asked", "worthwhile", "together"), [(None, 1, 4), (None, 8, 8), (2, 8, 2)])
def test_a_few_are_encoded_together_even_if_nothing_is_gained(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, asked: int | None, worthwhile: int, together: int
) -> None:
    monkeypatch.setattr("eigenlens.model.runtime.encoder.Encoder.worthwhile_batch", lambda *_, **__: worthwhile)
    manager = SnapshotManager(gallery, max_batch=asked)
    manager.load()
    assert manager.max_batch == together
