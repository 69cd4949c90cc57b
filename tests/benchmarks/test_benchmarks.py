"""Benchmarks: records survive interruption, tables come from records, and the README's are the drawn ones."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eigenlens.benchmarks import documents
from eigenlens.benchmarks.command import BENCHMARKS
from eigenlens.benchmarks.common.labelled import LabelledImages
from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
from eigenlens.benchmarks.duplicates.agreement import agreement
from eigenlens.benchmarks.duplicates.join import measure_join
from eigenlens.benchmarks.duplicates.planted import write_planted
from eigenlens.benchmarks.encoder import novelty
from eigenlens.benchmarks.encoder.fashion import pca_of_pixels
from eigenlens.benchmarks.quality.tables import quality_table
from eigenlens.benchmarks.search import view_codes as view_code_module
from eigenlens.benchmarks.search.plot import quickest
from eigenlens.benchmarks.search.tables import NO_RECORDS, batch_table, codes_table, growth_table, search_table
from eigenlens.benchmarks.search.view_codes import view_codes, views_of_halves
from eigenlens.command import main
from eigenlens.model.config import AugmentationConfig, load_config
from eigenlens.model.runtime.encoder import Encoder
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


def test_a_search_table_shows_each_method_at_its_targets() -> None:
    def search(method: str, metric: str, value: float, **params: object) -> dict[str, Any]:
        common = {"n": 100, "recall_seen": 0.96, "encoder": "e"}
        return make_record(Subject(bench="search", data="d", method=method, params=common | params), metric, value)

    records = [
        search("scann", "build_s", 9.0, encoder="of other codes"),
        search("eigenlens", "build_s", 12.4),
        search("eigenlens", "memory_bytes", 5e6, recall=0.99),
        search("eigenlens", "latency_ms", 0.5, exact=True),
        search("eigenlens", "latency_ms", 0.05, recall=0.95),
        search("eigenlens", "latency_ms", 9.0, curve=True),
        search("svs", "build_s", 1),
        search("svs", "memory_bytes", 7e6),
        search("svs", "build_s", 1, n=5),
        search("eigenlens", "build_s", 3, n=2000, peak_resident_bytes=8e6),
        search("eigenlens-memory", "build_s", 2, n=2000, peak_resident_bytes=7e6),
    ]
    records += [
        search("svs+prefix", "latency_ms", 0.04, recall=0.95, prefix=32),
        search("svs+prefix", "latency_ms", 0.06, recall=0.99, prefix=64),
        search("svs+prefix", "build_s", 7, recall=0.95),
        search("svs+prefix", "build_s", 8, recall=0.99),
        search("svs+prefix", "memory_bytes", 9e6, recall=0.95),
    ]
    rows = [
        "| **Eigenlens** | 0.5 ms | 0.05 ms (0.960) | – | – | 12 s | 5 MB |",
        "| SVS (Vamana) over 32, 64 | – | 0.04 ms (0.960) | 0.06 ms (0.960) | – | 8 s | 9 MB |",
    ]
    assert search_table(records, data="d", count=100).splitlines()[2:] == [
        *rows,
        "| SVS (Vamana) | – | – | – | – | 1 s | 7 MB |",
    ]
    assert search_table(records, data="d", count=7) == search_table(records, data="other", count=100) == ""
    by_codes = codes_table(records, names={"other": "Other", "d": "Views"}, count=100)
    assert by_codes.splitlines()[2:] == [f"| Views {row}" for row in rows]
    assert growth_table([r for r in records if r["params"]["n"] == 2000], data="d").splitlines()[2:] == [
        "| 2,000 | – | – | – | – | 3 s | 8 MB |",
        "| 2,000, least memory | – | – | – | – | 2 s | 7 MB |",
    ]
    assert growth_table(records, data="other") == ""
    assert batch_table(records, data="d", count=100) == NO_RECORDS
    records += [
        search("svs", "queries_per_s", 1234.5, recall=0.95, batch=1),
        search("svs", "queries_per_s", 9876.5, recall=0.99, batch=1000),
    ]
    assert batch_table(records, data="d", count=100).splitlines() == [
        "| method | 0.95, one query | 0.95, batches of 1,000 | 0.99, one query | 0.99, batches of 1,000 |",
        "|---|---|---|---|---|",
        "| SVS (Vamana) | 1,234/s | – | – | 9,876/s |",
    ]


def test_a_plot_has_the_quickest_search_of_each_recall() -> None:
    assert quickest([(0.9, 2.0), (0.95, 1.0), (0.99, 3.0), (0.97, 3.0), (0.8, 0.5)]) == [
        (0.8, 0.5), (0.95, 1.0), (0.99, 3.0),
    ]  # fmt: skip


def test_codes_of_views_go_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = service_builders.write_images(tmp_path / "images", 5)
    encoder = Encoder(service_builders.write_encoder(tmp_path / "e"), runtime="onnxruntime")
    monkeypatch.setattr(view_code_module, "_SAVE_EVERY_S", -1)

    def codes(folder: str, count: int) -> Any:
        views = AugmentationConfig()
        return view_codes(encoder, str(images), count=count, seed=0, directory=tmp_path / folder, augmentation=views)

    whole = np.array(codes("whole", 1200))
    assert (whole[500:1000] != whole[:500]).any(axis=1).mean() > 0.9, "other views of the same photographs"
    encode, calls = encoder.encode, []

    def stop_in_the_third_batch(batch: Any) -> Any:
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(batch)

    monkeypatch.setattr(encoder, "encode", stop_in_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        codes("stopped", 1200)
    np.testing.assert_array_equal(codes("stopped", 1200), whole)
    assert calls == [500] * 4, "the first two batches are not encoded again"
    np.testing.assert_array_equal(codes("stopped", 600), whole[:600])
    assert len(calls) == 4


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


def test_search_is_measured_beside_another_index_and_not_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, encoder = (
        service_builders.write_images(tmp_path / "images", 60),
        service_builders.write_encoder(tmp_path / "e"),
    )
    results = tmp_path / "results.jsonl"
    command = ["bench", "search", "--encoder", str(encoder), "--images", str(images), "--query-images", str(images)]
    command += ["--work", str(tmp_path / "work"), "--count", "1500", "--lengths", "4,8", "--kinds", "8=ivf-sq8"]
    command += ["--methods", "flat,eigenlens-memory,faiss-hnsw", "--batches", "", "--results", str(results)]
    assert main(command) == 0
    found = read_records(results)
    assert {entry["method"] for entry in found} == {"flat", "eigenlens-memory", "faiss-hnsw"}
    by_target = {
        entry["params"]["recall"]: entry["params"]["recall_seen"]
        for entry in found
        if entry["method"] == "eigenlens-memory" and entry["metric"] == "latency_ms" and "recall" in entry["params"]
    }
    assert set(by_target) == {0.9, 0.95, 0.99, 0.999}
    assert all(seen >= target - 0.01 for target, seen in by_target.items())
    exact = [entry for entry in found if entry["params"].get("exact")]
    assert [entry["method"] for entry in exact] == ["flat", "eigenlens-memory"]
    assert all(entry["params"]["identical"] for entry in exact)
    assert main(command) == 0
    assert read_records(results) == found
    assert "is in" in capsys.readouterr().err
    assert main([*command, "--methods", ""]) == 0, "nothing but the codes and their neighbours"
    assert read_records(results) == found
    assert len(list((tmp_path / "work" / "1500").glob("truth-*.npy"))) == 2
    assert main([*command[:-4], "--methods", "nothing"]) == 1
    assert "there is no method 'nothing'; available: flat, eigenlens" in capsys.readouterr().err


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


def test_promises_are_measured_for_every_k_kind_of_filter_and_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = service_builders.build_gallery(tmp_path, count=60)
    results = tmp_path / "results.jsonl"
    command = ["bench", "promises", "--gallery", str(gallery.root), "--work", str(tmp_path / "work")]
    assert main([*command, "--queries", "10", "--added", "50", "--results", str(results)]) == 0
    records = read_records(results)
    assert {entry["params"]["k"] for entry in records} == {1, 10, 24, 50, 100, 200, 500, 1000}
    kinds = {(entry["params"]["selectivity"], entry["params"]["correlation"]) for entry in records}
    assert len(kinds) == 1 + 4 * 3
    changes = {(entry["params"].get("added"), entry["params"].get("removed")) for entry in records}
    assert changes == {(None, None), (50, 0.0), (0, 0.5), (50, 0.5)}
    of = {metric: [e["value"] for e in records if e["metric"] == metric] for metric in ("recall_seen", "short_answers")}
    assert min(of["recall_seen"]) == 1, "everything is exact in so small a gallery"
    assert set(of["short_answers"]) == {0}
    assert "against" in capsys.readouterr().out


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


@pytest.mark.parametrize(("photographs", "views"), [(10_000, 10_000), (60, 10_000), (3, 10_000)])
def test_plans_are_measured_by_other_photographs_than_chose_them_of_all_classes(photographs: int, views: int) -> None:
    """An archive may be sorted by class."""
    chosen = [rows % photographs for rows in views_of_halves(photographs, views=views, count=2000, seed=0)]
    assert [len(half) for half in chosen] == [2000, 2000]
    assert not set(chosen[0]) & set(chosen[1])
    if photographs >= 60:
        for half in chosen:
            tenths = np.bincount(half * 10 // photographs, minlength=10) / len(half)
            assert tenths.min() > 0.02


def test_planted_duplicates_are_told_from_what_is_found(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photographs / f"{number}.png")
    write_planted(tmp_path / "planted", str(photographs), count=18, groups=2, seed=0)
    names = sorted(path.name for path in (tmp_path / "planted").iterdir())
    assert len(names) == 18
    assert sum("single" in name for name in names) == 4
    first = [name for name in names if name.startswith("00000-")]
    copies = {name: (tmp_path / "planted" / name).read_bytes() for name in first}
    assert copies["00000-copied.png"] == copies["00000-original.png"]
    assert len(set(copies.values())) == len(first) - 1
    # All of the first group; of the second the original and one copy, with an image that is in no group.
    shares = agreement([first, ["00001-original.png", "00001-mirrored.png", "00003-single.png"]], 2)
    assert (shares["precision"], shares["recall"], shares["whole"]) == (0.5, 1, 0.5)
    assert (shares["recall mirrored"], shares["recall cropped"]) == (1, 0.5)


def test_a_join_of_codes_has_the_groups_of_all_pairs() -> None:
    measured = {name: value for name, (value, _) in measure_join(4000, cosine=0.98, seed=0).items()}
    assert measured["same_groups"] == measured["planted_recall"] == 1
    assert measured["sample_groups"] >= 40
    assert 0 < measured["compared_share"] < 1
