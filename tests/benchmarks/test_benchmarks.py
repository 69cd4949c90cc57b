"""Benchmarks: records survive interruption, tables come from records, and the README's are the drawn ones."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eigenlens.benchmarks import documents
from eigenlens.benchmarks.command import BENCHMARKS
from eigenlens.benchmarks.common.labelled import LabelledImages
from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
from eigenlens.benchmarks.encoder import novelty
from eigenlens.benchmarks.encoder.fashion import pca_of_pixels
from eigenlens.benchmarks.quality.tables import quality_table
from eigenlens.command import main
from eigenlens.model.config import load_config
from eigenlens.model.training.run import Run
from tests.support import service as service_builders
from tests.support.training import finished_run, tiny_overrides, write_images


def record(method: str, length: int, value: float, queries_from: str = "test") -> dict[str, object]:
    params = {"queries_from": queries_from}
    return make_record(
        Subject(bench="quality", data="d", method=method, length=length, params=params), "precision@100", value
    )


def test_a_record_says_how_to_obtain_it_again(tmp_path: Path) -> None:
    made = record("m", 4, 0.5)
    assert {"commit", "machine", "command", "date", "seed"} <= set(made)
    assert "cores" in str(made["machine"])
    append_records(tmp_path / "r.jsonl", [made])
    append_records(tmp_path / "r.jsonl", [made])
    with (tmp_path / "r.jsonl").open("a") as f:
        f.write('{"bench": "qua')
    assert read_records(tmp_path / "r.jsonl") == [made, made]


def test_a_table_shows_the_newest_values_of_the_queries_that_were_asked_for() -> None:
    records = [record("a", 4, 0.1), record("a", 4, 0.2), record("a", 4, 0.9, "validation"), record("a", 128, 0.3)]
    records += [record("pca", 4, 0.15), record("pca", 784, 0.25), record("other", 4, 0.5)]
    table = quality_table(records, queries_from="test", names={"a": "ours", "pca": "PCA"})
    assert table.splitlines() == [
        "| length | 4 | full |",
        "|---|---|---|",
        "| ours | 0.200 | 0.300 (128) |",
        "| PCA | 0.150 | 0.250 (784) |",
    ]


@pytest.mark.parametrize("table", documents.TABLES, ids=lambda table: f"{table.document.name} {table.name}")
def test_a_document_shows_the_records(table: documents.Table) -> None:
    text = table.document.read_text()
    assert table.draw()
    assert table.render(text) == text, "run: eigenlens bench tables"


def test_the_tables_are_drawn_by_their_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copies = []
    for number, table in enumerate(documents.TABLES):
        document = tmp_path / f"{number}.md"
        document.write_text(table.document.read_text().replace(table.draw(), "an older table"))
        copies.append(replace(table, document=document))
    monkeypatch.setattr(documents, "TABLES", tuple(copies))
    monkeypatch.setattr(documents, "PLOTS", ())
    assert main(["bench", "tables"]) == 0
    for number, table in enumerate(copies):
        drawn = (tmp_path / f"{number}.md").read_text()
        assert table.draw() in drawn
        assert "an older table" not in drawn


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: eigenlens bench {name} [-h]")
    assert BENCHMARKS[name][1].split()[-1] in shown
    assert f"\n  eigenlens bench {name}" in shown


def test_the_list_of_benchmarks_imports_none_of_them() -> None:
    code = "import sys; from eigenlens.command import main\n"
    code += "try: main(['bench', '--help'])\nfinally: print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name, (_, summary) in BENCHMARKS.items():
        assert f"\n    {name} " in shown
        assert summary.split()[0] in shown
    modules = shown.splitlines()[-1].split()
    assert "eigenlens.benchmarks.command" in modules
    assert not {"torch", "faiss", "numpy"} & set(modules)


def test_pca_is_that_of_the_gallery() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (50, 3, 3, 1), dtype=np.uint8).repeat(3, axis=3)
    gallery, queries = pca_of_pixels(pixels, pixels[:5])
    covariance = np.cov(gallery.T)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-6)
    assert (np.diff(np.diag(covariance)) <= 1e-9).all()
    np.testing.assert_allclose(queries, gallery[:5], atol=1e-5)


def test_the_time_of_a_run_is_read_from_its_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "images")
    unfinished = Run.start(tmp_path / "new", images=str(images), config=load_config(None, tiny_overrides()))
    assert main(["bench", "training", "--run", str(unfinished.path)]) == 1
    assert "not finished" in capsys.readouterr().err
    start = time.monotonic()
    run = finished_run(tmp_path / "run", images, steps=5)
    minutes = (time.monotonic() - start) / 60
    results = tmp_path / "r.jsonl"
    assert main(["bench", "training", "--run", str(run.path), "--results", str(results)]) == 0
    values = {entry["metric"]: entry["value"] for entry in read_records(results)}
    assert 0 < values["minutes"] < minutes
    assert values["images_per_s"] > 0


@pytest.mark.parametrize("arguments", [["--lengths", "x"], ["--k", "0"], ["--queries", "training"]])
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "encoder", "--encoder", "nowhere", *arguments])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_strangers_and_held_out_images_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 256, (5, 2, 2, 3))

    def draw(count: int) -> LabelledImages:
        labels = rng.integers(5, size=count)
        pixels = (kinds[labels] + rng.normal(0, 12, (count, 2, 2, 3))).clip(0, 255)
        return LabelledImages(pixels.astype(np.uint8), labels)

    monkeypatch.setattr(novelty, "load_fashion_mnist", lambda queries: (draw(1500), draw(500)))
    encoder = service_builders.write_encoder(tmp_path / "e")
    images, results = service_builders.write_images(tmp_path / "images", 80), tmp_path / "results.jsonl"
    command = ["bench", "novelty", "--encoder", str(encoder), "--strangers", str(images), "--name", "random"]
    gallery = service_builders.build_gallery(tmp_path / "served", count=60).root
    asked = ["--classes", "ev", "--queries", "40", "--gallery", str(gallery), "--results", str(results)]
    assert main([*command, *asked]) == 0
    told = {(entry["method"], entry["length"], entry["metric"]): entry["value"] for entry in read_records(results)}
    assert told["best-score", 12, "strangers_told"] == 1
    assert all(told["best-score", length, "held_out_told"] <= 0.02 for length in (4, 8, 12))
    assert told["eigenlens", 12, "strangers_told"] > 0.5
    assert told["eigenlens", 12, "held_out_told"] <= 0.03
    assert told["service", 12, "strangers_told"] < 0.5, "its gallery has random images too"
    assert "40 of random" in capsys.readouterr().out
    assert main([*command, "--classes", "odd", "--queries", "41"]) == 1
    assert "has 40 images of these classes" in capsys.readouterr().err


def test_searches_are_timed_while_images_arrive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = service_builders.build_gallery(tmp_path, count=20)
    command = ["bench", "adds", "--gallery", str(gallery.root), "--images", str(tmp_path / "images")]
    results = tmp_path / "results.jsonl"
    command += ["--rate", "100", "--batch", "10", "--seconds", "2", "--results", str(results)]
    assert main(command) == 0
    assert "0 requests failed" in capsys.readouterr().out
    assert {(entry["method"], entry["metric"]) for entry in read_records(results)} == {
        (name, f"p{q}_ms") for name in ("idle", "busy") for q in (50, 95, 99)
    }
