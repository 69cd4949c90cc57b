"""`eigenlens bench quality`: train what is missing, measure what is not on record, print the table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from eigenlens.benchmarks.common.labelled import load_labelled
from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
from eigenlens.benchmarks.common.retrieval import LabelledCodes
from eigenlens.benchmarks.quality.methods import (
    MAP_AT,
    METHODS,
    SETTINGS,
    Reader,
    config_of,
    describe_training,
    hold_out,
    measure_codes,
    trained_network,
)
from eigenlens.model.config import load_table
from eigenlens.model.errors import ConfigError
from eigenlens.model.training.devices import choose_device


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--data", choices=tuple(SETTINGS), required=True, help="name of the data, which sets the network"
    )
    parser.add_argument("--train", metavar="SOURCE", required=True, help="images to train on, and the gallery")
    parser.add_argument("--test", metavar="SOURCE", required=True, help="images to search with; class folders in both")
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="where runs are kept and carried on")
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        default=[name for name in METHODS if not name.startswith("nested")],
        metavar="NAME,...",
        help=f"of {', '.join(METHODS)}",
    )
    parser.add_argument("--seeds", type=_seeds, default=[0], metavar="N,...", help="one training each (default: 0)")
    parser.add_argument(
        "--queries",
        choices=("test", "validation"),
        default="test",
        help="validation: 5,000 of the training images search the others, to make choices by",
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="override a setting of every method's training"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="add the records to FILE; what is there is skipped"
    )


def run(args: argparse.Namespace) -> None:
    """Train and measure. Raises: EigenlensError."""
    unknown = [name for name in args.methods if name not in METHODS]
    if unknown:
        raise ConfigError(f"there is no method '{unknown[0]}'; available: {', '.join(METHODS)}")
    device = choose_device(args.device)
    changes = load_table(None, args.set)
    plain = config_of(args.data, METHODS["eigenlens"], seed=0, changes=changes)
    runs = args.work / args.data
    train_images = load_labelled(args.train, side=plain.cached_side, directory=runs / "train")
    if args.queries == "test":
        queries = load_labelled(args.test, side=plain.cached_side, directory=runs / "test")
        gallery = train_images
    else:
        gallery, queries = hold_out(train_images)
    known = read_records(args.results) if args.results else []
    done = {(r["data"], r["method"], r["seed"]) for r in known if r["params"]["queries_from"] == args.queries}
    present: tuple[object, int] | None = None
    for seed in args.seeds:
        # Methods that share a training follow one another, so that its images are read once.
        for name in sorted(args.methods, key=lambda name: _objective(args.data, name, changes)):
            if (args.data, name, seed) in done:
                print(f"{name} with seed {seed} is in {args.results} already", file=sys.stderr)
                continue
            method = METHODS[name]
            config = config_of(args.data, method, seed=seed, changes=changes)
            if (config.objective, seed) != present:
                network = trained_network(config, args.train, runs=runs, device=device)
                reader = Reader(network, train_images, [gallery, queries], device=device)
                present = config.objective, seed
            gallery_codes, query_codes = reader.codes(method, config)
            rows = measure_codes(LabelledCodes(gallery_codes, gallery.labels, query_codes, queries.labels))
            _print_values(name, seed, rows)
            if args.results:
                params = {
                    "queries_from": args.queries,
                    "queries": len(queries),
                    "gallery": len(gallery),
                    "codes": method.codes,
                    "training": describe_training(method, config),
                }
                append_records(args.results, [_record(args.data, name, seed, row, params) for row in rows])


def _objective(data: str, name: str, changes: dict[str, Any]) -> str:
    return config_of(data, METHODS[name], seed=0, changes=changes).objective.name


def _record(data: str, name: str, seed: int, row: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    subject = Subject(bench="quality", data=data, method=name, length=row["length"], seed=seed, params=params)
    return make_record(subject, row["metric"], round(row["value"], 6))


def _print_values(name: str, seed: int, rows: list[dict[str, Any]]) -> None:
    values = [(row["length"], row["value"]) for row in rows if row["metric"] == f"mAP@{MAP_AT}"]
    print(f"{name:<28}seed {seed}  " + "  ".join(f"{length}: {value:.3f}" for length, value in values), flush=True)


def _seeds(text: str) -> list[int]:
    if not all(part.isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of seeds such as 0,1,2")
    return [int(part) for part in text.split(",")]
