"""The Neural Eigenmap objective: against a slow reference, its asymmetry, its invariances, and its minimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eigenlens.model.errors import ShapeError
from eigenlens.model.losses.neural_eigenmap import neural_eigenmap_loss
from tests.support.model_oracles import neural_eigenmap_reference


def random_pair(seed: int, n: int, length: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, length))
    a, b = (common + 0.5 * rng.normal(size=(n, length)) for _ in range(2))
    return torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)


def gradients(alpha: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    z_a, z_b = (z.requires_grad_() for z in random_pair(seed, 32, 6))
    neural_eigenmap_loss(z_a, z_b, alpha=alpha).backward()
    assert z_a.grad is not None
    assert z_b.grad is not None
    return z_a.grad, z_b.grad


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 20), length=st.integers(1, 8), alpha=st.floats(0, 10))
def test_the_loss_is_the_papers(seed: int, n: int, length: int, alpha: float) -> None:
    z_a, z_b = random_pair(seed, n, length)
    expected, _ = neural_eigenmap_reference(z_a.double().numpy(), z_b.double().numpy(), alpha=alpha)
    assert neural_eigenmap_loss(z_a, z_b, alpha=alpha).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 4.0])
def test_the_gradient_is_that_of_the_reference_with_its_constants_held(alpha: float) -> None:
    """Finite differences of the float64 reference, in which the stopped psi_i is a constant."""
    z_a, z_b = random_pair(3, 7, 4)
    a, b = z_a.double().numpy(), z_b.double().numpy()
    _, held = neural_eigenmap_reference(a, b, alpha=alpha)
    z_a.requires_grad_()
    neural_eigenmap_loss(z_a, z_b, alpha=alpha).backward()
    assert z_a.grad is not None
    step = 1e-6
    for row, column in np.ndindex(*a.shape):
        nudge = np.zeros_like(a)
        nudge[row, column] = step
        up, _ = neural_eigenmap_reference(a + nudge, b, alpha=alpha, held=held)
        down, _ = neural_eigenmap_reference(a - nudge, b, alpha=alpha, held=held)
        assert z_a.grad[row, column].item() == pytest.approx((up - down) / (2 * step), rel=1e-3, abs=1e-5)


def test_the_penalty_never_moves_the_first_coordinate() -> None:
    for without, with_penalty in zip(gradients(alpha=0.0), gradients(alpha=5.0), strict=True):
        torch.testing.assert_close(with_penalty[:, 0], without[:, 0])
        assert not torch.allclose(with_penalty[:, 1:], without[:, 1:])


def test_a_later_coordinate_never_moves_an_earlier_one() -> None:
    z_a, z_b = random_pair(5, 16, 4)
    changed = z_b.clone()
    changed[:, 3] = torch.randn(16, generator=torch.Generator().manual_seed(1))

    def gradient(b: Tensor) -> Tensor:
        a = z_a.clone().requires_grad_()
        neural_eigenmap_loss(a, b, alpha=2.0).backward()
        assert a.grad is not None
        return a.grad

    torch.testing.assert_close(gradient(z_b)[:, :3], gradient(changed)[:, :3])


def test_the_scale_of_a_coordinate_does_not_matter() -> None:
    z_a, z_b = random_pair(1, 24, 5)
    scale = torch.tensor([0.01, 1.0, 3.0, 100.0, 7.0])
    expected = neural_eigenmap_loss(z_a, z_b, alpha=0.5)
    torch.testing.assert_close(neural_eigenmap_loss(z_a * scale, z_b * scale, alpha=0.5), expected)


def test_the_views_may_be_swapped() -> None:
    z_a, z_b = random_pair(2, 24, 5)
    torch.testing.assert_close(neural_eigenmap_loss(z_a, z_b, alpha=0.5), neural_eigenmap_loss(z_b, z_a, alpha=0.5))


def test_a_coordinate_that_is_always_zero_gives_finite_gradients() -> None:
    z_a, z_b = (z * torch.tensor([1.0, 0.0, 1.0]) for z in random_pair(4, 8, 3))
    z_a.requires_grad_()
    neural_eigenmap_loss(z_a, z_b, alpha=1.0).backward()
    assert z_a.grad is not None
    assert torch.isfinite(z_a.grad).all()


def test_its_minimum_is_the_ordered_eigenfunctions_of_a_known_kernel() -> None:
    """Free functions on 12 points: the joint density of pairs is known, and so are its eigenfunctions by eigh."""
    points, length = 12, 4
    rng = np.random.default_rng(0)
    affinity = rng.uniform(size=(points, points)) ** 4 + 3 * np.eye(points)
    joint = affinity + affinity.T
    joint /= joint.sum()
    marginal = joint.sum(1)
    kernel = joint / np.sqrt(np.outer(marginal, marginal))
    _, vectors = np.linalg.eigh(kernel)
    exact = vectors[:, ::-1][:, :length] / np.sqrt(marginal)[:, None]

    counts = np.rint(joint * 20_000).astype(int)
    rows_a, rows_b = (torch.tensor(np.repeat(side.ravel(), counts.ravel())) for side in np.indices(joint.shape))
    functions = torch.randn(points, length, generator=torch.Generator().manual_seed(0), requires_grad=True)
    optimizer = torch.optim.Adam([functions], lr=0.05)
    for _ in range(800):
        optimizer.zero_grad()
        neural_eigenmap_loss(functions[rows_a], functions[rows_b], alpha=2.0).backward()
        optimizer.step()

    found = functions.detach().double().numpy()
    found /= np.sqrt((marginal[:, None] * found**2).sum(0))
    overlap = np.abs((marginal[:, None] * found * exact).sum(0))
    assert (overlap >= 0.99).all(), overlap


@pytest.mark.parametrize(("shape_a", "shape_b"), [((4, 3), (4, 2)), ((1, 3), (1, 3)), ((4,), (4,))])
def test_wrong_shapes_are_refused(shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="positive pair"):
        neural_eigenmap_loss(torch.zeros(shape_a), torch.zeros(shape_b), alpha=1.0)
