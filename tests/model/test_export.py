"""Export: the folded network is the Rayleigh-Ritz code, and what is served is what was trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import load_file

from eigenlens import artifact
from eigenlens.command import main
from eigenlens.model.config import TrainingConfig
from eigenlens.model.errors import EncoderError
from eigenlens.model.export.coder import add_neighbours, code_network, estimate_spectrum, set_codes
from eigenlens.model.export.export import export
from eigenlens.model.export.onnx_file import ServingNetwork, check_agreement
from eigenlens.model.images.pixel_cache import PixelCache, cache_pixels
from eigenlens.model.images.preprocessing import ON_BLACK, STANDARD
from eigenlens.model.images.sources import open_source
from eigenlens.model.network import CodeNetwork, EncoderNetwork, normalise_pixels
from eigenlens.model.pairs.sampler import PairSampler
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.spectrum.moments import PairMoments
from eigenlens.model.spectrum.rayleigh_ritz import Spectrum
from eigenlens.model.training.run import Run
from tests.support.training import CPU, few_conv_registered, finished_run, write_images


@pytest.fixture(scope="module")
def backbone() -> Iterator[str]:
    with few_conv_registered() as name:
        yield name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, backbone: str) -> Run:
    folder = tmp_path_factory.mktemp("export")
    return finished_run(folder / "run", write_images(folder / "images"), steps=40, backbone=backbone)


@pytest.fixture(scope="module")
def cache(run: Run) -> PixelCache:
    return cache_pixels(open_source(run.images), side=run.config.cached_side, directory=run.cache)


@pytest.fixture(scope="module")
def encoder_path(run: Run, cache: PixelCache) -> Path:
    out = run.path.parent / "encoder"
    export(run, cache.pixels, out, device=CPU)
    return out


def test_an_encoder_of_things_on_black_shows_others_so(run: Run, encoder_path: Path, tmp_path: Path) -> None:
    side = run.config.image_size
    pixels = np.zeros((24, side, side, 3), np.uint8)
    pixels[:, 4:-4, 4:-4] = np.random.default_rng(0).integers(60, 200, (24, 1, 1, 1))
    export(run, pixels, tmp_path / "encoder", device=CPU)
    on_black, other = Encoder(tmp_path / "encoder"), Encoder(encoder_path)
    assert (on_black.preprocessing, other.preprocessing) == (ON_BLACK, STANDARD)
    dark_on_white = Image.fromarray(255 - pixels[0])
    assert on_black.prepare(dark_on_white).min() == 255, "as large as it fits, and light"
    np.testing.assert_array_equal(other.prepare(dark_on_white), 255 - pixels[0])


def coder_of(network: EncoderNetwork, *, basis: str = "features", leading: int = 0) -> CodeNetwork:
    return CodeNetwork(network, basis=basis, leading=leading, code_length=8).eval()


def spectrum_of(coder: CodeNetwork, pixels: NDArray[np.uint8], config: TrainingConfig) -> Spectrum:
    return estimate_spectrum(coder, PairSampler(pixels, config, device=CPU), config)


def with_spectrum(config: TrainingConfig, **changes: object) -> TrainingConfig:
    return config.model_copy(update={"spectrum": config.spectrum.model_copy(update=changes)})


@pytest.mark.parametrize(("basis", "leading"), [("projector", 0), ("projector", 3), ("features", 0), ("features", 3)])
def test_the_exported_code_is_the_rayleigh_ritz_map_of_the_trained_functions(
    run: Run, cache: PixelCache, tmp_path: Path, basis: str, leading: int
) -> None:
    """The functions are read off the trained network here: z, features or both."""
    _, network = run.load_network()
    network.eval()
    config = with_spectrum(run.config, basis=basis, leading=leading)
    changed = Run(run.path)
    changed.config = config
    encoder = Encoder(export(changed, cache.pixels, tmp_path / "encoder", device=CPU).path)
    spectrum = spectrum_of(coder_of(network, basis=basis, leading=leading), cache.pixels, config)
    weight, offset = spectrum.code_weights(config.spectrum.diffusion_time, code_length=8)
    pixels = np.array(cache.pixels)
    with torch.no_grad():
        x = normalise_pixels(torch.from_numpy(pixels))
        features, z = network.backbone(x), network(x)
        psi = z if basis == "projector" else torch.cat([features, z], 1) if leading else features
    expected = (psi.double() @ weight.T + offset).numpy()
    np.testing.assert_allclose(encoder.encode(pixels), expected, atol=2e-4 * np.abs(expected).max())
    np.testing.assert_allclose(encoder.eigenvalues, spectrum.eigenvalues[:8].numpy(), atol=1e-5)


def test_the_command_exports_functions_of_the_outputs_of_a_run_that_has_features(
    run: Run, cache: PixelCache, tmp_path: Path
) -> None:
    assert run.config.closed_form.basis == "features"
    command = ["export", str(run.path), "--basis", "projector", "--diffusion-time", "3", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "outputs")]) == 0
    changed = Run(run.path)
    changed.config = with_spectrum(run.config, basis="projector", diffusion_time=3.0)
    expected = Encoder(export(changed, cache.pixels, tmp_path / "expected", device=CPU).path)
    exported = Encoder(tmp_path / "outputs")
    pixels = np.array(cache.pixels)
    np.testing.assert_allclose(exported.encode(pixels), expected.encode(pixels), atol=1e-5)
    told = exported.artifact.properties["training"]["spectrum"]
    assert (told["basis"], told["ridge"], told["neighbours"]) == ("projector", 1.0, 200)
    assert exported.artifact.properties["diffusion_time"] == 3


def test_neighbours_by_the_code_that_views_give_weigh_as_much_as_the_views(run: Run, cache: PixelCache) -> None:
    """The moments of the added pairs, spelt out one pair after another."""
    config = with_spectrum(run.config, views=3, neighbours=2, diffusion_time=1.0)
    _, network = run.load_network()
    views = spectrum_of(coder_of(network.eval()), cache.pixels, with_spectrum(config, neighbours=0))
    with torch.no_grad():
        psi = network.backbone(normalise_pixels(torch.from_numpy(np.array(cache.pixels))))
    moments = PairMoments(psi.shape[1])
    add_neighbours(moments, [psi[:30], psi[30:]], views, config, count=2)
    functions = psi.double().numpy()
    codes = (functions - views.mean.numpy()) @ (views.directions * views.eigenvalues.clamp(0, 1)).numpy()[:, :8]
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    near = np.argsort(-(codes @ codes.T - 2 * np.eye(len(codes))), axis=1)[:, :2]
    pairs = [(functions[i], functions[j]) for i in range(len(codes)) for j in near[i]]
    mean = np.mean([a + b for a, b in pairs], axis=0) / 2
    second = np.mean([np.outer(x - mean, x - mean) for pair in pairs for x in pair], axis=0)
    cross = np.mean([np.outer(a - mean, b - mean) for x, y in pairs for a, b in ((x, y), (y, x))], axis=0)
    assert moments.pairs == 3 * len(codes)
    np.testing.assert_allclose(moments.covariance, second, atol=1e-6 * second.max())
    np.testing.assert_allclose(moments.cross_covariance, cross, atol=1e-6 * second.max())


def test_neighbours_change_the_spectrum_where_there_are_enough_images(run: Run, cache: PixelCache) -> None:
    _, network = run.load_network()
    pixels = np.concatenate([np.array(cache.pixels)] * 3)
    found = [spectrum_of(coder_of(network.eval()), pixels, with_spectrum(run.config, neighbours=k)) for k in (0, 2, 20)]
    assert not torch.allclose(found[0].eigenvalues, found[1].eigenvalues, atol=1e-3)
    torch.testing.assert_close(found[1].eigenvalues, found[2].eigenvalues)  # 144 images have at most two


def test_neighbours_are_sought_again_by_the_code_of_views_and_neighbours(
    run: Run, cache: PixelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    sought: list[Spectrum] = []

    def noted(moments: PairMoments, psi: list[torch.Tensor], by: Spectrum, *rest: Any, **more: Any) -> None:
        sought.append(by)
        add_neighbours(moments, psi, by, *rest, **more)

    monkeypatch.setattr("eigenlens.model.export.coder.add_neighbours", noted)
    _, network = run.load_network()
    pixels = np.concatenate([np.array(cache.pixels)] * 3)
    config = with_spectrum(run.config, neighbours=2)
    found = spectrum_of(coder_of(network.eval()), pixels, config)
    views = spectrum_of(coder_of(network), pixels, with_spectrum(config, neighbours=0))
    assert len(sought) == 2
    torch.testing.assert_close(sought[0].eigenvalues, views.eigenvalues)
    for earlier in sought:
        assert not torch.allclose(found.eigenvalues, earlier.eigenvalues, atol=1e-4)


def test_leading_functions_are_those_of_z_by_views_alone(run: Run, cache: PixelCache) -> None:
    """Neighbours of any number change nothing of them, and a code of z alone begins with them."""
    _, network = run.load_network()
    pixels = np.concatenate([np.array(cache.pixels)] * 3)
    by_views = with_spectrum(run.config, neighbours=0, ridge=run.config.spectrum.leading_ridge)
    of_z = spectrum_of(coder_of(network.eval(), basis="projector"), pixels, by_views)
    staged = with_spectrum(run.config, neighbours=2)
    found = spectrum_of(coder_of(network, leading=3), pixels, staged)
    torch.testing.assert_close(found.eigenvalues[:3], of_z.eigenvalues[:3])
    torch.testing.assert_close(found.margins[:3], of_z.margins[:3])
    assert not found.directions[:128, :3].any(), "of the features"
    x = normalise_pixels(torch.from_numpy(pixels))
    with torch.no_grad():
        features, z = network.backbone(x), network(x)
    ours = torch.cat([features, z], 1).double() @ found.directions[:, :3]
    theirs = z.double() @ of_z.directions[:, :3]
    for a, b in zip(ours.T, theirs.T, strict=True):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) == pytest.approx(1)


def test_what_follows_the_leading_functions_is_uncorrelated_with_them(run: Run, cache: PixelCache) -> None:
    """Over the views: drawn as the estimate draws them."""
    _, network = run.load_network()
    coder, config = coder_of(network.eval(), leading=3), with_spectrum(run.config, neighbours=0, ridge=0.0)
    seen: list[torch.Tensor] = []
    functions = coder.functions
    coder.functions = lambda x: seen.append(functions(x)) or seen[-1]  # type: ignore[method-assign, func-returns-value]
    found = spectrum_of(coder, cache.pixels, config)
    assert found.directions.shape[1] == 3 + 128
    codes = (torch.cat(seen).double() - found.mean) @ found.directions[:, :8]
    torch.testing.assert_close(codes.mean(0), torch.zeros(8, dtype=torch.float64), atol=1e-3, rtol=0)
    correlation = torch.corrcoef(codes.T)
    assert correlation[:3, 3:].abs().max() < 1e-3
    assert (found.eigenvalues[:3].diff() <= 0).all()
    assert (found.eigenvalues[3:].diff() <= 0).all()


def test_few_images_have_no_neighbours(run: Run, cache: PixelCache) -> None:
    """48 images: any two would be neighbours, of no particular kind."""
    _, network = run.load_network()
    spectra = [
        spectrum_of(coder_of(network.eval()), cache.pixels, with_spectrum(run.config, neighbours=k)) for k in (0, 20)
    ]
    torch.testing.assert_close(spectra[0].eigenvalues, spectra[1].eigenvalues, rtol=0, atol=0)


def test_a_code_is_no_longer_than_there_are_functions(
    run: Run, cache: PixelCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = finished_run(tmp_path / "run", Path(run.images), code_length=256, steps=2, backbone=run.config.backbone)
    encoder = Encoder(export(longer, cache.pixels, tmp_path / "encoder", device=CPU).path)
    assert encoder.encode(np.array(cache.pixels[:2])).shape == (2, 134)
    assert encoder.code_length == len(encoder.eigenvalues) == 134
    assert "134 coordinates, as many as there are functions" in capsys.readouterr().err


def test_the_spectrum_is_told_with_its_intervals(encoder_path: Path) -> None:
    told = json.loads((encoder_path / "spectrum.json").read_text())
    assert [entry["value"] for entry in told["eigenvalues"]] == Encoder(encoder_path).eigenvalues.tolist()
    assert all(0 < entry["margin_95"] < 0.5 for entry in told["eigenvalues"])
    assert artifact.read(encoder_path, kind="encoder").properties["suggested_lengths"][-1] == 8


def test_eigenvalues_are_ordered_and_the_leading_coordinates_repeat_between_views(encoder_path: Path) -> None:
    """Those of the leading functions, and those of the others."""
    eigenvalues = Encoder(encoder_path).eigenvalues
    for part in np.split(eigenvalues, [json.loads((encoder_path / "spectrum.json").read_text())["leading"]]):
        assert (np.diff(part) <= 1e-6).all()
    assert 0.5 < eigenvalues[0] <= 1.01


def test_export_adds_one_linear_map_and_changes_no_weight(run: Run, encoder_path: Path) -> None:
    _, trained = run.load_network()
    exported = load_file(encoder_path / "encoder.safetensors")
    kept = trained.state_dict()
    last = len(trained.projector) - 1
    for name, value in kept.items():
        assert torch.equal(value, exported[name.replace(f"projector.{last}.", "last.")]), name
    assert len(exported) == len(kept) + 2


def test_any_batch_size_gives_the_same_codes(cache: PixelCache, encoder_path: Path) -> None:
    encoder = Encoder(encoder_path)
    pixels = np.array(cache.pixels)
    one_by_one = np.concatenate([encoder.encode(pixels[i : i + 1]) for i in range(len(pixels))])
    np.testing.assert_allclose(encoder.encode(pixels), one_by_one, atol=1e-5)


def test_an_onnx_file_that_differs_from_torch_is_refused(
    run: Run, cache: PixelCache, encoder_path: Path, tmp_path: Path
) -> None:
    _, network = run.load_network()
    network.eval()
    coder, settings = code_network(network, run.config).eval(), run.config.closed_form
    found = spectrum_of(coder, cache.pixels, run.config)
    set_codes(coder, found, diffusion_time=settings.diffusion_time)
    changed = onnx.load(encoder_path / "encoder.onnx")
    bias = next(t for t in changed.graph.initializer if list(t.dims) == [8])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    properties = dict(artifact.read(encoder_path, kind="encoder").properties)
    with artifact.publishing(tmp_path / "encoder", kind="encoder", properties=properties) as directory:
        onnx.save(changed, directory / "encoder.onnx")
    serving = ServingNetwork(coder).eval()
    check_agreement(serving, encoder_path, cache.pixels, image_size=16)
    with pytest.raises(EncoderError, match="differ from torch"):
        check_agreement(serving, tmp_path / "encoder", cache.pixels, image_size=16)


def test_the_artifact_tells_nothing_of_the_exporting_machine(encoder_path: Path) -> None:
    assert str(Path(torch.__file__).parent).encode() not in (encoder_path / "encoder.onnx").read_bytes()


def test_a_run_s_id_is_in_the_encoders_manifest(run: Run, encoder_path: Path) -> None:
    trained, _ = run.load_network()
    assert artifact.read(encoder_path, kind="encoder").made_from == {"run": trained.id}
