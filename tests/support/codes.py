"""Small codes, generations and image bytes that several tests start from."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pillow_heif
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image

from eigenlens import artifact
from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.codes.artifact import Codes, writing_codes
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

CODE_LENGTH = 16
LENGTHS = (4, 8, CODE_LENGTH)
ENCODER_ID = "0123456789abcdef"


def hardly_calibrated(tuning: Tuning) -> Tuning:
    """Return it for builds whose calibration a test does not look at: one effort of each index, few shortlists."""
    return replace(tuning, calibration_s=0.0, shortlist_steps=1, timed_queries=10)


HARDLY_CALIBRATED = hardly_calibrated(DEFAULT_TUNING)

repeatable = settings(derandomize=True, deadline=None, max_examples=20, database=None)
"""Settings of every property test: the same examples in every run."""


def random_codes(seed: int, n: int, code_length: int = CODE_LENGTH) -> NDArray[np.float32]:
    """Codes whose coordinates decay, as those of ordered eigenfunctions do; norms differ from row to row."""
    rng = np.random.default_rng(seed)
    decay = 1 / np.sqrt(np.arange(1, code_length + 1))
    norms = rng.uniform(0.5, 20, (n, 1))
    return (rng.normal(size=(n, code_length)) * decay * norms).astype(np.float32)


def write_codes(
    path: Path,
    codes: NDArray[np.float32],
    *,
    keys: Sequence[int] | None = None,
    tuning: Tuning = DEFAULT_TUNING,
) -> Codes:
    """Publish and open a codes artifact; keys are 100, 101, ... when none are given."""
    chosen = np.asarray(keys if keys is not None else range(100, 100 + len(codes)), dtype=np.int64)
    with writing_codes(path, count=len(codes), code_length=codes.shape[1], encoder_id=ENCODER_ID) as writer:
        writer.append(chosen, codes)
    return Codes(path, tuning=tuning)


def write_generation(
    folder: Path,
    codes: NDArray[np.float32],
    *,
    lengths: Sequence[int] = LENGTHS,
    tuning: Tuning = DEFAULT_TUNING,
    calibrated: bool = False,
) -> Generation:
    """Publish and open `folder`/codes and `folder`/generation, hardly calibrated where that is not asked for."""
    opened = write_codes(folder / "codes", codes, tuning=tuning)
    if not calibrated:
        tuning = hardly_calibrated(tuning)
    build_generation(folder / "generation", opened, BuildOptions(lengths=lengths, tuning=tuning))
    return Generation(folder / "generation", opened, tuning=tuning)


def generation_of_kind(
    folder: Path, codes: NDArray[np.float32], kind: str, *, length: int = 8, tuning: Tuning = DEFAULT_TUNING
) -> Generation:
    """Publish and open `folder`/codes and `folder`/generation, whose index of this length is of this kind."""
    opened = write_codes(folder / "codes", codes)
    tuning = hardly_calibrated(tuning)
    options = BuildOptions(lengths=sorted({length, CODE_LENGTH}), kinds={length: kind}, tuning=tuning)
    build_generation(folder / "generation", opened, options)
    return Generation(folder / "generation", opened, tuning=tuning)


def without_similarities(generation: artifact.Artifact) -> None:
    """Make a generation as versions did that did not measure how near images are to each other, and how far out."""
    names = [name for name in generation.files if not name.startswith("typicality")]
    for name in set(generation.files) - set(names):
        (generation.path / name).unlink()
    artifact.seal(
        generation.path,
        kind=generation.kind,
        made_from=generation.made_from,
        properties={name: value for name, value in generation.properties.items() if name != "similarities"},
        only=tuple(names),
    )


def mapped_bytes() -> int:
    """Memory of this process that is pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssFile"))


def flip_byte(path: Path, position: int, mask: int = 0x01) -> None:
    """Change bits of one byte of a file; negative positions count from its end."""
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    """The image as a file of the format."""
    if format == "HEIF":
        pillow_heif.register_heif_opener()
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def handmade_png(
    width: int,
    height: int,
    raw: Iterable[bytes],
    *,
    bit_depth: int,
    colour_type: int,
    extra: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG written without Pillow.

    Args:
        raw: pieces of the scan lines; each line starts with a filter byte of 0.
        extra: (type, data) of chunks between the header and the pixels.
    """
    packer = zlib.compressobj(1)
    pixels = b"".join([*(packer.compress(piece) for piece in raw), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
