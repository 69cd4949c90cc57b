"""The guide compared with the code: every endpoint and parameter, every kind of error, every command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eigenlens
from service.app import create_app
from service.problems import TABLE
from tests.service_builders import build_gallery, settings_of

GUIDE = Path(eigenlens.__file__).parent / "docs" / "guide"
COMMANDS = {"search", "add", "rm", "rebuild", "jobs", "generations", "stats", "backup", "restore"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(settings_of(build_gallery(tmp_path_factory.mktemp("guide"), count=2))).openapi()


def sections() -> dict[str, str]:
    """What the guide says of each endpoint."""
    found = re.split(r"^### `([A-Z]+ [^`]+)`\n", (GUIDE / "api.md").read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], (text.partition("\n## ")[0] for text in found[1::2]), strict=True))


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def parameters(document: dict[str, Any], operation: dict[str, Any]) -> set[str]:
    """Names in the path, the query string and at the top of bodies."""
    names = {parameter["name"] for parameter in operation.get("parameters", [])}
    for media in operation.get("requestBody", {}).get("content", {}).values():
        schema = media["schema"]
        references = [schema, *schema.get("anyOf", [])]
        for given in references:
            resolved = given
            if "$ref" in given:
                resolved = document["components"]["schemas"][given["$ref"].rpartition("/")[2]]
            names |= set(resolved.get("properties", {}))
    return names


def test_every_endpoint_is_in_the_guide_and_no_other(document: dict[str, Any]) -> None:
    assert set(sections()) == {name for name, _ in operations(document)}


def test_every_parameter_is_in_the_guide_and_no_other(document: dict[str, Any]) -> None:
    said = sections()
    of_search = set(re.findall(r"^\| `(\w+)` \|", said["POST /v1/search"], re.MULTILINE))
    for name, operation in operations(document):
        wanted = parameters(document, operation)
        told = set(re.findall(r"`(\w+)`", said[name]))
        if name == "POST /v1/search/batch":
            told |= of_search
        assert wanted <= told, (name, wanted - told)
        in_table = set(re.findall(r"^\| `(\w+)` \|", said[name], re.MULTILINE))
        assert in_table <= wanted, (name, in_table - wanted)


def test_every_error_is_in_the_guide_with_its_status_and_no_other() -> None:
    rows = re.findall(r"^\| `/problems/([a-z0-9-]+)` \| (\d+) \|", (GUIDE / "errors.md").read_text(), re.MULTILINE)
    wanted = {(name, str(status)) for _, status, name in TABLE}
    wanted |= {("parameters", "422"), ("client-gone", "400"), ("unforeseen", "500")}
    assert set(rows) == wanted
    assert len(rows) == len(wanted)


def test_every_command_that_asks_a_service_is_in_the_guide() -> None:
    told = set(re.findall(r"^\| `eigenlens (\w+)` \|", (GUIDE / "clients.md").read_text(), re.MULTILINE))
    assert told == COMMANDS
    assert set(eigenlens.COMMANDS) >= COMMANDS
