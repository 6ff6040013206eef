"""The route that FreeSWITCH asks, with basic authentication; decides nothing about calls."""

from __future__ import annotations

import hmac
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from sanic import HTTPResponse
from sanic.response import html, text

from scalelite.errors import ChecksumError
from scalelite.flows import dialin
from scalelite.web.bbb_api import XML, host_of

if TYPE_CHECKING:
    from sanic import Request, Sanic

    from scalelite.flows.proxy import Proxy

_USER: Final = "fsapi"


def add_routes(app: Sanic[Any, Any]) -> None:
    """Add the route."""
    app.add_route(fsapi, "/fsapi", methods=("POST",))


async def fsapi(request: Request) -> HTTPResponse:
    """Answer FreeSWITCH's mod_xml_curl: 401 without the password, 403 where there is none or the host is nobody's."""
    worker: Proxy = request.app.ctx.proxy
    settings = request.app.ctx.settings
    host = host_of(request, settings)
    password = settings.dialin_password
    if password is None or not worker.snapshot.declared.serves(host):
        return text("", status=403)
    if password and not _authenticated(request.headers.get("authorization", ""), password):
        realm = {"WWW-Authenticate": f'Basic realm="{settings.url_host or "scalelite"}"'}
        return html("HTTP Basic: Access denied.\n", status=401, headers=realm)
    try:
        body = await dialin.answer(worker.services, worker.snapshot, host, _form(request))
    except ChecksumError:
        return text("", status=403)
    return HTTPResponse(body, content_type=XML)


def _authenticated(header: str, password: str) -> bool:
    scheme, _, encoded = header.partition(" ")
    try:
        given = b64decode(encoded.strip(), validate=True)
    except ValueError:
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, f"{_USER}:{password}".encode())


def _form(request: Request) -> dict[str, str]:
    """Return the parameters of query and form body, the body's winning."""
    raw = f"{request.query_string}&{request.body.decode('utf-8', 'replace')}"
    return dict(parse_qsl(raw, keep_blank_values=True))
