"""What answers searches: one generation, its encoder and what changed since, replaced as a whole."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from eigenlens.artifact import EigenlensError
from eigenlens.index.errors import ResultCountError
from eigenlens.index.faiss_engine.delta import Delta
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.gpu import Gpu, device_name
from eigenlens.index.filters.parse import Filter
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.calibration import Measured
from eigenlens.index.plans.plan import Plan
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.errors import GalleryError, NotReadyError
from eigenlens.service.gallery.build import Progress, encode_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.records import Records
from eigenlens.service.gallery.store import ImageRecord, Position
from eigenlens.service.search.batching import TOGETHER

log = logging.getLogger(__name__)

_KEPT_SELECTIONS = 16
_KEPT_PLANS = 1000
_TRIES = 4
_MAX_BATCH = 8


class Rows:
    """Which rows of a generation are still images of the gallery, and which of those satisfy a filter."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._present = np.ones(len(generation), dtype=bool)
        self._removed = 0
        self._kept: OrderedDict[tuple[int, Filter | None], Selection] = OrderedDict()
        self._lock = threading.Lock()

    def remove(self, keys: list[int]) -> None:
        """Never return these images again; keys that the generation lacks are passed over."""
        rows = self._generation.codes.rows_of(np.asarray(keys, dtype=np.int64))
        with self._lock:
            self._present[rows[rows >= 0]] = False
            self._removed = len(self._present) - int(np.count_nonzero(self._present))

    @property
    def removed(self) -> int:
        """Rows whose image was removed or replaced."""
        return self._removed

    def selection(self, condition: Filter | None) -> Selection | None:
        """Rows that a search may return; None for all of them."""
        removed = self._removed
        if removed == 0 and condition is None:
            return None
        with self._lock:
            found = self._kept.get((removed, condition))
            if found is not None:
                self._kept.move_to_end((removed, condition))
                return found
            present = self._present.copy()
        mask = present if condition is None else present & self._generation.attributes.mask(condition)
        selection = Selection(mask)
        with self._lock:
            self._kept[removed, condition] = selection
            while len(self._kept) > _KEPT_SELECTIONS:
                self._kept.popitem(last=False)
        return selection


