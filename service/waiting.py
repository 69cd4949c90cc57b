"""Whether a thread may wait: not while it answers searches on the event loop, where everybody would wait with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Thread(threading.local):
    may_wait = True


_thread = _Thread()


@contextmanager
def without_waiting() -> Iterator[None]:
    """In this block, what would wait in this thread raises an error instead."""
    _thread.may_wait = False
    try:
        yield
    finally:
        _thread.may_wait = True


def may_wait() -> bool:
    """Return whether the calling thread may wait."""
    return _thread.may_wait
