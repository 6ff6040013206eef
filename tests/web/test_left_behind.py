"""Meetings that run where Postgres does not have them: created too late, or placed anew while their server was away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest

from scalelite.core.model import SENTINEL_TENANT, Meeting
from scalelite.edge.bbb import CALLS_PER_SERVER
from scalelite.flows import admin
from scalelite.store import runtime
from scalelite.store.specs import Author
from tests.web.conftest import QUICK, eventually, failed

if TYPE_CHECKING:
    from scalelite.sim import RunningServer
    from tests.web.conftest import Answer, Cluster

TAKEN = failed("idNotUnique", "A meeting already exists with that meeting ID.  Please use a different meeting ID.")


# --- created too late ------------------------------------------------------------------------------------------------


async def created_late(cluster: Cluster, tenant: str, **params: str) -> RunningServer:
    """Have a tenant's create of `room` fail on the only server, which creates it all the same."""
    service = await cluster.start(1, environment=QUICK)
    (server,) = cluster.servers
    server.fail("slow", calls=["create"], seconds=1.2)
    assert not (await service.create("room", tenant=tenant, **params)).succeeded
    server.heal()

    async def created() -> bool:
        return bool(server.meetings)

    await eventually(created, 10)
    assert await cluster.meetings() == []
    return server


@pytest.mark.shows("operations: late success of a create", "CR-3", "bbb-api: create 2")
@pytest.mark.parametrize("params", [{}, {"attendeePW": "ap"}, {"attendeePW": "ap", "moderatorPW": "mp"}])
async def test_the_next_create_takes_up_what_was_created_too_late(cluster: Cluster, params: dict[str, str]) -> None:
    server = await created_late(cluster, "tenant1", **params)
    (service,) = cluster.services
    first, second = await service.create("room", **params), await service.create("room", **params)
    assert (first.key, second.key) == ("duplicateWarning", "duplicateWarning")
    assert first.text("moderatorPW") == second.text("moderatorPW") == server.meetings["room"].moderator_password
    (kept,) = await runtime.meetings_on(cluster.connection, server.name)
    assert params.get("moderatorPW") or kept.moderator_pw.reveal() == server.meetings["room"].moderator_password


@pytest.mark.shows("MT-1", "CR-3")
async def test_what_another_tenant_created_too_late_is_not_taken_up(cluster: Cluster) -> None:
    await created_late(cluster, "tenant2")
    (service,) = cluster.services
    assert (await service.create("room")).failure == TAKEN
    assert await cluster.meetings() == []
    assert (await service.create("room", tenant="tenant2")).succeeded


# --- ends and creates at once ----------------------------------------------------------------------------------------


@pytest.mark.shows("CR-7", "PO-1")
async def test_an_end_that_overtakes_the_create_leaves_the_meeting_known(cluster: Cluster) -> None:
    service = await cluster.start(1)
    (server,) = cluster.servers
    server.fail("slow", calls=["create"], seconds=0.5)
    creating = asyncio.create_task(service.create("room", moderatorPW="mp"))

    async def asked() -> bool:
        return server.request_counts["create"] == 1

    await eventually(asked, 5)
    assert (await service.about("end", "room", password="mp")).key == "notFound"
    assert (await creating).succeeded
    assert (await service.join("room")).location
    assert (await service.about("end", "room", password="mp")).succeeded
    assert await cluster.meetings() == []


@pytest.mark.shows("CR-1", "PO-17")
async def test_a_repeat_that_an_end_overtakes_leaves_the_meeting_known(cluster: Cluster) -> None:
    service = await cluster.start(1)
    (server,) = cluster.servers
    await service.create("room", moderatorPW="mp")
    server.fail("slow", calls=["create"], seconds=0.5)
    repeating = asyncio.create_task(service.create("room", moderatorPW="mp"))

    async def asked() -> bool:
        return server.request_counts["create"] == 2

    await eventually(asked, 5)
    assert (await service.about("end", "room", password="mp")).succeeded
    assert ((await repeating).key, (await repeating).succeeded) == ("", True), "created, and no duplicate"
    assert (await service.join("room")).location
    assert [row[:2] for row in await cluster.meetings()] == [("room", server.name)]


@pytest.mark.shows("PO-17", "data: generation")
async def test_a_meeting_that_its_server_lost_and_made_anew_is_another(cluster: Cluster) -> None:
    """So that an end of the first that is under way does not take the second away."""
    service = await cluster.start(1)
    ended = "https://lms.example.com/ended"
    await service.create("room", meetingEndedURL=ended)

    async def generations() -> list[tuple[int, int]]:
        cursor = await cluster.connection.execute(
            "SELECT m.generation, h.generation AS hook FROM meeting m JOIN callback_hook h USING (meeting_id)"
        )
        return [(row["generation"], row["hook"]) for row in await cursor.fetchall()]

    ((first, _),) = await generations()
    cluster.servers[0].forget("room")
    assert (await service.create("room", meetingEndedURL=ended)).succeeded
    ((second, hook),) = await generations()
    assert second == hook > first
    assert (await service.create("room", meetingEndedURL=ended)).key == "duplicateWarning"
    assert await generations() == [(second, second)]


