"""How near images are to their nearest other: against plain loops, in runs, with copies; who is unlike everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eigenlens.index.building import nearest_others
from eigenlens.index.building.nearest_others import measure_similarities
from eigenlens.index.codes.similarities import NearestSimilarities
from eigenlens.index.errors import SimilarityError
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.tuning import Tuning
from tests.support import oracles
from tests.support.codes import (
    LENGTHS,
    random_codes,
    repeatable,
    without_similarities,
    write_codes,
    write_generation,
)


def nearest_others_of(codes: NDArray[np.float32], *, length: int) -> NDArray[np.float64]:
    """The cosine of each code with the nearest of the others, slowly: (n,)."""
    cosines = oracles.cosine(codes, codes, length=length)
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.max(1))


@pytest.mark.parametrize("rows_per_run", [70, 65_536])
def test_quantiles_are_those_of_all_pairs(tmp_path: Path, rows_per_run: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_others, "_CHUNK", 64)
    codes = random_codes(0, 300)
    codes[250:260] = codes[:10]  # copies are near each other, as they come
    similarities = write_generation(tmp_path, codes, tuning=Tuning(rows_per_run=rows_per_run)).similarities
    assert similarities is not None
    assert sorted(similarities.quantiles) == list(LENGTHS)
    for length in LENGTHS:
        expected = np.quantile(nearest_others_of(codes, length=length), np.linspace(0, 1, 201))
        np.testing.assert_allclose(similarities.quantiles[length], expected, atol=2e-3)  # codes are in half precision


def test_of_many_images_the_last_rows_are_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_others, "_MAX_SAMPLE", 40)
    codes = random_codes(1, 300)
    similarities = measure_similarities(write_codes(tmp_path / "codes", codes), lengths=[8])
    assert similarities is not None
    expected = np.quantile(nearest_others_of(codes, length=8)[-40:], np.linspace(0, 1, 201))
    np.testing.assert_allclose(similarities.quantiles[8], expected, atol=2e-3)


def test_a_score_stands_where_counting_puts_it() -> None:
    cosines = np.random.default_rng(2).uniform(0.2, 1, 2000).astype(np.float32)
    similarities = NearestSimilarities.of({4: cosines})
    for score in (0.1, 0.21, 0.5, 0.77, 0.999):
        expected = 100 * (cosines <= score).mean()
        assert similarities.percentile_of(score, length=4) == pytest.approx(expected, abs=0.3)
    assert similarities.percentile_of(-1.0, length=4) == 0
    assert similarities.percentile_of(1.0, length=4) == 100
    assert similarities.percentile_of(0.5, length=8) is None


@given(seed=st.integers(0, 2**32 - 1), percentile=st.floats(0, 100), step=st.floats(1e-5, 0.1))
@repeatable
def test_the_score_at_a_percentile_parts_those_above_from_those_below(
    seed: int, percentile: float, step: float
) -> None:
    rng = np.random.default_rng(seed)
    cosines = rng.choice(rng.uniform(-1, 1, 30), 200).astype(np.float32)  # many are equal
    similarities = NearestSimilarities.of({4: cosines})
    least = similarities.score_at(percentile, length=4)
    at = similarities.percentile_of(least, length=4)
    assert at is not None
    assert at >= percentile - 1e-6
    if percentile > 0:
        below = similarities.percentile_of(least - step, length=4)
        assert below is not None
        assert below <= percentile + 1e-6


def test_a_copy_stands_above_all_where_many_images_are_copies() -> None:
    similarities = NearestSimilarities.of({4: np.array([0.5] * 70 + [1.0] * 30, dtype=np.float32)})
    assert similarities.percentile_of(0.9999998, length=4) == 100  # of two copies, one in half precision
    assert similarities.percentile_of(0.5, length=4) == pytest.approx(69.5, abs=0.5)


def test_a_length_without_figures_is_refused_with_those_that_have_them() -> None:
    similarities = NearestSimilarities.of({4: np.array([0.5]), 16: np.array([0.5])})
    with pytest.raises(SimilarityError, match="4, 16 coordinates, not of 9"):
        similarities.score_at(10, length=9)


def test_of_very_few_images_nothing_is_told(tmp_path: Path) -> None:
    assert write_generation(tmp_path / "few", random_codes(3, 49)).similarities is None
    assert write_generation(tmp_path / "enough", random_codes(3, 50)).similarities is not None


def test_a_generation_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(4, 60))
    without_similarities(generation.artifact)
    assert Generation(generation.artifact.path, generation.codes).similarities is None
