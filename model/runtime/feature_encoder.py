"""An exported encoder of nodes: features in, codes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.model.errors import EncoderError, ShapeError
from eigenlens.model.runtime.encoder import KIND, ONNX_FILE, input_kind
from eigenlens.model.runtime.sessions import open_session

INPUT = "features"
"""The kind of input that the manifest of such an encoder names."""
PROJECTION_FILE, NETWORK_FILE = "projection.onnx", "network.onnx"
"""Of an encoder that is not linear: features to what is smoothed over the edges, and that to codes."""


class FeatureEncoder:
    """A loaded encoder of nodes. `encode` may be called from several threads at once.

        encoder = FeatureEncoder(Path("encoders/cora"))
        codes = encoder.encode(features)  # (n, encoder.code_length), of nodes without edges
        codes = encoder.finish(smoothed)  # of nodes with edges: `smoothed` is what smoothing makes of project(features)

    A fitted code is linear in the smoothed features but for its offset, so the code of a node with edges is the offset
    plus what smoothing makes of the projections, which are the codes of nodes without edges less the offset. Others
    have files of their own for both: a trained code is a network's output for the smoothed projections, and a fitted
    one may divide them by their length first.

    Attributes:
        id: of the artifact.
        code_length: coordinates of a code.
        features: p, how many numbers of a node it takes; it divides them by their length.
        hops: k, how often projections are smoothed over the edges.
        random_features: seed of the random vectors that stand for features, where codes are of the edges alone.
        eigenvalues: (code_length,), descending.
        projection_length: how many numbers of a node are smoothed over the edges.
        runtime, precision: what it runs on; both are fixed, since one product takes hardly any time.
    """

    runtime, precision = "onnxruntime", "float32"

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Load and verify the artifact at `path`. Raises: ArtifactError; EncoderError, if it takes no features."""
        self.artifact = artifact.read(path, kind=KIND)
        if input_kind(self.artifact) != INPUT:
            raise EncoderError(f"{path} is an encoder of images, and features of nodes are to be encoded")
        properties: dict[str, Any] = self.artifact.properties["input"]
        self.id = self.artifact.id
        self.code_length = int(self.artifact.properties["code_length"])
        self.features, self.hops = int(properties["features"]), int(properties["hops"])
        seed = properties.get("random_features")
        self.random_features = None if seed is None else int(seed)
        self.eigenvalues = np.asarray(self.artifact.properties["eigenvalues"], dtype=np.float64)
        self._threads = threads or len(os.sched_getaffinity(0))
        self._encode = self._open(ONNX_FILE)
        apart = NETWORK_FILE in self.artifact.files
        self._project: Any = self._open(PROJECTION_FILE) if apart else None
        self._finish: Any = self._open(NETWORK_FILE) if apart else None
        zero = np.zeros((1, self.features), dtype=np.float32)
        self._offset: NDArray[np.float32] = self.encode(zero)[0]  # the code of a node whose features are all zero
        self.projection_length = self.project(zero).shape[1]

    @property
    def features_of_nodes(self) -> int:
        """How many features a node has: p, or none where random vectors stand for them."""
        return self.features if self.random_features is None else 0

    def warm_up(self, *, max_batch: int) -> None:
        """Do nothing: loading has computed the offset already, and batches of all sizes take as long by the node."""

    def worthwhile_batch(self, *, max_batch: int) -> int:
        """Return 1: features of nodes are encoded as they come."""
        return 1

    def encode(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Encode nodes without edges: features (n, p) to codes (n, code_length). Raises: ShapeError."""
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ShapeError(f"the encoder takes {self.features} features of each node, not {features.shape[1:]}")
        codes: NDArray[np.float32] = self._encode(np.ascontiguousarray(features, dtype=np.float32))
        return codes

    def project(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return the projections of features (n, p): what is smoothed over the edges, (n, projection_length)."""
        if self._project is None:
            return self.encode(features) - self._offset
        projections: NDArray[np.float32] = self._project(np.ascontiguousarray(features, dtype=np.float32))
        return projections

    def finish(self, smoothed: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return the codes of smoothed projections: (n, projection_length) to (n, code_length)."""
        values = np.ascontiguousarray(smoothed, dtype=np.float32)
        codes: NDArray[np.float32] = values + self._offset if self._finish is None else self._finish(values)
        return codes

    def _open(self, name: str) -> Any:
        return open_session(
            self.artifact.file(name), runtime="onnxruntime", precision="float32", threads=self._threads, shape=()
        )[0]
