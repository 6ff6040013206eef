"""The service, thin: Sanic's application, what it opens, and its routes."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from sanic import Sanic

from scalelite import logs
from scalelite.errors import DatabaseAway, ServiceNotReady
from scalelite.flows import recordings
from scalelite.flows.confirm import Confirmations
from scalelite.flows.ending import stopped
from scalelite.flows.playback import Playback
from scalelite.flows.proxy import Proxy
from scalelite.flows.snapshot import Snapshot
from scalelite.web import bbb_api, callbacks, fsapi, metrics, ops, playback, rest_api, uploads
from scalelite.web.protocol import REQUEST_TIMEOUT_S
from scalelite.wiring import open_services

if TYPE_CHECKING:
    from sanic import HTTPResponse, Request

    from scalelite.settings import Settings

log = logging.getLogger(__name__)

App = Sanic[Any, Any]
_FIRST_SNAPSHOT_S = 10.0


def create_app(settings: Settings, conninfo: str, name: str = "scalelite") -> App:
    """Make the application; runs in the main process and in each worker, and opens nothing yet."""
    logs.configure(settings.log_level, settings.log_format)
    app: App = Sanic(name, configure_logging=False)
    app.config.AUTO_EXTEND = False
    app.config.ACCESS_LOG = False
    app.config.REQUEST_MAX_HEADER_SIZE = 16384
    app.config.REQUEST_MAX_SIZE = settings.max_body_bytes
    app.config.REQUEST_TIMEOUT = REQUEST_TIMEOUT_S
    app.ctx.settings, app.ctx.conninfo, app.ctx.stack = settings, conninfo, AsyncExitStack()
    app.ctx.stopping = False
    app.before_server_start(_open)
    app.after_server_stop(_close)
    bbb_api.add_routes(app)
    callbacks.add_routes(app)
    uploads.add_routes(app)
    rest_api.add_routes(app)
    fsapi.add_routes(app)
    playback.add_routes(app, settings)
    ops.add_routes(app)
    app.exception(Exception)(_failed)
    return app


async def _failed(request: Request, error: Exception) -> HTTPResponse:
    """Answer an error in the words of the API that was called."""
    managing = request.path.startswith(rest_api.PREFIX)
    return await (rest_api.failed if managing else bbb_api.failed)(request, error)


async def _open(app: App) -> None:
    settings: Settings = app.ctx.settings
    stack: AsyncExitStack = app.ctx.stack
    services = await stack.enter_async_context(open_services(settings, app.ctx.conninfo, name="scalelite serve"))
    snapshot = Snapshot(settings, settings.listen_database_url or app.ctx.conninfo)
    confirmations = Confirmations(services.database)
    stack.push_async_callback(_flush, confirmations)
    for task in (snapshot.follow(), confirmations.run(), recordings.repair_once(services), metrics.flush_forever()):
        stack.push_async_callback(stopped, asyncio.create_task(task))
    app.ctx.proxy = Proxy.of(services, snapshot, confirmations)
    app.ctx.playback = Playback(services, snapshot)
    try:
        await snapshot.ready(_FIRST_SNAPSHOT_S)
    except ServiceNotReady:
        log.error("the cluster was not read within %g s; not ready until it is", _FIRST_SNAPSHOT_S)  # noqa: TRY400


async def _close(app: App) -> None:
    await app.ctx.stack.aclose()


async def _flush(confirmations: Confirmations) -> None:
    try:
        await confirmations.flush()
    except DatabaseAway as error:
        log.warning("confirmations are left to the poller: %s", error)
