"""The typed client of the service, for asyncio and blocking. Needs httpx, httpx-sse and pydantic alone."""

from __future__ import annotations

from eigenlens.service.client.async_client import AsyncClient
from eigenlens.service.client.calls import Retries
from eigenlens.service.client.errors import ApiError, UnreachableError
from eigenlens.service.client.sync_client import Client

__all__ = ["ApiError", "AsyncClient", "Client", "Retries", "UnreachableError"]
