"""Features of images and of their augmented views: computed once, kept on disk, carried on after an interruption."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from tqdm import tqdm

from eigenlens import artifact
from eigenlens.model.backbones.pixels import PIXEL_MEAN, PIXEL_STD
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.errors import ImageError, SourceError
from eigenlens.model.images.sources import Source, batches
from eigenlens.model.pairs.source import rng_for
from eigenlens.model.pairs.views import augment
from eigenlens.model.runtime.encoder import Encoder

_BATCH = 32
# Views are cut from squares of this side, in pixels, so that a crop of half the area loses little.
_SIDE = 256


@dataclass(frozen=True)
class ViewFeatures:
    """Features of a source's usable images.

    Attributes:
        values: (n, 1 + views, length), float16, memory-mapped; [:, 0] of the image as it is served, then of its views.
        labels: the name of each image's top folder; empty where there is none.
        skipped: (id, reason) of each image that could not be decoded.
    """

    values: NDArray[np.float16]
    labels: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def cache_features(
    source: Source,
    backbone: Encoder,
    *,
    views: int,
    augmentation: AugmentationConfig,
    seed: int,
    directory: Path,
) -> ViewFeatures:
    """The features, kept below `directory`; what is missing is computed, with a progress bar, from the last batch on.

    Raises: SourceError, if no image can be used.
    """
    wanted = {
        "source": source.name,
        "images": len(source),
        "backbone": backbone.id,
        "views": views,
        "augmentation": augmentation.model_dump(mode="json"),
        "seed": seed,
    }
    place = directory / hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:12]
    array, description = place / "features.f16", place / "features.json"
    try:
        found = json.loads(description.read_text())
    except (FileNotFoundError, ValueError):
        place.mkdir(parents=True, exist_ok=True)
        found = {"wanted": wanted, "seen": 0, "labels": [], "skipped": []}
    if found["seen"] < len(source):
        found = _fill(source, backbone, found, array=array, description=description, augmentation=augmentation)
    count = len(found["labels"])
    if count == 0:
        reasons = "; ".join(f"{id}: {reason}" for id, reason in found["skipped"][:3])
        raise SourceError(f"none of the {len(source)} images of {source.name} can be used ({reasons})")
    shape = (count, 1 + views, backbone.code_length)
    values: NDArray[np.float16] = np.memmap(array, dtype=np.float16, mode="r", shape=shape)
    return ViewFeatures(values, tuple(found["labels"]), tuple((id, reason) for id, reason in found["skipped"]))


def _fill(
    source: Source,
    backbone: Encoder,
    found: dict[str, object],
    *,
    array: Path,
    description: Path,
    augmentation: AugmentationConfig,
) -> dict[str, object]:
    wanted, seen, labels, skipped = (found[key] for key in ("wanted", "seen", "labels", "skipped"))
    assert isinstance(wanted, dict)
    assert isinstance(seen, int)
    assert isinstance(labels, list)
    assert isinstance(skipped, list)
    row_bytes = (1 + wanted["views"]) * backbone.code_length * np.dtype(np.float16).itemsize
    side = _SIDE if wanted["views"] else backbone.image_size
    with (
        array.open("ab") as f,
        ThreadPoolExecutor() as pool,
        tqdm(total=len(source), initial=seen, desc="features", unit="image") as bar,
    ):
        f.truncate(len(labels) * row_bytes)
        for number, batch in enumerate(batches(source, _BATCH)):
            if number * _BATCH < seen:
                continue
            usable = []
            for image, loaded in zip(batch, pool.map(lambda image: image.load(side), batch), strict=True):
                if isinstance(loaded, ImageError):
                    skipped.append((image.id, str(loaded)))
                else:
                    usable.append(loaded)
                    labels.append(str(image.metadata.get("label", "")))
            if usable:
                generator = rng_for(wanted["seed"], "pairs", number)
                rows = _features(
                    np.stack(usable), backbone, views=wanted["views"], augmentation=augmentation, generator=generator
                )
                f.write(rows.tobytes())
                f.flush()
            seen += len(batch)
            bar.update(len(batch))
            found = {"wanted": wanted, "seen": seen, "labels": labels, "skipped": skipped}
            artifact.write_atomic(description, json.dumps(found).encode())
    return found


def _features(
    squares: NDArray[np.uint8],
    backbone: Encoder,
    *,
    views: int,
    augmentation: AugmentationConfig,
    generator: torch.Generator,
) -> NDArray[np.float16]:
    """Features of the squares and of random views of them, (n, 1 + views, length)."""
    images = torch.from_numpy(squares)
    size = backbone.image_size
    plain = F.interpolate(
        images.permute(0, 3, 1, 2).float(), size=size, mode="bilinear", antialias=True, align_corners=False
    )
    drawn = [plain.permute(0, 2, 3, 1)]
    for _ in range(views):
        view = augment(images, augmentation, size=size, generator=generator) * PIXEL_STD + PIXEL_MEAN
        drawn.append(view.permute(0, 2, 3, 1) * 255)
    encoded = [backbone.encode(v.round().clamp(0, 255).to(torch.uint8).contiguous().numpy()) for v in drawn]
    return np.stack(encoded, axis=1).astype(np.float16)


def power_normalise(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Square roots of the features (..., length), with their signs, scaled to unit length.

    The roots keep a few strong activations from deciding every comparison; the length keeps a photograph of strong
    contrast from weighing more than a faint one.

    Source: Perronnin et al., Improving the Fisher kernel for large-scale image classification, ECCV 2010.
    """
    roots: NDArray[np.float32] = np.sqrt(np.abs(features), dtype=np.float32)
    norms: NDArray[np.float32] = np.linalg.norm(roots, axis=-1, keepdims=True).clip(min=1e-12)
    roots *= np.sign(features)
    roots /= norms
    return roots
