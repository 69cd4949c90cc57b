"""Parameters of a search in a request: text in a query string or a form, typed values in a JSON body."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eigenlens.index.filters.parse import parse_filter
from eigenlens.index.plans.choice import PlanRequest
from eigenlens.service.api.search import FROM_TEXT, SearchBody, SearchParameters
from eigenlens.service.errors import RequestError
from eigenlens.service.search.request import SearchRequest

JSON_TEXT = {"type": "string", "contentMediaType": "application/json"}


def from_text(pairs: Iterable[tuple[str, Any]]) -> SearchParameters:
    """Parse the parameters of a query string or of form fields. Raises: ValidationError."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        values[name] = f"{values[name]},{value}" if name == "include" and name in values else value
    return SearchParameters.model_validate(values, context=FROM_TEXT)


def without_defaults(parameters: SearchParameters) -> dict[str, Any]:
    """Return the parameters that the client set, by name."""
    return parameters.model_dump(exclude_unset=True)


def from_json(body: Mapping[str, Any], shared: Mapping[str, Any]) -> SearchBody:
    """Parse a search from a JSON object; `shared` has the values of parameters that the object does not set.

    Raises: RequestError; ValidationError.
    """
    search = SearchBody.model_validate({**shared, **with_standard_names(body)}, strict=True)
    node = search.features if search.features is not None else search.neighbours
    if sum(value is not None for value in (search.image, search.id, search.code, search.positive, node)) != 1:
        raise RequestError(
            "give exactly one of image (base64), id, code and positive, or in a gallery of nodes features, neighbours "
            "or both"
        )
    if search.negative is not None and search.positive is None:
        raise RequestError("negative examples need positive ones: give positive too")
    return search


def with_standard_names(body: Mapping[str, Any]) -> dict[str, Any]:
    """Rename `dimensions` to `length`, its standard name. Raises: RequestError, if the body has both."""
    if "dimensions" not in body:
        return dict(body)
    if "length" in body:
        raise RequestError("length and dimensions are two names of one thing; give one of them")
    return {"length" if name == "dimensions" else name: value for name, value in body.items()}


def search_request(parameters: SearchParameters) -> SearchRequest:
    """Return the search request of these parameters. Raises: FilterError."""
    return SearchRequest(
        k=parameters.k,
        offset=parameters.offset,
        plan=PlanRequest(
            length=None if parameters.length == "auto" else parameters.length,
            rerank=None if parameters.rerank == "none" else parameters.rerank,
            shortlist=parameters.shortlist,
            effort=parameters.effort,
            target_recall=parameters.target_recall,
            max_latency_ms=parameters.max_latency_ms,
        ),
        filter=None if parameters.filter is None else parse_filter(parameters.filter),
        min_score=parameters.min_score,
        min_similarity=parameters.min_similarity,
        duplicate_cosine=parameters.group_duplicates,
        crop=None if parameters.crop is None else (*parameters.crop,),  # type: ignore[arg-type]  # four of them
    )


def documented_in_query() -> dict[str, dict[str, Any]]:
    """Return the schemas of the parameters in a query string, for the API document; an object is written as JSON."""
    schemas = documented_in_form()
    for name, schema in schemas.items():
        if schema.get("type") == "object":
            schemas[name] = {"title": schema["title"], "description": schema["description"], **JSON_TEXT}
    return schemas


def documented_in_form() -> dict[str, dict[str, Any]]:
    """Return the schemas of the parameters in a form, for the API document."""
    return {name: _without_null(schema) for name, schema in SearchParameters.model_json_schema()["properties"].items()}


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without null, which a query string and a form cannot express."""
    members = {name: value for name, value in schema.items() if name != "default" or value is not None}
    choices = [choice for choice in members.pop("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        return {**members, **choices[0]}
    return {**members, "anyOf": choices} if choices else members
