"""Duplicates of a whole gallery: found by a job, kept in one file until the next search for them.

GALLERY/duplicates.npz holds arrays: `keys` of all groups' images, the best image of each group first; `starts` of the
groups in it; `cosines` of each image with the best of its group; and what the search was asked, as JSON.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eigenlens import artifact
from eigenlens.artifact import ArtifactError, EigenlensError
from eigenlens.index.duplicates import connect, find_links
from eigenlens.index.engine import Engine
from eigenlens.model.images.decode import decode
from eigenlens.service.gallery.changes import apply_to_engine
from eigenlens.service.gallery.encoding import UNLIMITED_PIXELS
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.store.records import ImageRecord

_FILE = "duplicates.npz"
_SHARPNESS_SIDE = 256


@dataclass(frozen=True)
class Duplicates:
    """Groups of duplicates, as one search for them found them.

    Attributes:
        keys: (m,), int64, group after group; the best image of each group comes first.
        starts: (groups + 1,): group i has the keys from starts[i] to starts[i + 1].
        cosines: (m,), float32: of the full codes of each image and the best of its group.
        cosine: threshold of near-duplicates.
        generation: that was searched.
        found: when, in ISO 8601.
    """

    keys: NDArray[np.int64]
    starts: NDArray[np.int64]
    cosines: NDArray[np.float32]
    cosine: float
    generation: int
    found: str

    def __len__(self) -> int:
        return len(self.starts) - 1

    def group(self, number: int) -> dict[int, float]:
        """Return the keys of a group, best first, with their cosines."""
        part = slice(self.starts[number], self.starts[number + 1])
        return dict(zip(self.keys[part].tolist(), self.cosines[part].tolist(), strict=True))

    def write(self, gallery: Gallery) -> None:
        """Replace what the last search found."""
        buffer = io.BytesIO()
        about = {"cosine": self.cosine, "generation": self.generation, "found": self.found}
        np.savez(buffer, keys=self.keys, starts=self.starts, cosines=self.cosines, about=np.array(json.dumps(about)))
        artifact.write_atomic(gallery.root / _FILE, buffer.getvalue())


def read_duplicates(gallery: Gallery) -> Duplicates | None:
    """Read what the last search found, None if there was none. Raises: ArtifactError, if it cannot be read."""
    path = gallery.root / _FILE
    try:
        written = path.stat()
        return _read(path, written.st_mtime_ns, written.st_size)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); look for duplicates again") from error


@lru_cache(maxsize=1)
def _read(path: Path, modified_ns: int, size: int) -> Duplicates:
    """Read a file as it was written then: all pages of an answer come from one reading."""
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        return Duplicates(arrays["keys"], arrays["starts"], arrays["cosines"], **about)


def find_duplicates(gallery: Gallery, *, cosine: float, progress: Progress) -> dict[str, Any]:
    """Find all duplicates of a gallery, durable additions included, and keep them.

    Images with the same bytes (SHA-256), or whose full codes have at least `cosine`, are in one group. The best image
    of a group has the most pixels; of equally many, the sharpest is the best, and then the one that came first.

    Returns: how many groups and images there are, and in how many groups all bytes are the same.

    Raises: GalleryError.
    """
    number, engine = gallery.open_engine()
    changes = gallery.store.changes(gallery.position_of(number), encoder_id=engine.encoder_id)
    apply_to_engine(changes, engine)
    keys, _ = gallery.store.contents()
    # Copies have the same code: one of them searches, and stands for all.
    copies = gallery.store.copies()
    others = [key for group in copies for key in group[1:]]
    searching = np.setdiff1d(keys, others)
    progress.start("search", len(searching))
    links = find_links(engine, searching, cosine=cosine, on_progress=progress.advance)
    groups = connect(chain(links.pairs, (edge for group in copies for edge in pairwise(group))))
    # What was removed while they were sought is no duplicate any more.
    progress.start("compare", len(groups))
    ranked: list[dict[int, float]] = []
    exact = 0
    for group in groups:
        records = gallery.store.records(group)
        if len(records) > 1:
            ranked.append(_rank(gallery, engine, list(records.values())))
            exact += len({record.sha256 for record in records.values()}) == 1
        progress.advance(1)
    ranked.sort(key=len, reverse=True)
    Duplicates(
        keys=np.array([key for group in ranked for key in group], dtype=np.int64),
        starts=np.cumsum([0, *map(len, ranked)], dtype=np.int64),
        cosines=np.array([value for group in ranked for value in group.values()], dtype=np.float32),
        cosine=cosine,
        generation=number,
        found=datetime.now(UTC).isoformat(timespec="seconds"),
    ).write(gallery)
    return {"groups": len(ranked), "images": sum(map(len, ranked)), "exact_groups": exact}


def _rank(gallery: Gallery, engine: Engine, records: Sequence[ImageRecord]) -> dict[int, float]:
    """Return the keys of a group, the best image first, each with the cosine of its code and the best one's."""
    most = max(record.width * record.height for record in records)
    largest = [record for record in records if record.width * record.height == most]
    # Copies of the same bytes are equally sharp.
    sharpness = dict.fromkeys({record.sha256 for record in largest}, 0.0)
    if len(sharpness) > 1:
        sharpness = {record.sha256: _sharpness(gallery, record.key) for record in largest}
    best = max(largest, key=lambda record: (sharpness[record.sha256], -record.key))
    codes = engine.codes_of([record.key for record in records])
    cosines = {record.key: _cosine(codes.get(best.key), codes.get(record.key)) for record in records}
    others = sorted((r.key for r in records if r.key != best.key), key=lambda key: (-cosines[key], key))
    return {best.key: 1.0} | {key: cosines[key] for key in others}


def _cosine(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> float:
    """Return the cosine of two codes; 1 where one has none, since it is a copy then."""
    if a is None or b is None:
        return 1.0
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else 0.0


def _sharpness(gallery: Gallery, key: int) -> float:
    """Return the variance of an image's Laplacian at a common size; -1 if its content is gone or damaged.

    Source: Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000.
    """
    try:
        image = decode(gallery.store.content(key), max_pixels=UNLIMITED_PIXELS, at_least=_SHARPNESS_SIDE)
    except EigenlensError:
        return -1.0
    grey = np.asarray(image.convert("L").resize((_SHARPNESS_SIDE,) * 2, Image.Resampling.BILINEAR), dtype=np.float32)
    centre = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * centre
    return float(laplacian.var())
