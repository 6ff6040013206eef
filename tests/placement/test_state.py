"""Eight clients, an operator and a poller do what they like: after each step what must never be otherwise is asked."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from scalelite.core import commands
from scalelite.flows import admin
from scalelite.flows.acting import Acting
from scalelite.store import runtime
from scalelite.store.db import connect
from scalelite.store.specs import Author
from tests.web.conftest import Answer, Cluster, eventually

TENANTS: Final = ("tenant1", "tenant2")
ROOMS: Final = ("room-1", "room-2", "room-3")
SERVERS: Final = 3
OPERATOR: Final = Author("ops")

calls = st.tuples(
    st.sampled_from(("create", "join", "end", "getMeetings")), st.sampled_from(TENANTS), st.sampled_from(ROOMS)
)
places = st.integers(0, SERVERS - 1)
steps = st.one_of(
    st.lists(calls, min_size=8, max_size=8),
    st.tuples(st.just("poll")),
    st.tuples(st.sampled_from(("cordoned", "disabled", "enabled", "panic", "refuse", "accept", "forget")), places),
    st.tuples(st.just("multiplier"), places, st.sampled_from((0.5, 1.0, 3.0))),
    st.tuples(st.just("tenant"), st.booleans()),
)


class World:
    """A cluster with two instances of the service, and what may be done with it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def do(self, step: object) -> None:
        match step:
            case list():
                await asyncio.gather(*(self.call(number, *call) for number, call in enumerate(step)))
            case ("poll",):
                await self.cluster.poll()
            case ("multiplier", int() as place, float() as multiplier):
                self.cluster.server(place, load_multiplier=multiplier)
                await self.cluster.apply()
            case ("tenant", bool() as enabled):
                self.cluster.tenant("tenant2", enabled=enabled)
                await self.cluster.apply()
            case (str() as what, int() as place):
                await self.do_to(place, what)

    async def do_to(self, place: int, what: str) -> None:
        """Do something to a server, or hold it in a state."""
        server = self.cluster.servers[place]
        match what:
            case "panic":
                await admin.panic(await self.cluster.poller(), OPERATOR, server.name)
                assert server.name not in {row["server"] for row in await self.rows()}, "DR-5"
            case "refuse":
                server.refuse()
            case "accept":
                server.accept()
            case "forget":
                for room in list(server.meetings):
                    server.forget(room)
                await self.cluster.make_old()
            case _:
                await self.hold(place, what)

    def name(self, place: int) -> str:
        return self.cluster.servers[place].name

    async def hold(self, place: int, state: Any) -> None:
        connection, services = self.cluster.connection, await self.cluster.poller()
        acting = Acting(OPERATOR, services.new_id)
        await admin.change(connection, acting, commands.set_state(self.name(place), state))

    async def call(self, number: int, call: str, tenant: str, room: str) -> None:
        """Make a call as a front end does; whatever is wrong, it is told as BigBlueButton tells it."""
        service = self.cluster.services[number % 2]
        answer: Answer
        match call:
            case "create":
                answer = await service.create(room, tenant=tenant, moderatorPW="mp", attendeePW="ap")
            case "join":
                answer = await service.join(room, tenant=tenant, password="ap")
            case "end":
                answer = await service.about("end", room, tenant=tenant, password="mp")
            case _:
                answer = await service.call("getMeetings", tenant=tenant)
                ids = answer.meeting_ids if answer.succeeded else []
                assert len(ids) == len(set(ids)), f"{tenant} sees a meeting twice: {ids}"
                owners = set(answer.root.xpath("meetings/meeting/metadata/tenant-name/text()")) if ids else set()
                assert owners <= {tenant}
        assert answer.is_xml or answer.status == 302

    # --- what must never be otherwise --------------------------------------------------------------------------------

    async def check(self) -> None:
        rows = await self.rows()
        assert len({(row["tenant"], row["meeting_id"]) for row in rows}) == len(rows), "PO-17"
        assert len({(row["server"], row["meeting_id"]) for row in rows}) == len(rows), "one id, one tenant"
        assert len({row["voice_bridge"] for row in rows}) == len(rows), "DI-2"
        placed = {(row["server"], row["meeting_id"]) for row in rows}
        tombstones = await self.pairs("SELECT server, meeting_id FROM tombstone")
        assert not placed & tombstones, "no meeting is placed where one of its id waits to be ended"
        declared = await self.pairs("SELECT id, state FROM server")
        assert {state for _, state in declared} == {"enabled"}, "PO-6: neither holds nor polls write what is declared"
        bridges = {row["voice_bridge"] for row in rows}
        assert not bridges & {"", "99999"}, "DI-2"
        await self.cluster.connection.execute("SELECT sum_reserved()")
        cursor = await self.cluster.connection.execute("SELECT server, load FROM reserved WHERE load > 0")
        sums = {row["server"]: row["load"] for row in await cursor.fetchall()}
        reserved = await runtime.reserved_loads(self.cluster.connection)
        assert sums == {server: load for server, (load, _) in reserved.items()}, "LB-4"
        await eventually(self.no_claim_is_open, 5)

    async def no_claim_is_open(self) -> bool:
        """CR-3: while nobody calls, each claim was confirmed or taken back."""
        return not await self.pairs("SELECT tenant::text, meeting_id FROM meeting WHERE phase = 'creating'")

    async def rows(self) -> list[dict[str, object]]:
        cursor = await self.cluster.connection.execute(
            "SELECT tenant, meeting_id, server, phase, voice_bridge FROM meeting"
        )
        return await cursor.fetchall()

    async def pairs(self, query: str) -> set[tuple[str, str]]:
        cursor = await self.cluster.connection.execute(query)
        return {tuple(row.values()) for row in await cursor.fetchall()}

    async def settle(self) -> None:
        """Mend all, and poll until nothing moves: then each meeting runs where Postgres says, and there alone."""
        for place, server in enumerate(self.cluster.servers):
            server.heal()
            await self.hold(place, "enabled")
        await self.cluster.make_old()
        await self.cluster.poll(8)
        rows = await self.rows()
        placed = {(row["server"], row["meeting_id"]) for row in rows}
        for server in self.cluster.servers:
            unknown = set(server.meetings) - {room for home, room in placed if home == server.name}
            assert not unknown, f"{unknown} run on {server.name} and are forgotten"
            missing = {room for home, room in placed if home == server.name} - set(server.meetings)
            assert not missing, "what no server lists is forgotten"
        assert {row["phase"] for row in rows} <= {"running", "ending"}
        assert await self.pairs("SELECT server, meeting_id FROM tombstone") == set()


@pytest.mark.shows("PO-17", "PO-6", "PO-11", "DI-2", "MT-1", "PO-15", "issue E: stateful test")
@settings(
    max_examples=10,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(st.lists(steps, min_size=10, max_size=14))
def test_whatever_is_done_at_once_what_must_hold_holds(postgres: str, story: list[object]) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS story WITH (FORCE)")
        connection.execute("CREATE DATABASE story TEMPLATE template")
    asyncio.run(tell(make_conninfo(postgres, dbname="story"), story))


async def tell(conninfo: str, story: list[object]) -> None:
    async with connect(conninfo, "tests") as connection, AsyncExitStack() as stack:
        cluster = Cluster(conninfo, connection, stack)
        await cluster.start(SERVERS)
        await cluster.serve()
        world = World(cluster)
        for step in story:
            await world.do(step)
            await world.check()
        await world.settle()
