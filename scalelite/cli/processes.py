"""serve, poll and simulate: what runs until it is stopped."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalelite.cli.progress import steps
from scalelite.cli.session import settings_of_process
from scalelite.core import show
from scalelite.errors import PortTaken

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalelite.flows.poll import Polled, Round
    from scalelite.settings import Settings


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on; else BIND.")
@click.option("--port", type=int, help="Port to listen on; else PORT.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes; else WEB_CONCURRENCY.")
@click.option("--no-poller", is_flag=True, help="Run no poller beside the service.")
def serve(host: str | None, port: int | None, workers: int | None, no_poller: bool) -> None:
    """Answer the BigBlueButton API until SIGTERM or Ctrl-C, with a poller beside.

    \b
    Example: MULTITENANCY_ENABLED=true URL_HOST=sl.example.com scalelite serve --port 3000
    """
    from scalelite.web.server import serve as run_service  # noqa: PLC0415 - 0.3 s to import
    from scalelite.wiring import open_database  # noqa: PLC0415

    settings = settings_of_process()
    settings = dataclasses.replace(
        settings,
        bind=host or settings.bind,
        port=settings.port if port is None else port,
        workers=workers or settings.workers,
    )
    with open_database(settings) as conninfo:
        run_service(settings, conninfo, poller=not no_poller)


@click.command()
@click.option("--once", is_flag=True, help="Poll one round and end.")
@click.option("--interval", type=float, help="Seconds between polls; else POLL_INTERVAL.")
def poll(once: bool, interval: float | None) -> None:
    """Ask all servers what runs on them, and write their health and load.

    \b
    Example: scalelite poll --once
    """
    from scalelite.web.server import run_poller  # noqa: PLC0415 - 0.3 s to import
    from scalelite.wiring import open_database  # noqa: PLC0415

    settings = settings_of_process()
    if interval is not None:
        settings = dataclasses.replace(settings, poll_interval_s=interval)
    with open_database(settings) as conninfo:
        if once:
            with steps("Polling") as advance:
                outcome = asyncio.run(_poll_once(settings, conninfo, advance))
            click.echo(_told(outcome))
        else:
            run_poller(settings, conninfo)


async def _poll_once(settings: Settings, conninfo: str, advance: Callable[[str], None]) -> Round:
    from scalelite.flows.poll import poll_round  # noqa: PLC0415
    from scalelite.wiring import open_services  # noqa: PLC0415

    async with open_services(settings, conninfo, name=f"scalelite poll {settings.actor}"[:63]) as services:
        return await poll_round(services, lambda answer: advance(_answered(answer)))


def _answered(answer: Polled) -> str:
    meetings = answer.meetings
    what = "no answer" if meetings is None else show.counted(len(meetings), "meeting")
    return f"{answer.server.id}: {what}"


def _told(outcome: Round) -> str:
    words = ", ".join(
        f"{count} {health}" for health in ("online", "unhealthy", "offline") if (count := outcome.with_health(health))
    )
    failed = f" No answer from: {', '.join(outcome.failed)}." if outcome.failed else ""
    return f"Polled {show.counted(len(outcome.statuses), 'server')}: {words or 'none'}.{failed}"


@click.command()
@click.option("--servers", "count", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--first-port",
    type=click.IntRange(1, 65535),
    default=8091,
    show_default=True,
    help="Port of the first; the others follow.",
)
@click.option("--spool", type=click.Path(file_okay=False, path_type=Path), help="Folder for archives of recordings.")
def simulate(count: int, host: str, first_port: int, spool: Path | None) -> None:
    """Run simulated BigBlueButton servers until Ctrl-C, to rehearse with; POST /control makes them fail.

    \b
    Example: scalelite simulate --servers 5 --first-port 8091
    """
    asyncio.run(_simulate(count, host, first_port, spool))


async def _simulate(count: int, host: str, first_port: int, spool: Path | None) -> None:
    from scalelite.sim import simulate as run_servers  # noqa: PLC0415 - 0.2 s to import

    secrets = [f"sim-secret-{place + 1}" for place in range(count)]
    try:
        async with run_servers(count, host=host, first_port=first_port, secrets=secrets) as servers:
            for server in servers:
                server.spool = spool
            rows = [(server.name, server.url, server.secret) for server in servers]
            click.echo(show.table(("name", "url", "secret"), rows), nl=False)
            click.echo("Running until Ctrl-C.", err=True)
            await asyncio.Event().wait()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortTaken(host, f"{first_port} to {first_port + count - 1}", "--first-port") from None
