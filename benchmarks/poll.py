"""What many servers cost: `python -m benchmarks.poll`; poll rounds of 1,000 simulated servers, getMeetings of 100.

The simulated servers are one process beside the one that polls, on the same machine; medians of the rounds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from benchmarks.service import HOST, PREFIX, SECRET, free_ports, running, signed
from scalelite.core.model import Declared, Key, Kind, Secret, ServerSpec, TenantSpec
from scalelite.flows import poll, reconcile
from scalelite.settings import read_settings
from scalelite.store.db import connect
from scalelite.store.embedded import embedded
from scalelite.store.specs import Author
from scalelite.wiring import open_services, prepare

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROUNDS, HANGING_ROUNDS = 5, 1
SERVERS, HANGING = 1_000, 500
LISTED, MEETINGS = 100, 20


async def declare(conninfo: str, first_port: int, count: int) -> None:
    """Make the cluster so many of the simulated servers, and one tenant."""
    servers = {
        Key(Kind.SERVER, f"bbb{n}"): ServerSpec(
            id=f"bbb{n}", url=f"http://127.0.0.1:{first_port + n}{PREFIX}", secret=Secret(f"sim-secret-{n + 1}")
        )
        for n in range(count)
    }
    tenant = {Key(Kind.TENANT, "tenant1"): TenantSpec(name="tenant1", secrets=(Secret(SECRET),))}
    async with connect(conninfo, "benchmark") as connection:
        wanted = Declared({**servers, **tenant})
        planned = await reconcile.plan(connection, wanted, "force")
        await reconcile.apply(connection, wanted, planned.plan, Author("benchmark"), uuid.uuid4, lock_timeout_s=5)


async def control(ports: Iterable[int], operation: Mapping[str, object]) -> None:
    """Have simulated servers do something."""
    async with aiohttp.ClientSession() as session:
        for port in ports:
            async with session.post(f"http://127.0.0.1:{port}/control", json=operation) as answer:
                answer.raise_for_status()


async def rounds(conninfo: str, first_port: int, environment: Mapping[str, str]) -> None:
    """Time poll rounds: all servers well, then half of them hanging."""
    async with open_services(read_settings(environment), conninfo, name="benchmark") as services:
        poller = poll.Poll(services)
        for what, count in (("all well", ROUNDS), (f"{HANGING} hanging", HANGING_ROUNDS)):
            if what != "all well":
                await control(range(first_port, first_port + HANGING), {"mode": "hang", "calls": ["getMeetings"]})
            times, failed = [], 0
            for _ in range(count):
                began = time.perf_counter()
                outcome = await poller.round(await poller.begin(), versions=False)
                times.append(time.perf_counter() - began)
                failed = len(outcome.failed)
            print(
                f"poll of {SERVERS:,} servers, {what}: median {statistics.median(times):.2f} s,"
                f" longest {max(times):.2f} s, {failed} failed (interval {services.settings.poll_interval_s:g} s)"
            )


async def lists(first_port: int, environment: Mapping[str, str]) -> None:
    """Time getMeetings of the running service: all servers well, then one of them hanging."""
    async with AsyncExitStack() as stack:
        port = free_ports()
        serve = [sys.executable, "-m", "scalelite", "serve", "--host", "127.0.0.1", "--port", str(port), "--no-poller"]
        ready = f"http://127.0.0.1:{port}/health/ready"
        stack.enter_context(running([*serve, "--workers", "2"], ready, dict(environment)))
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def call(path: str) -> tuple[float, bytes]:
            began = time.perf_counter()
            url = URL(f"http://127.0.0.1:{port}{path}", encoded=True)
            async with session.get(url, headers={"Host": HOST}) as answer:
                return time.perf_counter() - began, await answer.read()

        for n in range(LISTED * MEETINGS):
            await call(signed("create", meetingID=f"room-{n}", name="Room", attendeePW="ap", moderatorPW="mp"))
        for what in ("all well", "one hanging"):
            if what != "all well":
                await control([first_port], {"mode": "hang", "calls": ["getMeetings"]})
            answers = [await call(signed("getMeetings")) for _ in range(ROUNDS)]
            times = [took_s for took_s, _ in answers]
            print(
                f"getMeetings of {LISTED} servers, {what}: median {statistics.median(times):.2f} s,"
                f" longest {max(times):.2f} s, {answers[-1][1].count(b'<meetingID>'):,} meetings"
            )


async def poll_once(conninfo: str, environment: Mapping[str, str]) -> None:
    async with open_services(read_settings(environment), conninfo, name="benchmark") as services:
        await poll.poll_round(services)


def main() -> None:
    logging.disable(logging.WARNING)
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        conninfo = stack.enter_context(embedded(Path(home), linger_s=1))
        environment = dict(os.environ) | {
            "DATABASE_URL": conninfo, "MULTITENANCY_ENABLED": "true", "URL_HOST": "sl.localhost", "LOG_LEVEL": "error",
        }  # fmt: skip
        simulate = [sys.executable, "-m", "scalelite", "simulate", "--servers", str(SERVERS)]
        port = free_ports(SERVERS)
        command = [*simulate, "--first-port", str(port)]
        stack.enter_context(running(command, f"http://127.0.0.1:{port}{PREFIX}", environment))
        asyncio.run(prepare(conninfo))
        asyncio.run(declare(conninfo, port, LISTED))
        asyncio.run(poll_once(conninfo, environment))
        asyncio.run(lists(port, environment))
        asyncio.run(control([port], {"op": "heal"}))
        asyncio.run(declare(conninfo, port, SERVERS))
        asyncio.run(poll_once(conninfo, environment))
        asyncio.run(rounds(conninfo, port, environment))


if __name__ == "__main__":
    main()
