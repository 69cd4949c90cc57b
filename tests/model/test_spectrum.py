"""The Rayleigh-Ritz step: streaming moments, the generalised eigenproblem, order and centring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from eigenlens.model.errors import ShapeError
from eigenlens.model.spectrum.lengths import effective_rank, suggest_lengths
from eigenlens.model.spectrum.moments import FOLDS, PairMoments
from eigenlens.model.spectrum.rayleigh_ritz import project_out, rayleigh_ritz, rayleigh_ritz_within
from tests.support.model_oracles import generalised_eigenvalues


def pairs(seed: int = 0, n: int = 4000, length: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixed latent functions with known correlation between views, plus an offset that centring must remove."""
    rng = np.random.default_rng(seed)
    strength = np.linspace(0.95, 0.2, length)
    common = rng.normal(size=(n, length)) * np.sqrt(strength)
    a, b = (common + rng.normal(size=(n, length)) * np.sqrt(1 - strength) for _ in range(2))
    mixing = rng.normal(size=(length, length))
    return torch.tensor(a @ mixing + 5.0), torch.tensor(b @ mixing + 5.0)


def moments_of(a: torch.Tensor, b: torch.Tensor, *, batch: int) -> PairMoments:
    moments = PairMoments(a.shape[1])
    for fold, i in enumerate(range(0, len(a), batch)):
        moments.update(a[i : i + batch], b[i : i + batch], fold=fold)
    return moments


def test_moments_do_not_depend_on_the_batches() -> None:
    a, b = pairs()
    whole, parts = moments_of(a, b, batch=len(a)), moments_of(a, b, batch=17)
    torch.testing.assert_close(whole.covariance, parts.covariance)
    torch.testing.assert_close(whole.cross_covariance, parts.cross_covariance)
    both = torch.cat([a, b]).numpy()
    np.testing.assert_allclose(whole.covariance, np.cov(both.T, bias=True), rtol=1e-8)


def test_eigenvalues_solve_the_generalised_problem_in_descending_order() -> None:
    moments = moments_of(*pairs(), batch=512)
    spectrum = rayleigh_ritz(moments, ridge=0.0)
    expected = generalised_eigenvalues(moments.cross_covariance.numpy(), moments.covariance.numpy())
    np.testing.assert_allclose(spectrum.eigenvalues, expected, atol=1e-9)
    np.testing.assert_allclose(spectrum.eigenvalues, np.linspace(0.95, 0.2, 6), atol=0.05)


