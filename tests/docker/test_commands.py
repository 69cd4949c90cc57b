"""Every command of the images and of Compose, run outside a container on a small folder of images.

The code that runs is the wheel that the images install, built from the files that they copy; paths of the containers
stand for directories of the test, and the service finds nothing that its image lacks.
"""

from __future__ import annotations

import compileall
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.docker_files import ROOT, assignments, compose, context_files, copied, final
from tests.support.training import tiny_overrides, write_images

SERVICE, TRAIN = ROOT / "docker/service.Dockerfile", ROOT / "docker/train.Dockerfile"
NOT_IN_THE_SERVICE_IMAGE = ("torch", "onnx", "onnxscript", "safetensors", "matplotlib")
PACKAGES = ("service", "model", "index")

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Place:
    """Where the paths of the containers lie in the test, and the programs that are found there."""

    root: Path
    site: Path

    @property
    def images(self) -> Path:
        return self.root / "images"

    def path(self, inside: str) -> Path:
        """The directory of the test that stands for a path of a container."""
        return self.root / inside.lstrip("/")

    def words(self, command: list[str], *, port: int = 8080) -> list[str]:
        """A container's command with the test's paths and port."""
        prefixes = ("/data/", "/opt/eigenlens/", "/images")
        return [
            str(self.path(word)) if word.startswith(prefixes) else word.replace("8080", str(port)) for word in command
        ]

    def environment(self, dockerfile: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
        """The image's variables, and a PATH with `eigenlens` and `python` from the wheel."""
        hidden = self.root / "hidden"
        hidden.mkdir(exist_ok=True)
        for module in without:
            (hidden / f"{module}.py").write_text(f"raise ModuleNotFoundError('not in the image', name={module!r})\n")
        image = assignments(final(dockerfile, "ENV")[0])
        # Without CI, too: where it is set, ONNX Runtime keeps no usage data, and the test could not see that it does.
        left_out = ("CI", "EIGENLENS_", "ORT_", "PYTHON", "XDG_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        return (
            kept
            | image
            | {
                "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": f"{hidden}:{self.site}" if without else str(self.site),
                "HOME": str(self.home),
                "MPLCONFIGDIR": str(self.root / "matplotlib"),  # which no image has
                "OMP_NUM_THREADS": "1",  # threads that wait for a busy core make tiny steps slow
            }
        )

    @property
    def home(self) -> Path:
        """The working and home directory, where nothing may be written."""
        return self.root / "home"

    def prepare(self) -> list[str]:
        """The command of the service `prepare` over the test's folder, with a training of a few steps."""
        service = compose(IMAGES=str(self.images))["services"]["prepare"]
        settings = [word for setting in tiny_overrides() for word in ("--set", setting)]
        return self.words([*service["entrypoint"], *service["command"], *settings])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("container")
    write_images(root / "images")
    for inside in ("home", "bin", "data/training", "data/gallery", "data/keys"):
        (root / inside).mkdir(parents=True)
    python = shlex.quote(sys.executable)
    # No process is process 1 here, which is why the containers have an init.
    programs = {"eigenlens": f"exec {python} -P -m eigenlens", "python": f"exec {python}", "tini": "shift 2; exec"}
    for name, program in programs.items():
        script = root / "bin" / name
        script.write_text(f'#!/bin/sh\n{program} "$@"\n')
        script.chmod(0o755)
    for copy in copied(TRAIN):
        if copy.target.startswith("/"):
            (source,) = copy.sources
            target = root / copy.target.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, target)
    return Place(root, build_wheel(root))


