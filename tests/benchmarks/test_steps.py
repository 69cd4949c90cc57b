"""The benchmark of training steps, over a few images."""

from __future__ import annotations

from pathlib import Path

import pytest

from eigenlens.benchmarks.common.records import read_records
from eigenlens.benchmarks.training.tables import steps_table
from eigenlens.command import main
from tests.support.training import tiny_overrides, write_images


def test_a_step_is_timed_beside_the_bare_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "steps.jsonl"
    command = ["bench", "steps", "--images", str(write_images(tmp_path / "images")), "--steps", "1", "--rounds", "1"]
    for override in tiny_overrides():
        command += ["--set", override]
    assert main([*command, "--device", "cpu", "--results", str(results)]) == 0
    records = {(r["method"], r["metric"]): r for r in read_records(results)}
    assert records["bare", "of bare"]["value"] == 1
    ratio = records["eigenlens", "step_ms"]["value"] / records["bare", "step_ms"]["value"]
    assert records["eigenlens", "of bare"]["value"] == pytest.approx(ratio, rel=0.05)
    assert records["eigenlens", "step_ms"]["params"]["training"]["batch_size"] == 16
    assert "relative to the bare network" in capsys.readouterr().out
    assert steps_table(read_records(results)).count("\n") >= 3
