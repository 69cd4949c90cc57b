"""Search: by an image, by an image of the gallery, or by a code."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import ConfigDict, TypeAdapter
from starlette.datastructures import QueryParams

from eigenlens.artifact import EigenlensError
from eigenlens.index.plans.choice import PlanRequest
from eigenlens.model.runtime.feature_encoder import FeatureEncoder
from eigenlens.service.api.search import (
    ExampleBody,
    GraphAnswer,
    LengthAnswer,
    LengthsAnswer,
    SearchAnswer,
    SearchBody,
    SearchParameters,
    UnderFilterAnswer,
)
from eigenlens.service.errors import BodyTooLargeError, ContentTypeError, RequestError
from eigenlens.service.http.bodies import decode_base64, files_of, media_type_of, node_of, read_json
from eigenlens.service.http.multipart import single_file_of_form
from eigenlens.service.http.openapi import IMAGE_BODY, body_of, parameters_of, problem_responses
from eigenlens.service.http.parameters import (
    documented_in_form,
    documented_in_query,
    from_json,
    from_text,
    search_request,
    with_standard_names,
    without_defaults,
)
from eigenlens.service.http.presenters import present_measured, present_plans
from eigenlens.service.http.state import CurrentState, State, state_of
from eigenlens.service.search.batching import Receive
from eigenlens.service.search.examples import Example, Examples
from eigenlens.service.search.pipeline import Answer, Query
from eigenlens.service.search.request import SearchRequest

router = APIRouter(prefix="/v1", tags=["search"])

_MAX_FIELDS = 40
_CODE = TypeAdapter(list[float], config=ConfigDict(strict=True))
_DOCUMENTED = body_of(
    {"application/json": {"$ref": "#/components/schemas/SearchBody"}, **IMAGE_BODY}, **documented_in_form()
) | {"parameters": parameters_of(documented_in_query())}


class _DirectRoute(APIRoute):
    """A route whose function reads the request and writes the answer itself, which saves more time than a search takes.

    FastAPI does not resolve dependencies in the function's signature: it takes the request only.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function itself as the handler."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


async def search(request: Request) -> Response:
    """Find the images most like the query, best first. Put parameters into the query string or beside the image."""
    state = state_of(request)
    state.batcher.check()  # refuse an overload before reading the body
    answer = await answer_search(state, await _read(request), receive=request.receive)
    return Response(answer.body, media_type="application/json", headers={"Server-Timing": answer.header})


router.add_api_route(
    "/search",
    search,
    methods=["POST"],
    route_class_override=_DirectRoute,
    response_model=SearchAnswer,
    openapi_extra=_DOCUMENTED,
    responses=problem_responses("image-not-found"),
)


@router.get("/lengths")
def lengths(state: CurrentState) -> LengthsAnswer:
    """List the prefix lengths you can search, and the cost of each."""
    snapshot = state.snapshots.current
    encoder = snapshot.encoder
    engine, calibration = snapshot.engine, snapshot.engine.calibration
    plain = {length: calibration.plain(length) for length in engine.lengths}
    rescored = {length: snapshot.measured_plan(PlanRequest(length, rerank="full")) for length in engine.lengths[:-1]}
    return LengthsAnswer(
        lengths=[
            LengthAnswer(
                length=index.length,
                kind=index.kind,
                bytes=index.bytes,
                bytes_per_image=round(index.bytes / max(1, len(engine.keys)), 1),
                full=index.length == engine.code_length,
                max_effort=index.max_effort,
                alone=None if (measured := plain[index.length]) is None else present_measured(measured),
                rescored=None if (measured := rescored.get(index.length)) is None else present_measured(measured),
            )
            for index in map(engine.describe, engine.lengths)
        ],
        graph=None
        if (graph := engine.graph) is None
        else GraphAnswer(
            length=graph.length,
            kind=graph.kind,
            bytes=graph.bytes,
            bytes_per_image=round(graph.bytes / max(1, len(engine.keys)), 1),
        ),
        code_length=engine.code_length,
        count=len(engine),
        pending=engine.added,
        removed=engine.removed,
        generation=snapshot.number,
        plans=present_plans(calibration.measured),
        under_filters=[
            UnderFilterAnswer(share=share, plans=present_plans(measured))
            for share, measured in sorted(calibration.drawn.items())
        ],
        filters={field: list(kinds) for field, kinds in engine.fields.items()},
        encoder=encoder.id,
        input="features" if isinstance(encoder, FeatureEncoder) else "image",
        features=encoder.features_of_nodes if isinstance(encoder, FeatureEncoder) else None,
        eigenvalues=[float(x) for x in encoder.eigenvalues],
    )