# --- placed anew -----------------------------------------------------------------------------------------------------


async def moved(cluster: Cluster) -> tuple[RunningServer, RunningServer]:
    """Have a meeting of `room` placed anew while its server is away, and let that return; the old and the new home."""
    service = await cluster.start(3)
    await service.create("room", moderatorPW="mp")
    (old,) = cluster.hosts_of("room")
    old.refuse()
    await cluster.poll(2)
    assert (await service.create("room", moderatorPW="mp")).succeeded
    old.accept()
    return old, next(server for server in cluster.hosts_of("room") if server is not old)


@pytest.mark.shows("PO-11")
async def test_a_meeting_that_moved_and_ended_is_not_shown_where_it_was(cluster: Cluster) -> None:
    """While its end is under way, its last server may still list it, and the one before, too."""
    old, new = await moved(cluster)
    (service,) = cluster.services
    old.fail("status", calls=["end"])
    await cluster.poll(2)
    assert (await service.call("getMeetings")).meeting_ids == ["room"]
    kept = new.meetings["room"]
    assert (await service.about("end", "room")).succeeded
    assert (await service.call("getMeetings")).meeting_ids == []
    new.rooms.by_id["room"] = kept
    assert (await service.call("getMeetings")).meeting_ids == ["room"]
    await cluster.connection.execute("DELETE FROM tombstone")
    assert (await service.call("getMeetings")).meeting_ids == ["room"], "not twice, whatever servers say"


@pytest.mark.shows("PO-11", "operations: its meetings are ended when it comes back")
async def test_what_is_left_behind_is_ended_with_its_password(cluster: Cluster) -> None:
    old, _ = await moved(cluster)
    await cluster.poll(2)
    (end,) = [request for request in old.requests if request.call == "end"]
    assert end.params["password"] == "mp"
    assert old.meetings == {}


@pytest.mark.shows("PO-11", "PO-12", "DR-4")
async def test_more_meetings_than_calls_that_may_wait_are_ended(cluster: Cluster) -> None:
    """By the poll, and by a panic."""
    await cluster.start(2)
    left, panicked = cluster.servers
    count = CALLS_PER_SERVER + 20
    for server in cluster.servers:
        for number in range(count):
            server.create_meeting(f"room-{number}")
    meetings = [Meeting(SENTINEL_TENANT, f"room-{number}", left.name, number) for number in range(count)]
    await runtime.raise_tombstones(cluster.connection, meetings)
    await cluster.poll()
    assert left.meetings == {}
    await cluster.connection.execute(
        """
        INSERT INTO meeting (tenant, meeting_id, server, phase, generation, voice_bridge, reservation)
        SELECT t.id, 'room-' || n, %s, 'running', nextval('claim_sequence'), n, 15
          FROM tenant t, generate_series(0, %s) n WHERE t.name = 'tenant1'
        """,
        (panicked.name, count - 1),
    )
    outcome = await admin.panic(await cluster.poller(), Author("ops"), panicked.name)
    assert not outcome.partial
    assert len(outcome.meetings) == count
    assert panicked.meetings == {}


# --- too many wait ---------------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: getMeetings", "CR-10", "operations: overload")
async def test_get_meetings_leaves_out_a_server_for_which_too_many_wait(cluster: Cluster) -> None:
    service = await cluster.start(2, environment={**QUICK, "CONNECT_TIMEOUT": "4", "RESPONSE_TIMEOUT": "4"})
    for room in ("one", "two"):
        await service.create(room)
    hung, well = (cluster.hosts_of(room)[0] for room in ("one", "two"))
    for server in (hung, well):
        server.fail("hang", calls=["isMeetingRunning"])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        many = replace(service, session=session)

        async def fill(room: str) -> list[asyncio.Task[Answer]]:
            """Call until one is refused."""
            calls = (many.about("isMeetingRunning", room) for _ in range(CALLS_PER_SERVER + 1))
            waiting = [asyncio.create_task(call) for call in calls]
            (refused, *_), _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert refused.result().status == 503
            return waiting

        waiting = await fill("one")
        assert (await service.call("getMeetings")).meeting_ids == ["two"]
        waiting += await fill("two")
        full = await service.call("getMeetings")
        assert (full.status, full.text("returncode")) == (503, "FAILED"), "none of them could be asked"
        await asyncio.gather(*waiting)