@dataclass(frozen=True)
class Snapshot:
    """A generation that is being served. A request takes one snapshot and uses it from beginning to end.

    Its rows and its delta follow the gallery: a search sees what was added and removed before it began.
    """

    number: int
    generation: Generation
    encoder: Encoder
    rows: Rows
    delta: Delta
    plans: dict[tuple[float | None, ...], tuple[Plan, Measured | None]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Images that can be found."""
        return len(self.generation) - self.rows.removed + len(self.delta)


@dataclass(frozen=True)
class Wish:
    """How a search is to be done: by a plan that is spelt out, or by targets that a plan is chosen for.

    Attributes:
        length: prefix length; when None it is chosen too.
        rerank_length, shortlist, effort: parts of the plan, where they are given; only with a length.
        target_recall: of the exact k best by full codes, 0 to 1.
        max_latency_ms: of the search itself.
        condition: which images may be returned.
        leave_out: key of an image that is no result, such as the query itself.
    """

    k: int
    length: int | None = None
    rerank_length: int | None = None
    shortlist: int | None = None
    effort: int | None = None
    target_recall: float | None = None
    max_latency_ms: float | None = None
    condition: Filter | None = None
    leave_out: int | None = None

    @property
    def aim(self) -> tuple[float | None, ...]:
        """All that a plan depends on."""
        targets = self.target_recall, self.max_latency_ms
        return self.k, self.length, self.rerank_length, self.shortlist, self.effort, *targets

    @property
    def together(self) -> tuple[object, ...]:
        """Searches for which this is equal can be done together."""
        return self.aim, self.condition, self.leave_out is None

    @property
    def spelt_out(self) -> bool:
        """Whether parts of the plan are given that a choice would contradict."""
        return not (self.rerank_length is None and self.shortlist is None and self.effort is None)


@dataclass(frozen=True)
class Hit:
    """One result: an image of the gallery and the cosine of its code with the query's."""

    record: ImageRecord
    score: float


@dataclass(frozen=True)
class Found:
    """A search's results, best first, the plan that ran and what calibration measured of it."""

    hits: list[Hit]
    plan: Plan
    measured: Measured | None


class Searcher:
    """Holds the current snapshot of a gallery. Readers take it without a lock: one reference is read or the other."""

    def __init__(
        self,
        gallery: Gallery,
        *,
        gpu: Gpu | None = None,
        runtime: str = "onnxruntime",
        threads: int | None = None,
        streams: int = 1,
        max_batch: int | None = 1,
    ) -> None:
        """For a gallery, whose encoder is run as Encoder takes it.

        Args:
            gpu: that searches what it can; the CPU does when None.
            max_batch: images that are to be encoded together at most; as many as make it faster, tried, and a few in
                any case, when None.
        """
        self.gallery, self._gpu = gallery, gpu
        self.max_batch = max_batch or 1
        self._open_encoder = partial(Encoder, runtime=runtime, threads=threads, streams=streams)
        self._try_batches = max_batch is None
        self.records = Records(gallery.store)
        self._snapshot: Snapshot | None = None
        self._position = Position(0, 0)
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
        with self._switching, self.gallery.choosing():
            self._followed = self.gallery.current()
            number, generation = self.gallery.open_current(gpu=self._gpu)
            generation.warm_up()
            old = self._snapshot
            if old is not None and old.encoder.id == generation.encoder_id:
                encoder = old.encoder
            else:
                path = self.gallery.encoder_path(generation.encoder_id)
                encoder = self._open_encoder(path)
                if encoder.id != generation.encoder_id:
                    raise GalleryError(
                        f"generation {number} is of encoder {generation.encoder_id}, and {path} is encoder {encoder.id}"
                    )
                encoder.warm_up(max_batch=_MAX_BATCH if self._try_batches else self.max_batch)
                if self._try_batches:
                    self.max_batch = max(TOGETHER, encoder.worthwhile_batch(most=_MAX_BATCH))
                runs = encoder.runtime, encoder.precision, self.max_batch
                log.info("the encoder runs on %s, %s, in batches of up to %d", *runs)
            delta = Delta(generation.code_length, generation.lengths)
            snapshot = Snapshot(number, generation, encoder, Rows(generation), delta)
            self._position = self._apply(snapshot, self.gallery.position_of(number))
            self._snapshot = snapshot
        log.info(
            "serving generation %d: %d images and %d since, lengths %s",
            number,
            len(generation),
            len(delta),
            generation.lengths,
        )
        if self._gpu is not None:
            log.info("the GPU searches the lengths %s", generation.lengths_on_gpu)
        measured, searched = generation.calibration.device, device_name(self._gpu)
        if measured != searched:
            log.warning("its latencies were measured on the %s; a rebuild measures them on the %s", measured, searched)

    def follow(self) -> None:
        """Serve what other processes published, activated, added or removed; keep to what is served if that fails."""
        try:
            if self.gallery.current() != self._followed:
                self.load()
            else:
                self.sync()
        except EigenlensError as error:
            log.warning("what changed in the gallery cannot be followed: %s", error)

    def sync(self) -> None:
        """Let searches see every image that was added or removed up to now."""
        with self._switching:
            if self._snapshot is not None:
                self._position = self._apply(self._snapshot, self._position)

    def _apply(self, snapshot: Snapshot, position: Position) -> Position:
        encoder = snapshot.encoder
        changes = self.gallery.store.changes(position, encoder_id=encoder.id)
        uncoded = [key for key, code in zip(changes.keys, changes.codes, strict=True) if code is None]
        if uncoded:  # added while another encoder was served
            failed = encode_images(self.gallery, encoder, uncoded, Progress())
            if failed:
                log.warning("%d images cannot be found by this encoder: %s", len(failed), "; ".join(failed[:3]))
            changes = self.gallery.store.changes(position, encoder_id=encoder.id)
        coded = [place for place, code in enumerate(changes.codes) if code is not None]
        if coded:
            snapshot.delta.add(
                [changes.keys[place] for place in coded],
                np.stack([code for code in changes.codes if code is not None]),
                [changes.metadata[place] for place in coded],
            )
        for key in changes.removed:
            snapshot.delta.remove(key)
        if changes.removed:
            snapshot.rows.remove(changes.removed)
        return changes.position

    def plan(self, snapshot: Snapshot, wish: Wish) -> tuple[Plan, Measured | None]:
        """The plan that is asked for, or that meets the targets, and what was measured of it. Raises: SearchError."""
        found = snapshot.plans.get(wish.aim)
        if found is None:
            found = self._choose(snapshot.generation, wish)
            if len(snapshot.plans) >= _KEPT_PLANS:
                snapshot.plans.clear()
            snapshot.plans[wish.aim] = found
        return found

    def _choose(self, generation: Generation, wish: Wish) -> tuple[Plan, Measured | None]:
        aimed = wish.length is None or wish.target_recall is not None or wish.max_latency_ms is not None
        if not aimed:
            plan = generation.make_plan(
                k=wish.k,
                length=wish.length,
                rerank_length=wish.rerank_length,
                shortlist=wish.shortlist,
                effort=wish.effort,
            )
            return plan, generation.calibration.expected(plan, wish.k)
        if wish.spelt_out:
            raise ResultCountError(
                "rerank, shortlist and effort are parts of a plan that is chosen here: "
                "give them with a length and without target_recall and max_latency_ms"
            )
        if wish.length is not None:
            generation.max_effort(wish.length)  # refuses a length that was not built
        measured = generation.calibration.choose(
            k=wish.k, target_recall=wish.target_recall, max_latency_ms=wish.max_latency_ms, length=wish.length
        )
        return measured.for_k(wish.k), measured

    def search(self, snapshot: Snapshot, code: NDArray[np.float32], wish: Wish) -> Found:
        """The k best images by a code (code_length,), best first; fewer where the gallery has fewer.

        Raises: SearchError.
        """
        return self.search_together(snapshot, code[None], [wish])[0]

    def search_together(self, snapshot: Snapshot, codes: NDArray[np.float32], wishes: Sequence[Wish]) -> list[Found]:
        """As search, for several codes (n, code_length) in one pass; `together` is equal for all wishes.

        Raises: SearchError.
        """
        wish = wishes[0]
        plan, measured = self.plan(snapshot, wish)
        wanted = wish.k + (wish.leave_out is not None)
        hits: dict[int, list[Hit]] = {}
        places = list(range(len(codes)))
        for _ in range(_TRIES):
            scored = self._scored(snapshot, codes[places], plan, wish.condition, k=wanted)
            records = self.records.present([key for pairs in scored for key, _ in pairs])
            for place, pairs in zip(places, scored, strict=True):
                left_out = wishes[place].leave_out
                hits[place] = [Hit(records[key], s) for key, s in pairs if key in records and key != left_out]
            places = [p for p, pairs in zip(places, scored, strict=True) if any(key not in records for key, _ in pairs)]
            if not places:
                break
            self.sync()  # an image was removed a moment ago: others take its place
        return [Found(hits[place][: wish.k], plan, measured) for place in range(len(codes))]

    def _scored(
        self, snapshot: Snapshot, codes: NDArray[np.float32], plan: Plan, condition: Filter | None, *, k: int
    ) -> list[list[tuple[int, float]]]:
        """Keys and scores of the k best of the generation and the delta, best first, for each code."""
        length = plan.rerank_length or plan.prefix_length
        selection = snapshot.rows.selection(condition)
        # The delta first: an image that a rebuild moves is then found in it or in the generation, never in neither.
        added = [snapshot.delta.search(code, length=length, k=k, condition=condition) for code in codes]
        if selection is not None and not selection.count:
            return added
        scores, rows = snapshot.generation.search(codes, plan=plan, k=k, selection=selection)
        keys = snapshot.generation.keys[rows].tolist()
        built = [
            [(key, score) for key, score, row in zip(*columns, strict=True) if row >= 0]
            for columns in zip(keys, scores.tolist(), rows.tolist(), strict=True)
        ]
        return [
            sorted(new + old, key=lambda pair: -pair[1])[:k] if new else old
            for new, old in zip(added, built, strict=True)
        ]

    def code_of(self, snapshot: Snapshot, key: int) -> NDArray[np.float32]:
        """The stored code of an image, (code_length,). Raises: NotReadyError, if it was added a moment ago."""
        row = int(snapshot.generation.codes.rows_of(np.asarray([key]))[0])
        code = snapshot.delta.code_of(key)
        if row < 0 and code is None:
            self.sync()
            code = snapshot.delta.code_of(key)
        if row >= 0:
            code = np.asarray(snapshot.generation.codes.codes[row], dtype=np.float32)
        if code is None:
            raise NotReadyError("this image was added a moment ago; try again")
        return code

    def codes_of(self, snapshot: Snapshot, keys: Sequence[int]) -> NDArray[np.float32]:
        """The stored codes of images that were found in a snapshot, (n, code_length); zeros for one that is gone."""
        held = snapshot.generation.codes
        rows = held.rows_of(np.asarray(keys, dtype=np.int64))
        codes = np.asarray(held.codes[np.maximum(rows, 0)], dtype=np.float32)
        for place in np.flatnonzero(rows < 0):
            code = snapshot.delta.code_of(keys[int(place)])
            codes[place] = 0 if code is None else code
        return codes
