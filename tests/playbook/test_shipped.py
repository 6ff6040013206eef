"""The shipped playbooks against simulated servers, with meetings made and ended all the while."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from scalelite.core.model import Kind, Secret
from scalelite.flows import poll
from tests.playbook.conftest import SHIPPED
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.playbook.conftest import Stage, Told
    from tests.web.conftest import Answer, Service

QUICK = {"drain_every": "0.1s", "back_every": "0.1s", "drain_timeout": "30s"}


@dataclass
class Load:
    """What became of the calls of front ends; `lost` are meetings that were gone before they were ended."""

    service: Service
    calls: int = 0
    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def check(self) -> None:
        assert self.calls > 20
        assert not self.failed
        assert not self.lost

    async def meet(self, number: int) -> None:
        """Make a meeting, join it, look whether it still runs, and end it."""
        meeting = f"load-{number}"
        await self._call("create", meeting, meetingID=meeting, name="Load", attendeePW="ap", moderatorPW="mp")
        for _ in range(3):
            await asyncio.sleep(0.03)
            info = await self._call("getMeetingInfo", meeting, meetingID=meeting)
            if info.key == "notFound":
                self.lost.append(meeting)
        await self._call("end", meeting, meetingID=meeting, password="mp")

    async def _call(self, call: str, meeting: str, **params: str) -> Answer:
        answer = await self.service.call(call, params)
        self.calls += 1
        if not answer.succeeded:
            self.failed.append(f"{call} {meeting}: {answer.body!r}")
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
async def under_load(stage: Stage, service: Service) -> AsyncIterator[Load]:
    """Meetings are made and ended, and the poller polls, for as long as this lasts."""
    load = Load(service)
    services = await stage.cluster.poller()

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


async def shipped(stage: Stage, name: str, *, check: bool = False, **variables: Any) -> Told:
    return await stage.run(SHIPPED / f"{name}.yml", check=check, extra_vars={**QUICK, **variables})


@pytest.mark.shows("DR-6", "playbooks: rolling-upgrade", "issue H: under load", "DR-1")
async def test_a_rolling_upgrade_of_six_servers_ends_no_meeting_and_fails_no_call(stage: Stage) -> None:
    service = await stage.cluster.start(6)
    upgrade = ["bash", "-c", f"echo {{{{ server.id }}}} >> {stage.folder}/upgraded"]
    async with under_load(stage, service) as load:
        told = await shipped(stage, "rolling-upgrade", upgrade=upgrade)
    assert not told.ended.failed, told.text
    assert not told.ended.held
    load.check()
    names = [server.name for server in stage.cluster.servers]
    assert (stage.folder / "upgraded").read_text().split() == names
    assert {row.state for row in (await stage.cluster.rows()).values()} == {"enabled"}


@pytest.mark.shows("playbooks: drain", "DR-1")
async def test_a_drain_waits_for_the_last_meeting_and_a_second_run_changes_nothing(stage: Stage) -> None:
    service = await stage.cluster.start(2)
    created = await service.create("long")
    assert created.succeeded
    [busy] = stage.cluster.hosts_of("long")
    late = await shipped(stage, "drain", drain_timeout="0.3s", drain=busy.name)
    assert late.ended.failed
    assert "meetings is 1" in late.text
    assert stage.cluster.hosts_of("long") == [busy]
    draining = asyncio.create_task(shipped(stage, "drain", drain=busy.name))
    await asyncio.sleep(0.3)
    assert not draining.done()
    assert (await service.about("end", "long", password="mp")).succeeded
    assert not (await draining).ended.failed
    predicted = await shipped(stage, "drain", check=True, drain=busy.name)
    again = await shipped(stage, "drain", drain=busy.name)
    assert (predicted.changed, again.changed) == (0, 0)


@pytest.mark.shows("playbooks: panic")
async def test_panic_ends_the_meetings_of_a_server_and_a_second_run_finds_nothing(stage: Stage) -> None:
    service = await stage.cluster.start(1)
    await service.create("m1")
    name = stage.cluster.servers[0].name
    told = await shipped(stage, "panic", panic=name)
    assert told.ended.held == {name: "disabled"}
    assert not stage.cluster.hosts_of("m1")
    assert await stage.cluster.meetings() == []
    assert (await shipped(stage, "panic", panic=name)).changed == 0


@pytest.mark.shows("playbooks: evacuate-and-remove")
async def test_a_server_is_evacuated_and_removed_under_load(stage: Stage) -> None:
    service = await stage.cluster.start(3)
    gone = stage.cluster.servers[0].name
    async with under_load(stage, service) as load:
        told = await shipped(stage, "evacuate-and-remove", remove=gone)
    assert not told.ended.failed, told.text
    load.check()
    assert gone not in await stage.cluster.rows()


@pytest.mark.shows("playbooks: evacuate-and-remove")
async def test_meetings_are_ended_only_where_that_was_asked_for(stage: Stage) -> None:
    service = await stage.cluster.start(2)
    await service.create("stays")
    [busy] = stage.cluster.hosts_of("stays")
    told = await shipped(stage, "evacuate-and-remove", remove=busy.name, drain_timeout="0.2s")
    assert told.ended.failed
    assert "still has 1 meetings" in told.text
    assert stage.cluster.hosts_of("stays") == [busy]
    told = await shipped(stage, "evacuate-and-remove", remove=busy.name, drain_timeout="0.2s", end_after_drain=True)
    assert not told.ended.failed, told.text
    assert busy.name not in await stage.cluster.rows()


INVENTORY = """
tenants:
  first: {secrets: [s1]}
  second: {secrets: [s2]}
