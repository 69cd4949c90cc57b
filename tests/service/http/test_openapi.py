"""The OpenAPI document: complete, valid, with an example for each call that its own schemas accept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from eigenlens.service.http.app import create_app
from eigenlens.service.http.problems import TABLE
from tests.support.service import build_gallery, settings_of


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(settings_of(build_gallery(tmp_path_factory.mktemp("openapi"), count=2))).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def check(document: dict[str, Any], schema: dict[str, Any], value: Any, *, where: str) -> None:
    whole = {**schema, "components": document["components"]}
    errors = [error.message for error in jsonschema.Draft202012Validator(whole).iter_errors(value)]
    assert not errors, (where, errors)


def test_every_json_body_and_answer_has_an_example_that_its_schema_accepts(document: dict[str, Any]) -> None:
    seen = 0
    for name, operation in operations(document):
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [found.get("content", {}) for status, found in operation["responses"].items() if status < "3"]
        for content in contents:
            if "application/json" in content:
                media = content["application/json"]
                check(document, media["schema"], media["example"], where=name)
                seen += 1
    assert seen > 20


def test_every_call_is_described_and_documents_its_problems(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation.get("description"), name
        statuses = set(operation["responses"])
        if name not in ("GET /healthz", "GET /readyz"):
            assert {"429", "500", "503"} <= statuses, name
        if "requestBody" in operation:
            assert {"400", "408", "413", "415"} <= statuses, name
        for status, found in operation["responses"].items():
            if status >= "4":
                assert found["content"], (name, status)
    documented = {int(status) for _, operation in operations(document) for status in operation["responses"]}
    assert {status for _, status, _ in TABLE} <= documented


def test_names_of_calls_are_short_and_used_once(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(len(name) < 25 for name in names)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    found = set(references(document))
    assert found
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
