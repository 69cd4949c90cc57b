"""The locks of a gallery, as files: the system releases them when a process ends, even if it is killed."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Literal, Protocol

LockName = Literal["writer", "switch", "job", "serving", "backup"]
LOCK_POLL_S = 0.02


class Lock(Protocol):
    """A lock that is held until it is closed."""

    def share(self) -> bool:
        """Let others share an exclusive lock. Returns: False, if somebody else took it at that moment."""

    def verify(self) -> None:
        """Check that the lock is still held. Raises: GalleryBusyError, if it was lost."""

    def close(self) -> None:
        """Release the lock."""


class FileLock:
    """A lock on a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def share(self) -> bool:
        """Let others share the lock. Returns: False, if somebody else took it at that moment."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def verify(self) -> None:
        """Return: the system takes no lock away."""

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def lock_file(
    path: Path, *, shared: bool = False, wait_s: float | None = 0.0, read_only: bool = False
) -> FileLock | None:
    """Take the lock on a file, which is made if it is not there.

    Args:
        wait_s: how long to wait for it; None waits as long as it takes.
        read_only: nothing may be written there; for a shared lock the file's directory takes the place of a missing
            file.

    Returns: the lock; None, if another process holds it for longer.
    """
    if shared and read_only:
        descriptor = os.open(path if path.exists() else path.parent, os.O_RDONLY)
    else:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = None if wait_s is None else time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, operation if deadline is None else operation | fcntl.LOCK_NB)
            except BlockingIOError:
                if deadline is not None and time.monotonic() >= deadline:
                    os.close(descriptor)
                    return None
                time.sleep(LOCK_POLL_S)
            else:
                return FileLock(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
