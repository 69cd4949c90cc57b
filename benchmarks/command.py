"""`eigenlens bench`: finds a benchmark's module by name when it is called. Each measures, prints and keeps records."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from textwrap import indent
from typing import Any

# Benchmark: module with configure(parser) and run(args), below this package, and a summary. Only the called one is
# imported. A further benchmark is one line here, and an example below.
BENCHMARKS = {
    "quality": ("quality.command", "objectives and peers side by side, by prefix length"),
    "encoder": ("encoder.command", "agreement of an encoder's neighbours with labels, by prefix length"),
    "novelty": ("encoder.novelty", "how many strangers, and held-out images, are told to be unlike everything"),
    "kinds": (
        "encoder.kinds",
        "whether photographs of clothes find their kind in the sample, or are told it is unlike",
    ),
    "heads": ("heads.command", "heads on a frozen backbone beside its features and their PCA"),
    "frozen": (
        "heads.frozen_settings",
        "what image size, framing and pooling of a frozen backbone add, and their cost",
    ),
    "nodes": ("nodes.command", "codes of the nodes of labelled graphs by length, beside others"),
    "node-presets": ("nodes.presets", "which settings of a fit to graphs validation nodes choose"),
    "graph-scale": ("nodes.scale", "time and memory of importing a large graph and of fitting to it"),
    "search": ("search.command", "recall against latency, memory and build time, beside others"),
    "backends": ("search.backends", "a gallery's codes in FAISS and in PostgreSQL: recall, latency and bytes"),
    "promises": ("search.promises", "whether recall targets hold for every k and under filters"),
    "duplicates": ("duplicates.command", "which planted duplicates are found, and what joining a million codes costs"),
    "gallery-scale": ("service.gallery_scale", "time and bytes of a gallery from shards to answers in each engine"),
    "adds": ("service.adds", "search latency of a service while images arrive"),
    "service": ("service.command", "throughput and latency under load, beside the limit"),
    "live-recall": ("service.live_recall", "whether a service tells that searches miss their targets, and mends it"),
    "map": ("page.map", "how smoothly the page's map moves, and how soon its tiles answer"),
    "runtime": ("runtime.command", "inference runtimes: images a second, and what precision costs"),
    "gpu": ("gpu.command", "everything that a GPU changes: training, export, FAISS, the service"),
    "steps": ("training.steps", "time of a training step beside the bare network, and lightly's"),
    "training": ("training.run_time", "how long a finished training run took"),
    "tables": ("documents", "draw the tables of the documentation from the records"),
}

EXAMPLES = {
    "quality": """\
eigenlens bench quality --data cifar10 --train cifar10/train.tar.gz --test cifar10/test.tar.gz --work runs/quality""",
    "encoder": """\
eigenlens bench encoder --encoder .demo/fashion-mnist/encoder
eigenlens bench encoder --encoder encoders/mine --queries validation --results benchmarks/results/mine.jsonl""",
    "novelty": """\
eigenlens bench novelty --encoder .demo/fashion-mnist/encoder --strangers cifar10/test.tar.gz --name cifar10-animals \\
    --classes bird,cat,deer,dog,frog,horse --results benchmarks/results/novelty.jsonl""",
    "kinds": """\
eigenlens bench kinds --gallery .demo/fashion-mnist/gallery --images clothing/test.tar.gz""",
    "search": """\
eigenlens bench search --encoder encoders/cifar10 --images cifar10/train.tar.gz --query-images cifar10/test.tar.gz \\
    --work runs/search --count 1000000 --results benchmarks/results/search.jsonl""",
    "backends": """\
eigenlens bench backends --gallery .demo/fashion-mnist/gallery --work runs/backends    with EIGENLENS_STORE""",
    "promises": """\
eigenlens bench promises --gallery .demo/fashion-mnist/gallery --work runs/promises""",
    "duplicates": """\
eigenlens bench duplicates --encoder .demo/fashion-mnist/encoder --images fashion-mnist --work runs/duplicates
eigenlens bench duplicates --join 1000000 --results benchmarks/results/duplicates.jsonl""",
    "heads": """\
