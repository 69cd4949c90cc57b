"""Export: the Rayleigh-Ritz step folded into the last layer, then safetensors, ONNX and a manifest that agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tqdm import tqdm

from eigenlens import artifact
from eigenlens.model.config import SpectrumConfig, TrainingConfig
from eigenlens.model.export.coder import code_network, estimate_spectrum, set_codes
from eigenlens.model.export.onnx_file import ServingNetwork, check_agreement, write_onnx
from eigenlens.model.images.ground import are_on_black
from eigenlens.model.images.preprocessing import FIRST, ON_BLACK, STANDARD, Preprocessing
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.runtime.encoder import KIND, ONNX_FILE
from eigenlens.model.spectrum.lengths import suggest_lengths
from eigenlens.model.spectrum.rayleigh_ritz import Spectrum
from eigenlens.model.training.run import Run

WEIGHTS_FILE = "encoder.safetensors"
SPECTRUM_FILE = "spectrum.json"


def export(
    run: Run,
    pixels: NDArray[np.uint8],
    out: Path,
    *,
    device: torch.device,
    step: SpectrumConfig | None = None,
    precision: str = "float32",
    preprocessing: Preprocessing = STANDARD,
) -> artifact.Artifact:
    """Publish the finished run's encoder at `out`.

    Args:
        pixels: the run's training images, (n, side, side, 3).
        step: the closed-form step, where it is not to be the configuration's.
        preprocessing: version of how files became these pixels; the encoder's is that of things on black, where all
            of these show such.
        precision: in which the encoder is run, for galleries and queries alike; the ONNX file is float32 in any case.

    Raises: ArtifactExistsError; TrainingError, if the run is not finished; EncoderError, if ONNX and torch disagree.
    """
    trained, trained_network = run.load_network()
    config = run.config
    if step is not None:
        config = config.model_copy(update={"spectrum": step})
    config = config.model_copy(update={"spectrum": config.closed_form})
    time = config.spectrum.diffusion_time
    network = code_network(trained_network, config).to(device).eval()
    serving = ServingNetwork(network).eval()
    if preprocessing == STANDARD and are_on_black(pixels):
        preprocessing = ON_BLACK
    properties: dict[str, object] = {
        "image_size": config.image_size,
        "backbone": config.backbone,
        "diffusion_time": time,
        "precision": precision,
        "images": run.images,
        "training_images": len(pixels),
        "training": config.model_dump(mode="json"),
    } | ({"preprocessing": preprocessing} if preprocessing != FIRST else {})

    def check(written: Path) -> None:
        check_agreement(serving, written, pixels, image_size=config.image_size)

    made_from = {"run": trained.id}
    with artifact.publishing(out, kind=KIND, made_from=made_from, properties=properties, check=check) as directory:
        spectrum = estimate_spectrum(network, PairSampler(pixels, config, device=device), config)
        set_codes(network, spectrum, diffusion_time=time)
        network.cpu()
        code_length = network.code.out_features
        if code_length < config.code_length:
            tqdm.write(f"codes have {code_length} coordinates, as many as there are functions", file=sys.stderr)
        eigenvalues = [round(float(x), 6) for x in spectrum.eigenvalues[:code_length]]
        properties |= {"code_length": code_length, "eigenvalues": eigenvalues}
        properties["suggested_lengths"] = suggest_lengths(eigenvalues, diffusion_time=time)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, directory / WEIGHTS_FILE)
        report = _spectrum_report(spectrum, config, leading=network.leading, diffusion_time=time)
        (directory / SPECTRUM_FILE).write_text(json.dumps(report, indent=1))
        write_onnx(serving, directory / ONNX_FILE, image_size=config.image_size)
    return artifact.read(out, kind=KIND, verify=False)


def _spectrum_report(
    spectrum: Spectrum, config: TrainingConfig, *, leading: int, diffusion_time: float
) -> dict[str, object]:
    """Return what spectrum.json says: each coordinate's eigenvalue with its 95 % interval, and the code's weights."""
    return {
        "diffusion_time": diffusion_time,
        "basis": config.closed_form.basis,
        "leading": leading,
        "eigenvalues": spectrum.to_records(config.code_length),
    }