async def _read(request: Request) -> Query:
    """Read the query of a request. Raises: RequestError; ContentTypeError; ValidationError."""
    media_type = media_type_of(request)
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return _image_query(request, await request.body())
    if media_type == "multipart/form-data":
        image = single_file_of_form(request.headers["content-type"], await request.body())
        if image is not None:
            return _image_query(request, image)
        async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
            upload = await files_of(form)[0].read()
            fields = [(name, value) for name, value in form.multi_items() if name != "image"]
        if not fields:
            return _image_query(request, upload)
        parameters, _ = _from_query_string(request.scope["query_string"])
        parameters = SearchParameters.model_validate(
            {**without_defaults(parameters), **without_defaults(from_text(fields))}
        )
        return image_query(parameters, upload)
    if media_type == "application/json":
        query_string, body = request.scope["query_string"], await read_json(request)
        query = plain_query(query_string, body)
        if query is not None:
            return query
        parameters, _ = _from_query_string(query_string)
        return query_of(from_json(body, without_defaults(parameters)))
    raise ContentTypeError(
        "a search takes multipart/form-data with a file `image`, an image as the body itself (image/...), "
        f"or application/json, not '{media_type or 'nothing'}'"
    )


@lru_cache(maxsize=256)
def _from_query_string(query_string: bytes) -> tuple[SearchParameters, SearchRequest]:
    """Parse a query string; cached, since many searches have the same one."""
    parameters = from_text(QueryParams(query_string).multi_items())
    return parameters, search_request(parameters)


def plain_query(query_string: bytes, body: Mapping[str, Any]) -> Query | None:
    """Return the query of a body with an id or a code and plain parameters, as `from_json` and `query_of` would.

    Returns: None for another body, and for one that they may refuse.
    """
    id, code = body.get("id"), body.get("code")
    others = tuple((name, type(value), value) for name, value in body.items() if name not in ("id", "code"))
    try:
        search, include = _from_plain_parameters(query_string, others)
        if code is None and isinstance(id, str) and id.isascii():
            return Query(search, include, id=id)
        if id is None and code is not None:
            return Query(search, include, code=_CODE.validate_python(code))
    except (TypeError, ValueError, EigenlensError):  # not hashable, or not valid
        pass
    return None


@lru_cache(maxsize=256)
def _from_plain_parameters(
    query_string: bytes, values: tuple[tuple[str, type, Any], ...]
) -> tuple[SearchRequest, frozenset[str]]:
    """Parse the parameters of a query string and of a JSON body, whose types tell 1 from 1.0 and true; cached."""
    shared = without_defaults(_from_query_string(query_string)[0])
    own = with_standard_names({name: value for name, _, value in values})
    parameters = SearchParameters.model_validate({**shared, **own}, strict=True)
    return search_request(parameters), frozenset(parameters.include)


def _image_query(request: Request, image: bytes) -> Query:
    parameters, search = _from_query_string(request.scope["query_string"])
    return Query(search, frozenset(parameters.include), image=image)


def image_query(parameters: SearchParameters, image: bytes) -> Query:
    """Return the query of an image. Raises: FilterError."""
    return Query(search_request(parameters), frozenset(parameters.include), image=image)


def query_of(body: SearchBody) -> Query:
    """Return the query of a JSON object. Raises: RequestError; FilterError."""
    return Query(
        search_request(body),
        frozenset(body.include),
        image=None if body.image is None else decode_base64(body.image),
        id=body.id,
        code=body.code,
        node=node_of("", body.features, body.neighbours),
        examples=None if body.positive is None else Examples(_examples(body.positive), _examples(body.negative or [])),
    )


def _examples(bodies: Sequence[ExampleBody]) -> tuple[Example, ...]:
    return tuple(
        Example(None if body.image is None else decode_base64(body.image), body.id, body.code) for body in bodies
    )


async def answer_search(state: State, query: Query, *, receive: Receive | None = None) -> Answer:
    """Run a search in a batch with others, off the event loop. Raises: EigenlensError; ClientDisconnect."""
    if query.image is not None and len(query.image) > state.settings.max_image_bytes:
        raise BodyTooLargeError(
            f"the image has {len(query.image)} bytes; at most {state.settings.max_image_bytes} are taken"
        )
    if query.request is not None:
        query.request.check_page(max_k=state.settings.max_k)
        if query.request.crop is not None and query.image is None:
            raise RequestError("crop takes a part of an image that is sent: send one, or leave crop out")
    return await state.batcher.run(query, receive=receive)
