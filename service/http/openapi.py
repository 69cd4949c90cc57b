"""The OpenAPI document: adds to FastAPI's what routes cannot declare about bodies, problems, keys and examples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, APIRouter
from pydantic.json_schema import models_json_schema

from eigenlens.service.api.embeddings import OpenAIError
from eigenlens.service.api.examples import ANSWERS, BODIES
from eigenlens.service.api.images import MAX_ADDED_IMAGES, AddBody
from eigenlens.service.api.problems import Problem
from eigenlens.service.api.search import BatchBody, SearchBody
from eigenlens.service.http import openai
from eigenlens.service.http.policy import policy_of
from eigenlens.service.http.problems import TABLE

_REF = "#/components/schemas/{model}"
# Models that hand-written schemas of routes refer to.
_MODELS = (Problem, OpenAIError, SearchBody, BatchBody, AddBody)
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
_WITH_BODY = (400, 408, 413, 415, 422)
_RETRY_AFTER = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}}

TAGS: list[dict[str, Any]] = [
    {"name": "search", "description": "Find images like one of yours, with codes as long as you like."},
    {"name": "images", "description": "Read, add, change and remove the images of the gallery."},
    {"name": "embeddings", "description": "Codes of images, in the shape of OpenAI's interface."},
    {"name": "eigenfunctions", "description": "What each coordinate of a code tells apart."},
    {"name": "admin", "description": "Rebuilds, imports, generations, jobs and backups. Needs a key of scope admin."},
    {"name": "health", "description": "Whether the process lives, and whether it can answer searches."},
]

FILE: dict[str, Any] = {"type": "string", "format": "binary"}
# Content of a request whose body is an image.
IMAGE_BODY: dict[str, dict[str, Any]] = {"application/octet-stream": FILE, "image/*": FILE}


def body_of(others: Mapping[str, dict[str, Any]], **fields: dict[str, Any]) -> dict[str, Any]:
    """Return the `requestBody` of a route: a form with a file `image` and more fields, or another media type."""
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": FILE, **fields},
        "additionalProperties": False,
    }
    content = {name: {"schema": schema} for name, schema in {"multipart/form-data": form, **others}.items()}
    return {"requestBody": {"required": True, "content": content}}


def parameters_of(schemas: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the `parameters` of a route for its query string, none of which is required."""
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in schemas.items()]


ADD_BODY = body_of(
    {"application/json": {"$ref": "#/components/schemas/AddBody"}},
    image={
        "type": "array",
        "items": FILE,
        "maxItems": MAX_ADDED_IMAGES,
        "description": "files; their names are their ids unless you send `id`",
    },
    id={"type": "array", "items": {"type": "string"}, "description": "one id per file"},
    metadata={
        "anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
        "description": "a JSON object for all files, or a JSON list with one object per file",
    },
)
PUT_BODY = body_of(IMAGE_BODY, metadata={"type": "object", "description": "as JSON"})


def problem_responses(*names: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route for the problems of its own, by their names in the table of problems."""
    statuses: dict[int | str, list[str]] = {}
    for _, status, name in TABLE:
        if name in names:
            statuses.setdefault(status, []).append(name)
    return {status: _problem(int(status), names_of_status) for status, names_of_status in statuses.items()}


def install(app: FastAPI, routers: Sequence[APIRouter], *, search_needs_key: bool, root_path: str) -> None:
    """Make `app.openapi()` return the complete document of these routers."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, routers, search_needs_key=search_needs_key)
            if root_path:
                app.openapi_schema["servers"] = [{"url": root_path}]
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI, routers: Sequence[APIRouter], *, search_needs_key: bool) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, tags=TAGS, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    _, extra = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
    schemas.update(extra["$defs"])
    components["securitySchemes"] = _KEYS
    for path, method, operation in _operations(routers, document):
        scope = policy_of(path).scope_of(method)
        keyed = scope is not None and (search_needs_key or scope != "search")
        _complete(path, method, operation, keyed=keyed)
    return document


def _operations(routers: Sequence[APIRouter], document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for route in (route for router in routers for route in router.routes):
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                yield route.path_format, method, document["paths"][route.path_format][method.lower()]


def _complete(path: str, method: str, operation: dict[str, Any], *, keyed: bool) -> None:
    """Add to a call the problems that any call of its kind can have, its keys, and its examples."""
    operation["summary"] = _first_sentence(operation.get("description", operation["summary"]))
    responses = operation["responses"]
    statuses = list(policy_of(path).statuses)
    if "requestBody" in operation:
        statuses += _WITH_BODY
    elif operation.get("parameters"):
        statuses.append(422)
    if operation.get("parameters"):
        statuses += (400, 431)
    if policy_of(path).scope in ("write", "admin") and method != "GET":
        statuses.append(507)
    if keyed:
        statuses += (401, 403)
        operation["security"] = [{name: []} for name in _KEYS]
    for status in statuses:
        if str(status) not in responses or (status == 422 and "HTTPValidationError" in str(responses["422"])):
            responses[str(status)] = _problem(status, [])
    if openai.is_openai_path(path):
        operation["responses"] = {
            str(openai.status_of(int(status))): _openai_error(int(status)) if int(status) >= 400 else response
            for status, response in responses.items()
        }
    _exemplify(method, path, operation)


def _first_sentence(text: str) -> str:
    """Return the first sentence of a description as a summary, without its full stop."""
    return " ".join(re.split(r"(?<=[^.])[.;:](?:\s|$)", text, maxsplit=1)[0].split())


def _exemplify(method: str, path: str, operation: dict[str, Any]) -> None:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        body["example"] = BODIES[method, path]
    for status, response in operation["responses"].items():
        answer = response.get("content", {}).get("application/json")
        if int(status) < 300 and answer is not None:
            answer["example"] = ANSWERS[method, path]


def _problem(status: int, names: list[str]) -> dict[str, Any]:
    listed = ", ".join(names or [name for _, status_of_problem, name in TABLE if status_of_problem == status])
    description = f"{HTTPStatus(status).phrase}: {listed}" if listed else HTTPStatus(status).phrase
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return _response(status, description, content)


def _openai_error(status: int) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    return _response(status, HTTPStatus(openai.status_of(status)).phrase, content)


def _response(status: int, description: str, content: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": description, "content": content}
    return response | ({"headers": _RETRY_AFTER} if status in (429, 503) else {})
