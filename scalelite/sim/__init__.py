"""Simulated BigBlueButton servers with failures on demand, for rehearsals, the demo and the tests.

It shares no code with the rest of the program, so that no mistake of ours agrees with itself.

    async with simulate(3) as servers:
        servers[0].fail("hang", calls=["create"], times=1)
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from scalelite.sim.faults import Fault, Mode
from scalelite.sim.listener import resolve
from scalelite.sim.meetings import ALPHANUMERIC, Meeting, User
from scalelite.sim.recording import Recorded, write_archive
from scalelite.sim.routes import respond
from scalelite.sim.server import Request, RunningServer, SimulatedServer, Surroundings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

__all__ = [
    "Fault",
    "Meeting",
    "Mode",
    "Recorded",
    "Request",
    "RunningServer",
    "SimulatedServer",
    "Simulation",
    "User",
    "simulate",
    "start_servers",
    "write_archive",
]

SECRET_LENGTH: Final = 40


class Simulation:
    """Servers that run until `stop`, or until the end of an `async with`."""

    def __init__(self, servers: list[RunningServer]) -> None:
        self.servers = servers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop all servers, within half a second even while requests hang."""
        await asyncio.gather(*(server.listener.stop() for server in self.servers))


async def start_servers(
    count: int,
    *,
    host: str = "127.0.0.1",
    first_port: int = 0,
    secrets: Sequence[str] = (),
    names: Sequence[str] = (),
    public_host: str = "",
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> Simulation:
    """Start servers on free ports, or on first_port and those after it.

    Secrets and names that are not given are random and bbb1, bbb2, … `public_host` stands in URLs instead of `host`
    (which may be 0.0.0.0); `clock` gives seconds since 1970. Raises OSError (EADDRINUSE) and then leaves none running.
    """
    around = Surroundings(respond, clock, rng or random.Random())  # noqa: S311 - these passwords protect nothing
    address = await resolve(host)
    simulation = Simulation([])
    try:
        for place in range(count):
            server = RunningServer(
                names[place] if place < len(names) else f"bbb{place + 1}",
                secrets[place] if place < len(secrets) else "".join(around.rng.choices(ALPHANUMERIC, k=SECRET_LENGTH)),
                replace(address, port=first_port and first_port + place),
                public_host or host,
                around,
            )
            simulation.servers.append(server)
            server.accept()
    except OSError:
        await simulation.stop()
        raise
    return simulation


@asynccontextmanager
async def simulate(
    count: int,
    *,
    host: str = "127.0.0.1",
    first_port: int = 0,
    secrets: Sequence[str] = (),
    names: Sequence[str] = (),
    public_host: str = "",
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> AsyncIterator[list[RunningServer]]:
    """Run servers for the time of an `async with`: see start_servers."""
    started = await start_servers(
        count,
        host=host,
        first_port=first_port,
        secrets=secrets,
        names=names,
        public_host=public_host,
        clock=clock,
        rng=rng,
    )
    async with started:
        yield started.servers
