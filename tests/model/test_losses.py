"""The other objectives: each against its equation by plain loops, its invariances, and what it is minimal at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from eigenlens.model.config import load_config
from eigenlens.model.errors import ShapeError
from eigenlens.model.losses import LOSSES, build_loss
from eigenlens.model.losses.barlow_twins import barlow_twins_loss
from eigenlens.model.losses.nested import nested_low_rank_loss
from eigenlens.model.losses.neural_eigenmap import neural_eigenmap_loss
from eigenlens.model.losses.simclr import simclr_loss
from eigenlens.model.losses.spectral_contrastive import spectral_contrastive_loss
from eigenlens.model.losses.vicreg import vicreg_loss
from tests.support import model_oracles as oracles

Loss = Callable[[Tensor, Tensor], Tensor]
Reference = Callable[[NDArray[np.float64], NDArray[np.float64]], float]

PAIRS: dict[str, tuple[Loss, Reference]] = {
    "scl": (
        lambda a, b: spectral_contrastive_loss(a, b, radius=1.7),
        lambda a, b: oracles.spectral_contrastive_reference(a, b, radius=1.7),
    ),
    "nested": (
        lambda a, b: nested_low_rank_loss(a, b, radius=1.3),
        lambda a, b: oracles.nested_reference(a, b, radius=1.3),
    ),
    "barlow-twins": (
        lambda a, b: barlow_twins_loss(a, b, redundancy=0.3),
        lambda a, b: oracles.barlow_twins_reference(a, b, redundancy=0.3),
    ),
    "simclr": (
        lambda a, b: simclr_loss(a, b, temperature=0.4),
        lambda a, b: oracles.simclr_reference(a, b, temperature=0.4),
    ),
    "vicreg": (
        lambda a, b: vicreg_loss(a, b, invariance=3.0, variance=2.0, covariance=0.7),
        lambda a, b: oracles.vicreg_reference(a, b, invariance=3.0, variance=2.0, covariance=0.7),
    ),
    "neural-eigenmap, unordered": (
        lambda a, b: neural_eigenmap_loss(a, b, alpha=0.6, ordered=False),
        lambda a, b: oracles.neural_eigenmap_reference(a, b, alpha=0.6)[0],
    ),
    "neural-eigenmap, by sample": (
        lambda a, b: neural_eigenmap_loss(a, b, alpha=0.6, ordered=False, normalise="sample"),
        lambda a, b: oracles.neural_eigenmap_by_sample_reference(a, b, alpha=0.6),
    ),
}
SCALE_FREE = {
    "each sample": ("scl", "nested", "simclr", "neural-eigenmap, by sample"),
    "each coordinate": ("barlow-twins", "neural-eigenmap, unordered"),
}


def random_pair(seed: int, n: int, length: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, length))
    a, b = (common + 0.5 * rng.normal(size=(n, length)) for _ in range(2))
    return torch.tensor(a), torch.tensor(b)


@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 12), length=st.integers(1, 6))
def test_the_loss_is_its_equation(name: str, seed: int, n: int, length: int) -> None:
    loss, reference = PAIRS[name]
    z_a, z_b = random_pair(seed, n, length)
    expected = reference(z_a.numpy(), z_b.numpy())
    assert loss(z_a, z_b).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_the_gradient_is_that_of_the_equation(name: str) -> None:
    """Finite differences of the float64 reference: nothing is held fixed on the way back."""
    loss, reference = PAIRS[name]
    z_a, z_b = random_pair(7, 5, 3)
    a, b = z_a.numpy().copy(), z_b.numpy()
    z_a.requires_grad_()
    loss(z_a, z_b).backward()
    assert z_a.grad is not None
    step = 1e-6
    for row, column in np.ndindex(*a.shape):
        nudge = np.zeros_like(a)
        nudge[row, column] = step
        slope = (reference(a + nudge, b) - reference(a - nudge, b)) / (2 * step)
        assert z_a.grad[row, column].item() == pytest.approx(slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_the_views_may_be_swapped(name: str) -> None:
    loss, _ = PAIRS[name]
    z_a, z_b = random_pair(2, 24, 5)
    torch.testing.assert_close(loss(z_a, z_b), loss(z_b, z_a))


@pytest.mark.parametrize("name", PAIRS)
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    loss, _ = PAIRS[name]
    z_a, z_b = random_pair(3, 24, 5)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(z_a[order], z_b[order]), loss(z_a, z_b))


@pytest.mark.parametrize(("what", "name"), [(what, name) for what, names in SCALE_FREE.items() for name in names])
def test_the_scale_does_not_matter(what: str, name: str) -> None:
    loss, _ = PAIRS[name]
    z_a, z_b = random_pair(4, 24, 5)
    shape = (24, 1) if what == "each sample" else (1, 5)
    scale = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 9 + 0.1
    torch.testing.assert_close(loss(z_a * scale, z_b * scale), loss(z_a, z_b))


@pytest.mark.parametrize("name", ["scl", "simclr", "neural-eigenmap, unordered", "barlow-twins"])
def test_coordinates_have_no_order(name: str) -> None:
    loss, _ = PAIRS[name]
    z_a, z_b = random_pair(5, 24, 5)
    torch.testing.assert_close(loss(z_a.flip(1), z_b.flip(1)), loss(z_a, z_b))


def test_nesting_prefers_what_matters_in_front() -> None:
    """The same span costs less with its most repeatable coordinate first: that is what orders the code."""
    rng = np.random.default_rng(0)
    strong, weak = rng.normal(size=(400, 1)), rng.normal(size=(400, 1))
    a, b = (np.hstack([2 * strong, weak + 2 * rng.normal(size=(400, 1))]) for _ in range(2))
    z_a, z_b = torch.tensor(a), torch.tensor(b)
    in_order = nested_low_rank_loss(z_a, z_b, radius=1.0)
    assert in_order < nested_low_rank_loss(z_a.flip(1), z_b.flip(1), radius=1.0) - 0.05
    torch.testing.assert_close(
        spectral_contrastive_loss(z_a, z_b, radius=1.0),
        spectral_contrastive_loss(z_a.flip(1), z_b.flip(1), radius=1.0),
    )


def test_without_the_order_the_minimum_still_spans_the_top_eigenfunctions_of_a_known_kernel() -> None:
    """Free functions on 12 points of equal weight, whose pairs have a known joint density."""
    points, length = 12, 3
    rng = np.random.default_rng(0)
    affinity = rng.uniform(size=(points, points)) ** 4 + 3 * np.eye(points)
    joint = affinity + affinity.T
    for _ in range(500):
        joint /= np.sqrt(np.outer(joint.sum(1), joint.sum(1)))
    joint /= joint.sum()
    values, vectors = np.linalg.eigh(joint * points)
    counts = np.rint(joint * 4000).astype(int)
    rows_a, rows_b = (torch.tensor(np.repeat(side.ravel(), counts.ravel())) for side in np.indices(joint.shape))
    functions = torch.randn(points, length, generator=torch.Generator().manual_seed(0), requires_grad=True)
    optimizer = torch.optim.Adam([functions], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        neural_eigenmap_loss(functions[rows_a], functions[rows_b], alpha=2.0, ordered=False).backward()
        optimizer.step()
    found, _ = np.linalg.qr(functions.detach().double().numpy())
    overlap = np.linalg.svd(found.T @ vectors[:, ::-1][:, :length], compute_uv=False)
    assert values[-length] > values[-length - 1] + 0.01
    assert (overlap >= 0.99).all(), overlap


@pytest.mark.parametrize("name", LOSSES)
def test_a_configuration_names_its_objective(name: str) -> None:
    z_a, z_b = random_pair(6, 16, 4)
    loss = build_loss(load_config(None, [f"objective.name={name}"]).objective)
    z_a.requires_grad_()
    loss(z_a, z_b).backward()
    assert z_a.grad is not None
    assert torch.isfinite(z_a.grad).all()


@pytest.mark.parametrize("loss", [loss for loss, _ in PAIRS.values()])
@pytest.mark.parametrize(("shape_a", "shape_b"), [((4, 3), (4, 2)), ((1, 3), (1, 3)), ((4,), (4,))])
def test_wrong_shapes_are_refused(
    loss: Callable[[Tensor, Tensor], Tensor], shape_a: tuple[int, ...], shape_b: tuple[int, ...]
) -> None:
    with pytest.raises(ShapeError, match="positive pair"):
        loss(torch.zeros(shape_a), torch.zeros(shape_b))


@pytest.mark.parametrize("name", [name for name in PAIRS if "unordered" not in name])
def test_outputs_that_are_all_zero_give_finite_gradients(name: str) -> None:
    loss, _ = PAIRS[name]
    z_a = torch.zeros(6, 3, requires_grad=True)
    loss(z_a, torch.zeros(6, 3)).backward()
    assert z_a.grad is not None
    assert torch.isfinite(z_a.grad).all()
