"""Search: by an image, by an image of the gallery, or by a code."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from model.images.decode import decode
from service.errors import BodyTooLargeError, ContentTypeError, RequestError
from service.openapi import documented
from service.paging import find_page
from service.routes.uploads import body_of, decode_base64, files_of, media_type_of, read_json
from service.schemas import (
    LengthAnswer,
    LengthsAnswer,
    MeasuredAnswer,
    PlanAnswer,
    ResultAnswer,
    SearchAnswer,
    SearchBody,
    SearchParameters,
)
from service.searcher import Snapshot, Wish
from service.state import CurrentState, State, Timing

router = APIRouter(prefix="/v1", tags=["search"])

_MAX_FIELDS = 20
_PARAMETERS = SearchParameters.model_json_schema()["properties"]
_DOCUMENTED = body_of("application/json", {"$ref": "#/components/schemas/SearchBody"}, **_PARAMETERS) | {
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in _PARAMETERS.items()
    ],
}


@router.post(
    "/search", response_model_exclude_none=True, openapi_extra=_DOCUMENTED, responses=documented("image-not-found")
)
async def search(request: Request, response: Response, state: CurrentState) -> SearchAnswer:
    """Images most like the one that is sent, best first. Parameters go into the query string or beside the image."""
    answer, timing = await answer_search(state, await _read(request))
    response.headers["Server-Timing"] = timing.header
    return answer


@router.get("/lengths")
def lengths(state: CurrentState) -> LengthsAnswer:
    """The prefix lengths that can be searched, and what each costs."""
    snapshot = state.searcher.snapshot
    generation, calibration = snapshot.generation, snapshot.generation.calibration
    plans = sorted(calibration.measured, key=lambda measured: measured.latency_ms["p50"])
    alone = {length: calibration.plain(length) for length in generation.lengths}
    return LengthsAnswer(
        lengths=[
            LengthAnswer(
                length=spec.length,
                kind=spec.kind,
                bytes=generation.bytes_of(spec.length),
                bytes_per_image=round(generation.bytes_of(spec.length) / len(generation), 1),
                full=spec.length == generation.code_length,
                max_effort=generation.max_effort(spec.length),
                alone=None if (found := alone[spec.length]) is None else MeasuredAnswer.of_measured(found),
            )
            for spec in generation.specs
        ],
        code_length=generation.code_length,
        count=snapshot.count,
        pending=len(snapshot.delta),
        removed=snapshot.rows.removed,
        generation=snapshot.number,
        plans=[MeasuredAnswer.of_measured(measured) for measured in plans],
        filters=generation.attributes.fields,
        encoder=snapshot.encoder.id,
        eigenvalues=[float(x) for x in snapshot.encoder.eigenvalues],
    )


class Query(SearchBody):
    """A search as it was asked for, with the bytes of an uploaded image."""

    upload: bytes | None = None


async def _read(request: Request) -> Query:
    """The search that a request asks for, from a multipart or a JSON body. Raises: RequestError; ValidationError."""
    media_type = media_type_of(request)
    given: dict[str, Any] = dict(request.query_params)
    if media_type == "multipart/form-data":
        async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
            upload = await files_of(form)[0].read()
            fields = {name: value for name, value in form.multi_items() if name != "image"}
        parameters = SearchParameters.model_validate(given | fields)
        return Query(upload=upload, **parameters.model_dump())
    if media_type == "application/json":
        return query_of(SearchBody.model_validate(given | await read_json(request)))
    raise ContentTypeError(
        f"a search takes multipart/form-data with a file `image`, or application/json, not '{media_type or 'nothing'}'"
    )


def query_of(asked: SearchBody) -> Query:
    """The search that a JSON object asks for. Raises: RequestError."""
    if sum(value is not None for value in (asked.image, asked.id, asked.code)) != 1:
        raise RequestError("give exactly one of image (base64), id and code")
    upload = None if asked.image is None else decode_base64(asked.image)
    return Query(upload=upload, **asked.model_dump(exclude={"image"}))


async def answer_search(state: State, asked: Query) -> tuple[SearchAnswer, Timing]:
    """Search off the event loop. Raises: EigenlensError."""
    if asked.upload is not None and len(asked.upload) > state.settings.max_image_bytes:
        raise BodyTooLargeError(
            f"the image has {len(asked.upload)} bytes; at most {state.settings.max_image_bytes} are taken"
        )
    asked.page.check(max_k=state.settings.max_k)
    return await state.compute.run(_search, state, asked)


def _search(state: State, asked: Query) -> tuple[SearchAnswer, Timing]:
    snapshot = state.searcher.snapshot
    timing = Timing()
    with timing.stage("total"):
        code, leave_out = _query_code(state, snapshot, asked, timing)
        with timing.stage("search"):
            wish = _wish(snapshot, asked, leave_out=leave_out)
            results, found = find_page(
                asked.page,
                lambda depth: state.searcher.search(snapshot, code, replace(wish, k=depth)),
                partial(state.searcher.codes_of, snapshot),
                limit=max(asked.page.depth, min(state.settings.max_k, asked.shortlist or state.settings.max_k)),
            )
    answer = SearchAnswer(
        results=[ResultAnswer.of_result(result, asked) for result in results],
        plan=PlanAnswer.of(found.plan, found.measured, k=asked.page.depth),
        generation=snapshot.number,
        timing_ms=timing.stages if "timing" in asked.include else None,
        code=[float(x) for x in code] if "code" in asked.include else None,
    )
    return answer, timing


def _wish(snapshot: Snapshot, asked: Query, *, leave_out: int | None) -> Wish:
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


def _query_code(
    state: State, snapshot: Snapshot, asked: Query, timing: Timing
) -> tuple[NDArray[np.float32], int | None]:
    """The query's code, and the key of the image that it is, if it is one of the gallery."""
    if asked.id is not None:
        record = state.gallery.store.record(asked.id)
        return state.searcher.code_of(snapshot, record.key), record.key
    if asked.code is not None:
        code = np.asarray(asked.code, dtype=np.float32)
        if code.shape != (snapshot.generation.code_length,) or not np.isfinite(code).all():
            raise RequestError(f"a code has {snapshot.generation.code_length} finite numbers, not {len(code)}")
        return code, None
    assert asked.upload is not None
    encoder = snapshot.encoder
    with timing.stage("decode"):
        image = decode(asked.upload, max_pixels=state.settings.max_pixels, at_least=encoder.image_size)
        pixels = encoder.prepare(image)
    with timing.stage("encode"):
        return encoder.encode(pixels[None])[0], None
