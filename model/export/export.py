"""Export: the Rayleigh-Ritz step folded into the last layer, then safetensors, ONNX and a manifest that agree."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from eigenlens import artifact
from eigenlens.model.config import TrainingConfig
from eigenlens.model.errors import EncoderError
from eigenlens.model.network import CodeNetwork, EncoderNetwork, normalise_pixels
from eigenlens.model.pairs.neighbours import IMAGES_PER_NEIGHBOUR, nearest_neighbours
from eigenlens.model.pairs.sampler import PairSampler, stream
from eigenlens.model.runtime.encoder import KIND, ONNX_FILE, Encoder
from eigenlens.model.spectrum.rayleigh_ritz import (
    FOLDS,
    PairMoments,
    Spectrum,
    rayleigh_ritz,
    rayleigh_ritz_within,
    suggest_lengths,
    without,
)
from eigenlens.model.training.run import Run

WEIGHTS_FILE = "encoder.safetensors"
SPECTRUM_FILE = "spectrum.json"
_BATCH = 512
# How often neighbours are sought, by the code so far.
_ROUNDS = 2
# Largest difference of unit codes between torch and ONNX Runtime, both float32, that is put down to rounding.
_TOLERANCE = 1e-4


class ServingNetwork(nn.Module):
    """uint8 pixels (n, size, size, 3) to codes or features: what is exported, with pixel normalisation inside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        codes: Tensor = self.network(normalise_pixels(pixels))
        return codes


def code_network(network: EncoderNetwork, config: TrainingConfig) -> CodeNetwork:
    """The network that a configuration's codes come from, not yet with its codes."""
    spectrum = config.spectrum
    return CodeNetwork(network, basis=spectrum.basis, leading=spectrum.leading, code_length=config.code_length)


def estimate_spectrum(
    network: CodeNetwork, pixels: NDArray[np.uint8], config: TrainingConfig, *, device: torch.device
) -> Spectrum:
    """Rayleigh-Ritz over positive pairs of the training images; `network` is in evaluation mode.

    Views say what stays the same thing. The code that they give finds each image's neighbours, which say what is of its
    kind; the code of both finds them once more. Each of the three sets of pairs has the same weight.

    Where the network has leading functions, these are the first that views alone find among the combinations of z;
    what is found among the features comes after them and is uncorrelated with them.
    """
    settings = config.spectrum
    chosen = stream(config.seed, "spectrum", 0)
    rows = torch.randperm(len(pixels), generator=chosen).numpy()[: settings.max_images]
    size = min(_BATCH, math.ceil(len(rows) / FOLDS))
    batches = [np.sort(rows[i : i + size]) for i in range(0, len(rows), size)]
    count = min(settings.neighbours, len(rows) // IMAGES_PER_NEIGHBOUR)
    with torch.inference_mode():
        moments = _view_moments(network, pixels, batches, config, device=device)
        span = torch.eye(moments.length, dtype=torch.float64)
        if network.leading:
            of_z = rayleigh_ritz_within(moments, span[:, network.features :], ridge=settings.leading_ridge)
            leading = of_z.first(network.leading)
            span = torch.cat([span[:, : network.features], leading.directions], 1)
            moments = moments.through(span)
        combined = torch.eye(moments.length, dtype=torch.float64)
        own, found_before = combined.split([moments.length - network.leading, network.leading], 1)
        if count:
            psi = [
                _functions(network, pixels[batch], config, device) for batch in tqdm(batches, "functions", unit="batch")
            ]
            psi = [part @ span.float() for part in psi] if network.leading else psi
            for _ in range(_ROUNDS):
                spectrum = rayleigh_ritz_within(moments, own, ridge=settings.ridge)
                add_neighbours(moments, psi, spectrum, config, count=count)
        if not network.leading:
            return rayleigh_ritz(moments, ridge=settings.ridge)
        following = rayleigh_ritz_within(moments, without(moments, own, found_before), ridge=settings.ridge)
    return Spectrum(
        torch.cat([leading.eigenvalues, following.eigenvalues]),
        torch.cat([leading.directions, span @ following.directions], 1),
        # Of E[psi] only what the combined functions tell is known, and needed.
        span @ (torch.linalg.pinv(span.T @ span, hermitian=True) @ moments.mean),
        torch.cat([leading.margins, following.margins]),
        network.leading,
    )


def _view_moments(
    network: CodeNetwork,
    pixels: NDArray[np.uint8],
    batches: list[NDArray[np.int64]],
    config: TrainingConfig,
    *,
    device: torch.device,
) -> PairMoments:
    """The moments of two views of each image, drawn as often as configured; a batch is a fold, in turn."""
    pairs = PairSampler(pixels, config, device=device)
    moments: PairMoments | None = None
    drawn = list(enumerate(batches)) * config.spectrum.views
    for step, (fold, batch) in enumerate(tqdm(drawn, desc="spectrum", unit="batch"), start=1):
        views = pairs.draw(batch, generator=stream(config.seed, "spectrum", step))
        psi_a, psi_b = (network.functions(view) for view in views)
        moments = moments or PairMoments(psi_a.shape[1])
        moments.update(psi_a, psi_b, fold=fold)
    assert moments is not None
    return moments


def _functions(network: CodeNetwork, pixels: NDArray[np.uint8], config: TrainingConfig, device: torch.device) -> Tensor:
    """psi of whole images, (n, functions), float32, in the main memory."""
    x = normalise_pixels(torch.from_numpy(np.array(pixels)).to(device), size=config.image_size)
    return network.functions(x.contiguous(memory_format=torch.channels_last)).cpu()


def add_neighbours(
    moments: PairMoments, batches: list[Tensor], spectrum: Spectrum, config: TrainingConfig, *, count: int
) -> None:
    """Add pairs of each image and its nearest by the code of `spectrum`, in all as much as the views weigh."""
    psi = torch.cat(batches)
    weight, offset = spectrum.code_weights(config.spectrum.diffusion_time, code_length=config.code_length)
    graph = nearest_neighbours(psi @ weight.T.float() + offset.float(), count)
    start = 0
    for fold, batch in enumerate(tqdm(batches, desc="neighbours' pairs", unit="batch")):
        for near in graph[start : start + len(batch)].T:
            moments.update(batch, psi[near], fold=fold, weight=config.spectrum.views / count)
        start += len(batch)


def set_codes(network: CodeNetwork, spectrum: Spectrum, *, diffusion_time: float) -> None:
    """Make the network's output the ordered code; through the projector's last layer, where z is combined."""
    weight, offset = spectrum.code_weights(diffusion_time, code_length=network.code.out_features)
    if network.last is not None:
        of_features, of_outputs = weight[:, : network.features], weight[:, network.features :]
        offset = offset + of_outputs @ network.last.bias.detach().cpu().double()
        weight = torch.cat([of_features, of_outputs @ network.last.weight.detach().cpu().double()], 1)
    with torch.no_grad():
        network.code.weight.copy_(weight)
        network.code.bias.copy_(offset)


def export(
    run: Run,
    pixels: NDArray[np.uint8],
    out: Path,
    *,
    device: torch.device,
    diffusion_time: float | None = None,
    precision: str = "float32",
) -> artifact.Artifact:
    """Publish the finished run's encoder at `out`.

    Args:
        pixels: the run's training images, (n, side, side, 3).
        diffusion_time: t, where it is not to be the configuration's.
        precision: in which the encoder is run, for galleries and queries alike; the ONNX file is float32 in any case.

    Raises: ArtifactExistsError; TrainingError, if the run is not finished; EncoderError, if ONNX and torch disagree.
    """
    trained, trained_network = run.load_network()
    config = run.config
    time = config.spectrum.diffusion_time if diffusion_time is None else diffusion_time
    properties: dict[str, object] = {
        "image_size": config.image_size,
        "backbone": config.backbone,
        "diffusion_time": time,
        "precision": precision,
        "images": run.images,
        "training_images": len(pixels),
        "training": config.model_dump(mode="json"),
    }

    def check(written: Path) -> None:
        check_agreement(serving, written, pixels, image_size=config.image_size)

    made_from = {"run": trained.id}
    with artifact.publishing(out, kind=KIND, made_from=made_from, properties=properties, check=check) as directory:
        network = code_network(trained_network, config).to(device).eval()
        spectrum = estimate_spectrum(network, pixels, config, device=device)
        set_codes(network, spectrum, diffusion_time=time)
        network.cpu()
        code_length = network.code.out_features
        if code_length < config.code_length:
            tqdm.write(f"codes have {code_length} coordinates, as many as there are functions", file=sys.stderr)
        eigenvalues = [round(float(x), 6) for x in spectrum.eigenvalues[:code_length]]
        properties |= {"code_length": code_length, "eigenvalues": eigenvalues}
        properties["suggested_lengths"] = suggest_lengths(eigenvalues, diffusion_time=time)
        serving = ServingNetwork(network).eval()
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, directory / WEIGHTS_FILE)
        (directory / SPECTRUM_FILE).write_text(
            json.dumps(_report(spectrum, config, leading=network.leading, diffusion_time=time), indent=1)
        )
        write_onnx(serving, directory / ONNX_FILE, image_size=config.image_size)
    return artifact.read(out, kind=KIND, verify=False)


