"""`eigenlens bench encoder`: agreement of an encoder's neighbours with labels, by prefix length."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.labelled import encode_all
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.common.retrieval import Cutoffs, LabelledCodes, retrieval_quality
from eigenlens.benchmarks.encoder.fashion import load_fashion_mnist, pca_of_pixels
from eigenlens.index.plans.plan import choose_lengths
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.commands.options import parse_lengths

Quality = Mapping[int, Mapping[str, float]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--encoder", metavar="ENCODER", type=Path, required=True, help="encoder artifact to measure")
    parser.add_argument(
        "--lengths",
        type=parse_lengths,
        default=[4, 8, 16, 32],
        metavar="N,N,...",
        help="prefix lengths besides the full one (default: 4,8,16,32)",
    )
    parser.add_argument(
        "--queries",
        choices=("test", "validation"),
        default="test",
        help="validation: 10,000 training images that fashion-mnist:fit leaves out, to choose settings by",
    )
    parser.add_argument("--k", type=positive, default=100, help="neighbours of each query (default: %(default)s)")
    parser.add_argument("--name", default="eigenlens", help="name of the method in the records (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Measure the encoder and PCA of the pixels, and print a table of both. Raises: EigenlensError."""
    encoder = Encoder(args.encoder)
    lengths = choose_lengths(encoder.code_length, args.lengths)
    gallery, queries = load_fashion_mnist(queries=args.queries)
    codes = LabelledCodes(
        encode_all(encoder, gallery.pixels, name="gallery"),
        gallery.labels,
        encode_all(encoder, queries.pixels, name="queries"),
        queries.labels,
    )
    pca = pca_of_pixels(gallery.pixels, queries.pixels)
    pixels = LabelledCodes(pca[0], gallery.labels, pca[1], queries.labels)
    at = Cutoffs(args.k, args.k)
    measured = {
        args.name: retrieval_quality(codes, lengths=lengths, at=at),
        "pca-of-pixels": retrieval_quality(pixels, lengths=[*lengths[:-1], pixels.gallery.shape[1]], at=at),
    }
    sizes = {"queries": len(queries), "gallery": len(gallery)}
    print(
        f"Fashion-MNIST, precision@{args.k} by class, "
        f"{sizes['queries']:,} {args.queries} queries, gallery {sizes['gallery']:,}"
    )
    _print_table(measured, metric=f"precision@{args.k}")
    if args.results:
        params = {"k": args.k, "queries_from": args.queries, **sizes}
        encoders = {args.name: {"encoder": encoder.id, "settings": encoder.artifact.properties.get("training")}}
        records = [
            record
            for method, quality in measured.items()
            for record in _records(method, quality, params=params | encoders.get(method, {}))
        ]
        append_records(args.results, records)
        print(f"{len(records)} records added to {args.results}", file=sys.stderr)


def _print_table(measured: Mapping[str, Quality], *, metric: str) -> None:
    print("".join([f"{'length':<12}", *(f"{method:>26}" for method in measured)]))
    rows = [list(quality.items()) for quality in measured.values()]
    for row in zip(*rows, strict=True):
        lengths = {length for length, _ in row}
        name = str(lengths.pop()) if len(lengths) == 1 else "full"
        print("".join([f"{name:<12}", *(f"{f'{values[metric]:.3f} ({length})':>26}" for length, values in row)]))


def _records(method: str, quality: Quality, *, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        make_record(
            Subject(bench="quality", data="fashion-mnist", method=method, length=length, params=params),
            metric,
            round(value, 6),
        )
        for length, values in quality.items()
        for metric, value in values.items()
    ]
