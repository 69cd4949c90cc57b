"""The stopwatch of a calibration's searches, which other processes on the machine do not cut short."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """The time that passed, or that this process worked if that is less: on a busy machine it waits for the others.

    The time of a search in another process is that which passed.
    """

    def __init__(self, *, is_remote: bool) -> None:
        """Start it; `is_remote` where another process searches."""
        self._started, self._worked, self._is_remote = time.monotonic(), time.process_time(), is_remote
        self._paused_s = 0.0

    @property
    def worked_s(self) -> float:
        """Seconds since its start, without those of its pauses."""
        passed_s = time.monotonic() - self._started
        worked_s = passed_s if self._is_remote else min(passed_s, time.process_time() - self._worked)
        return worked_s - self._paused_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of a block."""
        before_s = self.worked_s
        yield
        self._paused_s += self.worked_s - before_s
