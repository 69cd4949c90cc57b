"""The guide compared with the code: every endpoint and parameter, every kind of error, every command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eigenlens.command import COMMANDS
from eigenlens.service.http.app import create_app, max_body_bytes
from eigenlens.service.http.problems import TABLE
from eigenlens.service.settings import Settings
from eigenlens.service.telemetry.metrics import FIGURES, RECALL_FIGURES, RECALL_LABELS, Metrics
from tests.support.service import build_gallery, settings_of

GUIDE = Path(__file__).parents[3] / "docs" / "guide"
ASKING = {
    "search", "add", "rm", "rebuild", "recalibrate", "duplicates", "jobs", "generations", "stats", "backup", "restore",
    "ready", "images",
}  # fmt: skip


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
    assert told == ASKING
    assert set(COMMANDS) >= ASKING


def test_every_setting_is_in_the_guide_with_its_default_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", (GUIDE / "settings.md").read_text(), re.MULTILINE)
    assert [name for name, _, _ in rows] == list(Settings.model_fields)
    words = {None: "none", "": "empty", True: "true", False: "false"}
    for name, told, meaning in rows:
        field = Settings.model_fields[name]
        assert meaning == field.description
        if field.is_required():
            assert told == "must be given"
        elif field.default_factory is None:
            value = field.get_default()
            named = value in ("", None) or isinstance(value, bool)
            number = f"{value:g}" if isinstance(value, float) else value
            assert told == (words[value] if named else f"`{number}`"), name


def test_every_metric_is_in_the_guide_with_its_kind_and_labels_and_no_other() -> None:
    pattern = r"^\| `((?:http|eigenlens)_\w+)` \| (\w+) \|([^|]*)\|"
    rows = re.findall(pattern, (GUIDE / "operations.md").read_text(), re.MULTILINE)
    metrics = Metrics()
    counted = [metrics.requests, metrics.searches, metrics.stages, metrics.batches, metrics.depth, metrics.refused]
    wanted = {(m._name + "_total" * (m._type == "counter"), m._type, tuple(m._labelnames)) for m in counted}
    assert {m._name for m in counted} == {family.name for family in metrics.registry.collect()}
    wanted |= {(name, "gauge", ()) for name in FIGURES}
    wanted |= {(name, "gauge", RECALL_LABELS) for name in RECALL_FIGURES}
    assert {(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == wanted
    assert len(rows) == len(wanted)


def test_the_pages_of_the_guide_lead_to_pages_that_there_are() -> None:
    readme = GUIDE.parent.parent / "README.md"
    for page in (readme, *GUIDE.glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
    led_to = set(re.findall(r"\(docs/guide/(\w+\.md)\)", readme.read_text()))
    assert led_to == {page.name for page in GUIDE.glob("*.md")}


def test_the_proxy_of_the_guide_takes_every_body_that_the_service_takes() -> None:
    megabytes = re.search(r"client_max_body_size (\d+)m;", (GUIDE / "security.md").read_text())
    fields = Settings.model_fields
    largest = max(max_body_bytes(fields["max_image_bytes"].default), fields["max_batch_bytes"].default)
    assert megabytes is not None
    assert int(megabytes[1]) * 2**20 >= largest
