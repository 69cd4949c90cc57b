"""The build of a generation: encode images without a code, assemble all codes, index them, switch to the result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.backends import FAISS, PGVECTOR, QDRANT, Backend
from eigenlens.index.building.build import BuildOptions
from eigenlens.index.building.prefix_choice import with_lengths_between
from eigenlens.index.building.row_order import order_rows
from eigenlens.index.codes.artifact import Codes, writing_codes
from eigenlens.index.errors import IndexKindError
from eigenlens.index.faiss_engine.gpu import Gpu
from eigenlens.index.faiss_engine.graph.vamana import VAMANA
from eigenlens.index.faiss_engine.suitable_kinds import suits_compact_codes
from eigenlens.index.live.generation import BaseGeneration
from eigenlens.index.plans.plan import IndexSpec, Optimise
from eigenlens.index.tuning import DEFAULT_TUNING
from eigenlens.model.runtime.open import AnyEncoder
from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.disk_space import require_space
from eigenlens.service.gallery.encoding import encode_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress

log = logging.getLogger(__name__)

_ASSEMBLY_BATCH_SIZE = 4096
KEPT_GENERATIONS = 3


@dataclass(frozen=True)
class GenerationOptions:
    """How a generation is built.

    Attributes:
        lengths: prefix lengths; if None, those that the current generation was asked for, or the default ones for
            another encoder.
        kinds: index kinds by length; other lengths get a kind that suits the gallery's size.
        backend: name of the search engine; that of the current generation, or FAISS, if None.
        optimise: as `BuildOptions`; if None, what the current generation was built for, or "memory".
        gpu: builds the indexes and runs the searches that calibration measures; the CPU if None.
    """

    lengths: Sequence[int] | None = None
    kinds: Mapping[int, str] | None = None
    backend: str | None = None
    optimise: Optimise | None = None
    gpu: Gpu | None = None


_DEFAULTS = GenerationOptions()


def publish_generation(
    gallery: Gallery,
    encoder: AnyEncoder,
    progress: Progress,
    options: GenerationOptions = _DEFAULTS,
    *,
    activate: Callable[[int], None] | None = None,
) -> int:
    """Build the next generation from all images of the gallery and switch to it; the caller holds the writer's lock.

    Codes come from the current generation or the store; only images without a code of this encoder are encoded. Images
    may be added, replaced and removed meanwhile; changes that the generation does not contain stay pending.

    Args:
        activate: called with the number of the new generation to switch to it; the gallery's own method if None.

    Returns: the number of the new generation.

    Raises: LengthRangeError, for a length beyond the code's; IndexKindError; GalleryError, if no image can be encoded;
        InsufficientSpaceError.
    """
    current = _current_generation(gallery, encoder)
    backend = require_backend(gallery, options.backend or gallery.current_backend(), gpu=options.gpu)
    lengths = options.lengths
    is_alike = current is not None and gallery.current_backend() == backend.name
    if lengths is None and current is not None and is_alike:
        lengths = current.requested_lengths
    lengths = backend.choose_lengths(encoder.code_length, lengths)
    optimise = options.optimise or (current.optimise if current is not None and is_alike else "memory")
    try:
        backend.check_optimise(optimise)
    except IndexKindError as error:
        if options.optimise is not None:
            raise
        progress.log(f"{error}; the generation is built without it")
        optimise = "memory"
    count = gallery.store.count()
    specs = backend.choose_indexes(count, lengths=lengths, kinds=options.kinds)
    has_compact_codes = backend.name == FAISS and suits_compact_codes(
        count, optimise=optimise, gpu=options.gpu is not None
    )
    if count >= DEFAULT_TUNING.min_codes_for_ivf:
        specs = _largest_of(optimise, specs, has_compact_codes=has_compact_codes)
    elif options.optimise not in (None, "memory"):
        progress.log(
            f"optimise={optimise} builds what memory does: with fewer than {DEFAULT_TUNING.min_codes_for_ivf:,} images "
            "a scan is quick"
        )
    on_disk = specs if backend.name == FAISS else ()
    requirements = require_space(
        gallery.root,
        on_disk,
        count=count,
        code_length=encoder.code_length,
        has_compact_codes=has_compact_codes,
    )
    elsewhere = backend.describe_size(specs, count=count, code_length=encoder.code_length)
    progress.log(f"the generation takes {requirements}{elsewhere and '; '}{elsewhere}")
    build = _Build(gallery, encoder, None if current is None else current.codes, progress, options.gpu)
    keys, last_removal = build.encode_missing()
    number = gallery.next_number()
    codes = build.assemble(keys, name=f"{number:06d}")

    def on_index(done: int, total: int) -> None:
        if done:
            progress.advance(1)
        else:
            progress.start("index", total)

    backend.build(
        gallery.generation_path(number),
        codes,
        BuildOptions(
            lengths=lengths,
            kinds=options.kinds,
            metadata=gallery.store.metadata_of(codes.keys),
            removal=last_removal,
            gpu=options.gpu,
            optimise=optimise,
            on_progress=on_index,
        ),
    )
    served = gallery.current()
    (activate or gallery.activate)(number)
    gallery.retire(keep=KEPT_GENERATIONS, served=served)
    return number


@dataclass(frozen=True)
class _Build:
    """The codes of one build; `previous` are those of the current generation if it has the same encoder."""

    gallery: Gallery
    encoder: AnyEncoder
    previous: Codes | None
    progress: Progress
    gpu: Gpu | None

    def encode_missing(self) -> tuple[NDArray[np.int64], int]:
        """Encode images until each that can be encoded has a code.

        Returns: the keys of these images and the last removal, at one moment.
        """
        store, announced = self.gallery.store, False
        failures: dict[int, str] = {}
        while True:
            keys, last_removal = store.contents()
            coded = store.coded_keys(encoder_id=self.encoder.id)
            if self.previous is not None:
                coded = np.union1d(coded, self.previous.keys)
            keys = np.setdiff1d(keys, list(failures))
            missing = np.setdiff1d(keys, coded)
            if not announced or len(missing):
                self.progress.start("encode", len(missing))
                announced = True
            if len(missing) == 0:
                self._tell(failures, encoded=len(keys))
                return keys, last_removal
            failures |= encode_images(self.gallery, self.encoder, missing.tolist(), self.progress)

    def _tell(self, failures: Mapping[int, str], *, encoded: int) -> None:
        """Tell which images are left out. Raises: GalleryError, if all are."""
        if not failures:
            return
        reasons = "; ".join(list(failures.values())[:3])
        if encoded == 0:
            raise GalleryError(f"none of the {len(failures)} images can be encoded: {reasons}")
        self.progress.log(
            f"{len(failures)} images have no code and cannot be encoded; they are left out until a build finds their "
            f"files again, and `eigenlens sync` removes those whose files are gone: {reasons}"
        )

    def assemble(self, keys: NDArray[np.int64], *, name: str) -> Codes:
        """Write one codes artifact of all images, similar ones together; reuse the previous one if nothing changed."""
        if self.previous is not None and np.array_equal(np.sort(self.previous.keys), keys):
            return self.previous
        self.progress.start("assemble", len(keys))
        path = self.gallery.codes / name
        order = order_rows(lambda start, stop: self._codes_of(keys[start:stop]), len(keys), gpu=self.gpu)
        code_length, encoder_id = self.encoder.code_length, self.encoder.id
        with writing_codes(path, count=len(keys), code_length=code_length, encoder_id=encoder_id) as writer:
            for start in range(0, len(keys), _ASSEMBLY_BATCH_SIZE):
                batch = keys[order[start : start + _ASSEMBLY_BATCH_SIZE]]
                writer.append(batch, self._codes_of(batch))
                self.progress.advance(len(batch))
        return Codes(path, verify=False)

    def _codes_of(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return codes of images, (n, code_length); zeros for an image that was removed meanwhile."""
        codes = np.zeros((len(keys), self.encoder.code_length), dtype=np.float32)
        is_coded = np.zeros(len(keys), dtype=bool)
        if self.previous is not None:
            rows = self.previous.rows_of(keys)
            is_coded = rows >= 0
            codes[is_coded] = self.previous.take(rows[is_coded])
        uncoded = keys[~is_coded].tolist()
        pending = self.gallery.store.codes_of(uncoded, encoder_id=self.encoder.id)
        for index, key in zip(np.flatnonzero(~is_coded), uncoded, strict=True):
            if key in pending:
                codes[index] = pending[key]
        return codes


