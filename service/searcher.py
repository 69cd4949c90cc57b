"""What answers searches: one generation with its encoder, held as a whole and replaced as a whole."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact import EigenlensError
from index.generation import Generation
from index.plan import Plan, make_plan
from model.runtime.encoder import Encoder
from service.errors import NotReadyError
from service.gallery.layout import Gallery
from service.gallery.store import ImageRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """A generation that is being served. A request takes one snapshot and uses it from beginning to end."""

    number: int
    generation: Generation
    encoder: Encoder


@dataclass(frozen=True)
class Hit:
    """One result: an image of the gallery and the cosine of its code with the query's."""

    record: ImageRecord
    score: float


class Searcher:
    """Holds the current snapshot of a gallery. Readers take it without a lock: one reference is read or the other."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self._snapshot: Snapshot | None = None
        self._followed: int | None = None
        self._switching = threading.Lock()

    @property
    def snapshot(self) -> Snapshot:
        """What is served now. Raises: NotReadyError."""
        if self._snapshot is None:
            raise NotReadyError("the service is loading its gallery")
        return self._snapshot

    def load(self) -> None:
        """Open the current generation, warm its encoder up and serve it. Raises: GalleryError; ArtifactError."""
        with self._switching:
            self._followed = self.gallery.current()
            number, generation = self.gallery.open_current()
            old = self._snapshot
            if old is not None and old.encoder.id == generation.encoder_id:
                encoder = old.encoder
            else:
                encoder = Encoder(self.gallery.encoder_path(generation.encoder_id))
                side = encoder.image_size
                encoder.encode(np.zeros((1, side, side, 3), dtype=np.uint8))
            self._snapshot = Snapshot(number, generation, encoder)
        log.info("serving generation %d: %d images, lengths %s", number, len(generation), generation.lengths)

    def follow(self) -> None:
        """Serve the generation that CURRENT names, if it changed; keep the old one if that cannot be opened."""
        try:
            if self.gallery.current() != self._followed:
                self.load()
        except EigenlensError as error:
            log.warning("the new generation cannot be served: %s", error)

    def search(
        self,
        snapshot: Snapshot,
        code: NDArray[np.float32],
        *,
        k: int,
        length: int | None = None,
        rerank_length: int | None = None,
        shortlist: int | None = None,
        leave_out: int | None = None,
    ) -> tuple[Plan, list[Hit]]:
        """The plan that ran and its k best images, best first; fewer where the gallery has fewer.

        Images that were removed or replaced since the generation was built are left out, and the search is widened
        until k others are found.

        Args:
            code: of the query, (code_length,).
            length: prefix length; the full code when None.
            leave_out: key of an image that is no result, such as the query itself.

        Raises: SearchError.
        """
        generation = snapshot.generation
        plan = make_plan(
            prefix_length=length or generation.code_length,
            code_length=generation.code_length,
            k=k,
            rerank_length=rerank_length,
            shortlist=shortlist,
        )
        wanted = k + (leave_out is not None)
        while True:
            scores, rows = generation.search(code[None], plan=plan, k=wanted)
            found = [
                (int(generation.keys[row]), float(s)) for row, s in zip(rows[0], scores[0], strict=True) if row >= 0
            ]
            records = self.gallery.store.records([key for key, _ in found])
            hits = [Hit(records[key], s) for key, s in found if key in records and key != leave_out]
            if len(hits) >= k or wanted >= len(generation):
                return plan, hits[:k]
            wanted = min(len(generation), 2 * wanted + (k - len(hits)))

    def code_of(self, snapshot: Snapshot, key: int) -> NDArray[np.float32]:
        """The stored code of an image, (code_length,). Raises: NotReadyError, if the generation lacks it."""
        keys = snapshot.generation.keys
        row = int(np.searchsorted(keys, key))
        if row >= len(keys) or keys[row] != key:
            raise NotReadyError("this image was added after the last build; it can be searched from after the next one")
        return np.asarray(snapshot.generation.codes.codes[row], dtype=np.float32)
