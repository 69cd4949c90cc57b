"""HTTP/1.1 as the service speaks it: uvicorn's fast parser, which reads bodies that come with an offer to upgrade."""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eigenlens.service.settings import Settings

_OFFER = b"upgrade"


class PlainHttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 that declines every offer of another protocol, as RFC 9110 7.8 allows, and answers the request.

    Java's HttpClient offers `Upgrade: h2c` with every request. httptools then takes the body for bytes of the other
    protocol and reports an empty one. Such a request is parsed again here, without the offer.
    """

    _first_line = b""

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
                self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")

    def on_headers_complete(self) -> None:
        """Start the request, unless it is parsed again."""
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
            super().on_message_complete()

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
