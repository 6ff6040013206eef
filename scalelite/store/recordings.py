"""Recordings in Postgres: found by what callers may see, written by imports and edits; knows no file.

`tenant` None means every tenant's: that is who asks where there is no multitenancy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple

from psycopg.rows import class_row

from scalelite.core.model import SENTINEL_TENANT
from scalelite.core.recording import PlaybackFormat, Recording, Thumbnail
from scalelite.errors import RecordingBusy, RecordingNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
_WRITTEN: Final = (
    "record_id", "tenant", "meeting_id", "name", "state", "published", "protected", "start_ms", "end_ms",
    "participants",
)  # fmt: skip
_DETAILS: Final = """
SELECT p.*, (SELECT count(*) FROM matching) AS total,
       (SELECT jsonb_agg(jsonb_build_array(m.key, m.value) ORDER BY m.place)
          FROM recording_metadata m WHERE m.recording = p.id AND m.value IS NOT NULL) AS metadata,
       (SELECT jsonb_agg(jsonb_build_array(f.format, f.url, f.length, f.processing_ms,
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
        PlaybackFormat(name, url, length, processing_ms, tuple(Thumbnail(*image) for image in images or ()))
        for name, url, length, processing_ms, images in row["formats"] or ()
    )
    return Recording(**row)


# --- imports ---------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A recording's row, locked to the end of the transaction."""

    id: int
    tenant: UUID
    published: bool


async def put_recording(connection: Connection, recording: Recording) -> Row:
    """Add a recording, or renew the one there is, and lock it; raises RecordingBusy while it is being deleted.

    What people decided stays: published, protected, whose it is. One that was deleted comes back.
    """
    cursor = await connection.execute(
        """
        INSERT INTO recording AS r
               (record_id, tenant, meeting_id, name, state, published, protected, start_ms, end_ms, participants)
        VALUES (%(record_id)s, coalesce((SELECT id FROM tenant WHERE id = %(tenant)s), %(nobody)s), %(meeting_id)s,
                %(name)s, %(state)s, %(published)s, %(protected)s, %(start_ms)s, %(end_ms)s, %(participants)s)
        ON CONFLICT (record_id) DO UPDATE SET
            tenant = CASE WHEN r.tenant = %(nobody)s THEN excluded.tenant ELSE r.tenant END,
            meeting_id = excluded.meeting_id,
            name = excluded.name,
            state = CASE WHEN NOT r.publish_edited THEN excluded.state
                         WHEN r.published THEN 'published' ELSE 'unpublished' END,
            published = CASE WHEN r.publish_edited THEN r.published ELSE excluded.published END,
            start_ms = excluded.start_ms,
            end_ms = excluded.end_ms,
            participants = coalesce(excluded.participants, r.participants),
            deleted_at = NULL
        RETURNING r.id, r.tenant, r.published, r.pending
        """,
        {
            **{name: getattr(recording, name) for name in _WRITTEN},
            "nobody": SENTINEL_TENANT,
        },
    )
    row = await cursor.fetchone() or {}
    if row["pending"] == "deleted":
        raise RecordingBusy(recording.record_id)
    return Row(row["id"], row["tenant"], row["published"])


async def put_details(connection: Connection, row: int, recording: Recording) -> None:
    """Write metadata that no person has edited, and the formats, of a recording that is locked."""
    await connection.execute(
        """
        INSERT INTO recording_metadata AS m (recording, key, value)
        SELECT %(row)s, key, value
          FROM unnest(%(keys)s::text[], %(values)s::text[]) WITH ORDINALITY AS new (key, value, place) ORDER BY place
        ON CONFLICT (recording, key) DO UPDATE SET value = excluded.value WHERE NOT m.edited
        """,
        {"row": row, "keys": list(recording.metadata), "values": list(recording.metadata.values())},
    )
    formats = recording.formats
    await connection.execute(
        """
        INSERT INTO playback_format (recording, format, url, length, processing_ms)
        SELECT %(row)s, new.* FROM unnest(%(formats)s::text[], %(urls)s::text[], %(lengths)s::bigint[],
                                          %(processing)s::bigint[]) AS new
        ON CONFLICT (recording, format) DO UPDATE
           SET url = excluded.url, length = excluded.length, processing_ms = excluded.processing_ms
        """,
        {
            "row": row,
            "formats": [each.format for each in formats],
            "urls": [each.url for each in formats],
            "lengths": [each.length for each in formats],
            "processing": [each.processing_ms for each in formats],
        },
    )
    await _put_thumbnails(connection, row, formats)


async def _put_thumbnails(connection: Connection, row: int, formats: Sequence[PlaybackFormat]) -> None:
    images = [(each.format, place, image) for each in formats for place, image in enumerate(each.thumbnails)]
    await connection.execute(
        "DELETE FROM thumbnail WHERE recording = %s AND format = ANY (%s)", (row, [each.format for each in formats])
    )
    await connection.execute(
        """
        INSERT INTO thumbnail (recording, format, place, url, width, height, alt)
        SELECT %(row)s, new.* FROM unnest(%(formats)s::text[], %(places)s::integer[], %(urls)s::text[],
                                          %(widths)s::bigint[], %(heights)s::bigint[], %(alts)s::text[]) AS new
        """,
        {
            "row": row,
            "formats": [format_name for format_name, _, _ in images],
            "places": [place for _, place, _ in images],
            "urls": [image.url for _, _, image in images],
            "widths": [image.width for _, _, image in images],
            "heights": [image.height for _, _, image in images],
            "alts": [image.alt for _, _, image in images],
        },
    )


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


async def lock(connection: Connection, record_id: str) -> None:
    """Lock a recording's row to the end of the transaction, against whoever changes its files."""
    await connection.execute("SELECT FROM recording WHERE record_id = %s FOR UPDATE", (record_id,))


async def lock_pending(connection: Connection, record_id: str) -> Pending | None:
    """Lock a recording to the end of the transaction, if something is still to be done to its files."""
    async with connection.cursor(row_factory=class_row(Pending)) as cursor:
        await cursor.execute(f"{_PENDING} WHERE r.record_id = %s AND r.pending IS NOT NULL FOR UPDATE", (record_id,))
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
            UPDATE recording SET state = 'deleted', deleted_at = now(), pending = NULL
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


# --- playback --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Playable:
    """A format that is published; `url` is the path of its page."""

    url: str
    protected: bool


async def find_playable(
    connection: Connection, tenant: UUID | None, record_id: str, format_name: str
) -> Playable | None:
    """Return a format of a recording, if it is published and stays so, and belongs to the tenant."""
    async with connection.cursor(row_factory=class_row(Playable)) as cursor:
        await cursor.execute(
            """
            SELECT f.url, r.protected FROM recording r JOIN playback_format f ON f.recording = r.id
             WHERE r.record_id = %(record_id)s AND f.format = %(format)s
               AND r.published AND r.state <> 'deleted' AND coalesce(r.pending, 'published') = 'published'
               AND (%(tenant)s::uuid IS NULL OR r.tenant = %(tenant)s)
            """,
            {"record_id": record_id, "format": format_name, "tenant": tenant},
        )
        return await cursor.fetchone()


async def use_token(connection: Connection, digest: bytes, record_id: str, format_name: str) -> bool:
    """Use a token up; False if it is not there, has expired, or is of another recording or format."""
    cursor = await connection.execute(
        """
        DELETE FROM playback_token t USING recording r
         WHERE t.digest = %s AND r.id = t.recording AND r.record_id = %s AND t.format = %s AND t.expires_at > now()
        """,
        (digest, record_id, format_name),
    )
    return cursor.rowcount == 1


async def cookie_key(connection: Connection, new: bytes) -> bytes:
    """Return the cluster's key for cookies; the first to ask makes it."""
    cursor = await connection.execute(
        "UPDATE cluster SET cookie_key = coalesce(cookie_key, %s) RETURNING cookie_key", (new,)
    )
    return bytes((await cursor.fetchone() or {})["cookie_key"])


async def add_tokens(connection: Connection, tokens: Mapping[tuple[str, str], bytes], minutes: int) -> None:
    """Keep the digests of one-time tokens, by (record id, format), and drop those that have expired; one statement."""
    await connection.execute(
        """
        WITH expired AS (DELETE FROM playback_token WHERE expires_at < now())
        INSERT INTO playback_token (digest, recording, format, expires_at)
        SELECT new.digest, r.id, new.format, now() + %(minutes)s * interval '1 minute'
          FROM unnest(%(ids)s::text[], %(formats)s::text[], %(digests)s::bytea[]) AS new (record_id, format, digest)
          JOIN recording r USING (record_id)
        """,
        {
            "minutes": minutes,
            "ids": [record_id for record_id, _ in tokens],
            "formats": [format_name for _, format_name in tokens],
            "digests": list(tokens.values()),
        },
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
    """Return (tenant's name, record id) of the recordings that their tenants keep no longer, oldest first."""
    cursor = await connection.execute(
        """
        SELECT t.name, r.record_id FROM recording r JOIN tenant t ON t.id = r.tenant
         WHERE (t.recordings ->> 'keep_days')::bigint > 0
           AND r.end_ms < %(now_ms)s - (t.recordings ->> 'keep_days')::bigint * 86400000
           AND r.state <> 'deleted'
         ORDER BY r.end_ms, r.record_id
        """,
        {"now_ms": now_ms},
    )
    return [(row["name"], row["record_id"]) for row in await cursor.fetchall()]
