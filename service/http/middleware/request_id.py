"""An id for every request, security headers for every answer, and the metrics and the log of requests."""

from __future__ import annotations

import random
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eigenlens.service.telemetry import logs

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The system's random numbers would cost more than all else here: asking for them lets other threads go first.
_random = random.Random()
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


class RequestIdMiddleware:
    """Gives each request an id (the client's X-Request-Id if it is plain) and each answer its headers; counts both."""

    def __init__(self, app: ASGIApp, *, log_requests: bool) -> None:
        self.app, self.log_requests = app, log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        scope["request_id"] = request_id = sent if _REQUEST_ID.fullmatch(sent) else f"{_random.getrandbits(128):032x}"
        logs.request_id.set(request_id)
        status, start = 500, time.perf_counter()

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
            seconds = time.perf_counter() - start
            state = getattr(scope["app"].state, "eigenlens", None)
            if state is not None:
                state.metrics.request(scope, status=status, seconds=seconds)
            if self.log_requests:
                logs.log_request(method=scope["method"], path=scope["path"], status=status, seconds=seconds)
