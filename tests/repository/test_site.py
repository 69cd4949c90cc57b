"""The documents as a site: every page is in its menu, the calculator is right, and the notebook runs."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from eigenlens.index.building.sizes import codes_bytes, index_bytes
from eigenlens.index.faiss_engine.suitable_kinds import choose_indexes
from eigenlens.index.tuning import DEFAULT_TUNING
from tests.support.service import build_gallery, serving, settings_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def node() -> str:
    """The path of a program that runs JavaScript: Playwright brings one."""
    spec = importlib.util.find_spec("playwright")
    bundled = None if spec is None or spec.origin is None else Path(spec.origin).parent / "driver" / "node"
    program = str(bundled) if bundled is not None and bundled.exists() else shutil.which("node")
    if program is None:
        pytest.skip("neither playwright nor node is installed")
    return program


def pages(menu: Any) -> list[str]:
    if isinstance(menu, str):
        return [menu]
    return [page for entry in (menu.values() if isinstance(menu, dict) else menu) for page in pages(entry)]


def test_every_page_is_in_the_menu_once() -> None:
    menu = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(menu) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_no_page_loads_anything_from_another_host() -> None:
    loading = re.compile(r"(?:src|srcset)=[\"']?https?:|!\[[^\]]*\]\(https?:|@import|url\(https?:")
    for path in DOCS.rglob("*.md"):
        assert not loading.search(path.read_text()), path


@pytest.mark.parametrize(
    ("count", "lengths", "full"),
    [
        (5_000, [8, 16, 256], ""),
        (100_000, [4, 8, 16, 32, 64, 128, 256], ""),
        (1_000_000, [16, 64, 256], "half"),
        (10_000_000, [8, 16, 32, 128, 384], ""),
    ],
)
def test_the_calculator_tells_what_a_build_tells(count: int, lengths: list[int], full: str) -> None:
    arguments = ", ".join(map(json.dumps, (count, lengths[-1], lengths[:-1], full)))
    program = f"console.log(JSON.stringify(require({str(DOCS / 'assets/calculator.js')!r}).sizes({arguments})))"
    told = json.loads(subprocess.run([node(), "-e", program], capture_output=True, check=True).stdout)
    specs = choose_indexes(count, lengths=lengths, kinds={lengths[-1]: full} if full else None)
    assert [(index["length"], index["kind"]) for index in told["indexes"]] == [(s.length, s.kind) for s in specs]
    assert told["codes"] == codes_bytes(count, lengths[-1])
    sizes = index_bytes(specs, count)
    assert [index["bytes"] for index in told["indexes"]] == pytest.approx([sizes[spec] for spec in specs], rel=0.25)
    assert sum(index["bytes"] for index in told["indexes"]) == pytest.approx(sum(sizes.values()), rel=0.2)
    assert f"MIN_CODES_FOR_IVF = {DEFAULT_TUNING.min_codes_for_ivf};" in (DOCS / "assets/calculator.js").read_text()


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads((DOCS / "start/tour.ipynb").read_text())
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 3
    gallery = build_gallery(tmp_path)
    with serving(settings_of(gallery)) as client:
        monkeypatch.setenv("EIGENLENS_URL", str(client.base_url))
        names: dict[str, Any] = {}
        for cell in cells:
            exec(compile(cell, "tour.ipynb", "exec"), names)
    told = capsys.readouterr().out
    assert "40 images; codes of 12" in told
    assert "of the first 5, with 2 of 12 numbers" in told


def test_the_site_builds_where_mkdocs_is_installed(tmp_path: Path) -> None:
    program = next(
        (p for p in (ROOT / ".venv/docs/bin/mkdocs", Path(sys.executable).parent / "mkdocs") if p.exists()), None
    )
    if program is None:
        pytest.skip("mkdocs is not installed: `make docs` installs it")
    command = [str(program), "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=.?https?:", page.read_text()), page
