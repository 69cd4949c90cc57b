"""A hand-computable encoder, small galleries, and real servers on real sockets."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import onnx
import pytest
import uvicorn
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from eigenlens import artifact
from eigenlens.model.export.over_crops import over_crops
from eigenlens.model.images.preprocessing import FRAMINGS
from eigenlens.model.images.sources import FolderSource
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.gallery.build import GenerationOptions, publish_generation
from eigenlens.service.gallery.ingest import add_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.store.sqlite import SqliteStore
from eigenlens.service.http.app import create_app
from eigenlens.service.http.protocol import server_options
from eigenlens.service.http.state import State
from eigenlens.service.settings import Settings, load_settings

SIDE = 2
CODE_LENGTH = SIDE * SIDE * 3
LENGTHS = (2, 4, CODE_LENGTH)


def write_encoder(path: Path, *, shift: float = 127.5, precision: str = "float32", framing: str | None = None) -> Path:
    """An encoder whose code is the 2 x 2 x 3 pixels less `shift`, in order: computable by hand; of crops their mean."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "shape"], ["flat"]),
        helper.make_node("Sub", ["flat", "shift"], ["codes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("codes", TensorProto.FLOAT, ["n", CODE_LENGTH])],
        [
            numpy_helper.from_array(np.array([-1, CODE_LENGTH], dtype=np.int64), "shape"),
            numpy_helper.from_array(np.array(shift, dtype=np.float32), "shift"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    properties = {
        "code_length": CODE_LENGTH,
        "image_size": SIDE,
        "precision": precision,
        "eigenvalues": [1 / (j + 1) for j in range(CODE_LENGTH)],
    }
    if framing is not None:
        properties["preprocessing"] = FRAMINGS[framing]
    if framing == "crops":
        model = over_crops(model, size=SIDE, length=CODE_LENGTH)
    with artifact.publishing(path, kind="encoder", properties=properties) as directory:
        onnx.save(model, directory / "encoder.onnx")
    return path


def pixels_of(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def code_of(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What the encoder answers, computed by hand."""
    return pixels.reshape(-1).astype(np.float64) - 127.5


def write_images(folder: Path, count: int) -> Path:
    """Images named by their seed, in two class folders; one name has a space."""
    for seed in range(count):
        name = f"{seed:04d} a.png" if seed == 3 else f"{seed:04d}.png"
        path = folder / ("even" if seed % 2 == 0 else "odd") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels_of(seed)))
    return folder


def image_id(seed: int) -> str:
    return f"{'even' if seed % 2 == 0 else 'odd'}/{seed:04d}{' a' if seed == 3 else ''}.png"


def build_gallery(root: Path, *, count: int = 40, lengths: Sequence[int] = LENGTHS) -> Gallery:
    """A gallery of `count` images below `root`, at generation 1, beside its encoder and its images."""
    built = _built(count, tuple(lengths))
    shutil.copytree(built, root, dirs_exist_ok=True)
    with contextlib.closing(sqlite3.connect(root / "gallery" / "gallery.sqlite")) as database, database:
        rows = database.execute("SELECT key, path FROM images").fetchall()
        for key, path in rows:  # its images are the copied ones
            moved = root.resolve() / Path(os.fsdecode(path)).relative_to(built.resolve())
            database.execute("UPDATE images SET path = ? WHERE key = ?", (os.fsencode(moved), key))
    return Gallery(root / "gallery")


@cache
def _built(count: int, lengths: tuple[int, ...]) -> Path:
    """A folder with such a gallery, built once in a process and copied for each test."""
    folder = tempfile.TemporaryDirectory(prefix="eigenlens-gallery-")
    atexit.register(folder.cleanup)
    root = Path(folder.name)
    encoder_path = write_encoder(root / "encoder")
    gallery = Gallery(root / "gallery", create=True)
    with gallery.writing():
        gallery.adopt_encoder(encoder_path)
        encoder = Encoder(encoder_path)
        add_images(gallery, encoder, FolderSource(write_images(root / "images", count)), Progress())
        publish_generation(gallery, encoder, Progress(), GenerationOptions(lengths=lengths))
    gallery.store.close()
    return root


@contextlib.contextmanager
def serving(settings: Settings, *, port: int = 0, opened: State | None = None) -> Iterator[httpx.Client]:
    """A uvicorn server on a port, a free one if 0, in a thread, and a client of it."""
    config = uvicorn.Config(
        create_app(settings, opened=opened),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        lifespan="on",
        **server_options(settings),
    )
    scheme = "http" if settings.tls_certificate is None else "https"
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"{scheme}://127.0.0.1:{port}", timeout=30, verify=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive(), "the server did not end"


def gallery_fixture(*, count: int = 40, scope: Literal["function", "module"] = "module") -> Any:
    """The fixture `gallery`, of `count` images; of scope "function", below `tmp_path`, where tests change it."""

    @pytest.fixture(scope=scope, name="gallery")
    def gallery(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
        each = scope == "function"
        root: Path = request.getfixturevalue("tmp_path") if each else tmp_path_factory.mktemp("gallery")
        return build_gallery(root, count=count)

    return gallery


def client_fixture(
    *, name: str = "client", scope: Literal["function", "module"] = "module", admin: bool = False, **settings: object
) -> Any:
    """A fixture that serves `gallery` with these settings; its requests carry the administration's key if `admin`."""

    @pytest.fixture(scope=scope, name=name)
    def client(gallery: Gallery) -> Iterator[httpx.Client]:
        with serving(settings_of(gallery, **settings)) as running:
            if admin:
                running.headers.update(admin_headers(gallery))
            yield running

    return client


def settings_of(gallery: Gallery, **changes: object) -> Settings:
    return load_settings(gallery=gallery.root, **changes)


def admin_headers(gallery: Gallery) -> dict[str, str]:
    return {"Authorization": f"Bearer {(gallery.root / 'admin.key').read_text().strip()}"}


SEARCH_EVERY_S = 0.02
"""Pause of a thread that searches while something goes on: without one, searches take most of its time."""


JOB_EVERY_S = 0.1
"""Pause between two questions whether a job has ended: a service takes longer to answer than to sleep."""


def wait_for(condition: Callable[[], Any], *, timeout_s: float = 30, every_s: float = 0.02) -> Any:
    """The first true value of `condition`, asked again and again."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every_s)
    return found


def database_of(gallery: Gallery) -> SqliteStore:
    """The store of a gallery, for statements of a test's own."""
    assert isinstance(gallery.store, SqliteStore)
    return gallery.store


def publish(gallery: Gallery, encoder: Encoder, progress: Progress | None = None) -> int:
    with gallery.writing():
        return publish_generation(gallery, encoder, progress or Progress(), GenerationOptions(lengths=LENGTHS))


def stored_codes(gallery: Gallery) -> dict[str, np.ndarray[Any, Any]]:
    _, generation = gallery.open_current()
    records = gallery.store.records([int(key) for key in generation.keys])
    return {records[int(k)].id: np.asarray(c) for k, c in zip(generation.keys, generation.codes.codes, strict=True)}
