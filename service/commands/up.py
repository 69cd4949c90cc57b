"""`eigenlens up`: from a folder of photographs to a page that searches them, in one command."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from eigenlens.artifact import MANIFEST, ArtifactError, read
from eigenlens.image_files import count_kinds, describe_counts, list_images
from eigenlens.service.commands.listening import address_of, listen
from eigenlens.service.errors import FolderError, ServiceError

EPILOG = """examples:
  eigenlens up ~/Pictures
  eigenlens up ~/Pictures --encoder encoders/mine --port 8000

The first time, an encoder is fitted to the photographs and a gallery is built; then they are served, and the browser
opens. From then on the same command starts in seconds, and the gallery is kept in step with the folder as long as it
runs. Interrupt it at any moment: the same command carries on. The files stay where they are."""

# Seconds on two processors: what a step takes at least, and for each photograph.
_FIT_S, _FIT_PER_IMAGE_S = 20.0, 0.15
_CHOICE_S, _VIEWS_PER_IMAGE_S = 20.0, 0.1
_BUILD_S, _BUILD_PER_IMAGE_S = 10.0, 0.05
# With fewer photographs the settings of a fit are these: what the held-out ones would choose takes longer and finds
# less, since so few tell little. From _ENOUGH on, two views of each find nearly what four find.
_FEW, _ENOUGH = 1000, 100
_FOR_FEW, _FOR_ENOUGH = ("--ridge", "1", "--diffusion-time", "1"), ("--views", "2")
# One person searches with one photograph at a time. To try which runtime and which batch is faster takes seconds.
_FOR_ONE = ("--runtime", "onnxruntime", "--max-batch", "1")
_READY_TIMEOUT_S = 120.0
_POLL_S = 0.1
# What is interrupted may be killed: every step is carried on, whenever it ended.
_GRACE_S = 1.0


@dataclass(frozen=True)
class Step:
    """A step of the way: what it does, as one command of this program, and about how long it takes."""

    title: str
    command: Sequence[str]
    seconds: float


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of photographs, or a tar of one")
    parser.add_argument(
        "--work",
        metavar="DIR",
        type=Path,
        help="directory of the encoder and the gallery (default: one below ~/.local/share/eigenlens for each folder)",
    )
    parser.add_argument("--encoder", metavar="ENCODER", type=Path, help="encoder to use (default: fit one)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: %(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")


def run(args: argparse.Namespace) -> int:
    """Take the steps that are left, serve, and keep in step until interrupted. Raises: ServiceError."""
    folder = args.folder.expanduser().resolve()
    if not folder.exists():
        raise FolderError(f"there is no {args.folder}")
    listen(args.host, args.port).close()  # before minutes are spent
    work = args.work or default_work(folder)
    work.mkdir(parents=True, exist_ok=True)
    gallery = work / "gallery"
    if not (gallery / "CURRENT").exists():
        take_steps(steps_of(folder, work, args.encoder))
    elif args.encoder is not None and not _is_encoder_of(gallery, args.encoder):
        build = _build(args.encoder, folder, gallery)
        print(
            f"{gallery} is served with the encoder that it has, not with {args.encoder}; to change that, run: "
            f"{shlex.join(['eigenlens', *build])}",
            file=sys.stderr,
        )
    return _serve(folder, gallery, args)


def default_work(folder: Path) -> Path:
    """Return the directory of a folder's encoder and gallery, where the system keeps data of programs."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    return data / "eigenlens" / f"{re.sub('[^A-Za-z0-9._-]+', '-', folder.name) or 'folder'}-{mark}"


