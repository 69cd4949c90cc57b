"""Services that are killed again and again while their gallery changes, checked against a model.

`python -m tests.crashes --kills 100 --gallery DIR` runs it as long as wanted, and with `--nodes 3` on a PostgreSQL of
its own, which three services share; the suite runs a short form of both.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from eigenlens import artifact
from eigenlens.benchmarks.common.service_process import start_service
from eigenlens.command import main as eigenlens
from eigenlens.service.gallery.layout import Gallery
from tests.support.postgres import running_server
from tests.support.service import JOB_EVERY_S, admin_headers, build_gallery, pixels_of, png, wait_for

COUNT = 60
_STEP_S = 10.0
# Jobs yield to everything else on the machine.
_JOB_S = 200.0
# What one node changes, the others know a second later.
FOLLOWED_S = 1.0
FOLDER = "kept"


@dataclass
class Model:
    """What has to be there. `doubtful` holds ids whose last change was not acknowledged: either state is right.

    Attributes:
        files: names of the files in the folder that is imported, and the seed of each.
        owners: of each key that was ever seen, the id and the checksum of its image.
    """

    present: dict[str, int] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    acknowledged: int = 0
    files: dict[str, int] = field(default_factory=dict)
    owners: dict[int, tuple[str, str]] = field(default_factory=dict)


def change(client: httpx.Client, model: Model, rng: random.Random, ids: list[str], folder: Path) -> None:
    """One random change, noted in the model only as far as it was acknowledged."""
    id = rng.choice(ids)
    action = rng.choices(["put", "delete", "import", "rebuild", "activate", "cancel"], [10, 5, 3, 2, 1, 1])[0]
    if action == "put":
        seed = rng.randrange(10_000)
        model.doubtful.add(id)
        content, headers = png(pixels_of(seed)), {"content-type": "image/png"}
        assert client.put(f"/v1/images/{id}", content=content, headers=headers).status_code in (200, 201)
        model.present[id] = seed
        model.removed.discard(id)
        model.doubtful.discard(id)
    elif action == "delete":
        model.doubtful.add(id)
        assert client.delete(f"/v1/images/{id}").status_code in (204, 404)
        model.present.pop(id, None)
        model.removed.add(id)
        model.doubtful.discard(id)
    elif action == "import":
        change_files(folder, model, rng)
        assert client.post("/v1/admin/import", json={"folder": FOLDER}).status_code in (202, 409)
    elif action == "rebuild":
        assert client.post("/v1/admin/rebuild").status_code in (202, 409)
    elif action == "activate":
        numbers = [entry["number"] for entry in client.get("/v1/admin/generations").json()]
        status = client.post(f"/v1/admin/generations/{rng.choice(numbers)}/activate").status_code
        assert status in (200, 404), status  # a rebuild may have retired it meanwhile
    else:
        job = next(iter(client.get("/v1/admin/jobs").json()), None)
        if job is not None:
            assert client.post(f"/v1/admin/jobs/{job['id']}/cancel").status_code in (202, 409)
    model.acknowledged += 1


def change_files(folder: Path, model: Model, rng: random.Random) -> None:
    """Write, replace and remove some files of the folder; one always stays."""
    for _ in range(3):
        name, seed = f"{rng.randrange(1, 8)}.png", rng.randrange(10_000)
        if name in model.files and rng.random() < 0.4:
            (folder / name).unlink()
            del model.files[name]
        else:
            (folder / name).write_bytes(png(pixels_of(seed)))
            model.files[name] = seed


def check_folder(client: httpx.Client, model: Model) -> None:
    """An import that is not interrupted brings the gallery in step with the folder, whatever earlier ones left."""
    job = client.post("/v1/admin/import", json={"folder": FOLDER}).raise_for_status().json()["id"]
    done = wait_for(
        lambda: (job_now := client.get(f"/v1/admin/jobs/{job}").json())["finished"] and job_now,
        timeout_s=_JOB_S,
        every_s=JOB_EVERY_S,
    )
    assert done["state"] == "done", done
    listed = client.get(f"/v1/images?prefix={FOLDER}/&limit=100").json()["images"]
    assert {entry["id"] for entry in listed} == {f"{FOLDER}/{name}" for name in model.files}
    for name, seed in model.files.items():
        assert client.get(f"/v1/images/{FOLDER}/{name}/content").content == png(pixels_of(seed)), name


def settle(client: httpx.Client) -> None:
    """Wait until no job runs: those of a killed service are ended by the one that starts, or by another."""
    wait_for(
        lambda: all(job["finished"] for job in client.get("/v1/admin/jobs").json()),
        timeout_s=_JOB_S,
        every_s=JOB_EVERY_S,
    )


def check(client: httpx.Client, gallery: Gallery, model: Model) -> None:
    """Every acknowledged change holds, and every generation is whole."""
    for id, seed in model.present.items():
        if id in model.doubtful:
            continue
        answer = client.post("/v1/search?k=1", files={"image": ("q.png", png(pixels_of(seed)))})
        assert answer.status_code == 200, answer.text
        result = answer.json()["results"][0]
        assert result["score"] > 0.999, (id, result)
        assert client.get(f"/v1/images/{id}/content").content == png(pixels_of(seed)), id
    everything = client.post("/v1/search?k=1000", files={"image": ("q.png", png(pixels_of(0)))}).json()["results"]
    found = [result["id"] for result in everything]
    assert len(set(found)) == len(found), "an image is found twice"
    lost = (set(model.present) - model.doubtful) - set(found)
    assert not lost, f"acknowledged, and lost: {lost}"
    back = (model.removed - model.doubtful) & set(found)
    assert not back, f"removed, and back: {back}"
    for number in gallery.numbers():
        gallery.open_generation(number)
    assert client.get("/v1/lengths").json()["count"] == len(found)
    for key, record in gallery.store.records(gallery.store.contents()[0].tolist()).items():
        owner = record.id, record.sha256
        assert model.owners.setdefault(key, owner) == owner, "a key is given out twice"


def crash(root: Path, *, kills: int, seed: int, most_s: float = 1.5, nodes: int = 1, store: str | None = None) -> Model:
    """Kill one of some services `kills` times at random moments of changes; after each restart, check everything.

    Args:
        nodes: number of services, which change the gallery in turns.
        store: address of an empty schema in PostgreSQL; None for SQLite.
    """
    rng, model = random.Random(seed), Model()
    gallery = build_gallery(root, count=COUNT)
    if store is not None:
        gallery.store.close()
        assert eigenlens(["migrate", "--gallery", str(gallery.root), "--store", store]) == 0
        gallery = Gallery(gallery.root, store=store)
    folder = root / "import" / FOLDER
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(png(pixels_of(0)))
    model.files["0.png"] = 0
    environment = os.environ | {"EIGENLENS_IMPORT_ROOT": str(folder.parent)}
    environment |= {} if store is None else {"EIGENLENS_STORE": store}
    ids = [f"even/{n:04d}.png" for n in range(0, 20, 2)] + [f"new/{n}.png" for n in range(20)]

    @contextmanager
    def running(number: int) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
        process, address = start_service(gallery.root, root / f"service-{number}.log", environment=environment)
        try:
            with httpx.Client(
                base_url=address, headers=admin_headers(gallery), timeout=_STEP_S, verify=False
            ) as client:
                yield process, client
        except httpx.TransportError as error:  # outside of the changes, nothing kills it
            status = process.poll()
            raise AssertionError(f"the service does not answer; the status of its process is {status}") from error
        finally:
            process.kill()
            process.wait()

    with ExitStack() as others:
        survivors = [others.enter_context(running(number))[1] for number in range(1, nodes)]
        for round_number in range(kills + 1):
            with running(0) as (process, client):
                settle(client)
                if survivors:
                    time.sleep(FOLLOWED_S)
                check(rng.choice([client, *survivors]), gallery, model)
                print(f"{round_number} kills, {model.acknowledged} changes", file=sys.stderr, flush=True)
                if round_number == kills:
                    check_folder(client, model)
                    break
                killer = threading.Timer(rng.uniform(0.01, most_s), os.kill, (process.pid, signal.SIGKILL))
                killer.start()
                with suppress(httpx.TransportError):
                    while True:
                        change(rng.choice([client, *survivors]), model, rng, ids, folder)
                killer.join()
    gallery.store.close()
    return model


def main() -> int:
    """Run it as long as wanted."""
    parser = argparse.ArgumentParser(description="Kill a service at random moments and check what it kept.")
    parser.add_argument("--gallery", type=Path, required=True, help="an empty directory")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=1, help="above 1, on a PostgreSQL of its own")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        with ExitStack() as stack:
            store = stack.enter_context(running_server()).new_schema() if args.nodes > 1 else None
            model = crash(args.gallery, kills=args.kills, seed=args.seed, nodes=args.nodes, store=store)
    except artifact.EigenlensError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{args.kills} kills of {args.nodes} nodes, {model.acknowledged} acknowledged changes: nothing lost, nothing "
        "back, no key twice"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
