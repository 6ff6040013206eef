"""What goes wrong around the service: servers, Postgres, processes; what callers get, how soon it is well again.

docs/reference/faults.md says the same in words.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, get_args

import pytest

from scalelite.core.model import Key, Kind, Secret, ServerSpec
from scalelite.sim import simulate
from scalelite.store.db import connect
from scalelite.store.embedded import Cluster as EmbeddedCluster
from scalelite.store.embedded import State, embedded
from scalelite.wiring import prepare
from tests.e2e.chaos import Misbehaviour, gate_to, misbehaving
from tests.e2e.replicas import declare, replica
from tests.web.conftest import DOMAIN, QUICK, Answer, Cluster, Service, eventually, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.replicas import Replica

# An answer to a front end: FAILED as XML, never a 5xx.
LONGEST_S = 12.0


def assert_failed(answer: Answer, within_s: float = LONGEST_S) -> None:
    assert answer.is_xml
    assert answer.text("returncode") == "FAILED"
    assert answer.took_s < within_s


async def creates(service: Service, meeting_id: str) -> bool:
    return (await service.create(meeting_id)).succeeded


# --- servers ---------------------------------------------------------------------------------------------------------


@pytest.mark.shows("operations: faults of servers", "PO-12", "PO-13", "PO-15", "CR-10")
async def test_servers_that_misbehave_cost_nobody_but_their_own_meetings(cluster: Cluster, tmp_path: Path) -> None:
    """All kinds at once, each with a meeting; they are offline after two polls, and their meetings placed anew."""
    kinds = get_args(Misbehaviour)
    await declare(cluster, 1, POLL_INTERVAL="600", **QUICK)
    cluster.settings_of_all(health={"suspect_fraction": 1.0})
    for kind in kinds:
        name = kind.replace(" ", "-")
        url = await cluster.stack.enter_async_context(misbehaving(kind, tmp_path))
        cluster.specs[Key(Kind.SERVER, name)] = ServerSpec(id=name, url=url, secret=Secret("s"))
    await cluster.apply()
    await cluster.connection.execute(
        """
        INSERT INTO meeting (tenant, meeting_id, server, phase, generation, voice_bridge, reservation)
        SELECT t.id, 'of-' || s.id, s.id, 'running', nextval('claim_sequence'), 'bridge-' || s.id, 15
          FROM tenant t, server s WHERE t.name = 'tenant1' AND s.id <> 'bbb1'
        """
    )
    service = await cluster.serve()
    assert await creates(service, "good")

    rooms = [f"of-{kind.replace(' ', '-')}" for kind in kinds]
    for call in ("getMeetingInfo", "end", "create"):
        for answer in await asyncio.gather(*(service.about(call, room, name="Room") for room in rooms)):
            assert_failed(answer)
    listed = await service.call("getMeetings")
    assert (listed.meeting_ids, listed.took_s < LONGEST_S) == (["good"], True)
    began = time.monotonic()
    await cluster.poll(2)
    assert time.monotonic() - began < 10
    healths = {name: row.health for name, row in (await cluster.rows()).items()}
    assert healths == {name: "online" if name == "bbb1" else "offline" for name in healths}
    assert len(await cluster.meetings()) == len(kinds) + 1, "a failed poll removes nothing"
    for room in rooms:
        assert (await service.join(room)).key == "serverUnavailable"
        assert await creates(service, room)
    assert {row[1] for row in await cluster.meetings()} == {"bbb1"}


@pytest.mark.shows("operations: late success of a create", "CR-3", "CR-4")
@pytest.mark.parametrize("passwords", [{}, {"attendeePW": "ap", "moderatorPW": "mp"}])
async def test_a_create_that_succeeds_too_late_leaves_one_meeting(cluster: Cluster, passwords: dict[str, str]) -> None:
    service = await cluster.start(2, environment=QUICK)
    for server in cluster.servers:
        server.fail("slow", calls=["create"], seconds=2)
    assert_failed(await service.create("room", **passwords))
    assert await cluster.meetings() == []
    for server in cluster.servers:
        server.heal()
    await asyncio.sleep(1.5)
    assert len(cluster.hosts_of("room")) == 1, "nobody was there to hear of it"

    async def again() -> bool:
        return (await service.create("room", **passwords)).succeeded

    await eventually(again, 5)
    ((_, home, _),) = await cluster.meetings()
    assert (await service.call("getMeetings")).meeting_ids == ["room"]
    assert home in {host.name for host in cluster.hosts_of("room")}


# --- Postgres --------------------------------------------------------------------------------------------------------


async def goes_on_polling(cluster: Cluster, each: Replica) -> None:
    """The poller does rounds again, in the process that it had or a new one."""
    assert each.process.poll() is None
    cursor = await cluster.connection.execute("SELECT last_value AS number FROM poll_sequence")
    before = (await cursor.fetchone() or {})["number"]

    async def polled() -> bool:
        cursor = await cluster.connection.execute("SELECT last_value AS number FROM poll_sequence")
        return bool((await cursor.fetchone() or {})["number"] > before)

    await eventually(polled, 20)


@pytest.mark.shows("operations: Postgres restarted", "HA-2")
async def test_a_restart_of_postgres_loses_nothing(tmp_path: Path) -> None:
    home = EmbeddedCluster.at(tmp_path / "home")
    with embedded(home.home, linger_s=1) as conninfo:
        await prepare(conninfo)
        async with connect(conninfo, "tests") as connection:
            cluster = Cluster(conninfo, connection, stack=None)  # type: ignore[arg-type] # nothing is entered
            async with simulate(2) as servers:
                cluster.servers += servers
                await restart(cluster, home)


async def restart(cluster: Cluster, home: EmbeddedCluster) -> None:
    for place in range(2):
        cluster.server(place)
    cluster.tenant("tenant1", secrets=(Secret("tenant1-secret"),))
    cluster.environment = {"POLL_INTERVAL": "1", "MULTITENANCY_ENABLED": "true", "URL_HOST": DOMAIN}
    await cluster.apply()
    async with replica(cluster) as each:
        await eventually(lambda: creates(each.service, "room"), 15)
        postmaster = home.postmaster()
        assert postmaster
        os.kill(postmaster, signal.SIGINT)

        async def gone() -> bool:
            return home.state() is State.GONE

        await eventually(gone, 10)
        assert (await each.service.join("room")).location
        assert_failed(await each.service.create("new"), 6)
        with embedded(home.home, linger_s=1):
            await eventually(lambda: creates(each.service, "new"), 20)
            async with connect(cluster.conninfo, "tests") as connection:
                cluster.connection = connection
                assert [row[0] for row in await cluster.meetings()] == ["new", "room"]
                await goes_on_polling(cluster, each)


@pytest.mark.shows("operations: the N-th statement of a create fails", "CR-3", "PO-17")
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_create_may_fail_at_any_statement(cluster: Cluster, when: str) -> None:
    """The connection breaks before Postgres sees the N-th statement, or before the service sees its answer."""
    await cluster.start(2)
    gate = await cluster.stack.enter_async_context(gate_to(cluster.conninfo))
    async with serving({**cluster.environment}, gate.conninfo) as service:
        statement = 0
        while True:
            statement += 1
            room = f"room-{statement}"
            gate.cut_at(statement, when)  # type: ignore[arg-type]
            answer = await service.create(room)
            await asyncio.sleep(0.1)  # the claim is confirmed
            assert answer.is_xml
            assert answer.succeeded or answer.key == "internalError"
            done = not gate.has_cut()
            # A claim whose answer was lost is known to be nobody's after 12 s; let these pass.
            await cluster.connection.execute("UPDATE meeting SET claimed_at = claimed_at - interval '12 s'")
            await eventually(lambda room=room: creates(service, room), 10)  # type: ignore[misc]
            assert len(cluster.hosts_of(room)) == 1
            if done:
                break
        assert 2 <= statement <= 8
        await cluster.poll()
        rows = await cluster.meetings()
        assert [row[0] for row in rows] == sorted(f"room-{number + 1}" for number in range(statement))
        assert {row[2] for row in rows} == {"running"}
        assert all([host.name for host in cluster.hosts_of(meeting)] == [server] for meeting, server, _ in rows)
        assert sum(row.load for row in (await cluster.rows()).values()) == 15 * statement


# --- processes and the clock -----------------------------------------------------------------------------------------


@pytest.mark.shows("operations: kill -9 of a worker or the poller", "operations: the service goes on")
async def test_killed_workers_and_pollers_come_back_under_load(cluster: Cluster) -> None:
    await declare(cluster, 2, POLL_INTERVAL="1")
    async with replica(cluster) as each:
        assert await creates(each.service, "room")
        for _ in range(2):
            for victim in await each.below():
                os.kill(victim, signal.SIGKILL)

            async def answers() -> bool:
                try:
                    return bool((await each.service.join("room")).location)
                except OSError:
                    return False

            await eventually(answers, 30)
            await goes_on_polling(cluster, each)
        assert await creates(each.service, "after")
        assert len(cluster.hosts_of("room")) == 1


@pytest.mark.shows("operations: the clock stepping")
async def test_a_step_of_the_database_clock_takes_no_meeting_away(cluster: Cluster) -> None:
    """Forward: all claims look old. What a server does not list at once is missed by one poll, which is not enough."""
    service = await cluster.start(1)
    assert await creates(service, "room")
    cluster.servers[0].forget("room")
    cluster.servers[0].create_meeting("other")
    await cluster.make_old()
    await cluster.poll()
    assert [row[0] for row in await cluster.meetings()] == ["room"]
    assert (await service.join("room")).location
