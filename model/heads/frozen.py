"""The frozen backbone under a head: one ONNX file from uint8 pixels to features, whatever it was made from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from eigenlens import artifact
from eigenlens.model.backbones.backbone import Backbone
from eigenlens.model.backbones.efficientnet import EFFICIENTNET
from eigenlens.model.backbones.registry import pretrained_backbone
from eigenlens.model.errors import ConfigError
from eigenlens.model.export.feature_extractor import PIXELS, Pixels, pixels_to_features
from eigenlens.model.export.half_precision import store_weights_as_float16
from eigenlens.model.export.onnx_file import ServingNetwork, check_agreement, require_agreement, write_onnx
from eigenlens.model.export.over_crops import over_crops
from eigenlens.model.images.preprocessing import CROPS, input_shape
from eigenlens.model.runtime.encoder import KIND, ONNX_FILE, Encoder

_CHECKED = 4
_CELL = 32  # pixels a side of a cell of the last map


@dataclass(frozen=True)
class BackboneChoice:
    """What `eigenlens fit --backbone` and the options beside it say.

    Attributes:
        name: efficientnet-lite0, timm:NAME, or an ONNX file.
        pixels, output: of an ONNX file, where it does not say so itself.
        image_size: side of its input: of an ONNX file that does not say so itself; of EfficientNet, a multiple of 32.
    """

    name: str = EFFICIENTNET
    pixels: Pixels | None = None
    image_size: int | None = None
    output: str | None = None

    @property
    def file(self) -> Path | None:
        """The ONNX file, if it is one."""
        return Path(self.name).expanduser() if self.name.endswith(".onnx") else None


def open_backbone(choice: BackboneChoice, work: Path) -> Encoder:
    """Open the backbone as an encoder whose codes are the features, stored below `work`; make it where it is missing.

    Raises: ConfigError; EncoderError, if an ONNX file does not make features of images; ModuleNotFoundError, where it
        is missing and its extra is not installed.
    """
    properties: dict[str, object] = {"backbone": choice.name}
    if choice.file is None:
        check_options(choice)
        properties |= {} if choice.image_size is None else {"size": choice.image_size}
    else:
        try:
            digest = hashlib.sha256(choice.file.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(f"the backbone {choice.file} cannot be read: {error.strerror}") from error
        properties = {
            "backbone": choice.file.name,
            "backbone_sha256": digest,
            "pixels": asdict(choice.pixels or PIXELS["imagenet"]),
            "size": choice.image_size,
            "output": choice.output,
        }
    key = hashlib.sha256(json.dumps(properties, sort_keys=True).encode()).hexdigest()[:8]
    directory = work / f"backbone-{re.sub('[^A-Za-z0-9._]+', '-', str(properties['backbone']))}-{key}"
    if (directory / artifact.MANIFEST).exists():
        return Encoder(directory)
    if choice.file is None:
        backbone = pretrained_backbone(choice.name)
        return publish_backbone(backbone, directory, properties=properties, image_size=choice.image_size)
    return _publish_file(choice, choice.file, directory, properties=properties)


def check_options(choice: BackboneChoice) -> None:
    """Check the options beside a backbone that is no file. Raises: ConfigError, for what it has of its own."""
    if (choice.pixels, choice.output) != (None, None):
        raise ConfigError(f"'{choice.name}' has its own pixels and output; these options are for ONNX files")
    if choice.image_size is None:
        return
    if choice.name != EFFICIENTNET:
        raise ConfigError(f"'{choice.name}' has its own size; --backbone-size is for {EFFICIENTNET} and ONNX files")
    if choice.image_size % _CELL:
        raise ConfigError(f"{EFFICIENTNET} takes a multiple of {_CELL} pixels a side, not {choice.image_size}")


def describe(backbone: Encoder) -> str:
    """Describe what a person can check: the input with the scale of its pixels, and the number of features."""
    side, pixels = backbone.image_size, backbone.artifact.properties.get("pixels")
    scale = f", fed as (rgb / 255 - {pixels['mean']}) / {pixels['std']}" if pixels else ""
    return f"{side} x {side} pixels{scale}, {backbone.code_length} features"


def open_over_crops(backbone: Encoder, work: Path) -> Encoder:
    """Open a frozen backbone over the crops of a picture: its features are the mean of those of the three squares.

    It is stored below `work`, and made where it is missing.
    """
    directory = work / f"backbone-over-crops-{backbone.id[:8]}"
    if (directory / artifact.MANIFEST).exists():
        return Encoder(directory)
    pixels = np.random.default_rng(0).integers(
        0, 256, (_CHECKED, *input_shape(backbone.image_size, CROPS)), dtype=np.uint8
    )
    expected = np.mean([backbone.encode(np.ascontiguousarray(square)) for square in pixels.swapaxes(0, 1)], axis=0)

    def check(staging: Path) -> None:
        require_agreement(expected, Encoder(staging).encode(pixels))

    properties = {**backbone.artifact.properties, "preprocessing": CROPS}
    made_from = {"backbone": backbone.id}
    network = onnx.load(backbone.artifact.file(ONNX_FILE))
    with artifact.publishing(directory, kind=KIND, made_from=made_from, properties=properties, check=check) as staging:
        onnx.save(over_crops(network, size=backbone.image_size, length=backbone.code_length), staging / ONNX_FILE)
    return Encoder(directory)


def publish_backbone(
    backbone: Backbone, directory: Path, *, properties: Mapping[str, object], image_size: int | None = None
) -> Encoder:
    """Publish a backbone, frozen, as an encoder whose codes are its features.

    Args:
        image_size: side of its input; by default the backbone's own, which it then has.
    """
    size = image_size or backbone.image_size
    assert size is not None
    network = ServingNetwork(backbone.eval().freeze()).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (_CHECKED, size, size, 3), dtype=np.uint8)

    def check(staging: Path) -> None:
        check_agreement(network, staging, pixels, image_size=size)

    manifest = _manifest_properties(backbone.feature_length, size, properties)
    with artifact.publishing(directory, kind=KIND, properties=manifest, check=check) as staging:
        write_onnx(network, staging / ONNX_FILE, image_size=size)
        store_weights_as_float16(staging / ONNX_FILE)
    return Encoder(directory)


def _publish_file(choice: BackboneChoice, file: Path, directory: Path, *, properties: Mapping[str, object]) -> Encoder:
    extractor = pixels_to_features(
        file, pixels=choice.pixels or PIXELS["imagenet"], image_size=choice.image_size, output=choice.output
    )
    manifest = _manifest_properties(extractor.length, extractor.image_size, properties)
    with artifact.publishing(directory, kind=KIND, properties=manifest) as staging:
        onnx.save(extractor.model, staging / ONNX_FILE)
    return Encoder(directory)


def _manifest_properties(length: int, image_size: int, properties: Mapping[str, object]) -> dict[str, object]:
    return {"code_length": length, "image_size": image_size, **properties, "eigenvalues": [1.0] * length}
