"""Memory that was freed, which the system counts as this process's until it is returned."""

from __future__ import annotations

import ctypes
import sys


def return_freed_memory() -> None:
    """Return to the system what was freed, where the C library can (glibc): of many small lists it keeps pages."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
