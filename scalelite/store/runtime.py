"""What is observed and what runs, in Postgres: statuses, holds, meetings and their claims; never declared state."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from psycopg.types.json import Jsonb

from scalelite.core.callbacks import END_PATHS
from scalelite.core.model import Meeting, Secret, ServerStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import LiteralString
    from uuid import UUID

    from scalelite.core.callbacks import Hook
    from scalelite.core.model import State
    from scalelite.core.plan import Hold
    from scalelite.store.db import Connection
    from scalelite.store.seal import Sealer


def as_meeting(row: Mapping[str, Any], sealer: Sealer) -> Meeting:
    """Return the meeting that a row is, its password opened."""
    identity = meeting_identity(row["tenant"], row["meeting_id"])
    return Meeting(**{**row, "moderator_pw": Secret(sealer.open(row["moderator_pw"], f"{identity}/moderator_pw"))})


def meeting_identity(tenant: UUID, meeting_id: str) -> str:
    """Return what a meeting's secrets are bound to."""
    return f"meeting/{tenant}/{meeting_id}"


# --- meetings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a tenant may have at the same time before new meetings are refused; 0: no bound."""

    max_meetings: int = 0
    max_users: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """Asks for a meeting on one of `servers`; `reservation` is load before the multiplier.

    `hooks` are kept with it. With `bounds`, those of the tenant and of the servers' meetings are minded.
    """

    tenant: UUID
    meeting_id: str
    servers: Sequence[str]
    reservation: float
    moderator_pw: str
    secret: str
    voice_bridges: Sequence[str]
    hooks: Sequence[Hook] = ()
    hook_token: str = ""
    bounds: Bounds | None = None


async def claim_meeting(connection: Connection, claim: Claim) -> tuple[bool, Meeting] | None:
    """Return the meeting and whether this call claimed it; None if no server was eligible. One statement."""
    if claim.bounds is None:
        return (await claim_meetings(connection, [claim]))[0]
    function = f"claim_within_bounds(%(max_meetings)s, %(max_users)s, {_CLAIM_ARGUMENTS})"
    return (await _claimed(connection, function, [claim], **asdict(claim.bounds)))[0]


async def claim_meetings(connection: Connection, claims: Sequence[Claim]) -> list[tuple[bool, Meeting] | None]:
    """Claim several meetings, without bounds, in one statement and so with one commit; all or none of them."""
    return await _claimed(connection, f"claim_meeting({_CLAIM_ARGUMENTS})", claims)


async def place_anew(connection: Connection, claim: Claim, generation: int) -> tuple[bool, Meeting] | None:
    """Give up the meeting of this generation, whose server it cannot stay on, and claim it anew, as claim_meeting does.

    None if no other server was eligible: then nothing was given up.
    """
    function = f"place_meeting_anew(%(generation)s, {_CLAIM_ARGUMENTS})"
    more = {"generation": generation, "end_hooks": list(END_PATHS)}
    return (await _claimed(connection, function, [claim], f", dropped AS ({DROP_END_HOOKS})", **more))[0]


# Function calls in LATERAL are one after the other, and each sees what the one before it has done.
_CLAIM: Final = """
WITH wanted AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(claims)s) AS w (
           place integer, tenant uuid, meeting_id text, servers text[], reservation double precision,
           moderator_pw text, secret text, voice_bridges text[], hook_names text[], hook_urls text[], hook_token text)
), m AS MATERIALIZED (
    SELECT w.place, c.claimed, (c.claim).tenant, (c.claim).meeting_id, (c.claim).server, (c.claim).generation,
           (c.claim).phase, (c.claim).moderator_pw, (c.claim).voice_bridge,
           w.secret AS hook_secret, w.hook_names, w.hook_urls, w.hook_token
      FROM wanted w CROSS JOIN LATERAL """
_CLAIM_ARGUMENTS: Final = "w.tenant, w.meeting_id, w.servers, w.reservation, w.moderator_pw, w.secret, w.voice_bridges"