def build_wheel(root: Path) -> Path:
    """Build the wheel as the images do, from the files that they copy, and unpack it."""
    assert built_from(SERVICE) == built_from(TRAIN)
    build = root / "build"
    for copy in copied(SERVICE):
        for source in copy.sources:
            for name in context_files(source):
                flat = copy.target == "./"
                target = build / (Path(name).name if flat else name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target, follow_symlinks=False)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--no-build-isolation", "--no-deps", "--wheel-dir", "wheels", "."]
    done = subprocess.run(command, cwd=build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (build / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(root / "site")
    # As pip does, except for the package's own files: there it would show that a process compiles.
    for package in PACKAGES:
        compileall.compile_dir(root / "site" / "eigenlens" / package, quiet=1)
    return root / "site"


def built_from(dockerfile: Path) -> set[str]:
    """The files and folders that an image builds the wheel from."""
    sources = {source for copy in copied(dockerfile) if not copy.target.startswith("/") for source in copy.sources}
    return sources - {"docker/locks", "docker/requirements.py"}  # what tells the packages to install first


@pytest.fixture(scope="module")
def prepared(place: Place) -> Place:
    """Prepared by a first call that is killed as soon as its training run exists, and a second one."""
    environment = place.environment(TRAIN)
    with subprocess.Popen(
        place.prepare(), cwd=place.home, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as first:
        deadline = time.monotonic() + 90
        while not (place.path("/data/training/run/run.json")).exists():
            assert first.poll() is None, "prepare ended before it had started a run"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(first.pid, signal.SIGKILL)
    second = prepare_again(place)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "train" in second.stdout
    assert "\r" not in second.stdout
    return place


def prepare_again(place: Place) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        place.prepare(), cwd=place.home, env=place.environment(TRAIN), capture_output=True, check=False
    )
    # Decoded here, since reading as text would turn a carriage return into a new line.
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_the_wheel_of_the_images_holds_every_file_of_the_packages(place: Place) -> None:
    for package in PACKAGES:
        here = {
            f.relative_to(ROOT) for f in (ROOT / package).rglob("*") if f.is_file() and "__pycache__" not in f.parts
        }
        site = place.site / "eigenlens"
        there = {f.relative_to(site) for f in (site / package).rglob("*") if f.is_file() and f.suffix != ".pyc"}
        assert there == here


def test_prepare_leaves_a_run_an_encoder_and_a_gallery(prepared: Place) -> None:
    assert prepared.path("/data/training/run/manifest.json").is_file()
    assert prepared.path("/data/training/encoder/manifest.json").is_file()
    assert prepared.path("/data/gallery/CURRENT").read_text() == "1\n"


def test_a_second_prepare_changes_nothing(prepared: Place) -> None:
    before = state(prepared.root / "data")
    done = prepare_again(prepared)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert state(prepared.root / "data") == before


def test_the_default_command_of_the_training_image_lists_the_commands(place: Place) -> None:
    command = final(TRAIN, "ENTRYPOINT")[0].command + final(TRAIN, "CMD")[0].command
    done = subprocess.run(
        command, cwd=place.home, env=place.environment(TRAIN), executable=place.root / "bin" / command[0],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "export" in done.stdout


@dataclass(frozen=True)
class Serving:
    """A running service with its log."""

    place: Place
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def probe(self, command: list[str]) -> int:
        """Exit status of a health check."""
        environment = self.place.environment(SERVICE, without=NOT_IN_THE_SERVICE_IMAGE)
        environment |= {"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "EIGENLENS_URL": url_of(self.port)}
        words = [str(self.place.root / "bin" / command[0]), *self.place.words(command[1:])]
        return subprocess.run(words, env=environment, stderr=subprocess.DEVNULL, check=False).returncode


def url_of(port: int) -> str:
    """The address that a health check asks here; in a container it is the default one."""
    return f"http://127.0.0.1:{port}"


def probes() -> list[list[str]]:
    """The image's health check; Compose has no other."""
    assert "healthcheck" not in compose()["services"]["serve"]
    return [final(SERVICE, "HEALTHCHECK")[0].command]


def accepts(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def serving(prepared: Place) -> Iterator[Serving]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = prepared.root / "serve.log"
    image = final(SERVICE, "ENTRYPOINT")[0].command + final(SERVICE, "CMD")[0].command
    command = prepared.words(image, port=port)
    environment = prepared.environment(SERVICE, without=NOT_IN_THE_SERVICE_IMAGE)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(prepared.root / "bin" / command[0]), *command[1:]],
            cwd=prepared.home, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    service = Serving(prepared, port, process, log)
    try:
        deadline = time.monotonic() + 90
        # A health check starts a process: the first one once the port is open.
        while not accepts(port) or any(service.probe(command) for command in probes()):
            time.sleep(0.02)
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        yield service
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("command", probes(), ids=["image"])
def test_a_health_check_fails_where_nothing_answers(place: Place, command: list[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        words = [str(place.root / "bin" / command[0]), *command[1:]]
        environment = place.environment(SERVICE) | {"EIGENLENS_URL": url_of(closed.getsockname()[1])}
        done = subprocess.run(words, env=environment, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode != 0


@pytest.mark.parametrize("command", probes(), ids=["image"])
def test_the_health_checks_pass_while_it_serves(serving: Serving, command: list[str]) -> None:
    assert serving.probe(command) == 0


def test_the_service_searches_without_anything_its_image_lacks(serving: Serving) -> None:
    image = next(serving.place.images.rglob("*.png")).read_bytes()
    url = f"http://127.0.0.1:{serving.port}/v1/search"
    response = httpx.post(url, params={"k": 3}, files={"image": ("query.png", image)}, timeout=30, trust_env=False)
    assert response.status_code == 200, response.text
    assert len(response.json()["results"]) == 3


def test_the_admin_key_is_made_on_its_volume_for_its_owner_only(serving: Serving) -> None:
    key = serving.place.path("/data/keys/admin.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().strip() not in serving.log.read_text()


def test_the_service_stops_when_it_is_told_to(serving: Serving) -> None:
    """The last test of the service: it ends it, and then looks at what it left behind."""
    stop = signal.Signals[final(SERVICE, "STOPSIGNAL")[0].value]
    grace = int(compose()["services"]["serve"]["stop_grace_period"].removesuffix("s"))
    serving.process.send_signal(stop)
    assert serving.process.wait(timeout=grace) in (0, -stop, 128 + stop), serving.log.read_text()
    assert "Traceback" not in serving.log.read_text()
    assert list(serving.place.home.iterdir()) == []
    assert not (serving.place.site / "eigenlens" / "__pycache__").exists()


def state(root: Path) -> dict[Path, int]:
    """When each file below was last written."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
