"""The JSON of search answers. The part that describes an image never changes, so it is written once and cached."""

from __future__ import annotations

import json

from eigenlens.service.api.search import SearchAnswer
from eigenlens.service.http.presenters import present_advice, present_plan, present_result
from eigenlens.service.search.paging import Result
from eigenlens.service.search.pipeline import Page
from eigenlens.service.search.snapshot import Hit, Likeness

_IMAGE_CACHE_SIZE = 50_000
_PLAN_CACHE_SIZE = 1000


class AnswerWriter:
    """Writes a SearchAnswer as pydantic would, from parts. Several threads may write at once."""

    def __init__(self, *, root_path: str = "") -> None:
        self._root_path = root_path
        # A plain dictionary: every result of every answer is looked up here, and an LRU cache takes ten times as long.
        self._images: dict[tuple[int, bool], bytes] = {}
        self._plans: dict[object, bytes] = {}

    def write(self, page: Page) -> bytes:
        """Return the bytes of an answer, with the optional parts that the search includes."""
        metadata = "metadata" in page.include
        parts = [
            self._write_hit(result, metadata=metadata)
            if isinstance(result, Hit)
            else self._write_result(result, metadata=metadata)
            for result in page.results
        ]
        more = b""
        if "timing" in page.include:
            stages = ",".join([f'"{name}":{ms}' for name, ms in page.timing_ms.items()])
            more += b',"timing_ms":{%s}' % stages.encode()
        if "code" in page.include:
            more += b',"code":%s' % json.dumps(page.code.tolist()).encode()
        likeness = _write_likeness(page.likeness)
        return b'{"results":[%s],%s,%s%s}' % (b",".join(parts), likeness, self._write_plan(page), more)

    def _write_plan(self, page: Page) -> bytes:
        """Return the members that answers of the same plan share, without the braces."""
        plan, measured = page.search.plan, page.search.measured
        # The same plan is exact under a filter that leaves few images, and has no latency then.
        known = None if measured is None else (measured.exact, measured.latency_ms.get("p50"))
        key = page.generation, plan, known, page.depth, page.advice
        body = self._plans.get(key)
        if body is None:
            answer = SearchAnswer(
                results=[],
                plan=present_plan(plan, measured, k=page.depth),
                generation=page.generation,
                rebuild_advice=present_advice(page.advice),
            )
            members = {"plan", "generation", "rebuild_advice"}
            body = answer.model_dump_json(include=members, exclude_none=True).encode()[1:-1]
            if len(self._plans) >= _PLAN_CACHE_SIZE:
                self._plans.clear()
            self._plans[key] = body
        return body

    def _write_hit(self, hit: Hit, *, metadata: bool) -> bytes:
        key = hit.record.key, metadata
        image = self._images.get(key)
        if image is None:
            answer = present_result(Result(hit), metadata=metadata, grouped=False, root_path=self._root_path)
            image = answer.model_dump_json(exclude={"score"}, exclude_none=True).encode()[:-1]
            if len(self._images) >= _IMAGE_CACHE_SIZE:
                self._images.clear()
            self._images[key] = image
        return b'%s,"score":%s}' % (image, repr(hit.score).encode())

    def _write_result(self, result: Result, *, metadata: bool) -> bytes:
        answer = present_result(result, metadata=metadata, grouped=True, root_path=self._root_path)
        return answer.model_dump_json(exclude_none=True).encode()


def _write_likeness(likeness: Likeness) -> bytes:
    """Return how a search compares with what is usual in the gallery: members of an answer, without the braces."""
    best, query = (
        b"null" if percentile is None else repr(round(percentile, 2)).encode()
        for percentile in (likeness.best_percentile, likeness.query_percentile)
    )
    return b'"best_percentile":%s,"query_percentile":%s,"unlike_everything":%s' % (
        best,
        query,
        {None: b"null", True: b"true", False: b"false"}[likeness.unlike_everything],
    )
