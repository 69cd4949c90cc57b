"""Searches one after the other while everything that administration can do is done: none of them fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.support.living import add, client, gallery, rebuild
from tests.support.service import JOB_EVERY_S, SEARCH_EVERY_S, code_of, image_id, pixels_of, png, wait_for

__all__ = ["client", "gallery"]

# Images that are never touched: each search has to find its own.
_KEPT = (7, 8, 9)
_SEARCHES = 30


class Load:
    """Searches of every kind by several clients, how many were answered, and what was wrong with the others."""

    def __init__(self, address: httpx.URL) -> None:
        self.address = address
        self.answered = {ask.__name__: 0 for ask in (self._by_image, self._by_code, self._more_like_it)}
        self.wrong: list[str] = []
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """For as long as the block takes."""
        kinds = (self._by_image, self._by_code, self._more_like_it)
        threads = [threading.Thread(target=self._search, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def wait(self) -> None:
        """Until more searches were answered."""
        enough = sum(self.answered.values()) + _SEARCHES
        wait_for(lambda: sum(self.answered.values()) >= enough)

    def _search(self, ask: Callable[[httpx.Client, int], httpx.Response]) -> None:
        with httpx.Client(base_url=self.address, timeout=30, verify=False) as own:
            while not self._stop.is_set():
                for seed in _KEPT:
                    self._stop.wait(SEARCH_EVERY_S)
                    try:
                        answer = ask(own, seed)
                        found = [result["id"] for result in answer.json()["results"]]
                    except (httpx.HTTPError, KeyError) as error:
                        self.wrong.append(f"{ask.__name__} {seed}: {error!r}")
                        continue
                    if answer.status_code != 200 or (image_id(seed) in found) == (ask == self._more_like_it):
                        self.wrong.append(f"{ask.__name__} {seed}: {answer.text}")
                    self.answered[ask.__name__] += 1

    def _by_image(self, own: httpx.Client, seed: int) -> httpx.Response:
        return own.post("/v1/search?k=1", files={"image": ("q.png", png(pixels_of(seed)))})

    def _by_code(self, own: httpx.Client, seed: int) -> httpx.Response:
        return own.post("/v1/search", json={"code": code_of(pixels_of(seed)).tolist(), "k": 1})

    def _more_like_it(self, own: httpx.Client, seed: int) -> httpx.Response:
        return own.post("/v1/search", json={"id": image_id(seed), "k": 3})


@pytest.mark.timeout(120)
def test_no_search_fails_while_the_gallery_is_rebuilt_activated_backed_up_restored_and_deleted_from(
    client: httpx.Client,
) -> None:
    def succeed(method: str, path: str, **arguments: Any) -> httpx.Response:
        answer = client.request(method, path, **arguments)
        assert answer.is_success, answer.text
        return answer

    def restore() -> None:
        job = succeed("POST", "/v1/admin/restore", json={"backup": "kept.tar"}).json()["id"]
        ended = wait_for(
            lambda: (found := client.get(f"/v1/admin/jobs/{job}").json())["finished"] and found, every_s=JOB_EVERY_S
        )
        assert ended["state"] == "done", ended

    def do_rebuild() -> None:
        ended = rebuild(client)
        assert ended["state"] == "done", ended

    operations: dict[str, Callable[[], object]] = {
        "add": lambda: add(client, [500, 501]),
        "back up": lambda: succeed("GET", "/v1/admin/backup"),
        "keep a backup": lambda: succeed("POST", "/v1/admin/backups", json={"name": "kept.tar"}),
        "delete images": lambda: [succeed("DELETE", f"/v1/images/{image_id(seed)}") for seed in (1, 2, 3)],
        "replace one": lambda: add(client, [501, 502]),
        "rebuild": do_rebuild,
        "activate the one before": lambda: succeed("POST", "/v1/admin/generations/1/activate"),
        "restore": restore,
        "rebuild again": do_rebuild,
        "activate": lambda: succeed("POST", "/v1/admin/generations/2/activate"),
        "delete a generation": lambda: succeed("DELETE", "/v1/admin/generations/3"),
        "delete a backup": lambda: succeed("DELETE", "/v1/admin/backups/kept.tar"),
    }
    load = Load(client.base_url)
    with load.running():
        for name, operation in operations.items():
            operation()
            load.wait()
            assert not load.wrong, (name, load.wrong[:3])
    assert not load.wrong
    assert min(load.answered.values()) > _SEARCHES
