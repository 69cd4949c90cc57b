"""Building and opening generations: whole or not at all, over the codes they were built from, damage named."""

from __future__ import annotations

import platform
import weakref
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.index_builder import Builder
from eigenlens.index.building.row_order import order_rows, sample_size
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.errors import (
    CodesError,
    LengthRangeError,
    SearchError,
)
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.process_memory import return_freed_memory
from eigenlens.index.filters.columns import write_attributes
from eigenlens.index.plans.calibration import Calibration
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import IndexSpec, Plan, choose_lengths
from eigenlens.index.tuning import Tuning
from tests.support.codes import CODE_LENGTH, LENGTHS, flip_byte, random_codes, write_codes, write_generation

FILES = ("prefix-0004-flat.faiss", "prefix-0008-flat.faiss", "prefix-0016-va-file.faiss")


def test_a_generation_says_what_it_was_made_of(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(0, 5))
    assert (len(generation), generation.code_length, generation.lengths) == (5, CODE_LENGTH, LENGTHS)
    assert generation.keys.tolist() == [100, 101, 102, 103, 104]
    assert generation.artifact.made_from == {"codes": generation.codes.id, "encoder": generation.encoder_id}
    assert generation.artifact.properties["codes"] == "codes"
    for length, name in zip(LENGTHS, FILES, strict=True):
        assert generation.bytes_of(length) == (tmp_path / "generation" / name).stat().st_size


def test_building_reports_each_length(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 5))
    reports: list[tuple[int, int]] = []
    build_generation(
        tmp_path / "generation",
        codes,
        BuildOptions(lengths=LENGTHS, on_progress=lambda done, total: reports.append((done, total))),
    )
    assert reports == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_an_index_built_in_many_chunks_is_the_one_built_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 23))
    whole = build_generation(tmp_path / "whole", codes, BuildOptions(lengths=LENGTHS))
    monkeypatch.setattr(codes, "tuning", Tuning(rows_per_run=5))
    chunks = build_generation(tmp_path / "chunks", codes, BuildOptions(lengths=LENGTHS))
    assert all(chunks.files[name] == whole.files[name] for name in FILES)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 5))

    def cancel(done: int, total: int) -> None:
        assert not (tmp_path / "generation").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_generation(tmp_path / "generation", codes, BuildOptions(lengths=LENGTHS, on_progress=cancel))
    assert [p.name for p in tmp_path.iterdir()] == ["codes"]


def test_a_generation_is_never_overwritten(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(0, 5))
    with pytest.raises(artifact.ArtifactExistsError):
        build_generation(generation.artifact.path, generation.codes, BuildOptions(lengths=(4, CODE_LENGTH)))
    assert Generation(generation.artifact.path, generation.codes).lengths == LENGTHS


def test_of_no_codes_every_search_finds_nothing(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 0))
    build_generation(tmp_path / "generation", codes, BuildOptions(lengths=LENGTHS, kinds={LENGTHS[0]: "ivf-sq8"}))
    generation = Generation(tmp_path / "generation", codes)
    generation.warm_up()
    queries = random_codes(1, 2)
    for length in LENGTHS:
        scores, rows = generation.search(queries, plan=Plan(length), k=3)
        assert scores.shape == rows.shape == (2, 0)
    assert generation.calibration.exact().plan == Plan(CODE_LENGTH)


def test_other_codes_are_refused(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(0, 5))
    other = write_codes(tmp_path / "other", random_codes(1, 5))
    with pytest.raises(CodesError, match=f"{generation.codes.id}, not from {other.id}"):
        Generation(generation.artifact.path, other)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", [0, 30, -1])
def test_a_flipped_byte_is_found_and_its_file_named(tmp_path: Path, name: str, position: int) -> None:
    generation = write_generation(tmp_path, random_codes(0, 9))
    flip_byte(generation.artifact.path / name, position, 0x80)
    with pytest.raises(artifact.ArtifactDamagedError, match=name) as caught:
        Generation(generation.artifact.path, generation.codes)
    assert caught.value.file == name


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str, verify: bool) -> None:
    generation = write_generation(tmp_path, random_codes(0, 9))
    (generation.artifact.path / name).unlink()
    with pytest.raises(artifact.ArtifactDamagedError, match=f"{name}.*missing") as caught:
        Generation(generation.artifact.path, generation.codes, verify=verify)
    assert caught.value.file == name


def test_a_missing_generation_is_said_to_be_missing(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 5))
    with pytest.raises(artifact.ArtifactMissingError, match="generation"):
        Generation(tmp_path / "generation", codes)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((6, CODE_LENGTH), np.float32), "holds 6 vectors of 16 coordinates, not 5 of 16"),
        (np.ones((5, 8), np.float32), "holds 5 vectors of 8 coordinates, not 5 of 16"),
        (None, "FAISS cannot read"),
    ],
)
def test_an_index_that_does_not_fit_its_codes_is_refused(
    tmp_path: Path, vectors: NDArray[np.float32] | None, message: str
) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(0, 5))
    nothing = Calibration.of_nothing([IndexSpec(CODE_LENGTH, "flat")]).to_json()
    properties = {"indexes": [{"length": CODE_LENGTH, "kind": "flat"}], "calibration": nothing}
    with artifact.publishing(
        tmp_path / "generation", kind="generation", made_from={"codes": codes.id}, properties=properties
    ) as directory:
        write_attributes(directory, [{}] * len(codes))
        if vectors is None:
            (directory / "prefix-0016-flat.faiss").write_bytes(b"no index at all")
        else:
            index = faiss.IndexFlatIP(vectors.shape[1])
            index.add(vectors)
            faiss.write_index(index, str(directory / "prefix-0016-flat.faiss"))
    with pytest.raises(SearchError, match=message):
        Generation(tmp_path / "generation", codes)


