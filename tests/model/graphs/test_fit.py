"""Codes of nodes in closed form: against dense linear algebra, on graphs whose classes are known, and end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg
from numpy.typing import NDArray

from eigenlens.command import main
from eigenlens.model.errors import ConfigError, EncoderError
from eigenlens.model.graphs import fit, node_features, smoothing
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.codes import codes_of_nodes
from eigenlens.model.graphs.fit import GraphCodes, features_of, fit_graph
from eigenlens.model.graphs.node_features import RandomFeatures
from eigenlens.model.graphs.publish import publish_graph_encoder
from eigenlens.model.graphs.settings import PRESETS, GraphSettings
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.runtime.feature_encoder import FeatureEncoder
from tests.support.graphs import block_graph, imported, save_graph, smoothing_matrix, unit_features

SETTINGS = GraphSettings(hops=1, pair_hops=2, ridge=0.5, diffusion_time=1.5, precision="float64")


def all_codes(graph: Graph, settings: GraphSettings, codes: GraphCodes) -> NDArray[np.float32]:
    features, smoother = features_of(graph, settings), Smoother(graph, dtype=np.float64)
    return codes_of_nodes(features, smoother, codes, hops=settings.hops)


@pytest.mark.parametrize(("small_blocks", "unit"), [(False, False), (True, False), (False, True), (True, True)])
def test_the_fit_solves_the_regularised_problem(
    small_blocks: bool, unit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_blocks:  # many blocks of everything, and functions on disk
        monkeypatch.setattr(node_features, "_ROWS", 7)
        monkeypatch.setattr(smoothing, "_ENTRIES_PER_BLOCK", 30)
        monkeypatch.setattr(smoothing, "_BYTES", 0)
        monkeypatch.setattr(smoothing, "_COLUMNS", 3)
        monkeypatch.setattr(fit, "_IN_MEMORY_BYTES", 0)
    graph = imported(tmp_path / "graph", block_graph())
    settings = replace(SETTINGS, unit_functions=unit)
    codes = fit_graph(graph, settings, work=tmp_path)
    matrix = smoothing_matrix(graph)
    functions = matrix @ unit_features(graph)
    if unit:
        functions /= np.linalg.norm(functions, axis=1, keepdims=True)
    functions = functions - functions.mean(0)
    covariance, smoothed = functions.T @ functions / graph.count, matrix @ functions
    cross, length = smoothed.T @ smoothed / graph.count, functions.shape[1]
    regularised = covariance + 0.5 * np.trace(covariance) / length * np.eye(length)
    values, vectors = np.linalg.eig(np.linalg.solve(regularised, cross))
    order = np.argsort(-values.real)
    np.testing.assert_allclose(codes.eigenvalues, values.real[order], atol=1e-10)
    # code_j = lambda_j^t times the function, scaled to unit variance; the sign is free.
    expected = functions @ vectors.real[:, order]
    expected *= values.real[order] ** 1.5 / expected.std(0)
    actual = all_codes(graph, settings, codes)
    np.testing.assert_allclose(np.abs(actual), np.abs(expected), atol=1e-5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["graph"]


def test_without_a_ridge_a_full_basis_finds_the_eigenfunctions_of_the_graph(tmp_path: Path) -> None:
    arrays = block_graph(count=60) | {"x": np.eye(60)}
    path = np.stack([np.arange(59), np.arange(1, 60)])  # connected: eigsh misses eigenvalues that are there many times
    arrays["edge_index"] = np.concatenate([arrays["edge_index"], path], axis=1)
    graph = imported(tmp_path / "graph", arrays)
    settings = replace(SETTINGS, hops=0, ridge=0.0, code_length=12)
    found = fit_graph(graph, settings).eigenvalues
    matrix, centre = smoothing_matrix(graph), np.eye(60) - 1 / 60
    operator = centre @ matrix @ matrix @ centre
    expected = scipy.sparse.linalg.eigsh(operator, k=12, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(found, np.sort(expected)[::-1], atol=1e-8)


def test_moments_in_single_precision_agree_with_those_in_double(tmp_path: Path) -> None:
    graph = imported(tmp_path / "graph", block_graph())
    moments = []
    for precision in ("float32", "float64"):
        settings = replace(SETTINGS, precision=precision)
        smoother = Smoother(graph, dtype=np.dtype(precision))
        basis = np.eye(graph.feature_count, dtype=precision)
        moments.append(fit._moments(features_of(graph, settings), smoother, basis, settings, None))
    for name in ("covariance", "cross_covariance"):
        single, double = (getattr(m, name).numpy() for m in moments)
        assert np.abs(single - double).max() <= 1e-6 * np.abs(double).max(), name


def test_a_basis_keeps_the_leading_directions_of_the_smoothed_features(tmp_path: Path) -> None:
    graph = imported(tmp_path / "graph", block_graph(features=60))
    settings = replace(SETTINGS, basis_length=8)
    basis = fit.leading_directions(features_of(graph, settings), Smoother(graph, dtype=np.float64), settings)
    smoothed = smoothing_matrix(graph) @ unit_features(graph)
    leading = np.linalg.svd(smoothed)[2][:8].T
    overlaps = np.linalg.svd(leading.T @ basis, compute_uv=False)
    assert overlaps[0] <= 1 + 1e-9
    assert overlaps[:4].min() > 0.999
    assert overlaps.min() > 0.9


@pytest.mark.parametrize("preset", PRESETS)
def test_codes_find_the_classes_that_no_one_named(preset: str, tmp_path: Path) -> None:
    graph = imported(tmp_path / "graph", block_graph())
    codes = all_codes(graph, PRESETS[preset], fit_graph(graph, PRESETS[preset]))[:, :2]
    assert graph.labels is not None
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -1)
    nearest = np.argsort(-scores, axis=1)[:, :5]
    assert (graph.labels[nearest] == graph.labels[:, None]).mean() > 0.85


def test_intervals_hold_the_eigenvalues_of_another_graph_of_the_same_kind(tmp_path: Path) -> None:
    first, second = (imported(tmp_path / str(s), block_graph(s, count=600)) for s in (1, 2))
    spectrum, other = (fit_graph(graph, SETTINGS).spectrum for graph in (first, second))
    difference = (spectrum.eigenvalues[:2] - other.eigenvalues[:2]).abs()
    assert bool((difference < 2 * spectrum.margins[:2]).all())
    assert bool((spectrum.margins[:2] < 0.3).all())


def test_a_graph_without_features_is_told_its_preset(tmp_path: Path) -> None:
    arrays = block_graph()
    del arrays["x"]
    with pytest.raises(ConfigError, match="--preset structure-only"):
        fit_graph(imported(tmp_path / "graph", arrays), SETTINGS)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e20, 1e35])
def test_features_of_any_scale_give_the_same_encoder(scale: float, tmp_path: Path) -> None:
    """Squares of these leave single precision; the length of a node's features does not."""
    arrays = block_graph()
    expected = fit_graph(imported(tmp_path / "graph", arrays), SETTINGS)
    scaled = imported(tmp_path / "scaled", arrays | {"x": (arrays["x"] * scale).astype(np.float32)})
    codes = fit_graph(scaled, SETTINGS)
    np.testing.assert_allclose(codes.eigenvalues, expected.eigenvalues, rtol=1e-4, atol=1e-6)
    publish_graph_encoder(codes, tmp_path / "encoder", graph=scaled, settings=SETTINGS)
    features = scaled.features(0, 5)
    assert isinstance(features, np.ndarray)
    unit = unit_features(scaled)[:5]
    actual = FeatureEncoder(tmp_path / "encoder").encode(features)
    np.testing.assert_allclose(actual, unit @ codes.weight.T + codes.offset, rtol=1e-3, atol=1e-4)


