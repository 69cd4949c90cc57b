"""Benchmarks of searching: tables and plots of records, codes of views, and each method measured once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eigenlens.benchmarks.common.records import Subject, make_record, read_records
from eigenlens.benchmarks.search import backends
from eigenlens.benchmarks.search import view_codes as view_code_module
from eigenlens.benchmarks.search.plot import quickest
from eigenlens.benchmarks.search.tables import NO_RECORDS, batch_table, codes_table, growth_table, search_table
from eigenlens.benchmarks.search.view_codes import view_codes, views_of_halves
from eigenlens.command import main
from eigenlens.index.codes.prefix import ROUNDING_OF_NORM, squared_norms
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.runtime.encoder import Encoder
from tests.support import service as service_builders
from tests.support.codes import write_codes


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


def test_codes_of_views_have_unit_norm_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = service_builders.write_images(tmp_path / "images", 5)
    encoder = Encoder(service_builders.write_encoder(tmp_path / "e"), runtime="onnxruntime")
    monkeypatch.setattr(encoder, "code_length", 128)
    monkeypatch.setattr(encoder, "encode", lambda views: np.random.default_rng(0).normal(size=(len(views), 128)))
    codes = view_codes(
        encoder, str(images), count=500, seed=0, directory=tmp_path / "codes", augmentation=AugmentationConfig()
    )
    np.testing.assert_allclose(squared_norms(codes), 1, atol=2 * ROUNDING_OF_NORM)


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


def test_backends_have_rows_in_random_order_whose_last_ones_are_a_sample(tmp_path: Path) -> None:
    given = write_codes(tmp_path / "given", np.eye(3, dtype=np.float32)[np.arange(600) // 200])
    codes, queries = backends._split(tmp_path, given, queries=100, count=None)
    assert sorted(codes.keys.tolist()) == sorted(given.keys[:500].tolist())
    assert len(set(codes.codes[-50:].argmax(axis=1).tolist())) == 3
    np.testing.assert_array_equal(queries, given.codes[500:])
