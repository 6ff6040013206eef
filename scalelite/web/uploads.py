"""The route for archives of recordings, for servers that share no folder: into the spool, and imported from there."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING, Any, Final, cast

from sanic.response import json

from scalelite.errors import NotStored, Unauthenticated
from scalelite.flows import tokens
from scalelite.flows.importer import spool_of
from scalelite.web.bbb_api import host_of
from scalelite.web.rest_call import Caller

if TYPE_CHECKING:
    from sanic import HTTPResponse, Request, Sanic
    from sanic.http import Http

    from scalelite.flows.proxy import Proxy
    from scalelite.flows.services import Services

log = logging.getLogger(__name__)

PATH: Final = "/scalelite/api/recordings"
_LARGEST: Final = 256 << 30


def add_routes(app: Sanic[Any, Any]) -> None:
    """Add the route; bodies are written as they come, since they may be larger than memory."""
    app.add_route(receive, PATH, methods=("POST",), stream=True, name="upload_recording")


async def receive(request: Request) -> HTTPResponse:
    """Take an archive from who has a token of the scope import; it is imported within the next minutes.

    Raises Unauthenticated, ScopeTooNarrow, NotStored.
    """
    worker: Proxy = request.app.ctx.proxy
    services = worker.services
    if not worker.snapshot.declared.serves(host_of(request, services.settings)):
        return json({"error": "this host is not served"}, 403)
    await _check(request, services)
    stream = cast("Http", request.stream)
    stream.request_max_size = _LARGEST
    try:
        name = await _store(stream, services)
    except OSError as error:
        log.error("an archive could not be stored: %s", error)  # noqa: TRY400
        raise NotStored from None
    return json({"archive": name}, 202)


async def _check(request: Request, services: Services) -> None:
    """A token says who sends; a checksum would not cover the archive."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("send a token of the scope import as 'Authorization: Bearer TOKEN'")
    async with services.database.use() as connection:
        found = await tokens.authenticate(connection, token.strip())
    Caller(f"token {found.name}", found.scope).require("import")


async def _store(stream: Http, services: Services) -> str:
    with spool_of(services).arrival(f"upload-{uuid.uuid4().hex}.tar") as arrival:
        while chunk := await stream.read():
            await asyncio.to_thread(arrival.write, chunk)
        return (await asyncio.to_thread(arrival.keep)).name
