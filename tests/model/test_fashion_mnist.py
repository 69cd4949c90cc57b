"""The sample: its images are those of Debian's package, in splits, and it is fetched once."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eigenlens.model.errors import SourceError
from eigenlens.model.images import fashion_mnist
from eigenlens.model.images.fashion_mnist import LABELS, PACKAGE, FashionMnist, find_or_fetch
from eigenlens.model.images.sources import open_source

Raw = dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]


@pytest.fixture(scope="module")
def raw() -> Raw:
    """Pixels and labels by their file format's description, read apart from the code under test."""
    if shutil.which("apt-get") is None:
        pytest.skip("the sample fashion-mnist comes from a Debian package, and this is no Debian")
    folder = find_or_fetch()
    splits: Raw = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
        magic, count, height, width = struct.unpack_from(">4I", images)
        assert magic == 0x0803
        assert struct.unpack_from(">2I", labels) == (0x0801, count)
        pixels = np.array(memoryview(images)[16:], dtype=np.uint8).reshape(count, height, width)
        splits[split] = (pixels, np.array(memoryview(labels)[8:], dtype=np.uint8))
    return splits


def test_the_sample_has_70000_images(raw: Raw) -> None:
    whole = open_source("fashion-mnist")
    assert (whole.name, len(whole)) == ("fashion-mnist", 70_000)
    sample = FashionMnist()
    np.testing.assert_array_equal(sample.pixels, np.concatenate([raw["train"][0], raw["test"][0]]))
    np.testing.assert_array_equal(sample.labels, np.concatenate([raw["train"][1], raw["test"][1]]))
    ids = [image.id for image in islice(whole, 3)]
    assert ids == ["train-00000.png", "train-00001.png", "train-00002.png"]


def test_the_training_split_has_60000_images(raw: Raw) -> None:
    assert len(open_source("fashion-mnist:train")) == 60_000
    np.testing.assert_array_equal(FashionMnist("train").pixels, raw["train"][0])


@pytest.mark.parametrize(("split", "rows"), [("fit", slice(0, 50_000)), ("validation", slice(50_000, 60_000))])
def test_fit_and_validation_part_the_training_images(raw: Raw, split: str, rows: slice) -> None:
    sample = FashionMnist(split)
    np.testing.assert_array_equal(sample.pixels, raw["train"][0][rows])
    np.testing.assert_array_equal(sample.labels, raw["train"][1][rows])


def test_the_test_split_gives_each_image_as_a_lossless_png_with_its_label(raw: Raw) -> None:
    source = open_source("fashion-mnist:test")
    assert (source.name, len(source)) == ("fashion-mnist:test", 10_000)
    pixels, labels = raw["test"]
    ids = set()
    for row, image in enumerate(source):
        ids.add(image.id)
        assert image.path is None
        assert image.metadata == {"label": LABELS[labels[row]], "split": "test"}
        if row % 20 == 0:
            with Image.open(io.BytesIO(image.data)) as png:
                assert (png.format, png.mode) == ("PNG", "L")
                np.testing.assert_array_equal(np.asarray(png), pixels[row])
    assert ids == {f"test-{row:05d}.png" for row in range(10_000)}
    assert np.bincount(labels).tolist() == [1000] * len(LABELS)


def test_an_unknown_split_is_refused_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "find_or_fetch", lambda: pytest.fail("it was looked for"))
    with pytest.raises(SourceError, match=r"train, test.*'vaildation' is not one of them"):
        open_source("fashion-mnist:vaildation")


ELSEWHERE = Path("usr/share/datasets/no-machine-has-this")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on a machine without the package."""
    monkeypatch.setattr(fashion_mnist, "_IN_PACKAGE", ELSEWHERE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "eigenlens"


def test_a_machine_that_cannot_fetch_the_sample_is_told_what_to_install(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SourceError, match=f"could not be fetched .*install Debian's package {PACKAGE}"):
        find_or_fetch()
    assert list(cache.iterdir()) == []


SAMPLE_FILES = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def put_fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, before: str = "") -> Path:
    """An `apt-get` first in PATH that runs the shell lines `before`, then hands out a real, small package; its log."""
    sample = tmp_path / "package" / ELSEWHERE
    sample.mkdir(parents=True)
    for name in SAMPLE_FILES:
        (sample / name).write_text(f"content of {name}")
    control = tmp_path / "package" / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text(f"Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n")
    deb, log, binaries = tmp_path / f"{PACKAGE}_1_all.deb", tmp_path / "log", tmp_path / "bin"
    subprocess.run(["dpkg-deb", "--build", str(tmp_path / "package"), str(deb)], check=True, capture_output=True)
    binaries.mkdir()
    apt = binaries / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$*" >> "{log}"\n{before}\ncase "$*" in *download*) cp "{deb}" . ;; esac\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    return log


needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="unpacking a Debian package needs dpkg-deb")


@needs_dpkg
@pytest.mark.parametrize("lists", ["lists", "no lists"])
def test_the_sample_is_fetched_once_even_where_apt_has_no_lists(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lists: str
) -> None:
    refusal = 'if [ "$1" = download ]; then echo "E: Unable to locate package" >&2; exit 100; fi'
    log = put_fake_apt(tmp_path, monkeypatch, before=refusal if lists == "no lists" else "")
    found = find_or_fetch()
    assert found == cache / ELSEWHERE
    assert {p.name: p.read_bytes() for p in found.iterdir()} == {n: f"content of {n}".encode() for n in SAMPLE_FILES}
    assert [p.name for p in cache.iterdir()] == ["usr"], "the download is cleaned up"
    calls = log.read_text().splitlines()
    assert [call.split()[-1] for call in calls] == ([PACKAGE] if lists == "lists" else [PACKAGE, "update", PACKAGE])
    assert find_or_fetch() == found
    assert log.read_text().splitlines() == calls, "the second time, nothing is fetched"


@needs_dpkg
def test_two_processes_that_fetch_the_sample_at_once_both_have_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f'mkdir -p "{cache / ELSEWHERE}" && cp "{tmp_path}/package/{ELSEWHERE}"/* "{cache / ELSEWHERE}"'
    put_fake_apt(tmp_path, monkeypatch, before=other)
    assert find_or_fetch() == cache / ELSEWHERE
    assert sorted(p.name for p in (cache / ELSEWHERE).iterdir()) == sorted(SAMPLE_FILES)
    assert [p.name for p in cache.iterdir()] == ["usr"]
