"""Heads on a frozen backbone: intervals of their gains, and what the table calls ahead."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from eigenlens.benchmarks.common.records import read_records
from eigenlens.benchmarks.heads import tables
from eigenlens.benchmarks.heads.evaluate import OWN, EvaluationSet, paired_interval, reciprocal_ranks, scene_precisions
from eigenlens.benchmarks.heads.own import measure_own
from eigenlens.model.runtime.encoder import Encoder
from tests.support.service import pixels_of, png, write_encoder


def test_the_interval_of_a_mean_gain_is_that_of_the_normal_distribution() -> None:
    gains = 0.03 + 0.2 * np.random.default_rng(1).standard_normal(400)
    low, high = paired_interval(gains)
    margin = 1.96 * gains.std() / np.sqrt(len(gains))
    assert (low, high) == pytest.approx((gains.mean() - margin, gains.mean() + margin), abs=0.1 * margin)
    assert paired_interval(np.full(20, 0.5)) == (0.5, 0.5)


def test_a_query_is_measured_among_all_others() -> None:
    codes = np.array([[1, 0], [0.9, 0.1], [0.5, 0.5], [0, 1], [1, -5]], dtype=np.float32)
    scenes, queries = np.array(["a", "b", "a", "b", "c"]), np.array([True, True, False, False, True])
    # Nearest to the first is the second, of another scene; nearest to the second the first; the last has no other.
    np.testing.assert_allclose(scene_precisions(codes, scenes, queries), [1 / 2, 1 / 3])


def test_only_a_gain_whose_interval_excludes_zero_is_bold() -> None:
    def records(method: str, gain: float, low: float, high: float) -> list[dict[str, object]]:
        of_metrics = dict(zip(tables.gain_metrics(tables.RIVAL), (gain, low, high), strict=True)) | {"mAP": 0.5}
        return [
            {"data": "holidays-half", "method": method, "length": 8, "metric": metric, "value": value}
            for metric, value in of_metrics.items()
        ]

    drawn = tables.gain_table(
        [*records("views", 0.02, 0.01, 0.03), *records("both", 0.02, -0.01, 0.05)], names=tables.HEADS
    )
    assert "| **+0.020** (+0.010 to +0.030) |" in drawn
    assert "| +0.020 (-0.010 to +0.050) |" in drawn
    assert tables.gain_table(records("views", 0, 0, 0)[3:], names=tables.HEADS) == "No record yet."


def test_a_planted_view_is_measured_by_the_rank_of_its_own_photograph() -> None:
    photographs = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], dtype=np.float32)
    views = np.array([[1, 0.1], [1, 0], [1, 0]], dtype=np.float32)
    np.testing.assert_allclose(reciprocal_ranks(views, photographs), [1, 1 / 2, 1 / 3])


def test_pooled_queries_are_those_of_scenes_and_of_planted_views() -> None:
    codes = EvaluationSet(
        gallery=np.eye(4, dtype=np.float32)[2:],
        gallery_classes=np.array(["a", "b"]),
        queries=np.eye(4, dtype=np.float32)[:2],
        query_classes=np.array(["a", "b"]),
        hard_views=np.array([[1, 0, 0, 0], [0, 1, 2, 0]], dtype=np.float32),
        scenes=np.array([[1, 0, 0, 0], [1, 0, 0, 0.1]], dtype=np.float32),
        scene_names=np.array(["s", "s"]),
        scene_queries=np.array([True, False]),
    )
    precisions = codes.precisions(4)
    assert {data: list(values) for data, values in precisions.items()} == {
        "holidays-half": [1],
        "clothing-hard-views": [1, 0.5],
        "pooled": [1, 1, 0.5],
    }
    assert codes.quality(4)["pooled", "mAP"] == pytest.approx(2.5 / 3)


def test_the_head_of_the_photographs_themselves_is_compared_with_each_rival() -> None:
    gains = {tables.RIVAL: (0.02, 0.01, 0.03), "pca": (0.05, -0.01, 0.1), tables.ELSEWHERE: (0.3, 0.2, 0.4)}
    records = [
        {"data": OWN, "method": tables.OF_VIEWS, "length": 8, "metric": metric, "value": value}
        for rival, values in gains.items()
        for metric, value in zip(tables.gain_metrics(rival), values, strict=True)
    ]
    assert tables.own_gain_table(records, data=OWN).splitlines() == [
        "| codes | 8 |",
        "|---|---|",
        "| over PCA of their square roots | **+0.020** (+0.010 to +0.030) |",
        "| over PCA of the features | +0.050 (-0.010 to +0.100) |",
        "| over **Eigenlens**, fitted to clothing | **+0.300** (+0.200 to +0.400) |",
    ]


def test_the_scenes_are_measured_by_what_is_fitted_to_them_and_not_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for scene in range(12):
        for shot in range(2):
            for source in ("scenes", "train"):
                path = tmp_path / source / f"s{scene}" / f"{scene:02}0{shot}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(pixels_of(scene + 40 * (source == "train"))))
    (tmp_path / "scenes" / "s0" / "broken.png").write_bytes(b"no picture")
    args = argparse.Namespace(
        scenes=str(tmp_path / "scenes"),
        train=str(tmp_path / "train"),
        work=tmp_path / "work",
        results=tmp_path / "results.jsonl",
    )
    backbone = Encoder(write_encoder(tmp_path / "encoder"))
    measure_own(backbone, args)
    records = read_records(args.results)
    assert {r["method"] for r in records} == set(tables.OWN_HEADS)
    assert {r["data"] for r in records} == {OWN}
    quality = {(r["method"], r["length"]): r["value"] for r in records if r["metric"] == "mAP"}
    assert all(quality[method, 8] == 1 for method in ("raw", "pca", tables.OF_VIEWS)), "both shots are one picture"
    assert {r["params"]["queries"] for r in records} == {12}
    drawn = tables.own_gain_table(records, data=OWN)
    assert drawn.count("over ") == 3
    capsys.readouterr()
    measure_own(backbone, args)
    assert len(read_records(args.results)) == len(records)
    assert capsys.readouterr().err.count("already") == len(tables.OWN_HEADS)
