"""Takes over a live Scalelite: what is declared, running meetings, callbacks, recordings; changes nothing there.

Either all of it is written in one transaction, or nothing; a second run adds what has come since.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import psycopg

from scalelite.core import takeover
from scalelite.core.model import Kind
from scalelite.core.takeover import Kept, hooks_in, recording_of
from scalelite.edge.redis import open_redis
from scalelite.errors import ApplyFailed, DatabaseAway, RecordingInvalid, SourceAway, SourceInvalid, UsageError
from scalelite.flows import reconcile
from scalelite.flows.admin import read_live
from scalelite.flows.callbacks import HOOK_DAYS
from scalelite.store import db
from scalelite.store import takeover as rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from scalelite.core.model import Secret
    from scalelite.core.takeover import Brought
    from scalelite.edge.redis import Redis
    from scalelite.flows.acting import Acting
    from scalelite.flows.reconcile import Planned
    from scalelite.settings import Settings
    from scalelite.store.db import Connection

# While it runs, Scalelite may add and remove things between two reads.
_READS: Final = 3


@dataclass(frozen=True, slots=True)
class Scalelite:
    """Where a Scalelite keeps what it declares, and what of it stays behind, by address."""

    redis: Secret
    namespace: str = "scalelite"
    leave_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to take over, and the plan that declares it here; `recordings` is None where none is wanted."""

    brought: Brought
    request: reconcile.Request
    planned: Planned
    recordings: int | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a takeover wrote: counts of what is new here, and what was left behind."""

    revision: int
    meetings: int = 0
    callbacks: int = 0
    recordings: int = 0
    left: tuple[str, ...] = ()


# --- look ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def old_database(address: Secret) -> AsyncIterator[Connection]:
    """Open a Scalelite's Postgres as of one moment, read-only; raises UsageError, SourceAway."""
    conninfo = _without_rails(address.reveal())
    db.refuse_malformed(conninfo, "what was given")
    try:
        async with db.connect(conninfo, "scalelite migrate-from") as source, db.snapshot(source):
            await rows.check_tables(source)
            yield source
    except DatabaseAway as error:
        raise SourceAway(f"of what is to be taken over, {error.message}") from None


def _without_rails(url: str) -> str:
    """Return a DATABASE_URL without the parameters that Rails knows and Postgres does not."""
    head, mark, query = url.partition("?")
    known = [part for part in query.split("&") if part.startswith(("ssl", "host=", "port=", "user=", "password="))]
    return head + mark * bool(known) + "&".join(known)


async def look(connection: Connection, settings: Settings, scalelite: Scalelite, source: Connection | None) -> Found:
    """Read Scalelite's Redis, and plan what it comes to here; raises UsageError, SourceAway, SourceInvalid."""
    async with open_redis(scalelite.redis) as redis:
        kept = await _settled(redis, scalelite.namespace)
        if not kept.servers and not kept.tenants:
            raise UsageError(
                f"Redis {redis.name} holds neither servers nor tenants in the namespace '{scalelite.namespace}'",
                hint="see REDIS_URL and REDIS_NAMESPACE of Scalelite",
            )
    brought = takeover.brought(kept, scalelite.leave_out, settings.call_secrets, settings.voice_bridge_len)
    live = (await read_live(connection)).declared
    wanted, clashes = takeover.beside(live, brought.objects)
    if problems := (*brought.problems, *clashes):
        raise SourceInvalid(problems)
    request = reconcile.Request(wanted, "keep")
    planned = await reconcile.compare(connection, request)
    count = await rows.count_recordings(source) if source else None
    return Found(brought, request, planned, count)


async def _settled(redis: Redis, namespace: str) -> Kept:
    """Read until nothing is half there, or is so still: then something was left half removed."""
    for _ in range(_READS):
        kept = await _read(redis, namespace)
        if all(map(all, (kept.servers.values(), kept.tenants.values(), kept.meetings.values()))):
            break
    return kept


async def _read(redis: Redis, namespace: str) -> Kept:
    async def listed(which: str, one: str) -> dict[str, dict[str, str]]:
        ids = sorted(await redis.members(f"{namespace}:{which}"))
        found = await redis.hashes([f"{namespace}:{one}:{name}" for name in ids])
        return dict(zip(ids, found, strict=True))

    tenants = await listed("tenants", "tenant")
    return Kept(
        servers=await listed("servers", "server"),
        enabled=await redis.members(f"{namespace}:server_enabled"),
        tenants=tenants,
        settings={tenant: await listed(f"tenant_settings:{tenant}", "tenant_setting") for tenant in tenants},
        meetings=await listed("meetings", "meeting"),
    )


# --- take ------------------------------------------------------------------------------------------------------------


async def take(
    connection: Connection,
    found: Found,
    source: Connection | None,
    acting: Acting,
    *,
    dry_run: bool,
    tell: Callable[[int, int], None],
) -> Taken:
    """Write what was found in one transaction, which a dry run rolls back; raises what an apply raises.

    `tell` is told how many recordings are read, and how many of them just now.
    """
    try:
        async with connection.transaction(force_rollback=dry_run):
            applied = await reconcile.carry_out(connection, found.request, found.planned, acting)
            await rows.keep_setting_ids(connection, found.brought.setting_ids)
            meetings, barred = await rows.add_meetings(connection, found.brought.meetings)
            left = [f"meeting {meeting!r}: its id or voice bridge is another's here" for meeting in barred]
            taken = Taken(applied.revision, meetings, left=(*found.brought.left, *left))
            return await _take_rows(connection, found, source, taken, tell) if source else taken
    except psycopg.Error as error:
        raise ApplyFailed(f"rolled back, nothing was written: {db.first_line(error)}") from None


async def _take_rows(
    connection: Connection, found: Found, source: Connection, taken: Taken, tell: Callable[[int, int], None]
) -> Taken:
    """Take what is in Scalelite's Postgres."""
    tenants = {spec.id: spec for _, spec in found.request.wanted.of_kind(Kind.TENANT)}
    hooks, left = hooks_in(await rows.old_callbacks(source, HOOK_DAYS), found.brought, tenants)
    callbacks = await rows.add_hooks(connection, hooks)
    read = recordings = 0
    async for batch in rows.old_recordings(source):
        made = []
        for row in batch:
            try:
                made.append((recording_of(row, tenants.keys()), row))
            except RecordingInvalid as error:
                left.append(f"recording {row['record_id']!r}: {error.message}")
        recordings += await rows.add_recordings(connection, [one for one, _ in made], [row for _, row in made])
        read += len(batch)
        tell(read, len(batch))
    return replace(taken, callbacks=callbacks, recordings=recordings, left=(*taken.left, *left))
