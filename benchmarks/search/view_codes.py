"""Real codes in any number: an encoder over augmented views of photographs, kept on disk, resumable."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from eigenlens import artifact
from eigenlens.index.codes.prefix import round_to_unit_norm
from eigenlens.model.backbones.pixels import PIXEL_MEAN, PIXEL_STD
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.pairs.views import augment
from eigenlens.model.runtime.encoder import Encoder

_BATCH = 500  # views of a batch have a random generator of their own: a batch is what is computed anew, or not
_SAVE_EVERY_S = 20.0


def view_codes(
    encoder: Encoder, images: str, *, count: int, seed: int, directory: Path, augmentation: AugmentationConfig
) -> NDArray[np.float16]:
    """Return codes of augmented views, (count, code_length), memory-mapped; view i is of photograph i mod n.

    Their norms are 1 after rounding too, as in a gallery: every method searches the same numbers, and loses nothing
    where it has the queries in half precision.

    A longer array begins with the shorter one. What was computed before an interruption is not computed again, but for
    the last 20 seconds: an encoder may take hours.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pixels = cache_pixels(open_source(images), side=encoder.image_size, directory=directory / "pixels").pixels
    path, state = directory / "codes.f16", directory / "codes.json"
    settings = {"encoder": encoder.id, "images": images, "seed": seed, "augmentation": augmentation.model_dump()}
    settings["rounded"] = "to unit norm"
    stored = json.loads(state.read_text()) if state.exists() else {}
    done = int(stored["done"]) if {key: stored.get(key) for key in settings} == settings else 0
    row_bytes = 2 * encoder.code_length
    saved_at = time.monotonic()
    with (
        path.open("r+b" if done else "w+b") as f,
        tqdm(total=count, initial=min(done, count), desc="views", unit="view", unit_scale=True) as bar,
    ):
        f.seek(done * row_bytes)
        while done < count:
            f.write(_batch(encoder, pixels, start=done, seed=seed, augmentation=augmentation).tobytes())
            done += _BATCH
            bar.update(_BATCH)
            if done >= count or time.monotonic() - saved_at > _SAVE_EVERY_S:
                f.flush()
                artifact.write_atomic(state, json.dumps(settings | {"done": done}).encode())
                saved_at = time.monotonic()
    return np.memmap(path, dtype=np.float16, mode="r", shape=(count, encoder.code_length))


def views_of_halves(
    photographs: int, *, views: int, count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return numbers of at most `count` views of one half of the photographs, and of the other; none is in both.

    Halves and views are drawn at random: photographs may be sorted by class.
    """
    rng = np.random.default_rng(seed)
    photograph_of = np.arange(views) % photographs
    halves = np.array_split(rng.permutation(photographs), 2)
    one, other = (rng.permutation(np.flatnonzero(np.isin(photograph_of, half)))[:count] for half in halves)
    return one, other


def _batch(
    encoder: Encoder, pixels: NDArray[np.uint8], *, start: int, seed: int, augmentation: AugmentationConfig
) -> NDArray[np.float16]:
    words = np.random.SeedSequence([seed, start]).generate_state(2, np.uint32)
    generator = torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))
    images = torch.from_numpy(pixels[np.arange(start, start + _BATCH) % len(pixels)])
    views = augment(images, augmentation, size=encoder.image_size, generator=generator)
    shown = ((views * PIXEL_STD + PIXEL_MEAN) * 255).round().clamp(0, 255).to(torch.uint8)
    codes = encoder.encode(np.ascontiguousarray(shown.permute(0, 2, 3, 1).numpy()))
    unit: NDArray[np.float32] = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    return round_to_unit_norm(unit)
