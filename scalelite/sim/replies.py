"""Answers as HTTP: pages, XML, JSON, redirects, and connections that break."""

from __future__ import annotations

import json
from http.client import responses
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web

if TYPE_CHECKING:
    from scalelite.sim.join import Redirect

XML: Final = {"Content-Type": "text/xml;charset=utf-8", "Cache-Control": "no-cache"}
JSON: Final = {"Content-Type": "application/json;charset=utf-8", "Cache-Control": "no-cache"}
HTML: Final = {"Content-Type": "text/html;charset=utf-8"}
GARBAGE: Final = b"<response><returncode>SUCC\xff\x00 & this is no XML"


def page(status: int, words: str = "") -> web.Response:
    """An HTML page, as the web servers in front of bbb-web show for a status."""
    title = f"{status} {responses.get(status, '')}".rstrip()
    text = f"<html><head><title>{title}</title></head><body><h1>{words or title}</h1></body></html>\n"
    return web.Response(status=status, body=text.encode(), headers=HTML)


def as_answer(answered: str | Redirect) -> web.Response:
    """An answer of the API: HTTP 200 for all XML, errors included."""
    if isinstance(answered, str):
        return web.Response(body=answered.encode(), headers=XML)
    headers = {"Location": answered.url, "Cache-Control": "no-cache"}
    if answered.session:
        headers["Set-Cookie"] = f"JSESSIONID={answered.session}; Path=/bigbluebutton; Secure; HttpOnly"
    return web.Response(status=302, headers=headers)


def as_json(value: object, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(status=status, body=json.dumps(value).encode(), headers=JSON)


def garbage() -> web.Response:
    """HTTP 200 that says it is XML and is not."""
    return web.Response(body=GARBAGE, headers=XML)


def hung_up(request: web.BaseRequest) -> web.Response:
    """Close the connection; aiohttp then finds that this empty answer cannot be sent."""
    if request.transport:
        request.transport.abort()
    return web.Response()


async def cut(request: web.BaseRequest, whole: web.Response) -> web.StreamResponse:
    """Send the head and half of the body, then close the connection."""
    body = cast("bytes", whole.body)
    half = web.StreamResponse(status=whole.status, headers=whole.headers)
    half.content_length = len(body)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport:
        request.transport.close()
    return half
