"""Hooks of meetings and the queue of callbacks, in Postgres; sends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from scalelite.store.runtime import KEEP_HOOKS, meeting_identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from scalelite.core.callbacks import Hook
    from scalelite.core.model import Meeting
    from scalelite.store.db import Connection


@dataclass(frozen=True, slots=True)
class KeptHook:
    """A hook of one meeting, and the secret, as it is stored, that its delivery is signed with."""

    tenant: UUID
    meeting_id: str
    generation: int
    name: str
    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Call:
    """A callback that is due; `attempts` counts this one."""

    id: int
    tenant: UUID
    meeting_id: str
    kind: str
    url: str
    secret: str
    body: bytes
    record_id: str
    attempts: int
    age_s: float


_HOOK: Final = "tenant, meeting_id, generation, name, url, secret"


# --- hooks -----------------------------------------------------------------------------------------------------------


async def keep_hooks(connection: Connection, meeting: Meeting, hooks: Sequence[Hook], secret: str, token: str) -> str:
    """Keep what a repeated create wants to be called for; returns the meeting's token."""
    cursor = await connection.execute(
        f"""
        WITH m AS (SELECT %(generation)s::bigint AS generation, %(tenant)s::uuid AS tenant,
                          %(meeting_id)s::text AS meeting_id, %(server)s::text AS server,
                          %(secret)s::text AS hook_secret, %(names)s::text[] AS hook_names,
                          %(urls)s::text[] AS hook_urls, %(token)s::text AS hook_token), kept AS ({KEEP_HOOKS})
        SELECT min(token) AS token FROM kept
        """,  # noqa: S608
        {
            "generation": meeting.generation,
            "tenant": meeting.tenant,
            "meeting_id": meeting.meeting_id,
            "server": meeting.server,
            "secret": connection.sealer.seal(secret, f"{meeting_identity(meeting.tenant, meeting.meeting_id)}/secret"),
            "names": [hook.name for hook in hooks],
            "urls": [hook.url for hook in hooks],
            "token": token,
        },
    )
    row = await cursor.fetchone()
    return str(row["token"]) if row else token


async def analytics_hook(
    connection: Connection, tenant: UUID, meeting_id: str, name: str, servers: Iterable[str]
) -> KeptHook | None:
    """Return the hook of the tenant's newest meeting of this id on one of these servers."""
    return await _hook(
        connection,
        f"SELECT {_HOOK} FROM callback_hook WHERE tenant = %s AND meeting_id = %s AND name = %s AND server = ANY (%s)"  # noqa: S608
        " ORDER BY generation DESC LIMIT 1",
        (tenant, meeting_id, name, list(servers)),
    )


async def recording_hooks(
    connection: Connection, tenant: UUID, meeting_id: str, names: Iterable[str]
) -> list[KeptHook]:
    """Return the hooks of the tenant's newest meeting of this id that has any of these names."""
    cursor = await connection.execute(
        f"""
        SELECT {_HOOK} FROM callback_hook h
         WHERE tenant = %(tenant)s AND meeting_id = %(meeting_id)s AND name = ANY (%(names)s)
           AND generation = (SELECT max(generation) FROM callback_hook
                              WHERE tenant = %(tenant)s AND meeting_id = %(meeting_id)s AND name = ANY (%(names)s))
         ORDER BY name
        """,  # noqa: S608
        {"tenant": tenant, "meeting_id": meeting_id, "names": list(names)},
    )
    return [KeptHook(**row) for row in await cursor.fetchall()]


async def take_end_hook(connection: Connection, name: str, token: str) -> KeptHook | None:
    """Take the hook that this token is of, so that it is called once."""
    return await _hook(
        connection,
        f"DELETE FROM callback_hook WHERE name = %s AND token = %s RETURNING {_HOOK}",  # noqa: S608
        (name, token),
    )


async def _hook(connection: Connection, query: Any, parameters: tuple[object, ...]) -> KeptHook | None:
    cursor = await connection.execute(query, parameters)
    row = await cursor.fetchone()
    return KeptHook(**row) if row else None


async def prune(connection: Connection, hook_days: int, callback_days: int) -> None:
    """Delete hooks and undelivered callbacks that nobody will ask for any more."""
    await connection.execute(
        "DELETE FROM callback_hook WHERE created_at < now() - make_interval(days => %s)", (hook_days,)
    )
    await connection.execute(
        "DELETE FROM callback WHERE state <> 'waiting' AND created_at < now() - make_interval(days => %s)",
        (callback_days,),
    )


# --- the queue -------------------------------------------------------------------------------------------------------


async def enqueue(
    connection: Connection, hook: KeptHook, kind: str, url: str, *, body: bytes = b"", record_id: str = ""
) -> None:
    """Have a client called; whoever delivers is told."""
    await connection.execute(
        """
        INSERT INTO callback (tenant, meeting_id, kind, url, secret, body, record_id)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        (hook.tenant, hook.meeting_id, kind, url, hook.secret, body, record_id),
    )


async def take_due(connection: Connection, most: int, lease_s: float) -> list[Call]:
    """Take callbacks that are due, new ones first; each is due again after the lease if its taker dies."""
    cursor = await connection.execute(
        """
        UPDATE callback SET attempts = attempts + 1, due_at = now() + make_interval(secs => %s)
         WHERE id IN (SELECT id FROM callback WHERE state = 'waiting' AND due_at <= now()
                       ORDER BY attempts, due_at LIMIT %s FOR UPDATE SKIP LOCKED)
        RETURNING id, tenant, meeting_id, kind, url, secret, body, record_id, attempts,
                  extract(epoch FROM now() - created_at)::float8 AS age_s
        """,
        (lease_s, most),
    )
    rows = await cursor.fetchall()
    for row in rows:
        identity = meeting_identity(row["tenant"], row["meeting_id"])
        row["secret"] = connection.sealer.open(row["secret"], f"{identity}/secret")
    return [Call(**row) for row in rows]


async def next_due_s(connection: Connection) -> float | None:
    """Return the seconds until the next callback is due, or None if none waits."""
    cursor = await connection.execute(
        "SELECT extract(epoch FROM min(due_at) - now())::float8 AS s FROM callback WHERE state = 'waiting'"
    )
    row = await cursor.fetchone()
    return row["s"] if row else None


async def delivered(connection: Connection, call: int) -> None:
    """Drop a callback that was taken."""
    await connection.execute("DELETE FROM callback WHERE id = %s", (call,))


async def repeat(connection: Connection, call: int, outcome: str, in_s: float) -> None:
    """Try a callback again after some seconds."""
    await connection.execute(
        "UPDATE callback SET outcome = %s, due_at = now() + make_interval(secs => %s) WHERE id = %s",
        (outcome, in_s, call),
    )


async def stop(connection: Connection, call: int, state: str, outcome: str) -> None:
    """Try a callback no more, and let it be seen."""
    await connection.execute(
        "UPDATE callback SET state = %s, outcome = %s, body = '' WHERE id = %s", (state, outcome, call)
    )
