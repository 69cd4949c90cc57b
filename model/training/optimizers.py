"""Optimisers by name, with weight decay on weights alone, and LARS, which torch has not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from eigenlens.model.config import TrainingConfig


def build_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Build the optimiser of a run.

    AdamW treats all parameters alike; SGD and LARS have momentum, and no decay of biases and normalisations.
    """
    if config.optimizer == "adamw":
        parameters = list(network.parameters())
        return torch.optim.AdamW(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=parameters[0].is_cuda
        )
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay, "adapt": True},
        {"params": vectors, "weight_decay": 0.0, "adapt": False},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True)
    return Lars(groups, lr=config.learning_rate)


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling: each weight matrix moves in proportion to its own norm.

        v <- μ v + rate · η |w| / (|g| + β |w|) · (g + β w),   w <- w - v

    Groups with `adapt` false (biases, normalisations) take the plain rate.

    Source: You et al., arXiv:1708.03888, with η = 0.001.
    """

    def __init__(self, params: Any, *, lr: float, momentum: float = 0.9, eta: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "eta": eta, "weight_decay": 0.0, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        direction = gradient.add(parameter, alpha=group["weight_decay"])
        if group["adapt"]:
            size, slope = parameter.norm(), gradient.norm()
            trust = group["eta"] * size / (slope + group["weight_decay"] * size)
            direction = direction * torch.where((size > 0) & (slope > 0), trust, torch.ones_like(trust))
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        state["velocity"].mul_(group["momentum"]).add_(direction, alpha=group["lr"])
        parameter.sub_(state["velocity"])
