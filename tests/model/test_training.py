"""Training runs: exact resume after SIGKILL, unusable images, and errors that say what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eigenlens.artifact import ArtifactDamagedError
from eigenlens.command import main
from eigenlens.model.config import load_config
from eigenlens.model.errors import ConfigError, TrainingError
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.training.devices import choose_precision
from eigenlens.model.training.loop import Trainer, learning_rate, require_spread
from eigenlens.model.training.run import Run
from tests.support.training import CHECKPOINT_AFTER_EVERY_STEP, finished_run, tiny_overrides, write_images


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums do not depend on how many cores are free, and tiny steps are quicker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def weights(path: Path) -> bytes:
    return (path / "network.safetensors").read_bytes()


def steps_logged(path: Path) -> list[int]:
    metrics = path / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def test_a_run_killed_in_mid_epoch_resumes_to_the_same_weights(tmp_path: Path, images: Path) -> None:
    arguments = [f"--set={item}" for item in tiny_overrides(steps=40, **CHECKPOINT_AFTER_EVERY_STEP)]
    command = [sys.executable, "-m", "eigenlens", "train", "--images", str(images), "--out", str(tmp_path / "killed")]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL, env=one_thread)
    try:
        deadline = time.monotonic() + 60
        while max(steps_logged(tmp_path / "killed"), default=0) < 10:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not Run(tmp_path / "killed").finished, "the run was to be killed before its end"

    assert main(["train", "--out", str(tmp_path / "killed"), "--resume", "--device", "cpu"]) == 0
    finished_run(tmp_path / "whole", images, steps=40)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert steps_logged(tmp_path / "killed") == steps_logged(tmp_path / "whole")
    elapsed = [
        json.loads(line)["elapsed_s"] for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert elapsed == sorted(elapsed), "time goes on where the killed run stopped"


def test_another_seed_gives_other_weights(tmp_path: Path, images: Path) -> None:
    finished_run(tmp_path / "one", images, steps=3)
    finished_run(tmp_path / "two", images, steps=3, seed=1)
    assert weights(tmp_path / "one") != weights(tmp_path / "two")


def test_training_lowers_the_loss(tmp_path: Path, images: Path) -> None:
    """Against the same steps at a learning rate that teaches nothing: batches are too small to compare two steps."""

    def last_losses(path: Path, rate: float) -> float:
        run = finished_run(path, images, steps=60, learning_rate=rate)
        records = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        return float(np.mean([record["loss"] for record in records[-3:]]))

    assert last_losses(tmp_path / "learning", 2e-3) < last_losses(tmp_path / "still", 1e-12) - 0.3


def test_a_folder_of_odd_images_trains_and_each_is_converted_or_skipped_counted_and_listed(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = images / "odd"
    odd.mkdir()
    red, blue = (Image.new("RGB", (20, 20), name) for name in ("red", "blue"))
    red.save(odd / "1-animated.gif", save_all=True, append_images=[blue])
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(odd / "2-cmyk.jpg")
    Image.fromarray(np.full((20, 20), 200 * 256 + 7, dtype=np.uint16)).save(odd / "3-deep.png")
    Image.new("RGB", (1, 1), "lime").save(odd / "4-one.png")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(odd / "truncated.jpg")
    (odd / "truncated.jpg").write_bytes((odd / "truncated.jpg").read_bytes()[:1500])
    (odd / "truncated.png").write_bytes((images / "kind-0" / "000.png").read_bytes()[:100])
    (odd / "text.jpg").write_text("no image")
    (odd / "empty.webp").touch()
    out = tmp_path / "run"
    arguments = ["train", "--images", str(images), "--out", str(out), "--device", "cpu"]
    assert main([*arguments, *(f"--set={item}" for item in tiny_overrides(steps=2))]) == 0
    told = capsys.readouterr().err
    assert "4 of 56 images cannot be used and are skipped:" in told
    for name, why in (
        ("truncated.jpg", "the JPEG image is truncated or damaged"),
        ("truncated.png", "the PNG image is truncated or damaged"),
        ("text.jpg", "are no image that can be read"),
        ("empty.webp", "the image is empty"),
    ):
        (line,) = [line for line in told.splitlines() if line.startswith(f"  odd/{name}: ")]
        assert why in line
    assert "trained on 52 images" in told
    cache = cache_pixels(open_source(str(images)), side=16, directory=Run(out).cache)
    expected = [(255, 0, 0), (255, 0, 0), (200, 200, 200), (0, 255, 0)]
    for pixels, colour in zip(cache.pixels[-4:], expected, strict=True):
        np.testing.assert_allclose(pixels.astype(int), np.broadcast_to(colour, pixels.shape), atol=3)


def test_a_folder_without_a_usable_image_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "text.jpg").write_text("no image")
    out = tmp_path / "run"
    assert main(["train", "--images", str(tmp_path / "images"), "--out", str(out)]) == 1
    assert "none of the 1 images" in capsys.readouterr().err


def test_a_loss_that_is_not_a_number_stops_the_run_with_advice(tmp_path: Path, images: Path) -> None:
    with pytest.raises(TrainingError, match="learning_rate"):
        finished_run(tmp_path / "run", images, learning_rate=1e30)
    assert not Run(tmp_path / "run").finished


def test_outputs_that_collapse_stop_the_run_with_advice() -> None:
    config = load_config(None, tiny_overrides())
    one = torch.linspace(-1, 1, 32)[:, None] * torch.ones(1, 8)
    with pytest.raises(TrainingError, match=r"collapsed at step 50: they use 1\.00 of 8 directions.*penalty"):
        require_spread(one, config, step=50)
    require_spread(one, config, step=1)  # outputs may start close together


def test_metrics_are_tensorboard_events_too(tmp_path: Path, images: Path) -> None:
    run = finished_run(tmp_path / "run", images, steps=50)
    (events,) = run.events.iterdir()
    told = events.read_bytes()
    for name in (b"loss", b"effective_rank", b"images_per_s"):
        assert name in told
    assert any("effective_rank" in line for line in run.metrics.read_text().splitlines())


def test_a_run_is_not_overwritten_and_an_unfinished_one_not_exported(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.start(tmp_path / "run", images=str(images), config=load_config(None, tiny_overrides()))
    assert main(["train", "--images", str(images), "--out", str(run.path)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert main(["export", str(run.path), "--out", str(tmp_path / "encoder")]) == 1
    assert "not finished" in capsys.readouterr().err
    assert not (tmp_path / "encoder").exists()


def test_weights_with_a_flipped_byte_are_refused(tmp_path: Path, images: Path) -> None:
    run = finished_run(tmp_path / "run", images, steps=2)
    damaged = bytearray(weights(run.path))
    damaged[-5] ^= 1
    (run.path / "network.safetensors").write_bytes(damaged)
    with pytest.raises(ArtifactDamagedError, match=r"network[.]safetensors"):
        run.load_network()


def test_the_pixel_cache_is_made_again_when_its_source_changes(tmp_path: Path, images: Path) -> None:
    first = cache_pixels(open_source(str(images)), side=16, directory=tmp_path / "cache")
    write_images(images, count=60)
    second = cache_pixels(open_source(str(images)), side=16, directory=tmp_path / "cache")
    smaller = cache_pixels(open_source(str(images)), side=8, directory=tmp_path / "cache")
    assert (len(first.pixels), len(second.pixels)) == (48, 60)
    assert smaller.pixels.shape == (60, 8, 8, 3)
    assert np.asarray(smaller.pixels).std() > 0


def test_the_learning_rate_warms_up_and_decays_to_nothing() -> None:
    config = load_config(None, ["steps=100", "warmup_steps=10", "learning_rate=1.0"])
    rates = [learning_rate(config, step=step) for step in range(100)]
    assert rates[0] < 0.1
    assert 0.9 < max(rates) <= 1
    assert rates.index(max(rates)) in range(8, 12)
    assert rates[-1] < 0.001


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["stepz=3"], "stepz"),
        (["steps=0"], "steps"),
        (["augmentation.crop_area_min=2"], "crop_area_min"),
        (["augmentation.crop_area_min=0.9", "augmentation.crop_area_max=0.5"], "crop_area"),
        (["precision=fp8"], "precision"),
        (["steps"], "key=value"),
    ],
)
def test_a_wrong_setting_is_named(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(None, overrides)


@pytest.mark.parametrize(
    ("overrides", "basis", "neighbours", "ridge"),
    [
        ([], "features", 20, 0.1),
        (["steps=2929", "batch_size=512"], "features", 20, 0.1),
        (["steps=2930", "batch_size=512"], "projector", 200, 1.0),
        (["spectrum.basis=projector"], "projector", 200, 1.0),
        (["steps=6000", "spectrum.basis=features", "spectrum.ridge=0.3"], "features", 20, 0.3),
        (["steps=6000", "spectrum.neighbours=0"], "projector", 0, 1.0),
    ],
)
def test_the_closed_form_step_follows_the_length_of_training_unless_it_is_set(
    overrides: list[str], basis: str, neighbours: int, ridge: float
) -> None:
    config = load_config(None, overrides)
    step = config.closed_form
    assert (step.basis, step.neighbours, step.ridge) == (basis, neighbours, ridge)
    assert (step.views, step.diffusion_time, step.leading) == (2, 1.0, 6)
    assert config.model_copy(update={"spectrum": step}).closed_form == step


@pytest.mark.parametrize(("supported", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_processor_is_given_bfloat16_only_if_it_computes_in_it(
    supported: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert choose_precision("auto", torch.device("cpu")) == precision
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


def test_an_unknown_preset_lists_the_presets() -> None:
    with pytest.raises(ConfigError, match="fashion-demo"):
        load_config("fashion-dem", [])


def test_a_run_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    config = load_config(None, tiny_overrides())
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"Not a directory|File exists"):
        Run.start(tmp_path / "file", images="x", config=config)
    with pytest.raises(ConfigError, match="no backbone 'vast-conv'"):
        Run.start(tmp_path / "run", images="x", config=config.model_copy(update={"backbone": "vast-conv"}))
    assert not (tmp_path / "run").exists()
    run = Run.start(tmp_path / "run", images="x", config=config)
    (run.path / "checkpoint.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged"):
        run.load_checkpoint()
    for text in ("{", "[]", "{}"):
        (run.path / "run.json").write_text(text)
        with pytest.raises(TrainingError, match=r"run\.json"):
            Run(run.path)


def test_a_run_opens_without_the_settings_that_are_gone(tmp_path: Path) -> None:
    config = load_config(None, tiny_overrides())
    path = Run.start(tmp_path / "run", images="x", config=config).path / "run.json"
    description = json.loads(path.read_text())
    for value, told in ((None, None), (False, None), (True, "one_scale is no key")):
        description["config"]["spectrum"] |= {"one_scale": value, "diffusion_time": None}
        path.write_text(json.dumps(description))
        if told is None:
            assert Run(path.parent).config == config
        else:
            with pytest.raises(ConfigError, match=told):
                Run(path.parent)


def test_training_in_half_precision_scales_its_gradients(tmp_path: Path) -> None:
    config = load_config(None, [*tiny_overrides(), "precision=fp16"])
    training_run = Run.start(tmp_path / "run", images="none", config=config)
    trainer = Trainer(training_run, torch.device("cpu"))
    before = trainer.network.projector.last.weight.detach().clone()
    views = torch.rand(2, 16, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(0))
    for _ in range(8):  # the first are skipped: their scale, 65,536, is too large, and is halved each time
        loss, _ = trainer.step(*views, rate=1e-3)
        assert torch.isfinite(loss)
    assert trainer.scaler.get_scale() > 1
    assert not torch.equal(trainer.network.projector.last.weight, before)
