"""Two revisions measured in turn: here a checkout against itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from eigenlens.benchmarks.common.records import read_records
from eigenlens.benchmarks.common.revisions import Revision, RevisionError, alternating, ratios
from eigenlens.benchmarks.search import compare_revisions

CHECKOUT = Path(__file__).resolve().parents[2]


def test_searches_of_both_revisions_are_timed_over_one_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare_revisions, "_CODE_LENGTH", 16)
    monkeypatch.setattr(compare_revisions, "_QUERIES", 200)
    results = tmp_path / "revisions.jsonl"
    command = ["--before", str(CHECKOUT), "--after", str(CHECKOUT), "--work", str(tmp_path / "work")]
    command += ["--count", "2000", "--rounds", "3", "--queries-per-round", "100", "--results", str(results)]
    assert compare_revisions.main(command) == 0
    records = read_records(results)
    assert [(r["method"], r["metric"], r["params"]["recall"]) for r in records] == [
        (name, "latency_ms", target) for target in (0.95, 0.99) for name in ("before", "after")
    ]
    for record in records:
        assert record["value"] > 0
        assert record["params"]["queries"] == 300
        assert record["params"]["recall_seen"] >= record["params"]["recall"] - 0.03
    for before, after in zip(records[::2], records[1::2], strict=True):
        assert before["params"]["plan"] == after["params"]["plan"]
        assert before["params"]["recall_seen"] == after["params"]["recall_seen"]
    assert capsys.readouterr().out.count("after / before") == 2


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RevisionError, match="is no checkout"):
        Revision("before", tmp_path).require_importable()


def test_ratios_are_those_of_rounds_and_each_revision_is_first_in_turn() -> None:
    assert ratios({"before": [1.0, 2.0, 4.0], "after": [2.0, 2.0, 2.0]}) == (1.0, 0.75, 1.5)
    revisions = [Revision("before", CHECKOUT), Revision("after", CHECKOUT)]
    assert [[r.name for r in alternating(revisions, number)] for number in (0, 1)] == [
        ["before", "after"],
        ["after", "before"],
    ]
