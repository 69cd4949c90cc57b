"""Frozen backbones: ONNX files of many forms take uint8 pixels, heads are composed behind any, refusals say why."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from eigenlens.command import main
from eigenlens.model.backbones.efficientnet import EfficientNetLite0
from eigenlens.model.backbones.registry import build_backbone
from eigenlens.model.errors import ConfigError, EncoderError
from eigenlens.model.export.feature_extractor import PIXELS
from eigenlens.model.heads.features import power_normalise
from eigenlens.model.heads.fit import HeadSettings, fit_head
from eigenlens.model.heads.frozen import BackboneChoice, open_backbone, open_over_crops, publish_backbone
from eigenlens.model.heads.publish import with_head
from eigenlens.model.images.preprocessing import CROPS
from eigenlens.model.network import normalise_pixels
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.runtime.sessions import RUNTIMES, installed, open_session
from tests.support.extractors import LENGTH, SIDE, features_of, write_extractor
from tests.support.training import write_images

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def some_pixels(side: int = SIDE, count: int = 5) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def opened(tmp_path: Path, *, output: str = "features", size: int | None = None, **form: Any) -> Encoder:
    file = write_extractor(tmp_path / "extractor.onnx", **form)
    return open_backbone(BackboneChoice(str(file), None, size, output), tmp_path / "work")


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"batch": 1},
        {"channels_first": False},
        {"sides": ("h", "w"), "size": SIDE},
        {"sides": ("h", "w"), "colours": "c", "size": SIDE},
        {"kind": TensorProto.FLOAT16},
        {"output": "map"},
        {"opset": 9},
    ],
    ids=str,
)
def test_an_onnx_file_of_any_form_takes_uint8_pixels(tmp_path: Path, form: dict[str, Any]) -> None:
    pixels = some_pixels()
    encoder = opened(tmp_path, **form)
    assert (encoder.image_size, encoder.code_length) == (SIDE, LENGTH)
    tolerance = 5e-3 if "kind" in form else 1e-5
    np.testing.assert_allclose(encoder.encode(pixels), features_of(pixels, **IMAGENET), atol=tolerance)


def test_an_onnx_file_that_takes_bytes_gets_them_unscaled(tmp_path: Path) -> None:
    pixels = some_pixels()
    encoder = opened(tmp_path, kind=TensorProto.UINT8)
    np.testing.assert_allclose(encoder.encode(pixels), features_of(pixels, std=(1 / 255,) * 3), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scale", PIXELS)
def test_pixels_are_fed_on_the_scale_that_was_asked_for(tmp_path: Path, scale: str) -> None:
    pixels, asked = some_pixels(), PIXELS[scale]
    choice = BackboneChoice(str(write_extractor(tmp_path / "e.onnx")), asked, None, "features")
    found = open_backbone(choice, tmp_path / "work").encode(pixels)
    low, high = {"imagenet": (-2.2, 2.7), "unit": (0, 1), "signed": (-1, 1), "raw": (0, 255)}[scale]
    ends = [(edge - m) / s for m, s in zip(asked.mean, asked.std, strict=True) for edge in (0, 1)]
    np.testing.assert_allclose((min(ends), max(ends)), (low, high), atol=0.1)
    expected = features_of(pixels, mean=asked.mean, std=asked.std)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3 * np.abs(expected).max())


def test_what_the_features_do_not_need_is_left_out(tmp_path: Path) -> None:
    encoder = opened(tmp_path)
    held = onnx.load(encoder.artifact.file("encoder.onnx"))
    assert not [tensor.name for tensor in held.graph.initializer if "classes" in tensor.name]
    assert not [node for node in held.graph.node if any("logits" in name for name in node.output)]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"reshaped": True}, "two images at a time: export it with a free batch axis"),
        ({"mixed": True}, "mixes the images of a batch"),
        ({"output": "none"}, r"no tensor 'none'.*its outputs \(logits\).*features"),
        ({"sides": (4, 5)}, "5 x 4 pixels, and only squares"),
        ({"colours": 1}, r"shape \(\?, 1, 4, 4\), which is neither"),
        ({"size": 9}, "4 pixels a side; leave --backbone-size out"),
        ({"kind": TensorProto.INT64}, "'image' is int64"),
        ({"opset": 8}, "opset 8, and 9 or newer"),
    ],
    ids=str,
)
def test_an_onnx_file_that_does_not_fit_says_why(tmp_path: Path, form: dict[str, Any], said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        opened(tmp_path, **form)


def test_files_that_are_none_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        open_backbone(BackboneChoice(str(tmp_path / "none.onnx")), tmp_path)
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(EncoderError, match="cannot be read as an ONNX file"):
        open_backbone(BackboneChoice(str(tmp_path / "text.onnx")), tmp_path)
    with pytest.raises(ConfigError, match="these options are for ONNX files"):
        open_backbone(BackboneChoice("efficientnet-lite0", output="features"), tmp_path)
    with pytest.raises(ConfigError, match="a multiple of 32 pixels a side, not 65"):
        open_backbone(BackboneChoice("efficientnet-lite0", image_size=65), tmp_path)
    with pytest.raises(ConfigError, match="'resnet18' has its own size"):
        open_backbone(BackboneChoice("resnet18", image_size=64), tmp_path)
    with pytest.raises(ConfigError, match="'resnet18' does not come with weights; efficientnet-lite0 and timm:NAME do"):
        open_backbone(BackboneChoice("resnet18"), tmp_path)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("opset", [9, 17])
def test_a_head_behind_a_file_is_the_head_on_its_features(tmp_path: Path, runtime: str, opset: int) -> None:
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    features = np.random.default_rng(0).normal(size=(40, 3, LENGTH)).astype(np.float32)
    head = fit_head(power_normalise(features), HeadSettings(ridge=0.1), code_length=4)
    backbone, pixels = opened(tmp_path, opset=opset), some_pixels()
    pixels[0] = 0
    onnx.save(with_head(onnx.load(backbone.artifact.file("encoder.onnx")), head), tmp_path / "whole.onnx")
    session, _ = open_session(
        tmp_path / "whole.onnx", runtime=runtime, precision="float32", threads=1, shape=(SIDE, SIDE, 3)
    )
    plain = features_of(pixels, **IMAGENET)
    assert (plain < 0).any(), "signs are kept"
    roots = np.sign(plain) * np.sqrt(np.abs(plain))
    unit = roots / np.linalg.norm(roots, axis=1, keepdims=True)
    expected = unit @ head.weight.numpy().T + head.offset.numpy()
    np.testing.assert_allclose(session(pixels), expected, atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("opset", [9, 17])
def test_a_head_over_crops_is_the_head_on_the_mean_of_their_features(tmp_path: Path, runtime: str, opset: int) -> None:
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    features = np.random.default_rng(0).normal(size=(40, 3, LENGTH)).astype(np.float32)
    head = fit_head(power_normalise(features), HeadSettings(ridge=0.1), code_length=4)
    over = open_over_crops(opened(tmp_path, opset=opset), tmp_path / "work")
    assert (over.preprocessing, over.input_shape) == (CROPS, (3, SIDE, SIDE, 3))
    squares = some_pixels(count=36)
    onnx.save(with_head(onnx.load(over.artifact.file("encoder.onnx")), head), tmp_path / "whole.onnx")
    session, _ = open_session(
        tmp_path / "whole.onnx", runtime=runtime, precision="float32", threads=1, shape=over.input_shape
    )
    mean = features_of(squares, **IMAGENET).reshape(12, 3, LENGTH).mean(1)
    roots = np.sign(mean) * np.sqrt(np.abs(mean))
    unit = roots / np.linalg.norm(roots, axis=1, keepdims=True)
    expected = unit @ head.weight.numpy().T + head.offset.numpy()
    np.testing.assert_allclose(session(squares.reshape(12, *over.input_shape)), expected, atol=1e-4)
    made = over.artifact.path.stat().st_mtime_ns
    assert open_over_crops(opened(tmp_path, opset=opset), tmp_path / "work").artifact.path.stat().st_mtime_ns == made


def test_features_that_are_nothing_make_codes_all_the_same(tmp_path: Path) -> None:
    np.testing.assert_array_equal(power_normalise(np.zeros((1, LENGTH))), np.zeros((1, LENGTH)))
    features = np.random.default_rng(0).normal(size=(40, 3, LENGTH)).astype(np.float32)
    head = fit_head(power_normalise(features), HeadSettings(ridge=0.1), code_length=4)
    choice = BackboneChoice(str(write_extractor(tmp_path / "e.onnx")), PIXELS["unit"], None, "features")
    backbone = open_backbone(choice, tmp_path / "work")
    onnx.save(with_head(onnx.load(backbone.artifact.file("encoder.onnx")), head), tmp_path / "whole.onnx")
    session, _ = open_session(
        tmp_path / "whole.onnx", runtime="onnxruntime", precision="float32", threads=1, shape=(SIDE, SIDE, 3)
    )
    black = np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8)
    np.testing.assert_allclose(session(black)[0], head.offset.numpy(), atol=1e-6)


def test_images_become_an_encoder_on_an_onnx_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "images", count=24, side=12)
    file, out, work = write_extractor(tmp_path / "tiny.onnx"), tmp_path / "encoder", tmp_path / "work"
    command = ["fit", "--images", str(images), "--backbone", str(file), "--work", str(work), "--views", "2"]
    command += ["--backbone-output", "features"]
    assert main([*command, "--out", str(out), "--backbone-pixels", "unit"]) == 0
    said = capsys.readouterr()
    assert "4 x 4 pixels, fed as (rgb / 255 - [0.0, 0.0, 0.0]) / [1.0, 1.0, 1.0], 6 features" in said.err
    assert "6 coordinates from 24 images" in said.out
    encoder = Encoder(out)
    assert encoder.artifact.properties["backbone"] == "tiny.onnx"
    assert encoder.encode(some_pixels()).shape == (5, LENGTH)
    (made,) = work.glob("backbone-*")
    assert encoder.artifact.made_from == {"backbone": Encoder(made).id}
    # On another scale the same file is another backbone.
    scale = ["--backbone-pixels", ".5,.5,.5/.2,.2,.2"]
    assert main([*command, "--out", str(tmp_path / "other"), *scale]) == 0
    assert len(list(work.glob("backbone-*"))) == 2
    assert main([*command, "--out", str(tmp_path / "third"), "--code-length", "7"]) == 1
    assert "at most 6, the number of features" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["huge", "1,2/3", "0,0,0/1,1,0", "0,0/1,1"])
def test_a_scale_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--images", "x", "--out", "y", "--backbone-pixels", text])
    assert "none of imagenet, unit, signed, raw" in capsys.readouterr().err


def require_timm() -> None:
    try:
        import timm  # noqa: F401
    except Exception as error:  # beside a torch of another version torchvision raises as it is imported
        pytest.skip(f"the extra `timm` is not installed, or does not import ({type(error).__name__})")


def test_efficientnet_sees_pictures_of_another_size(tmp_path: Path) -> None:
    encoder = open_backbone(BackboneChoice(image_size=64), tmp_path)
    pixels = some_pixels(side=64, count=2)
    with torch.inference_mode():
        network = EfficientNetLite0(pretrained=True).eval().freeze()
        expected = network(normalise_pixels(torch.from_numpy(pixels))).numpy()
    assert (encoder.image_size, encoder.code_length) == (64, 1280)
    np.testing.assert_allclose(encoder.encode(pixels), expected, atol=1e-3 * np.abs(expected).max())


def test_a_timm_model_is_a_backbone(tmp_path: Path) -> None:
    """With fresh weights: timm's own features of the pixels as timm would feed them."""
    require_timm()
    torch.manual_seed(0)
    backbone = build_backbone("timm:resnet10t")
    encoder = publish_backbone(backbone, tmp_path / "backbone", properties={"backbone": "timm:resnet10t"})
    pixels = some_pixels(side=encoder.image_size, count=2)
    with torch.inference_mode():
        mean, std = (torch.tensor(IMAGENET[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
        fed = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = backbone.eval().get_submodule("network")(fed).numpy()
        direct = backbone.eval()(normalise_pixels(torch.from_numpy(pixels))).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(direct, expected, atol=1e-4 * scale)
    np.testing.assert_allclose(encoder.encode(pixels), expected, atol=1e-4 * scale)
    assert encoder.code_length == backbone.feature_length == expected.shape[1]
    with pytest.raises(ConfigError, match=r"no model 'resnet10x'; it has, among others, "):
        build_backbone("timm:resnet10x")


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_the_extra_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "images", count=4)
    command = ["fit", "--images", str(images), "--out", str(tmp_path / "out"), "--backbone", "timm:resnet18"]
    assert main(command) == 1
    assert "`fit` needs timm: pip install -e " in capsys.readouterr().err
