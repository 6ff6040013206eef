"""Recordings in Postgres: found by what callers may see, changed by what people want of them; knows no file.

`tenant` None means every tenant's: that is who asks where there is no multitenancy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString

from psycopg.rows import class_row

from scalelite.core.recording import PlaybackFormat, Recording, Thumbnail
from scalelite.errors import RecordingNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from scalelite.core.listing import Edit, Filter
    from scalelite.store.db import Connection

# What is being deleted or unpublished is as good as that; what is being published is not yet.
_STATE: Final = "CASE WHEN r.pending IN ('deleted', 'unpublished') THEN r.pending ELSE r.state END"
_PUBLISHED: Final = "r.published AND coalesce(r.pending, 'published') = 'published'"
_COLUMNS: Final = (
    f"r.record_id, r.tenant, r.meeting_id, r.name, {_STATE} AS state, {_PUBLISHED} AS published,"
    " r.protected, r.start_ms, r.end_ms, r.participants"
)
# Of a metadata value, this many characters are in the index (migration 0009).
_INDEXED: Final = 200
_DETAILS: Final = """
SELECT p.*, (SELECT count(*) FROM matching) AS total,
       (SELECT jsonb_agg(jsonb_build_array(m.key, m.value) ORDER BY m.place)
          FROM recording_metadata m WHERE m.recording = p.id AND m.value IS NOT NULL) AS metadata,
       (SELECT jsonb_agg(jsonb_build_array(f.format, f.url, f.length, f.processing_ms, f.generation,
               (SELECT jsonb_agg(jsonb_build_array(t.url, t.width, t.height, t.alt) ORDER BY t.place)
                  FROM thumbnail t WHERE t.recording = f.recording AND t.format = f.format)) ORDER BY f.format)
          FROM playback_format f WHERE f.recording = p.id) AS formats
  FROM page p ORDER BY p.start_ms DESC, p.record_id
"""
_CONDITIONS: Final[dict[str, LiteralString]] = {
    "tenant": "r.tenant = %(tenant)s",
    # Nearly none is pending, and the planner knows that of a column, but not of a CASE.
    "states": (
        f"(r.pending IS NULL AND r.state = ANY (%(states)s) OR r.pending IS NOT NULL AND {_STATE} = ANY (%(states)s))"
    ),
    "meeting_ids": "r.meeting_id = ANY (%(meeting_ids)s)",
    # An array, so that it is made once, from the index.
    "prefixes": (
        "r.id = ANY (ARRAY(SELECT found.id FROM unnest(%(prefixes)s::text[]) AS prefix JOIN recording found"
        ' ON found.record_id >= prefix COLLATE "C" AND found.record_id < (prefix || \'~\') COLLATE "C"))'
    ),
}


async def find_recordings(connection: Connection, tenant: UUID | None, wanted: Filter) -> tuple[list[Recording], int]:
    """Return the recordings that match, newest first, and how many there are on all pages (0 unless paged)."""
    arguments, where = _arguments(tenant, wanted)
    # The conditions are texts of this module; what callers say goes in as arguments.
    cursor = await connection.execute(
        f"""
        WITH matching AS MATERIALIZED (SELECT r.id, r.start_ms, r.record_id FROM recording r {where}),
        page AS MATERIALIZED (
            SELECT r.id, {_COLUMNS} FROM (
                SELECT id FROM matching ORDER BY start_ms DESC, record_id LIMIT %(limit)s OFFSET %(offset)s
            ) chosen JOIN recording r USING (id)
        )
        {_DETAILS}
        """,  # noqa: S608
        arguments,
    )
    rows = await cursor.fetchall()
    if not wanted.page:
        return [_recording(row) for row in rows], 0
    total = rows[0]["total"] if rows else await _count(connection, arguments, where)
    return [_recording(row) for row in rows], total


async def _count(connection: Connection, arguments: dict[str, Any], where: LiteralString) -> int:
    """Count what matches, where a page is beyond the last one."""
    cursor = await connection.execute(f"SELECT count(*) AS total FROM recording r {where}", arguments)  # noqa: S608
    return int((await cursor.fetchone() or {})["total"])


def _arguments(tenant: UUID | None, wanted: Filter) -> tuple[dict[str, Any], LiteralString]:
    """Return the arguments of a filter, and its conditions."""
    arguments: dict[str, Any] = {
        "tenant": tenant,
        "states": None if wanted.states is None else list(wanted.states),
        "meeting_ids": None if wanted.meeting_ids is None else list(wanted.meeting_ids),
        "prefixes": None if wanted.prefixes is None else list(wanted.prefixes),
        "offset": wanted.page.offset if wanted.page else 0,
        "limit": wanted.page.limit if wanted.page else None,
    }
    conditions = [text for name, text in _CONDITIONS.items() if arguments[name] is not None]
    for place, (key, values) in enumerate(wanted.metadata):
        starts = [value[:_INDEXED] for value in values]
        arguments |= {f"key{place}": key, f"values{place}": list(values), f"starts{place}": starts}
        conditions.append(
            "EXISTS (SELECT FROM recording_metadata m WHERE m.recording = r.id"
            f" AND m.key = %(key{place})s AND m.value = ANY (%(values{place})s)"
            f" AND left(m.value, {_INDEXED}) = ANY (%(starts{place})s))"
        )
    return arguments, "WHERE " + " AND ".join(conditions) if conditions else ""


def _recording(row: dict[str, Any]) -> Recording:
    del row["id"], row["total"]
    row["metadata"] = dict(row["metadata"] or ())
    row["formats"] = tuple(
        PlaybackFormat(name, url, length, processing_ms, generation, tuple(Thumbnail(*image) for image in images or ()))
        for name, url, length, processing_ms, generation, images in row["formats"] or ()
    )
    return Recording(**row)


# --- edits -----------------------------------------------------------------------------------------------------------


async def claim(
    connection: Connection, tenant: UUID | None, record_ids: Sequence[str], states: Sequence[str], pending: str
) -> None:
    """Note what is going to be done to the files of all these; raises RecordingNotFound if one is not the caller's."""
    async with connection.transaction():
        cursor = await connection.execute(
            """
            UPDATE recording r SET pending = %(pending)s
             WHERE r.record_id = ANY (%(ids)s) AND r.state = ANY (%(states)s)
               AND (%(pending)s = 'deleted' OR r.pending IS DISTINCT FROM 'deleted')
               AND (%(tenant)s::uuid IS NULL OR r.tenant = %(tenant)s)
            """,
            {"pending": pending, "ids": list(record_ids), "states": list(states), "tenant": tenant},
        )
        if cursor.rowcount != len(record_ids):
            raise RecordingNotFound


