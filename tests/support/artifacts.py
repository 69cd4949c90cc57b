"""Small artifacts that several tests start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eigenlens import artifact

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
