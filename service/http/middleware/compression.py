"""gzip on the wire: of answers, and of requests within bounds."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable
from functools import partial
from gzip import compress

from anyio import to_thread
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eigenlens.service.errors import BodyTooLargeError, ContentCodingError

# A page of ten results is smaller: compressing it would take longer than the search.
_LEAST_BYTES = 8 * 1024
# To compress this takes some milliseconds, in which the event loop would answer nobody else.
_LEAST_BYTES_FOR_A_THREAD = 256 * 1024
_LEVEL = 4
_PIECE_BYTES = 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_TYPES = (b"text/", b"application/json", b"application/problem+json", b"application/javascript", b"image/svg+xml")


class GzipAnswers:
    """Compresses long answers of text for clients that take gzip. Streams and pictures are sent as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        accepted = any(name == b"accept-encoding" and _takes_gzip(value) for name, value in scope["headers"])
        start: Message | None = None

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_text(message["headers"]):
                _add_vary(message)
                if accepted and message["status"] == 200:
                    start = message  # until the body is known
                    return
            if message["type"] == "http.response.body" and start is not None:
                body = message.get("body", b"")
                if len(body) >= _LEAST_BYTES and not message.get("more_body", False):
                    body = await _compress(body)
                    headers = MutableHeaders(scope=start)
                    headers["Content-Encoding"], headers["Content-Length"] = "gzip", str(len(body))
                    if not headers.get("etag", "W/").startswith("W/"):
                        headers["ETag"] = f"W/{headers['etag']}"
                    message = {**message, "body": body}
                await send(start)
                start = None
            await send(message)

        await self.app(scope, receive, send_compressed)


async def _compress(body: bytes) -> bytes:
    work = partial(compress, body, _LEVEL, mtime=0)
    return work() if len(body) < _LEAST_BYTES_FOR_A_THREAD else await to_thread.run_sync(work)


def _takes_gzip(accepted: bytes) -> bool:
    codings = [coding.replace(b" ", b"").lower() for coding in accepted.split(b",")]
    return any(c.partition(b";")[0] == b"gzip" and not c.endswith((b";q=0", b";q=0.0")) for c in codings)


def _is_text(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    kind = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding":
            return False
    return kind.startswith(_TYPES) and kind != b"text/event-stream"


def _add_vary(message: Message) -> None:
    if any(name == b"vary" for name, _ in message["headers"]):
        MutableHeaders(scope=message).add_vary_header("Accept-Encoding")
    else:
        message["headers"] = [*message["headers"], (b"vary", b"Accept-Encoding")]


def decoding(scope: Scope, receive: Receive, *, max_bytes: int) -> Receive:
    """Return a function that receives the body of a request as it was before the client compressed it.

    The function raises: ContentCodingError, for a coding other than gzip and for damage; BodyTooLargeError, as soon as
    more than `max_bytes` come out. It gives at most a megabyte at a time, so that others are served meanwhile.
    """
    codings = b",".join(value for name, value in scope["headers"] if name == b"content-encoding").strip().lower()
    if codings in (b"", b"identity"):
        return receive
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in (b"content-encoding", b"content-length")]
    inflater = _Inflater(max_bytes)
    more_body = True
    complete = False

    async def receive_decoded() -> Message:
        nonlocal more_body, complete
        if complete:  # only the disconnect is left
            return await receive()
        if codings not in (b"gzip", b"x-gzip"):
            raise ContentCodingError(f"a body is taken as it is or in gzip, not in {codings.decode('latin-1')!r}")
        while more_body and not inflater.waiting:
            message = await receive()
            if message["type"] != "http.request":
                return message
            inflater.waiting, more_body = message.get("body", b""), message.get("more_body", False)
        piece = inflater.next_piece()
        await asyncio.sleep(0)
        complete = not more_body and not inflater.waiting
        if complete:
            inflater.check_end()
        return {"type": "http.request", "body": piece, "more_body": not complete}

    return receive_decoded


class _Inflater:
    """Decompresses gzip, piece by piece; `waiting` are bytes that it was given and did not take yet."""

    def __init__(self, max_bytes: int) -> None:
        self.waiting = b""
        self._room = self._max_bytes = max_bytes
        self._stream = zlib.decompressobj(_GZIP)

    def next_piece(self) -> bytes:
        """Return the next piece, empty if more has to be given first."""
        try:
            if self._stream.eof and self.waiting:  # gzip files may be joined
                self._stream = zlib.decompressobj(_GZIP)
            piece = self._stream.decompress(self.waiting, min(_PIECE_BYTES, self._room + 1))
        except zlib.error as error:
            raise ContentCodingError(f"the body is not gzip, as Content-Encoding says, or damaged: {error}") from None
        self.waiting = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        self._room -= len(piece)
        if self._room < 0:
            raise BodyTooLargeError(f"the body has more than the {self._max_bytes} bytes that are taken, uncompressed")
        return piece

    def check_end(self) -> None:
        """Raise ContentCodingError, if the end is missing."""
        if not self._stream.eof:
            raise ContentCodingError("the gzip of the body ends too early")