def steps_of(folder: Path, work: Path, encoder: Path | None) -> list[Step]:
    """Return the steps that are left before the gallery can be served. Raises: FolderError, without images."""
    count = 0
    if folder.is_dir():
        listing = list_images(folder)
        count, others = len(listing.files), describe_counts(count_kinds(listing.skipped))
        print(f"{folder}: {count} images{f', and {others}' if others else ''}", file=sys.stderr)
        if count == 0:
            raise FolderError(f"{folder} holds no image")
    steps = []
    if encoder is None:
        encoder = work / "encoder"
        if not (encoder / MANIFEST).exists():
            steps.append(fit_step(folder, encoder, count))
    build = _build(encoder, folder, work / "gallery")
    steps.append(Step("build the gallery", build, _BUILD_S + _BUILD_PER_IMAGE_S * count))
    return steps


def fit_step(folder: Path, encoder: Path, count: int) -> Step:
    """Return the step that fits an encoder to `count` photographs; 0 if they are not of a folder, and not counted."""
    command = ["fit", "--images", str(folder), "--out", str(encoder)]
    seconds = _FIT_S + _FIT_PER_IMAGE_S * count
    if 0 < count < _FEW:
        command += _FOR_FEW
    else:
        seconds += _CHOICE_S
    if _ENOUGH <= count < _FEW:
        command += _FOR_ENOUGH
    else:
        seconds += _VIEWS_PER_IMAGE_S * count
    return Step("fit an encoder to the photographs", command, seconds)


def _build(encoder: Path, folder: Path, gallery: Path) -> list[str]:
    """Return the command that builds a gallery."""
    return ["build", "--encoder", str(encoder), "--images", str(folder), "--gallery", str(gallery)]


def _is_encoder_of(gallery: Path, encoder: Path) -> bool:
    """Return whether a gallery is served with the encoder at a path."""
    from eigenlens.service.gallery.layout import Gallery  # needs what takes a second to import

    opened = Gallery(gallery)
    try:
        return opened.current_encoder_id() == read(encoder, kind="encoder", verify=False).id
    except ArtifactError:  # moved since the build, or damaged
        return False
    finally:
        opened.store.close()


def take_steps(steps: Sequence[Step]) -> None:
    """Take steps, each told with what is left. Raises: ServiceError, if one fails."""
    for number, step in enumerate(steps):
        left = _duration(sum(later.seconds for later in steps[number:]))
        print(f"step {number + 1} of {len(steps) + 1}: {step.title}; {left} left", file=sys.stderr)
        process = start(step.command)
        try:
            status = process.wait()
        finally:  # it has ended, unless this process was interrupted
            _end([process])
        if status != 0:
            raise ServiceError(f"`eigenlens {step.command[0]}` ended with status {status}; run the command again")
    print(f"step {len(steps) + 1} of {len(steps) + 1}: serve", file=sys.stderr)


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command of this program; -P: never import a file of the working directory in place of a module."""
    return subprocess.Popen([sys.executable, "-P", "-m", "eigenlens", *command])


def _serve(folder: Path, gallery: Path, args: argparse.Namespace) -> int:
    place = ["--host", args.host, "--port", str(args.port)]
    listen(args.host, args.port).close()  # what answers there is this service and no other
    processes = [start(["serve", "--gallery", str(gallery), *place, *_FOR_ONE])]
    try:
        address = address_of(args.host, args.port)
        if not _wait_until_ready(address, processes[0]):
            raise ServiceError("the service did not start; its message is above")
        print(f"ready: {address}/  (interrupt to end)", file=sys.stderr)
        if not args.no_browser:
            webbrowser.open(f"{address}/")
        if folder.is_dir():
            processes.append(start(["sync", "--gallery", str(gallery), "--watch"]))
        return processes[0].wait()
    except KeyboardInterrupt:
        print("ended; the same command carries on", file=sys.stderr)
        return 130
    finally:
        _end(processes)


def _wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/readyz", timeout=1).status_code == 200:
                return True
        except httpx.HTTPError:
            pass
        time.sleep(_POLL_S)
    return False


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes at once; none loses anything by that."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE_S
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _duration(seconds: float) -> str:
    return f"about {round(seconds / 60)} min" if seconds >= 90 else f"about {max(10, round(seconds, -1)):.0f} s"
