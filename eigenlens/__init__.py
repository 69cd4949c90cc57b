"""Adaptive-length image retrieval: Neural Eigenmap codes, FAISS prefix search, an HTTP service and its client.

    from eigenlens import Client

    with Client("http://127.0.0.1:8080") as client:
        answer = client.search(Path("boot.jpg"), length=16, k=5)

The command is `eigenlens`; `eigenlens --help` lists what it does.
"""

from __future__ import annotations

# Nothing is imported here, not even `typing`: `python -m eigenlens` runs this file while the working directory is still
# on the path, and a file there may have any name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from eigenlens.service.client import AsyncClient, Client

    __version__: str

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """Import on first use: a command that needs no client loads none."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("eigenlens")
        except PackageNotFoundError:  # a checkout on the path, not installed
            return "0.0.0+unknown"
    if name in ("AsyncClient", "Client"):
        from eigenlens.service import client

        return getattr(client, name)
    raise AttributeError(f"module 'eigenlens' has no attribute {name!r}")
