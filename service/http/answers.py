"""The JSON of search answers. What is said of an image never changes, so it is written once and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eigenlens.service.api.search import SearchAnswer, SearchParameters
from eigenlens.service.http.presenters import present_plan, present_result
from eigenlens.service.search.manager import Found, Hit
from eigenlens.service.search.paging import Result

_KEPT_IMAGES = 50_000
_KEPT_PLANS = 1000


class AnswerWriter:
    """Writes a SearchAnswer as pydantic would, from parts. Several threads may write at once."""

    def __init__(self) -> None:
        self._images: dict[tuple[int, bool], bytes] = {}
        self._plans: dict[object, bytes] = {}

    def write(
        self,
        results: Sequence[Result] | Sequence[Hit],
        found: Found,
        asked: SearchParameters,
        *,
        generation: int,
        timing_ms: Mapping[str, float],
        code: NDArray[np.float32],
    ) -> bytes:
        """The answer's bytes, with what was asked to be included."""
        metadata = "metadata" in asked.include
        parts = [
            self._hit(result, metadata) if isinstance(result, Hit) else self._result(result, asked)
            for result in results
        ]
        more = b""
        if "timing" in asked.include:
            stages = ",".join([f'"{name}":{ms}' for name, ms in timing_ms.items()])
            more += b',"timing_ms":{%s}' % stages.encode()
        if "code" in asked.include:
            more += b',"code":%s' % json.dumps(code.tolist()).encode()
        return b'{"results":[%s],%s%s}' % (b",".join(parts), self._plan(found, asked, generation), more)

    def _plan(self, found: Found, asked: SearchParameters, generation: int) -> bytes:
        """What all searches by a plan are told: members of the answer, without its braces."""
        depth = asked.page.depth
        kept = generation, found.plan, found.measured is None, depth
        plan = self._plans.get(kept)
        if plan is None:
            answer = SearchAnswer(
                results=[], plan=present_plan(found.plan, found.measured, k=depth), generation=generation
            )
            plan = answer.model_dump_json(include={"plan", "generation"}, exclude_none=True).encode()[1:-1]
            if len(self._plans) >= _KEPT_PLANS:
                self._plans.clear()
            self._plans[kept] = plan
        return plan

    def _hit(self, hit: Hit, metadata: bool) -> bytes:
        kept = hit.record.key, metadata
        image = self._images.get(kept)
        if image is None:
            asked = SearchParameters(include=["metadata"] if metadata else [])
            answer = present_result(Result(hit), asked)
            image = answer.model_dump_json(exclude={"score"}, exclude_none=True).encode()[:-1]
            if len(self._images) >= _KEPT_IMAGES:
                self._images.clear()
            self._images[kept] = image
        return b'%s,"score":%s}' % (image, repr(hit.score).encode())

    def _result(self, result: Result, asked: SearchParameters) -> bytes:
        return present_result(result, asked).model_dump_json(exclude_none=True).encode()
