"""Sources: folders, archives and the sample, as the same images in the same order every time."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eigenlens import image_files
from eigenlens.image_files import IMAGE_EXTENSIONS
from eigenlens.model.errors import SourceError
from eigenlens.model.images import fashion_mnist
from eigenlens.model.images.fashion_mnist import LABELS, PACKAGE, FashionMnist, find_or_fetch
from eigenlens.model.images.sources import FolderSource, Source, TarSource, open_source, require_any_image

# What a folder of a person's may hold; the contents are never looked at here.
IMAGES = {
    "top.PNG": {},
    "cat/a b.jpg": {"label": "cat"},
    "cat/old/b.jpeg": {"label": "cat"},
    "dog/ü.webp": {"label": "dog"},
    "dog/a.JPG": {"label": "dog"},
}
OTHERS = (
    "readme.txt",
    "cat/labels.csv",
    "jpg",
    "cat/.hidden.jpg",
    ".git/a.jpg",
    "dog/.cache/deep/a.png",
    "__MACOSX/._a.jpg",
)


def write_folder(root: Path, names: Iterable[str] = (*IMAGES, *OTHERS)) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"content of {name}".encode())
    return root


def write_tar(path: Path, folder: Path, *, root: str) -> Path:
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}.get(path.suffix, "w:")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        tar.add(folder, arcname=root)
    return path


def contents(source: Source) -> dict[str, tuple[bytes, dict[str, str]]]:
    images = list(source)
    assert len(source) == len(images)
    assert len({image.id for image in images}) == len(images), "ids are unique"
    return {image.id: (image.data, image.metadata) for image in images}


EXPECTED = {name: (f"content of {name}".encode(), metadata) for name, metadata in IMAGES.items()}


def test_a_folder_gives_its_images_in_the_order_of_paths(tmp_path: Path) -> None:
    source = open_source(str(write_folder(tmp_path / "images")))
    assert contents(source) == EXPECTED
    assert [image.id for image in source] == ["cat/a b.jpg", "cat/old/b.jpeg", "dog/a.JPG", "dog/ü.webp", "top.PNG"]
    for image in source:
        assert image.path is not None
        assert image.path.is_absolute()
        assert image.path.read_bytes() == image.data


def test_hidden_files_count_only_below_the_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / ".cache" / "images")
    assert contents(open_source(str(folder))) == EXPECTED


def test_a_folder_named_like_an_image_is_none(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ["album.jpg/a.jpg"])
    assert contents(FolderSource(folder)) == {
        "album.jpg/a.jpg": (b"content of album.jpg/a.jpg", {"label": "album.jpg"})
    }


@pytest.mark.parametrize("extension", IMAGE_EXTENSIONS)
def test_every_extension_counts_in_any_case(tmp_path: Path, extension: str) -> None:
    folder = write_folder(tmp_path, [f"a{extension}", f"b{extension.upper()}"])
    assert len(FolderSource(folder)) == 2


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz", "images.tgz", "images.tar.xz", "images.tar.bz2"])
@pytest.mark.parametrize("root", [".", ""])
def test_an_archive_gives_what_its_folder_gives(tmp_path: Path, name: str, root: str) -> None:
    folder = write_folder(tmp_path / "images")
    source = open_source(str(write_tar(tmp_path / name, folder, root=root)))
    assert contents(source) == EXPECTED == contents(FolderSource(folder))
    assert [image.id for image in source] == [image.id for image in source]
    assert all(image.path is None for image in source)


def test_an_archive_of_a_named_folder_keeps_the_name(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", write_folder(tmp_path / "images", ["a.png"]), root="photos")
    assert list(contents(TarSource(tar))) == ["photos/a.png"]


def test_members_that_point_outside_or_are_no_files_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in (
            ("../outside.png", tarfile.REGTYPE),
            ("a/../../outside.png", tarfile.REGTYPE),
            ("folder.png", tarfile.DIRTYPE),
            ("device.png", tarfile.CHRTYPE),
            ("link.png", tarfile.SYMTYPE),
            ("good.png", tarfile.REGTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"data") if member.size else None)
    assert contents(TarSource(tmp_path / "x.tar")) == {"good.png": (b"data", {})}


def test_giant_files_are_not_read_and_say_so(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images")
    tar = write_tar(tmp_path / "x.tar", folder, root=".")
    for source in (FolderSource(folder, max_bytes=10), TarSource(tar, max_bytes=10)):
        assert {image.data for image in source} == {b""}
        assert all("bytes; at most 10 are taken" in str(image.problem) for image in source)


def test_a_source_is_opened_again_by_its_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "x.tar", write_folder(tmp_path / "images"), root=".")
    (tmp_path / "elsewhere").mkdir()
    for spec in ("images", "x.tar"):
        monkeypatch.chdir(tmp_path)
        name = open_source(spec).name
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert contents(open_source(name)) == EXPECTED


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "images")
    assert contents(open_source("~/images")) == EXPECTED


def test_a_source_without_a_usable_image_says_what_is_there_instead(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", OTHERS)
    for source in (folder, write_tar(tmp_path / "x.tar.gz", folder, root=".")):
        with pytest.raises(SourceError, match=r"holds no image file \(it holds 3 other files\); images are JPEG"):
            open_source(str(source))


def test_a_source_that_is_not_there_says_what_would_work(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no image source '.*nowhere': give a folder, a tar.*fashion-mnist"):
        open_source(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2"])
def test_a_truncated_archive_is_refused(tmp_path: Path, name: str) -> None:
    tar = write_tar(tmp_path / name, write_folder(tmp_path / "images"), root=".")
    # The last members of a plain tar are padding, so the cut goes into the content of the first file.
    content = tar.read_bytes()
    cut = content.index(b"content of") + 3 if name == "x.tar" else len(content) // 2
    tar.write_bytes(content[:cut])
    with pytest.raises(SourceError, match="not a readable tar archive"):
        open_source(str(tar))


@pytest.mark.parametrize("compression", ["gz", "xz", "bz2"])
def test_a_damaged_archive_is_a_source_error_whatever_its_decompressor_raises(tmp_path: Path, compression: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        (folder / f"{number}.png").write_bytes(rng.bytes(500))
    tar = write_tar(tmp_path / f"x.tar.{compression}", folder, root=".")
    content = tar.read_bytes()
    refused = 0
    for position in rng.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        tar.write_bytes(damaged)
        try:
            open_source(str(tar))
        except SourceError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("content", [b"", b"just some text", b"\xff\xd8\xff\xe0 a photo"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.jpg is not a readable tar archive|x\.jpg holds no image"):
        open_source(str(tmp_path / "x.jpg"))


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


def test_a_folder_of_the_samples_name_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "fashion-mnist")
    monkeypatch.chdir(tmp_path)
    assert contents(open_source("fashion-mnist")) == EXPECTED


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
    write_folder(tmp_path / "package" / ELSEWHERE, SAMPLE_FILES)
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


def test_whether_there_is_any_image_is_known_at_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "folder")
    looked: list[str] = []
    look_into = image_files.look_into
    monkeypatch.setattr(image_files, "look_into", lambda *a: looked.append(a[1]) or look_into(*a))  # type: ignore[func-returns-value]
    require_any_image(folder)
    assert looked == ["cat/a b.jpg"]
    linking = tmp_path / "linking"
    linking.mkdir()
    (linking / "more").symlink_to(folder)
    require_any_image(linking, follow_links=True)
    with pytest.raises(SourceError, match=r"holds no image file \(it holds 1 linked folder\)"):
        require_any_image(linking)