# Both are parts of a statement that has made or found a meeting `m`.
# A repeated create adds and replaces, and the first token stays: the meeting's server knows that one.
KEEP_HOOKS: Final = """
INSERT INTO callback_hook (generation, name, tenant, meeting_id, server, url, secret, token)
SELECT m.generation, hook.name, m.tenant, m.meeting_id, m.server, hook.url, m.hook_secret, m.hook_token
  FROM m, unnest(m.hook_names, m.hook_urls) AS hook (name, url)
ON CONFLICT (generation, name) DO UPDATE SET url = EXCLUDED.url, secret = EXCLUDED.secret
RETURNING generation, token
"""
# The server that lost a meeting must not say that it has ended.
DROP_END_HOOKS: Final = """
DELETE FROM callback_hook h USING m
 WHERE m.claimed AND h.generation = %(generation)s AND h.name = ANY (%(end_hooks)s)
"""


async def _claimed(
    connection: Connection, function: LiteralString, claims: Sequence[Claim], also: LiteralString = "", **more: object
) -> list[tuple[bool, Meeting] | None]:
    column: LiteralString = ""
    if any(claim.hooks for claim in claims):
        also += f", kept AS ({KEEP_HOOKS})"
        column = ", (SELECT min(kept.token) FROM kept WHERE kept.generation = m.generation) AS hook_token"
    query: LiteralString = f"""{_CLAIM}{function} c){also}
        SELECT m.place, m.claimed, m.tenant, m.meeting_id, m.server, m.generation, m.phase, m.moderator_pw,
               m.voice_bridge{column} FROM m"""  # noqa: S608
    rows = [_claim_row(claim, place, connection.sealer) for place, claim in enumerate(claims)]
    cursor = await connection.execute(query, {"claims": Jsonb(rows), **more})
    found: list[tuple[bool, Meeting] | None] = [None] * len(claims)
    for row in await cursor.fetchall():
        place, claimed = row.pop("place"), row.pop("claimed")
        row["hook_token"] = row.get("hook_token") or ""
        found[place] = (claimed, replace(as_meeting(row, connection.sealer), hooks=tuple(claims[place].hooks)))
    return found


def _claim_row(claim: Claim, place: int, sealer: Sealer) -> dict[str, object]:
    identity = meeting_identity(claim.tenant, claim.meeting_id)
    return {
        "place": place,
        "tenant": str(claim.tenant),
        "meeting_id": claim.meeting_id,
        "servers": list(claim.servers),
        "reservation": claim.reservation,
        "moderator_pw": sealer.seal(claim.moderator_pw, f"{identity}/moderator_pw"),
        "secret": sealer.seal(claim.secret, f"{identity}/secret"),
        "voice_bridges": list(claim.voice_bridges),
        "hook_names": [hook.name for hook in claim.hooks],
        "hook_urls": [hook.url for hook in claim.hooks],
        "hook_token": claim.hook_token,
    }


async def usage(connection: Connection, tenant: UUID) -> tuple[int, int]:
    """Return how many meetings a tenant has, and how many users the last polls saw in them."""
    cursor = await connection.execute(
        "SELECT count(*) AS meetings, coalesce(sum(users), 0)::bigint AS users FROM meeting WHERE tenant = %s",
        (tenant,),
    )
    row = await cursor.fetchone()
    return (row["meetings"], row["users"]) if row else (0, 0)


async def find_meeting(connection: Connection, tenant: UUID, meeting_id: str) -> Meeting | None:
    """Return the tenant's meeting of this id, or None."""
    cursor = await connection.execute(
        """
        SELECT tenant, meeting_id, server, generation, phase, moderator_pw, voice_bridge
          FROM meeting WHERE tenant = %s AND meeting_id = %s
        """,
        (tenant, meeting_id),
    )
    row = await cursor.fetchone()
    return as_meeting(row, connection.sealer) if row else None


