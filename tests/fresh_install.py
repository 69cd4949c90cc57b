"""What a user installs, in fresh environments: the commands from the wheel, and the client alone.

`python -m tests.fresh_install --images FILE` takes some minutes, since it installs torch. FILE is a folder of
photographs or a tar of one. The commands run in a folder whose files have the names of modules, none of which may be
imported.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "index", "model", "service")
# Each leaves a mark and fails when it is imported from the working directory.
HOSTILE = (
    *(f"{name}/__init__.py" for name in FOLDERS),
    *(f"{name}.py" for name in ("artifact", "eigenlens", "faiss", "json", "numpy", "random", "sitecustomize", "torch")),
)
MARK = "IMPORTED"


def main() -> None:
    """Install, run everything, and print what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="photographs: a folder, or a tar of one")
    parser.add_argument(
        "--keep", type=Path, help="folder to work in and to keep; a second call reuses its environments"
    )
    parser.add_argument("--count", type=int, default=60, help="photographs to work with (default: %(default)s)")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = (args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        work.mkdir(parents=True, exist_ok=True)
        run_all(work, args.images.absolute(), args.count)
    print("all of it works")


def run_all(work: Path, images: Path, count: int) -> None:
    """Run every check below `work`."""
    wheel = build_wheel(work)
    full, light, bare = (environment(work / name) for name in ("full", "light", "bare"))
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    install(full, *constraints, f"{wheel}[cpu,train,pretrained]")
    install(light, *constraints, str(wheel))
    install(bare, *constraints, "httpx", "httpx-sse", "pydantic")
    install(bare, "--no-deps", str(wheel))
    for python in (full, light, bare):
        installed = [path.name for path in Path(site_packages(python)).iterdir() if is_ours(path)]
        assert sorted(installed) == ["eigenlens", "eigenlens-0.1.0.dist-info"], installed

    hostile = hostile_folder(work / "hostile")
    call(bare, hostile, "-P", "-c", "from eigenlens import AsyncClient, Client, __version__; print(__version__)")
    pictures = some_pictures(images, work / "pictures", count)
    more = some_pictures(images, work / "more", 3, skip=count)

    encoder, gallery = work / "encoder", work / "gallery"
    for path in (encoder, gallery, encoder.with_name("encoder.work")):
        shutil.rmtree(path, ignore_errors=True)
    eigenlens(full, hostile, "fit", "--images", pictures, "--out", encoder, "--code-length", "32", "--views", "2")
    eigenlens(full, hostile, "build", "--encoder", encoder, "--images", pictures, "--gallery", gallery)
    with serving(full, hostile, gallery) as url:
        key = ["--url", url, "--key-file", gallery / "admin.key"]
        photograph = next(path for path in sorted(more.rglob("*")) if path.is_file())
        eigenlens(light, hostile, "add", more, "--prefix", "more/", *key)
        found = json.loads(eigenlens(light, hostile, "search", photograph, "--json", *key))["results"]
        assert found[0]["id"].startswith("more/"), found
        eigenlens(light, hostile, "rebuild", *key)
        again = json.loads(eigenlens(light, hostile, "search", photograph, "--json", *key))["results"]
        assert again[0]["id"] == found[0]["id"], again
        eigenlens(light, hostile, "rm", found[0]["id"], *key)
        for command in (["jobs"], ["generations"], ["stats"]):
            eigenlens(light, hostile, *command, *key)
        eigenlens(light, hostile, "backup", work / "backup.tar", *key)
        assert (work / "backup.tar").stat().st_size > 0
    refused = eigenlens(light, hostile, "build", "--gallery", gallery, status=1)
    assert "pip install 'eigenlens[cpu] @ file://" in refused, refused
    assert "Traceback" not in refused, refused
    # `python -m` puts the working directory on the path before any of our code runs: not these two, then.
    for name in ("sitecustomize.py", "eigenlens.py"):
        (hostile / name).unlink()
    call(full, hostile, "-m", "eigenlens", "build", "--gallery", gallery, "--lengths", "8,16")
    assert not (hostile / MARK).exists(), (hostile / MARK).read_text()


def build_wheel(work: Path) -> Path:
    """Build the wheel of an sdist, so that both are tried."""
    checkout = work / "checkout"
    for path in (checkout, work / "dist"):
        shutil.rmtree(path, ignore_errors=True)
    for name in ("eigenlens", *FOLDERS):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignored)
    for name in ("LICENSE", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    program = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    (work / "dist").mkdir()
    run([sys.executable, "-c", program, str(work / "dist")], cwd=checkout)
    (sdist,) = (work / "dist").glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    run([*pip, "--wheel-dir", str(work / "dist"), str(sdist)], cwd=work)
    (wheel,) = (work / "dist").glob("*.whl")
    return wheel


def environment(path: Path) -> Path:
    """Return the interpreter of a new virtual environment, or of the one that is there."""
    if not (path / "bin" / "pip").exists():  # the last thing that venv makes
        run([sys.executable, "-m", "venv", str(path)], cwd=path.parent)
    return path / "bin" / "python"


def install(python: Path, *arguments: str) -> None:
    wheel = any(".whl" in argument for argument in arguments)
    if wheel:  # of the same version as an earlier call's, which pip would keep
        run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "eigenlens"], cwd=ROOT)
    run([str(python), "-m", "pip", "install", "--quiet", *arguments], cwd=ROOT)


