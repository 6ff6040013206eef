"""Load of all kinds on a service of real processes, and what these hold: memory, descriptors, connections, tasks.

The test of the full level and benchmarks/soak.py share it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.e2e.replicas import DOMAIN, declare, replica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.e2e.replicas import Replica
    from tests.web.conftest import Cluster, Service

CLIENTS: Final = 8
_PAGE_KIB: Final = 4
_EXPIRES_MS: Final = 20_000
# What may be held more in the second half than in the first: a share of it, and some that come and go.
_MAY_RISE: Final = {"memory_kib": (0.1, 0), "descriptors": (0.1, 5), "connections": (0.1, 3), "tasks": (0.1, 5)}


@dataclass(frozen=True)
class Sample:
    """What the service's processes hold at one time."""

    at_s: float
    calls: int
    memory_kib: int
    descriptors: int
    connections: int
    tasks: int

    def __str__(self) -> str:
        return (
            f"{self.at_s:6.0f} s  {self.calls:9,} calls  {self.memory_kib:9,} KiB  {self.descriptors:5} descriptors"
            f"  {self.connections:3} connections  {self.tasks:4} tasks"
        )


async def soak(cluster: Cluster, seconds: float, every_s: float, rate: float = 0) -> AsyncIterator[Sample]:
    """Yield a sample now and then, while clients call, a server fails now and then, and the poller polls.

    `rate` is calls a second, 0 for as many as can be.
    """
    times = {"POLL_INTERVAL": "2", "CONNECT_TIMEOUT": "0.5", "RESPONSE_TIMEOUT": "0.5", "POLLER_WAIT_TIMEOUT": "1"}
    await declare(cluster, 3, **times)
    calls = itertools.count()
    async with replica(cluster) as each:
        pause_s = CLIENTS / rate if rate else 0.0
        workers = [asyncio.create_task(_calls(each.service, number, calls, pause_s)) for number in range(CLIENTS)]
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


async def _calls(service: Service, number: int, calls: itertools.count[int], pause_s: float) -> None:
    """Hold meetings one after another, as a front end does; whatever fails, it is told as BigBlueButton tells it."""
    for turn in itertools.count():
        room = f"room-{number}-{turn}"
        about = {"meetingID": room}
        calls_of_a_turn: tuple[tuple[str, dict[str, str], str], ...] = (
            ("create", {**about, "name": room, "moderatorPW": "mp"}, ""),
            ("join", {**about, "fullName": "Ada"}, ""),
            ("getMeetingInfo", about, ""),
            ("isMeetingRunning", about, ""),
            ("getMeetings", {}, ""),
            ("getMeetings", {}, "wrong"),
            ("end", {**about, "password": "mp"}, ""),
        )
        for call, params, secret in calls_of_a_turn:
            answer = await service.call(call, params, secret=secret)
            assert answer.is_xml or answer.status == 302
            next(calls)
            await asyncio.sleep(pause_s)


async def _faults(cluster: Cluster) -> None:
    """Let one server after another fail for a second; what could not be ended expires there, or lists would grow."""
    chance = random.Random(1)
    for server in itertools.cycle(cluster.servers):
        await asyncio.sleep(3)
        server.fail(chance.choice(("hang", "garbage", "close", "status")))
        await asyncio.sleep(1)
        server.heal()
        for room, meeting in list(server.meetings.items()):
            if server.rooms.now_ms() - meeting.created_ms > _EXPIRES_MS:
                server.forget(room)


async def _sample(cluster: Cluster, each: Replica, at_s: float, calls: int) -> Sample:
    processes = [Path(f"/proc/{pid}") for pid in await each.below()]
    cursor = await cluster.connection.execute(
        "SELECT count(*) AS count FROM pg_stat_activity WHERE application_name LIKE 'scalelite %'"
    )
    metrics = (await each.service.send("/metrics", host=DOMAIN)).body.decode()
    tasks = re.search(r"^scalelite_tasks ([0-9.]+)$", metrics, re.MULTILINE)
    return Sample(
        at_s,
        calls,
        sum(int((process / "statm").read_text().split()[1]) * _PAGE_KIB for process in processes),
        sum(len(list((process / "fd").iterdir())) for process in processes),
        (await cursor.fetchone() or {})["count"],
        int(float(tasks[1])) if tasks else 0,
    )


def rises(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """Return what was held in the middle of the first half and of the second; the first third warms caches up."""
    warm = samples[len(samples) // 3 :]
    half = len(warm) // 2
    return {
        what: (
            statistics.median(getattr(sample, what) for sample in warm[:half]),
            statistics.median(getattr(sample, what) for sample in warm[half:]),
        )
        for what in _MAY_RISE
    }


def leaks(samples: list[Sample]) -> list[str]:
    """Return what grew more than what comes and goes; fewer than a dozen samples tell nothing."""
    assert len(samples) >= 12
    assert samples[-1].calls > 100
    assert all(sample.tasks for sample in samples)
    return [
        f"{what}: {before:,.0f} -> {after:,.0f}"
        for what, (before, after) in rises(samples).items()
        if after > before * (1 + _MAY_RISE[what][0]) + _MAY_RISE[what][1]
    ]
