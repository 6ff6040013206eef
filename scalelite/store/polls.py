"""What a poll writes: statuses, which meetings were listed or missed, servers that were emptied; decides nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scalelite.core.model import Phase, ServerStatus
    from scalelite.store.db import Connection


@dataclass(frozen=True, slots=True)
class PollMark:
    """When a poll began: its number, and the newest claim that was committed before it asked."""

    sequence: int
    newest_claim: int


async def begin_poll(connection: Connection) -> PollMark:
    """Take a number; claims are numbered in the order of their commits, since they are made under one lock."""
    cursor = await connection.execute(
        "SELECT nextval('poll_sequence') AS sequence, coalesce(max(generation), 0) AS newest_claim FROM meeting"
    )
    row = await cursor.fetchone()
    return PollMark(**row) if row else PollMark(0, 0)


async def write_statuses(connection: Connection, mark: PollMark, statuses: Iterable[ServerStatus]) -> None:
    """Write what a poll saw; what a later poll has written stays."""
    rows = [asdict(status) | {"polled_at": status.polled_at and status.polled_at.isoformat()} for status in statuses]
    await connection.execute(
        """
        INSERT INTO server_status (server, health, score, good_polls, meetings, users, largest_meeting, videos, load,
                                   bbb_version, polled_at, drained, counted_users, voice, sequence)
        SELECT n.server, n.health, n.score, n.good_polls, n.meetings, n.users, n.largest_meeting, n.videos, n.load,
               n.bbb_version, n.polled_at, n.drained, n.counted_users, n.voice, %s
          FROM jsonb_populate_recordset(NULL::server_status, %s) n JOIN server ON server.id = n.server
        ON CONFLICT (server) DO UPDATE SET
               health = EXCLUDED.health, score = EXCLUDED.score, good_polls = EXCLUDED.good_polls,
               meetings = EXCLUDED.meetings, users = EXCLUDED.users, largest_meeting = EXCLUDED.largest_meeting,
               videos = EXCLUDED.videos, load = EXCLUDED.load, bbb_version = EXCLUDED.bbb_version,
               polled_at = EXCLUDED.polled_at, drained = EXCLUDED.drained,
               counted_users = EXCLUDED.counted_users, voice = EXCLUDED.voice, sequence = EXCLUDED.sequence
         WHERE server_status.sequence < EXCLUDED.sequence
        """,
        (mark.sequence, Jsonb(rows)),
    )


async def count_meetings(connection: Connection, listed: Sequence[tuple[str, str, int]]) -> None:
    """Mark meetings (server, id, users) that a poll listed: their load is in the polled load from now on."""
    await connection.execute(
        """
        UPDATE meeting m SET counted = true, missed = 0, users = seen.users,
               phase = CASE m.phase WHEN 'creating' THEN 'running' ELSE m.phase END
          FROM unnest(%s::text[], %s::text[], %s::int[]) AS seen (server, meeting_id, users)
         WHERE m.server = seen.server AND m.meeting_id = seen.meeting_id
           AND (NOT m.counted OR m.missed > 0 OR m.phase = 'creating' OR m.users <> seen.users)
        """,
        tuple([row[place] for row in listed] for place in range(3)),
    )


@dataclass(frozen=True, slots=True)
class Missing:
    """A meeting that a good poll of its server did not list."""

    generation: int
    phase: Phase
    missed: int
    age_s: float


async def missing_meetings(
    connection: Connection, mark: PollMark, servers: Sequence[str], listed: Sequence[tuple[str, str]]
) -> list[Missing]:
    """Return the meetings of well-polled servers that were claimed before the poll and not listed by it."""
    cursor = await connection.execute(
        """
        SELECT m.generation, m.phase, m.missed, extract(epoch FROM now() - m.claimed_at)::float8 AS age_s
          FROM meeting m
          LEFT JOIN unnest(%s::text[], %s::text[]) AS seen (server, meeting_id)
            ON m.server = seen.server AND m.meeting_id = seen.meeting_id
         WHERE m.server = ANY (%s) AND m.generation <= %s AND seen.server IS NULL
        """,
        (
            [server for server, _ in listed],
            [meeting_id for _, meeting_id in listed],
            list(servers),
            mark.newest_claim,
        ),
    )
    return [Missing(**row) for row in await cursor.fetchall()]


async def count_missed(connection: Connection, generations: Sequence[int]) -> None:
    """Count one more poll that missed these meetings."""
    await connection.execute("UPDATE meeting SET missed = missed + 1 WHERE generation = ANY (%s)", (list(generations),))


async def write_round(connection: Connection, *, duration_s: float, polled: int, failed: int, suspect: bool) -> None:
    """Keep how the poller's last round went."""
    await connection.execute(
        """
        INSERT INTO poll_round (ended_at, duration_s, polled, failed, suspect) VALUES (now(), %s, %s, %s, %s)
        ON CONFLICT (only_row) DO UPDATE SET
               ended_at = EXCLUDED.ended_at, duration_s = EXCLUDED.duration_s, polled = EXCLUDED.polled,
               failed = EXCLUDED.failed, suspect = EXCLUDED.suspect
        """,
        (duration_s, polled, failed, suspect),
    )


