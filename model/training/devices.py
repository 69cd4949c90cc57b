"""The device that a command computes on, and the precision, by name."""

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


def choose_precision(name: str, device: torch.device) -> str:
    """Return the precision that a network is computed in: `auto` is bf16 where the device computes in it, else fp32.

    A processor without instructions for bfloat16 takes ten times as long in it as in float32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        computes = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        computes = device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return "bf16" if computes else "fp32"
