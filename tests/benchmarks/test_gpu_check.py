"""The check of what a GPU changes, in its small form on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eigenlens.benchmarks.common.records import read_records
from eigenlens.benchmarks.gpu.command import PARTS, RECORDS
from eigenlens.command import main


def test_every_part_runs_small_and_none_runs_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "gpu", "--out", str(tmp_path), "--device", "cpu"]
    assert main(command) == 0, capsys.readouterr().err
    states = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in PARTS}
    assert {name for name, state in states.items() if state["status"] == "skipped"} == {"tests"}
    assert {name for name, state in states.items() if state["status"] == "done"} == PARTS.keys() - {"tests"}
    records = read_records(tmp_path / RECORDS)
    assert {r["method"] for r in records} == {
        "limits", "equality", "process group", "faiss", "export", "service", "steps",
    }  # fmt: skip
    assert all(r["params"]["on"]["device"] == "cpu" for r in records)

    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("done already") == len(PARTS) - 1
    assert len(read_records(tmp_path / RECORDS)) == len(records)


def test_a_part_that_fails_is_told_and_can_be_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eigenlens.benchmarks.gpu.training.GRADIENT_TOLERANCE", -1.0)
    command = ["bench", "gpu", "--out", str(tmp_path), "--device", "cpu", "--parts", "equality"]
    assert main(command) == 1
    answer = capsys.readouterr()
    assert "equality: failed" in answer.out
    assert "not done: equality; run the command again" in answer.err
    monkeypatch.undo()
    assert main(command) == 0


def test_an_unknown_part_is_refused_with_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", "--out", str(tmp_path), "--parts", "banana"]) == 1
    assert "there is no part 'banana'; available: limits, equality" in capsys.readouterr().err