async def write_unknown(connection: Connection, listed: Mapping[str, Sequence[str]]) -> None:
    """Note which of the meetings that servers listed no row tells of; they are shown, not adopted."""
    await connection.execute(
        """
        WITH seen AS (SELECT * FROM jsonb_to_recordset(%s) AS s (server text, meetings text[])),
             unknown AS (
             SELECT seen.server, coalesce(array_agg(id) FILTER (WHERE m.server IS NULL), '{}') AS ids
               FROM seen
               LEFT JOIN unnest(seen.meetings) AS id ON true
               LEFT JOIN meeting m ON m.server = seen.server AND m.meeting_id = id
              GROUP BY seen.server)
        UPDATE server_status st SET unknown_meetings = array_remove(unknown.ids, NULL)
          FROM unknown
         WHERE st.server = unknown.server AND st.unknown_meetings <> array_remove(unknown.ids, NULL)
        """,
        (Jsonb([{"server": server, "meetings": list(ids)} for server, ids in listed.items()]),),
    )


async def unknown_meetings(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Return by server the meetings that run there though no row tells of them, as last polled."""
    cursor = await connection.execute(
        "SELECT server, unknown_meetings FROM server_status WHERE unknown_meetings <> '{}'"
    )
    return {row["server"]: tuple(row["unknown_meetings"]) for row in await cursor.fetchall()}


async def drain(connection: Connection, servers: Sequence[str]) -> list[str]:
    """Let cordoned servers that are empty count as disabled, unless a meeting was claimed there; holds say so, too.

    Returns those that do.
    Under the lock of claims: later ones pass over them. Declared states are never written.
    """
    await connection.execute("SELECT pg_advisory_xact_lock(5341, 1)")
    cursor = await connection.execute(
        """
        UPDATE server_status st SET drained = true
          FROM server s LEFT JOIN hold h ON h.server = s.id
         WHERE s.id = st.server AND st.server = ANY (%s) AND 'cordoned' IN (s.state, h.state)
           AND NOT EXISTS (SELECT FROM meeting m WHERE m.server = st.server)
        RETURNING st.server
        """,
        (list(servers),),
    )
    drained = [row["server"] for row in await cursor.fetchall()]
    await connection.execute(
        "UPDATE hold SET state = 'disabled' WHERE state = 'cordoned' AND server = ANY (%s)", (drained,)
    )
    await connection.execute("SELECT pg_notify('scalelite_held', '') WHERE %s", (bool(drained),))
    return drained


async def tell_polled(connection: Connection, mark: PollMark) -> None:
    """Tell the workers that there are new statuses."""
    await connection.execute("SELECT pg_notify('scalelite_polled', %s)", (str(mark.sequence),))
