"""Probes: is the process alive, can it answer searches. They need no key."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.state import state_of

router = APIRouter(tags=["health"])


@router.get("/healthz")
@router.get("/livez", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[str, str | int]:
    """The encoder is warm and a generation is loaded; also during a rebuild. 503 otherwise."""
    snapshot = state_of(request).searcher.snapshot
    return {"status": "ready", "generation": snapshot.number}
