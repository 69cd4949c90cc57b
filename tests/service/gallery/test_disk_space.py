"""What a generation takes is told before it is built, and a build for which there is no room is refused at once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from eigenlens.command import main
from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.sizes import building_bytes, codes_bytes, compact_codes_bytes, index_bytes
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.kinds import KINDS
from eigenlens.index.faiss_engine.prefix_index import file_name
from eigenlens.index.faiss_engine.suitable_kinds import choose_indexes
from eigenlens.index.plans.plan import IndexSpec, Optimise
from eigenlens.service.errors import InsufficientSpaceError
from eigenlens.service.gallery.build import _largest_of
from eigenlens.service.gallery.disk_space import require_space
from tests.support.codes import HARDLY_CALIBRATED, random_codes, write_codes
from tests.support.service import build_gallery

LENGTH = 32


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Codes:
    return write_codes(tmp_path_factory.mktemp("room") / "codes", random_codes(0, 6000, 64))


@pytest.mark.parametrize(
    ("kind", "graph"),
    [
        (name, graph)
        for name, kind in KINDS.items()
        for graph in (False, True)
        if kind.has_file and (kind.effort == "nprobe" or not graph)
    ],
)
def test_an_index_is_as_large_as_was_said(codes: Codes, tmp_path: Path, kind: str, graph: bool) -> None:
    tuning = replace(HARDLY_CALIBRATED, max_scanned_lists=8 if graph else 1024)
    spec = IndexSpec(64 if KINDS[kind].scores_codes else LENGTH, kind)
    kinds = {64: "half"} | {spec.length: kind}
    build_generation(tmp_path / "generation", codes, BuildOptions(lengths=(LENGTH, 64), kinds=kinds, tuning=tuning))
    size = (tmp_path / "generation" / file_name(spec)).stat().st_size
    said = index_bytes([spec, IndexSpec(64, "half")], len(codes), tuning=tuning)
    assert said[spec] == pytest.approx(size, rel=0.15)
    assert said[spec] >= 0.95 * size
    assert said[IndexSpec(64, "half")] == 0
    if kinds[64] == "half":
        assert Generation(tmp_path / "generation", codes).bytes_of(64) == 0


def test_codes_are_as_large_as_was_said(codes: Codes) -> None:
    size = sum(path.stat().st_size for path in codes.artifact.path.glob("*.npy"))
    assert codes_bytes(6000, 64) == pytest.approx(size, rel=0.01)


def test_more_than_the_disk_has_free_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [IndexSpec(LENGTH, "flat"), IndexSpec(256, "half")]
    disk = 1_000_000 * (512 + 20 + 4 * LENGTH)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=disk))
    estimate = require_space(tmp_path, specs, count=1_000_000, code_length=256)
    assert "660.0 MB on disk for 1000000 images, at most 128.0 MB" in estimate
    with pytest.raises(InsufficientSpaceError, match=r"takes 804\.0 MB"):
        require_space(tmp_path, specs, count=1_000_000, code_length=256, has_compact_codes=True)
    assert "length 32 (flat) 128.0 MB, length 256 (half) 0.0 MB" in estimate
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=disk - 1))
    with pytest.raises(InsufficientSpaceError, match=r"has 660\.0 MB free, and the build takes 660\.0 MB on disk"):
        require_space(tmp_path, specs, count=1_000_000, code_length=256)


def test_more_than_there_is_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [IndexSpec(LENGTH, "flat")]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=250_000 * 1024))
    require_space(tmp_path, specs, count=1_000_000, code_length=LENGTH)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=249_999 * 1024))
    with pytest.raises(
        InsufficientSpaceError,
        match=r"256\.0 MB of memory are available.*128\.0 MB at once in memory.*give length 32 a smaller kind: half",
    ):
        require_space(tmp_path, specs, count=1_000_000, code_length=LENGTH)


def test_lists_of_4_bits_take_their_size_twice_while_they_are_built() -> None:
    specs = [IndexSpec(LENGTH, "ivf-pq"), IndexSpec(64, "flat")]
    size, building = index_bytes(specs, 100_000), building_bytes(specs, 100_000)
    assert building == {specs[0]: 2 * size[specs[0]], specs[1]: size[specs[1]]}


@pytest.mark.parametrize(
    ("optimise", "has_compact_codes", "expected"),
    [
        ("memory", True, [(64, "ivf-pq"), (128, "ivf-pq"), (256, "va-file"), (96, "ivf-pq")]),
        ("memory", False, [(64, "ivf-pq"), (128, "ivf-pq"), (256, "va-file")]),
        ("latency", False, [(64, "ivf-pq"), (128, "ivf-pq"), (256, "va-file"), (128, "vamana")]),
        ("build", False, [(128, "ivf-pq"), (256, "va-file")]),
    ],
)
def test_the_largest_indexes_that_a_build_may_have_are_told(
    optimise: Optimise, has_compact_codes: bool, expected: list[tuple[int, str]]
) -> None:
    specs = choose_indexes(30_000, lengths=(64, 128, 256))
    largest = _largest_of(optimise, specs, has_compact_codes=has_compact_codes)
    assert [(spec.length, spec.kind) for spec in largest] == expected


def test_a_build_tells_before_it_begins_and_leaves_the_gallery_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = build_gallery(tmp_path, count=4)
    assert main(["build", "--gallery", str(gallery.root)]) == 0
    assert "the generation takes 0.0 MB on disk for 4 images" in capsys.readouterr().err
    numbers = gallery.numbers()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    assert main(["build", "--gallery", str(gallery.root), "--lengths", "4"]) == 1
    assert "free some, or build fewer lengths" in capsys.readouterr().err
    assert gallery.numbers() == numbers


@pytest.mark.parametrize(("optimise", "has_compact_codes"), [("memory", True), ("build", False)])
def test_a_build_tells_of_compact_codes_where_it_writes_them(
    optimise: Optimise,
    has_compact_codes: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gallery, count = build_gallery(tmp_path, count=4), 10_000_000
    length = gallery.open_current()[1].codes.code_length
    monkeypatch.setattr(type(gallery.store), "count", lambda _: count)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    command = ["build", "--gallery", str(gallery.root), "--lengths", str(length), "--optimise", optimise]
    assert main(command) == 1
    size = codes_bytes(count, length) + sum(index_bytes(choose_indexes(count, lengths=(length,)), count).values())
    size += has_compact_codes * compact_codes_bytes(count, length)
    assert f"the build takes {size / 1e6:,.1f} MB on disk for {count} images" in capsys.readouterr().err
