"""`eigenlens bench`: measure, print a table, keep the records."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import append_records, make_record, read_records
from eigenlens.benchmarks.common.retrieval import retrieval_quality
from eigenlens.benchmarks.documents import update_documents
from eigenlens.benchmarks.encoder.fashion import encode_all, load_fashion_mnist, pca_of_pixels
from eigenlens.benchmarks.heads.command import configure_heads, run_heads
from eigenlens.benchmarks.quality.command import configure_quality, run_quality
from eigenlens.benchmarks.runtime import command as runtime
from eigenlens.benchmarks.search.measure import METHODS, Setup, measure, missing, tell, truth
from eigenlens.benchmarks.search.view_codes import view_codes, views_of_halves
from eigenlens.benchmarks.service import command as service_command
from eigenlens.benchmarks.service.adds import measure_adds, summary
from eigenlens.benchmarks.training.run_time import training_time
from eigenlens.benchmarks.training.steps import configure_steps, run_steps
from eigenlens.index.plans.plan import choose_lengths
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.errors import ConfigError
from eigenlens.model.images.sources import open_source
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.training.run import Run
from eigenlens.service.commands.options import parse_known_kinds, parse_lengths

EPILOG = """examples:
  eigenlens bench quality --data cifar10 --train cifar10/train.tar.gz --test cifar10/test.tar.gz --work runs/quality
  eigenlens bench encoder --encoder .demo/fashion-mnist/encoder
  eigenlens bench encoder --encoder encoders/mine --queries validation --results benchmarks/results/mine.jsonl
  eigenlens bench search --encoder encoders/cifar10 --images cifar10/train.tar.gz --query-images cifar10/test.tar.gz \\
      --work runs/search --count 1000000 --results benchmarks/results/search.jsonl
  eigenlens bench heads --train clothing/train.tar.gz --test clothing/test.tar.gz --scenes holidays.tar.gz \\
      --work runs/heads --results benchmarks/results/heads.jsonl
  eigenlens bench adds --gallery .demo/fashion-mnist/gallery
  eigenlens bench service --gallery galleries/cifar10 --photos holidays.tar.gz --work runs/service
  eigenlens bench runtime --encoder encoders/cifar10 --images cifar10/train.tar.gz --query-images cifar10/test.tar.gz
  eigenlens bench steps --images cifar10/train.tar.gz --results benchmarks/results/steps.jsonl
  eigenlens bench training --run .demo/fashion-mnist/run
  eigenlens bench tables

`quality` trains every objective alike and compares their codes by length. `encoder` prints precision@100 by class of
Fashion-MNIST's 10,000 test images (never trained on) against its 60,000 training images, beside PCA of the raw pixels
at the same lengths. `training` tells how long a run took. `tables` draws the documentation's tables from records."""

_QUERIES, _FEWEST_PHOTOGRAPHS = 2000, 2

Quality = Mapping[int, Mapping[str, float]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    kinds = parser.add_subparsers(
        dest="bench", metavar="{quality,encoder,heads,search,adds,service,runtime,steps,training,tables}", required=True
    )
    configure_quality(kinds.add_parser("quality", help="objectives and peers side by side, by prefix length"))
    quality = kinds.add_parser("encoder", help="agreement of an encoder's neighbours with labels, by prefix length")
    quality.add_argument("--encoder", metavar="ENCODER", type=Path, required=True, help="encoder artifact to measure")
    quality.add_argument(
        "--lengths",
        type=parse_lengths,
        default=[4, 8, 16, 32],
        metavar="N,N,...",
        help="prefix lengths besides the full one (default: 4,8,16,32)",
    )
    quality.add_argument(
        "--queries",
        choices=("test", "validation"),
        default="test",
        help="validation: 10,000 training images that fashion-mnist:fit leaves out, to choose settings by",
    )
    quality.add_argument("--k", type=positive, default=100, help="neighbours of each query (default: %(default)s)")
    quality.add_argument("--name", default="eigenlens", help="name of the method in the records (default: %(default)s)")
    quality.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")
    configure_steps(kinds.add_parser("steps", help="time of a training step beside the bare network, and lightly's"))
    training = kinds.add_parser("training", help="how long a finished training run took")
    training.add_argument("--run", metavar="RUN", type=Path, required=True, help="directory of the run")
    training.add_argument(
        "--name", default="eigenlens", help="name of the method in the records (default: %(default)s)"
    )
    training.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")
    _configure_search(kinds.add_parser("search", help="recall against latency, memory and build time, beside others"))
    configure_heads(kinds.add_parser("heads", help="heads on a frozen backbone beside its features and their PCA"))
    adds = kinds.add_parser("adds", help="search latency of a service while images arrive")
    adds.add_argument("--gallery", metavar="GALLERY", type=Path, required=True, help="a gallery; the images stay in it")
    adds.add_argument("--images", metavar="SOURCE", default="fashion-mnist:test", help="images to add and search with")
    adds.add_argument("--rate", type=positive, default=1000, help="images a second (default: %(default)s)")
    adds.add_argument("--batch", type=positive, default=100, help="images a request (default: %(default)s)")
    adds.add_argument("--seconds", type=positive, default=60, help="how long (default: %(default)s)")
    adds.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")
    service_command.configure(kinds.add_parser("service", help="throughput and latency under load, beside the limit"))
    runtime.configure(kinds.add_parser("runtime", help="inference runtimes: images a second, and what precision costs"))
    kinds.add_parser("tables", help="draw the tables of the documentation from the records")


def run(args: argparse.Namespace) -> int:
    """Measure, or draw. Raises: EigenlensError."""
    if args.bench == "tables":
        update_documents()
    elif args.bench == "service":
        service_command.run(args)
    elif args.bench == "runtime":
        runtime.run(args)
    elif args.bench == "adds":
        _adds(args)
    elif args.bench == "heads":
        run_heads(args)
    elif args.bench == "search":
        _search(args)
    elif args.bench == "steps":
        run_steps(args)
    elif args.bench == "training":
        _training(args)
    elif args.bench == "quality":
        run_quality(args)
    else:
        _encoder(args)
    return 0


def _configure_search(parser: argparse.ArgumentParser) -> None:
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
        type=lambda text: text.split(","),
        default=list(METHODS),
        metavar="NAME,...",
        help=f"of {', '.join(METHODS)} (default: all)",
    )
    parser.add_argument(
        "--data", default="cifar10-views", help="name of the data in the records (default: %(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="add the records to FILE; what is there is skipped"
    )