"""


@pytest.mark.shows("playbooks: enable-multitenancy")
async def test_multitenancy_is_enabled_by_an_inventory_and_a_second_run_changes_nothing(stage: Stage) -> None:
    await stage.cluster.start(1)
    inventory = stage.write(INVENTORY, "inventory.yml")
    stage.cluster.specs = {key: spec for key, spec in stage.cluster.specs.items() if key.kind is not Kind.TENANT}
    await stage.cluster.apply()
    predicted = await shipped(stage, "enable-multitenancy", check=True, inventory=str(inventory), first="first")
    told = await shipped(stage, "enable-multitenancy", inventory=str(inventory), first="first")
    assert not told.ended.failed, told.text
    assert predicted.changed == told.changed == 1
    assert (await shipped(stage, "enable-multitenancy", inventory=str(inventory), first="first")).changed == 0


@pytest.mark.shows("playbooks: retire-tenant")
async def test_a_tenant_retires_after_its_last_meeting(stage: Stage) -> None:
    service = await stage.cluster.start(1)
    await service.create("last", tenant="tenant2")
    retiring = asyncio.create_task(shipped(stage, "retire-tenant", retire="tenant2"))
    await asyncio.sleep(0.3)
    assert not retiring.done()
    stage.cluster.servers[0].forget("last")
    await stage.cluster.make_old()
    await stage.cluster.poll(2)
    told = await retiring
    assert not told.ended.failed, told.text
    again = await shipped(stage, "retire-tenant", retire="tenant1:!tenant1")
    assert again.changed == 0


@pytest.mark.shows("SE-2", "SE-3", "playbooks: secrets")
async def test_a_change_of_secrets_by_two_applies_fails_no_call(stage: Stage) -> None:
    cluster = stage.cluster
    service = await cluster.start(2)
    server = cluster.servers[0]
    async with under_load(stage, service) as load:
        before = Secret(server.secret)
        cluster.server(0, secret=Secret("new-server-secret"), previous_secret=before)
        cluster.tenant("tenant1", secrets=(Secret("tenant1-new"), Secret("tenant1-secret")))
        await cluster.apply()
        await asyncio.sleep(0.3)
        server.about = replace(server.about, secret="new-server-secret")
        await asyncio.sleep(0.3)
        cluster.server(0, secret=Secret("new-server-secret"), previous_secret=Secret(""))
        await cluster.apply()
        by_the_new = await service.call("create", {"meetingID": "new", "name": "New"}, secret="tenant1-new")
        assert by_the_new.succeeded
        await asyncio.sleep(0.3)
    load.check()
