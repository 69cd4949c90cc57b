"""Opening an encoder by what it takes: images, or features of nodes."""

from __future__ import annotations

from pathlib import Path

from eigenlens import artifact
from eigenlens.model.runtime.encoder import KIND, Encoder, input_kind
from eigenlens.model.runtime.feature_encoder import INPUT, FeatureEncoder

AnyEncoder = Encoder | FeatureEncoder


def open_encoder(
    path: Path, *, threads: int | None = None, streams: int = 1, runtime: str = "onnxruntime"
) -> AnyEncoder:
    """Load and verify the encoder at `path`, with the arguments of Encoder. Raises: ArtifactError; EncoderError."""
    if input_kind(artifact.read(path, kind=KIND, verify=False)) == INPUT:
        return FeatureEncoder(path, threads=threads)
    return Encoder(path, threads=threads, streams=streams, runtime=runtime)
