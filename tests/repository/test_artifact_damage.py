"""Artifacts that are damaged, missing or of another kind: found when they are read, and the file named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from eigenlens import artifact
from tests.support.artifacts import FILES, KIND, publish
from tests.support.codes import flip_byte


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


def test_a_flipped_byte_anywhere_in_the_manifest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["eigenlens", "build"])
    original = publish(tmp_path / "x", {"a.bin": b"1"}, made_from={"encoder": "1"}, properties={"count": 1})
    manifest = original.path / artifact.MANIFEST
    data = manifest.read_bytes()
    for position in range(len(data)):
        manifest.write_bytes(data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :])
        with pytest.raises(artifact.ArtifactError):
            artifact.read(original.path, kind=KIND)


def test_a_manifest_of_an_earlier_version_has_no_check_and_is_read(tmp_path: Path) -> None:
    path = publish(tmp_path / "x").path
    manifest = json.loads((path / artifact.MANIFEST).read_text())
    del manifest["check"]
    (path / artifact.MANIFEST).write_text(json.dumps(manifest))
    artifact.read(path, kind=KIND)


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
