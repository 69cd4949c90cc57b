"""Features of images and of their augmented views: computed once, stored on disk, resumed after an interruption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from eigenlens import artifact
from eigenlens.model.backbones.pixels import PIXEL_MEAN, PIXEL_STD
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.errors import ImageError, SourceError
from eigenlens.model.images.hard_views import HARD_VIEWS, hard_view_of
from eigenlens.model.images.preprocessing import STANDARD
from eigenlens.model.images.sources import Source, SourceImage, batches
from eigenlens.model.pairs.source import rng_for
from eigenlens.model.pairs.views import augment
from eigenlens.model.runtime.encoder import Encoder

_BATCH = 32
# Views are cut from squares of this side, in pixels, so that a crop of half the area loses little.
_SIDE = 256
# The square of an image and that of a hard view of it.
_Loaded = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]
_VALUES_FILE, _PROGRESS_FILE = "features.f16", "features.json"


@dataclass(frozen=True)
class ViewFeatures:
    """Features of a source's usable images.

    Attributes:
        values: (n, 1 + views, length), float16, memory-mapped; [:, 0] of the image, then of its views. Without views it
            is the image as it is served; with views, what they are cut from, in the same size.
        labels: the name of each image's top folder; empty where there is none.
        skipped: (id, reason) of each image that could not be decoded.
    """

    values: NDArray[np.float16]
    labels: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Request:
    """What is computed: the name of its folder is a digest of it, so another request has another folder."""

    source: Source
    backbone: Encoder
    views: int
    hard: bool
    augmentation: AugmentationConfig
    seed: int

    def to_json(self) -> dict[str, Any]:
        hard = {"hard": HARD_VIEWS} if self.hard else {}
        return hard | {
            "source": self.source.name,
            "images": len(self.source),
            "preprocessing": STANDARD,
            "backbone": self.backbone.id,
            "views": self.views,
            "augmentation": self.augmentation.model_dump(mode="json"),
            "seed": self.seed,
        }

    @property
    def row_bytes(self) -> int:
        return (1 + self.views) * self.backbone.code_length * np.dtype(np.float16).itemsize


@dataclass
class _Progress:
    """How far a folder is filled: images read from the source, labels of the usable, and those skipped with reasons."""

    seen: int = 0
    labels: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> _Progress:
        """Read what an earlier call wrote; nothing is done where it wrote nothing."""
        try:
            record = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return cls()
        return cls(record["seen"], record["labels"], [(id, reason) for id, reason in record["skipped"]])

    def write(self, path: Path, request: _Request) -> None:
        record = {"wanted": request.to_json(), "seen": self.seen, "labels": self.labels, "skipped": self.skipped}
        artifact.write_atomic(path, json.dumps(record).encode())


def cache_features(
    source: Source,
    backbone: Encoder,
    *,
    views: int,
    augmentation: AugmentationConfig,
    seed: int,
    directory: Path,
    hard: bool = False,
) -> ViewFeatures:
    """Compute the features of a source's images and of views of them, or read them from below `directory`.

    What is missing is computed, with a progress bar, from the last finished batch on.

    Args:
        views: of each image.
        hard: the last of the views is a hard one, which augmentation does not decide on.

    Raises: SourceError, if no image can be used.
    """
    request = _Request(source, backbone, views, hard and views > 0, augmentation, seed)
    digest = hashlib.sha256(json.dumps(request.to_json(), sort_keys=True).encode()).hexdigest()
    folder = directory / digest[:12]
    folder.mkdir(parents=True, exist_ok=True)
    progress = _Progress.read(folder / _PROGRESS_FILE)
    if progress.seen < len(source):
        _fill(request, progress, folder)
    count = len(progress.labels)
    if count == 0:
        reasons = "; ".join(f"{id}: {reason}" for id, reason in progress.skipped[:3])
        raise SourceError(f"none of the {len(source)} images of {source.name} can be used ({reasons})")
    shape = (count, 1 + views, backbone.code_length)
    values: NDArray[np.float16] = np.memmap(folder / _VALUES_FILE, dtype=np.float16, mode="r", shape=shape)
    return ViewFeatures(values, tuple(progress.labels), tuple(progress.skipped))


def _fill(request: _Request, progress: _Progress, folder: Path) -> None:
    """Compute the features that are missing and note after each batch how far they are."""
    side = _SIDE if request.views else request.backbone.image_size
    with (
        (folder / _VALUES_FILE).open("ab") as f,
        ThreadPoolExecutor() as pool,
        tqdm(total=len(request.source), initial=progress.seen, desc="features", unit="image") as bar,
    ):
        # A call that was interrupted may have written rows that it did not note.
        f.truncate(len(progress.labels) * request.row_bytes)
        for number, batch in enumerate(batches(request.source, _BATCH)):
            if number * _BATCH < progress.seen:
                continue
            usable: list[_Loaded] = []
            loading = pool.map(
                partial(_load, request=request, side=side), range(progress.seen, len(request.source)), batch
            )
            for image, loaded in zip(batch, loading, strict=True):
                if isinstance(loaded, ImageError):
                    progress.skipped.append((image.id, str(loaded)))
                else:
                    usable.append(loaded)
                    progress.labels.append(str(image.metadata.get("label", "")))
            if usable:
                f.write(_features(usable, request, rng_for(request.seed, "pairs", number)).tobytes())
                f.flush()
            progress.seen += len(batch)
            bar.update(len(batch))
            progress.write(folder / _PROGRESS_FILE, request)


def _load(position: int, image: SourceImage, *, request: _Request, side: int) -> _Loaded | ImageError:
    """Load what is encoded of an image: its square and, where that is asked for, that of its hard view."""
    square = image.load(side)
    if isinstance(square, ImageError) or not request.hard:
        return square if isinstance(square, ImageError) else (square, None)
    hard = hard_view_of(image, seed=(request.seed, position)).load(request.backbone.image_size)
    return hard if isinstance(hard, ImageError) else (square, hard)


def _features(loaded: Sequence[_Loaded], request: _Request, rng: torch.Generator) -> NDArray[np.float16]:
    """Compute the features of what was loaded and of views of it, (n, 1 + views, length)."""
    squares = np.stack([square for square, _ in loaded])
    if not request.views:  # as they are, so that they may be several of each image
        return request.backbone.encode(squares)[:, None].astype(np.float16)
    images = torch.from_numpy(squares)
    size = request.backbone.image_size
    plain = F.interpolate(
        images.permute(0, 3, 1, 2).float(), size=size, mode="bilinear", antialias=True, align_corners=False
    )
    inputs = [_to_bytes(plain)]
    for _ in range(request.views - request.hard):
        view = augment(images, request.augmentation, size=size, generator=rng) * PIXEL_STD + PIXEL_MEAN
        inputs.append(_to_bytes(view * 255))
    if request.hard:
        inputs.append(np.stack([hard for _, hard in loaded if hard is not None]))
    return np.stack([request.backbone.encode(x) for x in inputs], axis=1).astype(np.float16)


def _to_bytes(images: Tensor) -> NDArray[np.uint8]:
    """Return images (n, 3, side, side) in 0..255 as an encoder takes them."""
    pixels: NDArray[np.uint8] = images.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()
    return pixels


def power_normalise(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the signed square roots of the features (..., length), scaled to unit length.

        f <- r / |r|,   r_j = sign(f_j) √|f_j|

    The roots keep a few strong activations from deciding every comparison; the length keeps a photograph of strong
    contrast from weighing more than a faint one.

    Source: Perronnin et al., Improving the Fisher kernel for large-scale image classification, ECCV 2010.
    """
    roots: NDArray[np.float32] = np.sqrt(np.abs(features), dtype=np.float32)
    norms: NDArray[np.float32] = np.linalg.norm(roots, axis=-1, keepdims=True).clip(min=1e-12)
    roots *= np.sign(features)
    roots /= norms
    return roots
