"""Training on the nodes of a graph: pairs, the run and its resumption, the encoder, and a gallery of its codes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from eigenlens import artifact
from eigenlens.command import main
from eigenlens.model.commands.fit_graph import open_graph
from eigenlens.model.config import NodePairsConfig, SpectrumConfig, load_config
from eigenlens.model.errors import ConfigError, TrainingError
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.node_features import UnitFeatures
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.graphs.trained.inputs import NodeInputs
from eigenlens.model.graphs.trained.pairs import NodePairs
from eigenlens.model.graphs.trained.publish import publish_trained_encoder, trained_codes
from eigenlens.model.graphs.trained.run import node_inputs
from eigenlens.model.pairs.source import rng_for
from eigenlens.model.runtime.feature_encoder import FeatureEncoder
from eigenlens.model.training.run import Run
from tests.support.graphs import block_graph, imported, save_graph, smoothing_matrix, unit_features

CPU = torch.device("cpu")
QUICK = ["--set", "steps=20", "--set", "code_length=8", "--set", "spectrum.views=2", "--device", "cpu"]


def inputs_of(graph: Graph, path: Path) -> NodeInputs:
    basis = np.eye(graph.feature_count, dtype=np.float32)
    return NodeInputs(UnitFeatures(graph), Smoother(graph), basis, hops=1, length=30, path=path)


def test_inputs_are_smoothed_features_centred_and_at_one_scale(tmp_path: Path) -> None:
    graph = imported(tmp_path / "graph", block_graph())
    inputs = inputs_of(graph, tmp_path / "inputs").rows(np.arange(graph.count))
    expected = smoothing_matrix(graph) @ unit_features(graph)
    expected -= expected.mean(0)
    np.testing.assert_allclose(inputs[:, :20], expected / expected.var(0).mean() ** 0.5, atol=1e-5)
    assert not inputs[:, 20:].any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nodes_that_are_all_alike_are_refused(value: float, tmp_path: Path) -> None:
    arrays = block_graph(count=40, features=5)
    ring = np.stack([np.arange(40), (np.arange(40) + 1) % 40])
    graph = imported(tmp_path / "graph", arrays | {"x": np.full((40, 5), value), "edge_index": ring})
    with pytest.raises(ConfigError, match="the same for all nodes"):
        inputs_of(graph, tmp_path / "inputs")


def test_a_pair_is_where_a_walk_begins_and_ends_with_noise_on_both(tmp_path: Path) -> None:
    arrays = block_graph() | {"edge_index": np.array([[0, 0, 7], [1, 2, 8]])}
    graph = imported(tmp_path / "graph", arrays)
    inputs = inputs_of(graph, tmp_path / "inputs")
    rows = np.array([0, 1, 5] * 600)
    exact = inputs.rows(np.arange(graph.count))

    def partners(steps: int) -> dict[int, Counter[int]]:
        pairs = NodePairs(graph, inputs, NodePairsConfig(steps=steps, noise=0.0), device=CPU)
        a, b = pairs.draw(rows, rng_for(0, "pairs", 1))
        np.testing.assert_array_equal(a.numpy(), exact[rows])
        ends = [int(np.abs(exact - row).sum(1).argmin()) for row in b.numpy()]
        return {start: Counter(np.array(ends)[rows == start].tolist()) for start in (0, 1, 5)}

    one = partners(1)
    assert set(one[0]) == {0, 1, 2}
    assert min(one[0].values()) > 150  # a third each
    assert set(one[1]) == {0, 1}
    assert set(one[5]) == {5}  # without edges it stays
    assert set(partners(2)[1]) == {0, 1, 2}
    noisy = NodePairs(graph, inputs, NodePairsConfig(noise=4.0), device=CPU)
    a, b = (part.numpy() for part in noisy.draw(np.repeat(5, 2000), rng_for(0, "pairs", 1)))
    for part in (a, b):
        np.testing.assert_allclose((part - exact[5])[:, :20].std(), 2.0, rtol=0.02)
        assert not part[:, 20:].any()
    assert abs(np.corrcoef((a - exact[5])[:, :20].ravel(), (b - exact[5])[:, :20].ravel())[0, 1]) < 0.02


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph, a run on it and its encoder."""
    root = tmp_path_factory.mktemp("trained")
    save_graph(root / "graph.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)  # a picture takes longer than the rest
        assert main(["train", "--graph", str(root / "graph.npz"), "--out", str(root / "run"), *QUICK]) == 0
    assert main(["export", str(root / "run"), "--out", str(root / "encoder"), "--device", "cpu"]) == 0
    return root


def test_the_basis_of_nodes_is_that_of_their_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = trained / "other"
    assert main(["export", str(trained / "run"), "--basis", "projector", "--out", str(out)]) == 1
    assert "--basis is for images" in capsys.readouterr().err
    assert not out.exists()


def test_the_encoder_tells_the_settings_that_the_run_left_open(trained: Path) -> None:
    run = Run(trained / "run")
    spectrum = SpectrumConfig(leading=0, basis="projector", neighbours=0)
    run.config = run.config.model_copy(update={"spectrum": spectrum})
    published = publish_trained_encoder(run, open_graph(run.graph, run.cache), trained / "open", device=CPU)
    assert published.properties["training"]["spectrum"]["ridge"] == 1.0


def test_a_trained_code_finds_the_classes_that_no_one_named(trained: Path) -> None:
    run = Run(trained / "run")
    graph = open_graph(run.graph, run.cache)
    codes = trained_codes(run, graph, device=CPU).of_all_nodes()[:, :2]
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -1)
    nearest = np.argsort(-scores, axis=1)[:, :5]
    assert graph.labels is not None
    assert (graph.labels[nearest] == graph.labels[:, None]).mean() > 0.85
    assert json.loads((trained / "run/summary.json").read_text())["images"] == graph.count