eigenlens bench heads --train clothing/train.tar.gz --test clothing/test.tar.gz --scenes holidays.tar.gz \\
    --work runs/heads --results benchmarks/results/heads.jsonl""",
    "frozen": """\
eigenlens bench frozen --train clothing/train.tar.gz --validation clothing/validation.tar.gz --scenes holidays.tar.gz \\
    --work runs/frozen --results benchmarks/results/frozen.jsonl""",
    "nodes": """\
eigenlens bench nodes cora.npz citeseer.npz --results benchmarks/results/nodes.jsonl""",
    "node-presets": """\
eigenlens bench node-presets cora.npz citeseer.npz --results benchmarks/results/node-presets.jsonl""",
    "graph-scale": """\
eigenlens bench graph-scale --results benchmarks/results/nodes.jsonl""",
    "gallery-scale": """\
eigenlens bench gallery-scale --gallery .demo/fashion-mnist/gallery --work runs/scale --count 200000""",
    "adds": """\
eigenlens bench adds --gallery .demo/fashion-mnist/gallery""",
    "service": """\
eigenlens bench service --gallery galleries/cifar10 --photos holidays.tar.gz --work runs/service""",
    "live-recall": """\
eigenlens bench live-recall --gallery .demo/fashion-mnist/gallery --images cifar10/test.tar.gz --name cifar10-views \\
    --work runs/live-recall --results benchmarks/results/live-recall.jsonl""",
    "map": """\
eigenlens bench map --gallery .demo/fashion-mnist/gallery --results benchmarks/results/map.jsonl
eigenlens bench map --synthetic 1000000 --results benchmarks/results/map.jsonl""",
    "runtime": """\
eigenlens bench runtime --encoder encoders/cifar10 --images cifar10/train.tar.gz --query-images cifar10/test.tar.gz""",
    "gpu": """\
eigenlens bench gpu --out runs/gpu --minutes 10""",
    "steps": """\
eigenlens bench steps --images cifar10/train.tar.gz --results benchmarks/results/steps.jsonl""",
    "training": """\
eigenlens bench training --run .demo/fashion-mnist/run""",
    "tables": """\
eigenlens bench tables""",
}

_NOTES = """\
`quality` trains every objective alike and compares their codes by length. `encoder` prints precision@100 by class of
Fashion-MNIST's 10,000 test images (never trained on) against its 60,000 training images, beside PCA of the raw pixels
at the same lengths. `training` tells how long a run took. `tables` draws the documentation's tables from records."""


class _BenchmarkParser(argparse.ArgumentParser):
    """Parser of one benchmark's arguments, which its module declares once they are to be parsed."""

    def __init__(self, *, benchmark: str, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        self._benchmark = benchmark

    def parse_known_args(  # type: ignore[override]  # its overloads say the same
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        _module_of(self._benchmark).configure(self)
        return super().parse_known_args(args, namespace)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmarks, each with its summary and an example."""
    parser.epilog = f"{_examples(*EXAMPLES)}\n\n{_NOTES}"
    names = ",".join(BENCHMARKS)
    benchmarks = parser.add_subparsers(
        dest="bench", metavar=f"{{{names}}}", required=True, parser_class=_BenchmarkParser
    )
    for name, (_, summary) in BENCHMARKS.items():
        epilog = _examples(name) if name in EXAMPLES else None
        description = summary[0].upper() + summary[1:] + "."
        benchmarks.add_parser(name, help=summary, description=description, epilog=epilog, benchmark=name)


def run(args: argparse.Namespace) -> int:
    """Run one benchmark. Raises: EigenlensError."""
    _module_of(args.bench).run(args)
    return 0


def _examples(*benchmarks: str) -> str:
    return "\n".join(["examples:", *(indent(EXAMPLES[name], "  ") for name in benchmarks)])


def _module_of(benchmark: str) -> Any:
    return importlib.import_module(f"eigenlens.benchmarks.{BENCHMARKS[benchmark][0]}")
