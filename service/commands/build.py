"""`eigenlens build`: turn images, or the nodes of a graph, into a gallery that can be served."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Never, get_args

from tqdm import tqdm

from eigenlens.artifact import MANIFEST
from eigenlens.index.backends import BACKENDS, PGVECTOR
from eigenlens.index.faiss_engine.gpu import open_gpu
from eigenlens.index.faiss_engine.kinds import KINDS
from eigenlens.index.plans.plan import Optimise, choose_lengths
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.sources.open import open_graph_source
from eigenlens.model.graphs.two_passes import import_graph
from eigenlens.model.runtime.feature_encoder import FeatureEncoder
from eigenlens.model.runtime.open import open_encoder
from eigenlens.service.api.report import Report
from eigenlens.service.commands.options import (
    configure_backend,
    configure_intake,
    configure_store,
    limits_of,
    parse_known_kinds,
    parse_lengths,
    print_report,
    qdrant_of,
)
from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.build import GenerationOptions, publish_generation, require_backend
from eigenlens.service.gallery.intake import Images, add_source
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.nodes import add_graph, require_images, require_nodes
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.shards import add_codes, open_codes
from eigenlens.service.gallery.store.open import has_store

_ENCODER_MISSING = (
    ": give --encoder; `eigenlens fit --images FOLDER --out ENCODER` makes one of your images, and `eigenlens train` "
    "with `eigenlens export` another"
)
EPILOG = """examples:
  eigenlens build --encoder encoders/fashion --images fashion-mnist --gallery galleries/fashion
  eigenlens build --gallery galleries/fashion --images ~/more        add another folder, or bring one in step
  eigenlens build --encoder encoders/fashion --gallery galleries/new an empty gallery, to fill while it is served
  eigenlens build --encoder encoders/fashion --codes codes --gallery galleries/fashion   load what was encoded before
  eigenlens build --encoder encoders/cora --graph cora.npz --gallery galleries/cora
  eigenlens build --gallery galleries/fashion --lengths 8,16,64      build other lengths; nothing is encoded again
  eigenlens build --gallery galleries/fashion --encoder encoders/new encode everything with another encoder

