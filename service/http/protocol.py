"""HTTP/1.1 as the service speaks it: uvicorn's fast parser, with offers to upgrade declined and the head bounded."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eigenlens.service.errors import (
    AddressTooLongError,
    HeadersTooLargeError,
    MalformedRequestError,
    RequestError,
)
from eigenlens.service.http import problems
from eigenlens.service.settings import Settings

# In the extensions of a request whose body is there to its end: to receive it takes no waiting.
WHOLE_BODY = "eigenlens.whole_body"
_OFFER = b"upgrade"
# The parser cannot take longer ones apart.
_MAX_ADDRESS_BYTES = 65_535
_MAX_HEAD_BYTES = 256 * 1024


class PlainHttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 that declines every offer of another protocol, as RFC 9110 7.8 allows, and answers the request.

    Java's HttpClient offers `Upgrade: h2c` with every request. httptools then takes the body for bytes of the other
    protocol and reports an empty one. Such a request is parsed again here, without the offer.
    """

    _first_line = b""
    # Empty lines may come before a request begins (RFC 9112 2.2).
    _in_head, _head_bytes = False, 0

    def data_received(self, data: bytes) -> None:
        """Take bytes of the connection."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            rest = data[stop.args[0] :]
            if self._is_offered():
                self.parser = httptools.HttpRequestParser(self)
                self.data_received(self._head_without_offer() + rest)
            else:  # the method CONNECT, which no route has
                self._refuse(MalformedRequestError("the method CONNECT is for proxies; this is none"))
        except httptools.HttpParserError:
            if len(self.url) > _MAX_ADDRESS_BYTES:
                self._refuse(AddressTooLongError(f"the address has more than {_MAX_ADDRESS_BYTES} bytes"))
            else:
                self._refuse(MalformedRequestError("this is no request in HTTP/1.1"))
        else:
            if self._in_head:
                self._head_bytes += len(data)
                if self._head_bytes > _MAX_HEAD_BYTES:
                    self._refuse(HeadersTooLargeError(f"the headers have more than {_MAX_HEAD_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """Begin with the head of a request."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Start the request, unless it is parsed again."""
        self._in_head = False
        if self._is_offered():
            self._first_line = b"%s %s HTTP/%s\r\n" % (
                self.parser.get_method(),
                self.url,
                self.parser.get_http_version().encode("ascii"),
            )
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request, unless it is parsed again."""
        if not self._is_offered():
            self.scope["extensions"] = {WHOLE_BODY: {}}
            super().on_message_complete()

    def _refuse(self, error: RequestError) -> None:
        """Answer what reaches no route, and close the connection."""
        self.logger.warning("a request was refused: %s", error)
        status, name = problems.status_of(error)
        path = self.url.partition(b"?")[0][:200].decode("ascii", "replace")
        request_id = uuid.uuid4().hex
        response = problems.answer(problems.document_of(status, name, str(error), path=path, request_id=request_id))
        headers = [*response.raw_headers, (b"x-request-id", request_id.encode()), (b"connection", b"close")]
        lines = [b"%s: %s\r\n" % header for header in headers]
        first_line = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}\r\n".encode()
        body = b"" if self.parser.get_method() == b"HEAD" else bytes(response.body)
        self.transport.write(first_line + b"".join(lines) + b"\r\n" + body)
        self.transport.close()

    def _is_offered(self) -> bool:
        return bool(self.parser.should_upgrade()) and any(name == _OFFER for name, _ in self.headers)

    def _head_without_offer(self) -> bytes:
        lines = [b"%s: %s\r\n" % (name, value) for name, value in self.headers if name != _OFFER]
        return self._first_line + b"".join(lines) + b"\r\n"


def server_options(settings: Settings) -> dict[str, Any]:
    """Return what every server of the application needs of uvicorn."""
    return {
        "http": PlainHttpProtocol,
        "ws": "none",
        # Without trusted proxies, a client's address is that of its connection: by a header it could evade a limit.
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": settings.trusted_proxies,
        "ssl_certfile": settings.tls_certificate,
        "ssl_keyfile": settings.tls_key,
    }
