"""Artifacts: published whole or not at all, checked when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import artifact
from tests.builders import flip_byte

KIND = "codes"
FILES = {"a.bin": bytes(range(256)), "nested/deep/b.txt": b"second", "empty": b""}


def publish(
    path: Path,
    files: Mapping[str, bytes] = FILES,
    *,
    kind: str = KIND,
    made_from: Mapping[str, str] | None = None,
    properties: dict[str, object] | None = None,
) -> artifact.Artifact:
    with artifact.publishing(path, kind=kind, made_from=made_from, properties=properties) as directory:
        fill(directory, files)
    return artifact.read(path, kind=kind)


def fill(directory: Path, files: Mapping[str, bytes] = FILES) -> None:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


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
        "import os, sys, pathlib, artifact\n"
        "with artifact.publishing(pathlib.Path(sys.argv[1]), kind='codes') as directory:\n"
        "    (directory / 'a.bin').write_bytes(b'half')\n"
        "    os._exit(9)\n"
    )
    root = Path(artifact.__file__).parent
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


@pytest.mark.parametrize("name", [name for name, data in FILES.items() if data])
@pytest.mark.parametrize("position", [0, -1])
def test_a_flipped_byte_is_found_and_its_file_named(tmp_path: Path, name: str, position: int) -> None:
    path = publish(tmp_path / "x").path
    flip_byte(path / name, position)
    with pytest.raises(artifact.ArtifactDamagedError, match=name) as caught:
        artifact.read(path, kind=KIND)
    assert caught.value.file == name
    artifact.read(path, kind=KIND, verify=False)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found_and_named(tmp_path: Path, name: str, verify: bool) -> None:
    path = publish(tmp_path / "x").path
    (path / name).unlink()
    with pytest.raises(artifact.ArtifactDamagedError, match=f"{name}.*missing") as caught:
        artifact.read(path, kind=KIND, verify=verify)
    assert caught.value.file == name


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_another_size_is_found_even_without_checksums(tmp_path: Path, name: str, verify: bool) -> None:
    path = publish(tmp_path / "x").path
    (path / name).write_bytes(FILES[name] + b"\0")
    with pytest.raises(artifact.ArtifactDamagedError, match=name) as caught:
        artifact.read(path, kind=KIND, verify=verify)
    assert caught.value.file == name


def test_no_flipped_byte_of_the_manifest_changes_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the command and the time, which say nothing about the contents, are not covered by the id."""
    monkeypatch.setattr(sys, "argv", ["eigenlens", "build"])
    original = publish(tmp_path / "x", {"a.bin": b"1"}, made_from={"encoder": "1"}, properties={"count": 1})
    manifest = original.path / artifact.MANIFEST
    data = manifest.read_bytes()
    refused = 0
    for position in range(len(data)):
        manifest.write_bytes(data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :])
        try:
            found = artifact.read(original.path, kind=KIND)
        except artifact.ArtifactError:
            refused += 1
        else:
            assert (found.id, found.kind, found.files) == (original.id, original.kind, original.files)
            assert (found.made_from, found.properties) == (original.made_from, original.properties)
    assert refused >= len(data) - len(original.command) - len(original.created)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"format": 1}'])
def test_what_is_no_manifest_is_damage(tmp_path: Path, content: bytes) -> None:
    path = publish(tmp_path / "x").path
    (path / artifact.MANIFEST).write_bytes(content)
    with pytest.raises(artifact.ArtifactDamagedError, match="not a manifest") as caught:
        artifact.read(path, kind=KIND)
    assert caught.value.file == artifact.MANIFEST


def test_a_giant_manifest_is_refused(tmp_path: Path) -> None:
    path = publish(tmp_path / "x").path
    with (path / artifact.MANIFEST).open("ab") as f:
        f.truncate(17 * 2**20)
    with pytest.raises(artifact.ArtifactDamagedError, match="too many"):
        artifact.read(path, kind=KIND)


@pytest.mark.parametrize("name", ["../outside", "nested/../../outside"])
def test_a_manifest_may_not_reach_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "x" / "nested").mkdir(parents=True)
    with pytest.raises(artifact.ArtifactDamagedError, match="outside the artifact"):
        artifact.seal(tmp_path / "x", kind=KIND, only=(name,))


def test_a_manifest_may_not_name_an_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "x").mkdir()
    with pytest.raises(artifact.ArtifactDamagedError, match="outside the artifact"):
        artifact.seal(tmp_path / "x", kind=KIND, only=(str(tmp_path / "outside"),))


def test_another_kind_is_refused(tmp_path: Path) -> None:
    path = publish(tmp_path / "x", kind="encoder").path
    with pytest.raises(artifact.ArtifactError, match=r"'encoder'.*'codes'"):
        artifact.read(path, kind="codes")


def test_another_format_is_refused_as_such_and_not_as_damage(tmp_path: Path) -> None:
    path = publish(tmp_path / "x").path
    manifest = json.loads((path / artifact.MANIFEST).read_text())
    (path / artifact.MANIFEST).write_text(json.dumps({**manifest, "format": artifact.FORMAT_VERSION + 1}))
    with pytest.raises(artifact.ArtifactError, match=f"format {artifact.FORMAT_VERSION + 1}") as caught:
        artifact.read(path, kind=KIND)
    assert not isinstance(caught.value, artifact.ArtifactDamagedError)


@pytest.mark.parametrize("there", ["nothing", "file", "empty folder"])
def test_no_artifact_is_said_to_be_missing(tmp_path: Path, there: str) -> None:
    path = tmp_path / "x"
    if there == "file":
        path.write_bytes(b"")
    elif there == "empty folder":
        path.mkdir()
    with pytest.raises(artifact.ArtifactMissingError, match=KIND):
        artifact.read(path, kind=KIND)


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
