"""Several searches in one request; each has its own answer or its own problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from eigenlens.artifact import EigenlensError
from eigenlens.service.api.search import MAX_SEARCHES, BatchAnswer, BatchBody, SearchParameters
from eigenlens.service.errors import ContentTypeError
from eigenlens.service.http import problems
from eigenlens.service.http.bodies import files_of, media_type_of, read_json
from eigenlens.service.http.openapi import FILE, body_of, parameters_of
from eigenlens.service.http.parameters import (
    documented_in_form,
    documented_in_query,
    from_json,
    from_text,
    with_standard_names,
    without_defaults,
)
from eigenlens.service.http.routes.search import answer_search, image_query, plain_query, query_of
from eigenlens.service.http.state import CurrentState, State, Timing

router = APIRouter(prefix="/v1", tags=["search"])

# Searches of one request that run at once, so that other requests keep their share of the queue.
_AT_ONCE = 8
_MAX_FIELDS = 40
_FILES = {"type": "array", "items": FILE, "minItems": 1, "maxItems": MAX_SEARCHES}
_BODY = body_of(
    {"application/json": {"$ref": "#/components/schemas/BatchBody"}}, **documented_in_form() | {"image": _FILES}
) | {"parameters": parameters_of(documented_in_query())}


@router.post("/search/batch", response_model=BatchAnswer, openapi_extra=_BODY)
async def search_batch(request: Request, state: CurrentState) -> Response:
    """Run several searches. Parameters in the query string, in the form or beside `searches` apply to all of them.

    If one fails, the others are still answered: `answers` has an answer or a problem per search, in the same order.
    """
    timing = Timing()
    with timing.stage("total"):
        shared, searches = await _read(request)
        free = asyncio.Semaphore(_AT_ONCE)

        async def answer(search: Mapping[str, Any] | bytes) -> tuple[bool, bytes]:
            async with free:
                return await _answer(request, state, shared, search)

        answers = await asyncio.gather(*map(answer, searches))
    failed = sum(not succeeded for succeeded, _ in answers)
    summary = json.dumps({"failed": failed, "timing_ms": timing.stages}).encode()
    body = b'{"answers":[' + b",".join(item for _, item in answers) + b"]," + summary[1:]
    return Response(body, media_type="application/json", headers={"Server-Timing": timing.header})


async def _read(request: Request) -> tuple[dict[str, Any], Sequence[Mapping[str, Any] | bytes]]:
    """Read the parameters of all searches, and each search's own parameters or its image.

    Raises: RequestError; ContentTypeError; ValidationError.
    """
    media_type = media_type_of(request)
    shared = without_defaults(from_text(request.query_params.multi_items()))
    if media_type == "multipart/form-data":
        async with request.form(max_files=MAX_SEARCHES, max_fields=_MAX_FIELDS) as form:
            images = [await file.read() for file in files_of(form)]
            fields = from_text((name, value) for name, value in form.multi_items() if name != "image")
        return {**shared, **without_defaults(fields)}, images
    if media_type == "application/json":
        body = with_standard_names(await read_json(request))
        searches = BatchBody.model_validate(body, strict=True).searches
        return {**shared, **{name: value for name, value in body.items() if name != "searches"}}, searches
    raise ContentTypeError(
        "searches are taken as multipart/form-data with files `image`, or application/json with `searches`, "
        f"not '{media_type or 'nothing'}'"
    )


async def _answer(
    request: Request, state: State, shared: Mapping[str, Any], search: Mapping[str, Any] | bytes
) -> tuple[bool, bytes]:
    """Run one search, given by its parameters or its image; return whether it succeeded, and its item as JSON."""
    try:
        if isinstance(search, bytes):
            query = image_query(SearchParameters.model_validate(shared), search)
        else:
            query = plain_query(b"", {**shared, **search}) or query_of(from_json(search, shared))
        answer = await answer_search(state, query, receive=request.receive)
    except (EigenlensError, ValidationError) as error:
        problem = problems.explain(error, request=request)
        return False, json.dumps({"status": problem["status"], "problem": problem}).encode()
    return True, b'{"status":200,"answer":' + answer.body + b"}"