def test_a_graph_whose_nodes_nothing_tells_apart_is_not_fitted(tmp_path: Path) -> None:
    ring = np.stack([np.arange(40), (np.arange(40) + 1) % 40])
    for name, x in (("zeros", np.zeros((40, 3))), ("alike", np.full((40, 3), 0.3))):
        graph = imported(tmp_path / name, {"edge_index": ring, "x": x})
        with pytest.raises(ConfigError, match="features are the same for all nodes"):
            fit_graph(graph, PRESETS["smooth"])
    complete = np.stack(np.triu_indices(12, 1))
    graph = imported(tmp_path / "complete", {"edge_index": complete, "x": np.eye(12)})
    with pytest.raises(ConfigError, match="edges of graph join all nodes alike"):
        fit_graph(graph, PRESETS["features-only"])
    one = imported(tmp_path / "one", {"edge_index": np.zeros((2, 0), dtype=int), "x": np.ones((1, 3))})
    with pytest.raises(ConfigError, match="has 1 node"):
        fit_graph(one, PRESETS["smooth"])


def test_the_time_is_longer_where_more_coordinates_than_asked_for_would_count(tmp_path: Path) -> None:
    graph = imported(tmp_path / "graph", block_graph())
    settings = replace(SETTINGS, diffusion_time=0.2)
    plain, ample, fewer = (
        fit_graph(graph, replace(settings, effective_dimension=dimension)) for dimension in (None, 20.0, 3.0)
    )
    assert plain.diffusion_time == ample.diffusion_time == 0.2
    assert fewer.diffusion_time > 0.2
    variances = all_codes(graph, settings, fewer).var(0, dtype=np.float64)
    assert variances.sum() ** 2 / np.square(variances).sum() == pytest.approx(3.0, abs=1e-3)
    longer = fewer.diffusion_time - plain.diffusion_time
    np.testing.assert_allclose(fewer.weight, plain.weight * plain.eigenvalues[:, None] ** longer, atol=1e-9)


