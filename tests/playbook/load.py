"""Front ends that make, use and end meetings all the while, and the poller: what playbooks must not be felt by."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scalelite.flows import poll
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from tests.web.conftest import Answer, Cluster, Service


@dataclass
class Load:
    """What became of the calls of front ends; `lost` are meetings that were gone before they were ended."""

    service: Service
    calls: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """Forget what was before."""
        self.calls = 0
        self.failed.clear()
        self.lost.clear()

    async def check(self, but: Collection[str] = ()) -> None:
        """Nothing failed and no meeting was lost, but those of servers that were panicked."""
        await eventually(self.under_way, 20)
        assert [why for meeting, why in self.failed if meeting not in but] == []
        assert self.lost <= set(but)

    async def meet(self, number: int) -> None:
        """Make a meeting, look whether it still runs, and end it."""
        meeting = f"load-{number}"
        await self._call("create", meeting, meetingID=meeting, name="Load", attendeePW="ap", moderatorPW="mp")
        for _ in range(3):
            await asyncio.sleep(0.03)
            info = await self._call("getMeetingInfo", meeting, meetingID=meeting)
            if info.key == "notFound":
                self.lost.add(meeting)
        await self._call("end", meeting, meetingID=meeting, password="mp")

    async def _call(self, call: str, meeting: str, **params: str) -> Answer:
        answer = await self.service.call(call, params)
        self.calls += 1
        if not answer.succeeded:
            self.failed.append((meeting, f"{call} {meeting}: {answer.body!r}"))
        return answer

    async def without_end(self) -> None:
        async with asyncio.TaskGroup() as group:
            for first in range(3):
                group.create_task(self._one_after_the_other(first))

    async def _one_after_the_other(self, first: int) -> None:
        for number in itertools.count(first, 3):
            await self.meet(number)

    async def under_way(self) -> bool:
        return self.calls > 20


@asynccontextmanager
async def under_load(cluster: Cluster, service: Service) -> AsyncIterator[Load]:
    """Meetings are made and ended, and the poller polls, for as long as this lasts."""
    load = Load(service)
    services = await cluster.poller()

    async def polling() -> None:
        while True:
            await poll.poll_round(services)
            await asyncio.sleep(0.2)

    tasks = [asyncio.create_task(load.without_end()), asyncio.create_task(polling())]
    try:
        await eventually(load.under_way, 20)
        yield load
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
