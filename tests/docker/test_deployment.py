"""Kubernetes manifests, the dashboard, the alarm rules and the systemd unit: valid, and of what there is."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from configparser import RawConfigParser
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from eigenlens.index.qdrant_engine.server import URL_VARIABLE
from eigenlens.service.commands import serve
from eigenlens.service.settings import Settings
from eigenlens.service.telemetry.metrics import FIGURES, RECALL_FIGURES, RECALL_LABELS, Metrics
from tests.support.docker_files import ROOT

KUBERNETES, MONITORING = ROOT / "docker/kubernetes", ROOT / "docker/monitoring"
DEFINITIONS = json.loads((ROOT / "tests/data/kubernetes/definitions.json").read_text())["$defs"]
OURS = {"PodMonitor"}  # of the Prometheus operator
MADE = {"Secret"}  # by kustomize


@cache
def manifests() -> list[dict[str, Any]]:
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    return [m for name in listed for m in yaml.safe_load_all((KUBERNETES / name).read_text())]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests() if manifest["kind"] == kind]


def containers() -> list[dict[str, Any]]:
    pods = [deployment["spec"]["template"]["spec"] for deployment in of_kind("Deployment")]
    return [container for pod in pods for container in pod["containers"]]


def errors_of(manifest: dict[str, Any]) -> list[str]:
    name = next(name for name in DEFINITIONS if name.endswith(f".{manifest['kind']}"))
    schema = {"$ref": f"#/$defs/{name}", "$defs": DEFINITIONS}
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(manifest)]


def test_every_manifest_is_valid_and_listed() -> None:
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in KUBERNETES.glob("*.yaml")} == {*listed, "kustomization.yaml"}
    for manifest in manifests():
        if manifest["kind"] not in OURS:
            assert errors_of(manifest) == [], manifest["metadata"]["name"]


def test_the_schema_refuses_a_misspelling() -> None:
    deployment = deepcopy(of_kind("Deployment")[0])
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    assert any("readinesProbe" in message for message in errors_of(deployment))


def kustomized(folder: Path, name: str) -> list[dict[str, Any]]:
    """What kustomize makes of one of the folders, with keys and addresses in the files that they name."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed")
    for path in KUBERNETES.parent.glob("kubernetes*"):
        shutil.copytree(path, folder / path.name)
    (folder / "kubernetes/admin.key").write_text("0" * 32)
    for overlay, file, line in (
        ("postgres", "store.env", "EIGENLENS_STORE=postgresql://db/galleries"),
        ("qdrant", "key.env", "EIGENLENS_BACKEND_API_KEY=secret"),
    ):
        (folder / f"kubernetes-{overlay}" / file).write_text(line)
    done = subprocess.run([program, "kustomize", str(folder / name)], capture_output=True, text=True, check=False)
    if "unknown command" in done.stderr or "not installed" in done.stderr:
        pytest.skip("this kubectl has no kustomize")
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("name", ["kubernetes", "kubernetes-postgres", "kubernetes-qdrant"])
def test_kustomize_takes_the_folder(tmp_path: Path, name: str) -> None:
    built = kustomized(tmp_path, name)
    for manifest in built:
        if manifest["kind"] not in OURS | MADE:
            assert errors_of(manifest) == [], manifest["metadata"]["name"]
    deployments = [m for m in built if m["kind"] == "Deployment"]
    # The monitor and the disruption budget select by it; a Qdrant has metrics of its own.
    labelled = [m for m in deployments if "app.kubernetes.io/name" in m["spec"]["template"]["metadata"]["labels"]]
    assert {m["metadata"]["name"] for m in labelled} == {"eigenlens-readers", "eigenlens-writer"}
    for secret in (m for m in built if m["kind"] == "Secret"):
        assert secret["metadata"]["name"] in json.dumps(deployments)


def test_with_postgres_readers_run_anywhere_and_with_qdrant_all_have_its_address(tmp_path: Path) -> None:
    readers, writer = services_of(kustomized(tmp_path / "a", "kubernetes-postgres"))
    assert "affinity" not in readers, "they need not run beside the writer"
    for pod in (readers, writer):
        (container,) = pod["containers"]
        assert container["image"] == "eigenlens-service:cpu-postgres"
        assert container["envFrom"][0]["secretRef"]["name"].startswith("eigenlens-store")
    for pod in services_of(kustomized(tmp_path / "b", "kubernetes-qdrant")):
        (container,) = pod["containers"]
        assert container["image"] == "eigenlens-service:cpu-qdrant"
        assert container["env"] == [{"name": URL_VARIABLE, "value": "http://eigenlens-qdrant:6333"}]


