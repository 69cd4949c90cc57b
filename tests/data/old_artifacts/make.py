"""Make old.tar.xz and expected.json with the commands of an older version of the project (see README.md).

    python make.py EIGENLENS WORK_DIRECTORY

EIGENLENS is the older version's command. Everything else is done by that command and over HTTP.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

SIDE = 24
COUNT = 300
QUERIES = (1000, 1001, 1002)
SETTINGS = {
    "image_size": 16,
    "backbone": "tiny-conv",
    "code_length": 16,
    "hidden_length": 32,
    "hidden_layers": 1,
    "batch_size": 16,
    "steps": 24,
    "warmup_steps": 2,
    "checkpoint_every_s": 0.001,
}
# One length of each kind; the whole codes are scanned in half precision.
KINDS = "2=sq8,3=ivf,4=ivf-sq8,6=ivf-pq,8=ivf-rabitq,12=hnsw,16=half"


def main(eigenlens: str, work: Path) -> None:
    """Make everything in an empty directory."""
    work.mkdir(parents=True)
    os.chdir(work)
    write_tar(Path("images.tar"), range(COUNT))
    write_files(Path("new"), range(COUNT, COUNT + 8))
    write_files(Path("later"), range(COUNT + 8, COUNT + 14))
    write_files(Path("queries"), QUERIES)

    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    write_sparse_weights(eigenlens, settings)
    train = [eigenlens, "train", "--images", "images.tar", "--init", "sparse.safetensors", *settings]
    run([*train, "--out", "run"])
    run([eigenlens, "export", "run", "--out", "encoder"])
    interrupt([*train, "--set", "steps=60", "--out", "interrupted-run"])
    build = [eigenlens, "build", "--encoder", "encoder", "--images", "images.tar"]
    run([*build, "--gallery", "gallery", "--lengths", "4,8"])
    make_key = [eigenlens, "keys", "--gallery", "gallery", "add", "shop", "--scope", "search", "--scope", "write"]
    key = subprocess.run(make_key, check=True, capture_output=True, text=True).stdout.strip()
    lengths = ",".join(pair.partition("=")[0] for pair in KINDS.split(","))
    run([*build, "--gallery", "kinds", "--lengths", lengths, "--kinds", KINDS])

    expected: dict[str, Any] = {"key": key}
    with serving(eigenlens, "gallery") as client:
        environment = os.environ | {"EIGENLENS_URL": str(client.base_url)}
        admin = ["--key-file", "gallery/admin.key"]
        run([eigenlens, "add", "new", "--prefix", "new/", "--metadata", '{"price": 80}', *admin], env=environment)
        run([eigenlens, "rm", "kind-0/0000.png", "kind-1/0001.png", *admin], env=environment)
        run([eigenlens, "rebuild", *admin], env=environment)
        run([eigenlens, "add", "later", "--prefix", "later/", "--metadata", '{"price": 120}', *admin], env=environment)
        run(
            [eigenlens, "rm", "kind-2/0002.png", "new/kind-1/0301.png", "later/kind-0/0308.png", *admin],
            env=environment,
        )
        expected["gallery"] = what_is_served(client, {"price": {"$lt": 100}})
    with serving(eigenlens, "kinds") as client:
        expected["kinds"] = what_is_served(client, {"label": "kind-1"})

    Path("expected.json").write_text(one_search_a_line(expected))
    with tarfile.open("old.tar.xz", "w:xz", preset=9) as archive:
        for name in ("run", "interrupted-run", "encoder", "gallery", "kinds", "queries"):
            archive.add(name, filter=without_traces)


def picture(seed: int) -> tuple[str, bytes]:
    """Return the id and the PNG of one of four kinds of coloured gradients."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, SIDE)
    y, x = np.meshgrid(ramp, ramp, indexing="ij")
    kind = seed % 4
    low, high = rng.integers(0, 120, 3), rng.integers(100, 256, 3)
    pixels = low + (y, x, np.abs(x - y), x * y)[kind][..., None] * (high - low)
    buffer = io.BytesIO()
    Image.fromarray((pixels // 16 * 16).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return f"kind-{kind}/{seed:04d}.png", buffer.getvalue()


def write_tar(path: Path, seeds: range) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in map(picture, seeds):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_files(folder: Path, seeds: range | tuple[int, ...]) -> None:
    for name, data in map(picture, seeds):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def write_sparse_weights(eigenlens: str, settings: list[str]) -> None:
    """Write first weights of which three channels in four are 0 and stay so, since files of zeros compress."""
    run([eigenlens, "train", "--images", "images.tar", "--out", "first", *settings, "--set", "steps=3"])
    weights = load_file("first/network.safetensors")
    sparse = {}
    for name, value in weights.items():
        if name.startswith("backbone."):
            value = value.clone()
            if value.ndim == 4:
                value[value.shape[0] // 4 :] = 0
                if value.shape[1] > 3:
                    value[:, value.shape[1] // 4 :] = 0
            elif value.ndim == 1:
                value[value.shape[0] // 4 :] = float(name.endswith(("weight", "running_var")))
            sparse[name] = value
    torch.manual_seed(0)
    save_file(sparse, "sparse.safetensors")


def interrupt(command: list[str]) -> None:
    """Start a training run and kill it after some of its steps."""
    metrics = Path("interrupted-run/metrics.jsonl")
    with subprocess.Popen(command) as process:
        while not (metrics.exists() and '"step": 2' in metrics.read_text()):
            assert process.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not Path("interrupted-run/manifest.json").exists()


@contextlib.contextmanager
def serving(eigenlens: str, gallery: str) -> Iterator[httpx.Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [eigenlens, "serve", "--gallery", gallery, "--port", str(port)]
    with subprocess.Popen(command) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        if client.get("/readyz").status_code == 200:
                            break
                    time.sleep(0.2)
                client.headers["api-key"] = (Path(gallery) / "admin.key").read_text().strip()
                yield client
        finally:
            process.terminate()


def what_is_served(client: httpx.Client, condition: dict[str, Any]) -> dict[str, Any]:
    """Ask for everything that a newer version has to answer alike."""
    lengths = client.get("/v1/lengths").json()
    searches = []
    for path in sorted(Path("queries").rglob("*.png")):
        for length in [entry["length"] for entry in lengths["lengths"]]:
            for filtered in ({}, {"filter": json.dumps(condition)}):
                parameters = {"length": length, "k": 10, **filtered}
                answer = client.post("/v1/search", params=parameters, files={"image": path.read_bytes()})
                answer.raise_for_status()
                results = [[result["id"], round(result["score"], 6)] for result in answer.json()["results"]]
                searches.append({"query": path.as_posix(), "parameters": parameters, "results": results})
    return {
        "kinds": {str(entry["length"]): entry["kind"] for entry in lengths["lengths"]},
        "eigenvalues": lengths["eigenvalues"],
        "count": lengths["count"],
        "encoder": lengths["encoder"],
        "jobs": [[job["id"], job["kind"], job["state"]] for job in client.get("/v1/admin/jobs").json()],
        "generations": [[entry["number"], entry["count"]] for entry in client.get("/v1/admin/generations").json()],
        "searches": searches,
    }


def one_search_a_line(expected: dict[str, Any]) -> str:
    """Return JSON that is small and can be compared line by line."""
    text = json.dumps(expected, sort_keys=True)
    return text.replace('{"parameters"', '\n{"parameters"').replace('"key": "', '\n"key": "') + "\n"


def without_traces(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out pictures of a run, and who made the files."""
    if "/events" in member.name or member.name.endswith(("summary.png", ".lock")):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def run(command: list[str], **options: Any) -> None:
    subprocess.run(command, check=True, **options)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
