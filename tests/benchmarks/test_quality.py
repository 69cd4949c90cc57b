"""The comparison of objectives: its measures against oracles, what methods share, and that it carries on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.benchmarks.common.labelled import LabelledImages, load_labelled
from eigenlens.benchmarks.common.retrieval import (
    Cutoffs,
    LabelledCodes,
    nearest,
    probe_accuracy,
    retrieval_quality,
    vote_accuracy,
)
from eigenlens.benchmarks.quality import methods as quality
from eigenlens.benchmarks.quality.methods import METHODS, closed_form, config_of, hold_out, measure_codes
from eigenlens.benchmarks.quality.plot import plot_quality
from eigenlens.benchmarks.quality.tables import newest_values
from eigenlens.command import main
from tests.support import oracles
from tests.support.training import tiny_overrides, write_images


def codes(seed: int, n: int, length: int = 6) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, length)).astype(np.float32)


def labels(seed: int, n: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 3, n)


def test_retrieval_quality_is_agreement_with_labels_of_exact_search() -> None:
    gallery, queries, gallery_labels, query_labels = codes(0, 30), codes(1, 5), labels(2, 30), labels(3, 5)
    labelled = LabelledCodes(gallery, gallery_labels, queries, query_labels)
    measured = retrieval_quality(labelled, lengths=[3, 6], at=Cutoffs(4, 7, votes=3))
    for length in (3, 6):
        exact = oracles.cosine(queries, gallery, length=length)
        best = np.argsort(-exact, axis=1)
        assert measured[length]["precision@4"] == pytest.approx(
            np.mean(gallery_labels[best[:, :4]] == query_labels[:, None])
        )
        average = []
        for q in range(5):
            right = [gallery_labels[row] == query_labels[q] for row in best[q, :7]]
            at = [sum(right[: i + 1]) / (i + 1) for i in range(7) if right[i]]
            average.append(sum(at) / len(at) if at else 0.0)
        assert measured[length]["mAP@7"] == pytest.approx(np.mean(average))
        votes = [
            [sum(exact[q, r] for r in best[q, :3] if gallery_labels[r] == kind) for kind in range(3)] for q in range(5)
        ]
        assert measured[length]["kNN accuracy@3"] == pytest.approx(np.mean(np.argmax(votes, 1) == query_labels))


def test_the_nearest_are_those_of_exact_search_best_first() -> None:
    gallery, queries = codes(4, 700), codes(5, 3)
    scores, rows = nearest(gallery, queries, length=5, k=9)
    exact = oracles.cosine(queries, gallery, length=5)
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :9], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(exact, rows, 1), scores, atol=1e-5)


def test_a_linear_probe_finds_what_is_linear_and_only_in_its_prefix() -> None:
    kinds = labels(6, 600)
    gallery = codes(7, 600)
    gallery[:, 2] += 6 * kinds
    gallery[:, 4] += 6 * (kinds == 1)
    labelled = LabelledCodes(gallery[:500], kinds[:500], gallery[500:], kinds[500:])
    accuracies = [probe_accuracy(labelled, length=n) for n in (2, 3, 5)]
    assert accuracies[0] < 0.5
    assert accuracies[1] > 0.6
    assert accuracies[2] > 0.95


def test_votes_are_weighed_by_score() -> None:
    scores, rows = np.array([[0.9, 0.3, 0.3]], np.float32), np.array([[0, 1, 2]])
    assert vote_accuracy(scores, rows, np.array([1, 0, 0]), np.array([1])) == 1.0


def test_methods_differ_in_their_objective_and_in_nothing_else() -> None:
    configs = [config_of("cifar10", method, seed=1, changes={}) for method in METHODS.values()]
    assert len({str(config.model_dump(exclude={"objective"})) for config in configs}) == 1
    assert len({config.objective.name for config in configs}) == 6


def test_a_basis_is_named_by_a_method_and_otherwise_follows_the_length_of_training() -> None:
    def basis(data: str, name: str) -> str | None:
        step = closed_form(METHODS[name], config_of(data, METHODS[name], seed=0, changes={}))
        return None if step is None else step.basis

    for data, of_default in (("cifar10", "features"), ("cifar10-long", "projector")):
        assert basis(data, "eigenlens") == of_default
        assert basis(data, "eigenlens-features") == "features"
        assert basis(data, "eigenlens-outputs") == "projector"
        assert basis(data, "vicreg+pca") is None


def test_tables_and_pictures_show_the_newest_record_of_each_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(data: str, seed: int, value: float, queries: str = "test") -> dict[str, Any]:
        place = {"data": data, "method": "eigenlens", "metric": "mAP@1000", "seed": seed, "length": 8}
        return place | {"value": value, "params": {"queries_from": queries}}

    records = [record("a", 0, 0.1), record("a", 1, 0.4), record("a", 0, 0.2), record("b", 0, 0.7)]
    records += [record("c", 0, 0.9), record("a", 0, 0.8, "validation")]
    assert newest_values(records, data="a", metric="mAP@1000") == {"eigenlens": {8: [0.2, 0.4]}}
    drawn: list[float] = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda panel, x, y, *rest, **more: drawn.extend(y))
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda *rest, **more: None)
    plot_quality(records, metric="mAP@1000", path=tmp_path / "quality.png")
    assert drawn == pytest.approx([0.3, 0.7, 0.9])
    assert (tmp_path / "quality.png").exists()


def test_a_length_that_tells_kinds_apart_is_measured_as_such() -> None:
    kinds = labels(8, 200)
    gallery = codes(9, 200, length=32)
    gallery[:, :4] += 5 * np.eye(4, dtype=np.float32)[kinds]
    rows = measure_codes(LabelledCodes(gallery, kinds, gallery, kinds))
    values = {(row["metric"], row["length"]): row["value"] for row in rows}
    assert values["mAP@1000", 4] > values["mAP@1000", 32] > values["mAP@1000 of random coordinates", 16]
    assert {length for metric, length in values if metric == "linear probe accuracy"} == {4, 8, 16, 32}


def test_held_out_queries_are_not_in_the_gallery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_HELD_OUT", 10)
    images = LabelledImages(np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1).repeat(3, axis=3), np.arange(40))
    gallery, queries = hold_out(images)
    assert sorted([*gallery.labels, *queries.labels]) == list(range(40))
    assert len(queries.labels) == 10
    np.testing.assert_array_equal(queries.pixels[:, 0, 0, 0], queries.labels)


def test_the_command_trains_once_measures_and_carries_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "MAP_AT", 10)
    monkeypatch.setattr(quality, "PRECISION_AT", 5)
    images, results = write_images(tmp_path / "images"), tmp_path / "quality.jsonl"
    settings = [f"--set={item}" for item in tiny_overrides(steps=4, code_length=16)]
    command = [
        "bench",
        "quality",
        "--data",
        "cifar10",
        "--train",
        str(images),
        "--test",
        str(images),
        "--device",
        "cpu",
    ]
    command += ["--work", str(tmp_path / "work"), "--results", str(results), *settings]
    methods = "scl,scl+pca,scl+rr,scl-features+pca,neural-eigenmap+rr,eigenlens"
    assert main([*command, "--methods", methods]) == 0
    records = [json.loads(line) for line in results.read_text().splitlines()]
    assert {record["method"] for record in records} == set(methods.split(","))
    assert all(0 <= record["value"] <= 1 for record in records if "mAP" in record["metric"])
    runs = {path.name for path in (tmp_path / "work" / "cifar10").iterdir()} - {"train", "test"}
    assert runs == {"scl-0", "neural-eigenmap-0", "vicreg-0"}, "methods over one objective share its training"
    capsys.readouterr()
    assert main([*command, "--methods", "scl,scl+pca"]) == 0
    assert "is in" in capsys.readouterr().err
    assert len(results.read_text().splitlines()) == len(records), "nothing is measured twice"
    assert main([*command, "--methods", "scl", "--seeds", "1", "--set", "steps=5"]) == 0
    assert main([*command, "--methods", "scl+rr", "--seeds", "0,1", "--set", "steps=5", "--set", "alpha=1"]) == 1
    assert "alpha" in capsys.readouterr().err
    assert main([*command, "--methods", "nested,simclr", "--set", "steps=5"]) == 0
    assert main([*command, "--methods", "nested+rr", "--set", "steps=6"]) == 1
    assert "another configuration" in capsys.readouterr().err
    assert main([*command, "--methods", "supervised"]) == 1
    assert "available: eigenlens" in capsys.readouterr().err


def test_labels_are_the_folders(tmp_path: Path) -> None:
    images = load_labelled(str(write_images(tmp_path / "images", count=8)), side=16, directory=tmp_path / "cache")
    assert sorted(images.labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
