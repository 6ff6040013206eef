"""Logs: one line an event on standard error, as text or JSON, with whatever looks like a secret taken out."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, TextIO

# The last line of defence: nobody should log these, but a library's message may.
_SECRETS: Final = re.compile(
    r"(?P<name>checksum|secret|password|moderatorPW|attendeePW|token)(?P<sign>=|%3D|['\"]?: ?['\"]?)"
    r"(?!\*+$)[^&\s'\",]+"
    r"|(?P<user>(?<=://)[^/@\s]+@)"
    # A checksum or a token; record ids look like one, and a time.
    r"|(?<![0-9A-Za-z])[0-9A-Fa-f]{40,128}(?![0-9A-Za-z]|-[0-9])",
    re.IGNORECASE,
)


_request: ContextVar[int] = ContextVar("request", default=0)
_requests = itertools.count(1)


def begin_request() -> None:
    """Give what is logged from now on, in this task and those it starts, a request id of its own."""
    _request.set(next(_requests))


def scrub(text: str) -> str:
    """Return the text without checksums, passwords, tokens and credentials in URLs."""
    return _SECRETS.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    return "" if found["user"] else f"{found['name'] or ''}{found['sign'] or ''}********"


class Formatter(logging.Formatter):
    """Formats an event as one line."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self._kind = style

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        text = scrub(" ".join(record.getMessage().split()))  # libpq tells a failure in several lines
        if record.exc_info:
            text += "\n" + scrub(self.formatException(record.exc_info))
        number = _request.get()
        request = f"{os.getpid():x}-{number:x}" if number else ""
        if self._kind == "json":
            event = {"time": at, "level": record.levelname.lower(), "logger": record.name, "message": text}
            return json.dumps(event | ({"request": request} if request else {}), ensure_ascii=False)
        if self._kind == "rails":
            return _as_rails(record, text)
        return f"{at} {record.levelname.lower():<7} {record.name}: {text}{f' [{request}]' if request else ''}"


def _as_rails(record: logging.LogRecord, text: str) -> str:
    """Return a line as Scalelite logged: what reads the output of its tasks may know them by it."""
    at = datetime.fromtimestamp(record.created).isoformat(timespec="microseconds")  # noqa: DTZ006 - Ruby tells local time
    level = record.levelname.removesuffix("ING")
    return f"{level[0]}, [{at} #{os.getpid()}] {level:>5} -- : {text}"


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send what is logged from `level` on to standard error, or to a stream."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Formatter(style))
    handler.setLevel(level.upper())  # libraries set the levels of their own loggers
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("sanic.root", "sanic.server", "sanic.access", "asyncio", "psycopg"):
        logging.getLogger(noisy).handlers.clear()
        logging.getLogger(noisy).propagate = True
    logging.getLogger("sanic").setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
