"""The search pipeline: the work of the batcher's threads, from a query to the body of its answer.

Prepare, for each query: choose the plan; decode the photograph.
Finish, for a batch of queries: encode all photographs in one call; search queries that share a plan in one call; cut
each page of results; write each answer.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eigenlens.artifact import EigenlensError
from eigenlens.index.plans.advice import RebuildAdvice
from eigenlens.model.images.decode import decode
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.errors import RequestError, WouldWaitError
from eigenlens.service.gallery.nodes import NewNode, code_of_node, require_images, require_nodes
from eigenlens.service.gallery.store.records import Position
from eigenlens.service.search.batching import Batcher, Observe
from eigenlens.service.search.examples import Examples, combine
from eigenlens.service.search.manager import SnapshotManager
from eigenlens.service.search.paging import Result, find_page, hits_of_page
from eigenlens.service.search.request import SearchRequest
from eigenlens.service.search.snapshot import Hit, Likeness, SearchResult, Snapshot
from eigenlens.service.waiting import without_waiting

# A search is light whose plan takes at most so long in the median, as calibrated, and that has at most so many results:
# to read the records of a thousand from the database takes tens of milliseconds.
_LIGHT_MS, _LIGHT_DEPTH = 0.5, 100


@dataclass(eq=False)
class Query:
    """One search by exactly one of image, id, code, node and examples.

    Attributes:
        request: how to search; None to return only the code of the image.
        include: names of the optional parts of the answer.
        image: bytes of an image file.
        id: id of an image in the gallery; the results leave this image out.
        code: a full code.
        node: features of a node, ids of its neighbours in the gallery, or both.
        examples: what the results are to be like and unlike; they leave the examples' images out.
    """

    request: SearchRequest | None
    include: frozenset[str] = frozenset()
    image: bytes | None = None
    id: str | None = None
    code: Sequence[float] | None = None
    node: NewNode | None = None
    examples: Examples | None = None
    # Filled in by the batcher's threads.
    snapshot: Snapshot = field(init=False)
    pixels: NDArray[np.uint8] | None = field(init=False, default=None)
    vector: NDArray[np.float32] = field(init=False)
    arrived: float = field(init=False, default_factory=time.perf_counter)
    timing_ms: dict[str, float] = field(init=False, default_factory=dict)


class Page(NamedTuple):
    """A page of results, and everything else that the body of an answer contains.

    Attributes:
        results: best first; plain hits if near-duplicates are not grouped.
        search: the search that the results come from.
        depth: rank of the page's last result, counted from 1.
        likeness: how the search compares with what is usual in the gallery.
        advice: why a rebuild would pay; None if it would not.
        include: names of the optional parts of the answer.
        generation: number of the generation that was searched.
        timing_ms: milliseconds by stage.
        code: code of the query, (code_length,).
    """

    results: Sequence[Result] | Sequence[Hit]
    search: SearchResult
    depth: int
    likeness: Likeness
    advice: RebuildAdvice | None
    include: frozenset[str]
    generation: int
    timing_ms: dict[str, float]
    code: NDArray[np.float32]


class Answer(NamedTuple):
    """The answer to a search.

    Attributes:
        body: body of the HTTP response; empty for a query that only wants the code.
        code: code of the query, (code_length,).
        timing_ms: milliseconds by stage.
        batch: number of searches in the batch.
    """

    body: bytes
    code: NDArray[np.float32]
    timing_ms: dict[str, float]
    batch: int

    @property
    def header(self) -> str:
        """Value of the Server-Timing header."""
        return ", ".join([f"{name};dur={ms}" for name, ms in self.timing_ms.items()] + [f"batch;desc={self.batch}"])


class _Found(NamedTuple):
    """The result of a query, None if it was not searched for with others, and its percentile among the images."""

    result: SearchResult | None
    percentile: float | None


SearchBatcher = Batcher[Query, Answer]
ObserveResult = Callable[[Snapshot, Position, NDArray[np.float32], SearchRequest, SearchResult], None]


class Pipeline:
    """Answers searches from the snapshot that is served. A Batcher calls `prepare` and `finish`."""

    def __init__(
        self,
        manager: SnapshotManager,
        *,
        write: Callable[[Page], bytes],
        max_pixels: int,
        max_k: int,
        observe: Observe,
        observe_search: Callable[[int, float], None],
        observe_result: ObserveResult = lambda snapshot, position, code, request, result: None,
    ) -> None:
        """Answer searches of the manager's snapshot.

        Args:
            write: returns the body of the answer that has this page.
            max_pixels: largest image that is decoded.
            max_k: largest number of results of one search.
            observe: called with a stage and its seconds: "decode" for each photograph, "encode" and "search" for each
                call that does several together.
            observe_search: called for each search with its plan's prefix length and its total seconds.
            observe_result: called for each search with what it searched, the manager's position before, and what it
                found.
        """
        self._manager, self._write, self._max_pixels, self._max_k = manager, write, max_pixels, max_k
        self._observe, self._observe_search, self._observe_result = observe, observe_search, observe_result

    def prepare(self, query: Query) -> None:
        """Choose the plan of a search and decode its image. Raises: SearchError; ImageError; ServiceError."""
        query.timing_ms["queue"] = _milliseconds(time.perf_counter() - query.arrived)
        query.snapshot = snapshot = self._manager.current
        if query.id is not None:
            key = self._manager.gallery.store.record(query.id).key
            query.vector = snapshot.code_of(key)
            if query.request is not None:
                query.request = replace(query.request, exclude_keys=(key,))
        elif query.code is not None:
            query.vector = _checked_code(query.code, snapshot.engine.code_length)
        elif query.examples is not None:
            query.vector, keys = self._combine(query, query.examples)
            if query.request is not None:
                query.request = replace(query.request, exclude_keys=keys)
        elif query.node is not None:
            with self._stage("encode", [query]):
                store = self._manager.gallery.store
                query.vector, _ = code_of_node(store, require_nodes(snapshot.encoder), query.node)
        if query.request is not None:
            snapshot.choose_plan(query.request)  # an impossible request fails here, before its image is decoded
            query.request = snapshot.with_least_score(query.request)
        if query.image is not None:
            with self._stage("decode", [query]):
                crop = None if query.request is None else query.request.crop
                query.pixels = self._decode(query.image, require_images(snapshot.encoder), crop)

    def is_light(self, query: Query) -> bool:
        """Whether a search by an id or a code takes so little time that waking a thread would take longer."""
        request = query.request
        if request is None or (query.id is None and query.code is None) or self._manager.gallery.store.is_remote:
            return False
        if request.depth > _LIGHT_DEPTH:
            return False
        snapshot = self._manager.current
        if request.filter is not None or request.duplicate_cosine is not None:
            return False
        if snapshot.engine.is_remote or snapshot.engine.device != "cpu":
            return False
        try:
            measured = snapshot.choose_plan(request).measured
        except EigenlensError:  # the answer to this request
            return False
        return measured is not None and measured.latency_ms.get("p50", math.inf) <= _LIGHT_MS

    def answer_light(self, queries: Sequence[Query]) -> list[Answer | Exception]:
        """Answer light searches without any wait. Raises: WouldWaitError, if there is one; EigenlensError."""
        with without_waiting():
            return self._answer_light(queries)

    def _answer_light(self, queries: Sequence[Query]) -> list[Answer | Exception]:
        begun, snapshot = time.perf_counter(), self._manager.current
        images = snapshot.records.of_ids([query.id for query in queries if query.id is not None])
        codes = snapshot.engine.codes_of([record.key for record in images.values()])
        for query in queries:
            query.timing_ms["queue"] = _milliseconds(begun - query.arrived)
            query.snapshot, request = snapshot, query.request
            assert request is not None
            if query.id is not None:
                key = images[query.id].key
                query.vector = codes[key] if key in codes else snapshot.code_of(key)
                request = replace(request, exclude_keys=(key,))
            elif query.code is not None:
                query.vector = _checked_code(query.code, snapshot.engine.code_length)
            query.request = snapshot.with_least_score(request)
        return self.finish(queries)

    def _decode(
        self, image: bytes, encoder: Encoder, crop: tuple[float, float, float, float] | None = None
    ) -> NDArray[np.uint8]:
        """Return the pixels that the encoder takes, of a part of the image or of all of it. Raises: ImageError."""
        decoded = decode(
            image,
            max_pixels=self._max_pixels,
            at_least=encoder.image_size if crop is None else None,  # a part may be small: from all pixels
            preprocessing=encoder.preprocessing,
        )
        if crop is not None:
            left, top, right, bottom = (round(share * side) for share, side in zip(crop, 2 * decoded.size, strict=True))
            left, top = min(left, decoded.width - 1), min(top, decoded.height - 1)
            decoded = decoded.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
        return encoder.prepare(decoded)

    def _combine(self, query: Query, examples: Examples) -> tuple[NDArray[np.float32], tuple[int, ...]]:
        """Return the code of a search by examples, and the keys of those that are images of the gallery."""
        snapshot, keys = query.snapshot, []
        codes: list[NDArray[np.float32]] = []
        for example in (*examples.positive, *examples.negative):
            if example.id is not None:
                keys.append(self._manager.gallery.store.record(example.id).key)
                codes.append(snapshot.code_of(keys[-1]))
            elif example.code is not None:
                codes.append(_checked_code(example.code, snapshot.engine.code_length))
            elif example.image is not None:
                encoder = require_images(snapshot.encoder)
                with self._stage("encode", [query]):
                    codes.append(encoder.encode(self._decode(example.image, encoder)[None])[0])
        count = len(examples.positive)
        stacked = np.stack(codes)
        return combine(stacked[:count], stacked[count:]), tuple(dict.fromkeys(keys))

    def finish(self, queries: Sequence[Query]) -> list[Answer | Exception]:
        """Encode all photographs in one call, then search each group of queries that share a plan in one call."""
        self._encode(queries)
        groups: dict[object, list[Query]] = defaultdict(list)
        for query in queries:
            groups[_group_key(query)].append(query)
        answers: dict[Query, Answer | Exception] = {}
        position, batch = self._manager.position, len(queries)
        for group in groups.values():
            try:
                for query, found in zip(group, self._search(group), strict=True):
                    answers[query] = self._answer(query, found, position=position, batch=batch)
            except WouldWaitError:  # no answer: a thread searches
                raise
            except EigenlensError as error:  # the queries of a group share the plan, so they share its error
                answers.update((query, error) for query in group)
        return [answers[query] for query in queries]

    def _encode(self, queries: Sequence[Query]) -> None:
        for snapshot in {id(query.snapshot): query.snapshot for query in queries}.values():
            decoded = [query for query in queries if query.snapshot is snapshot and query.pixels is not None]
            if decoded:
                with self._stage("encode", decoded):
                    codes = require_images(snapshot.encoder).encode(
                        np.stack([q.pixels for q in decoded if q.pixels is not None])
                    )
                for query, code in zip(decoded, codes, strict=True):
                    query.vector, query.pixels = code, None

    def _search(self, group: list[Query]) -> Sequence[_Found]:
        """Return what one call finds for each query of a group.

        There is no result for queries that want no search, and for grouped near-duplicates, whose number of hits
        depends on the hits themselves (`_find_page` searches for those).
        """
        requests = [query.request for query in group if query.request is not None]
        if not requests:
            return [_Found(None, None)] * len(group)
        snapshot, codes = group[0].snapshot, np.stack([query.vector for query in group])
        results: Sequence[SearchResult | None] = [None] * len(group)
        if requests[0].duplicate_cosine is None:
            with self._stage("search", group):
                results = snapshot.search_batch(codes, requests)
        return [_Found(*pair) for pair in zip(results, snapshot.percentiles_of(codes), strict=True)]

    def _answer(self, query: Query, found: _Found, *, position: Position, batch: int) -> Answer:
        request, snapshot, code, result = query.request, query.snapshot, query.vector, found.result
        if request is None:
            return Answer(b"", code, query.timing_ms, batch)
        results: Sequence[Result] | Sequence[Hit]
        if result is not None:
            results = hits_of_page(request, result)
        else:
            with self._stage("search", [query]):
                results, result = self._find_page(query, request)
        total_s = time.perf_counter() - query.arrived
        query.timing_ms["total"] = _milliseconds(total_s)
        self._observe_search(result.plan.prefix_length, total_s)
        self._observe_result(snapshot, position, code, request, result)
        likeness = snapshot.likeness(code, result, found.percentile)
        page = Page(
            results=results,
            search=result,
            depth=request.depth,
            likeness=likeness,
            advice=snapshot.rebuild_advice(),
            include=query.include,
            generation=snapshot.number,
            timing_ms=query.timing_ms,
            code=code,
        )
        return Answer(self._write(page), code, query.timing_ms, batch)

    def _find_page(self, query: Query, request: SearchRequest) -> tuple[list[Result], SearchResult]:
        """Return a page with near-duplicates grouped, and its last search; all its searches use the deepest's plan."""
        limit = max(request.depth, min(self._max_k, request.plan.shortlist or self._max_k))

        def search(depth: int) -> SearchResult:
            return query.snapshot.search(query.vector, replace(request, k=depth, offset=0), plan_depth=limit)

        return find_page(request, search, query.snapshot.codes_of, limit=limit)

    @contextmanager
    def _stage(self, name: str, queries: Sequence[Query]) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        took_s = time.perf_counter() - begun
        self._observe(name, took_s)
        for query in queries:
            query.timing_ms[name] = _milliseconds(took_s)


def _group_key(query: Query) -> object:
    """Return a key that is equal for queries that are searched in one call."""
    if query.request is None:
        return None
    if query.request.duplicate_cosine is not None:  # its number of hits depends on the hits, so it searches alone
        return query
    return id(query.snapshot), query.request.batch_key


def _checked_code(values: Sequence[float], code_length: int) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite, which is refused below
        code = np.frombuffer(array("d", values)).astype(np.float32)  # five times as fast as from the list
    if code.shape != (code_length,) or not np.isfinite(code).all():
        raise RequestError(f"a code has {code_length} finite numbers, not {len(code)}")
    return code


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
