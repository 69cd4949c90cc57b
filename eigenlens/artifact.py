"""Artifacts: directories that one stage publishes whole and the next stage reads.

An artifact is a directory with a `manifest.json` that names its format version, its kind, the command that made it,
what it was made from, and the size and sha256 of every file. Its `id` is a hash of all of that but the time and the
command, so equal contents have equal ids. This module needs only the standard library: every package may import it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 16 * 2**20
_STAGING = ".building-"


class EigenlensError(Exception):
    """Root of the errors that a person can act on: the message says what was asked and what would work."""


class ArtifactError(EigenlensError):
    """A directory is not the artifact that was asked for."""


class ArtifactMissingError(ArtifactError):
    """There is no artifact at the path."""


class ArtifactExistsError(ArtifactError):
    """Something is already at the path; artifacts are never overwritten."""


class ArtifactDamagedError(ArtifactError):
    """A file of the artifact is missing or differs from its checksum; `file` names it."""

    def __init__(self, path: Path, file: str, problem: str) -> None:
        super().__init__(f"{path / file} is damaged: {problem}; build this artifact again or restore it from a copy")
        self.path, self.file = path, file


@dataclass(frozen=True)
class Artifact:
    """A published directory and what its manifest says."""

    path: Path
    kind: str
    id: str
    made_from: Mapping[str, str]
    properties: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    command: str
    created: str

    def file(self, name: str) -> Path:
        """Return the path of a file that the manifest lists. Raises: ArtifactDamagedError, if it lists no such file."""
        if name not in self.files:
            raise ArtifactDamagedError(self.path, name, "the manifest does not list it")
        return self.path / name


def command_line() -> str:
    """Return the command that is running, as one would type it, for manifests and benchmark records."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


@contextmanager
def publishing(
    path: Path,
    *,
    kind: str,
    made_from: Mapping[str, str] | None = None,
    properties: dict[str, Any] | None = None,
    check: Callable[[Path], None] | None = None,
) -> Iterator[Path]:
    """Yield a directory beside `path` to write into; on success it becomes `path`, on failure it is removed.

    A reader, or a power cut, sees nothing at `path` or all of it.

    Args:
        properties: may be filled in while writing.
        check: called with the directory once it is a whole artifact and before it is at `path`; what it raises is
            a failure.

    Raises: ArtifactExistsError, if anything is at `path` already.
    """
    with _staging(path) as staging:
        yield staging
        seal(staging, kind=kind, made_from=made_from, properties=properties)
        if check is not None:
            check(staging)


