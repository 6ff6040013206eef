"""Routes for those who run the service: health; whatever the host name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sanic.response import text

from scalelite.errors import ScaleliteError

if TYPE_CHECKING:
    from sanic import HTTPResponse, Request, Sanic

    from scalelite.flows.proxy import Proxy


def add_routes(app: Sanic[Any, Any]) -> None:
    """Add the health checks."""
    app.add_route(live, "/health/live", methods=("GET", "HEAD"))
    app.add_route(ready, "/health/ready", methods=("GET", "HEAD"))
    app.add_route(ready, "/health_check", methods=("GET", "HEAD"), name="health_check")


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
