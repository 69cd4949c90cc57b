"""No command, and no process that a command starts, imports a file of the working directory.

One exception cannot be avoided: `python -m eigenlens` finds a file or folder of the working directory that is itself
called `eigenlens` before the installed package, as `python -m` does for every name. The script `eigenlens` does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eigenlens.service.client import Client
from tests.support.service import image_id, write_encoder, write_images

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("eigenlens")
OURS = ("artifact", "benchmarks", "command", "index", "keys", "model", "service")
OTHERS = ("faiss", "fastapi", "httpx", "numpy", "onnxruntime", "PIL", "pydantic", "uvicorn", "sitecustomize")
_READY_S = 100


def write_clashing_files(folder: Path, *names: str) -> Path:
    """Files and packages of these names; each leaves a file `imported` when it is imported, and fails."""
    folder.mkdir()
    marker = folder / "imported"
    source = (
        f"import builtins\nbuiltins.open({str(marker)!r}, 'a').write(__name__ + '\\n')\nraise ImportError(__file__)\n"
    )
    for name in names:
        path = folder / name / "__init__.py" if name in ("service", "model") else folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return folder


def environment() -> dict[str, str]:
    """The checkout on the path, and nothing that makes the path safe already."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EIGENLENS_"))}
    return inherited | {"PYTHONPATH": str(ROOT)}


def run(command: list[str], *arguments: object, cwd: Path) -> str:
    line = [*command, *map(str, arguments)]
    done = subprocess.run(line, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def address_of(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        text = log.read_text()
        found = [word for word in text.split() if word.startswith("http://127.0.0.1:")]
        if found and "startup complete" in text:
            return found[0]
        time.sleep(0.02)
    raise AssertionError(log.read_text())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("start", ["script", "module"])
def test_commands_and_their_processes_import_nothing_from_the_working_directory(tmp_path: Path, start: str) -> None:
    if start == "script" and not SCRIPT.exists():
        pytest.skip("the distribution is not installed here: there is no script `eigenlens`")
    command = [str(SCRIPT)] if start == "script" else [sys.executable, "-m", "eigenlens"]
    own_name = ["eigenlens"] if start == "script" else []
    cwd = write_clashing_files(tmp_path / "work", *sys.stdlib_module_names, *OURS, *OTHERS, *own_name)
    gallery, images = tmp_path / "gallery", write_images(tmp_path / "images", 4)
    query = images / image_id(1)

    assert run(command, "--version", cwd=cwd).startswith("eigenlens ")
    encoder = write_encoder(tmp_path / "encoder")
    run(command, "build", "--gallery", gallery, "--encoder", encoder, "--images", images, cwd=cwd)
    serve = [*command, "serve", "--gallery", str(gallery), "--port", "0"]
    with serving(serve, cwd=cwd, log=tmp_path / "one-worker.log") as address:
        url = ["--url", address, "--json"]
        key = ["--key-file", str(gallery / "admin.key")]
        results = json.loads(run(command, "search", query, *url, cwd=cwd))["results"]
        assert results[0]["id"] == image_id(1)
        added: dict[str, Any] = json.loads(run(command, "add", query, "--prefix", "new/", *url, *key, cwd=cwd))
        assert added["added"] == 1
        job = json.loads(run(command, "rebuild", *url, *key, cwd=cwd))
        assert (job["state"], job["generation"]) == ("done", 2)
    # The service's processes are others; the commands that call it are not, so they are not started again.
    with (
        serving([*serve, "--workers", "2"], cwd=cwd, log=tmp_path / "two-workers.log") as address,
        Client(address, key=(gallery / "admin.key").read_text().strip()) as client,
    ):
        image = query.read_bytes()
        assert client.search(image)["results"][0]["id"] == image_id(1)
        assert client.add({"newer/1.png": image})["images"][0]["status"] == "added"
        *_, ended = client.follow(client.rebuild()["id"])
        assert (ended["state"], ended["generation"]) == ("done", 3)
    assert not (cwd / "imported").exists(), (cwd / "imported").read_text()


@contextlib.contextmanager
def serving(command: list[str], *, cwd: Path, log: Path) -> Iterator[str]:
    """The address of a service that runs until the end of the block, without a traceback."""
    with log.open("wb") as f:
        process = subprocess.Popen(command, cwd=cwd, env=environment(), stderr=f)
    try:
        yield address_of(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    assert "Traceback" not in log.read_text()


def test_the_clashing_files_are_imported_where_the_path_is_not_safe(tmp_path: Path) -> None:
    cwd = write_clashing_files(tmp_path / "work", "random", "service")
    for name in ("random", "service"):
        done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=cwd, env=environment(), check=False)
        assert done.returncode != 0
    assert (cwd / "imported").read_text() == "random\nservice\n"
