"""What every test gets: encoders are opened without long trials, and files are written without waiting for a disk."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from eigenlens.model.runtime import encoder, sessions
from tests.support.postgres import Server, running_server

if TYPE_CHECKING:
    from tests.support.qdrant_double import QdrantDouble


def pytest_sessionstart() -> None:
    """Import the tests without searching for garbage: what is imported stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _short_trials() -> Iterator[None]:
    """Compare runtimes and batch sizes for milliseconds: a service starts in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "_TRIAL_S", 0.005)
        patch.setattr(encoder, "_BATCH_TRIAL_S", 0.002)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """Leave files to the system, which keeps them when a process is killed; tests that look at fsync replace it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server of PostgreSQL; each test takes a schema of its own."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def replica(postgres: Server) -> Iterator[Server]:
    """A standby that follows it."""
    with running_server(primary=postgres) as server:
        yield server


@pytest.fixture(scope="session")
def qdrant() -> Iterator[QdrantDouble]:
    """Qdrant's engine behind a double of its server; each test takes collections of its own."""
    pytest.importorskip("qdrant_edge")
    from tests.support.qdrant_double import running_double  # importing the client takes a second

    with running_double() as double:
        yield double


@pytest.fixture(scope="session")
def qdrant_url(request: pytest.FixtureRequest) -> str:
    """The address of a Qdrant: of a real one that EIGENLENS_TEST_QDRANT_URL names, or of the double."""
    return os.environ.get("EIGENLENS_TEST_QDRANT_URL") or str(request.getfixturevalue("qdrant").url)