def _report(spectrum: Spectrum, config: TrainingConfig, *, leading: int, diffusion_time: float) -> dict[str, object]:
    """What spectrum.json says: each coordinate's eigenvalue with its 95 % interval, and how the code is weighted."""
    return {
        "diffusion_time": diffusion_time,
        "basis": config.spectrum.basis,
        "leading": leading,
        "eigenvalues": spectrum.told(config.code_length),
    }


def write_onnx(serving: nn.Module, path: Path, *, image_size: int) -> None:
    """Write the network as one ONNX file with a free batch axis: `pixels` uint8 in, `codes` float32 out."""
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            serving,
            (example,),
            path,
            input_names=["pixels"],
            output_names=["codes"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            external_data=False,
            dynamo=True,
        )
    strip_traces(path)


def strip_traces(path: Path) -> None:
    """Remove what the exporter notes of the exporting program (source files, stack traces) from an ONNX file."""
    exported = onnx.load(path)
    for node in exported.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.save(exported, path)


def check_agreement(serving: nn.Module, directory: Path, pixels: NDArray[np.uint8], *, image_size: int) -> None:
    """Run torch and the exported file on the same training images. Raises: EncoderError, if their codes differ."""
    sample = torch.from_numpy(np.array(pixels[:64]))
    if sample.shape[1] != image_size:
        resized = nn.functional.interpolate(sample.permute(0, 3, 1, 2).float(), size=image_size, mode="area")
        sample = resized.permute(0, 2, 3, 1).round().to(torch.uint8)
    with torch.inference_mode():
        expected = serving(sample).numpy()
    require_agreement(expected, Encoder(directory, precision="float32").encode(np.ascontiguousarray(sample.numpy())))


def require_agreement(expected: NDArray[np.floating], found: NDArray[np.floating]) -> None:
    """Raises: EncoderError, if codes differ by more than rounding."""
    scale = np.linalg.norm(expected, axis=1, keepdims=True).clip(min=1e-12)
    difference = float(np.abs((found - expected) / scale).max())
    if not difference <= _TOLERANCE:
        raise EncoderError(f"the ONNX file's codes differ from torch's by {difference:.2e} (at most {_TOLERANCE:.0e})")
