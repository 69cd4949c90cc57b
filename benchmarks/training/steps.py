"""`eigenlens bench steps`: what a training step costs beside the bare network, and beside lightly's pipeline."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.model.config import load_table, parse_config
from eigenlens.model.errors import ConfigError
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.pairs.source import rng_for
from eigenlens.model.training.devices import choose_device
from eigenlens.model.training.loop import Trainer
from eigenlens.model.training.run import Run
from eigenlens.model.training.step import outputs

_SETTINGS: dict[str, Any] = {"image_size": 32, "backbone": "tiny-conv", "objective": {"name": "barlow-twins"}}
_RATE = 1e-3

Step = Callable[[], object]
Method = Callable[[], AbstractContextManager[Step]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--data", default="cifar10", help="name of the images in the records (default: cifar10)")
    parser.add_argument("--images", metavar="SOURCE", required=True, help="images to train on")
    parser.add_argument("--steps", type=positive, default=5, help="timed together (default: 5)")
    parser.add_argument("--rounds", type=positive, default=5, help="of all methods in turn (default: 5)")
    parser.add_argument("--workers", type=positive, default=2, help="processes of lightly's data loader (default: 2)")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a training setting")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Time rounds of every method in turn; print and record the medians. Raises: EigenlensError."""
    device = choose_device(args.device)
    config = parse_config(_SETTINGS | load_table(None, args.set))
    with tempfile.TemporaryDirectory() as work:
        pixels = np.array(cache_pixels(open_source(args.images), side=config.cached_side, directory=Path(work)).pixels)
        if len(pixels) < config.batch_size:
            raise ConfigError(
                f"{len(pixels)} images are no batch of {config.batch_size}; --set batch_size={len(pixels)}"
            )
        trainer = Trainer(Run.start(Path(work) / "run", images=args.images, config=config), device)
        methods: dict[str, Method] = {
            "bare": lambda: bare_steps(trainer, pixels, device),
            "eigenlens": lambda: own_steps(trainer, pixels, device),
        }
        if find_spec("lightly") is not None:
            methods["lightly-barlow-twins"] = lambda: lightly_steps(trainer, pixels, device, workers=args.workers)
        else:
            print("lightly is not installed: pip install lightly torchvision", file=sys.stderr)
        seconds = time_in_turn(methods, rounds=args.rounds, steps=args.steps, device=device)
    params = {
        "steps": args.steps,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": device.type,
        "training": config.model_dump(mode="json"),
    }
    bare = float(np.median(seconds["bare"]))
    records = []
    for name, values in seconds.items():
        middle = float(np.median(values))
        print(f"{name:<22}{1000 * middle:8.1f} ms a step  {middle / bare:.3f} relative to the bare network", flush=True)
        subject = Subject(bench="steps", data=args.data, method=name, params=params)
        records.append(make_record(subject, "step_ms", round(1000 * middle, 2), "ms"))
        records.append(make_record(subject, "of bare", round(middle / bare, 4)))
    if args.results:
        append_records(args.results, records)


def time_in_turn(
    methods: Mapping[str, Method], *, rounds: int, steps: int, device: torch.device
) -> dict[str, list[float]]:
    """Time rounds of all methods in turn. Returns: seconds of a step, the mean over `steps`, of each round."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, begin in methods.items():
            with begin() as step:
                seconds[name].append(_timed(step, count=steps, device=device))
    return seconds


def _timed(step: Step, *, count: int, device: torch.device) -> float:
    """Seconds of one step, the mean over several after one that is not counted."""
    step()
    _wait(device)
    started = time.perf_counter()
    for _ in range(count):
        step()
    _wait(device)
    return (time.perf_counter() - started) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def bare_steps(trainer: Trainer, pixels: NDArray[np.uint8], device: torch.device) -> Iterator[Step]:
    """Forward and backward of the network, over the same batch of views each time."""
    config = trainer.config
    pairs = PairSampler(pixels, config, device=device)
    a, b = pairs.draw(np.arange(config.batch_size), rng_for(0, "pairs", 0))
    views = torch.cat([a, b])

    def step() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        outputs(trainer.network, views, precision=trainer.config.precision).square().mean().backward()

    yield step


@contextmanager
def own_steps(trainer: Trainer, pixels: NDArray[np.uint8], device: torch.device) -> Iterator[Step]:
    """A whole step of `eigenlens train` with a warm cache: rows, views, network, loss, optimiser."""
    config = trainer.config
    pairs = PairSampler(pixels, config, device=device)
    rng = np.random.default_rng(0)
    count = 0

    def draw() -> tuple[Tensor, Tensor]:
        nonlocal count
        count += 1
        return pairs.draw(rng.choice(len(pixels), config.batch_size, replace=False), rng_for(0, "pairs", count))

    drawn = draw()

    def step() -> None:
        nonlocal drawn
        loss, _ = trainer.step(*drawn, rate=_RATE)
        drawn = draw()
        loss.item()

    yield step


class _Pictures(torch.utils.data.Dataset[Any]):
    """What lightly's loader reads: two views of an image, by its transform."""

    def __init__(self, pixels: NDArray[np.uint8], transform: Callable[[Any], list[Tensor]]) -> None:
        self._pixels, self._transform = pixels, transform

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, row: int) -> list[Tensor]:
        from PIL import Image

        return self._transform(Image.fromarray(self._pixels[row]))


@contextmanager
def lightly_steps(trainer: Trainer, pixels: NDArray[np.uint8], device: torch.device, *, workers: int) -> Iterator[Step]:
    """The same network and optimiser behind lightly's transform, in worker processes, and its Barlow Twins loss."""
    from lightly.loss import BarlowTwinsLoss
    from lightly.transforms import SimCLRTransform

    config = trainer.config
    loss = BarlowTwinsLoss(lambda_param=getattr(config.objective, "redundancy", 5e-3))
    transform = SimCLRTransform(input_size=config.image_size, gaussian_blur=0.0)
    loader = torch.utils.data.DataLoader(
        _Pictures(pixels, transform),
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    batches = [iter(loader)]

    def step() -> None:
        view_a, view_b = next(batches[0])
        views = torch.cat([view_a, view_b]).to(device)
        trainer.optimizer.zero_grad(set_to_none=True)
        z_a, z_b = outputs(trainer.network, views, precision=trainer.config.precision).chunk(2)
        value = loss(z_a, z_b)
        value.backward()
        trainer.optimizer.step()
        value.item()

    yield step
    batches.clear()  # and with it the worker processes, which would disturb what is timed next
