"""A service that is killed again and again while its gallery changes, checked against a model.

`python -m tests.crashes --kills 100 --gallery DIR` runs it as long as wanted; the suite runs a short form.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from eigenlens import artifact
from eigenlens.benchmarks.common.service_process import start_service
from eigenlens.service.gallery.layout import Gallery
from tests.support.service import admin_headers, build_gallery, pixels_of, png

COUNT = 60
_STEP_S = 10.0


@dataclass
class Model:
    """What has to be there. `doubtful` holds ids whose last change was not acknowledged: either state is right."""

    present: dict[str, int] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    acknowledged: int = 0


def change(client: httpx.Client, model: Model, rng: random.Random, ids: list[str]) -> None:
    """One random change, noted in the model only as far as it was acknowledged."""
    id = rng.choice(ids)
    action = rng.choices(["put", "delete", "rebuild", "activate", "cancel"], [10, 5, 2, 1, 1])[0]
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


def crash(root: Path, *, kills: int, seed: int, most_s: float = 1.5) -> Model:
    """Kill a service `kills` times at random moments of random changes; after each restart, check everything."""
    rng = random.Random(seed)
    gallery = build_gallery(root, count=COUNT)
    model = Model()
    ids = [f"even/{n:04d}.png" for n in range(0, 20, 2)] + [f"new/{n}.png" for n in range(20)]
    headers: dict[str, str] = {}
    for round_number in range(kills + 1):
        process, address = start_service(gallery.root, root / "service.log")
        headers = headers or admin_headers(gallery)
        try:
            with httpx.Client(base_url=address, headers=headers, timeout=_STEP_S, verify=False) as client:
                check(client, gallery, model)
                if round_number == kills:
                    break
                killer = threading.Timer(rng.uniform(0.01, most_s), os.kill, (process.pid, signal.SIGKILL))
                killer.start()
                try:
                    while True:
                        change(client, model, rng, ids)
                except httpx.TransportError:
                    pass
                killer.join()
        finally:
            process.kill()
            process.wait()
    return model


def main() -> int:
    """Run it as long as wanted."""
    parser = argparse.ArgumentParser(description="Kill a service at random moments and check what it kept.")
    parser.add_argument("--gallery", type=Path, required=True, help="an empty directory")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        model = crash(args.gallery, kills=args.kills, seed=args.seed)
    except artifact.EigenlensError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{args.kills} kills, {model.acknowledged} acknowledged changes: nothing lost, nothing back")
    return 0


if __name__ == "__main__":
    sys.exit(main())
