"""Whether code runs on the event loop, where nothing may wait."""

from __future__ import annotations

import asyncio


def is_on_event_loop() -> bool:
    """Return whether the caller runs in a task or a callback of the event loop, not in a thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
