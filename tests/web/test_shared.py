"""Questions that many ask at once: few go out, and no answer is older than the call that it is for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from scalelite.errors import UpstreamFailed
from scalelite.flows.shared import Shared
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.web.conftest import Cluster


@dataclass
class World:
    """What is asked about: `now` at the time of the question; questions wait while they may not be answered."""

    now: int = 0
    asked: int = 0
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False

    async def ask(self, key: str) -> tuple[str, int]:
        self.asked += 1
        seen = self.now
        await self.may_answer.wait()
        if self.fails:
            raise UpstreamFailed
        return key, seen


async def until(probe: Callable[[], bool]) -> None:
    async def probe_() -> bool:
        return probe()

    await eventually(probe_, 10)


async def until_asked(world: World, count: int) -> None:
    await until(lambda: world.asked >= count)


@pytest.mark.shows("issue E: speed of getMeetings", "CR-D")
async def test_who_comes_while_a_question_is_out_shares_the_next_one() -> None:
    world = World()
    shared = Shared(world.ask)
    first = asyncio.create_task(shared.get("a"))
    await until_asked(world, 1)
    world.now = 1
    others = [asyncio.create_task(shared.get("a")) for _ in range(20)]
    elsewhere = asyncio.create_task(shared.get("b"))
    await until_asked(world, 2)
    world.may_answer.set()
    assert await first == ("a", 0)
    assert await asyncio.gather(*others) == [("a", 1)] * 20, "what is so when they ask"
    assert await elsewhere == ("b", 1)
    assert world.asked == 3
    assert not shared._lines


@pytest.mark.shows("CR-10")
async def test_a_question_that_hangs_holds_up_nobody_for_long() -> None:
    world = World()
    shared = Shared(world.ask)
    hanging = asyncio.create_task(shared.get("a"))
    await until_asked(world, 1)
    other = asyncio.create_task(shared.get("a"))
    await until_asked(world, 2)
    world.may_answer.set()
    assert await hanging == await other
    assert not shared._lines


@pytest.mark.shows("issue E: speed of getMeetings")
async def test_who_gives_up_takes_no_answer_from_the_others_and_all_hear_of_a_failure() -> None:
    world = World(fails=True)
    shared = Shared(world.ask)
    calls = [asyncio.create_task(shared.get("a")) for _ in range(3)]
    await until_asked(world, 1)
    calls.pop(0).cancel()
    alone = asyncio.create_task(shared.get("b"))
    await until_asked(world, 2)
    alone.cancel()
    world.may_answer.set()
    assert [type(end) for end in await asyncio.gather(*calls, return_exceptions=True)] == [UpstreamFailed] * 2
    await until(lambda: not shared._lines)
    world.fails = False
    assert await shared.get("a") == ("a", 0)


@pytest.mark.shows("issue E: speed of getMeetings", "MT-1", "CR-D")
async def test_many_lists_at_once_ask_each_server_a_few_times_and_show_each_tenant_its_own(cluster: Cluster) -> None:
    service = await cluster.start(2)
    for tenant in ("tenant1", "tenant2"):
        for number in range(3):
            await service.create(f"room-{number}", tenant=tenant)
    before = cluster.asked("getMeetings")
    for server in cluster.servers:
        server.fail("slow", calls=["getMeetings"], seconds=0.05)
    tenants = ["tenant1", "tenant2"] * 15
    answers = await asyncio.gather(*(service.call("getMeetings", tenant=tenant) for tenant in tenants))
    for tenant, answer in zip(tenants, answers, strict=True):
        assert answer.meeting_ids == ["room-0", "room-1", "room-2"]
        assert {"tenant1", "tenant2"} & set(answer.root.xpath("//metadata/tenant-name/text()")) == {tenant}
    assert cluster.asked("getMeetings") - before < 30, "not 60"
