"""A service whose PostgreSQL primary is killed under load, again and again, while a standby is promoted in its place.

`python -m tests.failover --kills 20 --gallery DIR` runs it as long as wanted; the suite runs one kill. Replication is
synchronous, as the guide asks for. Searches must never fail; writes may while nobody takes them, and what was
acknowledged must be there afterwards.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from eigenlens.command import main as eigenlens
from eigenlens.service.gallery.layout import Gallery
from tests.support.postgres import Server, address_of_all, running_server
from tests.support.service import (
    SEARCH_EVERY_S,
    admin_headers,
    build_gallery,
    code_of,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
    wait_for,
)

COUNT, MAX_K = 12, 10_000
_SCHEMA = "gallery"


@dataclass
class Load:
    """What the searches and writes of a gallery's clients met. Images are named by the seed of their pixels."""

    searches: int = 0
    failed: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    acknowledged: list[int] = field(default_factory=list)
    refused: int = 0


def search(client: httpx.Client, load: Load) -> None:
    """Search for an image of the gallery, and note whether it is answered."""
    begun = time.monotonic()
    query = {"code": code_of(pixels_of(load.searches % COUNT)).tolist(), "k": 1}
    answer = client.post("/v1/search", json=query)
    load.longest_s = max(load.longest_s, time.monotonic() - begun)
    expected = image_id(load.searches % COUNT)
    load.searches += 1
    if answer.status_code != 200 or answer.json()["results"][0]["id"] != expected:
        load.failed.append(answer.text)


def write(client: httpx.Client, load: Load, seed: int) -> None:
    """Add an image, and note whether it was acknowledged."""
    content, headers = png(pixels_of(seed)), {"content-type": "image/png"}
    answer = client.put(f"/v1/images/new/{seed}.png", content=content, headers=headers)
    if answer.status_code in (200, 201):
        load.acknowledged.append(seed)
    else:
        assert answer.status_code == 503, answer.text
        load.refused += 1


@contextmanager
def repeating(action: Callable[[], None]) -> Iterator[None]:
    """Call something again and again in a thread."""
    ended, problems = threading.Event(), []

    def repeat() -> None:
        try:
            while not ended.wait(SEARCH_EVERY_S):
                action()
        except Exception as error:  # it is told at the end of the block
            problems.append(error)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=60)
        assert not thread.is_alive()
        assert not problems, problems


def start_standby(stack: ExitStack, primary: Server) -> Server:
    """Start a standby, and let the primary acknowledge nothing that it has not."""
    standby = stack.enter_context(running_server(primary=primary))
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")
    wait_for(lambda: primary.execute("SELECT sync_state FROM pg_stat_replication") == "sync")
    return standby


def fail_over(root: Path, *, kills: int, seed: int = 0) -> Load:
    """Kill the primary of a served gallery so often under load. Returns: what clients met."""
    rng, load = random.Random(seed), Load()
    gallery = build_gallery(root, count=COUNT)
    gallery.store.close()
    with ExitStack() as stack:
        primary = stack.enter_context(running_server())
        primary.execute(f"CREATE SCHEMA {_SCHEMA}")
        assert eigenlens(["migrate", "--gallery", str(gallery.root), "--store", primary.address(_SCHEMA)]) == 0
        seeds = iter(range(1000, 1_000_000))
        for _ in range(kills):
            standby = start_standby(stack, primary)
            # The standby is named first: it takes no changes, and must not be asked.
            address = address_of_all([standby, primary], _SCHEMA)
            moved = Gallery(gallery.root, store=address)
            with serving(settings_of(moved, store=address, max_k=MAX_K)) as client:
                client.headers.update(admin_headers(moved))
                with (
                    repeating(lambda client=client: search(client, load)),  # type: ignore[misc]
                    repeating(lambda client=client: write(client, load, next(seeds))),  # type: ignore[misc]
                ):
                    time.sleep(rng.uniform(0.1, 0.5))
                    primary.kill()
                    time.sleep(rng.uniform(0.1, 0.5))  # until somebody decides that it is gone
                    standby.promote()
                    before = len(load.acknowledged)
                    wait_for(lambda before=before: len(load.acknowledged) > before + 2)  # type: ignore[misc]
                check(client, load)
                wait_for(lambda moved=moved: is_served(moved))  # type: ignore[misc]
            moved.store.close()
            primary = standby
    return load


def check(client: httpx.Client, load: Load) -> None:
    """Each search was answered, and each acknowledged image is there, once."""
    assert not load.failed, load.failed
    seed = load.acknowledged[-1]
    answer = client.post("/v1/search", json={"code": code_of(pixels_of(seed)).tolist(), "k": MAX_K}).json()
    ids = [result["id"] for result in answer["results"]]
    assert ids[0] == f"new/{seed}.png"
    assert len(set(ids)) == len(ids), "an image is there twice"
    lost = {f"new/{seed}.png" for seed in load.acknowledged} - set(ids)
    assert not lost, f"acknowledged, and lost: {lost}"


def is_served(gallery: Gallery) -> bool:
    """Whether a service holds the lock that tells so."""
    lock = gallery.store.lock("serving")
    if lock is not None:
        lock.close()
    return lock is None


def main() -> int:
    """Run it as long as wanted."""
    parser = argparse.ArgumentParser(description="Kill the PostgreSQL of a served gallery while a standby follows it.")
    parser.add_argument("--gallery", type=Path, required=True, help="an empty directory")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    load = fail_over(args.gallery, kills=args.kills, seed=args.seed)
    print(
        f"{args.kills} primaries killed: {load.searches} searches, none failed, the longest {load.longest_s:.2f} s; "
        f"{len(load.acknowledged)} writes acknowledged and there, {load.refused} refused"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
