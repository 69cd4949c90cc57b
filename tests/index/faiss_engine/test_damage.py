"""Damage on disk is found when a generation is opened, whichever file it is in, and the file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from eigenlens.artifact import ArtifactDamagedError
from eigenlens.service.gallery.layout import Gallery
from tests.support.codes import flip_byte
from tests.support.service import build_gallery


def files_of(gallery: Gallery) -> list[Path]:
    return sorted(p for folder in ("codes", "generations") for p in (gallery.root / folder).rglob("*") if p.is_file())


def test_a_flipped_byte_in_any_file_is_found_and_the_file_named(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=60, lengths=(4, 12))
    names = {path.name for path in files_of(gallery)}
    assert {"manifest.json", "codes.npy", "keys.npy", "norms.npy", "order.npy", "attributes.json"} <= names
    for path in files_of(gallery):
        for position in (0, path.stat().st_size // 2, -1):
            if path.stat().st_size == 0:
                continue
            flip_byte(path, position)
            with pytest.raises(ArtifactDamagedError) as caught:
                gallery.open_generation(1)
            assert caught.value.file == path.name
            flip_byte(path, position)
    assert gallery.open_current()[0] == 1
