"""Limits of a request's body: its size, and how slowly it may be sent."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eigenlens.service.errors import BodyMissingError, BodyTooLargeError, UploadTimeoutError
from eigenlens.service.http.middleware.compression import decoding
from eigenlens.service.http.policy import policy_of
from eigenlens.service.http.protocol import WHOLE_BODY

# A client that sends more slowly than this, from beginning to end, sends to keep the connection and nothing else.
_MIN_BYTES_PER_S = 1024
_DRAIN_S = 2.0
_DRAIN_FACTOR = 8


class BodyLimit:
    """Bounds a request's body in bytes, whatever its Content-Length says, and the time in which nothing of it arrives.

    A slow line may take as long as it needs: what counts is that the body goes on arriving.

    Raises within the route that reads the body: BodyTooLargeError; UploadTimeoutError; BodyMissingError, if less
    arrives than was announced.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_batch_bytes: int, timeout_s: float) -> None:
        """Bound bodies to `max_bytes`, those of routes that take many images to `max_batch_bytes`."""
        self.app, self.max_bytes, self.max_batch_bytes, self.timeout_s = app, max_bytes, max_batch_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0").decode("latin-1")
        least = max(int(announced) if announced.isdigit() else 0, b"transfer-encoding" in headers)
        max_bytes = self.max_batch_bytes if policy_of(scope["path"]).takes_many_images else self.max_bytes
        received = 0
        clock = asyncio.get_running_loop().time
        begun = clock()
        complete = False

        async def bounded_receive() -> Message:
            nonlocal received, complete
            if complete:  # only the disconnect is left, and it may come as late as the end of the answer
                return await receive()
            if announced.isdigit() and int(announced) > max_bytes:
                await self._drain(receive, max_bytes)
                raise BodyTooLargeError(f"the request announces {announced} bytes; at most {max_bytes} are taken")
            if WHOLE_BODY in scope.get("extensions", ()):  # nearly always, and a timeout would take a while
                message = await receive()
            else:
                slowest = begun + self.timeout_s + received / _MIN_BYTES_PER_S
                try:
                    async with asyncio.timeout_at(min(clock() + self.timeout_s, slowest)):
                        message = await receive()
                except TimeoutError:
                    raise UploadTimeoutError(
                        f"the request was not complete, and nothing of it arrived for {self.timeout_s:g} s, or next to "
                        f"nothing; {received} bytes did before"
                    ) from None
            received += len(message.get("body", b""))
            if received > max_bytes:
                await self._drain(receive, max_bytes)
                raise BodyTooLargeError(f"the request has more than the {max_bytes} bytes that are taken")
            complete = not message.get("more_body", False)
            if complete and message["type"] == "http.request" and received < least:
                raise BodyMissingError(
                    f"the request announces a body, and {received} bytes of it arrived; send it whole, or announce none"
                )
            return message

        await self.app(scope, decoding(scope, bounded_receive, max_bytes=max_bytes), send)

    async def _drain(self, receive: Receive, max_bytes: int) -> None:
        """Read on for a moment, since a client that is still sending would lose the answer to a closed connection."""
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
