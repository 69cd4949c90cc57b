"""What may import what: the contracts of pyproject.toml, one import name, and no circle anywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PACKAGES = ("service", "index", "model", "benchmarks")

# A module, what it may not import, and the contract that says so.
FORBIDDEN = (
    ("index/metrics.py", "eigenlens.model.config", "index never imports service or model"),
    ("index/codes/views.py", "eigenlens.service.errors", "index never imports service or model"),
    ("model/losses/vicreg.py", "eigenlens.index.plans.plan", "model never imports service or index"),
    ("model/runtime/encoder.py", "torch", "service and index never reach torch"),
    ("service/keys.py", "torch", "service and index never reach torch"),
    ("service/gallery/thumbnails.py", "eigenlens.service.http.app", "in service: commands, then http"),
    ("service/jobs/store.py", "eigenlens.service.search.paging", "in service: commands, then http"),
    ("service/api/problems.py", "eigenlens.service.gallery.layout", "in service: commands, then http"),
    ("service/http/state.py", "eigenlens.service.commands.options", "in service: commands, then http"),
    ("service/gallery/layout.py", "faiss", "only the engine, what builds it and the codes import FAISS"),
    ("index/plans/plan.py", "faiss", "only the engine, what builds it and the codes import FAISS"),
    ("service/search/paging.py", "eigenlens.index.faiss_engine.kinds", "service.search imports no engine"),
    ("index/live/delta.py", "eigenlens.index.faiss_engine.kinds", "index.live imports no engine"),
    ("service/client/uploads.py", "eigenlens.index.errors", "the wire's models and the client import neither index"),
    ("service/client/uploads.py", "eigenlens.service.keys", "the client imports of service only"),
    ("service/api/problems.py", "eigenlens.service.errors", "the wire's models import nothing else of service"),
)


@pytest.fixture(scope="module")
def contracts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter reports of a copy of the code with every forbidden import in it."""
    copy = tmp_path_factory.mktemp("contracts")
    for name in ("eigenlens", *PACKAGES):
        shutil.copytree(
            ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "results")
        )
    shutil.copy(ROOT / "pyproject.toml", copy)
    for file, forbidden, _ in FORBIDDEN:
        with (copy / file).open("a") as module:
            module.write(f"\nimport {forbidden}\n")
    done = subprocess.run([BIN / "lint-imports"], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.stdout


@pytest.mark.parametrize(("file", "forbidden", "contract"), FORBIDDEN)
def test_a_forbidden_import_breaks_a_contract(contracts: str, file: str, forbidden: str, contract: str) -> None:
    verdicts = [line for line in contracts.splitlines() if line.startswith(contract) and " BROKEN" in line]
    assert len(verdicts) == 1, contracts
    module = "eigenlens." + file.removesuffix(".py").replace("/", ".")
    assert f"{module} -> {forbidden} (l." in " ".join(contracts.split())


@pytest.mark.parametrize("name", [*PACKAGES, "artifact"])
def test_no_folder_at_the_top_is_imported_by_its_own_name(name: str) -> None:
    code = f"import {name}\nfrom {name}.some import thing\nfrom eigenlens import {name} as allowed\n"
    command = [str(BIN / "ruff"), "check", "--select", "TID251", "--output-format", "concise"]
    command += ["--stdin-filename", "service/x.py", "-"]
    done = subprocess.run(command, cwd=ROOT, input=code, capture_output=True, text=True, check=False)
    assert [line.split(":")[1] for line in done.stdout.splitlines() if "TID251" in line] == ["1", "2"]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("eigenlens", exclude_type_checking_imports=True, cache_dir=None)


def test_no_modules_import_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    arrows = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert circles(arrows) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folders_of_a_package_import_each_other_in_a_circle(graph: grimp.ImportGraph, package: str) -> None:
    prefix = f"eigenlens.{package}."
    arrows: dict[str, set[str]] = {}
    for module in graph.modules:
        if module.startswith(prefix):
            imported = [name for name in graph.find_modules_directly_imported_by(module) if name.startswith(prefix)]
            arrows.setdefault(folder(module), set()).update(map(folder, imported))
    assert circles({name: targets - {name} for name, targets in arrows.items()}) == []


def test_a_circle_is_found() -> None:
    arrows = {"a": {"b"}, "b": {"c", "x"}, "c": {"a"}, "x": {"y"}, "y": set(), "self": {"self"}}
    assert circles(arrows) == [{"a", "b", "c"}]


def folder(module: str) -> str:
    """Return the folder or file below a package that a module belongs to: eigenlens.service.http of ...http.app."""
    return ".".join(module.split(".")[:3])


def circles(arrows: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """Return the sets of names that reach each other, two names or more each."""
    reached = {name: reachable(name, arrows) for name in arrows}
    groups = {frozenset({name} | {other for other in reached[name] if name in reached[other]}) for name in arrows}
    return sorted((set(group) for group in groups if len(group) > 1), key=sorted)


def reachable(start: str, arrows: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    queue = list(arrows[start])
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += arrows[name]
    return found
