"""What docker/prepare.sh decides to do: programs that note their words take the place of `eigenlens` and `python`."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.docker_files import ROOT, compose

SCRIPT = ROOT / "docker/prepare.sh"


def stand_in(folder: Path, name: str, body: str) -> None:
    """Write a shell script that is found in the place of a program."""
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def prepare(folder: Path, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script with the programs of a folder."""
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | variables
    command = [str(SCRIPT), *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def calls_of(folder: Path, *, status: int) -> Path:
    """Put a program in the place of `eigenlens` that notes what it is asked for. Returns: the file of its notes."""
    calls = folder / "calls"
    stand_in(folder, "eigenlens", f'echo "$@" >> {shlex.quote(str(calls))}\nexit {status}')
    return calls


@pytest.mark.parametrize(("missing", "made_again"), [("training/encoder", "export"), ("gallery", "build")])
def test_only_what_is_missing_is_made_again(tmp_path: Path, missing: str, made_again: str) -> None:
    marks = {"training/run": "manifest.json", "training/encoder": "manifest.json", "gallery": "CURRENT"}
    for made in marks.keys() - {missing}:
        (tmp_path / made).mkdir(parents=True)
        (tmp_path / made / marks[made]).touch()
    calls = calls_of(tmp_path, status=0)
    assert prepare(tmp_path, tmp_path / "training", tmp_path / "gallery", tmp_path / "images").returncode == 0
    (call,) = calls.read_text().splitlines()
    assert call.split()[0] == made_again
    assert str(tmp_path / missing) in call


def test_without_images_the_sample_is_trained_on_and_a_failure_is_passed_on(tmp_path: Path) -> None:
    calls = calls_of(tmp_path, status=7)
    words = [word.replace("/data", str(tmp_path)) for word in compose()["services"]["prepare"]["command"]]
    assert prepare(tmp_path, *words).returncode == 7
    training = f"train --images fashion-mnist:train --config fashion-demo --out {tmp_path}/training/run\n"
    assert calls.read_text() == training


def test_another_folder_of_the_same_project_is_refused(tmp_path: Path) -> None:
    stand_in(tmp_path, "eigenlens", 'mkdir -p "$4" && touch "$4/manifest.json" "$4/CURRENT"')
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()

    def prepare_folder(images: str, name: str) -> subprocess.CompletedProcess[str]:
        return prepare(tmp_path, tmp_path / "t", tmp_path / "g", tmp_path / images, "--seed", "1", FOLDER=name)

    prepare_folder("a", "~/a")
    refused = prepare_folder("b", "~/b")
    assert refused.returncode == 1
    assert "this project's gallery is of ~/a, and IMAGES is now ~/b" in refused.stdout
    for images, name in (("a", "~/a"), ("a", "./a"), ("b", "~/a")):  # the same place, or the same name
        assert "gallery is of" not in prepare_folder(images, name).stdout


@pytest.mark.parametrize(
    ("installed", "options", "first"),
    [
        (True, [], "fit --images {images} --out {training}/encoder"),
        (False, [], "train"),
        (True, ["--seed", "1"], "train"),
    ],
)
def test_a_head_is_fitted_to_own_photographs_where_a_backbone_is_installed(
    tmp_path: Path, installed: bool, options: list[str], first: str
) -> None:
    calls = calls_of(tmp_path, status=7)
    stand_in(tmp_path, "python", f"exit {int(not installed)}")
    training, images = tmp_path / "training", tmp_path / "my photos"
    assert prepare(tmp_path, training, tmp_path / "gallery", images, *options).returncode == 7
    [call] = calls.read_text().splitlines()
    assert call.startswith(first.format(images=images, training=training))


def test_make_demo_prepares_with_the_same_script() -> None:
    command = ["make", "--no-print-directory", "--dry-run", "demo", "PORT=9000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    prepare, serve = (shlex.split(line) for line in done.stdout.splitlines()[-2:])
    _, script, training, gallery, images = prepare
    assert (ROOT / script, images) == (SCRIPT, "fashion-mnist")
    assert os.access(SCRIPT, os.X_OK)
    assert Path(gallery).parent == Path(training)
    assert serve[1:] == ["serve", "--gallery", gallery, "--host", "127.0.0.1", "--port", "9000"]


def test_make_demo_of_a_folder_keeps_in_step_with_it() -> None:
    command = ["make", "--no-print-directory", "--dry-run", "demo", "IMAGES=my photos", "PORT=9000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    words = shlex.split(done.stdout.splitlines()[-1])
    assert words[1:4] == ["up", "my photos", "--work"]
    assert words[5:] == ["--host", "127.0.0.1", "--port", "9000", "--no-browser"]