async def find_bridged(connection: Connection, tenant: UUID | None, bridges: Sequence[str]) -> Meeting | None:
    """Return the meeting with one of these voice bridges, the longest first; `tenant` None: of any tenant."""
    cursor = await connection.execute(
        """
        SELECT tenant, meeting_id, server, generation, phase, moderator_pw, voice_bridge
          FROM meeting WHERE voice_bridge = ANY (%s) AND (%s::uuid IS NULL OR tenant = %s)
         ORDER BY length(voice_bridge) DESC LIMIT 1
        """,
        (list(bridges), tenant, tenant),
    )
    row = await cursor.fetchone()
    return as_meeting(row, connection.sealer) if row else None


async def meetings_of(
    connection: Connection, tenant: UUID
) -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]:
    """Return (server, meeting id) of the tenant's meetings, and of those of all tenants that wait to be ended."""
    cursor = await connection.execute(
        """
        SELECT array_agg(server) AS servers, array_agg(meeting_id) AS ids FROM meeting WHERE tenant = %s
        UNION ALL SELECT array_agg(server), array_agg(meeting_id) FROM tombstone
        """,
        (tenant,),
    )
    placed, left = await cursor.fetchall()  # two arrays are read five times faster than many rows
    return _pairs(placed), _pairs(left)


def _pairs(row: Mapping[str, list[str]]) -> frozenset[tuple[str, str]]:
    return frozenset(zip(row["servers"] or (), row["ids"] or (), strict=True))


async def meetings_to_end(connection: Connection, servers: Sequence[str], tenants: Sequence[str]) -> list[Meeting]:
    """Return the meetings on these servers (ids) and of these tenants (names), by server."""
    cursor = await connection.execute(
        """
        SELECT m.tenant, m.meeting_id, m.server, m.generation, m.phase, m.moderator_pw, m.voice_bridge
          FROM meeting m JOIN tenant t ON t.id = m.tenant
         WHERE m.server = ANY (%s) OR t.name = ANY (%s)
         ORDER BY m.server, m.meeting_id
        """,
        (list(servers), list(tenants)),
    )
    return [as_meeting(row, connection.sealer) for row in await cursor.fetchall()]


async def meetings_on(connection: Connection, server: str) -> list[Meeting]:
    """Return the meetings on a server, of all tenants."""
    cursor = await connection.execute(
        """
        SELECT tenant, meeting_id, server, generation, phase, moderator_pw, voice_bridge
          FROM meeting WHERE server = %s ORDER BY meeting_id
        """,
        (server,),
    )
    return [as_meeting(row, connection.sealer) for row in await cursor.fetchall()]


async def renumber(connection: Connection, meeting: Meeting, bridges: Sequence[str]) -> str:
    """Give a meeting the first of these voice bridges that is free, unless another call has changed its number.

    Returns the number that it has now; '' if none was free, or the meeting is gone.
    """
    async with connection.transaction():
        await connection.execute(
            "SELECT pg_advisory_xact_lock(5341, 1)"
        )  # the one of the claims, which take numbers too
        await connection.execute(
            """
            UPDATE meeting SET voice_bridge = free.candidate
              FROM (SELECT candidate FROM unnest(%(bridges)s::text[]) WITH ORDINALITY AS bridges (candidate, place)
                     WHERE NOT EXISTS (SELECT FROM meeting m WHERE m.voice_bridge = candidate)
                     ORDER BY place LIMIT 1) free
             WHERE generation = %(generation)s AND voice_bridge = %(taken)s
            """,
            {"bridges": list(bridges), "generation": meeting.generation, "taken": meeting.voice_bridge},
        )
        cursor = await connection.execute(
            "SELECT voice_bridge FROM meeting WHERE generation = %s", (meeting.generation,)
        )
        number = str((await cursor.fetchone() or {}).get("voice_bridge", ""))
    return number if number != meeting.voice_bridge else ""


