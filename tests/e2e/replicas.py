"""The service as real processes on one database: `scalelite serve` and `scalelite poll`, each in its own session."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from scalelite.core.model import Secret
from scalelite.sim import simulate
from tests.e2e.test_processes import children, free_port, is_ready
from tests.web.conftest import DOMAIN, ENVIRONMENT, TENANTS, Cluster, Service, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


@dataclass(frozen=True)
class Replica:
    """One `scalelite serve` with its workers and poller, and a client of it."""

    process: subprocess.Popen[bytes]
    service: Service

    def signal(self, number: int) -> None:
        """Signal all of its processes."""
        os.killpg(self.process.pid, number)

    async def below(self) -> set[int]:
        """The ids of its workers and its poller."""
        return await asyncio.to_thread(children, self.process.pid)


async def declare(cluster: Cluster, count: int, **environment: str) -> None:
    """Run so many simulated servers, declare them and two tenants, and poll them; serve nothing."""
    cluster.environment = {**ENVIRONMENT, **environment}
    cluster.servers += await cluster.stack.enter_async_context(simulate(count))
    for place in range(count):
        cluster.server(place)
    for name, secret in TENANTS.items():
        cluster.tenant(name, secrets=(Secret(secret),))
    await cluster.apply()
    await cluster.poll()


@asynccontextmanager
async def running(
    cluster: Cluster, *arguments: str, conninfo: str = "", **environment: str
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run a command of ours until the end; it may be stopped before."""
    wanted: Mapping[str, str] = {
        **os.environ,
        **cluster.environment,
        "DATABASE_URL": conninfo or cluster.conninfo,
        "LOG_LEVEL": "error",
        **environment,
    }
    process = subprocess.Popen([sys.executable, "-m", "scalelite", *arguments], env=wanted, start_new_session=True)  # noqa: ASYNC220 - started in no time
    try:
        yield process
    finally:
        for number in (signal.SIGCONT, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
        await asyncio.to_thread(process.wait)


@asynccontextmanager
async def replica(
    cluster: Cluster, *options: str, port: int = 0, conninfo: str = "", **environment: str
) -> AsyncIterator[Replica]:
    """Run one more instance of the service, with one worker and a poller."""
    port = port or free_port()
    command = ("serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *options)
    async with running(cluster, *command, conninfo=conninfo, **environment) as process, client() as session:

        async def ready() -> bool:
            return await asyncio.to_thread(is_ready, port)

        await eventually(ready, 30)
        yield Replica(process, Service(None, port, session))


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that opens a connection a call, as front ends behind a proxy do."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


__all__ = ["DOMAIN", "Replica", "client", "declare", "replica", "running"]
