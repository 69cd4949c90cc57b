"""`eigenlens bench service`: closed and open loops of photographs of three sizes, then five times too much.

Searches by ids and codes, which encode nothing, tell what the service itself takes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
from eigenlens.benchmarks.common.service_process import Server, running_service
from eigenlens.benchmarks.service.measure import (
    PHOTOS,
    QUERIES,
    Cell,
    Measured,
    merged,
    run_in_process,
    run_load,
    servers,
    write_photos,
    write_queries,
)
from eigenlens.benchmarks.service.tables import workers_of
from eigenlens.model.errors import ConfigError
from eigenlens.model.images.sources import open_source
from eigenlens.service.gallery.layout import Gallery

BENCH = "service"
_METHODS = ("in-process", "eigenlens", "plain-fastapi")
_BUSY = 32
_SHARE = 0.7
_OVERLOAD = 5
_OVERLOAD_CONNECTIONS = 256


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, required=True, help="a gallery to search")
    parser.add_argument("--photos", metavar="SOURCE", help="photographs to search with, in three sizes")
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="where photographs and logs are kept")
    parser.add_argument("--data", default="cifar10", help="name of the gallery in the records (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round (default: %(default)s)")
    parser.add_argument("--warm-s", type=float, default=1.0, help="of load before each round (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=3, help="of each closed loop (default: %(default)s)")
    parser.add_argument("--overload-s", type=float, default=60.0, help="of five times too much (default: %(default)s)")
    parser.add_argument(
        "--sizes",
        type=lambda text: text.split(","),
        default=[*PHOTOS, *QUERIES],
        metavar="NAME,...",
        help=f"photographs of {', '.join(PHOTOS)}, the first one with every concurrency; or no photographs: "
        f"{', '.join(QUERIES)} (100 codes a request) (default: all)",
    )
    parser.add_argument(
        "--workers",
        type=lambda text: [positive(part) for part in text.split(",")],
        default=[1, 2],
        metavar="N,...",
        help="processes of the service for searches without photographs (default: 1,2)",
    )
    parser.add_argument(
        "--concurrency",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[1, 4, 16, _BUSY, 64],
        metavar="N,...",
        help="clients (default: 1,4,16,32,64)",
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="add the records to FILE; what is there is skipped"
    )


def run(args: argparse.Namespace) -> None:
    """Measure what has no record yet. Raises: EigenlensError."""
    unknown = [size for size in args.sizes if size not in (*PHOTOS, *QUERIES)]
    if unknown:
        raise ConfigError(f"there is no size '{unknown[0]}'; available: {', '.join((*PHOTOS, *QUERIES))}")
    sizes, kinds = ([size for size in args.sizes if size in known] for known in (PHOTOS, QUERIES))
    if sizes and args.photos is None:
        raise ConfigError(f"give the photographs to search with, --photos, or --sizes {','.join(QUERIES)}")
    gallery = Gallery(args.gallery)
    number, generation = gallery.open_current()
    params = {"encoder": generation.encoder_id, "images": len(generation), "generation": number}
    args.work.mkdir(parents=True, exist_ok=True)
    records = _Records(args, params)
    if sizes:
        _with_photographs(args, records, sizes)
    if kinds:
        _without_photographs(args, records, kinds)


def _with_photographs(args: argparse.Namespace, records: _Records, sizes: Sequence[str]) -> None:
    photos = args.work / "photos"
    write_photos(open_source(args.photos), photos, sizes=sizes)
    with servers(args.gallery, args.work) as started:
        for photo in sizes:
            counts = args.concurrency if photo == sizes[0] else [n for n in (1, _BUSY) if n in args.concurrency]
            for concurrency in counts:
                _closed(args, records, started, photos, Cell(photo, "closed", concurrency, seconds=args.seconds))
            _open(args, records, started["eigenlens"], photos, photo)
        if args.overload_s:
            _overload(args, records, started["eigenlens"], photos, sizes[0])


def _without_photographs(args: argparse.Namespace, records: _Records, kinds: Sequence[str]) -> None:
    queries = args.work / "photos"
    write_queries(Gallery(args.gallery), queries, kinds=kinds)
    for workers in args.workers:
        environment = os.environ | {"EIGENLENS_WORKERS": str(workers)}
        with running_service(args.gallery, args.work / "service.log", environment=environment) as server:
            for kind in kinds:
                for concurrency in (n for n in (1, _BUSY) if n in args.concurrency):
                    cell = Cell(kind, "closed", concurrency, seconds=args.seconds, workers=workers)
                    _closed(args, records, {"eigenlens": server}, queries, cell)


def _closed(
    args: argparse.Namespace, records: _Records, started: Mapping[str, Server], photos: Path, cell: Cell
) -> None:
    """Measure all methods, one after the other in every round, so that a disturbance meets all of them."""
    possible = [*started, "in-process"] if cell.photo in PHOTOS and cell.concurrency == _BUSY else started
    methods = [method for method in _METHODS if method in possible and not records.known(method, cell)]
    rounds: dict[str, list[Measured]] = {method: [] for method in methods}
    for seed in range(args.rounds):
        for method in methods:
            if method == "in-process":
                rounds[method].append(run_in_process(cell, args.gallery, photos, warm_s=args.warm_s))
            else:
                rounds[method].append(run_load(cell, method, started[method], photos, warm_s=args.warm_s, seed=seed))
    for method, measured in rounds.items():
        records.add(method, cell, merged(measured))


def _open(args: argparse.Namespace, records: _Records, server: Server, photos: Path, photo: str) -> None:
    """Load the service with 70 % of what the service was seen to answer."""
    capacity = records.throughput(photo)
    if capacity is None:
        return
    cell = Cell(photo, "open", 2 * _BUSY, rate=round(_SHARE * capacity, 1), seconds=args.seconds)
    if not records.known("eigenlens", cell):
        rounds = [
            run_load(cell, "eigenlens", server, photos, warm_s=args.warm_s, seed=seed) for seed in range(args.rounds)
        ]
        records.add("eigenlens", cell, merged(rounds), share=_SHARE)


def _overload(args: argparse.Namespace, records: _Records, server: Server, photos: Path, photo: str) -> None:
    """Load the service with five times what the service was seen to answer."""
    capacity = records.throughput(photo)
    if capacity is None:
        return
    rate = round(_OVERLOAD * capacity, 1)
    cell = Cell(photo, "overload", _OVERLOAD_CONNECTIONS, rate=rate, seconds=args.overload_s)
    if not records.known("eigenlens", cell):
        measured = run_load(cell, "eigenlens", server, photos, warm_s=args.warm_s, seed=0)
        records.add("eigenlens", cell, measured, share=_OVERLOAD)


class _Records:
    """The records of this run and, if there is a file of records, of earlier runs."""

    def __init__(self, args: argparse.Namespace, params: Mapping[str, Any]) -> None:
        self._args, self._params = args, params
        recorded = read_records(args.results) if args.results else []
        self._records: list[dict[str, Any]] = [
            record for record in recorded if record["data"] == args.data and params.items() <= record["params"].items()
        ]

    def known(self, method: str, cell: Cell) -> bool:
        """Tell whether a cell was measured before."""
        return any(
            (r["method"], *(r["params"][name] for name in ("photo", "load", "concurrency")), workers_of(r))
            == (method, cell.photo, cell.load, cell.concurrency, cell.workers)
            for r in self._records
        )

    def throughput(self, photo: str) -> float | None:
        """Return the searches a second of the service with 32 clients; None without a record."""
        return next(
            (
                float(r["value"])
                for r in self._records
                if (r["method"], r["metric"], r["params"]["photo"]) == ("eigenlens", "throughput_rps", photo)
                and (r["params"]["load"], r["params"]["concurrency"]) == ("closed", _BUSY)
            ),
            None,
        )

    def add(self, method: str, cell: Cell, measured: Measured, **more: Any) -> None:
        """Record and print what a cell came to."""
        params = {"photo": cell.photo, "load": cell.load, "concurrency": cell.concurrency, "seconds": cell.seconds}
        params |= {"rounds": len(measured.throughputs), "workers": cell.workers}
        params |= {
            "statuses": dict(measured.statuses),
            "lost": measured.lost,
            "failed": measured.failed,
            **self._params,
            **more,
        }
        if cell.rate is not None:
            params["rate"] = cell.rate
        metrics = list(measured.metrics())
        subject = Subject(bench=BENCH, data=self._args.data, method=method, params=params)
        records = [make_record(subject, metric, value, unit) for metric, value, unit in metrics]
        self._records += records
        if self._args.results:
            append_records(self._args.results, records)
        shown = "  ".join(f"{metric} {value:g}" for metric, value, _ in metrics)
        place = f"{cell.photo:<6}{cell.load:<9}{cell.concurrency:>4}  {cell.workers} x {method:<14}"
        print(f"{place}{shown}  {dict(measured.statuses)}")
        sys.stdout.flush()
