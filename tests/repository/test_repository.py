"""The repository's own rules: format, lint, types, import contracts, and a command that teaches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eigenlens.command import COMMANDS, main

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.lint
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command",
    [["ruff", "format", "--check", "."], ["ruff", "check", "."], ["mypy"], ["lint-imports"]],
    ids=["format", "lint", "types", "contracts"],
)
def test_it_is_clean(command: list[str]) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_teaches_by_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"eigenlens {command}" in capsys.readouterr().out.partition("example")[2]


def test_the_command_lists_its_commands_and_names_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        assert main(arguments) == 0
        listed = capsys.readouterr().out
        assert all(f"  {name} " in listed for name in COMMANDS)
    assert main(["serv"]) == 2
    assert "'serv'" in capsys.readouterr().err


def test_the_service_and_the_index_load_without_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import eigenlens.service.http.app, eigenlens.service.commands.build, eigenlens.service.commands.serve\n"
        "import eigenlens.service.commands.search, eigenlens.service.jobs.worker, eigenlens.index.codes.exact\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_sources_name_no_machine_path() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    for path in (ROOT / name for name in tracked):
        if path.is_file():  # not a link to a folder
            assert "/" + "work/main" not in path.read_text(errors="ignore"), path
