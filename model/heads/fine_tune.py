"""A pretrained backbone that is trained on the images before it is frozen: a training run like any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from eigenlens import artifact
from eigenlens.model.backbones.checkpoint import PRETRAINED
from eigenlens.model.backbones.efficientnet import EFFICIENTNET
from eigenlens.model.backbones.registry import build_backbone
from eigenlens.model.backbones.timm_models import PREFIX
from eigenlens.model.config import AugmentationConfig, TrainingConfig
from eigenlens.model.errors import ConfigError
from eigenlens.model.heads.frozen import BackboneChoice, check_options, publish_backbone
from eigenlens.model.images.pixel_cache import cache_pixels
from eigenlens.model.images.sources import ConcatSource, Source
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.training.loop import train
from eigenlens.model.training.run import Run

# Small enough that what the backbone knows is bent to the images and not forgotten.
_LEARNING_RATE = 1e-4
_BATCH = 64


def fine_tuned_backbone(
    choice: BackboneChoice,
    sources: Sequence[Source],
    *,
    steps: int,
    augmentation: AugmentationConfig,
    seed: int,
    device: torch.device,
    work: Path,
) -> Encoder:
    """Train the backbone on views of the images and open it as an encoder whose codes are the features.

    Run and backbone are stored below `work`: an interrupted call carries on, and a finished one is not trained again.

    Raises: ConfigError, if the backbone is a file, which can be run but not trained; SourceError; TrainingError.
    """
    advice = f"--fine-tune takes {EFFICIENTNET} or {PREFIX}NAME"
    if choice.file is not None:
        raise ConfigError(f"{choice.file} can be run, but not trained: {advice}")
    check_options(choice)
    size = choice.image_size or build_backbone(choice.name).image_size
    if size is None:
        raise ConfigError(f"'{choice.name}' does not come with weights: {advice}")
    config = TrainingConfig(
        seed=seed,
        backbone=choice.name,
        init=PRETRAINED,
        image_size=size,
        augmentation=augmentation,
        steps=steps,
        warmup_steps=steps // 10,
        batch_size=_BATCH,
        learning_rate=_LEARNING_RATE,
    )
    images = ConcatSource(sources)
    description = {"images": images.name, "count": len(images), "config": config.model_dump(mode="json")}
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:12]
    path, frozen = work / f"fine-tuned-{key}", work / f"fine-tuned-{key}-backbone"
    if (frozen / artifact.MANIFEST).exists():
        return Encoder(frozen)
    run = Run(path) if (path / "run.json").exists() else Run.start(path, images=images.name, config=config)
    if not run.finished:
        pixels = cache_pixels(images, side=config.cached_side, directory=run.cache).pixels
        train(run, PairSampler(pixels, config, device=device), device=device)
    trained, network = run.load_network()
    properties = {"backbone": choice.name, "fine_tune_steps": steps, "run": trained.id}
    return publish_backbone(network.backbone, frozen, properties=properties, image_size=size)
