"""Routes of the BigBlueButton API: a request in, XML or a redirect out; decides nothing."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from sanic import HTTPResponse, Request
from sanic.exceptions import Forbidden, SanicException, ServiceUnavailable
from sanic.response import text

from scalelite.core import wire
from scalelite.errors import ApiError, ScaleliteError, UnsupportedRequest
from scalelite.flows import calls
from scalelite.flows.proxy import CALLS
from scalelite.web.metrics import measured

if TYPE_CHECKING:
    from sanic import Sanic

    from scalelite.flows.proxy import Proxy
    from scalelite.settings import Settings

log = logging.getLogger(__name__)

PREFIX: Final = "/bigbluebutton/api"
XML: Final = "application/xml; charset=utf-8"
_METHODS: Final = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")


def add_routes(app: Sanic[Any, Any]) -> None:
    """Add the calls, and the answer to everything else."""
    app.add_route(call, PREFIX, methods=_METHODS, name="index")
    app.add_route(call, f"{PREFIX}/<rest:path>", methods=_METHODS, name="call")
    app.add_route(root, "/", methods=("GET", "HEAD"))
    app.add_route(unknown, "/<rest:path>", methods=_METHODS, name="unknown")


async def call(request: Request, rest: str = "") -> HTTPResponse:
    """Answer one call of the BigBlueButton API."""
    worker: Proxy = request.app.ctx.proxy
    host = served_host(request)
    name = rest.strip("/")
    with measured("bigbluebutton", (name or "index") if name in CALLS else "other"):
        answer = await worker.answer(
            calls.Request(
                call=name,
                method="GET" if request.method == "HEAD" else request.method,
                host=host,
                query=request.query_string,
                content_type=request.headers.get("content-type", "").partition(";")[0].strip().lower(),
                body=request.body,
                origin=origin_of(request, request.app.ctx.settings),
            )
        )
    if answer.location:
        return _Quick("", 302, {"Location": answer.location}, "text/plain; charset=utf-8")
    return _Quick(answer.body, content_type=answer.content_type or XML)


class _Quick(HTTPResponse):
    """An answer; that its headers hold nothing to remove is seen at once: Sanic needs 8 µs for a redirect's."""

    __slots__ = ()

    @staticmethod
    def _sanitize_header_value(value: str) -> str:
        return value if value.isprintable() else HTTPResponse._sanitize_header_value(value)  # noqa: SLF001 - Sanic's


async def root(request: Request) -> HTTPResponse:
    """Say that somebody is here."""
    served_host(request)
    return text("success")


async def unknown(request: Request, **_path: str) -> HTTPResponse:
    """Answer what is no route as BigBlueButton's calls are answered; the body was read, so the connection goes on."""
    served_host(request)
    raise UnsupportedRequest


def served_host(request: Request) -> str:
    """Return the host that was asked, as `host_of` does; raises Forbidden for one that gets nothing."""
    host = host_of(request, request.app.ctx.settings)
    if not request.app.ctx.proxy.snapshot.declared.serves(host):
        raise Forbidden
    return host


def host_of(request: Request, settings: Settings) -> str:
    """Return the host that was asked, without port, in lower case; a proxy's word counts if the proxy is trusted."""
    host = _forwarded(request, settings, "host", "x-forwarded-host")
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


def origin_of(request: Request, settings: Settings) -> str:
    """Return the address that was asked, http://HOST[:PORT] or with https."""
    scheme = _forwarded(request, settings, "", "x-forwarded-proto")
    return f"{'https' if scheme == 'https' else 'http'}://{_forwarded(request, settings, 'host', 'x-forwarded-host')}"


def _forwarded(request: Request, settings: Settings, header: str, forwarded: str) -> str:
    """Return what a proxy says that was asked, if it is trusted, else what this request itself says."""
    said = request.headers.get(header, "") if header else ""
    if settings.trusted_proxies and _trusted(request.ip, settings):
        said = request.headers.get(forwarded, said).rpartition(",")[2].strip()
    return said


def _trusted(address: str, settings: Settings) -> bool:
    return any(ip_address(address) in network for network in settings.trusted_proxies)


async def failed(request: Request, error: Exception) -> HTTPResponse:
    """Answer every error as BigBlueButton XML; what it was stands in the log alone."""
    match error:
        case ApiError():
            known = error
        case Forbidden():
            return text("", status=403)
        case SanicException(status_code=404 | 405):
            known = UnsupportedRequest()
        case SanicException():
            status = (
                408 if isinstance(error, ServiceUnavailable) else error.status_code
            )  # Sanic's: a body took too long
            return HTTPResponse(wire.failure(ApiError("The request cannot be read.")), status, content_type=XML)
        case ScaleliteError():
            log.warning("%s failed: %s", request.path, error)
            known = ApiError()
        case _:
            log.error("%s failed", request.path, exc_info=error)
            known = ApiError()
    headers = {"Retry-After": "1"} if known.http_status == 503 else None
    return HTTPResponse(wire.failure(known), known.http_status, headers, content_type=XML)
