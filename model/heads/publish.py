"""A backbone with a head as an encoder artifact: served without torch, and small, in half precision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

import artifact
from model.export import SPECTRUM_FILE, check_agreement, write_onnx
from model.heads.backbone import IMAGE_SIZE, NAME, FrozenFeatures, load_frozen
from model.heads.fit import Head
from model.runtime.encoder import KIND, ONNX_FILE, Encoder

# Tensors below this many numbers stay in single precision: they take no space worth saving.
_SMALL = 4096
_CHECKED = 4


class HeadNetwork(nn.Module):
    """uint8 pixels (n, 224, 224, 3) to codes, linear in the power-normalised features."""

    def __init__(self, backbone: FrozenFeatures, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(head.weight.shape[1], head.weight.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(head.weight)
            self.head.bias.copy_(head.offset)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.backbone(pixels)
        codes: Tensor = self.head(F.normalize(features.clamp_min(0).sqrt(), dim=1))
        return codes


def open_backbone(directory: Path) -> Encoder:
    """The backbone as an encoder whose codes are the features, on the runtime that serves; written where it is missing.

    Raises: ModuleNotFoundError, where it is missing and the extra `pretrained` is not installed.
    """
    if not (directory / artifact.MANIFEST).exists():
        backbone = load_frozen()
        length = backbone.feature_length
        _publish(backbone, directory, eigenvalues=[1.0] * length, properties={}, made_from={}, pixels=None)
    return Encoder(directory)


def publish_head(
    head: Head,
    out: Path,
    *,
    backbone: Encoder,
    properties: Mapping[str, object],
    pixels: NDArray[np.uint8],
) -> artifact.Artifact:
    """Publish the encoder at `out`.

    Args:
        backbone: that the features came from.
        properties: what the manifest tells besides the code's length and eigenvalues.
        pixels: some prepared images, on which torch and the written file must agree.

    Raises: ArtifactExistsError; EncoderError, if they do not agree.
    """
    network = HeadNetwork(load_frozen(), head).eval()
    eigenvalues = [round(float(x), 6) for x in head.eigenvalues]
    return _publish(
        network,
        out,
        eigenvalues=eigenvalues,
        properties=properties,
        made_from={"backbone": backbone.id},
        pixels=pixels[:_CHECKED],
    )


def _publish(
    network: nn.Module,
    out: Path,
    *,
    eigenvalues: list[float],
    properties: Mapping[str, object],
    made_from: Mapping[str, str],
    pixels: NDArray[np.uint8] | None,
) -> artifact.Artifact:
    told = {
        "code_length": len(eigenvalues),
        "image_size": IMAGE_SIZE,
        "backbone": NAME,
        **properties,
        "eigenvalues": eigenvalues,
    }
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (_CHECKED, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    with artifact.publishing(out, kind=KIND, made_from=made_from, properties=told) as directory:
        write_onnx(network, directory / ONNX_FILE, image_size=IMAGE_SIZE)
        store_in_half(directory / ONNX_FILE)
        (directory / SPECTRUM_FILE).write_text(json.dumps({"eigenvalues": eigenvalues}))
        artifact.seal(directory, kind=KIND, properties=told)
        check_agreement(network, directory, pixels, image_size=IMAGE_SIZE)
        (directory / artifact.MANIFEST).unlink()
    return artifact.read(out, kind=KIND, verify=False)


def store_in_half(path: Path) -> None:
    """Store those weights of an ONNX file in half precision that lose nothing by it; runtimes widen them as they load.

    What is rounded already is found by trying, so that the codes stay what torch computes.
    """
    model = onnx.load(path)
    widened = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if values.size < _SMALL or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        widened.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*widened, *nodes])
    onnx.save(model, path)
