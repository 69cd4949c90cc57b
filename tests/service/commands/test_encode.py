"""Shards of images: encoded in parts, resumed after an interruption, and loaded into a gallery."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from numpy.typing import NDArray

from eigenlens.command import main
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.shards.codes import CodesOfShard
from eigenlens.service.gallery.layout import Gallery
from tests.support.service import code_of, pixels_of, png, write_encoder

COUNT = 40


def write_shards(folder: Path) -> Path:
    """Two tars with a class folder each and a Parquet file as of Hugging Face, of 40 images each by their seed."""
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for seed in range(shard * COUNT, (shard + 1) * COUNT):
                file = folder / "image"
                file.write_bytes(png(pixels_of(seed)))
                tar.add(file, f"boots/{seed}.png")
    file.unlink()
    rows = [
        {"image": {"bytes": png(pixels_of(seed)), "path": f"{seed}.png"}, "label": seed % 2, "price": 1.5, "gone": None}
        for seed in range(2 * COUNT, 3 * COUNT)
    ]
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(
        {"huggingface": '{"info": {"features": {"label": {"names": ["even", "odd"]}, "price": {}}}}'}
    )
    pyarrow.parquet.write_table(table, folder / "2.parquet")
    return folder


def encode(root: Path, *more: str, out: str = "codes", encoder: str = "encoder") -> int:
    images = ["--images", str(root / "shards"), "--out", str(root / out)]
    return main(["encode", "--encoder", str(root / encoder), *images, *more])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_encoder(tmp_path / "encoder")
    write_shards(tmp_path / "shards")
    return tmp_path


def test_shards_become_a_gallery_with_the_codes_of_their_images(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encode(root) == 0
    assert capsys.readouterr().out.startswith("encoded 3 shards, 120 images, 0 failed; 0 shards were encoded before")
    assert sorted(file.name for file in (root / "codes").iterdir()) == [f"{n}.codes.parquet" for n in range(3)]
    build = ["build", "--encoder", str(root / "encoder"), "--gallery", str(root / "gallery")]
    build += ["--codes", str(root / "codes"), "--lengths", "4"]
    monkeypatch.setattr(Encoder, "encode", None)  # no image is encoded again
    assert main(build) == 0
    assert "120 added" in capsys.readouterr().out
    gallery = Gallery(root / "gallery")
    _, generation = gallery.open_current()
    for id, seed, metadata in (
        ("0/boots/7.png", 7, {"label": "boots"}),
        ("1/boots/79.png", 79, {"label": "boots"}),
        ("2/81.png", 81, {"label": "odd", "price": 1.5}),
    ):
        record = gallery.store.record(id)
        assert (record.metadata, record.media_type, record.width) == (metadata, "image/png", 2)
        assert gallery.store.content(record.key) == png(pixels_of(seed))
        row = generation.codes.rows_of(np.array([record.key]))[0]
        expected = code_of(pixels_of(seed))
        code = generation.codes.codes[row].astype(np.float64)
        assert code @ expected / np.linalg.norm(code) / np.linalg.norm(expected) > 0.99999
    assert main(build) == 0
    assert "120 unchanged" in capsys.readouterr().out


def test_an_interrupted_encoding_goes_on_where_it_was_and_gives_equal_codes(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encode(root, out="whole") == 0
    original, calls = Encoder.encode, 0

    def interrupted(self: Encoder, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        nonlocal calls
        calls += 1
        if calls == 4:  # in the second batch of the second shard
            raise KeyboardInterrupt
        return original(self, pixels)

    monkeypatch.setattr(Encoder, "encode", interrupted)
    assert encode(root) == 130
    assert [file.name for file in (root / "codes").iterdir()] == ["0.codes.parquet"]
    first = (root / "codes" / "0.codes.parquet").stat()
    written = first.st_ino, first.st_mtime_ns
    left, new = root / "codes" / ".1.codes.parquet-old", root / "codes" / ".1.codes.parquet-new"
    left.touch()
    os.utime(left, (0, 0))  # of a process that was killed long ago
    new.touch()
    capsys.readouterr()
    calls = 10
    assert encode(root) == 0
    assert capsys.readouterr().out.startswith("encoded 2 shards, 80 images, 0 failed; 1 shards were encoded before")
    assert calls == 10 + 4
    first = (root / "codes" / "0.codes.parquet").stat()
    assert (first.st_ino, first.st_mtime_ns) == written
    assert (left.exists(), new.exists()) == (False, True)
    for file in (root / "whole").iterdir():
        assert file.read_bytes() == (root / "codes" / file.name).read_bytes()


def test_parts_share_the_shards(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in range(2):
        assert encode(root, "--part", f"{part}/2") == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in told] == ["encoded 2 shards", "encoded 1 shards"]
    for wrong, says in (("2/2", "they are 0/2 to 1/2"), ("0/0", "no part such as 0/8"), ("x", "no part such as 0/8")):
        with pytest.raises(SystemExit):
            encode(root, "--part", wrong)
        assert says in capsys.readouterr().err


def test_images_that_cannot_be_used_are_told_when_they_are_loaded(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [{"x": b"nothing"}, {"x": None}, {"x": png(pixels_of(0))}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "bad.parquet")
    (root / "broken.tar").write_bytes(b"no tar")
    images = [str(root / "broken.tar"), str(root / "bad.parquet")]
    encoder = ["--encoder", str(root / "encoder")]
    assert main(["encode", *encoder, "--out", str(root / "codes"), "--images", *images]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("encoded 1 shards, 3 images, 2 failed; 0 shards were encoded before, 1 cannot be read")
    assert "broken.tar is not a readable tar" in said.err
    codes = str(root / "codes" / "bad.codes.parquet")
    assert main(["build", *encoder, "--gallery", str(root / "gallery"), "--codes", codes]) == 0
    said = capsys.readouterr()
    assert "1 added" in said.out
    assert "2 failed" in said.out
    assert "bad/00000001: the row has no bytes of an image" in said.err


def test_wrong_shards_and_codes_are_refused_with_a_sentence(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encode(root) == 0
    write_encoder(root / "other", shift=100)
    (root / "empty").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), root / "table.parquet")
    (root / "codes" / "0.codes.parquet").rename(root / "cut.codes.parquet")
    (root / "cut.codes.parquet").write_bytes((root / "cut.codes.parquet").read_bytes()[:-100])
    (root / "again").mkdir()
    (root / "again" / "1.tar").touch()
    own, other = ["--encoder", str(root / "encoder")], ["--encoder", str(root / "other")]
    codes, out = str(root / "codes"), ["--out", str(root / "new")]
    for arguments, says in (
        (["encode", *other, "--images", str(root / "shards"), "--out", codes], "give another --out"),
        (["encode", *own, "--images", str(root / "empty"), *out], "holds no shard: shards end in .tar"),
        (["encode", *own, "--images", str(root / "nowhere.tar"), *out], "does not exist: give files that end in"),
        (
            ["encode", *own, "--images", str(root / "shards"), str(root / "again"), *out],
            "both be 1.codes.parquet",
        ),
        (
            ["encode", *own, "--images", str(root / "table.parquet"), *out],
            "no column of image bytes",
        ),
        (["build", *other, "--gallery", str(root / "g"), "--codes", codes], "has codes of the encoder"),
        (["build", *own, "--gallery", str(root / "g"), "--codes", str(root / "empty")], "`eigenlens encode` writes"),
        (["build", *own, "--gallery", str(root / "g"), "--codes", str(root / "cut.codes.parquet")], "no readable"),
        (["build", *own, "--gallery", str(root / "g"), "--codes", str(root / "table.parquet")], "is no file of codes"),
    ):
        assert main(arguments) == 1
        assert says in capsys.readouterr().err
    assert not (root / "g").exists()


def test_another_encoders_codes_are_loaded_for_images_that_are_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_encoder(root / "other", shift=100)
    gallery = ["--gallery", str(root / "gallery"), "--lengths", "4"]
    for name in ("encoder", "other"):
        assert encode(root, out=f"codes-{name}", encoder=name) == 0
    monkeypatch.setattr(Encoder, "encode", None)  # no image is encoded again
    for name in ("encoder", "other"):
        codes = ["--encoder", str(root / name), "--codes", str(root / f"codes-{name}")]
        assert main(["build", *gallery, *codes]) == 0
    _, generation = Gallery(root / "gallery").open_current()
    assert len(generation) == 3 * COUNT
    assert generation.encoder_id == CodesOfShard(root / "codes-other" / "0.codes.parquet").encoder_id