def services_of(built: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pods of the readers and of the writer."""
    found = {m["metadata"]["name"]: m for m in built if m["kind"] == "Deployment"}
    return [found[f"eigenlens-{name}"]["spec"]["template"]["spec"] for name in ("readers", "writer")]


def test_there_is_one_writer_and_readers_do_not_know_its_key() -> None:
    writer, readers = of_kind("Deployment")
    assert (writer["spec"]["replicas"], writer["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert "secret" in json.dumps(writer["spec"]["template"]["spec"]["volumes"])
    assert "secret" not in json.dumps(readers["spec"]["template"]["spec"]["volumes"])
    assert "podAffinity" in readers["spec"]["template"]["spec"]["affinity"], "SQLite needs one node"
    assert [service["spec"]["selector"]["app.kubernetes.io/component"] for service in of_kind("Service")] == [
        "writer",
        "reader",
    ]


def test_containers_have_no_more_rights_than_they_need_and_probes_that_exist() -> None:
    parser = argparse.ArgumentParser()
    serve.configure(parser)
    for container in containers():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        command, *flags = container["args"]
        assert command == "serve"
        parser.parse_args(flags)
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert Path(flags[flags.index("--admin-key-file") + 1]).parent.as_posix() in mounts
        paths = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
        assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    pods = [deployment["spec"]["template"]["spec"] for deployment in of_kind("Deployment")]
    # Links of a Service named eigenlens would set EIGENLENS_PORT, which is a setting.
    assert all(pod["enableServiceLinks"] is False and pod["securityContext"]["runAsNonRoot"] for pod in pods)


def series() -> dict[str, set[str]]:
    """Names of all series of the metrics, with their labels."""
    known: dict[str, set[str]] = {name: set() for name in FIGURES}
    known |= {name: set(RECALL_LABELS) for name in RECALL_FIGURES}
    metrics = Metrics()
    for metric in (metrics.requests, metrics.stages, metrics.searches, metrics.batches, metrics.depth, metrics.refused):
        endings = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}[metric._type]
        for ending in endings:
            known[metric._name + ending] = set(metric._labelnames) | ({"le"} if ending == "_bucket" else set())
    return known


def shown() -> list[str]:
    """Queries of the dashboard's panels."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def queries() -> list[str]:
    """Queries of the panels, the variables and the alarm rules."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
    variables = [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    return [*shown(), *(rule["expr"] for rule in rules), *variables]


@pytest.mark.parametrize("query", queries())
def test_every_query_is_of_metrics_and_labels_that_exist(query: str) -> None:
    known = series()
    names = re.findall(r"\b(?:eigenlens|http)_\w+", query)
    assert names or query.startswith("up{")
    assert set(names) <= known.keys()
    labels = set().union(*(known[name] for name in names)) | {"job", "instance"}
    used = re.findall(r"(\w+)(?:=~|!=|=)\"", query) + [
        label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.replace(" ", "").split(",")
    ]
    assert set(used) <= labels
    for opening, closing in ("()", "{}", "[]"):
        assert query.count(opening) == query.count(closing)


def test_every_metric_is_on_the_dashboard() -> None:
    endings = re.compile("_(bucket|sum|count)$")
    named = {endings.sub("", name) for query in shown() for name in re.findall(r"\b(?:eigenlens|http)_\w+", query)}
    assert {endings.sub("", name) for name in series()} - named == {"eigenlens_live_recall_low"}


def test_the_systemd_unit_starts_what_there_is() -> None:
    path = ROOT / "docker/systemd/eigenlens.service"
    unit = RawConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read_string(path.read_text())
    section = unit["Service"]
    settings = re.findall(r"EIGENLENS_(\w+)=", section["Environment"])
    assert {name.lower() for name in settings} <= set(Settings.model_fields)
    assert section["ExecStart"].endswith("/eigenlens serve")
    assert (section["NoNewPrivileges"], section["ProtectSystem"]) == ("yes", "strict")
    program = shutil.which("systemd-analyze")
    if program is not None:
        done = subprocess.run([program, "verify", "--man=no", path], capture_output=True, text=True, check=False)
        told = [line for line in done.stderr.splitlines() if "eigenlens.service:" in line]
        assert [line for line in told if "not executable" not in line] == []
