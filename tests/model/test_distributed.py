"""Several processes against one on the joined batch: the same loss, gradients, statistics; and a run of the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eigenlens.model.losses import LOSSES
from eigenlens.model.training.run import Run
from tests.support.gloo_step import gradients
from tests.support.training import CHECKPOINT_AFTER_EVERY_STEP, tiny_overrides, write_images

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
FORKED = ["tests.support.forked", "2"]


def run_two_processes(launcher: list[str], *arguments: str) -> None:
    command = [sys.executable, "-m", *launcher, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def views(n: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    common = torch.randn(1, n, 3, 16, 16, generator=generator)
    return (common + 0.5 * torch.randn(2, n, 3, 16, 16, generator=generator)).double()


def four_like_quarters() -> torch.Tensor:
    return torch.cat([views(4)] * 4, 1)


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """Of each objective over `views()` in one chunk, and "chunks": of Barlow Twins over four like quarters in two."""
    folder = tmp_path_factory.mktemp("gloo")
    steps = [(views(), name, 1) for name in LOSSES] + [(four_like_quarters(), "barlow-twins", 2)]
    torch.save(steps, folder / "steps.pt")
    run_two_processes(FORKED, "tests.support.gloo_step", str(folder / "steps.pt"), str(folder / "out.pt"))
    found: list[dict[str, torch.Tensor]] = torch.load(folder / "out.pt", weights_only=True)
    return dict(zip((*LOSSES, "chunks"), found, strict=True))


@pytest.mark.parametrize("objective", LOSSES)
def test_two_processes_give_the_loss_and_gradients_of_one(
    of_two_processes: dict[str, dict[str, torch.Tensor]], objective: str
) -> None:
    found = of_two_processes[objective]
    expected = gradients(views(), objective, chunks=1)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=name)


def test_chunks_give_the_loss_of_the_whole_batch_and_count_every_image_once() -> None:
    """Batch normalisation over chunks would differ; a batch whose chunks are alike shows that all else is equal."""
    half = views(8)
    both = torch.cat([half, half], 1)
    # 16 rows in 2 chunks of 8 equal ones: chunk statistics are those of the batch.
    whole, parts = (gradients(both, "barlow-twins", chunks=chunks) for chunks in (1, 2))
    for name, value in whole.items():
        if "running_var" in name or "tracked" in name or "running_mean" in name:
            continue
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=1e-6)
    tracked = [value.item() for name, value in parts.items() if "tracked" in name]
    assert set(tracked) == {2}, "each chunk is counted in one of the two passes"


def test_chunks_and_processes_together(of_two_processes: dict[str, dict[str, torch.Tensor]]) -> None:
    found = of_two_processes["chunks"]
    expected = gradients(four_like_quarters(), "barlow-twins", chunks=1)
    for name in ("loss", "projector.3.weight", "backbone.stem.0.weight"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)


def test_a_run_of_two_processes_ends_resumes_and_can_be_opened_by_one(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    settings = [f"--set={item}" for item in tiny_overrides(steps=12, **CHECKPOINT_AFTER_EVERY_STEP)]
    out = tmp_path / "run"
    command = ["eigenlens", "train", "--out", str(out), "--device", "cpu"]
    run_two_processes(TORCHRUN, *command, "--images", str(images), *settings)
    run = Run(out)
    assert run.finished
    run.load_network()
    steps = [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()]
    assert steps == [10, 12], "one process writes for all"
    run_two_processes(FORKED, *command, "--resume")  # ends at once, in all processes
