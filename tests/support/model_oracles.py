"""Slow, obvious float64 references for the model package; they share no code with what they check."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def neural_eigenmap_reference(
    z_a: Array, z_b: Array, *, alpha: float, held: tuple[Array, Array] | None = None
) -> tuple[float, tuple[Array, Array]]:
    """The ordered objective by plain loops, and the normalised views; `held` is what the stop-gradient holds fixed."""
    n, length = z_a.shape
    psi_a, psi_b = np.zeros_like(z_a), np.zeros_like(z_b)
    for j in range(length):
        moment = sum(z_a[i, j] ** 2 + z_b[i, j] ** 2 for i in range(n)) / (2 * n)
        psi_a[:, j], psi_b[:, j] = z_a[:, j] / np.sqrt(moment), z_b[:, j] / np.sqrt(moment)
    stop_a, stop_b = held if held is not None else (psi_a, psi_b)
    total = 0.0
    for j in range(length):
        total -= sum(psi_a[i, j] * psi_b[i, j] for i in range(n)) / n
        for lower in range(j):
            r_ab = sum(stop_a[i, lower] * psi_b[i, j] for i in range(n)) / n
            r_ba = sum(stop_b[i, lower] * psi_a[i, j] for i in range(n)) / n
            total += alpha * (r_ab**2 + r_ba**2) / 2
    return total, (psi_a, psi_b)


def generalised_eigenvalues(cross: Array, covariance: Array) -> Array:
    """Eigenvalues of C^-1 R, descending, by the textbook route."""
    return np.sort(np.linalg.eigvals(np.linalg.solve(covariance, cross)).real)[::-1]


def _unit_rows(z: Array, radius: float) -> Array:
    return np.array([radius * row / np.sqrt(sum(x * x for x in row)) for row in z])


def spectral_contrastive_reference(z_a: Array, z_b: Array, *, radius: float) -> float:
    """-2 E f(a).f(b) + E (f(a).f(b'))^2 over distinct images, by plain loops."""
    a, b = _unit_rows(z_a, radius), _unit_rows(z_b, radius)
    n = len(a)
    positive = sum(float(a[i] @ b[i]) for i in range(n)) / n
    others = sum(float(a[i] @ b[k]) ** 2 for i in range(n) for k in range(n) if i != k) / (n * (n - 1))
    return float(others - 2 * positive)


def nested_reference(z_a: Array, z_b: Array, *, radius: float) -> float:
    """The mean over prefixes of the spectral contrastive loss of the prefix, norms being those of the whole rows."""
    a, b = _unit_rows(z_a, radius), _unit_rows(z_b, radius)
    n, length = a.shape
    total = 0.0
    for cut in range(1, length + 1):
        total -= 2 * sum(float(a[i, :cut] @ b[i, :cut]) for i in range(n)) / n
        total += sum(float(a[i, :cut] @ b[k, :cut]) ** 2 for i in range(n) for k in range(n) if i != k) / (n * (n - 1))
    return float(total / length)


def barlow_twins_reference(z_a: Array, z_b: Array, *, redundancy: float) -> float:
    """Cross-correlation against the identity, by plain loops."""
    a, b = ((z - z.mean(0)) / z.std(0) for z in (z_a, z_b))
    n, length = a.shape
    total = 0.0
    for i in range(length):
        for j in range(length):
            c = sum(a[r, i] * b[r, j] for r in range(n)) / n
            total += (1 - c) ** 2 if i == j else redundancy * c**2
    return total


def simclr_reference(z_a: Array, z_b: Array, *, temperature: float) -> float:
    """The mean over all views of the cross-entropy of picking the partner."""
    views = _unit_rows(np.concatenate([z_a, z_b]), 1.0)
    n, total = len(z_a), 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        weights = [np.exp(views[i] @ views[k] / temperature) for k in range(2 * n) if k != i]
        total -= np.log(np.exp(views[i] @ views[partner] / temperature) / sum(weights))
    return float(total / (2 * n))


def vicreg_reference(z_a: Array, z_b: Array, *, invariance: float, variance: float, covariance: float) -> float:
    """Invariance, variance and covariance terms as the authors weigh them."""
    n, length = z_a.shape
    total = invariance * sum(float(x) for x in ((z_a - z_b) ** 2).ravel()) / (n * length)
    for z in (z_a, z_b):
        cov = np.atleast_2d(np.cov(z.T))
        spread = sum(max(0.0, 1 - np.sqrt(cov[j, j] + 1e-4)) for j in range(length)) / length / 2
        off = sum(cov[i, j] ** 2 for i in range(length) for j in range(length) if i != j) / length
        total += variance * spread + covariance * off
    return float(total)


def neural_eigenmap_by_sample_reference(z_a: Array, z_b: Array, *, alpha: float) -> float:
    """The objective with every row of psi at the norm sqrt(code_length)."""
    n, length = z_a.shape
    a, b = _unit_rows(z_a, length**0.5), _unit_rows(z_b, length**0.5)
    total = 0.0
    for j in range(length):
        total -= sum(a[r, j] * b[r, j] for r in range(n)) / n
        for i in range(j):
            r_ab = sum(a[r, i] * b[r, j] for r in range(n)) / n
            r_ba = sum(b[r, i] * a[r, j] for r in range(n)) / n
            total += alpha * (r_ab**2 + r_ba**2) / 2
    return total
