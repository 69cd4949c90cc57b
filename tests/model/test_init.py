"""Runs that start from a checkpoint: the weights it holds, what is refused, and the same end after an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eigenlens import artifact
from eigenlens.command import main
from eigenlens.model.backbones.checkpoint import first_weights
from eigenlens.model.backbones.registry import build_backbone, pretrained_backbone
from eigenlens.model.config import load_config
from eigenlens.model.errors import ConfigError, TrainingError
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.network import normalise_pixels
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.training.loop import Trainer, train
from eigenlens.model.training.run import Run
from tests.model.test_frozen import require_timm
from tests.model.test_heads import pretrained
from tests.support.training import (
    CHECKPOINT_AFTER_EVERY_STEP,
    CPU,
    finished_run,
    tiny_overrides,
    write_images,
)


def checkpoint(name: str, *, seed: int = 3, classifier: str = "fc") -> dict[str, Tensor]:
    """The state of a trained model: no value is that of a fresh one."""
    torch.manual_seed(seed)
    network = build_backbone(name)
    width = int(network.feature_length)
    state = {
        key: torch.rand_like(value) + 0.5 if value.is_floating_point() else value + 7
        for key, value in network.state_dict().items()
    }
    return state | {f"{classifier}.weight": torch.rand(10, width), f"{classifier}.bias": torch.rand(10)}


def without_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", count=16)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_a_resnet_s_checkpoint_is_loaded_without_its_classifier(tmp_path: Path, name: str, suffix: str) -> None:
    state, path = checkpoint(name), tmp_path / f"{name}.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    weights, digest = first_weights(str(path), name)
    assert same(weights, without_classifier(state))
    assert len(digest) == 16


def test_checkpoints_within_a_table_or_of_an_older_torch_or_in_half_precision_fit_too(tmp_path: Path) -> None:
    state = checkpoint("resnet18")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "table.pth")
    old = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    torch.save(old, tmp_path / "old.pth")
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in old.items()}, tmp_path / "half.pth"
    )
    assert same(first_weights(str(tmp_path / "table.pth"), "resnet18")[0], without_classifier(state))
    for name in ("old", "half"):
        found, _ = first_weights(str(tmp_path / f"{name}.pth"), "resnet18")
        assert found["layer1.0.bn1.num_batches_tracked"] == 0
        torch.testing.assert_close(found["conv1.weight"], state["conv1.weight"], atol=1e-3, rtol=0)


def test_a_resnet_sees_the_pixels_that_its_checkpoints_were_trained_on() -> None:
    torch.manual_seed(0)
    network = build_backbone("resnet18").eval()
    pixels = torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    imagenet = (pixels.permute(0, 3, 1, 2) / 255 - mean) / std
    found = network(normalise_pixels(pixels))
    network.pixels = nn.Identity()
    torch.testing.assert_close(found, network(imagenet), atol=1e-4, rtol=1e-4)


def test_a_checkpoint_that_does_not_fit_is_refused_with_what_would(tmp_path: Path) -> None:
    torch.save(checkpoint("resnet34"), tmp_path / "a.pth")
    with pytest.raises(
        ConfigError, match=r"unexpected: layer1\.2\.conv1\.weight, .* and \d+ more\. it fits --set backbone=resnet34"
    ):
        first_weights(str(tmp_path / "a.pth"), "resnet18")
    with pytest.raises(
        ConfigError,
        match=r"missing: layer1\.0\.conv3\.weight.*shape: layer1.0.conv1.weight \(64, 64, 3, 3\) for \(64, 64, 1, 1\)",
    ):
        first_weights(str(tmp_path / "a.pth"), "resnet50")
    torch.save({"stem.conv.weight": torch.zeros(3)}, tmp_path / "b.pth")
    with pytest.raises(ConfigError, match="it fits none of tiny-conv"):
        first_weights(str(tmp_path / "b.pth"), "resnet18")
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        first_weights(str(tmp_path / "c.pth"), "resnet18")
    with pytest.raises(ConfigError, match="'resnet18' does not come with weights"):
        first_weights("pretrained", "resnet18")


def test_a_checkpoint_that_holds_more_than_weights_is_not_executed(tmp_path: Path) -> None:
    torch.save(build_backbone("tiny-conv"), tmp_path / "module.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    for name, said in (
        ("module.pth", "torch.save"),
        ("text.safetensors", "cannot be read"),
        ("list.pth", "state_dict"),
    ):
        with pytest.raises(ConfigError, match=said):
            first_weights(str(tmp_path / name), "tiny-conv")


def test_a_run_starts_from_the_checkpoint_and_says_so(tmp_path: Path, images: Path) -> None:
    state, path = checkpoint("resnet18"), tmp_path / "resnet18.pth"
    torch.save(state, path)
    settings = [f"--set={item}" for item in tiny_overrides(backbone="resnet18", steps=1, batch_size=4)]
    command = ["train", "--images", str(images), "--out", str(tmp_path / "run"), "--device", "cpu", *settings]
    assert main([*command, "--init", str(path)]) == 0
    run = Run(tmp_path / "run")
    assert run.config.init == str(path)
    assert artifact.read(run.path, kind="run").made_from == {"init": first_weights(str(path), "resnet18")[1]}
    assert not list(run.path.glob("init*")), "a copy for resuming is not kept"
    started = Run.start(tmp_path / "second", images=str(images), config=run.config)
    trainer = Trainer(started, CPU)
    assert trainer.restore() == (0, 0.0)
    assert same(trainer.network.backbone.state_dict(), without_classifier(state))


def test_an_interrupted_run_resumes_from_its_own_copy_to_the_same_weights(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped before its first checkpoint, and after it; the file that it started from is gone by then."""
    path = tmp_path / "first.safetensors"
    save_file(without_classifier(checkpoint("tiny-conv")), path)
    changes = {"init": str(path), "steps": 6, "batch_size": 8} | CHECKPOINT_AFTER_EVERY_STEP
    whole = finished_run(tmp_path / "whole", images, **changes)
    fresh = finished_run(tmp_path / "fresh", images, steps=6, batch_size=8)
    for name, steps in (("early", 0), ("late", 3)):
        run = Run.start(tmp_path / name, images=str(images), config=load_config(None, tiny_overrides(**changes)))
        if steps:
            stop_after(run, steps, monkeypatch)
    path.unlink()
    for name in ("early", "late"):
        assert main(["train", "--out", str(tmp_path / name), "--resume", "--init", "x"]) == 1
        assert "leave --config, --set and --init out" in capsys.readouterr().err
        assert main(["train", "--out", str(tmp_path / name), "--resume", "--device", "cpu"]) == 0
        assert weights(tmp_path / name) == weights(whole.path)
    assert weights(whole.path) != weights(fresh.path)
    lost = tmp_path / "lost"
    lost.mkdir()
    shutil.copy(whole.path / "run.json", lost)
    with pytest.raises(TrainingError, match="start the run anew"):
        Run(lost).first_weights()


