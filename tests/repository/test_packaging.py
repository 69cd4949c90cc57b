"""What is installed: one package with all its data, from the wheel and the sdist alike, and what it needs for what."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import grimp
import pytest

from eigenlens.command import COMMANDS, EXTRAS

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "index", "model", "service")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Commands that need no extra: they ask a service, touch the file of keys alone, or import nothing until they run.
LIGHT = (
    "up", "doctor", "ready", "completion",
    "search", "add", "rm", "rebuild", "recalibrate", "duplicates", "jobs", "generations", "stats", "backup", "restore",
    "keys", "bench", "migrate", "images",
)  # fmt: skip

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of the checkout, and the wheel of its sdist."""
    root = tmp_path_factory.mktemp("packaging")
    checkout = root / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "results")
    for name in ("eigenlens", *FOLDERS):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignored)
    for name in ("LICENSE", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    program = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    run([sys.executable, "-c", program, str(root)], cwd=checkout)
    (sdist,) = root.glob("*.tar.gz")
    return {
        "checkout": build_wheel(checkout, root / "wheels" / "checkout"),
        "sdist": build_wheel(sdist, root / "wheels" / "sdist"),
    }


def build_wheel(source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
    run([*command, "--no-build-isolation", "--no-deps", "--wheel-dir", str(target), str(source)], cwd=source.parent)
    (wheel,) = target.glob("*.whl")
    return wheel


def run(command: list[str], *, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("source", ["checkout", "sdist"])
def test_one_top_level_name_is_installed_and_nothing_is_missing_below_it(wheels: dict[str, Path], source: str) -> None:
    names = set(contents(wheels[source]))
    assert {name.partition("/")[0] for name in names} == {"eigenlens", f"eigenlens-{PROJECT['version']}.dist-info"}
    installed = {name.removeprefix("eigenlens/") for name in names if name.startswith("eigenlens/")}
    expected = {path.name for path in (ROOT / "eigenlens").iterdir() if path.is_file()}
    for folder in FOLDERS:
        expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
    expected = {name for name in expected if "__pycache__" not in name and not name.startswith("benchmarks/results/")}
    assert installed == expected
    assert {"py.typed", "service/page/views/search.js", "model/presets/fashion-demo.toml"} <= installed


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_checkout(wheels: dict[str, Path]) -> None:
    assert contents(wheels["sdist"]) == contents(wheels["checkout"])


def test_the_sdist_holds_no_other_top_folder(wheels: dict[str, Path]) -> None:
    (sdist,) = wheels["sdist"].parents[2].glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {Path(name).parts[1] for name in archive.getnames() if "/" in name}
        assert not [member.name for member in archive if member.issym() or member.islnk()]
    assert names == {
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "eigenlens",
        "eigenlens.egg-info",
        "pyproject.toml",
        "setup.cfg",
    }


def test_the_client_needs_httpx_httpx_sse_and_pydantic_alone() -> None:
    program = "from eigenlens import AsyncClient, Client; print(Client.__name__, AsyncClient.__name__)"
    assert run_with_only(["httpx", "httpx-sse", "pydantic"], program) == "Client AsyncClient\n"


def test_commands_that_ask_a_service_need_no_extra_and_the_others_name_theirs_in_one_sentence() -> None:
    program = f"""
import contextlib, io, json
from eigenlens.command import COMMANDS, main

def outcome(*arguments):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = ended.code
    return status, error.getvalue()

outcomes = {{name: outcome(name, "--help") for name in COMMANDS}}
outcomes["bench search"] = outcome("bench", "search", "--help")
outcomes["restore here"] = outcome("restore", "{ROOT / "README.md"}", "--gallery", "nowhere")
print(json.dumps(outcomes))
"""
    outcomes = json.loads(run_with_only([name_of(line) for line in PROJECT["dependencies"]], program))
    assert all(outcomes.pop(name) == [0, ""] for name in LIGHT)
    assert set(outcomes) == set(COMMANDS) - set(LIGHT) | {"bench search", "restore here"}
    for name, (status, error) in outcomes.items():
        assert status == 1, name
        extra = "train" if name in ("train", "fit", "export") else "cpu"
        command = re.escape(name.split()[0])
        assert re.fullmatch(rf"eigenlens: error: `{command}` needs \w+: pip install .*\[{extra}\].*\n", error), error


def test_a_command_whose_base_package_is_missing_says_so_in_one_sentence() -> None:
    """It was a traceback, such as after `pip install --no-deps`."""
    program = """
import contextlib, io
from eigenlens.command import COMMANDS, main

for name in COMMANDS:
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        try:
            status = main([name, "--help"])
        except SystemExit as ended:
            status = ended.code
    print(name, status, error.getvalue().strip())
"""
    outcomes = dict(line.split(" ", 1) for line in run_with_only([], program).splitlines())
    assert set(outcomes) == set(COMMANDS)
    needs = {name: outcome for name, outcome in outcomes.items() if outcome.strip() != "0"}
    assert {"search", "doctor"} <= set(needs) <= set(COMMANDS) - {"ready", "completion"}
    for name, outcome in needs.items():
        assert re.fullmatch(rf"1 eigenlens: error: `{name}` needs \w+: pip install .*", outcome), outcome
    assert re.search(r"needs httpx: pip install \S+ '?[^\[]*'?$", needs["search"]), needs["search"]


def test_whatever_is_imported_comes_with_the_base_or_with_a_known_extra() -> None:
    graph = grimp.build_graph("eigenlens", include_external_packages=True, cache_dir=None)
    external = {name for name in graph.modules if not name.startswith("eigenlens")} - sys.stdlib_module_names
    # Each of these has a message of its own where it is missing.
    own_message = {"axe_playwright_python", "lightly", "playwright", "torch_geometric"}
    base = {name_of(line).replace("-", "_") for line in PROJECT["dependencies"]}
    assert external - base - own_message - set(EXTRAS) == set(), "name the extra that brings it in eigenlens.command"
    assert set(EXTRAS) - external == set(), "nothing imports this any more"
    assert set(EXTRAS.values()) <= set(PROJECT["optional-dependencies"])


def name_of(requirement: str) -> str:
    """Return the normalised name of the distribution that a requirement asks for."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def run_with_only(allowed: list[str], program: str) -> str:
    """Return what the program prints where only these distributions and what they require can be imported."""
    required = {name_of(found.metadata["Name"]): found.requires or [] for found in distributions()}
    present: set[str] = set()
    queue = list(allowed)
    while queue:
        name = queue.pop()
        if name in required and name not in present:
            present.add(name)
            queue += [name_of(line) for line in required[name] if "extra ==" not in line]
    refused = [
        module
        for module, owners in packages_distributions().items()
        if module != "eigenlens" and not present & {name_of(owner) for owner in owners}
    ]
    finder = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""
    return run([sys.executable, "-c", finder + program], cwd=ROOT)
