"""`eigenlens train`: train a network on images, or on the nodes of a graph."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from eigenlens.model.commands.fit_graph import open_graph, print_graph
from eigenlens.model.config import load_config
from eigenlens.model.errors import TrainingError
from eigenlens.model.export.summary import SUMMARY, summarise
from eigenlens.model.graphs.sources.open import open_graph_source
from eigenlens.model.graphs.trained.run import node_pairs
from eigenlens.model.images.pixel_cache import PixelCache, cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.pairs.source import PairSource
from eigenlens.model.training.devices import choose_device
from eigenlens.model.training.distributed import barrier, exit_process, is_one_of_several, process_group, rank
from eigenlens.model.training.loop import train
from eigenlens.model.training.run import Run

EPILOG = """examples:
  eigenlens train --images fashion-mnist:train --config fashion-demo --out runs/fashion
  eigenlens train --images ~/Pictures --out runs/mine --set steps=4000 --set image_size=96
  eigenlens train --images ~/Pictures --out runs/mine --set objective.name=neural-eigenmap
  eigenlens train --images ~/Pictures --out runs/mine --set backbone=resnet50 --init resnet50.pth --set image_size=224
  eigenlens train --graph cora.npz --out runs/cora
  eigenlens train --out runs/mine --resume
  torchrun --nproc-per-node 4 -m eigenlens train --images ~/Pictures --out runs/mine

SOURCE is a folder of images, a tar or tar.gz of one, or fashion-mnist; of --graph, a graph.
Next: eigenlens export RUN --out ENCODER"""

_GRAPH_PRESET = "nodes"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--images", metavar="SOURCE", help="images to train on (or --graph, or --resume)")
    parser.add_argument("--graph", metavar="SOURCE", help="graph whose nodes to train on, as for `eigenlens fit`")
    parser.add_argument("--out", metavar="RUN", type=Path, required=True, help="directory of the run")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"a TOML file or the name of a preset (default: {_GRAPH_PRESET} with --graph, else no preset)",
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting of the configuration"
    )
    parser.add_argument(
        "--init",
        metavar="FILE",
        help="weights that the backbone starts from: a checkpoint (.pth or .safetensors) of torchvision's or timm's "
        "ResNet-18, 34 or 50, the network.safetensors of an earlier run with the same backbone, or `pretrained` for "
        "the published weights of efficientnet-lite0 and timm:NAME",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its last checkpoint")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if available)")


def run(args: argparse.Namespace) -> int:
    """Train, with progress on standard error. One of several processes exits here. Raises: EigenlensError."""
    _train(args)
    if is_one_of_several():
        exit_process(0)
    return 0


def _train(args: argparse.Namespace) -> None:
    with process_group(choose_device(args.device)) as device:
        if rank() > 0:
            barrier()  # the first process makes the run, and decodes the images or imports the graph
            training_run = Run(args.out)
            if training_run.finished:
                return
            train(training_run, _open_pairs(training_run, device), device=device)
            return
        training_run = _open(args)
        if training_run.finished and (training_run.path / SUMMARY).exists():
            print(f"the run at {args.out} is finished already", file=sys.stderr)
            barrier()
            return
        pairs = _open_pairs(training_run, device, verbose=True)
        barrier()
        if not training_run.finished:
            train(training_run, pairs, device=device)
    if isinstance(pairs, PairSampler):
        pairs = pairs.of_views()
    summarise(training_run, pairs, device=device)
    items = "nodes" if training_run.graph else "images"
    print(f"trained on {len(pairs)} {items}; next: eigenlens export {args.out} --out ENCODER", file=sys.stderr)


def _open_pairs(training_run: Run, device: torch.device, *, verbose: bool = False) -> PairSource:
    """Return the pairs that a run is trained on; with `verbose`, print what of its source cannot be used."""
    if training_run.graph:
        graph = open_graph(training_run.graph, training_run.cache)
        if verbose:
            print_graph(graph)
        return node_pairs(training_run, graph, device=device)
    source = open_source(training_run.images)
    cache = cache_pixels(source, side=training_run.config.cached_side, directory=training_run.cache)
    if verbose:
        _print_skipped(cache, training_run)
    return PairSampler(cache.pixels, training_run.config, device=device)


def _print_skipped(cache: PixelCache, training_run: Run) -> None:
    total = len(cache.pixels) + len(cache.skipped)
    if cache.skipped:
        print(f"{len(cache.skipped)} of {total} images cannot be used and are skipped:", file=sys.stderr)
        for id, reason in cache.skipped[:20]:
            print(f"  {id}: {reason}", file=sys.stderr)
        if len(cache.skipped) > 20:
            print(f"  ... all are listed in {training_run.cache / 'pixels.json'}", file=sys.stderr)


def _open(args: argparse.Namespace) -> Run:
    if args.resume:
        if args.config or args.set or args.init:
            raise TrainingError(
                "--resume continues with the run's own configuration and weights; leave --config, --set and --init out"
            )
        return Run(args.out)
    if (args.images is None) == (args.graph is None):
        raise TrainingError("give what to train on with --images SOURCE or --graph SOURCE, or --resume a run")
    overrides = [*args.set, f"init={json.dumps(args.init)}"] if args.init else args.set
    if args.graph is not None:
        config = load_config(args.config or _GRAPH_PRESET, overrides)
        open_graph_source(args.graph)  # what is no graph leaves no run
        return Run.start(args.out, graph=str(Path(args.graph).expanduser().resolve()), config=config)
    source = open_source(args.images)
    return Run.start(args.out, images=source.name, config=load_config(args.config, overrides))
