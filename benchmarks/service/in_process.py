"""The limit of any service: decode, encode and search in a loop, without HTTP, in batches, a thread for each core."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eigenlens.model.images.decode import load_square
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.nodes import require_images
from eigenlens.service.search.manager import SnapshotManager
from eigenlens.service.search.request import SearchRequest


def measure(gallery: Path, photos: Sequence[bytes], *, batch: int, warm_s: float, seconds: float) -> dict[str, float]:
    """Searches a second by the plan that the service chooses too, with an encoder of one thread for each thread."""
    threads = len(os.sched_getaffinity(0))
    manager = SnapshotManager(Gallery(gallery), runtime="auto", streams=threads, max_batch=batch)
    manager.load()
    snapshot = manager.current
    plan = snapshot.choose_plan(SearchRequest(k=10)).plan
    encoder = require_images(snapshot.encoder)
    load = partial(load_square, size=encoder.image_size, preprocessing=encoder.preprocessing)
    begin = time.perf_counter() + warm_s
    done = [0] * threads

    def work(number: int) -> None:
        at = number * len(photos) // threads
        while (now := time.perf_counter()) < begin + seconds:
            loaded = [load(photos[(at + place) % len(photos)]) for place in range(batch)]
            codes = encoder.encode(np.stack([pixels for pixels in loaded if isinstance(pixels, np.ndarray)]))
            snapshot.engine.search(codes, plan=plan, k=10)
            at += batch
            if now >= begin:
                done[number] += len(codes)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    size = encoder.image_size
    return {
        "throughput_rps": sum(done) / (time.perf_counter() - begin),
        "decode_ms": _cpu_ms(load, photos),
        "plain_decode_ms": _cpu_ms(lambda photo: _plain_decode(photo, size), photos),
    }


def _plain_decode(photo: bytes, size: int) -> Any:
    return np.asarray(Image.open(io.BytesIO(photo)).convert("RGB").resize((size, size)))


def _cpu_ms(decode: Callable[[bytes], Any], photos: Sequence[bytes]) -> float:
    begun = time.thread_time()
    for photo in photos[:16]:
        decode(photo)
    return 1000 * (time.thread_time() - begun) / len(photos[:16])


if __name__ == "__main__":
    spec = json.load(sys.stdin)
    files = sorted(Path(spec.pop("photos")).iterdir())
    json.dump(measure(Path(spec.pop("gallery")), [path.read_bytes() for path in files], **spec), sys.stdout)