async def renew_meeting(connection: Connection, generation: int) -> int:
    """Give a meeting that its server has created anew another number, so that no end of the one before takes it away.

    Returns that number; 0 if the meeting is gone.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(5341, 1)")  # claims are numbered as they are committed
        cursor = await connection.execute(
            """
            WITH renewed AS (
                 UPDATE meeting SET generation = nextval('claim_sequence'), phase = 'running', missed = 0,
                        claimed_at = clock_timestamp()
                  WHERE generation = %(old)s RETURNING generation),
                 hooks AS (
                 UPDATE callback_hook h SET generation = renewed.generation FROM renewed
                  WHERE h.generation = %(old)s)
            SELECT generation, pg_notify('scalelite_meeting', %(old)s::text) FROM renewed
            """,
            {"old": generation},
        )
        row = await cursor.fetchone()
    return int(row["generation"]) if row else 0


async def keep_password(connection: Connection, meeting: Meeting) -> None:
    """Keep the moderator password that a meeting's server has."""
    identity = meeting_identity(meeting.tenant, meeting.meeting_id)
    sealed = connection.sealer.seal(meeting.moderator_pw.reveal(), f"{identity}/moderator_pw")
    await connection.execute("UPDATE meeting SET moderator_pw = %s WHERE generation = %s", (sealed, meeting.generation))


async def confirm_meetings(connection: Connection, generations: Sequence[int]) -> None:
    """Mark claims as kept: a server has created these meetings."""
    await connection.execute(
        "UPDATE meeting SET phase = 'running' WHERE generation = ANY (%s) AND phase = 'creating'", (list(generations),)
    )


async def release_claim(connection: Connection, generation: int) -> None:
    """Take a claim back, with its reservation and hooks; not if another call of the same id has confirmed it."""
    await connection.execute(
        """
        WITH gone AS (DELETE FROM meeting WHERE generation = %s AND phase = 'creating' RETURNING generation)
        DELETE FROM callback_hook h USING gone WHERE h.generation = gone.generation
        """,
        (generation,),
    )


async def adopt_claim(connection: Connection, generation: int, older_than_s: float) -> bool:
    """Make a claim this call's own that is older than any create takes; of many calls, one gets it."""
    cursor = await connection.execute(
        """
        UPDATE meeting SET claimed_at = clock_timestamp()
         WHERE generation = %s AND phase = 'creating' AND claimed_at < clock_timestamp() - make_interval(secs => %s)
        """,
        (generation, older_than_s),
    )
    return cursor.rowcount == 1


async def mark_ending(connection: Connection, generation: int) -> None:
    """Keep a meeting whose end was not confirmed, until a poll says that it is gone."""
    await connection.execute("UPDATE meeting SET phase = 'ending' WHERE generation = %s", (generation,))


async def forget_meetings(connection: Connection, generations: Sequence[int]) -> None:
    """Delete meetings that have ended."""
    await connection.execute("DELETE FROM meeting WHERE generation = ANY (%s)", (list(generations),))


# --- statuses and holds ----------------------------------------------------------------------------------------------


async def load_statuses(connection: Connection, seen: int = -1) -> tuple[int, list[ServerStatus]]:
    """Return the statuses that polls from sequence `seen` on wrote, and the highest sequence there is.

    From it on, not after it: what answers late in a round is written under the round's number too.
    """
    cursor = await connection.execute(
        """
        SELECT server, health, score, good_polls, meetings, users, largest_meeting, videos, load,
               bbb_version, polled_at, drained, counted_users, voice, sequence
          FROM server_status WHERE sequence >= %s
        """,
        (seen,),
    )
    rows = await cursor.fetchall()
    highest = max([seen, *(row.pop("sequence") for row in rows)])
    return highest, [ServerStatus(**row) for row in rows]


async def load_holds(connection: Connection) -> dict[str, State]:
    """Return the held state of each server that is held; one that has run out counts until the poller lifts it."""
    cursor = await connection.execute("SELECT server, state FROM hold")
    return {row["server"]: row["state"] for row in await cursor.fetchall()}


async def lift_holds(connection: Connection) -> None:
    """Let go of servers whose holds have run out."""
    cursor = await connection.execute("DELETE FROM hold WHERE until <= now() RETURNING server, state")
    lifted = await cursor.fetchall()
    await forget_health(connection, [row["server"] for row in lifted if row["state"] == "disabled"])
    if lifted:
        await connection.execute("SELECT pg_notify('scalelite_held', '')")