def test_codes_are_centred_uncorrelated_and_scaled_by_their_eigenvalues() -> None:
    a, b = pairs()
    spectrum = rayleigh_ritz(moments_of(a, b, batch=512), ridge=0.0)
    weight, offset = spectrum.code_weights(2.0)
    codes = (torch.cat([a, b]) @ weight.T + offset).numpy()
    np.testing.assert_allclose(codes.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(codes.T @ codes / len(codes), np.diag(spectrum.eigenvalues.numpy() ** 4), atol=1e-8)


def test_rayleigh_ritz_within_a_span_is_that_of_its_functions() -> None:
    a, b = pairs()
    span = torch.tensor(np.random.default_rng(8).normal(size=(6, 4)))
    within = rayleigh_ritz_within(moments_of(a, b, batch=512), span, ridge=0.1)
    plain = rayleigh_ritz(moments_of(a @ span, b @ span, batch=512), ridge=0.1)
    torch.testing.assert_close(within.eigenvalues, plain.eigenvalues)
    torch.testing.assert_close(within.margins, plain.margins, rtol=1e-4, atol=1e-6)
    ours, theirs = (a - within.mean) @ within.directions, (a @ span - plain.mean) @ plain.directions
    torch.testing.assert_close(ours.abs(), theirs.abs(), rtol=1e-5, atol=1e-6)


def test_functions_without_the_leading_are_what_least_squares_leave() -> None:
    a, b = pairs()
    both = torch.cat([a, b]).numpy()
    leading, span = torch.eye(6, dtype=torch.float64)[:, :2], torch.eye(6, dtype=torch.float64)[:, 2:]
    left = project_out(moments_of(a, b, batch=512), span, leading)
    centred = both - both.mean(0)
    fitted, *_ = np.linalg.lstsq(centred[:, :2], centred[:, 2:], rcond=None)
    np.testing.assert_allclose(centred @ left.numpy(), centred[:, 2:] - centred[:, :2] @ fitted, atol=1e-6)


def test_leading_functions_are_not_scaled() -> None:
    a, b = pairs()
    spectrum = rayleigh_ritz(moments_of(a, b, batch=512), ridge=0.0)
    plain, _ = spectrum.code_weights(0.0)
    weight, _ = replace(spectrum, leading=2).code_weights(2.0)
    torch.testing.assert_close(weight[:2], plain[:2])
    torch.testing.assert_close(weight[2:], plain[2:] * spectrum.eigenvalues[2:, None] ** 2)


def test_the_offset_of_psi_does_not_matter() -> None:
    """Without centring, the constant function would be found first, with eigenvalue 1."""
    a, b = pairs()
    shifted = rayleigh_ritz(moments_of(a + 100, b + 100, batch=512), ridge=0.0)
    here = rayleigh_ritz(moments_of(a, b, batch=512), ridge=0.0)
    torch.testing.assert_close(shifted.eigenvalues, here.eigenvalues, atol=1e-6, rtol=0)


def test_the_ordering_is_the_mixings_inverse() -> None:
    """Recovered functions match the latent ones that were mixed: |correlation| near 1, in order."""
    rng = np.random.default_rng(3)
    strength = np.array([0.95, 0.7, 0.4])
    common = rng.normal(size=(20_000, 3)) * np.sqrt(strength)
    a, b = (common + rng.normal(size=common.shape) * np.sqrt(1 - strength) for _ in range(2))
    mixing = rng.normal(size=(3, 3))
    spectrum = rayleigh_ritz(moments_of(torch.tensor(a @ mixing), torch.tensor(b @ mixing), batch=1000), ridge=0.0)
    weight, offset = spectrum.code_weights(0.0)
    codes = (torch.tensor(a @ mixing) @ weight.T + offset).numpy()
    correlation = np.abs(np.corrcoef(codes.T, a.T)[:3, 3:])
    assert (np.diag(correlation) > 0.99).all(), correlation


def test_directions_that_psi_lacks_become_zero_coordinates() -> None:
    a, b = pairs(length=4)
    twice_a, twice_b = torch.cat([a, a], 1), torch.cat([b, b], 1)
    spectrum = rayleigh_ritz(moments_of(twice_a, twice_b, batch=512), ridge=0.0)
    single = rayleigh_ritz(moments_of(a, b, batch=512), ridge=0.0)
    np.testing.assert_allclose(spectrum.eigenvalues[:4], single.eigenvalues, atol=1e-6)
    np.testing.assert_allclose(spectrum.eigenvalues[4:], 0, atol=1e-9)
    weight, _ = spectrum.code_weights(1.0)
    assert not weight[4:].any()


def test_neighbours_are_as_many_pairs_in_the_folds_of_their_items() -> None:
    """Beside views that are there already; some items are nobody's neighbour, some are many's."""
    a, b = pairs()
    rng = np.random.default_rng(3)
    near, folds = rng.integers(0, len(a) // 2, (len(a), 7)), rng.integers(0, 2 * FOLDS, len(a))
    expected, found = moments_of(a, b, batch=512), moments_of(a, b, batch=512)
    for item, rows in enumerate(near):
        for row in rows:
            expected.update(a[item : item + 1], a[row : row + 1], fold=int(folds[item]), weight=0.3)
    found.update_neighbours(a, near, folds, weight=0.3)
    assert found.pairs == expected.pairs
    torch.testing.assert_close(found.covariance, expected.covariance)
    torch.testing.assert_close(found.cross_covariance, expected.cross_covariance)
    directions = torch.eye(6, dtype=torch.float64)
    for ours, theirs in zip(found.rayleigh_by_fold(directions), expected.rayleigh_by_fold(directions), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_wrong_shapes_and_too_few_pairs_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(n, 3\)"):
        PairMoments(3).update(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"\(n, 3\) and n rows"):
        PairMoments(3).update_neighbours(torch.zeros(2, 3), np.zeros((3, 1), int), np.zeros(3, int), weight=1.0)
    with pytest.raises(ShapeError, match="at least 2 pairs"):
        rayleigh_ritz(PairMoments(3), ridge=0.0)


def test_the_scale_of_a_coordinate_does_not_matter_even_with_a_ridge() -> None:
    a, b = pairs()
    scale = torch.tensor([0.01, 1.0, 3.0, 100.0, 7.0, 0.5], dtype=torch.float64)
    here = rayleigh_ritz(moments_of(a, b, batch=512), ridge=0.1)
    scaled = rayleigh_ritz(moments_of(a * scale, b * scale, batch=512), ridge=0.1)
    torch.testing.assert_close(scaled.eigenvalues, here.eigenvalues, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_a_unit_that_never_fires_changes_nothing(ridge: float) -> None:
    a, b = pairs()
    dead = torch.full((len(a), 2), 1e-3, dtype=torch.float64) + 1e-18 * torch.randn(len(a), 2, dtype=torch.float64)
    spectrum = rayleigh_ritz(moments_of(torch.cat([a, dead], 1), torch.cat([b, dead], 1), batch=512), ridge=ridge)
    here = rayleigh_ritz(moments_of(a, b, batch=512), ridge=ridge)
    torch.testing.assert_close(spectrum.eigenvalues[:6], here.eigenvalues, atol=1e-9, rtol=1e-9)
    assert not spectrum.directions[6:].abs().max() > 1e-6


def test_intervals_hold_the_true_eigenvalues_about_as_often_as_they_say() -> None:
    """Latent functions of known correlation, many small samples: 95 % of the intervals should hold it."""
    strength = np.array([0.9, 0.6, 0.3])
    held, trials = 0, 150
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=(1600, 3)) * np.sqrt(strength)
        a, b = (torch.tensor(common + rng.normal(size=common.shape) * np.sqrt(1 - strength)) for _ in range(2))
        found = rayleigh_ritz(moments_of(a, b, batch=1600 // FOLDS), ridge=0.0)
        held += int((np.abs(found.eigenvalues.numpy() - strength) <= found.margins.numpy()).sum())
    assert 0.90 <= held / (3 * trials) <= 0.98


def test_one_fold_tells_no_interval() -> None:
    moments = PairMoments(6)
    moments.update(*pairs())
    assert rayleigh_ritz(moments, ridge=0.0).margins.isnan().all()


def test_a_code_longer_than_the_functions_ends_in_zeros_and_a_shorter_one_is_cut() -> None:
    a, b = pairs()
    spectrum = rayleigh_ritz(moments_of(a, b, batch=512), ridge=0.0)
    whole, _ = spectrum.code_weights(1.0)
    longer, offset = spectrum.code_weights(1.0, code_length=8)
    assert torch.equal(longer[:6], whole)
    assert not longer[6:].any()
    assert not offset[6:].any()
    assert torch.equal(spectrum.code_weights(1.0, code_length=2)[0], whole[:2])


@pytest.mark.parametrize(
    ("eigenvalues", "time", "expected"),
    [
        ([1.0] * 64, 1.0, [16, 32, 64]),
        ([0.9**j for j in range(256)], 1.0, [4, 8, 16, 32, 64, 256]),
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0], 0.0, [4, 8]),
        ([0.9, -0.1], 2.0, [2]),
    ],
)
def test_the_menu_of_lengths_follows_the_energy(eigenvalues: list[float], time: float, expected: list[int]) -> None:
    assert suggest_lengths(eigenvalues, diffusion_time=time) == expected


def test_the_effective_rank_counts_directions() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(4000, 3)) @ np.linalg.qr(rng.normal(size=(8, 8)))[0][:3]
    assert effective_rank(torch.tensor(flat)) == pytest.approx(3, abs=0.05)
    assert effective_rank(torch.linspace(-1, 1, 32)[:, None] * torch.ones(1, 8)) == pytest.approx(1.0)
    assert effective_rank(torch.eye(8).repeat(4, 1)) == pytest.approx(7.0), "centring takes one direction"


def test_a_ridge_of_one_scale_is_the_mean_variance_in_every_direction() -> None:
    moments = moments_of(*pairs(), batch=512)
    found = rayleigh_ritz(moments, ridge=0.3, one_scale=True)
    c = moments.covariance.numpy()
    ridged = c + 0.3 * np.trace(c) / len(c) * np.eye(len(c))
    np.testing.assert_allclose(
        found.eigenvalues, generalised_eigenvalues(moments.cross_covariance.numpy(), ridged), atol=1e-9
    )
