"""Heads with a hidden layer: what is trained, what is folded and composed, and what a linear head cannot see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from eigenlens.command import main
from eigenlens.model.commands import fit as command
from eigenlens.model.errors import TrainingError
from eigenlens.model.heads.features import power_normalise
from eigenlens.model.heads.fit import HeadSettings, fit_head
from eigenlens.model.heads.hidden import Hidden, _fold_normalisation, draw_pairs, train_hidden
from eigenlens.model.heads.publish import with_head
from eigenlens.model.network import Projector
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.runtime.sessions import RUNTIMES, installed, open_session
from tests.model.test_frozen import IMAGENET, opened, some_pixels
from tests.model.test_heads import cosines, structured
from tests.support.extractors import LENGTH, SIDE, features_of, write_extractor
from tests.support.training import write_images

SETTINGS = HeadSettings("views", neighbours=5, ridge=0.01, diffusion_time=1.0)


def trained(features: NDArray[np.float32], *, steps: int = 60, seed: int = 0) -> Hidden:
    return train_hidden(features, positives="views", graph=None, width=32, steps=steps, seed=seed)


def hidden_by_hand(hidden: Hidden, features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Features and functions of them, in float64."""
    h = np.asarray(features, dtype=np.float64)
    for weight, offset in hidden.layers:
        h = np.maximum(h @ weight.double().numpy().T + offset.double().numpy(), 0)
    return np.concatenate([features, h], axis=1)


def test_a_hidden_layer_finds_what_no_linear_head_can() -> None:
    """What stays between views is how far a coordinate is from 0; its sign changes with every view."""
    rng = np.random.default_rng(0)
    size = np.where(np.arange(400) % 2, 2.0, 0.5)
    features = rng.choice([-1.0, 1.0], (400, 3, 4)) * size[:, None, None] + 0.1 * rng.normal(size=(400, 3, 4))
    given = features.astype(np.float32)
    linear = fit_head(given, SETTINGS, code_length=2)
    with_hidden = fit_head(given, SETTINGS, code_length=2, hidden=trained(given))
    assert linear.eigenvalues[0] < 0.3
    assert with_hidden.eigenvalues[0] > 0.9
    codes = with_hidden.codes(given[:, 0])[:, 0]
    assert abs(np.corrcoef(codes, size)[0, 1]) > 0.95


def test_batch_normalisation_is_folded_into_the_layers() -> None:
    torch.manual_seed(0)
    network = Projector(5, hidden_length=7, hidden_layers=2, code_length=3).train()
    for _ in range(5):
        network(torch.randn(20, 5) * 3 + 1)
    x = torch.randn(9, 5)
    with torch.no_grad():
        for norm in (network[1], network[4]):
            norm.weight.uniform_(0.5, 2)  # type: ignore[operator]
            norm.bias.uniform_(-1, 1)  # type: ignore[operator]
        expected = torch.nn.Sequential(*list(network.eval())[:-1])(x).numpy()
    found = Hidden(_fold_normalisation(network)).functions(x.numpy())
    np.testing.assert_array_equal(found[:, :5], x.numpy())
    np.testing.assert_allclose(found[:, 5:], expected, atol=1e-5)


def test_training_repeats_itself_and_leaves_the_callers_randomness_alone() -> None:
    features, _ = structured()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = trained(features), trained(features), trained(features, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.layers[0][0], again.layers[0][0])
    assert not torch.equal(one.layers[0][0], other.layers[0][0])


def test_functions_vary_as_much_as_the_features() -> None:
    features, _ = structured()
    both = trained(features).functions(features[:, 0])
    length = features.shape[2]
    assert both.shape[1] == length + 32
    np.testing.assert_allclose(both[:, :length].var(0).sum(), both[:, length:].var(0).sum(), rtol=1e-3)


def test_pairs_are_of_the_positives() -> None:
    n, drawn = 40, 3
    values = torch.arange(n * drawn, dtype=torch.float32).view(n, drawn, 1)
    graph = (np.arange(n)[:, None] + np.array([1, 2])) % n
    generator = torch.Generator().manual_seed(0)

    def drawn_pairs(positives: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        a, b = draw_pairs(values, positives=positives, graph=graph, generator=generator)
        return tuple(x.squeeze(1).long().numpy() for x in (a, b))  # type: ignore[return-value]

    a, b = drawn_pairs("views")
    assert (a // drawn == b // drawn).all()
    assert (a != b).all()
    assert set(a % drawn) == {0, 1, 2}
    a, b = drawn_pairs("neighbours")
    assert not (a % drawn).any()
    assert not (b % drawn).any()
    assert set((b // drawn - a // drawn) % n) == {1, 2}
    a, b = drawn_pairs("both")
    of_one = a // drawn == b // drawn
    assert 0.2 < of_one.mean() < 0.8


def test_what_cannot_be_trained_says_so() -> None:
    features, _ = structured()
    with pytest.raises(TrainingError, match="views for 'views'"):
        trained(features[:, :1])
    with pytest.raises(TrainingError, match="the loss of the head's hidden layers is nan at step 1"):
        trained(features * np.float32(np.nan))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_hidden_layer_is_composed_behind_a_backbone(tmp_path: Path, runtime: str) -> None:
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    features = power_normalise(np.random.default_rng(0).normal(size=(60, 3, LENGTH)))
    head = fit_head(features, SETTINGS, code_length=8, hidden=trained(features, steps=5))
    backbone, pixels = opened(tmp_path), some_pixels()
    onnx.save(with_head(onnx.load(backbone.artifact.file("encoder.onnx")), head), tmp_path / "whole.onnx")
    session, _ = open_session(
        tmp_path / "whole.onnx", runtime=runtime, precision="float32", threads=1, shape=(SIDE, SIDE, 3)
    )
    plain = features_of(pixels, **IMAGENET)
    roots = np.sign(plain) * np.sqrt(np.abs(plain))
    functions = hidden_by_hand(head.hidden, roots / np.linalg.norm(roots, axis=1, keepdims=True))
    expected = functions @ head.weight.numpy().T + head.offset.numpy()
    np.testing.assert_allclose(session(pixels), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("positives", ["views", "neighbours", "both"])
def test_images_become_an_encoder_with_a_hidden_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positives: str
) -> None:
    """Settings are chosen with a layer that never saw those that are held out."""
    seen: list[int] = []

    def noted(features: NDArray[np.float32], **more: Any) -> Hidden:
        seen.append(len(features))
        return train_hidden(features, **more)

    monkeypatch.setattr(command, "train_hidden", noted)
    images = write_images(tmp_path / "images", count=40, side=12)
    file = write_extractor(tmp_path / "tiny.onnx")
    arguments = ["fit", "--images", str(images), "--backbone", str(file), "--backbone-output", "features"]
    arguments += ["--head", "mlp", "--head-steps", "10", "--hidden-length", "16", "--neighbours", "4", "--views", "2"]
    arguments += ["--positives", positives, "--work", str(tmp_path / "work")]
    assert main([*arguments, "--out", str(tmp_path / "encoder"), "--code-length", "6"]) == 0
    assert seen == ([40] if positives == "neighbours" else [32, 40])
    encoder = Encoder(tmp_path / "encoder")
    told = encoder.artifact.properties["training"]
    assert (told["head"], told["hidden_length"], told["head_steps"]) == ("mlp", 16, 10)
    assert main([*arguments, "--out", str(tmp_path / "again"), "--code-length", "6"]) == 0
    pixels = some_pixels()
    codes = encoder.encode(pixels)
    assert cosines(codes, Encoder(tmp_path / "again").encode(pixels)).diagonal().min() > 0.9999