def copy(source: Path, target: Path, *, kind: str) -> Artifact:
    """Publish a copy of the artifact at `source` as `target`, whole or not at all, after verifying it.

    Raises: ArtifactError, if it is damaged or of another kind; ArtifactExistsError.
    """
    original = read(source, kind=kind)
    with _staging(target) as staging:
        for name in (*original.files, MANIFEST):
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, staging / name)
            with (staging / name).open("rb") as f:
                os.fsync(f.fileno())
    return read(target, kind=kind)


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    if path.exists():
        raise ArtifactExistsError(f"{path} already exists and is not overwritten: choose another name, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{_STAGING}{path.name}-"))
    try:
        yield staging
        staging.chmod(0o755)
        try:
            os.rename(staging, path)
        except OSError as error:
            raise ArtifactExistsError(f"{path} appeared while it was being built; nothing was replaced") from error
        fsync_directory(path.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def seal(
    path: Path,
    *,
    kind: str,
    made_from: Mapping[str, str] | None = None,
    properties: Mapping[str, Any] | None = None,
    only: tuple[str, ...] | None = None,
) -> Artifact:
    """Make the directory an artifact: flush its files to disk, hash them, write the manifest last.

    Args:
        only: names of the files that belong to the artifact; all files below `path` when None.
    """
    names = only or tuple(sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file()))
    files: dict[str, dict[str, Any]] = {}
    for name in names:
        if name == MANIFEST:
            continue
        (path / name).chmod(0o644)
        with (path / name).open("rb+") as f:
            os.fsync(f.fileno())
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        files[name] = {"sha256": digest, "bytes": (path / name).stat().st_size}
    content = {
        "format": FORMAT_VERSION,
        "kind": kind,
        "made_from": dict(made_from or {}),
        "properties": dict(properties or {}),
        "files": files,
    }
    manifest = {
        **content,
        "id": _content_id(content),
        "command": command_line(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    manifest["check"] = _content_id(manifest)  # the id leaves out who made it and when, damage may not
    for directory in {(path / name).parent for name in files}:
        fsync_directory(directory)
    write_atomic(path / MANIFEST, json.dumps(manifest, indent=2).encode())
    return read(path, kind=kind, verify=False)


def read(path: Path, *, kind: str, verify: bool = True) -> Artifact:
    """Open the artifact at `path`.

    Args:
        kind: what it must be.
        verify: compare every file with its sha256; sizes are compared in any case.

    Raises: ArtifactMissingError; ArtifactDamagedError, which names the file; ArtifactError for another kind or format.
    """
    try:
        raw = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactMissingError(f"there is no {kind} at {path} ({MANIFEST} not found)") from None
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise ArtifactDamagedError(path, MANIFEST, f"{len(raw)} bytes are too many for a manifest")
    try:
        manifest = json.loads(raw)
        check = manifest.pop("check", None)  # manifests of earlier versions have none
        content = {key: manifest[key] for key in ("format", "kind", "made_from", "properties", "files")}
        opened = Artifact(
            path=path,
            kind=content["kind"],
            id=manifest["id"],
            made_from=content["made_from"],
            properties=content["properties"],
            files=content["files"],
            command=manifest["command"],
            created=manifest["created"],
        )
        format_version = int(content["format"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactDamagedError(path, MANIFEST, f"not a manifest ({error!r})") from error
    if format_version != FORMAT_VERSION:
        raise ArtifactError(f"{path} has format {format_version}; this version reads format {FORMAT_VERSION}")
    if opened.kind != kind:
        raise ArtifactError(f"{path} is of kind '{opened.kind}', and '{kind}' was asked for")
    if opened.id != _content_id(content):
        raise ArtifactDamagedError(path, MANIFEST, "its id does not match its contents")
    if manifest.keys() != {*content, "id", "command", "created"} or check not in (None, _content_id(manifest)):
        raise ArtifactDamagedError(path, MANIFEST, "its check does not match its contents")
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        for _ in pool.map(lambda item: _check_file(path, *item, verify=verify), opened.files.items()):
            pass
    return opened


def _check_file(path: Path, name: str, expected: Mapping[str, Any], *, verify: bool) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ArtifactDamagedError(path, MANIFEST, f"it lists a file outside the artifact: {name!r}")
    try:
        with (path / name).open("rb") as f:
            size = os.fstat(f.fileno()).st_size
            if size != expected["bytes"]:
                raise ArtifactDamagedError(path, name, f"{size} bytes where {expected['bytes']} were written")
            if verify and hashlib.file_digest(f, "sha256").hexdigest() != expected["sha256"]:
                raise ArtifactDamagedError(path, name, "its sha256 differs from the manifest's")
    except FileNotFoundError:
        raise ArtifactDamagedError(path, name, "it is missing") from None


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the contents of `path`: a reader, or a power cut, sees the old bytes or the new."""
    with writing_atomic(path, mode=mode) as f:
        f.write(data)


@contextmanager
def writing_atomic(path: Path, *, mode: int = 0o644, overwrite: bool = True) -> Iterator[IO[bytes]]:
    """Yield a file beside `path` to write to; on success it becomes `path`, on failure it is removed.

    Args:
        mode: permissions of the file.
        overwrite: replace a file at `path`.

    Raises: FileExistsError, if there is a file at `path` and `overwrite` is off.
    """
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        temporary.chmod(mode)
        if overwrite:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # unlike a rename it never replaces
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Flush the directory to disk, so that renames within it are durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    """Remove an artifact in one step; what a kill leaves of it is no artifact any more."""
    discarded = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{_STAGING}{path.name}-"))
    os.rename(path, discarded)  # takes the place of an empty directory
    fsync_directory(path.parent)
    shutil.rmtree(discarded)


def remove_leftovers(parent: Path) -> None:
    """Remove what killed builders left below `parent`. Call it only while holding the lock that builders hold."""
    for entry in parent.glob(f"{_STAGING}*"):
        if re.fullmatch(rf"{re.escape(_STAGING)}.+-[^-]+", entry.name):
            shutil.rmtree(entry, ignore_errors=True)


def _content_id(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical).hexdigest()[:16]
