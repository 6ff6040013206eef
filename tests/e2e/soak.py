"""Load of all kinds on a service of real processes, and what these processes hold: memory, descriptors, connections.

The test of the full level and benchmarks/soak.py share it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.e2e.replicas import declare, replica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.e2e.replicas import Replica
    from tests.web.conftest import Cluster, Service

CLIENTS: Final = 8
_PAGE_KIB: Final = 4


@dataclass(frozen=True)
class Sample:
    """What the service's processes hold at one time."""

    at_s: float
    calls: int
    memory_kib: int
    descriptors: int
    connections: int

    def __str__(self) -> str:
        return (
            f"{self.at_s:6.0f} s  {self.calls:9,} calls  {self.memory_kib:9,} KiB  {self.descriptors:5} descriptors"
            f"  {self.connections:3} connections"
        )


async def soak(cluster: Cluster, seconds: float, every_s: float) -> AsyncIterator[Sample]:
    """Yield a sample now and then, while clients call, a server fails now and then, and the poller polls."""
    await declare(cluster, 3, POLL_INTERVAL="1", CONNECT_TIMEOUT="0.5", RESPONSE_TIMEOUT="0.5", POLLER_WAIT_TIMEOUT="1")
    calls = itertools.count()
    async with replica(cluster) as each:
        workers = [asyncio.create_task(_calls(each.service, number, calls)) for number in range(CLIENTS)]
        workers.append(asyncio.create_task(_faults(cluster)))
        began = time.monotonic()
        try:
            while time.monotonic() - began < seconds:
                await asyncio.sleep(every_s)
                for worker in workers:
                    if worker.done():
                        worker.result()
                yield await _sample(cluster, each, time.monotonic() - began, next(calls))
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


async def _calls(service: Service, number: int, calls: itertools.count[int]) -> None:
    """Hold meetings one after another, as a front end does."""
    for turn in itertools.count():
        room = f"room-{number}-{turn}"
        await service.create(room, moderatorPW="mp")
        for call in ("join", "getMeetingInfo", "isMeetingRunning"):
            await service.about(call, room, fullName="Ada")
        await service.call("getMeetings")
        await service.call("getMeetings", secret="wrong")
        await service.about("end", room, password="mp")
        for _ in range(7):
            next(calls)


async def _faults(cluster: Cluster) -> None:
    """Let one server after another fail for a second."""
    chance = random.Random(1)
    for server in itertools.cycle(cluster.servers):
        await asyncio.sleep(3)
        server.fail(chance.choice(("hang", "garbage", "close", "status")))
        await asyncio.sleep(1)
        server.heal()


async def _sample(cluster: Cluster, each: Replica, at_s: float, calls: int) -> Sample:
    processes = [Path(f"/proc/{pid}") for pid in await each.below()]
    cursor = await cluster.connection.execute(
        "SELECT count(*) AS count FROM pg_stat_activity WHERE application_name LIKE 'scalelite %'"
    )
    return Sample(
        at_s,
        calls,
        sum(int((process / "statm").read_text().split()[1]) * _PAGE_KIB for process in processes),
        sum(len(list((process / "fd").iterdir())) for process in processes),
        (await cursor.fetchone() or {})["count"],
    )


def growth(samples: list[Sample]) -> dict[str, float]:
    """Return by how much each rose from the first half's most to the second half's most, as a share."""
    half = len(samples) // 2
    return {
        what: max(getattr(sample, what) for sample in samples[half:])
        / max(getattr(sample, what) for sample in samples[:half])
        - 1
        for what in ("memory_kib", "descriptors", "connections")
    }