def stop_after(run: Run, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until a checkpoint is there and so many steps are done."""
    done = 0
    step = Trainer.step

    def counted(self: Trainer, *views: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        nonlocal done
        if done == steps:
            raise KeyboardInterrupt
        done += 1
        return step(self, *views, rate=rate)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", counted)
        pixels = cache_pixels(open_source(run.images), side=run.config.cached_side, directory=run.cache).pixels
        with pytest.raises(KeyboardInterrupt):
            train(run, PairSampler(pixels, run.config, device=CPU), device=CPU)
    state = run.load_checkpoint()
    assert state is not None
    assert state["step"] == steps


def weights(path: Path) -> bytes:
    return (path / "network.safetensors").read_bytes()


def test_a_run_starts_from_an_earlier_run(tmp_path: Path, images: Path) -> None:
    earlier = finished_run(tmp_path / "earlier", images, steps=2, batch_size=8)
    found, _ = first_weights(str(earlier.path / "network.safetensors"), "tiny-conv")
    assert same(found, earlier.load_network()[1].backbone.state_dict())
    assert json.loads((earlier.path / "run.json").read_text())["config"]["init"] is None


@pretrained
def test_the_weights_that_a_backbone_comes_with_are_a_start() -> None:
    found, digest = first_weights("pretrained", "efficientnet-lite0")
    assert same(found, pretrained_backbone("efficientnet-lite0").state_dict())
    assert digest == first_weights("pretrained", "efficientnet-lite0")[1]


def test_a_checkpoint_of_timm_fits_its_model(tmp_path: Path) -> None:
    require_timm()
    import timm

    torch.manual_seed(1)
    model = timm.create_model("mobilenetv3_small_050", pretrained=False)
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    found, _ = first_weights(str(tmp_path / "timm.pth"), "timm:mobilenetv3_small_050")
    assert torch.equal(found["network.conv_stem.weight"], model.conv_stem.weight)
