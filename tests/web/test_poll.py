"""Polls of simulated servers: what they write, whom they ask, and which poller may write."""

from __future__ import annotations

import asyncio
import resource
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from scalelite.core import commands
from scalelite.core.model import SENTINEL_TENANT, Key, Kind
from scalelite.errors import LeaseLost
from scalelite.flows import admin
from scalelite.flows.acting import Acting
from scalelite.flows.poll import Poll, poll_round
from scalelite.flows.poller import poll_forever
from scalelite.store import leases, runtime
from scalelite.store.specs import Author
from scalelite.wiring import allow_connections
from tests.web.conftest import Cluster, eventually, failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from scalelite.core.model import State
    from scalelite.sim import RunningServer

FULL = failed("serversFull", "All servers are full.")


async def hold(cluster: Cluster, server: RunningServer, state: State, **how: Any) -> None:
    """Hold a server as an operator does, and wait until the services know it."""
    acting = Acting(Author("ops"), uuid.uuid4)
    await admin.change(cluster.connection, acting, commands.set_state(server.name, state, **how))

    async def known() -> bool:
        states = [service.app.ctx.proxy.snapshot.server_state(server.name) for service in cluster.services]
        return all(known == state for known in states)

    await eventually(known, 3)


async def row_of(cluster: Cluster, meeting_id: str) -> dict[str, Any] | None:
    cursor = await cluster.connection.execute("SELECT * FROM meeting WHERE meeting_id = %s", (meeting_id,))
    return await cursor.fetchone()


def asked_for(server: RunningServer, call: str, count: int) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def probe() -> bool:
        return server.request_counts[call] >= count

    return probe


async def state_of(cluster: Cluster, server: RunningServer) -> tuple[str, str]:
    row = (await cluster.rows())[server.name]
    return row.state, row.health


# --- load ------------------------------------------------------------------------------------------------------------


