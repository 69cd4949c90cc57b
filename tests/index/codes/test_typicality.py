"""How far out a code lies: against leaving each image out, of few images, and of images of another kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.index.codes import typicality
from eigenlens.index.codes.typicality import UNLIKE_PERCENTILE
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.tuning import Tuning
from tests.support import oracles
from tests.support.codes import CODE_LENGTH, random_codes, without_similarities, write_generation


@pytest.mark.parametrize("rows_per_run", [70, 65_536])
def test_a_code_stands_where_leaving_each_image_out_puts_it(tmp_path: Path, rows_per_run: int) -> None:
    codes = random_codes(0, 300) + 2  # off centre
    told = write_generation(tmp_path, codes, tuning=Tuning(rows_per_run=rows_per_run)).typicality
    assert told is not None
    others = [np.delete(codes, row, axis=0) for row in range(300)]
    distances = np.array([oracles.scatter_distance(codes[row : row + 1], others[row])[0] for row in range(300)])
    queries = np.concatenate([random_codes(1, 50) + 2, random_codes(2, 20) - 1])
    for query, distance in zip(queries, oracles.scatter_distance(queries, codes), strict=True):
        expected = 100 * (distances >= distance).mean()
        assert told.percentile_of(query) == pytest.approx(expected, abs=3)
        for factor in (7, 1e-30, 1e30):
            assert told.percentile_of(np.float32(factor) * query) == pytest.approx(told.percentile_of(query), abs=0.5)
    together = told.percentiles_of(queries * np.array([[1], [1e-30]] * 35, dtype=np.float32))
    assert together == pytest.approx([told.percentile_of(query) for query in queries], abs=0.5)
    assert min(together) < 10 < 90 < max(together)


def test_only_leading_coordinates_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typicality, "_MAX_LENGTH", 6)
    codes = random_codes(3, 200)
    told = write_generation(tmp_path, codes).typicality
    assert told is not None
    query = random_codes(4, 1)[0]
    changed = np.concatenate([query[:6], np.zeros(CODE_LENGTH - 6, dtype=np.float32)])
    assert told.percentile_of(query) == told.percentile_of(changed)


@pytest.mark.parametrize("count", [60, 400, 1500])
def test_images_of_another_kind_are_far_out_and_new_ones_of_the_same_kind_are_not(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(5)
    directions = rng.normal(size=(8, CODE_LENGTH))

    def draw(number: int) -> NDArray[np.float32]:
        return np.asarray(
            rng.normal(size=(number, 8)) @ directions + 0.05 * rng.normal(size=(number, CODE_LENGTH)), np.float32
        )

    told = write_generation(tmp_path, draw(count)).typicality
    assert told is not None
    same = np.mean([told.percentile_of(code) < UNLIKE_PERCENTILE for code in draw(2000)])
    other = np.mean([told.percentile_of(code) < UNLIKE_PERCENTILE for code in random_codes(6, 500)])
    assert same < (0.02 if count > 100 else 0.05)
    assert other > 0.9


@pytest.mark.parametrize("codes", [np.zeros((60, CODE_LENGTH)), np.ones((60, CODE_LENGTH))])
def test_equal_codes_have_finite_figures(tmp_path: Path, codes: NDArray[np.float64]) -> None:
    told = write_generation(tmp_path, codes.astype(np.float32)).typicality
    assert told is not None
    assert 0 <= told.percentile_of(codes[0].astype(np.float32)) <= 100
    assert told.percentile_of(random_codes(7, 1)[0]) == 0


def test_of_very_few_images_and_in_an_earlier_version_there_is_none(tmp_path: Path) -> None:
    assert write_generation(tmp_path / "few", random_codes(8, 49)).typicality is None
    generation = write_generation(tmp_path / "enough", random_codes(8, 50))
    assert generation.typicality is not None
    without_similarities(generation.artifact)
    assert Generation(generation.artifact.path, generation.codes).typicality is None
