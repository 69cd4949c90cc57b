"""What coordinates look like: against sorting whole columns, in runs, after removals, in generations without them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from eigenlens import artifact
from eigenlens.index.codes.eigenfunctions import KEPT, POSITIONS, Eigenfunctions
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.tuning import Tuning
from eigenlens.service.gallery.layout import Gallery
from tests.support.codes import CODE_LENGTH, random_codes, write_generation
from tests.support.service import admin_headers, build_gallery, code_of, image_id, pixels_of, serving, settings_of


def unit_columns(codes: np.ndarray) -> np.ndarray:
    """What is stored, computed slowly: unit codes in half precision, scaled to unit norm again; (code_length, n)."""
    wide = codes.astype(np.float64)
    rounded = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float16).astype(np.float64)
    return np.asarray((rounded / np.linalg.norm(rounded, axis=1, keepdims=True)).T)


def test_ends_and_middle_are_those_of_the_sorted_column(tmp_path: Path) -> None:
    codes = random_codes(0, 1000)
    functions = write_generation(tmp_path, codes, tuning=Tuning(rows_per_run=300)).eigenfunctions
    assert functions is not None
    assert len(functions) == CODE_LENGTH
    for coordinate, column in enumerate(unit_columns(codes)):
        found = functions[coordinate]
        middle = np.abs(column - np.median(column))
        for place, rank in zip(POSITIONS, (column, -middle, -column), strict=True):
            rows = found.rows[place]
            assert len(set(rows.tolist())) == KEPT
            np.testing.assert_allclose(rank[rows], np.sort(rank)[::-1][:KEPT], atol=1e-6)


def test_a_query_falls_where_counting_puts_it(tmp_path: Path) -> None:
    codes = random_codes(1, 2000)
    functions = write_generation(tmp_path, codes).eigenfunctions
    assert functions is not None
    for coordinate, column in enumerate(unit_columns(codes)):
        found = functions[coordinate]
        for value in (-1.1, *np.quantile(column, [0.01, 0.3, 0.5, 0.97]), 1.1):
            assert found.share_below(float(value)) == pytest.approx((column < value).mean(), abs=0.005)
        assert found.share_below(float(found.quantiles[0])) == 0
        shares, _ = np.histogram(column, bins=8)
        np.testing.assert_allclose(found.histogram(8), shares / len(column), atol=0.01)


def test_equal_values_count_half(tmp_path: Path) -> None:
    codes = np.ones((50, CODE_LENGTH), dtype=np.float32)
    functions = write_generation(tmp_path, codes).eigenfunctions
    assert functions is not None
    assert functions[3].share_below(float(functions[3].quantiles[0])) == 0.5
    assert functions[3].histogram(4).sum() == pytest.approx(1)


def test_a_gallery_of_fewer_images_than_are_kept_shows_them_all(tmp_path: Path) -> None:
    functions = write_generation(tmp_path, random_codes(2, 3)).eigenfunctions
    assert functions is not None
    assert sorted(functions[0].rows["top"].tolist()) == [0, 1, 2]


def test_reading_one_takes_milliseconds_at_a_million_images(tmp_path: Path) -> None:
    """The files do not grow with the images, so the widest code of a tiny gallery costs the same."""
    few = write_generation(tmp_path / "few", random_codes(3, 100))
    many = write_generation(tmp_path / "many", random_codes(3, 3000))
    for name in ("eigenfunctions-rows.npy", "eigenfunctions-quantiles.npy"):
        assert few.artifact.files[name]["bytes"] == many.artifact.files[name]["bytes"]
    assert many.eigenfunctions is not None
    start = time.perf_counter()
    for coordinate in range(CODE_LENGTH):
        many.eigenfunctions[coordinate].histogram(48)
    assert (time.perf_counter() - start) / CODE_LENGTH < 0.02


def without_eigenfunctions(generation: artifact.Artifact) -> None:
    """Make a generation as earlier versions did."""
    names = [name for name in generation.files if not name.startswith("eigenfunctions")]
    for name in set(generation.files) - set(names):
        (generation.path / name).unlink()
    artifact.seal(
        generation.path,
        kind=generation.kind,
        made_from=generation.made_from,
        properties=generation.properties,
        only=tuple(names),
    )


def test_a_generation_of_an_earlier_version_opens_without_them(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(4, 10))
    without_eigenfunctions(generation.artifact)
    assert Generation(generation.artifact.path, generation.codes).eigenfunctions is None


def test_damaged_eigenfunctions_are_named(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(5, 10))
    (generation.artifact.path / "eigenfunctions-rows.npy").unlink()
    with pytest.raises(artifact.ArtifactDamagedError, match="eigenfunctions-rows"):
        Generation(generation.artifact.path, generation.codes)
    assert Eigenfunctions.are_in(generation.artifact)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return build_gallery(tmp_path_factory.mktemp("eigenfunctions"), count=40)


def test_the_service_tells_a_coordinate_with_its_images(gallery: Gallery) -> None:
    unit = unit_columns(np.stack([code_of(pixels_of(seed)) for seed in range(40)]))
    with serving(settings_of(gallery)) as client:
        spectrum = client.get("/v1/eigenfunctions").json()
        assert spectrum["eigenvalues"] == pytest.approx([1 / (j + 1) for j in range(12)])
        assert all(a < b < c for a, b, c in zip(spectrum["low"], spectrum["median"], spectrum["high"], strict=True))
        answer = client.get("/v1/eigenfunctions/3", params={"value": 0.0}).json()
        assert answer["eigenvalue"] == pytest.approx(1 / 3)
        order = np.argsort(-unit[2])
        assert [image["id"] for image in answer["top"]] == [image_id(int(seed)) for seed in order[:8]]
        assert [image["id"] for image in answer["bottom"]] == [image_id(int(seed)) for seed in order[::-1][:8]]
        assert [image["value"] for image in answer["top"]] == pytest.approx(unit[2][order[:8]], abs=1e-6)
        assert answer["query"]["share_below"] == pytest.approx((unit[2] < 0).mean(), abs=0.05)
        assert sum(answer["histogram"]["shares"]) == pytest.approx(1, abs=1e-4)
        assert client.get(answer["top"][0]["thumbnail"]).status_code == 200


def test_what_is_no_coordinate_is_refused(gallery: Gallery) -> None:
    with serving(settings_of(gallery)) as client:
        for path, status in (("0", 404), ("13", 404), ("-1", 404), ("x", 422), ("1?value=nan", 422)):
            answer = client.get(f"/v1/eigenfunctions/{path}")
            assert answer.status_code == status, path
            assert answer.headers["content-type"] == "application/problem+json"


def test_a_removed_image_is_not_shown(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=40)
    with serving(settings_of(gallery)) as client:
        first, second = client.get("/v1/eigenfunctions/1").json()["top"][:2]
        assert client.delete(f"/v1/images/{first['id']}", headers=admin_headers(gallery)).status_code == 204
        assert client.get("/v1/eigenfunctions/1").json()["top"][0]["id"] == second["id"]


def test_the_service_says_how_to_get_them_where_there_are_none(gallery: Gallery, tmp_path: Path) -> None:
    root = tmp_path / "older"
    shutil.copytree(gallery.root, root)
    older = Gallery(root)
    _, generation = older.open_current()
    without_eigenfunctions(generation.artifact)
    with serving(settings_of(older)) as client:
        answer = client.get("/v1/eigenfunctions/1")
        assert answer.status_code == 404
        assert "rebuild" in json.loads(answer.text)["detail"]
        assert client.get("/v1/lengths").status_code == 200
    older.store.close()