def test_codes_can_be_opened_again_for_a_generation(tmp_path: Path) -> None:
    generation = write_generation(tmp_path, random_codes(0, 9))
    again = Generation(tmp_path / "generation", Codes(tmp_path / "codes", verify=False), verify=False)
    queries, plan = random_codes(1, 3), Plan(4, shortlist=5, rerank_length=8)
    np.testing.assert_array_equal(
        again.search(queries, plan=plan, k=5)[1], generation.search(queries, plan=plan, k=5)[1]
    )


@pytest.mark.parametrize(
    ("code_length", "wanted", "lengths"),
    [
        (256, None, (4, 8, 16, 32, 64, 128, 256)),
        (100, None, (4, 8, 16, 32, 64, 100)),
        (4, None, (4,)),
        (3, None, (3,)),
        (16, [], (16,)),
        (16, [8, 2, 8], (2, 8, 16)),
        (16, [16, 1], (1, 16)),
    ],
)
def test_lengths_ascend_and_end_with_the_full_one(
    code_length: int, wanted: list[int] | None, lengths: tuple[int, ...]
) -> None:
    assert choose_lengths(code_length, wanted) == lengths


@pytest.mark.parametrize("length", [0, -4, 17])
def test_a_length_that_no_code_has_is_refused(length: int) -> None:
    with pytest.raises(LengthRangeError, match=f"prefix length {length} cannot be built: codes have 16"):
        choose_lengths(16, [4, length])


@pytest.mark.parametrize(
    ("kind", "is_mapped"), [("ivf-pq", False), ("panorama", False), ("va-file", True), ("ivf-sq8", True)]
)
def test_what_is_copied_into_memory_is_not_mapped_as_well(kind: str, is_mapped: bool, tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(1, 500))
    path = tmp_path / "generation"
    build_generation(
        path, codes, BuildOptions(lengths=(4, CODE_LENGTH), kinds={4 if kind == "ivf-sq8" else CODE_LENGTH: kind})
    )
    generation = Generation(path, codes)
    for length in generation.lengths:
        generation.search(
            codes.codes[:1].astype(np.float32), plan=PlanChooser(generation).choose(PlanRequest(length), k=1).plan, k=1
        )
    mapped = {
        Path(line.split()[-1]).name for line in Path("/proc/self/maps").read_text().splitlines() if "faiss" in line
    }
    assert any(name.endswith(f"-{kind}.faiss") for name in mapped) == is_mapped


def test_an_index_is_freed_and_returned_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = write_codes(tmp_path / "codes", random_codes(1, 500))
    builders: list[weakref.ref[Builder]] = []
    alive: list[int] = []

    def noting(*arguments: Any, **more: Any) -> Builder:
        builder = Builder(*arguments, **more)
        builders.append(weakref.ref(builder))
        return builder

    monkeypatch.setattr("eigenlens.index.building.build.Builder", noting)
    monkeypatch.setattr(
        "eigenlens.index.building.build.return_freed_memory",
        lambda: alive.append(sum(ref() is not None for ref in builders)),
    )
    build_generation(
        tmp_path / "generation", codes, BuildOptions(lengths=(4, 8, CODE_LENGTH), kinds={4: "ivf-pq", 8: "ivf"})
    )
    assert len(builders) == 3
    assert alive == [0, 0, 0]


def test_memory_that_was_freed_goes_back_to_the_system() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc can be told to")
    lists = [np.ones(5000, dtype=np.uint8) for _ in range(20_000)]
    kept = lists[::500]
    del lists
    before = _own_bytes()
    return_freed_memory()
    assert _own_bytes() < before - 50_000_000
    assert len(kept) == 40


def _own_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def test_near_codes_lie_near_each_other_and_the_last_rows_are_a_sample() -> None:
    tuning = Tuning(min_codes_for_groups=1000, row_groups=32)
    centres = np.random.default_rng(0).normal(size=(32, CODE_LENGTH))
    of_centre = np.random.default_rng(1).integers(0, 32, 4000)
    codes = (centres[of_centre] + 0.05 * np.random.default_rng(2).normal(size=(4000, CODE_LENGTH))).astype(np.float32)
    order = order_rows(lambda start, stop: codes[start:stop], 4000, tuning=tuning)
    assert sorted(order.tolist()) == list(range(4000))
    kept, sample = order[: -sample_size(4000)], order[-sample_size(4000) :]
    assert (np.diff(of_centre[kept]) != 0).mean() < 0.3, "groups lie together"
    assert len(set(of_centre[sample].tolist())) == 32, "the sample is of all groups"
    assert (np.diff(of_centre[sample]) != 0).mean() > 0.9
