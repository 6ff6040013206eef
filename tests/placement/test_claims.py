"""The database function that claims meetings, under real concurrency: every claim has a connection of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from scalelite.core.balance import Load, reservation
from scalelite.core.model import SENTINEL_TENANT, Declared, Key, Kind, LoadWeights, Secret, ServerSpec, ServerStatus
from scalelite.core.params import voice_bridges
from scalelite.flows import reconcile
from scalelite.store import polls, runtime
from scalelite.store.db import Connection, Database
from scalelite.store.specs import Author

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

NEW_MEETING = reservation(Load(LoadWeights()))


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Database]:
    """Twenty connections, so that claims really meet."""
    opened = Database(database, name="tests", pool_size=20, timeout_s=30)
    await opened.open()
    yield opened
    await opened.close()


async def declare(connection: Connection, multipliers: Sequence[float], loads: Sequence[float] = ()) -> list[str]:
    """Make servers a0, a1, … that a poll found online, with a polled load each (before the multiplier)."""
    ids = [f"a{place}" for place in range(len(multipliers))]
    objects = {
        Key(Kind.SERVER, name): ServerSpec(
            id=name, url=f"https://{name}.example.com/api", secret=Secret("s"), load_multiplier=multiplier
        )
        for name, multiplier in zip(ids, multipliers, strict=True)
    }
    wanted = Declared(objects, frozenset({"servers"}))
    planned = await reconcile.plan(connection, wanted, "cordon")
    await reconcile.apply(connection, wanted, planned.plan, Author("tests"), uuid4, lock_timeout_s=5)
    mark = await polls.begin_poll(connection)
    loads = loads or [0.0] * len(ids)
    statuses = [ServerStatus(name, "online", load=load) for name, load in zip(ids, loads, strict=True)]
    await polls.write_statuses(connection, mark, statuses)
    return ids


def claim_of(meeting_id: str, servers: Sequence[str], tenant: UUID = SENTINEL_TENANT) -> runtime.Claim:
    return runtime.Claim(tenant, meeting_id, servers, NEW_MEETING, "pw", "secret", voice_bridges(meeting_id, 9))


async def claim_all(pool: Database, claims: Sequence[runtime.Claim]) -> list[tuple[bool, str]]:
    """Claim all at once; returns (claimed, server) of each."""

    async def one(claim: runtime.Claim) -> tuple[bool, str]:
        async with pool.use() as connection:
            found = await runtime.claim_meeting(connection, claim)
        assert found is not None
        return found[0], found[1].server

    return await asyncio.gather(*(one(claim) for claim in claims))


@pytest.mark.shows("CR-2", "PO-17", "data: placing")
async def test_of_many_claims_of_one_id_one_is_made_and_all_get_its_server(
    pool: Database, connection: Connection
) -> None:
    servers = await declare(connection, [1.0] * 4)
    outcomes = await claim_all(pool, [claim_of("room", servers)] * 200)
    assert sum(claimed for claimed, _ in outcomes) == 1
    assert len({server for _, server in outcomes}) == 1
    loads = await runtime.reserved_loads(connection)
    assert sum(load for load, _ in loads.values()) == NEW_MEETING


@pytest.mark.shows("LB-1", "bbb-api: create 4")
@pytest.mark.parametrize(("creates", "count"), [(20, 4), (100, 10), (500, 20)])
async def test_a_burst_spreads_evenly_over_idle_servers(
    pool: Database, connection: Connection, creates: int, count: int
) -> None:
    servers = await declare(connection, [1.0] * count)
    outcomes = await claim_all(pool, [claim_of(f"room-{n}", servers) for n in range(creates)])
    spread = Counter(server for _, server in outcomes)
    assert len(spread) == count
    assert all(abs(rooms - creates / count) <= 1 for rooms in spread.values()), spread


@pytest.mark.shows("LB-2")
async def test_a_server_that_is_ahead_does_not_draw_the_whole_burst(pool: Database, connection: Connection) -> None:
    servers = await declare(connection, [1.0] * 5, loads=[0, 30, 30, 30, 30])
    await claim_all(pool, [claim_of(f"room-{n}", servers) for n in range(100)])
    reserved = await runtime.reserved_loads(connection)
    projected = [reserved[name][0] + (0 if name == "a0" else 30) for name in servers]
    assert max(projected) - min(projected) <= NEW_MEETING


@pytest.mark.shows("bbb-api: create 3")
async def test_a_multiplier_of_two_gets_half_the_meetings(pool: Database, connection: Connection) -> None:
    servers = await declare(connection, [1.0, 2.0])
    spread = Counter(server for _, server in await claim_all(pool, [claim_of(f"room-{n}", servers) for n in range(30)]))
    assert 19 <= spread["a0"] <= 21


@pytest.mark.shows("LB-4", "data: load")
async def test_a_reservation_outlives_a_poll_that_did_not_list_its_meeting(connection: Connection) -> None:
    servers = await declare(connection, [1.0])
    await runtime.claim_meeting(connection, claim_of("early", servers))
    mark = await polls.begin_poll(connection)
    await runtime.claim_meeting(connection, claim_of("late", servers))
    await polls.write_statuses(connection, mark, [ServerStatus("a0", "online", meetings=1, load=NEW_MEETING)])
    await polls.count_meetings(connection, [("a0", "early", 0)])
    assert await runtime.reserved_loads(connection) == {"a0": (NEW_MEETING, 1)}


@pytest.mark.shows("bbb-api: create 6", "CR-3")
async def test_a_claim_is_taken_back_only_while_nobody_has_confirmed_it(connection: Connection) -> None:
    servers = await declare(connection, [1.0])
    for confirmed in (False, True):
        found = await runtime.claim_meeting(connection, claim_of(f"room-{confirmed}", servers))
        assert found is not None
        if confirmed:
            await runtime.confirm_meetings(connection, [found[1].generation])
        await runtime.release_claim(connection, found[1].generation)
        left = await runtime.find_meeting(connection, SENTINEL_TENANT, f"room-{confirmed}")
        assert (left is not None) == confirmed


@pytest.mark.shows("DI-2", "bbb-api: voice bridge")
async def test_a_voice_bridge_that_is_taken_gives_way_to_the_next_candidate(connection: Connection) -> None:
    servers = await declare(connection, [1.0, 1.0])
    first, second = voice_bridges("room", 9)[:2]
    await runtime.claim_meeting(connection, runtime.Claim(SENTINEL_TENANT, "x", servers, 1, "", "", [first]))
    found = await runtime.claim_meeting(connection, claim_of("room", servers))
    assert found is not None
    assert found[1].voice_bridge == second


@pytest.mark.shows("PO-13", "data: tombstone")
async def test_a_meeting_placed_anew_leaves_a_tombstone_that_bars_its_id(connection: Connection) -> None:
    servers = await declare(connection, [1.0, 1.0])
    _, old = await runtime.claim_meeting(connection, claim_of("room", servers)) or (False, None)
    assert old is not None
    placed = await runtime.place_anew(connection, claim_of("room", servers), old.generation)
    assert placed is not None
    assert placed[0]
    assert placed[1].server != old.server
    assert await runtime.tombstones_of(connection, servers) == {(old.server, "room")}
    again = await runtime.place_anew(connection, claim_of("room", [old.server]), placed[1].generation)
    assert again is None, "the other server is barred, so nothing was given up"
    assert await runtime.find_meeting(connection, SENTINEL_TENANT, "room") == placed[1]
