"""Duplicates of a whole gallery: found by a job, kept in one file until the next search for them.

GALLERY/duplicates.npz holds arrays: `keys` of all groups' images, the best image of each group first; `starts` of the
groups in it; `cosines` of each image with the best of its group; and what the search was asked, as JSON.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
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
from eigenlens.index.codes.prefix import unit_prefix
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
# Of float32, in a cosine: what was linked is not parted from its best image by it.
_ROUNDING = 1e-6


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

    A group has the images with the bytes (SHA-256) of its best one, and those whose full codes have at least `cosine`
    with it. The best image has the most pixels; of equally many, the sharpest is the best, and then the one that came
    first.

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
        for divided in _divide(gallery, engine, list(records.values()), cosine=cosine):
            ranked.append(divided)
            exact += len({records[key].sha256 for key in divided}) == 1
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


def _divide(
    gallery: Gallery, engine: Engine, records: Sequence[ImageRecord], *, cosine: float
) -> Iterator[dict[int, float]]:
    """Yield groups of linked images: keys, the best first, each with the cosine of its code and the best one's.

    Links alone would chain images that are less and less alike. So the best image takes those that are near enough to
    it, the best of what is left takes its own, and so on. An image that is near enough to none is in no group.
    """
    ordered = _best_first(gallery, records)
    _, contents = np.unique([record.sha256 for record in ordered], return_inverse=True)
    codes = engine.codes_of([record.key for record in ordered])
    # Copies have the same code, of which one may be missing.
    of_content = {record.sha256: codes[record.key] for record in ordered if record.key in codes}
    no_code = np.zeros(engine.code_length, dtype=np.float32)
    unit = unit_prefix(np.stack([of_content.get(record.sha256, no_code) for record in ordered]), engine.code_length)
    left = np.arange(len(ordered))
    while len(left) > 1:
        cosines = np.minimum(unit[left] @ unit[left[0]], 1)
        cosines[contents[left] == contents[left[0]]] = 1
        is_near = cosines >= cosine - _ROUNDING
        if is_near.sum() > 1:
            near, near_cosines = left[is_near], cosines[is_near]
            yield {ordered[near[i]].key: float(near_cosines[i]) for i in np.argsort(-near_cosines, kind="stable")}
        left = left[~is_near]


def _best_first(gallery: Gallery, records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Return the images with the most pixels first; of equally many, the sharpest, and then the one that came first."""
    contents: dict[int, set[str]] = {}
    for record in records:
        contents.setdefault(record.width * record.height, set()).add(record.sha256)
    sharpness: dict[str, float] = {}
    for record in records:
        # Copies of the same bytes are equally sharp.
        if len(contents[record.width * record.height]) > 1 and record.sha256 not in sharpness:
            sharpness[record.sha256] = _sharpness(gallery, record.key)
    return sorted(records, key=lambda r: (-r.width * r.height, -sharpness.get(r.sha256, 0.0), r.key))


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
