"""The JSON of search answers. What is said of an image never changes, so it is written once and kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.paging import Result
from service.schemas import PlanAnswer, ResultAnswer, SearchAnswer, SearchParameters
from service.searcher import Found

_KEPT = 50_000


class AnswerWriter:
    """Writes a SearchAnswer as pydantic would, from parts. Several threads may write at once."""

    def __init__(self) -> None:
        self._images: dict[tuple[int, bool], bytes] = {}

    def write(
        self,
        results: Sequence[Result],
        found: Found,
        asked: SearchParameters,
        *,
        generation: int,
        timing_ms: dict[str, float],
        code: NDArray[np.float32],
    ) -> bytes:
        """The answer's bytes, with what was asked to be included."""
        envelope = SearchAnswer.model_construct(
            results=[],
            plan=PlanAnswer.of(found.plan, found.measured, k=asked.page.depth),
            generation=generation,
            timing_ms=timing_ms if "timing" in asked.include else None,
            code=code.tolist() if "code" in asked.include else None,
        )
        head = b'{"results":[' + b",".join([self._result(result, asked) for result in results]) + b"],"
        return head + envelope.model_dump_json(exclude={"results"}, exclude_none=True).encode()[1:]

    def _result(self, result: Result, asked: SearchParameters) -> bytes:
        if asked.group_duplicates is not None:
            return ResultAnswer.of_result(result, asked).model_dump_json(exclude_none=True).encode()
        kept = result.hit.record.key, "metadata" in asked.include
        image = self._images.get(kept)
        if image is None:
            answer = ResultAnswer.of_result(result, asked)
            image = answer.model_dump_json(exclude={"score"}, exclude_none=True).encode()[:-1]
            if len(self._images) >= _KEPT:
                self._images.clear()
            self._images[kept] = image
        return b'%s,"score":%s}' % (image, repr(result.hit.score).encode())
