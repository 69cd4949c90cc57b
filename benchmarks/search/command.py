"""`eigenlens bench search`: recall against latency, memory and build time, beside other libraries."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eigenlens.benchmarks.common.arguments import numbers, positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
from eigenlens.benchmarks.search.measure import METHODS, measure, missing
from eigenlens.benchmarks.search.setup import PREFIXES, Setup, calibration_truth, truth
from eigenlens.benchmarks.search.values import print_values
from eigenlens.benchmarks.search.view_codes import view_codes, views_of_halves
from eigenlens.index.plans.plan import choose_lengths
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.errors import ConfigError
from eigenlens.model.images.sources import open_source
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.commands.options import parse_known_kinds, parse_lengths

_QUERIES, _FEWEST_PHOTOGRAPHS = 2000, 2
_BATCHES = (1, 32, 1000)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--encoder", metavar="ENCODER", type=Path, required=True, help="encoder artifact")
    parser.add_argument("--images", metavar="SOURCE", required=True, help="photographs whose views are searched")
    parser.add_argument("--query-images", metavar="SOURCE", required=True, help="other photographs, to search with")
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="where codes and indexes are kept")
    parser.add_argument("--count", type=positive, default=1_000_000, help="codes to search (default: %(default)s)")
    parser.add_argument("--lengths", type=parse_lengths, metavar="N,N,...", help="prefix lengths (default: the usual)")
    parser.add_argument(
        "--kinds", type=parse_known_kinds, metavar="N=KIND,...", default={}, help="index kinds of some lengths"
    )
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(",") if text else [],
        default=list(METHODS),
        metavar="NAME,...",
        help=f"of {', '.join(METHODS)} (default: all); '' only makes the codes and their exact neighbours",
    )
    parser.add_argument(
        "--prefixes",
        type=numbers,
        default=PREFIXES,
        metavar="N,N,...",
        help=f"of graphs over a prefix (default: {','.join(map(str, PREFIXES))})",
    )
    parser.add_argument(
        "--batches",
        type=numbers,
        default=_BATCHES,
        metavar="N,N,...",
        help=f"queries at once, with all cores (default: {','.join(map(str, _BATCHES))}; '' for none)",
    )
    parser.add_argument(
        "--data", default="cifar10-views", help="name of the data in the records (default: %(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="add the records to FILE; what is there is skipped"
    )


def run(args: argparse.Namespace) -> None:
    """Encode what is missing, then measure every method that is not on record. Raises: EigenlensError."""
    unknown = [method for method in args.methods if method not in METHODS]
    if unknown:
        raise ConfigError(f"there is no method '{unknown[0]}'; available: {', '.join(METHODS)}")
    encoder = Encoder(args.encoder, runtime="auto")
    views = AugmentationConfig()
    view_codes(encoder, args.images, count=args.count, seed=0, directory=args.work / "gallery", augmentation=views)
    photographs = len(open_source(args.query_images))
    if photographs < _FEWEST_PHOTOGRAPHS:
        raise ConfigError(f"{args.query_images} has {photographs} photographs to search with; give at least 2")
    count = max(photographs, 5 * _QUERIES)
    rows = views_of_halves(photographs, views=count, count=_QUERIES, seed=0)
    for name, seed, chosen in zip(("calibration", "fresh"), (1, 2), rows, strict=True):
        queries = view_codes(
            encoder, args.query_images, count=count, seed=seed, directory=args.work / name, augmentation=views
        )
        (args.work / f"{name}.f16").write_bytes(queries[chosen].tobytes())
    setup = Setup(
        work=args.work,
        codes=args.work / "gallery" / "codes.f16",
        calibration=args.work / "calibration.f16",
        fresh=args.work / "fresh.f16",
        count=args.count,
        code_length=encoder.code_length,
        lengths=choose_lengths(encoder.code_length, args.lengths),
        kinds=args.kinds,
        encoder=encoder.id,
        prefixes=args.prefixes,
        batches=args.batches,
    )
    truth(setup)
    calibration_truth(setup)
    known = read_records(args.results) if args.results else []
    methods = []
    for method in args.methods:
        if any(r["method"] == method and r["params"]["n"] == setup.count and r["data"] == args.data for r in known):
            print(f"{method:<20}is in {args.results} already", file=sys.stderr)
        elif (reason := missing(method)) is not None:
            print(f"{method:<20}cannot be measured here: {reason}", file=sys.stderr)
        else:
            methods.append(method)
    common = {"n": setup.count, "k": 10, "dimensions": setup.code_length, "encoder": encoder.id}
    for method, values in measure(setup, methods).items():
        print_values(method, values)
        if args.results:
            append_records(
                args.results,
                [
                    make_record(
                        Subject(bench="search", data=args.data, method=method, params=common | value["params"]),
                        value["metric"],
                        value["value"],
                        value["unit"],
                    )
                    for value in values
                ],
            )
