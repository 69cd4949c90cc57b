"""`eigenlens up`: one command from a folder to a page, that carries on where it was interrupted."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from eigenlens.command import main
from eigenlens.service.commands.up import default_work, steps_of
from tests.support.service import pixels_of, png, wait_for, write_encoder, write_images


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def up(tmp_path: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "eigenlens", "up", str(tmp_path / "images"), "--work", str(tmp_path / "work")]
    more = ["--encoder", str(tmp_path / "encoder"), "--port", str(port), "--no-browser"]
    return subprocess.Popen([*command, *more], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_folder_is_served_kept_in_step_interrupted_and_served_again(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 12)
    write_encoder(tmp_path / "encoder")
    port = free_port()
    address = f"http://127.0.0.1:{port}"

    def best(seed: int) -> str:
        found = httpx.post(f"{address}/v1/search", files={"image": png(pixels_of(seed))}, params={"k": 1}).json()
        return str(found["results"][0]["id"])

    # The second time, the gallery is there. However it is ended, the processes that it started end with it.
    for seed, end, expected in ((40, signal.SIGINT, 130), (41, signal.SIGTERM, 143)):
        running = up(tmp_path, port)
        try:
            wait_for(lambda: answers(address), timeout_s=60)
            (folder / f"{seed}.png").write_bytes(png(pixels_of(seed)))
            wait_for(lambda seed=seed: best(seed) == f"{seed}.png", timeout_s=60)  # type: ignore[misc]
        finally:
            begun = time.monotonic()
            running.send_signal(end)
            status = running.wait(timeout=20)
        assert status == expected
        assert time.monotonic() - begun < 6
        assert not answers(address)


def test_only_the_steps_that_are_left_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_images(tmp_path / "images", 12)
    (folder / "film.mov").write_bytes(b"\x00\x00\x00\x14ftypqt  " + bytes(20))
    steps = steps_of(folder, tmp_path / "work", None)
    assert [step.command[0] for step in steps] == ["fit", "build"]
    assert "--ridge" in steps[0].command, "twelve photographs are too few to choose settings by"
    assert "12 images, and 1 video" in capsys.readouterr().err
    write_encoder(tmp_path / "work" / "encoder")
    assert [step.command[0] for step in steps_of(folder, tmp_path / "work", None)] == ["build"]
    assert [step.command[0] for step in steps_of(folder, tmp_path, tmp_path / "encoder")] == ["build"]


def test_each_folder_has_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    one, two = default_work(tmp_path / "a" / "x y"), default_work(tmp_path / "b" / "x y")
    assert one.parent == two.parent == tmp_path / "eigenlens"
    assert one != two


@pytest.mark.parametrize("content", [None, b"no image"])
def test_a_folder_without_images_is_refused_in_words(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "a.txt").write_bytes(content)
    assert main(["up", str(tmp_path / "x"), "--work", str(tmp_path / "work"), "--no-browser"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("eigenlens: error: ")
