"""`eigenlens export`: turn a finished training run into an encoder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from eigenlens.artifact import Artifact
from eigenlens.model.commands.fit_graph import open_graph
from eigenlens.model.config import Basis
from eigenlens.model.errors import ConfigError
from eigenlens.model.export.export import export
from eigenlens.model.graphs.trained.publish import publish_trained_encoder
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.runtime.sessions import PRECISIONS
from eigenlens.model.training.devices import choose_device
from eigenlens.model.training.run import Run

EPILOG = """examples:
  eigenlens export runs/fashion --out encoders/fashion
  eigenlens export runs/fashion --basis projector --out encoders/outputs

The command estimates the spectrum on the training images, orders the coordinates by eigenvalue (Rayleigh-Ritz) and
writes safetensors and ONNX. Next: eigenlens build --encoder ENCODER --images SOURCE --gallery GALLERY"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("run_directory", metavar="RUN", type=Path, help="directory of a finished run")
    parser.add_argument("--out", metavar="ENCODER", type=Path, required=True, help="directory of the new encoder")
    parser.add_argument(
        "--diffusion-time",
        type=_time,
        metavar="T",
        help="scale each coordinate by its eigenvalue to the power of T; a larger T gives the leading coordinates more "
        "weight (default: that of the run)",
    )
    parser.add_argument(
        "--basis",
        choices=get_args(Basis),
        help="functions that are combined: the backbone's features, or the projector's outputs, which tell more after "
        "long training (default: that of the run or, where it names none, by how long it trained)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="precision of the encoder when it runs; bfloat16 needs OpenVINO, and `eigenlens bench runtime` measures "
        "what it costs (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if available)")


def run(args: argparse.Namespace) -> int:
    """Export the run, with progress on standard error. Raises: EigenlensError."""
    finished = Run(args.run_directory)
    if finished.graph:
        return _export_nodes(args, finished)
    source = open_source(finished.images)
    cache = cache_pixels(source, side=finished.config.cached_side, directory=finished.cache)
    device = choose_device(args.device)
    changes = {name: value for name in ("diffusion_time", "basis") if (value := getattr(args, name)) is not None}
    published = export(
        finished,
        cache.pixels,
        args.out,
        device=device,
        step=finished.config.spectrum.model_copy(update=changes),
        precision=args.precision,
        preprocessing=cache.preprocessing,
    )
    _print(published)
    print(f"next: eigenlens build --encoder {args.out} --images SOURCE --gallery GALLERY", file=sys.stderr)
    return 0


def _export_nodes(args: argparse.Namespace, finished: Run) -> int:
    if args.precision != "float32":
        raise ConfigError("an encoder of nodes runs in float32; leave --precision out")
    if args.basis is not None:
        raise ConfigError("--basis is for images; the basis of nodes is that of the run")
    graph = open_graph(finished.graph, finished.cache)
    device = choose_device(args.device)
    published = publish_trained_encoder(finished, graph, args.out, device=device, diffusion_time=args.diffusion_time)
    _print(published)
    print(f"next: eigenlens build --encoder {args.out} --graph {finished.graph} --gallery GALLERY", file=sys.stderr)
    return 0


def _print(published: Artifact) -> None:
    top = ", ".join(f"{x:.3f}" for x in published.properties["eigenvalues"][:8])
    print(f"encoder {published.id}: {published.properties['code_length']} coordinates, eigenvalues {top}, ...")


def _time(text: str) -> float:
    try:
        time = float(text)
    except ValueError:
        time = -1.0
    if not 0 <= time <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 100")
    return time
