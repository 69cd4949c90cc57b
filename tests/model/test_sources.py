"""Sources: folders and archives, as the same images in the same order every time."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eigenlens import image_files
from eigenlens.image_files import IMAGE_EXTENSIONS
from eigenlens.model.errors import ImageError, SourceError
from eigenlens.model.images.hard_views import HardViews
from eigenlens.model.images.preprocessing import FRAMINGS, STANDARD, input_shape
from eigenlens.model.images.sources import (
    FolderSource,
    Framed,
    Source,
    TarSource,
    open_source,
    require_any_image,
)

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


def test_a_folder_of_the_samples_name_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "fashion-mnist")
    monkeypatch.chdir(tmp_path)
    assert contents(open_source("fashion-mnist")) == EXPECTED


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


def test_whole_pictures_load_whole_unless_another_version_is_asked_for(tmp_path: Path) -> None:
    picture = Image.new("RGB", (90, 30), (0, 255, 0))
    picture.paste((255, 0, 0), (0, 0, 20, 30))
    picture.save(tmp_path / "wide.png")
    source = FolderSource(tmp_path)
    (centre,), (whole,) = source, Framed(source, "whole")
    assert Framed(source, "whole").name != source.name
    reds = []
    for loaded in (centre.load(9), whole.load(9), whole.load(9, preprocessing=STANDARD)):
        assert not isinstance(loaded, ImageError)
        reds.append(float(loaded[..., 0].mean()))
    assert reds == [0, pytest.approx(255 * 2 / 9, abs=8), 0]


def test_framings_show_the_centre_the_whole_or_the_centre_and_both_ends(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 90))
    for third, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        picture.paste(colour, (0, 30 * third, 30, 30 * third + 30))
    for name, turned in (("tall", picture), ("wide", picture.transpose(Image.Transpose.TRANSPOSE))):
        (tmp_path / name).mkdir()
        turned.save(tmp_path / name / "picture.png")
        source = FolderSource(tmp_path / name)
        seen = {}
        for framing, preprocessing in FRAMINGS.items():
            pixels = next(iter(Framed(source, framing))).load(9)
            assert not isinstance(pixels, ImageError)
            assert pixels.shape == input_shape(9, preprocessing)
            upright = pixels if name == "tall" else pixels.swapaxes(-2, -3)
            seen[framing] = upright.reshape(-1, 3, 3, 9, 3).mean((2, 3)).argmax(-1).tolist()
        assert seen == {"centre": [[1, 1, 1]], "whole": [[0, 1, 2]], "crops": [[1, 1, 1], [0, 0, 0], [2, 2, 2]]}
        names = {Framed(part, framing).name for framing in FRAMINGS for part in (source, HardViews(source))}
        assert len(names) == 2 * len(FRAMINGS), "features are cached by the name"
