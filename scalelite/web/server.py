"""The processes of the service: workers that share one listening socket, and a poller beside them."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvloop

from scalelite import logs
from scalelite.flows.callbacks import deliver_forever
from scalelite.flows.ending import until_one_ends
from scalelite.flows.poller import poll_forever
from scalelite.web import create_app
from scalelite.web.listener import listen, refuse_newcomers, until_nobody_connects
from scalelite.web.metrics import flush_forever, sharing
from scalelite.web.protocol import StrictProtocol
from scalelite.web.supervisor import Program, Supervisor
from scalelite.wiring import open_services

if TYPE_CHECKING:
    import socket

    from scalelite.settings import Settings

log = logging.getLogger(__name__)

# Every call ends within 9 s (spec/operations.md), so what is under way at a stop can end.
_DRAIN_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.05
# New objects until the youngest are looked through; and how often that is done until those that outlived it are.
_COLLECT_AFTER: Final = (20_000, 20, 50)


def serve(settings: Settings, conninfo: str, *, poller: bool = True) -> None:
    """Run until SIGINT or SIGTERM; raises PortTaken before anything is started."""
    listener = listen(settings.bind, settings.port)
    with sharing(settings) as shared:
        workers = range(1, shared.workers + 1)
        programs = [Program(f"worker {number}", run_worker, (shared, conninfo, listener)) for number in workers]
        if poller:
            programs.append(Program("poller", _poller, (shared, conninfo), vital=False))
        Supervisor(programs, let_go=partial(_let_go, listener)).run()


def _let_go(listener: socket.socket) -> None:
    """Refuse new connections from here on; the workers see to those that are on their way."""
    if not refuse_newcomers(listener):
        log.info("this system turns nobody away at the socket: who connects at this moment may be cut off")
    listener.close()


# --- workers ---------------------------------------------------------------------------------------------------------


def run_worker(settings: Settings, conninfo: str, listener: socket.socket) -> None:
    """Answer calls until SIGTERM, or until the parent is gone."""
    logs.configure(settings.log_level, settings.log_format)
    _spare_the_collector()
    uvloop.run(_work(settings, conninfo, listener))


def _spare_the_collector() -> None:
    """Look for cycles more rarely, and never among what was imported: calls leave next to none (3 to 8 % of CPU)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def _work(settings: Settings, conninfo: str, listener: socket.socket) -> None:
    stop = stop_event()
    app = create_app(settings, conninfo)
    server: Any = await app.create_server(
        sock=listener,
        protocol=StrictProtocol,
        return_asyncio_server=True,
        asyncio_server_kwargs={"start_serving": False},
    )
    await server.startup()
    await server.before_start()
    await server.start_serving()
    await server.after_start()
    await stop.wait()
    app.ctx.stopping = True
    await until_nobody_connects(listener)
    server.close()
    listener.close()
    await _drain(server.connections)
    await server.before_stop()
    await server.after_stop()


async def _drain(connections: set[Any]) -> None:
    """Let the calls that are under way end; connections that wait for one are closed."""
    deadline = asyncio.get_running_loop().time() + _DRAIN_S
    while connections and asyncio.get_running_loop().time() < deadline:
        for connection in tuple(connections):
            connection.close_if_idle()
        await asyncio.sleep(_LOOK_EVERY_S)
    for connection in tuple(connections):
        connection.abort()


def stop_event() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set, and the end of the parent process, if there is one."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if (parent := multiprocessing.parent_process()) is None:
        loop.add_signal_handler(signal.SIGINT, stop.set)
    else:
        loop.add_reader(parent.sentinel, _on_parents_end, parent.sentinel, stop)
    return stop


def _on_parents_end(sentinel: int, stop: asyncio.Event) -> None:
    """Be told once: it stays readable."""
    asyncio.get_running_loop().remove_reader(sentinel)
    stop.set()


# --- poller ----------------------------------------------------------------------------------------------------------


def _poller(settings: Settings, conninfo: str) -> None:
    """The poller as a process of its own beside the workers."""
    logs.configure(settings.log_level, settings.log_format)
    run_poller(settings, conninfo)


def run_poller(settings: Settings, conninfo: str) -> None:
    """Poll until SIGINT or SIGTERM, or until the parent is gone."""
    asyncio.run(_poll(settings, conninfo))


async def _poll(settings: Settings, conninfo: str) -> None:
    stop = stop_event()
    async with open_services(settings, conninfo, name="scalelite poller") as services:
        await until_one_ends(poll_forever(services), deliver_forever(services), flush_forever(), ended(stop))


async def ended(stop: asyncio.Event) -> None:
    """Wait until the process is to end."""
    await stop.wait()
