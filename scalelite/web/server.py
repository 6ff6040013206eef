"""Runs the service: worker processes on one port, and a poller beside them."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from sanic import Sanic
from sanic.worker.loader import AppLoader

from scalelite import logs
from scalelite.errors import PortTaken
from scalelite.flows.poll import poll_forever
from scalelite.web import create_app
from scalelite.wiring import open_services

if TYPE_CHECKING:
    from scalelite.settings import Settings


def serve(settings: Settings, conninfo: str, *, poller: bool = True) -> None:
    """Run until SIGINT or SIGTERM; raises PortTaken before anything is started."""
    check_port(settings.bind, settings.port)
    loader = AppLoader(factory=partial(create_app, settings, conninfo))
    app = loader.load()
    if poller:
        app.main_process_ready(partial(_manage_poller, settings=settings, conninfo=conninfo))
    app.prepare(host=settings.bind, port=settings.port, workers=settings.workers, motd=False, access_log=False)
    Sanic.serve(primary=app, app_loader=loader)


def check_port(host: str, port: int) -> None:
    """Raise PortTaken where nothing can listen."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}:
                raise PortTaken(host, port) from None
            raise


def _manage_poller(app: Sanic[Any, Any], settings: Settings, conninfo: str) -> None:
    arguments = {"settings": settings, "conninfo": conninfo}
    app.manager.manage("Poller", run_poller, arguments, restartable=True)


def run_poller(settings: Settings, conninfo: str) -> None:
    """Poll until SIGINT or SIGTERM."""
    logs.configure(settings.log_level, settings.log_format)
    asyncio.run(_poll(settings, conninfo))


async def _poll(settings: Settings, conninfo: str) -> None:
    loop = asyncio.get_running_loop()
    async with open_services(settings, conninfo, name="scalelite poller") as services:
        task = asyncio.create_task(poll_forever(services))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
