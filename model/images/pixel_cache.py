"""The pixel cache: a source's images decoded once, as uint8 squares in a memory-mapped file."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eigenlens import artifact
from eigenlens.model.errors import ImageError, SourceError
from eigenlens.model.images.preprocessing import FIRST, STANDARD, Preprocessing
from eigenlens.model.images.sources import Source, batches

_BATCH = 256


@dataclass(frozen=True)
class PixelCache:
    """Decoded images and what could not be used.

    Attributes:
        pixels: (n, side, side, 3), uint8, memory-mapped.
        skipped: (id, reason) of each image that could not be decoded.
        preprocessing: version of how files became these pixels.
    """

    pixels: NDArray[np.uint8]
    skipped: tuple[tuple[str, str], ...]
    preprocessing: Preprocessing = STANDARD


def cache_pixels(source: Source, *, side: int, directory: Path) -> PixelCache:
    """Open the cache of `source` in `directory`: filled on the first call, with a progress bar, and reused afterwards.

    A cache of an earlier version is reused with its own preprocessing, so a run that began with it ends with it.

    Args:
        side: of the squares, in pixels.

    Raises: SourceError, if no image can be used.
    """
    description, array = directory / "pixels.json", directory / "pixels.npy"
    request = {"source": source.name, "images": len(source), "side": side}
    try:
        record = json.loads(description.read_text())
    except (FileNotFoundError, ValueError):
        record = {}
    if {key: record.get(key) for key in request} != request:
        directory.mkdir(parents=True, exist_ok=True)
        description.unlink(missing_ok=True)
        record = request | {"preprocessing": STANDARD} | _fill(source, side=side, path=array)
        artifact.write_atomic(description, json.dumps(record).encode())
    if record["count"] == 0:
        reasons = "; ".join(f"{id}: {reason}" for id, reason in record["skipped"][:3])
        raise SourceError(f"none of the {len(source)} images of {source.name} can be used ({reasons})")
    pixels: NDArray[np.uint8] = np.load(array, mmap_mode="r", allow_pickle=False)[: record["count"]]
    skipped = tuple((id, reason) for id, reason in record["skipped"])
    return PixelCache(pixels, skipped, int(record.get("preprocessing", FIRST)))


def _fill(source: Source, *, side: int, path: Path) -> dict[str, object]:
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(source), side, side, 3))
    count, skipped = 0, []

    with ThreadPoolExecutor() as pool, tqdm(total=len(source), desc="decode", unit="image") as bar:
        for batch in batches(source, _BATCH):
            for image, loaded in zip(batch, pool.map(lambda image: image.load(side), batch), strict=True):
                if isinstance(loaded, ImageError):
                    skipped.append((image.id, str(loaded)))
                else:
                    pixels[count] = loaded
                    count += 1
            bar.update(len(batch))
    pixels.flush()
    return {"count": count, "skipped": skipped}
