"""Methods side by side: the same network, images, views and steps; only what is minimised and read off differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eigenlens.benchmarks.common.labelled import LabelledImages
from eigenlens.benchmarks.common.pca import principal_components
from eigenlens.benchmarks.common.retrieval import Cutoffs, LabelledCodes, probe_accuracy, retrieval_quality
from eigenlens.model.config import Basis, ClosedForm, TrainingConfig, parse_config
from eigenlens.model.errors import ConfigError
from eigenlens.model.export.coder import code_network, estimate_spectrum, set_codes
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import open_source
from eigenlens.model.network import EncoderNetwork, normalise_pixels
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.spectrum.lengths import effective_rank
from eigenlens.model.training.loop import train
from eigenlens.model.training.run import Run

LENGTHS = (4, 8, 16, 32, 64, 128, 256)
MAP_AT, PRECISION_AT = 1000, 100
_RANDOM_DRAWS = 5
_RANDOM_LENGTH = 16
_HELD_OUT = 5000
_BATCH = 500

Codes = NDArray[np.float32]


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Attributes:
        objective: its table in the training configuration; None for the default of `eigenlens train`.
        codes: "trained": the projector's outputs; "pca": their principal components; "rr": the Rayleigh-Ritz step over
            them; "features+pca": principal components of the backbone's features; "default": as `eigenlens export`;
            "default-features" and "default-outputs": likewise, of functions of the one or the other.
    """

    objective: Mapping[str, Any] | None
    codes: str


# The bases of functions, by what tables call them.
_BASES: dict[str, Basis] = {"features": "features", "outputs": "projector"}


def _methods() -> dict[str, Method]:
    methods = {"eigenlens": Method(None, "default")}
    methods |= {f"eigenlens-{basis}": Method(None, f"default-{basis}") for basis in _BASES}
    for name in ("neural-eigenmap", "scl", "barlow-twins", "simclr", "vicreg", "nested"):
        for suffix, codes in (("", "trained"), ("+pca", "pca"), ("+rr", "rr"), ("-features+pca", "features+pca")):
            methods[name + suffix] = Method({"name": name}, codes)
    return methods


METHODS = _methods()

# What is alike for all methods. The batch, the views and the projector are the defaults of `eigenlens train`.
SETTINGS: dict[str, dict[str, Any]] = {
    "cifar10": {"image_size": 32, "backbone": "tiny-conv", "code_length": 256, "steps": 600},
    "tiny-imagenet-120": {
        "image_size": 32,
        "cache_size": 64,
        "backbone": "tiny-conv",
        "code_length": 256,
        "steps": 600,
    },
}
# Ten times as long: does the ranking after a short training survive?
SETTINGS |= {f"{data}-long": {**settings, "steps": 10 * settings["steps"]} for data, settings in SETTINGS.items()}


# The closed-form step over z and views alone, for "rr".
_OVER_OUTPUTS = ClosedForm(neighbours=0, basis="projector", ridge=1e-2, diffusion_time=4.0)