def site_packages(python: Path) -> str:
    return run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=ROOT).strip()


def is_ours(path: Path) -> bool:
    """Whether an installed file or folder comes from this project, by its name."""
    return path.name.partition("-")[0].removesuffix(".py") in ("eigenlens", "artifact", "command", "docker", *FOLDERS)


def hostile_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    for name in HOSTILE:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"open({str(path / MARK)!r}, 'a').write({name!r} + '\\n')\nraise SystemExit('{name} was imported')\n"
        )
    return path


def some_pictures(source: Path, target: Path, count: int, *, skip: int = 0) -> Path:
    """Copy some of the photographs into a new folder."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    if source.is_dir():
        files = [path for path in sorted(source.rglob("*")) if path.is_file()]
        for path in files[skip : skip + count]:
            shutil.copy(path, target)
    else:
        with tarfile.open(source) as archive:
            members = [member for member in archive if member.isfile()][skip : skip + count]
            for member in members:
                content = archive.extractfile(member)
                assert content is not None
                (target / Path(member.name).name).write_bytes(content.read())
    return target


@contextlib.contextmanager
def serving(python: Path, folder: Path, gallery: Path) -> Iterator[str]:
    """Serve a gallery with the installed command, and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(python.with_name("eigenlens")), "serve", "--gallery", str(gallery), "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, cwd=folder, env=clean_environment()) as process:
        try:
            deadline = time.monotonic() + 120
            while True:
                assert process.poll() is None, "the service ended"
                assert time.monotonic() < deadline, "the service does not answer"
                with contextlib.suppress(OSError), urlopen(f"{url}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        break
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def eigenlens(python: Path, folder: Path, *arguments: object, status: int = 0) -> str:
    """Run the installed command, and return its standard output, or its standard error where it has to fail."""
    words = [str(python.with_name("eigenlens")), *map(str, arguments)]
    return run(words, cwd=folder, status=status)


def call(python: Path, folder: Path, *arguments: object) -> str:
    return run([str(python), *map(str, arguments)], cwd=folder)


def run(command: list[str], *, cwd: Path, status: int = 0) -> str:
    start = time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False)
    print(f"{time.monotonic() - start:6.1f} s  {' '.join(command)[:160]}", flush=True)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stderr if status else done.stdout


def clean_environment() -> dict[str, str]:
    """Return the variables without those that say where modules are or what the service is."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EIGENLENS_"))}


if __name__ == "__main__":
    main()
