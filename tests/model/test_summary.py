"""A finished run's summary: the spectrum that export finds, quality by length, and a picture where there can be one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from eigenlens.command import main
from eigenlens.model.export.coder import code_network, estimate_spectrum
from eigenlens.model.export.summary import quality_by_length
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.training.run import Run
from tests.support.training import CPU, finished_run, tiny_overrides, write_images


def test_a_run_ends_with_its_spectrum_and_its_quality_by_length(tmp_path: Path) -> None:
    images, out = write_images(tmp_path / "images"), tmp_path / "run"
    settings = [f"--set={item}" for item in tiny_overrides(steps=12)]
    command = ["train", "--images", str(images), "--out", str(out), "--device", "cpu"]
    assert main([*command, *settings]) == 0
    told = json.loads((out / "summary.json").read_text())
    run = Run(out)
    pixels = cache_pixels(open_source(run.images), side=run.config.cached_side, directory=run.cache).pixels
    coder = code_network(run.load_network()[1], run.config).eval()
    spectrum = estimate_spectrum(coder, PairSampler(pixels, run.config, device=CPU), run.config)
    assert told["eigenvalues"] == spectrum.to_records(8)
    assert all(entry["margin_95"] > 0 for entry in told["eigenvalues"])
    assert [entry["length"] for entry in told["a_view_finds_its_image"]] == [2, 4, 8]
    assert (told["images"], told["searched"]) == (48, 48)
    assert told["a_view_finds_its_image"][-1]["first"] > 3 / 48, "far more than by chance"
    assert (out / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_was_killed_before_its_summary_makes_it_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without matplotlib there are the numbers, and a word of what the picture needs."""
    run = finished_run(tmp_path / "run", write_images(tmp_path / "images", count=20), steps=2)
    before = (run.path / "network.safetensors").read_bytes()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    assert main(["train", "--out", str(run.path), "--resume", "--device", "cpu"]) == 0
    assert "a picture needs pip install -e " in capsys.readouterr().err
    assert json.loads((run.path / "summary.json").read_text())["images"] == 20
    assert not (run.path / "summary.png").exists()
    assert (run.path / "network.safetensors").read_bytes() == before
    assert main(["train", "--out", str(run.path), "--resume"]) == 0
    assert "finished already" in capsys.readouterr().err


def test_quality_by_length_counts_the_images_that_are_nearer() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(30, 5))
    views = images + rng.normal(size=(30, 5)) * np.array([0.2, 0.2, 2, 2, 2])
    for entry in quality_by_length(torch.from_numpy(images), torch.from_numpy(views)):
        length = int(entry["length"])
        ranks = []
        for i, view in enumerate(views[:, :length]):
            cosines = [view @ x / np.linalg.norm(view) / np.linalg.norm(x) for x in images[:, :length]]
            ranks.append(1 + sum(c > cosines[i] for c in cosines))
        assert entry["first"] == pytest.approx(np.mean([rank == 1 for rank in ranks]), abs=1e-4)
        assert entry["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]), abs=1e-4)