def test_the_ridge_is_less_where_the_variance_spreads_over_many_directions(tmp_path: Path) -> None:
    settings = replace(SETTINGS, ridge=3.0, ridge_share=0.7, hops=0)
    graph = imported(tmp_path / "graph", block_graph())
    values = np.linalg.eigvalsh(np.cov(unit_features(graph).T))
    expected = 0.7 * len(values) * np.square(values).sum() / values.sum() ** 2
    assert 0.5 < expected < 3.0
    assert fit_graph(graph, settings).ridge == pytest.approx(expected)
    x = np.random.default_rng(0).normal(size=(120, 20)) * np.r_[10.0, np.ones(19)]
    concentrated = imported(tmp_path / "concentrated", block_graph() | {"x": x})
    assert fit_graph(concentrated, settings).ridge == 3.0
    assert fit_graph(graph, replace(settings, ridge_share=1e-3)).ridge == 0.5
    assert fit_graph(graph, replace(settings, ridge_share=None)).ridge == 3.0


def test_random_features_are_drawn_once_for_all_parts_of_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_features, "_ROWS", 16)
    graph = imported(tmp_path / "graph", block_graph())
    whole = RandomFeatures(graph, columns=3).rows(0, graph.count)
    draw, draws = np.random.default_rng, []

    def counted(seed: list[int]) -> np.random.Generator:
        draws.append(seed)
        return draw(seed)

    monkeypatch.setattr(np.random, "default_rng", counted)
    features = RandomFeatures(graph, columns=3)
    parts = [np.array(features.rows(start, min(start + 2, graph.count))) for start in range(0, graph.count, 2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(draws) == -(-graph.count // 16)


@pytest.mark.parametrize("preset", ["smooth", "smooth-unit", "structure-only"])
def test_the_command_publishes_an_encoder_that_agrees_with_the_fit(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_graph(tmp_path / "graph.npz")
    arguments = ["fit", "--graph", str(tmp_path / "graph.npz"), "--preset", preset, "--work", str(tmp_path / "work")]
    assert main([*arguments, "--out", str(tmp_path / "encoder")]) == 0
    assert "every edge is listed in one direction" in capsys.readouterr().err
    (imported_graph,) = (tmp_path / "work").glob("graph-*")
    graph, encoder = Graph(imported_graph), FeatureEncoder(tmp_path / "encoder")
    settings = PRESETS[preset]
    codes = fit_graph(graph, settings)
    assert (encoder.features, encoder.hops) == (120 if settings.structure_only else 20, settings.hops)
    np.testing.assert_allclose(encoder.eigenvalues, codes.eigenvalues, atol=1e-6)
    features = features_of(graph, settings).rows(0, graph.count)
    assert isinstance(features, np.ndarray)
    projected = features @ codes.projection
    assert np.abs(encoder.project(features) - projected).max() <= 1e-4 * np.abs(projected).max()
    smoothed = Smoother(graph).smooth(encoder.project(features), settings.hops)
    expected = all_codes(graph, settings, codes)
    assert np.abs(encoder.finish(smoothed) - expected).max() <= 1e-4 * np.abs(expected).max()
    with pytest.raises(EncoderError, match="is an encoder of features, and images are to be encoded"):
        Encoder(tmp_path / "encoder")
    # The graph is imported once.
    before = imported_graph.stat().st_mtime_ns
    assert main([*arguments, "--out", str(tmp_path / "again")]) == 0
    assert imported_graph.stat().st_mtime_ns == before
