"""Routes for those who run the service: health and metrics; whatever the host name."""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST
from sanic import HTTPResponse
from sanic.response import text

from scalelite.errors import ScaleliteError
from scalelite.flows.observed import read_observed
from scalelite.web.metrics import exposition, flush

if TYPE_CHECKING:
    from sanic import Request, Sanic

    from scalelite.flows.proxy import Proxy

log = logging.getLogger(__name__)


def add_routes(app: Sanic[Any, Any]) -> None:
    """Add the health checks and the metrics."""
    app.add_route(live, "/health/live", methods=("GET", "HEAD"))
    app.add_route(ready, "/health/ready", methods=("GET", "HEAD"))
    app.add_route(ready, "/health_check", methods=("GET", "HEAD"), name="health_check")
    app.add_route(metrics, "/metrics", methods=("GET", "HEAD"))


async def live(_request: Request) -> HTTPResponse:
    """Say that this worker's loop runs."""
    return text("success")


async def ready(request: Request) -> HTTPResponse:
    """Say whether calls can be answered: the cluster was read, and Postgres answers."""
    worker: Proxy = request.app.ctx.proxy
    try:
        await worker.snapshot.ready(0.001)
        async with worker.services.database.use(timeout_s=2) as connection:
            await connection.execute("SELECT 1")
    except ScaleliteError as error:
        return text(f"Health Check Failure: {error}", status=503)
    return text("success")


async def metrics(request: Request) -> HTTPResponse:
    """Give the metrics of all workers and of the cluster, from Postgres alone; asks for a token if one is set."""
    worker: Proxy = request.app.ctx.proxy
    settings = worker.services.settings
    given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
    if settings.metrics_token and not hmac.compare_digest(given, f"Bearer {settings.metrics_token}".encode()):
        return text("a token is needed", status=401, headers={"WWW-Authenticate": 'Bearer realm="metrics"'})
    try:
        observed = await read_observed(worker.services)
    except ScaleliteError as error:
        log.warning("metrics without the cluster's: %s", error)
        observed = None
    flush()
    return HTTPResponse(await asyncio.to_thread(exposition, settings, observed), content_type=CONTENT_TYPE_LATEST)
