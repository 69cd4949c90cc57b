"""The commands that take images in from the disk: their limits, and which folders are watched."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from eigenlens.command import main
from eigenlens.service.api.report import Report
from eigenlens.service.commands import build, sync
from eigenlens.service.commands.options import limits_of
from eigenlens.service.gallery.folders import register_folder
from eigenlens.service.gallery.limits import DEFAULT_LIMITS, Limits
from eigenlens.service.gallery.store.locks import Lock
from eigenlens.service.gallery.store.records import Folder
from tests.support.service import build_gallery, database_of, write_encoder


@pytest.mark.parametrize("configure", [build.configure, sync.configure])
def test_limits_are_positive_flags_or_variables(
    configure: Callable[[argparse.ArgumentParser], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = argparse.ArgumentParser()
    configure(parser)

    def limits(*flags: str) -> Limits:
        return limits_of(parser.parse_args(["--gallery", "g", *flags]))

    assert limits() == DEFAULT_LIMITS
    monkeypatch.setenv("EIGENLENS_MAX_PIXELS", "900")
    monkeypatch.setenv("EIGENLENS_MAX_IMAGE_BYTES", "800")
    assert limits("--max-pixels", "700") == Limits(max_image_bytes=800, max_pixels=700)
    for flag in ("--max-pixels", "--max-image-bytes"):
        for value in ("-5", "0", "many", "²"):
            with pytest.raises(SystemExit):
                limits(f"{flag}={value}")
            assert f"argument {flag}: '{value}' is not a positive whole number" in capsys.readouterr().err


def test_a_wrong_limit_of_the_environment_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = build_gallery(tmp_path, count=4)
    with database_of(gallery).transaction() as connection:
        connection.execute("INSERT INTO folders VALUES ('', ?, 'folder', 0, NULL)", (bytes(tmp_path / "images"),))
    gallery.store.close()
    monkeypatch.setenv("EIGENLENS_MAX_PIXELS", "abc")
    for words in (["build", "--images", str(tmp_path / "images")], ["sync"]):
        assert main([*words, "--gallery", str(gallery.root)]) == 1
        assert "error: EIGENLENS_MAX_PIXELS: 'abc' is not a positive whole number" in capsys.readouterr().err


def test_a_new_gallery_in_pgvector_needs_an_address_and_is_not_made_in_sqlite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EIGENLENS_STORE", raising=False)
    words = ["--encoder", str(write_encoder(tmp_path / "encoder")), "--gallery", str(tmp_path / "gallery")]
    assert main(["build", *words, "--backend", "pgvector"]) == 1
    assert "keeps codes in a PostgreSQL: give its address, --store postgresql://" in capsys.readouterr().err
    assert not (tmp_path / "gallery").exists()


def test_a_gallery_that_is_watched_is_not_taken_elsewhere_or_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = build_gallery(tmp_path, count=4)
    register_folder(gallery.store, tmp_path / "images")
    locks: list[Lock | None] = []
    monkeypatch.setattr(sync, "_watch", lambda *_: locks.append(gallery.store.lock("serving")))
    assert main(["sync", "--gallery", str(gallery.root), "--watch"]) == 0
    assert locks == [None]
    lock = gallery.store.lock("serving")
    assert lock is not None
    lock.close()
    gallery.store.close()


def test_folders_are_listed_anew_only_when_one_comes_or_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, disk = Folder("here", tmp_path / "here"), Folder("disk", tmp_path / "disk")
    here.path.mkdir()
    synced: list[list[str]] = []

    def watch(*paths: Path, **_: Any) -> Iterator[set[tuple[watchfiles.Change, str]]]:
        yield from [set(), set(), set()]
        if disk.path not in paths:
            disk.path.mkdir()
            yield set()
            raise AssertionError("the disk that came was not noticed")
        yield {(watchfiles.Change.added, str(disk.path / "x.png"))}
        disk.path.rename(tmp_path / "under")
        disk.path.mkdir()  # as of a disk that is mounted there
        yield set()
        raise AssertionError("the other folder at the same place was not noticed")

    def sync_all(_gallery: object, folders: list[Folder], _args: object) -> Report:
        synced.append([folder.name for folder in folders])
        if len(synced) == 4:
            raise KeyboardInterrupt
        return Report()

    monkeypatch.setattr(watchfiles, "watch", watch)
    monkeypatch.setattr(sync, "sync_all", sync_all)
    with pytest.raises(KeyboardInterrupt):
        sync._watch(None, [here, disk], argparse.Namespace())  # type: ignore[arg-type]
    assert synced == [["here"], ["here", "disk"], ["disk"], ["here", "disk"]]
