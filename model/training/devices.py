"""The device that a command computes on, by name."""

from __future__ import annotations

import torch

from eigenlens.model.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device to compute on: `auto` is CUDA where there is one. Raises: ConfigError, if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"there is no device '{name}' here: {str(error).splitlines()[0]}") from error
    return device
