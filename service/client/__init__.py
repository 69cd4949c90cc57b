"""The typed client of the service, asynchronous and blocking."""

from __future__ import annotations

from eigenlens.service.client.async_client import AsyncClient
from eigenlens.service.client.calls import ApiError, Retries, UnreachableError
from eigenlens.service.client.sync_client import Client

__all__ = ["ApiError", "AsyncClient", "Client", "Retries", "UnreachableError"]
