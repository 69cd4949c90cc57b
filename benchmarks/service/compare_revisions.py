"""Throughput and latency of the service of two revisions of this project, under the same load.

    python -m eigenlens.benchmarks.service.compare_revisions --before OLD --after NEW --gallery galleries/cifar10 \\
        --photos holidays.tar.gz --work runs/revisions --results benchmarks/results/revisions.jsonl

With `--size id`, `code` or `codes` the searches are by ids, by codes, or by 100 codes in each request; `--workers 2`
starts two processes of the service. `cpu_ms` is the processor time of all its processes for each search.

Each revision serves a copy of the gallery, which the earlier one built. Rounds alternate between them, and each starts
the service anew: neither a disturbance of the machine nor the luck of one process meets one revision alone.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eigenlens.artifact import EigenlensError
from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.common.revisions import (
    Revision,
    add_revision_arguments,
    alternating,
    ratios,
    revisions_of,
)
from eigenlens.benchmarks.common.service_process import running_service
from eigenlens.benchmarks.service.measure import (
    PHOTOS,
    QUERIES,
    Cell,
    Measured,
    merged,
    run_load,
    write_photos,
    write_queries,
)
from eigenlens.model.errors import ConfigError
from eigenlens.model.images.sources import open_source
from eigenlens.service.gallery.layout import Gallery

_WARM_S = 2.0


def compare(
    galleries: Mapping[str, Path],
    revisions: Sequence[Revision],
    cell: Cell,
    *,
    workers: Mapping[str, int],
    work: Path,
    rounds: int,
) -> dict[str, list[Measured]]:
    """Measure rounds of each revision's service over its gallery, one after the other."""
    measured: dict[str, list[Measured]] = {revision.name: [] for revision in revisions}
    for number in tqdm(range(rounds), desc="rounds"):
        for revision in alternating(revisions, number):
            log = work / f"{revision.name}.log"
            environment = revision.environment(EIGENLENS_WORKERS=str(workers[revision.name]))
            with running_service(galleries[revision.name], log, environment=environment) as server:
                one = run_load(cell, "eigenlens", server, work / "photos", warm_s=_WARM_S, seed=number)
            measured[revision.name].append(one)
    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print and record."""
    parser = argparse.ArgumentParser(
        prog="python -m eigenlens.benchmarks.service.compare_revisions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_revision_arguments(parser)
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, required=True, help="a gallery to search; copied")
    parser.add_argument("--photos", metavar="SOURCE", help="photographs to search with")
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="where copies and logs are kept")
    parser.add_argument("--data", default="cifar10", help="name of the gallery in the records (default: %(default)s)")
    parser.add_argument(
        "--size",
        choices=(*PHOTOS, *QUERIES),
        default="200px",
        help="of photographs; or what else is searched by: an id, a code, or 100 codes in each request "
        "(default: %(default)s)",
    )
    parser.add_argument("--workers", type=positive, default=1, help="processes of the service (default: %(default)s)")
    parser.add_argument(
        "--workers-before", type=positive, metavar="N", help="those of the earlier revision (default: as --workers)"
    )
    parser.add_argument("--concurrency", type=positive, default=32, help="clients (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each round (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=8, help="of each revision (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")
    args = parser.parse_args(arguments)
    try:
        revisions = revisions_of(args)
        work = args.work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        if args.size in QUERIES:
            write_queries(Gallery(args.gallery), work / "photos", kinds=[args.size])
        elif args.photos is None:
            raise ConfigError("give the photographs to search with: --photos")
        else:
            write_photos(open_source(args.photos), work / "photos", sizes=[args.size])
        galleries = {revision.name: work / f"gallery-{revision.name}" for revision in revisions}
        for copy in galleries.values():
            if not copy.exists():
                shutil.copytree(args.gallery, copy)
        cell = Cell(args.size, "closed", args.concurrency, seconds=args.seconds)
        workers = {"before": args.workers_before or args.workers, "after": args.workers}
        measured = compare(galleries, revisions, cell, workers=workers, work=work, rounds=args.rounds)
    except EigenlensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    of_rounds, low, high = ratios({name: [one.throughputs[0] for one in ones] for name, ones in measured.items()})
    records: list[dict[str, Any]] = []
    for revision in revisions:
        total = merged(measured[revision.name])
        params = {"photo": cell.photo, "load": cell.load, "concurrency": cell.concurrency, "seconds": cell.seconds}
        params |= {"rounds": args.rounds, "statuses": dict(total.statuses), "lost": total.lost}
        params |= {
            "workers": workers[revision.name],
            "revision": revision.describe(),
            "of rounds": [round(ratio, 4) for ratio in (low, of_rounds, high)],
        }
        subject = Subject(bench="revisions", data=args.data, method=revision.name, params=params)
        for metric, value, unit in total.metrics():
            records.append(make_record(subject, metric, value, unit))
            print(f"{revision.name:<8}{metric:<18}{value:>12,.2f} {unit}")
    print(f"throughput, after / before: median of rounds {of_rounds:.4f} ({low:.4f} to {high:.4f})")
    if args.results:
        append_records(args.results, records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