async def edit(connection: Connection, tenant: UUID | None, record_ids: Sequence[str], wanted: Edit) -> None:
    """Set metadata and protection of all these recordings; raises RecordingNotFound if one is not the caller's."""
    async with connection.transaction():
        cursor = await connection.execute(
            """
            UPDATE recording r SET protected = coalesce(%(protect)s, r.protected)
             WHERE r.record_id = ANY (%(ids)s) AND (%(tenant)s::uuid IS NULL OR r.tenant = %(tenant)s)
            RETURNING r.id
            """,
            {"protect": wanted.protect, "ids": list(record_ids), "tenant": tenant},
        )
        rows = [row["id"] for row in await cursor.fetchall()]
        if len(rows) != len(record_ids):
            raise RecordingNotFound
        await connection.execute(
            """
            INSERT INTO recording_metadata AS m (recording, key, value, edited)
            SELECT recording, key, nullif(value, ''), true
              FROM unnest(%(rows)s::bigint[]) AS recording,
                   unnest(%(keys)s::text[], %(values)s::text[]) WITH ORDINALITY AS wanted (key, value, place)
             ORDER BY recording, place
            ON CONFLICT (recording, key) DO UPDATE SET value = excluded.value, edited = true
            """,
            {"rows": rows, "keys": list(wanted.metadata), "values": list(wanted.metadata.values())},
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """A recording whose files are being dealt with: moved to those that are published or not, or deleted."""

    record_id: str
    pending: str
    formats: list[str]


_PENDING: Final = """
SELECT r.record_id, r.pending,
       ARRAY(SELECT f.format FROM playback_format f WHERE f.recording = r.id ORDER BY f.format) AS formats
  FROM recording r
"""


async def all_pending(connection: Connection) -> list[Pending]:
    """Return what is to be finished: what is being done now, and what a crash left."""
    async with connection.cursor(row_factory=class_row(Pending)) as cursor:
        await cursor.execute(f"{_PENDING} WHERE r.pending IS NOT NULL ORDER BY r.record_id")
        return await cursor.fetchall()


async def change_files(connection: Connection, record_id: str, format_name: str) -> str:
    """Lock a recording to the end of the transaction, in which files of a format change; returns their generation.

    Raises RecordingNotFound if the format is not there, or not for long.
    """
    cursor = await connection.execute(
        """
        UPDATE recording r SET edition = edition + 1 FROM playback_format f
         WHERE r.record_id = %s AND f.recording = r.id AND f.format = %s
           AND r.state <> 'deleted' AND r.pending IS DISTINCT FROM 'deleted'
        RETURNING f.generation
        """,
        (record_id, format_name),
    )
    if not (row := await cursor.fetchone()):
        raise RecordingNotFound
    return str(row["generation"])


async def lock_pending(connection: Connection, record_id: str, *, wait: bool) -> Pending | None:
    """Lock a recording to the end of the transaction, if something is still to be done to its files.

    Without `wait`, one that is locked is passed over.
    """
    how = "FOR UPDATE" if wait else "FOR UPDATE SKIP LOCKED"
    async with connection.cursor(row_factory=class_row(Pending)) as cursor:
        await cursor.execute(f"{_PENDING} WHERE r.record_id = %s AND r.pending IS NOT NULL {how}", (record_id,))
        return await cursor.fetchone()


async def finish_publishing(connection: Connection, record_id: str) -> None:
    """Say that the files are where `pending` wanted them."""
    await connection.execute(
        """
        UPDATE recording SET published = pending = 'published', state = pending, publish_edited = true, pending = NULL
         WHERE record_id = %s AND pending IN ('published', 'unpublished')
        """,
        (record_id,),
    )


async def give_up_pending(connection: Connection, record_id: str) -> None:
    """Leave a recording as it was."""
    await connection.execute("UPDATE recording SET pending = NULL WHERE record_id = %s", (record_id,))


async def finish_deleting(connection: Connection, record_id: str) -> None:
    """Mark a recording whose files are gone; what is left is its row."""
    await connection.execute(
        """
        WITH gone AS (
            UPDATE recording SET state = 'deleted', deleted_at = now(), pending = NULL, edition = edition + 1
             WHERE record_id = %s AND pending = 'deleted' RETURNING id
        ), formats AS (
            DELETE FROM playback_format USING gone WHERE recording = gone.id
        ), tokens AS (
            DELETE FROM playback_token USING gone WHERE recording = gone.id
        )
        DELETE FROM recording_metadata USING gone WHERE recording = gone.id
        """,
        (record_id,),
    )


# --- what operators do -----------------------------------------------------------------------------------------------


async def assign(
    connection: Connection, target: tuple[UUID, str], wanted: Filter, *, owner: UUID, dry_run: bool
) -> list[str]:
    """Give the recordings of `owner` that match to the tenant (id, name); returns their ids. One statement."""
    arguments, conditions = _arguments(owner, wanted)
    change = """
        , moved AS (
            UPDATE recording SET tenant = %(target)s FROM chosen WHERE recording.id = chosen.id RETURNING recording.id
        ), named AS (
            INSERT INTO recording_metadata (recording, key, value, edited)
            SELECT moved.id, new.key, new.value, true
              FROM moved, (VALUES ('tenant-id', %(target)s::text), ('tenant-name', %(name)s)) AS new (key, value)
            ON CONFLICT (recording, key) DO UPDATE SET value = excluded.value, edited = true
        )
    """
    cursor = await connection.execute(
        f"WITH chosen AS (SELECT r.id, r.record_id FROM recording r {conditions} FOR UPDATE)"  # noqa: S608
        f" {'' if dry_run else change} SELECT record_id FROM chosen ORDER BY record_id",
        {**arguments, "target": target[0], "name": target[1]},
    )
    return [row["record_id"] for row in await cursor.fetchall()]


async def tenants_by_id(connection: Connection) -> dict[UUID, str]:
    """Return the names of the tenants; the one of those that nobody owns is ''."""
    cursor = await connection.execute("SELECT id, name FROM tenant")
    return {row["id"]: row["name"] for row in await cursor.fetchall()}


async def expired(connection: Connection, now_ms: int) -> list[tuple[str, str]]:
    """Return (tenant's name, record id) of the recordings that their tenants keep no longer, oldest first.

    One that does not say when it ended is kept.
    """
    cursor = await connection.execute(
        """
        SELECT t.name, r.record_id FROM recording r JOIN tenant t ON t.id = r.tenant
         WHERE (t.recordings ->> 'keep_days')::bigint > 0
           AND r.end_ms > 0
           AND r.end_ms < %(now_ms)s - (t.recordings ->> 'keep_days')::bigint * 86400000
           AND r.state <> 'deleted'
         ORDER BY r.end_ms, r.record_id
        """,
        {"now_ms": now_ms},
    )
    return [(row["name"], row["record_id"]) for row in await cursor.fetchall()]
