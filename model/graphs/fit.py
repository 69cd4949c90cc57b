"""Codes of a graph's nodes in closed form: one generalised eigenproblem over their smoothed features."""

from __future__ import annotations

import math
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eigenlens.model.errors import ConfigError
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.node_features import (
    NodeFeatures,
    RandomFeatures,
    UnitFeatures,
    project,
    project_back,
    unit_rows,
)
from eigenlens.model.graphs.settings import GraphSettings
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.graphs.sparse import Floats
from eigenlens.model.spectrum.graph_moments import GraphMoments
from eigenlens.model.spectrum.lengths import time_of_dimension
from eigenlens.model.spectrum.moments import FOLDS
from eigenlens.model.spectrum.rayleigh_ritz import Spectrum, rayleigh_ritz

# The basis is found among so many more directions than it has, in so many products.
_OVERSAMPLING = 32
_BASIS_ROUNDS = 3
_ROWS = 1 << 13
_IN_MEMORY_BYTES = 1 << 28
_TINY = 1e-30
_LEAST_RIDGE = 0.5
# Share of the squares that is put down to rounding.
_SAME = 1e-10


@dataclass(frozen=True)
class GraphCodes:
    """The codes of a graph's nodes: S^hops X weightᵀ + offset or, with a basis, unit(S^hops X basis) weightᵀ + offset.

    Attributes:
        weight, offset: (code_length, p), or (code_length, basis_length) with a basis, and (code_length,), float64.
        spectrum: eigenvalues and their intervals.
        ridge, diffusion_time: rho and t, as they were settled.
        basis: (p, basis_length), float64: smoothed features are seen in it, and divided by their length there.
    """

    weight: NDArray[np.float64]
    offset: NDArray[np.float64]
    spectrum: Spectrum
    ridge: float
    diffusion_time: float
    basis: NDArray[np.float64] | None = None

    @property
    def projection(self) -> NDArray[np.float64]:
        """What features are projected by before they are smoothed, (p, columns)."""
        return self.weight.T if self.basis is None else self.basis

    def finish(self, smoothed: Floats) -> NDArray[np.float64]:
        """Return the codes of smoothed projections: (n, columns) to (n, code_length)."""
        if self.basis is None:
            return smoothed + self.offset
        return unit_rows(smoothed.astype(np.float64)) @ self.weight.T + self.offset

    @property
    def eigenvalues(self) -> NDArray[np.float64]:
        """(code_length,), descending."""
        values: NDArray[np.float64] = self.spectrum.eigenvalues.numpy()
        return values


def features_of(graph: Graph, settings: GraphSettings) -> NodeFeatures:
    """Return what codes of the graph's nodes are linear in. Raises: ConfigError, if it has no features."""
    if settings.structure_only:
        return RandomFeatures(graph, seed=settings.seed)
    return UnitFeatures(graph, dtype=np.dtype(settings.precision))


def fit_graph(graph: Graph, settings: GraphSettings, *, work: Path | None = None) -> GraphCodes:
    """Fit codes of nodes in closed form.

        F = S^k X V0, centred;   C = FᵀF / n,   R = HᵀH / n with H = S^(m/2) F
        R v = lambda (C + rho mean(diag C) I) v;   code_j = lambda_j^t v_jᵀ (F - mean) / sd_j

    V0 are the leading right singular vectors of S^k X, which is never formed; it is the identity where X has no more
    columns than the basis. With unit_functions, the rows of S^k X V0 are divided by their length first.

    Args:
        work: folder for F and H of a graph too large to hold them in memory.

    Raises: ConfigError, if the graph has no features and the settings need some, if nothing tells its nodes apart, if
        all are each other's neighbours, or if pair_hops is odd.
    """
    if graph.count == 1:
        raise ConfigError(f"{graph.name} has 1 node: codes tell nodes apart, and need at least 2")
    basis, moments = basis_and_moments(graph, settings, work=work)
    variance = float(moments.covariance.trace())
    if variance <= _SAME * (variance + float(moments.mean.square().sum())):
        raise ConfigError(f"smoothed features are the same for all nodes of {graph.name}: nothing tells them apart")
    spectrum = solve(moments, settings)
    if float(spectrum.eigenvalues.max()) <= _SAME:
        raise ConfigError(f"the edges of {graph.name} join all nodes alike, so that no code follows from them")
    time = diffusion_time_of(spectrum, settings)
    weight, offset = spectrum.code_weights(time)
    ridge = ridge_of(moments, settings)
    if settings.unit_functions:
        return GraphCodes(weight.numpy(), offset.numpy(), spectrum, ridge, time, basis=basis.astype(np.float64))
    weight = weight @ torch.from_numpy(basis.T.astype(np.float64))
    return GraphCodes(weight.numpy(), offset.numpy(), spectrum, ridge, time)


