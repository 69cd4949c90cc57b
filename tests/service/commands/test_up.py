"""`eigenlens up`: one command from a folder to a page, that carries on where it was interrupted."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from eigenlens.command import main
from eigenlens.service.commands import up as module
from eigenlens.service.commands.listening import address_of
from eigenlens.service.commands.up import Step, default_work, fit_step, steps_of, take_steps
from tests.support.service import build_gallery, pixels_of, png, wait_for, write_encoder, write_images


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ipv6_or_4() -> str:
    """The loopback address of IPv6, where the machine has it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return "127.0.0.1"
    return "::1"


def up(tmp_path: Path, host: str, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "eigenlens", "up", str(tmp_path / "images"), "--work", str(tmp_path / "work")]
    more = ["--encoder", str(tmp_path / "encoder"), "--host", host, "--port", str(port), "--no-browser"]
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

    def best(address: str, seed: int) -> str:
        found = httpx.post(f"{address}/v1/search", files={"image": png(pixels_of(seed))}, params={"k": 1}).json()
        return str(found["results"][0]["id"])

    # The second time, the gallery is there. However it is ended, the processes that it started end with it.
    endings = ((40, signal.SIGINT, 130, "127.0.0.1"), (41, signal.SIGTERM, 143, ipv6_or_4()))
    for seed, end, expected, host in endings:
        address = address_of(host, port)
        running = up(tmp_path, host, port)
        try:
            wait_for(lambda address=address: answers(address), timeout_s=60)  # type: ignore[misc]
            (folder / f"{seed}.png").write_bytes(png(pixels_of(seed)))
            wait_for(lambda address=address, seed=seed: best(address, seed) == f"{seed}.png", timeout_s=60)  # type: ignore[misc]
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


@pytest.mark.parametrize(
    ("count", "options"),
    [
        (0, ""),  # not counted
        (12, "--ridge 1 --diffusion-time 1"),
        (300, "--ridge 1 --diffusion-time 1 --views 2"),
        (1000, ""),
    ],
)
def test_few_photographs_are_fitted_quickly(tmp_path: Path, count: int, options: str) -> None:
    command = fit_step(tmp_path, tmp_path / "encoder", count).command
    assert command == ["fit", "--images", str(tmp_path), "--out", str(tmp_path / "encoder"), *options.split()]


@pytest.mark.parametrize("deaf", [False, True])
def test_a_step_that_is_interrupted_is_ended_within_two_seconds(deaf: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if timeout is None and self.returncode is None and not killed:
                raise KeyboardInterrupt
            return super().wait(timeout)

        def kill(self) -> None:
            killed.append(True)
            super().kill()

    killed: list[bool] = []
    command = ["sh", "-c", f"trap '{'' if deaf else 'exit'}' TERM; echo; while :; do sleep 0.05; done"]
    step = Interrupted(command, stdout=subprocess.PIPE)
    assert step.stdout is not None
    step.stdout.readline()  # its trap is set
    monkeypatch.setattr(module, "start", lambda _: step)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), step.stdout:
        take_steps([Step("wait", [], 60)])
    assert time.monotonic() - begun < 2
    assert step.returncode is not None
    assert bool(killed) == deaf


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


def test_the_service_of_another_program_is_not_taken_for_the_one_that_was_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, work = write_images(tmp_path / "images", 2), tmp_path / "work"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["up", str(folder), "--work", str(work), "--port", port, "--no-browser"]) == 1
    assert capsys.readouterr().err.endswith("choose another --port\n")
    assert not work.exists(), "no step was taken"


def test_another_encoder_for_a_gallery_that_is_there_is_told_what_would_use_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_gallery(tmp_path, count=6, lengths=[2])
    another = write_encoder(tmp_path / "an encoder", shift=100)
    monkeypatch.setattr(module, "_serve", lambda *_: 0)

    def told(encoder: Path) -> str:
        command = ["up", str(tmp_path / "images"), "--work", str(tmp_path), "--port", str(free_port())]
        assert main([*command, "--encoder", str(encoder)]) == 0
        return capsys.readouterr().err

    assert told(tmp_path / "encoder") == ""
    advice = told(another)
    assert f"not with {another}" in advice
    assert main(shlex.split(advice.partition("run: eigenlens ")[2])) == 0
    capsys.readouterr()
    assert told(another) == ""
