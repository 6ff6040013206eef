"""Replicas as real processes on one database: one meeting for many creates, one acting poller, nothing lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest
from psycopg.conninfo import make_conninfo

from tests.e2e.replicas import Replica, declare, replica, running
from tests.e2e.test_processes import free_port
from tests.web.conftest import API, DOMAIN, Cluster, Service, eventually, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")
    Probe = Callable[[], Coroutine[Any, Any, T]]

SECRET = "tenant1-secret"
INTERVAL_S = 4
ROOM = {"meetingID": "room", "name": "Room"}


async def start(cluster: Cluster, stack: AsyncExitStack, ports: Sequence[int]) -> list[Replica]:
    """Run replicas, all starting at once."""
    starting = (stack.enter_async_context(replica(cluster, port=port)) for port in ports)
    return list(await asyncio.gather(*starting))


@pytest.mark.shows("CR-2", "LB-1", "HA-1", "PO-17", "operations: replicas")
async def test_three_replicas_are_one_service_and_one_of_them_may_be_killed(cluster: Cluster) -> None:
    await declare(cluster, 4, POLL_INTERVAL=str(INTERVAL_S))
    async with AsyncExitStack() as stack:
        replicas = await start(cluster, stack, [0, 0, 0])
        services = [each.service for each in replicas]

        answers = await asyncio.gather(*(services[n % 3].create("room") for n in range(50)))
        assert all(answer.succeeded for answer in answers)
        assert len(cluster.hosts_of("room")) == 1
        for service in services:
            assert (await service.join("room")).location.startswith(cluster.hosts_of("room")[0].url)
        await a_meeting_is_known_to_all_at_once(services)
        await a_burst_through_all_spreads(cluster, services)
        assert min([await time_of_an_apply(cluster, services, enabled) for enabled in (False, True, False)]) < 1

        holder = await leader(cluster)
        (victim,) = [each for each in replicas if holder in await each.below()]
        left = [each for each in replicas if each is not victim]
        outcomes: list[int] = []
        stop = asyncio.Event()
        joining = [asyncio.create_task(joins(left, victim, outcomes, stop)) for _ in range(4)]
        await asyncio.sleep(0.3)
        killed = await database_time(cluster)
        victim.signal(signal.SIGKILL)
        await eventually(lambda: taken_over(cluster, holder), 30)
        cursor = await cluster.connection.execute("SELECT extract(epoch FROM expires_at)::float8 AS at FROM lease")
        taken = (await cursor.fetchone() or {})["at"] - INTERVAL_S
        assert taken - killed < 2 * INTERVAL_S
        stop.set()
        await asyncio.gather(*joining)
        assert len(outcomes) > 20
        assert set(outcomes) == {302}


async def a_meeting_is_known_to_all_at_once(services: Sequence[Service]) -> None:
    """Also to those that have just said that there is none."""
    for number, creator in enumerate(services):
        room = f"new-{number}"
        for service in services:
            assert (await service.about("getMeetingInfo", room)).key == "notFound"
        assert (await creator.create(room)).succeeded
        found = await asyncio.gather(*(service.join(room) for service in services))
        assert all(answer.location for answer in found)


async def a_burst_through_all_spreads(cluster: Cluster, services: Sequence[Service]) -> None:
    before = [len(server.meetings) for server in cluster.servers]
    answers = await asyncio.gather(*(services[n % 3].create(f"burst-{n}") for n in range(60)))
    assert all(answer.succeeded for answer in answers)
    rooms = [len(server.meetings) for server in cluster.servers]
    assert max(rooms) - min(rooms) <= 2, f"a poll in between may have counted, or not: {before} {rooms}"


async def time_of_an_apply(cluster: Cluster, services: Sequence[Service], enabled: bool) -> float:
    """Return how many seconds after its commit all know of it; the best of several is not the machine's own delay."""
    cluster.tenant("tenant2", enabled=enabled)
    await cluster.apply()
    applied = time.monotonic()

    async def all_know() -> bool:
        answers = await asyncio.gather(*(service.call("getMeetings", tenant="tenant2") for service in services))
        return all((answer.key == "checksumError") != enabled for answer in answers)

    await eventually(all_know, 10)
    return time.monotonic() - applied


async def database_time(cluster: Cluster) -> float:
    """Return the time by the clock that leases go by; where processes wait for a machine, it does not count that."""
    cursor = await cluster.connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
    return float((await cursor.fetchone() or {})["now"])


async def joins(left: Sequence[Replica], victim: Replica, outcomes: list[int], stop: asyncio.Event) -> None:
    """Join at the one that is killed, and where that fails at another, as a proxy does."""
    query = signed("join", {"meetingID": "room", "fullName": "Ada"}, SECRET)
    while not stop.is_set():
        for each in (victim, *left):
            with suppress(aiohttp.ClientError):
                answer = await each.service.send(f"{API}/join?{query}", host=f"tenant1.{DOMAIN}")
                outcomes.append(answer.status)
                break
        else:
            outcomes.append(0)
        await asyncio.sleep(0.02)