def ridge_of(moments: GraphMoments, settings: GraphSettings) -> float:
    """Return rho: that of the settings, or less where the variance of the functions spreads over many directions.

    Where few directions hold most of the variance, the mean is far below theirs, and rho is large to reach them.
    """
    if settings.ridge_share is None:
        return settings.ridge
    covariance = moments.covariance
    concentration = moments.length * float(covariance.square().sum() / covariance.trace().square())
    return min(settings.ridge, max(_LEAST_RIDGE, settings.ridge_share * concentration))


def diffusion_time_of(spectrum: Spectrum, settings: GraphSettings) -> float:
    """Return t: that of the settings, or a longer one that brings the code to its effective dimension."""
    if settings.effective_dimension is None:
        return settings.diffusion_time
    eigenvalues = spectrum.eigenvalues.tolist()
    return time_of_dimension(eigenvalues, dimension=settings.effective_dimension, least=settings.diffusion_time)


def basis_and_moments(
    graph: Graph, settings: GraphSettings, *, work: Path | None = None
) -> tuple[Floats, GraphMoments]:
    """Return V0, (p, basis_length), and the moments of F and H, which no ridge is in yet. Raises: as `fit_graph`."""
    if settings.pair_hops % 2:
        raise ConfigError(f"pair_hops is {settings.pair_hops}; it is even, each end of a pair gets one half")
    features, smoother = features_of(graph, settings), Smoother(graph, dtype=np.dtype(settings.precision))
    basis = leading_directions(features, smoother, settings)
    return basis, _moments(features, smoother, basis, settings, work)


def solve(moments: GraphMoments, settings: GraphSettings) -> Spectrum:
    """Return the functions of a code, ordered, of unit variance over the nodes."""
    spectrum = rayleigh_ritz(moments, ridge=ridge_of(moments, settings), one_scale=True)
    return _with_unit_variance(spectrum.first(min(settings.code_length, moments.length)), moments)


def leading_directions(features: NodeFeatures, smoother: Smoother, settings: GraphSettings) -> Floats:
    """Return V0, (p, basis_length): the leading right singular vectors of S^k X, by subspace iteration.

    Source: Halko, Martinsson and Tropp, Finding structure with randomness, SIAM Review 2011, algorithm 4.4.
    """
    columns = features.columns
    if columns <= settings.basis_length:
        return np.eye(columns, dtype=smoother.dtype)
    width = min(columns, settings.basis_length + _OVERSAMPLING)
    directions = np.linalg.qr(np.random.default_rng(settings.seed).standard_normal((columns, width)))[0]
    with tqdm(total=_BASIS_ROUNDS * width, desc="basis", unit="column") as bar:
        for last in (False,) * (_BASIS_ROUNDS - 1) + (True,):
            product = _gram_times(features, smoother, directions, settings.hops, bar)
            if last:  # Rayleigh-Ritz within the subspace: its leading directions
                _, rotation = np.linalg.eigh(directions.T @ product)
                directions = directions @ rotation[:, ::-1][:, : settings.basis_length]
            else:
                directions = np.linalg.qr(product)[0]
    return directions.astype(smoother.dtype)


