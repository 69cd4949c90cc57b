"""An exported encoder: images in, codes out."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eigenlens import artifact
from eigenlens.model.errors import EncoderError, ShapeError
from eigenlens.model.images.decode import to_square
from eigenlens.model.images.preprocessing import FIRST, LATEST, input_shape
from eigenlens.model.runtime.sessions import TRIAL_CALLS, open_session, seconds_per_image

KIND = "encoder"
ONNX_FILE = "encoder.onnx"
_NEARLY = 1.15
_WARM_UP_S = 60.0
_BATCH_TRIAL_S = 0.04


def input_kind(manifest: artifact.Artifact) -> str:
    """Return what an encoder takes: "image" or "features"."""
    return str(manifest.properties.get("input", {}).get("kind", "image"))


class Encoder:
    """A loaded encoder artifact. `encode` may be called from several threads at once.

        encoder = Encoder(Path("encoders/fashion"), runtime="auto")
        codes = encoder.encode(encoder.prepare(image)[None])  # (1, encoder.code_length)

    Attributes:
        id: of the artifact; galleries refuse codes of another one.
        code_length: coordinates of a code.
        image_size: side of a square of the input, in pixels.
        input_shape: of one picture's pixels: (image_size, image_size, 3), or (3, ...) where three squares are seen.
        eigenvalues: (code_length,), descending, those of leading functions apart.
        preprocessing: version of how files become its pixels; an earlier encoder keeps its own.
        precision: in which it computes; an encoder of another precision is another artifact, so codes never mix.
        runtime: the name of what runs it.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        streams: int = 1,
        runtime: str = "onnxruntime",
        precision: str | None = None,
    ) -> None:
        """Load and verify the artifact at `path`.

        Args:
            threads: of the runtime; all cores when None.
            streams: calls that compute at the same time, each with its share of the threads.
            runtime: "onnxruntime", "openvino", or "auto" for the faster of those that are installed.
            precision: "float32" or "bfloat16"; the one that its manifest records when None.

        Raises: ArtifactError; EncoderError, if the runtime is not there or refuses the file.
        """
        self.artifact = artifact.read(path, kind=KIND)
        if (kind := input_kind(self.artifact)) != "image":
            raise EncoderError(f"{path} is an encoder of {kind}, and images are to be encoded")
        self.id = self.artifact.id
        self.code_length = int(self.artifact.properties["code_length"])
        self.image_size = int(self.artifact.properties["image_size"])
        self.preprocessing = int(self.artifact.properties.get("preprocessing", FIRST))
        if self.preprocessing > LATEST:
            raise EncoderError(f"{path} prepares images in a way that only a later version of Eigenlens knows")
        self.input_shape = input_shape(self.image_size, self.preprocessing)
        self.eigenvalues = np.asarray(self.artifact.properties["eigenvalues"], dtype=np.float64)
        self.precision = precision or str(self.artifact.properties.get("precision", "float32"))
        self._session, self.runtime = open_session(
            self.artifact.file(ONNX_FILE),
            runtime=runtime,
            precision=self.precision,
            threads=threads or len(os.sched_getaffinity(0)),
            shape=self.input_shape,
            streams=streams,
        )
        self._streams = streams

    def warm_up(self, *, max_batch: int) -> None:
        """Encode a batch of every size up to `max_batch` in every stream: the first of a size takes far longer."""

        def compute(ready: Barrier) -> None:
            try:
                for batch in range(1, max_batch + 1):
                    ready.wait(_WARM_UP_S)  # streams are taken by calls at the same time
                    self.encode(np.zeros((batch, *self.input_shape), dtype=np.uint8))
            except BaseException:
                ready.abort()  # the others would wait for this one for ever
                raise

        ready = Barrier(self._streams)
        with ThreadPoolExecutor(self._streams) as threads:
            failed = [done.exception() for done in [threads.submit(compute, ready) for _ in range(self._streams)]]
        for error in sorted(filter(None, failed), key=lambda error: isinstance(error, BrokenBarrierError)):
            raise error  # what broke the barrier, before what that led to

    def worthwhile_batch(self, *, max_batch: int) -> int:
        """Measure the smallest batch of 1, 2, 4, ... images whose time per image is the shortest, or nearly.

        More would make the first of a batch wait for nothing.

        Args:
            max_batch: the largest that is tried.
        """
        times: dict[int, float] = {}
        size = 1
        while size <= max_batch:
            times[size] = seconds_per_image(
                self._session,
                batch=size,
                shape=self.input_shape,
                trial_s=_BATCH_TRIAL_S,
                most_calls=TRIAL_CALLS,
            )
            size *= 2
        return next(size for size, seconds in times.items() if seconds <= _NEARLY * min(times.values()))

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the encoder's input for one decoded image, of `input_shape`."""
        return to_square(image, self.image_size, preprocessing=self.preprocessing)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode prepared pixels, uint8 (n, *input_shape), as (n, code_length). Raises: ShapeError."""
        if pixels.shape[1:] != self.input_shape or pixels.dtype != np.uint8:
            raise ShapeError(f"the encoder takes uint8 (n, {self.input_shape}), not {pixels.dtype} {pixels.shape}")
        return self._session(pixels)
