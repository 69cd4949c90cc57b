"""The container files: well-formed, pinned, without secrets, and with no more rights than they need."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from psycopg.conninfo import conninfo_to_dict

from eigenlens.command import COMMANDS
from eigenlens.service.settings import Settings
from tests.support.docker_files import (
    DOCKERFILES,
    ROOT,
    assignments,
    compose,
    context_files,
    copied,
    final,
    in_context,
    instructions,
)

SERVICE, TRAIN = ROOT / "docker/service.Dockerfile", ROOT / "docker/train.Dockerfile"
SCHEMA = json.loads((ROOT / "tests/data/compose-spec/compose-spec.json").read_text())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)
SERVICES = ("prepare", "serve", "prepare-gpu", "serve-gpu")
SERVING = ("serve", "serve-gpu")

every_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
every_service = pytest.mark.parametrize("name", SERVICES)


def schema_errors(document: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(document)]


def requirements(*extras: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "docker/requirements.py", *extras]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def names(requirement_lines: str) -> set[str]:
    return {re.split(r"[<>=!~ ]", line)[0] for line in requirement_lines.split()}


# Dockerfiles


def test_both_images_are_here() -> None:
    assert DOCKERFILES == [SERVICE, TRAIN]


@every_dockerfile
def test_hadolint_finds_nothing_and_no_rule_is_ignored(path: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "--failure-threshold", "style", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "hadolint ignore" not in path.read_text()


def test_every_base_is_one_image_pinned_by_tag_and_digest() -> None:
    froms = {i.value.split()[0] for path in DOCKERFILES for i in instructions(path) if i.name == "FROM"}
    assert froms == {"${BASE}", "packages", "scratch"}
    (base,) = {assignments(i)["BASE"] for path in DOCKERFILES for i in instructions(path) if "BASE=" in i.value}
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)
    for path in DOCKERFILES:
        (label,) = final(path, "LABEL")
        assert assignments(label)["org.opencontainers.image.base.name"] == f"docker.io/library/{base.partition('@')[0]}"
        assert assignments(label)["org.opencontainers.image.version"] == PYPROJECT["project"]["version"]


@every_dockerfile
def test_pip_installs_only_what_the_constraints_pin(path: Path) -> None:
    runs = [i.value for i in instructions(path) if i.name == "RUN"]
    installs = [
        command for run in runs for command in re.split(r"&&|;", run) if re.search(r"\bpip\b.* install ", command)
    ]
    assert len(installs) >= 3
    assert all("--constraint constraints.txt" in c or "--require-hashes" in c for c in installs), installs
    builds = [command for run in runs for command in re.split(r"&&|;", run) if "pip wheel" in command]
    assert all("--no-build-isolation" in command and "--no-deps" in command for command in builds), builds


@pytest.mark.parametrize(
    "extras", [("cpu",), ("gpu",), ("cpu", "train", "pretrained"), ("gpu", "train", "pretrained")], ids="+".join
)
def test_whatever_an_image_requires_is_pinned(extras: tuple[str, ...]) -> None:
    done = requirements(*extras)
    assert done.returncode == 0, done.stderr
    constraints = (ROOT / "constraints.txt").read_text()
    assert names(done.stdout) <= set(re.findall(r"^([\w.-]+)==", constraints, re.MULTILINE))


def test_the_service_image_requires_faiss_and_no_torch() -> None:
    for variant, faiss in (("cpu", "faiss-cpu"), ("gpu", "faiss-gpu")):
        required = names(requirements(variant).stdout)
        assert {name for name in required if "faiss" in name} == {faiss}
        assert not required & names(requirements("train").stdout) - names(requirements("service").stdout)


@pytest.mark.parametrize("variant", sorted(path.stem for path in (ROOT / "docker/locks").iterdir()))
def test_the_service_image_installs_pinned_packages_by_their_hashes(variant: str) -> None:
    """After a change of what is required or pinned, `make lock` writes the locks anew."""
    runs = [i.value for i in instructions(SERVICE) if i.name == "RUN"]
    assert sum('--require-hashes --requirement "locks/${VARIANT}.txt"' in run for run in runs) == 1
    text = (ROOT / f"docker/locks/{variant}.txt").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==([\w.+-]+).*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE))
    pinned = dict(
        re.findall(r"^([\w.-]+)==(.+)$", (ROOT / "constraints.txt").read_text().replace("_", "-"), re.MULTILINE)
    )
    assert len(locked) == len(re.findall("==", text)) > 25
    assert locked.items() <= pinned.items()
    assert {name.partition("[")[0] for name in names(requirements(*variant.split("-")).stdout)} <= locked.keys()


@pytest.mark.parametrize("path", ["docker-compose.yml", "docker/postgres.yml", "docker/qdrant.yml"])
def test_a_service_image_that_is_built_has_a_lock(path: str) -> None:
    services = yaml.safe_load((ROOT / path).read_text())["services"]
    built = {name: service for name, service in services.items() if name.startswith("serve")}
    assert built
    for service in built.values():
        variant = service["build"]["args"]["VARIANT"]
        assert (ROOT / f"docker/locks/{variant}.txt").exists()
        assert service["image"] == f"eigenlens-service:{variant}"


def test_an_unknown_variant_fails_the_build() -> None:
    assert requirements("tpu").returncode != 0


@every_dockerfile
def test_everything_copied_exists_and_is_in_the_context(path: Path) -> None:
    for copy in copied(path):
        for source in copy.sources:
            assert (ROOT / source).exists(), source
            assert context_files(source), f"{source} is dockerignored"


def test_nothing_else_is_in_the_context() -> None:
    out = [
        ".git/config",
        ".venv/bin/python",
        ".demo/fashion-mnist/gallery/CURRENT",
        "tests/data/x",
        ".env",
        "docs/x.md",
    ]
    out += ["service/__pycache__/x.pyc", "model/images/__pycache__/x.pyc", "benchmarks/x.py", "admin.key"]
    assert [path for path in out if in_context(path)] == []
    assert in_context("model/images/decode.py")


@every_dockerfile
def test_no_secret_is_in_a_layer(path: Path) -> None:
    for instruction in instructions(path):
        if instruction.name in ("ENV", "ARG"):
            assert not [name for name in assignments(instruction) if SECRET.search(name)]
        if instruction.name == "ARG":
            assert not re.search(r"://\S+@", instruction.value)


@every_dockerfile
def test_an_image_runs_as_the_one_unprivileged_user_that_owns_its_volumes(path: Path) -> None:
    (user,) = final(path, "USER")
    assert user.value == "10001:10001"
    (volumes,) = final(path, "VOLUME")
    made = " && ".join(i.value for i in instructions(path) if i.name == "RUN")
    owned = re.findall(r"install -d -o 10001 -g 10001 (?:-m 0700 )?([^&]*)", made)
    assert set(" ".join(owned).split()) == set(volumes.command)
    assert "-m 0700 /data/keys" in made or path == TRAIN


def test_the_service_image_says_how_it_is_used() -> None:
    assert [i.value for i in final(SERVICE, "EXPOSE")] == ["8080"]
    assert [i.value for i in final(SERVICE, "STOPSIGNAL")] == ["SIGTERM"]
    environment = assignments(final(SERVICE, "ENV")[0])
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    # Nothing to compile or download with is copied, and no shell is needed to start, stop or probe.
    for name in ("HEALTHCHECK", "ENTRYPOINT", "CMD"):
        assert all(isinstance(word, str) for word in final(SERVICE, name)[0].command)
    assert not [i.value for i in final(SERVICE, "RUN") if "apt-get" in i.value]


@every_dockerfile
def test_an_init_is_process_1_so_that_no_signal_is_lost_while_python_starts(path: Path) -> None:
    init = ["tini", "-s", "--"]
    assert final(path, "ENTRYPOINT")[0].command == [*init, "eigenlens"]
    assert any("apt-get install" in i.value and "tini=" in i.value for i in instructions(path))
    for service in compose()["services"].values():
        assert service.get("entrypoint", init)[:3] == init
        assert "init" not in service


@every_dockerfile
def test_packages_and_code_are_layers_of_their_own(path: Path) -> None:
    """So that a change of the code sends the code alone; and another commit or date makes no layer again.

    In the service image, which is sent more often, a change of the service does not send the model and the index.
    """
    last = [(i.name, i.value) for i in instructions(path) if i.stage == instructions(path)[-1].stage]
    copies = [value for name, value in last if name == "COPY" and "--from=system" not in value]
    parts = {SERVICE: ["model", "service", "code"], TRAIN: ["code"]}[path]
    expected = ["--from=packages /opt/venv /opt/venv", *(f"--from=build /opt/{part} /opt/venv" for part in parts)]
    assert copies[: len(expected)] == expected
    assert [name for name, _ in last[-4:]] == ["ARG", "ARG", "ARG", "LABEL"]
    before = [i.value for i in instructions(path) if i.stage == 0 and i.name == "COPY"]
    assert before == [
        {SERVICE: "docker/locks locks/", TRAIN: "pyproject.toml constraints.txt docker/requirements.py ./"}[path]
    ]


@every_dockerfile
def test_pythons_own_modules_are_compiled(path: Path) -> None:
    """The base leaves them uncompiled and an image writes none: each start compiled them anew, for a second."""
    froms = [i.value for i in instructions(path) if i.name == "FROM"]
    stage = froms.index({SERVICE: "${BASE} AS system", TRAIN: "${BASE}"}[path])
    runs = [i.value for i in instructions(path) if i.name == "RUN" and i.stage == stage]
    assert any("python -m compileall -q" in run and run.count("/usr/local/lib/python3.11") == 1 for run in runs)


def test_the_cpu_image_takes_a_torch_without_cuda_and_can_fit_to_photographs() -> None:
    runs = [i.value for i in instructions(TRAIN) if i.name == "RUN"]
    assert any("whl/cpu" in run and '[ "${VARIANT}" = cpu ]' in run for run in runs)
    assert any('requirements.py "${VARIANT}" train pretrained' in run for run in runs)


def test_the_bill_of_materials_lists_python_and_debian_packages(tmp_path: Path) -> None:
    status = tmp_path / "status"
    entries = [("zlib1g", "1:1.2.13", "install ok installed"), ("gone", "1", "deinstall ok config-files")]
    lines = [f"Package: {name}\nStatus: {state}\nArchitecture: amd64\nVersion: {v}" for name, v, state in entries]
    status.write_text("\n\n".join(lines))
    command = [sys.executable, str(ROOT / "docker/bill_of_materials.py"), str(status)]
    bill = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    python = {component["name"]: component for component in bill["components"]}
    assert python.pop("zlib1g")["purl"] == "pkg:deb/debian/zlib1g@1%3A1.2.13?arch=amd64"
    assert all(component["purl"].startswith("pkg:pypi/") for component in python.values())
    assert python["typing-extensions"]["purl"] == f"pkg:pypi/typing-extensions@{version('typing_extensions')}"
    assert python["fastapi"]["licenses"] == [{"license": {"name": "MIT"}}]


# docker-compose.yml


@pytest.mark.parametrize("variables", [{}, {"IMAGES": "/home/me/photos", "PORT": "9000", "TORCH_INDEX_URL": "x"}])
def test_the_compose_file_is_valid(variables: dict[str, str]) -> None:
    document = compose(**variables)
    assert schema_errors(document) == []
    assert "version" not in document


def test_the_schema_refuses_a_misspelling() -> None:
    document = compose()
    document["services"]["serve"]["readonly"] = True
    assert any("readonly" in message for message in schema_errors(document))


@every_service
def test_a_container_has_no_more_rights_than_it_needs(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert service.get("environment", {}).keys() <= {"FOLDER"}
    for widened in ("privileged", "cap_add", "user", "pid", "ipc", "devices", "env_file", "secrets"):
        assert widened not in service
    binds = [volume for volume in service["volumes"] if isinstance(volume, dict)]
    assert [(bind["target"], bind["read_only"]) for bind in binds] == [("/images", True)]


@every_service
def test_the_volumes_are_named_and_are_the_images_own(name: str) -> None:
    document = compose()
    service = document["services"][name]
    mounts = [volume.split(":") for volume in service["volumes"] if isinstance(volume, str)]
    assert {volume for volume, _ in mounts} <= set(document["volumes"])
    (declared,) = final(ROOT / service["build"]["dockerfile"], "VOLUME")
    assert {target for _, target in mounts} == set(declared.command)


def test_the_admin_key_is_on_a_volume_that_training_never_sees() -> None:
    services = compose()["services"]
    command = final(SERVICE, "CMD")[0].command
    assert command[command.index("--admin-key-file") + 1].startswith("/data/keys/")
    holders = {name for name in SERVICES if "keys:/data/keys" in services[name]["volumes"]}
    assert holders == set(SERVING)


def test_the_demo_in_postgres_is_beside_the_other_and_has_no_password_of_its_own() -> None:
    text = (ROOT / "docker/postgres.yml").read_text()
    beside = yaml.safe_load(text)
    assert schema_errors(beside) == []
    there = compose()["services"]
    merged = {name: there.get(name, {}) | service for name, service in beside["services"].items()}
    assert merged["serve"]["depends_on"].keys() == {"migrate"}
    assert merged["migrate"]["depends_on"].keys() == {"prepare", "postgres"}
    assert merged["migrate"]["image"] == merged["serve"]["image"]
    assert merged["serve"]["environment"] == merged["migrate"]["environment"]
    (address,) = merged["serve"]["environment"].values()
    assert conninfo_to_dict(re.sub(r"\$\{[^}]*\}", "chosen", address))["password"] == "chosen"
    for line in merged["migrate"]["command"][0].splitlines():
        name, *arguments = line.rpartition("eigenlens ")[2].split()
        parser = argparse.ArgumentParser()
        importlib.import_module(COMMANDS[name][0]).configure(parser)
        parser.parse_args(arguments)


def test_the_demo_in_qdrant_is_beside_the_other_and_has_no_key_of_its_own() -> None:
    beside = yaml.safe_load((ROOT / "docker/qdrant.yml").read_text())
    assert schema_errors(beside) == []
    there = compose()["services"]
    merged = {name: there.get(name, {}) | service for name, service in beside["services"].items()}
    assert merged["serve"]["depends_on"].keys() == {"load"}
    assert merged["load"]["depends_on"].keys() == {"prepare", "qdrant"}
    assert merged["load"]["image"] == merged["serve"]["image"]
    assert merged["serve"]["environment"] == merged["load"]["environment"]
    assert {name.removeprefix("EIGENLENS_").lower() for name in merged["serve"]["environment"]} <= set(
        Settings.model_fields
    )
    key = merged["serve"]["environment"]["EIGENLENS_BACKEND_API_KEY"]
    assert merged["qdrant"]["environment"]["QDRANT__SERVICE__API_KEY"] == "${QDRANT_API_KEY}"
    assert key.startswith("${QDRANT_API_KEY:?")
    arguments = merged["load"]["command"][0].partition("eigenlens build ")[2].split()
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS["build"][0]).configure(parser)
    assert parser.parse_args(arguments).backend == "qdrant"


def test_a_folder_of_ones_own_never_meets_the_samples_volumes() -> None:
    sample, own = compose()["volumes"], compose(IMAGES="/home/me/photos")["volumes"]
    for name in ("training", "gallery"):
        assert sample[name]["name"] != own[name]["name"]


@pytest.mark.parametrize("name", SERVING)
def test_a_service_listens_everywhere_inside_and_is_published_on_this_machine_only(name: str) -> None:
    service = compose()["services"][name]
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    assert "command" not in service
    assert "entrypoint" not in service
    command = final(SERVICE, "CMD")[0].command
    assert command[command.index("--host") + 1] == "0.0.0.0"
    assert command[command.index("--port") + 1] == "8080"
    assert "network_mode" not in service


@pytest.mark.parametrize(("profile", "suffix"), [("cpu", ""), ("gpu", "-gpu")])
def test_a_profile_is_one_preparation_and_one_service_after_it(profile: str, suffix: str) -> None:
    services = compose()["services"]
    assert {name for name in services if profile in services[name]["profiles"]} == {
        f"prepare{suffix}",
        f"serve{suffix}",
    }
    prepare, serve = services[f"prepare{suffix}"], services[f"serve{suffix}"]
    assert serve["depends_on"] == {f"prepare{suffix}": {"condition": "service_completed_successfully"}}
    assert prepare["network_mode"] == "none"
    for service in (prepare, serve):
        assert service["build"]["args"]["VARIANT"] == profile
        assert service["image"].endswith(f":{profile}")
        assert ("deploy" in service) == (profile == "gpu")
        dockerfile = ROOT / service["build"]["dockerfile"]
        arguments = [name for i in instructions(dockerfile) if i.name == "ARG" for name in assignments(i)]
        assert set(service["build"]["args"]) | {"BASE", "SOURCE", "REVISION", "CREATED"} == set(arguments)


def test_a_gpu_is_reserved_for_the_gpu_profile() -> None:
    for name in ("prepare-gpu", "serve-gpu"):
        (device,) = compose()["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_the_cpu_profile_is_the_default() -> None:
    lines = (ROOT / ".env").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["COMPOSE_PROFILES=cpu"]
