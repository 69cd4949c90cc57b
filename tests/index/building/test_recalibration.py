"""Recalibration: the same indexes, and figures that hold for the queries that it was made with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.calibrating.recalibrate import MIN_QUERIES, recalibrate_generation
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.errors import CodesError
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.metrics import recall_at_k, recall_interval
from tests.support.codes import HARDLY_CALIBRATED, write_codes

CODE_LENGTH, COUNT, QUERIES = 8, 1500, 150
TUNING = HARDLY_CALIBRATED


def codes_of(seed: int, count: int, *, tail: float) -> NDArray[np.float32]:
    """Codes of two coordinates that count and six whose size is `tail`."""
    codes = np.random.default_rng(seed).normal(size=(count, CODE_LENGTH))
    codes[:, 2:] *= tail
    return codes.astype(np.float32)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    folder = tmp_path_factory.mktemp("recalibration")
    codes = write_codes(folder / "codes", codes_of(1, COUNT, tail=0.05), tuning=TUNING)
    options = BuildOptions(lengths=(2, CODE_LENGTH), kinds={2: "ivf"}, metadata=[{"n": 1}] * COUNT, tuning=TUNING)
    build_generation(folder / "generation", codes, options)
    return Generation(folder / "generation", codes, tuning=TUNING)


def cosines(generation: Generation, queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines of queries and rows, (q, n)."""
    codes = np.asarray(generation.codes.codes, dtype=np.float64)
    return np.asarray(queries @ codes.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(codes, axis=1))


def plain_recall(generation: Generation, queries: NDArray[np.float32]) -> float:
    """Recall@10 of the first two coordinates alone."""
    measured = generation.calibration.plain(2)
    assert measured is not None
    _, rows = generation.search(queries, plan=measured.plan, k=10)
    exact = cosines(generation, queries)
    return float(recall_at_k(rows, np.argsort(-exact, axis=1)[:, :10]).mean())


def expected(generation: Generation) -> float:
    measured = generation.calibration.plain(2)
    assert measured is not None
    return measured.recall[10].mean


def test_recall_is_that_of_the_queries_and_the_indexes_are_the_same_files(built: Generation, tmp_path: Path) -> None:
    strange = codes_of(2, 2 * QUERIES, tail=1.0)
    path = built.artifact.path.parent / "again"
    no_row = np.full(QUERIES, -1)
    recalibrate_generation(path, built, strange[:QUERIES], no_row)
    again = Generation(path, Codes(built.codes.artifact.path, tuning=TUNING), tuning=TUNING)
    fresh = plain_recall(built, strange[QUERIES:])
    assert fresh < expected(built) - 0.1
    assert expected(again) == pytest.approx(fresh, abs=0.05)
    assert (built.calibration.source, again.calibration.source) == ("gallery", "searches")
    assert again.artifact.files == built.artifact.files
    for name in built.artifact.files:
        assert (path / name).samefile(built.artifact.path / name)
    assert {**again.artifact.properties, "calibration": 0} == {**built.artifact.properties, "calibration": 0}
    assert again.similarities == built.similarities
    assert again.typicality is not None


def test_a_query_that_is_an_image_of_the_gallery_is_no_neighbour_of_itself(built: Generation) -> None:
    rows = np.random.default_rng(3).choice(COUNT, QUERIES, replace=False)
    queries = np.asarray(built.codes.codes[rows], dtype=np.float32)
    path = built.artifact.path.parent / "by-id"
    recalibrate_generation(path, built, queries, rows)
    measured = Generation(path, built.codes, tuning=TUNING).calibration.plain(2)
    assert measured is not None
    _, results = built.search(queries, plan=measured.plan, k=2)
    exact = cosines(built, queries)
    exact[np.arange(QUERIES), rows] = -np.inf
    others = np.where(results[:, :1] == rows[:, None], results[:, 1:], results[:, :1])
    assert measured.recall[1].mean == pytest.approx(float((others[:, 0] == exact.argmax(1)).mean()), abs=0.01)


def test_too_few_queries_are_refused(built: Generation, tmp_path: Path) -> None:
    few = codes_of(4, MIN_QUERIES - 1, tail=1.0)
    with pytest.raises(CodesError, match="100 are enough"):
        recalibrate_generation(tmp_path / "few", built, few, np.full(len(few), -1))
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize("recall", [0.5, 0.93, 0.995])
def test_the_interval_of_recall_holds_the_truth_in_95_of_100_samples(recall: float) -> None:
    rng = np.random.default_rng(5)
    held = []
    for _ in range(400):
        # Neighbours of one query are found or missed together: each has a recall of its own.
        own = rng.beta(4 * recall, 4 * (1 - recall), 200)
        low, high = recall_interval(rng.binomial(10, own) / 10)
        held.append(low <= recall <= high)
    assert np.mean(held) >= 0.9
    assert recall_interval(np.ones(50))[0] < 0.94, "fifty queries without a miss prove no recall of 1"