def require_backend(gallery: Gallery, name: str, *, gpu: Gpu | None = None) -> Backend:
    """Return a search engine in which the gallery can build. Raises: GalleryError, which says what it needs."""
    if name == PGVECTOR and gallery.store.vectors() is None:
        raise GalleryError(
            f"the backend pgvector keeps codes in the gallery's PostgreSQL, and the images of {gallery.root} are in "
            f"SQLite: `eigenlens migrate --gallery {gallery.root}` takes them there, or build with --backend faiss"
        )
    if name == QDRANT and gallery.qdrant is None:
        raise GalleryError(
            "the backend qdrant keeps codes in a Qdrant: give its address as EIGENLENS_BACKEND_URL or --backend-url, "
            "or build with --backend faiss"
        )
    return gallery.backend(name, gpu=gpu)


def _largest_of(optimise: Optimise, specs: tuple[IndexSpec, ...], *, has_compact_codes: bool) -> tuple[IndexSpec, ...]:
    """Return the largest indexes that a build may have: the prefix it prefers is chosen when the codes are there.

    Args:
        specs: an index of every length, ascending.
    """
    if optimise == "latency":
        return (*specs, IndexSpec(specs[-2 if len(specs) > 1 else -1].length, VAMANA.name))
    if optimise == "build":
        return specs[-2:]
    lengths = [spec.length for spec in specs]
    between = sorted(set(with_lengths_between(lengths)).difference(lengths)) if has_compact_codes else []
    return (*specs, *(IndexSpec(length, "ivf-pq") for length in between[-1:]))


def _current_generation(gallery: Gallery, encoder: AnyEncoder) -> BaseGeneration | None:
    """Return the current generation; None if it has codes of another encoder or cannot be opened."""
    if gallery.current() is None:
        return None
    try:
        _, generation = gallery.open_current()
    except GalleryError as error:
        log.warning("the codes of the present generation cannot be reused: %s", error)
        return None
    return generation if generation.encoder_id == encoder.id else None
