"""Adaptive-length image retrieval: Neural Eigenmap codes, FAISS prefix search, an HTTP service and its client.

    from eigenlens import Client

    with Client("http://127.0.0.1:8080") as client:
        answer = client.search("boot.jpg", length=16, k=5)

The command is `eigenlens`; `eigenlens --help` lists what it does.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eigenlens.service.client import AsyncClient, Client

    __version__: str

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """Import on first use: a command that needs no client loads none."""
    if name == "__version__":
        try:
            return version("eigenlens")
        except PackageNotFoundError:  # a checkout on the path, not installed
            return "0.0.0+unknown"
    if name in ("AsyncClient", "Client"):
        return getattr(import_module("eigenlens.service.client"), name)
    raise AttributeError(f"module 'eigenlens' has no attribute {name!r}")
