"""Weights that a backbone starts from: a checkpoint of torchvision, timm or an earlier run, strictly the backbone's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from eigenlens.model.backbones.backbone import Backbone
from eigenlens.model.backbones.registry import BACKBONES, build_backbone, pretrained_backbone
from eigenlens.model.errors import ConfigError

PRETRAINED = "pretrained"
# What an earlier run calls its backbone, beside its projector.
_OF_A_RUN = "backbone."
# How many images batch normalisation saw: older checkpoints lack it, and nothing here depends on it.
_COUNTER = "num_batches_tracked"
_SHOWN = 4


def first_weights(init: str, backbone: str) -> tuple[dict[str, Tensor], str]:
    """Read the weights that a backbone starts from.

    Args:
        init: a file, or "pretrained".

    Returns: the backbone's whole state, and a digest of where it came from.

    Raises: ConfigError, which names the parameters that are missing, unexpected or mis-shaped, and what would fit.
    """
    if init == PRETRAINED:
        state = pretrained_backbone(backbone).state_dict()
        digest = hashlib.sha256()
        for tensor in state.values():
            digest.update(tensor.contiguous().numpy().tobytes())
        return _contiguous(state), digest.hexdigest()[:16]
    path = Path(init).expanduser()
    weights, network = _read(path), build_backbone(backbone)
    problems = _differences(_renamed(weights, network), network)
    if problems:
        fitting = [name for name in BACKBONES if name != backbone and _fits(weights, name)]
        advice = (
            f"it fits --set backbone={fitting[0]}"
            if fitting
            else f"it fits none of {', '.join(BACKBONES)}; a ResNet of torchvision or timm fits the one of its name"
        )
        raise ConfigError(f"{path} does not fit the backbone '{backbone}': {'; '.join(problems)}. {advice}")
    state = network.state_dict()
    state |= {key: value.to(state[key].dtype) for key, value in _renamed(weights, network).items()}
    with path.open("rb") as f:
        return _contiguous(state), hashlib.file_digest(f, "sha256").hexdigest()[:16]


def _read(path: Path) -> dict[str, Tensor]:
    """Read every parameter in the file by name; nothing in it is executed."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"there is no checkpoint {path}") from None
    except Exception as error:  # damaged files, and those with more than tensors, make torch raise errors of many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{path} cannot be read as weights ({reason[0]}): give a .safetensors file, or one that holds a state_dict "
            "alone, as torch.save(model.state_dict(), FILE) writes it"
        ) from error
    weights = weights.get("state_dict", weights) if isinstance(weights, dict) else weights
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ConfigError(f"{path} holds no parameters by name: save the model's state_dict() alone")
    return weights


def _renamed(weights: Mapping[str, Tensor], network: Backbone) -> dict[str, Tensor]:
    """Return the parameters under the backbone's own names, without the classifier that it lacks."""
    if any(key.startswith(_OF_A_RUN) for key in weights):
        return {key.removeprefix(_OF_A_RUN): v for key, v in weights.items() if key.startswith(_OF_A_RUN)}
    classifier, prefix = network.classifier, network.checkpoint_prefix
    return {prefix + key: v for key, v in weights.items() if not (classifier and key.startswith(f"{classifier}."))}


def _differences(weights: Mapping[str, Tensor], network: Backbone) -> list[str]:
    expected = network.state_dict()
    missing = [key for key in expected if key not in weights and not key.endswith(_COUNTER)]
    unexpected = [key for key in weights if key not in expected]
    shaped = [
        f"{key} {tuple(value.shape)} for {tuple(expected[key].shape)}"
        for key, value in weights.items()
        if key in expected and value.shape != expected[key].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shaped}
    return [f"{what}: {_some(names)}" for what, names in kinds.items() if names]


def _fits(weights: Mapping[str, Tensor], name: str) -> bool:
    try:
        network = build_backbone(name)
    except ModuleNotFoundError:  # its extra is not installed
        return False
    return not _differences(_renamed(weights, network), network)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in state.items()}
