"""Reads what is watched of the cluster: meetings, queues, the poller's last round; writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from datetime import datetime

    from scalelite.store.db import Connection


@dataclass(frozen=True, slots=True)
class TenantCount:
    """What runs of a tenant; users as of the last good polls. The name is empty without multitenancy."""

    name: str
    meetings: int
    users: int


@dataclass(frozen=True, slots=True)
class PollRound:
    """How the poller's last round went."""

    ended_at: datetime
    duration_s: float
    polled: int
    failed: int
    suspect: bool


async def tenant_counts(connection: Connection) -> list[TenantCount]:
    """Count meetings and users by tenant."""
    async with connection.cursor(row_factory=class_row(TenantCount)) as cursor:
        await cursor.execute(
            """
            SELECT t.name, count(m.meeting_id) AS meetings, coalesce(sum(m.users), 0) AS users
              FROM tenant t LEFT JOIN meeting m ON m.tenant = t.id GROUP BY t.id ORDER BY t.name
            """
        )
        return await cursor.fetchall()


async def queues(connection: Connection) -> dict[str, int]:
    """Count what waits to be done, by what it is, and calls back that were given up."""
    cursor = await connection.execute(
        """
        SELECT 'callback waiting' AS queue, count(*) AS depth FROM callback WHERE state = 'waiting'
        UNION ALL SELECT 'callback given up', count(*) FROM callback WHERE state <> 'waiting'
        UNION ALL SELECT 'meeting creating', count(*) FROM meeting WHERE phase = 'creating'
        UNION ALL SELECT 'meeting ending', count(*) FROM meeting WHERE phase = 'ending'
        UNION ALL SELECT 'tombstone', count(*) FROM tombstone
        UNION ALL SELECT 'recording files', count(*) FROM recording WHERE pending IS NOT NULL
        """
    )
    return {row["queue"]: row["depth"] for row in await cursor.fetchall()}


async def last_round(connection: Connection) -> PollRound | None:
    """Return how the poller's last round went; None before the first."""
    async with connection.cursor(row_factory=class_row(PollRound)) as cursor:
        await cursor.execute("SELECT ended_at, duration_s, polled, failed, suspect FROM poll_round")
        return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class RunningMeeting:
    """A meeting as it is listed: users as of the last good poll; the tenant is empty without multitenancy.

    `silent`: its server did not answer its last poll, so nobody knows whether it still runs.
    """

    tenant: str
    meeting_id: str
    server: str
    generation: int
    phase: str
    users: int
    claimed_at: datetime
    silent: bool


async def running_meetings(connection: Connection) -> list[RunningMeeting]:
    """Return all meetings, by tenant and id."""
    async with connection.cursor(row_factory=class_row(RunningMeeting)) as cursor:
        await cursor.execute(
            """
            SELECT t.name AS tenant, m.meeting_id, m.server, m.generation, m.phase, m.users,
                   m.claimed_at AT TIME ZONE 'UTC' AS claimed_at,
                   coalesce(s.good_polls, 0) = 0 AS silent
              FROM meeting m JOIN tenant t ON t.id = m.tenant
              LEFT JOIN server_status s ON s.server = m.server
             ORDER BY t.name, m.meeting_id
            """
        )
        return await cursor.fetchall()


async def round_age_s(connection: Connection) -> float | None:
    """Return how long ago the poller's last round ended, by the database's clock; None before the first."""
    cursor = await connection.execute("SELECT extract(epoch FROM now() - ended_at)::float8 AS age FROM poll_round")
    row = await cursor.fetchone()
    return row["age"] if row else None


async def postgres(connection: Connection) -> tuple[int, float]:
    """Return the version of Postgres, as in 150004, and its clock in seconds since 1970."""
    cursor = await connection.execute(
        """
        SELECT current_setting('server_version_num')::int AS version,
               extract(epoch FROM clock_timestamp())::float8 AS now
        """
    )
    row = await cursor.fetchone() or {}
    return row["version"], row["now"]
