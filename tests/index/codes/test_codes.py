"""Codes on disk and their prefixes: sliced, then normalised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.index.codes.artifact import Codes, writing_codes
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.errors import CodesError
from eigenlens.index.tuning import Tuning
from tests.support import oracles
from tests.support.codes import CODE_LENGTH, ENCODER_ID, flip_byte, mapped_bytes, random_codes, repeatable, write_codes


@repeatable
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 20), length=st.integers(1, CODE_LENGTH))
def test_a_prefix_is_sliced_and_then_normalised(seed: int, n: int, length: int) -> None:
    codes = random_codes(seed, n)
    prefix = unit_prefix(codes, length)
    assert prefix.dtype == np.float32
    assert prefix.flags.c_contiguous
    np.testing.assert_allclose(prefix, oracles.unit_prefix(codes, length), atol=1e-6)


def test_a_prefix_by_hand() -> None:
    np.testing.assert_allclose(unit_prefix(np.array([[3.0, -4.0, 12.0]]), 2), [[0.6, -0.8]], rtol=1e-6)


def test_a_prefix_of_zeros_stays_zero() -> None:
    codes = np.array([[0, 0, 5], [0, 0, 0], [1, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(unit_prefix(codes, 2), [[0, 0], [0, 0], [1, 0]])


def test_taking_a_prefix_leaves_the_codes_alone() -> None:
    codes = random_codes(0, 5)
    before = codes.copy()
    unit_prefix(codes, CODE_LENGTH)
    np.testing.assert_array_equal(codes, before)


def test_codes_are_read_back_at_unit_norm_with_their_keys(tmp_path: Path) -> None:
    codes = random_codes(0, 30)
    keys = list(range(5, 95, 3))
    opened = write_codes(tmp_path / "codes", codes, keys=keys)
    assert (len(opened), opened.code_length, opened.encoder_id) == (30, CODE_LENGTH, ENCODER_ID)
    assert opened.codes.dtype == np.float16
    assert opened.artifact.properties == {"count": 30, "code_length": CODE_LENGTH, "dtype": "float16"}
    np.testing.assert_array_equal(opened.keys, keys)
    # Float16 keeps 11 bits of each coordinate.
    np.testing.assert_allclose(opened.codes.astype(float), oracles.unit_prefix(codes, CODE_LENGTH), rtol=2**-11 + 1e-6)


def test_long_codes_are_rounded_so_that_inner_products_are_cosines(tmp_path: Path) -> None:
    codes = random_codes(0, 500, 256)
    codes[7] = 0
    codes[8] *= 1e-4  # nearly all of it in one coordinate, whose rounding is the coarsest
    codes[8, 3] = 1
    opened = write_codes(tmp_path / "codes", codes)
    norms = np.linalg.norm(opened.codes.astype(np.float64), axis=1)
    assert norms[7] == 0
    np.testing.assert_allclose(np.delete(norms, [7, 8]), 1, atol=5e-7)
    assert opened.unnormalised_rows.tolist() == [8]  # and keeps its direction
    # The directions are nearly as near as plain rounding leaves them.
    unit = oracles.unit_prefix(codes, 256)
    plain = np.linalg.norm(unit.astype(np.float16) - unit, axis=1)
    assert np.linalg.norm(opened.codes - unit, axis=1).mean() < 1.3 * plain.mean()


def test_short_codes_have_the_norms_that_rounding_leaves(tmp_path: Path) -> None:
    opened = write_codes(tmp_path / "codes", random_codes(0, 50, 16))
    assert len(opened.unnormalised_rows) > 25
    np.testing.assert_allclose(opened.norms, np.linalg.norm(opened.codes.astype(np.float64), axis=1), atol=1e-7)


def test_the_size_of_the_batches_does_not_matter(tmp_path: Path) -> None:
    codes, keys = random_codes(0, 11), np.arange(11)
    whole = write_codes(tmp_path / "whole", codes, keys=range(11))
    with writing_codes(tmp_path / "parts", count=11, code_length=CODE_LENGTH, encoder_id=ENCODER_ID) as writer:
        for start in range(0, 11, 4):
            writer.append(keys[start : start + 4], codes[start : start + 4])
            assert writer.written == min(start + 4, 11)
    assert Codes(tmp_path / "parts").id == whole.id


def test_the_encoder_is_part_of_the_id(tmp_path: Path) -> None:
    codes = random_codes(0, 3)
    first = write_codes(tmp_path / "one", codes)
    with writing_codes(tmp_path / "two", count=3, code_length=CODE_LENGTH, encoder_id="other") as writer:
        writer.append(np.asarray(first.keys), codes)
    assert Codes(tmp_path / "two").id != first.id


def with_value(value: float) -> NDArray[np.float32]:
    codes = random_codes(0, 3)
    codes[1, 2] = value
    return codes


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (random_codes(0, 3, CODE_LENGTH - 1), r"expected codes \(3, 16\), not \(3, 15\)"),
        (random_codes(0, 2), r"expected codes \(3, 16\), not \(2, 16\)"),
        (np.zeros(3, np.float32), r"not \(3,\)"),
        (with_value(np.nan), "not finite"),
        (with_value(np.inf), "not finite"),
        (with_value(-np.inf), "not finite"),
    ],
)
def test_unusable_codes_are_refused_and_nothing_is_published(
    tmp_path: Path, codes: NDArray[np.float32], message: str
) -> None:
    def write() -> None:
        with writing_codes(tmp_path / "codes", count=3, code_length=CODE_LENGTH, encoder_id=ENCODER_ID) as writer:
            writer.append(np.arange(3), codes)

    with pytest.raises(CodesError, match=message):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [4, 6])
def test_another_number_of_codes_than_announced_is_refused(tmp_path: Path, count: int) -> None:
    def write() -> None:
        with writing_codes(tmp_path / "codes", count=5, code_length=CODE_LENGTH, encoder_id=ENCODER_ID) as writer:
            writer.append(np.arange(3), random_codes(0, 3))
            writer.append(np.arange(3, count), random_codes(1, count - 3))

    with pytest.raises(CodesError, match=f"{count} codes where 5 were announced"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_codes_and_keys_that_do_not_match_are_refused(tmp_path: Path) -> None:
    with artifact.publishing(tmp_path / "codes", kind="codes", made_from={"encoder": ENCODER_ID}) as directory:
        np.save(directory / "codes.npy", random_codes(0, 3).astype(np.float16))
        for name in ("keys", "order", "norms"):
            np.save(directory / f"{name}.npy", np.arange(4))
    with pytest.raises(CodesError, match="do not match"):
        Codes(tmp_path / "codes")


@pytest.mark.parametrize("name", ["codes.npy", "keys.npy", "norms.npy", "order.npy"])
def test_a_flipped_byte_is_found_and_its_file_named(tmp_path: Path, name: str) -> None:
    write_codes(tmp_path / "codes", random_codes(0, 9))
    flip_byte(tmp_path / "codes" / name, -3)
    with pytest.raises(artifact.ArtifactDamagedError, match=name):
        Codes(tmp_path / "codes")


@pytest.mark.parametrize("name", ["codes.npy", "keys.npy", "norms.npy", "order.npy"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_codes(tmp_path / "codes", random_codes(0, 9))
    (tmp_path / "codes" / name).unlink()
    with pytest.raises(artifact.ArtifactDamagedError, match=name):
        Codes(tmp_path / "codes")


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_codes_whose_squares_leave_float32_still_become_unit_codes(scale: float) -> None:
    codes = random_codes(0, 5).astype(np.float32)
    np.testing.assert_allclose(unit_prefix(codes * np.float32(scale), 8), oracles.unit_prefix(codes, 8), atol=2e-6)


def test_large_codes_that_were_read_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = random_codes(1, 100_000, 64)
    codes = write_codes(tmp_path / "codes", given)
    rows = np.random.default_rng(0).integers(0, len(given), 20_000)
    expected = np.array(codes.codes[rows])
    before = mapped_bytes()
    codes.release_pages()  # not of these: they are few
    assert mapped_bytes() == pytest.approx(before, abs=1 << 20)
    monkeypatch.setattr(codes, "tuning", Tuning(max_mapped_bytes=codes.codes.nbytes - 1))
    codes.release_pages()
    left = mapped_bytes()
    assert left < before - codes.codes.nbytes / 2
    assert np.array_equal(codes.take(rows), expected)
    assert mapped_bytes() < left + codes.codes.nbytes / 2  # they were not mapped for it
    assert np.array_equal(codes.codes[rows], expected)


def test_the_view_of_the_mapped_codes_is_the_codes(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 50))
    view = codes.scan(40)
    assert (view.ntotal, view.d) == (40, CODE_LENGTH)
    np.testing.assert_array_equal(view.reconstruct_n(0, 40), codes.codes[:40].astype(np.float32))


def test_rows_are_found_by_key_in_any_order(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).permutation(np.arange(10, 60, 2))
    codes = write_codes(tmp_path / "codes", random_codes(0, 25), keys=keys.tolist())
    assert codes.rows_of(keys).tolist() == list(range(25))
    assert codes.rows_of(np.array([11, 9, 1000])).tolist() == [-1, -1, -1]
    assert codes.last_key == 58


def test_a_sample_lies_at_equal_distances_whatever_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 25))
    for run in (4, 10, 100):
        monkeypatch.setattr(codes, "tuning", Tuning(rows_per_run=run))
        np.testing.assert_array_equal(codes.sample(7), codes.codes[::4])
        assert len(codes.sample(1000)) == 25
