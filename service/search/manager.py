"""The snapshot manager: opens the generation to serve, keeps it up to date and replaces it while searches run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from eigenlens.artifact import EigenlensError
from eigenlens.index.engine import Engine
from eigenlens.model.runtime.open import AnyEncoder, open_encoder
from eigenlens.service.errors import GalleryError, NotReadyError, WouldWaitError
from eigenlens.service.gallery.changes import apply_to_engine
from eigenlens.service.gallery.encoding import encode_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.records import Records
from eigenlens.service.gallery.store.records import Position
from eigenlens.service.search.batching import MIN_BATCH
from eigenlens.service.search.snapshot import Snapshot
from eigenlens.service.waiting import may_wait

log = logging.getLogger(__name__)

# Largest batch of images that is tried when the best batch size is measured at start.
_MAX_TRIED_BATCH = 8

# Opens a generation: returns its number and its engine.
OpenEngine = Callable[[], tuple[int, Engine]]


class SnapshotManager:
    """Holds the snapshot of a gallery that is served. A reader needs no lock: it gets the old snapshot or the new one.

    manager = SnapshotManager(Gallery(path))
    manager.load()
    """

    def __init__(
        self,
        gallery: Gallery,
        *,
        open_engine: OpenEngine | None = None,
        runtime: str = "onnxruntime",
        threads: int | None = None,
        streams: int = 1,
        max_batch: int | None = 1,
    ) -> None:
        """Prepare to serve a gallery; `load` opens it.

        Args:
            open_engine: opens the generation to serve; the gallery's current one if None.
            runtime, threads, streams: how the encoder runs, as Encoder takes them.
            max_batch: largest number of images that are encoded in one call; if None, the fastest size is measured at
                start, and it is at least MIN_BATCH.
        """
        self.gallery = gallery
        self.max_batch = max_batch or 1
        self._open_engine = open_engine or gallery.open_engine
        self._open_encoder = partial(open_encoder, runtime=runtime, threads=threads, streams=streams)
        self._tries_batches = max_batch is None
        self._records = Records(gallery.store)
        self._snapshot: Snapshot | None = None
        self._position = Position(0, 0)
        self._followed: int | None = None
        self._switching = threading.Lock()

    @property
    def current(self) -> Snapshot:
        """The snapshot that is served now. Raises: NotReadyError, before the gallery is loaded."""
        if self._snapshot is None:
            raise NotReadyError("the service is loading its gallery")
        return self._snapshot

    @property
    def position(self) -> Position:
        """The point of the gallery's history up to which the engine that is served has every change.

        It grows with every change of what a search may return: equal positions of one generation mean equal contents.
        """
        return self._position

    def load(self) -> None:
        """Open the current generation, warm up its encoder and serve it. Raises: GalleryError; ArtifactError."""
        with self._switching, self.gallery.choosing():
            self._followed = self.gallery.current()
            number, engine = self._open_engine()
            engine.warm_up()
            encoder = self._encoder_of(number, engine.encoder_id)
            snapshot = Snapshot(number, engine, encoder, self._records, self.sync)
            self._position = self._apply_changes(snapshot, self.gallery.position_of(number))
            self._snapshot = snapshot
        log.info(
            "serving generation %d: %d images and %d since, lengths %s",
            number,
            len(engine.keys),
            engine.added,
            engine.lengths,
        )
        measured_on = engine.calibration.device
        if measured_on != engine.device:
            log.warning(
                "its latencies were measured on the %s; a rebuild measures them on the %s", measured_on, engine.device
            )

    def follow(self) -> None:
        """Take over what other processes published, activated, added or removed.

        On an error the present snapshot stays, and the log has a warning.
        """
        try:
            if self.gallery.current() != self._followed:
                self.load()
            else:
                self.sync()
        except EigenlensError as error:
            log.warning("what changed in the gallery cannot be followed: %s", error)

    def sync(self) -> None:
        """Apply the images that were added to or removed from the gallery so far to the engine that is served.

        Raises: WouldWaitError, where nothing may wait.
        """
        if not may_wait():
            raise WouldWaitError("the gallery's changes are followed by a thread")
        with self._switching:
            if self._snapshot is not None:
                self._position = self._apply_changes(self._snapshot, self._position)

    def _encoder_of(self, number: int, encoder_id: str) -> AnyEncoder:
        """Return the warm encoder of a generation; the present one, if its id is the same."""
        if self._snapshot is not None and self._snapshot.encoder.id == encoder_id:
            return self._snapshot.encoder
        path = self.gallery.encoder_path(encoder_id)
        encoder = self._open_encoder(path)
        if encoder.id != encoder_id:
            raise GalleryError(f"generation {number} is of encoder {encoder_id}, and {path} is encoder {encoder.id}")
        if self._tries_batches:
            self.max_batch = max(MIN_BATCH, encoder.worthwhile_batch(max_batch=_MAX_TRIED_BATCH))
        encoder.warm_up(max_batch=self.max_batch)  # the sizes that are used: each takes its time at the start
        log.info(
            "the encoder runs on %s, %s, in batches of up to %d", encoder.runtime, encoder.precision, self.max_batch
        )
        return encoder

    def _apply_changes(self, snapshot: Snapshot, position: Position) -> Position:
        """Apply the gallery's changes since a position of its history to the engine; return the new position."""
        engine, encoder = snapshot.engine, snapshot.encoder
        changes = self.gallery.store.changes(position, encoder_id=encoder.id)
        uncoded = [key for key, code in zip(changes.keys, changes.codes, strict=True) if code is None]
        if uncoded:  # images that were added under another encoder have no code of this one yet
            failed = encode_images(self.gallery, encoder, uncoded, Progress())
            if failed:
                log.warning(
                    "%d images cannot be found by this encoder: %s", len(failed), "; ".join(list(failed.values())[:3])
                )
            changes = self.gallery.store.changes(position, encoder_id=encoder.id)
        apply_to_engine(changes, engine)
        return changes.position
