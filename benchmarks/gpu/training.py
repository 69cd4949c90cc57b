"""Training on a GPU: what a step costs, whether it computes what the CPU does, several processes, and the export."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from eigenlens.benchmarks.gpu.context import Context
from eigenlens.benchmarks.training.steps import bare_steps, own_steps, time_in_turn
from eigenlens.command import main
from eigenlens.model.config import TrainingConfig, parse_config
from eigenlens.model.errors import TrainingError
from eigenlens.model.export.coder import code_network
from eigenlens.model.losses import build_loss
from eigenlens.model.network import EncoderNetwork, normalise_pixels
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.training.distributed import share_batch_norm
from eigenlens.model.training.loop import Trainer
from eigenlens.model.training.run import Run

# Largest relative difference between a gradient of the CPU and one of the GPU, in float64 but for the loss of z, which
# is in float32.
GRADIENT_TOLERANCE = 1e-6
# In float32 either is rounded on its way: the GPU's, without TF32, is at most so many times as far from that in float64
# as the CPU's.
ROUNDING_FACTOR = 10.0
# Largest relative difference between gradients in float32 that are summed in another order.
PROCESS_TOLERANCE = 1e-2
# Largest difference between a coordinate of a unit code by ONNX on the CPU and by torch on the GPU.
CODE_TOLERANCE = 2e-3

Records = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class StepCase:
    """A network and how it is trained.

    Attributes:
        compiled: by torch.compile.
        pixels: how many images there are in memory.
    """

    backbone: str
    image_size: int
    batch_size: int
    precision: str = "bf16"
    compiled: bool = False
    pixels: int = 20_000

    def config(self) -> TrainingConfig:
        """Return the training configuration."""
        return parse_config(
            {
                "backbone": self.backbone,
                "image_size": self.image_size,
                "batch_size": self.batch_size,
                "precision": self.precision,
                "compile": self.compiled,
            }
        )


_CASES = (
    StepCase("resnet18-cifar", 32, 1024),
    StepCase("resnet18-cifar", 32, 1024, precision="fp16"),
    StepCase("tiny-conv", 32, 1024),
    StepCase("resnet50", 224, 256, pixels=4096),
    StepCase("resnet18-cifar", 32, 1024, precision="fp32"),
    StepCase("resnet18-cifar", 32, 1024, compiled=True),
)
_SMALL_CASES = (StepCase("tiny-conv", 32, 16, precision="fp32", pixels=32),)


def steps(context: Context) -> Records:
    """Time a bare network and a whole step of training, in turn; images a second and memory of the whole step."""
    for case in _SMALL_CASES if context.small else _CASES:
        pixels = synthetic_pixels(case.pixels, case.image_size)
        _free(context.device)
        with _run_of(case.config(), context.work / "steps") as training_run:
            trainer = Trainer(training_run, context.device)
            methods = {
                "bare": lambda trainer=trainer, pixels=pixels: bare_steps(trainer, pixels, context.device),
                "step": lambda trainer=trainer, pixels=pixels: own_steps(trainer, pixels, context.device),
            }
            rounds, count = context.size(5, 1), context.size(5, 1)
            seconds = time_in_turn(methods, rounds=rounds, steps=count, device=context.device)
        params: dict[str, Any] = {
            "backbone": case.backbone,
            "image_size": case.image_size,
            "batch_size": case.batch_size,
            "precision": case.precision,
            "compile": case.compiled,
        }
        bare, step = (float(np.median(seconds[name])) for name in ("bare", "step"))
        yield context.record("steps", "bare_ms", round(1e3 * bare, 3), "ms", **params)
        yield context.record("steps", "step_ms", round(1e3 * step, 3), "ms", **params)
        yield context.record("steps", "of bare", round(step / bare, 4), **params)
        yield context.record("steps", "images_per_s", round(case.batch_size / step), "1/s", **params)
        if context.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(context.device) / 2**30
            yield context.record("steps", "peak_memory", round(peak, 2), "GiB", **params)


def equality(context: Context) -> Records:
    """Compare the gradient of one step on the CPU and on the device, in float64 and in float32.

    Raises: TrainingError, if they differ by more than the tolerance.
    """
    cpu = torch.device("cpu")
    for backbone in ("tiny-conv",) if context.small else ("tiny-conv", "resnet18-cifar"):
        for name in ("vicreg", "neural-eigenmap"):
            params = {"backbone": backbone, "objective": name}
            config = parse_config({"image_size": 32, "backbone": backbone, "objective": {"name": name}})
            views = torch.rand(2, context.size(64, 16), 3, 32, 32, generator=torch.Generator().manual_seed(0))
            torch.manual_seed(0)
            network = _network(config)
            reference = _gradient(network, views.double(), config, cpu)
            exact = _relative(_gradient(network, views.double(), config, context.device), reference)
            yield context.record("equality", "gradient in float64, relative", exact, **params)
            here, there = (_relative(_gradient(network, views, config, at), reference) for at in (cpu, context.device))
            yield context.record("equality", "rounding of float32 on the CPU, relative", here, **params)
            yield context.record("equality", "rounding of float32 on the device, relative", there, **params)
            if not (exact <= GRADIENT_TOLERANCE and there <= ROUNDING_FACTOR * here):
                raise TrainingError(
                    f"{backbone} with {name}: gradients in float64 differ by {exact:.2e} (at most "
                    f"{GRADIENT_TOLERANCE:g}); float32 is off by {there:.2e}, on the CPU by {here:.2e} "
                    f"(at most {ROUNDING_FACTOR:g} times that)"
                )


def process_group(context: Context) -> Records:
    """Compare one process's step through NCCL (gloo on the CPU) with the same step without.

    Batch normalisation sums over the process group, and DistributedDataParallel averages the gradient.

    Raises: TrainingError, if they differ by more than the tolerance.
    """
    backend = "nccl" if context.device.type == "cuda" else "gloo"
    config = parse_config({"image_size": 32, "backbone": "tiny-conv"})
    views = torch.rand(2, context.size(256, 16), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = _network(config)
    alone = _gradient(network, views, config, context.device)
    store = f"file://{(context.work / 'store').absolute()}"
    dist.init_process_group(backend, init_method=store, rank=0, world_size=1)
    try:
        shared = share_batch_norm(_copy_of(network, config)).to(context.device)
        ids = [context.device.index or 0] if context.device.type == "cuda" else None
        distributed = nn.parallel.DistributedDataParallel(shared, device_ids=ids)
        together = _gradient(distributed, views, config, context.device)
    finally:
        dist.destroy_process_group()
    error = _relative(together, alone)
    yield context.record("process group", "gradient, relative", error, backend=backend)
    if not error <= PROCESS_TOLERANCE:
        raise TrainingError(f"through {backend} the gradient differs by {error:.2e} (at most {PROCESS_TOLERANCE:g})")


def export(context: Context) -> Records:
    """Train, resume, and export by the commands; compare the ONNX file's codes with torch's on the device.

    Raises: TrainingError, if a command fails, or codes differ by more than the tolerance.
    """
    images, run, encoder = (context.work / name for name in ("images", "run", "encoder"))
    for path in (images, run, encoder):
        shutil.rmtree(path, ignore_errors=True)
    write_images(images, context.size(4000, 60))
    settings = ["image_size=32", "backbone=tiny-conv", "code_length=64", f"batch_size={context.size(512, 16)}"]
    settings += [f"steps={context.size(200, 3)}", "hidden_length=256"]
    device = ["--device", str(context.device)]
    overrides = [word for setting in settings for word in ("--set", setting)]
    run_command("train", "--images", str(images), "--out", str(run), *overrides, *device)
    run_command("export", str(run), "--out", str(encoder), *device)
    last = (run / "metrics.jsonl").read_text().splitlines()[-1]
    speed = float(last.split('"images_per_s": ')[1].split(",")[0].rstrip("}"))
    yield context.record("export", "images_per_s", speed, "1/s", backbone="tiny-conv", steps=context.size(200, 3))

    opened = Encoder(encoder)
    pixels = synthetic_pixels(context.size(512, 16), 32)
    by_onnx = torch.from_numpy(opened.encode(pixels))
    finished = Run(run)
    network = code_network(finished.load_network()[1], finished.config)
    network.load_state_dict(load_file(encoder / "encoder.safetensors"))
    network.to(context.device).eval()
    with torch.inference_mode():
        inputs = normalise_pixels(torch.from_numpy(pixels).to(context.device), size=32)
        by_torch = network(inputs).cpu()
    by_onnx, by_torch = (nn.functional.normalize(codes.float(), dim=1) for codes in (by_onnx, by_torch))
    error = float((by_onnx - by_torch).abs().max())
    yield context.record("export", "largest difference of unit codes", error)
    if not error <= CODE_TOLERANCE:
        raise TrainingError(f"codes of the ONNX file differ by {error:.2e} (at most {CODE_TOLERANCE:g})")


def synthetic_pixels(count: int, side: int) -> NDArray[np.uint8]:
    """Return smooth random images, (count, side, side, 3); each is one of at most 4096 with other brightness."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (min(count, 4096), 4, 4, 3)).astype(np.uint8)
    repeats = -(-side // 4)
    pixels = coarse.repeat(repeats, 1).repeat(repeats, 2)[:, :side, :side]
    return np.resize(pixels, (count, side, side, 3))


def write_images(folder: Path, count: int) -> None:
    """Write synthetic images of 32 pixels as PNG files."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3)).astype(np.uint8))
        coarse.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.png")


def run_command(*words: str) -> None:
    """Run a command of eigenlens in this process. Raises: TrainingError, if it fails; it has said why."""
    if status := main(list(words)):
        raise TrainingError(f"eigenlens {' '.join(words)} ended with {status}")


@contextmanager
def _run_of(config: TrainingConfig, folder: Path) -> Iterator[Run]:
    shutil.rmtree(folder, ignore_errors=True)
    yield Run.start(folder, images="synthetic", config=config)
    shutil.rmtree(folder, ignore_errors=True)


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        torch.compiler.reset()


def _network(config: TrainingConfig) -> EncoderNetwork:
    network = EncoderNetwork(
        config.backbone,
        hidden_length=config.hidden_length,
        hidden_layers=config.hidden_layers,
        code_length=config.code_length,
    )
    return network.train()


def _copy_of(network: EncoderNetwork, config: TrainingConfig) -> EncoderNetwork:
    copy = _network(config)
    copy.load_state_dict(network.state_dict())
    return copy


def _gradient(network: nn.Module, views: Tensor, config: TrainingConfig, device: torch.device) -> Tensor:
    """Return the gradient of one batch's loss, (parameters,), in float64 on the CPU; TF32 is off.

    Args:
        views: (2, n, 3, side, side), of the type that is computed in.
    """
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        module = network
        if isinstance(network, EncoderNetwork):
            module = _copy_of(network, config).to(device, views.dtype)
        z_a, z_b = module(views.to(device).flatten(0, 1)).chunk(2)
        build_loss(config.objective)(z_a, z_b).backward()
        gradients = [p.grad.detach().cpu().double().flatten() for p in module.parameters() if p.grad is not None]
        return torch.cat(gradients)
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def _relative(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())
