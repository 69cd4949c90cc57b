"""Artifacts: published, copied and removed whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eigenlens import artifact
from tests.support.artifacts import FILES, KIND, fill, publish


def test_what_was_published_is_read_back(tmp_path: Path) -> None:
    published = publish(tmp_path / "x", made_from={"encoder": "ü"}, properties={"count": 3, "lengths": [4, 8]})
    assert published.path == tmp_path / "x"
    assert published.kind == KIND
    assert published.made_from == {"encoder": "ü"}
    assert published.properties == {"count": 3, "lengths": [4, 8]}
    assert published.files == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in FILES.items()
    }
    assert published.file("nested/deep/b.txt").read_bytes() == b"second"


def test_properties_may_be_filled_in_while_writing(tmp_path: Path) -> None:
    properties: dict[str, object] = {}
    with artifact.publishing(tmp_path / "x", kind=KIND, properties=properties):
        properties["count"] = 7
    assert artifact.read(tmp_path / "x", kind=KIND).properties == {"count": 7}


def test_the_manifest_says_which_command_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/eigenlens", "build", "--gallery", "g"])
    assert publish(tmp_path / "x").command == "eigenlens build --gallery g"


def test_equal_contents_have_equal_ids_whatever_the_command_and_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(tmp_path / "x")
    monkeypatch.setattr(sys, "argv", ["other"])
    assert publish(tmp_path / "y").id == first.id


def test_any_other_content_has_another_id(tmp_path: Path) -> None:
    ids = [
        publish(tmp_path / "plain").id,
        publish(tmp_path / "byte", {**FILES, "empty": b"0"}).id,
        publish(tmp_path / "name", {"a": FILES["a.bin"]}).id,
        publish(tmp_path / "kind", kind="encoder").id,
        publish(tmp_path / "made-from", made_from={"encoder": "1"}).id,
        publish(tmp_path / "properties", properties={"count": 1}).id,
    ]
    assert len(set(ids)) == len(ids)


def test_nothing_is_at_the_path_until_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new-parent" / "x"
    with artifact.publishing(path, kind=KIND) as directory:
        assert directory.parent == path.parent, "a rename is atomic only within a file system"
        for name, data in FILES.items():
            fill(directory, {name: data})
            assert not path.exists()
    assert sorted(p.name for p in path.parent.iterdir()) == ["x"]


def test_an_artifact_that_fails_its_check_is_not_published(tmp_path: Path) -> None:
    checked: list[artifact.Artifact] = []

    def check(directory: Path) -> None:
        assert not (tmp_path / "x").exists()
        checked.append(artifact.read(directory, kind=KIND))
        if len(checked) == 1:
            raise ValueError("it does not do what it should")

    def build() -> None:
        with artifact.publishing(tmp_path / "x", kind=KIND, check=check) as directory:
            fill(directory)

    with pytest.raises(ValueError, match="does not do"):
        build()
    assert list(tmp_path.iterdir()) == []
    build()
    assert artifact.read(tmp_path / "x", kind=KIND).id == checked[1].id


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failed_build_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def build() -> None:
        with artifact.publishing(tmp_path / "x", kind=KIND) as directory:
            fill(directory)
            raise error

    with pytest.raises(error):
        build()
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        publish(tmp_path / "x", properties={"count": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_leaves_nothing_at_the_path_and_its_remains_can_be_removed(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\nfrom eigenlens import artifact\n"
        "with artifact.publishing(pathlib.Path(sys.argv[1]), kind='codes') as directory:\n"
        "    (directory / 'a.bin').write_bytes(b'half')\n"
        "    os._exit(9)\n"
    )
    root = Path(artifact.__file__).parents[1]
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "x")], cwd=root, check=False)
    assert killed.returncode == 9
    assert not (tmp_path / "x").exists()
    assert len(list(tmp_path.iterdir())) == 1

    kept = publish(tmp_path / "y-1")
    (tmp_path / "building-z").mkdir()
    artifact.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["building-z", "y-1"]
    assert artifact.read(tmp_path / "y-1", kind=KIND) == kept
    assert publish(tmp_path / "x").id == kept.id


def test_everything_is_on_the_disk_before_the_rename_and_the_rename_itself_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int]] = []
    needed: set[int] = set()
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(fd: int) -> None:
        fsync(fd)
        events.append(("fsync", os.fstat(fd).st_ino))

    def recorded_rename(source: Path, target: Path) -> None:
        needed.update(p.stat().st_ino for p in [source, *(source / name for name in [*FILES, artifact.MANIFEST])])
        rename(source, target)
        events.append(("rename", 0))

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    publish(tmp_path / "x")
    renamed = events.index(("rename", 0))
    assert needed <= {inode for _, inode in events[:renamed]}
    assert ("fsync", tmp_path.stat().st_ino) in events[renamed:]


def test_others_can_read_what_was_published(tmp_path: Path) -> None:
    path = publish(tmp_path / "x").path
    assert path.stat().st_mode & 0o777 == 0o755
    for name in [*FILES, artifact.MANIFEST]:
        assert (path / name).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("there", ["artifact", "file", "empty folder"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, there: str) -> None:
    path = tmp_path / "x"
    if there == "artifact":
        publish(path)
    elif there == "file":
        path.write_bytes(b"mine")
    else:
        path.mkdir()
    before = {p: p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")}
    with pytest.raises(artifact.ArtifactExistsError, match="not overwritten"):
        publish(path, {"other": b""})
    assert {p: p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")} == before


def test_of_two_builders_of_one_path_the_first_wins(tmp_path: Path) -> None:
    def slower() -> None:
        with artifact.publishing(tmp_path / "x", kind=KIND) as directory:
            fill(directory, {"slow": b""})
            publish(tmp_path / "x", {"fast": b""})

    with pytest.raises(artifact.ArtifactExistsError, match="nothing was replaced"):
        slower()
    assert list(artifact.read(tmp_path / "x", kind=KIND).files) == ["fast"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_only_the_files_that_were_asked_for_are_sealed(tmp_path: Path) -> None:
    fill(tmp_path)
    sealed = artifact.seal(tmp_path, kind=KIND, only=("empty", "a.bin"))
    assert set(sealed.files) == {"empty", "a.bin"}
    (tmp_path / "nested/deep/b.txt").unlink()
    artifact.read(tmp_path, kind=KIND)
    with pytest.raises(artifact.ArtifactDamagedError, match="does not list"):
        sealed.file("nested/deep/b.txt")


def test_sealing_again_takes_the_new_contents_and_not_the_old_manifest(tmp_path: Path) -> None:
    fill(tmp_path)
    artifact.seal(tmp_path, kind=KIND)
    fill(tmp_path, {"a.bin": b"new"})
    assert set(artifact.seal(tmp_path, kind=KIND).files) == set(FILES)
    artifact.read(tmp_path, kind=KIND)


def test_write_atomic_never_touches_the_old_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    artifact.write_atomic(path, b"old bytes", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("rb") as reader:
        artifact.write_atomic(path, b"new")
        assert reader.read() == b"old bytes"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_file_that_must_be_new_replaces_none(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"first", b"second"):
        with (
            pytest.raises(FileExistsError) if path.exists() else contextlib.nullcontext(),
            artifact.writing_atomic(path, mode=0o600, overwrite=False) as f,
        ):
            f.write(content)
            assert not path.exists() or path.read_bytes() == b"first"
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_failed_write_atomic_keeps_the_old_bytes_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(fd: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "x"
    artifact.write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        artifact.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_copy_is_the_same_artifact_and_a_damaged_one_is_not_copied(tmp_path: Path) -> None:
    with artifact.publishing(tmp_path / "first", kind="thing") as directory:
        (directory / "below").mkdir()
        (directory / "below" / "data").write_bytes(b"12345")
    copied = artifact.copy(tmp_path / "first", tmp_path / "second", kind="thing")
    assert copied.id == artifact.read(tmp_path / "first", kind="thing").id
    assert (tmp_path / "second" / "below" / "data").read_bytes() == b"12345"
    (tmp_path / "first" / "below" / "data").write_bytes(b"12346")
    with pytest.raises(artifact.ArtifactDamagedError, match="below/data"):
        artifact.copy(tmp_path / "first", tmp_path / "third", kind="thing")
    with pytest.raises(artifact.ArtifactExistsError):
        artifact.copy(tmp_path / "second", tmp_path / "second", kind="thing")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["first", "second"]


def test_an_artifact_whose_removal_was_cut_short_is_gone_and_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with artifact.publishing(tmp_path / "a", kind="thing") as directory:
        (directory / "data").write_bytes(b"1")

    def killed(path: Path) -> None:
        (path / artifact.MANIFEST).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        artifact.remove(tmp_path / "a")
    monkeypatch.undo()
    assert not (tmp_path / "a").exists()
    artifact.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
