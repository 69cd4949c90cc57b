"""Addresses as clients and proxies write them: HEAD for every GET, trailing slashes, the path of a proxy."""

from __future__ import annotations

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eigenlens.service.http.static_page import REFERENCE

# What is no path of the page's files and so never ends in a slash.
_OF_THE_API = (
    "/v1/",
    "/embeddings/",
    "/healthz/",
    "/livez/",
    "/readyz/",
    "/metrics/",
    "/openapi.json/",
)


class AddressMiddleware:
    """Brings requests into the form that routes know.

    - HEAD is answered as GET without a body; Range, which RFC 9110 (14.2) defines for GET alone, is dropped.
    - Slashes at the end of a path of the API are dropped; no id ends in one. Those at the end of a page's are answered
      with a redirect, since the page's addresses are relative to its own.
    - The path below which a proxy publishes the service is dropped if the proxy left it in the request.
    """

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        """Serve `app`, which a proxy publishes below `root_path`, such as "/images"; empty without such a path."""
        self.app, self.root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.root_path:
            if scope["path"] == self.root_path:  # the page's addresses are relative to its folder
                await RedirectResponse(f"{self.root_path}/", status_code=308)(scope, receive, send)
                return
            scope["path"] = _without_prefix(scope["path"], self.root_path)
        without_slash = scope["path"].rstrip("/")
        if scope["path"] != without_slash and without_slash in REFERENCE:
            await RedirectResponse(f"{self.root_path}{without_slash}", status_code=308)(scope, receive, send)
            return
        if scope["path"].startswith(_OF_THE_API):
            scope["path"] = without_slash
        if scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        headers = [pair for pair in scope["headers"] if pair[0] != b"range"]
        as_get = {**scope, "method": "GET", "headers": headers}  # a copy: the server leaves out the body by its own
        try:
            await self.app(as_get, receive, _head_only(send))
        finally:
            scope.update({name: as_get[name] for name in ("route", "request_id") if name in as_get})


def _without_prefix(path: str, prefix: str) -> str:
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path


def _head_only(send: Send) -> Send:
    """Return a function that sends an answer's head and ends it there, before a stream would begin."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head
