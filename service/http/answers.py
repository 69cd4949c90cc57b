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
_JSON = {None: "null", True: "true", False: "false"}


class AnswerWriter:
    """Writes a SearchAnswer as pydantic would, from parts. Several threads may write at once."""

    def __init__(self, *, root_path: str = "") -> None:
        self._root_path = root_path
        # A plain dictionary: every result of every answer is looked up here, and an LRU cache takes ten times as long.
        self._images: dict[bool, dict[int, str]] = {True: {}, False: {}}
        self._plans: dict[object, str] = {}

    def write(self, page: Page) -> bytes:
        """Return the bytes of an answer, with the optional parts that the search includes."""
        metadata = "metadata" in page.include
        images = self._images[metadata]
        parts = []
        for result in page.results:
            if isinstance(result, Hit):
                record, score = result
                image = images.get(record.key) or self._write_image(result, metadata=metadata)
                parts.append(f'{image},"score":{score!r}}}')
            else:
                parts.append(self._write_result(result, metadata=metadata))
        more = ""
        if "timing" in page.include:
            stages = ",".join([f'"{name}":{ms}' for name, ms in page.timing_ms.items()])
            more += f',"timing_ms":{{{stages}}}'
        if "code" in page.include:
            more += f',"code":{json.dumps(page.code.tolist())}'
        likeness = _write_likeness(page.likeness)
        return f'{{"results":[{",".join(parts)}],{likeness},{self._write_plan(page)}{more}}}'.encode()

    def _write_plan(self, page: Page) -> str:
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
            body = answer.model_dump_json(include=members, exclude_none=True)[1:-1]
            if len(self._plans) >= _PLAN_CACHE_SIZE:
                self._plans.clear()
            self._plans[key] = body
        return body

    def _write_image(self, hit: Hit, *, metadata: bool) -> str:
        """Return what tells a hit's image, without its score and the brace at the end."""
        images = self._images[metadata]
        answer = present_result(Result(hit), metadata=metadata, grouped=False, root_path=self._root_path)
        if len(images) >= _IMAGE_CACHE_SIZE:
            images.clear()
        image = images[hit.record.key] = answer.model_dump_json(exclude={"score"}, exclude_none=True)[:-1]
        return image

    def _write_result(self, result: Result, *, metadata: bool) -> str:
        answer = present_result(result, metadata=metadata, grouped=True, root_path=self._root_path)
        return answer.model_dump_json(exclude_none=True)


def _write_likeness(likeness: Likeness) -> str:
    """Return how a search compares with what is usual in the gallery: members of an answer, without the braces."""
    best, query, unlike = likeness
    return (
        f'"best_percentile":{"null" if best is None else repr(round(best, 2))},'
        f'"query_percentile":{"null" if query is None else repr(round(query, 2))},'
        f'"unlike_everything":{_JSON[unlike]}'
    )