def test_the_encoder_computes_what_torch_does(trained: Path) -> None:
    run, encoder = Run(trained / "run"), FeatureEncoder(trained / "encoder")
    graph = open_graph(run.graph, run.cache)
    codes = trained_codes(run, graph, device=CPU)
    smoothed = Smoother(graph).smooth(encoder.project(unit_features(graph)), encoder.hops)
    expected = codes.of_all_nodes()
    assert np.abs(encoder.finish(smoothed) - expected).max() < 1e-4 * np.abs(expected).max()
    # Layer by layer in torch, with batch normalisation and the scale of the inputs as modules.
    network = run.load_network()[1].eval()
    inputs = torch.from_numpy(node_inputs(run, graph).rows(np.arange(graph.count)))
    with torch.inference_mode():
        psi = network(inputs).double()
    weight, offset = codes.spectrum.code_weights(run.config.spectrum.diffusion_time)
    np.testing.assert_allclose(expected, psi @ weight.T + offset, atol=1e-4 * np.abs(expected).max())
    # A node without edges: nothing to smooth.
    features = unit_features(graph)[:3]
    np.testing.assert_allclose(encoder.encode(features), encoder.finish(encoder.project(features)), atol=1e-5)


def test_a_gallery_is_built_from_a_trained_encoder(trained: Path) -> None:
    graph, gallery = str(trained / "graph.npz"), trained / "gallery"
    arguments = ["build", "--encoder", str(trained / "encoder"), "--graph", graph, "--gallery", str(gallery)]
    assert main([*arguments, "--lengths", "4,8"]) == 0


def test_a_resumed_run_ends_with_the_same_weights(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = trained / "again"
    saved = Run.save_checkpoint

    def save_and_stop(run: Run, state: dict[str, object]) -> None:
        saved(run, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", save_and_stop)
        command = ["train", "--graph", str(trained / "graph.npz"), "--out", str(out), *QUICK]
        assert main([*command, "--set", "checkpoint_every_s=0.001"]) == 130
    assert not Run(out).finished
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["train", "--out", str(out), "--resume", "--device", "cpu"]) == 0
    first, second = ((trained / name / "network.safetensors").read_bytes() for name in ("run", "again"))
    assert first == second
    assert set(artifact.read(out, kind="run").files) >= {"basis.safetensors", "network.safetensors"}


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [(["backbone=tiny-conv"], "takes images"), (["spectrum.basis=features", "spectrum.leading=3"], "leave it 0")],
)
def test_a_configuration_of_images_is_refused(overrides: list[str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        Run.start(tmp_path / "run", graph="graph", config=load_config("nodes", overrides))


def test_the_backbone_of_nodes_takes_no_images_and_a_run_no_other_graph(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes nodes"):
        Run.start(tmp_path / "run", images="images", config=load_config("nodes", []))
    other = imported(tmp_path / "graph", block_graph(features=7))
    with pytest.raises(TrainingError, match="has 7 features"):
        node_inputs(Run(trained / "run"), other)
    assert main(["train", "--out", str(tmp_path / "none")]) == 1