def _search(args: argparse.Namespace) -> None:
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
    )
    truth(setup)
    known = read_records(args.results) if args.results else []
    methods = []
    for method in args.methods:
        if any(r["method"] == method and r["params"]["n"] == setup.count and r["data"] == args.data for r in known):
            print(f"{method:<12}is in {args.results} already", file=sys.stderr)
        elif (reason := missing(method)) is not None:
            print(f"{method:<12}cannot be measured here: {reason}", file=sys.stderr)
        else:
            methods.append(method)
    common = {"n": setup.count, "k": 10, "dimensions": setup.code_length, "encoder": encoder.id}
    for method, values in measure(setup, methods).items():
        tell(method, values)
        if args.results:
            append_records(
                args.results,
                [
                    make_record(
                        bench="search",
                        data=args.data,
                        method=method,
                        length=None,
                        metric=value["metric"],
                        value=value["value"],
                        unit=value["unit"],
                        params=common | value["params"],
                    )
                    for value in values
                ],
            )


def _adds(args: argparse.Namespace) -> None:
    measured = measure_adds(
        args.gallery,
        open_source(args.images),
        rate=args.rate,
        batch=args.batch,
        seconds=args.seconds,
        searches_per_s=20,
        log=args.gallery / "bench.log",
    )
    params = {name: getattr(args, name) for name in ("rate", "batch", "seconds")}
    params |= {"adds_per_s": round(measured["adds_per_s"], 1), "failed": len(measured["failed"])}
    print(f"{params['adds_per_s']} images a second added, {params['failed']} requests failed")
    records = []
    for name in ("idle", "busy"):
        found = summary(measured[name])
        print(
            f"{name:<6}{len(measured[name]):>6} searches  " + "  ".join(f"{q} {ms:.2f} ms" for q, ms in found.items())
        )
        records += [
            make_record(
                bench="adds",
                data=args.images,
                method=name,
                length=None,
                metric=f"{quantile}_ms",
                value=ms,
                unit="ms",
                params=params | {"searches": len(measured[name])},
            )
            for quantile, ms in found.items()
        ]
    if args.results:
        append_records(args.results, records)


def _training(args: argparse.Namespace) -> None:
    measured = training_time(args.run)
    print(f"{measured['minutes']:.1f} minutes, {measured['images_per_s']:.0f} images/s")
    if args.results:
        run = Run(args.run)
        units = {"minutes": "min", "images_per_s": "1/s"}
        records = [
            make_record(
                bench="training",
                data=run.images,
                method=args.name,
                length=None,
                metric=metric,
                value=value,
                unit=units[metric],
                seed=run.config.seed,
                params=run.config.model_dump(mode="json"),
            )
            for metric, value in measured.items()
        ]
        append_records(args.results, records)
        print(f"{len(records)} records added to {args.results}", file=sys.stderr)


def _encoder(args: argparse.Namespace) -> None:
    encoder = Encoder(args.encoder)
    lengths = choose_lengths(encoder.code_length, args.lengths)
    data = load_fashion_mnist(queries=args.queries)
    codes = encode_all(encoder, data.gallery, name="gallery"), encode_all(encoder, data.queries, name="queries")
    pixels, labels = pca_of_pixels(data), (data.gallery_labels, data.query_labels)
    measured = {
        args.name: retrieval_quality(*codes, *labels, lengths=lengths, precision_at=args.k, map_at=args.k),
        "pca-of-pixels": retrieval_quality(
            *pixels, *labels, lengths=[*lengths[:-1], pixels[0].shape[1]], precision_at=args.k, map_at=args.k
        ),
    }
    sizes = {"queries": len(data.queries), "gallery": len(data.gallery)}
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
            bench="quality",
            data="fashion-mnist",
            method=method,
            length=length,
            metric=metric,
            value=round(value, 6),
            params=params,
        )
        for length, values in quality.items()
        for metric, value in values.items()
    ]