async def leader(cluster: Cluster) -> int:
    """The process id of the poller that acts."""

    async def known() -> bool:
        cursor = await cluster.connection.execute("SELECT holder FROM lease WHERE expires_at > clock_timestamp()")
        return await cursor.fetchone() is not None

    await eventually(known, 15)
    cursor = await cluster.connection.execute("SELECT holder FROM lease")
    return int((await cursor.fetchone() or {})["holder"].split("/")[1])


async def taken_over(cluster: Cluster, old: int) -> bool:
    return await leader(cluster) != old


@pytest.mark.shows("data: lease", "HA-1", "operations: of all pollers one acts")
async def test_a_poller_that_was_stopped_and_wakes_writes_nothing(cluster: Cluster) -> None:
    """Each poller's connections carry its name, and a trigger notes whose writes come in."""
    await declare(cluster, 2)
    await cluster.connection.execute(
        """
        CREATE TABLE written (poller text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO written (poller) VALUES (current_setting('tests.poller', true));
            RETURN NULL;
        END $$;
        CREATE TRIGGER note AFTER INSERT OR UPDATE ON server_status FOR EACH STATEMENT EXECUTE FUNCTION note();
        """
    )

    async def writers() -> set[str]:
        cursor = await cluster.connection.execute("SELECT DISTINCT poller FROM written")
        return {row["poller"] for row in await cursor.fetchall()}

    def poll(name: str) -> Any:
        conninfo = make_conninfo(cluster.conninfo, options=f"-c tests.poller={name}")
        return running(cluster, "poll", "--interval", str(INTERVAL_S), conninfo=conninfo)

    async with poll("first") as first:
        await eventually(has(writers, {"first"}), 20)
        async with poll("second"):
            await asyncio.sleep(2)
            assert await writers() == {"first"}
            stopped = await database_time(cluster)
            os.killpg(first.pid, signal.SIGSTOP)
            await eventually(has(writers, {"first", "second"}), 30)
            cursor = await cluster.connection.execute(
                "SELECT extract(epoch FROM min(at))::float8 AS at FROM written WHERE poller = 'second'"
            )
            assert (await cursor.fetchone() or {})["at"] - stopped < 2 * INTERVAL_S
            await asyncio.sleep(1)
            await cluster.connection.execute("TRUNCATE written")
            os.killpg(first.pid, signal.SIGCONT)
            await asyncio.sleep(4)
            assert first.poll() is None
            assert await writers() == {"second"}


def has(
    found: Callable[[], Coroutine[Any, Any, set[str]]], wanted: set[str]
) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def probe() -> bool:
        return await found() == wanted

    return probe


@pytest.mark.shows("operations: SIGTERM, a rolling restart loses no call")
async def test_a_rolling_restart_under_load_loses_no_call(cluster: Cluster) -> None:
    """Two replicas on ports of their own; callers try the other where a connection is refused, as a proxy does.

    One call takes nearly all of the 9 s in which calls end.
    """
    await declare(cluster, 2)
    for server in cluster.servers:
        server.fail("slow", calls=["create"], seconds=1)
        server.fail("slow", calls=["isMeetingRunning"], seconds=8)
    ports = [free_port(), free_port()]
    outcomes: list[str] = []
    stop = asyncio.Event()

    async def calls(number: int, session: aiohttp.ClientSession) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            params = {"meetingID": f"room-{number}-{count}", "name": "Room"}
            outcomes.append(await once(session, ports, f"{API}/create?{signed('create', params, SECRET)}"))

    async with AsyncExitStack() as stack:
        replicas = await start(cluster, stack, ports)
        session = replicas[0].service.session
        assert await once(session, ports, f"{API}/create?{signed('create', ROOM, SECRET)}") == "SUCCESS"
        longest = asyncio.create_task(
            once(session, ports, f"{API}/isMeetingRunning?{signed('isMeetingRunning', ROOM, SECRET)}")
        )
        callers = [asyncio.create_task(calls(number, session)) for number in range(6)]
        for old, port in zip(replicas, ports, strict=True):
            await asyncio.sleep(0.7)
            os.kill(old.process.pid, signal.SIGTERM)
            assert await asyncio.to_thread(old.process.wait, 15) == 0
            await stack.enter_async_context(replica(cluster, port=port))
        stop.set()
        await asyncio.gather(*callers)
        assert await longest == "SUCCESS"
    assert len(outcomes) > 20
    assert set(outcomes) == {"SUCCESS"}


async def once(session: aiohttp.ClientSession, ports: Sequence[int], target: str) -> str:
    """Make a call at one of the ports; the next is tried only where a connection is refused."""
    for port in ports:
        url = f"http://127.0.0.1:{port}{target}"
        try:
            async with session.get(url, headers={"Host": f"tenant1.{DOMAIN}"}) as answer:
                text = await answer.text()
                return "SUCCESS" if "<returncode>SUCCESS" in text else text
        except aiohttp.ClientConnectorError:
            continue
        except aiohttp.ClientError as error:
            return type(error).__name__
    return "nobody there"