def hold_out(images: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Split training images into a gallery and, in place of test images, queries to make choices by."""
    order = np.random.default_rng(0).permutation(len(images.labels))
    return images.part(order[_HELD_OUT:]), images.part(order[:_HELD_OUT])


def config_of(data: str, method: Method, *, seed: int, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return the training configuration of a method. Raises: ConfigError."""
    if data not in SETTINGS:
        raise ConfigError(f"there are no settings for '{data}'; available: {', '.join(SETTINGS)}")
    table = {**SETTINGS[data], **changes, "seed": seed}
    if method.objective is not None:
        table["objective"] = dict(method.objective)
    return parse_config(table)


def closed_form(method: Method, config: TrainingConfig) -> ClosedForm | None:
    """Return the closed-form step that gives a method's codes; None for codes that are read off otherwise."""
    steps = {"default": config.closed_form, "rr": _OVER_OUTPUTS}
    for name, basis in _BASES.items():
        spectrum = config.spectrum.model_copy(update={"basis": basis})
        steps[f"default-{name}"] = config.model_copy(update={"spectrum": spectrum}).closed_form
    return steps.get(method.codes)


def describe_training(method: Method, config: TrainingConfig) -> dict[str, Any]:
    """Return what a record says: the objective, the closed-form step, if any, and what is not set by default."""
    described = config.model_dump(mode="json", exclude_defaults=True, exclude={"spectrum"})
    described["objective"] = config.objective.model_dump(mode="json")
    if (step := closed_form(method, config)) is not None:
        described["spectrum"] = step.model_dump(mode="json")
    return described


def trained_network(config: TrainingConfig, images: str, *, runs: Path, device: torch.device) -> EncoderNetwork:
    """Train the network of a configuration; methods that differ only in how codes are read off share one training.

    Carries on where it stopped; a finished run is not run again.
    """
    path = runs / f"{config.objective.name}-{config.seed}"
    run = Run(path) if (path / "run.json").exists() else Run.start(path, images=images, config=config)
    if run.config.model_copy(update={"spectrum": config.spectrum}) != config or run.images != images:
        raise ConfigError(f"{path} holds a run of another configuration: choose another --work, or remove it")
    if not run.finished:
        cache = cache_pixels(open_source(images), side=config.cached_side, directory=runs / "train")
        train(run, PairSampler(cache.pixels, config, device=device), device=device)
    _, network = run.load_network()
    return network.to(device).eval()


class Reader:
    """Reads codes off one trained network by any method; every layer is computed once.

        reader = Reader(network, train_images, [gallery, queries], device=device)
        gallery_codes, query_codes = reader.codes(METHODS["scl+pca"], config)

    Args:
        train_images: what principal components and the spectrum are fitted to.
        parts: the images that are encoded.
    """

    def __init__(
        self,
        network: EncoderNetwork,
        train_images: LabelledImages,
        parts: Sequence[LabelledImages],
        *,
        device: torch.device,
    ) -> None:
        self._network, self._device = network, device
        self._train, self._parts = train_images, parts
        self._read: dict[tuple[int, int], tuple[Codes, Codes]] = {}

    def codes(self, method: Method, config: TrainingConfig) -> list[Codes]:
        """Return the codes of each part, (n, length)."""
        if (step := closed_form(method, config)) is not None:
            return self._ordered(config.model_copy(update={"spectrum": step}))
        layer = 0 if method.codes.startswith("features") else 1
        codes = [self._outputs(part, config)[layer] for part in self._parts]
        if not method.codes.endswith("pca"):
            return codes
        components = principal_components(self._outputs(self._train, config)[layer])
        return [components(part) for part in codes]

    def _ordered(self, config: TrainingConfig) -> list[Codes]:
        """Return the codes of the closed-form step, as `eigenlens export` takes it.

        Coordinates beyond the functions that there are, are zero: a longer code says no more.
        """
        coder = code_network(self._network, config).to(self._device).eval()
        pairs = PairSampler(self._train.pixels, config, device=self._device)
        spectrum = estimate_spectrum(coder, pairs, config)
        set_codes(coder, spectrum, diffusion_time=config.spectrum.diffusion_time)
        with torch.inference_mode():
            parts = [torch.cat([coder(x) for x in self._batches(part, config)]) for part in self._parts]
        missing = config.code_length - coder.code.out_features
        return [np.pad(codes.cpu().numpy(), ((0, 0), (0, missing))) for codes in parts]

    def _outputs(self, part: LabelledImages, config: TrainingConfig) -> tuple[Codes, Codes]:
        """Return features and z of a part."""
        key = (id(part), config.image_size)
        if key not in self._read:
            with torch.inference_mode():
                features = [self._network.backbone(x) for x in self._batches(part, config)]
                z = [self._network.projector(f) for f in features]
            self._read[key] = torch.cat(features).cpu().numpy(), torch.cat(z).cpu().numpy()
        return self._read[key]

    def _batches(self, part: LabelledImages, config: TrainingConfig) -> Iterator[Tensor]:
        for start in tqdm(range(0, len(part.labels), _BATCH), desc="encode", unit="batch"):
            pixels = torch.from_numpy(np.array(part.pixels[start : start + _BATCH])).to(self._device)
            yield normalise_pixels(pixels, size=config.image_size).contiguous(memory_format=torch.channels_last)


def measure_codes(codes: LabelledCodes) -> list[dict[str, Any]]:
    """Return all figures of one method's codes, as parts of records: length, metric, value.

    Random coordinates are drawn from those that say something at all.
    """
    at = Cutoffs(PRECISION_AT, MAP_AT)
    lengths = [length for length in LENGTHS if length <= codes.gallery.shape[1]]
    # Prefixes: neighbours, then what a linear map reads off them.
    rows = [
        {"length": length, "metric": metric, "value": value}
        for length, values in retrieval_quality(codes, lengths=lengths, at=at).items()
        for metric, value in values.items()
    ]
    for length in lengths:
        probe = probe_accuracy(codes, length=length)
        rows.append({"length": length, "metric": "linear probe accuracy", "value": probe})
    # The whole code: how many directions carry its variance.
    rank = effective_rank(torch.from_numpy(codes.gallery))
    rows.append({"length": codes.gallery.shape[1], "metric": "effective rank", "value": rank})
    # Random coordinates in place of the first ones: what the order is worth.
    rng = np.random.default_rng(0)
    used = np.flatnonzero(codes.gallery.any(0))
    precisions = []
    for _ in range(_RANDOM_DRAWS):
        columns = rng.choice(used, min(_RANDOM_LENGTH, len(used)), replace=False)
        part = replace(
            codes,
            gallery=np.ascontiguousarray(codes.gallery[:, columns]),
            queries=np.ascontiguousarray(codes.queries[:, columns]),
        )
        values = retrieval_quality(part, lengths=[_RANDOM_LENGTH], at=at)
        precisions.append(values[_RANDOM_LENGTH][f"mAP@{MAP_AT}"])
    metric, mean = f"mAP@{MAP_AT} of random coordinates", float(np.mean(precisions))
    rows.append({"length": _RANDOM_LENGTH, "metric": metric, "value": mean})
    return rows
