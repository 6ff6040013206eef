"""Claims that share a commit, and the sums of reservations that make a claim cheap."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from scalelite.core.callbacks import Hook
from scalelite.core.model import SENTINEL_TENANT
from scalelite.flows.claims import Claims
from scalelite.store import polls, runtime
from scalelite.store.db import Connection, Database
from tests.placement.test_claims import NEW_MEETING, claim_of, declare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Database]:
    opened = Database(database, name="tests", pool_size=4, timeout_s=30)
    await opened.open()
    yield opened
    await opened.close()


async def sums(connection: Connection) -> dict[str, float]:
    """What the next claim would go by."""
    await connection.execute("SELECT sum_reserved()")
    cursor = await connection.execute("SELECT server, load FROM reserved WHERE load > 0")
    return {row["server"]: row["load"] for row in await cursor.fetchall()}


async def truth(connection: Connection) -> dict[str, float]:
    return {server: load for server, (load, _) in (await runtime.reserved_loads(connection)).items()}


@pytest.mark.shows("data: load", "LB-4")
async def test_the_sums_are_those_of_the_uncounted_meetings_whatever_happened_to_them(connection: Connection) -> None:
    servers = await declare(connection, [1.0, 1.0, 2.0])
    made = [
        claimed
        for claimed in await runtime.claim_meetings(connection, [claim_of(f"room-{n}", servers) for n in range(20)])
        if claimed
    ]
    assert await sums(connection) == await truth(connection) != {}
    on = {meeting.meeting_id: meeting for _, meeting in made}
    await runtime.release_claim(connection, on["room-0"].generation)
    await polls.count_meetings(connection, [(on["room-1"].server, "room-1", 3), (on["room-2"].server, "room-2", 0)])
    assert await sums(connection) == await truth(connection)
    await runtime.confirm_meetings(connection, [on["room-3"].generation])
    await runtime.place_anew(connection, claim_of("room-3", servers), on["room-3"].generation)
    await runtime.forget_meetings(connection, [on["room-4"].generation, on["room-1"].generation])
    await runtime.claim_meeting(connection, claim_of("late", servers))
    assert await sums(connection) == await truth(connection)
    assert sum((await truth(connection)).values()) == 17 * NEW_MEETING


@pytest.mark.shows("data: load")
async def test_a_claim_that_is_rolled_back_reserves_nothing(connection: Connection) -> None:
    servers = await declare(connection, [1.0])
    async with connection.transaction(force_rollback=True):
        await runtime.claim_meeting(connection, claim_of("room", servers))
    assert await sums(connection) == {}


@pytest.mark.shows("CR-2", "LB-1", "data: placing")
async def test_claims_of_one_commit_spread_and_one_id_is_claimed_once(pool: Database, connection: Connection) -> None:
    servers = await declare(connection, [1.0] * 4)
    claims = Claims(pool)
    wanted = [claim_of(f"room-{n % 20}", servers) for n in range(200)]
    found = [claimed for claimed in await asyncio.gather(*map(claims.claim, wanted)) if claimed]
    assert len(found) == 200
    assert sum(is_new for is_new, _ in found) == 20
    assert {load for load, _ in (await runtime.reserved_loads(connection)).values()} == {5 * NEW_MEETING}


@pytest.mark.shows("data: placing")
async def test_a_claim_that_cannot_be_kept_fails_alone(pool: Database, connection: Connection) -> None:
    servers = await declare(connection, [1.0])
    hooked = [Hook("meetingEndedURL", "https://a.example.com/\0")]
    bad = runtime.Claim(SENTINEL_TENANT, "bad", servers, 1, "pw", "s", ["1"], hooks=hooked, hook_token="t")
    claims = Claims(pool)
    wanted = [claim_of("one", servers), bad, claim_of("two", servers)]
    one, failure, two = await asyncio.gather(*map(claims.claim, wanted), return_exceptions=True)
    assert isinstance(failure, psycopg.Error)
    assert all(isinstance(found, tuple) and found[0] for found in (one, two))


@pytest.mark.shows("CR-5", "data: load")
async def test_a_claim_that_nobody_waits_for_any_more_is_given_back(pool: Database, connection: Connection) -> None:
    servers = await declare(connection, [1.0])
    claims = Claims(pool)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(5341, 1)")
        waiting = [asyncio.create_task(claims.claim(claim_of(name, servers))) for name in ("left", "kept")]
        await asyncio.sleep(0.2)
        waiting[0].cancel()
    claimed = await waiting[1]
    assert claimed is not None
    for _ in range(500):
        if await runtime.find_meeting(connection, SENTINEL_TENANT, "left") is None:
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the claim was kept")
    assert await runtime.find_meeting(connection, SENTINEL_TENANT, "kept")