@pytest.mark.shows("LB-6")
async def test_reloads_of_a_join_link_leave_the_load_as_it_is(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room")
    before = (await cluster.rows())["bbb1"].load
    for _ in range(50):
        await service.join("room")
    assert (await cluster.rows())["bbb1"].load == before == 15


@pytest.mark.shows("LB-7", "operations: load")
async def test_a_poll_counts_people_once_and_old_meetings_as_they_are(cluster: Cluster) -> None:
    await cluster.start(1)
    server = cluster.servers[0]
    server.create_meeting("old").created_ms -= 3_600_000
    server.add_users("old", 1, moderators=1)
    server.create_meeting("young")
    server.add_users("young", 3, moderators=2)
    await cluster.poll()
    row = (await cluster.rows())["bbb1"]
    assert (row.load, row.users, row.meetings) == (1 + 15, 4, 2)


@pytest.mark.shows("LB-9")
async def test_a_breakout_room_reserves_nothing_and_counts_its_users(cluster: Cluster) -> None:
    service = await cluster.start(1)
    assert (await service.create("group-1", isBreakout="true")).succeeded
    assert (await cluster.rows())["bbb1"].load == 0
    cluster.servers[0].add_users("group-1", 2)
    await cluster.poll()
    assert (await cluster.rows())["bbb1"].load == 2


@pytest.mark.shows("LB-11")
async def test_full_servers_take_no_meeting_and_the_caller_is_told_why(cluster: Cluster) -> None:
    service = await cluster.start(2)
    cluster.server(0, max_meetings=1)
    cluster.server(1, max_users=3)
    await cluster.apply()
    cluster.servers[1].create_meeting("other")
    cluster.servers[1].add_users("other", 3)
    await cluster.poll()
    assert (await service.create("room-a")).succeeded
    assert cluster.hosts_of("room-a") == [cluster.servers[0]]
    assert (await service.create("room-b")).failure == FULL
    await cluster.poll()
    assert (await service.create("room-b")).failure == FULL
    assert (await service.create("room-a")).succeeded


@pytest.mark.shows("LB-8", "PO-5")
async def test_a_load_is_explained_by_what_it_is_made_of(cluster: Cluster) -> None:
    from scalelite.flows.status import explain_loads
    from scalelite.settings import read_settings

    service = await cluster.start(1)
    cluster.server(0, load_multiplier=2.0)
    cluster.settings_of_all(load={"weights": {"user": 1, "voice": 0.5, "meeting": 3}, "min_user_count": 10})
    await cluster.apply()
    cluster.servers[0].create_meeting("old").created_ms -= 3_600_000
    cluster.servers[0].add_users("old", 4, voice=2)
    await cluster.poll()
    await service.create("new")
    found = await explain_loads(cluster.connection, read_settings({}))
    (row,) = found.servers
    assert (row.counted.meetings, row.counted.users, row.counted.voice) == (1, 4, 2)
    assert (row.polled, row.reserved_meetings, row.reserved, row.load) == (3 + 4 + 1, 1, 13, 2 * (8 + 13))
    assert (found.weights["voice"], found.min_user_count) == (0.5, 10)


# --- asking ----------------------------------------------------------------------------------------------------------


@pytest.mark.shows("PO-3", "PO-4", "PO-9", "PO-10", "operations: 50 of 100 servers that hang")
async def test_servers_that_hang_hold_up_no_other_and_lose_no_meeting(cluster: Cluster) -> None:
    """The others' statuses are written while those are still waited for."""
    service = await cluster.start(100, environment={"POLLER_WAIT_TIMEOUT": "5"})
    await asyncio.gather(*(service.create(f"room-{number}") for number in range(10)))
    hung, well = cluster.servers[:50], cluster.servers[50:]
    for server in hung:
        server.fail("hang")
    for server in well:
        server.create_meeting("seen")
    asked = cluster.asked("getMeetings")
    polling = asyncio.create_task(cluster.poll())

    async def written() -> bool:
        rows = await cluster.rows()
        return all(rows[server.name].meetings for server in well)

    await eventually(written, 30)
    assert not polling.done()
    outcome = await polling
    assert set(outcome.failed) == {server.name for server in hung}
    assert outcome.suspect
    assert {outcome.statuses[server.name].health for server in hung} == {"unhealthy"}
    assert {outcome.statuses[server.name].health for server in well} == {"online"}
    assert cluster.asked("getMeetings") - asked == 100
    assert cluster.asked("getMeetingInfo") == 0
    assert len(await cluster.meetings()) == 10


@pytest.mark.shows("PO-3", "operations: one getMeetings a server and round, all servers at once")
async def test_servers_that_hang_leave_their_slots_to_others(cluster: Cluster) -> None:
    hanging = {"POLLER_CONCURRENCY": "1", "CONNECT_TIMEOUT": "1", "RESPONSE_TIMEOUT": "2"}
    await cluster.start(4, environment=hanging)
    for server in cluster.servers[:2]:
        server.fail("hang")
    heard: list[bool] = []
    outcome = await poll_round(await cluster.poller(), lambda polled: heard.append(polled.meetings is not None))
    assert heard == [True] * 2 + [False] * 2
    assert set(outcome.failed) == {server.name for server in cluster.servers[:2]}


@pytest.mark.shows("PO-12")
async def test_a_round_survives_servers_that_come_and_go_meanwhile(cluster: Cluster) -> None:
    await cluster.start(3)
    coming, going, staying = cluster.servers
    del cluster.specs[Key(Kind.SERVER, coming.name)]
    await cluster.apply()
    for server in (going, staying):
        server.fail("slow", calls=["getMeetings"], seconds=0.5)
    polling = asyncio.create_task(poll_round(await cluster.poller()))
    await eventually(asked_for(going, "getMeetings", 2), 5)
    del cluster.specs[Key(Kind.SERVER, going.name)]
    cluster.server(0)
    await cluster.apply(wait=False)
    assert (await polling).failed == ()
    assert set(await cluster.rows()) == {coming.name, staying.name}
    await cluster.poll()
    assert {row.health for row in (await cluster.rows()).values()} == {"online"}


@pytest.mark.shows("PO-3", "operations: no leak of connections")
def test_as_many_connections_may_be_open_as_the_system_grants() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        allow_connections()
        granted = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert granted == 65_536 if before[1] == resource.RLIM_INFINITY else granted == min(before[1], 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.shows("PO-12", "PO-9")
@pytest.mark.parametrize("how", ["status", "garbage", "close", "checksum_error", "refuse"])
async def test_whatever_a_server_answers_is_a_failed_poll_and_removes_nothing(cluster: Cluster, how: Any) -> None:
    service = await cluster.start(3)
    await service.create("room")
    (server,) = cluster.hosts_of("room")
    server.fail(how)
    await cluster.make_old()
    await cluster.poll(3)
    assert (await cluster.rows())[server.name].health == "offline"
    assert [row[0] for row in await cluster.meetings()] == ["room"]


@pytest.mark.shows("PO-8")
async def test_an_unhealthy_server_serves_its_meetings_and_gets_no_new_ones(cluster: Cluster) -> None:
    service = await cluster.start(3)
    await service.create("room")
    (server,) = cluster.hosts_of("room")
    server.fail("status", calls=["getMeetings"], times=1)
    await cluster.poll()
    assert (await cluster.rows())[server.name].health == "unhealthy"
    assert (await service.join("room")).location.startswith(server.url)
    assert (await service.create("room")).succeeded
    for number in range(6):
        assert (await service.create(f"new-{number}")).succeeded
    assert len(server.meetings) == 1


@pytest.mark.shows("PO-10")
async def test_a_poller_that_suspects_itself_takes_nobody_offline_and_ends_nothing(cluster: Cluster) -> None:
    service = await cluster.start(4)
    await service.create("room")
    (home,) = cluster.hosts_of("room")
    home.refuse()
    await cluster.poll(2)
    assert (await service.create("room")).succeeded, "placed anew"
    home.accept()
    others = [server for server in cluster.servers if server is not home]
    for server in others[:2]:
        server.refuse()
    for _ in range(4):
        assert (await cluster.poll()).suspect
    assert {(await cluster.rows())[server.name].health for server in others[:2]} == {"unhealthy"}
    assert "room" in home.meetings
    for server in others[:2]:
        server.accept()
    await cluster.poll()
    assert "room" not in home.meetings


@pytest.mark.shows("operations: poll, and the version now and then")
async def test_a_poll_tells_the_version(cluster: Cluster) -> None:
    await cluster.start(1)
    assert (await cluster.rows())["bbb1"].bbb_version == "2.0"
    poll = Poll(await cluster.poller())
    asked = cluster.asked("index")
    await poll.round(await poll.begin())
    assert cluster.asked("index") == asked, "known, and not asked for each time"


# --- the fate of meetings --------------------------------------------------------------------------------------------


@pytest.mark.shows("PO-1", "PO-2")
async def test_a_meeting_goes_after_two_good_polls_that_missed_it(cluster: Cluster) -> None:
    service = await cluster.start(3)
    await service.create("room")
    (server,) = cluster.hosts_of("room")
    server.forget("room")
    await cluster.poll(3)
    assert len(await cluster.meetings()) == 1, "it is young"
    await cluster.connection.execute("UPDATE meeting SET missed = 0")
    await cluster.make_old()
    await cluster.poll()
    server.fail("status", calls=["getMeetings"], times=1)
    await cluster.poll()
    assert len(await cluster.meetings()) == 1, "one good poll missed it, and one failed"
    await cluster.poll()
    assert await cluster.meetings() == []


@pytest.mark.shows("PO-16")
async def test_a_meeting_that_runs_never_goes_by_age(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room")
    await cluster.connection.execute("UPDATE meeting SET claimed_at = claimed_at - interval '72 hours'")
    cluster.servers[0].meetings["room"].created_ms -= 72 * 3_600_000
    await cluster.poll()
    before = await row_of(cluster, "room")
    await cluster.poll(20)
    assert await row_of(cluster, "room") == before, "nothing adds up, so that it is no other after 10,000"


@pytest.mark.shows("operations: orphaned claims", "bbb-api: create 6")
async def test_a_claim_that_nobody_confirmed_goes_or_is_confirmed_as_its_server_says(cluster: Cluster) -> None:
    await cluster.start(1)
    for name in ("lost", "kept"):
        claim = runtime.Claim(SENTINEL_TENANT, name, ["bbb1"], 15, "", "", [str(len(name)), name])
        await runtime.claim_meeting(cluster.connection, claim)
    cluster.servers[0].create_meeting("kept")
    await cluster.poll(2)
    assert [row[0] for row in await cluster.meetings()] == ["kept", "lost"], "less than 30 s ago"
    await cluster.make_old()
    await cluster.poll()
    assert await cluster.meetings() == [("kept", "bbb1", "running")]
    assert await runtime.reserved_loads(cluster.connection) == {}


@pytest.mark.shows("operations: meetings that Postgres does not know")
async def test_meetings_that_postgres_does_not_know_are_shown_and_not_adopted(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("ours")
    cluster.servers[0].create_meeting("theirs")
    await cluster.poll()
    assert (await cluster.rows())["bbb1"].unknown_meetings == ("theirs",)
    assert [row[0] for row in await cluster.meetings()] == ["ours"]
    cluster.servers[0].forget("theirs")
    await cluster.poll()
    assert (await cluster.rows())["bbb1"].unknown_meetings == ()


# --- holds and states ------------------------------------------------------------------------------------------------


@pytest.mark.shows("operations: a cordoned server that a good poll found empty", "data: hold", "DR-2", "PO-6")
async def test_a_cordoned_server_is_polled_until_it_is_empty_and_then_disabled(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room")
    server = cluster.servers[0]
    await hold(cluster, server, "cordoned")
    server.add_users("room", 2)
    await cluster.poll()
    row = (await cluster.rows())[server.name]
    assert (row.state, row.meetings, row.users) == ("cordoned", 1, 2)
    server.fail("status", times=1)
    await cluster.poll()
    assert (await cluster.rows())[server.name].meetings == 1, "0 only where BigBlueButton said so"
    await service.about("end", "room", password=server.meetings["room"].moderator_password)
    await cluster.poll()
    assert (await state_of(cluster, server))[0] == "disabled"
    assert (await runtime.load_holds(cluster.connection)) == {server.name: "disabled"}
    asked = cluster.asked("getMeetings")
    await cluster.poll()
    assert cluster.asked("getMeetings") == asked, "disabled servers are not polled"
    await hold(cluster, server, "enabled")
    assert await state_of(cluster, server) == ("enabled", "unknown")
    assert not (await service.create("new")).succeeded
    await cluster.poll()
    assert (await service.create("new")).succeeded


@pytest.mark.shows("operations: a cordoned server that a good poll found empty", "PO-6")
async def test_a_declared_state_is_never_written_by_a_poll(cluster: Cluster) -> None:
    service = await cluster.start(1)
    cluster.server(0, state="cordoned")
    await cluster.apply()
    await cluster.poll()
    assert (await state_of(cluster, cluster.servers[0]))[0] == "disabled"
    cursor = await cluster.connection.execute("SELECT state FROM server")
    assert await cursor.fetchone() == {"state": "cordoned"}
    cluster.server(0, state="enabled")
    await cluster.apply()
    assert await state_of(cluster, cluster.servers[0]) == ("enabled", "unknown")
    await cluster.poll()
    assert (await service.create("room")).succeeded


@pytest.mark.shows("operations: a cordoned server that a good poll found empty")
async def test_a_server_with_a_claim_on_it_is_not_emptied_and_an_emptied_one_gets_no_claim(cluster: Cluster) -> None:
    await cluster.start(1)
    server = cluster.servers[0]
    claim = runtime.Claim(SENTINEL_TENANT, "room", [server.name], 15, "", "", ["1"])
    await hold(cluster, server, "cordoned")
    found = await runtime.claim_meeting(cluster.connection, claim)
    assert found, "by a service that had not heard of it"
    await cluster.poll()
    assert (await state_of(cluster, server))[0] == "cordoned"
    await runtime.release_claim(cluster.connection, found[1].generation)
    await cluster.poll()
    assert (await state_of(cluster, server))[0] == "disabled"
    assert await runtime.claim_meeting(cluster.connection, claim) is None


@pytest.mark.shows("data: hold")
async def test_a_hold_that_has_run_out_is_lifted_and_asks_for_a_good_poll(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await hold(cluster, cluster.servers[0], "disabled")
    await cluster.connection.execute("UPDATE hold SET until = now() - interval '1 s'")
    assert not (await service.create("room")).succeeded
    await cluster.poll()
    assert await state_of(cluster, cluster.servers[0]) == ("enabled", "online")
    assert (await service.create("room")).succeeded


# --- who polls -------------------------------------------------------------------------------------------------------


@pytest.mark.shows("data: lease", "HA-1")
async def test_a_lease_has_one_holder_and_who_lost_it_writes_nothing(cluster: Cluster) -> None:
    await cluster.start(1)
    connection, services = cluster.connection, await cluster.poller()
    old = await leases.take(connection, "poller", "a", 10)
    assert old
    assert await leases.take(connection, "poller", "b", 10) is None
    polling = Poll(services, old)
    found = await polling.begin()
    await connection.execute("UPDATE lease SET expires_at = clock_timestamp() - interval '1 s'")
    new = await leases.take(connection, "poller", "b", 10)
    assert new
    assert new.epoch == old.epoch + 1
    cluster.servers[0].create_meeting("room")
    with pytest.raises(LeaseLost):
        await polling.round(found)
    with pytest.raises(LeaseLost):
        await leases.renew(connection, old, 10)
    assert (await cluster.rows())["bbb1"].meetings == 0
    await leases.give_up(connection, old)
    assert await leases.take(connection, "poller", "a", 10) is None, "who lost it has nothing to give up"
    await leases.give_up(connection, new)
    assert await leases.take(connection, "poller", "a", 10)


@pytest.mark.shows("operations: the clock stepping")
async def test_a_lease_of_before_the_clock_was_set_back_is_taken_over(cluster: Cluster) -> None:
    await cluster.start(1)
    assert await leases.take(cluster.connection, "poller", "a", 10)
    await cluster.connection.execute("UPDATE lease SET expires_at = expires_at + interval '1 hour'")
    assert await leases.take(cluster.connection, "poller", "b", 10)


@pytest.mark.shows("operations: poll --once")
async def test_a_round_by_hand_is_done_whoever_leads(cluster: Cluster) -> None:
    await cluster.start(1)
    await leases.take(cluster.connection, "poller", "another", 10)
    cluster.servers[0].create_meeting("room")
    await cluster.poll()
    assert (await cluster.rows())["bbb1"].meetings == 1


@pytest.fixture
async def polling(cluster: Cluster) -> AsyncIterator[Cluster]:
    """A cluster of two servers with a poller at work, whose rounds are far apart, and slow where a server hangs."""
    await cluster.start(2, environment={"POLL_INTERVAL": "600", "POLLER_WAIT_TIMEOUT": "30"})
    task = asyncio.create_task(poll_forever(await cluster.poller()))

    async def began() -> bool:
        cursor = await cluster.connection.execute("SELECT count(*) AS count FROM lease")
        return await cursor.fetchone() == {"count": 1} and cluster.asked("getMeetings") >= 4

    await eventually(began, 10)
    yield cluster
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.shows("operations: an apply wakes it", "operations: enabling makes health unknown")
async def test_new_and_changed_servers_are_polled_at_once_even_while_another_hangs(polling: Cluster) -> None:
    cluster = polling
    hung, server = cluster.servers
    hung.fail("hang")
    cluster.server(0, tag="x")
    await cluster.apply()

    async def online() -> bool:
        return await state_of(cluster, server) == ("enabled", "online")

    times = []
    for _ in range(3):
        cluster.server(1, state="disabled")
        await cluster.apply()
        assert (await state_of(cluster, server))[0] == "disabled"
        cluster.server(1, state="enabled")
        await cluster.apply()
        began = asyncio.get_running_loop().time()
        await eventually(online, 10)
        times.append(asyncio.get_running_loop().time() - began)
    assert min(times) < 2


@pytest.mark.shows("operations: taken over within two intervals")
async def test_a_poller_that_is_stopped_gives_its_lease_up(cluster: Cluster) -> None:
    await cluster.start(1)

    async def held_since_epoch(epoch: int) -> bool:
        cursor = await cluster.connection.execute(
            "SELECT count(*) AS count FROM lease WHERE expires_at > clock_timestamp() AND epoch = %s", (epoch,)
        )
        return await cursor.fetchone() == {"count": 1}

    for epoch in (1, 2):
        poller = asyncio.create_task(poll_forever(await cluster.poller()))
        await eventually(partial(held_since_epoch, epoch), 5)
        poller.cancel()
        await asyncio.gather(poller, return_exceptions=True)
        assert not await held_since_epoch(epoch)