To continue an interrupted build, run it again. A running service switches to the new generation by itself. The files
of a folder stay where they are; images of an archive are copied into the gallery. The same folder again brings the
gallery in step with it (see `eigenlens sync`); another folder lives beside it, and its name begins its ids.
Next: eigenlens serve --gallery GALLERY"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, required=True, help="directory of the gallery")
    parser.add_argument(
        "--encoder", metavar="ENCODER", type=Path, help="directory of the encoder (default: the gallery's own)"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--images", metavar="SOURCE", help="images to add: a folder, a tar, or fashion-mnist")
    source.add_argument(
        "--codes",
        metavar="SHARDS",
        type=Path,
        nargs="+",
        help="images to add that were encoded before: files of `eigenlens encode`, or folders of them",
    )
    source.add_argument(
        "--graph", metavar="SOURCE", help="graph whose nodes to add, for an encoder that was fitted to one"
    )
    parser.add_argument(
        "--name",
        help="name of the folder, which begins the ids of its images (default: none for the first folder of a gallery, "
        "otherwise like its directory); give the name of a known folder that lies elsewhere now",
    )
    configure_store(parser)
    configure_backend(parser)
    configure_intake(parser)
    parser.add_argument(
        "--lengths",
        type=parse_lengths,
        metavar="N,N,...",
        help="prefix lengths to build, besides the full one (default: those of the gallery, or powers of two from 4)",
    )
    parser.add_argument(
        "--kinds",
        type=parse_known_kinds,
        metavar="N=KIND,...",
        help=f"index kinds of some lengths: {', '.join(KINDS)}; other lengths get one that suits the gallery's size",
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="search engine of the generation: faiss, in the gallery's directory, pgvector, in the PostgreSQL that "
        "--store names, or qdrant, at --backend-url (default: that of the gallery, or faiss)",
    )
    parser.add_argument(
        "--optimise",
        choices=get_args(Optimise),
        help="memory: indexes of all lengths, and of one between two long ones where the codes want it; latency: also "
        "a graph over one prefix, which answers searches without a filter sooner, for some 250 bytes an image and a "
        "longer build; build: of the lengths only the full one and that which finds shortlists best, from 20,000 "
        "images on (default: as the gallery was built, or memory)",
    )
    parser.add_argument(
        "--search-device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="device that builds and measures the indexes, the same that will serve them; auto: a GPU if FAISS sees "
        "one (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Build the gallery, with progress on standard error. Raises: EigenlensError."""
    if args.encoder is None and not has_store(args.gallery):
        raise GalleryError(f"there is no gallery at {args.gallery} yet{_ENCODER_MISSING}")
    if args.backend == PGVECTOR and args.store is None and not has_store(args.gallery):
        raise GalleryError(
            f"the backend {PGVECTOR} keeps codes in a PostgreSQL: give its address, --store postgresql://user@host/database"
        )
    options = GenerationOptions(
        lengths=args.lengths,
        kinds=args.kinds,
        backend=args.backend,
        optimise=args.optimise,
        gpu=open_gpu(args.search_device),
    )
    encoder = open_encoder(args.encoder) if args.encoder is not None else None
    limits = limits_of(args)
    images = None if args.images is None else Images(args.images, args.name, args.follow_links, limits)
    if images is not None:
        images.check()
    if args.codes is not None and encoder is not None:
        open_codes(args.codes, require_images(encoder))  # likewise
    if encoder is not None:
        choose_lengths(encoder.code_length, args.lengths)  # refuse wrong lengths before a gallery is made
    gallery = Gallery(args.gallery, store=args.store, qdrant=qdrant_of(args), create=True)
    with closing(gallery.store), gallery.writing(), ProgressBar() as progress:
        backend = require_backend(gallery, args.backend or gallery.current_backend())
        if args.optimise is not None:
            backend.check_optimise(args.optimise)
        if encoder is None and gallery.current() is None:
            raise GalleryError(f"the gallery {args.gallery} has no generation yet{_ENCODER_MISSING}")
        if encoder is None:
            encoder = open_encoder(gallery.encoder_path(gallery.current_encoder_id()))
            choose_lengths(encoder.code_length, args.lengths)
        else:
            gallery.adopt_encoder(encoder.artifact.path)
        report = Report() if images is None else add_source(gallery, require_images(encoder), images, progress)
        if args.codes is not None:
            shards = open_codes(args.codes, require_images(encoder))
            report = add_codes(gallery, require_images(encoder), shards, progress)
        if args.graph is not None:
            report = _add_graph(gallery, require_nodes(encoder), args.graph, progress)
        number = publish_generation(gallery, encoder, progress, options)
        count = gallery.store.count()
    print_report(report, args)
    items = "nodes" if isinstance(encoder, FeatureEncoder) else "images"
    print(
        f"generation {number} of {args.gallery}: {count} {items}",
        file=sys.stderr if args.json else sys.stdout,
    )
    print(f"next: eigenlens serve --gallery {args.gallery}", file=sys.stderr)
    return 0


def _add_graph(gallery: Gallery, encoder: FeatureEncoder, source: str, progress: Progress) -> Report:
    """Import a graph, or open one that was imported before, and store its nodes."""
    if (Path(source) / MANIFEST).exists():
        return add_graph(gallery, encoder, Graph(Path(source)), progress)
    with TemporaryDirectory(dir=gallery.root, prefix=".graph-") as work:
        graph = import_graph(open_graph_source(source), Path(work) / "graph")
        for fault in graph.faults:
            progress.log(fault)
        return add_graph(gallery, encoder, graph, progress)


class ProgressBar(Progress):
    """Shows progress on standard error, one bar a stage."""

    def __init__(self) -> None:
        self._bar: tqdm[Never] | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` items."""
        self._close()
        if total:
            self._bar = tqdm(total=total, desc=stage, unit={"index": "index", "smooth": "node"}.get(stage, "image"))

    def advance(self, count: int) -> None:
        """Count `count` more items as done."""
        if self._bar is not None:
            self._bar.update(count)

    def log(self, text: str) -> None:
        """Print a message."""
        self._close()
        print(text, file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