@dataclass(frozen=True, slots=True)
class Held:
    """A hold that counts now; its times are UTC."""

    state: State
    by: str
    why: str
    since: datetime
    until: datetime | None


async def load_holds_in_full(connection: Connection) -> dict[str, Held]:
    """Return the hold of each server that is held, with who set it and why."""
    cursor = await connection.execute(
        """
        SELECT server, state, by, why, since AT TIME ZONE 'UTC' AS since, until AT TIME ZONE 'UTC' AS until
          FROM hold WHERE until IS NULL OR until > now()
        """
    )
    return {row.pop("server"): Held(**row) for row in await cursor.fetchall()}


async def write_holds(connection: Connection, holds: Sequence[Hold], by: str) -> None:
    """Hold servers, or let them go; the workers are told."""
    for hold in holds:
        if hold.after:
            await connection.execute(
                """
                INSERT INTO hold (server, state, by, why, until) VALUES (%s, %s, %s, %s, %s)
                ON CONFLICT (server) DO UPDATE SET
                       state = EXCLUDED.state, by = EXCLUDED.by, why = EXCLUDED.why, until = EXCLUDED.until,
                       since = now()
                """,
                (hold.key.name, hold.after, by, hold.why, hold.until),
            )
        else:
            await connection.execute("DELETE FROM hold WHERE server = %s", (hold.key.name,))
    if holds:
        await connection.execute("SELECT pg_notify('scalelite_held', '')")


async def forget_health(connection: Connection, servers: Sequence[str], if_drained: Sequence[str] = ()) -> None:
    """Make these servers' health unknown until a poll; under the newest number, so that the workers read it.

    Of `if_drained`, that of those which counted as disabled since they were empty.
    """
    if servers or if_drained:
        await connection.execute(
            """
            UPDATE server_status SET health = 'unknown', score = 0, good_polls = 0, drained = false,
                   sequence = (SELECT max(sequence) FROM server_status)
             WHERE server = ANY (%s) OR (drained AND server = ANY (%s))
            """,
            (list(servers), list(if_drained)),
        )
        await connection.execute("SELECT pg_notify('scalelite_polled', '')")


async def reserved_loads(connection: Connection) -> dict[str, tuple[float, int]]:
    """Return per server the load (before the multiplier) and the number of meetings that no poll has counted yet."""
    cursor = await connection.execute(
        "SELECT server, sum(reservation) AS load, count(*) AS meetings FROM meeting WHERE NOT counted GROUP BY server"
    )
    return {row["server"]: (row["load"], row["meetings"]) for row in await cursor.fetchall()}


# --- tombstones ------------------------------------------------------------------------------------------------------


async def tombstones_of(connection: Connection, servers: Sequence[str]) -> frozenset[tuple[str, str]]:
    """Return (server, meeting id) of meetings that were placed anew while these servers were away."""
    cursor = await connection.execute(
        "SELECT server, meeting_id FROM tombstone WHERE server = ANY (%s)", (list(servers),)
    )
    return frozenset((row["server"], row["meeting_id"]) for row in await cursor.fetchall())


async def raise_tombstones(connection: Connection, meetings: Iterable[Meeting]) -> None:
    """Have these meetings ended when their server answers again; until then no meeting of their ids goes there."""
    pairs = [(meeting.server, meeting.meeting_id) for meeting in meetings]
    await connection.execute(
        """
        INSERT INTO tombstone (server, meeting_id) SELECT * FROM unnest(%s::text[], %s::text[])
            ON CONFLICT DO NOTHING
        """,
        ([server for server, _ in pairs], [meeting_id for _, meeting_id in pairs]),
    )


async def bury(connection: Connection, gone: Iterable[tuple[str, str]]) -> None:
    """Drop the tombstones of meetings that their servers no longer list."""
    pairs = list(gone)
    await connection.execute(
        """
        DELETE FROM tombstone t USING unnest(%s::text[], %s::text[]) AS gone (server, meeting_id)
         WHERE t.server = gone.server AND t.meeting_id = gone.meeting_id
        """,
        ([server for server, _ in pairs], [meeting_id for _, meeting_id in pairs]),
    )
