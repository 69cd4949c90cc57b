"""Recalibration of a gallery: its plans measured again with recent queries, published as the next generation."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.building.calibrating.recalibrate import MIN_QUERIES, recalibrate_generation
from eigenlens.index.faiss_engine.gpu import Gpu
from eigenlens.service.errors import TooFewQueriesError
from eigenlens.service.gallery.build import KEPT_GENERATIONS
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress

# The key of a query that is no image of the gallery.
NO_KEY = -1


@dataclass(frozen=True)
class QuerySample:
    """Codes that were searched with.

    Attributes:
        encoder_id: id of the encoder that made them; empty if there are none.
        codes: (q, code_length).
        keys: (q,): of the image that each query was, which its results leave out; NO_KEY for an image from outside.
    """

    encoder_id: str
    codes: NDArray[np.float32]
    keys: NDArray[np.int64]

    def to_bytes(self) -> bytes:
        """Return the sample as bytes, for the process of a job."""
        buffer = io.BytesIO()
        np.savez(buffer, encoder=np.array(self.encoder_id), codes=self.codes, keys=self.keys)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the sample that `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls(str(arrays["encoder"]), arrays["codes"], arrays["keys"])


def check_queries(queries: QuerySample, *, encoder_id: str) -> None:
    """Check that there are queries enough of an encoder to recalibrate. Raises: TooFewQueriesError."""
    count = len(queries.codes) if queries.encoder_id == encoder_id else 0
    if count < MIN_QUERIES:
        raise TooFewQueriesError(
            f"{count} recent searches are kept, and recalibration takes {MIN_QUERIES} or more; "
            "search more, or see the setting recent_queries"
        )


def publish_recalibrated(
    gallery: Gallery,
    queries: QuerySample,
    progress: Progress,
    *,
    gpu: Gpu | None = None,
    activate: Callable[[int], None] | None = None,
) -> int:
    """Measure the plans of the current generation with queries, and switch to a generation that has these figures.

    It has the indexes and codes of the current one, which stays: activating that is the way back. Images that were
    added or removed since its build stay so. The caller holds the writer's lock.

    Args:
        activate: called with the number of the new generation to switch to it; the gallery's own method if None.

    Returns: the number of the new generation.

    Raises: TooFewQueriesError; GalleryError; ArtifactError.
    """
    served, generation = gallery.open_current(gpu=gpu)
    check_queries(queries, encoder_id=generation.encoder_id)
    number = gallery.next_number()
    progress.start("measure", len(generation.all_specs))
    recalibrate_generation(
        gallery.generation_path(number),
        generation,
        queries.codes,
        generation.codes.rows_of(queries.keys),
        device=generation.device,
        on_progress=lambda done, total: progress.advance(1),
    )
    (activate or gallery.activate)(number)
    gallery.retire(keep=KEPT_GENERATIONS, served=served)
    return number
