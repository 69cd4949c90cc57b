"""The benchmark of a whole gallery: every command runs, and what it records is near what a build computes before."""

from __future__ import annotations

from pathlib import Path

import pytest

from eigenlens.benchmarks.common.records import read_records
from eigenlens.command import main
from tests.support.service import build_gallery


@pytest.mark.timeout(120)
def test_a_small_gallery_goes_from_shards_to_answers(tmp_path: Path) -> None:
    gallery, results = build_gallery(tmp_path / "of", count=5), tmp_path / "results.jsonl"
    gallery.store.close()
    arguments = ["--gallery", str(gallery.root), "--work", str(tmp_path / "work"), "--results", str(results)]
    command = ["bench", "gallery-scale", *arguments, "--count", "400", "--length", "4"]
    assert main(command) == 0
    values = {(record["method"], record["metric"]): record["value"] for record in read_records(results)}
    assert values["faiss codes", "bytes_by_computed"] == pytest.approx(1, abs=0.15)
    assert values["faiss 4", "bytes_by_computed"] == pytest.approx(1, abs=0.15)
    assert values["serve faiss", "p50_ms"] > 0
    assert values["encode", "processor_s"] > 0
    again = len(read_records(results))
    (tmp_path / "work" / "serve faiss.ended").unlink()  # as if it was stopped meanwhile
    assert main(command) == 0
    steps = {record["method"] for record in read_records(results)[again:]}
    assert steps == {"faiss codes", "faiss 4", "faiss 12", "serve faiss"}
