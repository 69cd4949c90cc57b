"""What the batcher's threads do with searches: decode each photograph, then encode and search all that are ready."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from eigenlens.artifact import EigenlensError
from eigenlens.model.images.decode import decode
from eigenlens.service.api.search import SearchParameters
from eigenlens.service.errors import RequestError
from eigenlens.service.http.answers import AnswerWriter
from eigenlens.service.search.batching import Batcher, Observe
from eigenlens.service.search.manager import Found, Hit, Searcher, Snapshot, Wish
from eigenlens.service.search.paging import Result, find_page, good_enough


@dataclass(eq=False)
class Query:
    """One search: exactly one of image, id and code, and how to search with it.

    Attributes:
        asked: how to search; None, where only the image's code is asked for.
        image: encoded bytes.
        id: of an image of the gallery, which is left out of the results.
        code: a full code.
    """

    asked: SearchParameters | None
    image: bytes | None = None
    id: str | None = None
    code: Sequence[float] | None = None
    # What the threads made of it.
    snapshot: Snapshot = field(init=False)
    wish: Wish = field(init=False)
    pixels: NDArray[np.uint8] | None = field(init=False, default=None)
    vector: NDArray[np.float32] = field(init=False)
    arrived: float = field(init=False, default_factory=time.perf_counter)
    timing_ms: dict[str, float] = field(init=False, default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a search comes to.

    Attributes:
        body: a SearchAnswer as JSON; empty, where only the code was asked for.
        code: of the query, (code_length,).
        timing_ms: by stage.
        batch: searches that were finished together.
    """

    body: bytes
    code: NDArray[np.float32]
    timing_ms: dict[str, float]
    batch: int

    @property
    def header(self) -> str:
        """Value of a Server-Timing header."""
        return ", ".join([f"{name};dur={ms}" for name, ms in self.timing_ms.items()] + [f"batch;desc={self.batch}"])


SearchBatcher = Batcher[Query, Answer]


class Pipeline:
    """Answers searches from the generation that is served; its methods are those that a Batcher calls.

    `observe` is called with the seconds of the stages "decode" (of one photograph), "encode" and "search" (of all that
    were done together), and of whole searches as "length N", by the prefix length of their plan.
    """

    def __init__(self, searcher: Searcher, *, max_pixels: int, max_k: int, observe: Observe) -> None:
        self._searcher, self._max_pixels, self._max_k, self._observe = searcher, max_pixels, max_k, observe
        self._answers = AnswerWriter()

    def prepare(self, query: Query) -> None:
        """Find out what is to be done, and decode. Raises: SearchError; ImageError; ServiceError."""
        query.timing_ms["queue"] = _milliseconds(time.perf_counter() - query.arrived)
        query.snapshot = snapshot = self._searcher.snapshot
        leave_out = None
        if query.id is not None:
            leave_out = self._searcher.gallery.store.record(query.id).key
            query.vector = self._searcher.code_of(snapshot, leave_out)
        elif query.code is not None:
            query.vector = _checked(query.code, snapshot.generation.code_length)
        if query.asked is not None:
            query.wish = _wish(snapshot, query.asked, leave_out=leave_out)
            self._searcher.plan(snapshot, query.wish)  # what cannot be searched is not decoded
        if query.image is not None:
            side = snapshot.encoder.image_size
            with self._stage("decode", [query]):
                query.pixels = snapshot.encoder.prepare(decode(query.image, max_pixels=self._max_pixels, at_least=side))

    def finish(self, queries: Sequence[Query]) -> list[Answer | Exception]:
        """Encode all photographs in one call, and search all that share a plan in another."""
        for snapshot in {id(query.snapshot): query.snapshot for query in queries}.values():
            pictured = [query for query in queries if query.snapshot is snapshot and query.pixels is not None]
            if pictured:
                with self._stage("encode", pictured):
                    codes = snapshot.encoder.encode(np.stack([q.pixels for q in pictured if q.pixels is not None]))
                for query, code in zip(pictured, codes, strict=True):
                    query.vector, query.pixels = code, None
        alike: dict[object, list[Query]] = defaultdict(list)
        for query in queries:
            alike[self._together(query)].append(query)
        answers: dict[Query, Answer | Exception] = {}
        for group in alike.values():
            try:
                found = self._search(group)
                answers.update((query, self._answer(query, found.get(query), batch=len(queries))) for query in group)
            except EigenlensError as error:  # it is about what they have in common
                answers.update((query, error) for query in group)
        return [answers[query] for query in queries]

    def _together(self, query: Query) -> object:
        """Equal for queries that are searched in one call."""
        if query.asked is None:
            return None
        if query.asked.group_duplicates is not None:  # how deep it has to look depends on what it finds
            return query
        return id(query.snapshot), query.wish.together

    def _search(self, group: list[Query]) -> dict[Query, Found]:
        first = group[0]
        if first.asked is None or first.asked.group_duplicates is not None:
            return {}
        with self._stage("search", group):
            codes = np.stack([query.vector for query in group])
            found = self._searcher.search_together(first.snapshot, codes, [query.wish for query in group])
        return dict(zip(group, found, strict=True))

    def _answer(self, query: Query, found: Found | None, *, batch: int) -> Answer:
        asked, snapshot, code = query.asked, query.snapshot, query.vector
        if asked is None:
            return Answer(b"", code, query.timing_ms, batch)
        results: Sequence[Result] | Sequence[Hit]
        if found is not None:
            page = asked.page
            results = good_enough(page, found)[page.offset :]
        else:
            with self._stage("search", [query]):
                results, found = self._gathered(query, asked)
        query.timing_ms["total"] = _milliseconds(time.perf_counter() - query.arrived)
        self._observe(f"length {found.plan.prefix_length}", query.timing_ms["total"] / 1000)
        body = self._answers.write(
            results, found, asked, generation=snapshot.number, timing_ms=query.timing_ms, code=code
        )
        return Answer(body, code, query.timing_ms, batch)

    def _gathered(self, query: Query, asked: SearchParameters) -> tuple[list[Result], Found]:
        """Near-duplicates gathered: as many searches as that takes."""
        return find_page(
            asked.page,
            lambda depth: self._searcher.search(query.snapshot, query.vector, replace(query.wish, k=depth)),
            partial(self._searcher.codes_of, query.snapshot),
            limit=max(asked.page.depth, min(self._max_k, asked.shortlist or self._max_k)),
        )

    @contextmanager
    def _stage(self, name: str, queries: Sequence[Query]) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        took = time.perf_counter() - begun
        self._observe(name, took)
        for query in queries:
            query.timing_ms[name] = _milliseconds(took)


def _wish(snapshot: Snapshot, asked: SearchParameters, *, leave_out: int | None) -> Wish:
    length = None if asked.length == "auto" else asked.length
    effort = asked.effort
    if effort == "max":  # of a plan that is chosen, any number is refused
        effort = 1 if length is None else snapshot.generation.max_effort(length)
    return Wish(
        k=asked.page.depth,
        length=length,
        rerank_length=asked.rerank_length(snapshot.generation.code_length),
        shortlist=asked.shortlist,
        effort=effort,
        target_recall=asked.target_recall,
        max_latency_ms=asked.max_latency_ms,
        condition=asked.condition,
        leave_out=leave_out,
    )


def _checked(given: Sequence[float], code_length: int) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # too large is infinite, and that is refused
        code = np.asarray(given, dtype=np.float32)
    if code.shape != (code_length,) or not np.isfinite(code).all():
        raise RequestError(f"a code has {code_length} finite numbers, not {len(code)}")
    return code


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
