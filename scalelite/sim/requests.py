"""What was asked, read from HTTP by the rules of nginx, Tomcat and bbb-web; decides nothing about meetings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiohttp import web

REQUEST_LINE_BYTES: Final = 8192  # nginx: large_client_header_buffers
FORM: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
XML: Final = frozenset({"application/xml", "text/xml"})
# Tomcat 9 takes none of these unescaped. aiohttp's parser has refused controls, blanks and what is not ASCII before.
UNWISE: Final = re.compile(r'["<>\[\\\]^`{|}]')


@dataclass(frozen=True, slots=True)
class Asked:
    """One API request. `query` is raw, `params` are decoded; `body_type` is empty where there is no body."""

    method: str
    call: str
    query: str
    params: Mapping[str, str]
    body_type: str
    origin: str


class BadBody(Exception):
    """The body is not what its Content-Type says."""


def line_problem(method: str, target: str) -> int:
    """The HTTP status with which the web server itself refuses this request line; 0 when it takes it."""
    if len(method) + len(target) + len("  HTTP/1.1\r\n") > REQUEST_LINE_BYTES:
        return 414
    return 400 if UNWISE.search(target) else 0


async def read(request: web.BaseRequest, call: str, query: str, origin: str) -> Asked:
    """Read parameters and, of a POST, the body. Raises BadBody, and aiohttp's 413 for more than 1 MiB."""
    pairs = decoded(query)
    body_type = ""
    if request.method == "POST":
        await let_go_on(request)
        if request.content_type == "multipart/form-data":
            body_type = request.content_type
            pairs += await read_multipart(request)
        elif body := await request.read():
            body_type = request.content_type
            if body_type in FORM:
                pairs += decoded(body.decode(errors="replace"))
    return Asked(request.method, call, query, firsts(pairs), body_type, origin)


def decoded(query: str) -> list[tuple[str, str]]:
    """The parameters of a query or form, empty ones included."""
    return parse_qsl(query, keep_blank_values=True) if query else []


def firsts(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of a parameter given twice the first counts, as in every servlet."""
    params: dict[str, str] = {}
    for name, value in pairs:
        params.setdefault(name, value)
    return params


async def let_go_on(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`: aiohttp's low-level server leaves that to its user."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


async def read_multipart(request: web.BaseRequest) -> list[tuple[str, str]]:
    """The plain fields of a multipart form; files are left out."""
    try:
        form = await request.post()
    except ValueError as error:
        raise BadBody(str(error)) from error
    return [(name, value) for name, value in form.items() if isinstance(value, str)]
