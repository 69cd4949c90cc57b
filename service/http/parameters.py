"""Parameters of a search as they come: as text in a query string or a form, or typed in a JSON body."""

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
    """The parameters that a query string or form fields give. Raises: ValidationError."""
    given: dict[str, Any] = {}
    for name, value in pairs:
        given[name] = f"{given[name]},{value}" if name == "include" and name in given else value
    return SearchParameters.model_validate(given, context=FROM_TEXT)


def given_by(parameters: SearchParameters) -> dict[str, Any]:
    """Only those parameters that were given, by name."""
    return parameters.model_dump(exclude_unset=True)


def from_json(given: Mapping[str, Any], shared: Mapping[str, Any]) -> SearchBody:
    """The search that a JSON object asks for; what it does not say is as in `shared`.

    Raises: RequestError; ValidationError.
    """
    asked = SearchBody.model_validate({**shared, **named(given)}, strict=True)
    if sum(value is not None for value in (asked.image, asked.id, asked.code)) != 1:
        raise RequestError("give exactly one of image (base64), id and code")
    return asked


def named(given: Mapping[str, Any]) -> dict[str, Any]:
    """With one name for each parameter: dimensions is length. Raises: RequestError, if both are given."""
    if "dimensions" not in given:
        return dict(given)
    if "length" in given:
        raise RequestError("length and dimensions are two names of one thing; give one of them")
    return {"length" if name == "dimensions" else name: value for name, value in given.items()}


def search_request(parameters: SearchParameters) -> SearchRequest:
    """Return the search that parameters ask for. Raises: FilterError."""
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
        duplicate_cosine=parameters.group_duplicates,
    )


def documented_in_query() -> dict[str, dict[str, Any]]:
    """Schemas of the parameters in a query string, for the API document; an object is written as JSON."""
    found = documented_in_form()
    for name, schema in found.items():
        if schema.get("type") == "object":
            found[name] = {"title": schema["title"], "description": schema["description"], **JSON_TEXT}
    return found


def documented_in_form() -> dict[str, dict[str, Any]]:
    """Schemas of the parameters in a form, for the API document."""
    return {name: _without_null(schema) for name, schema in SearchParameters.model_json_schema()["properties"].items()}


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """There is no null in text."""
    shown = {name: value for name, value in schema.items() if name != "default" or value is not None}
    choices = [choice for choice in shown.pop("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        return {**shown, **choices[0]}
    return {**shown, "anyOf": choices} if choices else shown
