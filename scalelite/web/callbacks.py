"""Routes that servers call: analytics of a meeting, and its end; they answer with a status and no body.

A status of 5xx has BigBlueButton try again, which it does not after an answer FAILED.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sanic import HTTPResponse
from sanic.response import text

from scalelite.core.callbacks import END_PATHS, PATH
from scalelite.errors import DatabaseAway, UnsupportedRequest
from scalelite.flows import callbacks
from scalelite.web.bbb_api import served_host

if TYPE_CHECKING:
    from sanic import Request, Sanic

    from scalelite.flows.proxy import Proxy

_TRY_AGAIN: Final = 503


def add_routes(app: Sanic[Any, Any]) -> None:
    """Add the routes whose URLs a create carries to its server."""
    app.add_route(analytics, f"{PATH}/analytics_callback", methods=("POST",))
    for path in END_PATHS.values():
        app.add_route(meeting_ended, f"{PATH}/<path:{path}>/<token:str>", methods=("GET",), name=path)


async def analytics(request: Request) -> HTTPResponse:
    """Take a meeting's analytics for its client: 204, or 401 if no server of ours has signed them."""
    worker: Proxy = request.app.ctx.proxy
    tenant = worker.snapshot.declared.tenant_of(served_host(request))
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return text("", status=401)
    try:
        taken = await callbacks.analytics(worker.services, worker.snapshot, tenant, token.strip(), request.body)
    except DatabaseAway:
        return text("", status=_TRY_AGAIN)
    return HTTPResponse(status=204) if taken else text("", status=401)


async def meeting_ended(request: Request, path: str, token: str) -> HTTPResponse:
    """Take the word of a meeting's server that it has ended."""
    served_host(request)
    worker: Proxy = request.app.ctx.proxy
    try:
        generation = await callbacks.meeting_ended(worker.services, path, token, request.query_string)
    except DatabaseAway:
        return text("", status=_TRY_AGAIN)
    if generation is None:
        raise UnsupportedRequest
    worker.snapshot.forget(generation)
    return HTTPResponse(status=204)
