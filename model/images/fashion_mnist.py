"""The sample `fashion-mnist`: found on this machine or fetched as the Debian package `dataset-fashion-mnist`."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eigenlens.model.errors import SourceError

PACKAGE = "dataset-fashion-mnist"
LABELS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# `fit` and `validation` part the training images, for choices that must not look at the test images.
SPLITS = {
    "all": ("train", "test"),
    "train": ("train",),
    "test": ("test",),
    "fit": ("fit",),
    "validation": ("validation",),
}
_ROWS = {"fit": slice(0, 50_000), "validation": slice(50_000, 60_000)}
_PREFIX = {"train": "train", "test": "t10k"}
_SIDE = 28
_IN_PACKAGE = Path("usr/share/datasets/fashion-mnist")


class FashionMnist:
    """70,000 grey product photographs (Xiao et al., arXiv:1708.07747); iterated as PNG files with their labels."""

    def __init__(self, split: str = "all") -> None:
        if split not in SPLITS:
            raise SourceError(f"fashion-mnist has the splits {', '.join(SPLITS)}; '{split}' is not one of them")
        directory = find_or_fetch()
        self._splits = {name: _read_split(directory, name) for name in SPLITS[split]}

    def __len__(self) -> int:
        return sum(len(labels) for _, labels in self._splits.values())

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """All images, (n, 28, 28), in the order of iteration."""
        return np.concatenate([pixels for pixels, _ in self._splits.values()])

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The class of each image as an index into LABELS, (n,)."""
        return np.concatenate([labels for _, labels in self._splits.values()])

    def __iter__(self) -> Iterator[tuple[str, bytes, dict[str, str]]]:
        for split, (pixels, labels) in self._splits.items():
            for row, (image, label) in enumerate(zip(pixels, labels, strict=True)):
                png = io.BytesIO()
                Image.fromarray(image).save(png, "PNG", compress_level=1)
                yield f"{split}-{row:05d}.png", png.getvalue(), {"label": LABELS[label], "split": split}


def find_or_fetch() -> Path:
    """Directory of the sample's four files; fetched once (31 MB, no root needed) into the user's cache.

    Raises: SourceError, if the package is not here and cannot be fetched.
    """
    installed = Path("/") / _IN_PACKAGE
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eigenlens"
    for root in (installed, cache / _IN_PACKAGE):
        if _holds_sample(root):
            return root
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        _fetch_package(Path(scratch))
        package = next(Path(scratch).glob(f"{PACKAGE}_*.deb"))
        unpacked = Path(scratch) / "unpacked"
        _run(["dpkg-deb", "-x", str(package), str(unpacked)], cwd=Path(scratch))
        target = cache / _IN_PACKAGE
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(unpacked / _IN_PACKAGE, target)
        except OSError:
            if not _holds_sample(target):  # unless another process was faster
                raise
    return target


def _fetch_package(scratch: Path) -> None:
    """Download the .deb with the machine's package lists, or, where they are empty, with lists of our own."""
    try:
        _run(["apt-get", "download", PACKAGE], cwd=scratch)
    except SourceError:
        own = scratch / "apt"
        for directory in ("state/lists/partial", "cache/archives/partial"):
            (own / directory).mkdir(parents=True)
        options = [
            f"-oDir::State={own / 'state'}",
            f"-oDir::Cache={own / 'cache'}",
            "-oDir::State::status=/var/lib/dpkg/status",
        ]
        _run(["apt-get", *options, "update"], cwd=scratch)
        _run(["apt-get", *options, "download", PACKAGE], cwd=scratch)


def _run(command: list[str], *, cwd: Path) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise SourceError(_hint(str(error))) from error
    if done.returncode != 0:
        raise SourceError(_hint(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else command[0]))


def _hint(problem: str) -> str:
    return (
        f"the sample fashion-mnist is not on this machine and could not be fetched ({problem}); "
        f"install Debian's package {PACKAGE}, or use a folder of your own images"
    )


def _holds_sample(directory: Path) -> bool:
    return all((directory / name).is_file() for name in _file_names())


def _file_names() -> list[str]:
    kinds = ("images-idx3", "labels-idx1")
    return [f"{prefix}-{kind}-ubyte.gz" for prefix in _PREFIX.values() for kind in kinds]


def _read_split(directory: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    prefix = _PREFIX["test" if split == "test" else "train"]
    images = gzip.decompress((directory / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((directory / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    rows = _ROWS.get(split, slice(None))
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, _SIDE, _SIDE)
    return pixels[rows], np.frombuffer(labels, np.uint8, offset=8)[rows]
