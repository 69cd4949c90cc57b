"""What wraps every request: an id, security headers, and bounds on what a client may send and how slowly."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eigenlens.service.errors import BodyTooLargeError, UploadTimeoutError
from eigenlens.service.http import problems
from eigenlens.service.telemetry import logs

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
_DRAIN_S = 2.0
_DRAIN_FACTOR = 8


class RequestEnvelope:
    """Gives every request an id (the client's X-Request-Id if it is a plain one), every answer its headers; counts."""

    def __init__(self, app: ASGIApp, *, log_requests: bool) -> None:
        self.app, self.log_requests = app, log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        scope["request_id"] = request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        logs.request_id.set(request_id)
        status, begun = 500, time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                present = {name for name, _ in headers}
                more = [header for header in _SECURITY_HEADERS if header[0] not in present]
                message["headers"] = [*headers, (b"x-request-id", request_id.encode()), *more]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - begun
            state = getattr(scope["app"].state, "eigenlens", None)
            if state is not None:
                state.metrics.request(scope, status=status, seconds=seconds)
            if self.log_requests:
                logs.log_request(method=scope["method"], path=scope["path"], status=status, seconds=seconds)


class BodyLimit:
    """Bounds a request's body in bytes, whatever its Content-Length says, and the time a client takes to send it.

    Raises within the route that reads the body: BodyTooLargeError; UploadTimeoutError.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, larger: Mapping[str, int], timeout_s: float) -> None:
        """Bound bodies to `max_bytes`, those sent to the paths of `larger` to its bytes."""
        self.app, self.max_bytes, self.larger, self.timeout_s = app, max_bytes, larger, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = next(
            (value.decode("latin-1") for name, value in scope["headers"] if name == b"content-length"), "0"
        )
        max_bytes = self.larger.get(scope["path"], self.max_bytes)
        received = 0
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        complete = False

        async def bounded_receive() -> Message:
            nonlocal received, complete
            if complete:  # what comes now is the disconnect, and that may take as long as the answer does
                return await receive()
            if announced.isdigit() and int(announced) > max_bytes:
                await self._drain(receive, max_bytes)
                raise BodyTooLargeError(f"the request announces {announced} bytes; at most {max_bytes} are taken")
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise UploadTimeoutError(f"the request was not complete after {self.timeout_s:g} s") from None
            received += len(message.get("body", b""))
            if received > max_bytes:
                await self._drain(receive, max_bytes)
                raise BodyTooLargeError(f"the request has more than the {max_bytes} bytes that are taken")
            complete = not message.get("more_body", False)
            return message

        await self.app(scope, bounded_receive, send)

    async def _drain(self, receive: Receive, max_bytes: int) -> None:
        """Read on for a moment: a client that is still sending would lose an answer to a closed connection."""
        drained = 0
        try:
            async with asyncio.timeout(_DRAIN_S):
                while drained < _DRAIN_FACTOR * max_bytes:
                    message = await receive()
                    drained += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            return


class Shortcut:
    """Calls the functions of much used routes before the framework's routing, which takes longer than a search.

    What a function raises is answered as the application would.
    """

    def __init__(self, app: ASGIApp, *, routes: Mapping[str, Callable[[Request], Awaitable[Response]]]) -> None:
        """Answer POST requests to the paths of `routes`."""
        self.app, self.routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        function = self.routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if function is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await function(request)
        except problems.FORESEEN as error:
            response = problems.response_to(error, request)
        await response(scope, receive, send)
