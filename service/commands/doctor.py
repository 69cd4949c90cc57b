"""`eigenlens doctor`: looks at the installation, the machine and a gallery, and says what to do."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import eigenlens
from eigenlens.artifact import EigenlensError
from eigenlens.command import EXTRAS
from eigenlens.index.qdrant_engine.server import QdrantServer
from eigenlens.install import install_line
from eigenlens.processors import processors
from eigenlens.service.commands.options import configure_backend, configure_store, qdrant_of
from eigenlens.system_errors import describe

EPILOG = """examples:
  eigenlens doctor
  eigenlens doctor --gallery galleries/fashion

Lines with `!` are problems; the exit status is 1 if there is one. Extras that are not installed are none."""

# A line of the report, and whether it is a problem.
Finding = tuple[str, bool]

_PACKAGES = ("faiss-cpu", "faiss-gpu", "onnxruntime", "openvino", "torch", "numpy", "pydantic", "httpx")
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd")
_TRIAL_BYTES = 16 * 2**20
_LEAST_FREE_BYTES = 2**30

# A search waits for one answer of the search engine.
_SLOW_MS = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, help="directory of a gallery to look at as well")
    configure_store(parser)
    configure_backend(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was found. Returns: 1, if there is a problem."""
    findings = [*_installation(), *_machine(), *_disk(args.gallery or Path.cwd())]
    if args.gallery is not None:
        findings += _gallery(args.gallery, args.store, qdrant_of(args))
    for text, is_problem in findings:
        print(f"{'!' if is_problem else ' '} {text}")
    problems = sum(is_problem for _, is_problem in findings)
    print(f"{problems} problem{'s' if problems > 1 else ''}" if problems else "no problem was found")
    return 1 if problems else 0


def _installation() -> Iterator[Finding]:
    place = Path(eigenlens.__file__).parent
    yield f"eigenlens {eigenlens.__version__} in {place}, Python {platform.python_version()} ({sys.executable})", False
    installed = []
    for package in _PACKAGES:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    yield f"packages: {', '.join(installed)}", False
    for extra in dict.fromkeys(EXTRAS.values()):
        missing = [m for m, brings in EXTRAS.items() if brings == extra and importlib.util.find_spec(m) is None]
        yield f"extra {extra}: " + (f"not installed; {install_line(extra)}" if missing else "installed"), False
    if {"faiss-cpu", "faiss-gpu"} <= {name.partition(" ")[0] for name in installed}:
        yield "faiss-cpu and faiss-gpu are both installed and overwrite each other: uninstall both, install one", True


def _machine() -> Iterator[Finding]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    features = ", ".join(name for name in _FEATURES if name in flags) or "none known"
    yield f"{processors()} of {os.cpu_count()} processors ({platform.machine()}); instructions: {features}", False
    if flags and platform.machine() == "x86_64" and "avx2" not in flags:
        yield "this processor has no AVX2: FAISS is many times slower; choose another machine", True
    driver = Path("/proc/driver/nvidia/version")
    has_gpu = driver.exists()
    yield f"GPU: {driver.read_text().splitlines()[0] if has_gpu else 'no NVIDIA driver'}", False


def _disk(place: Path) -> Iterator[Finding]:
    folder = next(p for p in (place.absolute(), *place.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(folder).free
    yield f"{folder}: {free / 2**30:.1f} GiB free", False
    if free < _LEAST_FREE_BYTES:
        yield f"less than 1 GiB is free at {folder}: free some before you build", True
    try:
        with tempfile.TemporaryFile(dir=folder) as f:
            begun = time.perf_counter()
            f.write(os.urandom(_TRIAL_BYTES))
            f.flush()
            os.fsync(f.fileno())
            seconds = time.perf_counter() - begun
    except OSError as error:
        yield f"{folder} cannot be written ({error.strerror}): a gallery there is served read-only", False
    else:
        yield f"writes {_TRIAL_BYTES / 2**20 / seconds:,.0f} MiB/s with fsync", False


def _qdrant(server: QdrantServer) -> Iterator[Finding]:
    version = server.version()
    begun = time.perf_counter()
    server.names()
    ms = 1000 * (time.perf_counter() - begun)
    yield f"Qdrant {version} at {server.address} answers in {ms:.1f} ms", ms > _SLOW_MS
    is_plain = server.url.startswith("http:") and not server.is_local
    if is_plain:
        yield f"Qdrant at {server.address} is reached without TLS: give an address that begins with https", True


def _gallery(root: Path, address: str | None, qdrant: QdrantServer | None) -> Iterator[Finding]:
    if importlib.util.find_spec("faiss") is None:
        yield f"a gallery is looked at with FAISS: {install_line('cpu')}", True
        return
    from eigenlens.index.backends import FAISS
    from eigenlens.service.gallery.layout import Gallery

    try:
        gallery = Gallery(root, store=address, qdrant=qdrant)
        with closing(gallery.store):
            problems = gallery.store.problems()
            for problem in problems:
                yield problem, True
            if problems and address is None:  # the file is damaged
                return
            yield f"gallery {root}: {gallery.store.count()} images, {gallery.store.describe()}", False
            if qdrant is not None:
                yield from _qdrant(qdrant)
            number, generation = gallery.open_current(check=True)
            backend = gallery.manifest(number).properties.get("backend", FAISS)
            lengths = ", ".join(map(str, generation.lengths))
            yield f"generation {number} is whole: lengths {lengths}, backend {backend}", False
            if number != gallery.current():
                current = gallery.current()
                yield f"generation {current} is damaged, {number} is served: run `eigenlens build` again", True
    except EigenlensError as error:
        yield str(error), True
    except (OSError, sqlite3.Error) as error:
        yield describe(error), True
