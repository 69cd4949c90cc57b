"""What users of neighbouring systems complain of, where no other file tests that it does not happen here.

Each docstring names the complaint. The others: prefixes that are not normalised in test_generation.py, memory that is
mapped in test_plans.py, orientation in test_decode.py, bombs in test_mutations.py, recall in test_calibration.py, many
callers in test_batching.py, probes in test_search_api.py, images dropped on the page in test_page.py.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.plans.plan import Plan
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.search.manager import SnapshotManager
from tests.support.codes import CODE_LENGTH, HARDLY_CALIBRATED, random_codes, write_codes
from tests.support.living import COUNT, add, client, gallery, nearest
from tests.support.service import admin_headers, image_id, serving, settings_of, write_encoder

__all__ = ["client", "gallery"]


def files_of(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Every file below the folders, its inode and when it was written."""
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def test_a_restart_builds_nothing(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full rebuild at each restart, 20 minutes at 400k images."""
    built = files_of(gallery.generations, gallery.codes, gallery.encoders)
    monkeypatch.setattr(
        "eigenlens.service.search.manager.encode_images", lambda *_: pytest.fail("an image was encoded")
    )
    for _ in range(2):
        with serving(settings_of(gallery)) as started:
            assert nearest(started, 7)[0] == image_id(7)
    assert files_of(gallery.generations, gallery.codes, gallery.encoders) == built


def test_adding_an_image_touches_no_index(client: httpx.Client, gallery: Gallery) -> None:
    """Adding one image indexes all of them again."""
    built = files_of(gallery.generations, gallery.codes)
    add(client, [500])
    assert nearest(client, 500)[0] == "new/500.png"
    assert files_of(gallery.generations, gallery.codes) == built


def test_codes_of_one_encoder_are_never_searched_with_another(gallery: Gallery) -> None:
    """An index from one model is searched with another."""
    other = write_encoder(gallery.root.parent / "other", shift=100.0)
    place = gallery.encoder_path(gallery.current_encoder_id())
    shutil.rmtree(place)
    shutil.copytree(other, place)
    with pytest.raises(GalleryError, match=f"is encoder {Encoder(other).id}"):
        SnapshotManager(gallery).load()


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_the_effort_of_one_search_is_not_that_of_another(tmp_path: Path, kind: str) -> None:
    """Index-wide search parameters are changed inside requests."""
    opened = write_codes(tmp_path / "codes", random_codes(0, 3000))
    build_generation(
        tmp_path / "generation",
        opened,
        BuildOptions(lengths=(8, CODE_LENGTH), kinds={8: kind}, tuning=HARDLY_CALIBRATED),
    )
    generation = Generation(tmp_path / "generation", opened)
    queries = random_codes(1, 20)
    plans = [Plan(8, kind=kind, effort=effort) for effort in (1, generation.max_effort(8))]

    def search(number: int) -> list[list[int]]:
        found: list[list[int]] = generation.search(queries, plan=plans[number % 2], k=10)[1].tolist()
        return found

    alone = [search(0), search(1)]
    assert alone[0] != alone[1], "the effort tells"
    with ThreadPoolExecutor(8) as threads:
        for number, found in enumerate(threads.map(search, range(64))):
            np.testing.assert_array_equal(found, alone[number % 2])


def test_no_address_that_a_client_sends_is_fetched(client: httpx.Client, gallery: Gallery) -> None:
    """Fetching a client's URL reaches inside the network."""
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.5)
        url = f"http://127.0.0.1:{inside.getsockname()[1]}/secret.png"
        asked: list[Callable[[], httpx.Response]] = [
            lambda: client.post("/v1/search", json={"image": url}),
            lambda: client.post("/v1/search", data={"image": url}),
            lambda: client.post("/v1/search", params={"image": url}),
            lambda: client.post("/v1/search/batch", json={"searches": [{"image": url}]}),
            lambda: client.post("/v1/embeddings", json={"input": url}),
            lambda: client.post("/v1/images", json={"images": [{"id": "a", "image": url}]}, headers=keys),
            lambda: client.post("/v1/admin/import", json={"folder": url}, headers=keys),
        ]
        keys = admin_headers(gallery)
        for ask in asked:
            answer = ask()
            told = answer.json()
            assert answer.status_code in (400, 415, 422) or told["failed"] == 1, answer.text
        with pytest.raises(TimeoutError):
            inside.accept()
    assert client.get("/v1/lengths").json()["count"] == COUNT
