"""`eigenlens bench training`: how long a training run took, read from the metrics that it wrote."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.model.training.run import Run


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--run", metavar="RUN", type=Path, required=True, help="directory of the run")
    parser.add_argument("--name", default="eigenlens", help="name of the method in the records (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Print and record the time of a finished run. Raises: EigenlensError."""
    measured = training_time(args.run)
    print(f"{measured['minutes']:.1f} minutes, {measured['images_per_s']:.0f} images/s")
    if args.results:
        run = Run(args.run)
        units = {"minutes": "min", "images_per_s": "1/s"}
        settings = run.config.model_dump(mode="json")
        subject = Subject(bench="training", data=run.images, method=args.name, seed=run.config.seed, params=settings)
        records = [make_record(subject, metric, value, units[metric]) for metric, value in measured.items()]
        append_records(args.results, records)
        print(f"{len(records)} records added to {args.results}", file=sys.stderr)


def training_time(path: Path) -> dict[str, float]:
    """Minutes and images a second of the finished run at `path`, interruptions left out.

    Minutes count from the first pair to the last step: decoding the images comes before.

    Raises: TrainingError, if there is no run or it is not finished.
    """
    run = Run(path)
    run.require_finished()
    last = json.loads(run.metrics.read_text().splitlines()[-1])
    return {"minutes": last["elapsed_s"] / 60, "images_per_s": last["images_per_s"]}
