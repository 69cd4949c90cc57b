"""`eigenlens bench duplicates`: which planted duplicates are found in a gallery, and what joining many codes costs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.duplicates.agreement import agreement
from eigenlens.benchmarks.duplicates.join import measure_join
from eigenlens.benchmarks.duplicates.planted import write_planted
from eigenlens.model.errors import ConfigError
from eigenlens.model.images.sources import FolderSource
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.api.duplicates import DEFAULT_COSINE
from eigenlens.service.gallery.build import publish_generation
from eigenlens.service.gallery.duplicates import find_duplicates, read_duplicates
from eigenlens.service.gallery.ingest import add_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress

_COSINES = (0.9, 0.95, DEFAULT_COSINE, 0.99, 0.995)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--encoder", metavar="ENCODER", type=Path, help="encoder artifact of the gallery")
    parser.add_argument("--images", metavar="SOURCE", help="photographs; groups of changed copies are planted in them")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where the images and the gallery are kept")
    parser.add_argument("--count", type=positive, default=20_000, help="images of the gallery (default: %(default)s)")
    parser.add_argument("--groups", type=positive, default=1000, help="planted groups (default: %(default)s)")
    parser.add_argument("--join", type=positive, metavar="N", help="join N synthetic codes instead of a gallery's")
    parser.add_argument("--data", help="name of the data in the records (default: that of the images)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Measure, print and keep records. Raises: EigenlensError."""
    if args.join is None and None in (args.encoder, args.images, args.work):
        raise ConfigError("give --encoder, --images and --work, or --join N")
    measured = _of_codes(args) if args.join is not None else _of_gallery(args)
    for subject, values in measured:
        about = " ".join(f"{name}={value}" for name, value in subject.params.items())
        print(f"{subject.data} {subject.method} {about}")
        for metric, (value, unit) in values.items():
            print(f"  {metric:<24}{value:.6g} {unit}")
        if args.results:
            append_records(args.results, [make_record(subject, name, *value) for name, value in values.items()])


def _of_codes(args: argparse.Namespace) -> Iterator[tuple[Subject, Mapping[str, tuple[float, str]]]]:
    params = {"n": args.join, "cosine": DEFAULT_COSINE}
    values = measure_join(args.join, cosine=DEFAULT_COSINE, seed=args.seed)
    yield Subject(bench="duplicates", data="synthetic", method="join", seed=args.seed, params=params), values


def _of_gallery(args: argparse.Namespace) -> Iterator[tuple[Subject, Mapping[str, tuple[float, str]]]]:
    folder = args.work / "images"
    if not folder.exists():
        write_planted(folder, args.images, count=args.count, groups=args.groups, seed=args.seed)
    gallery = Gallery(args.work / "gallery", create=True)
    encoder = Encoder(args.encoder)
    with gallery.writing():
        gallery.adopt_encoder(args.encoder)
        add_images(gallery, encoder, FolderSource(folder), Progress())
        if gallery.current() is None:
            publish_generation(gallery, encoder, Progress())
    for cosine in (1.0, *_COSINES):
        started = time.perf_counter()
        find_duplicates(gallery, cosine=cosine, progress=Progress())
        seconds = time.perf_counter() - started
        groups = _found(gallery)
        shares = agreement(groups, args.groups)
        params = {"n": args.count, "groups": args.groups, "cosine": cosine, "encoder": encoder.id}
        data = args.data or Path(args.images).name.partition(".")[0]
        yield (
            Subject(bench="duplicates", data=data, method="gallery", seed=args.seed, params=params),
            {name: (round(share, 4), "") for name, share in shares.items()}
            | {"found_groups": (len(groups), ""), "seconds": (round(seconds, 2), "s")},
        )


def _found(gallery: Gallery) -> Sequence[Sequence[str]]:
    """Return the ids of the images of each group that the last search found."""
    duplicates = read_duplicates(gallery)
    assert duplicates is not None  # they were looked for just before
    records = gallery.store.records(duplicates.keys.tolist())
    return [[records[key].id for key in duplicates.group(number)] for number in range(len(duplicates))]
