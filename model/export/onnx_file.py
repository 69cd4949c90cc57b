"""A network as an ONNX file that takes uint8 pixels, and the check that it computes what torch computes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eigenlens.model.errors import EncoderError
from eigenlens.model.export.functions import UnknownFunctionError
from eigenlens.model.export.recording import record
from eigenlens.model.network import normalise_pixels
from eigenlens.model.runtime.encoder import Encoder

# Largest difference of unit codes between torch and ONNX Runtime, both float32, that is put down to rounding.
_TOLERANCE = 1e-4


class ServingNetwork(nn.Module):
    """A network with pixel normalisation inside, as it is exported: uint8 (n, size, size, 3) to codes or features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        codes: Tensor = self.network(normalise_pixels(pixels))
        return codes


def write_onnx(serving: nn.Module, path: Path, *, image_size: int) -> None:
    """Write the network as one ONNX file with a free batch axis: `pixels` uint8 in, `codes` float32 out.

    A network with functions that have no writer here (`functions.py`), such as those of many a timm model, is written
    by torch's exporter, which knows every function and takes ten seconds and more.
    """
    item = torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8)
    try:
        onnx.save(record(serving, item, inputs="pixels", outputs="codes"), path)
    except UnknownFunctionError:
        _export(serving, path, item.expand(2, -1, -1, -1))


def _export(serving: nn.Module, path: Path, example: Tensor) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            serving,
            (example,),
            path,
            input_names=["pixels"],
            output_names=["codes"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            external_data=False,
            dynamo=True,
        )
    strip_traces(path)


def strip_traces(path: Path) -> None:
    """Remove what the exporter notes of the exporting program (source files, stack traces) from an ONNX file."""
    exported = onnx.load(path)
    for node in exported.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.save(exported, path)


def check_agreement(serving: nn.Module, directory: Path, pixels: NDArray[np.uint8], *, image_size: int) -> None:
    """Run torch and the exported file on the same training images. Raises: EncoderError, if their codes differ."""
    sample = torch.from_numpy(np.array(pixels[:64]))
    if sample.shape[1] != image_size:
        resized = nn.functional.interpolate(sample.permute(0, 3, 1, 2).float(), size=image_size, mode="area")
        sample = resized.permute(0, 2, 3, 1).round().to(torch.uint8)
    with torch.inference_mode():
        expected = serving(sample).numpy()
    require_agreement(expected, Encoder(directory, precision="float32").encode(np.ascontiguousarray(sample.numpy())))


def require_agreement(expected: NDArray[np.floating], actual: NDArray[np.floating]) -> None:
    """Compare codes, (n, code_length). Raises: EncoderError, if they differ by more than rounding."""
    scale = np.linalg.norm(expected, axis=1, keepdims=True).clip(min=1e-12)
    difference = float(np.abs((actual - expected) / scale).max())
    if not difference <= _TOLERANCE:
        raise EncoderError(f"the ONNX file's codes differ from torch's by {difference:.2e} (at most {_TOLERANCE:.0e})")