def _gram_times(
    features: NodeFeatures, smoother: Smoother, directions: NDArray[np.float64], hops: int, bar: tqdm[Any]
) -> NDArray[np.float64]:
    """Return Xᵀ S^2k X W, (p, m), of directions W, some columns at a time."""
    product = np.empty_like(directions)
    for start in range(0, directions.shape[1], smoother.columns_at_once):
        part = directions[:, start : start + smoother.columns_at_once].astype(smoother.dtype)
        smoothed = smoother.smooth(project(features, part), 2 * hops)
        product[:, start : start + part.shape[1]] = project_back(features, smoothed)
        bar.update(part.shape[1])
    return product


def _moments(
    features: NodeFeatures, smoother: Smoother, basis: Floats, settings: GraphSettings, work: Path | None
) -> GraphMoments:
    """Sum the moments of F and H: both are computed by columns, and summed by rows."""
    count, length, half = features.count, basis.shape[1], settings.pair_hops // 2
    step = smoother.columns_at_once
    mean = np.empty(length)
    with ExitStack() as stack, tqdm(total=length, desc="functions", unit="column") as bar:
        store = _Store(2 * count * length * smoother.dtype.itemsize, smoother.dtype, work, stack)
        functions, smoothed = [], []
        squares = np.zeros((count, 1))

        def smooth_again(part: Floats, start: int) -> None:
            mean[start : start + step] = part.mean(0, dtype=np.float64)
            smoothed.append(store.keep(smoother.smooth(part, half)))
            bar.update(part.shape[1])

        for start in range(0, length, step):
            part = smoother.smooth(project(features, basis[:, start : start + step]), settings.hops)
            functions.append(store.keep(part))
            if settings.unit_functions:
                squares += np.square(part, dtype=np.float64).sum(axis=1, keepdims=True)
            else:
                smooth_again(part, start)
        if settings.unit_functions:  # a length needs all columns
            lengths = np.sqrt(np.where(squares > 0, squares, 1)).astype(smoother.dtype)
            for start, kept in zip(range(0, length, step), functions, strict=True):
                kept /= lengths
                smooth_again(kept.copy(), start)
        # The mean is subtracted before smoothing: S^(m/2) (F - 1 meanᵀ) = S^(m/2) F - (S^(m/2) 1) meanᵀ.
        constant = smoother.smooth(np.ones((count, 1), dtype=smoother.dtype), half).astype(np.float64)
        moments = GraphMoments(length, mean=torch.from_numpy(mean))
        rows = min(_ROWS, math.ceil(count / FOLDS))
        for fold, start in enumerate(range(0, count, rows)):
            nodes = slice(start, start + rows)
            f = np.concatenate([part[nodes] for part in functions], axis=1) - mean
            h = np.concatenate([part[nodes] for part in smoothed], axis=1) - constant[nodes] * mean
            moments.update(torch.from_numpy(f), torch.from_numpy(h), fold=fold)
        return moments


class _Store:
    """Keeps arrays in memory or, where they are large together, in files that are gone afterwards."""

    def __init__(self, size: int, dtype: np.dtype[Any], work: Path | None, stack: ExitStack) -> None:
        self._directory: Path | None = None
        self._dtype, self._kept = dtype, 0
        if size > _IN_MEMORY_BYTES:
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=work, prefix=".functions-")))

    def keep(self, values: Floats) -> Floats:
        """Return a copy that stays as it is."""
        if self._directory is None:
            return values.copy()
        self._kept += 1
        path = self._directory / str(self._kept)
        values.tofile(path)
        return np.memmap(path, dtype=self._dtype, mode="r+", shape=values.shape)


def _with_unit_variance(spectrum: Spectrum, moments: GraphMoments) -> Spectrum:
    """Scale each function to unit variance over the nodes; the ridge counts in none of them."""
    variance = ((moments.covariance @ spectrum.directions) * spectrum.directions).sum(0)
    scale: Tensor = torch.where(variance > _TINY, variance.clamp_min(_TINY).rsqrt(), 0.0)
    return Spectrum(spectrum.eigenvalues, spectrum.directions * scale, spectrum.mean, spectrum.margins)
