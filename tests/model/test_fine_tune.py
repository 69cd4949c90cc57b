"""Fine-tuning before a fit: the published features are those of the trained backbone, whatever was interrupted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eigenlens.command import main
from eigenlens.model.backbones import checkpoint
from eigenlens.model.backbones.registry import BACKBONES
from eigenlens.model.backbones.small_conv import SmallConv
from eigenlens.model.heads import frozen
from eigenlens.model.heads.features import power_normalise
from eigenlens.model.heads.fit import HeadSettings, fit_head
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.network import normalise_pixels
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.training.loop import Trainer, train
from eigenlens.model.training.run import Run
from tests.model.test_heads import cosines
from tests.support.extractors import write_extractor
from tests.support.training import CPU, write_images

NAME, SIZE, LENGTH, STEPS = "published", 16, 32, 5


class Published(SmallConv):
    """A small backbone that stands for one that comes with weights."""

    image_size = SIZE

    def __init__(self) -> None:
        super().__init__((4, 8, 16, LENGTH))


def with_weights(name: str) -> nn.Module:
    assert name == NAME
    torch.manual_seed(7)
    return Published()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(BACKBONES, NAME, Published)
    monkeypatch.setattr(checkpoint, "pretrained_backbone", with_weights)
    images = write_images(tmp_path / "images", count=24)
    (images / "kind-0" / "broken.png").write_bytes(b"no image")
    options = ["--backbone", NAME, "--views", "2", "--ridge", "0.1", "--diffusion-time", "1", "--device", "cpu"]
    options += ["--fine-tune", str(STEPS), "--code-length", "8"]
    return ["fit", "--images", str(images), "--work", str(tmp_path / "work"), *options]


def test_the_head_is_fitted_to_the_backbone_that_was_trained_through_an_interruption(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    step = Trainer.step

    def counted(self: Trainer, *views: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        nonlocal taken
        taken += 1
        if taken == 3:
            raise KeyboardInterrupt
        return step(self, *views, rate=rate)

    out, work = tmp_path / "encoder", tmp_path / "work"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", counted)
        assert main([*command, "--out", str(out)]) == 130
        assert main([*command, "--out", str(out)]) == 0
        trained_steps = taken
        assert main([*command, "--out", str(tmp_path / "again")]) == 0
        assert taken == trained_steps, "a finished run is not trained again"
    assert "8 coordinates from 24 images" in capsys.readouterr().out
    (path,) = (path.parent for path in work.glob("fine-tuned-*/run.json"))
    _, network = Run(path).load_network()
    trained = network.backbone.eval()
    assert not torch.equal(trained.get_parameter("stem.0.weight"), with_weights(NAME).get_parameter("stem.0.weight"))
    whole = Run.start(tmp_path / "whole", images=Run(path).images, config=Run(path).config)
    pixels = cache_pixels(open_source(whole.images.partition(",")[0]), side=SIZE, directory=whole.cache).pixels
    train(whole, PairSampler(pixels, whole.config, device=CPU), device=CPU)
    assert (whole.path / "network.safetensors").read_bytes() == (path / "network.safetensors").read_bytes()

    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    with torch.inference_mode():
        features = trained(normalise_pixels(torch.from_numpy(images))).numpy()
    (trained_backbone,) = work.glob("fine-tuned-*-backbone")
    np.testing.assert_allclose(Encoder(trained_backbone).encode(images), features, atol=1e-4)
    # The closed-form step comes after it, over the trained features of images and views.
    cached = np.fromfile(next(work.glob("*/features.f16")), np.float16).reshape(24, 3, LENGTH)
    head = fit_head(power_normalise(cached), HeadSettings("views", ridge=0.1, diffusion_time=1.0), code_length=8)
    encoder = Encoder(out)
    assert cosines(encoder.encode(images), head.codes(power_normalise(features))).diagonal().min() > 0.999
    assert (np.diff(encoder.eigenvalues) <= 0).all()
    assert encoder.artifact.made_from == {"backbone": Encoder(trained_backbone).id}


def test_a_backbone_is_trained_on_pictures_of_the_size_that_it_will_see(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "EFFICIENTNET", NAME)  # the only one that sees other sizes than its own
    assert main([*command, "--backbone-size", "32", "--out", str(tmp_path / "encoder")]) == 0
    (path,) = (path.parent for path in (tmp_path / "work").glob("fine-tuned-*/run.json"))
    assert Run(path).config.image_size == Encoder(tmp_path / "encoder").image_size == 32


def test_what_cannot_be_fine_tuned_says_so(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_extractor(tmp_path / "tiny.onnx")
    for name, said in ((str(file), "can be run, but not trained"), ("tiny-conv", "does not come with weights")):
        assert main([*command, "--out", str(tmp_path / "out"), "--backbone", name]) == 1
        assert f"{said}: --fine-tune takes efficientnet-lite0 or timm:NAME" in capsys.readouterr().err
