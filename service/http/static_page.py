"""What is no route of the API: the page's files, and 405 with all methods where a path has a route for others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class _Files(StaticFiles):
    """Files that a browser keeps and asks about each time: modules of two versions would not fit together."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


class Page:
    """The files of a directory at every path that no route of the API has."""

    def __init__(self, directory: Path, routers: Sequence[APIRouter]) -> None:
        self._files = _Files(directory=directory, html=True)
        self._routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]

    def serves(self, method: str, path: str) -> bool:
        """Whether a route of the API answers a method at a path."""
        return method in self._methods_at(path)

    def _methods_at(self, path: str) -> set[str]:
        return {m for route in self._routes if route.path_regex.match(path) for m in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The router hands a path over if its method is wrong, route by route: only all of them know what is right.
        if scope["type"] == "http" and (known := self._methods_at(scope["path"])):
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(known))})
        await self._files(scope, receive, send)
