"""The bound on work in progress: what is over it is refused at once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from eigenlens.service.errors import OverloadedError
from eigenlens.service.http.thread_limits import ThreadLimiter


def test_what_is_over_the_bound_is_refused_at_once_and_room_is_made_again() -> None:
    asyncio.run(_fill_and_overfill())


async def _fill_and_overfill() -> None:
    compute, release = ThreadLimiter(threads=1, max_waiting=2), threading.Event()
    accepted = [asyncio.create_task(compute.run(release.wait, 30)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="2 requests of this kind are in progress"):
        await asyncio.wait_for(compute.run(lambda: True), timeout=1)
    release.set()
    assert await asyncio.gather(*accepted) == [True, True]
    assert await compute.run(lambda: 7) == 7
