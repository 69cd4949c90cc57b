"""`eigenlens bench novelty`: how many strangers, and how many held-out images, are told to be unlike everything."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.labelled import encode_all
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.common.service_process import running_service
from eigenlens.benchmarks.encoder.fashion import load_fashion_mnist
from eigenlens.index.building.nearest_others import measure_similarities
from eigenlens.index.codes.artifact import Codes, writing_codes
from eigenlens.index.codes.exact import exact_search
from eigenlens.index.codes.typicality import UNLIKE_PERCENTILE, Typicality, write_typicality
from eigenlens.index.plans.plan import choose_lengths
from eigenlens.model.errors import ConfigError
from eigenlens.model.images.sources import SourceImage, open_source
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.client import Client

Vectors = NDArray[np.float32]
# What the service tells, by where the query's code lies; and what the best score alone would.
TOLD, BY_BEST_SCORE = "eigenlens", "best-score"
# What a service answers, over HTTP.
BY_SERVICE = "service"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--encoder", metavar="ENCODER", type=Path, required=True, help="encoder artifact of the sample")
    parser.add_argument("--strangers", metavar="SOURCE", required=True, help="images of another domain")
    parser.add_argument("--name", required=True, help="name of these images in the records")
    parser.add_argument(
        "--classes",
        type=lambda text: tuple(text.split(",")),
        default=("",),
        metavar="PREFIX,...",
        help="only classes whose names begin like one of these (default: all)",
    )
    parser.add_argument("--queries", type=positive, default=1000, help="strangers to draw (default: %(default)s)")
    parser.add_argument(
        "--gallery", metavar="GALLERY", type=Path, help="a gallery of the sample, whose service is asked as well"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Search Fashion-MNIST's 60,000 training images for strangers and for its 10,000 test images; print a table.

    Raises: EigenlensError.
    """
    encoder = Encoder(args.encoder)
    rng = np.random.default_rng(args.seed)
    lengths = choose_lengths(encoder.code_length)
    gallery, held_out = load_fashion_mnist(queries="test")
    images = _draw(args.strangers, args.classes, count=args.queries, rng=rng)
    pixels = [image.load(encoder.image_size) for image in images]
    strangers = np.stack([each for each in pixels if isinstance(each, np.ndarray)])
    codes = rng.permutation(encode_all(encoder, gallery.pixels, name="gallery"))
    queries = {
        "strangers_told": encode_all(encoder, strangers, name="strangers"),
        "held_out_told": encode_all(encoder, held_out.pixels, name="held out"),
    }
    told: dict[tuple[str, int], dict[str, float]] = _shares_told(codes, queries, lengths, encoder_id=encoder.id)
    if args.gallery is not None:
        told[BY_SERVICE, lengths[-1]] = {"strangers_told": _share_of_answers(args.gallery, images)}
    print(f"Told to be unlike everything: {len(strangers):,} of {args.name}, {len(held_out):,} held-out images")
    print(f"{'by':<16}{'strangers':>12}{'held out':>12}")
    for (method, length), shares in told.items():
        name = {TOLD: "the code", BY_SERVICE: "a service"}.get(method, f"best score, {length}")
        held = f"{shares['held_out_told']:.2%}" if "held_out_told" in shares else "not asked"
        print(f"{name:<16}{shares['strangers_told']:>12.1%}{held:>12}")
    if args.results:
        params = {
            "strangers": args.name,
            "queries": len(strangers),
            "held_out": len(held_out),
            "gallery": len(codes),
            "percentile": UNLIKE_PERCENTILE,
            "encoder": encoder.id,
            "settings": encoder.artifact.properties.get("training"),
        }
        records = [
            make_record(Subject("novelty", "fashion-mnist", method, length, args.seed, params), metric, share)
            for (method, length), shares in told.items()
            for metric, share in shares.items()
        ]
        append_records(args.results, records)
        print(f"{len(records)} records added to {args.results}", file=sys.stderr)


def _draw(source: str, classes: Sequence[str], *, count: int, rng: np.random.Generator) -> list[SourceImage]:
    """Draw images of these classes at random. Raises: SourceError; ConfigError, for too few."""
    images = [image for image in open_source(source) if str(image.metadata.get("label", "")).startswith(tuple(classes))]
    if len(images) < count:
        raise ConfigError(f"{source} has {len(images)} images of these classes; ask for no more --queries")
    return [images[number] for number in rng.choice(len(images), count, replace=False)]


def _share_of_answers(gallery: Path, images: Sequence[SourceImage]) -> float:
    """Return the share of images that a service of the gallery says are unlike everything."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(gallery, Path(folder) / "log") as server,
        Client(server.address) as client,
    ):
        told = [client.search(image.data, k=1).unlike_everything for image in images]
    if None in told:
        raise ConfigError(f"{gallery} has no figures on this; rebuild it")
    return round(float(np.mean([bool(each) for each in told])), 6)


def _shares_told(
    codes: Vectors, queries: Mapping[str, Vectors], lengths: Sequence[int], *, encoder_id: str
) -> dict[tuple[str, int], dict[str, float]]:
    """Return, by method and length, the share of each set of queries that is told to be unlike everything.

    The figures are measured as a build does, from codes (n, code_length) in random order.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes"
        with writing_codes(path, count=len(codes), code_length=codes.shape[1], encoder_id=encoder_id) as writer:
            writer.append(np.arange(len(codes)), codes)
        stored = Codes(path)
        similarities = measure_similarities(stored, lengths=lengths)
        with artifact.publishing(Path(folder) / "figures", kind="novelty") as directory:
            write_typicality(directory, stored)
        typicality = Typicality(artifact.read(Path(folder) / "figures", kind="novelty"))
    assert similarities is not None, "the sample has enough images"
    told = {}
    for length in lengths:
        best = {name: exact_search(codes, vectors, length=length, k=1)[0][:, 0] for name, vectors in queries.items()}
        told[BY_BEST_SCORE, length] = {
            name: _share([similarities.percentile_of(score, length=length) or 0.0 for score in scores.tolist()])
            for name, scores in best.items()
        }
    told[TOLD, lengths[-1]] = {
        name: _share([typicality.percentile_of(code) for code in vectors]) for name, vectors in queries.items()
    }
    return told


def _share(percentiles: Sequence[float]) -> float:
    return round(float(np.mean(np.array(percentiles) < UNLIKE_PERCENTILE)), 6)
