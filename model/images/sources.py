"""SOURCE: a folder of images, a tar of one, or a named sample; iterated one encoded image at a time."""

from __future__ import annotations

import lzma
import math
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eigenlens.image_files import IMAGE_EXTENSIONS, is_image_path
from eigenlens.model.errors import ImageError, SourceError
from eigenlens.model.images.decode import DEFAULT_MAX_PIXELS, load_square
from eigenlens.model.images.fashion_mnist import FashionMnist

MAX_FILE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class SourceImage:
    """One encoded image of a source.

    Attributes:
        id: unique within the source; the path below its root for files.
        data: the encoded bytes; none where they could not be read.
        path: the file on disk, where there is one.
        metadata: what the source knows; `label` is the name of the image's top folder, where there is one.
        problem: why there are no bytes, where that is so.
    """

    id: str
    data: bytes
    path: Path | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def load(self, size: int, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8] | ImageError:
        """Decode the image to a centred square, (size, size, 3), or return why that cannot be."""
        if self.problem is not None:
            return ImageError(self.problem)
        return load_square(self.data, size, max_pixels=max_pixels)


class Source(Protocol):
    """Images that can be counted and iterated again and again in the same order.

    source: Source = open_source("~/Pictures")
    squares = [image.load(224) for image in source]
    """

    @property
    def name(self) -> str:
        """Argument of `open_source` that opens the same images again, for sources that it opens."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[SourceImage]: ...


class FolderSource:
    """Image files below a folder, in the order of their paths; hidden files and folders are left out.

    for image in FolderSource(Path("Pictures")):
        print(image.id, image.metadata.get("label"))
    """

    def __init__(self, root: Path) -> None:
        self.name = str(root.resolve())
        self._root = root
        self._paths = sorted(
            path for path in root.rglob("*") if is_image_path(path.relative_to(root)) and path.is_file()
        )
        if not self._paths:
            raise SourceError(f"{root} holds no image file ({' '.join(IMAGE_EXTENSIONS)})")

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[SourceImage]:
        for path in self._paths:
            relative = _printable(path.relative_to(self._root).as_posix())
            data, problem = b"", None
            try:
                with path.open("rb") as f:
                    data = f.read(MAX_FILE_BYTES)
            except OSError as error:
                problem = f"the file cannot be read: {error.strerror}"
            yield SourceImage(str(relative), data, path.resolve(), _folder_label(relative), problem)


class TarSource:
    """Image files of a tar archive (compressed or not), in the archive's order; nothing is unpacked to disk.

    source = TarSource(Path("pictures.tar.gz"))
    len(source)  # the image files in it
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path.resolve())
        self._path = path
        try:
            with tarfile.open(path) as tar:
                self._count = sum(_is_image_member(member) for member in tar)
        except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
            raise SourceError(f"{path} is not a readable tar archive: {error}") from error
        if not self._count:
            raise SourceError(f"{path} holds no image file ({' '.join(IMAGE_EXTENSIONS)})")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SourceImage]:
        with tarfile.open(self._path) as tar:
            for member in tar:
                if _is_image_member(member):
                    stream = tar.extractfile(member)
                    assert stream is not None
                    relative = _printable(member.name.removeprefix("./"))
                    yield SourceImage(str(relative), stream.read(MAX_FILE_BYTES), None, _folder_label(relative))


class SampleSource:
    """Fashion-MNIST: 70,000 product photographs of 28 x 28, or one of its splits."""

    def __init__(self, name: str, sample: FashionMnist) -> None:
        self.name = name
        self._sample = sample

    def __len__(self) -> int:
        return len(self._sample)

    def __iter__(self) -> Iterator[SourceImage]:
        for id, data, metadata in self._sample:
            yield SourceImage(id, data, None, metadata)


class RestrictedSource:
    """The images of a source whose files lie below a root; of the others it says only that they lie outside.

    source = RestrictedSource(FolderSource(folder), root)
    """

    def __init__(self, source: Source, root: Path) -> None:
        self.name = source.name
        self._source, self._root = source, root.resolve()

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[SourceImage]:
        for image in self._source:
            if image.path is not None and not image.path.is_relative_to(self._root):
                image = replace(
                    image, data=b"", path=None, problem="the file lies outside of the server's image folder"
                )
            yield image


class SubsampledSource:
    """At most `count` images of a source, evenly spaced over all of it.

    source = SubsampledSource(open_source("fashion-mnist"), 10_000)
    source.name  # "fashion-mnist, one in 7"
    """

    def __init__(self, source: Source, count: int) -> None:
        self._source, self._step = source, math.ceil(len(source) / count)
        self.name = source.name if self._step == 1 else f"{source.name}, one in {self._step}"

    def __len__(self) -> int:
        return math.ceil(len(self._source) / self._step)

    def __iter__(self) -> Iterator[SourceImage]:
        return islice(self._source, 0, None, self._step)


class ConcatSource:
    """Several sources, one after the other.

    source = ConcatSource([FolderSource(one), TarSource(another)])
    len(source)  # the images of both
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.name = ", ".join(source.name for source in sources)

    def __len__(self) -> int:
        return sum(len(source) for source in self._sources)

    def __iter__(self) -> Iterator[SourceImage]:
        return chain.from_iterable(self._sources)


def open_source(spec: str) -> Source:
    """Open the source that a SOURCE argument names: a folder, a tar of a folder, or a sample.

    Raises: SourceError, which says what would have worked.
    """
    sample, _, split = spec.partition(":")
    if sample == "fashion-mnist" and not Path(spec).exists():
        return SampleSource(spec, FashionMnist(split or "all"))
    path = Path(spec).expanduser()
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return TarSource(path)
    raise SourceError(
        f"there is no image source '{spec}': give a folder, a tar or tar.gz of one, "
        "or fashion-mnist (or fashion-mnist:train, fashion-mnist:test)"
    )


def batches(source: Source, size: int) -> Iterator[list[SourceImage]]:
    """Iterate over the source's images, `size` at a time; the last batch may be smaller."""
    images = iter(source)
    while batch := list(islice(images, size)):
        yield batch


def _printable(name: str) -> PurePosixPath:
    """A file name as text; bytes of it that are no UTF-8 are written as \\xNN."""
    return PurePosixPath(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def _is_image_member(member: tarfile.TarInfo) -> bool:
    relative = PurePosixPath(member.name.removeprefix("./"))
    return member.isfile() and is_image_path(relative)


def _folder_label(relative: PurePosixPath) -> dict[str, str]:
    return {"label": relative.parts[0]} if len(relative.parts) > 1 else {}
