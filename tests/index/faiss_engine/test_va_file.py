"""The VA-file: results are exact whatever the codes are, with Numba and without, and little of a gallery is scored."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.index.building.index_builder import Builder
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.engine import IndexDescription
from eigenlens.index.faiss_engine.graph.vamana import has_numba
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.faiss_engine.open_index import prefix_index_over, read_prefix_index
from eigenlens.index.faiss_engine.va_file.kind import VaFileWriter, bound_of, ranges_of
from eigenlens.index.faiss_engine.va_file.va_file_index import VaFileIndex
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.tuning import Tuning
from tests.support import oracles
from tests.support.codes import generation_of_kind, random_codes, write_codes

COUNT, LENGTH, TOLERANCE = 3000, 32, 2e-4
SPEC = IndexSpec(LENGTH, "va-file")


def codes_with(decay: float, seed: int = 0) -> NDArray[np.float32]:
    """Codes in clusters whose coordinates fall by a power, with copies, one of zeros, and one of a single number."""
    rng = np.random.default_rng(seed)
    codes = random_codes(seed, COUNT, LENGTH) + 3 * random_codes(seed + 1, 50, LENGTH)[rng.integers(0, 50, COUNT)]
    codes *= np.arange(1, LENGTH + 1, dtype=np.float32) ** -decay
    codes[10:30], codes[40], codes[41] = codes[5], 0, np.eye(LENGTH)[0]
    return np.asarray(codes, np.float32)


def opened(folder: Path, codes: NDArray[np.float32]) -> VaFileIndex:
    written = write_codes(folder / "codes", codes)
    builder = Builder(written, SPEC, sample=written.sample(COUNT))
    builder.add(0, COUNT)
    builder.write(folder)
    index = read_prefix_index(folder, SPEC, written)
    assert isinstance(index, VaFileIndex)
    return index


@pytest.fixture(params=["compiled", "FAISS"])
def is_compiled(request: pytest.FixtureRequest) -> bool:
    if request.param == "compiled" and not has_numba():
        pytest.skip("needs Numba")
    return bool(request.param == "compiled")


@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("count", [4, 80])
def test_results_are_exact_for_flat_and_for_steep_codes(
    tmp_path: Path, is_compiled: bool, decay: float, count: int
) -> None:
    codes = codes_with(decay)
    index = opened(tmp_path, codes)
    index._is_compiled = is_compiled
    queries = np.concatenate([codes[100:102] + 0.1 * random_codes(3, 2, LENGTH), codes[5:6], -codes[:1]])
    queries = np.repeat(queries, count // 4, axis=0)  # many queries are searched by all threads
    mask = np.random.default_rng(1).random(COUNT) < 0.3
    cosines = oracles.cosine(queries, index.codes.codes, length=LENGTH)
    for selection in (None, Selection(mask)):
        allowed = cosines if selection is None else np.where(mask, cosines, -2)
        best = oracles.best_scores(allowed, 10)
        for least in (None, best[:, -1] - 1e-6, best[:, -1] - 0.2):
            scores, rows = (
                index.search(queries, 10, selection=selection)
                if least is None
                else index.search_above(queries, 10, least=least.astype(np.float32), selection=selection)
            )
            np.testing.assert_allclose(scores, best, atol=TOLERANCE)
            np.testing.assert_allclose(np.take_along_axis(allowed, rows, 1), scores, atol=TOLERANCE)
            assert all(len(set(row)) == 10 for row in rows.tolist())


def test_fewer_rows_than_results_end_in_none(tmp_path: Path, is_compiled: bool) -> None:
    index = opened(tmp_path, codes_with(1.0))
    index._is_compiled = is_compiled
    mask = np.zeros(COUNT, bool)
    mask[[3, 40, 2999]] = True
    scores, rows = index.search(random_codes(0, 2, LENGTH), 5, selection=Selection(mask))
    assert [sorted(row) for row in rows.tolist()] == [[-1, -1, 3, 40, 2999]] * 2
    assert np.isneginf(scores[:, 3:]).all()


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_no_score_is_above_its_bound(tmp_path: Path, decay: float) -> None:
    codes = codes_with(decay)
    index = opened(tmp_path, codes)
    queries = unit_prefix(np.concatenate([codes[50:60], random_codes(7, 10, LENGTH)]), LENGTH)
    scores = queries @ unit_prefix(index.codes.codes, LENGTH).T
    tightest = np.inf
    for query, its_scores in zip(queries, scores, strict=True):
        bound = bound_of(query[None], ranges_of(index.index)[1])
        found, rows = index.index.search(bound.vector, COUNT)
        over = found[0] + bound.slack - its_scores[rows[0]]
        assert over.min() > -1e-5
        tightest = min(tightest, over.min())
    assert tightest < 0.05


@pytest.mark.parametrize(("decay", "most"), [(1.5, COUNT // 20), (0.7, COUNT // 4)])
def test_a_scan_looks_at_few_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decay: float, most: int) -> None:
    """Of one part and the other, the bounds do the work: without them every code would be looked at."""
    pytest.importorskip("numba")
    from eigenlens.index.faiss_engine.va_file import bounded_scan

    codes = random_codes(0, COUNT, LENGTH) * np.arange(1, LENGTH + 1, dtype=np.float32) ** -decay
    index = opened(tmp_path, codes)
    query = unit_prefix(codes[200:201], LENGTH)
    tenth = oracles.best_scores(oracles.cosine(query, index.codes.codes, length=LENGTH), 10)[0, -1:]
    looked_at: list[int] = []
    scan = bounded_scan.scan_with_bound
    monkeypatch.setattr(bounded_scan, "scan_with_bound", lambda *given: looked_at.append(scan(*given)))
    index.search_above(query, 10, least=tenth.astype(np.float32))
    bound = bound_of(query, ranges_of(index.index)[1])
    _, _, reaching = index.index.range_search(bound.vector, float(tenth[0]) - bound.slack - 1e-5)
    assert 10 <= len(reaching) < most
    assert looked_at == [pytest.approx(len(reaching), abs=2)]


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    generation = generation_of_kind(tmp_path, random_codes(0, 100), "va-file", length=16)
    (description,) = [generation.describe(length) for length in generation.lengths if length == 16]
    assert description == IndexDescription(16, "va-file", generation.bytes_of(16), None, False)
    codes = generation.codes
    other = VaFileWriter(require_kind("va-file").create(50, 16), codes)
    other.add(unit_prefix(codes.codes[:50], 16))
    faiss.write_index(other.finish(), str(tmp_path / "prefix-0016-va-file.faiss"))
    with pytest.raises(Exception, match="holds 50 vectors"):
        read_prefix_index(tmp_path, IndexSpec(16, "va-file"), codes)
    faiss.write_index(faiss.IndexFlatIP(16), str(tmp_path / "prefix-0016-va-file.faiss"))
    with pytest.raises(Exception, match="holds 0 vectors"):
        read_prefix_index(tmp_path, IndexSpec(16, "va-file"), codes)


@pytest.mark.parametrize("length", [2, 4, 8, 11, 24])
def test_codes_of_any_length_are_searched_exactly(tmp_path: Path, is_compiled: bool, length: int) -> None:
    """Of few coordinates there may be no second part, or fewer than are stored."""
    codes = write_codes(tmp_path / "codes", random_codes(0, 500, length))
    builder = Builder(codes, spec := IndexSpec(length, "va-file"), sample=codes.sample(500))
    builder.add(0, 500)
    index = prefix_index_over(builder.index, spec, codes)
    assert isinstance(index, VaFileIndex)
    index._is_compiled = is_compiled
    queries = random_codes(1, 5, length)
    expected = oracles.best_scores(oracles.cosine(queries, codes.codes, length=length), 10)
    np.testing.assert_allclose(index.search(queries, 10)[0], expected, atol=TOLERANCE)


def test_an_exact_search_of_a_built_generation_is_exact(tmp_path: Path) -> None:
    codes = random_codes(0, 2000)
    generation = generation_of_kind(tmp_path, codes, "va-file", length=16, tuning=Tuning(max_rows_scored_directly=0))
    queries = random_codes(1, 70)
    scores, _ = generation.search(queries, plan=Plan(16, "va-file"), k=10)
    cosines = oracles.cosine(queries, generation.codes.codes, length=16)
    np.testing.assert_allclose(scores, oracles.best_scores(cosines, 10), atol=TOLERANCE)
    assert isinstance(
        prefix_index_over(generation.prefix_index(16).index, generation.specs[-1], generation.codes), VaFileIndex
    )
