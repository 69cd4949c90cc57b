"""Log lines: text for people, JSON for machines; each with the id of the request that it is about."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]
REQUESTS = logging.getLogger("eigenlens.requests")

# Set while a request is answered, and in a thread that runs a route; not in the threads that work for several requests.
request_id: ContextVar[str] = ContextVar("request_id", default="")
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


class TextLines(logging.Formatter):
    """`2026-01-31 12:00:00 INFO service.app [request id]: message`; whatever a client sent, a message is one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s%(request)s: %(line)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is logging's
        current = request_id.get()
        record.request = f" [{current}]" if current else ""
        record.line = record.getMessage().translate(_ESCAPED)
        return super().formatMessage(record)


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, request_id, exception, and what a request's record says."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line | getattr(record, "fields", {}))


def configure_logs(style: LogFormat) -> None:
    """Send every record from INFO up to the standard error, in this style; of calls to other servers only problems."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # which tells of every search that Qdrant answers


def log_request(*, method: str, path: str, status: int, seconds: float) -> None:
    """Log an answered request."""
    fields = {"method": method, "path": path, "status": status, "duration_ms": round(1000 * seconds, 3)}
    REQUESTS.info("%s %s %d %.1f ms", method, path, status, 1000 * seconds, extra={"fields": fields})
