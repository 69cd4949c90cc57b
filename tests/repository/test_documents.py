"""The documents compared with the checkout: each path that they name exists, and the architecture fits on a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(f.relative_to(ROOT).as_posix() for f in (ROOT / "docs").rglob("*.md"))]
TOP = ("benchmarks", "docker", "docs", "eigenlens", "index", "model", "service", "tests")
PATH = re.compile(rf"(?<![\w/.])((?:{'|'.join(TOP)})/[\w/.-]*)")
COMMAND = re.compile(r"python -m ([\w.]+)")


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_every_path_in_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    named = {path.rstrip(".") for span in re.findall(r"`([^`\n]+)`", text) for path in PATH.findall(span)}
    assert {path for path in named if "NAME" not in path and not (ROOT / path).exists()} == set()
    assert {target for target in _links(text) if not (ROOT / document).parent.joinpath(target).exists()} == set()


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_every_module_that_a_document_runs_exists(document: str) -> None:
    for module in set(COMMAND.findall((ROOT / document).read_text())) - {"pytest"}:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_architecture_is_one_page() -> None:
    assert len((ROOT / "docs" / "architecture.md").read_text().splitlines()) < 80


def _links(text: str) -> set[str]:
    return {target for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text) if target}
