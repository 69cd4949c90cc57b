"""LARS against its equation, and what is left out of weight decay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from eigenlens.model.config import load_config
from eigenlens.model.training.optimizers import Lars, build_optimizer


def test_lars_is_its_equation() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    parameters = [torch.tensor(weight, requires_grad=True), torch.tensor(bias, requires_grad=True)]
    groups = [
        {"params": parameters[:1], "weight_decay": 0.1, "adapt": True},
        {"params": parameters[1:], "adapt": False},
    ]
    optimizer = Lars(groups, lr=0.5, momentum=0.9, eta=0.02)
    velocity, slide = np.zeros_like(weight), np.zeros_like(bias)
    for _ in range(3):
        gradient, slope = rng.normal(size=(3, 4)), rng.normal(size=3)
        for parameter, value in zip(parameters, (gradient, slope), strict=True):
            parameter.grad = torch.tensor(value)
        optimizer.step()
        size, length = np.sqrt((weight**2).sum()), np.sqrt((gradient**2).sum())
        trust = 0.02 * size / (length + 0.1 * size)
        velocity = 0.9 * velocity + 0.5 * trust * (gradient + 0.1 * weight)
        slide = 0.9 * slide + 0.5 * slope
        weight, bias = weight - velocity, bias - slide
    np.testing.assert_allclose(parameters[0].detach().numpy(), weight, rtol=1e-9)
    np.testing.assert_allclose(parameters[1].detach().numpy(), bias, rtol=1e-9)


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_biases_and_normalisations_do_not_decay(name: str) -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = build_optimizer(network, load_config(None, [f"optimizer={name}", "weight_decay=0.5"]))
    before = [p.detach().clone() for p in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert moved == [True, False, False, False]


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_each_descends(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Linear(4, 1, bias=False)  # LARS takes the plain rate for biases
    optimizer = build_optimizer(
        network, load_config(None, [f"optimizer={name}", f"learning_rate={20 if name == 'lars' else 0.05}"])
    )
    x = torch.randn(64, 4)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = (network(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
